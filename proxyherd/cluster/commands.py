"""How calls are spelled in RESP, Redis' protocol, and what ends a batch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Final

from proxyherd.cluster.layout import PREFIXES, seal

LIBRARY: Final = b"proxyherd_1"
"""Its number changes with what a function does."""


def code() -> bytes:
    """Return the library that every master is to have."""
    return files("proxyherd.cluster").joinpath("function.lua").read_bytes()


def encode(*words: bytes) -> bytes:
    """Return one command."""
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def _function(name: bytes) -> bytes:
    """Return a call of a function, less its keys; the words in it and behind it are to be filled in."""
    name = b"%b_%b" % (LIBRARY, name)
    return b"*%%d\r\n$5\r\nFCALL\r\n$%d\r\n%b\r\n$%%d\r\n%%d\r\n" % (len(name), name)


ADVANCE: Final = _function(b"advance")
ADMIT: Final = _function(b"admit")
PROBE: Final = encode(b"FCALL", LIBRARY + b"_probe", b"0")
ASKING: Final = encode(b"ASKING")


def spell_reports(
    function: bytes,
    tag: int,
    clients: Sequence[bytes],
    values: Sequence[bytes],
    expiries: Sequence[bytes] = (),
) -> bytes:
    """Return the call that stores values of clients of one tag."""
    count = len(clients)
    digits = 1 if count < 10 else len(str(count))
    head = function % (3 + 2 * count + len(expiries), digits, count)
    return b"".join(
        [head, _keys(tag, clients), *[b"$%d\r\n%b\r\n" % (len(one), one) for one in (*values, *expiries)]]
    )


def spell_questions(tag: int, clients: Sequence[bytes]) -> bytes:
    """Return the command that looks up clients of one tag."""
    return b"*%d\r\n$4\r\nMGET\r\n%b" % (1 + len(clients), _keys(tag, clients))


def spell_end(tag: int, master: str, replicas: int, milliseconds: int, *, asking: bool) -> tuple[bytes, int]:
    """Return what ends a batch, and the replies to it: the seal, in a tag of this master's or, where it has none, in one
    that is on its way to it (`asking`); and the wait for replicas.
    """
    words = (
        encode(b"FCALL", LIBRARY + b"_seal", b"1", seal(tag, master)),
        encode(b"WAIT", b"%d" % replicas, b"%d" % milliseconds),
    )
    return b"".join((ASKING, *words) if asking else words), 2 + asking


def _keys(tag: int, clients: Sequence[bytes]) -> bytes:
    prefix = PREFIXES[tag]
    size = len(prefix)
    return b"".join([b"$%d\r\n%b%b\r\n" % (size + len(client), prefix, client) for client in clients])
