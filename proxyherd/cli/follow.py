"""`follow`: what happens to clients from now on, over the web port of a running server, or of the next one when that ends."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

import click

from proxyherd.base.backoff import backoff
from proxyherd.base.escapes import escaped, visible, visible_json
from proxyherd.cli.asking import server_option, words_of
from proxyherd.cli.common import (
    Failure,
    Misconfigured,
    NotReached,
    config_option,
    examples,
    load_herd,
    until_stopped,
)
from proxyherd.cli.pipes import PipeWatch
from proxyherd.cli.signing import DAY_SECONDS, token_source
from proxyherd.cli.web_port import place_of, reachable, token_file_option
from proxyherd.client.rules.errors import Unreachable
from proxyherd.config.herd_file import Herd
from proxyherd.remote import events, web_ports
from proxyherd.web.ids import name_of

_FIRST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 10.0


Corners = tuple[tuple[str, str], tuple[str, str]]
"""Latitude and longitude of the south-western corner, and of the north-eastern one."""


def _box(ctx: click.Context, parameter: click.Parameter, value: tuple[str, str] | None) -> Corners | None:
    return None if value is None else (place_of(ctx, parameter, value[0]), place_of(ctx, parameter, value[1]))


def _circle(
    ctx: click.Context, parameter: click.Parameter, value: tuple[str, str] | None
) -> tuple[tuple[str, str], str] | None:
    return None if value is None else (place_of(ctx, parameter, value[0]), value[1])


@click.command(
    short_help="Print where clients are, and each change.",
    epilog=examples(
        "proxyherd follow kiwi.cs.ucla.edu plum",
        "proxyherd follow --near 34.06893,-118.445127 5",
        "proxyherd follow --near 34.06893,-118.445127 0.5 --buffer 25 --json",
        "proxyherd follow --within 34.05,-118.46 34.08,-118.43",
    ),
)
@click.argument("clients", nargs=-1, callback=words_of, metavar="[CLIENT]...")
@click.option(
    "--near",
    nargs=2,
    callback=_circle,
    metavar="LAT,LNG KM",
    help="Follow whoever is within KM kilometres of LAT,LNG.",
)
@click.option(
    "--within",
    nargs=2,
    callback=_box,
    metavar="LAT,LNG LAT,LNG",
    help="Follow whoever is in a box, from its south-western corner to its north-eastern one.",
)
@click.option(
    "--buffer",
    type=click.FloatRange(min=0),
    metavar="METRES",
    help="With --near or --within: a client has left only when it is so far outside.  [default: 0]",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the events of the server as they are, one a line."
)
@server_option("ask", default="the first one that can be reached")
@token_file_option()
@config_option()
@click.pass_context
def follow(
    ctx: click.Context,
    *,
    clients: list[bytes],
    near: tuple[tuple[str, str], str] | None,
    within: Corners | None,
    buffer: float | None,
    as_json: bool,
    name: str | None,
    token_file: Path | None,
) -> None:
    """Print where CLIENTs are, or who is in a circle or a box, and then each change, until Ctrl-C.

    It asks the web port of one server. When that ends, it goes on with the first one that can be reached.

    Exit codes: 0 ended by Ctrl-C or a closed pipe; 1 the server does not answer that; 2 bad usage, or the herd has no web
    port; 3 no server was reached at first.
    """
    query = _query(clients, near, within, buffer)
    herd = load_herd(ctx)
    printer = _JsonPrinter() if as_json else _TextPrinter(len({*clients}))
    with until_stopped():
        # A connection ends with its token.
        _follow(herd, name, token_source(herd, token_file, "see", DAY_SECONDS), query, printer)


def _query(
    clients: Sequence[bytes],
    near: tuple[tuple[str, str], str] | None,
    within: Corners | None,
    buffer: float | None,
) -> list[tuple[str, str]]:
    """Return the parameters of `/v1/events`. Raises UsageError."""
    if bool(clients) + (near is not None) + (within is not None) != 1:
        raise click.UsageError("give either CLIENTs, or --near LAT,LNG KM, or --within LAT,LNG LAT,LNG")
    if clients and buffer is not None:
        raise click.UsageError("--buffer is only for an area: use it with --near or --within")
    if clients:
        return [("client", name_of(client)) for client in clients]
    if near is not None:
        area = ("near", ",".join((*near[0], near[1])))
    elif within is not None:
        (south, west), (north, east) = within
        area = ("within", f"{west},{south},{east},{north}")
    return [area, ("buffer_m", f"{buffer or 0:.3f}")]


def _follow(
    herd: Herd,
    name: str | None,
    token: Callable[[], str],
    query: Sequence[tuple[str, str]],
    printer: _Printer,
) -> None:
    """Print events until the reader closes the pipe. Raises Failure, Misconfigured, NotReached."""
    watch, pauses, began = PipeWatch(), _pauses(), False
    while True:
        try:
            server = reachable(herd, name)
            for event in events.followed(server, token(), query):
                if event is not None:
                    pauses, began = _pauses(), True
                    if event.event == "ended":
                        raise Failure(f"{server.name} does not follow that any more: {event.reason}")
                    printer.print(event)
                if watch.is_alone:
                    return
            why = f"{server.name} has ended the connection"
        except web_ports.NotAnswered as error:
            raise (Misconfigured if error.mistaken else Failure)(str(error)) from error
        except (Unreachable, NotReached) as error:
            why = error.message if isinstance(error, NotReached) else str(error)
            if not began:
                raise NotReached(why) from error
        click.echo(visible(f"{why}; connecting again"), err=True)
        printer.begin_again()
        time.sleep(next(pauses))


def _pauses() -> Iterator[float]:
    return backoff(_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS, random.Random())  # noqa: S311 - no secret


class _Printer(Protocol):
    def print(self, event: events.FollowEvent) -> None:
        """Print an event."""

    def begin_again(self) -> None:
        """Know that the next events come from another connection, which begins with a snapshot."""


class _JsonPrinter:
    """Prints events as they came. The snapshot of a new connection says what was missed."""

    def print(self, event: events.FollowEvent) -> None:
        """Print an event."""
        _print_line(visible_json(event.said))

    def begin_again(self) -> None:
        """Do nothing."""


class _TextPrinter:
    """Prints events in words. Of the snapshot of a new connection it prints what is news, and `missing` for clients that are
    not in it any more.
    """

    def __init__(self, asked: int) -> None:
        """`asked`: how many clients are followed by their IDs; 0: those in an area."""
        self._missing = "gone" if asked else "leave"
        self._counted, self._of = (
            ("clients known", f" of {asked:,}") if asked else ("clients in the area", "")
        )
        self._known: dict[str, tuple[str, str]] = {}
        self._unnamed = set[str]()

    def begin_again(self) -> None:
        """Expect a snapshot."""
        self._unnamed = {*self._known}

    def print(self, event: events.FollowEvent) -> None:
        """Print an event, unless it is known."""
        if event.event == "snapshot":
            if event.complete:  # otherwise the others are named as the server learns of them
                for client in sorted(self._unnamed):
                    self._forget(client, self._missing)
                self._unnamed.clear()
            note = "" if event.complete else "; the server is not ready yet, and may not know all"
            click.echo(f"{self._counted}: {event.clients:,}{self._of}; waiting for changes{note}", err=True)
            return
        self._unnamed.discard(event.client)
        if event.event in ("leave", "gone"):
            self._forget(event.client, event.event, event)
            return
        state = (event.server, event.received)
        if self._known.get(event.client) != state:
            self._known[event.client] = state
            self._line(event.event, event.client, event)

    def _forget(self, client: str, kind: str, event: events.FollowEvent | None = None) -> None:
        self._known.pop(client, None)
        self._line(kind, client, event)

    def _line(self, kind: str, client: str, event: events.FollowEvent | None) -> None:
        where = [] if event is None or not event.received else [_location(event), escaped(event.server)]
        stamp = _stamp("" if event is None else event.received)
        _print_line("  ".join([stamp, f"{escaped(kind):5}", web_ports.shown_id(client), *where]))


def _location(event: events.FollowEvent) -> str:
    return escaped(b"%b,%b" % (bytes(event.lat), bytes(event.lon)))


def _stamp(received: str) -> str:
    """Return when a server has taken a report, in UTC; if that is not said, what time it is."""
    try:
        moment = datetime.fromtimestamp(float(received), UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.now(UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _print_line(line: str) -> None:
    sys.stdout.buffer.write(f"{line}\n".encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()
