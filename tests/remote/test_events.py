"""Streams of server-sent events, however they are cut and whoever sends them."""

from __future__ import annotations

import msgspec
import pytest

from proxyherd.remote.events import events_of

MOVE = (
    b'{"event":"move","client":"kiwi","lat":34.0689300,"lon":-118.445127,"time":"5","server":"Clark",'
    b'"received":"6.000000000"}'
)


def lines(stream: bytes) -> list[bytes]:
    return stream.splitlines(keepends=True)


def test_an_event_has_its_digits_and_its_whole_text() -> None:
    [event] = events_of(lines(b"event: move\ndata: " + MOVE + b"\n\n"))
    assert event is not None
    assert (event.event, event.client, event.server, event.received) == (
        "move",
        "kiwi",
        "Clark",
        "6.000000000",
    )
    assert (bytes(event.lat), bytes(event.lon)) == (b"34.0689300", b"-118.445127")
    assert (event.said, event.initial) == (MOVE, False)


def test_comments_are_told_as_signs_of_life_and_unknown_fields_are_skipped() -> None:
    stream = b'retry: 2000\nid: 7\n\n: still here\n\nevent:gone\r\ndata:{\r\ndata: "client":"a b"}\r\n\r\n'
    still_here, event = events_of(lines(stream))
    assert still_here is None
    assert event is not None
    assert (event.event, event.client, event.said) == ("gone", "a b", b'{\n"client":"a b"}')


def test_an_event_that_is_cut_off_is_left_out() -> None:
    assert [*events_of(lines(b"event: move\ndata: " + MOVE + b"\n"))] == []


@pytest.mark.parametrize("data", [b"no JSON", b"[]", b'{"client":5}', b"\xff"])
def test_what_is_no_event_is_an_error(data: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        [*events_of([b"data: " + data + b"\n", b"\n"])]
