"""A follower is told each last state of whom it follows, in the order of the herd, and nothing else."""

from __future__ import annotations

from itertools import count

import pytest
from following import FollowedServer, FollowingClient

from proxyherd.core.follows import followed_areas, follows, snapshots
from proxyherd.core.follows.follow import Follow, FollowReply
from proxyherd.core.follows.follower import MOST_AREAS, MOST_CLIENTS
from proxyherd.core.messages import received
from proxyherd.core.spatial.areas import Area, Box, Circle
from proxyherd.core.spatial.polygons import Polygon
from proxyherd.telemetry.observer import Observer

KIWI, FIG = b"kiwi", b"fig"
HERE, THERE = b"+1+1", b"+5+5"
TOWN = Circle(1.0, 1.0, 100.0)


@pytest.fixture
def server(observer: Observer) -> FollowedServer:
    return FollowedServer(observer)


@pytest.fixture
def follower(server: FollowedServer) -> FollowingClient:
    return server.follower()


def rest(server: FollowedServer, *followers: FollowingClient) -> list[str]:
    """Let all be done; return what the followers were told."""
    server.turns.rest()
    return [event for follower in followers for event in follower.told()]


# Clients. -----------------------------------------------------------------------------------------------------


def test_a_follow_of_clients_begins_with_where_they_are(
    server: FollowedServer, follower: FollowingClient
) -> None:
    server.report(KIWI, 1)
    follower.follow(KIWI, FIG, name=b"7")
    assert rest(server, follower) == ["enter kiwi 1.0 initial", "snapshot 1 of 7"]
    assert (follower.reply.outcome, follower.reply.complete) == ("following", True)
    server.report(FIG, 2)
    server.report(KIWI, 3)
    assert follower.told() == ["enter fig 2.0", "move kiwi 3.0"]


def test_a_stale_report_is_no_event(server: FollowedServer, follower: FollowingClient) -> None:
    server.report(KIWI, 3)
    follower.follow(KIWI)
    rest(server, follower)
    pushes = follower.pushes
    server.report(KIWI, 2)
    server.report(KIWI, 3)
    assert follower.pushes == pushes


def test_several_reports_in_a_turn_are_one_event(server: FollowedServer, follower: FollowingClient) -> None:
    follower.follow(KIWI)
    rest(server, follower)
    server.say(*(b"IAMAT kiwi +1+1 %d" % time for time in (1, 2, 3)))
    assert follower.told() == ["enter kiwi 3"]


def test_who_is_erased_is_gone_and_may_come_back_with_an_earlier_time(
    server: FollowedServer, follower: FollowingClient
) -> None:
    server.report(KIWI, 4)
    follower.follow(KIWI)
    rest(server, follower)
    server.forget(KIWI)
    assert follower.told() == ["gone kiwi"]
    server.neighbour().tell(b"AT Bob +9.000000000 kiwi +1+1 3.5")
    assert rest(server, follower) == ["enter kiwi 3.5"]


def test_who_is_erased_and_comes_back_at_once_with_an_earlier_time_was_gone(
    server: FollowedServer, follower: FollowingClient
) -> None:
    server.report(KIWI, 4)
    follower.follow(KIWI)
    follower.follow(name=b"town", area=TOWN)
    rest(server, follower)
    table = server.node.table
    table.remove(KIWI, table.leaf(KIWI))
    server.report(KIWI, 3)
    assert follower.told() == ["gone kiwi", "enter kiwi 3.0", "gone kiwi of town", "enter kiwi 3.0 of town"]


def test_a_neighbours_update_is_told_though_it_comes_without_a_turn(observer: Observer) -> None:
    server = FollowedServer(observer, alone=False)
    neighbour, follower = server.neighbour(), server.follower()
    follower.follow(KIWI)
    server.turns.rest()
    follower.told()
    for time in (1, 2):
        neighbour.tell(b"AT Bob +0.000000000 kiwi +1+1 %d" % time)
        server.turns.rest()
    assert [one[:10] for one in follower.told()] == ["enter kiwi", "move kiwi "]


def test_all_who_follow_the_same_client_are_told_one_event(server: FollowedServer) -> None:
    followers = [server.follower() for _ in range(3)]
    for follower in followers:
        follower.follow(KIWI)
    server.report(KIWI, 1)
    server.report(KIWI, 2)
    events = [follower.events[-1] for follower in followers]
    assert events[0] is events[1] is events[2]
    assert events[0].kind == "move"


