"""What waits for a follower that does not read leads from what it was told last to what is true."""

from __future__ import annotations

from random import Random

import pytest

from proxyherd.core.follows.event import Event, EventKind
from proxyherd.core.follows.follower import MOST_PENDING, Follower
from proxyherd.core.messages import Entry

KIWI, FIG = b"kiwi", b"fig"


class Silent:
    """A connection that a test asks what it is told."""

    def push(self) -> None:
        raise AssertionError("the test tells it")

    def fail(self) -> None:
        raise AssertionError("it has failed")


@pytest.fixture
def follower() -> Follower:
    return Follower(Silent())


def event(kind: EventKind, time: int = 0, client: bytes = KIWI, name: bytes = b"1") -> Event:
    entry = Entry(b"AT Clark +0.0 %b +1+1 %d" % (client, time), time) if time else None
    return Event(kind, client, entry, name)


def tell(follower: Follower, *events: Event) -> None:
    follower.outbox = [*follower.outbox, *events]
    follower.hold()


def told(follower: Follower) -> list[tuple[str, int]]:
    """Return kinds and times of what is told now."""
    return [(one.kind, one.entry.nanoseconds if one.entry else 0) for one in follower.take()]


def test_a_follower_that_reads_is_told_the_very_events_in_their_order(follower: Follower) -> None:
    events = [event("enter", 1), event("enter", 1, FIG), event("move", 2)]
    follower.outbox = [*follower.outbox, *events]
    taken = follower.take()
    assert all(one is other for one, other in zip(taken, events, strict=True))
    assert not follower.take()
    assert not follower.waits


