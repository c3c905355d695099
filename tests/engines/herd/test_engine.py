"""The engine `herd` turn by turn, with a journal and clients that a test holds in its hands.

What a server has answered about a client it never takes back by a restart: so its queries wait while it replays its
journal, and where records may be missing until it has caught up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
from turns import CLOCK, Asked, Held, Neighbour, Pipeliner, Turns, node, terms

from proxyherd.config.schema import Timing
from proxyherd.core import messages
from proxyherd.core.engine import Settled
from proxyherd.core.handshake import State
from proxyherd.core.link import Link
from proxyherd.core.messages import Entry, Forget, parse_at
from proxyherd.core.node import Node
from proxyherd.core.notes import Flooded, Heard, LinkDown, Note
from proxyherd.core.peer_messages import LinkEvent, Updates
from proxyherd.core.sizes import Sizes
from proxyherd.core.tombstones import parse_gone
from proxyherd.core.turn import Turn
from proxyherd.engines.herd.engine import HerdEngine, share
from proxyherd.telemetry.observer import Observer

OLD = b"AT Ann +0.100000000 kiwi +1+1 1000"
NEW = b"AT Ann +0.100000000 kiwi +2+2 2000"
ASK = b"WHATSAT kiwi 0 0"
PLUM = b"AT Ann +0.000000000 plum +1+1 5"
"""A report received at `CLOCK`."""


class Server:
    """What turns of one server need; it replays when it is made."""

    def __init__(
        self, observer: Observer, *, alone: bool = False, always: bool = False, early: int = 65_536
    ) -> None:
        self.turns = turns = Turns()
        self.node = node(alone=alone)
        self.node.begin_replay()
        self.journal = Held(always=always)
        self.settles = 0
        self.waits_with_spare = False
        self.noted: list[Note] = []
        self.engine = HerdEngine(self.node, self.journal, turns.wake, Sizes(early_queries=early), self)
        self.turn = turns.turn = Turn(self.engine, Asked(), observer, turns.wake)

    def client(self, *lines: bytes, name: str = "pipeliner") -> Pipeliner:
        return Pipeliner(self.turn, list(lines), name)

    def replay(self, *lines: bytes) -> None:
        self.node.replay(map(parse_at, lines))

    def start(self, *, lacks: bool = False) -> None:
        """End the replay."""
        self.node.start(0.0, lacks=lacks)
        self.engine.wake()

    def neighbours(self) -> tuple[Neighbour, Neighbour]:
        """Return two neighbours with which this server has caught up."""
        self.start()
        left, right = (Neighbour(self.node, self.engine, name) for name in ("Abe", "Amy"))
        self.turns.rest()
        for _ in range(2):  # Ann's table is empty, so she asks for everything, and they have nothing
            left.tell(b"BATCH 0 10000 0")
            self.turns.rest()
            left, right = right, left
        assert self.node.caught_up
        self.pass_time()
        for one in (left, right):
            one.told.clear()
        self.journal.appended.clear()
        self.journal.appends = 0
        return left, right

    def pass_time(self) -> None:
        """Let `LEARNED_SECONDS` pass."""
        settles, self.settles = self.settles, 0
        for _ in range(settles):
            self.noted += self.engine.settle()
        self.turns.rest()

    def pass_on_soon(self) -> None:
        self.turns.soon.append(self.engine.pass_on)

    def send_spare_later(self) -> None:
        self.waits_with_spare = True

    def settle_later(self) -> None:
        self.settles = 1

    def settled(self) -> None:
        self.settles = 0

    def become_ready(self) -> None:
        self.node.tick(Timing().ready_seconds)
        self.engine.wake()


def first_lines(client: Pipeliner) -> list[bytes]:
    return [answer.split(b"\n")[0] for answer in client.answers]


# What was answered is not taken back. ------------------------------------------------------------------------------


@pytest.mark.parametrize("alone", [True, False])
def test_while_the_journal_is_replayed_every_query_waits_and_reports_are_answered_at_once(
    observer: Observer, *, alone: bool
) -> None:
    server = Server(observer, alone=alone)
    server.replay(OLD)
    asks = server.client(ASK, b"WHATSAT plum 0 0", b"WHATSAT nobody 0 0")
    reports = server.client(b"IAMAT plum +1+1 5")
    server.turns.rest()
    assert [answer.split()[3] for answer in reports.answers] == [b"plum"]
    assert asks.answers == []
    reports.send(b"IAMAT kiwi +3+3 1500")
    server.turns.rest()
    assert len(reports.answers) == 2
    assert asks.answers == []
    server.replay(NEW)
    server.turns.rest()
    assert asks.answers == []
    server.start()
    server.turns.rest()
    answered = [NEW, reports.answers[0], b"? WHATSAT nobody 0 0"]
    assert first_lines(asks) == (answered if alone else answered[:2])
    server.become_ready()
    server.turns.rest()
    assert first_lines(asks) == answered


def test_what_was_replayed_is_answered_before_the_server_is_ready(
    observer: Observer,
) -> None:
    server = Server(observer)
    server.replay(NEW)
    server.start()
    asks = server.client(ASK)
    server.turns.rest()
    assert first_lines(asks) == [NEW]


def test_where_records_may_be_missing_nothing_is_answered_before_the_server_is_ready(
    observer: Observer,
) -> None:
    server = Server(observer)
    server.replay(OLD)
    early, reports = server.client(ASK), server.client(b"IAMAT plum +1+1 5")
    server.start(lacks=True)
    late = server.client(b"WHATSAT plum 0 0")
    server.turns.rest()
    assert len(reports.answers) == 1
    update = parse_at(NEW)
    assert update is not None
    server.node.admit(update)  # as from a neighbour
    server.engine.wake()
    server.turns.rest()
    assert early.answers == late.answers == []
    server.become_ready()
    server.turns.rest()
    assert first_lines(early) == [NEW]
    assert first_lines(late) == reports.answers


def test_who_asks_just_before_the_server_is_ready_is_answered_though_the_disk_is_slow(
    observer: Observer,
) -> None:
    server = Server(observer, always=True)
    server.start(lacks=True)
    asks, reports = server.client(ASK), server.client(b"IAMAT kiwi +1+1 5")
    server.turns.rest()
    assert asks.answers == [], "the turn waits for the disk"
    server.become_ready()
    server.journal.release()
    server.turns.rest()
    server.engine.beat(0.0)
    server.turns.rest()
    assert first_lines(asks) == reports.answers


def test_news_of_a_client_answers_those_who_wait_for_it_once_the_replay_has_ended(observer: Observer) -> None:
    server = Server(observer)
    server.start()
    asks = server.client(ASK, b"WHATSAT plum 0 0")
    server.turns.rest()
    assert asks.answers == []
    reports = server.client(b"IAMAT kiwi +2+2 2000")
    server.turns.rest()
    assert first_lines(asks) == reports.answers


# Many wait. --------------------------------------------------------------------------------------------------------


def test_thousands_that_waited_are_looked_up_in_portions_and_nobody_is_held_up(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[bytes] = []
    turns: list[int] = []
    real = Node.look_up

    def counting(one: Node, *arguments: Any) -> Any:
        looked_up.append(arguments[1])
        return real(one, *arguments)

    server = Server(observer)
    server.replay(NEW)
    crowd = [server.client(*[ASK] * 100, name=f"c{number}") for number in range(20)]
    server.turns.rest()
    monkeypatch.setattr(Node, "look_up", counting)
    end = server.engine.end

    def ended(now: float) -> Settled:
        turns.append(len(looked_up))
        return end(now)

    monkeypatch.setattr(server.engine, "end", ended)
    server.start()
    beside = server.client(b"IAMAT plum +1+1 5", name="beside")
    for _ in range(2):
        server.turns.one()
    assert beside.answers
    assert any(one.owed for one in crowd)
    server.turns.rest()
    assert [first_lines(one) for one in crowd] == [[NEW] * 100] * 20
    grown = [after - before for before, after in zip([0, *turns], turns, strict=False)]
    assert max(grown) == 512
    assert sum(grown) == len(looked_up) == 2_000
    assert not server.engine.more


def test_what_is_left_of_those_that_waited_wakes_turns_until_all_are_answered(observer: Observer) -> None:
    server = Server(observer, alone=True)
    asks = server.client(*[b"WHATSAT nobody 0 0"] * 1_100)
    server.turns.rest()
    server.start()
    server.turns.rest()  # nobody else says anything
    assert asks.answers == [b"? WHATSAT nobody 0 0"] * 1_100


def test_a_query_past_the_bound_is_refused_and_those_who_left_are_logged_with_what_is_behind(
    observer: Observer,
) -> None:
    server = Server(observer, early=2)
    leaves = server.client(ASK, b"IAMAT plum +1+1 5")
    stays = server.client(ASK)
    server.turns.rest()
    refused = server.client(ASK)
    server.turns.rest()
    assert refused.answers == [b"? " + ASK]
    assert not refused.owed
    leaves.gone = True
    late = server.client(ASK)
    server.turns.rest()
    assert late.answers == []
    assert leaves.released == [("whatsat", "left"), ("iamat", "stored")]
    server.replay(NEW)
    server.start()
    server.turns.rest()
    assert first_lines(stays) == first_lines(late) == [NEW]


def test_a_query_that_must_wait_on_and_finds_its_place_taken_is_refused_at_once(
    observer: Observer,
) -> None:
    server = Server(observer, early=1)
    server.start()
    first = server.client(ASK)
    server.turns.rest()
    server.journal.append = lambda lines: False  # type: ignore[method-assign]
    server.client(b"IAMAT kiwi +1+1 5")
    second = server.client(ASK)
    server.turns.rest()
    assert first.answers == [b"? " + ASK]
    assert first.released == [("whatsat", "refused")]
    assert second.answers == []
    assert second.owed


def test_nothing_is_looked_up_while_all_wait(observer: Observer, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(observer)
    asks = server.client(ASK)
    server.turns.rest()
    with monkeypatch.context() as patch:
        patch.setattr(Node, "look_up", lambda *_: pytest.fail("looked up"))
        reports = server.client(b"IAMAT kiwi +1+1 5")
        server.turns.rest()
    assert reports.answers
    assert not server.engine.more
    server.start()
    server.turns.rest()
    assert first_lines(asks) == reports.answers


def test_each_turn_goes_by_the_clock_of_the_day_and_asks_whether_the_journal_takes_reports(
    observer: Observer,
) -> None:
    server = Server(observer)
    for received, takes in ((5, True), (7, False), (9, True)):
        server.journal.takes_reports = takes
        server.engine.begin(0.0, received, 0)
        assert server.node.rules.clock == received
        assert bool(server.node.rules.judge([b"IAMAT kiwi +1+1 5"], 5)[0]) == takes


def test_nothing_is_looked_up_for_a_client_that_has_gone(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(observer)
    server.replay(NEW)
    went = server.client(ASK, b"IAMAT plum +1+1 5")
    server.turns.rest()
    went.gone = True
    gone = server.client(ASK, name="gone")  # before the server has heard it
    gone.gone = True
    server.turns.rest()
    assert gone.answers == [b""], "nobody is told"
    assert went.released == []
    with monkeypatch.context() as patch:
        patch.setattr(Node, "look_up", lambda *_: pytest.fail("looked up"))
        server.start()
        server.turns.rest()
    assert went.released == [("whatsat", "left"), ("iamat", "stored")]
    assert not server.engine._early


# The end. ----------------------------------------------------------------------------------------------------------


def test_a_server_that_stops_lets_those_go_whose_queries_wait(observer: Observer) -> None:
    server = Server(observer)
    waits = server.client(b"IAMAT plum +1+1 5", ASK, b"IAMAT fig +1+1 5")
    done = server.client(b"IAMAT pear +1+1 5")
    server.turns.rest()
    server.engine.let_go()
    server.turns.rest()
    assert waits.given_up == "server stops"
    assert len(waits.answers) == 1  # what is behind a query that waits has its answer no earlier
    assert not waits.owed
    assert done.given_up == ""
    late = server.client(b"IAMAT plum +1+1 6", ASK)
    server.turns.rest()
    assert (len(late.answers), late.given_up) == (1, "server stops")
    assert sorted(line.split()[3] for line in server.journal.appended) == [
        b"fig",
        b"pear",
        b"plum",
        b"plum",
    ]
    assert not server.engine.more


# The journal. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("always", [True, False])
def test_a_query_whose_clients_report_could_not_be_kept_waits_on(observer: Observer, *, always: bool) -> None:
    server = Server(observer, always=always)
    server.start()
    asks = server.client(ASK)
    server.turns.rest()
    if always:
        server.journal.fails = True
    else:
        server.journal.append = lambda lines: False  # type: ignore[method-assign]
    reports = server.client(b"IAMAT kiwi +1+1 5")
    server.turns.rest()
    server.journal.release()
    server.turns.rest()
    assert reports.answers == [b"? IAMAT kiwi +1+1 5"]
    assert asks.answers == []
    server.replay(NEW)
    server.become_ready()
    server.turns.rest()
    assert first_lines(asks) == [NEW]


# What neighbours tell. -----------------------------------------------------------------------------------------------


OTHER = b"AT Bob +0.100000000 plum +3+3 3000"


def test_what_neighbours_tell_is_passed_on_at_once_and_in_the_journal_a_little_later(
    observer: Observer,
) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    left.tell(OLD)
    server.turns.rest()
    left.tell(OTHER)
    server.turns.rest()
    assert right.told == [OLD, OTHER]
    assert server.journal.appended == []
    server.pass_time()
    assert (server.journal.appended, server.journal.appends) == ([OLD, OTHER], 1)
    server.pass_time()
    assert server.journal.appends == 1
    left.tell(NEW)
    server.turns.rest()
    server.pass_time()
    assert server.journal.appended == [OLD, OTHER, NEW]


def test_a_report_is_journalled_before_its_answer_behind_what_was_learned_before_it(
    observer: Observer,
) -> None:
    server = Server(observer)
    left, _ = server.neighbours()
    left.tell(OLD)
    server.turns.rest()
    assert server.journal.appended == []
    reports = server.client(b"IAMAT fig +2+2 2000")
    left.tell(OTHER)
    server.turns.rest()
    assert (server.journal.appended, server.journal.appends) == ([OLD, OTHER, *reports.answers], 1)


def kept_before_answers(server: Server, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Run a turn and those that it wakes; return what is in the journal when the first one begins to answer clients."""
    end = server.engine.end
    kept: list[list[bytes]] = []

    def end_and_note(now: float) -> Settled:
        settled = end(now)
        kept.append(server.journal.appended.copy())
        return settled

    monkeypatch.setattr(server.engine, "end", end_and_note)
    server.turns.rest()
    return kept[0]


