"""What servers log and count of one another agrees: out of one server is in of its neighbours.

The servers are whole, as the daemon puts them together, in this process; their connections are pairs of lists.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cost import NO_ERRORS, SECRET, ServerOnRedis, Transport, invalid, report
from observed import Clock, figures, read

from proxyherd.config import herd_file, schema
from proxyherd.config.address import Address
from proxyherd.config.schema import Limits, Timing
from proxyherd.core.node import Node
from proxyherd.core.table import Table
from proxyherd.engines.herd.durability import Durability
from proxyherd.engines.herd.journal import Journal
from proxyherd.engines.herd.mark import Mark
from proxyherd.engines.herd.peers import PeerConnection
from proxyherd.engines.redis.layout import TAGS
from proxyherd.places import Answer, no_results
from proxyherd.server.clients.tcp import ClientConnection, line_connection
from proxyherd.server.credentials import read_credentials
from proxyherd.server.daemon import Paths, _Daemon
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

EDGES = [("Abe", "Ann"), ("Abe", "Bob"), ("Ann", "Bob"), ("Bob", "Cid")]
NAMES = ("Abe", "Ann", "Bob", "Cid")


class Wire(Transport):
    """One end of a connection between two servers: what is written arrives at the other in a later turn."""

    def __init__(self, connection: PeerConnection) -> None:
        super().__init__(1)
        self.connection = connection
        self.other: Wire
        self.ended = False
        self.write = self._write

    def _write(self, data: bytes) -> None:
        asyncio.get_running_loop().call_soon(self.other._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if not self.ended:
            self.connection.data_received(data)

    def is_closing(self) -> bool:
        return self.ended

    def abort(self) -> None:
        for end in (self, self.other):
            if not end.ended:
                end.ended = True
                asyncio.get_running_loop().call_soon(end.connection.connection_lost, None)

    close = abort


class Near:
    """Takes a quarter of a second for an answer, by the test's clock."""

    name = "gazetteer"
    in_flight = 0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def answer_at_once(self, _: object) -> None:
        pass

    async def nearby(self, *_: object) -> Answer:
        self._clock.now += 0.25
        return no_results("ZERO_RESULTS")


class Soon:
    """Lets what may wait do so for a moment."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def pass_on_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._backend.engine.pass_on, 0.0)

    def settle_later(self) -> None:
        asyncio.get_running_loop().call_soon(self._backend._settle)

    def send_spare_later(self) -> None:
        asyncio.get_running_loop().call_soon(self._backend.engine.send_spare, 0.0)

    def settled(self) -> None:
        pass


class Server:
    """One server of the herd, less its sockets and timers."""

    def __init__(self, folder: Path, name: str, clock: Clock) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._log = LogFile(self.log_file)
        herd = herd_file.load(folder / "herd.toml")
        paths = Paths(folder / name, self.log_file, folder / "secret", folder / "gazetteer")
        (folder / name).mkdir()
        credentials = read_credentials(herd, name, folder / "secret")
        self.daemon = _Daemon(herd, herd.server(name), credentials, paths, self._log)
        self._ports = count(1)
        loop = asyncio.get_running_loop()
        self._log.gather(loop.call_soon)
        places = loop.create_future()
        places.set_result(Near(clock))
        self.daemon._loop, self.daemon._places = loop, cast("Any", places)
        self.daemon._assemble()
        backend = cast("Any", self.daemon._backend)
        backend.engine._later = backend.engine._links._later = Soon(backend)

    @property
    def peers(self) -> Any:
        return cast("Any", self.daemon._backend).peers

    def client(self) -> tuple[ClientConnection, Transport]:
        connection, transport = line_connection(self.daemon._clients), Transport(next(self._ports))
        connection.connection_made(cast("asyncio.Transport", transport))
        return connection, transport

    def figures(self) -> dict[str, float]:
        self.daemon.refresh()
        return figures(self.daemon._observer.metrics)

    def events(self, event: str) -> list[dict[str, Any]]:
        return [
            one for one in map(json.loads, self.log_file.read_text().splitlines()) if one["event"] == event
        ]

    def close(self) -> None:
        self.daemon._clients._sweeper.cancel()
        self._log.close()


class Herd:
    """All servers, and the links between them."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        lines = [f"edges = {json.dumps(EDGES)}", "[servers]"]
        for number, name in enumerate(NAMES):
            ports = (
                f'{what} = "127.0.0.1:{number * 3 + at}"'
                for at, what in enumerate(("clients", "peers", "admin"), 1)
            )
            lines.append(f"{name} = {{ {', '.join(ports)} }}")
        (folder / "herd.toml").write_text("\n".join(lines))
        (folder / "secret").touch(0o600)
        (folder / "secret").write_bytes(SECRET)
        self.servers = {name: Server(folder, name, clock) for name in NAMES}

    async def link(self, dialler: str, listener: str) -> Wire:
        ends = [
            Wire(PeerConnection(self.servers[dialler].peers, listener)),
            Wire(PeerConnection(self.servers[listener].peers, None)),
        ]
        for end, other in zip(ends, ends[::-1], strict=True):
            end.other = other
        for end in ends:
            end.connection.connection_made(cast("asyncio.Transport", end))
        await quiet()
        return ends[0]