class Sent:
    """A connection that may be sent bytes at once."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.pushes = 0
        self.follower = Follower(self)
        self.follower.form, self.follower.send = "frame", self.sent.append

    def push(self) -> None:
        self.pushes += 1

    def fail(self) -> None:
        raise AssertionError("it has failed")

    def tell(self, *events: Event) -> None:
        for one in events:
            self.follower.tell((one,))
        self.follower.push()


def spelled(one: Event, form: str = "frame") -> Event:
    one.spelled[form] = b"%b %d" % (one.kind.encode(), one.entry.nanoseconds if one.entry else 0)
    return one


def test_one_event_that_others_were_told_is_sent_without_asking_the_connection() -> None:
    sent = Sent()
    sent.tell(spelled(event("move", 1)))
    sent.tell(spelled(event("move", 2)))
    assert (sent.sent, sent.pushes, sent.follower.waits) == ([b"move 1", b"move 2"], 0, False)


@pytest.mark.parametrize("why", ["new", "other form", "two", "held", "not to be sent", "closed"])
def test_the_connection_is_asked_whenever_there_is_something_to_decide(why: str) -> None:
    sent = Sent()
    told = [spelled(event("move", 2), "text" if why == "other form" else "frame")]
    if why == "new":
        told = [event("move", 2)]
    elif why == "two":
        told = [spelled(event("move", 1)), *told]
    elif why == "held":
        sent.follower.tell((spelled(event("enter", 1)),))
        sent.follower.hold()
    elif why == "not to be sent":
        sent.follower.send = None
    elif why == "closed":
        sent.follower.close()
    sent.tell(*told)
    assert (sent.sent, sent.pushes) == ([], 1)


@pytest.mark.parametrize(
    ("happens", "net"),
    [
        ([("enter", 1), ("move", 2)], [("enter", 2)]),
        ([("enter", 1), ("leave", 2)], []),
        ([("enter", 1), ("gone", 0)], []),
        ([("enter", 1), ("gone", 0), ("enter", 2)], [("enter", 2)]),
        ([("move", 1), ("move", 2), ("move", 3)], [("move", 3)]),
        ([("move", 1), ("leave", 2)], [("leave", 2)]),
        ([("move", 1), ("gone", 0)], [("gone", 0)]),
        ([("leave", 2), ("enter", 3)], [("move", 3)]),
        ([("leave", 2), ("enter", 3), ("move", 4), ("leave", 5)], [("leave", 5)]),
        ([("gone", 0), ("enter", 3)], [("gone", 0), ("enter", 3)]),
        ([("gone", 0), ("enter", 3), ("move", 4)], [("gone", 0), ("enter", 4)]),
        ([("gone", 0), ("enter", 3), ("leave", 4)], [("gone", 0)]),
        ([("gone", 0), ("enter", 3), ("gone", 0), ("enter", 1)], [("gone", 0), ("enter", 1)]),
        # It was erased and has come back before anybody looked.
        ([("leave", 5), ("enter", 3)], [("gone", 0), ("enter", 3)]),
    ],
)
def test_what_waits_is_what_leads_to_the_last_state(
    follower: Follower, happens: list[tuple[EventKind, int]], net: list[tuple[str, int]]
) -> None:
    tell(follower, *(event(kind, time) for kind, time in happens))
    assert follower.is_behind is bool(net)
    assert told(follower) == net
    assert not follower.waits


def test_clients_and_follows_are_conflated_each_by_itself(follower: Follower) -> None:
    tell(follower, event("move", 1), event("move", 2, FIG), event("leave", 3, KIWI, b"2"), event("move", 4))
    assert [(one.name, one.client, one.kind) for one in follower.take()] == [
        (b"1", KIWI, "move"),
        (b"1", FIG, "move"),
        (b"2", KIWI, "leave"),
    ]


@pytest.mark.parametrize("seed", range(200))
def test_whoever_reads_at_any_times_believes_what_is_true_in_the_end(seed: int) -> None:
    """One follower reads at once, the other now and then. Both are told legal sequences, and end with the same belief."""
    random, slow = Random(seed), Follower(Silent())
    truth: dict[tuple[bytes, bytes], int | None] = {}
    belief: dict[tuple[bytes, bytes], int] = {}
    for time in range(1, 200):
        key = random.choice([b"1", b"2"]), random.choice([KIWI, FIG])
        kinds: list[EventKind] = ["enter"] if truth.get(key) is None else ["move", "move", "leave", "gone"]
        kind = random.choice(kinds)
        truth[key] = time if kind in ("enter", "move") else None
        slow.tell((event(kind, 0 if kind == "gone" else time, key[1], key[0]),))
        if random.random() < 0.7:
            assert not slow.is_too_slow
        if random.random() < 0.1 or time == 199:
            for one in slow.take():
                key = one.name, one.client
                assert (one.kind == "enter") is (key not in belief)
                if one.kind in ("enter", "move"):
                    assert one.entry is not None
                    assert one.entry.nanoseconds > belief.get(key, 0)
                    belief[key] = one.entry.nanoseconds
                else:
                    del belief[key]
    assert belief == {key: held for key, held in truth.items() if held is not None}


def test_where_an_erased_client_has_left_an_area_is_not_told(follower: Follower) -> None:
    follower.enlist({}, lambda _: None, lambda client, entry: (client, entry.nanoseconds) != (KIWI, 2))
    tell(follower, event("leave", 2), event("leave", 2, FIG), event("leave", 3, KIWI, b"2"))
    assert not follower.is_too_slow
    assert told(follower) == [("gone", 0), ("leave", 2), ("leave", 3)]


def test_nothing_is_told_of_a_follow_that_has_ended(follower: Follower) -> None:
    tell(
        follower, event("gone"), event("enter", 3), event("move", 4, FIG, b"2"), Event("snapshot", name=b"1")
    )
    follower.tell((event("move", 5, FIG),))
    follower.drop(b"1")
    assert [(one.name, one.client) for one in follower.take()] == [(b"2", FIG)]


def test_some_clients_of_a_follow_may_be_followed_by_another_one_still(follower: Follower) -> None:
    tell(follower, event("move", 1, name=b""), event("move", 2, FIG, b""), Event("snapshot", name=b"1"))
    follower.drop_clients(b"1", {KIWI})
    assert told(follower) == [("move", 2)]


def test_who_is_told_of_more_clients_than_may_wait_is_too_slow(follower: Follower) -> None:
    for number in range(MOST_PENDING):
        follower.outbox = [
            *follower.outbox,
            event("move", 1, b"c%d" % number),
            event("move", 2, b"c%d" % number),
        ]
    assert not follower.is_too_slow
    follower.tell((event("move", 1),))
    assert follower.is_too_slow
    assert len(follower.take()) == MOST_PENDING + 1


def test_a_closed_follower_keeps_nothing_and_is_forgotten(follower: Follower) -> None:
    forgotten = list[Follower]()
    follower.enlist({}, forgotten.append, lambda _, __: True)
    tell(follower, event("move", 1))
    follower.close()
    follower.close()
    assert forgotten == [follower]
    assert follower.is_closed
    assert not follower.take()


def test_what_says_how_a_follow_goes_on_is_no_client_and_comes_behind_what_was_told_before_it(
    follower: Follower,
) -> None:
    tell(
        follower,
        Event("snapshot", name=b"1"),
        *(event("move", 1, b"c%d" % one) for one in range(MOST_PENDING)),
    )
    tell(follower, Event("snapshot", name=b"1", complete=True), Event("ended", name=b"2"))
    assert not follower.is_too_slow
    *clients, snapshot, ended = follower.take()
    assert {one.kind for one in clients} == {"move"}
    assert (snapshot.complete, ended.kind) == (True, "ended")


def test_who_was_there_when_a_follow_began_was_there_also_if_it_has_moved_since(follower: Follower) -> None:
    first = event("enter", 1)
    first.initial = True
    tell(follower, first, event("move", 2))
    tell(follower, event("leave", 2, FIG), event("enter", 3, FIG))
    assert [(one.kind, one.initial) for one in follower.take()] == [("enter", True), ("move", False)]
