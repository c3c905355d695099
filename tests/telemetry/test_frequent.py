"""Frequent events: a line that is put into a compiled form is, byte for byte, what is rendered from its fields."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from documented import examples, kinds
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from proxyherd.telemetry.commands import CommandEvent
from proxyherd.telemetry.frequent import (
    Forms,
    FrequentEvent,
    Label,
    Only,
    SeveralEvents,
    label,
    labelled_name,
    spelled_out,
)
from proxyherd.telemetry.links import FloodSentEvent
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.places import PlacesEvent

MOST = 64
STAMP = b"2026-11-24T06:28:50.836745Z"

PLAIN = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), max_size=9)
LABEL = label("10.0.0.1:5", "http")
ODD = [
    b"",
    b"100%b %s %%",
    b'"',
    b"\\",
    b"\\n",
    b"\n",
    b"\0",
    b"\x7f",
    b"\xff",
    "é\u202e".encode(),
    b"x" * 65,
]
TEXT = st.text(max_size=MOST + 9) | PLAIN
BYTES = PLAIN.map(str.encode) | st.sampled_from(ODD) | st.binary(max_size=MOST + 9)

LABELS = st.builds(label, PLAIN, st.sampled_from(["lines", "http"]))

VALUES: dict[Any, tuple[st.SearchStrategy[Any], st.SearchStrategy[Any]]] = {
    Label: (LABELS, LABELS),
    bytes: (PLAIN.map(str.encode), BYTES),
    bytes | None: (PLAIN.map(str.encode), st.none() | BYTES),
    str: (PLAIN, TEXT),
    Only: (PLAIN.map(str.encode), BYTES),
    int: (st.integers(), st.integers()),
    float: (st.floats(), st.floats()),
    list[bytes]: (st.lists(PLAIN.map(str.encode), min_size=1, max_size=5), st.lists(BYTES, max_size=5)),
}
"""For each type of a field those values that can be put in as they are, and any."""


def shown_fields(kind: type[FrequentEvent]) -> tuple[str, ...]:
    """Return the names in the lines of this kind."""
    return tuple(name for one in fields(kind) for name in (one.name, *["via"] * (one.type == Label)))


def events(kind: type[FrequentEvent], *, plain: bool = False) -> st.SearchStrategy[FrequentEvent]:
    return st.builds(kind, *[VALUES[field.type][0 if plain else 1] for field in fields(kind)])


def lines(
    folder: Path, server: str, said: Iterable[FrequentEvent | SeveralEvents], *, compiled: bool
) -> bytes:
    """Return the log of these events, which leave in one write and so bear one time, without it."""
    file = LogFile(folder / f"{compiled}.log")
    file.gather(lambda _: None)
    log = make_logger(file, server=server, level="info", max_field_bytes=MOST)
    if compiled:
        log.frequent([*said])
    else:
        for one in said:
            for event in one.each() if isinstance(one, SeveralEvents) else [one]:
                log.info(**spelled_out(event))
    file.close()
    data = (folder / f"{compiled}.log").read_bytes()
    (folder / f"{compiled}.log").unlink()
    return data.replace(data[: len(b'{"timestamp":"",') + len(STAMP)], b"{")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.mark.long
@pytest.mark.parametrize("kind", kinds())
@given(data=st.data())
def test_a_line_that_is_put_into_its_form_is_what_is_rendered_from_its_fields(
    folder: Path, kind: type[FrequentEvent], data: st.DataObject
) -> None:
    server = data.draw(st.sampled_from(["Bob", 'A%b"\\é']))
    said = data.draw(st.lists(events(kind, plain=data.draw(st.booleans())), min_size=1, max_size=3))
    rendered = lines(folder, server, said, compiled=False)
    assert lines(folder, server, said, compiled=True) == rendered
    assert [json.loads(line)["event"] for line in rendered.splitlines()] == [kind.name] * len(said)


@given(rows=st.lists(events(CommandEvent) | events(CommandEvent, plain=True), min_size=1, max_size=4))
def test_several_events_are_the_lines_of_each(folder: Path, rows: list[CommandEvent]) -> None:
    columns = tuple([getattr(row, name) for row in rows] for name in CommandEvent.__struct_fields__)
    together = lines(folder, "A%b", [SeveralEvents(CommandEvent, columns)], compiled=True)
    assert together == lines(folder, "A%b", rows, compiled=False)


@pytest.mark.parametrize("in_columns", [True, False])
def test_only_odd_events_among_others_are_rendered_without_a_form(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, in_columns: bool
) -> None:
    """Else one client with an odd ID would make each run of commands, or each turn, cost several times as much."""
    rendered: list[dict[str, Any]] = []

    def spell(event: FrequentEvent) -> dict[str, Any]:
        rendered.append(spelled_out(event))
        return rendered[-1]

    monkeypatch.setattr("proxyherd.telemetry.logs.spelled_out", spell)
    rows = [CommandEvent(LABEL, b"b", b"c", b"%d" % number, b"e") for number in range(9)]
    rows[3].command, rows[8].answer = b'ki"wi', None
    columns = tuple([getattr(row, name) for row in rows] for name in CommandEvent.__struct_fields__)
    said = [SeveralEvents(CommandEvent, columns)] if in_columns else rows
    together = lines(folder, "Bob", said, compiled=True)
    assert [event["command"] for event in rendered] == [b'ki"wi', b"8"]
    assert together == lines(folder, "Bob", rows, compiled=False)


@given(data=st.data())
def test_events_of_several_kinds_are_the_lines_of_each_and_odd_ones_change_no_others(
    folder: Path, data: st.DataObject
) -> None:
    drawn = st.sampled_from(kinds()).flatmap(lambda kind: events(kind, plain=True) | events(kind))
    said = data.draw(st.lists(drawn, min_size=1, max_size=5))
    together = lines(folder, "Bob", said, compiled=True)
    assert together == lines(folder, "Bob", said, compiled=False)


@pytest.mark.long
@pytest.mark.parametrize("kind", kinds())
@given(data=st.data())
def test_plain_values_are_put_into_the_form(kind: type[FrequentEvent], data: st.DataObject) -> None:
    event = data.draw(events(kind, plain=True))
    line = Forms("50%b", MOST).fill(STAMP, [event])
    assert line is not None
    assert [*json.loads(line)] == ["timestamp", "level", "server", "event", *shown_fields(kind)]


@pytest.mark.parametrize("odd", [one for one in ODD if one not in {b"", b"100%b %s %%"}])
@pytest.mark.parametrize(
    "event", [CommandEvent(LABEL, b"b", b"c", b"d", None), FloodSentEvent(b"Ann", 1, [])]
)
def test_odd_values_are_not(event: FrequentEvent, odd: bytes) -> None:
    forms = Forms("Bob", MOST)
    assert forms.fill(STAMP, [event]) is None
    assert forms.fill(STAMP, [CommandEvent(LABEL, b"b", b"c", odd, b"e")]) is None
    assert (
        forms.fill(STAMP, [SeveralEvents(CommandEvent, ([LABEL] * 2, *[[b"a"] * 2] * 3, [b"e", odd]))])
        is None
    )
    assert forms.fill(STAMP, [PlacesEvent("google", odd.decode("utf-8", "surrogateescape"), 0.5)]) is None


def test_a_label_is_two_fields_of_a_line_and_keeps_the_name() -> None:
    line = Forms("Bob", MOST).fill(STAMP, [CommandEvent(LABEL, b"b", b"c", b"d", b"e")])
    assert line is not None
    assert [json.loads(line)[name] for name in ("client", "via")] == ["10.0.0.1:5", "http"]
    assert labelled_name(LABEL) == "10.0.0.1:5"


def test_a_long_line_without_a_long_value_is_put_into_its_form() -> None:
    """Such as a list of clients, which is cut before."""
    forms, ids = Forms("Bob", MOST), [b"x" * 20] * 2
    assert forms.fill(STAMP, [FloodSentEvent(b"Ann", 9, ids)]) is not None
    assert (
        forms.fill(STAMP, [SeveralEvents(CommandEvent, ([LABEL] * 9, *[[b"x" * MOST] * 9] * 4))]) is not None
    )


def test_columns_are_as_long_as_one_another() -> None:
    with pytest.raises(ValueError, match="shorter"):
        Forms("Bob", MOST).fill(
            STAMP, [SeveralEvents(CommandEvent, ([LABEL] * 2, [b"a"], [b"a"], [b"a"], [b"a"]))]
        )


@pytest.mark.parametrize("name", sorted({kind.name for kind in kinds()}))
def test_the_examples_of_the_page_have_the_fields_of_the_events(name: str) -> None:
    shown = {tuple(example)[4:] for example in examples()[name]}
    assert shown == {shown_fields(kind) for kind in kinds() if kind.name == name}
