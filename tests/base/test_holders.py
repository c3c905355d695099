"""Who listens at a port is found among all processes."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from proxyherd.base.holders import holders


def test_who_listens_is_found_and_described_by_its_command() -> None:
    for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
        with socket.create_server((host, 0), family=family) as server:
            port = server.getsockname()[1]
            [(found, holder)] = holders([port, 1]).items()
            assert found == port
            assert holder.endswith(f" (process {os.getpid()})")
            assert "python" in holder
        assert holders([port]) == {}


def test_who_only_is_connected_there_does_not_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        port = client.getsockname()[1]
    with client:
        assert holders([port]) == {}


def test_a_process_that_ends_meanwhile_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    listed, scandir = list[str](), os.scandir

    def scan(path: Any) -> Any:
        listed.append(str(path))
        if listed[-1] == "/proc/1/fd":
            raise FileNotFoundError(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert holders([port])[port].endswith(f" (process {os.getpid()})")
    assert "/proc/1/fd" in listed
