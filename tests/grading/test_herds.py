"""Logs of a stranger's servers: followed, and never waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from proxyherd.grading.faults import Fault, NotSeen
from proxyherd.grading.herds import GradedHerd, Log
from proxyherd.grading.servers import PREFIX, GradedServer


@pytest.mark.timeout(20)
def test_a_log_is_never_waited_for_and_only_a_regular_file_is_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "Pipe")
    (tmp_path / "Device").symlink_to("/dev/zero")
    (tmp_path / "Folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "Socket"))
        for name in ("Pipe", "Device", "Folder", "Socket", "nothing"):
            log = Log(GradedServer(name, "h", 1, log=tmp_path / name))
            assert list(log.tail().lines()) == []
            herd = GradedHerd([log.server])
            fault = herd.unlogged(Fault("Ann", b"", "a line", "none"))
            assert isinstance(fault, NotSeen)
            assert f"none of the logs that are named is a regular file: {tmp_path / name}" in str(fault)


def test_a_log_is_followed_where_it_grows_and_from_its_beginning_where_it_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "log"
    file.write_bytes(b"before\n")
    log = Log(GradedServer("Ann", "h", 1, log=file))
    tail = log.tail()
    with file.open("ab") as end:
        end.write(b"one\ntw")
        end.flush()
        assert (list(tail.lines()), tail.rest) == ([b"one"], b"tw")
        end.write(b"o\n")
    assert (list(tail.lines()), tail.rest) == ([b"two"], b"")
    file.rename(tmp_path / "log.1")
    file.write_bytes(b"three\n")
    assert list(tail.lines()) == [b"three"]
    assert list(tail.lines()) == []


def test_what_a_started_server_prints_is_its_log_only_while_the_named_one_is_missing(tmp_path: Path) -> None:
    server = GradedServer("Ann", "h", 1, log=tmp_path / "Ann.log")
    server.output = tmp_path / "Ann.out"
    server.output.write_bytes(b"before\n")
    herd, fault = GradedHerd([server]), Fault("Ann", b"", "a line", "none")
    log = Log(server)
    unseen = str(herd.unlogged(fault))
    assert unseen.endswith(f": {server.chosen_log}, and what the servers print mentions no client")
    with server.output.open("ab") as end:
        end.write(b"IAMAT %b-1\n" % PREFIX)
    assert list(log.tail().lines()) == [b"IAMAT %b-1" % PREFIX]
    assert herd.unlogged(fault) is fault
    (tmp_path / "Ann.log").write_bytes(b"written at last\n")
    assert list(log.tail().lines()) == [b"written at last"]
    assert server.log == server.chosen_log
