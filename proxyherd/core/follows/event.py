"""What followers are told of clients."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from proxyherd.core.messages import Entry

EventKind: TypeAlias = Literal[
    "enter",  # the client is there: in the area, or known at all if clients are followed
    "move",  # it was, and is there
    "leave",  # it is no longer in the area
    "gone",  # it was erased, has expired, or has left a table that was full
    "snapshot",  # whoever was there when the follow began has been told
    "ended",  # the follow of an area has ended, for the reason that is told
]


class Event(Struct, gc=False, eq=False):
    """Something to tell followers. One object is for all who are told the same; `spelled` keeps how each protocol spells
    it, by the name of the protocol, so that this is done once. `entry`: None if the kind has none.
    """

    kind: EventKind
    client: bytes = b""
    entry: Entry | None = None
    name: bytes = b""  # of the follow of an area, or of the one whose snapshot this is
    initial: bool = False  # whether it belongs to the snapshot
    complete: bool = False  # a snapshot: of a server that is ready
    clients: int = 0  # that were told in a snapshot
    reason: str = ""  # why a follow has ended
    spelled: dict[str, bytes] = {}

    def as_kind(self, kind: EventKind, *, initial: bool) -> Event:
        """Return it as another kind, for whoever was told something else before."""
        return Event(kind, self.client, self.entry, self.name, initial)


def is_later(new: Entry | None, old: Entry | None) -> bool:
    """Whether an entry comes after another one in the total order. None comes before all."""
    if new is None or old is None:
        return old is None
    return (new.nanoseconds, new.line) > (old.nanoseconds, old.line)
