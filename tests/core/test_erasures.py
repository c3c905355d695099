"""Erasures in one server, and in a few linked ones: who is erased is told, served and learned nowhere any more."""

from __future__ import annotations

import pytest
from deciding import decide
from wired import ALL, KEY, SECOND, WiredServer, Wires, herd, iamat, whatsat

from proxyherd.config.schema import ErasureSettings, Limits, Timing
from proxyherd.core.erasures import longest_absence
from proxyherd.core.messages import Forget, received
from proxyherd.core.node import Node
from proxyherd.core.notes import FROM_THE_FUTURE, OUTDATED, Heard, LinkDown, OtherClock, Removed, Skipped
from proxyherd.core.reply import Reply
from proxyherd.core.table import Table
from proxyherd.core.tombstones import Tombstone, parse_gone, parse_learned

DAY = 86_400 * SECOND
KEEP = 30 * DAY
NOW = 1_700_000_000 * SECOND
"""A time of today: there, clocks count as set."""


def forget(
    server: WiredServer, client: str = "kiwi", at: int = 6 * SECOND, before: int | None = None
) -> Reply:
    server.node.rules.clock = at
    return decide(server.node, Forget(client.encode(), before), at)


def ready_server() -> WiredServer:
    server = WiredServer("A")
    server.node.ready = True
    return server


def at_line(client: bytes, moment: int) -> bytes:
    """The AT line of a report that was received at this moment, in nanoseconds, and named it."""
    return b"AT Z +0.000000000 %b +1+1 %d.%09d" % (client, *divmod(moment, SECOND))


def until(reply: Reply) -> int:
    """The moment in the reply to an erasure."""
    assert reply.kind == "forget"
    assert reply.outcome in {"erased", "stayed"}
    tombstone = parse_gone(reply.answer or b"")
    assert tombstone is not None
    return tombstone.until


def everything(server: WiredServer) -> set[bytes]:
    return {*server.table.lines(0, server.table.leaf_count, 1 << 30)[0]}


def agree(wires: Wires) -> None:
    lines = [everything(server) for server in wires.servers.values()]
    assert all(one == lines[0] for one in lines)


# One server. --------------------------------------------------------------------------------------------------


def test_a_client_that_was_erased_is_unknown_and_its_erasure_is_news() -> None:
    server = WiredServer("A")
    server.report()
    server.node.flood()
    reply = forget(server)
    assert until(reply) == 6 * SECOND - 1
    assert reply.answer == server.table.tombstone(b"kiwi", 6 * SECOND - 1).line
    assert [one.line for one in server.node.news] == [reply.answer]
    assert server.line() is None
    server.node.flood()
    server.node.ready = True
    assert decide(server.node, whatsat(), 6 * SECOND).outcome == "unknown"
    assert [note for note in server.node.notes if isinstance(note, Removed)] == [Removed(b"kiwi")]


def test_a_server_that_holds_nothing_of_a_client_forgets_what_was_said_of_it_too() -> None:
    server = WiredServer("A")
    for _ in range(2):
        forget(server, at=6 * SECOND)
        server.node.flood()
        assert [note for note in server.node.take_notes() if isinstance(note, Removed)] == [Removed(b"kiwi")]


def test_a_client_can_report_again_in_the_turn_in_which_it_was_erased() -> None:
    server = WiredServer("A")
    server.report(received=5 * SECOND)
    forget(server, at=6 * SECOND)
    reply = server.report(iamat(time="4"), received=6 * SECOND)
    assert reply.outcome == "stored"
    assert server.line() == reply.answer
    assert everything(server) == {reply.answer, server.table.tombstone(b"kiwi", 6 * SECOND - 1).line}


def test_an_erasure_covers_what_is_held_even_if_its_server_s_clock_was_ahead() -> None:
    server = WiredServer("A")
    server.report(received=9 * SECOND)
    assert until(forget(server, at=6 * SECOND)) == 9 * SECOND
    assert server.line() is None
    reply = server.report(iamat(time="7"), received=8 * SECOND)
    assert (reply.outcome, server.line()) == ("stale", None), "until this server's clock is there too"
    assert reply.answer is not None
    assert reply.answer.startswith(b"AT A +1.000000000 kiwi")
    assert server.report(iamat(time="7"), received=9 * SECOND + 1).outcome == "stored"


def test_an_unknown_client_is_erased_too_because_others_may_know_it() -> None:
    server = WiredServer("A")
    assert until(forget(server)) == 6 * SECOND - 1
    assert len(server.node.news) == len(server.table.tombstones) == 1


