"""What is asked of Places, and who may be asked."""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from msgspec import Struct

from proxyherd.places.answers import Answer


class Query(Struct, frozen=True):
    """What is asked: the places within `metres` of a location, `most` of them at most.

    Latitude and longitude are decimal degrees as the client spelled them, sign included: `+34.068930`.
    """

    latitude: str
    longitude: str
    metres: Decimal
    most: int


class Upstream(Protocol):
    """Who knows what is near, over the network. What fails there raises FailedError."""

    @property
    def name(self) -> str:
        """What it is called in logs and metrics."""

    def widened(self, query: Query) -> Query:
        """Return the query that is really asked, which answers `query` once its surplus results are cut off."""

    async def nearby(self, query: Query, seconds: float) -> Answer:
        """Answer within so many seconds a query that wants at least one result within more than nothing."""

    async def close(self) -> None:
        """Let go of connections; called once, when no query is awaited any more."""


class Provider(Protocol):
    """Who answers queries of many askers at once. It may raise, hang or be slow: `Places` above it answers then."""

    @property
    def name(self) -> str:
        """What it is called in logs and metrics: a word of few."""

    def widened(self, query: Query) -> Query:
        """Return the query that is really asked, which answers `query` once its surplus results are cut off."""

    async def nearby(self, query: Query, asker: object) -> Answer:
        """Answer a query of `asker` that wants at least one result within more than nothing. No two queries that are
        under way at once are equal.
        """

    def join(self, query: Query, asker: object) -> None:
        """Let a query that is under way count as this asker's too, whichever turn comes first."""

    async def close(self) -> None:
        """Let go of connections and threads; called once, when no query is awaited any more."""
