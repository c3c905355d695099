"""How much is done at once, and how large the digest tree is: what no operator sets.

A server has the defaults. The simulation takes smaller sizes, so that a small herd goes through all of the code.
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
    """Of a catch-up batch: a few milliseconds to learn, so that live updates and clients come between."""

    slice_lines: int = 4_096
    """Lines hashed in one slice of a sweep: about two milliseconds."""

    window: int = 16
    """Catch-up requests under way at once: enough to hide the way there and back, few enough to leave room for
    updates.
    """

    client_lines: int = 64
    """Lines of one client in one turn: who sends more at once waits for others in between."""

    turn_lines: int = 512
    """Lines of all clients in one turn: some five milliseconds."""

    peer_lines: int = 1_024
    """Lines of all peers in one turn in which no client waits: some five milliseconds."""

    peer_lines_beside_clients: int = 64
    """Lines of all peers in one turn at least, where clients are about: a neighbour's flood then holds up each of their
    answers by less than a millisecond.
    """

    early_queries: int = 65_536
    """Queries that wait at once, before they can be answered: some 30 MiB, beside their own bytes."""

    early_query_bytes: int = 16 << 20
    """Bytes of their lines: a client ID may have thousands."""

    look_ups: int = 512
    """Of those, how many are looked up again in one turn: some two milliseconds."""

    @property
    def leaves(self) -> int:
        """Leaves of the digest tree."""
        leaves: int = FANOUT**self.depth
        return leaves


SIZES: Final = Sizes()
"""Those of a server."""
