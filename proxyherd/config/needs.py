"""What one server needs with everything at its limit at once: what a supervisor may bound it to, without ending a server
that only does what its limits allow. The systemd unit has these figures for the defaults.
"""

from __future__ import annotations

from math import ceil
from typing import Final

from msgspec import Struct

from proxyherd.config.rates import RateSettings
from proxyherd.config.schema import Limits, PlacesSettings

GIB: Final = 1 << 30

SPARE_DESCRIPTORS: Final = 256
"""For the log, the journal, ports, links, and the admin port."""

UNIT_NEIGHBOURS: Final = 16
"""Neighbours of a server for which the unit's figures are enough: a herd of more is better off with fewer links."""

_EMPTY_BYTES: Final = 64 << 20
_CLIENT_BYTES: Final = 200  # of the table, beside the ID and the line
_INDEX_BYTES: Final = 150  # while somebody asks who is in an area
_TOMBSTONE_BYTES: Final = 300
_ARRIVING_BYTES: Final = 262_144  # in one read of a socket
_TURN_BYTES: Final = 65_536  # of answers that one turn has for a client
_READ_AHEAD_BYTES: Final = 65_536
_QUERY_BYTES: Final = 6_144  # that waits for Places
_EARLY_BYTES: Final = 48 << 20  # queries before the server is ready
_SEARCHES_BYTES: Final = 256 << 20  # queries of areas
_FOLLOWED_BYTES: Final = 60 << 20  # clients inside of areas that are followed
_BODY_BYTES: Final = 64 << 20  # large bodies on the way to the web port
_ADDRESS_BYTES: Final = 400  # or a subject, in `[rates]`

_TASKS: Final = 128
"""Threads: the event loop, up to 32 for files and imports, and one for each look-up of a name that waits."""

_CORES: Final = 2
"""The event loop uses one core; threads use another, for a moment now and then."""


class Needs(Struct, frozen=True):
    """What one server needs at most. `memory_gib`: GiB, rounded up; `descriptors`: open files and sockets; `tasks`:
    threads; `cores`: of the processor.
    """

    memory_gib: int
    descriptors: int
    tasks: int = _TASKS
    cores: int = _CORES


def needs_of_server(limits: Limits, rates: RateSettings, places: PlacesSettings, neighbours: int) -> Needs:
    """Return what a server with these limits needs, which has so many neighbours."""
    connection = (
        max(_READ_AHEAD_BYTES, 2 * limits.max_line_bytes)
        + _ARRIVING_BYTES
        + limits.write_buffer_bytes
        + _TURN_BYTES
    )
    table = (
        2 * limits.max_table_bytes
        + (_CLIENT_BYTES + _INDEX_BYTES) * limits.max_clients
        + _TOMBSTONE_BYTES * limits.max_tombstones
    )
    waiting = _QUERY_BYTES + 2 * limits.max_line_bytes
    memory = (
        _EMPTY_BYTES
        + _EARLY_BYTES
        + _SEARCHES_BYTES
        + _FOLLOWED_BYTES
        + _BODY_BYTES
        + table * 5 // 4  # a quarter more may be learned
        + connection * limits.max_connections
        + waiting * limits.max_places_in_flight
        + 2 * places.max_answer_bytes * places.max_connections
        + places.cache_bytes
        + limits.peer_queue_bytes * neighbours
        + _ARRIVING_BYTES * (neighbours + limits.max_peer_connections)
        + 2 * _ADDRESS_BYTES * rates.max_addresses
    )
    return Needs(ceil(memory / GIB), limits.max_connections + other_descriptors(limits, places))


def other_descriptors(limits: Limits, places: PlacesSettings) -> int:
    """Return how many descriptors a server needs besides those of its clients' connections."""
    return limits.max_peer_connections + places.max_connections + SPARE_DESCRIPTORS
