"""A body is at most 2 MiB, also unpacked, and is packed with gzip if at all."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib

import pytest

from proxyherd.web.bodies import BODY_BYTES, unpacked
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
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()
    assert len(bomb) < BODY_BYTES
    tracemalloc.start()
    with pytest.raises(Problem):
        unpacked(bomb, "gzip")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * BODY_BYTES
