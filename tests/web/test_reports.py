"""Reports in JSON are stored and answered as over TCP."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.config.schema import Limits
from proxyherd.core.messages import Report
from proxyherd.core.reply import Refusal, Reply
from proxyherd.core.rules import Rules
from proxyherd.web.bodies import VALUES_BYTES
from proxyherd.web.lines import LineWriter
from proxyherd.web.problems import (
    CLIENT,
    DEGREES,
    JSON,
    LARGE,
    MEANING,
    NOT_TAKEN,
    TIME,
    Kind,
    Problem,
)
from proxyherd.web.reports import (
    MOST_BATCH_COMMAS,
    MOST_LINES,
    MOST_REPORTS,
    batch_answer,
    read_batch,
    read_position,
    report_answer,
)

CLOCK = 1_621_464_828_223_371_889
WRITER = LineWriter(Limits().max_line_bytes)


def position(body: str | bytes) -> bytes:
    return read_position(b"kiwi", body if isinstance(body, bytes) else body.encode(), CLOCK, WRITER)


def problem_of(call: Callable[[], object]) -> tuple[Kind, str]:
    with pytest.raises(Problem) as raised:
        call()
    return raised.value.kind, raised.value.field


@pytest.mark.parametrize(
    ("body", "operands"),
    [
        (
            '{"lat":34.068930,"lon":-118.445127,"time":1621464827.959498503}',
            "+34.068930-118.445127 1621464827.959498503",
        ),
        ('{"lat":"34.0689300000000000001","lon":"-0","time":"5"}', "+34.0689300000000000001-0 5"),
        ('{"lon":1,"lat":2,"time":"2025-06-15T13:45:12.862Z"}', "+2+1 1749995112.862"),
        ('{"lat":2,"lon":1}', "+2+1 1621464828.223371889"),
        ('\ufeff{"lat":2,"lon":1,"time":0}', "+2+1 0"),
    ],
)
def test_a_position_becomes_a_line_with_the_same_digits(body: str, operands: str) -> None:
    assert position(body) == f"IAMAT kiwi {operands}".encode()


@pytest.mark.parametrize(
    ("body", "kind", "field"),
    [
        *(("", JSON, ""), ('{"lat":NaN,"lon":1}', JSON, ""), ('{"lat":1,"lon":1,"lat":2}', JSON, "")),
        *(('{"lat":1e3,"lon":1}', DEGREES, "lat"), ('{"lat":1,"lon":180.1}', DEGREES, "lon")),
        *(('{"lat":"","lon":1}', DEGREES, "lat"), ('{"lat":1,"lon":"1\\n"}', DEGREES, "lon")),
        *(('{"lat":null,"lon":1}', MEANING, "lat"), ('{"lat":1,"lon":[1]}', MEANING, "lon")),
        *(('{"lat":1,"lon":1,"time":null}', MEANING, "time"), ('{"lat":1,"lon":1,"time":1e9}', TIME, "time")),
        *(('{"lat":1,"lon":1,"time":-1}', TIME, "time"), ('{"lat":1,"lon":1,"time":""}', TIME, "time")),
        *(
            ("[]", MEANING, ""),
            ('{"lat":1,"lon":1,"client":"a"}', MEANING, ""),
            ('{"lat":1}', MEANING, "lon"),
        ),
        ('{"lat":1.%s,"lon":1}' % ("0" * 9_000), CLIENT, "client"),
    ],
)
def test_a_body_that_is_no_position_is_a_problem(body: str, kind: Kind, field: str) -> None:
    assert problem_of(lambda: position(body)) == (kind, field)


BATCH: dict[str, Kind | str] = {
    '{"client":"my phone","lat":1,"lon":2,"time":3}': "IAMAT my%20phone +1+2 3",
    '{"client":"","lat":1,"lon":2}': CLIENT,
    '{"client":7,"lat":1,"lon":2}': MEANING,
    '{"lat":1,"lon":2}': MEANING,
    "17": MEANING,
    "null": MEANING,
    '{"client":"a","lat":91,"lon":2}': DEGREES,
    '{"client":"a","lat":1,"lon":2,"client":"b"}': JSON,
    '{"client":"a:b","lat":1,"lon":2}': "IAMAT a:b +1+2 1621464828.223371889",
    '{"client":"\\ud83e\\udd5d","lat":"1","lon":"2","time":"3.5"}': "IAMAT \U0001f95d +1+2 3.5",
}


@pytest.mark.parametrize("ndjson", [True, False])
def test_a_bad_report_does_not_spoil_the_others(ndjson: bool) -> None:
    body = "\n".join([*BATCH, ""]) if ndjson else "[" + ",".join(BATCH) + "]"
    batch = read_batch(body.encode(), CLOCK, WRITER, ndjson=ndjson)
    assert [one.kind if isinstance(one, Problem) else one.decode() for one in batch] == [*BATCH.values()]
    replies = [
        Reply("iamat", "stored", b"AT 1"),
        Reply("iamat", "refused", b"? x"),
        Reply("iamat", "stale", b"AT 3"),
    ]
    answers = json.loads(batch_answer(batch, replies))
    assert answers[0] == {"outcome": "stored", "at": "AT 1"}
    assert answers[8]["type"] == NOT_TAKEN.type
    assert answers[9] == {"outcome": "stale", "at": "AT 3"}
    assert [answer["type"] for answer in answers[1:8]] == [
        kind.type for kind in BATCH.values() if isinstance(kind, Kind)
    ]


names = st.sampled_from(
    ['"kiwi"', '"a:b"', '"my phone"', '"a%20"', '"\\u003a"', '"\\\\"', '"🥝"', '""', "7", f'"{"a" * 600}"']
)
degrees = st.sampled_from(
    ["1", "-34.068930", '"34.5"', '"+1"', '"-0"', "90", "90.1", "181", "1e1", '"1 2"', '""', "null", '"1:2"']
)
moments = st.sampled_from(
    [
        "3",
        "1621464827.959498503",
        '"3.5"',
        '"2025-06-15T13:45:12.862Z"',
        "-1",
        '"3 4"',
        "1.0000000001",
        "null",
    ]
)
more_keys = st.lists(st.tuples(st.sampled_from(["time", "time", "lat", "odd"]), moments), max_size=1)


def report(client: str, lat: str, lon: str, more: list[tuple[str, str]], comma: str) -> bytes:
    pairs = [("client", client), ("lat", lat), ("lon", lon), *more]
    return ("{" + comma.join(f'"{key}":{value}' for key, value in pairs) + "}").encode()


@given(
    st.lists(st.builds(report, names, degrees, degrees, more_keys, st.sampled_from([",", ", "])), max_size=3)
)
def test_a_report_means_the_same_in_an_array_and_alone(reports: list[bytes]) -> None:
    """Arrays are read all at once where that can be done, and lines one by one."""
    in_array = read_batch(b"[%b]" % b",".join(reports), CLOCK, WRITER, ndjson=False)
    alone = read_batch(b"\n".join(reports), CLOCK, WRITER, ndjson=True)
    assert spelled(in_array) == spelled(alone)


def spelled(batch: Sequence[bytes | Problem]) -> list[bytes | tuple[Kind, str]]:
    return [one if isinstance(one, bytes) else (one.kind, one.field) for one in batch]


def test_a_key_that_occurs_twice_is_found_beside_names_and_times_with_colons() -> None:
    usual = b'{"client":"a","lat":1,"lon":2,"time":3}'
    for other in (
        b'{"client":"a","lat":1,"lon":2,"lat":1}',
        b'{"client":"\\u003a","lat":1,"lon":2,"lat":1}',
        b'{"client":"a:b","lat":1,"lon":2,"lat":1}',
    ):
        batch = read_batch(b"[%b,%b,%b]" % (usual, other, usual), CLOCK, WRITER, ndjson=False)
        assert spelled(batch) == [b"IAMAT a +1+2 3", (JSON, ""), b"IAMAT a +1+2 3"]


@pytest.mark.parametrize("ndjson", [True, False])
@pytest.mark.parametrize("time", ["3", '"3.5"', '"2025-06-15T13:45:12.862Z"', ""])
def test_a_report_of_a_batch_is_the_same_as_alone(ndjson: bool, time: str) -> None:
    spelled = ("0", "1.50", "-1.5", '"+1.5"', '"-0"', "-1e-7", '"05"', "90", "-90.0", "91", "null")
    for lat, lon in product(spelled, repeat=2):
        rest = f',"time":{time}}}' if time else "}"
        body = f'{{"lat":{lat},"lon":{lon}{rest}'
        try:
            alone: bytes | Problem = position(body)
        except Problem as problem:
            alone = problem
        one = body.replace("{", '{"client":"kiwi",').encode()
        (found,) = read_batch(one if ndjson else b"[%b]" % one, CLOCK, WRITER, ndjson=ndjson)
        if isinstance(alone, bytes):
            assert found == alone
        else:
            assert isinstance(found, Problem)
            assert found.document() == alone.document()


def test_a_line_of_ndjson_that_is_no_json_is_a_problem_of_its_own() -> None:
    body = b'\xef\xbb\xbf{"client":"a","lat":1,"lon":2}\r\n\r\n \n{"client"\n{"client":"b","lat":1,"lon":2}'
    batch = read_batch(body, 0, WRITER, ndjson=True)
    assert [isinstance(one, Problem) for one in batch] == [False, True, False]


@pytest.mark.parametrize("body", [b"", b"{}", b"7", b"[", b'[{"client":"a"},', b"[]]"])
def test_what_is_no_batch_is_a_problem(body: bytes) -> None:
    assert problem_of(lambda: read_batch(body, 0, WRITER, ndjson=False))[0] in (JSON, MEANING)


@pytest.mark.parametrize("ndjson", [True, False])
def test_a_batch_has_at_most_a_thousand_reports(ndjson: bool) -> None:
    def body(count: int) -> bytes:
        one = b'{"client":"a","lat":1,"lon":2,"time":3}'
        return b"\n".join([one] * count) if ndjson else b"[%b]" % b",".join([one] * count)

    assert read_batch(body(MOST_REPORTS), 0, WRITER, ndjson=ndjson) == [b"IAMAT a +1+2 3"] * 1_000
    assert problem_of(lambda: read_batch(body(MOST_REPORTS + 1), 0, WRITER, ndjson=ndjson)) == (LARGE, "")


def test_an_empty_batch_is_answered() -> None:
    for body, ndjson in ((b" [ ] ", False), (b"", True), (b"\n\n", True)):
        batch = read_batch(body, 0, WRITER, ndjson=ndjson)
        assert batch_answer(batch, []) == b"[]"


@pytest.mark.parametrize("client", [b"my%20phone", b"\xff", b'"\\\x00\x1f', "\U0001f95d".encode()])
@pytest.mark.parametrize("outcome", ["stored", "stale"])
def test_an_answer_is_the_line_that_tcp_has_for_it(client: bytes, outcome: str) -> None:
    (report,), _ = Rules("Clark", Limits()).judge(
        [WRITER.report(client, b"+1+2", b"1621464827.959498503")], CLOCK
    )
    assert isinstance(report, Report)
    answer = json.loads(report_answer(Reply("iamat", outcome, report.line)))
    shown = report.line.replace(b"\xff", b"%FF").decode()
    assert answer == {"outcome": outcome, "at": shown, "server": "Clark", "difference": "+0.263873386"}


@pytest.mark.parametrize(
    "line", [b"AT 1", b'AT "', b"AT \\", b"AT \x00\x1f\x7f", b"AT \xff", "AT 🥝".encode()]
)
def test_a_batch_is_answered_in_json_whatever_is_in_an_id(line: bytes) -> None:
    replies = [Reply("iamat", outcome, line) for outcome in ("stored", "stale", "refused", "stored")]
    at = line.decode("utf-8", "replace").replace("\ufffd", "%FF")
    first, second, third, fourth = json.loads(batch_answer([b"IAMAT"] * 4, replies))
    assert first == fourth == {"outcome": "stored", "at": at}
    assert second == {"outcome": "stale", "at": at}
    assert third["type"] == NOT_TAKEN.type


@pytest.mark.parametrize("outcome", ["refused", "unanswered", "left", "invalid"])
def test_a_report_that_is_not_taken_is_a_problem_that_a_retry_may_cure(outcome: str) -> None:
    for answer in (None, b"", b"? IAMAT"):
        reply = Reply("iamat", outcome, answer)
        assert problem_of(partial(report_answer, reply)) == (NOT_TAKEN, "")


@pytest.mark.parametrize("refusal", ["full", "journal", "key"])
def test_a_report_that_is_refused_may_be_sent_again_and_hears_of_a_lack_of_room(refusal: Refusal) -> None:
    reply = Reply("iamat", "refused", b"? IAMAT", refusal=refusal)
    with pytest.raises(Problem) as raised:
        report_answer(reply)
    problem = raised.value
    assert (problem.kind, problem.field, problem.kind.status) == (NOT_TAKEN, "", 503)
    assert ("room" in problem.detail) == (refusal == "full")
    assert batch_answer([b"IAMAT"], [reply]) == b"[%b]" % problem.document()


def test_a_name_that_the_judge_has_found_too_long_is_no_name() -> None:
    reply = Reply("iamat", "refused", b"? IAMAT", refusal="long_id")
    assert problem_of(partial(report_answer, reply)) == (CLIENT, "client")
    assert b"/v1/#client" in batch_answer([b"IAMAT"], [reply])


def test_what_javascript_writes_for_a_place_near_greenwich_is_read() -> None:
    body = '{"lat":51.4779,"lon":-1e-7,"time":3}'
    assert position(body) == b"IAMAT kiwi +51.4779-0.0000001 3"


def test_a_batch_of_lines_has_limited_lines_and_escapes() -> None:
    one = b'{"client":"a","lat":1,"lon":2,"time":3}'
    assert read_batch(one + b"\n" * MOST_LINES, 0, WRITER, ndjson=True) == [b"IAMAT a +1+2 3"]
    for body in (one + b"\n" * (MOST_LINES + 1), (b'{"client":"%b"}\n' % (b"%" * 8_000)) * 5):
        assert problem_of(partial(read_batch, body, 0, WRITER, ndjson=True)) == (LARGE, "")


@pytest.mark.parametrize("ndjson", [True, False])
@pytest.mark.parametrize("spoilt", [True, False])
def test_the_values_of_a_batch_are_bounded_and_its_white_space_is_not(ndjson: bool, spoilt: bool) -> None:
    """Long names take time, 1,000 at most 512 bytes each."""

    def body(last: bytes) -> bytes:
        names = [b" " * (VALUES_BYTES // 128 - 3 - 2)] * 127 + [last]
        reports = [b'{"client":"%b",%b"lat":1,"lon":2,"time":3}' % (name, b" " * 5_000) for name in names]
        reports += [b"7"] * spoilt
        return b"\n".join(reports) if ndjson else b"[%b]" % b",".join(reports)

    most = VALUES_BYTES // 128 - 3 - 2
    batch = read_batch(body(b"a" * most), CLOCK, WRITER, ndjson=ndjson)
    assert len(batch) == 128 + spoilt
    assert isinstance(batch[127], bytes)
    assert problem_of(lambda: read_batch(body(b"a" * (most + 1)), CLOCK, WRITER, ndjson=ndjson)) == (
        LARGE,
        "",
    )


@pytest.mark.parametrize("element", [b"0", b"[]", b"{}", b'{"client":"a","lat":1,"lon":2}'])
def test_an_array_of_very_many_elements_is_refused_before_they_are_read(
    element: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed, it has some hundred bytes, and reading it took 10 ms."""
    body = b"[%b]" % b",".join([element] * (MOST_BATCH_COMMAS + 2))
    assert problem_of(lambda: read_batch(body, 0, WRITER, ndjson=False)) == (LARGE, "")
    monkeypatch.setattr("proxyherd.web.reports._BATCH", None)
    assert problem_of(lambda: read_batch(body, 0, WRITER, ndjson=False)) == (LARGE, "")


def test_names_with_commas_have_room_in_a_batch() -> None:
    one = b'{"client":"a,b,c,d,e,f,g,h,i,j,k,l","lat":1,"lon":2,"time":3}'
    batch = read_batch(b"[%b]" % b",".join([one] * MOST_REPORTS), 0, WRITER, ndjson=False)
    assert batch == [b"IAMAT a,b,c,d,e,f,g,h,i,j,k,l +1+2 3"] * MOST_REPORTS
