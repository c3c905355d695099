"""The points of a herd, and the report: as text, JSON and JUnit."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked import POINTS, report_of, rubric_of

from proxyherd.grading import judging
from proxyherd.grading.faults import Fault
from proxyherd.grading.forms import DEPARTURES, FOUND_OUT, Form
from proxyherd.grading.last_words import LastWords
from proxyherd.grading.report import GradingReport, Marks, Result, nothing_judged
from proxyherd.grading.report_files import as_json, as_junit
from proxyherd.grading.report_text import as_text
from proxyherd.grading.rubric import Rubric, profile

FAULT = Fault("Ann", b"FOO", "this", "that")
OUTCOMES: dict[str, dict[str, Any]] = {
    "passed": {},
    "fault": {"fault": FAULT},
    "not applicable": {"not_applicable": "no links"},
    "not judged": {"not_judged": "because of x", "cause": "x"},
    "not seen": {"not_seen": "no log"},
}
VERDICTS = ("by hand", "lost", "excused")


def result(name: str, outcome: str = "passed", **keys: Any) -> Result:
    return Result(name, f"Title of {name}", f"Rule of {name}", 0.1, **OUTCOMES[outcome], **keys)


# --- points


@given(
    st.lists(st.sampled_from([*OUTCOMES]), max_size=12), st.sampled_from(VERDICTS), st.sampled_from(VERDICTS)
)
def test_the_possible_points_are_fixed_whatever_could_be_judged(
    outcomes: list[str], not_seen: str, not_judged: str
) -> None:
    results = [result(str(number), outcome) for number, outcome in enumerate(outcomes)]
    rubric = rubric_of([*(one.id for one in results), "x"], not_seen=not_seen, not_judged=not_judged)
    report = report_of([*results, result("x", "fault")], rubric)
    marks = report.marks()
    assert marks.possible == rubric.possible
    assert marks == report.marks("g")
    assert json.loads(as_json(report))["possible"] == rubric.possible


@pytest.mark.parametrize(
    ("outcome", "keys", "points"),
    [
        ("passed", {}, POINTS),
        ("fault", {}, 0.0),
        ("not applicable", {}, POINTS),
        ("not judged", {}, None),
        ("not judged", {"not_judged": "lost"}, 0.0),
        ("not judged", {"not_judged": "excused"}, POINTS),
        ("not seen", {}, None),
        ("not seen", {"not_seen": "lost"}, 0.0),
        ("not seen", {"not_seen": "excused"}, POINTS),
    ],
)
def test_each_point_is_made_lost_or_open(outcome: str, keys: dict[str, str], points: float | None) -> None:
    report = report_of([result("a", outcome), result("x")], rubric_of(["a", "x"], **keys))
    assert report.points(report.results[0]) == points
    document = json.loads(as_json(report))
    assert document["checks"][0]["points"] == points
    assert document["checks"][0]["possible"] == POINTS
    assert (document["open"] == POINTS, document["lost"] == POINTS) == (points is None, points == 0.0)


def test_what_a_rubric_does_not_name_is_permitted_and_so_is_what_it_explains() -> None:
    report = report_of([result("a", "not judged"), result("x", "fault")], rubric_of(["a"]))
    assert report.marks() == Marks(POINTS, 0, 0)
    assert report.is_full
    assert [one.id for one in report.permitted()] == ["x"]
    assert "Failed, and permitted by this rubric: x\n" in as_text(report)
    assert "Not judged: a: because of x (4 points, counted as made)\n" in as_text(report)
    assert [one["id"] for one in json.loads(as_json(report))["permitted"]] == ["x"]


NOT_JUDGED = """\
Not graded by 'The assignment': Ann (h:1), Bob (h:2)

