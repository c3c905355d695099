"""Queries of areas as the log shows them, and as they are judged."""

from __future__ import annotations

import pytest

from proxyherd.config.schema import Limits
from proxyherd.core.area_queries import AreaQuery, spell_query
from proxyherd.core.framing import Denied, spell_line
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules
from proxyherd.core.spatial.areas import Box, Circle
from proxyherd.core.spatial.polygons import Polygon

SQUARE = Polygon([[[(0.0, 0.0), (0.0, 1.5), (2.0, 1.5), (2.0, 0.0), (0.0, 0.0)]]])


@pytest.mark.parametrize(
    ("query", "spelled"),
    [
        (AreaQuery("near", 20, Circle(34.06893, -118.445127, 2000.0)), b"near +34.06893-118.445127 2000 20"),
        (AreaQuery("near", 1, Circle(-0.00000001, 0.0, 0.25)), b"near -0+0 0.2 1"),
        (AreaQuery("near", 5, around=b"kiwi", metres=1e7), b"near kiwi 10000000 5"),
        (AreaQuery("within", 7, Box(179.5, -10.0, -179.0, 10.0)), b"within +179.5 -10 -179 +10 7"),
        (AreaQuery("within", 7, SQUARE), b"within +0 +0 +2 +1.5 7"),
    ],
    ids=["circle", "rounded", "client", "box", "polygon"],
)
def test_the_log_shows_where_a_query_has_searched_and_for_how_many(query: AreaQuery, spelled: bytes) -> None:
    assert spell_query(query) == spelled
    assert spell_line(query) == spell_line(Denied(query)) == spelled


@pytest.mark.parametrize("takes_reports", [True, False])
def test_it_is_judged_in_its_place_also_while_no_reports_are_taken(*, takes_reports: bool) -> None:
    rules, query = Rules("Clark", Limits()), AreaQuery("near", 5, around=b"kiwi", metres=1.0)
    rules.begin(5, takes_reports=takes_reports)
    _, judged = rules.judge([b"x", query, Denied(query)], 5)
    assert judged == [
        Reply("other", "invalid", b"? x"),
        query,
        Reply("near", "denied", b"? near kiwi 1 5"),
    ]
