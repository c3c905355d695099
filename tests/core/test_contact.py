"""A server that was cut off, or suspended, for so long that nobody may know any more who was erased meanwhile."""

from __future__ import annotations

import pytest
from deciding import decide
from wired import KEY, SECOND, WiredServer, Wires, iamat, whatsat

from proxyherd.config.schema import ErasureSettings, Limits, Timing
from proxyherd.core.contact import Contact
from proxyherd.core.erasures import longest_absence
from proxyherd.core.messages import Forget
from proxyherd.core.node import Node
from proxyherd.core.table import Table

NOW = 1_700_000_000 * SECOND
DAY = 86_400 * SECOND
TOO_LONG = longest_absence(ErasureSettings())
KEEP = 30 * DAY


class Cut:
    """Three servers in a row; the last one was cut off, for so many nanoseconds, and the others have gone on."""

    def __init__(self, away: int, limits: Limits | None = None) -> None:
        self.servers = [WiredServer(name, limits=limits) for name in "ABC"]
        self.wires = Wires(*self.servers)
        self.clock = NOW
        self._set_clocks()
        self.wires.connect("A", "B")
        self.wires.connect("B", "C")
        self.report(0, "before", "victim")
        self.wires.settle()
        self._tick()
        assert self.clients(2) == {"before", "victim"}
        self.cut = self.servers[2]
        self.clock += SECOND
        self._set_clocks()
        self.break_link()
        self.report(2, "own-early")
        self.report(0, "others-early")
        decide(self.servers[0].node, Forget(b"victim"), self.clock)
        self.wires.settle()
        end = self.clock + away - 2 * SECOND
        while self.clock < end:  # they run all the time
            self.clock = min(self.clock + DAY, end)
            self._set_clocks()
            self._tick()
        self.report(2, "own-late", "before")
        self.report(0, "others-late")
        self.wires.settle()
        self.clock += SECOND
        self._set_clocks()
        for server in self.servers:
            server.table.drop_tombstones(0, server.table.leaf_count, server.node.erasures.oldest)

    def break_link(self) -> None:
        for server, peer in (("B", "C"), ("C", "B")):
            link = self.wires.servers[server].links.pop(peer)
            link.close("cut")
            self.wires.servers[server].node.closed(link)

    def _set_clocks(self) -> None:
        for server in self.servers:
            server.node.rules.clock = self.clock

    def _tick(self) -> None:
        for server in self.servers:
            server.node.tick(self.wires.now)

    def report(self, server: int, *clients: str) -> None:
        """Let clients report; the place says which server took it."""
        for client in clients:
            line = iamat(client, str(self.clock // SECOND), f"+{server}+{server}")
            assert decide(self.servers[server].node, line, self.clock).outcome == "stored"
        self.servers[server].node.flood()

    def clients(self, server: int) -> set[str]:
        return {client.decode() for client, _ in self.servers[server].table}

    def link_again(self) -> None:
        self.wires.connect("B", "C")
        self.wires.settle()
        lines = [server.lines() for server in self.servers]
        assert lines[0] == lines[1] == lines[2]


OTHERS = {"others-early", "others-late"}


def test_a_server_that_was_cut_off_for_too_long_brings_back_nobody_and_keeps_what_it_has_taken_lately() -> (
    None
):
    herd = Cut(KEEP + DAY)
    assert herd.clients(2) == {"before", "victim", "own-early", "own-late"}
    assert not any(server.table.gone for server in herd.servers), "nobody knows the erasure any more"
    herd.link_again()
    assert herd.clients(0) == {"before", "own-late"} | OTHERS
    line = herd.servers[0].line("before")
    assert line is not None
    assert line.startswith(b"AT C "), "what it has taken meanwhile is later"
    assert not any(b"victim" in line for line in herd.wires.said["C", "B"])


def test_a_server_that_was_not_cut_off_for_too_long_keeps_everything_and_learns_who_was_erased() -> None:
    herd = Cut(TOO_LONG - DAY)
    said = len(herd.wires.said["C", "B"])
    herd.link_again()
    assert herd.clients(0) == {"before", "own-early", "own-late"} | OTHERS
    assert herd.cut.node.contact.doubted == 0
    assert len(herd.wires.said["C", "B"]) > said


def test_it_knows_nobody_whom_it_has_dropped_until_it_has_caught_up_and_queries_wait() -> None:
    herd = Cut(KEEP + DAY)
    herd.cut.node.ready = True
    link, _ = herd.wires.connect("B", "C")[::-1]
    while not link.proved:
        herd.wires.turns()
    assert not herd.cut.node.ready
    assert not herd.cut.node.caught_up
    for client in ("victim", "own-late", "nobody"):
        assert decide(herd.cut.node, whatsat(client), herd.clock).outcome == "waiting"
    herd.wires.settle()
    assert herd.cut.node.ready
    assert herd.cut.node.caught_up
    assert decide(herd.cut.node, whatsat("own-late"), herd.clock).outcome == "found"
    assert decide(herd.cut.node, whatsat("victim"), herd.clock).outcome == "unknown"


def test_while_it_is_cut_off_it_serves_what_it_has() -> None:
    herd = Cut(KEEP + DAY)
    herd.cut.node.tick(herd.wires.now)
    assert decide(herd.cut.node, whatsat("before"), herd.clock).outcome == "found"


def test_a_server_that_was_suspended_sets_aside_what_is_in_doubt_before_it_notices_that_its_links_are_dead() -> (
    None
):
    herd = Cut(SECOND * 3)
    herd.link_again()
    for server in herd.servers:
        server.node.tick(herd.wires.now)
    assert herd.cut.node.contact.last == herd.clock
    herd.cut.node.rules.clock = herd.clock + TOO_LONG
    herd.cut.node.tick(herd.wires.now)
    assert len(herd.cut.table) > 0, "not yet"
    herd.cut.node.contact.last = herd.clock
    herd.cut.node.rules.clock = herd.clock + TOO_LONG + 1
    herd.cut.node.tick(herd.wires.now)
    assert len(herd.cut.table) == 0
    assert herd.cut.node.contact.doubted == herd.clock
    assert herd.cut.node.contact.last == herd.clock + TOO_LONG + 1
    assert not [*herd.cut.node.linked], "both say again since when they have had the table"
    herd.link_again()
    assert herd.clients(2) == herd.clients(0), "where only the clock has jumped"


@pytest.mark.parametrize(
    ("last", "clock", "lost"),
    [
        (NOW, NOW + TOO_LONG, False),
        (NOW, NOW + TOO_LONG + 1, True),
        (NOW, NOW - 2 * TOO_LONG, False),
        (5 * SECOND, NOW, False),
        (0, NOW, False),
    ],
    ids=["long", "too long", "back", "a clock that was never set", "no contact yet"],
)
def test_a_server_was_lost_if_it_was_without_contact_for_too_long(last: int, clock: int, lost: bool) -> None:
    contact = Contact("A", TOO_LONG)
    contact.last = last
    assert contact.was_lost(clock) is lost


def test_a_server_that_has_just_begun_again_is_not_lost_again_before_its_next_contact() -> None:
    herd = Cut(KEEP + DAY)
    herd.wires.connect("B", "C")
    while not herd.servers[2].links["B"].proved:
        herd.wires.turns()
    herd.break_link()
    herd.report(2, "own-last")
    herd.link_again()
    assert herd.clients(0) == {"before", "own-last", "own-late"} | OTHERS
    assert herd.cut.node.contact.doubted == NOW, "the journal is as old as that"


@pytest.mark.parametrize("links_seem_to_live", [False, True])
def test_a_herd_that_was_suspended_as_a_whole_keeps_its_table(links_seem_to_live: bool) -> None:
    herd = Cut(SECOND * 3)
    herd.link_again()
    for server in herd.servers:
        server.node.tick(herd.wires.now)
    before = herd.clients(0)
    for server in herd.servers:
        server.node.rules.clock += KEEP + DAY
        if links_seem_to_live:
            server.node.tick(herd.wires.now)
            assert server.node.contact.aside is not None
    if links_seem_to_live:
        herd.wires.settle()
        assert not any([*server.node.linked] for server in herd.servers), (
            "they told before the sleep what they had"
        )
    herd.wires.connect("A", "B")
    herd.link_again()
    assert [herd.clients(number) for number in range(3)] == [before] * 3
    assert [server.node.contact.dropped for server in herd.servers] == [0] * 3


def test_a_server_to_which_all_others_come_back_after_a_long_time_is_the_herd() -> None:
    """They have started empty, and know nothing of meanwhile. So nobody was erased there."""
    herd = Cut(KEEP + DAY)
    before = herd.clients(2)
    for name in "AB":
        server = herd.wires.servers[name] = WiredServer(name)
        herd.servers["AB".index(name)] = server
        server.node.rules.clock = server.node.contact.began = herd.clock
    herd.wires.connect("A", "B")
    herd.report(0, "just-come")
    herd.link_again()
    assert herd.clients(0) == before | {"just-come"}
    assert herd.cut.node.contact.aside is None
    assert herd.cut.node.contact.doubted == 0, "the journal is good"


def test_what_is_set_aside_survives_a_link_that_breaks_and_a_client_that_is_erased_meanwhile_does_not() -> (
    None
):
    herd = Cut(KEEP + DAY)
    before = herd.clients(2)
    for name in "AB":
        server = herd.wires.servers[name] = WiredServer(name)
        herd.servers["AB".index(name)] = server
        server.node.rules.clock = server.node.contact.began = herd.clock
    herd.wires.connect("A", "B")
    herd.wires.connect("B", "C")
    while not herd.servers[2].links["B"].proved:
        herd.wires.turns()
    herd.break_link()
    assert herd.clients(2) == {"before", "own-late"}
    decide(herd.cut.node, Forget(b"victim"), herd.clock)
    decide(herd.cut.node, Forget(b"own-late"), herd.clock)
    herd.cut.node.flood()
    herd.link_again()
    assert herd.clients(0) == before - {"victim", "own-late"}


@pytest.mark.parametrize(
    ("began", "drops"), [(0, True), (NOW, True), (NOW + 1, False)], ids=["always", "as long", "later"]
)
def test_what_is_set_aside_is_dropped_if_a_neighbour_has_had_the_table_all_the_time(
    began: int, drops: bool
) -> None:
    server = WiredServer("C")
    server.learn([b"AT B +0.000000000 kiwi +1+1 5"])
    contact = Contact("C", TOO_LONG)
    contact.last = NOW
    contact.set_aside(server.table, NOW + KEEP)
    assert contact.of_journal == NOW
    assert len(contact.caught_up(began)) == (not drops)
    assert (contact.dropped, contact.doubted, contact.aside) == (drops, NOW * drops, None)
    assert contact.caught_up(NOW + 1) == {}
    assert contact.doubted == NOW * drops, "until the journal is rewritten"


def test_since_when_there_is_a_table_is_learned_by_catching_up() -> None:
    servers = [WiredServer(name) for name in "ABC"]
    wires = Wires(*servers)
    for server, began in zip(servers, (NOW, 0, NOW + 1), strict=True):
        server.node.contact.began = began
    wires.connect("A", "C")
    wires.settle()
    assert [server.node.contact.began for server in servers] == [NOW, 0, NOW]
    wires.connect("B", "C")
    wires.settle()
    assert [server.node.contact.began for server in servers] == [NOW, 0, 0]


def test_of_a_table_that_evicts_the_lines_in_doubt_are_counted_out() -> None:
    limits = Limits(on_full="evict", max_clients=4_096 * 4)
    herd = Cut(KEEP + DAY, limits=limits)
    herd.link_again()
    assert herd.clients(0) == {"before", "own-late"} | OTHERS
    assert len(herd.cut.table) == 4
    assert herd.cut.table.bytes == herd.servers[0].table.bytes


@pytest.mark.parametrize(
    ("line", "stays"),
    [
        (b"AT C +0.000000000 kiwi +1+1 1700000000", False),
        (b"AT C +0.000000001 kiwi +1+1 1700000000", True),
        (b"AT C -0.000000001 kiwi +1+1 1700000001", True),
        (b"AT CC +0.000000001 kiwi +1+1 1700000000", False),
        (b"AT B +9.000000000 kiwi +1+1 1700000000", False),
    ],
)
def test_only_what_a_server_has_received_itself_while_others_still_know_who_was_erased_is_in_no_doubt(
    line: bytes, stays: bool
) -> None:
    server = WiredServer("C")
    server.learn([line])
    contact = Contact("C", TOO_LONG)
    contact.last = NOW - DAY
    contact.set_aside(server.table, NOW + TOO_LONG)
    assert (len(server.table) == 1) is stays


def test_a_server_without_neighbours_is_never_lost() -> None:
    node = Node("A", Table(KEY), Limits(), Timing(), alone=True, now=0.0)
    node.rules.clock = NOW
    node.tick(0.0)
    node.rules.clock = NOW + 2 * KEEP
    node.tick(1.0)
    assert node.contact.last == node.contact.doubted == 0
