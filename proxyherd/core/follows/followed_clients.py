"""The clients that are followed by their IDs. What is told of one is one event for all who follow it."""

from __future__ import annotations

from msgspec import Struct

from proxyherd.core.follows.event import Event, EventKind, is_later
from proxyherd.core.follows.follower import Follower
from proxyherd.core.messages import Entry


class _Followed(Struct, eq=False):
    """One of them: its entry that was told last, None if it is not known, and who follows it."""

    entry: Entry | None
    followers: dict[Follower, None]


class FollowedClients:
    """All clients that are followed on one server. `due`: followers to whom something was told."""

    def __init__(self, due: dict[Follower, None]) -> None:
        self.due = due
        self.told: dict[EventKind, int] = dict.fromkeys(("enter", "move", "gone"), 0)
        self._followed: dict[bytes, _Followed] = {}

    def __len__(self) -> int:
        return len(self._followed)

    def __contains__(self, client: bytes) -> bool:
        return client in self._followed

    def join(self, follower: Follower, client: bytes, entry: Entry | None) -> bool:
        """Let somebody follow a client whose present entry this is, and tell it. Return whether it is known. Those who follow
        it already are told what they do not know yet.
        """
        followed = self._followed.get(client)
        if followed is None:
            followed = self._followed[client] = _Followed(entry, {})
        else:
            self.take_in(client, entry)
            if follower in followed.followers:
                return False
        followed.followers[follower] = None
        if entry is None:
            return False
        follower.tell((Event("enter", client, entry, initial=True),))
        self.due[follower] = None
        self.told["enter"] += 1
        return True

    def part(self, follower: Follower, client: bytes) -> None:
        """Let a follower follow a client no more."""
        if (followed := self._followed.get(client)) is not None:
            followed.followers.pop(follower, None)
            if not followed.followers:
                del self._followed[client]

    def take_in(self, client: bytes, entry: Entry | None) -> None:
        """Tell what the present entry of a followed client changes. None: it is no longer known."""
        followed = self._followed[client]
        held, followed.entry = followed.entry, entry
        if entry is None:
            if held is not None:
                self._tell(followed, Event("gone", client))
        elif held is None:
            self._tell(followed, Event("enter", client, entry))
        elif entry.line == held.line:
            pass
        elif is_later(entry, held):
            self._tell(followed, Event("move", client, entry))
        else:  # it was erased, or forgotten, and has reported again
            self._tell(followed, Event("gone", client))
            self._tell(followed, Event("enter", client, entry))

    def _tell(self, followed: _Followed, event: Event) -> None:
        followers = followed.followers
        told = (event,)
        for follower in followers:
            if follower.outbox:
                follower.tell(told)
            else:
                follower.outbox = told  # as `tell` does it, without a call
        self.due.update(followers)
        self.told[event.kind] += len(followers)
