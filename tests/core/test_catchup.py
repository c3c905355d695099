"""One walk down a neighbour's digests: what it asks, and which answers it takes."""

from __future__ import annotations

import hashlib
import re
from itertools import count
from pathlib import Path

import pytest

from proxyherd.config.secrets import Secrets
from proxyherd.core.catchup import Pull
from proxyherd.core.messages import Entry
from proxyherd.core.peer_messages import (
    AskDigests,
    AskLeaf,
    AskRange,
    BatchHeader,
    Digests,
    Misspoken,
    Request,
    write_message,
)
from proxyherd.core.sizes import FANOUT, SIZES
from proxyherd.core.table import Table
from proxyherd.engines.herd.backend import make_table

LEAVES, WINDOW = SIZES.leaves, SIZES.window

LINE_BYTES = 1_024
MOST_HASHES = 62
"""Hashes of sixteen digits that fit into 1,024 bytes behind `LEAF ffff `, with the room that the page leaves."""


def table(*, per_leaf: dict[int, int] | None = None) -> Table:
    """Return a swept table with so many lines in some leaves."""
    table, numbers = Table(b"k" * 32), count()
    for leaf, lines in (per_leaf or {}).items():
        for _ in range(lines):
            client = b"%d" % next(numbers)
            table.put(client, Entry(b"AT Clark +0.000000000 %b +1+1 5" % client, 5), leaf)
    table.sweep(0, LEAVES, 1_000_000)
    return table


def pull(*, per_leaf: dict[int, int] | None = None, line_bytes: int = LINE_BYTES) -> Pull:
    return Pull(table(per_leaf=per_leaf), line_bytes)


def digests(node: str, **differing: int) -> Digests:
    """Return a node's digests: 0 for each child but those named by their digit, as `_5=7`."""
    found = [0] * FANOUT
    for digit, digest in differing.items():
        found[int(digit.removeprefix("_"), 16)] = digest
    return Digests(node, found)


def test_an_empty_table_asks_for_everything_and_is_done_with_its_last_batch() -> None:
    walk = pull()
    assert not walk.done
    assert walk.requests() == [AskRange(0, LEAVES)]
    assert walk.requests() == [], "once"
    walk.batch(BatchHeader(0, 5, 1))
    assert not walk.done
    assert walk.requests() == [AskRange(5, LEAVES)], "the rest"
    walk.batch(BatchHeader(5, LEAVES, 0))
    assert walk.done
    assert walk.requests() == []


def test_equal_digests_end_a_walk_at_once() -> None:
    walk, own = pull(per_leaf={0x6A8B: 1}), table(per_leaf={0x6A8B: 1})
    assert walk.requests() == [AskDigests("")]
    walk.digests(Digests("", own.children("")))
    assert walk.done
    assert walk.requests() == []


def test_a_walk_goes_down_where_digests_differ_and_asks_for_a_leaf_by_what_is_held_of_it() -> None:
    walk, own = pull(per_leaf={0x6A8B: 2}), table(per_leaf={0x6A8B: 2})
    assert walk.requests() == [AskDigests("")]
    for node, differing, below in (("", "_6", "6"), ("6", "_a", "6a"), ("6a", "_8", "6a8")):
        walk.digests(digests(node, **{differing: 1}))
        assert walk.requests() == [AskDigests(below)]
    walk.digests(digests("6a8", _b=1))
    assert walk.requests() == [AskLeaf(0x6A8B, frozenset(own.hashes(0x6A8B)))]
    assert not walk.done
    walk.batch(BatchHeader(0x6A8B, 0x6A8C, 1))
    assert walk.done


def test_where_the_other_has_nothing_nothing_is_asked_though_the_digests_differ() -> None:
    walk = pull(per_leaf={0: 1, LEAVES - 1: 1})
    walk.requests()
    walk.digests(digests(""))
    assert walk.done


def test_adjoining_leaves_of_which_nothing_is_held_are_asked_for_as_one_range() -> None:
    walk, width = pull(per_leaf={0: 1}), LEAVES // FANOUT
    walk.requests()
    own = table(per_leaf={0: 1}).children("")[0]
    walk.digests(digests("", _0=own, _1=1, _2=1, _4=1, _f=1))
    assert walk.requests() == [
        AskRange(width, 3 * width),
        AskRange(4 * width, 5 * width),
        AskRange(15 * width, LEAVES),
    ]


