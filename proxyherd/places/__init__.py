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

from pathlib import Path
from typing import TYPE_CHECKING

from proxyherd.places.answers import STATUSES, Answer, no_results
from proxyherd.places.front import Places
from proxyherd.places.key import KEY_CREDENTIAL, KEY_VARIABLE, find_key
from proxyherd.places.limits.breaker import STATES, BreakerState
from proxyherd.places.query import Provider, Query, Upstream
from proxyherd.places.watch import CallOutcome, NoBudget, Spared, Spend, Watch

if TYPE_CHECKING:
    from proxyherd.config import schema

__all__ = [
    "KEY_CREDENTIAL",
    "KEY_VARIABLE",
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

    def join(self, query: Query, asker: object) -> None:
        pass

    def answer_at_once(self, query: Query) -> Answer:  # noqa: ARG002 — no query can be answered
        return no_results(
            "REQUEST_DENIED",
            f"this server has no key for Google Places; its operator can set {KEY_VARIABLE} or places.key_file",
        )

    async def nearby(self, query: Query, asker: object) -> Answer:  # noqa: ARG002 — likewise
        return self.answer_at_once(query)

    async def close(self) -> None:
        pass


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

    offline = places.provider == "gazetteer" or (places.provider == "auto" and key is None)
    seconds = places.cache_seconds if offline else places.google_cache_seconds
    kept: TTLCache[Query, Answer] | None = None
    if seconds and places.cache_bytes:
        kept = TTLCache(places.cache_bytes, seconds, getsizeof=lambda answer: len(answer.body) + ENTRY_BYTES)
    return Places(
        _gazetteer(gazetteer) if offline else _google(places, watch, key, budget),
        watch,
        deadline_seconds=places.deadline_seconds,
        max_in_flight=limits.max_places_in_flight,
        kept=kept,
    )


def _gazetteer(file: Path) -> Provider:
    from proxyherd.places.gazetteer.provider import Gazetteer  # noqa: PLC0415 — see the top

    return Gazetteer(file)


def _google(places: schema.PlacesSettings, watch: Watch, key: str | None, budget: Spend) -> Provider:
    if key is None:
        return _NoKey(places.provider)
    from proxyherd.places.google.auto import Auto  # noqa: PLC0415 — see the top
    from proxyherd.places.google.calling import Caller  # noqa: PLC0415 — likewise
    from proxyherd.places.google.new import GoogleNew  # noqa: PLC0415 — likewise
    from proxyherd.places.google.old import Google  # noqa: PLC0415 — likewise
    from proxyherd.places.limits.resilience import Resilient  # noqa: PLC0415 — likewise

    caller = Caller(places, key, budget, watch)
    old, new = Google(places, caller), GoogleNew(places, caller)
    chosen: dict[str, Upstream] = {"google": old, "google-new": new}
    return Resilient(chosen.get(places.provider) or Auto(old, new), places, watch)
