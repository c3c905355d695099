"""One server to judge, as its clients see it: reports and queries, in its dialect. Lines and answers are without ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from proxyherd.grading.answers import form_of_at, looks_whole, parse_at_line
from proxyherd.grading.connections import BUFFERED_BYTES, Connection, reason
from proxyherd.grading.dialect import Dialect
from proxyherd.grading.faults import Fault, NotJudged, NotSeen, shown
from proxyherd.grading.forms import Form
from proxyherd.grading.outside import GoogleReach
from proxyherd.grading.web_client import WebPort

PREFIX: Final = b"g" + secrets.token_hex(5).encode()
"""The prefix of the clients of this grading, and of no others."""

LOCATION: Final = b"+34.068930-118.445127"
"""An ordinary one, as in the assignment."""

LISTENS_SECONDS: Final = 1.0
"""How long a server may take to accept a connection, to be taken for one that listens."""

CONNECTIONS_AT_ONCE: Final = 200
"""Connections to one herd at once; further ones wait. Some machines allow few file descriptors."""

QUESTIONS_AT_ONCE: Final = 32
"""Lines that are sent at once, each on its own connection: in a big herd, more would only wait for each other, and be
late."""

Dial: TypeAlias = Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Opens a connection to a host and a port, as asyncio.open_connection does."""

_numbers = itertools.count(1)


def new_client() -> bytes:
    """Return a new client's ID; none is a part of another."""
    return b"%b.%06d" % (PREFIX, next(_numbers))


def spot(number: int) -> bytes:
    """Return one of a thousand ordinary locations."""
    return b"+34.%06d-118.445127" % (68_930 + number % 1_000)


def spelled(nanoseconds: int) -> bytes:
    """Return a time in the form of a client."""
    return b"%d.%09d" % divmod(nanoseconds, 1_000_000_000)


def now() -> bytes:
    """Return the present time in the form of a client."""
    return spelled(time.time_ns())


def clock() -> float:
    """Return the seconds of the event loop's clock, by which all waits are measured."""
    return asyncio.get_running_loop().time()


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float) -> bool:
    """Wait for a condition; return whether it became true in time."""
    deadline, pause = clock() + seconds, 0.005
    while True:
        # A server that is slow to answer, or was asked late, is asked once at the deadline or after.
        asked = clock()
        holds = condition()
        if holds if isinstance(holds, bool) else await holds:
            return True
        if asked >= deadline:
            return False
        await asyncio.sleep(pause)
        pause = min(2 * pause, 0.1)


async def together(*tasks: Coroutine[Any, Any, object]) -> None:
    """Run all at once; if one raises, cancel the others and raise its exception."""
    running = [asyncio.ensure_future(task) for task in tasks]
    try:
        await asyncio.gather(*running)
    finally:
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def _has_number(error: OSError | UnicodeError, number: int) -> bool:
    """Return whether an error has this number."""
    # Of several addresses of a name, asyncio tells all errors in one without a number.
    return getattr(error, "errno", None) == number or f"[Errno {number}]" in str(error)


