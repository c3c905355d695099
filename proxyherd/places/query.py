"""Queries for places, and the interfaces of those that answer them."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from proxyherd.places.answers import Answer


class Query(Struct, frozen=True):
    """A query: the places within `metres` of a location, at most `most` of them; both are greater than 0.

    Latitude and longitude are decimal degrees as in the client's report, with their signs: `+34.068930`.
    """

    latitude: str
    longitude: str
    metres: Decimal
    most: int


class Upstream(Protocol):
    """A provider over the network. Its failures raise FailedError."""

    @property
    def name(self) -> str:
        """Its name in logs and metrics."""

    def widened(self, query: Query) -> Query:
        """Return the query that is really sent. Its answer also answers `query` after surplus results are cut off."""

    async def nearby(self, query: Query, seconds: float, asker: str | None) -> Answer:
        """Answer a query within so many seconds. Calls are paid by this asker's share of the budget."""

    async def close(self) -> None:
        """Close connections; called once, when no query is awaited any more."""


class Provider(Protocol):
    """Answers queries of many askers at once. It may raise, hang or be slow; then `Places` above it answers."""

    @property
    def name(self) -> str:
        """Its name in logs and metrics: one of few words."""

    def widened(self, query: Query) -> Query:
        """Return the query that is really sent. Its answer also answers `query` after surplus results are cut off."""

    def answer_at_once(self, query: Query) -> Answer | None:
        """Answer such a query if that takes a fraction of a millisecond; return None if it takes longer."""

    async def nearby(self, query: Query, asker: str | None) -> Answer:
        """Answer a query of `asker`. Queries that are under way at the same time are always different."""

    def join(self, query: Query, asker: str | None) -> None:
        """Note that this asker waits for a query under way too: it gets the turn of whichever asker comes first."""

    async def close(self) -> None:
        """Close connections and threads; called once, when no query is awaited any more."""
