"""How a fault is tried by hand: commands for a shell. That they do what they should, tests/system/test_by_hand.py shows."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import graded
import pytest

from proxyherd.grading.by_hand import (
    MOST_PIECES,
    MOST_TYPED_BYTES,
    MOST_TYPED_COMMANDS,
    commands,
    is_client,
    note,
    recording,
)
from proxyherd.grading.connections import Connection
from proxyherd.grading.faults import Fault, Step
from proxyherd.grading.servers import GradedServer, new_client

SERVERS = [GradedServer(name, "127.0.0.1", port) for port, name in enumerate(("Ann", "Bob", "Cid"), 1)]
ONE, TWO = b"g0123456789.000001", b"g0123456789.000002"


def step(data: bytes, server: str = "Ann", **more: Any) -> Step:
    return Step(server, [data.replace(b"$1", ONE).replace(b"$2", TWO)], **more)


def fault(server: str, sent: bytes, expected: str = "x", got: str = "y", **more: Any) -> Fault:
    return Fault(server, sent.replace(b"$1", ONE), expected, got, **more)


def typed(found: Fault, steps: list[Step]) -> list[str]:
    """Return the commands without what is the same in all."""
    whole = [
        re.fullmatch(r"\(printf '(.*)\\n'; sleep 2\) \| nc -w 2 127\.0\.0\.1 (\d)|# (.*)", one)
        for one in commands(found, steps, SERVERS)
    ]
    return [one[3] or f"{one[2]}: {one[1]}".replace(ONE.decode(), "$1") for one in whole if one]


@pytest.mark.parametrize(
    ("data", "printed"),
    [
        (b"IAMAT kiwi +1+1 5\r\n", r"'IAMAT kiwi +1+1 5\r\n'"),
        (b"100% \\n\t", r"'100%% \\n\t'"),
        (b'it\'s "x" $(id) `id`', r"""'it\047s "x" $(id) `id`'"""),
        (b"\0\x1b\x7f\xff7", r"'\000\033\177\3777'"),
        (b"-n", r"'\055n'"),
    ],
)
def test_a_command_sends_these_bytes_and_no_others(data: bytes, printed: str) -> None:
    assert commands(fault("Ann", data), [Step("Ann", [data])], SERVERS) == (
        f"(printf {printed}; sleep 2) | nc -w 2 127.0.0.1 1",
    )


@pytest.mark.parametrize(
    ("pieces", "half_close", "command"),
    [
        ([b"A"], False, "(printf 'A'; sleep 2) | nc -w 2 127.0.0.1 1"),
        ([b"A"], True, "printf 'A' | nc -N -w 2 127.0.0.1 1"),
        ([b"A", b"B"], False, "(printf 'A'; sleep 1; printf 'B'; sleep 2) | nc -w 2 127.0.0.1 1"),
        ([b"A", b"B"], True, "(printf 'A'; sleep 1; printf 'B') | nc -N -w 2 127.0.0.1 1"),
        ([b"A"] * (MOST_PIECES + 1), True, "printf 'AAAA' | nc -N -w 2 127.0.0.1 1"),
    ],
)
def test_the_sending_half_is_closed_only_where_it_was_and_pieces_have_pauses(
    pieces: list[bytes], half_close: bool, command: str
) -> None:
    made = Step("Ann", pieces, half_close)
    assert commands(fault("Ann", b"".join(pieces)), [made], SERVERS) == (command,)


def test_what_is_sent_about_the_clients_of_a_fault_is_sent_again_in_order_a_query_last() -> None:
    steps = [
        step(b"IAMAT $1 +1+1 5\n"),
        step(b"WHATSAT $1 1 1\n", "Bob"),
        step(b"IAMAT $2 +1+1 5\n"),
        step(b"IAMAT $1 +1+1 6\n"),
        step(b"WHATSAT $1 1 1\n", "Cid"),
        step(b"WHATSAT $1 1 1\n", "Bob"),
    ]
    told = ["1: IAMAT $1 +1+1 5", "1: IAMAT $1 +1+1 6"]
    assert typed(fault("Bob", b"WHATSAT $1 1 1"), steps) == [*told, "2: WHATSAT $1 1 1"]
    assert typed(fault("Ann", b"AT $1", got="from Cid: AT"), steps) == [*told, "3: WHATSAT $1 1 1"]


def test_without_a_client_it_is_what_the_fault_says_was_sent() -> None:
    steps = [step(b"FOO\n"), step(b"BAR\n"), step(b"BAR\n", "Bob"), step(b"", "Ann"), step(b"\n")]
    assert typed(fault("Ann", b"BAR"), steps) == ["1: BAR"]
    assert typed(fault("Ann", b"FOO\nBAR\n"), steps)[:2] == ["1: FOO", "1: BAR"]
    assert typed(fault("Ann", b"\n"), steps) == ["1: "]
    assert commands(fault("Ann", b"(Bob was stopped and started)"), steps, SERVERS) == ()
    assert commands(fault("Ann", b""), [], SERVERS) == ()
    assert commands(fault("herd", b""), [step(b"x", "herd")], SERVERS) == ()


def test_lines_that_end_in_cr_lf_are_found_where_the_fault_shows_lf() -> None:
    found = commands(fault("Ann", b"FOO\nBAR\n"), [step(b"FOO\r\nBAR\r\n")], SERVERS)
    assert found == (r"(printf 'FOO\r\nBAR\r\n'; sleep 2) | nc -w 2 127.0.0.1 1",)


def test_a_fault_may_bring_its_steps() -> None:
    shown = [step(b"FOO\n"), step(b"BAR\n", "Bob")]
    assert typed(fault("Ann, Bob", b"x", steps=shown), [step(b"x\n")]) == ["1: FOO", "2: BAR"]


def test_what_was_done_with_servers_stands_between_the_commands() -> None:
    steps = [
        step(b"IAMAT $1 +1+1 5\n"),
        Step("Bob", deed="end Bob now"),
        step(b"IAMAT $2 +1+1 5\n"),
        Step("Bob", deed="start Bob again"),
        step(b"WHATSAT $1 1 1\n", "Bob"),
    ]
    told = ["1: IAMAT $1 +1+1 5", "end Bob now", "start Bob again", "2: WHATSAT $1 1 1"]
    assert typed(fault("Bob", b"WHATSAT $1 1 1"), steps) == told
    assert commands(fault("Bob", b"x"), steps, SERVERS) == (), "no deed alone"


def test_commands_are_few_and_none_is_too_long_to_be_typed() -> None:
    many = [step(b"IAMAT $1 +1+1 %d\n" % number) for number in range(2 * MOST_TYPED_COMMANDS)]
    found = typed(fault("Ann", b"IAMAT $1"), many)
    last = [f"1: IAMAT $1 +1+1 {number}" for number in range(2 * MOST_TYPED_COMMANDS)][-MOST_TYPED_COMMANDS:]
    assert found == last
    too_long = [step(b"IAMAT $1 ".ljust(MOST_TYPED_BYTES + 1))]
    assert commands(fault("Ann", b"IAMAT $1"), too_long, SERVERS) == ()


def test_queries_are_left_out_before_the_reports_that_they_need() -> None:
    reports = [step(b"IAMAT $1 +1+1 %d\n" % number) for number in range(MOST_TYPED_COMMANDS - 2)]
    queries = [step(b"WHATSAT $1 %d 1\n" % number) for number in range(4)]
    found = typed(fault("Ann", b"WHATSAT $1 1 1"), [*reports, *queries])
    assert found[:-2] == [f"1: IAMAT $1 +1+1 {number}" for number in range(MOST_TYPED_COMMANDS - 2)]
    assert found[-2:] == ["1: WHATSAT $1 2 1", "1: WHATSAT $1 3 1"]
    many = [step(b"IAMAT $1 +1+1 %d\n" % number) for number in range(2 * MOST_TYPED_COMMANDS)]
    found = typed(fault("Ann", b"WHATSAT $1 1 1"), [*many, *queries])
    assert [one[:8] for one in found] == ["1: IAMAT"] * (MOST_TYPED_COMMANDS - 1) + ["1: WHATSA"[:8]]


def test_the_clients_of_a_grading_are_known_as_such() -> None:
    client = new_client()
    assert is_client.findall(b"IAMAT %b +1+1 5" % client) == [client]


def test_only_what_is_sent_while_there_is_a_recording_is_kept() -> None:
    note(step(b"before"))
    steps: list[Step] = []
    with recording(steps):
        note(step(b"meanwhile"))
    note(step(b"after"))
    assert [one.data for one in steps] == [b"meanwhile"]


# --- what a connection notes


async def noted(folder: Path, *deeds: str) -> list[Step]:
    """Let a connection do this: send what is no other deed, or `byte by byte`, `read` or `close`."""
    network, steps = graded.InProcessNetwork(), list[Step]()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data + b"\n")
        writer.close()

    await graded.InProcess(network, folder / "log").listen(echo, 1)
    reader, writer = await network.dial("h", 1)
    connection = Connection("Ann", reader, writer, 5.0)
    with recording(steps):
        for deed in deeds:
            match deed:
                case "read":
                    await connection.line()
                case "close":
                    connection.half_close()
                case "byte by byte":
                    await connection.send(deed.encode(), 1)
                case _:
                    await connection.send(deed.encode())
    writer.close()
    await asyncio.sleep(0.01)
    return steps


@pytest.mark.parametrize(
    ("deeds", "pieces", "half_close"),
    [
        (["A", "close", "read"], ["A"], True),
        (["A", "read", "close"], ["A"], False),
        (["A", "close", "read", "close"], ["A"], True),
        (["A", "read", "B", "read", "close"], ["A", "B"], False),
        (["A", "read", "B", "close", "read"], ["A", "B"], True),
        (["", "A"], ["A"], False),
        (["byte by byte"], ["b", "yte by byte"], False),
    ],
)
def test_a_connection_is_one_step_that_says_whether_it_was_closed_before_an_answer(
    deeds: list[str], pieces: list[str], half_close: bool, tmp_path: Path
) -> None:
    [made] = asyncio.run(noted(tmp_path, *deeds))
    assert ([piece.decode() for piece in made.pieces], made.half_close) == (pieces, half_close)


def test_a_connection_that_sends_nothing_is_no_step(tmp_path: Path) -> None:
    assert asyncio.run(noted(tmp_path, "close")) == []
