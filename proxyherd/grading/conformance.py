"""The conformance cases: each example is sent to one server as it is written, and byte by byte to another.

If a server crashes or closes a connection, other cases that are under way there fail too, without being the cause. So
cases that were interrupted are repeated one at a time.
"""

from __future__ import annotations

import asyncio
from typing import Final

from proxyherd.grading.cases import Case, load_cases
from proxyherd.grading.causes import because_of
from proxyherd.grading.checks import Check
from proxyherd.grading.faults import Fault, NotJudged
from proxyherd.grading.forms import Form
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.places import PLACES
from proxyherd.grading.playing import play
from proxyherd.grading.servers import GradedServer

CASES_AT_ONCE: Final = 32
"""Cases that are played at once."""

ANSWERS: Final = {
    "at": "A report in form and in bounds is answered with AT, the server's name, the difference of the times with a "
    "sign and nine decimals, and the three operands as they came.",
    "at+json": "A question about a known client is answered with the AT line held of it, places as JSON in the format "
    "of Nearby Search, no more than asked for, and two LFs.",
}
"""The rule for each kind of expected answer; for all others it is INVALID."""

UNENDED: Final = "case.the-answer-to-a-line-without-lf-ends-in-lf"

INVALID: Final = (
    "Whatever is no command in form and in bounds is answered with `? ` and a copy of the line, byte for byte, "
    "less its LF."
)


def checks(herd: GradedHerd) -> list[Check]:
    room, alone = asyncio.Semaphore(CASES_AT_ONCE), asyncio.Lock()

    def check(number: int, case: Case) -> Check:
        async def run() -> None:
            for turn, chunk in enumerate((case.chunk, 1)):
                server = herd.turn(number + turn)
                _needs_reports(case, server)
                try:
                    async with room:
                        await play(case, server, chunk)
                except Fault as fault:
                    if not (fault.cut or fault.down):
                        raise
                else:
                    continue
                async with alone:
                    await _calm(room)
                    try:
                        await herd.until_serves(server)
                        await play(case, server, chunk)
                    except Fault as again:
                        raise await herd.explained(again, server) from again
                    finally:
                        _go_on(room)

        rules = dict.fromkeys(ANSWERS.get(what, INVALID) for what in case.expected)
        return Check(
            f"case.{case.slug}",
            f"Case: {case.name}",
            " ".join(rules),
            run,
            about=case.about,
            needs=case.needs,
            follows=_followed(case),
        )

    return [check(number, case) for number, case in enumerate(load_cases())]


def _needs_reports(case: Case, server: GradedServer) -> None:
    """Raise NotJudged if an AT line is expected of a server that has not answered the first report with one."""
    first = f"case.{load_cases()[0].slug}"
    if "at" in case.expected and not server.dialect.takes_reports and case is not load_cases()[0]:
        raise NotJudged(first, because_of(first, f"{server.name} does not answer IAMAT with AT"))


def _followed(case: Case) -> frozenset[str]:
    """Return the checks of which a fault explains one of this case."""
    found = set(PLACES) if "at+json" in case.expected else set()
    if case.about is Form.RADIUS_FRACTIONS:
        found.add("case.fractional-radius")
    if not case.send.endswith("\n") and "at" not in case.expected:
        found.add(UNENDED)
    if case.send.startswith("AT "):
        found |= {"at.answered-as-invalid", "at.teaches-nobody"}
    return frozenset(found)


async def _calm(room: asyncio.Semaphore) -> None:
    """Wait until no other case is being played, and let none begin."""
    for _ in range(CASES_AT_ONCE):
        await room.acquire()


def _go_on(room: asyncio.Semaphore) -> None:
    for _ in range(CASES_AT_ONCE):
        room.release()
