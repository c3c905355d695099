"""Clients are erased by each way from a herd of real processes, and from one in front of Redis: all servers know it, nothing
brings them back, and who reports again is known again.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import earlier
import pytest
from click.testing import CliRunner, Result
from debian import needs
from herd_process import RunningHerd, ServerProcess, herd_of, listens, running_herd, wait_until
from redis_cluster import Cluster, running_cluster
from web_wire import WebWire, request

from proxyherd import cli
from proxyherd.config import secrets
from proxyherd.engines.redis import layout

DEFAULT = [
    *(("Bailey", "Campbell"), ("Bailey", "Bona"), ("Bona", "Clark"), ("Bona", "Campbell")),
    *(("Campbell", "Jaquez"), ("Clark", "Jaquez")),
]
"""The graph of the default herd."""

WEB = "[web]\n"
QUICK = "[erasure]\nrewrite_seconds = 0.2\n"


one_herd = pytest.mark.xdist_group("erasure")
"""So that one worker starts it for all."""


@pytest.fixture(scope="module")
def herd() -> Iterator[RunningHerd]:
    """The herd of five of those tests that leave it as it is; each calls its clients its own way."""
    with running_herd(DEFAULT, more=WEB + QUICK) as herd:
        for server in herd.values():
            server.wait_for_web()
        yield herd


def erase_over_web(server: ServerProcess, client: bytes, query: str = "", *, stays: bool = False) -> float:
    """Erase a client, or see that it stays; return up to which POSIX seconds it is erased."""
    with WebWire(server) as wire:
        wire.send(request("DELETE", f"/v1/clients/{client.decode()}{query}"))
        status, _, body = wire.answer()
    assert status == 202, body
    answer = json.loads(body)
    assert answer.get("stayed", False) == stays
    return float(answer["erased_at"])


def forget(herd: RunningHerd, *arguments: str | Path) -> Result:
    secret = herd.folder / "var/secret"
    options = ["--secret-file", secret] if secret.exists() else []
    result = CliRunner().invoke(
        cli.main, [*map(str, ("forget", *arguments, *options, "--config", herd.file))]
    )
    assert result.exit_code == 0, result.output
    return result


def is_forgotten(herd: RunningHerd, *clients: bytes) -> None:
    """Wait until no server knows any of these clients."""
    for server in herd.values():
        for client in clients:
            wait_until(lambda: server.knows(client) == b"", f"{server.name} has forgotten {client!r}")  # noqa: B023


def named(way: str, count: int = 1) -> list[bytes]:
    return [b"%b.%d" % (way.encode(), number) for number in range(count)]


def by_web(herd: RunningHerd, clients: list[bytes], _: Path) -> None:
    for server, client in zip(herd.values(), clients, strict=False):
        before = time.time()
        assert before - 1 < erase_over_web(server, client) < time.time() + 1


def by_name(herd: RunningHerd, clients: list[bytes], _: Path) -> None:
    assert forget(herd, *map(bytes.decode, clients)).stdout == f"{len(clients)} clients erased herd-wide\n"


def by_file(herd: RunningHerd, clients: list[bytes], folder: Path) -> None:
    (folder / "gone").write_bytes(b"\n".join(clients))
    forget(herd, "--file", folder / "gone", "--server", "Jaquez")


def by_prefix(herd: RunningHerd, clients: list[bytes], _: Path) -> None:
    prefix = clients[0].decode().partition(".")[0]
    forget(herd, "--prefix", f"{prefix}.", "--folder", herd["Clark"].state / "journal")


WAYS: dict[str, Callable[[RunningHerd, list[bytes], Path], None]] = {
    "web": by_web,
    "name": by_name,
    "file": by_file,
    "prefix": by_prefix,
}


@one_herd
@pytest.mark.parametrize("way", WAYS)
def test_who_is_erased_is_unknown_everywhere_and_known_again_when_it_reports_again(
    herd: RunningHerd, tmp_path: Path, way: str
) -> None:
    clients = named(way, 5)
    stays = herd["Bona"].hears(b"stays-" + way.encode())
    for server, client in zip(herd.values(), clients, strict=True):
        herd.wait_until_all_know(server.hears(client))
    WAYS[way](herd, clients, tmp_path)
    is_forgotten(herd, *clients)
    herd.wait_until_all_know(stays)
    for server, client in zip(reversed([*herd.values()]), clients, strict=True):
        herd.wait_until_all_know(server.hears(client))


@one_herd
def test_only_who_was_not_seen_since_a_date_is_erased(herd: RunningHerd) -> None:
    idle = herd["Clark"].hears(b"idle")
    herd.wait_until_all_know(idle)
    moment = time.time_ns()
    active = herd["Bailey"].hears(b"active")
    herd.wait_until_all_know(active)
    before = f"?before={moment // 10**9}.{moment % 10**9:09}"
    erase_over_web(herd["Jaquez"], b"active", before, stays=True)
    erase_over_web(herd["Jaquez"], b"idle", before)
    is_forgotten(herd, b"idle")
    herd.wait_until_all_know(active)


@one_herd
def test_an_erased_client_leaves_the_disk_and_the_page_and_stands_in_the_log_only_as_before(
    herd: RunningHerd,
) -> None:
    client, clark = b"secretive", herd["Clark"]
    state(clark)  # from now on somebody looks
    herd.wait_until_all_know(clark.hears(client))
    wait_until(lambda: b"secretive" in state(clark), "the page shows it")
    wait_until_logged(herd)
    lines = [len(names(server)) for server in herd.values()]
    erase_over_web(clark, client)
    is_forgotten(herd)
    wait_until(lambda: b"secretive" not in state(clark), "the page shows it no more")
    for server in herd.values():
        wait_until(lambda: not on_disk(server, client), f"the journal of {server.name} is written anew")  # noqa: B023
    assert [len(names(server)) for server in herd.values()] == lines, "the erasure is logged without the ID"
    assert len(clark.events("command", kind="forget", outcome="erased")) >= 1
    counts = [line.split()[1] for line in forget(herd, "--list").stdout.splitlines()[1:]]
    assert len(counts) == len(herd)
    assert len({*counts}) == 1
    assert int(counts[0]) > 0


def state(server: ServerProcess) -> bytes:
    return server.get("/state")[1].encode()


def names(server: ServerProcess) -> list[str]:
    """Return the log lines of commands and floods that name the client."""
    return [line for line in server.log_file.read_text().splitlines() if "secretive" in line]


def wait_until_logged(herd: RunningHerd) -> None:
    """Wait until the logs have all that names the client: the flood, the report, and that each server was asked once."""
    floods = sum(len(server.neighbours) for server in herd.values()) - (len(herd) - 1)
    expected = {"flood_sent": floods, "flood_received": floods, "command": 1 + len(herd)}

    def has_all() -> bool:
        lines = [line for server in herd.values() for line in names(server)]
        return all(sum(f'"{event}"' in line for line in lines) >= count for event, count in expected.items())

    wait_until(has_all, "what names the client is logged")


def on_disk(server: ServerProcess, client: bytes) -> bool:
    """Return whether a file of the journal has the client, as grep finds it."""
    found = False
    for file in (server.state / "journal").iterdir():
        with contextlib.suppress(FileNotFoundError):  # rewritten meanwhile
            found = found or client in file.read_bytes()
    return found


def test_a_restored_backup_brings_nobody_back() -> None:
    with running_herd([("Ann", "Bob")], more=WEB + QUICK) as herd:
        ann, bob = herd["Ann"], herd["Bob"]
        herd.wait_until_all_know(ann.hears(b"kiwi"))
        plum = ann.hears(b"plum")
        herd.wait_until_all_know(plum)
        backup = herd.folder / "backup"
        shutil.copytree(ann.state / "journal", backup)
        bob.wait_for_web()
        erase_over_web(bob, b"kiwi")
        is_forgotten(herd, b"kiwi")
        assert ann.stop() == 0
        shutil.rmtree(ann.state / "journal")
        shutil.copytree(backup, ann.state / "journal")
        ann.start()
        wait_until(lambda: listens(ann.client_port), "Ann listens")
        assert ann.knows(b"kiwi") == b"", "not even its first answer has it"
        herd.wait_until_whole()
        is_forgotten(herd, b"kiwi")
        herd.wait_until_all_know(plum)
        herd.wait_until_all_know(ann.hears(b"kiwi"))


def test_where_tokens_are_wanted_only_one_that_may_erase_does_and_who_has_the_key_makes_it() -> None:
    auth = '[auth]\nweb = "jwt"\nkeys = ["../var/token-key"]\n'
    with herd_of([], "Clark", more=WEB + auth) as herd:
        clark, sees = herd["Clark"], herd.folder / "sees"
        secrets.create(herd.folder / "var/token-key")
        herd.start()
        clark.wait_until_ready()
        clark.wait_for_web()
        arguments = ["token", "new", "--sub", "kiwi", "--may", "report,see", "--config", str(herd.file)]
        sees.write_text(CliRunner().invoke(cli.main, arguments).stdout)
        kiwi = clark.hears(b"kiwi")
        arguments = ["forget", "kiwi", "--token-file", str(sees), "--config", str(herd.file)]
        result = CliRunner().invoke(cli.main, arguments)
        assert result.exit_code == 1
        assert "you may not erase" in result.stderr
        assert clark.knows(b"kiwi") == kiwi
        forget(herd, "kiwi")
        assert clark.knows(b"kiwi") == b""


# In Redis. -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with running_cluster(masters=2, replicas=1) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def fronts(cluster: Cluster) -> Iterator[RunningHerd]:
    """Two servers in front of a cluster."""
    with herd_of([], "Ann", "Zoe", more=WEB, cluster=cluster) as fronts:
        fronts.start()
        for front in fronts.values():
            front.wait_until_ready()
            front.wait_for_web()
        yield fronts


@needs("redis-server")
@pytest.mark.xdist_group("redis-erasure")
@pytest.mark.parametrize("way", WAYS)
def test_from_redis_too_clients_are_erased_and_known_again_when_they_report_again(
    fronts: RunningHerd, tmp_path: Path, way: str
) -> None:
    clients = named(f"{way}-redis", 2)
    stays = fronts["Ann"].hears(b"stays-" + way.encode())
    for server, client in zip(fronts.values(), clients, strict=True):
        fronts.wait_until_all_know(server.hears(client))
    if way == "file":
        (tmp_path / "gone").write_bytes(b"\n".join(clients))
        forget(fronts, "--file", tmp_path / "gone", "--server", "Zoe")
    elif way == "prefix":
        forget(fronts, "--prefix", "prefix-redis.")
    else:
        WAYS[way](fronts, clients, tmp_path)
    is_forgotten(fronts, *clients)
    fronts.wait_until_all_know(stays)
    for server, client in zip(reversed([*fronts.values()]), clients, strict=True):
        fronts.wait_until_all_know(server.hears(client))


@needs("redis-server")
@pytest.mark.xdist_group("redis-erasure")
def test_a_report_that_was_received_before_an_erasure_is_not_stored_after_it(
    cluster: Cluster, fronts: RunningHerd
) -> None:
    """While a slot moves, nobody knows which tombstones there are: so reports wait, and queries are answered."""
    ann, zoe = fronts.values()
    client = b"mover"
    first = ann.hears(client)
    slot = layout.TAG_SLOTS[layout.tag_of(client)]
    source = cluster.owner(slot)
    (target,) = (one for one in cluster.masters() if one is not source)
    with ann.connect() as late:
        moving = cluster.moving_slot(slot, target)
        assert [next(moving), next(moving)] == ["importing", "migrating"]
        late.send(b"IAMAT %b +1+1 %d" % (client, time.time()))
        assert zoe.knows(client) in (first, b"")  # as long as it is where it was
        time.sleep(0.3)
        assert late.has_nothing_to_read()
        for _ in moving:
            pass
        assert late.line().startswith(b"AT Ann ")
    erase_over_web(zoe, client)
    is_forgotten(fronts, client)
    assert forget(fronts, "--list").stdout.endswith(" tombstones in the cluster\n")


@needs("redis-server")
@pytest.mark.xdist_group("redis-erasure")
def test_servers_in_front_of_redis_are_upgraded_one_by_one(cluster: Cluster, tmp_path: Path) -> None:
    """The old function stays beside the new one. What a server of version 1 has stored is read, and overtaken."""
    folder = tmp_path / "version 1"
    if not earlier.install(folder):
        pytest.skip(earlier.LACKING)
    for master in cluster.masters():
        code = (folder / "proxyherd/engines/redis/function.lua").read_bytes()
        assert master.client("FUNCTION", "LOAD", "REPLACE", code) == b"proxyherd_1"
    with herd_of([], "New", "Old", more=WEB, cluster=cluster) as herd:
        new, old = herd["New"], herd["Old"]
        ours, old.program = old.program, earlier.program(folder)
        herd.start()
        for server in herd.values():
            server.wait_until_ready()
        new.wait_for_web()
        herd.wait_until_all_know(old.hears(b"from-old"))
        herd.wait_until_all_know(new.hears(b"from-new"))
        assert old.ask(b"IAMAT locked-out +1+1 999999999999").startswith(b"AT Old -")
        assert new.knows(b"locked-out").startswith(b"AT Old -")
        wait_until(lambda: new.hears(b"locked-out") == new.knows(b"locked-out"), "it is free again")
        erase_over_web(new, b"from-old")
        is_forgotten(herd, b"from-old")
        herd.wait_until_all_know(old.hears(b"from-old"))
        assert old.stop() == 0
        old.program = ours
        old.start()
        old.wait_until_ready()
        assert old.knows(b"from-old") == new.knows(b"from-old") != b""
        assert old.knows(b"locked-out") == new.knows(b"locked-out")


SHORT = "[erasure]\nrewrite_seconds = 0.2\ntombstone_seconds = 4\n[timing]\ncompare_seconds = 1\n"


def test_a_server_that_was_suspended_until_nobody_remembers_an_erasure_brings_nobody_back() -> None:
    """A machine that sleeps: its table still has the client, and its clients and neighbours are there again at once."""
    with running_herd([("Bona", "Clark"), ("Bona", "Jaquez")], more=WEB + SHORT) as herd:
        bona, clark = herd["Bona"], herd["Clark"]
        bona.wait_for_web()
        herd.wait_until_all_know(bona.hears(b"victim"))
        stays = bona.hears(b"stays")
        herd.wait_until_all_know(stays)
        clark.freeze()
        bona.wait_until_not_linked("Clark")
        erased = erase_over_web(bona, b"victim")
        for server in (bona, herd["Jaquez"]):
            wait_until(lambda: server.metrics()["proxyherd_tombstones"] == 0, "it remembers nobody any more")  # noqa: B023
        assert time.time() > erased + 4
        clark.thaw()
        own = clark.hears(b"own")
        clark.wait_for_event("doubtful_dropped")
        herd.wait_until_all_know(own)
        assert [server.knows(b"stays") for server in herd.values()] == [stays] * 3
        is_forgotten(herd, b"victim")
        assert b"victim" not in journal_of(clark)
        assert not any(server.events("internal_error") for server in herd.values())


def journal_of(server: ServerProcess) -> bytes:
    """Return what its journal has."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # a rewrite has deleted a file since it was listed
            return b"".join(path.read_bytes() for path in sorted((server.state / "journal").iterdir()))