def test_who_is_not_to_be_seen_is_never_told(server: FollowedServer, follower: FollowingClient) -> None:
    server.report(KIWI, 1)
    server.report(FIG, 1)
    follower.follow(KIWI, FIG, name=b"1", sees=lambda client: client == FIG)
    follower.follow(name=b"2", area=TOWN, sees=lambda client: client == FIG)
    server.turns.rest()
    server.report(KIWI, 2)
    server.report(FIG, 2)
    assert {event.client for event in follower.events} == {FIG, b""}
    assert [event.clients for event in follower.events if event.kind == "snapshot"] == [1, 1]


def test_who_is_too_old_is_not_told_and_gone_when_somebody_looks(observer: Observer) -> None:
    server = FollowedServer(observer, max_age_seconds=60)
    first, second = server.follower(), server.follower()
    server.report(KIWI, 1)
    first.follow(KIWI)
    first.follow(name=b"town", area=TOWN)
    assert "enter kiwi 1.0 initial" in rest(server, first)
    server.node.rules.age = -1  # so that all is too old
    second.follow(KIWI)
    second.follow(name=b"town", area=TOWN)
    server.turns.rest()
    assert second.told() == ["snapshot 0", "snapshot 0 of town"]
    assert first.told() == ["gone kiwi"]
    server.node.table.remove(KIWI, server.node.table.leaf(KIWI))  # it expires
    server.engine.beat(0.0)
    assert rest(server, first) == ["gone kiwi of town"]
    assert second.told() == []


def test_a_report_that_could_not_be_kept_was_never_there(observer: Observer) -> None:
    server = FollowedServer(observer, always=True)
    follower = server.follower()
    follower.follow(KIWI)
    server.say(b"IAMAT kiwi +1+1 1")
    server.journal.release()
    rest(server, follower)
    server.journal.fails = True
    follower.follow(FIG, name=b"2")
    server.say(b"IAMAT kiwi +1+1 2", b"IAMAT fig +1+1 2")
    server.journal.release()
    assert rest(server, follower) == ["snapshot 0 of 2"]
    assert follower.reply.outcome == "following"


def test_no_follow_begins_while_the_journal_is_replayed(observer: Observer) -> None:
    server = FollowedServer(observer, alone=False)
    server.node.begin_replay()
    follower = server.follower()
    follower.follow(KIWI, name=b"1")
    follower.follow(name=b"2", area=TOWN)
    server.report(KIWI, 1)
    assert follower.told() == []
    assert [(reply.outcome, follower.reply.complete) for reply in follower.replies] == [
        ("following", False)
    ] * 2
    server.node.start(0.0)
    server.turns.wake()
    assert rest(server, follower) == [
        "enter kiwi 1.0 initial",
        "snapshot 1 incomplete of 1",
        "enter kiwi 1.0 of 2 initial",
        "snapshot 1 incomplete of 2",
    ]
    server.node.ready = True
    server.engine.beat(0.0)
    assert rest(server, follower) == ["snapshot 1 of 1", "snapshot 1 of 2"]


def test_many_clients_are_looked_up_in_several_turns(
    server: FollowedServer, follower: FollowingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_LOOKED_UP", 3)
    for number in range(10):
        server.report(b"c%d" % number, 1)
    follower.follow(*(b"c%d" % number for number in range(10)))
    server.turns.one()
    assert len(follower.told()) == 3
    server.report(b"c5", 2)
    told = rest(server, follower)
    assert told[-1] == "snapshot 10"
    assert "enter c5 2.0 initial" in told or "move c5 2.0" in told


# Areas. -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "area",
    [
        TOWN,
        Circle(1.0, 1.0, 300_000.0),
        Box(0.9, 0.9, 1.1, 1.1),
        Box(-180.0, -1.5, 180.0, 1.5),
        Polygon([[[(0.0, 0.0), (0.0, 3.0), (3.0, 0.0), (0.0, 0.0)]]]),
    ],
    ids=["circle", "large circle", "box", "belt", "polygon"],
)
def test_who_is_in_an_area_enters_moves_leaves_and_is_gone(
    server: FollowedServer, follower: FollowingClient, area: Area
) -> None:
    server.report(KIWI, 1)
    server.report(FIG, 1, THERE)
    follower.follow(name=b"9", area=area)
    assert rest(server, follower) == ["enter kiwi 1.0 of 9 initial", "snapshot 1 of 9"]
    server.report(KIWI, 2, b"+1.0001+1.0001")
    server.report(FIG, 2)
    server.report(KIWI, 3, THERE)
    server.report(KIWI, 3.5, THERE)
    server.forget(FIG)
    server.forget(KIWI)
    assert follower.told() == [
        "move kiwi 2.0 of 9",
        "enter fig 2.0 of 9",
        "leave kiwi 3.0 of 9",
        "gone fig of 9",
    ]


