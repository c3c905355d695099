"""A log is read back from its end and on as it grows, and no line is lost or doubled, whoever rotates it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd.remote import logfiles
from proxyherd.remote.logfiles import OpenFile, ServerLog
from proxyherd.telemetry import logs


def lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    at = 0
    for line in path.read_bytes().split(b"\n"):
        if line:
            yield at, line
        at += len(line) + 1


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def opened(path: Path) -> OpenFile:
    return OpenFile(os.open(path, os.O_RDONLY))


@settings(deadline=None)
@given(data=st.lists(st.sampled_from([b"\n", b"a", b"bc", b"defgh"])).map(b"".join), chunk=st.integers(1, 7))
def test_a_file_is_read_back_and_on_alike_however_it_is_cut_into_chunks(
    folder: Path, data: bytes, chunk: int
) -> None:
    path = folder / "log"
    path.write_bytes(data)
    wanted = list(lines_of(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logfiles, "_CHUNK_BYTES", chunk)
        file = opened(path)
        assert list(file.lines_back()) == wanted[::-1]
        end = file.end_of_lines()
        assert end == 0 or data[end - 1 : end] == b"\n"
        assert data[end:].strip(b"\n") == data[data.rfind(b"\n") + 1 :]
        on: list[bytes] = []
        while (some := file.read()) is not None:
            on += some
        rest = file.take_rest()
        assert [*on, *([rest] if rest else [])] == [line for _, line in wanted]
        os.close(file.fd)


def follow(path: Path, most: int | None = None) -> ServerLog:
    log = ServerLog(path)
    log.open()
    log.begin(lambda _: True, most)
    return log


def drain(log: ServerLog) -> list[bytes]:
    lines: list[bytes] = []
    while some := log.more():
        lines += some
    return lines


STEPS = st.lists(
    st.one_of(
        st.integers(1, 20),  # so many lines are written
        st.sampled_from(["read", "rename", "rename and create", "reopen"]),
    ),
    max_size=25,
)


@settings(deadline=None)
@given(steps=STEPS, max_bytes=st.sampled_from([0, 100, 400]), most=st.sampled_from([0, 3, None]))
def test_following_loses_and_doubles_no_line_whoever_rotates(
    steps: list[int | str], max_bytes: int, most: int | None
) -> None:
    """The server by size, somebody else by renaming and SIGHUP (`reopen`), with and without a new file, or both."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "Clark.log")
        file = logs.LogFile(path, max_bytes=max_bytes, backups=1_000)
        for number in range(5):
            file.write(b"before %d" % number)
        log = follow(path, most)
        wanted = [b"before %d" % number for number in range(5)][5 if most == 0 else -(most or 5) :]
        got, written, moved = list[bytes](), 0, 0
        for step in steps:
            if isinstance(step, int):
                for _ in range(step):
                    line = b"line %d" % written
                    file.write(line)
                    wanted.append(line)
                    written += 1
            elif step == "read":
                got += drain(log)
            elif step == "reopen":
                file.reopen()
            elif path.exists():
                got += drain(log)  # what is moved away before it was seen once is nowhere to be found
                path.rename(path.with_name(f"Clark.log-{moved}"))
                moved += 1
                if step == "rename and create":
                    path.touch()
        file.close()
        got += drain(log)
        log.close()
        assert got == wanted
        assert moved or log.gaps == 0  # one file out of the row may have been deleted, as far as can be seen


def test_a_log_that_rotates_far_between_two_readings_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "Clark.log"
    file = logs.LogFile(path, max_bytes=50, backups=4)
    file.write(b"first")
    log = follow(path)
    wanted = [b"first", *(b"%048d" % number for number in range(4))]
    for line in wanted[1:]:
        file.write(line)
    assert drain(log) == wanted
    assert log.gaps == 0
    for number in range(9):  # the first ends the file that is being read, and four are kept
        file.write(b"%050d" % number)
    assert drain(log) == [b"%050d" % number for number in (0, 5, 6, 7, 8)]
    assert log.gaps == 1
    file.close()
    log.close()


def test_a_log_that_is_a_link_is_read_from_where_the_server_rotates_it(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    path = tmp_path / "Clark.log"
    path.symlink_to("disk/Clark")
    file = logs.LogFile(path, max_bytes=50, backups=4)
    lines = [b"%050d" % number for number in range(4)]
    for line in lines[:2]:
        file.write(line)
    log = follow(path)
    for line in lines[2:4]:
        file.write(line)
    assert drain(log) == lines
    file.close()
    log.close()


def test_a_log_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "Clark.log")
    with pytest.raises(OSError, match="is a pipe"):
        ServerLog(tmp_path / "Clark.log").open()


