"""The client for scripts: one deadline for a call, the next server where one fails, and never a wrong answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from asked import free_ports
from line_servers import HANG_UP, LineServer, as_a_server_does, line_server

from proxyherd import client
from proxyherd.client import (
    ClientClosed,
    NoAnswer,
    ReportRefused,
    SyncHerdClient,
    UnknownClient,
    Unreachable,
)
from proxyherd.client.rules.choice import ServerChoice

LONG = 100.0
"""Seconds that a busy machine may need for what takes milliseconds."""


@pytest.fixture
def in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers are asked in the order of their names, and again without a pause."""

    def following(self: ServerChoice, _: float, tried: object = ()) -> tuple[int, float]:
        self.asked = (getattr(self, "asked", -1) + 1) % len(self._free_at)  # type: ignore[attr-defined]
        return self.asked, 0.0  # type: ignore[attr-defined]

    monkeypatch.setattr(ServerChoice, "next", following)


def test_calls_have_typed_answers_over_one_connection() -> None:
    with line_server() as ann, SyncHerdClient(ann.address) as herd:
        taken = herd.report("kiwi", 34.06893, "-118.4450", 5)
        assert (taken.server, str(taken.lon), str(taken.received)) == ("Ann", "-118.4450", "5.100000000")
        assert herd.ask("kiwi", 0.5, 3).status == "ZERO_RESULTS"
        assert herd.locate("kiwi").line == b"AT Ann +0.100000000 kiwi +1+1 5"
        assert herd.command(b"FOO") == b"? FOO\n"
        with pytest.raises(UnknownClient):
            herd.locate("nobody")
    assert ann.connections == 1
    assert ann.told[1:3] == [b"WHATSAT kiwi 0.5 3\n", b"WHATSAT kiwi 0 0\n"]


def test_what_the_herd_does_not_take_is_no_reason_to_ask_others() -> None:
    with (
        line_server(lambda line: b"? " + line) as ann,
        SyncHerdClient(ann.address) as herd,
        pytest.raises(ReportRefused),
    ):
        herd.report("kiwi", 1, 2)
    assert len(ann.told) == 1


@pytest.mark.usefixtures("in_turn")
@pytest.mark.parametrize(
    "answer",
    [
        lambda _: HANG_UP,
        lambda _: b"HTTP/1.1 400 Bad Request\r\n",
        lambda _: b"AT Ann +0.1 plum +1+2 5\n",
        lambda _: b"x" * 5_000,
        lambda line: None if line.startswith(b"IAMAT") else b"",
        lambda line: as_a_server_does(line)[:-5],
    ],
    ids=["hangs up", "a web server", "another client", "an endless line", "silence", "half an answer"],
)
def test_the_next_server_gets_the_same_line(answer: Callable[[bytes], bytes | None]) -> None:
    """So the time of a report is the same, and the herd takes it once."""
    with (
        line_server(answer) as bad,
        line_server() as good,
        SyncHerdClient(bad.address, good.address, timeout=LONG, patience=0.5, most_bytes=1_000) as herd,
    ):
        assert herd.report("kiwi", 1, 2).server == "Ann"
    assert good.told == bad.told[:1]


def test_the_server_that_answers_is_kept() -> None:
    [nobody] = free_ports(1)
    with line_server() as ann, SyncHerdClient(f"127.0.0.1:{nobody}", ann.address, rng=Random(1)) as herd:
        for _ in range(3):
            herd.report("kiwi", 1, 2)
    assert (ann.connections, len(ann.told)) == (1, 3)


def test_without_retry_each_server_is_tried_once_and_each_reason_is_told() -> None:
    ports = free_ports(2)
    with SyncHerdClient(*(f"127.0.0.1:{port}" for port in ports), retry=False, timeout=LONG) as herd:
        for _ in range(2):
            with pytest.raises(Unreachable) as raised:
                herd.report("kiwi", 1, 2)
            assert sorted(raised.value.reasons) == [
                f"127.0.0.1:{port}: Connection refused" for port in sorted(ports)
            ]


