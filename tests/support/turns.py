"""Turns without sockets and disks: a journal and a client that tests hold in their hands."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import cast

from proxyherd.config.schema import Limits, Timing
from proxyherd.core.framing import Overlong
from proxyherd.core.node import Node
from proxyherd.core.reply import Reply
from proxyherd.core.table import Table
from proxyherd.places import Answer, Places, no_results
from proxyherd.server.turn import Turn


class Held:
    """A journal, as under `fsync = "always"` if told so, whose disk is slow: syncs last until they are released."""

    def __init__(self, *, always: bool = True) -> None:
        self.always = always
        self.takes_reports = True
        self.appended: list[bytes] = []
        self.appends = 0
        self.synced: set[bytes] = set()
        self.syncs = 0
        self.fails = False
        self._release = asyncio.Event()

    def append(self, lines: list[bytes]) -> bool:
        self.appends += 1
        self.appended += lines
        return self.takes_reports

    async def sync(self) -> bool:
        self.syncs += 1
        covered = list(self.appended)
        await self._release.wait()
        self._release.clear()
        if self.fails:
            self.takes_reports = False
        else:
            self.synced.update(covered)
        return self.takes_reports

    def release(self) -> None:
        self._release.set()


class Pipeliner:
    """A client that has sent all its lines at once, and may send more."""

    queued = False
    gone = False

    def __init__(self, turn: Turn, lines: list[bytes], name: str = "pipeliner") -> None:
        self.name = name
        self.label = name.encode()
        self._turn = turn
        self._lines: list[bytes] = []
        self.owed: deque[tuple[bytes | Overlong, Reply]] = deque()
        self.answers: list[bytes] = []
        self.released: list[
            tuple[str, str]
        ] = []  # kind and outcome of what was logged otherwise than as a run
        self.given_up = ""
        self.send(*lines)

    def send(self, *lines: bytes) -> None:
        self._lines += lines
        if self._lines:
            self._turn.client_said(self)

    def take(self, most: int, now: float) -> list[bytes | Overlong]:
        taken, self._lines = self._lines[:most], self._lines[most:]
        if self._lines:
            self._turn.client_said(self)
        return list(taken)

    def answer(self, answers: list[bytes]) -> None:
        self.answers += answers

    def owe(self, commands: Iterable[tuple[bytes | Overlong, Reply]]) -> None:
        self.owed.extend(commands)

    def release(self) -> list[tuple[bytes | Overlong, Reply]]:
        released = []
        while self.owed and (answer := self.owed[0][1].answer) is not None:
            self.answers.append(answer)
            released.append(self.owed.popleft())
        self.released += [(reply.kind, reply.outcome) for _, reply in released]
        return released

    def give_up(self, reason: str) -> list[tuple[bytes | Overlong, Reply]]:
        self.given_up = reason
        owed = list(self.owed)
        self.owed.clear()
        return owed

    def fail(self) -> None:
        raise AssertionError("its turn has raised")


_NOTHING_NEAR = no_results("ZERO_RESULTS")


class NoPlaces:
    """Knows of nothing near."""

    name = "none"
    in_flight = 0

    async def nearby(self, *_: object) -> Answer:
        return _NOTHING_NEAR


def no_places(loop: asyncio.AbstractEventLoop) -> asyncio.Future[Places]:
    """Return Places that are opened, and know of nothing."""
    opened: asyncio.Future[Places] = loop.create_future()
    opened.set_result(cast("Places", NoPlaces()))
    return opened


def node(*, alone: bool = True) -> Node:
    return Node("Ann", Table(bytes(32)), Limits(), Timing(), alone=alone, now=0.0)


async def turns_of_the_loop(most: int = 50) -> None:
    for _ in range(most):
        await asyncio.sleep(0)
