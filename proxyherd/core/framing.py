"""Splits bytes into lines, in bounded memory.

A line ends at LF. A line longer than the limit is never returned, nor is any part of it as a line. As soon as the
limit is exceeded, there is one `Overlong` with the line's first bytes. The rest up to its LF is dropped as it arrives.
Only as many lines are returned as are requested; further ones wait as raw bytes.

A client's stream ends at a line that looks like an HTTP request, even if that line is too long: later bytes are
dropped. Otherwise a web page could let its visitor's browser send commands.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from proxyherd.core.area_queries import AreaQuery, spell_query
from proxyherd.core.follows.follow import Follow, Unfollow, spell_follow
from proxyherd.core.messages import COPIED_BYTES, METHOD_BYTES, Forget, is_http_request
from proxyherd.core.value import Value

_SLASH: Final = ord("/")
"""In each HTTP request, and in few other lines. One byte is found much faster than several."""


class Overlong(Value):
    """The first bytes of a line that exceeded the limit."""

    start: bytes


class Denied(Value):
    """A command that its client may not give."""

    command: bytes | WebCommand


WebCommand: TypeAlias = Forget | AreaQuery | Follow | Unfollow
"""What only the web port can say: an erasure, a query of an area, and the beginning and the end of a follow."""

Line: TypeAlias = bytes | Overlong | WebCommand | Denied
"""What a client says: a line, the start of one that is too long, a command that no line can say, or what it may not say."""


def spell_line(line: Line) -> bytes:
    """Return what a client has said as it is shown in the log. An erasure is shown without the client's ID, which would
    stay in the log.
    """
    if isinstance(line, bytes):
        return line
    if isinstance(line, Denied):
        return spell_line(line.command)
    if isinstance(line, Overlong):
        return line.start
    if isinstance(line, Forget):
        return b"forget"
    return spell_query(line) if isinstance(line, AreaQuery) else spell_follow(line)[:COPIED_BYTES]


class LineFramer:
    """Splits a stream of bytes into lines of at most `limit` bytes, not counting their LF.

    With `ends_at_http`, nothing after an HTTP request is returned; `ended` then says that one has come.
    """

    __slots__ = ("_data", "_dropping", "_ends_at_http", "_gist", "ended", "limit")

    def __init__(self, limit: int, *, ends_at_http: bool = False) -> None:
        self.limit = limit
        self.ended = False
        self._data = b""
        self._dropping = False
        self._ends_at_http = ends_at_http
        self._gist: bytes  # of the line that is being dropped

    @property
    def waiting(self) -> int:
        """Bytes received but not yet returned as lines."""
        return len(self._data)

    @property
    def between_lines(self) -> bool:
        """Whether the next byte begins a line: nothing waits, and nothing is being dropped."""
        return not self._data and not self._dropping

    def holds(self, part: bytes) -> bool:
        """Whether bytes like these wait."""
        return part in self._data

    def receive(self, data: bytes) -> int:
        """Accept bytes that arrived; return how many bytes wait now."""
        if self.ended:
            return 0
        self._data = data = self._data + data if self._data else data
        return len(data)

    def lines(self, most: int) -> list[bytes | Overlong]:
        """Return up to `most` complete lines without LF, and overlong ones in their places."""
        if self._dropping and not self._skip_to_line_end():
            return []
        data, limit = self._data, self.limit
        found = data.split(b"\n", most)
        fit = len(data) <= limit or max(map(len, found)) <= limit
        self._data = found.pop()
        if self._ends_at_http and _SLASH in data and b"HTTP/" in data:
            self._end_at_request(found)
        if fit:
            return found  # type: ignore[return-value]  # nobody else has the list
        full = len(found) == most
        lines = [line if len(line) <= limit else Overlong(line[:COPIED_BYTES]) for line in found]
        if not full and len(self._data) > limit:
            lines.append(Overlong(self._data[:COPIED_BYTES]))
            self._gist = _gist(self._data)
            self._data, self._dropping = b"", True
        return lines

    def end(self) -> list[bytes | Overlong]:
        """Return the last line if the stream ended without LF; call when `lines` returns no more."""
        line, self._data = self._data, b""
        if not line or self._dropping:
            return []
        self.ended = self._ends_at_http and is_http_request(line)
        return [line]

    def _end_at_request(self, found: list[bytes]) -> None:
        """Drop everything after the first HTTP request in these lines, if there is one."""
        for number, line in enumerate(found, 1):
            if is_http_request(line):
                del found[number:]
                self._data, self.ended = b"", True
                return

    def _skip_to_line_end(self) -> bool:
        """Drop the rest of an overlong line; return whether its end has arrived."""
        rest, line_feed, self._data = self._data.partition(b"\n")
        self._dropping = not line_feed
        if self._ends_at_http:
            self._gist = _gist(self._gist + rest)
            if line_feed and is_http_request(self._gist):
                self._data, self.ended = b"", True
        return bool(line_feed)


def _gist(line: bytes) -> bytes:
    """Return a short line that is an HTTP request exactly if this one is. The same holds after the same bytes are added
    to both.
    """
    gist = b" ".join([word[: METHOD_BYTES + 1] for word in line.split(None, 3)])
    return gist + b" " if line[-1:].isspace() else gist
