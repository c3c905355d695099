"""Events of several servers' logs: which are wanted, in which order, and how they are shown.

Pure: lines come in, with their server, and lines go out; logfiles.py reads files. The rules: a line that is not an
event, for example after a full disk, is shown as malformed and stops nothing. Strangers' text never reaches a terminal
as a control character. The order within one log is kept, whatever its server's clock did.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final

import msgspec
from msgspec import Struct

from proxyherd.base.escapes import escaped_for_json, visible, visible_json

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
"""From the lowest to the highest."""

MALFORMED: Final = "malformed"
"""The name that is shown for a line that is not an event."""

_FIRST: Final = ("timestamp", "level", "server", "event")
_WHITE: Final = re.compile(r"[ \t\r\n\f\v]+")  # separates the words of a command
_PLAIN: Final = re.compile(r"[^\s\"'=,\[\]{}]+")
_TIMESTAMP: Final = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d\.\d{6})Z")
_AGO: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_decode: Final = msgspec.json.Decoder().decode


class LogEvent(Struct, frozen=True):
    """One line of a log."""

    key: str
    """Its time stamp, or a later one of an earlier line, so that lines of one log are in the order of their keys."""
    line: bytes
    """As in the log, without LF."""
    fields: dict[str, Any]

    @property
    def level(self) -> str:
        return str(self.fields["level"])


class Reading:
    """Makes events of the lines of one log, in their order."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._key = ""

    def __call__(self, line: bytes) -> LogEvent:
        event = self.alone(line, self._key)
        self._key = max(self._key, event.key)
        return event if event.key == self._key else LogEvent(self._key, line, event.fields)

    def alone(self, line: bytes, before: str = "") -> LogEvent:
        """Return the event of a single line; one that is not an event gets the time of the line before."""
        fields = parse_event(line)
        if fields is None:
            fields = malformed(line, self._server, before)
        return LogEvent(fields["timestamp"], line, fields)


def parse_event(line: bytes) -> dict[str, Any] | None:
    """Return the fields of an event; None if the line is not an event."""
    try:
        fields = _decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(fields, dict) or not all(isinstance(fields.get(name), str) for name in _FIRST):
        return None
    return fields if _TIMESTAMP.fullmatch(fields["timestamp"]) else None


def malformed(line: bytes, server: str, timestamp: str) -> dict[str, Any]:
    """Return the fields that represent a line that is not an event; its time is that of the line before."""
    text = escaped_for_json(line)
    return {"timestamp": timestamp, "level": "error", "server": server, "event": MALFORMED, "line": text}


class Filter(Struct, frozen=True):
    """The wanted events: those that meet all given conditions."""

    events: tuple[str, ...] = ()
    """Names of events, of which one must match; `*` stands for any text."""
    clients: frozenset[str] = frozenset()
    """Client IDs as in logs, of which one must match, as a field of a command or an answer, or in a list of clients."""
    level: str = "debug"
    """The lowest level."""
    since: str = ""
    """The earliest time stamp."""

    def takes(self, event: LogEvent) -> bool:
        fields = event.fields
        return (
            event.key >= self.since
            and (self.level == LEVELS[0] or _rank(event.level) >= _rank(self.level))
            and (not self.events or any(fnmatchcase(fields["event"], name) for name in self.events))
            and (not self.clients or not self.clients.isdisjoint(_words(fields)))
        )


def _rank(level: str) -> int:
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)  # an unknown level may matter


def _words(fields: dict[str, Any]) -> Iterator[str]:
    """Yield what may be a client's ID."""
    for name in ("command", "answer"):
        if isinstance(text := fields.get(name), str):
            yield from _WHITE.split(text)
    if isinstance(clients := fields.get("clients"), list):
        yield from (client for client in clients if isinstance(client, str))


