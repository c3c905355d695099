"""Logs of two servers, and the command that shows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxyherd import cli
from proxyherd.remote.tailing import LogEvent, Reader, Reading

STAMP = "2026-11-24T06:28:50.%06dZ"
HERD = """
edges = [["Ann", "Bob"]]
[servers]
Ann = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
Bob = { clients = "127.0.0.1:4", peers = "127.0.0.1:5", admin = "127.0.0.1:6" }
"""


def line(at: int, event: str = "ready", level: str = "info", server: str = "Ann", **fields: Any) -> bytes:
    head = {"timestamp": STAMP % at, "level": level, "server": server, "event": event}
    return json.dumps({**head, **fields}).encode()


def made(*lines: bytes, server: str = "Ann") -> list[LogEvent]:
    return list(map(Reading(server), lines))


def shown(*lines: bytes) -> list[str]:
    return list(map(Reader(["Ann", "Bob"]), made(*lines)))


def enter_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay out a herd's folder with logs of both servers, whose events alternate, and go there."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PROXYHERD_CONFIG", "LOGS_DIRECTORY", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    for below in ("deploy", "var/log"):
        (tmp_path / below).mkdir(parents=True)
    (tmp_path / "deploy/herd.toml").write_text(HERD)
    for server, odd in (("Ann", 0), ("Bob", 1)):
        lines = (line(2 * n + odd, server=server, n=2 * n + odd) for n in range(20))
        (tmp_path / f"var/log/{server}.log").write_bytes(b"".join(one + b"\n" for one in lines))
    return tmp_path


def tail(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["tail", *arguments])


def numbers(result: Result) -> list[int]:
    assert result.exit_code == 0, result.output
    return [json.loads(one)["n"] for one in result.stdout.splitlines()]
