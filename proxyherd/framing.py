"""Bytes to lines, in bounded memory.

A line ends at LF. A line longer than the limit is never handed out, nor is any part of it: as soon as the
limit is passed there is one `Overlong` with its first bytes, and the rest up to its LF is dropped as it
arrives. Lines are handed out only as many as asked for, so what a sender pipelines waits as raw bytes.
"""

from __future__ import annotations

from msgspec import Struct

from proxyherd.messages import COPIED_BYTES


class Overlong(Struct, frozen=True, gc=False):
    """A line that passed the limit: its first bytes."""

    start: bytes


class LineFramer:
    """Cuts a stream of bytes into lines of at most `limit` bytes, their LF not counted."""

    __slots__ = ("_data", "_dropping", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._data = b""
        self._dropping = False

    @property
    def waiting(self) -> int:
        """Bytes received and not yet handed out."""
        return len(self._data)

    def receive(self, data: bytes) -> int:
        """Take in what arrived; return how many bytes wait now."""
        self._data = data = self._data + data if self._data else data
        return len(data)

    def lines(self, most: int) -> list[bytes | Overlong]:
        """Hand out up to `most` whole lines, without LF, and overlong ones in their places."""
        if self._dropping and not self._skip_to_line_end():
            return []
        data, limit = self._data, self.limit
        found = data.split(b"\n", most)
        self._data = found.pop()
        if len(data) <= limit or (len(self._data) <= limit and max(map(len, found), default=0) <= limit):
            return found  # type: ignore[return-value]  # nobody else has the list
        full = len(found) == most
        lines = [line if len(line) <= limit else Overlong(line[:COPIED_BYTES]) for line in found]
        if not full and len(self._data) > limit:
            lines.append(Overlong(self._data[:COPIED_BYTES]))
            self._data, self._dropping = b"", True
        return lines

    def end(self) -> list[bytes | Overlong]:
        """Hand out what stands before the end of the stream without LF; call when `lines` has no more."""
        line, self._data = self._data, b""
        return [line] if line and not self._dropping else []

    def _skip_to_line_end(self) -> bool:
        at = self._data.find(b"\n")
        self._data = b"" if at < 0 else self._data[at + 1 :]
        self._dropping = at < 0
        return not self._dropping
