"""All follows of one server: what has changed in its table becomes events for those who follow.

Changes come from the table itself, whatever has caused them: reports, lines of neighbours, erasures, expiry, and reports that
could not be kept. So a follower is told what the table has become, and nothing of a report that is stale.

`run` is called at the end of a turn, when what clients have reported is kept, and `take_in` also where updates of neighbours
are passed on without a turn. Then there are followers to whom something is to be told. While a journal is replayed, no
follow begins: its first records are older than what was told before.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from proxyherd.core.changes import ChangeReader
from proxyherd.core.engine import Client, Settled
from proxyherd.core.follows.event import Event, EventKind
from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.follows.followed_areas import FollowedArea, FollowedAreas
from proxyherd.core.follows.followed_clients import FollowedClients
from proxyherd.core.follows.follower import MOST_AREAS, MOST_CLIENTS, Follower
from proxyherd.core.follows.snapshots import Snapshots
from proxyherd.core.messages import Entry
from proxyherd.core.node import Node
from proxyherd.core.reply import leave
from proxyherd.core.spatial.areas import Misdrawn

_CHECKED: Final = 4
"""Slices of work in one turn, at most, to find out whether areas can be ones: less than a millisecond each."""

MOST_POSITIONS_ON_A_SERVER: Final = 100_000
"""Positions that describe all areas that are followed on one server: 100 MB at most, if all are large polygons."""

MOST_POSITIONS_OF_ONE: Final = MOST_POSITIONS_ON_A_SERVER // 4
"""Those of all areas that one who asks follows, over all connections."""

_Check: TypeAlias = tuple[Iterator[None], Client | None, Follow, FollowReply]


class Follows:
    """The follows of one server. `wake` asks for a turn."""

    def __init__(self, node: Node, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.used = False  # whether anybody follows
        self._node = node
        self._reader: ChangeReader | None = None  # while anybody does
        self._due: dict[Follower, None] = {}
        self._followers: dict[Follower, None] = {}
        self._followed = FollowedClients(self._due)
        self._fences = FollowedAreas(self._due)
        self._positions = 0  # of all areas, also of those that are still checked
        self._positions_of = Counter[str]()  # likewise, of each who follows some
        self._snapshots = Snapshots(node, self._followed, self._fences)
        self._asked: list[tuple[Client | None, Follow | Unfollow, FollowReply]] = []  # since the last turn
        self._checks: deque[_Check] = deque()

    def __len__(self) -> int:
        return len(self._followers)

    @property
    def counts(self) -> tuple[int, int]:
        """How many clients and areas are followed."""
        return len(self._followed), self._fences.count

    def take_told(self) -> Counter[EventKind]:
        """Return how many events of each kind were told since the last call, each to one follower."""
        told = Counter(self._followed.told) + Counter(self._fences.told)
        for one in (self._followed.told, self._fences.told):
            one.update(dict.fromkeys(one, 0))
        return told

    @property
    def has_work(self) -> bool:
        """Whether `run` has something to do, though nothing changes."""
        return bool(self._checks) or self._snapshots.has_work

    @property
    def has_more(self) -> bool:
        """Whether `run` has something to do."""
        return self.used and (bool(self._reader) or self.has_work)

    # Calls for followers that are no clients. ----------------------------------------------------------------

    def begin(self, follow: Follow) -> None:
        """Begin a follow in the next turn. Its follower is not told of its reply, but of all that follows."""
        self._ask(None, follow, FollowReply("follow", "waiting"))
        self._wake()

    def resume(self, follower: Follower) -> None:
        """Tell a follower what waits for it, because it reads again."""
        if follower.waits:
            follower.resume()
            self._wake()

    # Calls from the engine. ----------------------------------------------------------------------------------

    def ask(self, client: Client, command: Follow | Unfollow, reply: FollowReply) -> None:
        """Take a command that a turn has decided."""
        self._ask(client, command, reply)

    def _ask(self, client: Client | None, command: Follow | Unfollow, reply: FollowReply) -> None:
        self._asked.append((client, command, reply))
        if self._reader is None:
            self.used, self._reader = True, ChangeReader(self._node.table)

    def undo(self) -> None:
        """Forget what this turn's clients have asked: it will be decided again."""
        self._asked = [one for one in self._asked if one[0] is None]

    def take_in(self) -> bool:
        """Take in what has changed in the table. Return whether something is to be told."""
        assert self._reader is not None
        changes, followed, fences = self._reader.take(), self._followed, self._fences
        for follower in self._due if changes else ():  # it was told something, and there was no push yet
            follower.hold()
        if len(followed):
            for client in [client for client in changes if client in followed]:
                followed.take_in(client, changes[client])
        if fences.count:
            for client, entry in changes.items():
                fences.take_in(client, entry)
            self._end_full()
        return bool(self._due)

    def run(self, settled: Settled, now: float) -> None:
        """Do what the turn's clients have asked, and tell what has changed. Add to the results of the turn the clients some of
        whose commands have their answers now, and the followers to whom something is to be told. `now`: seconds of one
        monotonic clock.
        """
        assert self._reader is not None
        self.take_in()
        for client, command, reply in self._asked:
            if command.follower.is_closed:
                leave(reply)
            elif isinstance(command, Unfollow):
                self._unfollow(command, reply)
            else:
                self._follow(client, command, reply)
        self._asked.clear()
        done = [*self._check_some()]
        if done:
            settled.clients = dict.fromkeys([*settled.clients, *done])
        self._snapshots.run(now)
        self._end_full()
        for follower, error in self._snapshots.failed:
            settled.failed = [*settled.failed, (follower.pushed, error)]
            self._due[follower] = None
        self._snapshots.failed.clear()
        settled.pushes = tuple(self._due)
        self._due.clear()
        if not (self._followers or self._checks):
            self._reader.close()
            self.used, self._reader = False, None

    # -----------------------------------------------------------------------------------------------------------

    def _follow(self, client: Client | None, follow: Follow, reply: FollowReply) -> None:
        follower, name = follow.follower, follow.name
        if client is not None and not follower.areas:  # it counts for the same as long as it has any
            follower.payer = client.payer
        if name in follower.areas or (follow.area is not None and name in follower.named):
            reply.is_taken = True
            self._refuse(reply, "invalid", "another follow of this connection has this ID")
        elif follow.area is None and follower.count_with(name, follow.clients) > MOST_CLIENTS:
            self._refuse(reply, "refused", f"a connection follows at most {MOST_CLIENTS:,} clients")
        elif follow.area is not None and len(follower.areas) >= MOST_AREAS:
            self._refuse(reply, "refused", f"a connection follows at most {MOST_AREAS} areas")
        elif follow.area is not None and not self._has_room(follower, follow.area.positions):
            self._refuse(reply, "refused", "")
        elif follow.area is None:
            self._enlist(follower)
            alone = frozenset((name,))  # the same for all of them: a set for each would take 200 bytes
            for one in follow.clients:
                names = follower.clients.get(one)
                follower.clients[one] = alone if names is None else names | alone
            follower.named.setdefault(name, set()).update(follow.clients)
            self._snapshots.begin(follow)
            self._accept(reply)
        else:
            self._enlist(follower)
            follower.areas[name] = follow
            self._count(follower, follow.area.positions)
            self._checks.append((follow.area.check(), client, follow, reply))

    def _has_room(self, follower: Follower, positions: int) -> bool:
        """Whether one more area may be followed. Nobody has more than a share of all, over all connections."""
        of_payer = self._positions_of[follower.payer] + positions if follower.payer else 0
        return self._positions + positions <= MOST_POSITIONS_ON_A_SERVER and of_payer <= MOST_POSITIONS_OF_ONE

    def _count(self, follower: Follower, positions: int) -> None:
        self._positions += positions
        self._positions_of[follower.payer] += positions
        if not self._positions_of[follower.payer]:
            del self._positions_of[follower.payer]

    def _enlist(self, follower: Follower) -> None:
        self._followers[follower] = None
        follower.enlist(self._due, self._forget, self._is_known)

    def _is_known(self, client: bytes, entry: Entry) -> bool:
        table = self._node.table
        return table.get(client) is not None and not table.is_erased(client, entry.line)

    def _accept(self, reply: FollowReply) -> None:
        reply.outcome, reply.answer, reply.complete = "following", b"", self._node.ready

    def _refuse(self, reply: FollowReply, outcome: str, text: str) -> None:
        reply.outcome, reply.answer, reply.text = outcome, b"", text
        if outcome == "refused":
            reply.refusal = "full"

    def _check_some(self) -> Iterator[Client]:
        """Check areas. Yield the clients whose follows of areas have begun, or cannot."""
        left = _CHECKED
        while self._checks and left > 0:
            steps, client, follow, reply = one = self._checks.popleft()
            follower = follow.follower
            if follower.is_closed:
                leave(reply)
                if client is not None:
                    yield client  # it is gone, and its command is logged
                continue
            left -= 1
            try:
                next(steps)
                self._checks.append(one)
                continue
            except StopIteration:
                if follower.areas.get(follow.name) is follow:  # else it has ended before it began
                    self._begin_area(follow)
                self._accept(reply)
            except Misdrawn as reason:
                if follower.areas.get(follow.name) is follow:
                    self._take_out(follower, follow.name)
                self._forget_idle(follower)
                self._refuse(reply, "invalid", str(reason))
            if client is not None:
                yield client

    def _begin_area(self, follow: Follow) -> None:
        fence = follow.follower.areas[follow.name] = FollowedArea(follow)
        self._fences.add(fence)
        self._snapshots.begin(follow, fence)

    def _unfollow(self, command: Unfollow, reply: FollowReply) -> None:
        follower, name = command.follower, command.name
        if name in follower.areas:
            self._end_area(follower, name)
        elif name in follower.named:
            self._snapshots.cancel(follower, name)
            parted = []
            for client in follower.named.pop(name):
                if others := follower.clients.pop(client) - {name}:
                    follower.clients[client] = others
                else:
                    self._followed.part(follower, client)
                    parted.append(client)
            follower.drop_clients(name, frozenset(parted))
        else:
            reply.outcome, reply.answer = "unknown", b""
            return
        self._forget_idle(follower)
        reply.outcome, reply.answer = "unfollowed", b""

    def _end_area(self, follower: Follower, name: bytes) -> None:
        self._take_out(follower, name)
        self._snapshots.cancel(follower, name)
        follower.drop(name)

    def _take_out(self, follower: Follower, name: bytes) -> None:
        """Follow an area no more; it may still be checked."""
        one = follower.areas.pop(name)
        assert isinstance(one, (Follow, FollowedArea))
        assert one.area is not None
        self._count(follower, -one.area.positions)
        if isinstance(one, FollowedArea):
            self._fences.remove(one)

    def _end_full(self) -> None:
        """End the follows of areas in which there are too many clients."""
        for fence, reason in self._fences.take_full().items():
            follower = fence.follower
            if follower.areas.get(fence.name) is fence:
                self._end_area(follower, fence.name)
                follower.tell((Event("ended", name=fence.name, reason=reason),))
                self._due[follower] = None

    def _forget_idle(self, follower: Follower) -> None:
        """Forget a follower that follows nothing any more, and is told nothing more."""
        if not (follower.clients or follower.areas or follower.waits):
            self._followers.pop(follower, None)

    def _forget(self, follower: Follower) -> None:
        """Forget a follower whose connection has ended."""
        self._followers.pop(follower, None)
        self._due.pop(follower, None)
        self._snapshots.cancel(follower)
        for client in follower.clients:
            self._followed.part(follower, client)
        for name in tuple(follower.areas):
            self._take_out(follower, name)
        follower.clients, follower.named = {}, {}
