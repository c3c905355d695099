"""Events of a server for the log and the metrics, noted by the pure core.

The core has no log. It leaves these notes, and the shell turns them into events and figures.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct

FROM_THE_FUTURE: Final = (
    "received further in the future than max_clock_skew_seconds; is the clock of the server in the line wrong, "
    "or this server's?"
)
"""Why a neighbour's line was skipped."""

OUTDATED: Final = (
    "speaks version 1 of the peer protocol, which cannot erase, and this server holds tombstones of erased clients: "
    "upgrade it"
)
"""Why a neighbour with an older program is refused, or its link closed."""

REPLACED: Final = "replaced by a newer link"
"""Why a live link ended: the neighbour, or another server with its name, has authenticated on a new connection."""

SUSPENDED: Final = (
    "this server was suspended for so long that both must say again since when they have had the table"
)
"""Why a live link ended after a long sleep of this process, or a jump of its clock."""


class LinkUp(Struct, frozen=True):
    """A neighbour has authenticated. `other_key`: whether its table has another key than this server's, as far as known.
    `differing`: its settings that differ from this server's, though they should not.
    """

    neighbour: str
    dialled: bool
    other_key: bool = False
    differing: str = ""


class LinkDown(Struct, frozen=True):
    """A live link has ended."""

    neighbour: str
    reason: str


class LinkFailed(Struct, frozen=True):
    """A connection ended before it was authenticated; the neighbour is the one that was dialled or claimed. `address`: that
    of the other side, if it has dialled.
    """

    neighbour: str | None
    dialled: bool
    reason: str
    address: str = ""


class Heard(Struct, frozen=True):
    """A batch of live updates came from a neighbour: reports, or erasures. `late`, if any report was news: the nanoseconds
    since a server took the first such one, by that server's clock and this one's.
    """

    neighbour: str
    clients: list[bytes]
    news: int
    late: int | None


class Removed(Struct, frozen=True):
    """A client was erased, and its location left the table."""

    client: bytes


class OtherClock(Struct, frozen=True):
    """A neighbour has told its clock: the nanoseconds by which it is ahead of this server's, or behind if negative."""

    neighbour: str
    ahead: int


class Flooded(Struct, frozen=True):
    """A batch of updates was sent to some neighbours."""

    neighbours: tuple[str, ...]
    clients: list[bytes]


class Skipped(Struct, frozen=True):
    """A neighbour sent a line that is neither an AT nor a GONE line, or for which there is no room."""

    neighbour: str
    line: bytes
    reason: str


class CaughtUp(Struct, frozen=True):
    """A walk has ended: the number of lines that came, and how many of them were news."""

    neighbour: str
    lines: int
    news: int
    seconds: float


Note: TypeAlias = LinkUp | LinkDown | LinkFailed | Heard | Flooded | Skipped | CaughtUp | Removed | OtherClock
