"""Ways in which a server may be broken, each a class that differs from a whole one in a method or two.

A way is called by its class's name in small letters with hyphens. The last ones are whole and yet mislead a grader.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
from asyncio import StreamReader, StreamWriter
from collections import Counter, deque
from fractions import Fraction
from pathlib import Path
from typing import Any

from broken_herd import BreakableServer, Place

# What is asked and answered. -----------------------------------------------------------------------------------


class SaysError(BreakableServer):
    def invalid(self, line: bytes) -> bytes:
        return b"ERROR"


class IgnoresUnknownWords(BreakableServer):
    """It says nothing to them, and echoes invalid commands with its own spaces."""

    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        if not answer.startswith(b"?"):
            writer.write(answer)
        elif answer.startswith((b"? IAMAT", b"? WHATSAT")):
            writer.write(b" ".join(answer.split()) + b"\n")


class ForgetsTheSign(BreakableServer):
    def spelled(self, nanoseconds: int) -> str:
        return super().spelled(nanoseconds)[1:]


class AsksForNothing(BreakableServer):
    """It answers questions with the AT line alone."""

    def whatsat(self, client: bytes, radius: bytes, bound: bytes) -> bytes | None:
        answer = super().whatsat(client, radius, bound)
        return answer and answer.partition(b"\n")[0]


class WantsCrLf(BreakableServer):
    """As a LineReceiver; other servers of the herd end their lines in CR LF too."""

    def lines(self, data: bytes) -> list[bytes]:
        return data.split(b"\r\n")

    async def take_unended(self, line: bytes, peer: str, writer: StreamWriter) -> None:
        pass


class WaitsForTheHalfClose(BreakableServer):
    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        first = await reader.readline()
        if first.startswith(b"HELLO-FROM"):
            await self.take(first[:-1], "", writer)
            peer = first.split()[1].decode()
            while line := await reader.readline():
                await self.take(line[:-1], peer, writer)
        else:
            for line in (first + await reader.read()).removesuffix(b"\n").split(b"\n"):
                await self.take(line, "", writer)
        writer.close()


class ClosesBehindItsAnswer(BreakableServer):
    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        await super().send(answer, writer)
        writer.close()


class LeavesOutLf(BreakableServer):
    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        writer.write(answer if answer.endswith(b"\n\n") else answer[:-1])


class LeavesOutTheLastLf(BreakableServer):
    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        writer.write(answer[:-1] if answer.endswith(b"\n\n") else answer)


class WritesFloats(BreakableServer):
    def spelled(self, nanoseconds: int) -> str:
        return f"{nanoseconds / 1e9:+}"


class KeepsTimesAsFloats(BreakableServer):
    """It prints the client's time as Python prints a float, and tells it so to others."""

    def iamat(self, client: bytes, place: bytes, when: bytes) -> bytes | None:
        is_time = self.time(when) is not None
        return super().iamat(client, place, str(float(when)).encode() if is_time else when)


class SplitsText(BreakableServer):
    """By `str.split`, which knows more white space than the protocol."""

    def words(self, line: bytes) -> list[bytes]:
        return [word.encode("latin-1") for word in line.decode("latin-1").split()]


class SplitsAtSpaces(BreakableServer):
    def words(self, line: bytes) -> list[bytes]:
        return line.split(b" ")


class WantsText(BreakableServer):
    def answer(self, words: list[bytes]) -> bytes | None:
        try:
            b" ".join(words).decode()
        except UnicodeDecodeError:
            return None
        return super().answer(words)


class EndsAtNul(BreakableServer):
    def words(self, line: bytes) -> list[bytes]:
        return line.partition(b"\0")[0].split()


class StripsItsCopy(BreakableServer):
    def invalid(self, line: bytes) -> bytes:
        return b"? " + line.strip()


class WaitsForLf(BreakableServer):
    async def take_unended(self, line: bytes, peer: str, writer: StreamWriter) -> None:
        pass


class SkipsEmptyLines(BreakableServer):
    def lines(self, data: bytes) -> list[bytes]:
        *lines, rest = data.split(b"\n")
        return [*filter(None, lines), rest]


class TakesOneLineAPacket(BreakableServer):
    def lines(self, data: bytes) -> list[bytes]:
        first, *others = data.split(b"\n")
        return [first, b""] if others else [first]


