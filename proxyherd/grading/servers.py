"""One server to judge, as its clients see it: connections, reports, queries.

The rule: every wait has a deadline, and whatever goes wrong on a connection is a `Fault` that says what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

from proxyherd.grading import by_hand
from proxyherd.grading.answers import form_of_at, parse_at_line
from proxyherd.grading.faults import Fault, NotSeen, shown

PREFIX: Final = b"g" + secrets.token_hex(5).encode()
"""The prefix of the clients of this grading, and of no others."""

LOCATION: Final = b"+34.068930-118.445127"
MOST_ANSWER_BYTES: Final = 1 << 21
MOST_PLACES_BYTES: Final = 1 << 24
"""Bytes of one line, and of the places in one answer; only a server that breaks the protocol sends more."""

BUFFERED_BYTES: Final = 1 << 16
"""Bytes that a connection reads ahead: an untrusted server may send forever."""

CONNECTIONS_AT_ONCE: Final = 200
"""Connections to one herd at once; further ones wait. Some machines allow few file descriptors."""

PLACES_SECONDS: Final = 10.0
"""How much longer an answer with places may take: a server also answers when Places do not."""

QUESTIONS_AT_ONCE: Final = 32
"""Lines that are sent at once, each on its own connection: in a big herd, more would only wait for each other, and be
late."""

Dial: TypeAlias = Callable[..., Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Opens a connection to a host and a port, as asyncio.open_connection does."""

_numbers = itertools.count(1)


def new_client() -> bytes:
    """Return a new client's ID; none is a part of another."""
    return b"%b.%06d" % (PREFIX, next(_numbers))


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