def test_a_second_erasure_at_the_same_moment_is_no_news() -> None:
    server = WiredServer("A")
    first = forget(server)
    server.node.flood()
    assert forget(server) == first
    assert forget(server, at=5 * SECOND) == first
    assert server.node.news == []


@pytest.mark.parametrize(
    ("before", "moment", "stays"),
    [
        (NOW - 5 * SECOND, NOW - 5 * SECOND, False),
        (NOW - 6 * SECOND, NOW - 6 * SECOND, True),  # it was seen a second later
        (NOW - 100 * DAY, NOW - 100 * DAY, True),
        (NOW + DAY, NOW - 1, False),  # the future is not erased
        (-1, 1, True),
    ],
)
def test_a_client_stays_if_it_was_seen_after_the_moment_up_to_which_it_is_to_be_erased(
    before: int, moment: int, stays: bool
) -> None:
    server = ready_server()
    server.report(received=NOW - 5 * SECOND)
    reply = forget(server, at=NOW, before=before)
    assert (until(reply), reply.outcome) == (moment, "stayed" if stays else "erased")
    assert (server.line() is not None) == stays
    server.node.flood()
    assert len(server.node.take_notes()) == (0 if stays else 1), "nobody is told that it is gone"
    assert server.table.erased_until(b"kiwi") == (moment if moment > NOW - KEEP else 0), "none ends at once"


@pytest.mark.parametrize(("days", "is_kept"), [(1, True), (20, True), (31, False)])
def test_an_erasure_up_to_a_moment_does_not_cover_what_only_other_servers_have_seen_since(
    days: int, is_kept: bool
) -> None:
    server = ready_server()
    before = NOW - days * DAY
    assert until(forget(server, at=NOW, before=before)) == before
    assert len(server.table.tombstones) == len(server.node.news) == is_kept
    server.learn([at_line(b"kiwi", before + 1)])  # it was taken behind a cut
    assert server.line() is not None
    assert until(forget(server, at=NOW, before=before)) == before
    assert server.line() is not None


def test_no_client_is_erased_up_to_a_moment_before_the_server_is_ready() -> None:
    server = WiredServer("A")
    server.report(received=NOW - 5 * SECOND)
    reply = forget(server, at=NOW, before=NOW - SECOND)
    assert reply == Reply("forget", "refused", b"? ", refusal="not_ready")
    assert server.line() is not None
    assert until(forget(server, at=NOW)) == NOW - 1, "up to now is known at once"


def test_a_client_stays_that_was_seen_between_its_moment_and_the_later_one_of_its_tombstone() -> None:
    """A tombstone of an early moment would be dropped soon, so it gets a later one; but not over somebody seen since."""
    server = ready_server()
    seen = server.report(received=NOW - 10 * DAY)
    server.node.flood()
    assert until(forget(server, at=NOW, before=NOW - 20 * DAY)) == NOW - 20 * DAY
    assert server.line() == seen.answer
    assert until(forget(server, at=NOW, before=NOW - 10 * DAY)) == NOW - KEEP // 16
    assert server.line() is None


def test_an_erasure_up_to_long_ago_is_kept_for_nearly_as_long_as_any() -> None:
    server = ready_server()
    server.report(received=NOW - 100 * DAY)
    assert until(forget(server, at=NOW, before=NOW - 50 * DAY)) == NOW - KEEP // 16
    assert server.line() is None
    too_old = longest_absence(ErasureSettings())
    assert too_old == KEEP - KEEP // 8, "who was away since then uses no journal"
    assert KEEP - KEEP // 16 - too_old == KEEP // 16, "the tombstone outlives its journal by a margin"


def test_erasures_are_refused_when_there_are_too_many_and_those_of_neighbours_a_quarter_later() -> None:
    server = WiredServer("A", limits=Limits(max_tombstones=4))
    for number in range(4):
        until(forget(server, f"client-{number}"))
    assert forget(server, "one-more") == Reply("forget", "refused", b"? ", refusal="full")
    assert until(forget(server, "client-0", at=7 * SECOND)) == 7 * SECOND - 1, "it is held already"
    others = [server.table.tombstone(f"other-{number}".encode(), SECOND) for number in range(2)]
    assert [server.node.admit(one) for one in others] == [True, None]
    assert len(server.table.tombstones) == 5


