"""`status`: how all servers of a herd are, once or for as long as one looks.

The live table is drawn with half a dozen of the oldest escape sequences, in one write a frame and over the frame
before it: a library for terminals would be a dependency of every server, and what it is best at is not needed here.
"""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from proxyherd.admin.status_page.state import ServerState
from proxyherd.base.words import spell_seconds
from proxyherd.cli.common import (
    Failure,
    config_option,
    examples,
    load_herd,
    shown_path,
    spelled_addresses,
    table_lines,
    until_stopped,
)
from proxyherd.cli.pipes import while_read
from proxyherd.cli.status_json import status_json
from proxyherd.config.herd_file import Herd
from proxyherd.remote import ask, polling
from proxyherd.remote.ask import Status
from proxyherd.remote.polling import Seen
from proxyherd.remote.progress import Progress, describe

_BEGIN = (
    "\x1b[?25l\x1b[?7l\x1b[2J"  # no cursor; long lines are cut, for a wrapped one would move all below it
)
_HOME, _END_OF_LINE, _REST = "\x1b[H", "\x1b[K", "\x1b[J"
_END = "\x1b[?7h\x1b[?25h"

_ONCE = (
    *("server", "clients", "peers", "admin", "web", "state", "links", "known", "connections", "commands"),
    "mended",
)
_ONCE_IN_REDIS = (
    *("server", "clients", "admin", "web", "state", "masters", "waiting", "connections", "commands"),
)
_WATCHED = (
    *("server", "state    ", "links", "known  ", "cmds/s ", "in/s   ", "out/s  ", "lag p99 ", "mended "),
    *("journal", "remark"),
)
_WATCHED_IN_REDIS = ("server", "state    ", "masters", "waiting ", "cmds/s ", "lag p99 ", "remark")
"""The headings of the tables, those of the live ones wide enough that their columns don't move."""

_MOST_LAG_SECONDS = 0.1
"""No answer may be delayed by more."""

_MOST_CLOCK_SECONDS = 1.0
"""By which neighbours' clocks may differ."""

_PROGRESS_SECONDS = 0.2
"""The interval of questions to a starting herd."""

_PATIENT_SECONDS = 5.0
"""For the answers of one server while the herd starts: a busy machine is slow, and nobody needs to see at once that one
hangs."""

_STATE_COLOURS = {"ready": "green", "not ready": "yellow", "unknown": "red"}


