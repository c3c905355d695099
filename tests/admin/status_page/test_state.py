"""What a server may say of itself, and what of that is believed."""

from __future__ import annotations

import json

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from states import a_state

from proxyherd.admin.status_page import state
from proxyherd.admin.status_page.state import ServerState
from proxyherd.telemetry.recent import Command


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda it: json.dumps(it).encode())
)
def test_what_is_no_state_is_none(data: bytes) -> None:
    assert state.read_state(data) is None


KEYS = list(ServerState.__struct_fields__)


@given(
    st.sampled_from(KEYS),
    st.none()
    | st.integers(max_value=-1)
    | st.just(1 << 60)
    | st.just({"a": "broken"})
    | st.just("x" * 5_000)
    | st.just({"bounds": [2, 1], "counts": [0, 0, 0]})
    | st.just({"bounds": [1], "counts": [2, 1]})
    | st.just([[1, 1, "iamat", "stored", "x" * 10_000, ""]])
    | st.just([[1, 1, "iamat", "stored", "", ""]] * 300),
)
def test_a_state_with_one_wrong_value_is_none(key: str, value: object) -> None:
    good = json.loads(state.write_state(a_state("Ann")))
    assert state.read_state(json.dumps(good).encode()) == a_state("Ann")
    if key == "commands" and value is None:
        return
    assert state.read_state(json.dumps({**good, key: value}).encode()) is None


def test_a_state_says_how_many_connections_speak_what_and_an_older_servers_does_not() -> None:
    said = a_state("Ann", protocols={"lines": 2, "http": 1, "websocket": 0})
    assert state.read_state(state.write_state(said)) == said
    old = json.loads(state.write_state(said))
    del old["protocols"]
    assert state.read_state(json.dumps(old).encode()) == a_state("Ann")
    for odd in ({"lines": -1}, {"x" * 33: 1}, {str(number): 1 for number in range(17)}):
        assert state.read_state(json.dumps({**old, "protocols": odd}).encode()) is None


def test_a_state_of_the_most_and_longest_commands_may_be_read() -> None:
    longest = Command(1 << 52, 1e11, "x" * 32, "x" * 32, "\\xff" * 256 + " …", "\\xff" * 256 + " …")
    said = msgspec.structs.replace(a_state("Ann"), commands=[longest] * state.MOST_COMMANDS)
    assert state.read_state(state.write_state(said)) == said