def test_a_part_of_the_tombstones_is_for_revocations_only() -> None:
    server = WiredServer("A", limits=Limits(max_tombstones=16))
    for number in range(14):
        until(forget(server, f"client-{number}"))
    full = Reply("forget", "refused", b"? ", refusal="full")
    assert forget(server, "one-more") == full
    assert [forget(server, f" token {name}").outcome for name in "ab"] == ["erased"] * 2
    assert forget(server, " token c") == full
    assert until(forget(server, "client-0", at=7 * SECOND)) == 7 * SECOND - 1, "it is held already"


def test_erasures_are_refused_while_reports_are_and_undone_when_they_cannot_be_kept() -> None:
    server = WiredServer("A")
    server.report()
    server.node.flood()
    kept = everything(server)
    forget(server)
    forget(server, "unknown")
    server.report(iamat(time="8"), received=8 * SECOND)
    forget(server, at=9 * SECOND)
    server.node.undo()
    server.node.flood()
    assert (everything(server), server.node.news) == (kept, [])
    assert (server.node.erasures.count, server.node.erasures.lines) == (0, 0)
    assert not any(isinstance(note, Removed) for note in server.node.notes)
    server.node.rules.refuse_reports()
    reports, others = server.node.rules.judge([Forget(b"kiwi")], 9 * SECOND)
    assert (reports, [one.refusal for one in others if isinstance(one, Reply)]) == ([], ["journal"])


def test_erasures_are_counted_when_they_are_kept_and_those_of_neighbours_at_once() -> None:
    server = WiredServer("A")
    server.report()
    forget(server)
    forget(server, "unknown")
    forget(server, at=5 * SECOND)  # no later than the first
    server.node.flood()
    server.node.flood()
    assert (server.node.erasures.count, server.node.erasures.lines) == (2, 1)
    server.report(iamat("fig"), received=7 * SECOND)
    server.node.flood()
    assert server.node.admit(server.table.tombstone(b"fig", 8 * SECOND))
    assert (server.node.erasures.count, server.node.erasures.lines) == (3, 2)


def test_a_neighbour_s_erasure_is_not_undone() -> None:
    server = WiredServer("A")
    forget(server)
    later = server.table.tombstone(b"kiwi", 7 * SECOND)
    assert server.node.admit(later)
    server.node.undo()
    assert everything(server) == {later.line}


def test_the_journal_tells_erasures_in_any_order() -> None:
    server = WiredServer("A")
    gone = server.table.tombstone(b"kiwi", 6 * SECOND).line
    for lines in ([b"AT A +0.000000000 kiwi +1+1 5", gone], [gone, b"AT A +0.000000000 kiwi +1+1 5"]):
        replayed = WiredServer("B")
        replayed.node.replay(map(parse_learned, lines))
        assert (everything(replayed), replayed.node.news) == ({gone}, [])


def test_old_tombstones_are_neither_learned_nor_replayed_and_leave_the_table() -> None:
    table = Table(KEY)
    settings = ErasureSettings(tombstone_seconds=100)
    node = Node("A", table, Limits(), Timing(), alone=True, now=0, erasure=settings)
    node.rules.begin(NOW, takes_reports=True)
    old, young = (table.tombstone(b"kiwi", NOW - seconds * SECOND) for seconds in (101, 100))
    assert (node.admit(old), node.admit(young), len(table.tombstones)) == (False, True, 1)
    node.rules.begin(NOW + 1, takes_reports=True)
    for _ in range(1_000):
        node.tick(0)
    assert len(table.tombstones) == 0


# Neighbours. --------------------------------------------------------------------------------------------------


def test_an_erasure_is_flooded_and_what_comes_behind_it_stays() -> None:
    wires = herd("AB", "BC", "CA")
    a, b, c = (wires.servers[name] for name in "ABC")
    a.report()
    wires.settle()
    reply = forget(c)
    wires.settle()
    agree(wires)
    assert everything(a) == {reply.answer}
    again = b.report(iamat(time="3"), received=7 * SECOND)
    wires.settle()
    agree(wires)
    assert everything(a) == {reply.answer, again.answer}


def test_a_moment_of_long_ago_is_no_delay_of_the_erasure_s_news() -> None:
    wires = herd("AB")
    a, b = (wires.servers[name] for name in "AB")
    for server in (a, b):
        server.node.rules.begin(NOW, takes_reports=True)
        server.node.ready = True
    forget(a, at=NOW, before=NOW - 20 * DAY)
    a.report(iamat("fig"), received=NOW - 1)
    wires.settle()
    heard = [note for note in b.node.take_notes() if isinstance(note, Heard)]
    assert [(note.news, note.late) for note in heard] == [(1, None), (1, 1)]


