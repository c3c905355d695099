"""Runs all checks on a herd, section by section.

Checks that change much come last: invalid lines of the conformance cases are sent after everything else was seen, and
a server is lost and regained at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from proxyherd.grading import conformance, floods, hardness, logged, places, regaining, times
from proxyherd.grading.causes import attribute, because_of, carrier
from proxyherd.grading.checks import Check, Section
from proxyherd.grading.faults import Fault, NotApplicable, NotJudged, NotSeen
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.report import GradingReport, Result
from proxyherd.grading.servers import clock

FORMS: Final = "forms"
"""The section that comes first: a fault in it tells what later checks cannot do."""

SECTIONS: Final = (
    Section("times", "Times and differences", times.checks),
    Section("floods", "Floods between servers", floods.checks),
    Section("places", "Places", places.checks),
    Section("logs", "Logs of commands", logged.checks),
    Section("cases", "Conformance cases", conformance.checks),
    Section("hardness", "Bad lines and many clients", hardness.checks, at_once=False),
    Section("regained", "A server lost and regained", regaining.checks, at_once=False),
)


def count_checks(herd: GradedHerd, sections: Sequence[Section] = SECTIONS) -> int:
    """Return how many checks there are."""
    return sum(len(section.checks(herd)) for section in sections)


async def judge(
    herd: GradedHerd,
    *,
    sections: Sequence[Section] = SECTIONS,
    seconds: float = 300.0,
    settle_seconds: float = 5.0,
    passed: Callable[[], None] = lambda: None,
) -> GradingReport:
    """Judge a herd; `passed` is called after each check. After `seconds`, checks that have not run are faults.

    Raises UnreachableError if a server gives no answer at all.
    """
    began = clock()
    deadline = began + seconds
    await herd.meet()
    await herd.settle(settle_seconds)
    results: list[Result] = []
    for section in sections:
        await herd.revive()
        found = section.checks(herd)

        formal = {one.id: one for one in results if one.section == FORMS and one.fault}

        async def one(check: Check, section: Section = section, formal: dict[str, Result] = formal) -> Result:
            cause = carrier(check.explained_by, formal)
            result = _left_out(check, section, cause) if cause else await _judge(check, section, deadline)
            passed()
            return result

        if section.at_once:
            results += await asyncio.gather(*map(one, found))
        else:
            results += [await one(check) for check in found]
    servers = {server.name: f"{server.host}:{server.port}" for server in herd.servers}
    titles = {section.name: section.title for section in sections}
    return GradingReport(servers, titles, attribute(results), clock() - began)


def _left_out(check: Check, section: Section, cause: Result) -> Result:
    """Return the result of a check that cannot talk to the servers as it wants to."""
    return _result(check, section, 0.0, not_judged=because_of(cause), cause=cause.id)


async def _judge(check: Check, section: Section, deadline: float) -> Result:
    began = clock()
    left = deadline - began
    fault: Fault | None = None
    not_seen = not_applicable = not_judged = cause = ""
    try:
        async with asyncio.timeout(max(0.0, min(check.seconds, left))):
            await check.run()
    except Fault as error:
        fault = error
    except NotSeen as error:
        not_seen = str(error)
    except NotJudged as error:
        not_judged, cause = str(error), error.cause
    except NotApplicable as error:
        not_applicable = str(error)
    except TimeoutError:
        which = "all checks together" if left < check.seconds else "this check"
        fault = Fault("herd", b"", f"that {which} end in time", f"no end after {clock() - began:.0f} s")
    return _result(
        check,
        section,
        clock() - began,
        fault=fault,
        not_seen=not_seen,
        not_applicable=not_applicable,
        not_judged=not_judged,
        cause=cause,
    )


def _result(check: Check, section: Section, seconds: float, **judgement: Any) -> Result:
    return Result(
        id=check.id,
        section=section.name,
        title=check.title,
        rule=check.rule,
        points=check.points,
        seconds=seconds,
        about=check.about,
        explained_by=check.explained_by,
        **judgement,
    )