def test_a_client_at_the_edge_of_an_area_with_a_buffer_does_not_flap(
    server: FollowedServer, follower: FollowingClient
) -> None:
    follower.follow(name=b"9", area=TOWN, buffer_m=50.0)
    rest(server, follower)
    metres = 1 / 111_195.0
    for number, north in enumerate((120, 90, 120, 90, 149, 151, 120, 99), 1):
        server.report(KIWI, number / 2, b"%+.7f+1" % (1 + north * metres))
    assert [event.split()[0] for event in follower.told()] == [
        "enter",  # at 90 m, where 120 m was outside
        "move",
        "move",
        "move",
        "leave",  # at 151 m
        "enter",
    ]


def test_areas_of_one_name_and_several_names_are_told_each_by_itself(server: FollowedServer) -> None:
    one, other = server.follower(), server.follower()
    for follower in (one, other):
        follower.follow(name=b"1", area=TOWN)
    one.follow(name=b"2", area=Box(0.0, 0.0, 2.0, 2.0))
    rest(server, one, other)
    server.report(KIWI, 1)
    assert one.events[0] is other.events[0]
    assert one.told() == ["enter kiwi 1.0 of 1", "enter kiwi 1.0 of 2"]
    one.unfollow(b"1")
    rest(server, one)
    server.report(KIWI, 2)
    assert one.told() == ["move kiwi 2.0 of 2"]
    assert other.told() == ["enter kiwi 1.0 of 1", "move kiwi 2.0 of 1"]


def test_the_clients_of_a_follow_share_its_name(server: FollowedServer, follower: FollowingClient) -> None:
    """A set for each of a thousand clients of a thousand followers took 200 MB."""
    follower.follow(KIWI, FIG, name=b"1")
    rest(server, follower)
    assert follower.follower.clients[KIWI] is follower.follower.clients[FIG]
    follower.follow(FIG, name=b"2")
    rest(server, follower)
    assert [sorted(follower.follower.clients[one]) for one in (KIWI, FIG)] == [[b"1"], [b"1", b"2"]]


