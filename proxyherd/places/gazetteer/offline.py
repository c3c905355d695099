"""The gazetteer behind a gate: a few queries at once, its threads' work, and those who wait by turns of their askers."""

from __future__ import annotations

import asyncio
from typing import Final

from proxyherd.places.answers import Answer
from proxyherd.places.gazetteer.file import THREADS, Gazetteer
from proxyherd.places.limits.gate import Gate
from proxyherd.places.query import Query

QUERIES_AT_ONCE: Final = 2 * THREADS
"""Queries that are handed to threads: one for each, and one behind it, so that none waits for the event loop."""


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
                await asyncio.wait([job])  # its thread is not free before
                raise

    def join(self, query: Query, asker: object) -> None:
        """Let a query that waits at the gate come in by a turn of this asker too."""
        self._gate.join(asker, query)

    async def close(self) -> None:
        """Close the gazetteer."""
        await self._gazetteer.close()
