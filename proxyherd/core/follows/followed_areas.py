"""The areas that are followed: who is inside of each, and who enters, moves in it and leaves.

A transition is judged by what was told last and by what is true now. So a report that is late changes nothing, and of a
client that crosses an area between two reports nothing is told. A client that leaves and comes back all the time because
its position is inexact stays inside, if the follow has a buffer: until it is more than so many metres outside.

Areas lie in grids of cells, the larger ones in the coarser grid. So a report looks only at areas that are near.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

from proxyherd.core.follows.event import Event, EventKind, is_later
from proxyherd.core.follows.follow import Follow
from proxyherd.core.follows.follower import Follower
from proxyherd.core.messages import Entry
from proxyherd.core.spatial.areas import Area, Box, Circle, round_longitude
from proxyherd.core.spatial.index import degrees
from proxyherd.core.spatial.margins import outside_of
from proxyherd.core.spatial.sphere import Disc

MOST_INSIDE: Final = 10_000
"""Clients inside of all areas of one follower. Each takes at most some 300 bytes."""

MOST_INSIDE_ON_A_SERVER: Final = 200_000
"""Clients inside of all areas that are followed on one server: 60 MB."""

_CELLS: Final = (1 / 16, 1.0, 16.0, 512.0)
"""The sizes of cells of the grids, in degrees. The last one is the whole Earth."""

_MOST_CELLS: Final = 64
"""An area that has more cells of a grid lies in the next one."""


_Cell: TypeAlias = tuple[int, int]
_Grid: TypeAlias = "dict[_Cell, dict[FollowedArea, None]]"


class FollowedArea:
    """One area that a follower follows, and the entries of those inside of it that were told last."""

    __slots__ = ("area", "buffer", "cells", "follower", "inside", "name", "outside", "sees")

    def __init__(self, follow: Follow) -> None:
        assert follow.area is not None
        self.area, self.name, self.follower = follow.area, follow.name, follow.follower
        self.sees = follow.sees
        self.buffer = follow.buffer_m
        self.outside = outside_of(follow.area) if self.buffer else None
        self.inside: dict[bytes, Entry] = {}
        self.cells: list[tuple[_Grid, _Cell]] = []  # that it lies in

    def keeps(self, latitude: float, longitude: float) -> bool:
        """Whether a client that is inside still is, at this position."""
        if self.area.contains(latitude, longitude):
            return True
        return self.outside is not None and self.outside(latitude, longitude) <= self.buffer


class FollowedAreas:
    """All areas that are followed on one server. `due`: followers to whom something was told."""

    def __init__(self, due: dict[Follower, None]) -> None:
        self.due = due
        self.told: dict[EventKind, int] = dict.fromkeys(("enter", "move", "leave", "gone"), 0)
        self.count = 0
        self._grids: list[_Grid] = [{} for _ in _CELLS]
        self._inside_of: dict[bytes, dict[FollowedArea, None]] = {}
        self._inside = 0  # of all areas
        self._full: dict[FollowedArea, str] = {}  # why one more client could not enter
        self._events: dict[
            tuple[EventKind, bytes], Event
        ] = {}  # of one client: by kind and name of the follow

    def add(self, fence: FollowedArea) -> None:
        """Follow an area from now on. Nobody is inside yet."""
        self.count += 1
        fence.cells = self._cells_of(bounds_of(fence.area))
        for grid, cell in fence.cells:
            grid.setdefault(cell, {})[fence] = None

    def remove(self, fence: FollowedArea) -> None:
        """Follow an area no more."""
        if not fence.cells:
            return
        self.count -= 1
        for grid, cell in fence.cells:
            del grid[cell][fence]
            if not grid[cell]:
                del grid[cell]
        fence.cells = []
        for client in tuple(fence.inside):
            self._put_outside(fence, client)

    def take_full(self) -> dict[FollowedArea, str]:
        """Return the areas that one more client would have entered than there may be inside, and what there are too many of."""
        full, self._full = self._full, {}
        return full

    def take_in(self, client: bytes, entry: Entry | None) -> None:
        """Tell what the present entry of a client changes. None: it is no longer known."""
        self._events.clear()
        inside_of = [*self._inside_of.get(client, ())]
        if entry is None:
            for fence in inside_of:
                self._tell(fence, "gone", client, None)
            return
        latitude, longitude = degrees(entry.line)
        for fence in inside_of:
            self._move(fence, client, entry, latitude, longitude)
        for fence in self._near(latitude, longitude):
            if client not in fence.inside:
                self._enter(fence, client, entry, latitude, longitude)

    def find(self, fence: FollowedArea, client: bytes, entry: Entry) -> None:
        """Tell a client of the snapshot, unless it was told already or is not inside any more."""
        if client not in fence.inside and fence.cells:
            self._events.clear()
            self._enter(fence, client, entry, *degrees(entry.line), initial=True)

    def _enter(
        self,
        fence: FollowedArea,
        client: bytes,
        entry: Entry,
        latitude: float,
        longitude: float,
        *,
        initial: bool = False,
    ) -> None:
        if not fence.area.contains(latitude, longitude) or not (fence.sees is None or fence.sees(client)):
            return
        if fence.follower.inside >= MOST_INSIDE:
            self._full[fence] = (
                f"there are more than {MOST_INSIDE:,} clients in the areas that this connection follows"
            )
            return
        if self._inside >= MOST_INSIDE_ON_A_SERVER:
            self._full[fence] = (
                f"there are more than {MOST_INSIDE_ON_A_SERVER:,} clients in the areas that are followed on this server"
            )
            return
        self._tell(fence, "enter", client, entry, initial=initial)

    def _move(
        self, fence: FollowedArea, client: bytes, entry: Entry, latitude: float, longitude: float
    ) -> None:
        held = fence.inside[client]
        if entry.line == held.line:
            return
        if not is_later(entry, held):  # it was erased, and has reported again
            self._tell(fence, "gone", client, None)
            self._enter(fence, client, entry, latitude, longitude)
        else:
            stays = fence.keeps(latitude, longitude)
            self._tell(fence, "move" if stays else "leave", client, entry)

    def _tell(
        self,
        fence: FollowedArea,
        kind: EventKind,
        client: bytes,
        entry: Entry | None,
        *,
        initial: bool = False,
    ) -> None:
        event = self._events.get((kind, fence.name))
        if event is None:
            event = self._events[kind, fence.name] = Event(kind, client, entry, fence.name, initial)
        fence.follower.tell((event,))
        self.due[fence.follower] = None
        self.told[kind] += 1
        if kind == "enter":
            self._inside_of.setdefault(client, {})[fence] = None
            fence.follower.inside += 1
            self._inside += 1
        if kind in ("leave", "gone"):
            self._put_outside(fence, client)
        elif entry is not None:
            fence.inside[client] = entry

    def _put_outside(self, fence: FollowedArea, client: bytes) -> None:
        del fence.inside[client]
        fence.follower.inside -= 1
        self._inside -= 1
        inside_of = self._inside_of[client]
        del inside_of[fence]
        if not inside_of:
            del self._inside_of[client]

    def _near(self, latitude: float, longitude: float) -> Iterator[FollowedArea]:
        """Yield the areas in whose cells a position is."""
        for size, grid in zip(_CELLS, self._grids, strict=True):
            if grid:
                yield from grid.get((int((latitude + 90) // size), int((longitude + 180) // size)), ())

    def _cells_of(self, box: Box) -> list[tuple[_Grid, _Cell]]:
        """Return the cells of the finest grid of which a box has few."""
        for size, grid in zip(_CELLS, self._grids, strict=True):
            rows = _range(box.south + 90, box.north + 90, size)
            columns = [_range(west + 180, east + 180, size) for west, east in box.spans]
            if len(rows) * sum(map(len, columns)) <= _MOST_CELLS:
                cells = dict.fromkeys((row, one) for row in rows for some in columns for one in some)
                return [(grid, cell) for cell in cells]
        raise AssertionError("all of the Earth is one cell")


def _range(first: float, last: float, size: float) -> range:
    return range(int(first // size), int(last // size) + 1)


def bounds_of(area: Area) -> Box:
    """Return a box that contains an area."""
    if not isinstance(area, Circle):
        return area.bounds
    disc = Disc(area.latitude, area.metres)
    south, north = max(disc.south, -90.0), min(disc.north, 90.0)
    width = disc.widest(south, north)
    if width >= 180:
        return Box(-180.0, south, 180.0, north)
    west, east = area.longitude - width, area.longitude + width
    return Box(round_longitude(west), south, round_longitude(east), north)
