"""Target `peer`: what a connection between servers may bring, through link, catch-up and node, in both roles.

An input is three bytes of header - flags, more flags, how the stream is cut - and the stream. With PROVED the
harness speaks the handshake first, with the herd's secret, so that the stream gets behind the proof. Beside the
attacker the server has an honest neighbour, Ann, which shows what is passed on.

The laws: only what is documented happens, and nothing is raised; without a proof the table stays as it was, and
nothing but a handshake is said; with one, the table ends as the oracle merges the well-formed AT lines; a poison
line ends no link; only news goes to Ann, once, and never back; waiting bytes are bounded, and so is what is said;
when time passes, all is forgotten.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from decimal import Decimal

import oracle
from cuts import cut
from quick_table import QuickTable

from proxyherd.config.herd_file import PEER_LINE_SLACK
from proxyherd.config.schema import Limits, Timing
from proxyherd.core.handshake import NONCE_BYTES, State, Terms
from proxyherd.core.link import Link
from proxyherd.core.messages import NANOSECONDS, parse_at
from proxyherd.core.node import Node
from proxyherd.core.notes import LinkDown, LinkFailed, LinkUp, Skipped

SECRET, NEXT_SECRET = b"s" * 32, b"n" * 32
LINE_BYTES = 1_024 + PEER_LINE_SLACK
DIALLED, PROVED, HOLDS, FEW_CLIENTS, OTHER_SECRET, STRETCH, LATE = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40
"""Flags: whether it was we who dialled; whether the harness proves; whether the table holds HELD; whether it is
soon full; by which of two secrets it is proved; whether STRETCHED stands for many bytes; whether chores are done
only when all has come.
"""
MOST = (1, 2, 7, 10_000)
STRETCHED = 0xF5
NONCE, THEIR_NONCE, ANNS_NONCE = (bytes([digit]) * NONCE_BYTES for digit in (0x11, 0x22, 0x33))

HELD = (
    b"AT Bona +0.263873386 kiwi +34.068930-118.445127 5",
    b"AT Clark -3.000000000 k -0+0 5.5",
    b"AT Ann +1.000000001 x +90-180 0",
)
_AT = b"AT Ann +0.000000000 %b +1+1 %b\n"

SEEDS = (
    b"\x22\x03\x00"
    + _AT % (b"\xf5\xf5" + b"c" * (LINE_BYTES - 1_000 - 28), b"66")
    + _AT % (b"\xf5\xf5" + b"c" * (LINE_BYTES - 1_000 - 27), b"66"),
    b"\x02\x03\x00" + _AT % (b"k", b"6") + b"BEAT\n" + _AT % (b"k", b"5.5") + b"AT poison\nDONE\nCHANGED\n",
    b"\x06\x03\x00DIGESTS -\nLEAF 0 -\nRANGE 0 10000\nDONE\n" + _AT % (b"new", b"7"),
    b"\x03\x03\x00BATCH 0 10000 2\n" + _AT % (b"a", b"1") + _AT % (b"b", b"2"),
    b"\x07\x03\x00DIGEST - " + b"0" * 240 + b"f" * 16 + b"\n",
    b"\x07\x02\x05DIGEST - " + b"1" * 256 + b"\nDIGEST 0 " + b"2" * 256 + b"\nBATCH 10 11 0\n",
    b"\x00\x03\x00PROXYHERD 1 Bailey Bona " + THEIR_NONCE.hex().encode() + b"\nPROOF " + b"0" * 64 + b"\n",
    b"\x01\x03\x01PROXYHERD 1 Clark Bona " + THEIR_NONCE.hex().encode() + b"\nREFUSED because\n",
    b"\x2a\x00\x00" + b"".join(_AT % (b"c%d" % n, b"1") for n in range(9)) + b"\xf5\xf5\xf5\xf5\nBEAT\n",
    b"\x03\x03\x00BATCH 0 1 1\n" + _AT % (b"a", b"1") + b"BATCH 1 1 0\nBATCH 1 1 0\n",
    b"\x02\x03\x00AT Ann -0.000000000 k +1+1 6\nAT Ann -0.000000001 k +1+1 6\nAT x +00.000000000 k +1+1 6\n",
    b"\x12\x03\x11LEAF ffff " + b"0123456789abcdef" * 3 + b"\nCHANGED\nCHANGED\nDONE\n",
    b"\x46\x03\x00" + b"RANGE 0 1\n" * 17,
)

_terms = Terms(
    name="Bona",
    neighbours=frozenset({"Ann", "Bailey", "Clark"}),
    secrets=(SECRET, NEXT_SECRET),
    line_bytes=LINE_BYTES,
    lead=NANOSECONDS,
    fingerprint=b"0" * 16,
    heartbeat=0.5,
    handshake=1.0,
)
_table = QuickTable(b"k" * 32)


def _proof(role: bytes, secret: bytes, names: tuple[bytes, bytes], nonces: tuple[bytes, bytes]) -> bytes:
    offered = (
        b"2,1" if role == b"listener" else b"1"
    )  # Bona offers both; the neighbour speaks the first version
    parts = [role, b"proxyherd peer link", offered, b"1", *names, *(one.hex().encode() for one in nonces)]
    return b"PROOF " + hmac.digest(secret, b"\n".join(parts), "sha256").hex().encode() + b"\n"


def _handshake(name: bytes, nonce: bytes, secret: bytes, *, dialled: bool) -> bytes:
    """What a neighbour says to prove itself to Bona, which has dialled it or was dialled by it."""
    hello = b"PROXYHERD 1 %b Bona %b\n" % (name, nonce.hex().encode())
    if dialled:
        return hello + _proof(b"listener", secret, (b"Bona", name), (NONCE, nonce))
    return hello + _proof(b"dialler", secret, (name, b"Bona"), (nonce, NONCE))


_ANNS_HANDSHAKE = _handshake(b"Ann", ANNS_NONCE, SECRET, dialled=False)
_HANDSHAKES = {
    (dialled, other): _handshake(
        b"Clark" if dialled else b"Bailey", THEIR_NONCE, NEXT_SECRET if other else SECRET, dialled=dialled
    )
    for dialled in (False, True)
    for other in (False, True)
}


def one_input(data: bytes) -> None:
    if len(data) < 3:
        return
    flags, most, size, stream = data[0], MOST[data[1] & 3], data[2], data[3:]
    if flags & STRETCH:
        stream = stream.replace(bytes([STRETCHED]), b"7" * 500)
    judge(cut(handshake(flags) + stream, size), flags=flags, most=most)


def handshake(flags: int) -> bytes:
    """Return what the neighbour says to prove itself, where it does."""
    return _HANDSHAKES[bool(flags & DIALLED), bool(flags & OTHER_SECRET)] if flags & PROVED else b""


def judge(pieces: list[bytes], *, flags: int, most: int = MOST[-1]) -> None:
    """Let a server hear these pieces from a neighbour, handshake and all, and hold what happens to the laws."""
    try:
        _Trial(flags, most).run(pieces)
    finally:
        _table.clear()


class _Trial:
    def __init__(self, flags: int, most: int) -> None:
        limits = Limits(
            max_line_bytes=LINE_BYTES - PEER_LINE_SLACK, max_clients=4 if flags & FEW_CLIENTS else 9_999
        )
        self.room = 5 if flags & FEW_CLIENTS else 10**9  # a quarter more is learned from neighbours
        self.node = Node("Bona", _table, limits, Timing(), alone=False, now=0)
        self.held = list(HELD) if flags & HOLDS else []
        self.node.replay(map(parse_at, self.held))
        self.before = self.entries()
        dialled = bool(flags & DIALLED)
        self.link = Link(_terms, dial="Clark" if dialled else None, nonce=NONCE, now=0)
        self.right = [_HANDSHAKES[dialled, other] for other in (False, True)]
        self.ann: Link | None = None
        self.late = bool(flags & LATE)
        self.most = most
        self.said = b""
        self.said_to_ann = b""

    def entries(self) -> dict[bytes, bytes]:
        return {client: entry.line for client, entry in _table}

    def run(self, pieces: list[bytes]) -> None:
        node, link = self.node, self.link
        for piece in pieces:
            link.receive_data(piece, 0)
            self.turns()
            if link.state is not State.LIVE:
                assert link.waiting <= 512, "an unproved link hoards"
            assert link.waiting <= LINE_BYTES
        while node.work(0):
            self.turns()
        self.turns()
        stream = b"".join(pieces)
        self.check_state(stream)
        self.check_table(stream)
        self.check_said()
        self.check_passed_on()
        self.check_end()

    def turns(self) -> None:
        """Let the server have turns until it has heard all that has come."""
        node, link = self.node, self.link
        while True:
            node.receive(link, self.most, 0)
            if self.ann is None and link.state is State.LIVE:
                self.meet_ann()
            if not self.late:
                node.work(0)
            node.flood()
            if self.ann is not None:
                self.said_to_ann += self.ann.data_to_send(0)
            said = link.data_to_send(0)
            assert not (said and link.proved and link.state is State.CLOSED), "spoke when it was over"
            self.said += said
            if not link.more:
                return

    def meet_ann(self) -> None:
        self.ann = ann = Link(_terms, dial=None, nonce=NONCE, now=0)
        ann.receive_data(_ANNS_HANDSHAKE, 0)
        self.node.receive(ann, 3, 0)  # of two: nothing waits to be heard
        assert ann.state is State.LIVE

    # The laws. -----------------------------------------------------------------------------------------------

    def check_state(self, stream: bytes) -> None:
        link = self.link
        proved = any(stream.startswith(right) for right in self.right)
        assert link.proved == proved, "proved without a proof, or not believed with one"
        if link.state is State.CLOSED:
            assert link.reason
            assert link.reason.isprintable()
            assert len(link.reason) < 1_200
            assert not link.data_to_send(0)
            assert link.waiting == 0
            assert link.peer not in set(self.node.linked)
        else:
            assert not link.reason
        if proved and all(self.harmless(line) for line in self.lines(stream)):
            assert link.state is State.LIVE, f"a poison line ended the link: {link.reason}"
        if link.state is State.LIVE:
            _check_spoken(self.lines(stream))
        ups = [note for note in self.node.notes if isinstance(note, LinkUp)]
        ends = [note for note in self.node.notes if isinstance(note, LinkDown | LinkFailed)]
        assert len(ups) == proved + (self.ann is not None)
        assert len(ends) == (link.state is State.CLOSED)

    def lines(self, stream: bytes) -> list[bytes]:
        """The lines behind the handshake; of an overlong one its beginning is there, also when it has no end."""
        behind = stream.split(b"\n", 2)[2]
        return oracle.lines_of(behind, half_close=False, limit=LINE_BYTES)

    @staticmethod
    def harmless(line: bytes) -> bool:
        return len(line) > LINE_BYTES or line == b"BEAT" or line.startswith(b"AT ")

    def check_table(self, stream: bytes) -> None:
        link, table = self.link, self.entries()
        if not link.proved:
            assert table == self.before, "learned without a proof"
            assert not self.said_to_ann
            return
        lines = [line for line in self.lines(stream) if len(line) <= LINE_BYTES]
        everything = oracle.greatest(lines, self.before)
        assert len(table) <= max(self.room, len(self.before))
        for client, line in self.before.items():
            assert _order(table[client]) >= _order(line)
        if link.state is State.LIVE and len(everything) <= self.room:
            assert table == everything
        else:
            assert set(table.values()) <= {*self.held, *lines}
            assert all(oracle.peer_at(line) is not None for line in table.values())
        if link.state is State.LIVE:
            skipped = [
                note.line
                for note in self.node.notes
                if isinstance(note, Skipped) and note.reason == "no AT line"
            ]
            poison = [line for line in self.lines(stream) if _is_poison(line)]
            assert skipped == [line[: oracle.COPIED] if len(line) > LINE_BYTES else line for line in poison]

    def check_said(self) -> None:
        """What the attacker was told: a handshake, then answers to what it asked, and never its own news."""
        if not self.link.proved:
            assert len(self.said) <= 2_000
            words = {line.split(b" ")[0] for line in self.said.splitlines()}
            assert words <= {b"PROXYHERD", b"PROOF", b"REFUSED"}
            return
        live = [line for line, answers in _spoken(self.said) if line.startswith(b"AT ") and not answers]
        assert live == [], "told its own news"

    def check_passed_on(self) -> None:
        if self.ann is None:
            return
        spoken = [line for line, _ in _spoken(self.said_to_ann)]
        assert [line.split(b" ")[0] for line in spoken[:2]] == [b"PROXYHERD", b"PROOF"]
        passed = [line for line in spoken[2:] if line.startswith(b"AT ")]
        assert len(set(passed)) == len(passed), "passed on twice"
        updates = [oracle.peer_at(line) for line in passed]
        held = {client: _order(line) for client, line in self.before.items()}
        for update in updates:
            assert update is not None, "passed on what is malformed"
            client, place = update
            assert client not in held or place > held[client], "passed on what is no news"
            held[client] = place
        table = self.entries()
        assert all(_order(table[client]) >= place for client, place in held.items())
        assert {line.split(b" ")[0] for line in spoken[2:]} <= {b"AT", b"DIGESTS", b"RANGE", b"DONE"}

    def check_end(self) -> None:
        """Silence ends every link, and the server forgets all about them."""
        node = self.node
        for link in filter(None, (self.link, self.ann)):
            link.tick(10)
            assert link.state is State.CLOSED
            node.closed(link)
        node.tick(10)
        assert not list(node.linked)
        assert not node.work(10)
        assert node._walks.idle
        node.flood()
        assert not node.news


def _order(line: bytes) -> tuple[Decimal, bytes]:
    update = oracle.peer_at(line)
    assert update is not None
    return update[1]


def _is_poison(line: bytes) -> bool:
    return len(line) > LINE_BYTES or (line.startswith(b"AT ") and oracle.peer_at(line) is None)


def _check_spoken(lines: list[bytes]) -> None:
    """Raise AssertionError if this is not what a live link may hear and stay live."""
    left, moves_on = 0, True  # of a batch
    for line in lines:
        if len(line) > LINE_BYTES or line.startswith(b"AT "):
            left = max(left - 1, 0)
        elif line != b"BEAT":
            assert not left, "a batch was broken off"
            assert _is_message(line), "a line that is none of the protocol's"
            if line.startswith(b"BATCH "):
                first, following, left = (int(number, 16) for number in line.split(b" ")[1:])
                moves_on = first < following
        assert moves_on or left, "a batch that does not move on"


def _is_message(line: bytes) -> bool:
    match line.split(b" "):
        case [b"DONE"] | [b"CHANGED"]:
            return True
        case [b"DIGESTS", node]:
            return _is_node(node)
        case [b"DIGEST", node, digests]:
            return _is_node(node) and len(digests) == 16 * 16 and _is_hex(digests)
        case [b"LEAF", leaf, known]:
            return _is_leaf(leaf) and (known == b"-" or (len(known) % 16 == 0 and _is_hex(known)))
        case [b"RANGE", first, last]:
            return _is_leaf(first) and _is_hex(last) and int(last, 16) <= 0x10000
        case [b"BATCH", first, following, lines]:
            return _is_leaf(first) and _is_hex(following) and int(following, 16) <= 0x10000 and _is_hex(lines)
    return False


def _is_hex(text: bytes) -> bool:
    return len(text) > 0 and all(byte in b"0123456789abcdef" for byte in text)


def _is_leaf(text: bytes) -> bool:
    return _is_hex(text) and int(text, 16) < 0x10000


def _is_node(text: bytes) -> bool:
    return text == b"-" or (len(text) < 4 and _is_hex(text))


def _spoken(said: bytes) -> Iterator[tuple[bytes, bool]]:
    """Yield each line that was said, and whether it belongs to a batch."""
    assert not said or said.endswith(b"\n")
    left = 0
    for line in said.split(b"\n")[:-1]:
        yield line, left > 0
        if left:
            assert oracle.peer_at(line) is not None
            left -= 1
        elif line.startswith(b"BATCH "):
            left = int(line.split(b" ")[3], 16)
    assert left == 0