@click.command(
    short_help="Print how all servers are.",
    epilog=examples(
        "proxyherd status",
        "proxyherd status --wait 30 && echo the herd is whole",
        "proxyherd status --watch",
        "proxyherd status --watch --interval 10 >> status.txt",
        "proxyherd status --json | jq -r '.servers[] | select(.state != \"ready\") | .server'",
    ),
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="First wait, this long at most, until all servers are ready and linked.",
)
@click.option(
    "--progress",
    is_flag=True,
    help="With --wait: wait on for as long as the start makes progress, and show it on stderr.",
)
@click.option("--watch", is_flag=True, help="Show what happens, until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1, max=3600),
    metavar="SECONDS",
    help="How often --watch asks and shows.  [default: 1]",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; with --watch one a line.")
@config_option()
@click.pass_context
def status(
    ctx: click.Context,
    *,
    wait: float,
    progress: bool,
    watch: bool,
    interval: float | None,
    as_json: bool,
) -> None:
    """Print a table of the servers: state, links, clients known, connections of clients (how many of them by HTTP
    and WebSocket), commands so far, entries mended by the last checks with its neighbours.

    With --watch: state, links, clients known, commands a second, updates a second that came and went over links, by
    how much the event loop was late (p99), entries mended, the journal. A server that does not answer within a second
    is unknown: it may run all the same.

    Exit codes: 0 all are up, ready and linked; 1 otherwise. With --watch: as it was last.
    """
    if interval is not None and not watch:
        raise click.UsageError("--interval goes with --watch")
    if progress and not wait:
        raise click.UsageError("--progress goes with --wait")
    herd = load_herd(ctx)
    if progress:
        found = _wait_while_it_starts(herd, wait)
    elif wait or not watch:
        found = _wait(herd, wait)
    if watch:
        found = _watch(herd, interval or 1.0, as_json)
    else:
        with while_read():
            click.echo(status_json(herd, [polling.Seen(one) for one in found])) if as_json else _print(
                herd, found
            )
    ctx.exit(0 if all(one.whole for one in found) else Failure.exit_code)


def _wait(herd: Herd, seconds: float) -> Sequence[Status]:
    """Ask until the herd is whole, or the seconds have passed."""
    deadline = time.monotonic() + seconds
    found = ask.statuses(herd, 1.0)
    while not all(one.whole for one in found) and time.monotonic() < deadline:
        time.sleep(0.1)
        found = ask.statuses(herd, 1.0)
    return found


def _wait_while_it_starts(herd: Herd, seconds: float) -> Sequence[Status]:
    """Ask until the herd is whole, or its start has made no progress for this many seconds; show the progress."""
    progress, live, shown = Progress(), sys.stderr.isatty(), ""
    found, deadline = ask.statuses(herd, _PATIENT_SECONDS), 0.0
    while not all(one.whole for one in found):
        if progress.is_more(found) or not deadline:
            deadline = time.monotonic() + seconds
        elif time.monotonic() >= deadline:
            break
        text = describe(found)
        if text != shown and (live or "replaying" in text):
            click.echo(f"\r{text}{_END_OF_LINE}" if live else text, err=True, nl=not live)
            shown = text
        time.sleep(_PROGRESS_SECONDS)
        found = ask.statuses(herd, _PATIENT_SECONDS)
    if live and shown:
        click.echo(f"\r{_END_OF_LINE}", err=True, nl=False)
    return found


# Once. -------------------------------------------------------------------------------------------------------


def _print(herd: Herd, found: Sequence[Status]) -> None:
    for line in _table([Seen(one) for one in found], _ONCE, _ONCE_IN_REDIS):
        click.echo(line)
    for text in dict.fromkeys(map(_whose, found)):
        if text:
            whose = ", ".join(_process(one) for one in found if _whose(one) == text)
            click.echo(f"{whose}: {text}, not {herd.file}", err=True)
    for one in found:
        if not one.whole and not (_whose(one) and one.state == "ready"):
            click.echo(_remark(one), err=True)
        if text := _over_rate(one.told):
            click.echo(f"{one.server.name}: {text}; the event client_over_rate in its log names one")
        if text := _clocks(one.told):
            click.echo(f"{one.server.name}: {text}; set the clocks with NTP", err=True)
        if text := _lost_lines(one.told):
            click.echo(f"{one.server.name}: {text}; look with df -h and df -i at the log's folder", err=True)
        if text := _other_keys(one.told):
            remedy = "erasures at one have no effect at the other; the same secret.table belongs on all hosts"
            click.echo(f"{one.server.name}: {text}: {remedy}", err=True)


def _table(seen: Sequence[Seen], heads: tuple[str, ...], in_redis: tuple[str, ...]) -> Iterator[str]:
    """Return the lines of a table; servers whose table is in Redis have no peers, and not all have a web port."""
    heads = heads if any(one.status.server.peers for one in seen) else in_redis
    if not any(one.status.server.web for one in seen):
        heads = tuple(head for head in heads if head != "web")
    rows = (tuple(cells.get(head.strip(), "-") for head in heads) for cells in map(_cells, seen))
    return table_lines([heads, *rows])


def _cells(seen: Seen) -> dict[str, str]:
    """Return what is known of a server, by the head of its column."""
    one, told, rates = seen.status, seen.status.told, seen.rates
    addresses = {key: text or "-" for key, text in spelled_addresses(one.server).items()}
    cells = {"server": one.server.name, **addresses}
    cells |= {"state": click.style(one.state, fg=_STATE_COLOURS[one.state]), "remark": one.problem}
    if told is not None:
        cells |= {
            "links": _links(one),
            "known": str(told.clients),
            "connections": _connections(told),
            "commands": str(told.answered),
            "mended": str(told.mended),
            "journal": click.style("failing", fg="red") if told.journal_failing else "ok",
            "masters": _masters(told),
            "waiting": str(told.waiting),
            "remark": _reason(one)
            or _over_rate(told)
            or _lost_lines(told)
            or _clocks(told)
            or _other_keys(told),
        }
    if rates is not None:
        cells |= {
            "cmds/s": _rate(rates.commands),
            "in/s": _rate(rates.floods_in),
            "out/s": _rate(rates.floods_out),
            "lag p99": "-" if rates.lag_p99 is None else _lag(rates.lag_p99),
        }
    return cells


def _connections(told: ServerState) -> str:
    """Return how many clients are connected, and how many of them not by the line protocol."""
    others = [f"{count} {via}" for via, count in told.protocols.items() if count and via != "lines"]
    return f"{told.connections} ({', '.join(others)})" if others else str(told.connections)


def _over_rate(told: ServerState | None) -> str:
    """Return how many clients ask too fast now, "" if none does."""
    if told is None or not told.over_rate:
        return ""
    clients = "1 client waits" if told.over_rate == 1 else f"{told.over_rate} clients wait"
    return f"{clients}, over a rate of [rates]"


def _lost_lines(told: ServerState | None) -> str:
    """Return that the last lines of the log were lost, "" if they were not."""
    return "cannot write its log: lines are lost" if told is not None and told.log_failing else ""


def _clocks(told: ServerState | None) -> str:
    """Return which neighbours' clocks differ by more than a second, "" if none does."""
    clocks = sorted(told.clocks.items()) if told is not None else []
    return ", ".join(
        f"the clock of {name} is {spell_seconds(abs(ahead))} {'ahead' if ahead > 0 else 'behind'}"
        for name, ahead in clocks
        if abs(ahead) > _MOST_CLOCK_SECONDS
    )


def _other_keys(told: ServerState | None) -> str:
    """Return which neighbours' tables have another key than the server's, "" if none has."""
    if told is None or not told.other_keys:
        return ""
    return f"the key of its table is not that of {', '.join(told.other_keys)}"


def _masters(told: ServerState) -> str:
    masters = f"{told.masters_up}/{told.masters}"
    return click.style(masters, fg="yellow") if told.masters_up < told.masters else masters


def _links(one: Status) -> str:
    wanted = len(one.server.neighbours)
    links = f"{wanted - len(one.missing)}/{wanted}"
    return click.style(links, fg="yellow") if one.missing else links


def _remark(one: Status) -> str:
    """Return what is wrong with a server, and where to look."""
    name = one.server.name
    text = f"{name} {_reason(one)}"
    if one.is_silent:
        text += ", so it hangs or is very busy: if that does not end, restart it"
    log, errors = f"var/log/{name}.log", f"var/log/{name}.stderr.log"
    there = [one for one in (log, f"/var/log/proxyherd/{name}.log") if _written(one)]
    if _written(errors) >= max(_written(log), 1):  # else it has started since
        there.append(errors)
    return text + (f"; see {' and '.join(there)}" if there else "")


def _reason(one: Status) -> str:
    if one.told is None:
        return f"cannot be asked: {one.problem}"
    if not one.told.ready:
        return f"is not ready: {one.problem or 'it gives no reason'}"
    refusals = one.told.refusals
    missing = [f"{name} ({refusals[name]})" if name in refusals else name for name in one.missing]
    return _whose(one) or (f"has no link with {', '.join(missing)}" if missing else "")


def _whose(one: Status) -> str:
    """Return which herd a server is of, "" if it is of the one that was asked."""
    told = one.told
    in_redis = told is not None and told.masters > 0 and bool(one.server.peers)
    if told is None or not (one.other_file or in_redis):
        return ""
    what = "of a herd with its table in Redis" if in_redis else "of another herd"
    return f"{what}; use --config {shown_path(one.other_file) if one.other_file else 'with the file of its herd'}"


def _process(one: Status) -> str:
    known = one.told is not None and one.told.process
    return f"{one.server.name} (process {known})" if known else one.server.name


def _written(file: str) -> int:
    """Return when a file was last written, in nanoseconds; 0 if nothing is in it."""
    try:
        found = Path(file).stat()
    except OSError:
        return 0
    return found.st_mtime_ns if found.st_size else 0


# Again and again. --------------------------------------------------------------------------------------------


def _watch(herd: Herd, interval: float, as_json: bool) -> Sequence[Status]:
    """Show the herd until the user ends it; return the last status."""
    poller = polling.Poller(herd, interval)
    live = sys.stdout.isatty() and not as_json
    found: list[Seen] = []
    with until_stopped():
        try:
            _write(_BEGIN if live else "")
            poller.start()
            while True:
                found = list(poller.newest())
                _write(f"{status_json(herd, found)}\n" if as_json else _frame(found, interval, live))
                time.sleep(interval)
        finally:
            poller.stop()
            if live:
                _write(_END)
    return [one.status for one in found] or _wait(herd, 0.0)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _frame(seen: Sequence[Seen], interval: float, live: bool) -> str:
    """Return one table, drawn over the previous one on a terminal."""
    title = f"{time.strftime('%Y-%m-%d %H:%M:%S')}, every {interval:g} s"
    lines = [title, *_table(seen, _WATCHED, _WATCHED_IN_REDIS)]
    if not live:
        return "".join(f"{click.unstyle(line)}\n" for line in [*lines, ""])
    room = shutil.get_terminal_size().lines - 1
    if len(lines) > room:
        lines = [*lines[: room - 1], f"and {len(lines) - room + 1} more: make the window higher"]
    return _HOME + "".join(f"{line}{_END_OF_LINE}\n" for line in lines) + _REST


def _rate(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"


def _lag(seconds: float) -> str:
    text = "> 2.5 s" if math.isinf(seconds) else f"< {seconds * 1000:g} ms"
    return click.style(text, fg="red") if seconds > _MOST_LAG_SECONDS else text
