"""The gazetteer behind a gate: a few queries at once, for its threads; askers that wait take turns."""

from __future__ import annotations

import asyncio
from typing import Final

from proxyherd.places.answers import Answer
from proxyherd.places.gazetteer.file import THREADS, Gazetteer
from proxyherd.places.limits.gate import Gate
from proxyherd.places.query import Query

QUERIES_AT_ONCE: Final = 2 * THREADS
"""Queries that are given to threads: one for each, and one more, so that no thread waits for the event loop."""


class Offline:
    """The provider `gazetteer`, for many askers."""

    name = Gazetteer.name

    def __init__(self, gazetteer: Gazetteer) -> None:
        self._gazetteer = gazetteer
        self._gate = Gate(QUERIES_AT_ONCE)

    def widened(self, query: Query) -> Query:
        """Return the query itself."""
        return query

    async def nearby(self, query: Query, asker: object) -> Answer:
        """Answer a query of `asker`."""
        async with self._gate.turn(asker, query):
            job = asyncio.ensure_future(self._gazetteer.nearby(query))
            try:
                return await asyncio.shield(job)
            except asyncio.CancelledError:
                await asyncio.wait([job])  # its thread is busy until then
                raise

    def join(self, query: Query, asker: object) -> None:
        """Let a query that waits at the gate also take a turn of this asker."""
        self._gate.join(asker, query)

    async def close(self) -> None:
        """Close the gazetteer."""
        await self._gazetteer.close()