Nothing could be judged: Ann: has ended at its start: SyntaxError
  server    Ann
  command   python3 server.py Ann
  printed     File 'server.py'
            SyntaxError: \\x1b[1m

Score: 0 of 100 points (0.0 %); 100 more are open, to be judged by hand
"""


def test_where_nothing_could_be_judged_each_check_says_why_and_its_points_are_open() -> None:
    checks = judging.all_checks()
    rubric = profile("assignment", checks)
    report = nothing_judged(rubric, checks, {"Ann": "h:1"}, "Ann: has ended at its start: SyntaxError")
    assert report.marks() == Marks(0, 0, 100)
    document = json.loads(as_json(report))
    assert document["problem"] == "Ann: has ended at its start: SyntaxError"
    assert (document["points"], document["possible"]) == (0, 100)
    assert {one["not_judged"] for one in document["checks"]} == {report.problem}
    assert "last_words" not in document
    last_words = LastWords("Ann", "python3 server.py Ann", ["  File 'server.py'", "SyntaxError: \x1b[1m"])
    told = nothing_judged(rubric, checks, {"Ann": "h:1", "Bob": "h:2"}, report.problem, last_words)
    assert as_text(told) == NOT_JUDGED
    assert json.loads(as_json(told))["last_words"] == {
        "server": "Ann",
        "command": "python3 server.py Ann",
        "lines": ["  File 'server.py'", "SyntaxError: \\x1b[1m"],
    }
    silent = msgspec.structs.replace(told, last_words=LastWords("Ann", "true", []))
    assert "  command   true\n  printed   nothing\n" in as_text(silent)


def test_how_long_servers_took_to_start_is_told_if_they_were_started() -> None:
    report = report_of([result("a")], rubric_of(["a"]))
    assert "Started" not in as_text(report)
    assert "starts" not in json.loads(as_json(report))
    started = msgspec.structs.replace(report, starts={"Ann": 0.2504, "Bob\n": 19.0})
    assert "Started Ann in 0.3 s, Bob\\n in 19.0 s\n" in as_text(started)
    assert json.loads(as_json(started))["starts"] == {"Ann": 0.25, "Bob\\n": 19.0}


def test_that_links_were_not_judged_is_told_where_floods_count_and_nobody_knows_the_links() -> None:
    why = "who is linked with whom is not known: --topology"
    for check, knows_links, told in (
        ("floods.end", False, why),
        ("lost.others-flood", False, why),
        ("a", False, ""),
        ("floods.end", True, ""),
    ):
        report = report_of([result(check)], rubric_of([check]))
        report = msgspec.structs.replace(report, knows_links=knows_links)
        assert (f"\nLinks between servers were not judged: {why}\n" in as_text(report)) == bool(told)
        assert json.loads(as_json(report)).get("links_not_judged", "") == told


# --- what a student reads

EXAMPLE = """\
Graded 1 servers in 1.0 s by 'R': Ann (h:1)

group       points  passed  faults    open
G             4/20       1       2       8

FAULT x: Title of x (-4)
  rule      Rule of x
  server    Ann
  sent      "FOO"
  expected  this
  got       that
  by hand   printf 'FOO\\n' | nc -N -w 2 h 1
            printf 'BAR\\n' | nc -N -w 2 h 1
  1 check shares this cause (4 points, to be judged by hand): b

Fault a: Title of a (-4)

Not seen: d: no log (4 points, to be judged by hand)

Score: 4 of 20 points (20.0 %); 8 more are open, to be judged by hand
"""


def test_a_report_says_what_failed_what_was_sent_expected_and_got_and_how_to_try_it_by_hand() -> None:
    commands = (r"printf 'FOO\n' | nc -N -w 2 h 1", r"printf 'BAR\n' | nc -N -w 2 h 1")
    results = [
        result("a", "fault"),
        result("x", "fault", by_hand=commands),
        result("b", "not judged"),
        result("c"),
        result("d", "not seen"),
    ]
    report = report_of(results)
    assert as_text(report, 1) == EXAMPLE
    [one] = [one for one in json.loads(as_json(report))["checks"] if one["id"] == "x"]
    assert (one["sent"], one["expected"], one["got"]) == ('"FOO"', "this", "that")
    assert (one["by_hand"], one["shared_by"]) == ([*commands], ["b"])
    [failure, _] = ET.fromstring(as_junit(report)).findall(".//testcase[@name='x']/failure") * 2
    for line in ('sent: "FOO"', "expected: this", "got: that", f"by hand: {commands[1]}", "shared by: b"):
        assert line in (failure.text or "").splitlines()


def test_in_what_form_servers_were_spoken_to_is_told_whether_it_is_marked_or_not() -> None:
    names = {"Ann": "h:1", "Bob": "h:2"}
    at = {Form.CLOSING: "Bob", Form.LINE_END: "Ann, Bob"}
    results = [
        *(Result(form.check, "t", "r", 0.1, Fault(who, b"", "", ""), about=form) for form, who in at.items()),
        Result("times.difference-is-exact", "t", "r", 0.1, about=Form.DECIMALS, not_judged="x"),
        Result("case.x", "t", "r", 0.1, Fault("Ann", b"", "", ""), about=Form.DECIMALS),
    ]
    report = msgspec.structs.replace(report_of(results, rubric_of([Form.LINE_END.check])), servers=names)
    assert (
        "Spoken to as a herd that closes behind an answer (form.closing at Bob, permitted); "
        "wants CR LF behind a command (form.line-end, -4)\n"
    ) in as_text(report)
    assert "Failed, and permitted by this rubric: case.x\n" in as_text(report)
    assert DEPARTURES.keys() == {*FOUND_OUT}
    assert "Spoken" not in as_text(report_of([result("a")]))


def test_the_faults_that_cost_most_come_first() -> None:
    results = [result("a", "fault"), result("x", "fault"), result("b", "not judged")]
    assert [one.id for one in report_of(results).costliest()] == ["x", "a"]


def test_points_have_two_decimals_at_most() -> None:
    rubric = Rubric("R", {"g": "G"}, {"a": rubric_of(["a"]).shares["a"]._replace(points=10 / 3)})
    report = report_of([result("a")], rubric)
    assert "Score: 3.33 of 3.33 points (100.0 %)\n" in as_text(report)
    assert json.loads(as_json(report))["points"] == 3.33


def test_what_a_stranger_sent_cannot_break_a_report() -> None:
    nasty = "\0\x1b[2J<&\"'>\n\ud800é]]>"
    fault = Fault(nasty, b"\0\x1b<&\xff", nasty, nasty)
    results = [
        Result("a.b", "t", "r", 0.1, fault=fault, by_hand=(nasty,)),
        Result("a.c", "t", "r", 0.1, not_seen=nasty),
        Result("a.d", "t", "r", 0.1, not_applicable=nasty),
        Result("a.e", "t", "r", 0.1, not_judged=nasty),
        Result("a.f", "t", "r", 0.1),
    ]
    report = report_of(results, server=nasty)
    assert as_text(report).count("\n") == as_text(report_of(results)).count("\n")
    for text in (as_text(report), as_json(report).decode(), as_junit(report)):
        assert text.replace("\n", "").isprintable()
    ET.fromstring(as_junit(report))
    told = GradingReport({nasty: nasty}, report.rubric, results, 1.0, nasty)
    assert as_text(told).replace("\n", "").isprintable()
    assert json.loads(as_json(told))["possible"] == 5 * POINTS