def test_a_stale_neighbour_cannot_bring_a_client_back_and_learns_of_the_erasure() -> None:
    wires = herd("AB", "BC")
    a, b, c = (wires.servers[name] for name in "ABC")
    c.report()
    wires.settle()
    wires.held |= {("B", "C"), ("C", "B")}
    forget(a)
    wires.settle()
    assert everything(c) != everything(b)
    assert c.line() is not None
    wires.held.clear()
    wires.forget_traffic()
    wires.connect("B", "C")  # after a partition
    wires.settle()
    agree(wires)
    assert c.line() is None
    assert not any(b" kiwi " in line for line in wires.said["B", "A"]), "it is told to nobody"
    assert not any(b" kiwi " in line for line in wires.said["B", "C"])


@pytest.mark.parametrize("dialler", ["A", "B"])
def test_catching_up_brings_erasures_to_either_side(dialler: str) -> None:
    a, b = WiredServer("A"), WiredServer("B")
    for server in (a, b):
        server.learn(b"AT Z +0.000000000 client-%d +1+1 5" % number for number in range(50))
    erased = [f"client-{number}" for number in range(10)]
    for client in erased:
        forget({"A": a, "B": b}[dialler], client)
        {"A": a, "B": b}[dialler].node.flood()
    wires = Wires(a, b)
    wires.connect("A", "B")
    wires.settle()
    agree(wires)
    assert len(a.table) == 40
    assert len(a.table.tombstones) == 10


def test_an_empty_server_gets_tombstones_and_entries_at_once() -> None:
    a, b = WiredServer("A"), WiredServer("B")
    a.learn([b"AT Z +0.000000000 plum +1+1 5"])
    forget(a)
    a.node.flood()
    wires = Wires(a, b)
    wires.connect("A", "B")
    wires.settle()
    agree(wires)
    assert len(everything(b)) == 2


def test_a_report_that_lost_against_an_erased_one_on_its_way_comes_back_from_where_it_is_still_stored() -> (
    None
):
    wires = herd("AB")
    a, b = (wires.servers[name] for name in "AB")
    a.report(iamat(time="5"), received=5 * SECOND)
    a.node.flood()
    forget(a, at=6 * SECOND)
    a.node.flood()
    later = b.report(iamat(time="4"), received=7 * SECOND).answer  # before B hears of anything
    b.node.flood()
    wires.settle()
    assert a.line() == later
    agree(wires)


def test_what_is_erased_in_the_turn_in_which_it_came_is_told_to_nobody() -> None:
    wires = herd("AB")
    a = wires.servers["A"]
    wires.forget_traffic()
    a.report()
    a.report(iamat("plum"))
    reply = forget(a)
    a.node.flood()
    wires.settle()
    told = [line for line in wires.said["A", "B"] if line.startswith((b"AT ", b"GONE "))]
    assert told == [a.line("plum"), reply.answer]
    agree(wires)


def test_what_is_learned_again_after_an_erasure_in_the_same_turn_is_told_once() -> None:
    wires = herd("AB", "AC", "AD")
    a = wires.servers["A"]
    taken_late, taken_early = (
        b"AT Z %b kiwi +1+1 %b" % one for one in [(b"+4.000000000", b"3"), (b"+1.000000000", b"4")]
    )
    tombstone = a.table.tombstone(b"kiwi", 6 * SECOND).line  # of what was taken in second 5
    for name, lines in (("B", [taken_late, taken_early, tombstone]), ("C", [taken_late])):
        a.links[name].receive_data(b"".join(line + b"\n" for line in lines), 0)
        a.node.receive(a.links[name], ALL, 0)
    a.node.flood()
    assert {name: a.links[name].data_to_send(0) for name in "BCD"} == {
        "B": taken_late + b"\n",
        "C": tombstone + b"\n",
        "D": taken_late + b"\n" + tombstone + b"\n",
    }


def test_a_tombstone_from_the_future_or_out_of_form_is_skipped_and_noted() -> None:
    wires = herd("AB")
    a, b = (wires.servers[name] for name in "AB")
    b.node.rules.begin(NOW, takes_reports=True)
    b.report(iamat("kiwi"), received=NOW)
    early, most = (a.table.tombstone(b"kiwi", NOW + DAY + more).line for more in (1, 0))
    a.links["B"].send_updates(early + b"\nGONE x 1\n")
    wires.settle()
    skipped = [note for note in b.node.take_notes() if isinstance(note, Skipped)]
    assert skipped == [Skipped("A", early, FROM_THE_FUTURE), Skipped("A", b"GONE x 1", "no GONE line")]
    assert len(b.table.tombstones) == 0
    a.links["B"].send_updates(most + b"\n")
    wires.settle()
    assert (b.line(), len(b.table.tombstones)) == (None, 1)