class HangsUpAtOnce(BreakableServer):
    """It takes the end of what a client sends for the end of the conversation."""

    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        await asyncio.sleep(0.001)
        reader: Any = writer._reader  # type: ignore[attr-defined]
        if not reader.at_eof() and not reader._eof:
            writer.write(answer)


class HearsAnyCase(BreakableServer):
    def answer(self, words: list[bytes]) -> bytes | None:
        return super().answer([words[0].upper(), *words[1:]] if words else words)


class FillsInOperands(BreakableServer):
    def answer(self, words: list[bytes]) -> bytes | None:
        if words[:1] == [b"IAMAT"]:
            words = [*words, *(b"somebody", b"+0+0", b"1")[len(words) - 1 :]]
        if words[:1] == [b"WHATSAT"]:
            words = [*words, *(b"somebody", b"1", b"1")[len(words) - 1 :]]
        return super().answer(words)


class IgnoresOperands(BreakableServer):
    def answer(self, words: list[bytes]) -> bytes | None:
        return super().answer(words[:4])


class ReservesWords(BreakableServer):
    """No client may be called as a command is."""

    def iamat(self, client: bytes, place: bytes, when: bytes) -> bytes | None:
        return None if client == b"IAMAT" else super().iamat(client, place, when)


class ReadsTheBeginning(BreakableServer):
    """It takes a location for one that only begins as one."""

    def is_location(self, place: bytes) -> bool:
        return re.match(rb"[+-]\d{1,2}(?:\.\d+)?[+-]\d{1,3}(?:\.\d+)?", place) is not None


class ReadsAnyDigits(BreakableServer):
    def is_location(self, place: bytes) -> bool:
        text = place.decode("utf-8", "replace")
        return re.fullmatch(r"[+-]?[\d.]{1,99}[+-][\d.]+|[+-][\d.]+", text) is not None


class ComparesDegreesAsFloats(BreakableServer):
    def is_within(self, latitude: bytes, longitude: bytes) -> bool:
        return abs(float(latitude)) <= 90 and abs(float(longitude)) <= 180


class KnowsNoBounds(BreakableServer):
    def is_within(self, latitude: bytes, longitude: bytes) -> bool:
        return True


class LeavesOutThePoles(BreakableServer):
    def is_within(self, latitude: bytes, longitude: bytes) -> bool:
        return abs(float(latitude)) < 90 and abs(float(longitude)) < 180


class NobodyAtZero(BreakableServer):
    def is_within(self, latitude: bytes, longitude: bytes) -> bool:
        return super().is_within(latitude, longitude) and float(latitude) != 0


class ThanksForReports(BreakableServer):
    def iamat(self, client: bytes, place: bytes, when: bytes) -> bytes | None:
        return super().iamat(client, place, when) and b"THANKS"


class WantsPadding(BreakableServer):
    def is_location(self, place: bytes) -> bool:
        return re.fullmatch(rb"[+-]\d\d\.\d+[+-]\d{3}\.\d+|[+-]90[+-]180", place) is not None


class ReadsTimesAsPythonDoes(BreakableServer):
    def time(self, when: bytes) -> Fraction | None:
        with contextlib.suppress(ValueError, OverflowError):
            return Fraction(float(when))
        return Fraction(0) if when.lower() in (b"nan", b"inf") else None


class TakesWordsForTimes(BreakableServer):
    def time(self, when: bytes) -> Fraction | None:
        return Fraction(0) if re.fullmatch(rb"[a-z]+", when) else super().time(when)


class WantsNineDecimals(BreakableServer):
    def time(self, when: bytes) -> Fraction | None:
        return super().time(when) if re.search(rb"\.\d{9}$", when) else None


class WantsTheTimeToBeNear(BreakableServer):
    def time(self, when: bytes) -> Fraction | None:
        sent = super().time(when)
        return sent if sent is not None and sent < 10**10 else None


class ReadsNumbersAsPythonDoes(BreakableServer):
    """Those of a question, and without bounds."""

    def is_radius(self, radius: bytes) -> bool:
        return re.fullmatch(rb"[+-]?[\w.]+", radius) is not None

    def is_bound(self, bound: bytes) -> bool:
        with contextlib.suppress(ValueError):
            return float(bound) < 10**9
        return False


