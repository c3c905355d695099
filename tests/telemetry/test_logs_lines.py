"""What stands in a line of the log, and when lines reach the file: time stamps, long fields, gathering, full disks."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from proxyherd.telemetry.logs import LogFile, make_logger

MOST = 64
BEGAN = 1_700_000_000_000_001_999
"""2023-11-14T22:13:20.000001Z and a bit, in nanoseconds."""


def logger(file: LogFile, level: str = "info") -> FilteringBoundLogger:
    return make_logger(file, server="Bob", level=level, max_field_bytes=MOST)


def written(path: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, path.read_bytes().splitlines()))


def logged(folder: Path, **fields: object) -> dict[str, Any]:
    """Return the fields of one event as they are read back, those that every line has left out."""
    file = LogFile(folder / "log")
    logger(file).info("it", **fields)
    file.close()
    (line,) = written(folder / "log")
    assert [*line][:4] == ["timestamp", "level", "server", "event"]
    return {key: line[key] for key in [*line][4:]}


# Time stamps. --------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = BEGAN
        monkeypatch.setattr("proxyherd.telemetry.logs.time_ns", lambda: self.now)


def test_events_that_leave_in_one_write_bear_the_time_of_the_first_and_the_next_ones_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, file = Clock(monkeypatch), LogFile(tmp_path / "log")
    file.gather(lambda _: None)
    log = logger(file)
    for after in (0, 250_000_000, 999_999_000, 86_400_000_000_000):
        clock.now = BEGAN + after
        log.info("one")
        clock.now += 5_000_000_000
        log.info("two")
        file.flush()
    file.close()
    assert [line["timestamp"] for line in written(tmp_path / "log")[::2]] == [
        "2023-11-14T22:13:20.000001Z",
        "2023-11-14T22:13:20.250001Z",
        "2023-11-14T22:13:21.000000Z",
        "2023-11-15T22:13:20.000001Z",
    ]
    stamps = [line["timestamp"] for line in written(tmp_path / "log")]
    assert stamps[::2] == stamps[1::2]


def test_a_logger_that_is_made_while_lines_wait_knows_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch)
    file = LogFile(tmp_path / "log")
    file.gather(lambda _: None)
    logger(file).info("one")
    logger(file).info("two")
    file.close()
    assert {line["timestamp"] for line in written(tmp_path / "log")} == {"2023-11-14T22:13:20.000001Z"}


# Fields. -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "long", [b"x" * (MOST + 1), b"x" * (MOST - 1) + b"yz", "x" * (MOST + 1), "\xe9" * 65]
)
def test_a_long_field_is_cut_and_says_how_long_it_was(tmp_path: Path, long: bytes | str) -> None:
    fields = logged(tmp_path, before=1, it=long, after=2)
    start = long[:MOST].decode() if isinstance(long, bytes) else long[:MOST]
    assert fields == {"before": 1, "it": start, "it_bytes": len(long), "after": 2}


@pytest.mark.parametrize("whole", [b"x" * MOST, "x" * MOST, b"", "", 10**90, 0.5, None, True, ["x" * 99]])
def test_a_field_that_is_not_too_long_stands_as_it_is(tmp_path: Path, whole: object) -> None:
    text = whole.decode() if isinstance(whole, bytes) else whole
    assert logged(tmp_path, it=whole) == {"it": text}


def test_a_traceback_is_never_cut(tmp_path: Path) -> None:
    fields = logged(tmp_path, reason="why", exc_info=ValueError("y" * 500))
    assert list(fields) == ["reason", "exception"]
    assert fields["exception"].endswith("y" * 500)


@pytest.mark.parametrize(
    ("said", "shown"), [("a\x7fb", "a\\x7fb"), ("\x1b[1m", "\x1b[1m"), ("\u202e", "\\u202e")]
)
def test_text_that_would_not_be_seen_is_shown_escaped(tmp_path: Path, said: str, shown: str) -> None:
    """JSON itself escapes what is below a blank."""
    assert logged(tmp_path, it=said) == {"it": shown}


def test_what_json_cannot_say_is_said_as_text(tmp_path: Path) -> None:
    class Odd:
        def __str__(self) -> str:
            return "odd\x7f"

    assert logged(tmp_path, it=Odd(), number=7) == {"it": "odd\\x7f", "number": "7"}
    assert written(tmp_path / "log")[0]["server"] == "Bob"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_a_log_holds_its_level_and_above(tmp_path: Path, level: str) -> None:
    file = LogFile(tmp_path / "log")
    log = logger(file, level)
    every = ["debug", "info", "warning", "error", "critical"]
    for one in every:
        getattr(log, one)("it")
    file.close()
    assert [line["level"] for line in written(tmp_path / "log")] == every[every.index(level) :]


# Gathering. ----------------------------------------------------------------------------------------------------


def test_lines_gather_until_the_one_call_that_the_first_has_asked_for(tmp_path: Path) -> None:
    asked: list[Callable[[], None]] = []
    file = LogFile(tmp_path / "log")
    file.gather(asked.append)
    for turn in range(2):
        assert not file.lines
        for number in range(3):
            file.write(b"%d%d" % (turn, number))
        assert file.lines
        assert len(asked) == turn + 1
        asked[-1]()
        assert len((tmp_path / "log").read_bytes()) == file.bytes_written == 9 * (turn + 1)
    asked[-1]()  # nothing to write is nothing written
    file.close()
    assert (tmp_path / "log").read_bytes() == b"00\n01\n02\n10\n11\n12\n"


def test_lines_that_wait_go_into_the_file_that_was_there_when_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file = LogFile(path)
    file.gather(lambda _: None)
    file.write(b"before")
    path.rename(tmp_path / "old")
    file.reopen()
    file.write(b"after")
    file.close()
    assert ((tmp_path / "old").read_bytes(), path.read_bytes()) == (b"before\n", b"after\n")


def test_what_the_system_takes_bit_by_bit_is_written_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    file = LogFile(tmp_path / "log")
    file.write(b"0123456789")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"0123456789\n"
    assert (file.bytes_written, file.lines_lost) == (11, 0)


def test_behind_a_torn_line_nothing_is_written_where_there_is_nothing_to_say(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"torn")
    file = LogFile(path)
    file.flush()
    assert path.read_bytes() == b"torn"
    file.write(b"whole")
    file.close()
    assert path.read_bytes() == b"torn\nwhole\n"


def test_what_is_more_than_a_mebibyte_is_written_at_once_whoever_forgets_to(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "log")
    file.gather(lambda _: None)
    for _ in range(2):
        before = file.bytes_written
        for _ in range(1_024):
            file.write(b"x" * 1_024)
        assert file.bytes_written == before
        file.write(b"y")
        assert file.bytes_written == before + 1_024 * 1_025 + 2
    file.close()


# The file. -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [0, 30])
def test_a_file_is_rotated_when_it_has_reached_its_size_what_was_found_counted(
    tmp_path: Path, found: int
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"-" * (found - 1) + b"\n" if found else b"")
    file = LogFile(path, max_bytes=100, backups=2)
    file.write(b"x" * (98 - found))
    assert path.stat().st_size == 99
    file.write(b"")
    assert path.stat().st_size == 0
    assert (tmp_path / "log.1").stat().st_size == 100
    file.close()


@pytest.mark.parametrize("backups", [0, 1, 2])
def test_rotation_keeps_so_many_backups_and_touches_nothing_else(tmp_path: Path, backups: int) -> None:
    others = {tmp_path / name: name for name in ("log.-1", f"log.{backups + 1}", "log.1.gz", "log1")}
    for path, text in others.items():
        path.write_text(text)
    file = LogFile(tmp_path / "log", max_bytes=10, backups=backups)
    for number in range(4):
        file.write(b"%d" % number * 10)
    file.write(b"last")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"last\n"
    kept = [tmp_path / f"log.{number}" for number in range(1, backups + 1)]
    assert [path.read_bytes() for path in kept] == [b"%d" % (3 - age) * 10 + b"\n" for age in range(backups)]
    assert set(tmp_path.iterdir()) == {tmp_path / "log", *kept, *others}
    assert all(path.read_text() == text for path, text in others.items())
    assert file.failures == 0


def test_four_backups_are_kept_where_nothing_else_is_said(tmp_path: Path) -> None:
    """As docs/logs.md says; the bridge's log has no option for it."""
    file = LogFile(tmp_path / "log", max_bytes=10)
    for number in range(9):
        file.write(b"%d" % number * 10)
    file.close()
    assert {path.name for path in tmp_path.iterdir()} == {"log", *(f"log.{number}" for number in range(1, 5))}


