"""The folder of a herd of one server, with a journal: for commands that read files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from proxyherd.engines.herd import journal

HERD = """
edges = []
[servers]
Ann = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
"""


def enter_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: Iterable[bytes]) -> Path:
    """Lay the folder out, with these AT lines in the journal, and go there."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PROXYHERD_CONFIG", raising=False)
    for below in ("deploy", "var/lib/Ann/journal"):
        (folder / below).mkdir(parents=True)
    (folder / "deploy/herd.toml").write_text(HERD)
    write_journal(lines)
    return folder


def write_journal(lines: Iterable[bytes], number: int = 1, kind: str = "segment") -> Path:
    """Write one of the journal's files."""
    path = Path(f"var/lib/Ann/journal/{number:012}.{kind}")
    path.write_bytes(b"".join(map(journal.record, lines)))
    return path
