"""Searches share an index, which is there only while somebody asks, and take turns."""

from __future__ import annotations

import pytest
from worlds import ClientWorld, clients

from proxyherd.core.spatial import search as search_module
from proxyherd.core.spatial import searches as searches_module
from proxyherd.core.spatial.areas import Circle, Misdrawn
from proxyherd.core.spatial.polygons import Polygon
from proxyherd.core.spatial.search import Question, SearchResult
from proxyherd.core.spatial.searches import BEHIND, IN_TURNS, INDEX_KEPT_SECONDS, Searches
from proxyherd.core.spatial.sphere import HALF_EARTH

WORLD = Question(Circle(0, 0, HALF_EARTH), 1_000)


class Asked:
    """Searches of a world, and what was answered, in order."""

    def __init__(self, clients: int = 100) -> None:
        self.world = ClientWorld(1, clients)
        self.world.index.close()
        self.searches = Searches(self.world.table)
        self.answers: list[tuple[str, SearchResult | Exception]] = []

    def ask(self, name: str, question: Question, now: float = 0.0) -> bool:
        return self.searches.ask(question, lambda answer: self.answers.append((name, answer)), now)

    def work(self) -> None:
        while self.searches.has_work:
            self.searches.work()


def test_there_is_no_index_before_somebody_asks_and_none_after_ten_idle_minutes() -> None:
    asked = Asked()
    asked.searches.tick(0.0)
    assert asked.searches.indexed is None
    assert asked.world.table.changes is None
    assert asked.ask("a", WORLD, now=5.0)
    asked.work()
    assert asked.searches.indexed == 100
    asked.searches.tick(5.0 + INDEX_KEPT_SECONDS - 1)
    assert asked.searches.indexed == 100
    asked.ask("b", WORLD, now=300.0)
    asked.work()
    asked.searches.tick(5.0 + INDEX_KEPT_SECONDS)
    assert asked.searches.indexed == 100
    asked.searches.tick(300.0 + INDEX_KEPT_SECONDS)
    assert asked.searches.indexed is None
    assert asked.world.table.changes is None
    asked.world.stir(50)
    asked.ask("c", WORLD, now=10_000.0)
    asked.work()
    assert [name for name, _ in asked.answers] == ["a", "b", "c"]
    _, answer = asked.answers[-1]
    assert isinstance(answer, SearchResult)
    assert clients(answer) == [client for _, client in asked.world.all_in(WORLD.area)]


def test_an_index_is_not_dropped_while_a_search_goes_on() -> None:
    asked = Asked()
    asked.ask("a", WORLD, now=0.0)
    assert asked.searches.has_work
    asked.searches.tick(2 * INDEX_KEPT_SECONDS)
    asked.work()
    assert len(asked.answers) == 1


def test_a_long_search_does_not_delay_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(clients=1_000)
    asked.ask("first", Question(Circle(0, 0, 10), 1))
    asked.work()
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 10)
    asked.ask("long", WORLD)
    assert asked.searches.has_work
    asked.ask("short", Question(Circle(12.0, 34.0, 1), 1))
    assert [name for name, _ in asked.answers] == ["first", "short"]  # in the same step in which it was asked
    asked.work()
    assert [name for name, _ in asked.answers] == ["first", "short", "long"]


def test_a_search_for_nobody_ends_and_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 10)
    asked, gone = Asked(clients=1_000), list[SearchResult | Exception]()
    answered = gone.append
    for searching in (False, True):  # while the index is made, and while it is searched
        asked.ask("before", WORLD)
        assert asked.searches.ask(WORLD, answered, 0.0)
        asked.ask("after", WORLD)
        index = asked.searches._index
        assert index is not None
        while searching and len(index._searches) < 3:
            asked.searches.work()
        asked.searches.cancel(answered)
        assert len(index._searches) == (2 if searching else 0)
        asked.searches.cancel(answered)
        asked.work()
        assert index._searches == []
    assert gone == []
    assert sorted(name for name, _ in asked.answers) == ["after", "after", "before", "before"]


def test_what_is_no_area_is_answered_with_the_reason() -> None:
    asked = Asked()
    bow_tie = Polygon([[[(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)]]])
    assert asked.ask("a", Question(bow_tie, 10))
    asked.work()
    ((_, reason),) = asked.answers
    assert isinstance(reason, Misdrawn)
    assert "[0.5, 0.5]" in str(reason)


def test_too_many_searches_at_once_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches_module, "MOST_SEARCHES", 3)
    asked = Asked()
    assert [asked.ask(str(number), WORLD) for number in range(5)] == [True, True, True, False, False]
    asked.work()
    assert len(asked.answers) == 3
    assert asked.ask("later", WORLD)


def test_changes_do_not_pile_up_while_an_index_is_kept_and_nobody_asks() -> None:
    """What the table notes of each change takes memory too."""
    asked = Asked()
    asked.ask("a", WORLD)
    asked.work()
    for number in range(BEHIND):
        asked.world.put(b"other%d" % number, 1, 1)
    assert not asked.searches.has_work
    asked.world.put(b"one more", 1, 1)
    assert asked.searches.has_work
    asked.work()
    index = asked.searches._index
    assert index is not None
    assert index.behind <= BEHIND
    assert len(index) + index.behind == 100 + BEHIND + 1


def test_a_search_that_fails_ends_alone() -> None:
    asked = Asked()
    asked.ask("broken", Question(WORLD.area, 10, accepts=lambda client, entry: bool(1 / 0)))
    asked.ask("other", WORLD)
    asked.work()
    reasons = dict(asked.answers)
    assert isinstance(reasons["broken"], ZeroDivisionError)
    assert isinstance(reasons["other"], SearchResult)


@pytest.mark.long
def test_of_many_long_searches_the_first_are_answered_long_before_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = Asked(clients=1_000)
    asked.ask("first", Question(Circle(0, 0, 10), 1))
    asked.work()
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 10)
    for number in range(10 * IN_TURNS):
        asked.ask(str(number), WORLD)
    answered_by: list[int] = []  # how many had an answer, by slices of work
    while asked.searches.has_work:
        asked.searches.work()
        answered_by.append(len(asked.answers) - 1)
    assert answered_by[-1] == 10 * IN_TURNS
    assert answered_by[len(answered_by) // 2] >= 4 * IN_TURNS