def parse_since(text: str, now: float) -> str:
    """Return the time stamp of `10m` ago (s, m, h, d), or of an ISO 8601 time, which is UTC unless it has a zone.

    `now` is POSIX seconds. Raises ValueError.
    """
    try:
        if match := _AGO.fullmatch(text):
            when = datetime.fromtimestamp(now - float(match[1]) * _SECONDS[match[2]], UTC)
        else:
            when = datetime.fromisoformat(text)
            when = when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(
            f"{text!r} is neither a time such as 2026-11-24T06:28:50Z nor one ago such as 10m"
        ) from error
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")


# Order. ------------------------------------------------------------------------------------------------------


def merge_logs(logs: Iterable[Iterable[LogEvent]]) -> Iterator[LogEvent]:
    """Merge complete logs by time, keeping one event of each in memory."""
    return heapq.merge(*logs, key=lambda event: event.key)


class Sorter:
    """Orders events that arrive one by one. Each is held for a short time, because an earlier event of another log may be
    read a moment later.
    """

    def __init__(self, hold: float) -> None:
        self._hold = hold
        self._heap: list[tuple[str, int, float, LogEvent]] = []  # the number keeps equal keys as they came
        self._number = 0

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, event: LogEvent, now: float) -> None:
        """Add an event that was read now, in seconds of any clock that does not go back."""
        heapq.heappush(self._heap, (event.key, self._number, now, event))
        self._number += 1

    def due(self, now: float) -> Iterator[LogEvent]:
        """Yield the events that were held long enough, and all that come before them."""
        waiting = sum(came <= now - self._hold for _, _, came, _ in self._heap)
        while waiting:
            _, _, came, event = heapq.heappop(self._heap)
            waiting -= came <= now - self._hold
            yield event


# How events read. --------------------------------------------------------------------------------------------


def raw(event: LogEvent) -> str:
    """Return a line of JSON with the same meaning as in the log; a line that is not JSON is put into JSON."""
    if event.fields["event"] == MALFORMED:
        return json.dumps(event.fields, ensure_ascii=True)
    return visible_json(event.line)


class Reader:
    """Turns events into lines for people. `style` colours a text for a terminal, or leaves it alone."""

    def __init__(self, servers: Iterable[str], style: Callable[[str, str], str] | None = None) -> None:
        names = list(servers)
        self._style = style or (lambda text, _: text)
        self._colours = {name: _COLOURS[at % len(_COLOURS)] for at, name in enumerate(names)}
        self._width = max(map(len, names), default=0)

    def __call__(self, event: LogEvent) -> str:
        fields = event.fields
        server, name = visible(fields["server"]), visible(fields["event"])
        level = event.level
        told = (
            [] if level == "info" else [self._style(f"[{visible(level)}]", _LEVEL_COLOURS.get(level, "red"))]
        )
        told += [
            f"{self._style(visible(key), 'bright_black')}={spell_value(value)}"
            for key, value in fields.items()
            if key not in _FIRST
        ]
        return " ".join(
            (
                self._style(_time(fields["timestamp"]), "bright_black"),
                self._style(server.ljust(self._width), self._colours.get(server, "white")),
                self._style(name.ljust(_EVENT_WIDTH), _LEVEL_COLOURS.get(level, "")),
                *told,
            )
        ).rstrip()


_EVENT_WIDTH: Final = 14
_COLOURS: Final = (
    "cyan",
    "green",
    "magenta",
    "blue",
    "bright_cyan",
    "bright_green",
    "bright_magenta",
    "bright_blue",
)
_LEVEL_COLOURS: Final = {"debug": "bright_black", "warning": "yellow", "error": "red", "critical": "red"}


def _time(timestamp: str) -> str:
    match = _TIMESTAMP.fullmatch(timestamp)
    return f"{match[1]} {match[2]}" if match else f"{'?':<26}"


def spell_value(value: object) -> str:
    """Return a field's value as one word: words as they are, other text in quotes, other values as JSON."""
    if not isinstance(value, str):
        return visible(json.dumps(value, ensure_ascii=False))
    text = visible(value)  # the server had escaped strangers' text when it logged it
    return text if _PLAIN.fullmatch(text) else '"{}"'.format(text.replace('"', '\\"'))
