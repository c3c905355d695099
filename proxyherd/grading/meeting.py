"""The first meeting with a server: how it wants to be spoken to, and how it answers.

The rule: each exchange has a connection of its own and a deadline. First comes what every server understands, a report
in its ordinary form; what may end a server comes last. A slow answer is no departure: before a server is taken for one
that wants something else, it is asked again and waited for.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from proxyherd.base.escapes import escaped
from proxyherd.grading.answers import DECIMALS, AtLine, end_of_json, equal_as_floats
from proxyherd.grading.connections import PLACES_SECONDS, STILL_SECONDS, Connection
from proxyherd.grading.dialect import CRLF, LF, Dialect, Echo
from proxyherd.grading.exchanges import FIRST_SECONDS, Exchange, converse, has_lines, spoken_among
from proxyherd.grading.faults import Fault, Step, shown
from proxyherd.grading.forms import Form
from proxyherd.grading.servers import LOCATION, GradedServer, new_client, now, spelled

REPORT_WAYS: Final = ((LF, False), (LF, True), (CRLF, False), (CRLF, True))
"""What may stand behind a command that is answered, and whether the client then closes its sending half."""

QUESTIONS: Final = (b"0 0", b"1 1", b"10 5")
"""The radius and bound of a query for a client's AT line; the first pair that the herd accepts is used: 0
costs nothing."""

INVALID_LINES: Final = (
    (b"HELLO there", b"  HELLO   there "),
    (b"HELLO out there everybody", b"  HELLO   out there everybody "),
)
"""Invalid lines, also with odd spaces. Where the first one ends a server, the second one, with as many words as a command
has, may not."""

WHOLE: Final = b"+34-118"
"""A location without decimal points."""

OLD: Final = b"1621464827.959498503"
"""The time in the assignment: a float cannot hold its difference from today with nine decimals."""

AHEAD_NANOSECONDS: Final = 1_000_000_000_000
"""How far in the future a report's time is, so that the difference is negative."""


class SilentError(Exception):
    """A server takes connections and answers nothing; the text says what was tried."""


