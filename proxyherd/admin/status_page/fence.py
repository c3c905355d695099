"""What a viewer of the map follows: one client, or all that are in a circle; and what has changed since the last look.

A look is a search of the server's own table. So what is told is conflated: of a client that reports often, the viewer gets
one position for each look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from proxyherd.core.area_searches import AreaSearches
from proxyherd.core.messages import Entry
from proxyherd.core.spatial.areas import Circle
from proxyherd.core.spatial.index import degrees
from proxyherd.core.spatial.search import SearchResult
from proxyherd.core.table import Table
from proxyherd.web.ids import name_of

MOST_IN_CIRCLE: Final = 200
"""Clients of a circle that are told: those that are nearest to its centre."""


class FenceUpdate(Struct):
    """What has changed: the names of clients, of those that are there with latitude and longitude. `more`: whether there are
    more than are told. `first`: whether nothing was told before.
    """

    first: bool
    more: bool
    enter: list[tuple[str, float, float]]
    move: list[tuple[str, float, float]]
    leave: list[str]
    gone: list[str]

    @property
    def says_nothing(self) -> bool:
        """Whether nothing has changed."""
        return not (self.first or self.enter or self.move or self.leave or self.gone)


class Fence:
    """A client, or a circle if `client` is b""."""

    def __init__(self, table: Table, areas: AreaSearches, client: bytes, circle: Circle | None) -> None:
        self._table = table
        self._areas = areas
        self._client, self._circle = client, circle
        self._inside: dict[bytes, bytes] = {}  # clients, and the lines that were told
        self._first = True

    async def look(self) -> FenceUpdate:
        """Return what has changed since the last look."""
        if self._circle is None:
            entry = self._table.get(self._client)
            return self.update({} if entry is None else {self._client: entry}, more=False)
        result = await search_circle(self._areas, self._circle, MOST_IN_CIRCLE)
        if result is None:  # too many search: nothing is known now
            return FenceUpdate(False, False, [], [], [], [])
        found = {one.client: one.entry for one in result.found}
        return self.update(found, more=result.next is not None)

    def update(self, found: Mapping[bytes, Entry], *, more: bool) -> FenceUpdate:
        """Return what has changed, if these are there now."""
        told, before = FenceUpdate(self._first, more, [], [], [], []), self._inside
        for client, entry in found.items():
            if before.get(client) != entry.line:
                kind = told.move if client in before else told.enter
                kind.append((name_of(client), *degrees(entry.line)))
        for client in before.keys() - found.keys():
            kind_of_end = told.gone if self._table.get(client) is None else told.leave
            kind_of_end.append(name_of(client))
        self._inside = {client: entry.line for client, entry in found.items()}
        self._first = False
        return told


async def search_circle(areas: AreaSearches, circle: Circle, most: int) -> SearchResult | None:
    """Search a circle in slices; None if too many searches go on. Raises what the search raises."""
    answers: list[SearchResult | Exception] = []
    if not areas.search(circle, most, answers.append, asyncio.get_running_loop().time()):
        return None
    try:
        while not answers:
            await asyncio.sleep(0)
            areas.work()
    finally:
        areas.cancel(answers.append)
    if isinstance(answers[0], Exception):
        raise answers[0]
    return answers[0]
