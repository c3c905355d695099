"""A stand-in for Google: both Places APIs over HTTP, answered from the offline gazetteer, with faults on demand.

It is for people who try the herd without a key, and for tests. The rules: a client written for Google sees the same as
from Google, as far as a herd uses it. Faults are drawn from one seed, in the order in which requests arrive. A key is
compared, but never kept, printed or answered.

This module is the HTTP server; `old` and `new` write the answers.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import math
import random
import ssl
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final, Literal, Protocol

import msgspec
from aiohttp import web
from cachetools import LRUCache
from msgspec import Struct

from proxyherd.places import Query
from proxyherd.places.answers import Answer
from proxyherd.standin.new import New
from proxyherd.standin.old import Old
from proxyherd.standin.shapes import Api, RefusedError, Search, SimulatedQuery, SimulatedReply, nearness

BACKLOG: Final = 4_096
"""Connections that wait to be accepted: a herd may open all of its own at once."""

CACHE_BYTES: Final = 64 * 1_048_576
"""Bytes of answers that are cached, plain and compressed: about 2,000 full ones."""

MAX_BODY_BYTES: Final = 65_536
"""Bytes of a request's body; a search has about 300."""

_PACKED_BYTES: Final = 1_024
"""A body of at least this length is compressed for clients that accept gzip; shorter ones gain nothing."""

QUOTA_SECONDS: Final = 60.0

_GRACE_SECONDS: Final = 0.01  # for answers under way at the end; aiohttp would take 0 for no limit
_ENTRY_BYTES: Final = 2_048  # what an answer costs beside its body: the most that its field mask may have
_ALL: Final = 1_000_000  # more places than any circle holds
_EVERYTHING_ELSE: Final = "other"

_LOG = logging.getLogger(__name__)
_DEAF = logging.getLogger(f"{__name__}.deaf")  # for aiohttp, whose errors quote requests, and so the key
_DEAF.disabled = True


class InjectedFault(enum.Enum):
    """What may happen to a request instead of an answer."""

    ERROR = "HTTP_500"
    UNAVAILABLE = "HTTP_503"
    TOO_MANY = "HTTP_429"
    DROP = "DROPPED"
    HANG = "HUNG"
    NONSENSE = "NONSENSE"


_STATUSES: Final = {InjectedFault.ERROR: 500, InjectedFault.UNAVAILABLE: 503, InjectedFault.TOO_MANY: 429}


class Faults(Struct, frozen=True, kw_only=True):
    """Faults, and delays. The six kinds of fault are fractions of the requests.

    Raises ValueError for fractions outside 0 to 1, or of more than 1 together, and for negative numbers.
    """

    latency: float = 0.0
    """Seconds of delay for every request."""

    jitter: float = 0.0
    """The most seconds that are randomly added, uniformly distributed."""

    errors: float = 0.0
    """HTTP 500."""

    unavailable: float = 0.0
    """HTTP 503."""

    too_many: float = 0.0
    """HTTP 429, with `retry_after`."""

    drop: float = 0.0
    """The connection is closed without an answer."""

    hang: float = 0.0
    """No answer, and the connection stays open until the client closes it."""

    nonsense: float = 0.0
    """HTTP 200 with half an answer, which is not JSON."""

    retry_after: int | None = None
    """Whole seconds in the Retry-After header of HTTP 429; None: there is no such header."""

    quota: int | None = None
    """Calls that each API answers in a minute, which begins with the first call; None: no limit."""

    disable: Literal["old", "new"] | None = None
    """The API that is not enabled for the key."""

    def __post_init__(self) -> None:
        fractions = [fraction for fraction, _ in self.kinds()]
        if not all(0 <= fraction <= 1 for fraction in fractions) or sum(fractions) > 1 + 1e-9:
            raise ValueError("errors, unavailable, too_many, drop, hang and nonsense: together more than all")
        if not all(0 <= seconds < math.inf for seconds in (self.latency, self.jitter, self.retry_after or 0)):
            raise ValueError("latency, jitter and retry_after: seconds of at least 0")
        if self.quota is not None and self.quota < 0:
            raise ValueError("quota: at least 0 calls a minute")

    def kinds(self) -> tuple[tuple[float, InjectedFault], ...]:
        """Return each kind's fraction of the requests."""
        return (
            (self.errors, InjectedFault.ERROR),
            (self.unavailable, InjectedFault.UNAVAILABLE),
            (self.too_many, InjectedFault.TOO_MANY),
            (self.drop, InjectedFault.DROP),
            (self.hang, InjectedFault.HANG),
            (self.nonsense, InjectedFault.NONSENSE),
        )

    def kind(self, chance: float) -> InjectedFault | None:
        """Return what happens to a request that drew `chance`, at least 0 and less than 1."""
        for fraction, fault in self.kinds():
            if chance < fraction:
                return fault
            chance -= fraction
        return None


