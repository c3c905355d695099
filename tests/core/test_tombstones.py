"""The laws of erasure in one table: what a tombstone covers is gone in any order, and digests tell tombstones too."""

from __future__ import annotations

from itertools import permutations
from random import Random
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd.core.messages import Entry, parse_at, received
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Room, Table
from proxyherd.core.tombstones import Tombstone, Tombstones, parse_gone, parse_learned

KEY = bytes(range(32))
ROOM = Room(clients=1_000, bytes=1_000_000)
SECOND = 10**9
CLIENTS = [b"kiwi", b"plum", b"fig", b"long" * 40]


def at(client: bytes, time: int, late: int = 0) -> bytes:
    """A line of a report with this time, received so much later; both in seconds."""
    return b"AT Clark +%d.000000000 %b +1+1 %d" % (late, client, time)


def learn(table: Table, line: bytes) -> bool | None:
    """Learn a line as from a neighbour; return whether it was news."""
    learned = parse_learned(line)
    assert learned is not None
    if isinstance(learned, Tombstone):
        return table.erase(learned) is not None
    return table.admit(learned.client, learned.entry, ROOM)


def erase(table: Table, client: bytes, seconds: int) -> None:
    table.erase(table.tombstone(client, seconds * SECOND))


def lines_of(table: Table) -> set[bytes]:
    """All lines, of entries and of tombstones."""
    return {*table.lines(0, table.leaf_count, 1 << 30)[0]}


def digests(table: Table) -> list[int]:
    assert table.sweep(0, table.leaf_count, 1 << 30) == table.leaf_count
    return [*table.children(""), *table._digests[-1]]


# A tombstone and its line. ------------------------------------------------------------------------------------


def test_the_line_of_a_tombstone_comes_back_as_it_was() -> None:
    tombstone = Tombstone(bytes(range(16)), 1_621_464_827_959_498_503)
    assert tombstone.line == b"GONE 000102030405060708090a0b0c0d0e0f 1621464827959498503"
    assert parse_gone(tombstone.line) == parse_learned(tombstone.line) == tombstone
    assert (tombstone.entry, tombstone.received) == (Entry(tombstone.line, tombstone.until), tombstone.until)


@pytest.mark.parametrize(
    "line",
    [
        b"GONE 000102030405060708090A0b0c0d0e0f 1",
        b"GONE 000102030405060708090a0b0c0d0e 1",
        b"GONE 000102030405060708090a0b0c0d0e0f0 1",
        b"GONE 000102030405060708090a0b0c0d0e0f 0",
        b"GONE 000102030405060708090a0b0c0d0e0f 01",
        b"GONE 000102030405060708090a0b0c0d0e0f -1",
        b"GONE 000102030405060708090a0b0c0d0e0f 1.5",
        b"GONE 000102030405060708090a0b0c0d0e0f " + b"9" * 23,
        b"GONE  000102030405060708090a0b0c0d0e0f 1",
        b"GONE 000102030405060708090a0b0c0d0e0f 1 ",
        b"GONE 000102030405060708090a0b0c0d0e0f 1\n",
        b"gone 000102030405060708090a0b0c0d0e0f 1",
        b"GONE",
        b"",
    ],
)
def test_a_line_of_another_form_is_no_tombstone(line: bytes) -> None:
    assert parse_gone(line) is None


def test_a_tombstone_has_a_keyed_hash_that_begins_with_the_leaf_and_no_id() -> None:
    table = Table(KEY, 2)
    digests_of = {client: table.tombstone(client, 1).digest for client in CLIENTS}
    for client, digest in digests_of.items():
        assert digest[0] == table.leaf(client)
        assert client not in table.tombstone(client, 1).line
        assert Table(bytes(32), 2).tombstone(client, 1).digest != digest
    assert len({digest[1:] for digest in digests_of.values()}) == len(CLIENTS)
    large = Table(KEY, SIZES.depth)
    digest = large.tombstone(b"kiwi", 1).digest
    assert (len(digest), int.from_bytes(digest[:2], "big")) == (16, large.leaf(b"kiwi"))


