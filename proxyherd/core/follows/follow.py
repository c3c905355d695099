"""The commands that begin and end a follow. No line can say them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from proxyherd.core.area_queries import spell_area
from proxyherd.core.follows.follower import Follower
from proxyherd.core.reply import Reply
from proxyherd.core.spatial.areas import Area

Sees: TypeAlias = Callable[[bytes], bool]
"""Whether a follower may be told of the client with this ID."""


class Follow(Struct, frozen=True, eq=False):
    """A command to follow some clients, or all that are in an `area`. `name`: as the follower calls it, the JSON of an ID; a
    follow of clients need not have one. `sees`: whom it may be told of; None: all.
    """

    follower: Follower
    name: bytes = b""
    clients: tuple[bytes, ...] = ()
    area: Area | None = None
    buffer_m: float = (
        0.0  # a client that is inside leaves the area when it is more than so many metres outside
    )
    sees: Sees | None = None


class Unfollow(Struct, frozen=True, eq=False):
    """A command to end the follows of this name. Nothing more is told of them after its answer."""

    follower: Follower
    name: bytes


class FollowReply(Reply):
    """The result of a Follow. The outcome is `following`; `refused`, and then `text` says which limit of the connection would
    be exceeded, and is empty if the server has no room for it; or `invalid`, and then it says what is wrong. `complete`:
    whether the server is ready: what the snapshot has is all. `is_taken`: it is invalid because the connection has another
    follow of this name.
    """

    complete: bool = False
    is_taken: bool = False
    text: str = ""


def spell_follow(command: Follow | Unfollow) -> bytes:
    """Return a command as it is shown in the log."""
    if isinstance(command, Unfollow):
        return b"unfollow " + command.name
    where = spell_area(command.area) if command.area is not None else b" ".join(command.clients)
    return b"follow " + where
