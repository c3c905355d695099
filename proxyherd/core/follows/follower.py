"""One connection that follows clients or areas, and what waits to be told to it.

While it reads, events wait from the end of a turn to its push, and are told as they are. While it does not read, they are
*conflated*: of each client, and of each area, there waits what leads from what was told last to what is true now. So who
reads slowly misses states in between, and never the last one.

| told last | is true now | waits |
| --- | --- | --- |
| not there | there | enter |
| there | there | move |
| there | not there | leave or gone |
| not there | not there | nothing |
| there | there again, and was gone in between | gone, enter |
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol, TypeAlias

from proxyherd.core.follows.event import Event, is_later
from proxyherd.core.messages import Entry

MOST_PENDING: Final = 1_000
"""Clients of which something may wait for a follower that does not read: more would be told late, and take memory."""

MOST_CLIENTS: Final = 1_000
"""Clients that a follower may follow by their IDs. One that several of its follows have counts for each of these."""

MOST_AREAS: Final = 16
"""Areas that a follower may follow."""

_Key: TypeAlias = tuple[bytes, bytes]
"""The name of a follow of an area, or nothing, and a client; or the name of a follow, and what is no client's ID."""

_SNAPSHOT: Final = b" snapshot"
_ENDED: Final = b" ended"
_NO_CLIENTS: Final = (_SNAPSHOT, _ENDED)


class Pushed(Protocol):
    """A connection that can be told something without having asked. Both are called between other calls, never within one."""

    def push(self) -> None:
        """Send what `Follower.take` returns, if the client reads; else close it if `Follower.is_too_slow`."""

    def fail(self) -> None:
        """Close the connection at once, and forget it: work for it has raised an exception."""


