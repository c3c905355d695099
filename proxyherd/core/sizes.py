"""How much is done at once, and how large the digest tree is. Operators don't set these.

A server uses the defaults. The simulation uses smaller sizes, so that a small herd runs all of the code.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

FANOUT: Final = 16
"""Children of a node of the digest tree."""


class Sizes(Struct, frozen=True):
    """The sizes of one server. All servers of a herd have the same tree."""

    depth: int = 4
    """Digits of a leaf's name: 2 or 4."""

    batch_bytes: int = 65_536
    """The size of a catch-up batch. It takes a few milliseconds to learn, so that live updates and clients can come in
    between."""

    slice_lines: int = 4_096
    """Lines that one slice of a sweep hashes: about two milliseconds."""

    window: int = 16
    """Outstanding catch-up requests: enough to hide the round trip, few enough to leave room for updates."""

    client_lines: int = 64
    """Lines of one client in one turn; a client that sends more lets others in between."""

    turn_lines: int = 512
    """Lines of all clients in one turn: about five milliseconds."""

    search_seconds: float = 0.000_8
    """Seconds that one turn may spend on queries that Places answer at once: so long before it sends its answers, and so
    long again after it. Each time, the last query may take 0.2 ms longer."""

    peer_lines: int = 1_024
    """Lines of all peers in one turn in which no client waits: about five milliseconds."""

    peer_lines_beside_clients: int = 64
    """The least number of peers' lines in a turn while clients are active: a neighbour's flood then delays each of their
    answers by less than a millisecond."""

    few_updates: int = 8
    """Updates that are learned outside of turns at once, at most. More are handled by a turn, together with those of
    other neighbours: then there are fewer writes."""

    few_bytes: int = 8_192
    """Bytes of a neighbour that are looked through outside of turns, at most. To find that so many bring nothing new takes
    less than half a millisecond."""

    turn_queries: int = 32
    """Queries for places that begin in one turn: each starts two tasks."""

    early_queries: int = 65_536
    """Queries that wait at once before they can be answered: about 30 MiB, besides their own bytes."""

    early_query_bytes: int = 16 << 20
    """Bytes of the lines of these queries: a client ID may have thousands."""

    look_ups: int = 512
    """How many of them are looked up again in one turn: about two milliseconds."""

    @property
    def leaves(self) -> int:
        """Leaves of the digest tree."""
        leaves: int = FANOUT**self.depth
        return leaves


SIZES: Final = Sizes()
"""The sizes of a server."""
