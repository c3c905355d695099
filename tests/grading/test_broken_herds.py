"""For each check of `proxyherd grade` there is a herd that fails it, and a herd fails nothing but what it breaks.

So no check can be left out, weakened or turned round without a test that fails. Herds are those of broken_ways.py;
each is judged by the sections that its way concerns, in this process.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import graded
import msgspec
import pytest
from broken_cases import BROKEN, EXPLAINED, SECTIONS
from broken_ways import WAYS

from proxyherd.grading import endless, judging, rubric
from proxyherd.grading.checks import Check, Section
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.outside import GoogleReach


def named(checks: set[str]) -> set[str]:
    return {one if "." in one else f"case.{one}" for one in checks}


def sections(names: str) -> Sequence[Section]:
    return [SECTIONS[name] for name in names.split()]


def test_each_check_has_a_broken_herd_that_fails_it() -> None:
    fails = [fails for _, fails in (*BROKEN.values(), *EXPLAINED.values())]
    elsewhere = judging.checks_of(
        ["web"]
    )  # tests/system/test_grade_web.py has wrong answers for each of these
    assert set().union(*map(named, fails)) == {*judging.all_checks()} - elsewhere


def test_each_way_is_tried() -> None:
    # Some are tried by test_meeting.py, and as processes by test_grade.py.
    elsewhere = {"takes-its-time", "ends-of-odd-lines", "ends-of-invalid-lines", "escape", "own-log"}
    assert BROKEN.keys() == WAYS.keys() - elsewhere


def test_a_whole_herd_fails_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = graded.grade("", tmp_path)
    assert {one.outcome for one in report.results} == {"passed"}
    for profile in rubric.PROFILES:
        marked = msgspec.structs.replace(report, rubric=judging.profile_of(profile, has_web=False))
        assert marked.marks().made == marked.rubric.possible


@pytest.mark.long
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


@pytest.mark.long
@pytest.mark.parametrize("way", BROKEN)
def test_a_broken_herd_fails_what_it_breaks_and_nothing_else(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names, fails = BROKEN[way]
    report = graded.grade(way, tmp_path, sections(names))
    assert graded.faults(report) == named(fails)
    assert [
        one for one in report.results if one.fault and re.search(r"\.\d{3,} s\b", one.fault.expected)
    ] == []


# --- what a herd has no time for, or no means

NEED_OTHERS = ("floods.", "lost.", "regained.")


@pytest.mark.parametrize("way", ["saturates", "argues-for-ever"])
def test_a_herd_whose_floods_never_end_is_marked_once_and_judged_by_what_one_server_alone_can_show(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = graded.grade(way, tmp_path)
    [fault] = report.of("fault")
    assert fault.id == "floods.end"
    assert fault.by_hand
    rest = [one for one in report.results if one is not fault]
    assert {one.id for one in rest if one.outcome != "passed"} == {
        one.id for one in rest if one.id.startswith(NEED_OTHERS)
    }
    assert {one.cause for one in rest if one.outcome != "passed"} == {"floods.end"}
    marked = msgspec.structs.replace(report, rubric=rubric.profile("assignment", judging.all_checks()))
    assert (marked.marks().lost, marked.marks().made) == (4, 66)


def test_a_running_herd_whose_floods_never_end_is_not_judged_but_for_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    report = graded.grade("saturates", tmp_path, is_kept=False)
    assert {one.outcome: one.cause for one in report.results} == {"fault": "", "not judged": "floods.end"}
    part = graded.grade("saturates", tmp_path, [SECTIONS["cases"]], is_kept=False)
    assert part.marks().open == part.marks().possible, "what is not judged is not given"


def test_in_a_sandbox_a_flood_that_never_ends_is_seen_without_logs_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(endless, "lone_packets", lambda: graded.Wire.packets)
    monkeypatch.setattr(endless, "MOST_PACKETS", 300.0)
    some = [SECTIONS["floods"], SECTIONS["times"]]
    for way in ("saturates", "argues-for-ever"):
        report = graded.grade(way, tmp_path, some, is_logged=False)
        [fault] = report.of("fault")
        assert (fault.id, fault.fault and fault.fault.server) == ("floods.end", "Ann, Bob, Cid, Dan")
        assert fault.fault
        assert "packets a second" in fault.fault.got
        assert {one.outcome for one in report.results if one.id.startswith("times.")} == {"passed"}
    whole = graded.grade("", tmp_path, some, is_logged=False)
    assert graded.faults(whole) == set()


async def nobody(_: str, __: int) -> Any:
    raise OSError(errno.ENETUNREACH, "Network is unreachable")


def test_without_google_a_herd_that_may_ask_it_loses_nothing_and_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    google = GoogleReach(may_be_asked=True, reach=nobody)
    report = graded.grade("hangs-up-without-google", tmp_path, google=google)
    marked = msgspec.structs.replace(report, rubric=rubric.profile("assignment", judging.all_checks()))
    assert graded.faults(marked) == graded.faults(report) == set()
    why = {one.not_judged for one in report.of("not judged")}
    assert len(why) == 1
    assert "Google cannot be reached from here (maps.googleapis.com: Network is unreachable)" in why.pop()
    assert {one.id for one in report.results if one.not_seen} == set()
    passed = {one.id for one in report.of("passed")}
    assert {"lost.others-answer", "regained.answers", "lost.is-logged", "logs.iamat"} <= passed
    assert "places.form" not in passed


def test_where_google_can_be_reached_or_a_herd_has_places_google_excuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    google = GoogleReach(may_be_asked=True, reach=nobody)
    report = graded.grade("", tmp_path, [SECTIONS["places"], SECTIONS["logs"]], google=google)
    assert {one.outcome for one in report.results} == {"passed"}


def test_time_that_runs_out_is_not_seen_and_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = graded.grade("", tmp_path, seconds=0.001)
    assert {one.outcome for one in report.results} == {"not seen"}
    assert {one.not_seen for one in report.results} == {
        "the time for all checks had run out before it began: --deadline"
    }

    def endless_check(_: GradedHerd) -> list[Check]:
        return [Check("times.difference-is-exact", "t", "r", lambda: asyncio.sleep(10**6))]

    for seconds, why in (
        (300.0, "it has not ended within 60 s"),
        (30.0, "the time for all checks ran out while it was under way: --deadline"),
    ):
        report = graded.grade("", tmp_path, [Section("times", "t", endless_check)], seconds=seconds)
        assert [one.not_seen for one in report.counted() if one.outcome != "passed"] == [why]


def test_what_was_sent_is_a_command_that_can_be_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for way in ("turns-the-difference-round", "keeps-the-first", "compares-times-as-text"):
        [fault] = [one.fault for one in graded.grade(way, tmp_path, [SECTIONS["times"]]).of("fault")]
        assert fault
        lines = fault.sent.split(b"\n")
        assert {re.sub(rb" \S+ [+-][\d.]+[+-][\d.]+ [\d.]+$", b"", line) for line in lines} == {b"IAMAT"}, (
            lines
        )


def test_a_report_says_whether_the_links_were_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert graded.grade("", tmp_path, [SECTIONS["times"]]).knows_links
    assert not graded.grade("", tmp_path, [SECTIONS["times"]], is_linked=False).knows_links
