"""The report of a grading for programs, as JSON and as JUnit. Pure."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import msgspec

from proxyherd.base.escapes import visible
from proxyherd.grading.report import GradingReport, Marks, Result
from proxyherd.grading.report_text import details


def as_json(report: GradingReport) -> bytes:
    """Return the report as one JSON object, indented.

    rubric              the title of the rubric
    problem             why nothing could be judged; only then
    last_words          with the problem, if it is known: the server that is to blame, its command, and the last lines
                        that it printed
    servers             the addresses by name
    starts              how many seconds each server took to accept a connection; only if they were started
    links_not_judged    why the links between servers were not judged; only then
    seconds             how long it took
    points, lost, open  the points that were made, were lost, and are to be judged by hand
    possible            their sum, which is always that of the rubric
    groups              of each group of the rubric: name, title, and these numbers
    checks              of each check that counts: id, group, title, outcome, points (null if they are open),
                        possible; what there is of: about, cause, rule, server, sent, expected, got, by_hand,
                        not_judged, not_seen, not_applicable, and of a fault, the checks that share it
    permitted           faults that cost nothing by this rubric, likewise
    """
    problem: dict[str, Any] = {"problem": visible(report.problem)} if report.problem else {}
    if (last := report.last_words) is not None:
        lines = [visible(line) for line in last.lines]
        problem["last_words"] = {
            "server": visible(last.server),
            "command": visible(last.command),
            "lines": lines,
        }
    document: dict[str, Any] = {
        "rubric": report.rubric.title,
        **problem,
        "servers": {visible(name): visible(address) for name, address in report.servers.items()},
        **_starts(report),
        **({"links_not_judged": report.links_not_judged} if report.links_not_judged else {}),
        "seconds": round(report.seconds, 3),
        **_numbers(report.marks()),
        "groups": [
            {"name": name, "title": title, **_numbers(report.marks(name))}
            for name, title in report.rubric.groups.items()
        ],
        "checks": [_check(report, one) for one in report.counted()],
        "permitted": [_check(report, one) for one in report.permitted()],
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n"


def _starts(report: GradingReport) -> dict[str, Any]:
    starts = {visible(name): round(seconds, 3) for name, seconds in report.starts.items()}
    return {"starts": starts} if starts else {}


def _numbers(marks: Marks) -> dict[str, float]:
    return {
        "points": _number(marks.made),
        "lost": _number(marks.lost),
        "open": _number(marks.open),
        "possible": _number(marks.possible),
    }


def _number(points: float) -> float:
    """Return points with two decimals at most, as an integer if it is one."""
    rounded = round(points, 2)
    return int(rounded) if rounded.is_integer() else rounded


def _check(report: GradingReport, one: Result) -> dict[str, Any]:
    share = report.rubric.shares.get(one.id)
    points = report.points(one)
    found: dict[str, Any] = {
        "id": one.id,
        "group": share.group if share else None,
        "title": one.title,
        "outcome": one.outcome,
        "points": None if points is None else _number(points),
        "possible": _number(share.points) if share else 0,
        "seconds": round(one.seconds, 3),
    }
    if one.fault:
        found.update(details(one))
        found["by_hand"] = [visible(command) for command in one.by_hand]
        if shared := report.sharing(one.id):
            found["shared_by"] = [other.id for other in shared]
    if one.about:
        found["about"] = one.about.value
    if one.cause:
        found["cause"] = one.cause
    if one.left_out:
        found[one.outcome.replace(" ", "_")] = visible(one.left_out)
    return found


def as_junit(report: GradingReport) -> str:
    """Return the report as JUnit XML, a suite for each group."""
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', f"<testsuites {_counts(report, None)}>"]
    for name, title in report.rubric.groups.items():
        lines.append(f'  <testsuite name="{_xml(title)}" {_counts(report, name)}>')
        lines += [line for one in report.counted(name) for line in _testcase(report, one, name)]
        lines.append("  </testsuite>")
    return "\n".join([*lines, "</testsuites>"]) + "\n"


def _counts(report: GradingReport, group: str | None) -> str:
    mine = report.counted(group)
    seconds = sum(one.seconds for one in mine)
    counts = (len(mine), len(report.of("fault", group)), sum(bool(one.left_out) for one in mine))
    return 'tests="{}" failures="{}" errors="0" skipped="{}" time="{:.3f}"'.format(*counts, seconds)


def _testcase(report: GradingReport, one: Result, group: str) -> Iterator[str]:
    head = f'    <testcase classname="{_xml(group)}" name="{_xml(one.id)}" time="{one.seconds:.3f}"'
    if one.fault:
        said = [f"{what}: {text}" for what, text in details(one).items()]
        said += [f"by hand: {visible(command)}" for command in one.by_hand]
        if shared := report.sharing(one.id):
            said.append(f"shared by: {', '.join(other.id for other in shared)}")
        text = html.escape("\n".join(said))
        yield f'{head}><failure message="{_xml(one.title)}">{text}</failure></testcase>'
    elif one.left_out:
        yield f'{head}><skipped message="{_xml(f"{one.outcome}: {one.left_out}")}"/></testcase>'
    else:
        yield f"{head}/>"


def _xml(text: str) -> str:
    return html.escape(visible(text))
