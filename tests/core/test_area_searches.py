"""Queries of areas in the turns of a server with a journal: when they are searched, and what they are answered with."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from random import Random

import pytest
from msgspec.structs import replace
from turns import CLOCK, Asked, Held, Neighbour, Turns, node
from worlds import SPOTS

from proxyherd.config.schema import Limits, Timing
from proxyherd.core import area_searches
from proxyherd.core.area_queries import AreaQuery, AreaReply
from proxyherd.core.framing import Line
from proxyherd.core.messages import Entry, Forget, parse_at
from proxyherd.core.reply import Reply
from proxyherd.core.spatial import search as search_module
from proxyherd.core.spatial.areas import Box, Circle
from proxyherd.core.spatial.index import degrees
from proxyherd.core.spatial.polygons import Polygon
from proxyherd.core.spatial.searches import BEHIND, INDEX_KEPT_SECONDS, Searches
from proxyherd.core.spatial.sphere import HALF_EARTH, haversine_between
from proxyherd.core.turn import Turn
from proxyherd.engines.herd.engine import HerdEngine
from proxyherd.telemetry.observer import Observer

EARTH = Circle(0.0, 0.0, HALF_EARTH)
WORLD = AreaQuery("near", 1_000, EARTH)


class AreaAsker:
    """A client that gets replies, as those of the web port do."""

    queued = gone = failed = False
    label = b"asker"
    payer = "asker"
    besides = 0
    owed = (1,)  # so that all replies come by `release`

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lines: list[Line] = []
        self._commands: deque[tuple[Line, Reply]] = deque()
        self.replies: list[Reply] = []
        self.asked = 0
        self.given_up = ""
        self.judge: Callable[[Line, Reply], None] | None = None

    def say(self, *lines: Line) -> None:
        self.asked += len(lines)
        self._lines += lines
        self._server.turn.client_said(self)

    def may_ask_places(self, now: float) -> bool:
        return True

    def take(self, most: int, now: float) -> list[Line]:
        taken, self._lines = self._lines[:most], self._lines[most:]
        if self._lines:
            self._server.turn.client_said(self)
        return taken

    def answer(self, answers: list[bytes]) -> None:
        assert not answers

    def owe(self, commands: Iterable[tuple[Line, Reply]]) -> None:
        self._commands.extend(commands)

    def release(self) -> list[tuple[Line, Reply]]:
        released = []
        while self._commands and self._commands[0][1].answer is not None:
            released.append(self._commands.popleft())
        self.replies += [reply for _, reply in released]
        if self.judge is not None:
            for line, reply in released:
                self.judge(line, reply)
        return released

    def give_up(self, reason: str) -> list[tuple[Line, Reply]]:
        self.given_up = reason
        owed = [*self._commands]
        self._commands.clear()
        return owed

    def fail(self) -> None:
        self.failed = True

    @property
    def outcomes(self) -> list[str]:
        return [reply.outcome for reply in self.replies]

    @property
    def lines(self) -> dict[bytes, bytes]:
        """The clients in the last answer, and their AT lines."""
        reply = self.replies[-1]
        assert isinstance(reply, AreaReply)
        assert reply.result is not None
        return {one.client: one.entry.line for one in reply.result.found}

    @property
    def found(self) -> list[bytes]:
        """The clients in the last answer."""
        return [*self.lines]


class Server:
    """A server that has replayed its journal, if not told otherwise."""

    def __init__(
        self, observer: Observer, *, alone: bool = True, always: bool = False, **limits: float
    ) -> None:
        self.turns = turns = Turns()
        self.node = node(Limits(**limits), alone=alone)  # type: ignore[arg-type] # numbers all
        self.journal = Held(always=always)
        self.engine = HerdEngine(self.node, self.journal, turns.wake, later=self)
        self.turn = turns.turn = Turn(self.engine, Asked(), observer, turns.wake)

    def client(self, *lines: Line) -> AreaAsker:
        asker = AreaAsker(self)
        if lines:
            asker.say(*lines)
        return asker

    def pass_on_soon(self) -> None:
        self.turns.soon.append(self.engine.pass_on)

    def send_spare_later(self) -> None:
        raise NotImplementedError

    def settle_later(self) -> None:
        pass

    def settled(self) -> None:
        pass


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a search take many slices."""
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 100)


@pytest.fixture
def server(observer: Observer) -> Server:
    return Server(observer)


def report(client: int, latitude: float = 1.0, longitude: float = 1.0, moment: int = 1) -> bytes:
    return b"IAMAT c%d %+.6f%+.6f %d" % (client, latitude, longitude, moment)