@pytest.mark.parametrize("page", [1, 3, 500])
def test_a_large_area_is_told_page_by_page_while_clients_move(
    server: FollowedServer, follower: FollowingClient, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(snapshots, "_PAGE", page)
    for number in range(20):
        server.report(b"c%d" % number, 1, b"+1+%.6f" % (1 + number / 1e5))
    follower.follow(name=b"1", area=TOWN)
    for number in range(20):  # each once, and some leave
        server.turns.one()
        server.report(b"c%d" % number, 2, HERE if number % 3 else THERE)
    rest(server)
    believed: dict[bytes, bytes] = {}
    for event in follower.events:
        if event.kind in ("leave", "gone"):
            del believed[event.client]
        elif event.entry is not None:
            assert (event.client in believed) is (event.kind == "move")
            believed[event.client] = event.entry.line
    assert believed.keys() == {b"c%d" % number for number in range(20) if number % 3}
    assert all(line == server.node.table.get(client).line for client, line in believed.items())  # type: ignore[union-attr]
    assert [event.kind for event in follower.events].count("snapshot") == 1


def test_a_page_waits_until_the_one_before_was_read(
    server: FollowedServer, follower: FollowingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_PAGE", 3)
    for number in range(9):
        server.report(b"c%d" % number, 1)
    follower.reads = False
    follower.follow(name=b"1", area=TOWN)
    assert rest(server, follower) == []
    follower.read_on()
    assert len(rest(server, follower)) == 10


@pytest.mark.parametrize("blocked_after", range(4))
def test_who_stops_to_read_while_several_areas_are_told_has_one_page_waiting(
    server: FollowedServer,
    follower: FollowingClient,
    monkeypatch: pytest.MonkeyPatch,
    blocked_after: int,
) -> None:
    monkeypatch.setattr(snapshots, "_PAGE", 3)
    for number in range(9):
        server.report(b"c%d" % number, 1)
    for number in range(6):
        follower.follow(name=b"%d" % number, area=TOWN)
    for _ in range(blocked_after):
        server.turns.one()
    follower.reads = False
    waiting = len(follower.events)
    rest(server)
    follower.reads = True
    waiting = len(follower.follower.take())
    assert 0 < waiting <= 4  # with the end of a snapshot
    follower.read_on()
    server.report(b"c0", 2)
    rest(server)
    kinds = [event.kind for event in follower.events]
    assert kinds.count("snapshot") + kinds.count("enter") + waiting >= 6 * 10


@pytest.mark.parametrize("limit", ["MOST_INSIDE", "MOST_INSIDE_ON_A_SERVER"])
def test_too_many_in_its_areas_end_a_follow(
    server: FollowedServer, follower: FollowingClient, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(followed_areas, limit, 5)
    follower.follow(name=b"1", area=TOWN)
    rest(server, follower)
    for number in range(7):
        server.report(b"c%d" % number, 1)
    told = follower.told()
    assert [one.split()[0] for one in told] == ["enter"] * 5 + ["ended"]
    follower.follow(name=b"1", area=TOWN)
    assert rest(server, follower) == ["ended of 1"]
    follower.follow(name=b"1", area=Circle(3.0, 3.0, 5.0))
    assert rest(server, follower) == ["snapshot 0 of 1"]


def test_an_area_that_cannot_be_one_is_refused_and_leaves_nothing(
    server: FollowedServer, follower: FollowingClient
) -> None:
    crossing = Polygon([[[(0.0, 0.0), (2.0, 2.0), (2.0, 0.0), (0.0, 2.0), (0.0, 0.0)]]])
    follower.follow(name=b"1", area=crossing)
    assert rest(server, follower) == []
    assert len(server.engine.follows) == 0
    assert not server.engine.follows.used
    assert follower.reply.outcome == "invalid"
    assert "cross" in follower.reply.text
    follower.follow(name=b"1", area=TOWN)
    assert rest(server, follower) == ["snapshot 0 of 1"]


def test_who_leaves_while_its_area_is_checked_leaves_nothing(
    server: FollowedServer, follower: FollowingClient
) -> None:
    positions = [(i / 100, (i % 2) / 1_000) for i in range(990)]
    large = Polygon([[[*positions, (5.0, 50.0), positions[0]]]])
    other = server.follower()
    for number in range(16):
        follower.follow(name=b"%d" % number, area=large)
    server.turns.one()
    follower.follower.close()
    other.follow(name=b"1", area=TOWN)
    server.turns.one()
    server.turns.one()
    assert [reply.outcome for reply in other.replies] == ["following"]
    rest(server)
    assert {reply.outcome for reply in follower.replies} <= {"following", "left"}
    assert len(follower.replies) == 16, "each of its commands is logged"
    other.follower.close()
    server.turns.wake()
    server.turns.rest()
    assert not server.engine.follows.used


# The end, and limits. -----------------------------------------------------------------------------------------


def test_nothing_more_is_told_after_the_answer_to_unfollow(
    server: FollowedServer, follower: FollowingClient
) -> None:
    server.report(KIWI, 1)
    server.report(FIG, 1)
    follower.follow(KIWI, FIG, name=b"1")
    follower.follow(FIG, name=b"2")
    follower.follow(name=b"3", area=TOWN)
    rest(server, follower)
    follower.reads = False
    server.report(KIWI, 2)
    server.report(FIG, 2)
    follower.unfollow(b"1")
    server.report(FIG, 3)
    follower.read_on()
    assert sorted(rest(server, follower)) == ["move fig 3.0", "move fig 3.0 of 3", "move kiwi 2.0 of 3"]
    for name in (b"2", b"3"):
        follower.unfollow(name)
    follower.unfollow(b"4")
    rest(server)
    assert [reply.outcome for reply in follower.replies[-3:]] == ["unfollowed", "unfollowed", "unknown"]
    server.report(KIWI, 4)
    assert follower.told() == []


def test_who_unfollows_an_area_at_once_is_told_nothing(
    server: FollowedServer, follower: FollowingClient
) -> None:
    server.report(KIWI, 1)
    follower.follow(name=b"1", area=TOWN)
    follower.unfollow(b"1")
    assert rest(server, follower) == []
    assert [reply.outcome for reply in follower.replies] == ["following", "unfollowed"]
    assert server.engine.follows.counts == (0, 0)


def test_limits_are_told(server: FollowedServer, follower: FollowingClient) -> None:
    names = (b"c%d" % number for number in count())
    follower.follow(*(next(names) for _ in range(MOST_CLIENTS)), name=b"many")
    follower.follow(next(names), name=b"one more")
    for number in range(MOST_AREAS + 1):
        follower.follow(name=b"%d" % number, area=TOWN)
    follower.follow(name=b"0", area=TOWN)
    follower.follow(b"c1", name=b"0")
    follower.follow(b"c1", name=b"many")
    follower.follow(b"c1", name=b"again")  # it counts as often as it is followed
    rest(server)
    outcomes = [reply.outcome for reply in follower.replies]
    assert outcomes == [
        "following",
        "refused",
        *["following"] * MOST_AREAS,
        "refused",
        "invalid",
        "invalid",
        "following",
        "refused",
    ]
    assert [reply.is_taken for reply in follower.replies] == [one == "invalid" for one in outcomes]  # type: ignore[attr-defined]
    assert all(
        reply.text and reply.refusal == "full"  # type: ignore[attr-defined]
        for reply in follower.replies
        if reply.outcome == "refused"
    )


def test_nobody_follows_more_than_a_share_of_all_positions_over_all_connections(
    server: FollowedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follows, "MOST_POSITIONS_OF_ONE", 3)
    one, again, other = (server.follower(name) for name in ("eve", "eve", "bob"))
    for name, follower in ((b"1", one), (b"2", one), (b"1", again), (b"2", again), (b"1", other)):
        follower.follow(name=name, area=TOWN)
    viewer = server.follower()  # of the status page, which counts for nobody
    for number in range(4):
        server.engine.follows.begin(Follow(viewer.follower, b"%d" % number, area=TOWN))
    rest(server)
    assert len(viewer.follower.areas) == 4
    outcomes = [[reply.outcome for reply in follower.replies] for follower in (one, again, other)]
    assert outcomes == [["following"] * 2, ["following", "refused"], ["following"]]
    assert (again.reply.refusal, again.reply.text) == ("full", "")  # no limit of this connection
    one.unfollow(b"1")
    rest(server)
    again.follow(name=b"2", area=TOWN)
    rest(server)
    one.follow(name=b"1", area=TOWN)
    rest(server)
    assert [again.reply.outcome, one.reply.outcome] == ["following", "refused"]
    one.follower.close()
    again.follow(name=b"3", area=TOWN)
    rest(server)
    assert again.reply.outcome == "following"
    for follower in (again, other, viewer):
        follower.follower.close()
    assert (server.engine.follows._positions, server.engine.follows._positions_of) == (0, {})


def test_positions_of_all_areas_on_a_server_are_limited_until_areas_end(
    server: FollowedServer, follower: FollowingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follows, "MOST_POSITIONS_ON_A_SERVER", 8)
    monkeypatch.setattr(follows, "MOST_POSITIONS_OF_ONE", 8)
    monkeypatch.setattr(followed_areas, "MOST_INSIDE", 0)
    square = Polygon([[[(0.0, 0.0), (2.0, 0.0), (2.0, 2.0), (0.0, 2.0), (0.0, 0.0)]]])
    crossing = Polygon([[[(0.0, 0.0), (2.0, 2.0), (2.0, 0.0), (0.0, 2.0), (0.0, 0.0)]]])
    box = Box(10.0, 10.0, 12.0, 12.0)

    def refused(area: Area) -> bool:
        """Return whether somebody else cannot follow this area, who leaves at once."""
        other = server.follower("other")
        other.follow(area=area)
        rest(server)
        other.follower.close()
        assert isinstance(other.reply, FollowReply)
        assert (other.reply.refusal == "full") == (other.reply.outcome == "refused")
        assert not other.reply.text  # no limit of this connection
        return other.reply.outcome == "refused"

    follower.follow(name=b"1", area=square)
    follower.follow(name=b"2", area=box)
    rest(server)
    assert [refused(TOWN), refused(box), refused(TOWN)] == [False, True, False]
    follower.unfollow(b"2")
    follower.follow(name=b"3", area=box)
    follower.follow(name=b"4", area=crossing)
    rest(server)
    assert [reply.outcome for reply in follower.replies[2:]] == ["unfollowed", "following", "refused"]
    follower.unfollow(b"1")
    follower.follow(name=b"4", area=crossing)
    rest(server)
    assert follower.reply.outcome == "invalid"
    assert not refused(square)
    follower.follow(name=b"5", area=square)
    server.report(KIWI, 1)  # is one more than may be inside, so the follow ends
    rest(server)
    assert not refused(square)
    follower.follow(
        name=b"5", area=Polygon([[[(10.0, 0.0), (12.0, 0.0), (12.0, 2.0), (10.0, 2.0), (10.0, 0.0)]]])
    )
    rest(server)
    assert refused(box)
    follower.follower.close()
    assert not refused(square)


def test_a_connection_that_ends_leaves_nothing(server: FollowedServer, follower: FollowingClient) -> None:
    server.report(KIWI, 1)
    follower.follow(KIWI, name=b"1")
    follower.follow(name=b"2", area=TOWN)
    follower.follow(name=b"3", area=Box(-180.0, -90.0, 180.0, 90.0))
    rest(server, follower)
    assert server.engine.follows.counts == (1, 2)
    follower.follower.close()
    server.report(KIWI, 2)
    assert follower.told() == []
    assert server.engine.follows.counts == (0, 0)
    assert len(server.engine.follows) == 0
    server.turns.wake()
    server.turns.rest()
    assert not server.engine.follows.used
    follower.follow(KIWI)  # what it has said before it ended
    assert rest(server, follower) == []


def test_one_whose_push_raises_is_closed_and_the_others_are_told(server: FollowedServer) -> None:
    bad, good = server.follower(), server.follower()
    for follower in (bad, good):
        follower.follow(KIWI)
    rest(server, bad, good)
    bad.raises = ZeroDivisionError("a fault")
    server.report(KIWI, 1)
    assert good.told() == ["enter kiwi 1.0"]
    assert bad.failed
    server.report(KIWI, 2)
    assert len(server.engine.follows) == 1


def test_a_follower_that_does_not_read_gets_the_newest_state_when_it_does(
    server: FollowedServer, follower: FollowingClient
) -> None:
    server.report(KIWI, 1)
    follower.follow(KIWI, FIG)
    rest(server, follower)
    follower.reads = False
    for time in range(2, 5):
        server.report(KIWI, time)
        server.report(FIG, time)
    server.forget(FIG)
    follower.read_on()
    assert rest(server, follower) == ["move kiwi 4.0"]
    assert not follower.was_too_slow


def test_where_an_erased_client_was_is_never_told_to_who_reads_late(
    server: FollowedServer, follower: FollowingClient
) -> None:
    server.report(KIWI, 1)
    server.report(FIG, 1, THERE)
    follower.follow(name=b"1", area=TOWN)
    rest(server, follower)
    follower.reads = False
    server.report(KIWI, 2, THERE)
    server.report(FIG, 2, HERE)
    server.forget(KIWI)
    server.forget(FIG)
    follower.read_on()
    assert rest(server, follower) == ["gone kiwi of 1"]


@pytest.mark.parametrize("time", [1.5, 3], ids=["earlier", "later"])
def test_nor_if_the_client_has_reported_again_elsewhere_before_anybody_looks(
    server: FollowedServer, follower: FollowingClient, time: float
) -> None:
    server.report(KIWI, 1)
    follower.follow(name=b"1", area=TOWN)
    rest(server, follower)
    follower.reads = False
    server.report(KIWI, 2, THERE)
    table = server.node.table
    left = table.get(KIWI)
    assert left is not None
    assert table.erase(table.tombstone(KIWI, received(left.line))) is not None
    server.report(KIWI, time, THERE)
    follower.read_on()
    assert rest(server, follower) == ["gone kiwi of 1"]


def test_what_a_follower_reads_late_was_looked_at_in_the_same_turn(
    server: FollowedServer, follower: FollowingClient
) -> None:
    """An erasure comes together with the news that it reads on."""
    server.report(KIWI, 1)
    follower.follow(KIWI)
    rest(server, follower)
    follower.reads = False
    server.report(KIWI, 2)
    follower.read_on()
    server.forget(KIWI)
    assert follower.told() == ["gone kiwi"]


def test_events_are_counted_by_kind(server: FollowedServer) -> None:
    one, other = server.follower(), server.follower()
    for follower in (one, other):
        follower.follow(KIWI)
    one.follow(name=b"1", area=TOWN)
    rest(server)
    for time in (1, 2):
        server.report(KIWI, time)
    server.report(KIWI, 3, THERE)
    server.forget(KIWI)
    told = server.engine.follows.take_told()
    assert told == {"enter": 3, "move": 5, "leave": 1, "gone": 2}
    assert not server.engine.follows.take_told()


def test_a_turn_in_which_nobody_follows_looks_at_no_change(server: FollowedServer) -> None:
    server.report(KIWI, 1)
    assert server.node.table.changes is None
    assert not server.engine.follows.used
