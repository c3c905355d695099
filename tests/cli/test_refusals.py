"""Why a server has answered `? `: the operand that it refuses, or what only the server knows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.cli.refusals import explain_refusal
from proxyherd.config.schema import Limits
from proxyherd.core.messages import parse_question, parse_report

LIMITS = Limits()
AT, NOW = b"+34.068930-118.445127", b"1621464827.959498503"


@pytest.mark.parametrize(
    ("line", "field", "told"),
    [
        (
            b"IAMAT kiwi +91+0 1",
            "location",
            '"+91+0" is no location: that is degrees of latitude, -90 to 90,',
        ),
        (b"IAMAT kiwi 34.06 1", "location", '"34.06" is no location'),
        (b"IAMAT kiwi +90.00000000000000001+0 1", "location", "is no location"),
        (b"IAMAT kiwi +1+1 -5", "time", '"-5" is no time: that is POSIX seconds'),
        (b"IAMAT kiwi +1+1 1e9", "time", '"1e9" is no time'),
        (b"IAMAT kiwi +1+1 1.0123456789", "time", "at most 12 digits and 9 decimals"),
        (b"IAMAT %b +1+1 1" % (b"k" * 513), "client", "has 513 bytes; a server takes 512 (max_client_bytes)"),
        (b"IAMAT %b +1+1 1" % (b"k" * 9_000), "", "has 9013 bytes; a server takes 8192 (max_line_bytes)"),
        (b"IAMAT kiwi +1+1 1", "", "takes no new reports now; its log and `proxyherd status` say why"),
        (b"WHATSAT kiwi 50.1 5", "radius_km", '"50.1" is no radius: that is 0 to 50 kilometres'),
        (b"WHATSAT kiwi -5 5", "radius_km", '"-5" is no radius'),
        (b"WHATSAT kiwi 5 21", "limit", '"21" is no bound: that is 0 to 20 results'),
        (b"WHATSAT kiwi 5 2.0", "limit", '"2.0" is no bound'),
        (b"WHATSAT kiwi 50 20", "client", 'no server has heard of a client "kiwi"'),
        (b"WHATSAT \x1b[2J\xff 5 5", "client", r'a client "\x1b[2J\xff"'),
    ],
    ids=map(str, range(15)),
)
def test_the_operand_that_is_wrong_is_named_and_what_belongs_there(
    line: bytes, field: str, told: str
) -> None:
    refusal = explain_refusal(line, LIMITS)
    assert (refusal.field, told in refusal.detail) == (field, True), refusal
    assert refusal.detail.isprintable()


WORD = st.text("+-.0123456789e", min_size=1, max_size=24).map(str.encode)


@given(st.one_of(WORD, st.just(AT)), st.one_of(WORD, st.just(NOW)))
def test_a_report_is_judged_as_a_server_judges_it(location: bytes, time: bytes) -> None:
    line = b"IAMAT kiwi %b %b" % (location, time)
    assert bool(explain_refusal(line, LIMITS).field) == (parse_report(line, b"Clark", 0) is None)


@given(st.one_of(WORD, st.just(b"5")), st.one_of(WORD, st.just(b"5")))
def test_a_question_is_judged_as_a_server_judges_it(radius: bytes, most: bytes) -> None:
    line = b"WHATSAT kiwi %b %b" % (radius, most)
    assert (explain_refusal(line, LIMITS).field == "client") == (parse_question(line) is not None)