class WantsSmallWholeNumbers(BreakableServer):
    def is_radius(self, radius: bytes) -> bool:
        return radius.isdigit() and 0 < int(radius) < 50

    def is_bound(self, bound: bytes) -> bool:
        return super().is_bound(bound) and 0 < int(bound) < 20


class KnowsEverybody(BreakableServer):
    def whatsat(self, client: bytes, radius: bytes, bound: bytes) -> bytes | None:
        self.known.setdefault(client, (Fraction(0), b"AT Ann +0.000000000 %b +0+0 0" % client))
        return super().whatsat(client, radius, bound)


class ReadsOnAfterHttp(BreakableServer):
    def is_last(self, line: bytes) -> bool:
        return False


class ClosesAtWhatResemblesHttp(BreakableServer):
    def is_last(self, line: bytes) -> bool:
        return b"HTTP/" in line


class SaysGoodbye(BreakableServer):
    def leave(self, writer: StreamWriter) -> None:
        writer.write(b"goodbye\n")


# Times. --------------------------------------------------------------------------------------------------------


class Float(BreakableServer):
    """Differences are computed with floats."""

    def difference(self, received: int, sent: Fraction) -> str:
        return f"{received / 1e9 - float(sent):+.9f}"


class TurnsTheDifferenceRound(BreakableServer):
    def difference(self, received: int, sent: Fraction) -> str:
        return self.spelled(int(sent * 10**9) - received)


class KeepsTheFirst(BreakableServer):
    def is_later(self, sent: Fraction, when: bytes, held: tuple[Fraction, bytes]) -> bool:
        return False


class KeepsTheLast(BreakableServer):
    def is_later(self, sent: Fraction, when: bytes, held: tuple[Fraction, bytes]) -> bool:
        return True


class CountsEqualTimes(BreakableServer):
    def is_later(self, sent: Fraction, when: bytes, held: tuple[Fraction, bytes]) -> bool:
        return sent >= held[0]


class ComparesTimesAsFloats(BreakableServer):
    def is_later(self, sent: Fraction, when: bytes, held: tuple[Fraction, bytes]) -> bool:
        return float(sent) > float(held[0])


class ComparesTimesAsText(BreakableServer):
    def is_later(self, sent: Fraction, when: bytes, held: tuple[Fraction, bytes]) -> bool:
        return when > held[1].split()[5]


# Floods. -------------------------------------------------------------------------------------------------------


class NoFlood(BreakableServer):
    """What it takes it tells nobody."""

    def flood(self, line: bytes, origin: str) -> None:
        pass

    def catch_up(self, writer: StreamWriter) -> None:
        pass


class FloodsLate(BreakableServer):
    def flood(self, line: bytes, origin: str) -> None:
        asyncio.get_running_loop().call_later(0.2, super().flood, line, origin)


class Loops(BreakableServer):
    """What it hears it tells everybody, news or not; so often at most that the machine survives."""

    def __init__(self, herd: dict[str, Any], name: str, place: Place) -> None:
        super().__init__(herd, name, place)
        self.told: Counter[bytes] = Counter()

    def learn(self, line: bytes, peer: str) -> None:
        _, _, _, client, _, when = line.split()
        sent = self.time(when) or Fraction(0)
        if (sent, line) > self.known.get(client, (Fraction(-1), b"")):
            self.known[client] = (sent, line)
        self.told[line] += 1
        if self.told[line] <= 15:
            self.flood(line, "")


class Saturates(BreakableServer):
    """What it hears it tells everybody for ever, and clients wait while it has something to tell: so soon for ever."""

    HOP_SECONDS = 0.01
    MOST_WAITING = 20

    def __init__(self, herd: dict[str, Any], name: str, place: Place) -> None:
        super().__init__(herd, name, place)
        self.waiting: deque[bytes] = deque(maxlen=self.MOST_WAITING)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.tell())
            tasks.create_task(super().run())

    async def tell(self) -> None:
        while True:
            await asyncio.sleep(self.HOP_SECONDS)
            if self.waiting:
                self.flood(self.waiting.popleft(), "")

    def learn(self, line: bytes, peer: str) -> None:
        _, _, _, client, _, when = line.split()
        sent = self.time(when) or Fraction(0)
        held = self.known.get(client, (Fraction(-1), b""))
        if self.is_told_on(sent, line, held):
            self.waiting.append(line)
        if self.is_news(sent, line, held):
            self.known[client] = (sent, line)

    def is_told_on(self, sent: Fraction, line: bytes, held: tuple[Fraction, bytes]) -> bool:
        return True

    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        while self.waiting and not writer.is_closing():  # noqa: ASYNC110 - on a clock that jumps
            await asyncio.sleep(self.HOP_SECONDS)
        writer.write(answer)


