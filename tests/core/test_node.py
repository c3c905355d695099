"""One server's decisions, and those of a few linked ones whose every message the test can hold back."""

from __future__ import annotations

from collections import Counter
from itertools import count
from random import Random

import pytest
from deciding import decide
from hypothesis import given
from hypothesis import strategies as st
from wired import (
    ALL,
    KEY,
    QUIET_TURNS,
    SECOND,
    TIMING,
    WiredServer,
    Wires,
    at_lines,
    herd,
    iamat,
    reports,
    whatsat,
)

from proxyherd.config.schema import Limits
from proxyherd.core.flood_paths import spare_copies
from proxyherd.core.framing import Overlong
from proxyherd.core.handshake import State
from proxyherd.core.messages import CLOCK_IS_SET, At, Forget, parse_at, parse_report
from proxyherd.core.node import Node
from proxyherd.core.notes import (
    FROM_THE_FUTURE,
    CaughtUp,
    Flooded,
    Heard,
    LinkDown,
    LinkFailed,
    LinkUp,
    Skipped,
)
from proxyherd.core.peer_messages import Changed
from proxyherd.core.reply import Reply
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Table
from proxyherd.core.ticks import TICKS

LEAVES = SIZES.leaves

# Clients. -----------------------------------------------------------------------------------------------------


def test_a_report_is_answered_with_the_line_that_is_stored_and_flooded() -> None:
    server = WiredServer("A")
    reply = server.report(iamat(time="5"), received=7 * SECOND)
    assert (reply.kind, reply.outcome) == ("iamat", "stored")
    assert reply.answer == server.line() == b"AT A +2.000000000 kiwi +1+1 5"
    assert [one.line for one in server.node.news] == [reply.answer]


@pytest.mark.parametrize("time", ["4.999999999", "5", "5.0", "05.000000000"])
def test_a_report_that_is_not_later_is_answered_with_its_own_line_and_changes_nothing(time: str) -> None:
    server = WiredServer("A")
    stored = server.report(iamat(time="5"))
    server.node.flood()
    reply = server.report(iamat(time=time, place="+9+9"))
    assert reply.outcome == "stale"
    assert reply.answer is not None
    assert reply.answer.endswith(f" kiwi +9+9 {time}".encode())
    assert server.line() == stored.answer
    assert server.node.news == []


def test_a_server_that_keeps_nothing_refuses_a_report_that_is_not_later_too() -> None:
    server = WiredServer("A")
    server.report(iamat(time="5"))
    server.node.rules.refuse_reports()
    for time in ("4", "5", "6"):
        reply = server.report(iamat(time=time))
        assert reply == Reply("iamat", "refused", b"? " + iamat(time=time), refusal="journal")


def test_a_run_of_reports_ends_at_the_first_one_that_is_not_to_be_stored() -> None:
    stored = [iamat("a"), iamat("b", time="5.000000001"), b" IAMAT\tc +1+1 5\r"]
    for stop in ([iamat("a")], []):
        runs, singly = WiredServer("A"), WiredServer("A")
        said = [reports(*stored, *stop, *stop and [iamat("f")]), [], reports(iamat("g"))]
        assert runs.node.store(said) == [3, 0, 1]
        expected = [singly.report(line).answer for line in (*stored, iamat("g"))]
        assert runs.lines() == singly.lines()
        assert [one.line for one in runs.node.news] == expected


def test_a_later_report_replaces_by_one_nanosecond() -> None:
    server = WiredServer("A")
    server.report(iamat(time="5"))
    assert server.report(iamat(time="5.000000001")).outcome == "stored"


def test_a_new_client_past_the_tables_limit_is_refused_and_a_known_one_is_not() -> None:
    server = WiredServer("A", limits=Limits(max_clients=2))
    assert server.report(iamat("a")).outcome == server.report(iamat("b")).outcome == "stored"
    reply = server.report(iamat("c"))
    assert reply == Reply("iamat", "refused", b"? " + iamat("c"), refusal="full")
    assert server.line("c") is None
    assert len(server.node.news) == 2
    assert server.report(iamat("a", time="6")).outcome == "stored"


@pytest.mark.parametrize(
    "line", [b"", b" \t", b"FOO", b"AT A +0.000000000 kiwi +1+1 5", b"IAMAT kiwi +91+1 5"]
)
def test_an_invalid_line_is_copied_into_its_answer(line: bytes) -> None:
    server = WiredServer("A")
    reply = server.report(line)
    assert (reply.outcome, reply.answer) == ("invalid", b"? " + line)
    assert len(server.table) == 0


def test_an_overlong_line_is_answered_with_its_start() -> None:
    reply = decide(WiredServer("A").node, Overlong(b"IAMAT kiwi +1+1 5"), 0)
    assert (reply.outcome, reply.answer) == ("overlong", b"? IAMAT kiwi +1+1 5")


def test_a_query_about_a_known_client_finds_its_entry_and_about_an_unknown_one_waits_till_ready() -> None:
    server = WiredServer("A")
    server.report()
    found = decide(server.node, whatsat(), 0)
    assert found.outcome == "found"
    assert found.answer is None
    assert found.entry is not None
    assert found.entry.line == server.line()

    waiting = decide(server.node, whatsat("plum"), 0)
    assert (waiting.outcome, waiting.answer, waiting.entry) == ("waiting", None, None)
    assert waiting.whatsat is not None
    server.node.ready = True
    again = server.node.look_up(waiting.whatsat, whatsat("plum"))
    assert (again.outcome, again.answer) == ("unknown", b"? " + whatsat("plum"))


# Reports that could not be kept. -----------------------------------------------------------------------------


def test_while_the_journal_is_replayed_a_query_waits_whatever_is_known_of_its_client() -> None:
    server = WiredServer("A")
    server.node.ready = True
    server.node.begin_replay()
    server.report()
    for one in ("kiwi", "plum"):
        assert decide(server.node, whatsat(one), 0).outcome == "waiting"
    assert server.node.all_wait
    server.node.start(100)
    assert not server.node.all_wait
    assert decide(server.node, whatsat(), 0).outcome == "found"
    assert decide(server.node, whatsat("plum"), 0).outcome == "waiting"


