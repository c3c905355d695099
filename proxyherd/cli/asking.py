"""What `iamat` and `whatsat` share: one command of a client to one server, and its answer; and the IDs of clients as
arguments.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click
import msgspec

from proxyherd.base.escapes import escaped, visible, visible_json
from proxyherd.cli.common import Failure, Misconfigured, NotReached, load_herd, server_names
from proxyherd.cli.pipes import while_read
from proxyherd.cli.refusals import explain_refusal
from proxyherd.client.blocking import SyncHerdClient
from proxyherd.client.endpoints import Endpoint
from proxyherd.client.rules.errors import Unreachable
from proxyherd.config.herd_file import Herd, Server
from proxyherd.remote.ask import MAX_ANSWER_BYTES

if TYPE_CHECKING:
    import ssl

F = TypeVar("F", bound=Callable[..., Any])

_UNTRUSTED: Final = ("issuer certificate", "self-signed", "self signed", "verify the first certificate")
"""What OpenSSL says of a certificate whose signer it does not trust: one of these."""

SIGNED: dict[str, Any] = {"ignore_unknown_options": True}
"""Settings of a command whose arguments may begin with a sign: otherwise click takes a location for an option."""


def one_word(_: click.Context, parameter: click.Parameter, value: str) -> bytes:
    """Return one field of a command line, byte for byte; with white space it would be two fields, or two commands."""
    word = os.fsencode(value)
    if word.split() != [word]:
        raise click.BadParameter("is one word, without white space", param=parameter)
    return word


def words_of(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[bytes]:
    """Return the fields of several arguments."""
    return [one_word(ctx, parameter, value) for value in values]


def server_option(what: str, default: str = "the file's first") -> Callable[[F], F]:
    """Return the option that names the server; `what` is its purpose, and `default` the server without it, for the help."""
    return click.option(
        "--server",
        "name",
        metavar="NAME",
        shell_complete=server_names,
        help=f"Which server to {what}.  [default: {default}]",
    )


def json_option() -> Callable[[F], F]:
    """Return the option of a command whose answer programs read."""
    return click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON object, with the names that the web port has."
    )


def authority_option() -> Callable[[F], F]:
    """Return the option that names who has signed the certificates of client ports."""
    return click.option(
        "--ca",
        "authority",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Where client ports speak TLS: the authority that has signed their certificate (PEM).  [default: those that this "
        "machine trusts, and peers_authority]",
    )


def _context(herd: Herd, server: Server, authority: Path | None) -> tuple[ssl.SSLContext | None, str]:
    """Return what makes connections speak TLS, if the client ports do; and why the file of `peers_authority` cannot be used,
    which does no harm if this machine trusts the certificate. Raises Misconfigured, UsageError.
    """
    if herd.tls.clients_certificate is None:
        if authority is None:
            return None, ""
        raise click.UsageError(
            f"--ca is for client ports that speak TLS; {herd.file} has no clients_certificate"
        )
    import ssl  # noqa: PLC0415 - `serve` does not wait for it here

    context = ssl.create_default_context() if authority is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file = authority
    if file is None and herd.tls.peers_authority is not None:
        file = herd.file.parent / herd.tls.peers_authority.replace("{name}", server.name)
    try:
        if file is not None:
            context.load_verify_locations(file)
    except OSError as error:  # also for what is no certificate
        reason = f"{file}: {error.strerror or error}"
        if authority is None:
            return context, reason
        raise Misconfigured(
            f"{reason}; name a file with the authority of the client ports with --ca"
        ) from error
    return context, ""


def ask_server(
    ctx: click.Context, name: str | None, line: bytes, *, authority: Path | None, raw: bool, as_json: bool
) -> None:
    """Send a command with all its operands to one server, print its answer, and exit. Raises NotReached, UsageError."""
    if raw and as_json:
        raise click.UsageError("give either --raw or --json")
    herd = load_herd(ctx)
    server = herd.server(name) if name is not None else next(iter(herd.servers.values()))
    # Longer than the server itself may take: it answers for Places that do not.
    seconds = 5 + herd.timing.ready_seconds + herd.places.deadline_seconds
    tls, unusable = _context(herd, server, authority)
    client = SyncHerdClient(
        Endpoint(server.clients),
        timeout=seconds,
        patience=seconds,
        retry=False,
        tls=tls,
        most_bytes=MAX_ANSWER_BYTES,
    )
    try:
        with client:
            answer = client.command(line)
    except Unreachable as error:
        others = [other for other in herd.servers if other != server.name]
        remedy = "see `proxyherd status`" + (f", or ask another: --server {others[0]}" if others else "")
        if any(words in str(error) for words in _UNTRUSTED):
            remedy = "if its certificate is good, name who has signed it with --ca FILE"
            if unusable:
                remedy += f" (peers_authority cannot be used: {unusable})"
        raise NotReached(f"cannot reach {server.name} at {error}; {remedy}") from error
    refusal = None if answer.startswith(b"AT ") else explain_refusal(line, herd.limits)
    with while_read():
        if as_json:
            click.echo(visible_json(msgspec.json.encode(refusal) if refusal else _as_json(answer)))
        else:
            click.echo(answer if raw else _readable(answer), nl=False)
        if refusal is not None and not as_json:
            click.echo(visible(refusal.detail), err=True)
    ctx.exit(0 if refusal is None else Failure.exit_code)


def _as_json(answer: bytes) -> bytes:
    """Return an answer as one JSON object on one line, with the names that the web port has."""
    at, _, places = answer.partition(b"\n")
    said: dict[str, object] = {"at": escaped(at)}
    if places.strip():  # strings have no line ends, so those between them may go
        said["places"] = msgspec.Raw(b"".join(places.splitlines()))
    else:
        said |= zip(("server", "difference"), map(escaped, at.split(b" ")[1:3]), strict=False)
    return msgspec.json.encode(said)


def _readable(answer: bytes) -> bytes:
    """Return an answer without invisible characters; places are the same JSON in another spelling."""
    first, end, places = answer.partition(b"\n")
    return f"{escaped(first)}{end.decode()}{visible_json(places)}".encode()
