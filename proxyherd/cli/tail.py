"""`tail`: the logs of all servers as one."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

import click

from proxyherd.base.escapes import escaped_for_json
from proxyherd.base.words import suggest
from proxyherd.cli.common import (
    Misconfigured,
    config_option,
    examples,
    load_herd,
    server_names,
    until_stopped,
)
from proxyherd.cli.pipes import PipeWatch
from proxyherd.config.herd_file import Herd
from proxyherd.remote import tailing
from proxyherd.remote.logfiles import ServerLog
from proxyherd.remote.tailing import Filter, LogEvent, Reading, Sorter, merge_logs, parse_since
from proxyherd.telemetry.event_names import EVENT_NAMES

INSTALLED_LOGS = Path("/var/log/proxyherd")
"""The folder of logs under systemd."""

_HOLD_SECONDS = 0.15
"""How long an event waits for an earlier one of another log: longer than it takes to read all logs once."""

_IDLE_SECONDS = 0.1
_BUSY_SECONDS = 0.01
_LINES_AT_ONCE = 1_024
_CHUNKS_AT_ONCE = 8
_MOST_HELD = 20_000
"""The maximum number of waiting events; at this limit, nothing more is read. Each takes about 1.5 kB."""


def _since(_: click.Context, parameter: click.Parameter, value: str | None) -> str:
    try:
        return parse_since(value, time.time()) if value is not None else ""
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from error


def _event_patterns(_: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse the name of an event that no log can have: with --follow, it would be waited for without an end."""
    names = (*EVENT_NAMES, tailing.MALFORMED)
    for value in values:
        if not any(fnmatchcase(name, value) for name in names):
            there = click.wrap_text(" ".join(sorted(names)), shutil.get_terminal_size().columns, "  ", "  ")
            raise click.BadParameter(
                f"there is no event {value!r}{suggest(value, names)}; there are\n{there}", param=parameter
            )
    return values


def _event_names(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    return [name for name in EVENT_NAMES if name.startswith(incomplete)]


@click.command(
    short_help="Print the logs of all servers, merged by time.",
    epilog=examples(
        "proxyherd tail",
        "proxyherd tail -f Clark Jaquez",
        "proxyherd tail -f --event 'peer_*' --event caught_up",
        "proxyherd tail --client kiwi.cs.ucla.edu --since 10m",
        "proxyherd tail -f --level warning --lines 0",
        "proxyherd tail --event command --since 2026-11-24T06:00:00Z --json | jq -r .outcome | sort | uniq -c",
    ),
)
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=server_names)
@click.option(
    "--server",
    "more_names",
    multiple=True,
    metavar="NAME",
    shell_complete=server_names,
    help="Like a NAME: only its log. May be given several times, as --event and --client may.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    metavar="EVENT",
    callback=_event_patterns,
    shell_complete=_event_names,
    help="Only these events; * stands for anything.",
)
@click.option(
    "--client",
    "clients",
    multiple=True,
    metavar="ID",
    help="Only events with this client's ID, as a word of a command or an answer, or in a list of clients.",
)
@click.option(
    "--level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="debug",
    help="Only events of this level and above.  [default: all]",
)
@click.option(
    "--since",
    metavar="TIME",
    callback=_since,
    help="Only events since then: 30s, 10m, 2h or 1d ago, or an ISO 8601 time (UTC unless it says otherwise).",
)
@click.option(
    "--lines",
    "-n",
    type=click.IntRange(min=0),
    metavar="N",
    help="Begin with the last N of each log.  [default: 10; with --since all]",
)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is logged from now on, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines of JSON as the logs have them.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="auto: on a terminal, unless NO_COLOR is set.",
)
@click.option(
    "--logs",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help=f"Where the logs are.  [default: $LOGS_DIRECTORY, else var/log, else {INSTALLED_LOGS}]",
)
@config_option()
@click.pass_context
def tail(
    ctx: click.Context,
    *,
    names: tuple[str, ...],
    more_names: tuple[str, ...],
    events: tuple[str, ...],
    clients: tuple[str, ...],
    level: str,
    since: str,
    lines: int | None,
    follow: bool,
    as_json: bool,
    color: str,
    logs: Path | None,
) -> None:
    """Print the logs of the servers NAME, of all without one, merged by time.

    Files that the server has rotated itself are read too, where the newest has not enough. With --follow a rotation
    makes no difference, whoever does it.
    """
    herd = load_herd(ctx)
    wanted = Filter(
        events, frozenset(escaped_for_json(os.fsencode(client)) for client in clients), level, since
    )
    if lines is None and not since:
        lines = 10
    printer = _Printer(_form(herd, color, as_json))
    with until_stopped(), _readable():
        sources = _open(herd, (*names, *more_names), logs or _default_logs(), follow=follow)
        try:
            printer.print(_past(sources, wanted, lines, follow=follow))
            if follow:
                _follow(sources, wanted, printer)
        finally:
            for source in sources:
                source.log.close()


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Misconfigured(
            f"{error.filename or 'stdout'}: {error.strerror}; its owner and its group may read a log"
        ) from error