def test_where_the_journal_lacks_records_a_query_waits_until_the_server_is_ready() -> None:
    a, b = WiredServer("A"), WiredServer("B")
    a.report()
    b.node.begin_replay()
    b.report()
    b.node.start(0, lacks=True)
    b.node.tick(TIMING.ready_seconds - 0.1)
    assert decide(b.node, whatsat(), 0).outcome == "waiting"
    assert not b.node.caught_up
    wires = Wires(a, b)
    wires.connect("A", "B")
    wires.settle()
    assert b.node.caught_up
    assert not b.node.all_wait
    assert decide(b.node, whatsat(), 0).outcome == "found"


def test_where_nobody_is_there_to_catch_up_from_its_queries_wait_no_longer_than_those_of_unknown_clients() -> (
    None
):
    server = WiredServer("A")
    server.report()
    server.node.begin_replay()
    server.node.start(100, lacks=True)
    server.node.tick(100 + TIMING.ready_seconds - 0.1)
    assert decide(server.node, whatsat(), 0).outcome == "waiting"
    server.node.tick(100 + TIMING.ready_seconds)
    assert decide(server.node, whatsat(), 0).outcome == "found"
    assert not server.node.caught_up
    alone = Node("A", Table(KEY), Limits(), TIMING, alone=True, now=0)
    alone.begin_replay()
    assert alone.all_wait
    alone.start(0, lacks=True)
    assert not alone.all_wait
    assert alone.ready


def test_reports_that_could_not_be_kept_leave_everything_as_it_was() -> None:
    wires = herd("AB")
    a = wires.servers["A"]
    a.report(iamat("known", time="1"))
    wires.settle()
    wires.forget_traffic()
    before = a.lines()
    for client, time in (("known", "2"), ("new", "1"), ("known", "3"), ("new", "2")):
        assert a.report(iamat(client, time)).outcome == "stored"
    a.node.undo()
    assert a.lines() == before
    assert len(a.table) == 1
    wires.settle()
    assert wires.live("A", "B") == []
    a.node.rules.refuse_reports()
    assert a.report(iamat("known", "2")).answer == b"? " + iamat("known", "2")


def test_undoing_a_report_keeps_what_a_neighbour_sent_since() -> None:
    wires = herd("AB")
    a = wires.servers["A"]
    a.report(iamat("kiwi", time="2"))
    newer = at_lines(1, time="3", form="kiwi")
    link = a.links["B"]
    link.receive_data(newer[0] + b"\n", 0)
    a.node.receive(link, ALL, 0)
    a.report(iamat("gone"))
    a.table.remove(b"gone", a.table.leaf(b"gone"))
    a.node.undo()
    assert a.lines() == set(newer)
    assert [one.line for one in a.node.news] == newer, "and passes it on"


# Becoming ready. ----------------------------------------------------------------------------------------------


def test_a_server_without_neighbours_is_ready_at_once() -> None:
    assert Node("A", Table(KEY), Limits(), TIMING, alone=True, now=0).ready


def test_a_server_that_hears_of_nobody_is_ready_after_its_patience() -> None:
    server = WiredServer("A", now=100)
    server.node.tick(100 + TIMING.ready_seconds - 0.1)
    assert not server.node.ready
    server.node.tick(100 + TIMING.ready_seconds)
    assert server.node.ready


def test_a_server_is_ready_when_its_first_catch_up_has_ended() -> None:
    a, b = WiredServer("A"), WiredServer("B")
    a.learn(at_lines(50))
    wires = Wires(a, b)
    wires.connect("A", "B")
    wires.settle()
    assert b.node.ready
    assert b.lines() == a.lines()
    b.node.tick(TIMING.heartbeat_seconds)
    assert b.node.ready, "once and for all"


def test_a_server_waits_longer_for_a_neighbour_that_is_linked_and_says_nothing() -> None:
    b = WiredServer("B")
    b.learn(at_lines(1))
    just_linked(b)
    patience = TIMING.ready_seconds + TIMING.catch_up_seconds
    b.node.tick(patience - 0.1)
    assert not b.node.ready
    b.node.tick(patience)
    assert b.node.ready


def test_a_server_in_the_middle_of_a_catch_up_is_not_ready() -> None:
    b = WiredServer("B")
    wires = just_linked(b)
    b.node.work(0)
    neighbour = b.node._neighbours["A"]
    assert neighbour.pull is not None
    later = TIMING.ready_seconds + TIMING.catch_up_seconds + 1
    neighbour.heard = neighbour.since = later
    b.node.tick(later)
    assert not b.node.ready
    wires.held.clear()
    wires.settle()
    assert b.node.ready


def test_time_that_passes_lets_no_listener_ask_before_the_dialler_has_caught_up() -> None:
    """What only one of them has crosses the link once."""
    b = WiredServer("B")
    b.learn(at_lines(50, form="b-{}"))
    wires = just_linked(b)
    b.node.tick(TIMING.compare_seconds - 0.1)
    b.node.work(0)
    b.node.flood()
    assert not any(line.startswith(b"DIGESTS") for line in b.links["A"].data_to_send(0).splitlines())
    wires.held.clear()
    wires.settle()
    lines = [line for said in wires.said.values() for line in said if line.startswith(b"AT ")]
    assert sorted(lines) == sorted(at_lines(50) + at_lines(50, form="b-{}"))


def just_linked(server: WiredServer) -> Wires:
    """Link B to an A that has something, which dials; what A says on the live link is on its way till `held` is cleared."""
    a = WiredServer("A")
    a.learn(at_lines(50))
    wires = Wires(a, server)
    wires.connect("A", "B")
    while not [*server.node.linked]:
        wires.turn("A")
        wires.turn("B")
    wires.held.add(("A", "B"))
    return wires


# Floods. ------------------------------------------------------------------------------------------------------


def test_an_update_goes_everywhere_and_never_back_to_where_it_came_from() -> None:
    wires = herd("AB", "BC", "BD")
    answer = wires.servers["A"].report().answer
    wires.settle()
    assert all(server.line() == answer for server in wires.servers.values())
    assert wires.live("A", "B") == wires.live("B", "C") == wires.live("B", "D") == [answer]
    assert wires.live("B", "A") == wires.live("C", "B") == wires.live("D", "B") == []


