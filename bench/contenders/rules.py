"""The rules of the client protocol, as the Python contenders share them: what differs between those is the framework.

Times are integers of nanoseconds. Nothing here waits or touches a socket.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

_LOCATION: Final = re.compile(rb"([+-][0-9]{1,2}(?:\.[0-9]+)?)([+-][0-9]{1,3}(?:\.[0-9]+)?)")
_TIME: Final = re.compile(rb"([0-9]{1,12})(?:\.([0-9]{1,9}))?")
_RADIUS: Final = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,16})?")
_BOUND: Final = re.compile(rb"[0-9]{1,20}")

PLACES: Final = b'{\n   "html_attributions": [],\n   "results": [],\n   "status": "ZERO_RESULTS"\n}'
"""What every contender says is near: the herd's own answer to a radius of 0, which asks nobody."""


class Herd(NamedTuple):
    """One server's part of a herd's file."""

    name: str
    port: int
    neighbours: dict[str, int]  # their ports
    log: Path
    options: argparse.Namespace


def read_arguments(*more: str) -> Herd:
    """Read the command line and the herd's file; `more` are further flags."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("name")
    for flag in ("--equal", *more):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    servers = json.loads(options.file.read_text())
    own = servers[options.name]
    neighbours = {name: servers[name]["port"] for name in own["neighbours"]}
    return Herd(options.name, own["port"], neighbours, options.file.with_name(f"{options.name}.log"), options)


class Outcome(NamedTuple):
    """What a line leads to."""

    kind: str  # iamat, whatsat, at, peer or invalid
    answer: bytes | None  # without its last LF
    news: bytes | None = None  # the AT line to flood


class Rules:
    """One server's table, and what it makes of each line."""

    def __init__(self, name: str) -> None:
        self._name = name.encode()
        self._table: dict[bytes, tuple[int, bytes]] = {}

    def handle(self, line: bytes) -> Outcome:
        """Take a line, without its LF, of a client or of another server."""
        match line.split():
            case [b"IAMAT", client, location, moment]:
                return self._iamat(client, location, moment) or _invalid(line)
            case [b"WHATSAT", client, radius, bound]:
                return self._whatsat(client, radius, bound) or _invalid(line)
            case [b"AT", _, _, client, _, moment] if (sent := _nanoseconds(moment)) is not None:
                return Outcome("at", None, line if self._learn(client, sent, line) else None)
            case [b"PEER", _]:
                return Outcome("peer", None)
            case _:
                return _invalid(line)

    def _iamat(self, client: bytes, location: bytes, moment: bytes) -> Outcome | None:
        place = _LOCATION.fullmatch(location)
        sent = _nanoseconds(moment)
        if place is None or sent is None or abs(float(place[1])) > 90 or abs(float(place[2])) > 180:
            return None
        difference = time.time_ns() - sent
        seconds, rest = divmod(abs(difference), 1_000_000_000)
        answer = b"AT %b %b%d.%09d %b %b %b" % (
            *(self._name, b"-" if difference < 0 else b"+", seconds, rest),
            *(client, location, moment),
        )
        known = self._table.get(client)
        if known is not None and sent <= known[0]:
            return Outcome("iamat", answer)
        self._table[client] = (sent, answer)
        return Outcome("iamat", answer, answer)

    def _whatsat(self, client: bytes, radius: bytes, bound: bytes) -> Outcome | None:
        known = self._table.get(client)
        if known is None or not _RADIUS.fullmatch(radius) or not _BOUND.fullmatch(bound):
            return None
        if float(radius) > 50 or int(bound) > 20:
            return None
        return Outcome("whatsat", b"%b\n%b\n" % (known[1], PLACES))

    def _learn(self, client: bytes, sent: int, line: bytes) -> bool:
        known = self._table.get(client)
        if known is not None and (sent, line) <= known:
            return False
        self._table[client] = (sent, line)
        return True


def _invalid(line: bytes) -> Outcome:
    return Outcome("invalid", b"? " + line)


def _nanoseconds(moment: bytes) -> int | None:
    found = _TIME.fullmatch(moment)
    return int(found[1] + (found[2] or b"").ljust(9, b"0")) if found else None


class JsonLog:
    """The log of an `--equal` contender: a line of JSON for each command, with the fields of proxyherd's."""

    def __init__(self, herd: Herd) -> None:
        self._server = herd.name
        self._file = herd.log.open("ab", buffering=0)

    def command(self, client: str, line: bytes, outcome: Outcome) -> None:
        """Write one command and its answer."""
        self.event(
            "command",
            client=client,
            kind=outcome.kind,
            outcome="invalid" if outcome.kind == "invalid" else "ok",
            command=line.decode("utf-8", "backslashreplace"),
            answer=(outcome.answer or b"").decode("utf-8", "backslashreplace"),
        )

    def event(self, event: str, **fields: str) -> None:
        """Write any event."""
        stamp = datetime.now(UTC).isoformat(timespec="microseconds")
        line = {"timestamp": stamp, "level": "info", "server": self._server, "event": event, **fields}
        self._file.write(json.dumps(line).encode() + b"\n")
