"""The log file under the log, and its rotation: by the server, by another program, by both."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from herd_process import herd_of, read_log, running_server
from redis_cluster import Cluster

from proxyherd.logs import Each, LogFile, make_logger, names


def backups(path: Path) -> list[bytes]:
    return [one.read_bytes() for one in sorted(path.parent.glob(f"{path.name}.*"))]


def test_a_file_that_cannot_be_reopened_when_it_is_rotated_costs_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when there are no descriptors: shifting the backups would be in vain, and over and over."""
    path = tmp_path / "log"
    log = LogFile(path, max_bytes=100, backups=4)
    for number in range(4):
        log.write(b"%d" % number * 120)
    before = backups(path)
    assert len(before) == 4
    with monkeypatch.context() as patched:

        def refuse(*_: object) -> int:
            raise OSError(24, "Too many open files")

        patched.setattr(os, "open", refuse)
        for _ in range(10):
            log.write(b"x" * 120)
    assert backups(path) == before
    assert log.failures == 10
    assert log.lines_lost == 0
    log.write(b"y" * 120)
    log.close()
    assert backups(path)[0] == (b"x" * 120 + b"\n") * 10 + b"y" * 120 + b"\n"


@pytest.mark.parametrize(
    "odd",
    [
        *(b"plain", b"", b"100%b %s %%", b'"', b"\\", b"\\n", b"\x00", b"\x7f", b"\t", b"\xff", b"\xc3\xa9"),
        *(b"\xe2\x80\xa8", b"x" * 64, b"x" * 65, b"\xc2\x85"),
    ],
)
def test_an_event_for_several_lines_is_written_as_that_many_events(tmp_path: Path, odd: bytes) -> None:
    file = LogFile(tmp_path / "log")
    log = make_logger(file, server="A%b", level="info", max_field_bytes=64)
    commands, answers = [b"IAMAT a", odd, b"IAMAT c"], [odd, b"AT b", b"AT c"]
    log.info("command", client=Each([b"x"] * 3), kind="50%", command=Each(commands), answer=Each(answers))
    for command, answer in zip(commands, answers, strict=True):
        log.info("command", client=b"x", kind="50%", command=command, answer=answer)
    file.close()
    written = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    for one in written:
        del one["timestamp"]
    assert len(written) == 6
    assert [list(one.items()) for one in written[:3]] == [list(one.items()) for one in written[3:]]


def test_names_are_cut_where_the_next_would_be_too_much() -> None:
    assert names([b"kiwi", b"\xff\xc3", b"plum"], 19) == ["kiwi", "\\xff\\xc3", "plum"]
    assert names([b"kiwi", b"\xff\xc3", b"plum"], 18) == ["kiwi", "\\xff\\xc3"]
    assert names([b"kiwi"], 6) == names([], 100) == []


def log_of(path: Path, *lines: bytes, max_bytes: int = 100, backups: int = 4) -> LogFile:
    log = LogFile(path, max_bytes=max_bytes, backups=backups)
    for line in lines:
        log.write(line)
    return log


def archive(path: Path) -> Path:
    """Do what logrotate does before it sends SIGHUP."""
    return path.replace(path.with_name(f"{path.name}-20261124-1795521600"))


def test_a_log_that_somebody_has_renamed_is_reopened_where_it_would_be_rotated(tmp_path: Path) -> None:
    """logrotate's rename, and SIGHUP on its way: no backup is shifted, none is made of an empty file."""
    path = tmp_path / "log"
    log = log_of(path, b"a" * 120, b"b" * 60)
    before = backups(path)
    archived = archive(path)
    log.write(b"c" * 60)
    log.write(b"d" * 60)
    assert (archived.read_bytes(), path.read_bytes()) == (
        b"b" * 60 + b"\n" + b"c" * 60 + b"\n",
        b"d" * 60 + b"\n",
    )
    assert backups(path) == before == [b"a" * 120 + b"\n"]
    assert (log.failures, log.lines_lost) == (0, 0)
    log.close()


