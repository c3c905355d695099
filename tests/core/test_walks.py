"""Whose walk it is, and what neighbours are answered: one walk at a time, slice by slice, and nothing for the dead."""

from __future__ import annotations

from typing import Any, cast

import pytest

from proxyherd.core.messages import Entry
from proxyherd.core.notes import CaughtUp
from proxyherd.core.peer_messages import (
    AskDigests,
    AskLeaf,
    AskRange,
    BatchHeader,
    Digests,
    Done,
    Misspoken,
)
from proxyherd.core.sizes import FANOUT, SIZES
from proxyherd.core.table import Table
from proxyherd.core.walks import Neighbour, Walks

LEAVES, BATCH_BYTES, SLICE_LINES = SIZES.leaves, SIZES.batch_bytes, SIZES.slice_lines

COMPARE_SECONDS, PATIENCE = 30.0, 10.0
LINE = b"AT Clark +0.000000000 %b +1+1 5"


class Said:
    """Where a link is wanted: keeps what is sent."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.batches: list[tuple[int, int, list[bytes]]] = []

    def send(self, message: Any) -> None:
        self.messages.append(message)

    def send_batch(self, first: int, following: int, lines: list[bytes]) -> None:
        self.batches.append((first, following, lines))


class World:
    """The walks of a server with neighbours."""

    def __init__(self, *names: str, lines: int = 0) -> None:
        self.table = Table(b"k" * 32)
        for number in range(lines):
            client = b"%d" % number
            self.table.put(client, Entry(LINE % client, 5), number % LEAVES)
        self.told: list[CaughtUp] = []
        self.failed: list[tuple[Any, Exception]] = []
        self.walks = Walks(
            self.table,
            sizes=SIZES,
            line_bytes=8_192,
            compare_seconds=COMPARE_SECONDS,
            tell=self.told.append,
        )
        self.neighbours = [Neighbour(name, cast("Any", Said()), COMPARE_SECONDS) for name in names]

    def slice(self, now: float = 0.0) -> bool:
        return self.walks.work(now, lambda link, error: self.failed.append((link, error)))

    def said(self, neighbour: Neighbour) -> Said:
        return cast("Said", neighbour.link)

    def work(self, now: float = 0.0) -> int:
        """Work until nothing is left; return how many slices that took."""
        slices = 1
        while self.slice(now):
            slices += 1
            assert slices < 10_000
        return slices


@pytest.mark.parametrize(("pulled", "served"), [(False, False), (True, False), (False, True), (True, True)])
def test_a_link_is_in_step_when_both_sides_have_caught_up(pulled: bool, served: bool) -> None:
    neighbour = Neighbour("A", cast("Any", Said()), 0.0, pulled=pulled, served=served)
    assert neighbour.in_step == (pulled and served)


def test_a_link_that_has_just_come_up_is_not_in_step_until_each_side_has_caught_up() -> None:
    neighbour = Neighbour("A", cast("Any", Said()), 0.0)
    assert not neighbour.in_step
    neighbour.pulled = True
    assert not neighbour.in_step
    assert not Neighbour("A", cast("Any", Said()), 0.0, served=True).in_step


def test_one_walk_is_under_way_and_the_next_one_starts_when_it_has_ended() -> None:
    world = World("A", "B")
    a, b = world.neighbours
    for neighbour in (a, b, a, b, a):  # a second start changes nothing
        world.walks.begin(neighbour)
    world.work()
    assert world.said(a).messages == [AskRange(0, LEAVES)]
    assert world.said(b).messages == []
    assert not world.walks.idle
    assert not world.walks.ended
    world.walks.begin(a)
    world.work()
    assert world.said(a).messages == [AskRange(0, LEAVES)], "nor does one in the middle of it"
    world.walks.answered(a, BatchHeader(0, LEAVES, 0), 2.0)
    assert world.said(a).messages[1:] == [Done()]
    assert (a.pulled, a.due, a.pull) == (True, False, None)
    assert a.compare_at == 2.0 + COMPARE_SECONDS
    assert world.walks.ended
    assert world.said(b).messages == []
    world.work(3.0)
    assert world.said(b).messages == [AskRange(0, LEAVES)]
    assert b.since == b.heard == 3.0
    world.walks.answered(b, BatchHeader(0, LEAVES, 0), 4.0)
    assert world.walks.idle
    assert [(one.neighbour, one.seconds) for one in world.told] == [("A", 2.0), ("B", 1.0)]
    assert not world.slice(5.0)


def test_a_walk_that_may_have_missed_something_is_walked_again_after_the_others() -> None:
    world = World("A", "B")
    a, b = world.neighbours
    world.walks.begin(a)
    world.walks.begin(b)
    world.work()
    a.again = True
    world.walks.answered(a, BatchHeader(0, LEAVES, 0), 1.0)
    assert not a.again
    world.work()
    world.walks.answered(b, BatchHeader(0, LEAVES, 0), 1.0)
    world.work()
    assert world.said(a).messages == [AskRange(0, LEAVES), Done(), AskRange(0, LEAVES)]
    world.walks.answered(a, BatchHeader(0, LEAVES, 0), 1.0)
    assert world.walks.idle


def test_a_link_that_has_ended_costs_no_more_work_and_lets_the_next_walk_start() -> None:
    world = World("A", "B", lines=10)
    a, b = world.neighbours
    world.walks.begin(a)
    world.walks.begin(b)
    for request in (AskRange(0, LEAVES), AskDigests(""), AskLeaf(0, frozenset())):
        world.walks.serve(a, request)
    world.walks.serve(b, AskRange(0, LEAVES))
    world.walks.forget(a)
    world.work()
    assert world.said(a).messages == world.said(a).batches == []
    assert world.said(b).messages == [AskDigests("")]
    assert len(world.said(b).batches) == 1
    world.walks.forget(b)
    assert world.walks.idle
    assert not world.slice(1.0)


def test_a_waiting_walk_whose_link_has_ended_is_not_started_and_the_one_under_way_goes_on() -> None:
    world = World("A", "B", "C")
    a, b, c = world.neighbours
    for neighbour in (a, b, c):
        world.walks.begin(neighbour)
    world.work()
    world.walks.forget(b)
    world.work()
    assert world.said(a).messages == [AskRange(0, LEAVES)], "it is not started anew"
    world.walks.answered(a, BatchHeader(0, LEAVES, 0), 1.0)
    world.work()
    assert world.said(b).messages == []
    assert world.said(c).messages == [AskRange(0, LEAVES)]


def test_what_raises_for_one_neighbour_is_told_with_its_link_and_the_next_one_has_its_answer() -> None:
    world = World("A", "B")
    a, b = world.neighbours
    world.walks.serve(a, AskLeaf(LEAVES, frozenset()))  # there is no such leaf
    world.walks.serve(b, AskLeaf(0, frozenset()))
    assert world.slice(0.0)
    ((link, error),) = world.failed
    assert link is a.link
    assert isinstance(error, IndexError)
    world.walks.forget(a)
    world.work()
    assert world.said(b).batches == [(0, 1, [])]
    assert len(world.failed) == 1


def test_an_answer_while_no_walk_is_under_way_is_refused() -> None:
    world = World("A", "B")
    for answer in (Digests("", [0] * FANOUT), BatchHeader(0, LEAVES, 0)):
        with pytest.raises(Misspoken, match="answered what was not asked for"):
            world.walks.answered(world.neighbours[0], answer, 0.0)


def test_sixteen_requests_may_wait_and_each_answer_makes_room_for_one_more() -> None:
    world = World("A", lines=3)
    (a,) = world.neighbours
    for _ in range(16):
        world.walks.serve(a, AskRange(0, LEAVES))
    assert a.asked
    with pytest.raises(Misspoken, match="asks for more than 16 answers at once"):
        world.walks.serve(a, AskRange(0, LEAVES))
    a.owing -= 1  # its link would have ended
    assert world.slice(0.0), "a slice each"
    assert a.owing == 15
    world.walks.serve(a, AskRange(0, LEAVES))
    with pytest.raises(Misspoken):
        world.walks.serve(a, AskRange(0, LEAVES))


def test_each_request_has_its_own_answer() -> None:
    world = World("A", lines=2)
    (a,) = world.neighbours
    world.table.sweep(0, LEAVES, 100)
    (known,) = world.table.hashes(1)
    for request in (
        AskLeaf(0, frozenset({known})),
        AskLeaf(1, frozenset({known})),
        AskRange(1, 2),
        AskDigests("000"),
    ):
        world.walks.serve(a, request)
    world.work()
    said = world.said(a)
    assert said.batches == [(0, 1, [LINE % b"0"]), (1, 2, []), (1, 2, [LINE % b"1"])]
    assert said.messages == [Digests("000", world.table.children("000"))]
    assert a.owing == 0


def test_a_batch_is_of_whole_leaves_of_about_65536_bytes() -> None:
    world = World("A", lines=5_000)
    (a,) = world.neighbours
    world.walks.serve(a, AskRange(0, LEAVES))
    world.work()
    ((first, following, lines),) = world.said(a).batches
    size = sum(map(len, lines))
    assert first == 0
    assert following == len(lines), "one line a leaf"
    assert BATCH_BYTES <= size < BATCH_BYTES + max(map(len, lines)) == 65_536 + len(lines[-1])


def test_digests_are_hashed_in_slices_of_4096_lines() -> None:
    lines = 3 * SLICE_LINES + 10
    world = World("A", lines=lines)
    (a,) = world.neighbours
    world.walks.serve(a, AskDigests(""))
    assert world.slice(0.0)
    assert world.said(a).messages == []
    assert sum(world.table._changed) == lines - SLICE_LINES == lines - 4_096
    assert 1 + world.work() == 4
    assert world.said(a).messages == [Digests("", world.table.children(""))]
    assert not any(world.table._changed)


def test_digests_of_a_node_sweep_no_more_than_what_is_below_it() -> None:
    world = World("A", lines=100)
    world.walks.serve(world.neighbours[0], AskDigests("001"))
    world.work()
    assert [leaf for leaf in range(100) if not world.table._changed[leaf]] == [*range(16, 32)]


# Patience. ---------------------------------------------------------------------------------------------------------


def walking(*, answers: int = 0, news: int = 0, heard: float = 0.0) -> Neighbour:
    world = World("A")
    (a,) = world.neighbours
    world.walks.begin(a)
    world.work()
    a.answers, a.news, a.heard = answers, news, heard
    return a


def test_a_neighbour_may_owe_an_answer_as_long_as_the_patience_and_no_longer() -> None:
    assert walking().overdue(PATIENCE, PATIENCE) == ""
    assert "did not answer a catch-up request for 10 s" in walking().overdue(PATIENCE + 0.001, PATIENCE)
    assert Neighbour("A", cast("Any", Said()), 0.0).overdue(1e9, PATIENCE) == "", "no walk is under way"


@pytest.mark.parametrize(
    ("answers", "news", "allowed"),
    [(0, 0, 10.0), (1_000, 0, 11.0), (0, 100_000, 14.0), (1_000, 100_000, 15.0), (65_536, 0, 75.536)],
)
def test_a_walk_may_take_longer_the_more_it_has_brought(answers: int, news: int, allowed: float) -> None:
    """1 ms for each answer, 40 microseconds for each line that was news: docs/security.md."""

    def overdue(now: float) -> str:
        return walking(answers=answers, news=news, heard=now).overdue(now, PATIENCE)

    assert overdue(allowed - 0.01) == ""
    if not news:  # where the sum of floats is exact
        assert overdue(PATIENCE + answers * 0.001) == ""
    assert "catching up took more than" in overdue(allowed + 0.01)


def test_answers_are_counted_and_a_new_walk_counts_anew() -> None:
    world = World("A", lines=1)
    (a,) = world.neighbours
    for _ in range(2):
        world.walks.begin(a)
        world.work(1.0)
        assert (a.answers, a.lines, a.news) == (0, 0, 0)
        a.lines, a.news = 7, 5
        world.walks.answered(a, Digests("", [0] * FANOUT), 3.0)
        assert a.answers == 1
        assert a.heard == 3.0
    assert [(one.lines, one.news) for one in world.told] == [(7, 5)] * 2
