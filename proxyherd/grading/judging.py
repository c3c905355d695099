"""Runs all checks on a herd, section by section.

Whether floods end is seen first: a herd where one does not has no time for anything else, so its servers are then judged
alone. Checks that change much come last: invalid lines of the conformance cases are sent after everything else was seen,
and a server is lost and regained at the end. Forms are looked at in any case, marked or not: they cost nothing, and without
them nobody knows how the servers were spoken to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any, Final

import msgspec

from proxyherd.grading import (
    by_hand,
    conformance,
    floods,
    formal,
    hardness,
    logged,
    places,
    regaining,
    times,
    web,
)
from proxyherd.grading.causes import attribute, because_of
from proxyherd.grading.checks import Check, Section
from proxyherd.grading.endless import Seclusion, find_endless, logs_from_now
from proxyherd.grading.faults import Fault, NotApplicable, NotJudged, NotSeen, Step
from proxyherd.grading.forms import FOUND_OUT, Form
from proxyherd.grading.herds import GradedHerd, UnreachableError
from proxyherd.grading.report import GradingReport, Result
from proxyherd.grading.rubric import Rubric, profile
from proxyherd.grading.servers import GradedServer, clock

FORMS: Final = Section("forms", "Forms of commands and answers", formal.checks)

SECTIONS: Final = (
    FORMS,
    Section("times", "Times and differences", times.checks),
    Section("floods", "Floods between servers", floods.checks),
    Section("places", "Places", places.checks),
    Section("logs", "Logs of commands", logged.checks),
    Section("cases", "Conformance cases", conformance.checks),
    Section("web", "The web port", web.checks),
    Section("hardness", "Bad lines and many clients", hardness.checks, at_once=False),
    Section("regained", "A server lost and regained", regaining.checks, at_once=False, in_steps=True),
)


def all_checks() -> dict[str, Check]:
    """Return the checks that exist by their IDs, in the order of judging."""
    nobody = GradedHerd([GradedServer("nobody", "localhost", 1)])
    return {check.id: check for section in SECTIONS for check in section.checks(nobody)}


def count_checks(herd: GradedHerd, rubric: Rubric, sections: Sequence[Section] = SECTIONS) -> int:
    """Return how many checks are run."""
    wanted = wanted_by(rubric)
    return sum(len(chosen(section, herd, wanted)) for section in _with_forms(sections))


def _with_forms(sections: Sequence[Section]) -> list[Section]:
    return [FORMS, *(section for section in sections if section is not FORMS)]


def checks_of(sections: Collection[str]) -> set[str]:
    """Return the IDs of the checks of sections, by their names."""
    nobody = GradedHerd([GradedServer("nobody", "localhost", 1)])
    return {check.id for one in SECTIONS if one.name in sections for check in one.checks(nobody)}


def profile_of(name: str, *, has_web: bool) -> Rubric:
    """Return a profile for a herd. Its web port counts only if the herd's file names one."""
    found = profile(name, all_checks())
    return found if has_web else found.without(checks_of(["web"]))


def chosen(section: Section, herd: GradedHerd, wanted: Collection[str]) -> list[Check]:
    """Return the checks of a section that are run: those wanted, and where a check builds on those before it, these."""
    found = section.checks(herd)
    numbers = [number for number, check in enumerate(found) if check.id in wanted]
    if section.in_steps and numbers:
        return found[: numbers[-1] + 1]
    return [found[number] for number in numbers]


def wanted_by(rubric: Rubric) -> set[str]:
    """Return the IDs of the checks that a rubric needs: those that count, those that may explain their faults, and those
    of the forms.
    """
    checks = all_checks()
    found, frontier = set[str](), {*rubric.shares, *(form.check for form in FOUND_OUT)}
    while frontier:
        found |= frontier
        frontier = {cause for check in frontier for cause in checks[check].explained_by} - found
    return found


async def judge(
    herd: GradedHerd,
    *,
    rubric: Rubric | None = None,
    sections: Sequence[Section] = SECTIONS,
    seconds: float = 300.0,
    settle_seconds: float = 5.0,
    passed: Callable[[], None] = lambda: None,
) -> GradingReport:
    """Judge a herd by a rubric, or by the profile `strict`; only checks of these sections are run, and of forms. `passed`
    is called after each check. After `seconds`, checks that have not ended are not seen.

    Raises UnreachableError if a server gives no answer at all.
    """
    if rubric is None:
        has_web = any(server.web is not None for server in herd.servers)
        rubric = profile_of("strict", has_web=has_web).only(checks_of([one.name for one in sections]))
    began = clock()
    grading = _Grading(herd, sections, wanted_by(rubric), began + seconds, passed)
    results = await grading.run(settle_seconds)
    knows_links = herd.edges is not None or len(herd.servers) < 2
    return GradingReport(
        addresses(herd), rubric, attribute(results), clock() - began, knows_links=knows_links
    )


