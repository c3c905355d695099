"""How a fault is tried by hand: commands for a shell."""

from __future__ import annotations

import re

import pytest

from proxyherd.grading.by_hand import (
    MOST_TYPED_BYTES,
    MOST_TYPED_COMMANDS,
    Step,
    commands,
    is_client,
    note_sent,
    recording,
)
from proxyherd.grading.faults import Fault
from proxyherd.grading.servers import GradedServer, new_client

SERVERS = [GradedServer(name, "127.0.0.1", port) for port, name in enumerate(("Ann", "Bob", "Cid"), 1)]
ONE, TWO = b"g0123456789.000001", b"g0123456789.000002"


def step(data: bytes, server: str = "Ann") -> Step:
    return Step(server, data.replace(b"$1", ONE).replace(b"$2", TWO))


def fault(server: str, sent: bytes, expected: str = "x", got: str = "y") -> Fault:
    return Fault(server, sent.replace(b"$1", ONE), expected, got)


def typed(found: Fault, steps: list[Step]) -> list[str]:
    """Return the commands without what is the same in all."""
    whole = [
        re.fullmatch(r"printf '(.*)\\n' \| nc -N 127\.0\.0\.1 (\d)", one)
        for one in commands(found, steps, SERVERS)
    ]
    return [f"{one[2]}: {one[1]}".replace(ONE.decode(), "$1") for one in whole if one]


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
    assert commands(fault("Ann", data), [Step("Ann", data)], SERVERS) == (
        f"printf {printed} | nc -N 127.0.0.1 1",
    )


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


def test_commands_are_few_and_none_is_too_long_to_be_typed() -> None:
    many = [step(b"IAMAT $1 +1+1 %d\n" % number) for number in range(2 * MOST_TYPED_COMMANDS)]
    found = typed(fault("Ann", b"IAMAT $1"), many)
    assert found == [
        f"1: IAMAT $1 +1+1 {number}" for number in range(MOST_TYPED_COMMANDS, 2 * MOST_TYPED_COMMANDS)
    ]
    assert (
        commands(fault("Ann", b"IAMAT $1"), [step(b"IAMAT $1 ".ljust(MOST_TYPED_BYTES + 1))], SERVERS) == ()
    )


def test_the_clients_of_a_grading_are_known_as_such() -> None:
    client = new_client()
    assert is_client.findall(b"IAMAT %b +1+1 5" % client) == [client]


def test_only_what_is_sent_while_there_is_a_recording_is_kept() -> None:
    note_sent("Ann", b"before")
    with recording() as steps:
        note_sent("Ann", b"meanwhile")
    note_sent("Ann", b"after")
    assert steps == [Step("Ann", b"meanwhile")]
