"""The snapshots with which follows begin: who is there already.

The follow is registered first, so that no change is missed. Then whoever is there is told, in parts: some clients in each
turn, or a page of an area when the follower has read the one before. Whoever was told meanwhile because it has moved is not
told again. At the end comes the event `snapshot`. If the server is not ready then, the event is not complete, and there is
one more when it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final

from msgspec import Struct

from proxyherd.core.follows.event import Event
from proxyherd.core.follows.follow import Follow
from proxyherd.core.follows.followed_areas import FollowedArea, FollowedAreas
from proxyherd.core.follows.followed_clients import FollowedClients
from proxyherd.core.follows.follower import Follower
from proxyherd.core.messages import Entry
from proxyherd.core.node import Node
from proxyherd.core.spatial.search import FIRST, Question, Rank, SearchResult
from proxyherd.core.spatial.searches import Answered

_LOOKED_UP: Final = 1_000
"""Followed clients that are looked up in one turn, at most: about two milliseconds."""

_PAGE: Final = 500
"""Clients of an area that are told at once."""

_PAGES: Final = 2
"""Pages that are searched or told in one turn, at most: about a millisecond each."""


class _Snapshot(Struct, eq=False):
    """What is still to be told."""

    follow: Follow
    fence: FollowedArea | None  # if an area is followed
    clients: Iterator[bytes]  # that are to be looked up
    after: Rank = FIRST  # the place in the search where to go on
    told: int = 0
    answered: Answered | None = None  # of the search that goes on
    page: SearchResult | Exception | None = None  # what it has found


class Snapshots:
    """The snapshots of one server that are not complete."""

    def __init__(self, node: Node, followed: FollowedClients, fences: FollowedAreas) -> None:
        self.failed: list[tuple[Follower, Exception]] = []  # searches that have raised an exception
        self._node = node
        self._followed = followed
        self._fences = fences
        self._of_clients: deque[_Snapshot] = deque()
        self._of_areas: deque[_Snapshot] = deque()
        self._incomplete: list[_Snapshot] = []  # told, by a server that was not ready

    @property
    def has_work(self) -> bool:
        """Whether `run` has something to do now."""
        if self._node.all_wait:
            return False
        return bool(
            self._of_clients
            or (self._incomplete and self._node.ready)
            or any(one.page is not None or self._may_search(one) for one in self._of_areas)
            or self._node.searches.has_work
        )

    def begin(self, follow: Follow, fence: FollowedArea | None = None) -> None:
        """Begin the snapshot of a follow that is registered."""
        snapshot = _Snapshot(follow, fence, iter(dict.fromkeys(follow.clients)))
        (self._of_clients if fence is None else self._of_areas).append(snapshot)

    def cancel(self, follower: Follower, name: bytes | None = None) -> None:
        """End the snapshots of a follow, or of all follows, of a follower. None are told any more."""
        ended = [
            one
            for one in (*self._of_clients, *self._of_areas, *self._incomplete)
            if one.follow.follower is follower and name in (None, one.follow.name)
        ]
        for one in ended:
            if one.answered is not None:
                self._node.searches.cancel(one.answered)
        if ended:
            self._of_clients = deque(one for one in self._of_clients if one not in ended)
            self._of_areas = deque(one for one in self._of_areas if one not in ended)
            self._incomplete = [one for one in self._incomplete if one not in ended]

    def run(self, now: float) -> None:
        """Tell some of it: at the end of a turn, when all changes of the table are taken in. `now`: seconds of one monotonic
        clock.
        """
        if self._node.all_wait:
            return
        self._look_up()
        if self._node.searches.has_work:
            self._node.searches.work()
        to_search = to_tell = _PAGES
        for _ in range(len(self._of_areas)):
            one = self._of_areas.popleft()
            if to_search and one.page is None and self._may_search(one):
                to_search -= 1
                self._search(one, now)
            if to_tell and one.page is not None:
                to_tell -= 1
                self._tell_page(one)
            else:
                self._of_areas.append(one)
        if self._incomplete and self._node.ready:
            incomplete, self._incomplete = self._incomplete, []
            for one in incomplete:
                self._end(one)

    @staticmethod
    def _may_search(one: _Snapshot) -> bool:
        """Whether the next page can be searched: the one before was read."""
        return one.answered is None and not one.follow.follower.is_behind

    def _look_up(self) -> None:
        left = _LOOKED_UP
        while self._of_clients and left > 0:
            one = self._of_clients[0]
            follower, sees, some = one.follow.follower, one.follow.sees, [*islice(one.clients, left)]
            left -= max(len(some), 1)
            for client in some:
                if sees is None or sees(client):
                    one.told += self._followed.join(follower, client, self._entry(client))
            if left > 0:
                self._of_clients.popleft()
                self._end(one)

    def _entry(self, client: bytes) -> Entry | None:
        return self._node.rules.remembered(self._node.table.get(client))

    def _search(self, one: _Snapshot, now: float) -> None:
        assert one.fence is not None
        rules, sees = self._node.rules, one.fence.sees

        def accepts(client: bytes, entry: Entry) -> bool:
            return (sees is None or sees(client)) and not rules.is_forgotten(entry)

        everybody = sees is None and not rules.age
        question = Question(one.fence.area, _PAGE, one.after, None if everybody else accepts)
        one.answered = partial(self._note, one)
        if not self._node.searches.ask(question, one.answered, now):
            one.answered = None

    @staticmethod
    def _note(one: _Snapshot, page: SearchResult | Exception) -> None:
        one.page, one.answered = page, None

    def _tell_page(self, one: _Snapshot) -> None:
        page, one.page = one.page, None
        assert one.fence is not None
        if not isinstance(page, SearchResult):
            assert page is not None
            self.failed.append((one.follow.follower, page))
            return
        for found in page.found:
            entry = self._entry(found.client)
            if entry is not None:
                self._fences.find(one.fence, found.client, entry)
        if page.next is None:
            one.told = len(one.fence.inside)
            self._end(one)
        else:
            one.after = page.next
            self._of_areas.append(one)

    def _end(self, one: _Snapshot) -> None:
        """Tell that whoever is there was told."""
        follower, ready = one.follow.follower, self._node.ready
        follower.outbox.append(Event("snapshot", name=one.follow.name, complete=ready, clients=one.told))
        self._followed.due[follower] = None
        if not ready:
            self._incomplete.append(one)
