"""For each check of `proxyherd grade` there is a herd that fails it, and a herd fails nothing but what it breaks.

So no check can be left out, weakened or turned round without a test that fails. Herds are those of broken_ways.py;
each is judged by the sections that its way concerns, in this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import graded
import msgspec
import pytest
from broken_cases import BROKEN, EXPLAINED, SECTIONS
from broken_ways import WAYS

from proxyherd.grading import judging, rubric
from proxyherd.grading.checks import Section
from proxyherd.grading.herds import GradedHerd


def named(checks: set[str]) -> set[str]:
    return {one if "." in one else f"case.{one}" for one in checks}


def sections(names: str) -> Sequence[Section]:
    return [SECTIONS[name] for name in names.split()]


def test_each_check_has_a_broken_herd_that_fails_it() -> None:
    fails = [fails for _, fails in (*BROKEN.values(), *EXPLAINED.values())]
    assert set().union(*map(named, fails)) == {*judging.all_checks()}


def test_each_way_is_tried() -> None:
    assert BROKEN.keys() == WAYS.keys() - {"escape", "own-log"}  # which test_grade.py tries as processes


def test_a_whole_herd_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = graded.grade("", tmp_path)
    assert {one.outcome for one in report.results} == {"passed"}
    for profile in rubric.PROFILES:
        marked = msgspec.structs.replace(report, rubric=rubric.profile(profile, judging.all_checks()))
        assert marked.marks().made == marked.rubric.possible


@pytest.mark.parametrize("way", EXPLAINED)
def test_a_check_that_another_one_explains_sees_the_fault_too(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it could be empty. Here nobody finds out how the servers talk, and nothing is explained."""

    async def meet(herd: GradedHerd) -> None:
        """Leave each server the protocol's dialect."""

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(GradedHerd, "meet", meet)
    monkeypatch.setattr(judging, "attribute", list)
    names, fails = EXPLAINED[way]
    assert named(fails) <= graded.faults(graded.grade(way, tmp_path, sections(names)))


@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_herd_fails_what_it_breaks_and_nothing_else(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, fails = BROKEN[way]
    report = graded.grade(way, tmp_path, sections(names))
    assert graded.faults(report) == named(fails)
