"""Requests as lines, as over TCP, so that one judge decides about both. A line here is always one of the right form."""

from __future__ import annotations

from msgspec import Struct

from proxyherd.core.messages import parse_question
from proxyherd.web.problems import CLIENT, QUERY, Problem


class LineWriter(Struct, frozen=True):
    """Writes the lines of clients, without LF. `most`: bytes of a line, `max_line_bytes` of the herd's file. IDs and
    fields are as `ids`, `locations` and `times` return them. All methods raise Problem.
    """

    most: int

    def report(self, client: bytes, place: bytes, time: bytes) -> bytes:
        """Return the line that reports a client at this place."""
        return self._fit(b"IAMAT %b %b %b" % (client, place, time))

    def locate(self, client: bytes) -> bytes:
        """Return the line that asks where a client is, and for no places."""
        return self._fit(b"WHATSAT %b 0 0" % client)

    def places(self, client: bytes, radius: bytes, limit: bytes) -> bytes:
        """Return the line that asks for places near a client, within a radius in kilometres, at most `limit` of them."""
        check_radius(radius)
        if limit.split() != [limit] or parse_question(b"WHATSAT x 0 %b" % limit) is None:
            raise Problem(QUERY, "A whole number from 0 to 20 belongs here.", "limit")
        return self._fit(b"WHATSAT %b %b %b" % (client, radius, limit))

    def _fit(self, line: bytes) -> bytes:
        if len(line) > self.most:
            raise Problem(CLIENT, f"As a line, this request has more than {self.most:,} bytes.", "client")
        return line


def check_radius(radius: bytes) -> None:
    """Check a radius in kilometres. Raises Problem."""
    if radius.split() != [radius] or parse_question(b"WHATSAT x %b 0" % radius) is None:
        raise Problem(QUERY, "Kilometres from 0 to 50, in at most 20 characters, belong here.", "radius_km")
