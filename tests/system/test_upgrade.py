"""Servers of this program and of the last one that spoke only version 1 of the peer protocol, in one herd: before a client
is erased, after that, and on the way back. tests/system/test_operations.py upgrades a herd under load.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import earlier
import pytest
import warm_start
from click.testing import CliRunner
from herd_process import RunningHerd, ServerProcess, herd_of, wait_until

from proxyherd import cli

QUICK = "[erasure]\nrewrite_seconds = 0.2\n"
"""What the earlier program does not understand."""

SOON = "[durability]\nrewrite_bytes = 4096\n[timing]\nheartbeat_seconds = 0.5\nbackoff_seconds = 0.1\nready_seconds = 0.1\n[web]\n"
TOO_OLD = "speaks version 1 of the peer protocol"


class MixedHerd:
    """A herd whose servers run this program or the earlier one, each with the herd's file that it understands."""

    def __init__(self, herd: RunningHerd, folder: Path) -> None:
        self.herd = herd
        self._earlier = earlier.program(folder)
        self._file = herd.file.with_name("earlier.toml")
        self._file.write_text(herd.file.read_text().replace(QUICK, ""))

    def start(self, name: str, *, early: bool) -> ServerProcess:
        """Start a server with one of the programs; a running one is stopped before."""
        server = self.herd[name]
        if server.process is not None and server.process.poll() is None:
            assert server.stop() == 0
        server.program = self._earlier if early else warm_start.PROGRAM
        server.options = ["--config", str(self._file)] if early else []
        server.start()
        return server


@pytest.fixture
def mixed(tmp_path: Path) -> Iterator[MixedHerd]:
    if not earlier.install(tmp_path / "earlier"):
        pytest.skip(earlier.LACKING)
    with herd_of([("Ann", "Bob"), ("Bob", "Cid")], more=SOON + QUICK) as herd:
        yield MixedHerd(herd, tmp_path / "earlier")


def erase(herd: RunningHerd, server: ServerProcess, client: bytes) -> None:
    server.wait_for_web()
    words = ("forget", client.decode(), "--server", server.name, "--config", herd.file)
    result = CliRunner().invoke(cli.main, [*map(str, words)])
    assert result.exit_code == 0, result.output


def wait_until_forgotten(client: bytes, *servers: ServerProcess) -> None:
    for server in servers:
        wait_until(lambda: server.knows(client) == b"", f"{server.name} has forgotten {client!r}")  # noqa: B023


def test_versions_work_together_until_a_client_is_erased_and_whom_the_upgraded_herd_erased_the_old_server_forgets(
    mixed: MixedHerd,
) -> None:
    herd = mixed.herd
    ann, bob, cid = (mixed.start(name, early=name == "Ann") for name in ("Ann", "Bob", "Cid"))
    herd.wait_until_whole()
    herd.wait_until_all_know(ann.hears(b"kiwi"))
    herd.wait_until_all_know(cid.hears(b"mango"))

    erase(herd, cid, b"kiwi")
    bob.wait_for_reason("peer_closed", f"{TOO_OLD}.*upgrade it")
    ann.wait_for_reason("peer_unreachable", f"refused by the other: Ann {TOO_OLD}.*upgrade it")
    wait_until_forgotten(b"kiwi", bob, cid)
    plum = ann.hears(b"plum")  # it serves on, alone
    assert ann.knows(b"kiwi")

    mixed.start("Ann", early=False)
    herd.wait_until_whole()
    wait_until_forgotten(b"kiwi", ann)
    herd.wait_until_all_know(plum)
    herd.wait_until_all_know(ann.hears(b"kiwi"))
    assert not [one for server in herd.values() for one in server.log() if one["level"] == "error"]


def test_on_the_way_back_who_was_erased_stays_away_once_the_journals_have_been_rewritten(
    mixed: MixedHerd,
) -> None:
    """Tombstones are lost on that way: they would not keep out what a backup brings."""
    herd = mixed.herd
    servers = [mixed.start(name, early=False) for name in herd]
    herd.wait_until_whole()
    stays = servers[0].hears(b"plum")
    herd.wait_until_all_know(stays)
    herd.wait_until_all_know(servers[0].hears(b"kiwi"))
    erase(herd, servers[2], b"kiwi")
    wait_until_forgotten(b"kiwi", *servers)
    for number in range(100):  # more than rewrite_bytes
        servers[0].hears(b"client-%d" % number)
    for server in servers:
        wait_until(lambda: not journal_has(server, b"kiwi"), f"{server.name} has rewritten its journal")  # noqa: B023
    again = servers[2].hears(b"kiwi")
    herd.wait_until_all_know(again)

    mixed.start("Ann", early=True)
    herd["Bob"].wait_for_reason("peer_refused", TOO_OLD)
    for name in ("Bob", "Cid"):
        mixed.start(name, early=True)
    herd.wait_until_whole()
    herd.wait_until_all_know(stays)
    herd.wait_until_all_know(again)


def journal_has(server: ServerProcess, text: bytes) -> bool:
    return any(text in file.read_bytes() for file in (server.state / "journal").iterdir())
