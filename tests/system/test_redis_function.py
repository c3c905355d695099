"""What Redis does with calls of the Function, in a real redis-server, is what table.py does with the same entries."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from debian import needs
from function_answers import answers
from herd_process import free_port, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from redis_cluster import Refused, Session

from proxyherd.core.messages import NANOSECONDS, Entry, parse_at, parse_report, received
from proxyherd.core.table import Room, Table
from proxyherd.core.tombstones import parse_gone
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.commands import (
    ADMIT,
    ADVANCE,
    LIBRARY,
    code,
    head_of_erasure,
    repeated_erasure,
    spell_erasure,
    spell_reports,
    spell_word,
)

pytestmark = [needs("redis-server"), pytest.mark.xdist_group("redis-function")]

ROOM = Room(clients=1_000, bytes=1_000_000)
EXAMPLES = 120


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """One redis-server with the library, which keeps nothing."""
    folder, port = tmp_path_factory.mktemp("function"), free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["redis-server", *options],
            stdout=log,
            stderr=log,
            env={"LC_ALL": "C", "PATH": os.environ.get("PATH", os.defpath)},
        )
    try:
        wait_until(lambda: answers(port), "redis-server answers")
        with Session(socket.create_connection(("127.0.0.1", port))) as session:
            session.ask("FUNCTION", "LOAD", code())
            yield session
    finally:
        process.kill()
        process.wait()


def call(redis: Session, function: bytes, said: Sequence[tuple[bytes, bytes]], *more: bytes) -> bytes:
    """Call a function as servers do, with clients and values of one tag."""
    clients, values = [client for client, _ in said], [value for _, value in said]
    redis._socket.sendall(spell_reports(function, 0, clients, values, more, lead=NANOSECONDS))
    outcome = redis.reply()
    assert isinstance(outcome, bytes)
    return outcome


def held(redis: Session, client: bytes) -> bytes | None:
    value: bytes | None = redis.ask("GET", layout.PREFIXES[0] + client)
    return value


def test_a_key_that_is_none_of_ours_stands_in_nobodys_way(redis: Session) -> None:
    redis.ask("FLUSHALL")
    redis.ask("LPUSH", layout.PREFIXES[0] + b"list", "1")
    said = [at_line(client, b"5", b"Clark", b"+1+1") for client in (b"a", b"list", b"b")]
    values = [(client, value(entry)) for client, entry in said]
    assert call(redis, ADVANCE, values) == b"1-1"
    assert held(redis, b"b") == values[2][1]


# Random histories. ---------------------------------------------------------------------------------------------

CLIENTS = [b"kiwi", b"a\0b", b"a\0", b"\xff\xfe\0\xff", b"{159}", b"}{", b"\xc3(", b"k\xc3\xaewi"]
TIMES = [
    *(b"0", b"5", b"5.5", b"5.500000000", b"05.5", b"5.499999999", b"10", b"9.999999999", b"000000000010"),
    *(b"999999999999.999999999", b"999999999999.999999998", b"999999999999", b"1600000000.000000001"),
]
SERVERS = [b"Clark", b"Bona", b"bona", b"Z"]
PLACES = [b"+1+1", b"+1+1.0", b"-1+1"]


DIFFERENCES = [b"+0.000000000"] * 3 + [
    b"-0.999999999",
    b"-1.000000001",
    b"-999999999999.000000000",
    b"+7.5" + b"0" * 8,
]
MOMENTS = [
    1,
    5_000_000_000,
    5_500_000_000,
    9_999_999_998,
    9_999_999_999,
    1_600_000_000_000_000_000,
    2 * 10**21,
]


def at_line(
    client: bytes, time: bytes, server: bytes, place: bytes, difference: bytes = b"+0.000000000"
) -> tuple[bytes, Entry]:
    at = parse_at(b"AT %b %b %b %b %b" % (server, difference, client, place, time))
    assert at is not None
    assert at.client == client
    return client, at.entry


entries = st.builds(
    at_line,
    st.sampled_from(CLIENTS) | st.binary(min_size=1, max_size=3).filter(lambda one: one.split() == [one]),
    st.sampled_from(TIMES),
    st.sampled_from(SERVERS),
    st.sampled_from(PLACES),
    st.sampled_from(DIFFERENCES),
)
erasures = st.tuples(st.sampled_from(CLIENTS), st.sampled_from(MOMENTS))
calls = st.tuples(st.sampled_from([ADVANCE, ADMIT]), st.lists(entries, min_size=1, max_size=12))


def value(entry: Entry) -> bytes:
    return layout.VALUE % (entry.nanoseconds, entry.line)


def take(table: Table, function: bytes, client: bytes, entry: Entry) -> bytes:
    """Do with a table what a call does with a key; return the outcome that the call must have."""
    before = table.get(client)
    if function == ADVANCE:
        news = table.advance(client, entry, ROOM) is not False
    else:
        news = table.admit(client, entry, ROOM) is True
    return b"1" if news or before == entry else b"0"


@given(st.lists(calls, min_size=1, max_size=8))
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_function_does_what_the_table_does(
    redis: Session, history: list[tuple[bytes, list[tuple[bytes, Entry]]]]
) -> None:
    redis.ask("FLUSHALL")
    table = Table(bytes(32))
    for function, said in history:
        outcome = call(redis, function, [(client, value(entry)) for client, entry in said])
        assert outcome == b"".join(take(table, function, client, entry) for client, entry in said)
        for client, _ in said:
            entry = table.get(client)
            assert entry is not None
            assert held(redis, client) == value(entry)
    assert redis.ask("DBSIZE") == len(table)


@given(entries, entries, st.sampled_from([ADVANCE, ADMIT]))
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_version_1_wrote_is_ordered_by_the_time_that_counts(
    redis: Session, old: tuple[bytes, Entry], new: tuple[bytes, Entry], function: bytes
) -> None:
    (client, entry), (_, later) = old, new
    _, server, difference, _, place, when = later.line.split(b" ")
    _, later = at_line(client, when, server, place, difference)
    redis.ask("FLUSHALL")
    late = int(entry.line.split(b" ")[2].replace(b".", b""))
    written = layout.VALUE % (received(entry.line) - late, entry.line)
    redis.ask("SET", layout.PREFIXES[0] + client, written)
    table = Table(bytes(32))
    table.put(client, entry, table.leaf(client))
    outcome = call(redis, function, [(client, value(later))])
    assert outcome == take(table, function, client, later)
    found = held(redis, client)
    assert found is not None
    assert layout.entry(found, NANOSECONDS) == table.get(client)


def test_who_named_the_year_33658_to_version_1_is_overtaken_within_the_lead(redis: Session) -> None:
    redis.ask("FLUSHALL")
    redis.ask("SET", layout.PREFIXES[0] + b"kiwi", layout.VALUE % (10**21 - 10**9, FUTURE))
    for said, outcome in ((b"1600000001", b"0"), (b"1600000001.000000001", b"1")):
        _, entry = at_line(b"kiwi", said, b"Clark", b"+1+1")
        assert call(redis, ADVANCE, [(b"kiwi", value(entry))]) == outcome


FUTURE = b"AT Clark -998399999999.000000000 kiwi +0+0 999999999999"
"""What a server took in second 1,600,000,000."""


@given(calls)
@settings(max_examples=EXAMPLES // 2, deadline=None)
def test_a_call_that_is_repeated_changes_nothing(
    redis: Session, one: tuple[bytes, list[tuple[bytes, Entry]]]
) -> None:
    function, said = one
    redis.ask("FLUSHALL")
    values = [(client, value(entry)) for client, entry in said]
    call(redis, function, values)
    before = {client: held(redis, client) for client, _ in values}
    again = call(redis, function, values)
    assert {client: held(redis, client) for client, _ in values} == before
    assert again == b"".join(b"1" if before[client] == value else b"0" for client, value in values)


@given(st.lists(entries, min_size=2, max_size=12), st.randoms(use_true_random=False), st.integers(1, 5))
@settings(max_examples=EXAMPLES // 2, deadline=None)
def test_admitting_commutes_and_ends_at_the_greatest(
    redis: Session, said: list[tuple[bytes, Entry]], rng: Any, size: int
) -> None:
    values = [(client, value(entry)) for client, entry in said]
    rng.shuffle(values)
    redis.ask("FLUSHALL")
    for at in range(0, len(values), size):
        call(redis, ADMIT, values[at : at + size])
    for client, _ in values:
        assert held(redis, client) == max(value for one, value in values if one == client)


def erase(redis: Session, client: bytes, until: int, seen: int | None, *, kept: int = 10**14) -> int:
    """Erase as servers do; return up to which moment the client is erased then. Nothing else is said if it is gone."""
    key = spell_word(layout.PREFIXES[0] + client)
    salt = b"%032x" % secrets.randbits(128)
    redis._socket.sendall(head_of_erasure() + key + spell_erasure(until, seen, kept, salt))
    line, *stayed = redis.reply()
    assert stayed == ([] if held(redis, client) is None else [b"stayed"])
    tombstone = parse_gone(line)
    assert tombstone is not None
    return tombstone.until


@given(st.lists(calls | erasures, min_size=1, max_size=10))
@settings(max_examples=EXAMPLES, deadline=None)
def test_the_function_erases_as_the_table_does(redis: Session, history: list[tuple[Any, Any]]) -> None:
    redis.ask("FLUSHALL")
    table = Table(bytes(32))
    for first, second in history:
        if isinstance(second, int):
            client, until = first, second
            table.erase(table.tombstone(client, until))
            assert erase(redis, client, until, until) == table.erased_until(client)
            clients = [client]
        else:
            outcome = call(redis, first, [(client, value(entry)) for client, entry in second])
            assert outcome == b"".join(take(table, first, client, entry) for client, entry in second)
            clients = [client for client, _ in second]
        for client in clients:
            entry = table.get(client)
            assert held(redis, client) == (value(entry) if entry is not None else None)


# Single laws. --------------------------------------------------------------------------------------------------


def test_of_the_same_key_twice_in_a_call_the_first_is_done_first(redis: Session) -> None:
    redis.ask("FLUSHALL")
    first, second = (value(at_line(b"kiwi", b"5.5", server, b"+1+1")[1]) for server in (b"Clark", b"Dora"))
    assert call(redis, ADVANCE, [(b"kiwi", first), (b"kiwi", second), (b"kiwi", first)]) == b"101"
    assert held(redis, b"kiwi") == first


def test_a_call_may_carry_as_many_keys_as_a_server_sends(redis: Session) -> None:
    redis.ask("FLUSHALL")
    said = [
        (b"c%d" % number, value(at_line(b"c%d" % number, b"5", b"Clark", b"+1+1")[1]))
        for number in range(500)
    ]
    assert call(redis, ADVANCE, said, *[b"%d" % ((time.time() + 60) * 1_000)] * 500) == b"1" * 500
    assert redis.ask("DBSIZE") == 500


def test_each_key_expires_when_it_is_told_and_who_has_none_does_not(redis: Session) -> None:
    redis.ask("FLUSHALL")
    soon = int(time.time() * 1_000) + 100_000
    kiwi, plum = (value(at_line(client, b"5", b"Clark", b"+1+1")[1]) for client in (b"kiwi", b"plum"))
    assert call(redis, ADVANCE, [(b"kiwi", kiwi), (b"plum", plum)], b"%d" % soon, b"%d" % (soon + 7)) == b"11"
    keys = [layout.PREFIXES[0] + client for client in (b"kiwi", b"plum")]
    assert [redis.ask("PEXPIRETIME", key) for key in keys] == [soon, soon + 7]
    later = value(at_line(b"kiwi", b"6", b"Clark", b"+1+1")[1])
    assert call(redis, ADVANCE, [(b"kiwi", later)]) == b"1"
    assert redis.ask("PEXPIRETIME", keys[0]) == -1


def test_what_changes_nothing_expires_when_it_did(redis: Session) -> None:
    redis.ask("FLUSHALL")
    soon = int(time.time() * 1_000) + 100_000
    kiwi, stale = (value(at_line(b"kiwi", time, b"Clark", b"+1+1")[1]) for time in (b"5", b"4"))
    call(redis, ADVANCE, [(b"kiwi", kiwi)], b"%d" % soon)
    assert call(redis, ADVANCE, [(b"kiwi", stale)], b"%d" % (soon + 7)) == b"0"
    assert call(redis, ADVANCE, [(b"kiwi", kiwi)], b"%d" % (soon + 7)) == b"1"
    assert redis.ask("PEXPIRETIME", layout.PREFIXES[0] + b"kiwi") == soon


def test_what_has_expired_is_as_good_as_never_held(redis: Session) -> None:
    redis.ask("FLUSHALL")
    kiwi, older = (value(at_line(b"kiwi", time, b"Clark", b"+1+1")[1]) for time in (b"5", b"4"))
    assert call(redis, ADVANCE, [(b"kiwi", kiwi)], b"1") == b"1"
    assert held(redis, b"kiwi") is None
    assert call(redis, ADVANCE, [(b"kiwi", older)]) == b"1"
    assert held(redis, b"kiwi") == older


SECOND = 10**9
NOW = int(time.time()) * SECOND


def reported(client: bytes, received: int) -> tuple[bytes, bytes]:
    """Return what a server stores that receives a report at this time."""
    report = parse_report(b"IAMAT %b +1+1 5" % client, b"Clark", received)
    assert report is not None
    return client, layout.VALUE % (received, report.line)


def tombstone_keys(redis: Session) -> list[bytes]:
    return [key for key in redis.ask("KEYS", "*") if layout.tombstone_part(key) is not None]


def test_who_is_erased_is_gone_at_once_and_stays_so_until_it_reports_again(redis: Session) -> None:
    redis.ask("FLUSHALL")
    call(redis, ADVANCE, [reported(b"kiwi", NOW), reported(b"plum", NOW)])
    assert erase(redis, b"kiwi", NOW, None) == NOW
    assert held(redis, b"kiwi") is None
    assert held(redis, b"plum") is not None
    for function in (ADVANCE, ADMIT):
        assert call(redis, function, [reported(b"kiwi", NOW)]) == b"0"
    assert call(redis, ADVANCE, [reported(b"kiwi", NOW + 1)]) == b"1"
    assert not any(b"kiwi" in key for key in tombstone_keys(redis)), "no tombstone has the ID"


def test_what_redis_holds_is_erased_also_if_another_servers_clock_is_ahead(redis: Session) -> None:
    redis.ask("FLUSHALL")
    call(redis, ADVANCE, [reported(b"kiwi", NOW + SECOND)])
    assert erase(redis, b"kiwi", NOW, NOW) == NOW
    assert held(redis, b"kiwi") is not None
    assert erase(redis, b"kiwi", NOW, None) == NOW + SECOND
    assert held(redis, b"kiwi") is None


def test_an_erasure_that_is_repeated_leaves_alone_what_has_come_since(redis: Session) -> None:
    redis.ask("FLUSHALL")
    words = repeated_erasure(spell_erasure(NOW, None, 10**9, b"0" * 32))
    assert words == spell_erasure(NOW, NOW, 10**9, b"0" * 32)
    assert repeated_erasure(words) == words
    erase(redis, b"kiwi", NOW, None)
    call(redis, ADVANCE, [reported(b"kiwi", NOW + 7)])
    assert erase(redis, b"kiwi", NOW, NOW) == NOW
    assert held(redis, b"kiwi") is not None


def test_who_was_seen_after_the_moment_that_counts_stays(redis: Session) -> None:
    redis.ask("FLUSHALL")
    call(redis, ADVANCE, [reported(b"kiwi", NOW), reported(b"plum", NOW)])
    assert erase(redis, b"kiwi", NOW + 9, NOW - 1) == NOW - 1
    assert held(redis, b"kiwi") is not None
    assert tombstone_keys(redis) == []
    assert erase(redis, b"plum", NOW + 9, NOW) == NOW + 9
    assert held(redis, b"plum") is None


def test_a_tombstone_expires_when_it_is_told_and_the_salt_with_the_last(redis: Session) -> None:
    redis.ask("FLUSHALL")
    salt = layout.PREFIXES[0] + b" gone"
    erase(redis, b"kiwi", NOW, NOW, kept=6_000_000)
    erase(redis, b"plum", NOW, NOW, kept=9_000_000)
    erase(redis, b"fig", NOW, NOW, kept=3_000_000)
    due = [NOW // 1_000_000 + kept for kept in (3_000_000, 6_000_000, 9_000_000, 9_000_000)]
    assert sorted(redis.ask("PEXPIRETIME", key) for key in tombstone_keys(redis)) == due
    assert redis.ask("PEXPIRETIME", salt) == due[-1]
    erase(redis, b"lime", SECOND, SECOND, kept=1)
    assert len(tombstone_keys(redis)) == 4, "one that would have expired already is not kept"


def test_without_room_clients_are_erased(redis: Session) -> None:
    redis.ask("FLUSHALL")
    call(redis, ADVANCE, [reported(b"kiwi", NOW)])
    redis.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        assert erase(redis, b"kiwi", NOW, None) == NOW
        assert held(redis, b"kiwi") is None
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", 0)


def test_only_who_knows_an_id_finds_its_tombstone(redis: Session) -> None:
    redis.ask("FLUSHALL")
    clients = [b"c%d" % number for number in range(20_000)]
    clients = [client for client in clients if layout.tag_of(client) == 0]
    for client in clients[1:]:
        erase(redis, client, NOW, NOW)
    found = layout.SaltedTombstones()
    for key in tombstone_keys(redis):
        tag, rest = layout.tombstone_part(key) or (0, b"")
        found.add(tag, rest, redis.ask("GET", key))
    assert len(found) == len(clients) - 1
    assert [found.until(client) for client in clients] == [0, *[NOW] * (len(clients) - 1)]
    assert found.until(b"kiwi") == 0, "of another tag"


def test_a_seal_is_written_and_leaves_nothing_behind(redis: Session) -> None:
    redis.ask("FLUSHALL")
    key = layout.seal(0, "127.0.0.1:7001")
    redis.ask("FCALL", LIBRARY + b"_seal", 1, key)
    assert 0 < redis.ask("PTTL", key) <= 60_000


def test_without_room_reports_are_refused_and_seals_are_not(redis: Session) -> None:
    kiwi = value(at_line(b"kiwi", b"5", b"Clark", b"+1+1")[1])
    redis.ask("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(Refused, match=r"^OOM"):
            call(redis, ADVANCE, [(b"kiwi", kiwi)])
        redis.ask("FCALL", LIBRARY + b"_seal", 1, layout.seal(0, "127.0.0.1:7001"))
    finally:
        redis.ask("CONFIG", "SET", "maxmemory", 0)


def test_strings_are_compared_by_bytes_here(redis: Session) -> None:
    assert redis.ask("FCALL", LIBRARY + b"_probe", 0) == 1


def test_the_library_is_found_again_as_it_was_loaded(redis: Session) -> None:
    (found,) = redis.ask("FUNCTION", "LIST", "LIBRARYNAME", LIBRARY, "WITHCODE")
    assert code() in found
    assert Path(LIBRARY.decode()).name in code().decode().splitlines()[0]