# What it covers. ----------------------------------------------------------------------------------------------


def test_a_tombstone_removes_what_was_received_up_to_its_moment_whatever_time_the_client_named() -> None:
    for time, late, stays in [
        (10, 0, False),
        (5, 5, False),
        (999, -989, False),
        (5, 6, True),
        (999, -988, True),
    ]:
        table = Table(KEY, 2)
        learn(table, b"AT Clark %b%d.000000000 kiwi +1+1 %d" % (b"-+"[late >= 0 :][:1], abs(late), time))
        erase(table, b"kiwi", 10)
        assert (table.get(b"kiwi") is not None) == stays
        assert len(table) == int(stays)


def test_a_covered_line_is_neither_learned_nor_taken_and_a_later_one_is() -> None:
    table = Table(KEY, 2)
    erase(table, b"kiwi", 10)
    old, new = Entry(at(b"kiwi", 9), 9), Entry(at(b"kiwi", 8, 3), 8)
    assert table.admit(b"kiwi", old, ROOM) is table.advance(b"kiwi", old, ROOM) is False
    assert table.is_erased(b"kiwi", old.line)
    assert not table.is_erased(b"kiwi", new.line)
    assert table.advance(b"kiwi", new, ROOM) is None
    assert lines_of(table) == {new.line, table.tombstone(b"kiwi", 10 * SECOND).line}


def test_nobody_else_is_touched() -> None:
    table = Table(KEY, 2)
    for client in CLIENTS:
        learn(table, at(client, 5))
    size = table.bytes
    erase(table, b"kiwi", 10)
    assert {client for client, _ in table} == {*CLIENTS} - {b"kiwi"}
    assert table.bytes == size - len(b"kiwi") - len(at(b"kiwi", 5))
    assert [table.erased_until(client) for client in CLIENTS] == [10 * SECOND, 0, 0, 0]


def test_an_earlier_tombstone_changes_nothing() -> None:
    table = Table(KEY, 2)
    erase(table, b"kiwi", 10)
    before = digests(table)
    for moment in (10, 9, 1):
        assert table.erase(table.tombstone(b"kiwi", moment)) is None
    assert (digests(table), table.erased_until(b"kiwi")) == (before, 10 * SECOND)


def test_an_erasure_can_be_undone() -> None:
    table = Table(KEY, 2)
    learn(table, at(b"kiwi", 5))
    before, empty = digests(table), lines_of(table)
    for moment in (10, 20):
        tombstone = table.tombstone(b"kiwi", moment * SECOND)
        erasure = table.erase(tombstone)
        assert erasure is not None
        table.restore(tombstone, erasure)
    assert (digests(table), lines_of(table), len(table.tombstones)) == (before, empty, 0)


def test_tombstones_of_long_ago_are_dropped_leaf_by_leaf() -> None:
    table = Table(KEY, 2)
    for moment, client in enumerate(CLIENTS, 1):
        erase(table, client, moment)
    leaf = table.leaf(b"kiwi")
    table.drop_tombstones(0, leaf, 3 * SECOND)
    assert table.erased_until(b"kiwi") == SECOND, "its leaf comes later"
    table.drop_tombstones(0, table.leaf_count, 3 * SECOND)
    assert [table.erased_until(client) for client in CLIENTS] == [0, 0, 3 * SECOND, 4 * SECOND]
    kept = Table(KEY, 2)
    erase(kept, CLIENTS[2], 3)
    erase(kept, CLIENTS[3], 4)
    assert digests(table) == digests(kept)


# The merge. ---------------------------------------------------------------------------------------------------

SAID = st.one_of(
    st.builds(at, st.sampled_from(CLIENTS[:2]), st.integers(1, 9), st.integers(0, 9)),
    st.builds(
        lambda client, moment: Table(KEY, 2).tombstone(client, moment * SECOND).line,
        st.sampled_from(CLIENTS[:2]),
        st.integers(1, 18),
    ),
)


