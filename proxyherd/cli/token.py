"""`token`: tokens of web clients, made and looked at where their key is."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from proxyherd.base.escapes import escaped
from proxyherd.cli.common import (
    Failure,
    Misconfigured,
    NotReached,
    config_option,
    examples,
    load_herd,
    server_names,
)
from proxyherd.cli.signing import DAY_SECONDS, new_token, signing_key, token_source
from proxyherd.cli.web_port import reachable, token_file_option
from proxyherd.client.rules.errors import Unreachable
from proxyherd.config import secrets
from proxyherd.config.token_keys import read_token_keys
from proxyherd.core.messages import NANOSECONDS
from proxyherd.remote import erasures
from proxyherd.web.access import Access, TokenProblem
from proxyherd.web.rights import MOST_NAME_CHARACTERS, RIGHTS, Grant, Right
from proxyherd.web.tokens import MOST_TOKEN_BYTES, TokenVerifier

_PATIENCE_SECONDS: Final = 15.0
"""How long a server that restarts, or is not ready, is waited for."""

_RIGHTS: Final = ", ".join(RIGHTS)


def _rights(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> list[Right]:
    wanted = [one.strip() for value in values for one in value.split(",")]
    if unknown := [one for one in wanted if one not in RIGHTS]:
        raise click.BadParameter(f"{unknown[0]!r} is none of {_RIGHTS}", param=parameter)
    return [right for right in RIGHTS if right in wanted]


def _name(_: click.Context, parameter: click.Parameter, value: Any) -> Any:
    for one in [value] if isinstance(value, str) else value:
        if not 0 < len(one) <= MOST_NAME_CHARACTERS:
            raise click.BadParameter(f"has 1 to {MOST_NAME_CHARACTERS} characters", param=parameter)
    return value


@click.group()
def token() -> None:
    """Tokens, by which web clients say who they are."""


@token.command(
    "key",
    short_help="Write a new key for tokens to a file.",
    epilog=examples("proxyherd token key var/token-key"),
)
@click.argument("file", type=click.Path(path_type=Path))
def token_key(file: Path) -> None:
    """Write a key for tokens to FILE, readable by its owner only: 32 random bytes, for HS256. Whoever has it can make any
    token. An existing file is never overwritten.
    """
    try:
        secrets.create(file)
    except FileExistsError:
        raise Failure(f"{file}: exists already, and was left as it is") from None
    except OSError as error:
        raise Misconfigured(
            f"{file}: {error.strerror}; it is written into an existing directory, with room for it"
        ) from error


@token.command(
    "new",
    epilog=examples(
        "proxyherd token new --sub jane/phone --may report",
        "proxyherd token new --sub 'jane/*' --may report,see --days 7",
        "proxyherd token new --sub map --may see --see '*'",
        "proxyherd token new --sub '*' --may erase,operate --days 1 --key token-key.pem",
    ),
)
@click.option(
    "--sub",
    "subject",
    required=True,
    callback=_name,
    metavar="NAME",
    help="Whose token it is: a client, or the beginning of clients' names with * behind it.",
)
@click.option(
    "--may",
    multiple=True,
    required=True,
    callback=_rights,
    metavar="RIGHTS",
    help=f"What it allows, with commas between: {_RIGHTS}.",
)
@click.option(
    "--see",
    multiple=True,
    callback=_name,
    metavar="NAME",
    help="A client that its holder may see, or the beginning of names with * behind it; may be repeated.  "
    "[default: as --sub]",
)
@click.option(
    "--days",
    type=click.FloatRange(0, min_open=True),
    help="How long it lives.  [default: tombstone_seconds of the herd's file, which is the most]",
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The key to sign it with: 32 bytes, or a private key of Ed25519.  [default: the first of keys in [auth]]",
)
@config_option()
@click.pass_context
def token_new(
    ctx: click.Context,
    *,
    subject: str,
    may: list[Right],
    see: tuple[str, ...],
    days: float | None,
    key_file: Path | None,
) -> None:
    """Print a token. Servers accept it if they have its key; they need not be told.

    Keep it like a password: whoever has it may do what it allows.
    """
    herd = load_herd(ctx)
    key = signing_key(herd, key_file)
    most = herd.erasure.tombstone_seconds
    seconds = most if days is None else days * DAY_SECONDS
    if seconds > most:
        raise click.BadParameter(
            f"{days:g} is more than the {most / DAY_SECONDS:g} for which tombstone_seconds lets a revocation be "
            "remembered",
            param_hint="--days",
        )
    made = new_token(key, subject, may, see or None, seconds)
    if len(made) > MOST_TOKEN_BYTES:
        raise click.BadParameter(
            f"makes a token of {len(made):,} characters, and servers read {MOST_TOKEN_BYTES:,}; name beginnings with * "
            "behind them",
            param_hint="--see",
        )
    click.echo(made)


@token.command(
    "verify",
    short_help="Say what a token allows, and for how long.",
    epilog=examples("proxyherd token verify phone.token", "proxyherd token verify < phone.token"),
)
@click.argument("file", type=click.File("rb"), default="-")
@config_option()
@click.pass_context
def token_verify(ctx: click.Context, *, file: Any) -> None:
    """Say what the token in FILE, or on stdin, allows, and for how long. It is no argument, because others see those.

    The keys are those of [auth]. Only servers know whether it was revoked.

    Exit codes: 0 it is good now; 1 it is not; 2 the keys cannot be read.
    """
    herd = load_herd(ctx)
    keys = read_token_keys(herd.auth, herd.file, os.environ)
    found = file.read(MOST_TOKEN_BYTES + 2).strip().decode("ascii", "replace")
    access = Access(lambda _: 0)
    try:
        grant = TokenVerifier(keys, herd.erasure.tombstone_seconds).verify(found)
    except TokenProblem as problem:
        raise Failure(problem.detail) from None
    _print_grant(grant)
    access.renew(TokenVerifier(keys, herd.erasure.tombstone_seconds))
    if (refusal := access.refusal(grant, time.time_ns())) is not None:
        raise Failure(TokenProblem(refusal).detail)


def _print_grant(grant: Grant) -> None:
    for what, said in (
        ("sub", grant.subject),
        ("may", ", ".join(right for right in RIGHTS if right in grant.may)),
        ("see", ", ".join(grant.see)),
        ("issued", _date(grant.issued)),
        ("expires", _date(grant.ends)),
        ("key", grant.key),
    ):
        click.echo(f"{what:8}{said}")


def _date(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds // NANOSECONDS, UTC).isoformat().replace("+00:00", "Z")


@token.command(
    "revoke",
    short_help="Revoke all tokens of a subject.",
    epilog=examples("proxyherd token revoke jane/phone", "proxyherd token revoke 'jane/*' --server Clark"),
)
@click.argument("subject", callback=_name, metavar="SUB")
@click.option(
    "--server",
    "name",
    metavar="NAME",
    shell_complete=server_names,
    help="Which server to tell.  [default: the first one that can be reached]",
)
@token_file_option()
@config_option()
@click.pass_context
def token_revoke(ctx: click.Context, *, subject: str, name: str | None, token_file: Path | None) -> None:
    """Revoke all tokens of the subject SUB that were made up to now, herd-wide. SUB is as in --sub: with `jane/*`, tokens of
    `jane/phone` stay good. Wait 30 seconds before you make a new one: until then it would be revoked too.

    Exit codes: 0 revoked; 1 not revoked; 2 bad usage, or the herd has no web port; 3 no server was reached.
    """
    herd = load_herd(ctx)
    if herd.auth.web != "jwt":
        raise Misconfigured(f'{herd.file}: key auth.web: is not "jwt", so nobody needs a token')
    server = reachable(herd, name)
    eraser = erasures.Eraser(server, token_source(herd, token_file, "operate"), _PATIENCE_SECONDS)
    try:
        eraser.revoke(subject)
    except erasures.NotErased as error:
        raise Failure(str(error)) from error
    except Unreachable as error:
        raise NotReached(f"{server.name} is gone: {error}") from error
    finally:
        eraser.close()
    click.echo(f"tokens of {escaped(subject.encode())} made up to now are revoked herd-wide")