def crowd(server: Server, count: int = 200) -> None:
    """Let clients report, and the index be made."""
    server.client(*(report(number, number % 90) for number in range(count)), WORLD)
    server.turns.rest()


def test_nothing_is_kept_for_queries_before_there_is_one(server: Server) -> None:
    server.client(report(1), b"WHATSAT c1 0 0", Forget(b"c1"))
    server.turns.rest()
    assert not server.engine.areas.used
    assert server.node.table.changes is None


def test_a_query_between_two_reports_is_answered_between_them_and_has_at_least_the_first(
    server: Server,
) -> None:
    asker = server.client(report(1), WORLD, report(2))
    server.turns.rest()
    first, query, last = asker.replies
    assert (first.kind, query.kind, last.kind) == ("iamat", "near", "iamat")
    assert isinstance(query, AreaReply)
    assert query.result is not None
    assert {b"c1"} <= {one.client for one in query.result.found} <= {b"c1", b"c2"}
    assert (query.answer, query.complete, query.result.next) == (b"", True, None)


@pytest.mark.usefixtures("slow")
def test_what_changes_while_a_search_goes_on_is_in_its_answer_and_delays_nobody(server: Server) -> None:
    crowd(server)
    asker, other = server.client(WORLD), server.client()
    server.turns.one()
    other.say(Forget(b"c1"), report(2, -80, 1, moment=2), report(900))
    server.turns.one()
    assert other.outcomes == ["erased", "stored", "stored"]
    assert asker.replies == []
    server.turns.rest()
    assert b" -80.000000+1.000000 " in asker.lines[b"c2"]
    assert {*asker.found} - {b"c900"} == {b"c%d" % number for number in range(200)} - {b"c1"}


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("seed", range(2))
def test_each_answer_is_what_the_table_holds_when_it_is_given(server: Server, seed: int) -> None:
    """Who has come into the area since the query may be missing, and nobody else."""
    crowd(server)
    random, other = Random(seed), server.client()
    askers, judged = [server.client() for _ in range(3)], list[int]()
    before: dict[Line, dict[bytes, Entry]] = {}

    def judge(query: Line, reply: Reply) -> None:
        assert isinstance(query, AreaQuery)
        assert query.area is not None
        centre, sees = query.area.centre, query.sees
        assert sees is not None
        inside = {
            client: (haversine_between(*centre, *position), client)
            for client, entry in server.node.table
            if query.area.contains(*(position := degrees(entry.line))) and sees(client)
        }
        assert isinstance(reply, AreaReply)
        assert reply.result is not None
        found = [one.client for one in reply.result.found]
        assert found == sorted(found, key=inside.__getitem__)
        assert all(one.entry == server.node.table.get(one.client) for one in reply.result.found)
        missing = inside.keys() - found
        assert all(server.node.table.get(client) != before[query].get(client) for client in missing)
        judged.append(len(inside))

    for moment in range(1, 60):
        for _ in range(random.randrange(20)):
            latitude, longitude = random.choice(SPOTS)
            latitude, longitude = min(90, max(-90, latitude + random.gauss(0, 1))), longitude * 0.9
            line: Line = report(random.randrange(300), latitude, longitude, moment)
            other.say(line if random.random() < 0.8 else Forget(b"c%d" % random.randrange(300)))
        for asker in askers:
            if len(asker.replies) == asker.asked:
                area = Circle(*random.choice(SPOTS), 10 ** random.uniform(5, 6.2))
                query = AreaQuery("near", 300, area, sees=lambda client: client[-1] % 5 > 0)
                asker.judge, before[query] = judge, dict(server.node.table)
                asker.say(query)
        for _ in range(random.randrange(40)):
            server.turns.one()
    assert len(judged) > 20
    assert sum(judged) > 100


# What it waits for. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [True, False])
def test_while_the_journal_is_replayed_queries_wait(observer: Observer, *, alone: bool) -> None:
    server = Server(observer, alone=alone)
    server.node.begin_replay()
    server.node.replay([parse_at(b"AT Ann +0.100000000 kiwi +1+1 1000")])
    known = AreaQuery("near", 5, around=b"kiwi", metres=10.0)
    asker = server.client(WORLD, known)
    assert server.turns.rest() < 10
    assert asker.replies == []
    server.node.start(0.0)
    server.engine.wake()
    server.turns.rest()
    assert asker.found == [b"kiwi"]
    assert [reply.complete for reply in asker.replies if isinstance(reply, AreaReply)] == [alone] * 2


