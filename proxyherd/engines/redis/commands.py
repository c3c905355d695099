"""Writes calls in RESP, Redis' protocol, and the end of a batch."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from proxyherd.core.erasures import REACH
from proxyherd.core.messages import Forget
from proxyherd.engines.redis.layout import PREFIXES, seal

LIBRARY: Final = b"proxyherd_2"
"""Its number changes when the behaviour of a function changes."""

LIBRARY_PATTERN: Final = b"proxyherd_*"
"""All versions of it."""


def code() -> bytes:
    """Return the library that every master must have."""
    return files("proxyherd.engines.redis").joinpath("function.lua").read_bytes()


def spell_word(word: bytes) -> bytes:
    """Return a word of a command as it is sent."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def encode(*words: bytes) -> bytes:
    """Return one command."""
    return b"*%d\r\n" % len(words) + b"".join(map(spell_word, words))


def _function(name: bytes) -> bytes:
    """Return a call of a function, without its keys; the remaining words are filled in later."""
    name = b"%b_%b" % (LIBRARY, name)
    return b"*%%d\r\n$5\r\nFCALL\r\n$%d\r\n%b\r\n$%%d\r\n%%d\r\n" % (len(name), name)


ADVANCE: Final = _function(b"advance")
ADMIT: Final = _function(b"admit")
ERASE: Final = _function(b"erase")
ASKING: Final = encode(b"ASKING")


SENT_KEY: Final = b"$%d\r\n%b%b\r\n"
"""A key as it is sent: its length, its tag's prefix, the client's ID."""

SENT_VALUE: Final = b"$%d\r\n%021d %b\r\n"
"""A value as it is sent: its length, its time in nanoseconds, its AT line."""


_MOMENT: Final = b"%022d"
"""A moment as the function compares it, in nanoseconds."""

_MILLISECOND: Final = 1_000_000
_ALL_HELD: Final = b">"
_SPELLED_ALL_HELD: Final = spell_word(_ALL_HELD)


def spell_key(tag: int, client: bytes) -> bytes:
    """Return the key of a client of this tag, as it is sent."""
    prefix = PREFIXES[tag]
    return SENT_KEY % (len(prefix) + len(client), prefix, client)


def head_of_reports(count: int, expiry: bytes) -> bytes:
    """Return the part before keys, values, expiries (if there are any) and the lead of so many reports."""
    return _fill(ADVANCE, count, bool(expiry))


def head_of_questions(count: int) -> bytes:
    """Return the part before so many keys to look up."""
    return b"*%d\r\n$4\r\nMGET\r\n" % (1 + count)


def head_of_erasure() -> bytes:
    """Return the part before the key of a client to erase, and before what `spell_erasure` returns."""
    return ERASE % (8, 1, 1)


def spell_erasure(until: int, seen: int | None, kept: int, salt: bytes) -> bytes:
    """Return the words behind the key of a client to erase: up to which moment; after which moment it must not have been
    seen, None if it does not matter what Redis holds; for how many milliseconds its tombstone is kept; and 32 digits for
    the hashes of its tag, if that has none yet. Moments are nanoseconds of POSIX time.
    """
    words = (_MOMENT % until, _ALL_HELD if seen is None else _MOMENT % seen, b"%d" % kept, salt)
    return b"".join(map(spell_word, words))


def spell_forget(forget: Forget, clock: int, kept: int) -> bytes:
    """Return the words behind the key of a client that is to be erased now, at this `clock`; a tombstone is kept for `kept`.
    Both are nanoseconds. What arrives at this moment is later. With `before`, a moment of long ago, the tombstone covers
    more, so that it is kept for long enough; see `Erasures`.
    """
    until = clock - 1
    if forget.before is not None:
        until = min(until, max(forget.before, clock - kept // REACH, 1))
    return spell_erasure(until, forget.before, kept // _MILLISECOND, secrets.token_hex(16).encode())


def repeated_erasure(erasure: bytes) -> bytes:
    """Return the words of an erasure that may have been executed already: it leaves alone what has come since."""
    until, _ = erasure.split(_SPELLED_ALL_HELD, 1) if _SPELLED_ALL_HELD in erasure else (b"", b"")
    return erasure.replace(_SPELLED_ALL_HELD, until, 1)


@cache
def _fill(function: bytes, count: int, expires: bool) -> bytes:
    words = 4 + (3 if expires else 2) * count
    return function % (words, len(str(count)), count)


def spell_reports(
    function: bytes,
    tag: int,
    clients: Sequence[bytes],
    values: Sequence[bytes],
    expiries: Sequence[bytes] = (),
    *,
    lead: int,
) -> bytes:
    """Return the call of `ADVANCE` or `ADMIT` for values of clients of one tag, with the POSIX milliseconds when they
    expire. `lead`: see `messages.parse_at`.
    """
    head = _fill(function, len(clients), bool(expiries))
    return b"".join([head, *_keys(tag, clients), *map(spell_word, (*values, *expiries, b"%d" % lead))])


def spell_questions(tag: int, clients: Sequence[bytes]) -> bytes:
    """Return the command that looks up clients of one tag."""
    return head_of_questions(len(clients)) + b"".join(_keys(tag, clients))


def _keys(tag: int, clients: Sequence[bytes]) -> list[bytes]:
    return [spell_word(PREFIXES[tag] + client) for client in clients]


def spell_end(
    at: int, master: str, replicas: int, milliseconds: int, *, asking: bool, probe: bool
) -> tuple[bytes, int]:
    """Return the end of a batch, and its number of replies. It consists of the seal and the wait for replicas. The seal
    is in a tag of this master or, if it has none, in one that is being moved to it (`asking`). A `probe` may come
    before: it is refused when reports would be refused, and changes nothing but the seal's key.
    """
    key = seal(at, master)
    words = [
        encode(b"FCALL", LIBRARY + b"_seal", b"1", key),
        encode(b"WAIT", b"%d" % replicas, b"%d" % milliseconds),
    ]
    if asking:
        words.insert(0, ASKING)
    elif probe:
        words.insert(0, encode(b"FCALL", LIBRARY + b"_advance", b"1", key, b"", b"0"))
    return b"".join(words), len(words)
