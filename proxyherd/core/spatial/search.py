"""Which clients are in an area, the nearest to its centre first: a search of the index, in slices of work.

It looks at rings around the centre, one after the other, until it has found enough. The first one is as large as the
density of clients at the centre suggests. So the nearest 20 of a city take as long as the nearest 20 of a village, and a
large radius costs nothing where a small one suffices.

Between two slices the table may change. What is said about a client is true when the search ends: those that have changed
meanwhile are looked at again, and who has been erased is left out. Clients that did not change are all there.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Generator, Iterator
from itertools import chain
from math import cos, sin
from operator import itemgetter
from typing import Final, TypeAlias

from proxyherd.base.earth import EARTH_METRES
from proxyherd.core.messages import Entry
from proxyherd.core.spatial.areas import Area, Circle
from proxyherd.core.spatial.index import SpatialIndex
from proxyherd.core.spatial.keys import (
    PLACE,
    STRIP_DEGREES,
    columns_between,
    start_of,
    strip_of,
)
from proxyherd.core.spatial.sphere import (
    HALF_EARTH,
    HALF_RADIANS,
    RADIANS,
    Disc,
    haversine_between,
    haversine_of,
    metres_of,
)
from proxyherd.core.value import Value

MOST_FOUND: Final = 1_000
"""Clients in one answer; there may be a next one."""

SEARCH_SLICE: Final = 768
"""Clients that are looked at in one slice of work, besides those of one run of keys: half a millisecond."""

RESULT_SLICE: Final = 128
"""Clients that are put into the answer in one slice of work, and those that have changed and are looked at again."""

_DEARER: Final = 4
"""A client costs so many times as much if more must be known than its distance."""

_STRIP_COST: Final = 8
"""A strip costs as much as so many clients."""

_FEW_STRIPS: Final = 5
"""Through so few strips, a search is as wide everywhere: to compute how wide it must be costs more."""

_SAMPLE: Final = 24
"""Clients by which their density is estimated."""

_SPARE: Final = 256
_LEAVING: Final = 32
"""So many clients of an answer may leave while it is made, without a shorter answer."""

_haversine = itemgetter(0)
_ALL_ROUND: Final = [(-180.0, 180.0)]

_STRIP_METRES: Final = STRIP_DEGREES * RADIANS * EARTH_METRES
_FIRST_METRES: Final = 500.0
"""The first radius where there are too few clients for an estimate."""

_ENOUGH: Final = 1.4
"""A ring should have this many times the clients that are missing: a second ring costs more than a few clients."""

Rank: TypeAlias = tuple[float, bytes]
"""Where a client comes in the order of answers: the haversine of its distance from the centre, then its ID."""

Accepts: TypeAlias = Callable[[bytes, Entry], bool]
"""Whether a client may be in an answer: its ID and its entry."""

FIRST: Final[Rank] = (-1.0, b"")


class Question(Value):
    """Which clients are in an area: the nearest ones that come after a place, up to `most`, which is at most
    MOST_FOUND. `accepts` None: all may be in the answer.
    """

    area: Area
    most: int
    after: Rank = FIRST
    accepts: Accepts | None = None


class FoundClient(Value):
    """A client that was found, its entry, and its distance from the centre of the area in metres."""

    client: bytes
    entry: Entry
    metres: float


class SearchResult(Value):
    """The clients that were found, the nearest first; and after which place to go on, None if there are no more. Rarely,
    there are fewer clients than were wanted although there are more.
    """

    found: list[FoundClient]
    next: Rank | None


def search(index: SpatialIndex, question: Question) -> Generator[SearchResult | None]:
    """Search the index. Yields None after each slice of work, and the answer at the end. Raises Misdrawn."""
    yield from question.area.check()
    yield from index.catch_up()
    one, touched = _Search(index, question), index.begin_search()
    try:
        for _ in chain(one.rings(), one.settle(touched)):
            yield None
    finally:
        index.end_search(touched)
    yield one.answer()


class _Search:
    """One search, and what it has found. Radii are metres; distances are compared by their haversines."""

    def __init__(self, index: SpatialIndex, question: Question) -> None:
        self._index = index
        self._area, self._most = question.area, min(question.most, MOST_FOUND)
        self._after, self._accepts = question.after, question.accepts
        self._latitude, self._longitude = self._area.centre
        self._cosine = cos(self._latitude * RADIANS)
        self._reach = min(self._area.reach, HALF_EARTH)
        self._farthest = haversine_of(self._reach) if self._reach < HALF_EARTH else math.inf
        self._contains = None if isinstance(self._area, Circle) else self._area.contains
        self._begin = metres_of(max(self._after[0], 0.0))
        self._found: list[tuple[float, int]] = []  # haversines and slots
        self._told: dict[int, FoundClient] = {}  # by slot
        self._horizon: Rank = (math.inf, b"")  # all before it is found at the end
        self._slice = SEARCH_SLICE
        if self._contains is not None or self._accepts is not None:
            self._slice //= _DEARER
        self._looked = 0  # in this slice
        self._spans = self._area.bounds.spans

    def rings(self) -> Iterator[None]:
        """Look at one ring after the other. Yields after each slice of work."""
        inner, nearest = self._begin, self._after[0]
        while True:
            outer = self._next_radius(inner)
            farthest = haversine_of(outer) if outer < self._reach else self._farthest
            yield from self._ring(inner, outer, nearest, farthest)
            if outer >= self._reach:
                return
            if len(self._found) > self._most:
                self._horizon = min(self._horizon, (math.nextafter(farthest, math.inf), b""))
                return
            inner, nearest = outer, farthest

    def _next_radius(self, inner: float) -> float:
        """Return how far to look next."""
        missing, begin = _ENOUGH * (self._most + 1 - len(self._found)), self._begin
        if inner > begin:
            density = len(self._found) / (inner * inner - begin * begin)
            outer = math.sqrt(inner * inner + missing / density) if density else math.inf
            return min(max(outer, 1.2 * inner), 4 * inner, self._reach)
        count, width = self._index.keys.sample(self._latitude, self._longitude, _SAMPLE)
        if not count:
            return min(begin + _FIRST_METRES, self._reach)
        metres = width * RADIANS * EARTH_METRES * self._cosine + 1.0
        outer = math.sqrt(begin * begin + missing / math.pi * _STRIP_METRES * metres / count)
        return min(max(outer, begin + 1.0), self._reach)

    def _ring(self, inner: float, outer: float, nearest: float, farthest: float) -> Iterator[None]:
        """Look at all that are farther away than `inner` metres, but not than `outer`; and their haversines."""
        keys, bounds, spans = self._index.keys, self._area.bounds, self._spans
        disc, hole = Disc(self._latitude, outer), Disc(self._latitude, inner) if inner else None
        south, north = max(disc.south, bounds.south, -90.0), min(disc.north, bounds.north, 90.0)
        strip, last = strip_of(south), strip_of(north)
        few = last - strip <= _FEW_STRIPS
        columns = _columns(self._longitude, disc.widest(south, north), -1.0, spans) if few else []
        gathered = array("Q")
        while strip <= last:
            if not few:
                low, high = strip * STRIP_DEGREES - 90, min((strip + 1) * STRIP_DEGREES - 90, 90.0)
                gap = hole.narrowest(low, high) if hole is not None else -1.0
                columns = _columns(self._longitude, disc.widest(low, high), gap, spans)
            start, before = start_of(strip), len(gathered)
            for first, end in columns:
                following = start + first
                while following >= 0:
                    run, following = keys.between(following, start + end)
                    gathered += run
                    if len(gathered) + self._looked > self._slice:
                        self._look_at(gathered, nearest, min(farthest, self._horizon[0]), south, north)
                        gathered, before, self._looked = array("Q"), 0, 0
                        yield
            self._looked += _STRIP_COST
            strip = strip + 1 if len(gathered) > before else keys.next_strip(strip + 1)
        self._look_at(gathered, nearest, min(farthest, self._horizon[0]), south, north)
        self._looked += len(gathered)

    def _look_at(self, keys: array[int], nearest: float, farthest: float, south: float, north: float) -> None:
        """Find those that belong into the answer: between two distances, and between two latitudes."""
        index, found, contains = self._index, self._found, self._contains
        positions, clients, accepts = index.positions, index.clients, self._accepts
        own_latitude, own_longitude, cosine = self._latitude, self._longitude, self._cosine
        after, its_client = self._after
        for key in keys:
            at = key & PLACE
            latitude = positions[at]
            if not south <= latitude <= north:
                continue
            longitude = positions[at + 1]
            u = sin((latitude - own_latitude) * HALF_RADIANS)
            v = sin((longitude - own_longitude) * HALF_RADIANS)
            haversine = u * u + cosine * cos(latitude * RADIANS) * v * v
            if not nearest < haversine <= farthest and not (
                haversine == nearest == after and clients[at >> 1] > its_client
            ):
                continue
            if contains is not None and not contains(latitude, longitude):
                continue
            slot = at >> 1
            if accepts is None or self._may_be_told(slot):
                found.append((haversine, slot))
        if len(found) > 2 * self._most + _SPARE:
            self._forget_the_farthest(2 * self._most)

    def _may_be_told(self, slot: int) -> bool:
        assert self._accepts is not None
        entry = self._index.entry(slot)
        return entry is not None and self._accepts(self._index.clients[slot], entry)

    def _forget_the_farthest(self, kept: int) -> None:
        """Keep so many, the nearest."""
        self._sort()
        del self._found[kept:]
        self._horizon = self._place(self._found[-1])

    def _sort(self) -> None:
        """Put what was found in the order of answers."""
        found = self._found
        found.sort(key=_haversine)
        if len(set(map(_haversine, found))) < len(found):
            found.sort(key=self._place)

    def _place(self, found: tuple[float, int]) -> Rank:
        return found[0], self._index.clients[found[1]]

    def settle(self, touched: set[bytes]) -> Iterator[None]:
        """Make the answer, and look again at all clients that have changed since the search began, until nothing changes any
        more: `touched` has those that the index has taken in. Yields after each slice of work.
        """
        index, clients, told = self._index, self._index.clients, self._told
        if len(self._found) > self._most + _LEAVING:
            self._forget_the_farthest(self._most + _LEAVING)
        while True:
            if index.behind:
                touched.update(one for _, slot in self._found if index.is_behind(one := clients[slot]))
            if touched:
                self._look_again({touched.pop() for _ in range(min(len(touched), RESULT_SLICE))}, touched)
            self._sort()
            best = self._found[: self._most]
            untold = [one for one in best if one[1] not in told] if told else best
            self._tell(untold[:RESULT_SLICE])
            if not touched and len(untold) <= RESULT_SLICE:
                return
            yield

    def _tell(self, found: list[tuple[float, int]]) -> None:
        """Put some clients into the answer."""
        clients, homes, told = self._index.clients, self._index.homes, self._told
        for haversine, slot in found:
            client = clients[slot]
            if (
                entry := homes[slot].get(client)
            ) is not None:  # none is missing: all have been looked at just now
                told[slot] = FoundClient(client, entry, metres_of(haversine))

    def _look_again(self, again: set[bytes], touched: set[bytes]) -> None:
        """Look again at some clients that have changed."""
        index, clients = self._index, self._index.clients
        found = [one for one in self._found if (client := clients[one[1]]) and client not in again]
        for client in again:
            slot = index.catch_up_with(client)
            touched.discard(client)  # the index has put it there just now
            if slot is None:
                continue
            self._told.pop(slot, None)
            latitude, longitude = index.positions[2 * slot], index.positions[2 * slot + 1]
            haversine = haversine_between(self._latitude, self._longitude, latitude, longitude)
            if (
                haversine <= self._farthest
                and self._after < (haversine, client) <= self._horizon
                and (self._contains is None or self._contains(latitude, longitude))
                and (self._accepts is None or self._may_be_told(slot))
            ):
                found.append((haversine, slot))
        self._found = found

    def answer(self) -> SearchResult:
        """Return what was found."""
        found = [self._told[slot] for _, slot in self._found[: self._most]]
        if len(self._found) <= self._most and self._horizon[0] == math.inf:
            return SearchResult(found, None)
        last = self._place(self._found[self._most - 1]) if len(found) == self._most else self._horizon
        return SearchResult(found, last)


def _columns(
    longitude: float, width: float, gap: float, spans: list[tuple[float, float]]
) -> list[tuple[int, int]]:
    """Return ranges of keys in strip 0, in order and apart from each other: those of all columns within `width` degrees of
    a longitude, but not within `gap`, and within one of the spans of longitudes.
    """
    if width < 0 or gap >= 180:
        return []
    west, east = longitude - min(width, 180.0), longitude + min(width, 180.0)
    if gap < 0:
        if west >= -180 and east <= 180 and spans == _ALL_ROUND:
            return [columns_between(west, east)]
        pieces = [(west, east)]
    else:
        pieces = [(west, longitude - gap), (longitude + gap, east)]
    ranges = sorted(
        columns_between(first, last)
        for piece_west, piece_east in pieces
        for turn in (-360, 0, 360)
        for span_west, span_east in spans
        if (first := max(piece_west + turn, span_west)) <= (last := min(piece_east + turn, span_east))
    )
    apart, done = list[tuple[int, int]](), 0
    for start, end in ranges:
        if end > done:
            apart.append((max(start, done), end))
            done = end
    return apart
