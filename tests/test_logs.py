"""The log file under the log."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxyherd.logs import LogFile


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
