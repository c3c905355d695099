"""The log file under the log, and its rotation: by the server, by another program, by both."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from descriptors import descriptors_below
from observed import lines_in

from proxyherd.telemetry.logs import LogFile


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


def test_one_descriptor_is_open_however_often_the_log_was_reopened_and_rotated(tmp_path: Path) -> None:
    log = log_of(tmp_path / "log")
    for _ in range(5):
        log.reopen()
        log.write(b"a" * 120)
        assert descriptors_below(tmp_path) == 1
    log.close()
    assert descriptors_below(tmp_path) == 0


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


# A log that is no file of its own. -----------------------------------------------------------------------------


def test_a_log_that_is_a_link_is_rotated_where_the_link_leads(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "log.link"
    link.symlink_to("disk/log")
    log = log_of(link, b"a" * 120, b"b" * 120, b"c" * 60)
    assert str(link.readlink()) == "disk/log"
    assert backups(tmp_path / "disk/log") == [b"b" * 120 + b"\n", b"a" * 120 + b"\n"]
    archived = archive(tmp_path / "disk/log")
    log.reopen()
    log.write(b"d" * 60)
    assert archived.read_bytes() == b"c" * 60 + b"\n"
    assert (tmp_path / "disk/log").read_bytes() == b"d" * 60 + b"\n"
    assert {path.name for path in tmp_path.iterdir()} == {"disk", "log.link"}
    log.close()


def test_a_link_that_leads_elsewhere_is_followed_by_the_next_hangup(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.symlink_to("first")
    log = log_of(path, b"1")
    path.unlink()
    path.symlink_to("second")
    log.write(b"2")
    log.reopen()
    log.write(b"3" * 120)
    assert (tmp_path / "first").read_bytes() == b"1\n2\n"
    assert (tmp_path / "second.1").read_bytes() == b"3" * 120 + b"\n"
    log.close()


@pytest.mark.parametrize("linked", [False, True])
def test_a_log_that_is_a_pipe_is_never_rotated(tmp_path: Path, linked: bool) -> None:
    path = tmp_path / "log"
    os.mkfifo(tmp_path / "pipe")
    path.symlink_to("pipe") if linked else (tmp_path / "pipe").rename(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = log_of(path, *(b"%03d" % number * 50 for number in range(10)))
    assert path.is_symlink() == linked
    assert path.is_fifo()
    assert len(list(tmp_path.iterdir())) == 1 + linked
    assert lines_in(reader) == [b"%03d" % number * 50 for number in range(10)]
    assert (log.failures, log.lines_lost) == (0, 0)
    log.reopen()
    log.write(b"more")
    log.close()
    assert lines_in(reader) == [b"more"]
    os.close(reader)


@pytest.mark.parametrize("name", ["log.1", "log.2", "log.4"])
def test_rotation_replaces_no_pipe_that_has_the_name_of_a_backup(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    log = log_of(tmp_path / "log", *(b"%d" % number * 120 for number in range(9)))
    assert (tmp_path / name).is_fifo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", name]
    assert log.failures == 9
    assert log.lines_lost == 0
    log.close()


def test_a_pipe_behind_the_last_backup_keeps_no_log_from_its_rotation(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.5")
    log = log_of(tmp_path / "log", *(b"%d" % number * 120 for number in range(9)))
    log.close()
    kept = [(tmp_path / f"log.{number}").read_bytes()[:1] for number in range(1, 5)]
    assert kept == [b"8", b"7", b"6", b"5"]
    assert log.failures == 0


def test_a_pipe_whose_reader_stalls_costs_lines_that_are_counted_and_no_time(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    log = log_of(tmp_path / "log")
    log.gather(lambda _: None)  # lines gather, so that a write may be cut within one
    written = [b"%07d" % number * 100 for number in range(4_000)]
    for number, line in enumerate(written, 1):
        log.write(line)
        if number % 70 == 0 or number == len(written):
            log.flush()
    log.reopen()  # SIGHUP meanwhile
    got = lines_in(reader)
    whole = [line for line in got if len(line) == 700]
    assert whole == written[: len(whole)]
    assert [written[len(whole)].startswith(line) for line in got[len(whole) :]] in ([], [True])
    assert log.lines_lost == len(written) - len(whole) > 0
    assert log.failures > 0
    log.write(b"it is read again")
    log.flush()
    assert lines_in(reader)[-1] == b"it is read again"
    log.close()
    os.close(reader)


def test_a_pipe_takes_what_a_busy_turn_says(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    log = log_of(tmp_path / "log")
    turn = [b"x" * 1_000] * 512
    log.write(b"\n".join(turn))
    assert lines_in(reader) == turn
    assert log.lines_lost == 0
    log.close()
    os.close(reader)


def test_a_pipe_that_nobody_reads_is_an_error_at_the_start_and_a_failure_later(tmp_path: Path) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    with pytest.raises(OSError, match="pipe that nobody reads") as caught:
        LogFile(path)
    assert caught.value.filename == str(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = log_of(path, b"first")
    assert lines_in(reader) == [b"first"]
    os.close(reader)
    log.write(b"lost")
    log.reopen()
    assert (log.lines_lost, log.failures) == (1, 2)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log.write(b"second")
    assert lines_in(reader) == [b"second"]
    log.close()
    os.close(reader)