def test_a_flood_ends_by_itself_on_a_graph_full_of_rings_and_crosses_each_link_at_most_twice() -> None:
    edges = [f"{a}{b}" for a in "ABCDEF" for b in "ABCDEF" if a < b]
    wires = herd(*edges)
    answers = [wires.servers[name].report(iamat(name)).answer for name in "ABCDEF"]
    wires.settle()
    assert all(server.lines() == set(answers) for server in wires.servers.values())
    for edge in edges:
        dialler, listener = edge[0], edge[1]
        crossings = Counter(wires.live(dialler, listener)) + Counter(wires.live(listener, dialler))
        assert max(crossings.values()) <= 2
        assert max(Counter(wires.live(dialler, listener)).values()) == 1


def test_what_is_no_news_is_not_passed_on() -> None:
    wires = herd("AB", "BC")
    b = wires.servers["B"]
    b.report(iamat(time="9"))
    wires.settle()
    wires.forget_traffic()
    for line in [*at_lines(1, time="5", form="kiwi"), b.line() or b""] * 3:
        wires.servers["A"].links["B"].send_updates(line + b"\n")
    wires.settle()
    assert wires.live("B", "C") == []
    heard = [note for note in b.node.notes if isinstance(note, Heard)]
    assert [(note.neighbour, note.news) for note in heard] == [("A", 0)]


def test_a_flood_is_told_with_how_late_its_first_news_was() -> None:
    wires = herd("AB", "BC")
    a, b, c = wires.servers.values()
    b.node.rules.clock, c.node.rules.clock = 8 * SECOND, 7 * SECOND
    a.report(iamat("old", time="5"), received=6 * SECOND)
    a.report(iamat("new", time="5"), received=7 * SECOND)
    wires.settle()
    assert [note.late for note in b.node.notes if isinstance(note, Heard)] == [2 * SECOND]
    assert [note.late for note in c.node.notes if isinstance(note, Heard)] == [1 * SECOND]
    b.node.notes.clear()
    a.links["B"].send_updates((a.line("old") or b"") + b"\n")
    wires.settle()
    assert [note.late for note in b.node.notes if isinstance(note, Heard)] == [None], "it was no news"


def test_a_stale_report_is_flooded_nowhere() -> None:
    wires = herd("AB")
    wires.servers["A"].report(iamat(time="9"))
    wires.settle()
    wires.forget_traffic()
    assert wires.servers["B"].report(iamat(time="9.0")).outcome == "stale"
    wires.settle()
    assert wires.said == {}


def test_equal_times_taken_by_two_servers_at_once_end_the_same_on_every_server() -> None:
    wires = herd("AB", "BC", "CD", "AD")
    one = wires.servers["A"].report(iamat(time="5.5"), received=6 * SECOND).answer
    other = wires.servers["C"].report(iamat(time="5.500"), received=7 * SECOND).answer
    assert one is not None
    assert other is not None
    wires.settle()
    assert {server.line() for server in wires.servers.values()} == {max(one, other)}


def test_an_update_leaves_in_the_turn_of_its_report() -> None:
    wires = herd("AB")
    answer = wires.servers["A"].report().answer
    wires.turn("A")
    assert wires.live("A", "B") == [answer]


def test_a_malformed_line_is_skipped_and_noted_and_the_link_stays() -> None:
    wires = herd("AB")
    wires.servers["A"].links["B"].send_updates(b"AT poison\n" + at_lines(1)[0] + b"\n")
    wires.settle()
    b = wires.servers["B"]
    assert [note for note in b.node.notes if isinstance(note, Skipped)] == [
        Skipped("A", b"AT poison", "no AT line")
    ]
    assert b.lines() == set(at_lines(1))
    assert list(b.node.linked) == ["A"]


def test_what_neighbours_took_is_learned_a_quarter_past_the_limit_and_then_skipped() -> None:
    small = WiredServer("B", limits=Limits(max_clients=8))
    wires = herd("AB", B=small)
    lines = at_lines(12)
    wires.servers["A"].links["B"].send_updates(b"\n".join(lines) + b"\n")
    wires.settle()
    assert small.lines() == set(lines[:10])
    skipped = [note.line for note in small.node.notes if isinstance(note, Skipped)]
    assert skipped == lines[10:]
    assert small.report(iamat("new")).outcome == "refused"
    newer = at_lines(1, time="6")
    wires.servers["A"].links["B"].send_updates(newer[0] + b"\n")
    wires.settle()
    assert newer[0] in small.lines()


# Spare copies. -------------------------------------------------------------------------------------------------


@pytest.fixture
def ring() -> Wires:
    """A, B and C in a ring, and D beside B; only B knows that some copies are spare."""
    wires = herd("AB", "AC", "BC", "BD")
    graph = {"A": "BC", "B": "ACD", "C": "AB", "D": "B"}
    wires.servers["B"].node.spare_copies = spare_copies(graph, "B")
    return wires


def test_a_spare_copy_of_an_update_waits_and_is_sent_once_in_front_of_what_else_leaves(ring: Wires) -> None:
    a, b, *_ = ring.servers.values()
    line = a.report().answer
    ring.turn("A")
    ring.turn("B")
    assert ring.live("B", "D") == [line]
    assert ring.live("B", "C") == []
    assert [note for note in b.node.notes if isinstance(note, Flooded)] == [Flooded(("C", "D"), [b"kiwi"])]
    ring.settle()
    assert b.links["C"].spare == [line]
    b.links["C"].send(Changed())
    b.node.send_spare(b.links["C"])
    b.node.send_spare(b.links["C"])
    ring.turn("B")
    assert ring.said["B", "C"] == [line, b"CHANGED"]


