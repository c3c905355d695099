"""A body is at most 2 MiB, also unpacked, and is packed with gzip if at all."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from proxyherd.web.bodies import BODY_BYTES, PACKED_BYTES, LargeReads, has_large_area, unpacked, work_of_text
from proxyherd.web.problems import ENCODING, LARGE, MEDIA_TYPE, Kind, Problem


@pytest.mark.parametrize("data", [b"", b"{}", bytes(BODY_BYTES)], ids=["nothing", "something", "all"])
@pytest.mark.parametrize("encoding", ["", "identity", "gzip", "GZip", "x-gzip", " gzip "])
def test_a_body_is_unpacked(data: bytes, encoding: str) -> None:
    packed = gzip.compress(data) if "gzip" in encoding.lower() else data
    assert unpacked(packed, encoding) == data


WHOLE = gzip.compress(b'{"lat":1,"lon":2}', mtime=0)


@pytest.mark.parametrize(
    ("body", "encoding", "kind"),
    [
        *((bytes(BODY_BYTES + 1), "", LARGE), (gzip.compress(bytes(BODY_BYTES + 1), mtime=0), "gzip", LARGE)),
        *((WHOLE, "br", MEDIA_TYPE), (WHOLE, "gzip, gzip", MEDIA_TYPE), (WHOLE, "gzip;q=1", MEDIA_TYPE)),
        *((zlib.compress(b"{}"), "deflate", MEDIA_TYPE), (zlib.compress(b"{}"), "gzip", ENCODING)),
        *((b"", "gzip", ENCODING), (b"{}", "gzip", ENCODING), (WHOLE + WHOLE, "gzip", ENCODING)),
        *((WHOLE + b"x", "gzip", ENCODING), (WHOLE[:-8] + bytes(8), "gzip", ENCODING)),
        *((WHOLE[:length], "gzip", ENCODING) for length in range(1, len(WHOLE))),
    ],
)
def test_a_body_that_is_too_large_or_cannot_be_unpacked_is_a_problem(
    body: bytes, encoding: str, kind: Kind
) -> None:
    with pytest.raises(Problem) as raised:
        unpacked(body, encoding)
    assert raised.value.kind is kind


def test_a_bomb_takes_no_more_memory_than_a_body() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    assert len(bomb) < PACKED_BYTES
    tracemalloc.start()
    with pytest.raises(Problem):
        unpacked(bomb, "gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * BODY_BYTES


EMPTY_BLOCK, EMPTY_BLOCK_BITS = 0x6BFF90000000000081C004, 90
"""A block of deflate with nothing in it but a table of codes. It costs a microsecond."""


def test_what_takes_time_to_unpack_and_is_nothing_has_a_bound() -> None:
    blocks = sum(EMPTY_BLOCK << EMPTY_BLOCK_BITS * number for number in range(8))
    eight = blocks.to_bytes(EMPTY_BLOCK_BITS, "little")

    def hostile(size: int) -> bytes:
        """Return so many bytes that are packed with gzip, and empty."""
        count, rest = divmod(size - 21, len(eight))
        name = b"x" * rest + b"\0"
        return b"\x1f\x8b\x08\x08" + bytes(6) + name + eight * count + b"\x03\0" + bytes(8)

    assert unpacked(hostile(PACKED_BYTES), "gzip") == b""
    with pytest.raises(Problem) as raised:
        unpacked(hostile(PACKED_BYTES + 1), "gzip")
    assert raised.value.kind is LARGE


def test_only_large_texts_are_more_work_than_a_line() -> None:
    assert [work_of_text(size) for size in (0, 1_024, 1_025, 40_000)] == [0, 0, 4, 156]


def test_a_large_area_is_in_a_body_or_in_a_target() -> None:
    long = "x" * 1_024
    assert has_large_area("/v1/within", long.encode())
    assert has_large_area(f"/v1/events?within={long}", b"")
    assert not has_large_area("/v1/within", b"{}")
    assert not has_large_area("/v1/reports", bytes(BODY_BYTES))


def test_one_large_read_is_let_in_by_each_turn() -> None:
    turn = 1
    reads = LargeReads(lambda: turn)
    assert [reads.may_read(asker) for asker in "aba"] == [True, False, False]
    turn = 2
    assert [reads.may_read(asker) for asker in "bb"] == [True, False]


def test_large_reads_are_let_in_one_behind_the_other() -> None:
    turn = 0
    reads = LargeReads(lambda: turn)
    let_in = ""
    for number in range(7):
        turn = number
        let_in += "".join(asker for asker in "aabbc" if reads.may_read(asker))
    assert let_in == "abcabca"


def test_a_turn_is_lost_and_no_more_when_whoever_is_next_has_gone() -> None:
    turn = 0
    reads = LargeReads(lambda: turn)
    let_in = list[str]()
    for number, askers in enumerate(["abc", "ac", "ac", "ac"]):
        turn = number
        let_in.append("".join(asker for asker in askers if reads.may_read(asker)))
    assert let_in == ["a", "", "a", "c"]