def test_a_log_in_whose_place_stands_another_is_reopened_where_it_would_be_rotated(tmp_path: Path) -> None:
    """As after `supervisorctl clear`, or where logrotate's `create` made it."""
    path = tmp_path / "log"
    log = log_of(path, b"b" * 60)
    archived = archive(path)
    path.touch()
    log.write(b"c" * 60)
    log.write(b"d" * 60)
    assert archived.read_bytes() == b"b" * 60 + b"\n" + b"c" * 60 + b"\n"
    assert path.read_bytes() == b"d" * 60 + b"\n"
    assert backups(path) == []
    log.write(b"e" * 60)
    assert path.read_bytes() == b""
    assert backups(path) == [b"d" * 60 + b"\n" + b"e" * 60 + b"\n"]
    log.close()


def test_two_who_rotate_at_once_lose_no_line_and_double_none(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = log_of(path, backups=1_000)
    archived = []
    for number in range(500):
        if number % 7 == 0 and path.exists():
            archived.append(path.replace(path.with_name(f"{path.name}-{number:03}")))
        if number % 7 == number // 7 % 7:
            log.reopen()
        log.write(b"%03d" % number * 10)
    log.close()
    written = b"".join(file.read_bytes() for file in (path, *path.parent.glob("log[.-]*"))).splitlines()
    assert sorted(written) == [b"%03d" % number * 10 for number in range(500)]
    assert all(backups(path))
    assert len(archived) > 20


@pytest.mark.parametrize("again", [True, False], ids=["reopened", "opened"])
def test_a_line_that_was_cut_stays_on_a_line_of_its_own(tmp_path: Path, again: bool) -> None:
    """As a full disk or `kill -9` within a write leave it, be it before this process or before SIGHUP."""
    path = tmp_path / "log"
    if again:
        log = log_of(path)
    path.write_bytes(b"whole\ncut of")
    if again:
        log.reopen()
    else:
        log = log_of(path)
    log.write(b"next")
    log.reopen()
    log.write(b"last")
    log.close()
    assert path.read_bytes() == b"whole\ncut of\nnext\nlast\n"


# A real server, and SIGHUP at the moments that are hard to meet. -----------------------------------------------

WHILE_IT_STARTS = """
import os, runpy, signal, sys

class Rotator:  # uvloop is imported when the log is open and no handler stands yet
    def find_spec(self, name, path=None, target=None):
        log = sys.argv[sys.argv.index("--log-file") + 1]
        if name == "uvloop" and os.path.exists(log):
            os.rename(log, log + "-1")
            os.kill(os.getpid(), signal.SIGHUP)

sys.meta_path.insert(0, Rotator())
sys.argv[0] = "proxyherd"
runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)
"""


def test_a_rotation_between_the_opening_of_the_log_and_the_first_handler_is_heard(
    cluster: Cluster | None,
) -> None:
    with herd_of([], "Clark", cluster=cluster) as herd:
        clark = herd["Clark"]
        clark.program = [sys.executable, "-c", WHILE_IT_STARTS]
        clark.start()
        clark.wait_for_event("reloaded")
        clark.wait_for_event("ready")
        clark.ask(b"FOO")
        assert clark.stop() == 0
        renamed = read_log(clark.log_file.with_name("Clark.log-1"))
        assert [event["event"] for event in renamed + clark.log()].count("started") == 1
        assert len(clark.events("command")) == 1
        assert clark.stderr() == ""


def test_hangups_while_it_stops_do_not_end_it_before_its_last_line(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark:
        clark.signal(signal.SIGTERM)
        assert clark.process
        while clark.process.poll() is None:
            clark.process.send_signal(signal.SIGHUP)
        assert clark.process.returncode == 0
        assert clark.log()[-1]["event"] == "stopped"


def test_a_thousand_hangups_in_a_row_lose_no_line_and_no_client(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark, clark.connect() as client:
        commands = [b"IAMAT kiwi%d +1+1 1700000000" % number for number in range(1_000)]
        for number, command in enumerate(commands):
            archived = clark.log_file.with_name(f"Clark.log-{number:03}")
            if clark.log_file.exists():
                clark.log_file.replace(archived)
            clark.signal(signal.SIGHUP)
            assert client.ask(command).startswith(b"AT Clark ")
        assert clark.stop() == 0
        files = clark.log_file.parent.glob("Clark.log*")
        events = [event for file in files for event in read_log(file) if event["event"] == "command"]
        assert sorted(event["command"] for event in events) == sorted(map(bytes.decode, commands))