@pytest.mark.usefixtures("in_turn")
def test_without_retry_a_broken_connection_is_an_error_and_no_other_server_is_told() -> None:
    """As with the other client: who wants no retry must know that a command may have been taken, and went nowhere else."""
    [nobody] = free_ports(1)
    with (
        line_server(lambda _: HANG_UP) as bob,
        line_server() as ann,
        SyncHerdClient(f"127.0.0.1:{nobody}", bob.address, ann.address, retry=False, timeout=LONG) as herd,
    ):
        with pytest.raises(Unreachable) as raised:
            herd.report("kiwi", 1, 2)
        assert raised.value.reasons == (
            f"{bob.address}: closed the connection without a word, as a port does that speaks TLS, or is full",
        )
        assert (len(bob.told), ann.told) == (1, [])
        assert herd.report("kiwi", 1, 2).server == "Ann"


def test_a_connection_that_ends_after_an_answer_is_none_to_a_port_with_tls() -> None:
    said = iter([b"? FOO\n", HANG_UP])
    with line_server(lambda _: next(said)) as ann, SyncHerdClient(ann.address, retry=False) as herd:
        herd.command("FOO")
        with pytest.raises(Unreachable, match="closed before its answer was whole"):
            herd.command("FOO")


def test_when_the_time_is_over_the_error_says_what_was_seen() -> None:
    [nobody] = free_ports(1)
    with (
        SyncHerdClient(f"127.0.0.1:{nobody}", timeout=LONG) as herd,
        pytest.raises(NoAnswer, match=r"^no answer within 0\.3 s; 127\.0\.0\.1:\d+: Connection refused$"),
    ):
        herd.report("kiwi", 1, 2, timeout=0.3)


def test_an_answer_that_is_late_is_not_the_next_ones() -> None:
    with (
        line_server(lambda line: None if b"slow" in line else as_a_server_does(line)) as ann,
        SyncHerdClient(ann.address, timeout=LONG) as herd,
    ):
        with pytest.raises(TimeoutError):
            herd.report("slow", 1, 2, timeout=0.2)
        assert herd.report("kiwi", 1, 2).client == "kiwi"


def test_what_is_said_behind_an_answer_is_not_the_next_ones() -> None:
    answers = [b"? FOO\n? BAR\n", b"? BAR\n"]
    with line_server(lambda _: answers.pop(0)) as ann, SyncHerdClient(ann.address) as herd:
        assert herd.command(b"FOO") == b"? FOO\n"
        assert herd.command(b"BAR") == b"? BAR\n"
    assert ann.connections == 2


def test_a_connection_that_was_closed_meanwhile_is_made_again() -> None:
    """Servers close what is idle."""

    def once(line: bytes) -> bytes:
        ann.ending.set()
        return as_a_server_does(line)

    ann: LineServer
    with line_server(once) as ann, SyncHerdClient(ann.address, retry=False, timeout=LONG) as herd:
        herd.report("kiwi", 1, 2)
        connection = herd._connection
        assert connection is not None
        connection.settimeout(LONG)
        assert connection.recv(1, 2) == b""  # MSG_PEEK: it is closed now
        ann.ending.clear()
        herd.report("kiwi", 1, 2)
    assert ann.connections == 2


def test_wrong_arguments_are_never_sent() -> None:
    with line_server() as ann, SyncHerdClient(ann.address) as herd:
        with pytest.raises(ValueError, match="latitude"):
            herd.report("kiwi", 91, 2)
        with pytest.raises(ValueError, match="one line"):
            herd.command(b"FOO\nBAR")
        with pytest.raises(ValueError, match="timeout is 0"):
            herd.locate("kiwi", timeout=0)
    assert ann.told == []


def test_a_closed_client_says_so() -> None:
    with SyncHerdClient("127.0.0.1:1") as herd:
        pass
    with pytest.raises(ClientClosed):
        herd.locate("kiwi")


def test_a_websocket_is_for_the_other_client() -> None:
    with pytest.raises(ValueError, match="needs HerdClient"):
        SyncHerdClient("ws://127.0.0.1:10300")


def test_a_client_of_a_herds_file_asks_its_servers(tmp_path: Path) -> None:
    file = tmp_path / "herd.toml"
    with line_server() as ann:
        file.write_text(
            f'[servers]\nAnn = {{ clients = "{ann.address}", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }}\n'
        )
        with SyncHerdClient.of_herd_file(file, timeout=LONG) as herd:
            assert herd.locate("kiwi").client == "kiwi"


def test_a_shell_lists_all_names_though_they_are_loaded_when_they_are_used() -> None:
    assert {*dir(client)} == {*client.__all__} > {"HerdClient", "SyncHerdClient"}
