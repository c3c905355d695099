"""`forget`: erases clients herd-wide, over the web port of a running server."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from proxyherd.base.escapes import escaped
from proxyherd.cli.asking import one_word, words_of
from proxyherd.cli.common import (
    Failure,
    Misconfigured,
    NotReached,
    config_option,
    examples,
    load_herd,
    print_table,
    secret_file_option,
    server_names,
)
from proxyherd.cli.contents import progress_bar, read_journal
from proxyherd.cli.signing import token_source
from proxyherd.cli.web_port import reachable, token_file_option
from proxyherd.client.rules.errors import Unreachable
from proxyherd.config.herd_file import Herd, Server
from proxyherd.core.messages import received
from proxyherd.remote import ask, erasures
from proxyherd.remote.tailing import parse_since

if TYPE_CHECKING:
    from proxyherd.bridge.inventory import Inventory

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PATIENCE_SECONDS: Final = 15.0
"""How long a server that restarts, or is not ready, is waited for."""

_MOST_NAMED: Final = 5


def _moment(_: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        when = datetime.fromisoformat(parse_since(value, time.time()))
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from error
    return (when - _EPOCH) // timedelta(microseconds=1) * 1_000


@click.command(
    short_help="Erase clients herd-wide.",
    epilog=examples(
        "proxyherd forget kiwi.cs.ucla.edu",
        "proxyherd forget --prefix tour-42/ --dry-run",
        "proxyherd forget --all-before 90d --yes",
        "proxyherd forget --file gone.txt",
        "proxyherd forget --list",
    ),
)
@click.argument("clients", nargs=-1, callback=words_of, metavar="[CLIENT]...")
@click.option(
    "--file",
    type=click.File("rb"),
    metavar="FILE",
    help="Erase the clients whose IDs are in FILE, one a line; - is stdin.",
)
@click.option(
    "--prefix",
    callback=lambda c, p, v: v and one_word(c, p, v),
    metavar="TEXT",
    help="Erase all clients whose IDs begin with TEXT.",
)
@click.option(
    "--all-before",
    "before",
    callback=_moment,
    metavar="DATE",
    help="Erase all clients that no server has heard of since DATE: 90d, or an ISO 8601 time (UTC unless it says otherwise).",
)
@click.option("--list", "lists", is_flag=True, help="Say how many tombstones there are, and erase nothing.")
@click.option(
    "--dry-run", is_flag=True, help="Print the IDs of the clients that would be erased, one a line."
)
@click.option("--yes", is_flag=True, help="Ask nothing on a terminal.")
@click.option(
    "--server",
    "name",
    metavar="NAME",
    shell_complete=server_names,
    help="Which server to tell, and whose journal to list.  [default: the first one that can be reached]",
)
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The journal's folder to list, instead of var/lib.",
)
@token_file_option()
@secret_file_option()
@config_option()
@click.pass_context
def forget(
    ctx: click.Context,
    *,
    clients: list[bytes],
    file: Any,
    prefix: bytes | None,
    before: int | None,
    lists: bool,
    dry_run: bool,
    yes: bool,
    name: str | None,
    folder: Path | None,
    token_file: Path | None,
    secret_file: Path | None,
) -> None:
    """Erase CLIENTs herd-wide: what servers have received of them is gone, and does not come back from a neighbour, a
    journal or a backup. A report that comes later counts.

    It asks the web port of one server, which needs no other. With --prefix and --all-before, the clients are read from the
    journal of a server of this machine, or from Redis; who reports meanwhile stays. Logs and backups are not changed.

    Exit codes: 0 erased; 1 not all of them, or nobody confirmed it; 2 bad usage, or the herd has no web port; 3 no
    server was reached.
    """
    herd = load_herd(ctx)
    ways = [bool(clients), file is not None, prefix is not None or before is not None, lists]
    if ways.count(True) != 1:
        raise click.UsageError(
            "name CLIENTs, a --file, a --prefix and/or a date with --all-before, or --list"
        )
    if lists:
        _print_tombstones(herd)
        return
    began, until = time.time_ns(), None
    if file is not None:
        clients = _read_file(file)
    elif not clients:
        clients = _list_clients(herd, name, folder, secret_file, prefix or b"", before)
        until = began if before is None else before
    if dry_run:
        click.echo("".join(f"{escaped(client)}\n" for client in clients), nl=False)
        click.echo(f"{_count(len(clients))} would be erased", err=True)
        return
    server = reachable(herd, name)
    if clients and not yes and _is_terminal():
        _confirm(clients)
    _erase(server, token_source(herd, token_file, "erase"), clients, until)


def _read_file(file: Any) -> list[bytes]:
    """Return the IDs in a file. Raises Misconfigured."""
    clients: dict[bytes, None] = {}
    for number, line in enumerate(file, 1):
        words = line.split()
        if len(words) > 1:
            raise Misconfigured(
                f"{file.name}: line {number} has several words; an ID is one, so write one a line"
            )
        clients.update(dict.fromkeys(words))
    return [*clients]


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _confirm(clients: Sequence[bytes]) -> None:
    named = ", ".join(map(escaped, islice(clients, _MOST_NAMED)))
    more = ", ..." if len(clients) > _MOST_NAMED else ""
    click.echo(f"{named}{more}", err=True)
    if not click.confirm(
        f"Erase {_count(len(clients))} herd-wide? Nothing brings back what is erased.", err=True
    ):
        raise Failure("nothing is erased")


def _erase(server: Server, token: Callable[[], str], clients: Sequence[bytes], before: int | None) -> None:
    """Erase clients, and say how far it is. Raises Failure, NotReached."""
    erased = stayed = 0

    def told(more_erased: int, more_stayed: int) -> None:
        nonlocal erased, stayed
        erased, stayed = erased + more_erased, stayed + more_stayed
        bar.update(more_erased + more_stayed)

    def open_eraser() -> erasures.Eraser:
        return erasures.Eraser(server, token, _PATIENCE_SECONDS)

    try:
        with progress_bar("Erasing", len(clients)) as bar:
            erasures.erase_all(open_eraser, clients, before, told)
    except erasures.NotErased as error:
        raise Failure(f"{error}. {_so_far(erased, stayed, clients)}") from error
    except Unreachable as error:
        raise NotReached(f"{server.name} is gone: {error}. {_so_far(erased, stayed, clients)}") from error
    click.echo(f"{_count(erased)} erased herd-wide{_stays(stayed)}")


def _so_far(erased: int, stayed: int, clients: Sequence[bytes]) -> str:
    if len(clients) == 1:
        return "The client is not erased"
    done = f"{erased:,} of {_count(len(clients))} are erased{_stays(stayed)}"
    return f"{done}; run the same again, it does no harm to erase twice"


def _stays(stayed: int) -> str:
    return f"; {_count(stayed)} stayed, having been seen since" if stayed else ""


def _count(clients: int) -> str:
    return "1 client" if clients == 1 else f"{clients:,} clients"


# Which clients, and how many tombstones. -----------------------------------------------------------------------


def _list_clients(
    herd: Herd,
    name: str | None,
    folder: Path | None,
    secret_file: Path | None,
    prefix: bytes,
    before: int | None,
) -> list[bytes]:
    """Return the clients that the herd knows now, whose IDs begin with `prefix`, and of which no server has received
    anything since `before`, nanoseconds of POSIX time. Raises Misconfigured, ConfigError.
    """
    if herd.redis is not None:
        lines = _read_cluster(herd).lines
    else:
        lines = _read_some_journal(herd, name, folder, secret_file)
    return sorted(
        client
        for client, line in lines.items()
        if client.startswith(prefix) and (before is None or received(line) <= before)
    )


def _read_some_journal(
    herd: Herd, name: str | None, folder: Path | None, secret_file: Path | None
) -> dict[bytes, bytes]:
    """Return the AT line of each client in a journal of this machine."""
    if folder is None:
        names = [herd.server(name).name] if name is not None else [*herd.servers]
        folders = [Path("var/lib") / one / "journal" for one in names]
        folder = next((one for one in folders if one.is_dir()), folders[0])
    found = read_journal(folder, herd, secret_file)
    if found.damaged:
        click.echo(f"{folder}: {found.damaged} records damaged: proxyherd journal verify", err=True)
    return {client: entry.line for client, entry in found.entries.items()}


def _read_cluster(herd: Herd) -> Inventory:
    """Return what the herd's cluster holds. Raises NotReached."""
    from proxyherd.bridge.inventory import read_cluster  # noqa: PLC0415 - it takes long, and not all herds have one
    from proxyherd.bridge.passes import Unfit  # noqa: PLC0415

    try:
        return read_cluster(herd, _PATIENCE_SECONDS)
    except Unfit as error:
        raise NotReached(f"the cluster cannot be read: {error}; see `proxyherd status`") from error


def _print_tombstones(herd: Herd) -> None:
    """Print how many tombstones there are, never whose. Raises NotReached."""
    if herd.redis is not None:
        count = _read_cluster(herd).tombstones
        click.echo(f"{count:,} tombstone{'' if count == 1 else 's'} in the cluster")
        return
    rows = [("server", "tombstones")]
    for server in herd.servers.values():
        try:
            rows.append((server.name, f"{ask.tombstones(server, _PATIENCE_SECONDS):,}"))
        except Unreachable as error:
            rows.append((server.name, f"unknown: {error}"))
    print_table(rows)
    if all(count.startswith("unknown") for _, count in rows[1:]):
        raise NotReached("no server says how many tombstones it holds; see `proxyherd status`")
