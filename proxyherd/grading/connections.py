"""One client's connection to a server, in the server's dialect.

The rule: every wait has a deadline, what is kept is bounded, and whatever goes wrong is a `Fault` that says what was
sent. Where each answer ends in LF, an answer ends there, however long the server takes. Where that cannot be relied on,
it ends where it looks complete, where the server closes, or where no more comes for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Final

from proxyherd.grading import by_hand
from proxyherd.grading.answers import end_of_json
from proxyherd.grading.dialect import CRLF, LF, Dialect
from proxyherd.grading.faults import Fault, Step, shown

MOST_ANSWER_BYTES: Final = 1 << 21
MOST_PLACES_BYTES: Final = 1 << 24
"""Bytes of one line, and of the places in one answer; only a server that breaks the protocol sends more."""

BUFFERED_BYTES: Final = 1 << 16
"""Bytes that a connection reads at once, and ahead: an untrusted server may send forever."""

PLACES_SECONDS: Final = 10.0
"""How much longer an answer with places may take: a server also answers when Places do not."""

STILL_SECONDS: Final = 0.3
"""An answer without an end is complete when no more has come for this long."""

_SPEC: Final = Dialect()


class Connection:
    """One client's connection."""

    def __init__(
        self,
        server: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        seconds: float,
        dialect: Dialect = _SPEC,
    ) -> None:
        self._server = server
        self._reader = reader
        self._writer = writer
        self._seconds = seconds
        self.dialect = dialect
        self._buffer = bytearray()
        self._has_ended = False
        self._skips_empty_lines = False
        """Whether the last answer may have had LFs behind it that have not been read."""
        self.sent = b""
        """The bytes that were sent last, for reports."""
        self._step = Step(server)
        """What was sent at all, to be tried by hand."""
        self._has_read = False
        """Whether anything was read since then."""

    # Sending. ------------------------------------------------------------------------------------------------

    async def send(self, data: bytes, chunk: int | None = None) -> None:
        """Send bytes: all at once, or `chunk` at a time with short pauses."""
        self.sent = data
        self._note(data, chunk or len(data))
        with self._faults("that the server reads it"):
            async with asyncio.timeout(self._seconds + len(data) / 1_000):
                for at in range(0, len(data), chunk or len(data) or 1):
                    self._writer.write(data[at : at + (chunk or len(data))])
                    await self._writer.drain()
                    await asyncio.sleep(0)

    def _note(self, data: bytes, cut: int) -> None:
        if data and not self._step.pieces:
            by_hand.note(self._step)
        self._step.pieces += filter(None, (data[:cut], data[cut:]))
        self._has_read = False

    async def say(self, *lines: bytes) -> None:
        """Send lines, given without their ends; then close the sending half if the server waits for that."""
        await self.send(b"".join(line + self.dialect.line_end for line in lines))
        if self.dialect.half_close:
            self.half_close()

    def half_close(self) -> None:
        """Close the sending half."""
        self._step.half_close |= not self._has_read
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def reset(self) -> None:
        """Break the connection, like a client that crashes."""
        self._writer.transport.abort()

    # Answers. ------------------------------------------------------------------------------------------------

    async def line(
        self, expected: str = "an answer", is_whole: Callable[[bytes], bool] = lambda _: False
    ) -> bytes:
        """Return one line without its end. Raises Fault if the stream ends before. Where lines have no ends, `is_whole`
        tells whether one is complete.
        """
        if self.dialect.answer_end:
            return await self._ended_line(expected)
        await self._until_quiet(
            lambda data: b"\n" in (text := data.lstrip(b"\r\n")) or is_whole(text),
            self._seconds,
            expected,
        )
        del self._buffer[: len(self._buffer) - len(self._buffer.lstrip(b"\r\n"))]
        at = self._buffer.find(b"\n")
        return self._take(len(self._buffer) if at < 0 else at, 1).rstrip(b"\r")

    async def _ended_line(self, expected: str) -> bytes:
        while True:
            at = await self._until(lambda data, start: data.find(b"\n", start), 1, expected)
            line = self._take(at, 1)
            if line.strip(CRLF) or not self._skips_empty_lines:
                return line.removesuffix(b"\r") if self.dialect.answer_end == CRLF else line

    async def places(self) -> bytes:
        """Return the rest of a WHATSAT answer after the AT line, without the two LFs at its end."""
        seconds = self._seconds + PLACES_SECONDS
        expected = "JSON and two LFs behind the AT line"
        if self.dialect.answer_end == LF and self.dialect.json_end:
            at = await self._until(
                lambda data, start: data.find(b"\n\n", start), 2, expected, seconds, MOST_PLACES_BYTES
            )
            return self._take(at, 2)
        await self._until_quiet(
            # Looked at where it may end, so that it is not read again for each piece that comes.
            lambda data: b"}" in data[-16:] and end_of_json(data) is not None,
            seconds,
            "JSON behind the AT line",
        )
        self._skips_empty_lines = True
        end = end_of_json(bytes(self._buffer))
        return self._take(len(self._buffer) if end is None else end, 0).strip()

    async def expect(self, answer: bytes) -> None:
        """Read one line, and check that it is this one, given without its end."""
        got = await self.line(shown(answer), lambda text: text == answer)
        if got != answer:
            raise self.fault(shown(answer), shown(got))

    async def expect_rejection(self, line: bytes, expected: str = "") -> None:
        """Check that this line is answered as an invalid one, in the way in which the server does that."""
        expected = expected or shown(b"? " + line)
        if not self.dialect.rejected(line, b""):
            answer = await self.line(expected, lambda text: text == b"? " + line)
            if not self.dialect.rejected(line, answer):
                raise self.fault(expected, shown(answer))
        elif not self.dialect.rejected(line, said := await self.whatever(STILL_SECONDS)):
            raise self.fault("that this is not taken for a command", shown(said))

    async def expect_end(self) -> None:
        """Check that the server closes without sending another byte, as far as it does that."""
        if not self.dialect.ends:
            return
        rest = await self.rest()
        if not (self.dialect.answer_end == LF and self.dialect.json_end):
            rest = rest.strip(CRLF)
        if rest:
            raise self.fault("nothing more, and that the server closes", shown(rest))

    async def rest(self) -> bytes:
        """Return everything that comes before the server closes."""
        with self._faults("that the server closes"):
            async with asyncio.timeout(self._seconds):
                while await self._read():
                    if len(self._buffer) > MOST_ANSWER_BYTES:
                        raise self.fault("that the server closes", f"more than {MOST_ANSWER_BYTES:,} bytes")
        return self._take(len(self._buffer), 0)

    async def whatever(self, seconds: float, is_whole: Callable[[bytes], bool] = lambda _: False) -> bytes:
        """Return what comes until it is whole, the server closes, or no more comes for a moment; b"" if nothing comes
        within this time.
        """
        with contextlib.suppress(Fault):
            await self._until_quiet(is_whole, seconds, "")
        return self._take(len(self._buffer), 0)

    @property
    def has_ended(self) -> bool:
        """Whether the server has closed its half, as far as was read."""
        return self._has_ended

    def fault(self, expected: str, got: str, *, cut: bool = False) -> Fault:
        return Fault(self._server, self.sent, expected, got, cut=cut)

    # Reading. ------------------------------------------------------------------------------------------------

    def _take(self, length: int, end: int) -> bytes:
        """Take bytes from the beginning of what has come, and leave out the end behind them."""
        taken = bytes(self._buffer[:length])
        del self._buffer[: length + end]
        return taken

    async def _read(self) -> bool:
        """Read some more; return whether there was more."""
        if self._has_ended:
            return False
        self._has_read = True
        data = await self._reader.read(BUFFERED_BYTES)
        self._has_ended = not data
        self._buffer += data
        return bool(data)

    async def _until(
        self,
        find: Callable[[bytearray, int], int],
        overlap: int,
        expected: str,
        seconds: float | None = None,
        most: int = MOST_ANSWER_BYTES,
    ) -> int:
        """Read until something is found, and return where. Raises Fault if the stream ends before."""
        seconds, start = seconds or self._seconds, 0
        with self._faults(expected):
            try:
                async with asyncio.timeout(seconds):
                    while (at := find(self._buffer, start)) < 0:
                        start = max(0, len(self._buffer) - overlap + 1)
                        if len(self._buffer) > most:
                            raise self.fault(expected, f"more than {most:,} bytes without an end")
                        if not await self._read():
                            raise self.fault(expected, _ended(bytes(self._buffer)), cut=True)
                    return at
            except TimeoutError:
                some = bytes(self._buffer[: 1 << 16])
                raise self.fault(
                    expected, f"{shown(some)} and no more within {seconds:g} s" if some else _silence(seconds)
                ) from None

    async def _until_quiet(
        self,
        is_whole: Callable[[bytes], bool],
        seconds: float,
        expected: str,
    ) -> None:
        """Read until it is whole, or the server closes, or no more comes. Raises Fault if nothing comes."""
        deadline = asyncio.get_running_loop().time() + seconds
        with self._faults(expected):
            while not is_whole(bytes(self._buffer)):
                if len(self._buffer) > MOST_ANSWER_BYTES:
                    raise self.fault(expected, f"more than {MOST_ANSWER_BYTES:,} bytes without an end")
                has_some = bool(self._buffer.strip(b"\r\n"))
                left = deadline - asyncio.get_running_loop().time()
                try:
                    async with asyncio.timeout(min(STILL_SECONDS, left) if has_some else left):
                        if await self._read():
                            continue
                except TimeoutError:
                    if not has_some and not self._buffer:
                        raise self.fault(expected, _silence(seconds)) from None
                if self._has_ended and not self._buffer:
                    raise self.fault(expected, _ended(b""), cut=True)
                return

    @contextlib.contextmanager
    def _faults(self, expected: str) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise self.fault(expected, _silence(self._seconds)) from error
        except OSError as error:
            raise self.fault(expected, reason(error), cut=isinstance(error, ConnectionError)) from error


def _ended(partial: bytes) -> str:
    return f"{shown(partial)}, then the end of the connection" if partial else "the end of the connection"


def reason(error: OSError | UnicodeError) -> str:
    """Return the system's error text; asyncio replaces it with its own."""
    number = error.errno if isinstance(error, OSError) else None
    return os.strerror(number) if number is not None and number > 0 else str(error)


def _silence(seconds: float) -> str:
    return f"nothing within {seconds:g} s"