class Model(NamedTuple):
    """What is to be held of these lines in the end: for each client, its tombstone and its line."""

    said: list[bytes]

    def lines(self) -> set[bytes]:
        held: set[bytes] = set()
        for client in CLIENTS[:2]:
            digest = Table(KEY, 2).tombstone(client, 1).digest
            gone = [stone for line in self.said if (stone := parse_gone(line)) and stone.digest == digest]
            until = max((stone.until for stone in gone), default=0)
            ats = [one for line in self.said if (one := parse_at(line)) and one.client == client]
            left = [(one.entry.nanoseconds, one.entry.line) for one in ats if one.received > until]
            held |= {line for _, line in [max(left)]} if left else set()
            held |= {Tombstone(digest, until).line} if until else set()
        return held


def merged(said: list[bytes]) -> Table:
    table = Table(KEY, 2)
    for line in said:
        learn(table, line)
    return table


@given(st.lists(SAID, max_size=8), st.randoms())
@settings(max_examples=150, deadline=None)
def test_whoever_has_heard_everything_twice_holds_the_same_in_any_order(
    said: list[bytes], rng: Random
) -> None:
    orders = [said[:], said[:]]
    for order in orders:
        rng.shuffle(order)
    one, other = (merged(order * 2) for order in orders)
    assert lines_of(one) == lines_of(other) == Model(said).lines()
    assert digests(one) == digests(other)
    for line in said:
        assert not learn(one, line)


@given(st.lists(SAID, max_size=8))
@settings(max_examples=150, deadline=None)
def test_what_is_held_after_one_hearing_is_covered_by_no_tombstone_and_misses_only_what_had_lost(
    said: list[bytes],
) -> None:
    table, due = merged(said), Model(said).lines()
    assert {line for line in lines_of(table) if parse_gone(line)} == {
        line for line in due if parse_gone(line)
    }
    for client, entry in table:
        assert received(entry.line) > table.erased_until(client)
    for line in due - lines_of(table):  # it has lost against a line that was erased afterwards
        at_line = parse_at(line)
        assert at_line is not None
        ats = [one for one in map(parse_at, said) if one is not None and one.client == at_line.client]
        assert any(
            (one.entry.nanoseconds, one.entry.line) > (at_line.entry.nanoseconds, line)
            and table.is_erased(one.client, one.entry.line)
            for one in ats
        )


def test_a_line_that_had_lost_comes_back_only_from_who_still_has_it() -> None:
    winner, loser = at(b"kiwi", 8), at(b"kiwi", 5, 4)  # received at 8, and at 9
    gone = Table(KEY, 2).tombstone(b"kiwi", 8 * SECOND).line
    held = {order: lines_of(merged([*order])) for order in permutations([winner, loser, gone])}
    lost = [order for order, lines in held.items() if lines == {gone}]
    assert {*map(frozenset, held.values())} == {frozenset({gone}), frozenset({gone, loser})}
    assert all(
        order.index(loser) < order.index(gone) and order.index(winner) < order.index(gone) for order in lost
    )


@given(st.lists(SAID, max_size=6), st.lists(SAID, max_size=6))
@settings(max_examples=100, deadline=None)
def test_digests_agree_exactly_when_the_lines_do(some: list[bytes], others: list[bytes]) -> None:
    one, other = merged(some), merged(others)
    assert (digests(one) == digests(other)) == (lines_of(one) == lines_of(other))
    leaves = {table.leaf(client) for table in (one, other) for client in CLIENTS}
    for leaf in leaves:
        known = frozenset(other.hashes(leaf))
        assert {*one.lines_beside(leaf, known)} == {*one.lines_of(leaf)} - {*other.lines_of(leaf)}


def test_tombstones_are_counted_as_they_come_and_go() -> None:
    tombstones = Tombstones()
    tombstones.put(b"a", 1, 5)
    tombstones.put(b"b", 1, 5)
    tombstones.put(b"a", 2, 5)
    assert (len(tombstones), tombstones.until(b"a", 5), tombstones.until(b"a", 6)) == (2, 2, 0)
    tombstones.put(b"a", 0, 5)
    tombstones.put(b"b", 0, 5)
    assert (len(tombstones), tombstones.leaves) == (0, {})