def test_no_spare_copy_of_a_line_is_sent_that_was_erased_meanwhile(ring: Wires) -> None:
    a, b, *_ = ring.servers.values()
    a.report(iamat("kiwi"))
    line = a.report(iamat("plum")).answer
    ring.settle()
    assert len(b.links["C"].spare) == 2
    decide(b.node, Forget(b"kiwi"), 6 * SECOND)
    b.node.send_spare(b.links["C"])
    assert len(b.links["C"].spare) == 2, "the erasure may have to be undone"
    ring.turn("B")
    b.node.send_spare(b.links["C"])
    ring.turn("B")
    assert ring.live("B", "C") == [line]
    assert b"GONE " in b"".join(ring.said["B", "C"])
    a.report(iamat("fig"))
    ring.settle()
    b.links["C"].close("it ends")
    b.node.send_spare(b.links["C"])
    assert b.links["C"].out == []


def test_few_updates_wait_for_those_who_have_them_from_another_and_own_reports_for_nobody(
    ring: Wires,
) -> None:
    a, b, _, d = ring.servers.values()
    lines = [a.report(iamat(client)).answer for client in ("kiwi", "plum")]
    lines.append(d.report(iamat("fig")).answer)
    ring.turn("A")
    ring.turn("D")
    own = b.report(iamat("pear")).answer
    ring.turn("B")
    assert ring.live("B", "D") == [own, *lines[:2]]
    assert ring.live("B", "A") == [own, lines[2]]
    assert ring.live("B", "C") == [own, lines[2]]
    assert b.links["C"].spare == lines[:2]
    clients = [b"pear", b"kiwi", b"plum", b"fig"]
    assert Flooded(("C",), clients) in b.node.notes


@pytest.mark.parametrize(("updates", "waits"), [(2, True), (8, True), (9, False)])
def test_many_updates_at_once_wait_for_nobody(ring: Wires, updates: int, *, waits: bool) -> None:
    assert SIZES.few_updates == 8
    a, b, *_ = ring.servers.values()
    for number in range(updates):
        a.report(iamat(f"client-{number}"))
    ring.turn("A")
    ring.turn("B")
    assert len(ring.live("B", "D")) == updates
    assert len(ring.live("B", "C")) == (0 if waits else updates)
    assert len(b.links["C"].spare) == (updates if waits else 0)


def test_an_update_that_came_the_other_way_waits_for_nobody(ring: Wires) -> None:
    ring.held.add(("A", "B"))
    line = ring.servers["A"].report().answer
    for name in "ACB":
        ring.turn(name)
    assert ring.live("C", "B") == ring.live("B", "A") == ring.live("B", "D") == [line]


def test_a_tombstone_waits_for_nobody(ring: Wires) -> None:
    decide(ring.servers["A"].node, Forget(b"kiwi"), 6 * SECOND)
    ring.turn("A")
    ring.turn("B")
    assert [line[:5] for line in ring.said["B", "C"]] == [b"GONE "]


# Links. -------------------------------------------------------------------------------------------------------


def test_a_proved_link_replaces_an_older_one_and_an_unproved_connection_displaces_nothing() -> None:
    wires = herd("AB")
    b = wires.servers["B"]
    old = b.links["A"]
    b.node.notes.clear()
    wires.connect("A", "B")
    wires.turn("A")
    wires.turn("B")  # the greeting has come, the proof has not
    assert old.reason == ""
    assert list(b.node.linked) == ["A"]
    wires.settle()
    assert old.state is State.CLOSED
    assert old.reason == "replaced by a newer link"
    assert list(b.node.linked) == ["A"]
    assert [type(note) for note in b.node.notes if isinstance(note, LinkUp | LinkDown)] == [LinkDown, LinkUp]


def test_a_replaced_link_is_not_believed_any_more() -> None:
    wires = herd("AB")
    b = wires.servers["B"]
    old = b.links["A"]
    wires.connect("A", "B")
    wires.settle()
    old.receive_data(at_lines(1)[0] + b"\n", 0)
    b.node.receive(old, ALL, 0)
    b.node.closed(old)
    assert b.lines() == set()
    assert list(b.node.linked) == ["A"]


def test_a_link_that_fails_before_its_proof_is_noted_once_and_a_live_one_that_ends_as_well() -> None:
    wires = Wires(WiredServer("A"), WiredServer("B"))
    _, link = wires.connect("A", "B")
    link.receive_eof()
    node = wires.servers["B"].node
    for _ in range(3):
        node.closed(link)
    assert node.notes == [LinkFailed(None, dialled=False, reason=link.reason)]
    _, link = wires.connect("A", "B")
    wires.settle()
    node.notes.clear()
    link.receive_eof()
    for _ in range(3):
        node.closed(link)
    assert node.notes == [LinkDown("A", "closed by the neighbour")]
    assert list(node.linked) == []


@pytest.mark.parametrize(
    "line",
    [
        b"DIGEST - " + b"0" * 256,
        b"BATCH 0 10000 0",
        b"DIGESTS -\n" * 17,
        b"HELLO",
    ],
    ids=["digests not asked for", "a batch not asked for", "too many requests at once", "no message"],
)
def test_a_neighbour_that_breaks_the_protocol_is_dropped(line: bytes) -> None:
    wires = herd("AB")
    b = wires.servers["B"]
    link = b.links["A"]
    link.receive_data(line + b"\n", 0)
    b.node.receive(link, ALL, 0)
    assert link.state is State.CLOSED
    assert list(b.node.linked) == []


def test_a_neighbour_that_answers_no_catch_up_is_dropped() -> None:
    wires = herd("AB")
    wires.held.add(("B", "A"))
    wires.connect("A", "B")
    wires.held.clear()
    while not any(line.startswith((b"DIGESTS", b"RANGE")) for line in wires.said["A", "B"]):
        wires.turn("A")
        if not wires.said["A", "B"][-1:] or wires.said["A", "B"][-1][:5] in (b"PROXY", b"PROOF"):
            wires.turn("B")
    a = wires.servers["A"]
    a.node.tick(TIMING.catch_up_seconds)
    assert list(a.node.linked) == ["B"]
    a.node.tick(TIMING.catch_up_seconds + 0.1)
    assert list(a.node.linked) == []
    assert "did not answer a catch-up request for 10 s" in a.links["B"].reason


# Catching up. -------------------------------------------------------------------------------------------------