class GradedServer:
    """One server: its address, its name, and the reports that it has."""

    question = b"0 0"
    """The radius and bound of a query without places, which costs nothing; if the herd does not accept them, others are
    used."""

    harmless = b"and now?"
    """An invalid line that does not end it, by which is seen that it goes on; b"" if there is none."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        *,
        seconds: float = 5.0,
        log: Path | None = None,
        dial: Dial = asyncio.open_connection,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.seconds = seconds
        self.chosen_log = log
        """Where its log is said or guessed to be."""
        self.output: Path | None = None
        """The file of what it prints, if that is known: its log while there is no chosen one."""
        self._dial = dial
        self.web: WebPort | None = None
        """Its web port, if one is known."""
        self.dialect = Dialect()
        self.findings: dict[Form, Fault] = {}
        """The forms in which it departs from the protocol, each with what was seen."""
        self.google = GoogleReach()
        self.log_is_named = True
        """Whether the user has named its log; otherwise the path is guessed."""
        self.room = asyncio.Semaphore(CONNECTIONS_AT_ONCE)
        self.turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    def __repr__(self) -> str:
        return f"<{self.name} at {self.host}:{self.port}>"

    @property
    def log(self) -> Path | None:
        """Its log, if one is known; it may not exist."""
        is_missing = self.chosen_log is None or not self.chosen_log.is_file()
        return self.output if is_missing and self.output is not None else self.chosen_log

    @property
    def is_here(self) -> bool:
        """Whether it runs on this machine, and so has this machine's clock."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Lend a connection. Raises Fault if none can be made."""
        async with self.room:
            reader, writer = await self._open()
            try:
                yield Connection(self.name, reader, writer, self.seconds, self.dialect)
            finally:
                writer.close()
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(1):
                        await writer.wait_closed()

    async def listens(self) -> bool:
        """Whether it accepts connections."""
        try:
            async with asyncio.timeout(LISTENS_SECONDS):
                _, writer = await self._dial(self.host, self.port)
        except (OSError, UnicodeError):
            return False
        writer.close()
        return True

    async def absence(self) -> str:
        """Return that nobody listens at its address, as what came instead of an answer; "" if somebody may."""
        try:
            async with self.connect():
                return ""
        except Fault as fault:
            return "nothing, and nobody listens there any more" if fault.down else ""

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(self.seconds):
                return await self._dial(self.host, self.port, limit=BUFFERED_BYTES)
        except TimeoutError as error:
            raise Fault(self.name, b"", "a connection", f"nothing within {self.seconds:g} s") from error
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise NotSeen(f"grade may open no more files here: {reason(error)}; see ulimit -n") from error
            is_down = _has_number(error, errno.ECONNREFUSED)  # nobody listens
            is_cut = _has_number(error, errno.ECONNRESET)  # it was about to be taken when the server ended
            raise Fault(self.name, b"", "a connection", reason(error), cut=is_cut, down=is_down) from error

    async def ask(self, line: bytes) -> bytes:
        """Send one line on its own connection; return the first line of the answer. Raises Fault."""
        async with self.turns, self.connect() as connection:
            await connection.say(line)
            return await connection.line(is_whole=partial(looks_whole, line))

    async def ask_all(self, lines: list[bytes]) -> list[bytes]:
        """Send lines at once, ahead on one connection if the server takes that; return the first lines of the answers."""
        if not self.dialect.takes_many:
            return await asyncio.gather(*map(self.ask, lines))
        async with self.turns, self.connect() as connection:
            await connection.say(*lines)
            return [await connection.line(is_whole=partial(looks_whole, line)) for line in lines]

    async def report(self, client: bytes, when: bytes | None = None, location: bytes = LOCATION) -> bytes:
        """Let a client report here; return the AT line that answers it."""
        self._needs_reports()
        line = b"IAMAT %b %b %b" % (client, location, when or now())
        return self.checked(line, await self.ask(line))

    def _needs_reports(self) -> None:
        if not self.dialect.takes_reports:
            why = f"because of case.plain-report: {self.name} does not answer IAMAT with AT"
            raise NotJudged("case.plain-report", why)

    def checked(self, line: bytes, answer: bytes) -> bytes:
        """Return the answer to a report if it is the right one. Raises Fault."""
        self._needs_reports()
        at, name, operands = parse_at_line(answer), self.name.encode(), b" ".join(line.split()[1:])
        if at is None or at.server != name or not self.dialect.repeats(operands, at.operands):
            raise Fault(self.name, line, form_of_at(name, operands), shown(answer))
        return answer

    async def held(self, client: bytes) -> bytes:
        """Return the AT line that it has of a client; b"" if none. Raises Fault if it cannot be reached."""
        held, _ = await self._held(client)
        return held

    async def needs_questions(self) -> None:
        """Raise NotJudged if it cannot be asked for the AT line of a client."""
        if self.dialect.questions:
            return
        if why := await self.google.problem():
            raise NotJudged("", why)
        why = f"{self.name} does not answer WHATSAT with the AT line of a client that has reported to it"
        raise NotJudged("places.form", f"because of places.form: {why}")

    async def _held(self, client: bytes) -> tuple[bytes, str]:
        """Return the AT line that it has of a client, and what it answered otherwise."""
        await self.needs_questions()
        try:
            answer = await self.ask(b"WHATSAT %b %b" % (client, self.question))
        except Fault as fault:
            if not fault.sent:
                raise
            # Many servers answer no question about a client that they don't know.
            return b"", fault.got
        return (answer, "") if answer.startswith(b"AT ") else (b"", shown(answer))

    async def until_holds(self, at: bytes, seconds: float | None = None) -> None:
        """Wait until it has this line of its client. Raises Fault after the deadline."""
        client, held, said = at.split()[3], b"", ""

        async def holds() -> bool:
            nonlocal held, said
            held, said = await self._held(client)
            return held == at

        wait = self.seconds if seconds is None else seconds
        if not await until(holds, wait):
            question = b"WHATSAT %b %b" % (client, self.question)
            expected = f"{shown(at)} within {round(wait, 1):g} s"
            raise Fault(self.name, question, expected, shown(held) if held else said)