class _Grading:
    """One grading, from the first words to the last check."""

    def __init__(
        self,
        herd: GradedHerd,
        sections: Sequence[Section],
        wanted: Collection[str],
        deadline: float,
        passed: Callable[[], None],
    ) -> None:
        self._herd = herd
        self._sections = sections
        self._wanted = wanted
        self._deadline = deadline
        self._passed = passed
        self._end = all_checks()[floods.END]
        self._looks_for_end = floods.END in wanted and any(one.name == "floods" for one in sections)

    async def run(self, settle_seconds: float) -> list[Result]:
        """Judge, and return the results. Raises UnreachableError."""
        if judgement := await self._greet():
            return [_result(self._end, 0.0, **judgement), *await self._judge_alone()]
        await self._herd.meet()
        await self._herd.settle(settle_seconds)
        if not self._looks_for_end:
            return await self._judge_all(self._herd, self._one)
        [check] = [one for one in floods.checks(self._herd) if one.id == floods.END]
        logs = logs_from_now(self._herd)
        result = await self._one(self._herd, check, [])
        if result.outcome in ("fault", "not seen") and (fault := await find_endless(self._herd, logs, [])):
            result = msgspec.structs.replace(result, not_seen="", fault=result.fault or fault)
            return [result, *await self._judge_alone()]
        return [result, *await self._judge_all(self._herd, self._one)]

    async def _greet(self) -> dict[str, Any]:
        """Make sure that every server answers. If a flood does not end, return the judgement of that."""
        problem: UnreachableError | None = None
        logs = logs_from_now(self._herd)
        steps: list[Step] = []
        with by_hand.recording(steps):
            try:
                await self._herd.greet()
            except UnreachableError as error:
                problem = error
        if fault := await find_endless(self._herd, logs, steps):
            if self._looks_for_end:
                self._passed()
            return {"fault": fault, "by_hand": by_hand.commands(fault, steps, self._herd.servers)}
        if problem is not None:
            raise problem
        return {}

    async def _judge_alone(self) -> list[Result]:
        """Judge what one server alone can show, because the floods of the herd do not end."""
        seclusion = Seclusion(self._herd)
        alone = await seclusion.begin()
        results = await self._judge_all(alone or self._herd, self._one_alone if alone else self._none)
        await seclusion.end()
        return results

    async def _judge_all(
        self, herd: GradedHerd, judge: Callable[[GradedHerd, Check, list[Step]], Awaitable[Result]]
    ) -> list[Result]:
        results: list[Result] = []
        for section in _with_forms(self._sections):
            await herd.revive()
            found = [check for check in chosen(section, herd, self._wanted) if check.id != floods.END]
            if section.at_once:
                results += await asyncio.gather(*(judge(herd, check, []) for check in found))
            else:
                before: list[Step] = []
                results += [await judge(herd, check, before if section.in_steps else []) for check in found]
        return results

    async def _one(self, herd: GradedHerd, check: Check, steps: list[Step]) -> Result:
        form = _missing(herd, check)
        result = _left_out(check, form) if form else await _judge(check, herd, self._deadline, steps)
        self._passed()
        return result

    async def _one_alone(self, herd: GradedHerd, check: Check, steps: list[Step]) -> Result:
        result = await self._one(herd, check, steps)
        needs_others = (result.not_seen or result.not_applicable) and clock() < self._deadline
        return self._unjudged(check) if needs_others else result

    async def _none(self, _: GradedHerd, check: Check, __: list[Step]) -> Result:
        self._passed()
        return self._unjudged(check)

    def _unjudged(self, check: Check) -> Result:
        """Return the result of a check for which the herd has no time."""
        why = because_of(self._end.id, self._end.title)
        return _result(check, 0.0, not_judged=why, cause=floods.END if floods.END in self._wanted else "")


def addresses(herd: GradedHerd) -> dict[str, str]:
    """Return the addresses of the servers by name."""
    return {server.name: f"{server.host}:{server.port}" for server in herd.servers}


def _missing(herd: GradedHerd, check: Check) -> Form | None:
    """Return a form in which the check talks, or that it is about, and from which a server is known to depart."""
    departures = herd.departures()
    return next((one for one in FOUND_OUT if one in departures and one.check in check.explained_by), None)


def _left_out(check: Check, form: Form) -> Result:
    """Return the result of a check that cannot talk to the servers as it wants to."""
    why = because_of(form.check, formal.RULES[form].title)
    return _result(check, 0.0, not_judged=why, cause=form.check)


async def _judge(check: Check, herd: GradedHerd, deadline: float, steps: list[Step]) -> Result:
    """Run a check; what it sends is added to the steps of those before it."""
    began = clock()
    left = deadline - began
    if left <= 0:
        return _result(check, 0.0, not_seen="the time for all checks had run out before it began: --deadline")
    with by_hand.recording(steps):
        judgement: dict[str, Any] = {}
        try:
            async with asyncio.timeout(min(check.seconds, left)):
                await check.run()
        except Fault as error:
            error = await _explained(error, herd)
            judgement = {"fault": error, "by_hand": by_hand.commands(error, steps, herd.servers)}
        except NotSeen as error:
            judgement = {"not_seen": str(error)}
        except NotJudged as error:
            judgement = {"not_judged": str(error), "cause": error.cause}
        except NotApplicable as error:
            judgement = {"not_applicable": str(error)}
        except TimeoutError:
            judgement = {
                "not_seen": "the time for all checks ran out while it was under way: --deadline"
                if left < check.seconds
                else f"it has not ended within {check.seconds:g} s"
            }
    return _result(check, clock() - began, **judgement)


async def _explained(fault: Fault, herd: GradedHerd) -> Fault:
    server = next((one for one in herd.servers if one.name == fault.server), None)
    return await herd.explained(fault, server) if server and fault.cut else fault


def _result(check: Check, seconds: float, **judgement: Any) -> Result:
    return Result(
        id=check.id,
        title=check.title,
        rule=check.rule,
        seconds=seconds,
        about=check.about,
        explained_by=check.explained_by,
        **judgement,
    )