def test_when_a_link_comes_up_both_sides_end_with_the_greatest_of_each_client() -> None:
    a, b = WiredServer("A"), WiredServer("B")
    a.learn(at_lines(300, time="5"))
    b.learn(at_lines(200, time="6"))
    b.learn(at_lines(50, form="only-{}"))
    wires = Wires(a, b)
    wires.connect("A", "B")
    wires.settle()
    expected = {*at_lines(300)[200:], *at_lines(200, time="6"), *at_lines(50, form="only-{}")}
    assert a.lines() == b.lines() == expected
    caught_up = {
        server.name: [note.news for note in server.node.notes if isinstance(note, CaughtUp)]
        for server in (a, b)
    }
    assert caught_up == {"A": [250], "B": [100]}


def test_a_leaf_with_more_clients_than_a_line_has_room_for_hashes_is_caught_up_too() -> None:
    a, b = (
        WiredServer("A", limits=Limits(max_line_bytes=1_024)),
        WiredServer("B", limits=Limits(max_line_bytes=1_024)),
    )
    table, lines = a.table, []
    for number in count():
        line = b"AT A +0.000000000 %d +1+1 5" % number
        if table.leaf(b"%d" % number) < LEAVES // 1_024:
            lines.append(line)
        if len(lines) == 200:
            break
    leaf = 7
    for server in (a, b):
        server.table.leaf = lambda client: leaf  # type: ignore[method-assign]
    a.learn(lines[:150])
    b.learn(lines[100:])
    wires = Wires(a, b)
    wires.connect("A", "B")
    wires.settle()
    assert a.lines() == b.lines() == set(lines)


def test_one_neighbour_is_caught_up_from_at_a_time() -> None:
    servers = [WiredServer(name) for name in "ABCD"]
    for server, form in zip(servers[1:], ("b-{}", "c-{}", "d-{}"), strict=True):
        server.learn(at_lines(100, form=form))
    wires = Wires(*servers)
    for listener in "BCD":
        wires.connect("A", listener)
    walking = []
    for _ in range(QUIET_TURNS):
        moved = wires.turns()
        walking.append(sum(one.pull is not None for one in servers[0].node._neighbours.values()))
        if not moved:
            break
    assert max(walking) == 1
    assert all(len(server.lines()) == 300 for server in servers)


def test_live_updates_come_between_the_batches_of_a_catch_up() -> None:
    a, b = WiredServer("A"), WiredServer("B")
    b.learn(at_lines(5_000))
    wires = Wires(a, b)
    wires.connect("A", "B")
    while not wires.said["B", "A"] or not any(line.startswith(b"BATCH") for line in wires.said["B", "A"]):
        wires.turn("A")
        wires.turn("B")
    assert len(a.table) < 5_000
    answer = b.report().answer
    wires.turn("B")
    wires.turn("A")
    assert a.line() == answer
    assert len(a.table) < 5_000
    wires.settle()
    assert a.lines() == b.lines()


def test_what_catch_up_brings_is_passed_on_over_links_in_step() -> None:
    wires = herd("AB", "BC")
    newcomer = wires.servers["D"] = WiredServer("D")
    newcomer.learn(at_lines(100))
    wires.connect("A", "D")
    wires.settle()
    assert all(server.lines() == set(at_lines(100)) for server in wires.servers.values())
    assert sorted(wires.live("A", "B")) == sorted(wires.live("B", "C")) == sorted(at_lines(100))


def test_what_catch_up_brings_is_not_flooded_over_a_link_that_is_not_in_step() -> None:
    a, b, c = WiredServer("A"), WiredServer("B"), WiredServer("C")
    for server in (b, c):
        server.learn(at_lines(2_000))
    wires = Wires(a, b, c)
    for edge in ("AB", "AC", "BC"):
        wires.connect(*edge)
    wires.settle()
    assert a.lines() == set(at_lines(2_000))
    assert wires.live("A", "B") == wires.live("A", "C") == wires.live("B", "C") == []


def test_a_neighbour_that_has_not_begun_to_walk_is_not_asked_to_walk_again() -> None:
    """Its walk finds everything."""
    a, b, c = WiredServer("A"), WiredServer("B"), WiredServer("C")
    b.learn(at_lines(20))
    c.learn(at_lines(1, form="only-at-c"))
    wires = Wires(a, b, c)
    for edge in ("AB", "AC"):
        wires.connect(*edge)
    wires.settle()
    assert a.lines() == b.lines() == c.lines()
    assert len(c.lines()) == 21
    assert b"CHANGED" not in wires.said["A", "C"]


def half_walked(of_a: list[bytes], of_c: list[bytes]) -> Wires:
    """A has walked C; C has asked A for digests and waits for the answer, which A has given."""
    a, b, c = WiredServer("A"), WiredServer("B"), WiredServer("C")
    a.learn(of_a)
    c.learn(of_c)
    b.learn(at_lines(1, form="only-at-b"))
    wires = Wires(a, b, c)
    wires.connect("A", "C")
    while not any(line.startswith(b"DIGESTS") for line in wires.said["C", "A"]):
        for name in "AC":
            wires.turn(name)
    wires.held.add(("A", "C"))
    while not any(line.startswith(b"DIGEST - ") for line in wires.said["A", "C"][-1:]):
        wires.turn("A")
    return wires


def test_what_a_catch_up_ends_with_reaches_a_neighbour_whose_own_walk_came_too_early_for_it() -> None:
    common = at_lines(20)
    wires = half_walked(common, common)
    wires.connect("A", "B")
    wires.settle()
    assert b"only-at-b" in dict(wires.servers["A"].table)
    wires.held.clear()
    wires.settle()
    assert wires.servers["C"].lines() == wires.servers["A"].lines()
    assert wires.said["A", "C"].count(b"CHANGED") == 1


def test_an_update_asks_nobody_to_walk_again() -> None:
    wires = half_walked(at_lines(20), at_lines(20))
    a, c = wires.servers["A"], wires.servers["C"]
    a.report()
    wires.held.clear()
    wires.settle()
    assert c.lines() == a.lines()
    assert len(c.lines()) == 21
    assert b"CHANGED" not in wires.said["A", "C"]