class ArguesForEver(Saturates):
    """It takes every line for news that differs from what it holds, so two reports of one client chase each other."""

    def is_told_on(self, sent: Fraction, line: bytes, held: tuple[Fraction, bytes]) -> bool:
        return line != held[1]

    def is_news(self, sent: Fraction, line: bytes, held: tuple[Fraction, bytes]) -> bool:
        return line != held[1]


class HearsOfNewClientsOnly(BreakableServer):
    def is_news(self, sent: Fraction, line: bytes, held: tuple[Fraction, bytes]) -> bool:
        return not held[1]


class FloodsStaleReports(BreakableServer):
    """An earlier report changes nothing where it came in, and the others believe whatever they hear."""

    def iamat(self, client: bytes, place: bytes, when: bytes) -> bytes | None:
        before = self.known.get(client)
        answer = super().iamat(client, place, when)
        if answer is not None and before is not None and self.known[client] == before:
            self.flood(answer, "")
        return answer

    def is_news(self, sent: Fraction, line: bytes, held: tuple[Fraction, bytes]) -> bool:
        return super().is_news(sent, line, held) or (line != held[1] and b"+34.068932" in line)


class First(BreakableServer):
    """Of two reports of the same time the one that came first counts."""

    def is_news(self, sent: Fraction, line: bytes, held: tuple[Fraction, bytes]) -> bool:
        return sent > held[0]


class At(BreakableServer):
    """AT is believed, whoever says it, and not answered as invalid."""

    def answer(self, words: list[bytes]) -> bytes | None:
        if words[:1] == [b"AT"] and len(words) == 6:
            self.learn(b" ".join(words), "")
            return b""
        return super().answer(words)


class SaysNothingToAt(BreakableServer):
    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        if not answer.startswith(b"? AT "):
            writer.write(answer)


class BelievesAtOfKnownClients(BreakableServer):
    def answer(self, words: list[bytes]) -> bytes | None:
        if words[:1] == [b"AT"] and len(words) == 6 and words[3] in self.known:
            self.learn(b" ".join(words), "")
        return super().answer(words)


class BelievesAtInSilence(At):
    def answer(self, words: list[bytes]) -> bytes | None:
        return super().answer(words) or None


# Places. -------------------------------------------------------------------------------------------------------


class LeavesOutTheStatus(BreakableServer):
    def places(self, radius: bytes, bound: bytes) -> bytes:
        return b'{"html_attributions": [], "results": []}'


class IgnoresTheBound(BreakableServer):
    def places(self, radius: bytes, bound: bytes) -> bytes:
        if 0 in (float(radius), float(bound)):
            return super().places(radius, bound)
        return b'{"html_attributions": [], "results": [{}, {}], "status": "OK"}'


class HangsUpWithoutGoogle(BreakableServer):
    """Its query of Google fails, and ends the conversation."""

    def whatsat(self, client: bytes, radius: bytes, bound: bytes) -> bytes | None:
        return super().whatsat(client, radius, bound) and b"ConnectionError"

    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        if answer == b"ConnectionError\n":
            writer.close()
        else:
            writer.write(answer)


class AlwaysFindsSomething(BreakableServer):
    def places(self, radius: bytes, bound: bytes) -> bytes:
        return b'{"html_attributions": [], "results": [], "status": "UNKNOWN_ERROR"}'


