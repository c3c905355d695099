"""The first meeting with a server: what is noted of it is true, whatever becomes of the server meanwhile."""

from __future__ import annotations

from pathlib import Path

import graded
import pytest
from broken_cases import SECTIONS

from proxyherd.grading.report import GradingReport

HAS_ENDED = "the server has ended (status 1)"


def judged(way: str, folder: Path, names: str, monkeypatch: pytest.MonkeyPatch) -> GradingReport:
    monkeypatch.chdir(folder)
    return graded.grade(way, folder, [SECTIONS[name] for name in names.split()])


def test_a_server_that_ends_of_an_odd_line_is_accused_of_that_and_not_of_its_echo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged("ends-of-odd-lines", tmp_path, "forms cases hardness", monkeypatch)
    found = {one.id: one for one in report.results}
    assert found["form.echo"].outcome == "passed"
    assert found["case.no-sign-on-latitude"].outcome == "passed", "it answers what has four words"
    for name in ("hard.survives-words-missing", "case.word-alone"):
        fault = found[name].fault
        assert fault, name
        assert fault.got == HAS_ENDED


def test_where_every_invalid_line_ends_it_the_check_of_bad_lines_carries_the_mark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = judged("ends-of-invalid-lines", tmp_path, "forms hardness", monkeypatch)
    [echo] = [one for one in report.results if one.id == "form.echo"]
    assert (echo.outcome, echo.cause) == ("not judged", "hard.survives-words-missing")
    alone = judged("ends-of-invalid-lines", tmp_path, "forms", monkeypatch)
    faults = {one.id: one.fault and one.fault.got for one in alone.of("fault")}
    assert faults == {"form.echo": HAS_ENDED, "form.blank-lines": HAS_ENDED}


def test_a_server_that_answers_within_the_patience_is_whole_however_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = graded.grade("takes-its-time", tmp_path, [SECTIONS["forms"], SECTIONS["cases"]], patience=5.0)
    assert {one.id: one.outcome for one in report.results if one.outcome != "passed"} == {}
