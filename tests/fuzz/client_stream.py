"""Target `client`: the byte stream of a client's connection, through framing, messages and node.

An input is two bytes of header - how the stream is cut, and flags - and the stream. What comes out is judged by
the oracle, and the table must hold what the oracle says and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

import oracle
from cuts import cut
from deciding import decide
from quick_table import QuickTable

from proxyherd.config.schema import Limits, Timing
from proxyherd.core.framing import LineFramer
from proxyherd.core.messages import parse_at
from proxyherd.core.node import Node
from proxyherd.core.reply import Reply
from proxyherd.places.answers import no_results

NAME = b"Clark"
RECEIVED = 1_621_464_827_959_498_503
LINE_BYTES = 1_024
MANY = 10_000
HALF_CLOSE, FULL_TABLE, STRETCH = 0x01, 0x02, 0x04
MOST = (1, 2, 7, MANY)
STRETCHED = 0xF5
"""A byte that UTF-8 never has; with STRETCH it stands for many, so that a short input holds overlong lines."""

KNOWN_LINES = (
    b"AT Bona +0.263873386 kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503",
    b"AT Clark -3.000000000 k -0+0 5.5",
)

SEEDS = (
    b"\x00\x04IAMAT \xf5\xf5 +1+1 66\r         \nIAMAT \xf5\xf5 +1+1 66\r          \n",  # at the limit, and past it
    b"\x00\x00" + b" " * 1_009 + b"IAMAT k +1+1 66\n" + b" " * 1_010 + b"IAMAT k +1+1 77\nx",
    b"\x00\x07IAMAT kiwi +34.068930-118.445127 1621464827.959498503\nWHATSAT kiwi 10 5\n",
    b"\x01\x01WHATSAT kiwi.cs.ucla.edu 10 5\r\n? \n\n AT Clark +0.0 k +1+1 1\nIAMAT k +90.0-180 5.500000001",
    b"\x03\x02IAMAT new +0+0 000000000000\nIAMAT k -90-180.000 5.5\nIAMAT k +1+1 6\nWHATSAT k 50.0 020\n",
    b"\x00\x05IAMAT \xf5\xf5\xf5 +1+1 1\n\xf5\xf5IAMAT k +1+1 9\nIAMAT k +1+1 8.\xff\n\xf5\xf5\xf5",
    b"\x00\x0dIAMAT\x0bx\xc2\xa0\x1c\x0c+89.99999999999999999999-179.9\t999999999999.999999999\n",
    b"\x00\x05POST /\xf5\xf5\xf5 HTTP/1.1\r\nIAMAT k +1+1 9\n",
    b"\x00\x07IAMAT k +1+1 6\nget\t/ HTTP/1.0\nIAMAT k +1+1 9\n",
    b"\x05\x04IAMAT a +1.\xf5+1 1\nWHATSAT k 0 0\nWHATSAT k 50.00000000000000001 20\nWHATSAT k 1 21\n",
)

_table = QuickTable(b"k" * 32)
_places = no_results("ZERO_RESULTS").body


def one_input(data: bytes) -> None:
    if len(data) < 2:
        return
    size, flags, stream = data[0], data[1], data[2:]
    if flags & STRETCH:
        stream = stream.replace(bytes([STRETCHED]), b"7" * 500)
    judge(
        cut(stream, size),
        half_close=bool(flags & HALF_CLOSE),
        most=MOST[flags >> 3 & 3],
        max_clients=3 if flags & FULL_TABLE else MANY,
    )


def judge(
    pieces: list[bytes],
    *,
    half_close: bool,
    most: int = MANY,
    max_clients: int = MANY,
    limit: int = LINE_BYTES,
) -> None:
    """Let a server that knows KNOWN_LINES answer a stream that comes in these pieces, and judge it."""
    limits = Limits(max_line_bytes=limit, max_clients=max_clients)
    node = Node(NAME.decode(), _table, limits, Timing(), alone=True, now=0)
    try:
        node.replay(map(parse_at, KNOWN_LINES))
        expectation = oracle.expect(
            b"".join(pieces),
            _known(),
            half_close=half_close,
            limit=limit,
            max_clients=max_clients,
            received=RECEIVED,
        )
        answered = b"".join(_answers(node, pieces, half_close=half_close, most=most, limit=limit))
        lines = oracle.check(expectation, answered, server=NAME, received=(RECEIVED, RECEIVED))
        assert {client: entry.line for client, entry in _table} == lines
        stored = [one for one in expectation.answers if isinstance(one, oracle.Reported) and one.stored]
        assert len(node.news) == len(stored)
    finally:
        _table.clear()


def _answers(node: Node, pieces: list[bytes], *, half_close: bool, most: int, limit: int) -> Iterator[bytes]:
    framer = LineFramer(limit, ends_at_http=True)
    for piece in pieces:
        framer.receive(piece)
        while lines := framer.lines(most):
            assert len(lines) <= most
            yield from (_spell(decide(node, line, RECEIVED)) for line in lines)
        assert framer.waiting <= limit
    if half_close:
        yield from (_spell(decide(node, line, RECEIVED)) for line in framer.end())


def _spell(reply: Reply) -> bytes:
    if reply.answer is not None:
        return reply.answer + b"\n"
    assert reply.entry is not None
    return reply.entry.line + b"\n" + _places + b"\n\n"


def _known() -> dict[bytes, oracle.Known]:
    known = {}
    for line in KNOWN_LINES:
        update = oracle.peer_at(line)
        assert update is not None
        client, (time, _) = update
        known[client] = oracle.Known(line, time)
    return known