def test_without_a_size_nothing_is_rotated(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "log")
    for _ in range(9):
        file.write(b"x" * 100_000)
    file.close()
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_the_file_is_for_its_owner_and_to_read_for_its_group(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file = LogFile(tmp_path / "log", max_bytes=10, backups=1)
        file.write(b"x" * 10)
        file.close()
    finally:
        os.umask(before)
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o640}


@contextlib.contextmanager
def descriptor(number: int, target: int | None) -> Iterator[None]:
    """Let a descriptor be another, or closed, for a while."""
    saved = os.dup(number)
    try:
        os.close(number)
        if target is not None:
            os.dup2(target, number)
        yield
    finally:
        os.dup2(saved, number)
        os.close(saved)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_file_that_is_also_a_standard_stream_is_left_to_whoever_opened_that(
    tmp_path: Path, number: int
) -> None:
    opened = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with descriptor(number, opened):
        file = LogFile(tmp_path / "log", max_bytes=10)
        for _ in range(3):
            file.write(b"x" * 10)
        file.close()
    os.close(opened)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_a_server_without_standard_input_rotates_the_file_that_took_its_number(tmp_path: Path) -> None:
    with descriptor(0, None):
        file = LogFile(tmp_path / "log", max_bytes=10, backups=1)
        assert file._fd == 0
        file.write(b"x" * 10)
        file.close()
    assert (tmp_path / "log.1").read_bytes() == b"x" * 10 + b"\n"


