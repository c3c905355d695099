"""Queries that came before their server was ready."""

from __future__ import annotations

from proxyherd.core.early_queries import EarlyQueries, EarlyQuery
from proxyherd.core.messages import Whatsat
from proxyherd.core.news import News
from proxyherd.core.reply import Reply
from proxyherd.core.sizes import SIZES, Sizes


class Asking:
    def __init__(self) -> None:
        self.looks = 0
        self._gone = False

    @property
    def gone(self) -> bool:
        self.looks += 1
        return self._gone

    def leave(self) -> None:
        self._gone = True


def test_as_many_wait_as_the_page_of_security_says() -> None:
    assert SIZES.early_queries == 65_536
    assert SIZES.early_query_bytes == 16 << 20


def query(client: bytes) -> Reply:
    return Reply("whatsat", "waiting", None, Whatsat(client, b"0", 0))


def replies(queries: list[EarlyQuery[Asking]]) -> list[Reply]:
    return [reply for _, _, reply in queries]


def test_a_query_waits_until_there_is_news_of_its_client_or_until_all_are_released() -> None:
    early: EarlyQueries[Asking] = EarlyQueries()
    someone, asked = Asking(), [query(client) for client in (b"a", b"b", b"a")]
    for reply in asked:
        assert early.add(someone, b"line", reply)
    assert early.known([News(b"c", b"")]) == []
    assert replies(early.known([News(b"a", b""), News(b"a", b"")])) == [asked[0], asked[2]]
    assert early
    assert early.due(9) == []
    assert not early.any_due
    early.release()
    assert early.any_due
    assert replies(early.due(9)) == [asked[1]]
    assert not early
    assert not early.any_due


def test_what_is_due_is_taken_out_in_portions_and_counts_until_then() -> None:
    early: EarlyQueries[Asking] = EarlyQueries(Sizes(early_queries=5))
    someone, asked = Asking(), [query(b"%d" % number) for number in range(5)]
    for reply in asked:
        assert early.add(someone, b"line", reply)
    early.release()
    assert not early.add(someone, b"line", query(b"x"))
    assert replies(early.due(2)) == asked[:2]
    late = query(b"late")
    assert early.add(someone, b"line", late)
    assert replies(early.due(9)) == asked[2:]
    assert early.due(9) == []
    early.release()
    assert replies(early.due(9)) == [late]


def test_past_the_bound_those_who_left_make_room_and_then_there_is_none() -> None:
    early: EarlyQueries[Asking] = EarlyQueries(Sizes(early_queries=4))
    leaves, stays = Asking(), Asking()
    asked = [query(client) for client in (b"a", b"b", b"a", b"b")]
    for one, reply in zip((leaves, stays, leaves, stays), asked, strict=True):
        assert early.add(one, b"line", reply)
    early.release()
    assert not early.add(stays, b"line", query(b"b"))
    leaves.leave()
    assert early.add(stays, b"line", query(b"b"))
    assert early.add(stays, b"line", query(b"b"))
    assert not early.add(stays, b"line", query(b"b"))
    assert [reply for _, _, reply in early.left()] == [asked[0], asked[2]]
    assert early.left() == []
    early.release()
    assert len(early.due(9)) == 4
    assert not early


def test_making_room_loses_nobody_who_stays() -> None:
    early: EarlyQueries[Asking] = EarlyQueries(Sizes(early_queries=2))
    leaves, stays = Asking(), Asking()
    first, second, third = (query(b"%d" % number) for number in range(3))
    assert early.add(leaves, b"line", first)
    assert early.add(stays, b"line", second)
    leaves.leave()
    assert early.add(stays, b"line", third)
    assert replies(early.left()) == [first]
    assert replies(early.known([News(b"1", b"")])) == [second]
    early.release()
    assert replies(early.due(9)) == [third]


def test_refusing_costs_no_search_of_all_that_wait() -> None:
    early: EarlyQueries[Asking] = EarlyQueries(Sizes(early_queries=1_600))
    someone = Asking()
    for number in range(1_600):
        assert early.add(someone, b"line", query(b"%d" % number))
    for _ in range(1_600):
        assert not early.add(someone, b"line", query(b"x"))
    assert someone.looks == 16 * 1_600, "a search for the first, and then for one in 101"
    someone.leave()
    taken = sum(early.add(Asking(), b"line", query(b"x")) for _ in range(200))
    assert taken >= 100


def test_a_search_that_finds_that_few_have_left_is_not_repeated_at_once() -> None:
    early: EarlyQueries[Asking] = EarlyQueries(Sizes(early_queries=1_600))
    stays = Asking()
    for number in range(1_600):
        assert early.add(stays, b"line", query(b"%d" % number))
    searches = 0
    for _ in range(50):  # of one after another that asks and leaves
        early.due(0)
        early.known([News(b"%d" % searches, b"")])
        before, leaves = stays.looks, Asking()
        early.add(leaves, b"line", query(b"x"))
        leaves.leave()
        early.add(stays, b"line", query(b"y"))
        searches += stays.looks > before
    assert searches <= 1


def test_bytes_that_wait_are_bounded_whatever_the_ids_and_are_given_back() -> None:
    early: EarlyQueries[Asking] = EarlyQueries(Sizes(early_query_bytes=100))
    leaves, stays = Asking(), Asking()
    assert early.add(leaves, b"x" * 60, query(b"a"))
    assert early.add(stays, b"x" * 40, query(b"b"))
    assert not early.add(stays, b"x", query(b"c"))
    leaves.leave()
    early._refusing = 0
    assert not early.add(stays, b"x" * 61, query(b"d")), "what has left made room for 60"
    early._refusing = 0
    assert early.add(stays, b"x" * 60, query(b"d"))
    assert len(early.left()) == 1
    early.release()
    assert len(early.due(9)) == 2
    assert early.add(stays, b"x" * 100, query(b"e"))