class Source(Protocol):
    """The source of places: a Gazetteer."""

    async def nearby(self, query: Query) -> Answer:
        """Answer in the format of the old Nearby Search, with as many places as the query asks for."""

    async def close(self) -> None:
        """Release what it holds."""


class Served(Struct, frozen=True):
    """The outcome of one request, for the operator. `status` 0: there was no answer."""

    api: str
    status: int
    outcome: str
    seconds: float
    results: int = 0
    search: Search | None = None


class _Quota:
    """Calls within the present minute."""

    def __init__(self) -> None:
        self._start = -math.inf
        self._calls = 0

    def takes(self, calls: int | None, now: float) -> bool:
        if now - self._start >= QUOTA_SECONDS:
            self._start, self._calls = now, 0
        self._calls += 1
        return calls is None or self._calls <= calls


class Simulator:
    """Serves both APIs. It can be made anywhere; `start` and everything after it belong to one event loop.

    `key` is the accepted key; None: any that is not empty. `faults` may be replaced at any time. `seed` makes faults
    repeatable. `on_request` is called with each request, `on_served` with its outcome.
    """

    def __init__(
        self,
        gazetteer: Source,
        *,
        key: str | None = None,
        faults: Faults | None = None,
        seed: int | None = None,
        on_request: Callable[[SimulatedQuery], None] | None = None,
        on_served: Callable[[Served], None] | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.faults = faults or Faults()
        self._gazetteer = gazetteer
        self._key = key
        self._random = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._on_request = on_request
        self._on_served = on_served
        apis: tuple[Api, ...] = (Old(), New())
        self._apis = {(api.method, api.path): api for api in apis}
        self._quotas = {api.name: _Quota() for api in apis}
        self._counts: dict[str, Counter[str]] = {
            name: Counter() for name in (*self._quotas, _EVERYTHING_ELSE)
        }
        self._in_flight = 0
        self._answers: LRUCache[tuple[str, Search], SimulatedReply] = LRUCache(cache_bytes, _size)
        self._runner: web.ServerRunner | None = None

    async def start(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> str:
        """Listen, at a free port if `port` is 0; return the URL before the paths. Raises OSError."""
        server = web.Server(self._handle, handler_cancellation=True, access_log=None, logger=_DEAF)
        self._runner = web.ServerRunner(server, shutdown_timeout=_GRACE_SECONDS)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, backlog=BACKLOG, ssl_context=tls).start()
        except OSError:
            await self._runner.cleanup()
            raise
        port = self._runner.addresses[0][1]
        scheme = "https" if tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    async def close(self) -> None:
        """Close every connection at once, answered or not, and release the gazetteer."""
        if self._runner is not None:
            await self._runner.cleanup()
        await self._gazetteer.close()

    def stats(self) -> dict[str, Any]:
        """Return requests by API and outcome, those that are under way, and the cached answers."""
        return {
            "requests": {name: dict(sorted(counts.items())) for name, counts in self._counts.items()},
            "in_flight": self._in_flight,
            "kept_answers": len(self._answers),
        }

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        api = self._apis.get((request.method, request.path))
        if api is None:
            return self._handle_else(request)
        loop = asyncio.get_running_loop()
        start = loop.time()
        faults, fault = self.faults, self.faults.kind(self._random.random())
        delay = faults.latency + faults.jitter * self._random.random()
        search: Search | None = None
        reply, outcome = None, "CLIENT_GONE"
        self._in_flight += 1
        try:
            asked = await _read(request)
            if self._on_request is not None:
                self._on_request(asked)
            if delay:
                await asyncio.sleep(delay)
            if fault is InjectedFault.DROP or fault is InjectedFault.HANG:
                outcome = fault.value
                if fault is InjectedFault.DROP and request.transport is not None:
                    request.transport.close()
                await loop.create_future()  # cancelled when the connection has ended
            if fault in _STATUSES:
                reply = api.failure(_STATUSES[fault])
            else:
                search, reply = await self._reply(api, asked, faults, loop.time())
            outcome = InjectedFault.NONSENSE.value if fault is InjectedFault.NONSENSE else reply.outcome
            return _respond(reply, fault, faults, packs="gzip" in request.headers.get("Accept-Encoding", ""))
        except web.HTTPException as refusal:  # a body that is too long
            outcome = f"HTTP_{refusal.status}"
            raise
        except Exception:  # noqa: BLE001 - a test's client must see an answer, its author the traceback
            _LOG.exception("the simulator failed")
            outcome, reply = "FAILED", api.failure(500)
            return _respond(reply, None, faults, packs=False)
        finally:
            self._in_flight -= 1
            self._count(api.name, reply, outcome, loop.time() - start, search)

    async def _reply(
        self, api: Api, asked: SimulatedQuery, faults: Faults, now: float
    ) -> tuple[Search | None, SimulatedReply]:
        """Answer as Google does without faults: check the key first, then the quota, then the query."""
        key = api.key(asked)
        if not key:
            return None, api.no_key
        if self._key not in {None, key}:
            return None, api.bad_key
        if faults.disable == api.name:
            return None, api.disabled
        if not self._quotas[api.name].takes(faults.quota, now):
            return None, api.over_quota
        try:
            search = api.read(asked)
        except RefusedError as error:
            return None, error.reply
        reply = self._answers.get((api.name, search))
        if reply is None:
            found = await self._find(search)
            if found is None:
                _LOG.error("the gazetteer cannot be read; run `proxyherd gazetteer build`")
                return search, api.failure(500)
            reply = api.answer(search, *found)
            if len(search.mask) <= _ENTRY_BYTES and _size(reply) <= self._answers.maxsize:
                self._answers[api.name, search] = reply
        return search, reply

    async def _find(self, search: Search) -> tuple[list[dict[str, Any]], list[str]] | None:
        """Ask the gazetteer for one place more than requested; None if it cannot be read."""
        answer = await self._gazetteer.nearby(
            Query(
                latitude=f"{Decimal(repr(search.latitude)):f}",
                longitude=f"{Decimal(repr(search.longitude)):f}",
                metres=Decimal(repr(search.metres)),
                most=_ALL if search.by_distance else search.most + 1,
            )
        )
        if answer.status not in {"OK", "ZERO_RESULTS"}:
            return None
        document = msgspec.json.decode(answer.body)
        places: list[dict[str, Any]] = document["results"]
        if search.by_distance:
            places.sort(key=lambda place: nearness(search, place))
        return places, document["html_attributions"]

    def _handle_else(self, request: web.BaseRequest) -> web.Response:
        if request.method == "GET" and request.path == "/stats":
            body = msgspec.json.format(msgspec.json.encode(self.stats()), indent=2) + b"\n"
            return web.Response(body=body, content_type="application/json")
        self._count(_EVERYTHING_ELSE, None, "HTTP_404", 0.0, None, status=404)
        served = "".join(f"{method} {path}\n" for method, path in (*self._apis, ("GET", "/stats")))
        return web.Response(status=404, text=f"This stand-in for Google Places serves nothing but:\n{served}")

    def _count(
        self,
        name: str,
        reply: SimulatedReply | None,
        outcome: str,
        seconds: float,
        search: Search | None,
        status: int = 0,
    ) -> None:
        self._counts[name][outcome] += 1
        if self._on_served is not None:
            if reply is not None:
                status = reply.status
            results = reply.results if reply is not None else 0
            self._on_served(Served(name, status, outcome, seconds, results, search))


def _size(reply: SimulatedReply) -> int:
    return _ENTRY_BYTES + 2 * len(reply.body)


async def _read(request: web.BaseRequest) -> SimulatedQuery:
    body = b""
    if request.can_read_body:
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise web.HTTPRequestEntityTooLarge(MAX_BODY_BYTES, request.content_length or 0)
        body = await request.read()
    return SimulatedQuery(request.path, request.query, request.headers, body)


def _respond(
    reply: SimulatedReply, fault: InjectedFault | None, faults: Faults, *, packs: bool
) -> web.Response:
    headers = {"Content-Type": reply.content_type, "Server": "proxyherd-places-sim"}
    body = reply.body
    if fault is InjectedFault.NONSENSE:
        body = body[: len(body) // 2]
    elif packs and len(body) >= _PACKED_BYTES:
        body = reply.packed()
        headers["Content-Encoding"] = "gzip"
    if fault is InjectedFault.TOO_MANY and faults.retry_after is not None:
        headers["Retry-After"] = str(faults.retry_after)
    return web.Response(body=body, status=reply.status, headers=headers)
