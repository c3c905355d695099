"""What is judged: the sections and their checks."""

from __future__ import annotations

import re

from herd_process import ROOT

from proxyherd.grading import judging
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.rubric import profile
from proxyherd.grading.servers import GradedServer, new_client


def all_checks() -> list[tuple[str, str]]:
    herd = GradedHerd([GradedServer("Ann", "127.0.0.1", 1)])
    return [(one.id, one.title) for section in judging.SECTIONS for one in section.checks(herd)]


def test_every_check_has_an_id_of_its_own_and_those_that_are_no_cases_are_on_the_page_with_their_points() -> (
    None
):
    ids = [one for one, _ in all_checks()]
    assert len(set(ids)) == len(ids)
    page = (ROOT / "docs/grading.md").read_text()
    told = dict(re.findall(r"^\| `([a-z-]+\.[a-z0-9-]+)` \|.*\| ([0-9]+) \|$", page, re.MULTILINE))
    assert [*told] == [one for one in ids if not one.startswith("case.")]
    strict = profile("strict", ids)
    assert {one: float(points) for one, points in told.items()} == {one: strict.points(one) for one in told}


def test_the_web_port_counts_in_the_strict_profile_of_herds_that_have_one_and_nowhere_else() -> None:
    web = judging.checks_of(["web"])
    whole, less = (judging.profile_of("strict", has_web=has_web) for has_web in (True, False))
    assert {*whole.shares} - {*less.shares} == web
    assert whole.possible - less.possible == 4 * len(web)
    assert (less.title, "web" in less.groups) == (whole.title, False)
    for has_web in (True, False):
        assignment = judging.profile_of("assignment", has_web=has_web)
        assert (assignment.possible, web & {*assignment.shares}) == (100, set())


def test_clients_are_new_and_none_is_a_part_of_another() -> None:
    clients = [new_client() for _ in range(200)]
    assert all(one is other or one not in other for one in clients for other in clients)
