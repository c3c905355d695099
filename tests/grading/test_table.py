from __future__ import annotations

import base64
import csv
import hashlib
import re
from typing import Any

import msgspec

from proxyherd.grading.records import Record
from proxyherd.grading.table import as_csv, as_html

REPORT: dict[str, Any] = {
    "starts": {"Ann": 0.21, "Bob": 3.06},
    "points": 6,
    "open": 2,
    "possible": 9,
    "groups": [
        {"name": "times", "title": "Times & differences", "points": 4, "open": 2, "possible": 8},
        {"name": "cases", "title": "Cases", "points": 2, "open": 0, "possible": 1},
    ],
    "checks": [
        {"id": "times.one", "points": 4, "possible": 4},
        {"id": "times.two", "points": 0, "possible": 4},
        {"id": "times.three", "points": None, "possible": 4},
    ],
}
GRADED = Record("anna", "k", "", 2, 12.34, REPORT, 1)
SILENT = Record(
    "bert",
    "k",
    "not started: no answer",
    2,
    1.0,
    {
        "points": 0,
        "open": 9,
        "possible": 9,
        "groups": [{"name": "times", "title": "Times & differences", "points": 0, "open": 9, "possible": 9}],
        "checks": [{"id": "times.one", "points": None, "possible": 4}],
    },
    3,
)
NOT_STARTED = Record("=cmd|'/c calc'!A0 <b>", "k", "not started: <script>", 1, 1.0, None)


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(as_csv([NOT_STARTED, GRADED]).splitlines()))


def test_csv_has_a_row_a_submission_and_a_column_a_group_and_a_check() -> None:
    assert rows()[1] == {
        "submission": "anna",
        "problem": "",
        "attempts": "2",
        "start_seconds": "3.1",
        "seconds": "12.3",
        "points": "6",
        "open": "2",
        "possible": "9",
        "times": "4",
        "cases": "2",
        "times.one": "4",
        "times.two": "0",
        "times.three": "",
    }


def test_what_could_not_be_graded_has_its_reason_and_no_points() -> None:
    row = rows()[0]
    assert (row["problem"], row["points"], row["times"]) == ("not started: <script>", "0", "")


def test_a_group_whose_points_are_all_open_has_none_and_one_that_has_lost_all_has_0() -> None:
    [silent] = csv.DictReader(as_csv([SILENT]).splitlines())
    assert (silent["points"], silent["open"], silent["times"], silent["times.one"]) == ("0", "9", "", "")
    lost = msgspec.json.decode(msgspec.json.encode(REPORT))
    lost["groups"][0] |= {"points": 0, "open": 2}
    [row] = csv.DictReader(as_csv([Record("c", "k", report=lost, attempts=1)]).splitlines())
    assert row["times"] == "0"


def test_what_is_not_graded_yet_has_no_points_and_says_so() -> None:
    waiting = Record("carl", "")
    [row] = csv.DictReader(as_csv([waiting]).splitlines())
    assert (row["problem"], row["points"], row["attempts"]) == ("not graded yet", "", "0")
    assert '<th scope="row">carl</th><td></td>' in as_html([waiting], "Grades")


def test_no_name_is_a_formula() -> None:
    assert rows()[0]["submission"].startswith("'=")


def test_the_page_escapes_strangers_text_and_runs_no_script_but_the_one_that_sorts() -> None:
    page = as_html([NOT_STARTED, GRADED], "Grades of <i>", ["A note & more"])
    [script] = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in page
    assert "<b>" not in page
    assert "Grades of &lt;i&gt;" in page
    assert "A note &amp; more" in page


def test_the_page_has_a_row_a_submission_that_links_its_report() -> None:
    page = as_html([NOT_STARTED, GRADED], "Grades")
    assert (
        '<tr><th scope="row"><a href="anna/report.txt">anna</a></th>'
        "<td>6/9 (2 open)</td><td>4/8 (2 open)</td><td>2/1</td><td>3.1</td><td>12.3</td><td>2 attempts</td></tr>"
    ) in page
    assert "<td>0</td><td></td><td></td><td></td><td>1.0</td><td>not started: &lt;script&gt;</td>" in page
    assert page.count("Times &amp; differences") == 1


def test_each_column_of_the_page_has_a_button_and_times_have_a_unit() -> None:
    page = as_html([GRADED], "Grades")
    heads = re.findall('<th scope="col"><button>(.*?)</button></th>', page)
    assert heads == [
        *("Submission", "Points", "Times &amp; differences", "Cases", "Start, s", "Time, s", "Notes")
    ]


def test_a_class_without_any_report_has_a_table_too() -> None:
    assert (
        as_csv([NOT_STARTED]).splitlines()[0]
        == "submission,problem,attempts,start_seconds,seconds,points,open,possible"
    )
    assert "<table>" in as_html([NOT_STARTED], "Grades")
