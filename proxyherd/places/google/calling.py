"""HTTP to Google: one session, every call within its budget, every failure an exception without the key in it.

The rules: a call is recorded in the budget before it is made. Redirects are not followed, because their target would
get the key. A proxy is only asked for a tunnel. aiohttp's errors, requests and responses contain the URL and the
headers. So none of them is chained, formatted or passed on, or left in a frame that a traceback could show. If a body
repeats the key, it is removed first.
"""

from __future__ import annotations

import asyncio
import re
import time
import zlib
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final, Literal, TypeVar

import aiohttp
from msgspec import Struct
from yarl import URL

from proxyherd import __version__
from proxyherd.config import schema
from proxyherd.places.answers import NonsenseError, UnreadableError, no_results
from proxyherd.places.failures import FailedError, LateError, ShareError, UnrecordedError, failed
from proxyherd.places.watch import BILLED, CallOutcome, Spared, Spend, Watch

T = TypeVar("T")

KeyIn = Literal["query", "header"]
"""Where an API expects the key: in the parameter `key` of the URL, or in the header X-Goog-Api-Key."""

DNS_SECONDS: Final = 60
"""How long an address of the upstream is cached: far less than the time it takes to move a service."""

KEEPALIVE_SECONDS: Final = 60.0
"""How long an idle connection is kept: it saves TLS handshakes between calls. Load balancers keep connections
longer."""

THREAD_BYTES: Final = 65_536
"""A body longer than this is parsed in a thread, one at a time. The parser holds the interpreter, for about thirty
milliseconds with hostile JSON of the default `max_answer_bytes`; several at once would add up."""

FRACTION_DIGITS: Final = 12
"""Digits of a coordinate's fraction that are sent to Google. The twelfth is a ten-thousandth of a millimetre. A client
may send thousands, which do not fit into a URL."""


class HttpRequest(Struct, frozen=True):
    """A call without its key, which is put where `key_in` says. `judge` returns the outcome for a reply."""

    method: str
    url: URL
    key_in: KeyIn
    judge: Callable[[HttpReply], CallOutcome]
    headers: Mapping[str, str] = {}
    body: bytes | None = None


class HttpReply(Struct, frozen=True):
    """The reply: an HTTP status below 500 other than 429, and the body, from which the key was removed."""

    status: int
    body: bytes


