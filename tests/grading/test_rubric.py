"""Rubrics: which checks count, for how many points, and what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.grading import judging, rubric

CHECKS = ("case.a", "case.b", "hard.survives-http", "hard.pipelined", "logs.x")


def parse(text: str) -> rubric.Rubric:
    return rubric.parse(text, "r.toml", CHECKS)


def group(keys: str, name: str = "g", points: str = "") -> str:
    return f'[groups.{name}]\ntitle = "G"\n{points}\nchecks = {{ {keys} }}\n'


def points(text: str) -> dict[str, float]:
    return {check: mark.points for check, mark in parse('title = "T"\n' + text).shares.items()}


def test_a_weight_is_a_number_of_points_unless_the_group_has_its_points() -> None:
    assert points(group('"case.a" = 3, "case.b" = 1')) == {"case.a": 3, "case.b": 1}
    assert points(group('"case.a" = 3, "case.b" = 1', points="points = 10")) == {"case.a": 7.5, "case.b": 2.5}


def test_a_pattern_names_many_checks_and_the_longest_key_decides() -> None:
    assert points(group('"case.*" = 1, "hard.*" = 4, "hard.survives-*" = 2')) == {
        "case.a": 1,
        "case.b": 1,
        "hard.survives-http": 2,
        "hard.pipelined": 4,
    }
    # Its own ID decides though the pattern is longer, and 0 leaves a check out.
    assert points(group('"case.a" = 0, "case.a*" = 3, "case.*" = 1')) == {"case.b": 1}


def test_groups_are_in_the_order_of_the_file_and_their_checks_in_that_of_judging() -> None:
    found = parse('title = "T"\n' + group('"logs.x" = 1', "z") + group('"case.b" = 1, "case.a" = 1', "a"))
    assert list(found.groups) == ["z", "a"]
    assert list(found.shares) == ["logs.x", "case.a", "case.b"]
    assert found.shares["case.b"].group == "a"
    assert (found.not_seen, found.not_judged) == ("by hand", "by hand")


@given(st.lists(st.integers(0, 50), min_size=5, max_size=5), st.none() | st.integers(1, 100))
def test_the_points_of_a_group_are_those_of_its_checks_together(
    weights: list[int], whole: int | None
) -> None:
    keys = ", ".join(f'"{check}" = {weight}' for check, weight in zip(CHECKS, weights, strict=True))
    text = 'title = "T"\n' + group(keys, points=f"points = {whole}" if whole else "")
    if any(weights):
        assert parse(text).possible == pytest.approx(whole or sum(weights))
    else:
        with pytest.raises(rubric.RubricError, match="no check counts"):
            parse(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "r.toml: not TOML: "),
        ("x = " + "[" * 100_000, "r.toml: not TOML: "),
        (group('"case.a" = 1'), "r.toml: key title: is missing; add it"),
        ('title = "T"', "r.toml: key groups: is missing; add it"),
        ('title = "T"\n[groups]', "r.toml: key groups: is empty; a rubric has at least one group"),
        (
            'title = "T"\ncolour = 1\n' + group('"case.a" = 1'),
            "r.toml: key colour: is not known; the keys here",
        ),
        ('title = "T"\n[groups.g]\ntitle = "G"', "r.toml: key groups.g.checks: is missing; add it"),
        (
            'title = "T"\n' + group("", points="weight = 1"),
            "r.toml: key groups.g.weight: is not known; the keys",
        ),
        ('title = "T"\n' + group(""), "r.toml: key groups.g.checks: no check counts; name one"),
        (
            'title = "T"\n' + group('"case.a" = "4"'),
            "key groups.g.checks.\"case.a\": '4' is no number from 0",
        ),
        ('title = "T"\n' + group('"case.a" = -1'), 'key groups.g.checks."case.a": -1 is no number from 0'),
        ('title = "T"\n' + group('"case.a" = nan'), 'key groups.g.checks."case.a": nan is no number from 0'),
        ('title = "T"\n' + group('"case.a" = true'), 'key groups.g.checks."case.a": True is no number'),
        ('title = "T"\n' + group('"case.a" = 1', points="points = 0"), "key groups.g.points: is 0; drop"),
        ('title = "T"\n' + group('"logs.y" = 1'), "there is no such check; did you mean logs.x?"),
        (
            'title = "T"\n' + group('"nothing.*" = 1'),
            "there is no such check; docs/grading.md has all of them",
        ),
        (
            'title = "T"\n' + group('"case.a" = 1') + group('"case.a" = 1', "h"),
            'key groups.h.checks."case.a": case.a is in groups.g.checks."case.a" too; name it in one',
        ),
        (
            'title = "T"\n'
            + group('"case.*" = 1, "*.aaaa" = 1').replace("aaaa", "a")
            + group('"cas?.*" = 1', "h"),
            'key groups.h.checks."cas?.*": case.a is in groups.g.checks."case.*" too',
        ),
        (
            'title = "T"\nnot_seen = "forgotten"\n' + group('"case.a" = 1'),
            "r.toml: key not_seen: Invalid enum value 'forgotten'; write",
        ),
    ],
)
def test_what_is_wrong_with_a_rubric_names_file_key_and_remedy(text: str, complaint: str) -> None:
    with pytest.raises(rubric.RubricError) as error:
        parse(text)
    assert complaint in str(error.value)


def test_a_file_that_cannot_be_read_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(rubric.RubricError, match=r"nowhere\.toml: No such file.*--print-rubric"):
        rubric.load(tmp_path / "nowhere.toml", CHECKS)
    (tmp_path / "r.toml").write_bytes(b"\xff")
    with pytest.raises(rubric.RubricError, match="not UTF-8 at byte 0; save it as UTF-8"):
        rubric.load(tmp_path / "r.toml", CHECKS)


def test_a_file_that_begins_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("\ufefftitle = 'T'\n" + group('"case.a" = 1'), encoding="utf-8")
    assert rubric.load(tmp_path / "r.toml", CHECKS).possible == 1


def test_the_strict_profile_has_every_check() -> None:
    checks = judging.all_checks()
    assert {*rubric.profile("strict", checks).shares} == {*checks}


def test_the_assignment_has_a_hundred_points_and_demands_nothing_that_the_course_does_not() -> None:
    found = rubric.profile("assignment", judging.all_checks())
    assert found.possible == 100
    never = (
        "catches-up",
        "at.",
        "long",
        "nanosecond",
        "exact",
        "crlf",
        "bare-cr",
        "empty",
        "blank",
        "zero",
        "http",
    )
    assert [check for check in found.shares if any(one in check for one in never)] == []