@pytest.mark.parametrize(
    ("line_bytes", "lines", "fits"),
    [
        (LINE_BYTES, 1, True),
        (LINE_BYTES, MOST_HASHES, True),
        (LINE_BYTES, MOST_HASHES + 1, False),
        (LINE_BYTES + 15, MOST_HASHES + 1, False),
        (LINE_BYTES + 16, MOST_HASHES + 1, True),
        (8_192, 510, True),
        (8_192, 511, False),
    ],
)
def test_a_leaf_whose_hashes_are_longer_than_a_line_is_asked_for_whole(
    line_bytes: int, lines: int, fits: bool
) -> None:
    walk = pull(per_leaf={0xFFFF: lines}, line_bytes=line_bytes)
    walk.requests()
    asked: list[Request] = []
    for node in ("", "f", "ff", "fff"):
        walk.digests(digests(node, _f=1))
        asked = walk.requests()
    (request,) = asked
    assert isinstance(request, AskLeaf) == fits
    assert len(write_message(request)) - 1 <= line_bytes
    if not fits:
        assert request == AskRange(0xFFFF, LEAVES)


def test_sixteen_requests_are_under_way_at_most_and_each_answer_makes_room_for_one() -> None:
    walk = pull(per_leaf=dict.fromkeys(range(0, LEAVES, 256), 1))  # something below each node
    walk.requests()
    walk.digests(Digests("", [1] * FANOUT))
    assert len(walk.requests()) == WINDOW == 16
    walk.digests(Digests("0", [1] * FANOUT))
    assert walk.requests() == [AskDigests("00")]
    walk.digests(Digests("1", [1] * FANOUT))
    assert walk.requests() == [AskDigests("10")], "depth first, so that what waits stays small"
    walk.digests(Digests("00", [0] * FANOUT))
    assert walk.requests() == [AskDigests("11")]


@pytest.mark.parametrize(
    "answer",
    [
        Digests("0", [0] * FANOUT),
        Digests("", [0] * FANOUT),
        BatchHeader(0, 5, 0),
    ],
    ids=["another node", "the same node twice", "a batch"],
)
def test_digests_that_were_not_asked_for_are_refused(answer: Digests | BatchHeader) -> None:
    walk = pull(per_leaf={0: 1, 1: 1})
    walk.requests()
    walk.digests(digests(""))
    with pytest.raises(Misspoken):
        walk.digests(answer) if isinstance(answer, Digests) else walk.batch(answer)


@pytest.mark.parametrize(
    ("batch", "right"),
    [
        (BatchHeader(0, 1, 0), True),
        (BatchHeader(0, LEAVES, 0), True),
        (BatchHeader(0, 0, 0), False),  # it does not move on
        (BatchHeader(1, 2, 0), False),  # another range
    ],
)
def test_a_batch_begins_where_it_was_asked_to_moves_on_and_ends_within_what_was_asked(
    batch: BatchHeader, right: bool
) -> None:
    walk = pull()
    walk.requests()
    if right:
        walk.batch(batch)
    else:
        with pytest.raises(Misspoken):
            walk.batch(batch)


def test_a_batch_that_goes_past_what_was_asked_is_refused() -> None:
    walk, width = pull(per_leaf={0: 1}), LEAVES // FANOUT
    walk.requests()
    own = table(per_leaf={0: 1}).children("")[0]
    walk.digests(digests("", _0=own, _1=1))
    assert walk.requests() == [AskRange(width, 2 * width)]
    with pytest.raises(Misspoken):
        walk.batch(BatchHeader(width, 2 * width + 1, 0))


def test_leaves_and_digests_are_calculated_as_the_page_of_the_protocol_says() -> None:
    """A server of another release compares its own with them."""
    secret, client = b"s" * 32, b"kiwi.cs.ucla.edu"
    line = b"AT Clark +174037633.530820175 kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503"
    key = hashlib.blake2b(secret, digest_size=32, person=b"proxyherd table").digest()
    leaf = hashlib.blake2b(client, key=key, digest_size=2, person=b"leaf").digest()
    line_hash = hashlib.blake2b(line, key=key, digest_size=8, person=b"line").digest()
    table = make_table(Secrets(secret, (secret,), secret))
    table.put(client, Entry(line, 1_621_464_827_959_498_503), table.leaf(client))
    table.sweep(0, LEAVES, 1)
    number = int(leaf.hex(), 16)
    assert table.leaf(client) == number
    assert table.hashes(number) == [int(line_hash.hex(), 16)]
    assert table.children("") == [
        int(line_hash.hex(), 16) if digit == number >> 12 else 0 for digit in range(FANOUT)
    ]
    fingerprint = hashlib.blake2b(key=key, digest_size=8, person=b"fingerprint").hexdigest()
    assert table.fingerprint == fingerprint.encode()
    page = (Path(__file__).parents[2] / "docs/peer-protocol.md").read_text()
    assert (
        len(
            re.findall(
                rf"TERMS 1000000000 [0-9]+ {fingerprint} tombstone_seconds=2592000 on_full=refuse began=0\n",
                page,
            )
        )
        == 2
    )