class Caller:
    """Calls Google with a key. It can be made anywhere; its session belongs to the event loop of its first call."""

    def __init__(self, places: schema.PlacesSettings, key: str, budget: Spend, watch: Watch) -> None:
        self.key: Final = key
        self._places = places
        self._budget = budget
        self._watch = watch
        self._scrub = scrubber(key)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._reading = asyncio.Lock()

    def __repr__(self) -> str:
        return "Caller()"

    async def call(
        self, provider: str, request: HttpRequest, seconds: float, asker: str | None = None
    ) -> HttpReply:
        """Make one call for this asker, which takes at most so many seconds.

        Raises FailedError, and CancelledError if it is cancelled.
        """
        if seconds <= 0:  # aiohttp would take 0 for no limit
            raise failed("UNKNOWN_ERROR", "no time was left to ask Google Places")
        session = self._open_session()
        try:
            result = await self._send(session, provider, request, seconds, asker)
        except asyncio.CancelledError as error:
            raise error.with_traceback(None) from None
        if isinstance(result, FailedError):
            raise result
        return result

    async def _send(
        self,
        session: aiohttp.ClientSession,
        provider: str,
        asked: HttpRequest,
        seconds: float,
        asker: str | None,
    ) -> HttpReply | FailedError:
        """Make one call. It returns failures instead of raising them: a traceback from here would show who
        holds the key.
        """
        made, spent = False, 0

        async def recorded(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> Any:
            nonlocal made, spent
            if made:  # aiohttp would repeat a GET at once; only the caller may decide that
                raise failed("UNKNOWN_ERROR", "Google Places broke the connection off", again=True)
            try:
                spent = self._budget.spend(asker)
            except FailedError as error:
                self._watch.count_spared(_why_spared(error))
                raise
            made = True
            return await send(request)

        began = time.monotonic()
        outcome: CallOutcome = "abandoned"
        by_query = asked.key_in == "query"
        try:
            async with session.request(
                asked.method,
                asked.url.extend_query(key=self.key) if by_query else asked.url,
                headers=asked.headers if by_query else {**asked.headers, "X-Goog-Api-Key": self.key},
                data=asked.body,
                allow_redirects=False,
                middlewares=(recorded,),
                timeout=aiohttp.ClientTimeout(total=seconds, ceil_threshold=float("inf")),  # else rounded up
            ) as response:
                if (failure := _not_now(response)) is not None:
                    outcome = "limited" if response.status == 429 else "failed"
                    return failure
                received = await _read(response, self._places.max_answer_bytes)
                reply = HttpReply(response.status, self._scrub.sub(b"***", received))
                outcome = asked.judge(reply)
                return reply
        except Exception as error:  # noqa: BLE001 — any of them may carry the URL
            outcome, failure = _failure(error, seconds)
            return failure
        finally:
            taken = time.monotonic() - began
            if made:
                if outcome == "unreachable":  # there was no connection to send it on
                    self._budget.give_back(spent, asker)
                dollars = self._places.dollars_per_call if outcome in BILLED else 0.0
                self._watch.count_call(provider, outcome, taken, dollars)

    async def read(self, parse: Callable[[bytes], T], body: bytes) -> T:
        """Call `parse(body)` without delaying others. Raises FailedError for its NonsenseError."""
        try:
            if len(body) <= THREAD_BYTES:
                return parse(body)
            async with self._reading:
                return await asyncio.to_thread(parse, body)
        except NonsenseError as error:
            raise failed("UNKNOWN_ERROR", f"Google Places answered nonsense: {error}", again=True) from None

    async def close(self) -> None:
        """Close the session; later calls fail."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
        self._budget.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise failed("UNKNOWN_ERROR", "this server is stopping")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._places.max_connections,
                    limit_per_host=0,  # there is one host, or two that are asked in turn
                    ttl_dns_cache=DNS_SECONDS,
                    keepalive_timeout=KEEPALIVE_SECONDS,
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                proxy=self._places.proxy,  # it gives a tunnel, since the configuration requires https: behind it
                trust_env=False,  # the environment of the shell that started the server has no effect
                auto_decompress=False,  # see _read
                headers={"User-Agent": f"proxyherd/{__version__}", "Accept-Encoding": "gzip"},
            )
        return self._session


def scrubber(key: str) -> re.Pattern[bytes]:
    """Make a pattern that finds the key as it is, percent-encoded (once or more often), JSON-escaped, or mixed."""
    characters = []
    for character in key:
        code, plain = ord(character), re.escape(character)
        percent = rf"(?:25)*(?i:{code:02x})"
        # The longest first, so that nothing of a spelling is left. Each begins with a literal, so the search is fast.
        spellings = rf"%{percent}|\\u0025{percent}|\\u(?i:{code:04x})|\\{plain}|{plain}"
        characters.append(f"(?:{spellings})")
    return re.compile("".join(characters).encode())


def coordinate(text: str) -> str:
    """Write a coordinate for a URL: without a plus sign, and with a limited fraction."""
    whole, _, fraction = text.removeprefix("+").partition(".")
    return f"{whole}.{fraction[:FRACTION_DIGITS]}" if fraction else whole


def _why_spared(error: FailedError) -> Spared:
    """Return why the budget allows no call."""
    if isinstance(error, UnrecordedError):
        return "unrecorded"
    return "share" if isinstance(error, ShareError) else "budget"


def _not_now(response: aiohttp.ClientResponse) -> FailedError | None:
    """Make the failure for a status that means "not now"."""
    if response.status == 429:
        status, what = "OVER_QUERY_LIMIT", "the quota for Google Places is used up (HTTP 429)"
    elif response.status >= 500:
        status, what = "UNKNOWN_ERROR", f"Google Places failed (HTTP {response.status})"
    else:
        return None
    after = retry_after(response.headers.get("Retry-After", ""), time.time())
    return failed(status, what, again=True, after=after)


def retry_after(value: str, now: float) -> float:
    """Parse a Retry-After header, seconds or a date (RFC 9110, 10.2.3); return seconds from now, 0 if it has
    no value.
    """
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:  # asctime's form, which has no zone and means UTC (RFC 9110, 5.6.7)
            date = date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def _failure(error: Exception, seconds: float) -> tuple[CallOutcome, FailedError]:
    """Make the failure for an error. It contains nothing of errors that are not ours, except their type."""
    outcome: CallOutcome = "unreachable"
    if isinstance(error, FailedError):  # the budget's, or of a connection that broke
        return "broken", error.with_traceback(None)
    if isinstance(error, TimeoutError):
        words = f"Google Places did not answer within {seconds:.3g} s"
        return "late", LateError(no_results("UNKNOWN_ERROR", words), again=True)
    again = not isinstance(error, UnreadableError)
    if isinstance(error, NonsenseError):
        outcome, what = "nonsense", f"answered nonsense: {error}"
    elif isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientHttpProxyError):
        what = f"could not be reached ({type(error).__name__})"
    else:
        outcome, what = "broken", f"failed ({type(error).__name__})"
    return outcome, failed("UNKNOWN_ERROR", f"Google Places {what}", again=again)


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body of at most `limit` bytes. Raises NonsenseError, unless the status is not 200, which says enough."""
    try:
        return await _unpack(response, limit)
    except NonsenseError:
        if response.status == 200:
            raise
        return b""


async def _unpack(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read and decompress a body of at most `limit` bytes, before and after. Raises NonsenseError beyond the limit.

    It is decompressed here and not by aiohttp: a few KiB of gzip can contain many MiB, which must not be decompressed
    first.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip"}:
        raise UnreadableError("packed in a way nobody asked for")
    unpacker = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 16)
    received, body = 0, bytearray()
    async for chunk in response.content.iter_any():
        received += len(chunk)
        try:
            body += unpacker.decompress(chunk, limit + 1 - len(body)) if unpacker else chunk
        except zlib.error:
            raise NonsenseError("not gzip, though it claims to be") from None
        if received > limit or len(body) > limit:
            raise UnreadableError(f"longer than {limit} bytes")
    if unpacker and not unpacker.eof:
        raise NonsenseError("cut off")
    return bytes(body)