def test_each_side_notes_by_how_much_the_other_s_clock_is_ahead() -> None:
    wires = Wires(WiredServer("A"), WiredServer("B"))
    for name, clock in (("A", 7), ("B", 5)):
        wires.servers[name].node.rules.begin(clock, takes_reports=True)
    wires.connect("A", "B")
    wires.settle()
    for name, other, ahead in (("A", "B", -2), ("B", "A", 2)):
        notes = wires.servers[name].node.take_notes()
        assert [note for note in notes if isinstance(note, OtherClock)] == [OtherClock(other, ahead)]
    a = wires.servers["A"].node
    a.rules.begin(1_007, takes_reports=True)
    a.tick(Timing().compare_seconds + 1)
    wires.settle()
    assert OtherClock("A", 1_002) in wires.servers["B"].node.take_notes()


class OldServer(WiredServer):
    """A server of the first version of the protocol."""


def old_herd(edge: str) -> Wires:
    """Two servers whose link speaks version 1."""
    wires = Wires(*(WiredServer(name) for name in sorted(edge)))
    for link in wires.connect(*edge):
        link._handshake._offer = b"1"
        if link.dialled:
            link.out[0] = link.out[0].replace(b" 2,1 ", b" 1 ")
    wires.settle()
    return wires


def test_a_neighbour_of_the_first_version_is_linked_until_somebody_is_erased() -> None:
    wires = old_herd("AB")
    a, b = (wires.servers[name] for name in "AB")
    a.report()
    wires.settle()
    assert b.line() == a.line() is not None
    assert a.links["B"].is_old
    a.node.take_notes()
    wires.forget_traffic()
    until(forget(a))
    wires.settle()
    assert [note for note in a.node.take_notes() if isinstance(note, LinkDown)] == [LinkDown("B", OUTDATED)]
    assert not any(line.startswith(b"GONE") for line in wires.said["A", "B"])


def test_a_neighbour_of_the_first_version_stays_if_an_erasure_cannot_be_kept() -> None:
    wires = old_herd("AB")
    a = wires.servers["A"]
    until(forget(a))
    a.node.undo()
    wires.settle()
    assert [*a.node.linked] == ["B"]


def test_a_neighbour_of_the_first_version_never_gets_a_clock_or_terms_and_its_gone_lines_are_skipped() -> (
    None
):
    wires = old_herd("AB")
    a, b = (wires.servers[name] for name in "AB")
    a.node.tick(Timing().compare_seconds + 1)
    wires.settle()
    assert not any(line.startswith((b"CLOCK", b"TERMS")) for line in wires.said["A", "B"])
    b.links["A"].send_updates(Tombstone(bytes(16), 1).line + b"\n")
    wires.settle()
    assert len(a.table.tombstones) == 0
    assert [note.reason for note in a.node.take_notes() if isinstance(note, Skipped)] == ["no GONE line"]


def test_a_link_of_the_first_version_that_comes_up_behind_the_first_erasure_is_closed() -> None:
    wires = Wires(WiredServer("A"), WiredServer("B"))
    dialler, _ = wires.connect("A", "B")
    dialler._handshake._offer = b"1"
    dialler.out[0] = dialler.out[0].replace(b" 2,1 ", b" 1 ")
    until(forget(wires.servers["B"]))
    wires.settle()
    assert wires.servers["B"].links["A"].reason == OUTDATED
    assert list(wires.servers["B"].node.linked) == []


def test_lines_of_an_erased_client_are_told_nowhere_by_a_walk() -> None:
    """A walk that began before the erasure may have asked for the client's line."""
    wires = Wires(WiredServer("A"), WiredServer("B"))
    a, b = (wires.servers[name] for name in "AB")
    b.learn(b"AT Z +0.000000000 client-%d +1+1 5" % number for number in range(100))
    wires.connect("A", "B")
    for _ in range(6):
        wires.turns()
    until(forget(a, "client-7"))
    wires.settle()
    agree(wires)
    assert a.line("client-7") is None
    assert all(received(entry.line) > a.table.erased_until(client) for client, entry in a.table)
    assert ALL > len(a.table) == 99