class Connection:
    """One client's connection."""

    def __init__(
        self, server: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._seconds = seconds
        self.sent = b""
        """The bytes that were sent last, for reports."""

    async def send(self, data: bytes, chunk: int | None = None) -> None:
        """Send bytes: all at once, or `chunk` at a time with short pauses."""
        self.sent = data
        by_hand.note_sent(self._server, data)
        with self._faults("that the server reads it"):
            async with asyncio.timeout(self._seconds + len(data) / 1_000):
                for at in range(0, len(data), chunk or len(data) or 1):
                    self._writer.write(data[at : at + (chunk or len(data))])
                    await self._writer.drain()
                    await asyncio.sleep(0)

    def half_close(self) -> None:
        """Close the sending half."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def reset(self) -> None:
        """Break the connection, like a client that crashes."""
        self._writer.transport.abort()

    async def line(self, expected: str = "an answer") -> bytes:
        """Return one line with its LF. Raises Fault if the stream ends before."""
        return await self._until(b"\n", expected, self._seconds)

    async def places(self) -> bytes:
        """Return the rest of a WHATSAT answer after the AT line, without the two LFs at its end."""
        body = await self._until(
            b"\n\n",
            "JSON and two LFs behind the AT line",
            self._seconds + PLACES_SECONDS,
            MOST_PLACES_BYTES,
        )
        return body[:-2]

    async def expect(self, answer: bytes) -> None:
        """Read one line, and check that it is this one."""
        got = await self.line(shown(answer))
        if got != answer:
            raise self.fault(shown(answer), shown(got))

    async def expect_end(self) -> None:
        """Check that the server closes without sending another byte."""
        rest = await self.rest()
        if rest:
            raise self.fault("nothing more, and that the server closes", shown(rest))

    async def rest(self) -> bytes:
        """Return everything that comes before the server closes."""
        data = bytearray()
        with self._faults("that the server closes"):
            async with asyncio.timeout(self._seconds):
                while some := await self._reader.read(65_536):
                    data += some
                    if len(data) > MOST_ANSWER_BYTES:
                        raise self.fault("that the server closes", f"more than {MOST_ANSWER_BYTES:,} bytes")
        return bytes(data)

    def fault(self, expected: str, got: str, *, gone: bool = False) -> Fault:
        return Fault(self._server, self.sent, expected, got, gone=gone)

    async def _until(self, end: bytes, expected: str, seconds: float, most: int = MOST_ANSWER_BYTES) -> bytes:
        data = bytearray()
        with self._faults(expected):
            try:
                async with asyncio.timeout(seconds):
                    while len(data) <= most:
                        try:
                            return bytes(data + await self._reader.readuntil(end))
                        except asyncio.LimitOverrunError as error:
                            data += await self._reader.readexactly(error.consumed)
                    raise self.fault(expected, f"more than {most:,} bytes without an end")
            except TimeoutError:
                # asyncio offers no look at what has come; reading it cannot wait where there is something.
                some = bytes(data[: 1 << 16])
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.01):
                        some += await self._reader.read(1 << 16)
                raise self.fault(
                    expected, f"{shown(some)} and no more within {seconds:g} s" if some else _silence(seconds)
                ) from None
        raise AssertionError  # what is caught above is raised again

    @contextlib.contextmanager
    def _faults(self, expected: str) -> Iterator[None]:
        try:
            yield
        except asyncio.IncompleteReadError as error:
            raise self.fault(expected, _ended(error.partial), gone=True) from error
        except TimeoutError as error:
            raise self.fault(expected, _silence(self._seconds)) from error
        except OSError as error:
            raise self.fault(expected, _reason(error), gone=True) from error


def _ended(partial: bytes) -> str:
    return f"{shown(partial)}, then the end of the connection" if partial else "the end of the connection"


def _reason(error: OSError | UnicodeError) -> str:
    """Return the system's error text; asyncio replaces it with its own."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else str(error)


def _silence(seconds: float) -> str:
    return f"nothing within {seconds:g} s"


class GradedServer:
    """One server: its address, its name, and the reports that it has."""

    question = b"0 0"
    """The radius and bound of a query without places, which costs nothing; if the herd does not accept them, others are
    used."""

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
        self.log = log
        self._dial = dial
        self.log_is_named = True
        """Whether the user has named its log; otherwise the path is guessed."""
        self.room = asyncio.Semaphore(CONNECTIONS_AT_ONCE)
        self.turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    def __repr__(self) -> str:
        return f"<{self.name} at {self.host}:{self.port}>"

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Lend a connection. Raises Fault if none can be made."""
        async with self.room:
            reader, writer = await self._open()
            try:
                yield Connection(self.name, reader, writer, self.seconds)
            finally:
                writer.close()
                with contextlib.suppress(OSError, TimeoutError):
                    async with asyncio.timeout(1):
                        await writer.wait_closed()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            async with asyncio.timeout(self.seconds):
                return await self._dial(self.host, self.port, limit=BUFFERED_BYTES)
        except TimeoutError as error:
            raise Fault(self.name, b"", "a connection", _silence(self.seconds), gone=True) from error
        except (OSError, UnicodeError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise NotSeen(
                    f"grade may open no more files here: {_reason(error)}; see ulimit -n"
                ) from error
            raise Fault(self.name, b"", "a connection", _reason(error), gone=True) from error

    async def ask(self, line: bytes) -> bytes:
        """Send one line on its own connection; return the first line of the answer, with its LF."""
        async with self.turns, self.connect() as connection:
            await connection.send(line + b"\n")
            return await connection.line()

    async def report(self, client: bytes, when: bytes | None = None, location: bytes = LOCATION) -> bytes:
        """Let a client report here; return the AT line that answers it, with its LF."""
        operands = b"%b %b %b" % (client, location, when or now())
        line = b"IAMAT " + operands
        answer = await self.ask(line)
        at = parse_at_line(answer)
        name = self.name.encode()
        if at is None or at.operands != operands or at.server != name:
            raise Fault(self.name, line, form_of_at(name, operands), shown(answer))
        return answer

    async def held(self, client: bytes) -> bytes:
        """Return the AT line that it has of a client, with its LF; b"" if none."""
        answer = await self.ask(b"WHATSAT %b %b" % (client, self.question))
        return answer if answer.startswith(b"AT ") else b""

    async def until_holds(self, at: bytes, seconds: float | None = None) -> None:
        """Wait until it has this line of its client. Raises Fault after the deadline."""
        client, held = at.split()[3], b""

        async def holds() -> bool:
            nonlocal held
            held = await self.held(client)
            return held == at

        wait = self.seconds if seconds is None else seconds
        if not await until(holds, wait):
            question = b"WHATSAT %b %b" % (client, self.question)
            got = shown(held) if held else f"that {self.name} does not know the client"
            raise Fault(self.name, question, f"{shown(at)} within {wait:g} s", got)
