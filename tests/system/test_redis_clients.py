"""The comparison of Redis client libraries: it runs, and it would see a library that mixes batches up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from debian import needs
from herd_process import ROOT
from redis_cluster import running_cluster

sys.path.insert(0, str(ROOT / "bench"))

import redis_clients

pytestmark = [needs("redis-server"), pytest.mark.xdist_group("redis")]


def test_it_prints_what_each_library_costs() -> None:
    command = [sys.executable, str(ROOT / "bench/redis_clients.py")]
    small = ["--rounds", "1", "--share", "0.01", "--only", "own Protocol"]
    printed = subprocess.run([*command, *small], stdout=subprocess.PIPE, text=True, check=True).stdout
    costs = [line for line in printed.splitlines() if line.startswith(("own", "(the master"))]
    assert len(costs) == 2 * 2
    assert printed.count("next batch right") == 2
    assert printed.count("next batches {'right': 1000}") == 1
    assert printed.endswith("own Protocol and hiredis, our bytes: the redirections\n")


class Forgetful(redis_clients.Replying):
    """Takes late replies for those of the next batch."""

    def send(self, batch: redis_clients.Batch) -> asyncio.Future[list[Any]]:
        self._awaited.clear()
        return super().send(batch)


def test_a_client_that_mixes_batches_up_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_clients, "Replying", Forgetful)
    with running_cluster(masters=1, replicas=1, node_timeout_ms=redis_clients.NODE_TIMEOUT_MS) as cluster:
        master = cluster.owner(0)
        said = asyncio.run(redis_clients.give_up(redis_clients.OwnProtocol(master.port), master.pid))
    assert "next batch WRONG" in said