def test_a_renamed_file_is_read_until_the_server_has_left_it(tmp_path: Path) -> None:
    """logrotate makes the new file at once; the server writes on into the old one until SIGHUP."""
    path = tmp_path / "Clark.log"
    file = logs.LogFile(path)
    file.write(b"1")
    log = follow(path)
    path.rename(tmp_path / "Clark.log-1")
    path.touch()
    for line in (b"2", b"3"):
        assert drain(log) == [b"%d" % (int(line) - 1)]
        file.write(line)
    file.reopen()
    file.write(b"4")
    assert drain(log) == [b"3", b"4"]
    file.close()
    log.close()


def test_a_hole_in_the_numbers_hides_no_file(tmp_path: Path) -> None:
    """Between two of a rotation's renames one number is vacant."""
    path = tmp_path / "Clark.log"
    path.write_bytes(b"1\n")
    log = follow(path)
    path.rename(tmp_path / "Clark.log.3")
    (tmp_path / "Clark.log.2").write_bytes(b"2\n")
    path.write_bytes(b"3\n")
    assert drain(log) == [b"1", b"2", b"3"]
    log.close()


def test_files_that_were_rotated_before_are_not_taken_for_new_ones(tmp_path: Path) -> None:
    """The server has rotated by size; then logrotate moves the log to a name of its own."""
    path = tmp_path / "Clark.log"
    (tmp_path / "Clark.log.1").write_bytes(b"old\n")
    path.write_bytes(b"1\n")
    log = follow(path, 1)
    path.rename(tmp_path / "Clark.log-20260101")
    path.write_bytes(b"2\n")
    assert drain(log) == [b"1", b"2"]
    log.close()


def test_a_rotated_file_is_not_read_again_while_the_one_after_it_is_empty(tmp_path: Path) -> None:
    """The server has just rotated, and has not written since; then the empty file is moved away."""
    path = tmp_path / "Clark.log"
    path.write_bytes(b"1\n")
    log = follow(path, 1)
    path.rename(tmp_path / "Clark.log.1")
    path.touch()
    assert drain(log) == [b"1"]
    path.rename(tmp_path / "Clark.log-20260101")
    path.write_bytes(b"2\n")
    assert drain(log) == [b"2"]
    log.close()


def test_a_log_that_is_emptied_is_read_from_its_start_again(tmp_path: Path) -> None:
    path = tmp_path / "Clark.log"
    path.write_bytes(b"one\ntwo\n")
    log = follow(path)
    assert drain(log) == [b"one", b"two"]
    with path.open("r+b") as file:
        file.truncate()
    assert drain(log) == []
    with path.open("ab") as file:
        file.write(b"new\n")
    assert drain(log) == [b"new"]
    log.close()


def test_a_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "Clark.log"
    path.write_bytes(b"one\ntw")
    log = follow(path, 0)
    assert drain(log) == []
    with path.open("ab") as file:
        file.write(b"o\n")
    assert drain(log) == [b"two"]
    log.close()


def test_a_log_that_comes_later_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "Clark.log"
    log = follow(path, 0)
    assert not log.is_there
    assert drain(log) == []
    (tmp_path / "Clark.log.1").write_bytes(b"one\n")
    path.write_bytes(b"two\n")
    assert drain(log) == [b"one", b"two"]
    log.close()


def test_the_last_lines_come_from_rotated_files_too(tmp_path: Path) -> None:
    path = tmp_path / "Clark.log"
    for number in range(4):
        (tmp_path / f"Clark.log.{number}").write_bytes(b"%d a\n%d b\n" % (number, number))
    (tmp_path / "Clark.log.0").rename(path)
    log = follow(path, 5)
    assert list(log.lines(last=True)) == [b"2 b", b"1 a", b"1 b", b"0 a", b"0 b"]
    log.close()
    log = follow(path)
    assert len(list(log.lines(last=True))) == 8
    log.close()


def test_a_rotation_while_looking_back_doubles_nothing(tmp_path: Path) -> None:
    path = tmp_path / "Clark.log"
    path.write_bytes(b"2\n3\n")
    (tmp_path / "Clark.log.1").write_bytes(b"1\n")

    def wanted(line: bytes) -> bool:
        if line == b"3":
            (tmp_path / "Clark.log.1").rename(tmp_path / "Clark.log.2")
            path.rename(tmp_path / "Clark.log.1")
            path.write_bytes(b"4\n")
        return True

    log = ServerLog(path)
    log.open()
    log.begin(wanted, None)
    assert list(log.lines(last=False)) == [b"1", b"2", b"3"]
    assert drain(log) == [b"4"]
    log.close()


def test_of_a_big_file_only_the_end_is_read_for_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Clark.log"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a hole: it takes no room
        file.seek(0, os.SEEK_END)
        file.writelines(b"\n%d" % number for number in range(100))
        file.write(b"\n")
    read = 0
    pread = os.pread

    def counted(fd: int, count: int, at: int) -> bytes:
        nonlocal read
        data = pread(fd, count, at)
        read += len(data)
        return data

    monkeypatch.setattr(os, "pread", counted)
    log = follow(path, 10)
    assert list(log.lines(last=True)) == [b"%d" % number for number in range(90, 100)]
    log.close()
    assert read < 1 << 20