class Follower:
    """One connection that follows. `close` it when the connection ends.

    `outbox` has what was told since the last push, to be added to by `tell`. `send`: sends bytes to the client, while it reads and
    nothing is held; it gets an event as it is spelled under `form`. The connection sets it, and `hold` takes it away.
    """

    __slots__ = (
        "_due",
        "_forget",
        "_gones",
        "_held",
        "_is_known",
        "_resumes",
        "areas",
        "clients",
        "form",
        "inside",
        "is_closed",
        "named",
        "outbox",
        "payer",
        "pushed",
        "send",
    )

    def __init__(self, pushed: Pushed) -> None:
        self.pushed: Final = pushed
        self.outbox: Sequence[Event] = ()
        self._held: dict[_Key, Event] = {}  # what is told when it reads again, after what is in `_gones`
        self._gones: dict[_Key, Event] = {}
        self._resumes = False
        self.clients: dict[bytes, frozenset[bytes]] = {}  # by their IDs, the names of the follows of each
        self.named: dict[bytes, set[bytes]] = {}  # by the names of follows, their clients
        self.areas: dict[bytes, object] = {}  # likewise, what follows an area
        self.payer = ""  # whose these areas are, perhaps with those of other connections; "": nobody's
        self.inside = 0  # clients in all of these areas
        self.is_closed = False
        self.form = ""
        self.send: Callable[[bytes], object] | None = None
        self._due: dict[Follower, None] = {}  # who gets a push at the end of this turn
        self._forget: Callable[[Follower], None] | None = None  # by whom it is known
        self._is_known: Callable[[bytes, Entry], bool] = lambda _, __: True

    def enlist(
        self,
        due: dict[Follower, None],
        forget: Callable[[Follower], None],
        is_known: Callable[[bytes, Entry], bool],
    ) -> None:
        """Note where to ask for a push, who must know when it is closed, and who knows whether a client is known, and an
        entry of it was not erased.
        """
        self._due, self._forget, self._is_known = due, forget, is_known

    def resume(self) -> None:
        """Ask for a push at the end of the next turn, because the client reads again. What waits is not told before: the
        server may have learned since that a client was erased. See that a turn comes.
        """
        if self.waits:
            self._resumes = True
            self._due[self] = None

    def count_with(self, name: bytes, clients: Collection[bytes]) -> int:
        """Return how many clients its follows would have, if the follow of this name had these too."""
        others = sum(map(len, self.named.values())) - len(self.named.get(name, ()))
        return others + len({*clients} | self.named.get(name, set()))

    def close(self) -> None:
        """Follow nothing any more, because the connection has ended."""
        self.is_closed, self.send = True, None
        self.outbox, self._held, self._gones = (), {}, {}
        if self._forget is not None:
            self._forget(self)
            self._forget = None

    @property
    def waits(self) -> bool:
        """Whether something waits to be told."""
        return bool(self.outbox or self._held)

    @property
    def is_behind(self) -> bool:
        """Whether something waits that could not be sent by the last push, and the client does not read yet."""
        return bool(self._held) and not self._resumes

    def tell(self, told: tuple[Event]) -> None:
        """Add an event to what waits. Its tuple may be for all who are told it: most have nothing else that waits."""
        outbox = self.outbox
        if not outbox:
            self.outbox = told
        elif isinstance(outbox, list):
            outbox += told
        else:
            self.outbox = [*outbox, *told]

    def push(self) -> None:
        """Have what waits sent. Mostly that is one event, and others have been told it: it takes the short way."""
        outbox, send = self.outbox, self.send
        if send is not None and len(outbox) == 1:
            data = outbox[0].spelled.get(self.form)
            if data is not None:
                self.outbox = ()
                send(data)
                return
        self.pushed.push()

    def take(self) -> Sequence[Event]:
        """Return what is to be told now, in order, and keep nothing of it."""
        if self._held:
            self.hold()
            self.outbox = [
                event
                for key, held in self._held.items()
                for event in ((self._gones[key], held) if key in self._gones else (self._as_known(held),))
            ]
            self._held, self._gones, self._resumes = {}, {}, False
        events, self.outbox = self.outbox, ()
        return events

    @property
    def is_too_slow(self) -> bool:
        """Whether more waits than may. Ask when what waits cannot be sent: it is conflated then."""
        self.hold()
        self._resumes = False
        if len(self._held) <= MOST_PENDING:
            return False
        return sum(client not in _NO_CLIENTS for _, client in self._held) > MOST_PENDING

    def hold(self) -> None:
        """Conflate what waits."""
        self.send = None  # before what is held, nothing is sent
        for event in self.outbox:
            self._hold(event)
        self.outbox = ()

    def _hold(self, event: Event) -> None:
        kind, held = event.kind, self._held
        if kind in ("snapshot", "ended"):
            key = event.name, _SNAPSHOT if kind == "snapshot" else _ENDED
            held.pop(key, None)  # it comes behind all that was told before it
            held[key] = event
            return
        key = event.name, event.client
        before = held.get(key)
        if before is None:
            held[key] = event
        elif kind == "enter":
            if before.kind == "gone":
                self._gones[key] = before
                held[key] = event
            elif is_later(event.entry, before.entry):
                held[key] = event.as_kind("move", initial=False)
            else:  # it was erased, and has come back before that could be told
                self._gones[key] = Event("gone", event.client, name=event.name)
                held[key] = event
        elif kind == "move":
            held[key] = event.as_kind("enter", initial=before.initial) if before.kind == "enter" else event
        elif before.kind != "enter":
            held[key] = event
        elif key in self._gones:
            held[key] = self._gones.pop(key)
        else:
            del held[key]

    def _as_known(self, event: Event) -> Event:
        """Return the event without the position, if that is where a client has left an area that was erased meanwhile. All
        other events are of a client that is there: that it was erased would have been an event itself.
        """
        entry = event.entry
        if event.kind != "leave" or entry is None or self._is_known(event.client, entry):
            return event
        return Event("gone", event.client, name=event.name)

    def drop(self, name: bytes) -> None:
        """Do not tell what waits of the follow of an area."""
        self._drop([key for key in self._held_keys() if key[0] == name])

    def drop_clients(self, name: bytes, clients: Collection[bytes]) -> None:
        """Do not tell what waits of these clients, and of the snapshot of the follow of this name."""
        self._drop(
            [
                key
                for key in self._held_keys()
                if key == (name, _SNAPSHOT) or (not key[0] and key[1] in clients)
            ]
        )

    def _held_keys(self) -> Collection[_Key]:
        self.hold()
        return self._held.keys()

    def _drop(self, keys: Collection[_Key]) -> None:
        for key in keys:
            del self._held[key]
            self._gones.pop(key, None)
