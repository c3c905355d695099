"""One fault, one mark."""

from __future__ import annotations

import graphlib

from marked import report_of

from proxyherd.grading import judging
from proxyherd.grading.causes import ENDS, attribute
from proxyherd.grading.faults import Fault
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.report import Result
from proxyherd.grading.report_files import as_json
from proxyherd.grading.report_text import as_text
from proxyherd.grading.servers import GradedServer

FAULT = Fault("Ann", b"x", "y", "z")


def result(name: str, *explained_by: str, fault: bool = True) -> Result:
    return Result(name, "t", "r", 0.1, fault=FAULT if fault else None, explained_by=frozenset(explained_by))


def down(name: str, server: str, sent: bytes = b"") -> Result:
    return Result(name, "t", "r", 0.1, fault=Fault(server, sent, "y", "Connection refused", down=True))


def outcomes(*results: Result) -> dict[str, str]:
    return {one.id: one.cause or one.outcome for one in attribute(results)}


def test_a_fault_that_another_one_explains_is_not_judged_because_of_that_one() -> None:
    assert outcomes(result("a"), result("b", "a")) == {"a": "fault", "b": "a"}
    assert outcomes(result("b", "a"), result("a")) == {"a": "fault", "b": "a"}, "the order does not count"
    assert outcomes(result("a"), result("b", "a"), result("c", "b")) == {"a": "fault", "b": "a", "c": "a"}


def test_a_check_that_passed_explains_nothing_and_a_rule_that_holds_needs_no_cause() -> None:
    assert outcomes(result("a", fault=False), result("b", "a")) == {"a": "passed", "b": "fault"}
    assert outcomes(result("a"), result("b", "a", fault=False)) == {"a": "fault", "b": "passed"}
    assert outcomes(result("b", "never-run")) == {"b": "fault"}


def test_what_shares_a_cause_is_listed_beside_it_and_is_open() -> None:
    results = attribute([result("a"), result("b", "a"), result("c", "a"), result("d", fault=False)])
    report = report_of(results)
    assert report.marks() == (4, 4, 8)
    assert "  2 checks share this cause (8 points, to be judged by hand): b, c\n" in as_text(report)
    assert "Not judged" not in as_text(report)
    assert b'"cause": "a"' in as_json(report)


def test_what_is_not_judged_because_of_a_check_that_was_not_run_is_listed_with_its_reason() -> None:
    one = Result("b", "t", "r", 0.1, not_judged="because of a", cause="a")
    assert "Not judged: b: because of a (4 points, counted as made)\n" in as_text(report_of([one]))


def test_whoever_finds_a_server_gone_is_not_to_blame_but_the_one_whose_input_ended_it() -> None:
    found = [
        down("a", "Ann"),
        down("b", "Ann", b"10.5"),
        down("c", "Ann"),
        down("d", "Bob"),
        down("e", "Bob"),
    ]
    assert outcomes(*found) == {"a": "b", "b": "fault", "c": "b", "d": "fault", "e": "d"}
    cut = Result("f", "t", "r", 0.1, fault=Fault("Ann", b"HELLO", "y", "z", cut=True))
    assert outcomes(down("a", "Ann"), cut) == {"a": "f", "f": "fault"}
    assert outcomes(cut, down("b", "Ann", b"10.5"), down("a", "Ann")) == {
        "f": "fault",
        "b": "fault",
        "a": "b",
    }
    assert outcomes(down("a", "Ann"), down(ENDS, "Ann")) == {"a": ENDS, ENDS: "fault"}, (
        "its keeper has seen it"
    )


def test_a_server_that_is_slow_or_hangs_up_has_not_ended_and_explains_nothing() -> None:
    slow = Result("a", "t", "r", 0.1, fault=Fault("Ann", b"", "a connection", "nothing within 5 s"))
    cut = Result("b", "t", "r", 0.1, fault=Fault("Ann", b"", "y", "the end of the connection", cut=True))
    assert outcomes(slow, cut, down("c", "Ann")) == {"a": "fault", "b": "fault", "c": "fault"}
    assert outcomes(down("c", "Ann", b"10.5"), slow, cut) == {"a": "fault", "b": "fault", "c": "fault"}


def test_what_keeps_a_check_from_being_judged_is_no_fault_and_keeps_those_that_follow_it_too() -> None:
    outside = Result("a", "t", "r", 0.1, not_judged="no Google")
    asked = Result("c", "t", "r", 0.1, not_judged="because of a: ...", cause="a")
    found = attribute([result("b", "a"), outside, asked, result("d", "b")])
    assert {(one.id, one.not_judged, one.cause) for one in found} == {
        (one, "no Google", "") for one in "abcd"
    }


def test_what_is_not_judged_because_of_a_fault_that_is_explained_is_so_because_of_the_last_cause() -> None:
    unjudged = Result("c", "t", "r", 0.1, not_judged="because of b: ...", cause="b")
    assert outcomes(result("a"), result("b", "a"), unjudged) == {"a": "fault", "b": "a", "c": "a"}


def test_of_faults_that_explain_one_another_the_first_carries_the_mark() -> None:
    gone = Fault("Ann", b"", "y", "z", down=True)
    first = Result("a", "t", "r", 0.1, fault=gone, explained_by=frozenset("b"))
    second = Result("b", "t", "r", 0.1, fault=gone)  # it found Ann gone, as the first did before it
    assert outcomes(first, second) == {"a": "fault", "b": "a"}
    assert outcomes(result("c", "a"), first, second) == {"a": "fault", "b": "a", "c": "a"}


def test_no_check_explains_itself_and_each_cause_is_a_check() -> None:
    herd = GradedHerd([GradedServer("Ann", "127.0.0.1", 1)])
    graph = {one.id: one.explained_by for section in judging.SECTIONS for one in section.checks(herd)}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError
    assert {ENDS, *set[str]().union(*graph.values())} <= graph.keys()
