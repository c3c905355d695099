"""Each reader of a table's changes gets each of them, whenever it reads; a table that nobody reads notes nothing."""

from __future__ import annotations

from random import Random

import pytest

from proxyherd.core.changes import ChangeReader
from proxyherd.core.evictions import EvictingTable
from proxyherd.core.messages import Entry
from proxyherd.core.table import Room, Table

ROOM = Room(10**6, 10**9)


def line(client: bytes, time: int) -> Entry:
    return Entry(b"AT Clark +0.000000000 %b +1+2 %d.000000000" % (client, time), time * 10**9)


@pytest.fixture
def table() -> Table:
    return Table(bytes(32), depth=2)


def test_a_reader_gets_what_has_changed_since_it_read_last_with_the_entries_of_now(table: Table) -> None:
    table.admit(b"before", line(b"before", 1), ROOM)
    reader = ChangeReader(table)
    assert reader.take() == {}
    table.advance(b"kiwi", line(b"kiwi", 1), ROOM)
    table.advance(b"kiwi", line(b"kiwi", 2), ROOM)
    table.admit(b"fig", line(b"fig", 3), ROOM)
    assert len(reader) == 2
    assert b"kiwi" in reader
    assert b"before" not in reader
    assert reader.take() == {b"kiwi": line(b"kiwi", 2), b"fig": line(b"fig", 3)}
    assert reader.take() == {}
    assert len(reader) == 0
    assert b"kiwi" not in reader


def test_a_stale_report_is_no_change_and_an_erasure_is_one(table: Table) -> None:
    table.admit(b"kiwi", line(b"kiwi", 5), ROOM)
    reader = ChangeReader(table)
    table.advance(b"kiwi", line(b"kiwi", 4), ROOM)
    table.admit(b"kiwi", line(b"kiwi", 5), ROOM)
    assert reader.take() == {}
    erasure = table.erase(tombstone := table.tombstone(b"kiwi", 10**18))
    assert erasure is not None
    assert reader.take() == {b"kiwi": None}
    table.restore(tombstone, erasure)  # it could not be kept
    assert reader.take() == {b"kiwi": line(b"kiwi", 5)}


def test_who_leaves_a_full_table_has_changed() -> None:
    table = EvictingTable(bytes(32), Room(2, 10**6), depth=2)
    reader = ChangeReader(table)
    for number, client in enumerate((b"a", b"b", b"c"), 1):
        table.advance(client, line(client, number), ROOM)
    assert reader.take() == {b"a": None, b"b": line(b"b", 2), b"c": line(b"c", 3)}


@pytest.mark.parametrize("seed", range(20))
def test_readers_that_come_and_go_all_know_the_table_when_they_have_read(seed: int) -> None:
    random, table = Random(seed), Table(bytes(32), depth=2)
    names = [b"c%d" % number for number in range(20)]
    readers: list[tuple[ChangeReader, dict[bytes, Entry]]] = []
    for time in range(1, 1_000):
        chance, name = random.random(), random.choice(names)
        if chance < 0.02 and len(readers) < 5:
            readers.append((ChangeReader(table), dict(table)))
        elif chance < 0.03 and readers:
            reader, _ = readers.pop(random.randrange(len(readers)))
            reader.close()
        elif chance < 0.2 and readers:
            reader, known = random.choice(readers)
            assert len(reader) >= len({*known} ^ dict(table).keys())
            taken = reader.take()
            known.update({client: entry for client, entry in taken.items() if entry is not None})
            for client in [client for client, entry in taken.items() if entry is None]:
                known.pop(client, None)
            assert known == dict(table)
        elif chance < 0.3:
            table.remove(name, table.leaf(name))
        else:
            table.admit(name, line(name, time), ROOM)
        assert (table.changes is not None) is bool(readers)


def test_a_table_without_readers_notes_nothing(table: Table) -> None:
    assert table.changes is None
    one, other = ChangeReader(table), ChangeReader(table)
    table.admit(b"kiwi", line(b"kiwi", 1), ROOM)
    one.close()
    assert other.take() == {b"kiwi": line(b"kiwi", 1)}
    other.close()
    table.admit(b"kiwi", line(b"kiwi", 2), ROOM)
    assert table.changes is None
