"""The layout of a cluster's keys and values: it may never change, and loses nothing of a client's ID or a time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from proxyherd.core.messages import NANOSECONDS, parse_at
from proxyherd.engines.redis import layout

WHITE = b" \t\n\r\x0b\x0c"
ids = st.binary(min_size=1, max_size=40).filter(lambda one: not set(one) & set(WHITE))

GOLDEN = {
    b"kiwi.cs.ucla.edu": b"{133}kiwi.cs.ucla.edu",
    b"kiwi": b"{159}kiwi",
    b"a": b"{175}a",
    b"{x}": b"{163}{x}",
    b"}{": b"{48}}{",
    b"\x00\xff": b"{221}\x00\xff",
}
"""Keys that tables in use have: another one would not be found there."""


@pytest.mark.parametrize("client", GOLDEN)
def test_a_client_keeps_its_key_for_ever(client: bytes) -> None:
    assert layout.key(client) == GOLDEN[client]


def test_tags_lie_evenly_one_in_each_32_slots() -> None:
    assert [slot // 32 for slot in layout.TAG_SLOTS] == list(range(512))
    assert len(set(layout.NAMES)) == 512


def test_the_name_of_a_tag_is_the_least_number_in_its_slots() -> None:
    """Computed by the library's own hash, and by ours at any time again."""
    least: dict[int, bytes] = {}
    for number in range(10_000):
        name = b"%d" % number
        least.setdefault(key_slot(name) // 32, name)
    assert [least[tag] for tag in range(512)] == layout.NAMES == layout._names()


def test_whoever_has_a_share_of_the_slots_has_the_same_share_of_the_tags() -> None:
    for masters in (1, 2, 3, 5, 6, 9, 64):
        bounds = [at * layout.SLOTS // masters for at in range(masters + 1)]
        owned = [list(layout.owned(first, last - 1)) for first, last in pairwise(bounds)]
        assert sorted(tag for tags in owned for tag in tags) == list(range(512))
        assert max(map(len, owned)) - min(map(len, owned)) <= 2


@given(ids)
def test_redis_puts_a_key_into_the_slot_of_its_tag(client: bytes) -> None:
    slot = layout.TAG_SLOTS[layout.tag_of(client)]
    assert key_slot(layout.key(client)) == slot
    assert key_slot(layout.seal(layout.tag_of(client), "[::1]:7001")) == slot


@given(st.binary(max_size=20))
def test_a_slot_is_what_redis_says(hashed: bytes) -> None:
    if b"{" not in hashed:
        assert layout.slot(hashed) == key_slot(hashed)


@given(ids)
def test_a_key_tells_its_client(client: bytes) -> None:
    assert layout.client_of(layout.key(client)) == client


@given(ids, st.integers(0, 511))
def test_a_key_below_another_tag_is_no_clients(client: bytes, tag: int) -> None:
    if tag != layout.tag_of(client):
        assert layout.client_of(layout.PREFIXES[tag] + client) is None


@pytest.mark.parametrize("master", ["127.0.0.1:7001", "[::1]:7001", "a-host.example.com:6379"])
def test_a_seal_is_no_clients_key(master: str) -> None:
    for tag in range(layout.TAGS):
        assert layout.client_of(layout.seal(tag, master)) is None


@pytest.mark.parametrize(
    "key", [b"", b"{", b"}", b"{}", b"{159}", b"kiwi", b"{159} kiwi", b"{159}kiwi\n", b"{160}kiwi"]
)
def test_what_somebody_else_wrote_is_no_clients_key(key: bytes) -> None:
    assert layout.client_of(key) is None


times = st.integers(0, 10**21 - 1)
lines = st.binary(max_size=20)


@given(times, lines, times | st.none(), lines)
def test_values_are_ordered_by_time_and_then_by_line(
    one: int, line: bytes, other: int | None, other_line: bytes
) -> None:
    other = one if other is None else other
    first, second = layout.VALUE % (one, line), layout.VALUE % (other, other_line)
    assert (first < second) == ((one, line) < (other, other_line))
    assert (first == second) == ((one, line) == (other, other_line))


@pytest.mark.parametrize("time", ["0", "5.5", "5.500000000", "999999999999.999999999", "000000000005"])
def test_a_value_tells_its_entry(time: str) -> None:
    line = f"AT Clark -0.000000001 kiwi +34.068930-118.445127 {time}".encode()
    at = parse_at(line)
    assert at is not None
    value = layout.VALUE % (at.entry.nanoseconds, line)
    assert len(value) == layout.VALUE_BYTES + len(line)
    assert layout.entry(value, NANOSECONDS) == at.entry


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"000000000005000000000",
        b"000000000005000000000 ",
        b"000000000005000000000 AT Clark +0.000000000 kiwi +1+1 6",
        b"000000000005000000000xAT Clark +0.000000000 kiwi +1+1 5",
        b"5000000000 AT Clark +0.000000000 kiwi +1+1 5",
        b"000000000005000000000 AT Clark +0.000000000 kiwi +1+1 5\n",
    ],
)
def test_what_somebody_else_wrote_is_no_entry(value: bytes) -> None:
    assert layout.entry(value, NANOSECONDS) is None


def test_a_value_of_version_1_is_read_and_its_time_counts_no_further_than_that_of_others() -> None:
    line = b"AT Clark -999999999994.000000000 kiwi +1+1 999999999999"
    entry = layout.entry(layout.VALUE % (999_999_999_999 * 10**9, line), NANOSECONDS)
    assert entry is not None
    assert (entry.line, entry.nanoseconds) == (line, 6 * 10**9)
    assert layout.entry(layout.VALUE % (6 * 10**9, line), NANOSECONDS) == entry
    assert layout.entry(layout.VALUE % (7 * 10**9, line), NANOSECONDS) is None