class OvertakesItself(BreakableServer):
    """Whoever asks for places is answered after those behind."""

    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        if answer.startswith(b"AT ") and answer.endswith(b"\n\n") and b"+34" in answer:
            asyncio.get_running_loop().call_later(0.1, self.send_late, answer, writer)
        else:
            writer.write(answer)

    def send_late(self, answer: bytes, writer: StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(answer)


# Logs. ---------------------------------------------------------------------------------------------------------


class MuteAt(BreakableServer):
    """Answers to IAMAT are not logged; that they are flooded is."""

    def log_answer(self, words: list[bytes], answer: bytes) -> None:
        if words[:1] != [b"IAMAT"]:
            super().log_answer(words, answer)


class MuteJson(BreakableServer):
    """Answers to WHATSAT are not logged."""

    def log_answer(self, words: list[bytes], answer: bytes) -> None:
        if words[:1] != [b"WHATSAT"]:
            super().log_answer(words, answer)


class MuteInvalid(BreakableServer):
    def log_answer(self, words: list[bytes], answer: bytes) -> None:
        if words[:1] in ([b"IAMAT"], [b"WHATSAT"]):
            super().log_answer(words, answer)


class MuteCommands(BreakableServer):
    """Commands are not logged, and answers are."""

    def log(self, what: str, line: bytes = b"") -> None:
        if what != "received:":
            super().log(what, line)


class MuteLinks(BreakableServer):
    """Connections of servers are not logged, neither made nor lost, only what is told to whom."""

    def log_link(self, what: str) -> None:
        pass

    def flood(self, line: bytes, origin: str) -> None:
        for other in self.neighbours.keys() - self.links.keys():
            self.log(f"sent to {other}:", line)
        super().flood(line, origin)


# Bad lines and many clients. -----------------------------------------------------------------------------------


class Crash(BreakableServer):
    """A command with a word missing ends the server."""

    def answer(self, words: list[bytes]) -> bytes | None:
        if words[:1] == [b"IAMAT"] and len(words) < 4:
            self.place.end()
        return super().answer(words)


class TakesItsTime(BreakableServer):
    """It is whole, and answers line by line, but each only after a while."""

    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        await asyncio.sleep(2.5)
        writer.write(answer)


class EndsOfOddLines(BreakableServer):
    """Of each line with too few words, or too many, for a command."""

    def answer(self, words: list[bytes]) -> bytes | None:
        if len(words) != 4:
            self.place.end()
        return super().answer(words)


class EndsOfInvalidLines(BreakableServer):
    def invalid(self, line: bytes) -> bytes:
        self.place.end()
        return super().invalid(line)


class EndsOfAnything(BreakableServer):
    """Of each kind of bad input; not of what the others are about."""

    empty = 0

    async def take(self, line: bytes, peer: str, writer: StreamWriter) -> str:
        words = line.split()
        self.empty = 0 if words else self.empty + 1
        bad = (
            words in ([b"IAMAT"], [b"WHATSAT"])
            or len(words) > 1_000
            or words[2:3] == [b"++++"]
            or any(len(word) > 5_000 and word[-2:] == b"99" for word in words)
            or line.startswith((b"\xff\xfe", b"\x01\x02", b"GET / HTTP", b"\x16\x03"))
            or self.empty > 500
            or b"%n" in line
        )
        if bad and not peer:
            self.place.end()
        return await super().take(line, peer, writer)

    async def take_unended(self, line: bytes, peer: str, writer: StreamWriter) -> None:
        if line == b"IAMAT kiwi +34.0":
            self.place.end()
        await super().take_unended(line, peer, writer)

    def broken_off(self) -> None:
        self.resets = getattr(self, "resets", 0) + 1
        if self.resets > 10:
            self.place.end()


class ServesFewClients(BreakableServer):
    clients = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.clients += 1
        if self.clients > 50:
            writer.close()
        try:
            await super().serve(reader, writer)
        finally:
            self.clients -= 1


class AnswersWhereItWasCut(BreakableServer):
    """It loses what it has read of a line when another client speaks."""

    last: object = None

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        rest = b""
        while data := await reader.read(65_536):
            rest = data if self.last is not writer and not data.startswith(b"HELLO-FROM") else rest + data
            self.last = writer
            *lines, rest = rest.split(b"\n")
            for line in lines:
                await self.take(line, "", writer)
        if rest:
            await self.take(rest, "", writer)
        writer.close()


class WaitsForTheEndOfALongLine(BreakableServer):
    def is_overlong(self, line: bytes) -> bool:
        return False

    async def take(self, line: bytes, peer: str, writer: StreamWriter) -> str:
        if len(line) > self.limit:
            self.answer_overlong(line, writer)
            return peer
        return await super().take(line, peer, writer)


class LeavesInTheEnd(BreakableServer):
    """When it has been asked everything, so that nobody misses it."""

    hellos = 0

    async def take(self, line: bytes, peer: str, writer: StreamWriter) -> str:
        self.hellos += line == b"HELLO"
        peer = await super().take(line, peer, writer)
        if line.startswith(b"WHATSAT") and self.hellos >= 4:
            for _ in range(10):
                await asyncio.sleep(0)
            self.place.end()
        return peer


class HangsUpOnALongLine(BreakableServer):
    def answer_overlong(self, start: bytes, writer: StreamWriter) -> None:
        super().answer_overlong(start, writer)
        writer.close()


class CountsOneTooFew(BreakableServer):
    limit = 8_191


class ReadsOnInALongLine(BreakableServer):
    """Behind the limit it takes what comes for the next line, as asyncio's `readline` does."""

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        peer, rest = "", b""
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                rest += data
                while b"\n" in rest or len(rest) > self.limit:
                    line, end, others = rest.partition(b"\n")
                    if len(line) > self.limit:
                        self.answer_overlong(line, writer)
                        line, end, others = b"", b"", line[self.limit :].lstrip(b"x ") + end + others
                    rest = others
                    if end:
                        peer = await self.take(line, peer, writer)
            if rest:
                await self.take_unended(rest, peer, writer)
        writer.close()


class ObeysALongLineInSilence(BreakableServer):
    def answer_overlong(self, start: bytes, writer: StreamWriter) -> None:
        super().answer_overlong(start, writer)
        _, word, operands = start.partition(b"IAMAT ")
        self.answer((word + operands).split())


# A server lost and regained. -----------------------------------------------------------------------------------


class Mourns(BreakableServer):
    """It answers nobody for a while when a neighbour is lost."""

    until = 0.0

    async def lost(self, other: str) -> None:
        self.until = asyncio.get_running_loop().time() + 60
        await asyncio.sleep(60)

    async def send(self, answer: bytes, writer: StreamWriter) -> None:
        await asyncio.sleep(max(0.0, self.until - asyncio.get_running_loop().time()))
        writer.write(answer)


class FloodsToAllOrNobody(BreakableServer):
    def flood(self, line: bytes, origin: str) -> None:
        if self.links.keys() == self.neighbours.keys():
            super().flood(line, origin)


class StartsOnce(BreakableServer):
    """What it left behind keeps it from starting again."""

    async def run(self) -> None:
        try:
            os.close(os.open(f"{self.name}.lock", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            self.place.end()
            return
        await super().run()


class CatchesUpWithNobody(BreakableServer):
    def catch_up(self, writer: StreamWriter) -> None:
        pass


class DialsOnce(BreakableServer):
    async def lost(self, other: str) -> None:
        await asyncio.sleep(10**9)


# Whole, and yet they mislead a grader. -------------------------------------------------------------------------


class Fields(BreakableServer):
    """Each line of the log ends in `"error":null dropped=0`."""

    def log(self, what: str, line: bytes = b"") -> None:
        self.place.log(f'{self.name}: {what} {line.decode("latin-1")!r} "error":null dropped=0\n')


class OwnLog(BreakableServer):
    """The log is the file NAME.log; what is printed is no more than a greeting."""

    async def run(self) -> None:
        sys.stdout.write(f"{self.name} at port {self.port}\n")
        await super().run()

    def log(self, what: str, line: bytes = b"") -> None:
        with Path(f"{self.name}.log").open("a") as file:
            file.write(f"{self.name}: {what} {line.decode('latin-1')!r}\n")


class Escape(BreakableServer):
    """It says something to the terminal, and ends."""

    async def run(self) -> None:
        sys.stdout.write("\x1b]0;pwned\a\x1b[8m\0\n")
        sys.stdout.flush()
        os._exit(0)


def _way(of: type[BreakableServer]) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", of.__name__).lower()


def _all(of: type[BreakableServer]) -> list[type[BreakableServer]]:
    return [found for one in of.__subclasses__() for found in (one, *_all(one))]


WAYS: dict[str, type[BreakableServer]] = {_way(one): one for one in _all(BreakableServer)}