def _default_logs() -> Path:
    if folder := os.environ.get("LOGS_DIRECTORY"):
        return Path(folder)
    here = Path("var/log")
    return INSTALLED_LOGS if INSTALLED_LOGS.is_dir() and not here.is_dir() else here


def _form(herd: Herd, color: str, as_json: bool) -> Callable[[LogEvent], str]:
    """Return the function that formats an event."""
    if as_json:
        return tailing.raw
    if color == "auto":
        is_wanted = (
            sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        )
    else:
        is_wanted = color == "always"
    return tailing.Reader(herd.servers, _style if is_wanted else None)


def _style(text: str, colour: str) -> str:
    return click.style(text, fg=colour) if colour else text


class _Source:
    """The log of one server, and its events."""

    def __init__(self, name: str, log: ServerLog, read: Reading) -> None:
        self.name = name
        self.log = log
        self.read = read
        self.told_gaps = 0


def _open(herd: Herd, names: Sequence[str], folder: Path, *, follow: bool) -> list[_Source]:
    """Open the logs. Raises Misconfigured if there are none, unless they may come later."""
    sources = []
    for name in dict.fromkeys(herd.server(name).name for name in names or herd.servers):
        path = folder / f"{name}.log"
        log = ServerLog(path)
        log.open()
        sources.append(_Source(name, log, Reading(name)))
    missing = [source.name for source in sources if not source.log.is_there]
    if len(missing) == len(sources) and not follow:
        raise Misconfigured(f"{folder}: no log of {', '.join(missing)}; say with --logs where the logs are")
    if missing:
        click.echo(f"No log of {', '.join(missing)} in {folder}", err=True)
    return sources


def _past(
    sources: Sequence[_Source], wanted: Filter, most: int | None, *, follow: bool
) -> Iterator[LogEvent]:
    """Return the last events of all logs, in order."""
    for source in sources:
        read = Reading(source.name)  # of its own: it keeps the order of lines that go forward

        def judge(line: bytes, read: Reading = read) -> bool | None:
            event = read.alone(line)
            return None if event.key and event.key < wanted.since else wanted.takes(event)

        source.log.begin(judge, most)

    def events(source: _Source) -> Iterator[LogEvent]:
        return filter(wanted.takes, map(source.read, source.log.lines(last=not follow)))

    return merge_logs(map(events, sources))


def _follow(sources: Sequence[_Source], wanted: Filter, printer: _Printer) -> None:
    """Print new events, until the reader closes the pipe."""
    sorter = Sorter(_HOLD_SECONDS)
    while not printer.is_alone:
        now = time.monotonic()
        is_busy = False
        for source in sources:
            for _ in range(_CHUNKS_AT_ONCE):
                if len(sorter) >= _MOST_HELD or not (lines := source.log.more()):
                    break
                is_busy = True
                for event in filter(wanted.takes, map(source.read, lines)):
                    sorter.put(event, now)
            if source.log.gaps > source.told_gaps:
                source.told_gaps = source.log.gaps
                click.echo(f"Lines of {source.name} may be missing: its log is rotated too fast", err=True)
        printer.print(sorter.due(now))
        time.sleep(_BUSY_SECONDS if is_busy else _IDLE_SECONDS)


class _Printer:
    """Prints events, many in one write."""

    def __init__(self, form: Callable[[LogEvent], str]) -> None:
        self._form = form
        self._pipe = PipeWatch()

    @property
    def is_alone(self) -> bool:
        """Whether the other end of the pipe is closed; otherwise this would only be noticed at the next line."""
        return self._pipe.is_alone

    def print(self, events: Iterable[LogEvent]) -> None:
        events = iter(events)
        while some := list(islice(events, _LINES_AT_ONCE)):
            text = "".join(f"{self._form(event)}\n" for event in some)
            sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
            sys.stdout.buffer.flush()
