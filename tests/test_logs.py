"""The log file under the log."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

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