def test_a_rotation_that_fails_is_tried_again_when_as_much_has_been_written_once_more(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log.1")
    file = LogFile(tmp_path / "log", max_bytes=100, backups=1)
    failures = []
    for size in (99, 98, 0, 98, 0):
        file.write(b"x" * size)
        failures.append(file.failures)
    assert failures == [1, 1, 2, 2, 3]
    file.close()


def test_a_file_that_may_be_written_and_not_read_gets_no_blank_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "log").write_bytes(b"whole\n")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse)
        file = LogFile(tmp_path / "log")
    file.write(b"next")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"whole\nnext\n"


LINES = [b"first", b"second", b"", b"fourth"]


@pytest.mark.parametrize("room", range(len(b"\n".join(LINES)) + 2))
@pytest.mark.parametrize("torn", [False, True])
def test_on_a_full_disk_every_line_is_whole_or_counted_as_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, *, torn: bool
) -> None:
    path, real, left = tmp_path / "log", os.write, room
    path.write_bytes(b"whole\n" + b"cut" * torn)

    def write(fd: int, data: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = real(fd, data[:left])
        left -= done
        return done

    file = LogFile(path)
    file.gather(lambda _: None)
    for line in LINES:
        file.write(line)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        file.flush()
    size, lost, failures = path.stat().st_size - 6 - 3 * torn, file.lines_lost, file.failures
    assert file.failing is (lost > 0)
    assert size == file.bytes_written == min(room, len(b"\n".join(LINES)) + 1 + torn)
    file.write(b"later")
    file.close()
    text = path.read_bytes()
    assert text.startswith(b"whole\ncut\n" if torn else b"whole\n")
    assert text.endswith(b"\nlater\n")
    assert failures == (size < len(b"\n".join(LINES)) + 1 + torn)
    whole = LINES[: len(LINES) - lost]
    between = text[6 + 4 * torn : -6]
    assert between.startswith(b"".join(line + b"\n" for line in whole))
    rest = between[sum(len(line) + 1 for line in whole) :]
    assert rest == (LINES[len(whole)][: len(rest) - 1] + b"\n" if rest else b"")
    assert file.lines_lost == lost
    assert not file.failing
