"""Events of follows as text: what a location is there is what it is everywhere, and each is made once."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from web_talk import messages

from proxyherd.core.follows.event import Event
from proxyherd.core.messages import Entry, parse_report
from proxyherd.core.reply import Reply
from proxyherd.web import events
from proxyherd.web.events import event_json, frame_of, stream_event_of
from proxyherd.web.ids import id_of, name_of
from proxyherd.web.locations import latitude, longitude
from proxyherd.web.queries import locate_answer

RECEIVED = 1_621_464_828_223_371_889
KIWI = Entry(b"AT Clark +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503", 0)


def read(event: Event) -> dict[str, object]:
    found: dict[str, object] = json.loads(event_json(event))
    return found


def test_an_event_says_what_has_happened_to_whom_and_for_which_follow() -> None:
    where = {
        "lat": 34.06893,
        "lon": -118.445127,
        "time": "1621464827.959498503",
        "server": "Clark",
        "received": "1621464828.223371889",
    }
    assert event_json(Event("move", b"kiwi", KIWI)) == (
        b'{"event":"move","client":"kiwi","lat":34.068930,"lon":-118.445127,"time":"1621464827.959498503",'
        b'"server":"Clark","received":"1621464828.223371889"}'
    )
    entered = read(Event("enter", b"kiwi", KIWI, initial=True, name=b"2"))
    assert entered == {"event": "enter", "follow": 2, "client": "kiwi", **where, "initial": True}
    assert read(Event("leave", b"kiwi", KIWI, name=b'"a"')) == {
        "event": "leave",
        "follow": "a",
        "client": "kiwi",
        **where,
    }
    assert read(Event("gone", b"kiwi")) == {"event": "gone", "client": "kiwi"}
    snapshot = Event("snapshot", name=b"2", complete=True, clients=17)
    assert read(snapshot) == {"event": "snapshot", "follow": 2, "complete": True, "clients": 17}


degrees = st.from_regex(r"[+-](?:0{0,2}[0-9]|0?[1-8][0-9])(?:\.[0-9]{1,9})?", fullmatch=True).map(str.encode)
clients = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).map(id_of) | st.binary(
    min_size=1, max_size=8
).filter(lambda client: client.split() == [client])


@given(
    clients,
    degrees.filter(latitude),
    degrees.filter(longitude),
    st.integers(0, 10**18),
    st.sampled_from(["", ".5", ".123456789"]),
)
def test_an_event_says_the_same_as_the_question_where_a_client_is(
    client: bytes, lat: bytes, lon: bytes, time: int, fraction: str
) -> None:
    spelled = f"{time % 10**12}{fraction}".encode()
    report = parse_report(b"IAMAT %b %b%b %b" % (client, lat, lon, spelled), b"Clark", RECEIVED)
    assert report is not None
    told = json.loads(event_json(Event("move", client, Entry(report.line, 0))), parse_float=Decimal)
    answer = locate_answer(Reply("whatsat", "answered", report.line, entry=Entry(report.line, 0)))
    asked = json.loads(answer, parse_float=Decimal)
    del asked["at"], told["event"]
    assert told == asked
    assert told["client"] == name_of(client)
    assert (told["lat"], told["lon"]) == (Decimal(lat.decode()), Decimal(lon.decode()))


@pytest.mark.parametrize("make", [frame_of, stream_event_of])
def test_what_is_made_of_an_event_is_made_once(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Event] = []
    plain = event_json

    def counted(event: Event) -> bytes:
        made.append(event)
        return plain(event)

    monkeypatch.setattr(events, "event_json", counted)
    event, other = Event("move", b"kiwi", KIWI), Event("move", b"kiwi", KIWI)
    assert callable(make)
    assert make(event) is make(event)
    assert make(event) == make(other)
    assert made == [event, other]


def test_a_frame_is_a_message_in_text_and_a_stream_s_event_has_its_kind_and_no_line_break_inside() -> None:
    event = Event("move", id_of("a\n\r\u2028b\u00e9\U0001f4f1"), KIWI)
    assert messages(frame_of(event)) == [(1, event_json(event))]
    kind, data, *rest = stream_event_of(event).splitlines()
    assert (kind, data) == (b"event: move", b"data: " + event_json(event))
    assert rest == [b""]
    assert stream_event_of(event).endswith(b"\n\n")
    assert stream_event_of(event).isascii() or b"\r" not in stream_event_of(event)