async def quiet() -> None:
    """Let the herd come to rest: every hop takes a few steps of the loop."""
    for _ in range(200):
        await asyncio.sleep(0)


Run = Callable[[Callable[[Herd], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=clock, time_ns=lambda: 1_700_000_000_000_000_000 + int(clock.now * 1e9))
    for module in ("driver", "places_queries", "daemon"):
        monkeypatch.setattr(f"proxyherd.server.{module}.time", fake)
    return clock


@pytest.fixture
def run(tmp_path: Path, clock: Clock) -> Run:
    def run_it(body: Callable[[Herd], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            herd = Herd(tmp_path, clock)
            await body(herd)
            for server in herd.servers.values():
                server.close()

        asyncio.run(whole())

    return run_it


def agree(herd: Herd) -> Counter[str]:
    """Check every pair of neighbours, the figures against the log; return the updates that each server heard."""
    heard = Counter[str]()
    found = {name: server.figures() for name, server in herd.servers.items()}

    def figure(server: str, name: str) -> float:
        return found[server].get(f"proxyherd_flood_{name}", 0.0)

    for one, other in [*EDGES, *(edge[::-1] for edge in EDGES)]:
        sent = figure(one, f"updates_total {other} out true")
        news, repeated = (figure(other, f"updates_total {one} in {news}") for news in ("true", "false"))
        assert sent == news + repeated, (one, other)
        assert figure(one, f"updates_total {other} out false") == 0
        logged = [event for event in herd.servers[one].events("flood_sent") if event["neighbour"] == other]
        assert sum(event["updates"] for event in logged) == sent
        assert len(logged) == figure(one, f"batches_total {other} out")
        received = [
            event for event in herd.servers[other].events("flood_received") if event["neighbour"] == one
        ]
        assert sum(event["updates"] for event in received) == sent
        assert sum(event["news"] for event in received) == news
        assert len(received) == figure(other, f"batches_total {one} in") <= len(logged)
        for end in (logged, received):
            assert all(len(event["clients"]) == event["updates"] for event in end)
        assert sorted(c for event in logged for c in event["clients"]) == sorted(
            c for event in received for c in event["clients"]
        )
        heard[other] += int(news)
    for name, server in herd.servers.items():
        commands = Counter((event["kind"], event["outcome"]) for event in server.events("command"))
        counted = {
            tuple(key.split(" ")[1:]): value
            for key, value in found[name].items()
            if key.startswith("proxyherd_commands_total ") and value
        }
        assert commands == counted
        batches = [event for event in server.events("flood_received") if event["news"]]
        assert found[name]["proxyherd_propagation_seconds_count"] == len(batches)
    return heard


def test_what_one_server_sends_its_neighbours_hear_and_the_log_says_so(run: Run) -> None:
    async def body(herd: Herd) -> None:
        for edge in EDGES:
            await herd.link(*edge)
        for moment in range(1, 4):
            for number, server in enumerate(herd.servers.values()):
                connection, transport = server.client()
                lines = [report(10 * number + client, moment) for client in range(5)]
                connection.data_received(b"".join(one + b"\n" for one in [*lines, lines[0], invalid(1)]))
                await quiet()
                answers = transport.take().splitlines()
                assert [answer[:3] for answer in answers] == [b"AT "] * 6 + [b"? W"]
        stored = 3 * 5 * len(NAMES)
        assert agree(herd) == Counter(dict.fromkeys(NAMES, stored * 3 // 4)), (
            "each server's reports are news to the others"
        )
        for server in herd.servers.values():
            found = server.figures()
            assert found["proxyherd_clients"] == 20
            assert found["proxyherd_commands_total iamat stored"] == 15
            assert found["proxyherd_commands_total iamat stale"] == 3
            assert found["proxyherd_commands_total other invalid"] == 3
            assert found["proxyherd_client_connections"] == 3
            assert {key: value for key, value in found.items() if key.startswith("proxyherd_links_up")} == {
                f"proxyherd_links_up {name}": 1
                for edge in EDGES
                if server.name in edge
                for name in edge
                if name != server.name
            }

    run(body)


def test_what_was_missed_is_mended_counted_once_and_is_no_flood(run: Run) -> None:
    async def body(herd: Herd) -> None:
        wire = [await herd.link(*edge) for edge in EDGES][-1]
        connection, _ = herd.servers["Abe"].client()
        wire.abort()
        await quiet()
        for name, neighbour in (("Bob", "Cid"), ("Cid", "Bob")):
            assert herd.servers[name].figures()[f"proxyherd_links_up {neighbour}"] == 0
            assert [event["neighbour"] for event in herd.servers[name].events("peer_closed")] == [neighbour]
        connection.data_received(b"".join(report(client, 1) + b"\n" for client in range(7)))
        await quiet()
        assert agree(herd) == {"Ann": 7, "Bob": 7, "Cid": 0, "Abe": 0}
        await herd.link("Bob", "Cid")
        assert agree(herd) == {"Ann": 7, "Bob": 7, "Cid": 0, "Abe": 0}
        (bob, cid) = herd.servers["Bob"], herd.servers["Cid"]
        for server, neighbour, missed in ((bob, "Cid", 0), (cid, "Bob", 7)):
            walks = [one for one in server.events("caught_up") if one["neighbour"] == neighbour]
            assert sum(one["lines"] for one in walks) == sum(one["news"] for one in walks) == missed
            found = server.figures()
            assert found[f"proxyherd_checks_total {neighbour}"] == len(walks)
            assert found[f"proxyherd_mended_entries {neighbour}"] == walks[-1]["news"]
        assert cid.figures()["proxyherd_clients"] == 7

    run(body)


def test_a_query_of_places_takes_the_seconds_that_it_takes(run: Run) -> None:
    async def body(herd: Herd) -> None:
        abe = herd.servers["Abe"]
        connection, _ = abe.client()
        cast("Any", abe.daemon._backend)._node.start(0.0)
        connection.data_received(report(1, 1) + b"\nWHATSAT client0001.example.com 10 5\n")
        await quiet()
        connection.data_received(b"WHATSAT client0001.example.com 0 5\n")  # nobody is asked
        await quiet()
        (event,) = abe.events("places")
        assert (event["provider"], event["status"], event["seconds"]) == ("gazetteer", "ZERO_RESULTS", 0.25)
        found = abe.figures()
        assert found["proxyherd_places_seconds_sum gazetteer ZERO_RESULTS"] == 0.25
        assert found["proxyherd_places_seconds_count gazetteer ZERO_RESULTS"] == 1
        assert found["proxyherd_commands_total whatsat answered"] == 2

    run(body)


def test_a_flood_of_blank_lines_is_told_in_one_line_by_a_later_tick(run: Run, clock: Clock) -> None:
    async def body(herd: Herd) -> None:
        abe = herd.servers["Abe"]
        daemon = abe.daemon
        commands = daemon._observer.commands
        commands._clock, daemon._expected = clock, clock.now
        commands._refilled = commands._told_left_out = clock.now
        connection, transport = abe.client()
        connection.data_received(b"\n" * 5_000 + report(1, 1) + b"\n")
        while transport.take().count(b"AT Abe") == 0:
            await quiet()
        for _ in range(2):
            daemon._look_at = 0.0  # time passes only on the other clock
            daemon._tick()
            daemon._ticker.cancel()
            clock.now += 10.0
            await quiet()
        (event,) = abe.events("commands_left_out")
        assert event["outcomes"] == {"other invalid": 4_000}
        assert event["addresses"] == {"127.0.0.1": 4_000}
        assert len(abe.events("command")) == 1_001
        found = abe.figures()
        assert found["proxyherd_commands_total other invalid"] == 5_000
        assert found["proxyherd_commands_total iamat stored"] == 1
        assert abe.log_file.stat().st_size < 300_000

    run(body)


def test_the_lag_of_the_loop_is_by_how_much_a_tick_came_late(
    run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(herd: Herd) -> None:
        daemon = herd.servers["Abe"].daemon
        daemon._expected = clock.now
        began = daemon._loop.time()
        with monkeypatch.context() as patch:
            patch.setattr(daemon._loop, "time", lambda: began)
            for late in (0.0, 0.5, 0.25, -0.1):
                daemon._tick()
                daemon._ticker.cancel()
                clock.now += daemon._ticker.when() - began + late
        daemon._tick()
        daemon._ticker.cancel()
        found = herd.servers["Abe"].figures()
        assert found["proxyherd_event_loop_lag_seconds_count"] == 5
        assert found["proxyherd_event_loop_lag_seconds_sum"] == pytest.approx(0.75)

    run(body)


def test_a_server_on_redis_tells_of_its_masters_and_of_what_waits(tmp_path: Path) -> None:
    async def body() -> None:
        server = ServerOnRedis(tmp_path)
        server.assemble()
        engine = cast("Any", server.daemon._backend).engine
        engine._library = NO_ERRORS
        engine.learn([Address("127.0.0.1", 10)] * (TAGS // 2) + [Address("127.0.0.1", 11)] * (TAGS // 2))
        await quiet()
        server.daemon.refresh()
        found = figures(server.daemon._observer.metrics)
        assert (found["proxyherd_masters"], found["proxyherd_masters_up"], found["proxyherd_waiting"]) == (
            2,
            2,
            0,
        )
        batches = found["proxyherd_batch_commands_count"]
        connection, transport = server.clients[0]
        connection.data_received(b"".join(report(1, moment) + b"\n" for moment in range(5)))
        waiting = []
        for _ in range(20):
            await asyncio.sleep(0)
            server.daemon.refresh()
            waiting.append(figures(server.daemon._observer.metrics)["proxyherd_waiting"])
        assert max(waiting) == 5
        await quiet()
        server.daemon.refresh()
        found = figures(server.daemon._observer.metrics)
        assert found["proxyherd_waiting"] == 0
        assert len(transport.take().splitlines()) == found["proxyherd_commands_total iamat stored"] == 5
        assert found["proxyherd_batch_commands_sum"] == 5
        assert found["proxyherd_batch_commands_count"] == found["proxyherd_batch_seconds_count"] > batches
        master = next(iter(engine.routes.masters))
        master.trouble = "late"
        server.daemon.refresh()
        found = figures(server.daemon._observer.metrics)
        assert (found["proxyherd_masters_up"], found["proxyherd_masters_full"]) == (1, 0)
        assert "take no reports" not in server.daemon.ready()[1]
        master.full = True
        server.daemon.refresh()
        assert figures(server.daemon._observer.metrics)["proxyherd_masters_full"] == 1
        assert "parts of the table take no reports" in server.daemon.ready()[1]
        await engine.close()
        server._log.close()

    asyncio.run(body())


def test_what_a_replay_finds_is_told_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "proxyherd.engines.herd.durability.time", SimpleNamespace(monotonic=Clock(), time_ns=lambda: 0)
    )
    folder = tmp_path / "journal"
    for client in ("kiwi", "fig"):  # two lives
        written = Journal(folder, line_bytes=8_448, rewrite_bytes=1 << 20)
        written.start()
        written.append(
            [b"AT Abe +0.100000000 %b%d +1+1 5" % (client.encode(), number) for number in range(3)]
        )
        written.close()
    damaged, torn = sorted(folder.glob("*.segment"))
    damaged.write_bytes(damaged.read_bytes().replace(b"kiwi1", b"kiwiX"))
    torn.write_bytes(torn.read_bytes()[:-4])
    file = LogFile(tmp_path / "log")
    log = make_logger(file, server="Bob", level="info", max_field_bytes=1024)
    node = Node("Bob", Table(bytes(32)), Limits(), Timing(), alone=True, now=0.0)
    journal = Journal(folder, line_bytes=8_448, rewrite_bytes=1 << 20)
    journal.start()
    durability = Durability(
        journal,
        Mark(tmp_path / "mark"),
        node,
        schema.DurabilitySettings(),
        Observer(log, file, Metrics(), []),
    )
    asyncio.run(durability.replay())
    journal.close()
    file.close()
    assert read(tmp_path / "log") == [
        {
            "level": "error",
            "event": "journal_damaged",
            "file": damaged.name,
            "records": 2,
            "damaged": 1,
            "remedy": f"kept as {damaged.name}.damaged; neighbours have what is missing. Delete it when you have looked at it: erased clients "
            "may be in it",
        },
        {
            "level": "warning",
            "event": "journal_torn",
            "file": torn.name,
            "records": 2,
            "cut_bytes": len(b"12345678 AT Abe +0.100000000 fig2 +1+1 5\n") - 4,
        },
        {"level": "info", "event": "replayed", "lines": 4, "clients": 4, "seconds": 0.0},
        {
            "level": "warning",
            "event": "journal_lacks",
            "reason": "the last life of this server has not left word that they are whole",
            "effect": "queries wait for the first catch-up",
        },
    ]


def test_how_the_server_stands_is_what_the_gauges_say(run: Run) -> None:
    async def body(herd: Herd) -> None:
        cid = herd.servers["Cid"]
        backend = cast("Any", cid.daemon._backend)
        assert cid.figures()["proxyherd_ready"] == 0
        backend._replayed = True
        backend._node.ready = True
        assert cid.figures()["proxyherd_ready"] == 1
        cast("Any", cid.daemon._places.result()).in_flight = 3
        assert cid.figures()["proxyherd_places_in_flight"] == 3
        connection, transport = cid.client()
        connection.data_received(report(1, 1) + b"\n")
        await quiet()
        (segment,) = (cid.log_file.parent / "Cid/journal").glob("*.segment")
        backend._durability._tell()
        found = cid.figures()
        assert found["proxyherd_journal_bytes_total"] == segment.stat().st_size > 0
        assert found["proxyherd_journal_failing"] == found["proxyherd_journal_failures_total"] == 0
        assert found["proxyherd_log_bytes_total"] == cid.log_file.stat().st_size
        assert (
            found["proxyherd_client_connections"] == found["proxyherd_client_connections_opened_total"] == 1
        )
        connection.connection_lost(None)
        await quiet()
        found = cid.figures()
        assert found["proxyherd_client_connections"] == 0
        assert found["proxyherd_client_connections_closed_total closed by client"] == 1
        assert transport.take().startswith(b"AT Cid ")

    run(body)