def test_a_neighbour_asked_to_walk_again_in_the_middle_of_its_walk_does() -> None:
    common = at_lines(20)
    wires = half_walked([*common, *at_lines(5, form="only-at-a-{}")], common)
    wires.connect("A", "B")
    wires.settle()
    wires.held.clear()
    wires.settle()
    assert wires.servers["C"].lines() == wires.servers["A"].lines()


def test_a_walk_cut_off_lets_the_next_one_start() -> None:
    a, b, c = WiredServer("A"), WiredServer("B"), WiredServer("C")
    b.learn(at_lines(10, form="b-{}"))
    c.learn(at_lines(10, form="c-{}"))
    wires = Wires(a, b, c)
    wires.connect("A", "B")
    wires.held.add(("B", "A"))
    wires.connect("A", "C")
    wires.held.clear()
    for name in "ABCABC":
        wires.turn(name)
    wires.held.add(("B", "A"))
    for name in "ACBACBACB":
        wires.turn(name)
    link = a.links["B"]
    link.close("silent")
    a.node.closed(link)
    wires.settle()
    assert {*at_lines(10, form="c-{}")} <= a.lines()
    assert [one.name for one in a.node._walks._due] == []


def test_linked_servers_compare_from_time_to_time_and_mend_what_differs() -> None:
    wires = herd("AB")
    a, b = wires.servers["A"], wires.servers["B"]
    a.learn(at_lines(3, form="fell-off-{}"))
    b.learn(at_lines(2, form="fell-off-too-{}"))
    for server in (a, b):
        server.node.tick(TIMING.compare_seconds - 0.1)
    wires.settle()
    assert len(a.lines()) == 3
    wires.now = TIMING.compare_seconds
    a.node.notes.clear()
    for server in (a, b):
        server.node.tick(TIMING.compare_seconds)
    wires.settle()
    assert a.lines() == b.lines()
    assert len(a.lines()) == 5
    assert next(note.news for note in a.node.notes if isinstance(note, CaughtUp)) == 2


# What it costs. -----------------------------------------------------------------------------------------------

CLIENTS = 20_000


@pytest.mark.long
@pytest.mark.parametrize("two_sided", [False, True])
@pytest.mark.parametrize("differing", [0, 1, 10, 300])
@pytest.mark.parametrize("older", [False, True])
def test_two_linked_servers_exchange_bytes_by_what_differs_and_not_by_what_they_hold(
    differing: int, two_sided: bool, older: bool
) -> None:
    lines, newer = at_lines(CLIENTS), at_lines(CLIENTS, time="1621464827.959498503")
    odd = Random(differing).sample(range(CLIENTS), differing)
    a, b = WiredServer("A"), WiredServer("B")
    missing = {"A": set(odd[::2] if two_sided else odd), "B": set(odd[1::2] if two_sided else ())}
    for server, other in ((a, b), (b, a)):
        for number in range(CLIENTS):
            if number in missing[other.name]:
                server.learn([newer[number]])
            elif older or number not in missing[server.name]:
                server.learn([lines[number]])
    wires = Wires(a, b)
    wires.connect("A", "B")
    wires.settle()
    assert a.lines() == b.lines()
    assert len(a.table) == CLIENTS
    entry = len(newer[0]) + 1
    assert sum(wires.bytes.values()) <= 20 * differing * entry + 65_536


def test_an_empty_server_that_joins_leaves_the_other_links_nearly_silent() -> None:
    ring = ["AB", "BC", "CD", "DE", "AE"]
    lines = at_lines(CLIENTS)
    servers = {name: WiredServer(name) for name in "ABCDE"}
    for name in "ABDE":
        servers[name].learn(lines)
    wires = Wires(*servers.values())
    others = [edge for edge in ring if "C" not in edge]
    for edge in others:
        wires.connect(*edge)
    wires.settle()
    wires.forget_traffic()
    for edge in ("BC", "CD"):
        wires.connect(*edge)
    wires.settle()
    assert servers["C"].lines() == set(lines)
    for edge in others:
        left, right = edge[0], edge[1]
        assert wires.bytes[left, right] + wires.bytes[right, left] < 65_536
    to_newcomer = wires.bytes["B", "C"] + wires.bytes["D", "C"]
    assert to_newcomer < 1.5 * sum(len(line) + 1 for line in lines)


# Clocks and age. ----------------------------------------------------------------------------------------------


def test_a_time_from_the_future_stands_in_the_way_for_no_longer_than_the_lead_on_every_server() -> None:
    limits = Limits(max_clock_lead_seconds=60)
    wires = herd("AB", A=WiredServer("A", limits=limits), B=WiredServer("B", limits=limits))
    a, b = wires.servers["A"], wires.servers["B"]
    assert a.report(iamat(time="999999999999"), received=5 * SECOND).outcome == "stored"
    wires.settle()
    assert a.line() == b.line() == b"AT A -999999999994.000000000 kiwi +1+1 999999999999"
    for server in (a, b):
        assert server.report(iamat(time="65"), received=6 * SECOND).outcome == "stale"
    assert b.report(iamat(time="65.000000001"), received=7 * SECOND).outcome == "stored"
    wires.settle()
    assert a.line() == b.line() == b"AT B -58.000000001 kiwi +1+1 65.000000001"


def test_a_location_is_forgotten_at_an_age_that_counts_from_when_the_server_in_its_line_received_it() -> None:
    server = WiredServer("A", limits=Limits(max_age_seconds=10))
    node = server.node
    node.rules.clock = 100 * SECOND
    # The client's clock is wrong by far: only the server's counts.
    assert decide(node, iamat(time="5000"), node.rules.clock).outcome == "stored"
    node.ready = True
    node.rules.clock = 110 * SECOND
    assert decide(node, whatsat(), node.rules.clock).outcome == "found"
    node.rules.clock = 110 * SECOND + 1
    assert decide(node, whatsat(), node.rules.clock).answer == b"? WHATSAT kiwi 10 5"
    # It no longer stands in the way of an earlier time either, as on a server that never knew it.
    assert decide(node, iamat(time="4999"), node.rules.clock).outcome == "stored"


