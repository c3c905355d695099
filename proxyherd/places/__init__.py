"""Places: what is near a location, by Google Places or, without a key, by an offline gazetteer.

A server only uses `Places`; `open_places` puts together what the herd's file says. From the top:

- `front`: always gives an answer: deadline, shared calls, cache, limits
- `limits`: limits calls to a provider over the network
- `google`: both of Google's APIs
- `gazetteer`: offline; needs none of these limits
- `query`, `answers`, `failures`: queries, answers and errors
- `key`: reads the key for Google
- `watch`: what is reported to log and metrics

A server imports this before it listens. So the providers, and the libraries that they need, are imported when they are
opened.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from proxyherd.places.answers import STATUSES, Answer, no_results
from proxyherd.places.front import Places
from proxyherd.places.key import KEY_CREDENTIAL, KEY_VARIABLE, find_key
from proxyherd.places.limits.breaker import STATES, BreakerState
from proxyherd.places.query import Provider, Query, Upstream
from proxyherd.places.watch import CallOutcome, NoBudget, Spared, Spend, Watch

if TYPE_CHECKING:
    from proxyherd.config import schema

__all__ = [
    "CHOICES",
    "KEY_CREDENTIAL",
    "KEY_VARIABLE",
    "PROVIDER_NAMES",
    "STATES",
    "STATUSES",
    "Answer",
    "BreakerState",
    "CallOutcome",
    "NoBudget",
    "Places",
    "Provider",
    "Query",
    "Spared",
    "Spend",
    "Watch",
    "find_key",
    "no_results",
    "open_places",
]

ENTRY_BYTES = 1_024
"""What a cached answer takes besides its body: the query, the objects, and their places in dictionaries."""


class _NoKey:
    """Google without a key: the server starts, and its answers say what is missing."""

    def __init__(self, name: str) -> None:
        self.name = name

    def widened(self, query: Query) -> Query:
        return query

    def join(self, query: Query, asker: str | None) -> None:
        pass

    def answer_at_once(self, query: Query) -> Answer:  # noqa: ARG002 — no query can be answered
        return no_results(
            "REQUEST_DENIED",
            f"this server has no key for Google Places; its operator can set {KEY_VARIABLE} or places.key_file",
        )

    async def nearby(self, query: Query, asker: str | None) -> Answer:  # noqa: ARG002 — likewise
        return self.answer_at_once(query)

    async def close(self) -> None:
        pass


class Opening(Struct, frozen=True):
    """What a provider may need when it is opened."""

    places: schema.PlacesSettings
    watch: Watch
    budget: Spend
    key: str | None
    gazetteer: Path


def _gazetteer(opening: Opening) -> Provider:
    from proxyherd.places.gazetteer.provider import Gazetteer  # noqa: PLC0415 — see the top

    return Gazetteer(opening.gazetteer)


def _google(opening: Opening) -> Provider:
    from proxyherd.places.google.auto import Auto  # noqa: PLC0415 — see the top
    from proxyherd.places.google.calling import Caller  # noqa: PLC0415 — likewise
    from proxyherd.places.google.new import GoogleNew  # noqa: PLC0415 — likewise
    from proxyherd.places.google.old import Google  # noqa: PLC0415 — likewise
    from proxyherd.places.limits.resilience import Resilient  # noqa: PLC0415 — likewise

    places, key = opening.places, opening.key
    if key is None:
        return _NoKey(places.provider)
    caller = Caller(places, key, opening.budget, opening.watch)
    old, new = Google(places, caller), GoogleNew(places, caller)
    chosen: dict[str, Upstream] = {"google": old, "google-new": new, "auto": Auto(old, new)}
    return Resilient(chosen[places.provider], places, opening.watch)


class Choice(Struct, frozen=True):
    """A value of `places.provider`. Answers of a provider that needs a key are kept for `google_cache_seconds`, those of
    another for `cache_seconds`.
    """

    open: Callable[[Opening], Provider]
    needs_key: bool


CHOICES: Final = {
    "auto": Choice(_google, needs_key=True),
    "google": Choice(_google, needs_key=True),
    "google-new": Choice(_google, needs_key=True),
    "gazetteer": Choice(_gazetteer, needs_key=False),
}
"""The providers, by their names in the herd's file. `auto` without a key is the gazetteer."""

PROVIDER_NAMES: Final = tuple(name for name in CHOICES if name != "auto")
"""What providers are called in logs and metrics."""


def open_places(
    places: schema.PlacesSettings,
    limits: schema.Limits,
    watch: Watch,
    *,
    key: str | None,
    gazetteer: Path,
    budget: Spend,
) -> Places:
    """Open the provider of the herd's file, behind its limits.

    `gazetteer` is the file that `proxyherd gazetteer build` has made; it may appear later. Nothing here is bound to an
    event loop. The first call imports aiohttp or sqlite3 (about 0.2 s), so after a server listens, call it by
    `asyncio.to_thread`.
    """
    from cachetools import TTLCache  # noqa: PLC0415 — see the top

    choice = CHOICES["gazetteer" if places.provider == "auto" and key is None else places.provider]
    seconds = places.google_cache_seconds if choice.needs_key else places.cache_seconds
    kept: TTLCache[Query, Answer] | None = None
    if seconds and places.cache_bytes:
        kept = TTLCache(places.cache_bytes, seconds, getsizeof=lambda answer: len(answer.body) + ENTRY_BYTES)
    return Places(
        choice.open(Opening(places, watch, budget, key, gazetteer)),
        watch,
        deadline_seconds=places.deadline_seconds,
        max_in_flight=limits.max_places_in_flight,
        kept=kept,
    )
