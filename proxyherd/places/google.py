"""Google Places: the legacy Nearby Search over HTTP.

The rules: what Google answers goes on as it came, cut at most; whatever else happens becomes an answer too,
with the status that Google has for the case. The key leaves this module in the query to Google and nowhere
else: an aiohttp error carries the URL, so none is chained, formatted or let through, and a body that echoes
the key is scrubbed before anybody sees it.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from proxyherd import __version__
from proxyherd.places.answers import Answer, NonsenseError, cut, no_results

if TYPE_CHECKING:
    from proxyherd import config
    from proxyherd.places import Query

DNS_SECONDS = 60
"""How long an address of the upstream is remembered: far below what it takes to move a service."""

KEEPALIVE_SECONDS = 60.0
"""How long an idle connection is kept: spares TLS set-up between queries, below what load balancers keep."""

THREAD_BYTES = 65_536
"""An answer longer than this is read in a thread, one at a time: the scanner keeps the interpreter to itself, some
thirty milliseconds for hostile JSON of the default `max_answer_bytes`, and several at once would add up."""

FRACTION_DIGITS = 12
"""Digits of a coordinate's fraction that Google gets. The twelfth is a ten-thousandth of a millimetre, and a
client may send thousands, which no URL holds."""

_REFUSALS = {
    400: ("INVALID_REQUEST", "Google did not understand the query (HTTP 400)"),
    401: ("REQUEST_DENIED", "Google denied the query (HTTP 401)"),
    403: ("REQUEST_DENIED", "Google denied the query (HTTP 403)"),
    429: ("OVER_QUERY_LIMIT", "the quota for Google Places is used up (HTTP 429)"),
}


class Google:
    """The provider `google`. Made anywhere; its one session belongs to the loop of its first query."""

    name = "google"

    def __init__(self, places: config.Places, key: str) -> None:
        self._places = places
        self._key = key
        self._scrub = scrubber(key)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._reading = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Google({self._places.base_url!r})"

    async def nearby(self, query: Query) -> Answer:
        """Ask Google. Raises nothing but CancelledError."""
        try:
            async with self._open_session().get(self._url(query), allow_redirects=False) as response:
                if response.status != 200:
                    return _refused(response.status)
                body = await _read(response, self._places.max_answer_bytes)
            if len(body) > THREAD_BYTES:
                async with self._reading:
                    return await asyncio.to_thread(self._answer, body, query.most)
            return self._answer(body, query.most)
        except TimeoutError:
            what = f"did not answer within {self._places.deadline_seconds:g} s"
        except NonsenseError as error:
            what = f"answered nonsense: {error}"
        except aiohttp.ClientConnectorError as error:
            what = f"could not be reached ({type(error).__name__})"
        except Exception as error:  # noqa: BLE001 — any of them may carry the URL
            what = f"failed ({type(error).__name__})"
        return no_results("UNKNOWN_ERROR", f"Google Places {what}")

    async def close(self) -> None:
        """Close the session; queries from now on fail."""
        self._closed = True
        if self._session is not None:
            await self._session.close()

    def _answer(self, body: bytes, most: int) -> Answer:
        return cut(self._scrub.sub(b"***", body), most)

    def _url(self, query: Query) -> URL:
        location = f"{_coordinate(query.latitude)},{_coordinate(query.longitude)}"
        radius = f"{query.metres:f}"
        if "." in radius:
            radius = radius.rstrip("0").rstrip(".")
        return URL(self._places.base_url).update_query(location=location, radius=radius, key=self._key)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=self._places.max_connections,
                    limit_per_host=0,  # there is one host
                    ttl_dns_cache=DNS_SECONDS,
                    keepalive_timeout=KEEPALIVE_SECONDS,
                ),
                timeout=aiohttp.ClientTimeout(
                    total=self._places.deadline_seconds,
                    ceil_threshold=float("inf"),  # else it is rounded up to whole seconds
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,  # a proxy would see the key
                auto_decompress=False,  # see _read
                headers={"User-Agent": f"proxyherd/{__version__}", "Accept-Encoding": "gzip"},
            )
        return self._session


def scrubber(key: str) -> re.Pattern[bytes]:
    """Make a pattern that finds the key plain, percent-encoded (once or often), JSON-escaped, or mixed."""
    characters = []
    for character in key:
        code, plain = ord(character), re.escape(character)
        percent = rf"(?:%|\\u0025)(?:25)*(?i:{code:02x})"
        # The longest first, so that nothing of a spelling is left over.
        characters.append(rf"(?:{percent}|\\u(?i:{code:04x})|\\{plain}|{plain})")
    return re.compile("".join(characters).encode())


def _coordinate(text: str) -> str:
    whole, _, fraction = text.removeprefix("+").partition(".")
    return f"{whole}.{fraction[:FRACTION_DIGITS]}" if fraction else whole


def _refused(status: int) -> Answer:
    if 300 <= status < 400:
        return no_results("UNKNOWN_ERROR", f"Google Places redirects elsewhere (HTTP {status}), not followed")
    return no_results(*_REFUSALS.get(status, ("UNKNOWN_ERROR", f"Google Places failed (HTTP {status})")))


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body of at most `limit` bytes, on the wire and unpacked. Raises NonsenseError past it.

    Unpacked here and not by aiohttp: a few KiB of gzip can hold many MiB, and must not be let out first.
    """
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip"}:
        raise NonsenseError("packed in a way nobody asked for")
    unpacker = None if encoding == "identity" else zlib.decompressobj(zlib.MAX_WBITS | 16)
    received, body = 0, bytearray()
    async for chunk in response.content.iter_any():
        received += len(chunk)
        try:
            body += unpacker.decompress(chunk, limit + 1 - len(body)) if unpacker else chunk
        except zlib.error:
            raise NonsenseError("not gzip, though it claims to be") from None
        if received > limit or len(body) > limit:
            raise NonsenseError(f"longer than {limit} bytes")
    if unpacker and not unpacker.eof:
        raise NonsenseError("cut off")
    return bytes(body)
