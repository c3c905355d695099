"""Places: what is near a location, by Google Places or, without a key, by an offline gazetteer.

`Places` is the one thing a server talks to. It keeps the rule of this room: a query always gets an answer in
Nearby Search format, in time, whatever the provider under it does. A provider only has to be right when all
is well; deadline, bound and failure are kept here, once.

A server imports this before it listens, so the providers and what they need are imported when opened.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from proxyherd.config import ConfigError
from proxyherd.places.answers import STATUSES, Answer, no_results

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from proxyherd import config

__all__ = ["STATUSES", "Answer", "Places", "Provider", "Query", "find_key", "no_results", "open_places"]

KEY_CREDENTIAL = "google-places-api-key"
"""The systemd credential with the key."""

KEY_VARIABLE = "GOOGLE_PLACES_API_KEY"
"""The environment variable with the key."""

MAX_KEY_BYTES = 4_096
"""Bytes of a key's file that are read: a key has some 40, and the file may be named by mistake."""


class Query(msgspec.Struct, frozen=True):
    """What is asked: the places within `metres` of a location, `most` of them at most.

    Latitude and longitude are decimal degrees as the client spelled them, sign included: `+34.068930`.
    """

    latitude: str
    longitude: str
    metres: Decimal
    most: int


class Provider(Protocol):
    """Who knows what is near. It may raise, hang or be slow: `Places` above it answers then."""

    name: str
    """What the provider is called in logs and metrics."""

    async def nearby(self, query: Query) -> Answer:
        """Answer a query that wants at least one result within more than nothing."""

    async def close(self) -> None:
        """Let go of connections and threads; called once, when no query is awaited any more."""


class Places:
    """A provider behind a deadline and a bound, with an answer for everything that can go wrong."""

    def __init__(self, provider: Provider, *, deadline_seconds: float, max_in_flight: int) -> None:
        self._provider = provider
        self._deadline = deadline_seconds
        self._max_in_flight = max_in_flight
        self._in_flight = 0

    @property
    def name(self) -> str:
        """The name of the provider: `google` or `gazetteer`."""
        return self._provider.name

    @property
    def in_flight(self) -> int:
        """How many queries wait for the provider."""
        return self._in_flight

    async def nearby(self, query: Query) -> Answer:
        """Answer a query within the deadline. Raises nothing but CancelledError, when it is cancelled.

        A radius or a bound of 0 is answered at once; so is a query too many, as UNKNOWN_ERROR.
        """
        if not query.metres or not query.most:
            return no_results("ZERO_RESULTS")
        if self._in_flight >= self._max_in_flight:
            return no_results(
                "UNKNOWN_ERROR", f"{self._in_flight} queries wait for Places already; try again later"
            )
        self._in_flight += 1
        try:
            async with asyncio.timeout(self._deadline):
                return await self._provider.nearby(query)
        except TimeoutError:
            return no_results("UNKNOWN_ERROR", f"Places did not answer within {self._deadline:g} s")
        except Exception as error:  # noqa: BLE001 — the rule of this room
            # Only the type: the text of an aiohttp error may hold the URL, and so the key.
            return no_results("UNKNOWN_ERROR", f"Places failed ({type(error).__name__})")
        finally:
            self._in_flight -= 1

    async def close(self) -> None:
        """Let go of what the provider holds."""
        await self._provider.close()


class _NoKey:
    """Google without a key: a server starts all the same, and says what is missing."""

    name = "google"

    async def nearby(self, query: Query) -> Answer:  # noqa: ARG002 — no query can be answered
        return no_results(
            "REQUEST_DENIED",
            f"this server has no key for Google Places; its operator can set {KEY_VARIABLE} or places.key_file",
        )

    async def close(self) -> None:
        pass


def open_places(places: config.Places, limits: config.Limits, *, key: str | None, gazetteer: Path) -> Places:
    """Choose the provider that the herd's file asks for, and put it behind its limits.

    `gazetteer` is the file that `proxyherd gazetteer build` made; it may appear later. Nothing here is bound
    to an event loop, and the first call imports aiohttp or sqlite3 (some 0.2 s): once a server listens, call
    it by `asyncio.to_thread`.
    """
    provider: Provider
    if places.provider == "gazetteer" or (places.provider == "auto" and key is None):
        from proxyherd.places.gazetteer import Gazetteer  # noqa: PLC0415 — see the top

        provider = Gazetteer(gazetteer)
    elif key is None:
        provider = _NoKey()
    else:
        from proxyherd.places.google import Google  # noqa: PLC0415 — see the top

        provider = Google(places, key)
    return Places(
        provider, deadline_seconds=places.deadline_seconds, max_in_flight=limits.max_places_in_flight
    )


def find_key(places: config.Places, herd_file: Path, environ: Mapping[str, str]) -> str | None:
    """Find the key for Google: in `places.key_file`, else the systemd credential, else the environment.

    White space at its ends is dropped, and an empty one is none. Raises ConfigError, which names the source
    and the remedy but never the key, if a file cannot be read or holds no key; who catches it starts without.
    """
    if places.key_file is not None:
        file = herd_file.parent / places.key_file
        if key := _key(_read(file, f"{herd_file}: key places.key_file"), str(file)):
            return key
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        file = Path(directory, KEY_CREDENTIAL)
        if key := _key(_read(file, "the systemd credential", optional=True), str(file)):
            return key
    return _key(os.fsencode(environ.get(KEY_VARIABLE, "")), f"the variable {KEY_VARIABLE}")


def _read(file: Path, what: str, *, optional: bool = False) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_KEY_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        if optional and isinstance(error, FileNotFoundError):
            return b""
        why = getattr(error, "strerror", error)
        raise ConfigError(f"{what}: {file}: {why}; write the key into it, readable by the server") from error


def _key(raw: bytes, where: str) -> str | None:
    """Check what should be a key; nothing of it goes into an error."""
    if len(raw) > MAX_KEY_BYTES:
        raise ConfigError(
            f"{where}: longer than {MAX_KEY_BYTES} bytes, so no key; write the key alone into it"
        )
    key = raw.strip()
    if any(not 0x21 <= byte <= 0x7E for byte in key):
        raise ConfigError(
            f"{where}: holds white space or bytes that are not ASCII, so no key; write the key alone into it"
        )
    return key.decode() or None
