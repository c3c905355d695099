"""The table's laws: the greater line wins in any order, and digests tell two tables apart."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import pairwise, permutations
from operator import xor
from random import Random
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd.config.schema import Limits, Timing
from proxyherd.core.link import Link
from proxyherd.core.messages import Entry, parse_at
from proxyherd.core.node import Node
from proxyherd.core.sizes import FANOUT, SIZES
from proxyherd.core.table import _MOST_KNOWN, Room, Table

DEPTH, LEAVES = SIZES.depth, SIZES.leaves
from proxyherd.core.walks import Neighbour

KEY = bytes(range(32))
ALL = 1_000_000


def at(
    client: str, time: str, server: str = "Clark", place: str = "+1+1", difference: str = "+0.000000000"
) -> bytes:
    return f"AT {server} {difference} {client} {place} {time}".encode()


def learn(table: Table, line: bytes) -> None:
    """Learn a line as a server does that got it from a neighbour."""
    update = parse_at(line)
    assert update is not None
    node = Node("Here", table, Limits(), Timing(), alone=True, now=0)
    node._learn(Neighbour("There", cast("Link", None), 0), [update], False, node.admit)


def table_of(*lines: bytes, key: bytes = KEY) -> Table:
    table = Table(key)
    for line in lines:
        learn(table, line)
    return table


def held(table: Table) -> dict[bytes, Entry]:
    return dict(table)


def put_all(table: Table, lines: list[bytes]) -> Table:
    for line in lines:
        update = parse_at(line)
        assert update is not None
        table.put(update.client, update.entry, table.leaf(update.client))
    return table


def digests(table: Table) -> list[int]:
    """Those below the root and those of all leaves, fresh."""
    assert table.sweep(0, LEAVES, 1_000_000) == LEAVES
    return [*table.children(""), *table._digests[-1]]


RIVALS = [
    at("kiwi", "5.5"),
    at("kiwi", "5.500000000"),
    at("kiwi", "5.5", server="Bailey"),
    at("kiwi", "5.5", place="+2+2"),
    at("kiwi", "6"),
    at("plum", "5"),
]

times = st.sampled_from(["5", "5.0", "5.000000000", "05", "6", "10", "9.999999999"])
differences = st.sampled_from(
    ["+0.000000000", "-0.999999999", "-1.000000001", "-4.000000000", "+7.500000000"]
)
at_lines = st.builds(
    at,
    st.sampled_from(["kiwi", "plum", "fig"]),
    times,
    st.sampled_from(["Bona", "Clark"]),
    st.just("+1+1"),
    differences,
)


# Last writer wins. --------------------------------------------------------------------------------------------


def test_the_later_time_wins_whatever_the_bytes() -> None:
    assert held(table_of(at("kiwi", "9"), at("kiwi", "10")))[b"kiwi"].line == at("kiwi", "10")
    assert held(table_of(at("kiwi", "10"), at("kiwi", "9")))[b"kiwi"].line == at("kiwi", "10")


def test_a_time_from_the_future_wins_only_up_to_a_second_after_its_receipt() -> None:
    future = at("kiwi", "999999999999", difference="-999999999994.000000000")  # received in second 5
    for time, wins in (("5.9", False), ("6", at("kiwi", "6") > future), ("6.000000001", True)):
        honest = at("kiwi", time)
        for order in permutations([future, honest]):
            assert held(table_of(*order))[b"kiwi"].line == (honest if wins else future)


def test_of_equal_times_the_greater_line_wins_however_the_time_is_spelled() -> None:
    one, other = at("kiwi", "5.5"), at("kiwi", "5.500000000")
    for order in permutations([one, other]):
        assert held(table_of(*order))[b"kiwi"].line == max(one, other)


def test_learning_commutes() -> None:
    expected = held(table_of(*RIVALS))
    for order in permutations(RIVALS):
        assert held(table_of(*order)) == expected


@given(st.lists(at_lines, max_size=8), st.randoms())
@settings(max_examples=50, deadline=None)
def test_learning_commutes_associates_and_repeats_without_effect(lines: list[bytes], rng: Random) -> None:
    shuffled = lines * 2
    rng.shuffle(shuffled)
    table = table_of(*lines)
    assert held(table_of(*shuffled)) == held(table)
    assert digests(table_of(*shuffled)) == digests(table)
    for client, entry in table:
        same = [update for line in lines if (update := parse_at(line)) and update.client == client]
        assert entry.line == max((one.entry.nanoseconds, one.entry.line) for one in same)[1]


def test_merging_two_tables_is_the_same_from_either_side() -> None:
    one, other = table_of(*RIVALS[:3]), table_of(*RIVALS[3:])
    left, right = list(one), list(other)
    for _, entry in right:
        learn(one, entry.line)
    for _, entry in left:
        learn(other, entry.line)
    assert held(one) == held(other)


def test_a_table_counts_clients_not_lines() -> None:
    assert len(table_of(*RIVALS)) == 2
    assert len(Table(KEY)) == 0
    assert table_of(*RIVALS).get(b"unheard-of") is None


def test_a_leaf_is_the_same_whether_it_is_remembered_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.core.table._MOST_KNOWN", 3)
    table, clients = Table(KEY), [b"%d" % number for number in range(10)]
    expected = [Table(KEY).leaf(client) for client in clients]
    assert [table.leaf(client) for client in clients * 2] == expected * 2
    assert len(table._known) <= 3


# How much it holds. -------------------------------------------------------------------------------------------


ROOM = Room(clients=3, bytes=200)
CLIENTS = [b"a", b"kiwi", b"plum", b"a-client-with-a-long-name", b"fig"]

entries = st.builds(
    lambda time, server, pad: Entry(at("x", str(time), server, "+1." + "0" * pad + "+1"), time),
    st.integers(1, 4),
    st.sampled_from(["Bona", "Clark"]),
    st.integers(1, 90),
)
deeds = st.tuples(
    st.sampled_from(["put", "advance", "admit", "remove"]),
    st.sampled_from(CLIENTS),
    entries,
    st.booleans(),
)


def fits(model: dict[bytes, Entry], client: bytes, entry: Entry) -> bool:
    """Whether there is room for an entry, from its definition: nothing is refused that takes no more bytes."""
    held = model.get(client)
    after = {**model, client: entry}
    if held is None and len(after) > ROOM.clients:
        return False
    return bytes_of(after) <= ROOM.bytes or (held is not None and len(entry.line) <= len(held.line))


def bytes_of(model: dict[bytes, Entry]) -> int:
    return sum(len(client) + len(entry.line) for client, entry in model.items())


@pytest.mark.long
@given(st.lists(deeds, max_size=30))
@settings(max_examples=300)
def test_after_any_history_bytes_are_the_sum_and_what_has_no_room_changes_nothing(
    history: list[tuple[str, bytes, Entry, bool]],
) -> None:
    table, model = Table(KEY), dict[bytes, Entry]()
    for deed, client, entry, forgets in history:
        too_old = (lambda _: True) if forgets else None
        held = model.get(client)
        leaf = table.leaf(client)
        said: object = None
        expected: object = None
        match deed:
            case "remove":
                table.remove(client, leaf)
                model.pop(client, None)
            case "put":
                table.put(client, entry, leaf)
                model[client] = entry
            case "advance":
                said = table.advance(client, entry, ROOM, too_old)
                later = held is None or forgets or entry.nanoseconds > held.nanoseconds
                expected = held if later and fits(model, client, entry) else False
                if expected is not False:
                    model[client] = entry
            case "admit":
                said = table.admit(client, entry, ROOM, too_old)
                greater = held is None or forgets
                if held is not None and not greater:
                    greater = (entry.nanoseconds, entry.line) > (held.nanoseconds, held.line)
                expected = None if greater and not fits(model, client, entry) else greater
                if expected:
                    model[client] = entry
        assert said == expected, (deed, client, entry, held)
        assert [table.get(one) for one in CLIENTS] == [model.get(one) for one in CLIENTS]
        assert table.bytes == bytes_of(model)
        assert len(table) == len(model)
    assert dict(table) == model


CHANGES: list[Callable[[Table, bytes, Entry], object]] = [
    lambda table, client, entry: table.put(client, entry, table.leaf(client)),
    lambda table, client, entry: table.advance(client, entry, ROOM),
    lambda table, client, entry: table.admit(client, entry, ROOM),
    lambda table, client, entry: table.remove(client, table.leaf(client)),
    lambda table, client, entry: table.sweep(0, LEAVES, ALL),
]


@given(st.lists(st.tuples(st.sampled_from(CHANGES), st.sampled_from(CLIENTS), entries), max_size=12))
@settings(max_examples=100)
def test_after_any_history_digests_are_those_of_what_is_held(
    history: list[tuple[Callable[[Table, bytes, Entry], object], bytes, Entry]],
) -> None:
    table, anew = Table(KEY), Table(KEY)
    for change, client, entry in history:
        change(table, client, entry)
    for client, entry in table:
        anew.put(client, entry, anew.leaf(client))
    assert digests(table) == digests(anew)


@pytest.mark.parametrize("store", [Table.advance, Table.admit])
def test_in_a_table_that_is_over_its_limit_a_line_that_is_no_longer_replaces_and_changes_digests(
    store: Callable[[Table, bytes, Entry, Room], object],
) -> None:
    """It may be over: the limit was lowered, or neighbours have sent more."""
    table, room = put_all(Table(KEY), [at("kiwi", "1"), at("plum", "1")]), Room(1, 10)
    before = digests(table)
    for line in (at("kiwi", "2"), at("kiwi", "3", server="Bob")):
        update = parse_at(line)
        assert update is not None
        assert store(table, b"kiwi", update.entry, room)
        assert digests(table) not in (before, digests(table_of(at("plum", "1"))))
        assert digests(table) == digests(table_of(line, at("plum", "1")))
    longer = parse_at(at("kiwi", "4", server="Bobb"))
    assert longer is not None
    assert not store(table, b"kiwi", longer.entry, room)
    assert table.bytes == bytes_of(dict(table))


def test_what_is_removed_leaves_the_digests() -> None:
    table, other = put_all(Table(KEY), [at("kiwi", "1"), at("plum", "1")]), table_of(at("plum", "1"))
    assert digests(table) != digests(other)
    table.remove(b"kiwi", table.leaf(b"kiwi"))
    assert digests(table) == digests(other)


def test_a_known_client_may_grow_up_to_the_last_byte_and_not_by_one_more() -> None:
    for store in (Table.advance, Table.admit):
        table, short = Table(KEY), Entry(at("kiwi", "1"), 1)
        room = Room(9, len(b"kiwi") + len(short.line) + 10)
        assert store(table, b"kiwi", short, room) is not False
        grown = Entry(at("kiwi", "2", place="+1.000000000+1"), 2)
        assert len(grown.line) == len(short.line) + 10
        too_long = Entry(grown.line + b"0", 3)
        assert not store(table, b"kiwi", too_long, room)
        assert dict(table) == {b"kiwi": short}
        assert store(table, b"kiwi", grown, room)
        assert dict(table) == {b"kiwi": grown}
        assert table.bytes == room.bytes


# Digests. -----------------------------------------------------------------------------------------------------


@given(st.lists(at_lines, max_size=6), st.lists(at_lines, max_size=6))
@settings(max_examples=50, deadline=None)
def test_tables_are_equal_exactly_where_their_digests_are(left: list[bytes], right: list[bytes]) -> None:
    one, other = table_of(*left), table_of(*right)
    assert (held(one) == held(other)) == (digests(one) == digests(other))


def test_an_empty_table_and_an_empty_subtree_have_digest_0() -> None:
    assert set(digests(Table(KEY))) == {0}
    table = table_of(at("kiwi", "5"))
    table.sweep(0, LEAVES, 10)
    assert sum(digest != 0 for digest in table.children("")) == 1


def test_digests_hang_on_the_key() -> None:
    one, other = table_of(*RIVALS), table_of(*RIVALS, key=bytes(32))
    assert {one.leaf(b"%d" % n) for n in range(9)} != {other.leaf(b"%d" % n) for n in range(9)}
    assert not set(digests(one)) & set(digests(other)) - {0}
    assert not set(one.hashes(one.leaf(b"kiwi"))) & set(other.hashes(other.leaf(b"kiwi")))


def test_a_replaced_line_changes_its_digests_and_restoring_it_restores_them() -> None:
    before = at("kiwi", "5")
    table = table_of(before, at("plum", "5"))
    first = digests(table)
    put_all(table, [at("kiwi", "6")])
    assert digests(table) != first
    put_all(table, [before])
    assert digests(table) == first


def test_two_clients_in_one_leaf_that_swap_lines_do_not_cancel_out() -> None:
    table = Table(KEY)
    by_leaf: dict[int, bytes] = {}
    number = 0
    while (leaf := table.leaf(b"%d" % number)) not in by_leaf:
        by_leaf[leaf] = b"%d" % number
        number += 1
    one, other = by_leaf[leaf].decode(), str(number)
    left = table_of(at(one, "1"), at(other, "2"))
    right = table_of(at(one, "2"), at(other, "1"))
    assert digests(left) != digests(right)
    assert len(left.hashes(leaf)) == 2
    beside = left.lines_beside(leaf, frozenset(left.hashes(leaf)[:1]))
    assert beside == [at(other, "2")]
    assert left.lines_beside(leaf, frozenset()) == [at(one, "1"), at(other, "2")]


def test_what_changes_behind_a_sweep_waits_for_the_next() -> None:
    table = table_of(at("kiwi", "5"))
    first = digests(table)
    put_all(table, [at("kiwi", "6")])
    assert [*table.children("")] == first[:FANOUT]
    assert digests(table) != first


@pytest.mark.parametrize("most", [1, 3, 100])
def test_a_sliced_sweep_ends_with_the_digests_of_a_whole_one(most: int) -> None:
    lines = [at(str(number), "5") for number in range(300)]
    whole, sliced = put_all(Table(KEY), lines), put_all(Table(KEY), lines)
    at_leaf, slices = 0, 0
    while (at_leaf := sliced.sweep(at_leaf, LEAVES, most)) < LEAVES:
        slices += 1
    assert slices >= 300 // (most + 2) - 1
    assert digests(whole) == digests(sliced)


def test_a_sweep_keeps_to_its_leaves() -> None:
    table = put_all(Table(KEY), [at(str(number), "5") for number in range(200)])
    first, last = Table(KEY).span("7")
    assert table.sweep(first, last, 1_000_000) == last
    assert [bool(digest) for digest in table.children("")] == [digit == 7 for digit in range(FANOUT)]
    assert table.sweep(first, last, 0) == last


# The tree. ----------------------------------------------------------------------------------------------------


def test_the_spans_of_a_nodes_children_part_its_own() -> None:
    span = Table(KEY).span
    assert span("") == (0, LEAVES)
    for node in ("", "0", "f", "a5", "fff"):
        spans = [span(f"{node}{digit:x}") for digit in range(FANOUT)]
        assert spans[0][0] == span(node)[0]
        assert spans[-1][1] == span(node)[1]
        assert all(one[1] == two[0] for one, two in pairwise(spans))
    assert span("ffff") == (LEAVES - 1, LEAVES)


def test_a_nodes_digest_is_the_exclusive_or_of_its_childrens() -> None:
    table = put_all(Table(KEY), [at(str(number), "5") for number in range(500)])
    table.sweep(0, LEAVES, 1_000_000)
    for node in ("", "0", "9", "c3", "001"):
        for digit, digest in enumerate(table.children(node)):
            name = f"{node}{digit:x}"
            below = table.children(name) if len(name) < DEPTH else table.hashes(table.span(name)[0])
            folded = 0
            for one in below:
                folded ^= one
            assert folded == digest


def test_lines_come_in_whole_leaves_and_bounded_batches_each_once() -> None:
    lines = [at(str(number), "5") for number in range(1_000)]
    table = put_all(Table(KEY), lines)
    size = len(lines[0]) + 3
    leaf, batches = 0, []
    while leaf < LEAVES:
        batch, following = table.lines(leaf, LEAVES, 20 * size)
        assert following > leaf
        assert len(batch) < 30
        assert all(leaf <= table.leaf(line.split(b" ")[3]) < following for line in batch)
        batches.append(batch)
        leaf = following
    assert sorted(line for batch in batches for line in batch) == sorted(lines)
    assert len(batches) > 20


def test_a_batch_that_has_its_bytes_ends_and_one_that_lacks_a_byte_goes_on() -> None:
    lines = [at(str(number), "5") for number in range(3)]
    table = Table(KEY)
    for leaf, line in enumerate(lines):
        table.put(line.split(b" ")[3], Entry(line, 5), leaf)
    size = len(lines[0])
    assert table.lines(0, LEAVES, size) == (lines[:1], 1)
    assert table.lines(0, LEAVES, size + 1) == (lines[:2], 2)
    assert table.lines(2, LEAVES, size) == (lines[2:], LEAVES)
    assert table.lines(3, LEAVES, size) == ([], LEAVES)


def test_clients_spread_evenly_over_the_leaves_whatever_they_call_themselves() -> None:
    table = Table(KEY)
    for form in ("{}", "client-{:08}.example.org", "a" * 200 + "{}"):
        crowd: dict[int, int] = {}
        for number in range(20_000):
            bucket = table.leaf(form.format(number).encode()) * 64 // LEAVES
            crowd[bucket] = crowd.get(bucket, 0) + 1
        assert len(crowd) == 64
        assert max(crowd.values()) < 2 * 20_000 / 64


def test_asking_for_long_ids_leaves_nothing_behind() -> None:
    table = Table(KEY)
    for number in range(1_000):
        assert table.get(b"%d" % number + b"x" * 8_000) is None
    assert sum(map(len, table._known)) == 0
    table.leaf(b"x" * 64)
    table.leaf(b"x" * 65)
    assert [*table._known] == [b"x" * 64]


def test_what_is_remembered_of_ids_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _MOST_KNOWN == 131_072  # 20 MiB: comment there
    monkeypatch.setattr("proxyherd.core.table._MOST_KNOWN", 10)
    table = Table(KEY)
    leaves = {}
    for number in range(25):
        leaves[number] = table.leaf(b"%d" % number)
        assert len(table._known) == number % 10 + 1
    assert {number: table.leaf(b"%d" % number) for number in range(25)} == leaves


def test_entries_of_some_leaves_are_those_and_no_others() -> None:
    table = table_of(*(at(f"client{number}", "5") for number in range(50)))
    leaves = sorted(table.leaf(client) for client, _ in table)
    first, last = leaves[10], leaves[40]
    found = {client for client, _ in table.entries(first, last)}
    assert found == {client for client, _ in table if first <= table.leaf(client) < last}
    assert 0 < len(found) < 50


def test_the_digest_of_every_node_is_that_of_the_leaves_below_it() -> None:
    table = Table(KEY)
    for number in range(300):
        put_all(table, [at(f"client{number}", "5")])
        if number % 7 == 0:
            table.sweep(0, LEAVES, 1_000_000)
    for number in range(0, 300, 3):
        table.remove(b"client%d" % number, table.leaf(b"client%d" % number))
    table.sweep(0, LEAVES, 1_000_000)
    leaves = [reduce(xor, table.hashes(leaf), 0) for leaf in range(LEAVES)]
    assert sum(map(bool, leaves)) > 190
    for node in (
        "",
        "0",
        "f",
        "a7",
        "00",
        "fff",
        "3c0",
        *{f"{leaf:04x}"[:3] for leaf, one in enumerate(leaves) if one},
    ):
        first, last = table.span(node)
        width = (last - first) // 16
        below = [leaves[one : one + width] for one in range(first, last, width)]
        assert table.children(node) == [reduce(xor, some) for some in below], node
