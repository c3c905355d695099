"""The snapshots with which follows begin: who is there already.

The follow is registered first, so that no change is missed. Then whoever is there is told, in parts: some clients in each
turn, or a page of an area when the follower has read the one before, also if that was of another area. Whoever was told
meanwhile because it has moved is not told again. At the end comes the event `snapshot`. If the server is not ready then, the event is not complete, and there is
one more when it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Final, TypeAlias

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


_Waiting: TypeAlias = "dict[Follower, deque[_Snapshot]]"
"""Snapshots of each follower, in order."""


class Snapshots:
    """The snapshots of one server that are not complete."""

    def __init__(self, node: Node, followed: FollowedClients, fences: FollowedAreas) -> None:
        self.failed: list[tuple[Follower, Exception]] = []  # searches that have raised an exception
        self._node = node
        self._followed = followed
        self._fences = fences
        self._of_clients: _Waiting = {}
        self._of_areas: _Waiting = {}
        self._incomplete: _Waiting = {}  # told, by a server that was not ready

    @property
    def has_work(self) -> bool:
        """Whether `run` has something to do now."""
        if self._node.all_wait:
            return False
        return bool(
            self._of_clients
            or (self._incomplete and self._node.ready)
            or any(self._may_go_on(some[0]) for some in self._of_areas.values())
            or self._node.searches.has_work
        )

    def begin(self, follow: Follow, fence: FollowedArea | None = None) -> None:
        """Begin the snapshot of a follow that is registered."""
        snapshot = _Snapshot(follow, fence, iter(dict.fromkeys(follow.clients)))
        waiting = self._of_clients if fence is None else self._of_areas
        waiting.setdefault(follow.follower, deque()).append(snapshot)

    def cancel(self, follower: Follower, name: bytes | None = None) -> None:
        """End the snapshots of a follow, or of all follows, of a follower. None are told any more."""
        for waiting in (self._of_clients, self._of_areas, self._incomplete):
            some = waiting.get(follower, ())
            for one in [one for one in some if name in (None, one.follow.name)]:
                if one.answered is not None:
                    self._node.searches.cancel(one.answered)
                self._remove(waiting, one)

    @staticmethod
    def _remove(waiting: _Waiting, one: _Snapshot) -> None:
        follower = one.follow.follower
        waiting[follower].remove(one)
        if not waiting[follower]:
            del waiting[follower]

    def run(self, now: float) -> None:
        """Tell some of it: at the end of a turn, when all changes of the table are taken in. `now`: seconds of one monotonic
        clock.
        """
        if self._node.all_wait:
            return
        self._look_up()
        if self._node.searches.has_work:
            self._node.searches.work()
        self._tell_pages(now)
        if self._incomplete and self._node.ready:
            incomplete, self._incomplete = self._incomplete, {}
            for some in incomplete.values():
                for one in some:
                    self._end(one)

    def _tell_pages(self, now: float) -> None:
        """Search and tell some pages, one of each follower at most. Those that had none come first in the next turn."""
        to_search = to_tell = _PAGES
        for follower in [*self._of_areas]:
            one = self._of_areas[follower][0]
            if to_search and one.page is None and self._may_go_on(one):
                to_search -= 1
                self._search(one, now)
            if to_tell and one.page is not None and self._may_go_on(one):
                to_tell -= 1
                self._of_areas[follower] = self._of_areas.pop(follower)
                self._tell_page(one)
            if not (to_search or to_tell):
                break

    @staticmethod
    def _may_go_on(one: _Snapshot) -> bool:
        """Whether the next page can be searched or told: the one before was read."""
        return one.answered is None and not one.follow.follower.is_behind

    def _look_up(self) -> None:
        left = _LOOKED_UP
        while self._of_clients and left > 0:
            follower = next(iter(self._of_clients))
            one = self._of_clients[follower][0]
            sees, some = one.follow.sees, [*islice(one.clients, left)]
            left -= max(len(some), 1)
            for client in some:
                if sees is None or sees(client):
                    one.told += self._followed.join(follower, client, self._entry(client))
            if left > 0:
                self._remove(self._of_clients, one)
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
            self._remove(self._of_areas, one)
            self.failed.append((one.follow.follower, page))
            return
        for found in page.found:
            entry = self._entry(found.client)
            if entry is not None:
                self._fences.find(one.fence, found.client, entry)
        if page.next is None:
            one.told = len(one.fence.inside)
            self._remove(self._of_areas, one)
            self._end(one)
        else:
            one.after = page.next

    def _end(self, one: _Snapshot) -> None:
        """Tell that whoever is there was told."""
        follower, ready = one.follow.follower, self._node.ready
        follower.tell((Event("snapshot", name=one.follow.name, complete=ready, clients=one.told),))
        self._followed.due[follower] = None
        if not ready:
            some = self._incomplete.setdefault(follower, deque())
            for before in [before for before in some if before.follow.name == one.follow.name]:
                some.remove(before)
            some.append(one)