def test_a_query_around_a_client_that_is_not_known_waits_until_the_server_knows_or_is_ready(
    observer: Observer,
) -> None:
    server = Server(observer, alone=False)
    kiwi, nobody = (server.client(AreaQuery("near", 5, around=name, metres=10.0)) for name in (b"c1", b"no"))
    assert server.turns.rest() < 10
    server.client(report(1))
    server.turns.rest()
    assert kiwi.found == [b"c1"]
    server.node.tick(Timing().ready_seconds)
    server.engine.beat(0.0)
    server.turns.rest()
    assert nobody.outcomes == ["unknown"]
    assert nobody.replies[0].answer == b""


def test_queries_around_unknown_clients_leave_with_their_askers(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(area_searches, "MOST_SEARCHES", 10)
    server = Server(observer, alone=False)
    askers = [server.client(AreaQuery("near", 5, around=b"no", metres=10.0)) for _ in range(10)]
    server.turns.rest()
    assert len(server.engine.areas) == 10
    for asker in askers:
        asker.gone = True
    server.engine.wake()
    server.turns.rest()
    assert not server.engine.areas
    late = server.client(WORLD)
    server.turns.rest()
    assert late.outcomes == ["answered"]
    assert [asker.outcomes for asker in askers] == [["left"]] * 10


def test_a_server_that_stops_gives_up_queries_that_wait_for_what_it_must_learn(observer: Observer) -> None:
    server = Server(observer, alone=False)
    unknown = server.client(AreaQuery("near", 5, around=b"no", metres=10.0))
    server.turns.rest()
    server.engine.let_go()
    server.turns.rest()
    assert unknown.given_up == "server stops"
    server.node.begin_replay()
    early = server.client(WORLD)
    server.turns.rest()
    assert early.given_up == "server stops"
    assert not server.engine.areas


def test_what_neighbours_told_is_in_the_journal_before_it_is_in_an_answer(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(observer, alone=False)
    left, right = (Neighbour(server.node, server.engine, name) for name in ("Abe", "Amy"))
    server.turns.rest()
    for one in (left, right):
        one.tell(b"BATCH 0 10000 0")
        server.turns.rest()
    assert server.node.caught_up
    crowd(server)
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 10)
    asker = server.client(WORLD)
    server.turns.one()
    told = b"AT Abe +0.100000000 c7 +1+1 1000"
    left.tell(told)
    assert asker.replies == []
    server.turns.rest()
    assert asker.lines[b"c7"] == told
    assert told in server.journal.appended
    server.journal.appended.clear()
    left.tell(b"AT Abe +0.100000000 plum +1+1 1000")
    server.turns.rest()
    assert server.journal.appended == [], "afterwards, updates wait for the journal as before"


def test_a_turn_whose_reports_cannot_be_kept_answers_its_queries_once(observer: Observer) -> None:
    server = Server(observer, always=True)
    asker = server.client(report(1), WORLD)
    server.turns.one()
    server.journal.fails = True
    server.journal.release()
    server.turns.rest()
    assert asker.outcomes == ["refused", "answered"]
    assert asker.found == []
    assert not server.engine.areas


# Who is in an answer. --------------------------------------------------------------------------------------------


def test_who_is_not_seen_was_not_heard_lately_or_is_forgotten_is_left_out(observer: Observer) -> None:
    server = Server(observer, max_age_seconds=3.0)
    for client, age in ((b"young", 1), (b"old", 2), (b"forgotten", 4)):
        moment = CLOCK - age * 10**9
        line = b"AT Abe +0.000000000 %b +1+1 %d.000000000" % (client, moment // 10**9)
        server.node.replay([parse_at(line)])
        entry = parse_at(line)
        assert entry is not None
        server.node.table.put(client, entry.entry, server.node.table.leaf(client))
    everybody = AreaQuery("within", 9, Box(0.0, 0.0, 2.0, 2.0))
    for more, found in (
        ({}, [b"old", b"young"]),
        ({"received_since": CLOCK - 2 * 10**9}, [b"old", b"young"]),
        ({"received_since": CLOCK - 2 * 10**9 + 1}, [b"young"]),
        ({"sees": lambda client: client == b"old"}, [b"old"]),
    ):
        asker = server.client(replace(everybody, **more))
        server.turns.rest()
        assert asker.found == found
    asker = server.client(AreaQuery("near", 9, around=b"forgotten", metres=10.0))
    server.turns.rest()
    assert asker.outcomes == ["unknown"]


def test_an_area_that_is_none_is_answered_with_the_reason(server: Server) -> None:
    bow_tie = Polygon([[[(0, 0), (1, 1), (1, 0), (0, 1), (0, 0)]]])
    asker = server.client(AreaQuery("within", 5, bow_tie), AreaQuery("near", 5, Circle(0.0, 0.0, -1.0)))
    server.turns.rest()
    assert asker.outcomes == ["invalid", "invalid"]
    reasons = [reply.reason for reply in asker.replies if isinstance(reply, AreaReply)]
    assert "[0.5, 0.5]" in reasons[0]
    assert reasons[1] == "a radius is not negative"


# Limits. ---------------------------------------------------------------------------------------------------------


def test_queries_beyond_the_limit_are_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area_searches, "MOST_SEARCHES", 10)
    asker = server.client(*[WORLD] * 12)
    server.turns.one()
    assert len(server.engine.areas) == 10
    server.turns.rest()
    assert asker.outcomes == ["answered"] * 10 + ["refused"] * 2
    assert asker.replies[-1].refusal == "full"
    asker.say(WORLD)
    server.turns.rest()
    assert asker.outcomes[-1] == "answered"


def test_nobody_has_more_than_a_share_of_the_queries(server: Server) -> None:
    greedy = server.client(*[WORLD] * 50), server.client(*[WORLD] * 50)
    other = server.client(*[WORLD] * 10)
    other.payer = "other"
    server.turns.one()
    assert len(server.engine.areas) == area_searches.SHARE + 10
    server.turns.rest()
    outcomes = [outcome for one in greedy for outcome in one.outcomes]
    assert (outcomes.count("answered"), outcomes.count("refused")) == (
        area_searches.SHARE,
        100 - area_searches.SHARE,
    )
    assert other.outcomes == ["answered"] * 10
    greedy[1].say(WORLD)
    server.turns.rest()
    assert greedy[1].outcomes[-1] == "answered"


def test_a_turn_does_a_few_slices_of_searches_however_many_there_are(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(server)
    monkeypatch.setattr(search_module, "SEARCH_SLICE", 10)
    slices, work = [0], Searches.work

    def counted(searches: Searches) -> None:
        slices[0] += 1
        work(searches)

    monkeypatch.setattr(Searches, "work", counted)
    askers = [server.client(WORLD) for _ in range(40)]
    while server.turns.is_due:
        before = slices[0]
        server.turns.one()
        assert slices[0] - before <= area_searches.BEGUN + 1
    assert [asker.outcomes for asker in askers] == [["answered"]] * 40


@pytest.mark.usefixtures("slow")
def test_the_search_of_a_client_that_has_left_ends(server: Server) -> None:
    crowd(server)
    here, gone, early = (server.client(WORLD) for _ in range(3))
    server.turns.one()
    late = server.client(WORLD)
    gone.gone = late.gone = True
    left = server.turns.rest()
    assert [asker.outcomes for asker in (here, gone, early, late)] == [
        ["answered"],
        ["left"],
        ["answered"],
        ["left"],
    ]
    assert not server.engine.areas
    again = [server.client(WORLD) for _ in range(4)]
    assert left < server.turns.rest()
    assert [asker.outcomes for asker in again] == [["answered"]] * 4


def test_the_index_is_dropped_when_nobody_has_asked_for_long(server: Server) -> None:
    crowd(server)
    assert server.node.searches.indexed == 200
    for _ in range(2):
        server.node.tick(INDEX_KEPT_SECONDS)
    assert server.node.searches.indexed is None
    assert server.node.table.changes is None


def test_what_changes_while_nobody_asks_is_indexed_little_by_little(server: Server) -> None:
    crowd(server)
    reporter = server.client()
    for first in range(0, BEHIND + 200, 50):
        reporter.say(*(report(number) for number in range(1_000 + first, 1_050 + first)))
        server.turns.rest()
        index = server.node.searches._index
        assert index is not None
        assert index.behind <= BEHIND


def test_a_search_that_fails_closes_the_connection_of_its_client_alone(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoArea:
        centre, reach, bounds, positions = (0.0, 0.0), 10.0, Box(0.0, 0.0, 1.0, 1.0), 1

        def check(self) -> Iterator[None]:
            raise ArithmeticError

        def contains(self, latitude: float, longitude: float) -> bool:
            raise NotImplementedError

    asker, other = server.client(AreaQuery("within", 5, NoArea())), server.client(report(1), WORLD)
    server.turns.rest()
    assert asker.outcomes == ["unanswered"]
    assert asker.failed
    assert other.found == [b"c1"]
    assert not server.engine.areas
