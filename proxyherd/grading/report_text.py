"""The report of a grading for people, such as the students whose herd it is: what failed, and how to try it by hand. Pure.

Servers may send anything, and the report goes to terminals and into XML, so invisible characters are escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from proxyherd.base.escapes import visible
from proxyherd.grading.faults import shown
from proxyherd.grading.forms import DEPARTURES
from proxyherd.grading.report import GradingReport, Result
from proxyherd.grading.rubric import Verdict

FAULTS_SHOWN: Final = 3
"""Faults that a report shows in full: with more, it would not be read."""

_FATES: Final[dict[Verdict, str]] = {
    "by hand": "to be judged by hand",
    "lost": "counted as lost",
    "excused": "counted as made",
}


def as_text(report: GradingReport, most: int = FAULTS_SHOWN) -> str:
    """Return the report for people; it shows so many faults in full, those that cost most."""
    if report.problem:
        lines = [*_nothing(report), "", _score(report)]
    else:
        lines = [
            *_head(report),
            "",
            *_table(report),
            "",
            *_faults(report, most),
            *_left_out(report),
            _score(report),
        ]
    return "\n".join(lines) + "\n"


def spelled_points(points: float) -> str:
    """Return points with two decimals at most."""
    return f"{points:.2f}".rstrip("0").rstrip(".")


def details(one: Result) -> dict[str, str]:
    """Return what is to be said about a fault, under these headings."""
    fault = one.fault
    assert fault is not None
    found = {
        "rule": one.rule,
        "server": fault.server,
        "sent": shown(fault.sent) if fault.sent else "",
        "expected": fault.expected,
        "got": fault.got,
    }
    return {what: visible(text) for what, text in found.items() if text}


def _nothing(report: GradingReport) -> Iterator[str]:
    """Say why nothing could be judged."""
    yield f"Not graded by {report.rubric.title!r}: {_servers(report)}"
    yield ""
    yield f"Nothing could be judged: {visible(report.problem)}"
    if (last := report.last_words) is not None:
        yield f"  {'server':8}  {visible(last.server)}"
        yield f"  {'command':8}  {visible(last.command)}"
        lines = last.lines or ["nothing"]
        for before, line in zip(["printed", *[""] * len(lines)], lines, strict=False):
            yield f"  {before:8}  {visible(line)}"


def _servers(report: GradingReport) -> str:
    return ", ".join(visible(f"{name} ({address})") for name, address in report.servers.items())


def _head(report: GradingReport) -> Iterator[str]:
    count, seconds = len(report.servers), report.seconds
    yield f"Graded {count} servers in {seconds:.1f} s by {report.rubric.title!r}: {_servers(report)}"
    if report.starts:
        taken = ", ".join(visible(f"{name} in {seconds:.1f} s") for name, seconds in report.starts.items())
        yield f"Started {taken}"
    if report.links_not_judged:
        yield f"Links between servers were not judged: {report.links_not_judged}"
    if departures := report.departures():
        yield f"Spoken to as a herd that {'; '.join(_departure(report, one) for one in departures)}"


def _table(report: GradingReport) -> Iterator[str]:
    groups = report.rubric.groups
    width = max(map(len, ["group", *groups.values()]))
    yield f"{'group':{width}}  {'points':>11}  passed  faults    open"
    for name, title in groups.items():
        marks = report.marks(name)
        counts = [len(report.of(outcome, name)) for outcome in ("passed", "fault")]
        made = f"{spelled_points(marks.made)}/{spelled_points(marks.possible)}"
        yield f"{title:{width}}  {made:>11}  {counts[0]:6}  {counts[1]:6}  {spelled_points(marks.open):>6}"


def _departure(report: GradingReport, one: Result) -> str:
    """Say in what form servers have a way of their own, and what that costs."""
    assert one.about is not None
    assert one.fault is not None
    some = "" if one.fault.server == ", ".join(report.servers) else f" at {one.fault.server}"
    points = report.rubric.points(one.id)
    cost = f"-{spelled_points(points)}" if points else "permitted"
    return f"{DEPARTURES[one.about]} ({one.id}{visible(some)}, {cost})"


def _faults(report: GradingReport, most: int) -> Iterator[str]:
    found = report.costliest()
    for one in found[:most]:
        yield f"FAULT {_headline(report, one)}"
        for what, text in details(one).items():
            yield f"  {what:8}  {text}"
        for before, command in zip(["by hand", *[""] * len(one.by_hand)], one.by_hand, strict=False):
            yield f"  {before:8}  {visible(command)}"
        if shared := report.sharing(one.id):
            what = "check shares" if len(shared) == 1 else "checks share"
            yield f"  {len(shared)} {what} this cause{_fate(report, shared)}: {_ids(shared)}"
        yield ""
    for one in found[most:]:
        shared = report.sharing(one.id)
        yield f"Fault {_headline(report, one)}" + (f"; {len(shared)} more share this cause" if shared else "")
    if found[most:]:
        yield ""


def _headline(report: GradingReport, one: Result) -> str:
    return f"{one.id}: {one.title} (-{spelled_points(report.rubric.points(one.id))})"


def _left_out(report: GradingReport) -> Iterator[str]:
    causes = {one.id for one in report.of("fault")}  # these list what shares them
    lines = []
    for outcome in ("not judged", "not seen", "not applicable"):
        found = [one for one in report.of(outcome) if one.cause not in causes]
        found.sort(key=lambda one: one.left_out)
        for why, alike in groupby(found, key=lambda one: one.left_out):
            those = list(alike)
            lines.append(f"{outcome.capitalize()}: {_ids(those)}: {visible(why)}{_fate(report, those)}")
    if permitted := [one for one in report.permitted() if one not in report.departures()]:
        lines.append(f"Failed, and permitted by this rubric: {_ids(permitted)}")
    yield from lines
    if lines:
        yield ""


def _fate(report: GradingReport, those: Sequence[Result]) -> str:
    """Say what becomes of the points of checks without a judgement of their own."""
    points = [report.points(one) for one in those]
    possible = sum(report.rubric.points(one.id) for one in those)
    verdict: Verdict = "by hand" if None in points else "excused" if sum(filter(None, points)) else "lost"
    return f" ({spelled_points(possible)} points, {_FATES[verdict]})"


def _ids(results: Sequence[Result]) -> str:
    return ", ".join(one.id for one in results)


def _score(report: GradingReport) -> str:
    marks = report.marks()
    share = f" ({100 * marks.made / marks.possible:.1f} %)" if marks.possible else ""
    rest = f"; {spelled_points(marks.open)} more are open, to be judged by hand" if marks.open else ""
    return f"Score: {spelled_points(marks.made)} of {spelled_points(marks.possible)} points{share}{rest}"