class Meeting:
    """Finds out the dialect of a server: `first_words`, then `go_on`."""

    def __init__(self, server: GradedServer, end_of: Callable[[GradedServer], Awaitable[str]]) -> None:
        """`end_of` says how a server has ended by itself, or ""."""
        self._server = server
        self._end_of = end_of
        self._reviver: Callable[[GradedServer], Awaitable[None]] | None = None
        """Starts the server again; nobody does before it has answered at all."""
        self._at_lines: list[tuple[Exchange, AtLine]] = []

    @property
    def _dialect(self) -> Dialect:
        return self._server.dialect

    def _learn(self, **what: Any) -> None:
        self._server.dialect = msgspec.structs.replace(self._server.dialect, **what)

    def _found(
        self, form: Form, seen: Exchange, expected: str, got: str = "", *, shown_by: Sequence[Exchange] = ()
    ) -> None:
        """Note a departure, and the exchanges that show it if that is not the one in which it was seen."""
        name = self._server.name
        steps = [Step(name, list(one.pieces), one.half_close) for one in shown_by or (seen,)]
        fault = Fault(name, seen.sent, expected, got or seen.got, down=bool(seen.end), steps=steps)
        self._server.findings.setdefault(form, fault)

    async def go_on(self, revive: Callable[[GradedServer], Awaitable[None]]) -> None:
        """Find out the rest. `revive` is called if the server ends meanwhile."""
        self._reviver = revive
        for step in self._steps():
            try:
                await step()
            except Fault:
                await self._revive()

    def _steps(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """Return what follows the first words: what may end a server comes last."""
        if not self._dialect.takes_reports:
            return ()
        return (
            self._manners,
            self._difference,
            self._end_of_stream,
            self._questions,
            self._packets,
            self._echo,
            self._blank_lines,
            self._whole_degrees,
        )

    # Exchanges. ----------------------------------------------------------------------------------------------

    async def _exchange(
        self,
        *pieces: bytes,
        half_close: bool | None = None,
        seconds: float | None = None,
        is_whole: Callable[[bytes], bool] | None = None,
        reports: int = 1,
    ) -> Exchange:
        """Send pieces with pauses on a new connection, and return what comes. Where several reports are to be answered,
        a slow server may pause between the answers. Raises Fault if no connection can be made.
        """
        half_close = self._dialect.half_close if half_close is None else half_close
        async with self._server.connect() as connection:
            wait = seconds or self._server.seconds
            heard = await converse(connection, pieces, half_close, wait, is_whole or has_lines(1), reports)
        if not heard.data and (end := await self._end_of(self._server)):
            await self._revive()
            return msgspec.structs.replace(heard, has_ended=True, end=end)
        return self._heard(heard)

    async def _revive(self) -> None:
        if self._reviver is not None:
            await self._reviver(self._server)

    def _heard(self, heard: Exchange) -> Exchange:
        self._at_lines += [(heard, at) for at in heard.at_lines]
        return heard

    def _report(self, location: bytes = LOCATION, when: bytes = b"") -> bytes:
        return b"IAMAT %b %b %b" % (new_client(), location, when or now())

    def _ended(self, *lines: bytes) -> bytes:
        return b"".join(line + self._dialect.line_end for line in lines)

    # Steps. --------------------------------------------------------------------------------------------------

    async def first_words(self) -> None:
        """Find out what a server answers at all: a line that ends in LF or CR LF, at once or after a half-close; and its
        name if it was given by address only. Raises SilentError, and Fault if it takes no connection.
        """
        soon = min(FIRST_SECONDS, self._server.seconds)
        tried: list[tuple[bytes, bool, Exchange]] = []
        for end, half_close in REPORT_WAYS:
            tried.append(await self._tried(end, half_close, soon))
            if tried[-1][2].at_lines:
                break
        if not (spoken := spoken_among(tried)) and soon < self._server.seconds:
            wait = self._server.seconds
            tried = await asyncio.gather(
                *(self._tried(end, half_close, wait) for end, half_close in REPORT_WAYS)
            )
            spoken = spoken_among(tried)
        if not spoken:
            raise SilentError(
                "it takes connections, but answers no IAMAT: neither a line that ends in LF, nor one that ends in CR LF, "
                "nor when the client then closes its sending half"
                + (" (it closes the connection)" if tried[0][2].has_ended else "")
            )
        end, half_close, heard = spoken[0]
        if tried[0] is not spoken[0]:
            wait = self._server.seconds if heard.seconds > soon / 4 else soon
            slow = await self._exchange(self._report() + LF, half_close=False, seconds=wait)
            if slow.at_lines:
                end, half_close, heard = LF, False, slow
        self._learn(line_end=end, half_close=half_close, takes_reports=bool(heard.at_lines))
        if self._server.name == f"{self._server.host}:{self._server.port}" and heard.at_lines:
            self._server.name = escaped(heard.at_lines[0].server)
        silence = f"nothing within {soon:g} s"
        if end == CRLF:
            self._found(
                Form.LINE_END,
                tried[0][2],
                "an answer",
                f"{silence}; it answers only where CR LF ends the line",
                shown_by=(tried[0][2], heard),
            )
        if half_close:
            self._found(
                Form.HALF_CLOSE,
                tried[0][2],
                "an answer",
                f"{silence}; it answers only after a half-close",
                shown_by=(tried[0][2], heard),
            )

    async def _tried(self, end: bytes, half_close: bool, seconds: float) -> tuple[bytes, bool, Exchange]:
        heard = await self._exchange(self._report() + end, half_close=half_close, seconds=seconds)
        return end, half_close, heard

    async def _manners(self) -> None:
        """Find out what ends an answer, and what happens to the connection behind it."""
        sent, half_close = self._ended(self._report()), self._dialect.half_close
        async with self._server.connect() as connection:
            await connection.send(sent)
            if half_close:
                connection.half_close()
            data = await connection.whatever(self._server.seconds, has_lines(1))
            first = self._heard(Exchange((sent,), half_close, data))
            self._note_end(first)
            more = await connection.whatever(STILL_SECONDS)
            if not half_close:
                again = await self._second_command(connection)
                if not again.data:
                    self._learn(closes=True)
                    self._found(
                        Form.CLOSING,
                        first,
                        "that the connection stays open for the next command",
                        again.got,
                        shown_by=[Exchange((*first.pieces, *again.pieces), half_close=False)],
                    )
                    return
                connection.half_close()
                more += await connection.whatever(self._server.seconds)
            if not connection.has_ended or more.strip(CRLF):
                self._learn(ends=False)
                got = f"{shown(more)} behind the answer" if more.strip(CRLF) else "that it stays open"
                self._found(
                    Form.END_OF_STREAM,
                    first,
                    "after a half-close, nothing more, and that it closes",
                    got,
                    shown_by=[Exchange((sent,), half_close=True)],
                )

    async def _second_command(self, connection: Connection) -> Exchange:
        pieces = (self._ended(self._report()),)
        try:
            if connection.has_ended:
                return Exchange(pieces, half_close=False, has_ended=True)
            await connection.send(*pieces)
        except Fault:
            return Exchange(pieces, half_close=False, has_ended=True)
        data = await connection.whatever(self._server.seconds, has_lines(1))
        return self._heard(Exchange(pieces, half_close=False, data=data, has_ended=connection.has_ended))

    def _note_end(self, heard: Exchange) -> None:
        """Note what stands behind one answer."""
        text = heard.data.rstrip(CRLF)
        end = heard.data[len(text) :]
        if end == LF or (end == CRLF and self._dialect.line_end == CRLF):
            if not text or self._dialect.answer_end:
                self._learn(answer_end=end)
            return
        if text:
            self._learn(answer_end=b"")
            self._found(Form.FINAL_LF, heard, "an answer that ends in one LF")

    async def _difference(self) -> None:
        """Find out how AT spells the difference, of a time long ago, now, and still to come; and the client's time."""
        old = await self._exchange(self._ended(self._report(when=OLD)))
        await self._exchange(self._ended(self._report(when=spelled(time.time_ns() + AHEAD_NANOSECONDS))))
        # A difference that is long shows by hand, too, how many decimals there are.
        for heard, at in sorted(self._at_lines, key=lambda one: one[0] is not old):
            spelling = b" ".join((b"AT", at.server, at.spelling, at.operands))
            if not at.has_one_sign:
                self._found(
                    Form.SIGN, heard, "a difference with one sign, such as +0.263873386", shown(spelling)
                )
            if at.decimals != DECIMALS:
                self._found(Form.DECIMALS, heard, "a difference with nine decimals", shown(spelling))
            sent = [b" ".join(line.split()[1:]) for line in heard.sent.splitlines()]
            if at.operands not in sent and any(equal_as_floats(one, at.operands) for one in sent):
                self._learn(float_times=True)
                self._found(Form.OPERANDS, heard, f"{shown(sent[0])}, byte for byte", shown(spelling))

    async def _end_of_stream(self) -> None:
        """Find out whether a half-close right behind a command costs the answer, and whether it ends a line."""
        if self._dialect.half_close:
            return
        ends = [self._dialect.line_end]
        if self._dialect.line_end == LF:
            ends.append(b"")
        for end in ends:
            heard = await self._exchange(self._report() + end, half_close=True)
            if not heard.at_lines:
                self._learn(ends=False)
                self._found(Form.END_OF_STREAM, heard, "with a half-close behind it, an AT line all the same")

    async def _packets(self) -> None:
        """Find out whether lines or packets are commands."""
        if not (self._dialect.half_close or self._dialect.closes):
            two = self._ended(self._report(), self._report())
            heard = await self._exchange(two, is_whole=has_lines(2), reports=2)
            if not heard.data.startswith(b"AT ") or heard.data.count(b"AT ") < 2:
                self._learn(packets=True)
                self._found(Form.PACKETS, heard, "an answer to each of two lines in one packet")
        line = self._ended(self._report())
        heard = await self._exchange(line[:4], line[4:])
        if not (heard.at_lines and heard.data.startswith(b"AT ")):
            self._learn(packets=True)
            self._found(
                Form.PACKETS,
                heard,
                f"one answer, also when it comes in two packets, cut behind {shown(line[:4])}",
            )

    async def _echo(self) -> None:
        """Find out what an invalid line is answered with."""
        for line, spaced in INVALID_LINES:  # noqa: B007 - the last ones are used below
            heard = await self._exchange(self._ended(line))
            if not heard.end:
                break
            self._server.harmless = b"and what comes now?" if line is INVALID_LINES[0][0] else b""
        answer = heard.data.strip(CRLF)
        if heard.data:
            self._note_end(heard)
        if heard.end:
            echo = Echo.EXACT  # as it must be where the server does not end
            self._found(Form.ECHO, heard, shown(b"? " + line))
        elif not answer:
            echo = Echo.SILENCE
        elif answer == b"? " + line:
            heard = await self._exchange(self._ended(spaced))
            is_exact = heard.end or heard.data.strip(CRLF) == b"? " + spaced
            echo = Echo.EXACT if is_exact else Echo.STRIPPED
        else:
            is_alike = answer.startswith(b"?") and answer[1:].split() == line.split()
            echo = Echo.STRIPPED if is_alike else Echo.OTHER
        self._learn(echo=echo)
        if echo is not Echo.EXACT:
            expected = shown(b"? " + heard.sent.removesuffix(self._dialect.line_end))
            self._found(Form.ECHO, heard, expected)

    async def _blank_lines(self) -> None:
        if self._dialect.echo is Echo.SILENCE:
            self._learn(blank_lines=False)
            return
        if self._dialect.takes_many:
            # So that a silent server need not be waited for.
            heard = await self._exchange(self._ended(b"", self._report()), is_whole=has_lines(2))
            answers = not heard.data.startswith(b"AT ") and bool(heard.data)
        else:
            heard = await self._exchange(self._dialect.line_end)
            answers = bool(heard.data)
        self._learn(blank_lines=answers or bool(heard.end))
        if heard.end:
            self._found(Form.BLANK_LINES, heard, shown(b"? "))
        elif not answers:
            line = Exchange((self._dialect.line_end,), self._dialect.half_close)
            self._found(Form.BLANK_LINES, line, shown(b"? "), "no answer to it")

    async def _whole_degrees(self) -> None:
        heard = await self._exchange(self._ended(self._report(WHOLE)))
        if not heard.at_lines:
            self._found(Form.WHOLE_DEGREES, heard, "an AT line")

    async def _questions(self) -> None:
        """Find out how a server can be asked for what it knows of a client, and what stands behind the JSON."""
        report = await self._exchange(self._ended(self._report()))
        if not report.at_lines:
            return
        client = report.sent.split()[1]
        for question in QUESTIONS:
            heard = await self._exchange(
                self._ended(b"WHATSAT %b %b" % (client, question)),
                seconds=self._server.seconds + PLACES_SECONDS,
                is_whole=lambda data: data.endswith(b"\n\n") or (data.startswith(b"?") and data.endswith(LF)),
            )
            if heard.data.startswith(b"AT "):
                self._server.question = question
                self._note_json_end(report, heard)
                return
        self._learn(questions=False)

    def _note_json_end(self, report: Exchange, heard: Exchange) -> None:
        data = heard.data.replace(CRLF, LF) if self._dialect.answer_end == CRLF else heard.data
        if (end := end_of_json(data.rstrip())) is None:
            return  # for the check of its form to judge
        body, behind = data[data.find(b"{") : end], data[end:]
        if behind != LF + LF or LF + LF in body:
            self._learn(json_end=False)
            got = "an empty line in the JSON" if LF + LF in body else f"{shown(behind)} behind the JSON"
            self._found(
                Form.JSON_END,
                heard,
                "JSON without an empty line in it, and two LFs behind it",
                got,
                shown_by=(report, heard),
            )
