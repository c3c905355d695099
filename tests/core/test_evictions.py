"""A full table makes room, and servers that learn the same lines end with the same clients, whatever the order."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wired import SECOND, TIMING, WiredServer, herd, iamat

from proxyherd.config.schema import Limits
from proxyherd.core.evictions import _GROUP_BYTES, _GROUP_CLIENTS, EvictingTable
from proxyherd.core.messages import At, Entry, parse_at
from proxyherd.core.reply import Reply
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Evicted, Room, Table

KEY = bytes(range(32))
NO_LIMIT = Room(1 << 60, 1 << 60)


def at(client: int, time: int, size: int = 0) -> At:
    """Return a line of a client, with a location of so many more digits."""
    found = parse_at(b"AT Clark +0.000000000 c%d +1.%b+1 %d" % (client, b"1" * (size + 1), time))
    assert found is not None
    return found


def table_of(clients: int = 10**9, size: int = 10**9, lines: list[At] | None = None) -> EvictingTable:
    table = EvictingTable(KEY, Room(clients, size), depth=2)
    for one in lines or []:
        table.admit(one.client, one.entry, NO_LIMIT)
    return table


def clients_of(table: Table) -> set[bytes]:
    return {client for client, _ in table}


def digests(table: Table) -> list[int]:
    table.sweep(0, table.leaf_count, 10**9)
    return table.children("")


def consistent(table: EvictingTable) -> None:
    """Check what it counts against what it holds, and that no group is over its limits."""
    each = table.leaf_count // len(table._clients_in)
    for group, (count, size) in enumerate(zip(table._clients_in, table._bytes_in, strict=True)):
        held = table.entries(group * each, (group + 1) * each)
        assert count == len(held) <= table._most.clients
        assert size == sum(len(client) + len(entry.line) for client, entry in held) <= table._most.bytes
        lowest = table._lowest.get(group)
        if lowest:
            listed = {line for _, line, _ in lowest}
            assert lowest == sorted(lowest)
            for _, entry in held:
                assert entry.line in listed or (entry.nanoseconds, entry.line) > lowest[-1][:2]
    assert len(table) == sum(table._clients_in)
    assert table.bytes == sum(table._bytes_in)


lines = st.lists(
    st.builds(at, st.integers(0, 12), st.integers(1, 30), st.sampled_from([0, 0, 10, 60])), max_size=40
)


# Who leaves. ---------------------------------------------------------------------------------------------------


def test_the_client_with_the_earliest_time_leaves_and_is_told() -> None:
    table = table_of(3, lines=[at(number, time) for number, time in ((1, 7), (2, 5), (3, 6))])
    new, late = at(4, 8), at(2, 9)
    gone = table.advance(new.client, new.entry, NO_LIMIT)
    assert gone == Evicted(None, ((b"c2", at(2, 5).entry),))
    assert clients_of(table) == {b"c1", b"c3", b"c4"}
    assert table.admit(late.client, late.entry, NO_LIMIT) is True
    assert clients_of(table) == {b"c1", b"c2", b"c4"}
    assert table.evicted == 2
    consistent(table)


def test_one_that_is_older_than_all_is_refused_and_nobody_leaves() -> None:
    table = table_of(3, lines=[at(number, 5) for number in range(3)])
    before, old = dict(table), at(9, 4)
    assert table.advance(old.client, old.entry, NO_LIMIT) is False
    assert table.admit(old.client, old.entry, NO_LIMIT) is False, "that is no fault of the neighbour"
    assert (dict(table), table.evicted) == (before, 0)


def test_a_client_that_reports_stays_however_many_come() -> None:
    table = table_of(50)
    for time in range(1, 2_000):
        for one in (at(0, time), at(time, time)):
            assert table.advance(one.client, one.entry, NO_LIMIT) is not False
    assert b"c0" in clients_of(table)
    assert clients_of(table) == {b"c0", *(b"c%d" % number for number in range(2_000 - 49, 2_000))}
    consistent(table)


def test_for_a_longer_line_as_many_leave_as_its_bytes_need_and_none_if_it_does_not_fit_itself() -> None:
    size = len(at(1, 1).client + at(1, 1).entry.line)
    table = table_of(size=5 * size, lines=[at(number, number) for number in (1, 2, 3, 4, 5)])
    before = dict(table)
    for too_long in (at(5, 9, size=5 * size), at(3, 4, size=3 * size)):
        assert table.advance(too_long.client, too_long.entry, NO_LIMIT) is False
        assert dict(table) == before
        consistent(table)
    longer = at(1, 9, size=size)
    gone = table.advance(longer.client, longer.entry, NO_LIMIT)
    assert gone == Evicted(at(1, 1).entry, ((b"c2", at(2, 2).entry),))
    consistent(table)


def test_what_was_removed_or_put_back_counts_no_more_or_again() -> None:
    table = table_of(3, lines=[at(number, number) for number in (1, 2, 3)])
    table.remove(b"c1", table.leaf(b"c1"))
    table.remove(b"c1", table.leaf(b"c1"))
    consistent(table)
    new = at(4, 4)
    assert table.advance(new.client, new.entry, NO_LIMIT) is None
    table.put(b"c1", at(1, 1).entry, table.leaf(b"c1"))
    newer = at(5, 5)
    gone = table.advance(newer.client, newer.entry, NO_LIMIT)
    assert gone == Evicted(None, ((b"c1", at(1, 1).entry), (b"c2", at(2, 2).entry)))
    consistent(table)


# The same on all servers. --------------------------------------------------------------------------------------


@given(
    st.lists(st.builds(at, st.integers(0, 12), st.integers(1, 30)), max_size=40),
    st.integers(1, 8),
    st.randoms(),
)
@settings(deadline=None)
def test_of_lines_of_one_length_the_latest_clients_stay_whatever_the_order(
    told: list[At], clients: int, rng: Random
) -> None:
    told = [at(int(one.client[1:]), 100 + one.entry.nanoseconds // 10**9) for one in told]
    latest: dict[bytes, Entry] = {}
    for one in told:
        if (held := latest.get(one.client)) is None or one.entry.nanoseconds > held.nanoseconds:
            latest[one.client] = one.entry
    ranked = sorted(latest.items(), key=lambda item: (item[1].nanoseconds, item[1].line), reverse=True)
    for _ in range(3):
        rng.shuffle(told)
        table = table_of(clients, lines=told)
        assert dict(table) == dict(ranked[:clients])
        consistent(table)


@given(st.lists(lines, min_size=2, max_size=4), st.integers(1, 8), st.integers(100, 600), st.randoms())
@settings(max_examples=50, deadline=None)
def test_servers_that_catch_up_with_one_another_end_the_same(
    told: list[list[At]], clients: int, size: int, rng: Random
) -> None:
    """Each has learned lines of its own, in its order. Then each learns what the others hold, until nothing changes."""
    tables = [table_of(clients, size, some) for some in told]
    rounds, changes = 0, True
    while changes:
        changes = False
        for table in rng.sample(tables, len(tables)):
            for other in rng.sample(tables, len(tables)):
                held = [parse_at(entry.line) for _, entry in other]
                for one in rng.sample(held, len(held)):
                    assert one is not None
                    changes = table.admit(one.client, one.entry, NO_LIMIT) is True or changes
            consistent(table)
        rounds += 1
        assert rounds < 50, "every change makes a table greater, so they end"
    assert all(dict(table) == dict(tables[0]) for table in tables)
    assert all(digests(table) == digests(tables[0]) for table in tables)


@given(lines, st.integers(1, 8), st.integers(100, 600))
@settings(deadline=None)
def test_learning_the_same_again_changes_nothing(told: list[At], clients: int, size: int) -> None:
    table = table_of(clients, size, told)
    before = dict(table)
    for entry in before.values():
        one = parse_at(entry.line)
        assert one is not None
        assert table.admit(one.client, one.entry, NO_LIMIT) is False
    assert dict(table) == before


# As part of a server. --------------------------------------------------------------------------------------------


def test_at_the_tables_limit_the_client_of_the_earliest_report_makes_room_if_that_is_configured() -> None:
    server = WiredServer("A", limits=Limits(max_clients=2, on_full="evict"))
    for client, time in (("a", "3"), ("b", "2"), ("c", "4")):
        assert server.report(iamat(client, time=time)).outcome == "stored"
    assert (server.line("b"), len(server.node.news), server.table.evicted) == (None, 3, 1)
    reply = server.report(iamat("d", time="1"))
    assert reply == Reply("iamat", "refused", b"? " + iamat("d", time="1"), refusal="full")


def test_reports_that_could_not_be_journalled_give_their_room_back() -> None:
    server = WiredServer("A", limits=Limits(max_clients=2, on_full="evict"))
    for client, time in (("a", "1"), ("b", "2")):
        server.report(iamat(client, time=time))
    server.node.flood()
    before = server.lines()
    for client, time in (("c", "3"), ("b", "4"), ("d", "5"), ("e", "6"), ("b", "7"), ("a", "8")):
        assert server.report(iamat(client, time=time)).outcome == "stored"
    server.node.undo()
    assert (server.lines(), server.table.evicted) == (before, 0)
    assert server.report(iamat("c", time="3")).outcome == "stored"
    assert server.line("a") is None


@pytest.mark.parametrize("seed", range(8))
def test_full_tables_that_make_room_end_the_same_after_floods_and_catching_up(seed: int) -> None:
    rng = Random(seed)
    few = Limits(max_clients=12, on_full="evict")
    wires = herd("AB", "BC", "CD", **{name: WiredServer(name, limits=few) for name in "ABCD"})
    for _ in range(200):
        server, client, time = rng.choice("ABCD"), f"c{rng.randrange(40)}", str(rng.randrange(1, 1_000))
        wires.servers[server].report(iamat(client, time=time), received=2_000 * SECOND)
        if rng.random() < 0.3:
            edge = rng.choice([("A", "B"), ("B", "A"), ("C", "B"), ("C", "D")])
            wires.held ^= {edge}
        if rng.random() < 0.05:
            wires.connect(
                *rng.choice([("A", "B"), ("B", "C"), ("C", "D")])
            )  # a link was lost, with what it carried
        wires.turn(rng.choice("ABCD"))
    wires.held.clear()
    wires.settle()
    for comparison in range(1, 4):
        wires.now = comparison * (TIMING.compare_seconds + 1)
        for one in wires.servers.values():
            one.node.tick(wires.now)
        wires.settle()
    first, *others = wires.servers.values()
    assert len(first.table) == 12
    assert all(one.lines() == first.lines() for one in others)


# Its parts. ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clients", "size", "groups"),
    [
        (1, 65_536, 1),
        (2 * _GROUP_CLIENTS - 1, 10**12, 1),
        (2 * _GROUP_CLIENTS, 10**12, 2),
        (10**9, 4 * _GROUP_BYTES, 4),
        (5_000_000, 10**9, 4_096),
        (10**9, 1 << 44, 65_536),
    ],
)
def test_groups_are_large_enough_to_be_about_equally_full(clients: int, size: int, groups: int) -> None:
    table = EvictingTable(KEY, Room(clients, size), SIZES.depth)
    assert len(table._clients_in) == groups
    assert table._most == Room(clients // groups, size // groups)


def test_nobody_leaves_before_the_table_is_full_to_nine_tenths() -> None:
    most = 8 * _GROUP_CLIENTS
    table = EvictingTable(KEY, Room(most, 1 << 44), SIZES.depth)
    entry = at(1, 1).entry
    for number in range(most * 9 // 10):
        assert table.advance(b"client %d" % number, entry, NO_LIMIT) is None
    for number in range(most):
        table.advance(b"later client %d" % number, at(1, 2).entry, NO_LIMIT)
    assert most * 97 // 100 < len(table) <= most


def test_a_full_group_is_searched_once_for_many_that_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    searched: list[int] = []
    search = EvictingTable._search

    def counting(self: EvictingTable, group: int) -> object:
        searched.append(group)
        return search(self, group)

    monkeypatch.setattr(EvictingTable, "_search", counting)
    table = table_of(1_000, lines=[at(number, number + 1) for number in range(1_000)])
    for number in range(1_000, 2_000):
        assert table.advance(at(number, number + 1).client, at(number, number + 1).entry, NO_LIMIT)
    assert len(searched) <= 1_000 / 64 + 1
    assert sum(map(len, table._lowest.values())) <= 2 * 64