def test_what_is_too_old_is_neither_learned_nor_replayed_and_leaves_the_table_and_its_digests() -> None:
    server = WiredServer("A", limits=Limits(max_age_seconds=10))
    node, now = server.node, 0.0
    old, just, young = (parse_at(b"AT Clark +%d.000000000 kiwi%d +1+1 80" % (n, n)) for n in (9, 10, 15))
    assert old is not None
    assert just is not None
    assert young is not None
    node.rules.clock = 100 * SECOND
    node.replay([old, None, just, young])
    assert server.lines() == {just.entry.line, young.entry.line}
    server.table.sweep(0, LEAVES, ALL)
    assert any(server.table.children(""))
    node.rules.clock = 200 * SECOND
    while now <= TIMING.compare_seconds:
        node.tick(now)
        now += TIMING.heartbeat_seconds / TICKS
    assert len(server.table) == 0
    server.table.sweep(0, LEAVES, ALL)
    assert not any(server.table.children(""))


def test_what_is_held_and_too_old_is_no_obstacle_whether_a_client_or_a_neighbour_says_what_is_new() -> None:
    """Servers would differ until it has left each of their tables."""
    limits = Limits(max_age_seconds=10, max_clients=1)
    wires = herd("AB", A=WiredServer("A", limits=limits), B=WiredServer("B", limits=limits))
    a, b = wires.servers["A"], wires.servers["B"]
    for server in (a, b):
        server.node.rules.clock = 100 * SECOND
    assert decide(a.node, iamat(time="600"), 100 * SECOND).outcome == "stored"  # a clock that is far ahead
    wires.settle()
    for server in (a, b):
        server.node.rules.clock = 120 * SECOND
    assert decide(a.node, iamat(time="120"), 120 * SECOND).outcome == "stored"
    wires.settle()
    assert a.line() == b.line() is not None
    assert b"kiwi +1+1 120" in (b.line() or b"")


def test_a_report_for_which_there_is_no_room_is_refused_though_what_is_too_old_is_later() -> None:
    server = WiredServer("A", limits=Limits(max_age_seconds=10, max_table_bytes=35, max_clock_lead_seconds=4))
    node = server.node
    assert decide(node, iamat(time="9"), 5 * SECOND).outcome == "stored"
    longer = iamat(time="8", place="+1.0000+1")
    node.rules.clock = 15 * SECOND
    assert decide(node, longer, 15 * SECOND).outcome == "stale"
    node.rules.clock = 15 * SECOND + 1
    assert decide(node, longer, 15 * SECOND).outcome == "refused"


@pytest.mark.parametrize("lead", [0, 60])
def test_clients_whose_clocks_are_further_ahead_are_ordered_by_the_servers_clock(lead: float) -> None:
    server = WiredServer("A", limits=Limits(max_clock_lead_seconds=lead))
    for second in range(3):
        report = iamat(time=f"{3_600 + second}")
        assert server.report(report, received=second * SECOND).outcome == "stored"
        assert server.report(report, received=second * SECOND).outcome == "stale"
    assert server.report(iamat(time=f"{2 + lead:g}"), received=5 * SECOND).outcome == "stale"
    assert server.report(iamat(time=f"{2 + lead:g}.000000001"), received=5 * SECOND).outcome == "stored"


TODAY = 1_800_000_000 * SECOND
DAY = 86_400 * SECOND


def taken_at(received: int, client: str = "kiwi", time: str = "1800000000.000000000") -> bytes:
    """A report as a server took it at that time, in nanoseconds."""
    report = parse_report(iamat(client, time), b"Clark", received)
    assert report is not None
    return report.line


def sent_by_a_neighbour(server: WiredServer, *lines: bytes) -> None:
    wires = herd("AB", A=WiredServer("A"), B=server)
    wires.servers["A"].links["B"].send_updates(b"".join(line + b"\n" for line in lines))
    wires.settle()


def test_a_line_received_in_the_future_by_more_than_the_bound_is_skipped_counted_and_told() -> None:
    server = WiredServer("B")
    server.node.rules.clock = TODAY
    bound, past = taken_at(TODAY + DAY), taken_at(TODAY + DAY + 1, "plum")
    forged = b"AT Clark +999999999999.999999999 pear +1+1 1800000000"
    early = b"AT Clark -900000000.000000000 fig +1+1 2700000000"  # a phone's clock that is ahead by decades
    sent_by_a_neighbour(server, past, bound, forged, early)
    assert server.lines() == {bound, early}, (
        "the bound itself is taken, and it is the server's clock that counts"
    )
    assert [note for note in server.node.notes if isinstance(note, Skipped)] == [
        Skipped("A", line, FROM_THE_FUTURE) for line in (past, forged)
    ]
    assert [note.news for note in server.node.notes if isinstance(note, Heard)] == [2]


def test_what_comes_by_catching_up_is_judged_likewise_and_passed_on_to_nobody() -> None:
    a, b, c = WiredServer("A"), WiredServer("B"), WiredServer("C")
    for server in (b, c):
        server.node.rules.clock = TODAY
    forged, honest = taken_at(TODAY + 2 * DAY), taken_at(TODAY - 5_000 * DAY, "plum")
    a.learn([forged, honest])
    wires = Wires(a, b, c)
    wires.connect("A", "B")
    wires.connect("B", "C")
    wires.settle()
    assert b.lines() == c.lines() == {honest}
    assert any(isinstance(note, Skipped) for note in b.node.notes)
    assert not any(isinstance(note, Skipped) for note in c.node.notes)


@pytest.mark.parametrize(
    ("clock", "limits"),
    [(0, Limits()), (1_577_836_799 * SECOND, Limits()), (TODAY, Limits(max_clock_skew_seconds=0))],
    ids=["1970", "before 2020", "no bound"],
)
def test_a_server_whose_clock_was_never_set_judges_nothing_and_so_works_on(
    clock: int, limits: Limits
) -> None:
    server = WiredServer("B", limits=limits)
    server.node.rules.clock = clock
    line = taken_at(TODAY + 1_000 * DAY)
    sent_by_a_neighbour(server, line)
    assert server.lines() == {line}


