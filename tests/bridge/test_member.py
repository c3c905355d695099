"""The bridge's member of a herd, with the herd's own code, and without neighbours."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_redis import run

from proxyherd.bridge.member import Member
from proxyherd.config import herd_file
from proxyherd.config.secrets import Secrets
from proxyherd.core.messages import parse_at
from proxyherd.engines.redis import layout
from proxyherd.net.tls import Contexts
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

HERD = """
edges = [["Ann", "Bridge"]]
[servers.Ann]
clients = "127.0.0.1:1"
peers = "127.0.0.1:2"
admin = "127.0.0.1:3"
[servers.Bridge]
clients = "127.0.0.1:4"
peers = "127.0.0.1:5"
admin = "127.0.0.1:6"
"""
SECOND = 10**9
SALT = b"5" * layout.SALT_DIGITS


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[Observer]:
    file = LogFile(tmp_path / "log")
    yield Observer(
        make_logger(file, server="Bridge", level="info", max_field_bytes=1_024), file, Metrics(), []
    )
    file.close()


def test_who_is_erased_in_the_cluster_is_erased_in_the_herd_once_and_neighbours_hear_of_it(
    observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        herd = herd_file.parse(HERD, Path("herd.toml"))
        secrets = Secrets(bytes(32), (bytes(32),), bytes(32))
        member = Member(herd, herd.server("Bridge"), secrets, Contexts(), observer, lambda _: None)
        now = time.time_ns() // SECOND  # an erasure of long ago is not learned any more
        until = (now - 1) * SECOND
        clients = {b"kiwi": now - 2, b"plum": now - 2, b"fig": now}  # and when each was received
        ats = [parse_at(b"AT Ann +0.000000000 %b +1+1 %d" % one) for one in clients.items()]
        assert member.learn(at for at in ats if at is not None) == (3, [], 0)
        member.node.flood()
        erased = layout.SaltedTombstones()
        for client in (b"kiwi", b"fig"):
            tag = layout.tag_of(client)
            erased.add(tag, b" gone", SALT)
            erased.add(tag, b" gone " + layout.hash_of(SALT, client), b"%022d" % until)
        told: list[bytes] = []
        flood = member.node.flood

        def telling(*failed: object) -> None:
            told.extend(one.line for one in member.node.news)
            flood()

        monkeypatch.setattr(member.node, "flood", telling)
        for _ in range(2):
            await member.erase(erased)
            telling()
        table = member.node.table
        assert sorted(told) == sorted(table.tombstone(client, until).line for client in (b"kiwi", b"fig"))
        assert {client for client, _ in table} == {b"plum", b"fig"}
        assert (member.erased_until(b"kiwi"), member.erased_until(b"plum")) == (until, 0)

    run(body())
