"""Laws of what is told of clients that are followed, whatever connections and servers come after one another."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd.client.rules import follows
from proxyherd.client.rules.errors import FollowRefused, ForeignAnswer, NotAllowed, Unreachable
from proxyherd.client.rules.follows import FollowedChange, FollowState, follow_message


def event(kind: str, client: str = "", number: int = 0, **more: Any) -> str:
    """Return an event as a server sends it; `number` says where the client is, and when that was."""
    where = {
        "lat": number,
        "lon": -118.445127,
        "time": str(number),
        "server": "Ann",
        "received": f"{number}.5",
    }
    return json.dumps({"event": kind, "client": client, **(where if number else {}), **more})


def told(state: FollowState, *messages: str) -> list[tuple[str, str]]:
    return [(one.event, one.client) for message in messages for one in state.hear(message)]


def test_numbers_keep_their_digits() -> None:
    state = FollowState(is_area=False)
    state.begin()
    message = event("enter", "kiwi", 1).replace('"lat": 1', '"lat": 34.0689300')
    [change] = state.hear(message)
    assert (str(change.lat), str(change.lon), change.received) == (
        "34.0689300",
        "-118.445127",
        Decimal("1.5"),
    )


@pytest.mark.parametrize(("is_area", "ending"), [(True, "leave"), (False, "gone")])
def test_after_a_new_connection_only_what_has_changed_is_told(is_area: bool, ending: str) -> None:
    state = FollowState(is_area=is_area)
    state.begin()
    first = [event("enter", name, 1, initial=True) for name in ("kiwi", "plum", "fig")]
    assert told(state, *first, event("snapshot")) == [
        *(("enter", name) for name in ("kiwi", "plum", "fig")),
        ("snapshot", ""),
    ]
    state.begin()
    again = [event("enter", "kiwi", 1, initial=True), event("enter", "plum", 2, initial=True)]
    assert told(state, *again, event("snapshot"), event("enter", "date", 3)) == [
        *(("move", "plum"), (ending, "fig"), ("snapshot", ""), ("enter", "date")),
    ]


def test_a_server_that_does_not_know_all_yet_takes_nobody_away() -> None:
    state = FollowState(is_area=True)
    state.begin()
    told(state, event("enter", "kiwi", 1), event("snapshot"))
    state.begin()
    assert told(state, event("snapshot", complete=False)) == [("snapshot", "")]
    assert told(state, event("enter", "kiwi", 2)) == [("move", "kiwi")]


@pytest.mark.parametrize(("is_area", "ending"), [(True, "leave"), (False, "gone")])
def test_when_a_server_has_come_to_know_all_whoever_it_has_not_named_has_gone(
    is_area: bool, ending: str
) -> None:
    state = FollowState(is_area=is_area)
    state.begin()
    told(state, *(event("enter", name, 1) for name in ("kiwi", "plum", "fig")), event("snapshot"))
    state.begin()
    told(state, event("enter", "kiwi", 1, initial=True), event("snapshot", complete=False))
    told(state, event("enter", "plum", 2))
    assert told(state, event("snapshot")) == [(ending, "fig"), ("snapshot", "")]
    assert told(state, event("snapshot")) == [("snapshot", "")]


EVENTS = st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.booleans())


@settings(max_examples=50)
@given(st.lists(st.lists(EVENTS, max_size=8), min_size=1, max_size=4))
def test_who_follows_what_is_told_knows_what_the_last_server_knows(lives: list[list[Any]]) -> None:
    """Each life of a connection begins with those who are there, and goes on with what happens."""
    state, seen = FollowState(is_area=True), dict[str, FollowedChange]()
    there = dict[str, int]()
    for life in lives:
        state.begin()
        messages = [event("enter", name, number, initial=True) for name, number in there.items()]
        messages.append(event("snapshot"))
        for name, number, leaves in life:
            if leaves and there.pop(name, None):
                messages.append(event("leave", name, number))
            elif not leaves:
                messages.append(event("move" if name in there else "enter", name, number))
                there[name] = number
        cut = len(messages) if life is lives[-1] else len(messages) // 2
        for message in messages[:cut]:
            for change in state.hear(message):
                if change.event in ("leave", "gone"):
                    assert seen.pop(change.client), "only who was there leaves"
                elif change.event != "snapshot":
                    assert (change.event == "move") == (change.client in seen)
                    seen[change.client] = change
    assert {name: change.lat for name, change in seen.items()} == there


def test_problems_are_refused_or_tried_again() -> None:
    state = FollowState(is_area=True)
    with pytest.raises(FollowRefused, match="no follows here: with the engine redis"):
        told(
            state,
            '{"id":"follow","problem":{"status":501,"title":"no follows here","detail":"with the engine redis"}}',
        )
    with pytest.raises(Unreachable, match="not ready"):
        told(state, '{"id":"follow","problem":{"status":503,"title":"not ready"}}')
    with pytest.raises(FollowRefused, match="more than 10,000"):
        told(state, event("ended", reason="there are more than 10,000 clients"))


def test_answers_and_events_of_later_versions_are_ignored() -> None:
    state = FollowState(is_area=True)
    assert told(state, '{"id":"follow","following":{"clients":0,"areas":1}}', event("dance", "kiwi", 1)) == []


@pytest.mark.parametrize("data", ["", "[]", "null", '{"event":5}', "\ud800", '{"event":"enter","lat":"x"}'])
def test_what_is_no_event_is_foreign(data: str) -> None:
    with pytest.raises(ForeignAnswer, match="no event"):
        told(FollowState(is_area=True), data)


@pytest.mark.parametrize(("is_area", "ending"), [(True, "leave"), (False, "gone")])
def test_if_there_are_too_many_all_of_them_end_and_the_next_server_names_who_is_there(
    monkeypatch: pytest.MonkeyPatch, is_area: bool, ending: str
) -> None:
    monkeypatch.setattr(follows, "_MOST_KNOWN", 3)
    state, seen = FollowState(is_area=is_area), list[tuple[str, str]]()
    state.begin()
    told(state, *(event("enter", name, 1) for name in "abc"), event("move", "a", 2))
    with pytest.raises(ForeignAnswer, match="more than 3 clients"):
        seen.extend((one.event, one.client) for one in state.hear(event("enter", "d", 1)))
    assert seen == [(ending, name) for name in "abc"]
    state.begin()
    assert told(state, event("enter", "a", 2), event("snapshot")) == [("enter", "a"), ("snapshot", "")]


def test_a_server_cannot_fill_the_memory_with_clients_that_come_and_go() -> None:
    state = FollowState(is_area=True)
    state.begin()
    for name in "abc":
        told(state, event("enter", name, 1), event("leave", name))
    assert state._named == set()


def test_what_is_followed_is_one_thing() -> None:
    assert json.loads(follow_message(("bus 7",), None, None, 0))["client"] == ["bus 7"]
    near = json.loads(follow_message((), ("48.20", 16.37, 2), None, 20))
    assert (near["near"], near["buffer_m"]) == ({"lat": "48.20", "lon": "16.37", "radius_km": 2.0}, 20)
    assert json.loads(follow_message((), None, (179, -1, -179, "1.0"), 0))["within"]["north"] == "1.0"
    for wrong in [((), None, None), (("kiwi",), (1, 2, 3), None), ((), (1, 2, 3), (1, 2, 3, 4))]:
        with pytest.raises(ValueError, match="one area"):
            follow_message(*wrong, 0)
    with pytest.raises(ValueError, match="latitude"):
        follow_message((), (91, 0, 1), None, 0)


@pytest.mark.parametrize(
    ("near", "within", "told"),
    [
        ((1, 2), None, "near is a latitude, a longitude and kilometres"),
        (None, (1, 2, 3), "within is west, south, east and north"),
        ((1, 2, 3), (1, 2, 3, 4), "clients, or one area"),
        ((1, 2, 51), None, "51 is no radius"),
        ("far", None, "'far' is no latitude|a latitude"),
    ],
)
def test_an_area_of_another_form_is_refused_before_anything_is_sent(
    near: Any, within: Any, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        follow_message((), near, within, 0)


def test_names_are_text_and_a_buffer_is_a_distance() -> None:
    """Bytes would become base64 in JSON: another client."""
    with pytest.raises(TypeError, match="b'kiwi' is no client's name"):
        follow_message((b"kiwi",), None, None, 0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="buffer_m is -1"):
        follow_message((), (1, 2, 3), None, -1)
    with pytest.raises(TypeError, match="buffer_m is '5'"):
        follow_message((), (1, 2, 3), None, "5")  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [401, 403])
def test_a_right_that_is_missing_is_told_as_everywhere(status: int) -> None:
    problem = {"status": status, "title": "may not see"}
    with pytest.raises(NotAllowed, match="see"):
        told(FollowState(is_area=True), json.dumps({"id": "follow", "problem": problem}))
