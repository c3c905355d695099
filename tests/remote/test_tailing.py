"""Logs of all servers as one: how an event is shown, which are wanted, and their order."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tailed import STAMP, line, made, shown

from proxyherd import cli
from proxyherd.base.escapes import escaped_for_json
from proxyherd.remote import tailing
from proxyherd.remote.tailing import Filter, LogEvent, Reader, Reading, Sorter


def test_an_event_reads_as_one_line() -> None:
    [text] = shown(
        line(1, "command", "warning", command="IAMAT a b", kind="iamat", n=1, yes=True, clients=["a", "b"])
    )
    assert text == (
        "2026-11-24 06:28:50.000001 Ann command        [warning] "
        'command="IAMAT a b" kind=iamat n=1 yes=true clients=["a", "b"]'
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=30)
@given(
    fields=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), JSON, max_size=4)
)
def test_nothing_that_a_terminal_acts_on_is_ever_shown(fields: dict[str, Any]) -> None:
    head = {"timestamp": STAMP % 1, "level": "\x1b", "server": "\x9b", "event": "\u202e"}
    [text] = shown(json.dumps({**fields, **head}).encode())
    assert text.isprintable()


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\x07\x9b\x7f", "\\x07\\u009b\\x7f"),
        ("a\n\r\tb", "a\\n\\r\\tb"),
        ("\u202e", "\\u202e"),
        ("\U000e0001", "\\U000e0001"),
        ("größe", "größe"),
        ("", ""),
        ('a "b"', 'a \\"b\\"'),
    ],
)
def test_control_characters_are_escaped_visibly(value: str, spelled: str) -> None:
    assert tailing.spell_value(value) in (spelled, f'"{spelled}"')


@pytest.mark.parametrize(
    "torn",
    [
        b'{"timestamp":"2026-11-2',
        b"\x00\x1b[2J\xff",
        b"[]",
        b"1",
        b'{"event":"ready"}',
        b'{"timestamp":1,"level":"info","server":"Ann","event":"x"}',
        b'{"timestamp":"soon","level":"info","server":"Ann","event":"x"}',
        b'{"a":"\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_event_is_shown_as_such_at_its_place(torn: bytes) -> None:
    events = made(line(1), torn, line(2))
    assert [event.key for event in events] == [STAMP % 1, STAMP % 1, STAMP % 2]
    text = Reader(["Ann"])(events[1])
    assert text.startswith("2026-11-24 06:28:50.000001 Ann malformed      [error] line=")
    assert text.isprintable()
    told = json.loads(tailing.raw(events[1]))
    assert told["event"] == "malformed"
    assert told["line"] == escaped_for_json(torn)
    assert tailing.raw(events[0]) == line(1).decode()


def takes(wanted: Filter, one: bytes) -> bool:
    return wanted.takes(made(one)[0])


@pytest.mark.parametrize(
    ("fields", "is_hers"),
    [
        ({"command": "IAMAT kiwi +1+1 5"}, True),
        ({"command": "FOO\tkiwi\r"}, True),
        ({"command": "IAMAT kiwi.a +1+1 5"}, False),
        ({"command": "IAMAT xkiwi +1+1 5"}, False),
        ({"command": "IAMAT KIWI +1+1 5"}, False),
        ({"command": "IAMAT kiwi\u00a0 +1+1 5"}, False),  # no white space: it belongs to the ID
        ({"answer": "AT Ann +0.1 kiwi +1+1 5"}, True),
        ({"clients": ["a", "kiwi"]}, True),
        ({"clients": ["a kiwi", 5, None]}, False),
        ({"clients": 7, "command": None}, False),
        ({"reason": "kiwi", "neighbour": "kiwi"}, False),
    ],
)
def test_a_client_is_a_whole_word_of_what_clients_say(fields: dict[str, Any], is_hers: bool) -> None:
    assert takes(Filter(clients=frozenset({"kiwi", "other"})), line(1, "any", **fields)) is is_hers


def test_events_are_taken_by_name_and_pattern() -> None:
    wanted = Filter(events=("peer_*", "ready"))
    names = ["peer_opened", "peer_closed", "ready", "Ready", "already", "flood_sent"]
    assert [takes(wanted, line(1, name)) for name in names] == [True, True, True, False, False, False]


def test_a_level_takes_itself_and_what_is_above() -> None:
    levels = ["debug", "info", "warning", "error", "critical", "new one"]
    for at, level in enumerate(levels[:4]):
        taken = [takes(Filter(level=level), line(1, level=one)) for one in levels]
        assert taken == [False] * at + [True] * (6 - at)


def test_a_torn_line_is_an_error_and_nobodys() -> None:
    assert takes(Filter(level="error"), b"torn")
    assert not takes(Filter(clients=frozenset({"torn"})), b"torn")


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("30s", "1970-01-01T23:59:30.000000Z"),
        ("10m", "1970-01-01T23:50:00.000000Z"),
        ("1.5h", "1970-01-01T22:30:00.000000Z"),
        ("1d", "1970-01-01T00:00:00.000000Z"),
        ("2026-11-24", "2026-11-24T00:00:00.000000Z"),
        ("2026-11-24T06:28:50.5Z", "2026-11-24T06:28:50.500000Z"),
        ("2026-11-24 06:28:50", "2026-11-24T06:28:50.000000Z"),
        ("2026-11-24T06:28:50+02:00", "2026-11-24T04:28:50.000000Z"),
    ],
)
def test_since_is_a_duration_or_a_time_of_utc(text: str, stamp: str) -> None:
    assert tailing.parse_since(text, 86_400.0) == stamp


@pytest.mark.parametrize("text", ["", "soon", "10", "-5m", "10 m", "1e999d", "9" * 400 + "d", "99999999d"])
def test_since_that_is_no_time_is_an_error_that_shows_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither a time such as .* nor one ago such as 10m"):
        tailing.parse_since(text, 86_400.0)
    result = CliRunner().invoke(cli.main, ["tail", "--since", text])
    assert result.exit_code == 2
    assert "10m" in result.output


TIMES = st.lists(st.integers(0, 9), max_size=12)


@settings(deadline=None)
@given(ann=TIMES, bob=TIMES)
def test_merging_orders_by_time_and_keeps_the_order_of_each_log(ann: list[int], bob: list[int]) -> None:
    """Also where a clock was set back."""
    lines = [
        [line(at, server=name, n=n) for n, at in enumerate(times)]
        for name, times in (("Ann", ann), ("Bob", bob))
    ]
    merged = list(tailing.merge_logs([made(*lines[0]), made(*lines[1], server="Bob")]))
    keys = [event.key for event in merged]
    assert keys == sorted(keys)
    for name, own in zip(("Ann", "Bob"), lines, strict=True):
        assert [event.line for event in merged if event.fields["server"] == name] == own


@settings(deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 4), st.sampled_from(["Ann", "Bob"])), max_size=20
    )
)
def test_events_that_are_read_a_little_late_still_come_in_order(
    arrivals: list[tuple[int, int, str]],
) -> None:
    """Each happens at a time and is read up to 4 later; held for 5, all come in order, and each once."""
    reads = {"Ann": Reading("Ann"), "Bob": Reading("Bob")}
    sorter, told = Sorter(5), list[LogEvent]()
    arrivals = sorted(arrivals)  # a log is written in order
    latest = {"Ann": 0, "Bob": 0}
    due: dict[int, list[LogEvent]] = {}
    for at, late, server in arrivals:
        latest[server] = max(latest[server], at + late)
        due.setdefault(latest[server], []).append(reads[server](line(at, server=server)))
    for now in range(50):
        for event in due.get(now, []):
            sorter.put(event, now)
        told += sorter.due(now)
    keys = [event.key for event in told]
    assert keys == sorted(keys)
    assert len(told) == len(arrivals)
    assert len(sorter) == 0