@pytest.mark.parametrize("hours", [-14, 14])
def test_a_herd_with_a_clock_set_to_another_time_zone_agrees(hours: int) -> None:
    wires = herd("AB", "BC")
    a, b, c = wires.servers.values()
    off = hours * 3_600 * SECOND
    for server, clock in ((a, TODAY), (b, TODAY + off), (c, TODAY)):
        server.node.rules.clock = clock
        server.report(iamat(server.name, "1800000000"), received=clock)
    wires.settle()
    assert a.lines() == b.lines() == c.lines()
    assert len(a.lines()) == 3


def test_the_table_is_bounded_in_bytes_too_and_what_neighbours_took_has_a_quarter_more() -> None:
    small = WiredServer("A", limits=Limits(max_table_bytes=65_536, max_client_bytes=8_192))
    big = "x" * 8_000
    taken = [small.report(iamat(f"{n}{big}")).outcome for n in range(6)]
    assert taken == ["stored"] * 4 + ["refused"] * 2
    assert small.table.bytes <= 65_536
    # What grows is judged as what is new; what does not is taken.
    assert small.report(iamat(f"0{big}", time="6")).outcome == "stored"
    wires = herd("AB", A=small, B=WiredServer("B", limits=Limits(max_client_bytes=8_192)))
    before = small.table.bytes
    for n in range(6, 9):
        wires.servers["B"].report(iamat(f"{n}{big}"))
    wires.settle()
    assert before < small.table.bytes <= 65_536 * 5 // 4
    assert any(isinstance(note, Skipped) for note in small.node.notes)


def test_past_the_limit_a_known_clients_longer_line_is_refused_and_nothing_changes() -> None:
    server = WiredServer("A", limits=Limits(max_table_bytes=100))
    server.report(b"IAMAT kiwi +1+1 5")
    server.node.flood()
    held, size = server.lines(), server.table.bytes
    longer = b"IAMAT kiwi +1." + b"0" * (100 - size) + b"+1 6"
    reply = server.report(longer)
    assert (reply.outcome, reply.answer) == ("refused", b"? " + longer)
    assert server.lines() == held
    assert server.table.bytes == size
    assert server.node.news == []
    just = server.report(b"IAMAT kiwi +1." + b"0" * (100 - size - 1) + b"+1 6")
    assert just.outcome == "stored"
    assert server.lines() == {just.answer}
    assert server.table.bytes == 100


def test_reports_that_are_taken_back_leave_the_bytes_as_they_were() -> None:
    server = WiredServer("A")
    server.report(b"IAMAT kiwi +1+1 5")
    server.node.flood()
    before = server.table.bytes
    for line in (
        b"IAMAT kiwi +1.0000+1 5.1",
        b"IAMAT kiwi +1+1 5.2",
        b"IAMAT plum +1+1 5",
        b"IAMAT plum +1.0+1 5.1",
    ):
        assert server.report(line).outcome == "stored"
    server.node.undo()
    assert server.table.bytes == before == len(b"kiwi") + len(*server.lines())


# Few lines, without a turn. -----------------------------------------------------------------------------------------

KIWI, FIG = (b"AT A +0.000000000 %b +1+1 5" % client for client in (b"kiwi", b"fig"))
LATE = b"AT A +0.000000000 kiwi +1+1 1600000000"
"""From the future, by a clock at `CLOCK_IS_SET`."""


@pytest.mark.parametrize("most", [0, 100])
@pytest.mark.parametrize("odd", [b"DONE", b"CHANGED", KIWI + b" ", b" " + KIWI, b"AT kiwi", b"", b"beat"])
def test_whatever_is_no_update_is_left_to_a_turn_with_all_that_came_with_it(odd: bytes, most: int) -> None:
    b = herd("AB").servers["B"]
    link, before = b.links["A"], b.lines()
    for lines in ([odd], [FIG, odd], [odd, FIG]):
        data = b"".join(line + b"\n" for line in lines)
        assert not b.node.receive_few(link, data, most, 0.0, 0)
    assert b.lines() == before
    assert not b.node.news


@pytest.mark.parametrize(
    ("first", "most", "parsed"), [(KIWI, 3, 1), (b"DONE", 3, 1), (KIWI, 4, 4), (FIG, 3, 4)]
)
def test_of_too_many_lines_that_begin_with_news_only_the_first_is_parsed(
    monkeypatch: pytest.MonkeyPatch, first: bytes, most: int, parsed: int
) -> None:
    b = herd("AB").servers["B"]
    b.learn([FIG])
    seen: list[bytes] = []

    def parse(line: bytes) -> At | None:
        if line not in seen:
            seen.append(line)
        return parse_at(line)

    monkeypatch.setattr(b.node, "_recent", parse)
    others = [KIWI.replace(b"kiwi", b"plum%d" % number) for number in range(3)]
    data = b"".join(line + b"\n" for line in (first, *others))
    assert b.node.receive_few(b.links["A"], data, most, 0.0, b.node.rules.clock) == (most == 4)
    assert len(seen) == parsed


@given(
    lines=st.lists(
        st.sampled_from(
            [KIWI, FIG, KIWI.replace(b"kiwi", b"plum"), KIWI[:-1] + b"6", LATE, b"BEAT", b"AT x"]
        ),
        max_size=9,
    ),
    cuts=st.lists(st.integers(0, 300), max_size=5),
    most=st.integers(0, 4),
    max_clients=st.sampled_from([2, 9]),
)
def test_what_is_learned_without_a_turn_is_what_a_turn_would_have_learned(
    lines: list[bytes], cuts: list[int], most: int, max_clients: int
) -> None:
    outcomes = []
    for few in (False, True):
        b = herd("AB", B=WiredServer("B", limits=Limits(max_clients=max_clients))).servers["B"]
        b.node.rules.clock = CLOCK_IS_SET
        b.learn([KIWI, FIG])
        b.node.take_notes()
        link = b.links["A"]
        data, at_ = b"".join(line + b"\n" for line in lines), 0
        for cut in sorted({*cuts, len(data)}):
            part, at_ = data[at_:cut], max(at_, cut)
            now = float(cut)
            if part and not (few and b.node.receive_few(link, part, most, now, b.node.rules.clock)):
                link.receive_data(part, now)
                b.node.receive(link, ALL, now)
        outcomes.append((b.lines(), b.node.news, b.node.take_notes(), link.reason, link.heard))
    assert outcomes[0] == outcomes[1]
