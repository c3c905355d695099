"""What an engine answers to a query of an area, all at once."""

from __future__ import annotations

from worlds import last

from proxyherd.core.area_queries import AreaQuery, AreaReply
from proxyherd.core.messages import Entry, received
from proxyherd.core.spatial.areas import Circle, Misdrawn
from proxyherd.core.spatial.index import SpatialIndex, degrees
from proxyherd.core.spatial.search import Question, search
from proxyherd.core.table import Table


def answer_area(table: Table, query: AreaQuery, *, complete: bool = True) -> AreaReply:
    """Return the reply to a query."""
    reply, area = AreaReply(query.kind, "unknown", b"", complete=complete), query.area
    if area is None:
        held = table.get(query.around)
        if held is None:
            return reply
        area = Circle(*degrees(held.line), query.metres)

    def accepts(client: bytes, entry: Entry) -> bool:
        return received(entry.line) >= query.received_since and (query.sees is None or query.sees(client))

    index = SpatialIndex(table)
    try:
        reply.result = last(search(index, Question(area, query.most, query.after, accepts)))
        reply.outcome = "answered"
    except Misdrawn as reason:
        reply.outcome, reply.reason = "invalid", str(reason)
    finally:
        index.close()
    return reply