@pytest.mark.parametrize("said", [ASK, b"IAMAT kiwi +9+9 900"])
def test_nothing_is_answered_by_what_is_not_in_the_journal(
    observer: Observer, monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    # A server that was killed then would take back what it has answered.
    server = Server(observer)
    left, _ = server.neighbours()
    left.tell(OLD)
    server.turns.rest()
    assert server.journal.appended == []
    client = server.client(said)
    assert kept_before_answers(server, monkeypatch) == [OLD]
    assert len(client.answers) == 1


def test_a_query_that_waited_is_answered_by_what_is_in_the_journal(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(observer)
    left, _ = server.neighbours()
    server.node.ready = False
    asks = server.client(ASK)
    server.turns.rest()
    assert asks.answers == []
    left.tell(OLD)
    assert kept_before_answers(server, monkeypatch) == [OLD]
    assert first_lines(asks) == [OLD]


def test_until_the_first_catch_up_has_ended_all_that_is_learned_is_journalled_in_its_turn(
    observer: Observer,
) -> None:
    # From its end on the journal counts as whole, whatever it lacked before.
    server = Server(observer)
    server.start()
    left = Neighbour(server.node, server.engine, "Abe")
    server.turns.rest()
    left.tell(OLD)
    server.turns.rest()
    assert server.journal.appended == [OLD]
    left.tell(b"BATCH 0 10000 1", OTHER)
    server.turns.rest()
    assert server.node.caught_up
    assert server.journal.appended == [OLD, OTHER]


def test_with_always_what_neighbours_tell_is_on_disk_before_it_is_passed_on(observer: Observer) -> None:
    server = Server(observer, always=True)
    left, right = server.neighbours()
    left.tell(OLD)
    server.turns.rest()
    assert server.journal.appended == [OLD]
    assert right.told == []
    server.journal.release()
    server.turns.rest()
    assert right.told == [OLD]
    assert OLD in server.journal.synced


def test_where_the_journal_fails_for_what_was_learned_reports_are_refused(observer: Observer) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    left.tell(OLD)
    server.turns.rest()

    def fail(lines: list[bytes]) -> bool:
        server.journal.takes_reports = False
        return False

    server.journal.append = fail  # type: ignore[method-assign]
    reports = server.client(b"IAMAT plum +1+1 5")
    server.turns.rest()
    assert reports.answers == [b"? IAMAT plum +1+1 5"]
    server.journal.takes_reports = True
    left.tell(NEW)
    server.turns.rest()
    server.pass_time()
    reports.send(b"IAMAT plum +1+1 6")
    server.turns.rest()
    assert reports.answers[1:] == [b"? IAMAT plum +1+1 6"]
    assert server.node.table.get(b"kiwi") == Entry(NEW, 2000 * 10**9)
    assert right.told == [OLD, NEW]


def test_a_server_that_stops_leaves_nothing_out_of_the_journal(observer: Observer) -> None:
    server = Server(observer)
    left, _ = server.neighbours()
    left.tell(OLD)
    server.turns.rest()
    server.engine.settle()
    assert server.journal.appended == [OLD]
    left.tell(OTHER)
    server.engine.let_go()
    server.turns.rest()
    left.tell(NEW)
    server.turns.rest()
    assert server.journal.appended == [OLD, OTHER, NEW]
    server.engine.settle()
    assert len(server.journal.appended) == 3


def test_an_update_that_comes_back_takes_no_turn_and_is_told_a_little_later(observer: Observer) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    left.tell(OLD)
    server.turns.rest()
    server.pass_time()
    server.noted.clear()
    right.tell(OLD)
    right.tell(b"BEAT")
    assert not server.turns.is_due
    assert server.settles == 1
    server.pass_time()
    assert server.noted == [Heard("Amy", [b"kiwi"], 0, None)]
    server.pass_time()
    assert len(server.noted) == 1
    assert left.told == []


def test_a_few_updates_are_learned_and_passed_on_without_a_turn_and_kept_and_told_a_little_later(
    observer: Observer,
) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    left.tell(OLD, b"BEAT", OTHER)
    right.tell(NEW)
    assert (left.told, right.told) == ([], [])
    assert server.turns.rest() == 0
    assert right.told == [OLD, OTHER]
    assert left.told == [NEW]
    assert server.settles == 1
    assert server.journal.appends == 0
    server.pass_time()
    assert server.journal.appended == [OLD, OTHER, NEW]
    assert server.journal.appends == 1
    assert server.noted == [
        Heard("Abe", [b"kiwi", b"plum"], 2, CLOCK - messages.received(OLD)),
        Heard("Amy", [b"kiwi"], 1, CLOCK - messages.received(NEW)),
        Flooded(("Abe",), [b"kiwi"]),
        Flooded(("Amy",), [b"kiwi", b"plum"]),
    ]


def spare_for_amy(server: Server) -> tuple[Neighbour, Neighbour]:
    """Return two neighbours, Abe and Amy, of whom Amy has Abe's updates from him too."""
    left, right = server.neighbours()
    server.node.spare_copies = {"Abe": {b"AT Abe": frozenset({"Amy"})}}
    return left, right


OF_ABE = b"AT Abe +0.000000000 plum +1+1 5"


def test_a_spare_copy_waits_until_somebody_asks_or_something_else_leaves(observer: Observer) -> None:
    server = Server(observer)
    left, right = spare_for_amy(server)
    left.tell(OF_ABE)
    assert not server.waits_with_spare
    server.turns.rest()
    assert right.told == []
    assert server.waits_with_spare
    server.engine.send_spare(0.0)
    assert right.told == [OF_ABE]
    left.tell(OF_ABE.replace(b"plum", b"kiwi"))
    server.turns.rest()
    server.waits_with_spare = False
    server.client(b"IAMAT fig +1+1 5")
    server.turns.rest()
    assert [line.split()[3] for line in right.told] == [b"plum", b"kiwi", b"fig"]
    server.engine.beat(0.0)
    assert not server.waits_with_spare, "nothing is left that could wait"


class Dialled(Neighbour):
    """A neighbour that Ann has dialled, whose proof and terms have arrived but are not heard yet."""

    def __init__(self, server: Server, name: str) -> None:
        ann = server.node.name
        self._engine = server.engine
        self.told = []
        self.link = Link(terms(ann, name), dial=name, nonce=bytes(32), now=0.0)
        self.far = Link(terms(name, ann), dial=None, nonce=name.encode().ljust(32), now=0.0)
        self.far_heard()
        self.link.receive_data(self.far.data_to_send(0.0), 0.0)
        server.node.receive(self.link, 100, 0.0)
        self.far_heard()
        self.link.receive_data(self.far.data_to_send(0.0), 0.0)
        server.engine.add_link(self)
        server.engine.peer_said(self)

    def far_heard(self) -> list[LinkEvent]:
        """Carry there what was said here, and return what it says there."""
        said = b"".join(line + b"\n" for line in self.told)
        self.far.receive_data(said + self.link.data_to_send(0.0), 0.0)
        return self.far.events(100)


@pytest.mark.parametrize("lines", [[OF_ABE], [OF_ABE, OF_ABE.replace(b"plum", b"kiwi")]], ids=len)
def test_no_spare_copy_leaves_in_front_of_the_terms_of_a_link_that_comes_up_meanwhile(
    observer: Observer, lines: list[bytes]
) -> None:
    server = Server(observer)
    left, _ = server.neighbours()
    server.node.spare_copies = {"Abe": {b"AT Abe": frozenset({"Zoe"})}}
    right = Dialled(server, "Zoe")
    left.tell(*lines)
    server.turns.rest()
    server.engine.send_spare(0.0)
    heard = right.far_heard()
    assert right.far.state is State.LIVE, right.far.reason
    assert Updates([at for line in lines if (at := parse_at(line))], caught_up=False) in heard


def test_whoever_else_has_nothing_to_wait_with_changes_nothing(observer: Observer) -> None:
    server = Server(observer)
    left, right = spare_for_amy(server)
    last = Neighbour(server.node, server.engine, "Ada")
    server.turns.rest()
    server.node.spare_copies = {"Abe": {b"AT Abe": frozenset({"Amy"})}}
    last.told.clear()
    left.tell(OF_ABE)
    server.turns.rest()
    assert (right.told, last.told) == ([], [OF_ABE])
    assert server.waits_with_spare
    right.link.spare.append(OF_ABE)
    last.link.spare.append(OF_ABE)
    server.engine.send_spare(0.0)
    assert right.told == [OF_ABE, OF_ABE]
    assert last.told == [OF_ABE, OF_ABE]


@pytest.mark.parametrize(("seconds", "waits"), [(0.024, True), (0.026, False)])
def test_a_spare_copy_does_not_wait_where_nothing_has_left_for_as_long(
    observer: Observer, seconds: float, *, waits: bool
) -> None:
    server = Server(observer)
    left, right = spare_for_amy(server)
    right.link._spoke -= seconds
    left.tell(OF_ABE)
    server.turns.rest()
    assert right.told == ([] if waits else [OF_ABE])
    assert server.waits_with_spare is waits


def test_a_spare_copy_that_a_turn_passes_on_waits_likewise(observer: Observer) -> None:
    server = Server(observer)
    left, right = spare_for_amy(server)
    server.engine.wake()
    left.tell(OF_ABE)
    assert server.turns.rest() >= 1
    assert right.told == []
    assert server.waits_with_spare


def test_a_server_that_stops_sends_its_spare_copies_and_has_no_more(observer: Observer) -> None:
    server = Server(observer)
    left, right = spare_for_amy(server)
    left.tell(OF_ABE)
    server.turns.rest()
    server.engine.let_go()
    server.turns.rest()
    assert right.told == [OF_ABE]
    left.tell(OF_ABE.replace(b"plum", b"kiwi"))
    server.turns.rest()
    assert [line.split()[3] for line in right.told] == [b"plum", b"kiwi"]


@pytest.mark.parametrize("fails", [True, False])
def test_a_spare_copy_waits_until_it_is_known_whether_an_erasure_of_its_client_is_kept(
    observer: Observer, *, fails: bool
) -> None:
    server = Server(observer, always=True)
    left, right = spare_for_amy(server)
    left.tell(OF_ABE)
    server.turns.rest()
    server.journal.release()
    server.turns.rest()
    erasure_of(server, Forget(b"plum"))
    server.turns.rest()
    for _ in range(2):
        server.waits_with_spare = False
        server.engine.send_spare(0.0)
        assert right.told == []
        assert server.waits_with_spare
    server.journal.fails = fails
    server.journal.release()
    server.turns.rest()
    server.engine.send_spare(0.0)
    assert [line[:3] for line in right.told] == ([b"AT "] if fails else [b"GON"])
    assert right.link.spare == []


# A report that is all a turn has to do takes a short way. ----------------------------------------------------------


def no_list(*_: object) -> None:
    raise AssertionError("a report alone takes the long way")


def test_a_report_alone_is_kept_then_told_to_neighbours_then_answered_without_lists(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    client, happened = server.client(), list[str]()
    for it, name in ((server.journal, "append"), (left, "release"), (right, "release"), (client, "answer")):
        monkeypatch.setattr(it, name, noting(getattr(it, name), name, happened))
    monkeypatch.setattr(server.engine, "decide", no_list)
    noted: list[Note] = []
    observer.note = noted.extend  # type: ignore[method-assign,assignment]
    client.send(b"IAMAT plum +1+1 5")
    assert server.turns.rest() == 1
    assert happened == ["append", "release", "release", "answer"]
    assert server.journal.appended == left.told == right.told == client.answers == [PLUM]
    assert noted == [Flooded(("Abe", "Amy"), [b"plum"])]
    left.tell(PLUM)  # comes back
    assert server.turns.rest() == 0
    assert right.told == [PLUM]


def noting(function: Callable[..., object], name: str, happened: list[str]) -> Callable[..., object]:
    """Return the same function, which notes that it is called."""

    def noted(*args: object) -> object:
        happened.append(name)
        return function(*args)

    return noted


def test_a_report_alone_is_kept_behind_the_updates_that_wait_and_nothing_waits_any_more(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    left.tell(OLD)
    server.turns.rest()
    monkeypatch.setattr(server.engine, "decide", no_list)
    for moment in (b"5", b"6"):
        server.client(b"IAMAT plum +1+1 %b" % moment)
        server.turns.rest()
    assert [line.split()[3:] for line in server.journal.appended] == [
        [b"kiwi", b"+1+1", b"1000"],
        [b"plum", b"+1+1", b"5"],
        [b"plum", b"+1+1", b"6"],
    ]
    assert right.told == server.journal.appended
    assert server.settles == 0
    server.pass_time()
    assert server.journal.appends == 2


def test_a_report_alone_goes_with_what_was_learned_before_it_in_its_turn(observer: Observer) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    left.tell(OLD)
    client = server.client(b"IAMAT plum +1+1 5")
    server.turns.one()
    assert right.told == [OLD, *client.answers]
    assert left.told == client.answers
    assert server.journal.appended == right.told


@pytest.mark.parametrize("raises", [False, True])
def test_a_report_alone_that_cannot_be_kept_is_refused_and_nobody_is_told(
    observer: Observer, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    server = Server(observer)
    left, _ = server.neighbours()
    first = server.client(b"IAMAT plum +1+1 4")
    server.turns.rest()
    left.told.clear()

    def append(_: list[bytes]) -> bool:
        if raises:
            raise ZeroDivisionError
        return False

    monkeypatch.setattr(server.journal, "append", append)
    client = server.client(b"IAMAT plum +1+1 5")
    server.turns.rest()
    assert client.answers == [b"? IAMAT plum +1+1 5"]
    assert left.told == []
    assert [entry.line for _, entry in server.node.table] == first.answers
    assert server.node.news == []


def test_a_report_alone_that_is_not_later_is_answered_as_stale(observer: Observer) -> None:
    server = Server(observer)
    left, _ = server.neighbours()
    for moment in (b"5", b"5", b"4"):
        client = server.client(b"IAMAT plum +1+1 %b" % moment)
        server.turns.rest()
        assert client.answers[0].endswith(b" plum +1+1 %b" % moment)
    assert left.told == server.journal.appended == [PLUM]


def test_a_report_alone_is_answered_whatever_fails_behind_it(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(observer)
    server.neighbours()
    client = server.client()

    def stumble(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as broken:
        broken.setattr(server.engine.follows, "used", value=True)
        broken.setattr(server.engine.follows, "run", stumble)
        client.send(b"IAMAT plum +1+1 5")
        with pytest.raises(ZeroDivisionError):
            server.turns.one()
    client.send(b"FOO")
    server.turns.rest()
    assert client.answers == [PLUM, b"? FOO"]


@pytest.mark.parametrize("what", ["answer", "log"])
def test_a_client_or_a_log_that_fails_costs_nobody_else_anything(
    observer: Observer, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    server = Server(observer)
    left, _ = server.neighbours()
    client, failed = server.client(), list[str]()

    def stumble(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(client, "fail", lambda: failed.append("client"))
    monkeypatch.setattr(observer, "fault", lambda what, _: failed.append(what))
    with monkeypatch.context() as broken:
        if what == "answer":
            broken.setattr(client, "answer", stumble)
        else:
            broken.setattr(observer.commands, "report", stumble)
            broken.setattr(observer.commands, "reports", stumble)
        client.send(b"IAMAT plum +1+1 5")
        assert server.turns.rest() == 1
        assert failed == (
            ["a client cannot be served", "client"] if what == "answer" else ["a report cannot be logged"]
        )
        client.send(b"IAMAT plum +1+1 6")
        other = server.client(b"FOO", name="other")
        server.turns.rest()
        assert other.answers == [b"? FOO"]
    assert [line[-1:] for line in left.told] == [b"5", b"6"]
    assert len(client.answers) == (0 if what == "answer" else 2)


def test_a_neighbour_that_fails_costs_no_report_its_answer_nor_the_other_its_update(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    failed: list[Exception] = []

    def fail(error: Exception) -> None:
        failed.append(error)
        left.link.close("")
        server.node.closed(left.link)

    def stumble(_: bytes) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(left, "fail", fail)
    monkeypatch.setattr(left.link, "send_updates", stumble)
    client = server.client(b"IAMAT plum +1+1 5")
    server.turns.rest()
    assert len(failed) == 1
    assert client.answers == right.told == [PLUM]


def test_what_was_learned_without_a_turn_goes_with_a_turn_that_comes_first(observer: Observer) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    left.tell(OLD)
    client = server.client(b"IAMAT plum +1+1 5", ASK)
    server.turns.one()
    assert right.told == [OLD, client.answers[0]]
    assert left.told == client.answers[:1]
    assert first_lines(client)[1] == OLD
    assert server.journal.appended == [OLD, client.answers[0]]
    server.turns.rest()
    assert len(right.told) == 2, "nothing is passed on twice"


def test_what_was_learned_without_a_turn_leaves_with_the_turn_for_which_another_neighbour_asks(
    observer: Observer,
) -> None:
    """In one write to each link."""
    server = Server(observer)
    left, right = server.neighbours()
    writes: list[bytes] = []
    data_to_send = right.link.data_to_send

    def sent(now: float) -> bytes:
        writes.append(data_to_send(now))
        return writes[-1]

    right.link.data_to_send = sent  # type: ignore[method-assign]
    many = [b"AT Ann +0.100000000 fig%d +1+1 6" % number for number in range(9)]
    left.tell(OLD)
    left.tell(*many)
    server.turns.rest()
    assert writes == [b"".join(line + b"\n" for line in (OLD, *many))]


def test_what_was_learned_before_the_server_stops_is_in_the_journal_when_it_is_passed_on(
    observer: Observer,
) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    kept: list[list[bytes]] = []
    release = right.release

    def released(now: float) -> None:
        kept.append([*server.journal.appended])
        release(now)

    right.release = released  # type: ignore[method-assign]
    left.tell(OLD)
    server.engine.let_go()
    server.turns.rest()
    assert right.told == [OLD]
    assert kept == [[OLD]]


def test_a_turn_that_writes_what_waits_leaves_nothing_to_be_written_later(observer: Observer) -> None:
    server = Server(observer)
    left, _ = server.neighbours()
    left.tell(OLD)
    server.turns.rest()
    assert server.settles == 1
    server.client(ASK)
    server.turns.rest()
    assert server.journal.appended == [OLD]
    assert server.settles == 0


def test_what_comes_back_while_a_turn_waits_for_the_disk_lets_nothing_out(observer: Observer) -> None:
    server = Server(observer, always=True)
    left, right = server.neighbours()
    left.tell(OLD)
    server.turns.rest()
    server.journal.release()
    server.turns.rest()
    assert right.told == [OLD]
    server.client(b"IAMAT plum +1+1 5")
    server.turns.rest()
    right.tell(OLD)
    left.tell(NEW)
    assert left.told == []
    assert right.told == [OLD]
    server.journal.release()
    server.turns.rest()
    assert len(left.told) == 1


def test_many_updates_take_a_turn(observer: Observer) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    few = [b"AT Ann +0.100000000 kiwi%d +1+1 5" % number for number in range(8)]
    left.tell(*few)
    assert server.turns.rest() == 0
    many = [b"AT Ann +0.100000000 kiwi%d +1+1 6" % number for number in range(9)]
    left.tell(*many)
    assert server.turns.is_due
    server.turns.rest()
    assert right.told == [*few, *many]
    left.tell(*many)
    assert not server.turns.is_due, "but not if none is news"
    left.tell(*few, *few[:1])
    assert server.turns.is_due, "older ones are not what the table holds"


def test_what_a_neighbour_cannot_know_yet_is_told_in_a_turn_soon(observer: Observer) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    clock = 1_800_000_000 * 10**9
    future = b"AT Ann +99999999.000000000 kiwi +1+1 1800000000"
    assert server.engine.hear_few(left, future + b"\n" + OTHER + b"\n", 0.0, clock)
    assert server.turns.is_due
    server.turns.rest()
    assert right.told == [OTHER]
    assert server.node.table.get(b"kiwi") is None


def test_what_fails_for_one_peer_without_a_turn_ends_that_peer(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    failed: list[Exception] = []
    monkeypatch.setattr(left, "fail", failed.append)
    error = RuntimeError()

    def admit(_: object) -> None:
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(server.node, "_admit", admit)
        left.tell(OLD)
    assert failed == [error]
    right.tell(NEW)
    assert server.turns.rest() == 0
    assert left.told == [NEW]


def test_what_happens_to_a_link_is_told_in_its_turn_with_the_floods_before_it(observer: Observer) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    noted: list[Note] = []
    observer.note = noted.extend  # type: ignore[method-assign,assignment]
    left.tell(OLD)
    server.turns.rest()
    assert noted == []
    right.tell(b"nonsense")
    server.turns.rest()
    assert [type(one) for one in noted] == [Heard, Flooded, LinkDown]


def test_time_that_passes_takes_no_turn_where_there_is_nothing_to_do(observer: Observer) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    for seconds in range(1, int(Timing().compare_seconds)):
        for one in (left, right):
            one.link.tick(float(seconds))
        server.node.tick(float(seconds))
        server.engine.beat(float(seconds))
        assert not server.turns.is_due, seconds
        assert left.told[-1] == right.told[-1] == b"BEAT"
        assert len(left.told) == len(right.told) == seconds
        for one in (left, right):
            assert server.engine.hear_few(one, b"BEAT\n", float(seconds), 0)
    server.node.tick(float(Timing().compare_seconds))
    server.engine.beat(float(Timing().compare_seconds))
    assert server.turns.is_due


def test_time_that_passes_ends_links_and_lets_queries_wait_no_longer(observer: Observer) -> None:
    server = Server(observer)
    left, _ = server.neighbours()
    left.link.close("silent for 1.5 s")
    server.node.closed(left.link)
    server.engine.beat(1.5)
    assert server.turns.is_due
    server = Server(observer)
    server.start()
    asks = server.client(ASK)
    server.turns.rest()
    server.node.tick(Timing().ready_seconds)
    server.engine.beat(Timing().ready_seconds)
    server.turns.rest()
    assert first_lines(asks) == [b"? " + ASK]


class FakePeer:
    """A link that counts how often it may write."""

    queued = False

    def __init__(self) -> None:
        self.link = Link(terms("Ann", "Amy"), dial=None, nonce=bytes(32), now=0.0)
        self.link.out.append(b"it always has something to say")
        self.released: list[float] = []

    def heard(self) -> None:
        raise AssertionError("it has said nothing")

    def release(self, now: float) -> None:
        self.released.append(now)

    def fail(self, error: Exception) -> None:
        raise AssertionError("its write has raised") from error


def test_links_beat_also_while_a_turn_waits_for_the_disk(observer: Observer) -> None:
    server = Server(observer, always=True)
    server.start()
    peer = FakePeer()
    server.engine.add_link(peer)
    server.turns.rest()
    peer.released.clear()
    server.engine.beat(0.0)
    assert len(peer.released) == 1
    reports = server.client(b"IAMAT plum +1+1 5")
    server.turns.rest()
    assert (server.journal.syncs, reports.answers) == (1, [])
    for beats in (2, 3):
        server.engine.beat(0.0)
        server.turns.rest()
        assert len(peer.released) == beats
    server.journal.release()
    server.turns.rest()
    assert len(reports.answers) == 1
    server.turns.rest()
    written = len(peer.released)
    server.engine.beat(0.0)
    assert len(peer.released) == written + 1
    server.engine.remove_link(peer)
    written = len(peer.released)
    server.engine.beat(0.0)
    server.turns.rest()
    assert len(peer.released) == written


# Who is heard, and how much. -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lately", "lines"), [(0, 1_024), (1, 64), (16, 64), (17, 68), (255, 1_020), (256, 1_024), (9_999, 1_024)]
)
def test_how_much_of_neighbours_is_heard_follows_how_much_clients_say(lately: int, lines: int) -> None:
    assert share(lately) == lines


def test_whatever_a_peer_does_wakes_a_turn_and_a_peer_that_waits_is_queued_once(observer: Observer) -> None:
    server = Server(observer)
    woken: list[int] = []
    server.engine.wake = lambda: woken.append(1)
    peer = FakePeer()
    for act, wakes in (
        (server.engine.add_link, 1),
        (server.engine.peer_said, 1),
        (server.engine.peer_said, 0),
        (server.engine.remove_link, 1),
    ):
        woken.clear()
        act(peer)
        assert len(woken) == wakes, act
    assert list(server.engine._peers) == [peer]
    woken.clear()
    server.engine.let_go()
    assert len(woken) == 1


def test_many_peers_share_what_is_heard_in_a_turn_and_each_has_something(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Talker(FakePeer):
        def __init__(self, more: int) -> None:
            super().__init__()
            self.link = cast("Link", self)
            self.left, self.heard_to_the_end = more, 0

        @property
        def more(self) -> bool:
            return self.left > 0

        def heard(self) -> None:
            self.heard_to_the_end += 1

    server = Server(observer)
    taken: list[int] = []

    def receive(link: Any, most: int, now: float) -> None:
        taken.append(most)
        link.left -= 1

    monkeypatch.setattr(server.node, "receive", receive)
    for count, most in ((1, 1_024), (2, 512), (32, 32), (33, 32), (100, 32)):
        peers = [Talker(2) for _ in range(count)]
        for peer in peers:
            server.engine.peer_said(peer)
        for more in (True, False):
            taken.clear()
            server.engine.begin(0.0, 0, 0)
            assert taken == [most] * count
            assert server.engine.more == more
        assert [peer.heard_to_the_end for peer in peers] == [1] * count
        assert not server.engine._peers
        assert not any(peer.queued for peer in peers)


# Erasures. ----------------------------------------------------------------------------------------------------


def erasure_of(server: Server, *lines: Any) -> Pipeliner:
    """Return a client that says these lines, among them erasures."""
    return server.client(*lines)


def test_an_erasure_is_journalled_then_told_then_answered_and_a_report_behind_it_stays(
    observer: Observer,
) -> None:
    server = Server(observer)
    left, right = server.neighbours()
    report = b"IAMAT kiwi +1+1 5"
    client = erasure_of(server, report, Forget(b"kiwi"), report, b"WHATSAT kiwi 0 0")
    server.turns.rest()
    first, gone, second, found = client.answers
    assert parse_gone(gone) == server.node.table.tombstone(b"kiwi", CLOCK)
    assert (messages.received(first), messages.received(second)) == (CLOCK, CLOCK + 2), (
        "the second one is not covered"
    )
    assert found.startswith(second)
    assert server.journal.appended == [first, gone, second]
    assert left.told == right.told == [gone, second]


def test_an_erasure_that_cannot_be_kept_is_undone_and_refused(observer: Observer) -> None:
    server = Server(observer, always=True)
    left, _ = server.neighbours()
    server.client(b"IAMAT kiwi +1+1 5")
    server.turns.rest()
    server.journal.release()
    server.turns.rest()
    left.told.clear()
    client = erasure_of(server, Forget(b"kiwi"), b"WHATSAT kiwi 0 0")
    server.turns.rest()
    server.journal.fails = True
    server.journal.release()
    server.turns.rest()
    refused, found = client.answers
    assert refused == b"? "
    assert found.startswith(b"AT Ann ")
    assert (len(server.node.table.tombstones), left.told) == (0, [])
