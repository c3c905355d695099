"""The messages between linked servers, except AT and GONE lines: the structs, and their form on the wire.

One message is one line: a word, and operands separated by single spaces. Numbers are lower-case hexadecimal,
but times are decimal nanoseconds. Nodes of the digest tree are named by their digits (the root by `-`).
Hashes have sixteen digits each, without separators. A BATCH is followed by as many AT and GONE lines as it
says. Any other line raises Misspoken.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

from proxyherd.base.escapes import escaped
from proxyherd.core.messages import At, Malformed
from proxyherd.core.sizes import FANOUT, SIZES
from proxyherd.core.tombstones import Tombstone

_HASH_DIGITS: Final = 16
_MOST_LINES: Final = 1 << 32
_TIME_DIGITS: Final = 21


class Proved(Struct, frozen=True):
    """The other side has authenticated; the link is live."""


class Updates(Struct, frozen=True):
    """AT lines in the order of arrival; `caught_up` if they answer a request, otherwise live."""

    ats: list[At]
    caught_up: bool


class Erased(Struct, frozen=True):
    """Tombstones in the order of arrival; `caught_up` as with updates."""

    tombstones: list[Tombstone]
    caught_up: bool


class Clock(Struct, frozen=True):
    """The other side's clock, in nanoseconds of POSIX time."""

    nanoseconds: int


class AskDigests(Struct, frozen=True):
    """A request for the digests of this node's children."""

    node: str


class Digests(Struct, frozen=True):
    """The digests of this node's sixteen children."""

    node: str
    digests: list[int]


class AskLeaf(Struct, frozen=True):
    """A request for the lines of this leaf whose hashes are not among these."""

    leaf: int
    known: frozenset[int]


class AskRange(Struct, frozen=True):
    """A request for a batch of the lines of all leaves from `first` up to, but not including, `last`."""

    first: int
    last: int


class BatchHeader(Struct, frozen=True):
    """The number of lines that follow: the requested lines of the leaves from `first` up to, but not
    including, `next`.
    """

    first: int
    next: int
    lines: int


class Done(Struct, frozen=True):
    """The other side has everything that this side had when it began to ask."""


class Changed(Struct, frozen=True):
    """The other side has caught up elsewhere, and wants to be asked again."""


Request: TypeAlias = AskDigests | AskLeaf | AskRange
PeerMessage: TypeAlias = Request | Digests | BatchHeader | Done | Changed | Clock
"""What is one line on the wire."""

LinkEvent: TypeAlias = Proved | Updates | Erased | Malformed | PeerMessage


class Misspoken(Exception):  # noqa: N818 - their fault, not an error of ours
    """The other side broke the protocol; the text says how."""


def parse_message(line: bytes, depth: int = SIZES.depth) -> PeerMessage:
    """Parse a line that is neither an AT line nor a tombstone's; trees have this depth. The `lines` of a
    BATCH are still to come. Raises Misspoken.
    """
    leaves: int = FANOUT**depth
    match line.split(b" "):
        case [b"BATCH", first, following, lines]:
            return BatchHeader(
                _number(first, leaves - 1), _number(following, leaves), _number(lines, _MOST_LINES)
            )
        case [b"DIGESTS", node]:
            return AskDigests(_node(node, depth))
        case [b"DIGEST", node, digests] if len(digests) == FANOUT * _HASH_DIGITS:
            return Digests(_node(node, depth), _hashes(digests))
        case [b"LEAF", leaf, known]:
            return AskLeaf(_number(leaf, leaves - 1), frozenset(() if known == b"-" else _hashes(known)))
        case [b"RANGE", first, last]:
            return AskRange(_number(first, leaves - 1), _number(last, leaves))
        case [b"DONE"]:
            return Done()
        case [b"CHANGED"]:
            return Changed()
        case [b"CLOCK", clock]:
            return Clock(parse_time(clock))
    raise Misspoken(f"broke the protocol with {plain(line)}")


def write_message(message: PeerMessage) -> bytes:
    """Return a message as its line, with LF."""
    match message:
        case AskDigests(node):
            return b"DIGESTS %b\n" % (node.encode() or b"-")
        case Digests(node, digests):
            return b"DIGEST %b %b\n" % (node.encode() or b"-", b"".join(b"%016x" % one for one in digests))
        case AskLeaf(leaf, known):
            return b"LEAF %x %b\n" % (leaf, b"".join(b"%016x" % one for one in known) or b"-")
        case AskRange(first, last):
            return b"RANGE %x %x\n" % (first, last)
        case BatchHeader(first, following, lines):
            return b"BATCH %x %x %x\n" % (first, following, lines)
        case Done():
            return b"DONE\n"
        case Changed():
            return b"CHANGED\n"
        case Clock(clock):
            return b"CLOCK %d\n" % clock


def plain(words: bytes) -> str:
    """Make a stranger's bytes fit for a log line: limited in length, and without invisible characters."""
    return escaped(words[:200])


def is_hex(digits: bytes, most: int) -> bool:
    """Whether this is a number of one to `most` lower-case hexadecimal digits."""
    return 0 < len(digits) <= most and not digits.strip(b"0123456789abcdef")


def parse_time(digits: bytes) -> int:
    """Return a number of nanoseconds, of at most 21 decimal digits. Raises Misspoken."""
    if not 0 < len(digits) <= _TIME_DIGITS or digits.strip(b"0123456789"):
        raise Misspoken(f"broke the protocol with the time {plain(digits)}")
    return int(digits)


def _number(digits: bytes, most: int) -> int:
    if not is_hex(digits, _HASH_DIGITS) or (number := int(digits, 16)) > most:
        raise Misspoken(f"broke the protocol with the number {plain(digits)}")
    return number


def _node(name: bytes, depth: int) -> str:
    if name == b"-":
        return ""
    if not is_hex(name, depth - 1):
        raise Misspoken(f"broke the protocol with the node {plain(name)}")
    return name.decode()


def _hashes(digits: bytes) -> list[int]:
    if not is_hex(digits, len(digits)) or len(digits) % _HASH_DIGITS:
        raise Misspoken("broke the protocol with hashes out of form")
    return [int(digits[at : at + _HASH_DIGITS], 16) for at in range(0, len(digits), _HASH_DIGITS)]
