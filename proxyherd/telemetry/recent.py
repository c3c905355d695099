"""The latest commands, and the clients of the latest updates. They are gathered while somebody views the status page, and
then forgotten.

They are personal data, so nothing is kept that nobody asked for. There may be ten thousand commands a second, so
callers check `wanted` first, and nothing else costs time if nobody looks. The number and bytes of what is kept are
limited.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from msgspec import Struct

from proxyherd.base.escapes import escaped
from proxyherd.core.area_queries import AreaReply
from proxyherd.core.framing import Line, spell_line
from proxyherd.core.reply import Reply

MOST_KEPT: Final = 200
"""Commands, and clients, that are kept."""

SHOWN_BYTES: Final = 256
"""Bytes of a command or an answer that are shown."""

_KEPT_BYTES: Final = SHOWN_BYTES + 1
"""One byte more, to distinguish a text that was cut from one of exactly this length."""


class Command(Struct, frozen=True, array_like=True):
    """One command: its number since the server's start, from 1 on; POSIX seconds; and the same fields as in the log."""

    number: int
    at: float
    kind: str
    outcome: str
    command: str
    answer: str


class Recent:
    """The latest commands and clients of one server."""

    def __init__(self) -> None:
        self.wanted = False
        self.number = 0  # of the last command
        self._commands: deque[tuple[int, float, str, str, bytes, bytes, str]] = deque(maxlen=MOST_KEPT)
        self._clients: deque[bytes] = deque(maxlen=MOST_KEPT)

    def __len__(self) -> int:
        return len(self._commands)

    def forget(self) -> None:
        """Keep nothing until it is wanted again."""
        self.wanted = False
        self._commands.clear()
        self._clients.clear()

    def reports(self, lines: Sequence[bytes], answers: Sequence[bytes]) -> None:
        """Keep the last of these stored reports, and their answers."""
        now, number = time.time(), self.number + max(0, len(lines) - MOST_KEPT)
        self.number += len(lines)
        for line, answer in zip(lines[-MOST_KEPT:], answers[-MOST_KEPT:], strict=True):
            number += 1
            self._commands.append(
                (number, now, "iamat", "stored", line[:_KEPT_BYTES], answer[:_KEPT_BYTES], "")
            )
            self._clients.append(answer.split(b" ", 4)[3])

    def command(self, line: Line, reply: Reply) -> None:
        """Keep a command and its answer; of places, and of clients of an area, only their number."""
        self.number += 1
        command = spell_line(line)
        answer, places = reply.answer or b"", ""
        if reply.entry is not None:
            answer, places = reply.entry.line, f" + {reply.results} places, {reply.status}"
        elif isinstance(reply, AreaReply) and reply.result is not None:
            places = f"{len(reply.result.found)} clients"
        self._commands.append(
            (
                self.number,
                time.time(),
                reply.kind,
                reply.outcome,
                command[:_KEPT_BYTES],
                answer[:_KEPT_BYTES],
                places,
            )
        )

    def heard(self, clients: Sequence[bytes]) -> None:
        """Keep the last of these clients, whose updates came from a neighbour."""
        self._clients.extend(clients[-MOST_KEPT:])

    def erase(self, clients: AbstractSet[bytes]) -> None:
        """Forget commands that name any of these clients, and their positions."""
        kept = [one for one in self._commands if not (_names(one[4], clients) or _names(one[5], clients))]
        self._commands = deque(kept, maxlen=MOST_KEPT)
        self._clients = deque((one for one in self._clients if one not in clients), maxlen=MOST_KEPT)

    def commands(self, after: int, most: int) -> list[Command]:
        """Return the last commands after number `after`, the oldest first."""
        behind = [one for one in self._commands if one[0] > after][-most:]
        return [
            Command(number, round(at, 3), kind, outcome, _shown(command), _shown(answer) + places)
            for number, at, kind, outcome, command, answer, places in behind
        ]

    def take_clients(self) -> list[bytes]:
        """Return the clients of the latest updates, and forget them."""
        clients = [*dict.fromkeys(self._clients)]
        self._clients.clear()
        return clients


def _names(text: bytes, clients: AbstractSet[bytes]) -> bool:
    """Whether a word of a text is the ID of a client, or the last one its beginning because the text was cut there."""
    words = text.split()
    if not clients.isdisjoint(words):
        return True
    is_cut = len(text) == _KEPT_BYTES and not text[-1:].isspace()
    return is_cut and any(client.startswith(words[-1]) for client in clients)


def _shown(data: bytes) -> str:
    shown = escaped(data[:SHOWN_BYTES])
    return shown if len(data) <= SHOWN_BYTES else f"{shown} …"
