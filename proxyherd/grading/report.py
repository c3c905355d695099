"""The results of judging a herd, as text, JSON and JUnit. Pure.

Servers may send anything, and the report goes to terminals and into XML, so invisible characters are escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from proxyherd.base.escapes import visible
from proxyherd.grading.faults import Fault, shown
from proxyherd.grading.forms import Form

LISTED: Final = ("passed", "fault", "not judged", "not seen")
"""The outcomes that the table counts."""


class Result(Struct, frozen=True):
    """The result of one check: it passed, unless there is a fault, it was not judged or seen, or it does not apply."""

    id: str
    section: str
    title: str
    rule: str
    points: int
    seconds: float
    fault: Fault | None = None
    not_seen: str = ""
    not_applicable: str = ""
    not_judged: str = ""
    cause: str = ""
    """The ID of the check because of which it was not judged."""
    about: Form | None = None
    explained_by: frozenset[str] = frozenset()
    """As in the check."""

    @property
    def outcome(self) -> str:
        if self.fault:
            return "fault"
        left_out = {
            "not judged": self.not_judged,
            "not seen": self.not_seen,
            "not applicable": self.not_applicable,
        }
        return next((outcome for outcome, why in left_out.items() if why), "passed")

    @property
    def left_out(self) -> str:
        """Why it does not count; empty if it counts."""
        return self.not_judged or self.not_seen or self.not_applicable


class GradingReport(Struct, frozen=True):
    """The results of one grading, with the servers' addresses and the sections' titles."""

    servers: Mapping[str, str]
    sections: Mapping[str, str]
    results: Sequence[Result]
    seconds: float

    def of(self, outcome: str, section: str | None = None) -> list[Result]:
        """Return the results with this outcome, of one section or of all."""
        return [
            one
            for one in self.results
            if one.outcome == outcome and (section is None or one.section == section)
        ]

    def points(self, section: str | None = None) -> tuple[int, int]:
        """Return the points made and the possible points; checks that were not judged, not seen or don't apply
        count for neither.
        """
        made, lost = (sum(one.points for one in self.of(what, section)) for what in ("passed", "fault"))
        return made, made + lost

    @property
    def is_full(self) -> bool:
        """Whether there are no faults."""
        return not self.of("fault")

    def sharing(self, cause: str) -> list[str]:
        """Return the IDs of the checks that were not judged because of this one."""
        return [one.id for one in self.results if one.cause == cause]


def as_text(report: GradingReport) -> str:
    """Return the report for people."""
    return "\n".join([*_table(report), "", *_faults(report), *_left_out(report), _score(report)]) + "\n"


def _table(report: GradingReport) -> Iterator[str]:
    servers = ", ".join(visible(f"{name} ({address})") for name, address in report.servers.items())
    yield f"Graded {len(report.servers)} servers in {report.seconds:.1f} s: {servers}"
    yield ""
    width = max(map(len, report.sections.values()), default=0)
    yield f"{'section':{width}}  {'points':>9}  passed  faults  not judged  not seen"
    for name, title in report.sections.items():
        made, possible = report.points(name)
        counts = [len(report.of(outcome, name)) for outcome in LISTED]
        yield f"{title:{width}}  {f'{made}/{possible}':>9}  {counts[0]:6}  {counts[1]:6}  {counts[2]:10}  {counts[3]:8}"


def _faults(report: GradingReport) -> Iterator[str]:
    for one in report.of("fault"):
        assert one.fault is not None
        yield f"FAULT {one.id}: {one.title} (-{one.points})"
        for what, text in _details(one, one.fault).items():
            yield f"  {what:8}  {text}"
        if shared := report.sharing(one.id):
            what = "check shares" if len(shared) == 1 else "checks share"
            yield f"  {len(shared)} {what} this cause, and count for nothing: {', '.join(shared)}"
        yield ""


def _details(one: Result, fault: Fault) -> dict[str, str]:
    details = {
        "rule": one.rule,
        "server": fault.server,
        "sent": shown(fault.sent) if fault.sent else "",
        "expected": fault.expected,
        "got": fault.got,
    }
    return {what: visible(text) for what, text in details.items() if text}


def _left_out(report: GradingReport) -> Iterator[str]:
    causes = {one.id for one in report.of("fault")}  # these list what shares them
    left_out = [
        *(one for one in report.of("not judged") if one.cause not in causes),
        *report.of("not seen"),
        *report.of("not applicable"),
    ]
    for one in left_out:
        yield f"{one.outcome.capitalize()}: {one.id}: {visible(one.left_out)}"
    if left_out:
        yield ""


def _score(report: GradingReport) -> str:
    made, possible = report.points()
    share = f" ({100 * made / possible:.1f} %)" if possible else ""
    rest = "".join(
        f"; {len(found)} checks were {outcome} and count for nothing"
        for outcome in ("not judged", "not seen")
        if (found := report.of(outcome))
    )
    return f"Score: {made} of {possible} points{share}{rest}"


def as_json(report: GradingReport) -> bytes:
    """Return the report for programs: one JSON object, indented."""
    made, possible = report.points()
    document: dict[str, Any] = {
        "servers": {visible(name): address for name, address in report.servers.items()},
        "seconds": round(report.seconds, 3),
        "points": made,
        "possible": possible,
        "sections": [
            {
                "name": name,
                "title": title,
                "points": report.points(name)[0],
                "possible": report.points(name)[1],
            }
            for name, title in report.sections.items()
        ],
        "checks": [_check(one) for one in report.results],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _check(one: Result) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": one.id,
        "section": one.section,
        "title": one.title,
        "outcome": one.outcome,
        "points": one.points if one.outcome == "passed" else 0,
        "possible": 0 if one.left_out else one.points,
        "seconds": round(one.seconds, 3),
    }
    if one.fault:
        found.update(_details(one, one.fault))
    if one.about:
        found["about"] = one.about.value
    if one.cause:
        found["cause"] = one.cause
    if one.left_out:
        found[one.outcome.replace(" ", "_")] = visible(one.left_out)
    return found


def as_junit(report: GradingReport) -> str:
    """Return the report as JUnit XML, a suite for each section."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites {_counts(report, None)}>"]
    for name, title in report.sections.items():
        lines.append(f'  <testsuite name="{_xml(title)}" {_counts(report, name)}>')
        lines += [line for one in report.results if one.section == name for line in _testcase(one)]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def _counts(report: GradingReport, section: str | None) -> str:
    mine = [one for one in report.results if section is None or one.section == section]
    seconds = sum(one.seconds for one in mine)
    counts = (len(mine), len(report.of("fault", section)), sum(bool(one.left_out) for one in mine))
    return 'tests="{}" failures="{}" errors="0" skipped="{}" time="{:.3f}"'.format(*counts, seconds)


def _testcase(one: Result) -> Iterator[str]:
    head = f'    <testcase classname="{_xml(one.section)}" name="{_xml(one.id)}" time="{one.seconds:.3f}"'
    if one.fault:
        details = "\n".join(f"{what}: {text}" for what, text in _details(one, one.fault).items())
        yield f'{head}><failure message="{_xml(one.title)}">{html.escape(details)}</failure></testcase>'
    elif one.left_out:
        yield f'{head}><skipped message="{_xml(one.left_out)}"/></testcase>'
    else:
        yield f"{head}/>"


def _xml(text: str) -> str:
    return html.escape(visible(text))
