"""What contenders are compared by. A workload is a herd, something of `driving` done to it each round, and who does it.

Those with a `curve` are points of it, drawn over `at`. To add one, name it in WORKLOADS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from contender import Contender
from driving import Run, drive, fill, give_places, hold, propagate, update_filled, warm
from graphs import FIVE, GRAPHS, Edges
from lineup import Proxyherd, ProxyherdBatch, ProxyherdPut, ProxyherdWebSocket
from wire import WIRES

UNITS: Final = {
    "cpu_us": "CPU µs/command",
    "per_second": "commands/s",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "idle_bytes": "bytes/idle connection",
    "used_bytes": "bytes/used connection",
    "client_bytes": "bytes/client",
    "rss_mib": "memory MiB",
    "generator_busy": "generator cores",
    "late_p99_ms": "sent late, p99 ms",
    "question_ms": "one question, p50 ms",
    "turn": "commands a turn",
}
"""The figures that a table shows, as its columns' heads."""

COMMANDS: Final = 30_000
"""Of a run where none are asked for, times the workload's share."""

OPEN_CONNECTIONS: Final = 500
"""Of an open loop: enough that hardly any has two commands under way."""

_OPEN_SECONDS: Final = 2.5
"""Of a round."""

CONNECTIONS: Final = (100, 1_000, 10_000)
CLIENTS: Final = (1_000, 10_000, 100_000, 1_000_000)
SERVERS: Final = (2, 3, 5, 8, 12, 20, 30)

SINGLE: Final = (
    *("proxyherd", "twisted-equal", "twisted-bare", "node-equal", "node-bare"),
    *("streams-equal-uvloop", "redis", "echo"),
)
_SPOKEN: Final = {"ring": "a ring", "random": "a random graph"}

QUESTIONED: Final = ("proxyherd", "proxyherd-redis", *SINGLE[1:])
HERDS: Final = ("proxyherd", "twisted", "twisted-equal", "node", "node-equal", "streams-equal-uvloop")
EQUALS: Final = ("proxyherd", "twisted-equal", "node-equal")
FEW: Final = ("proxyherd", "twisted-equal", "node-equal", "redis")


def _bare(twisted: float, node: float) -> dict[str, float]:
    return {"twisted-bare": twisted, "node-bare": node}


def _equal(twisted: float, node: float) -> dict[str, float]:
    return {"twisted-equal": twisted, "node-equal": node}


@dataclass(frozen=True)
class Workload:
    """`share`: of the commands asked for, how many are sent; `main`: the figure by which contenders are set in ratio."""

    title: str
    run: Run
    edges: Edges = ()
    share: float = 1.0
    main: str = "cpu_us"
    prepare: Run | None = None
    """What is done once before, `run` where nothing else is needed: tables fill, compilers warm up. Figures that only
    this has are kept."""
    usual: tuple[str, ...] = ()
    """Who is measured unless others are asked for; empty: all."""
    rivals: Mapping[str, float] = field(default_factory=dict)
    """Who ours is set against in the table at the end, and the most that ours is to be as a multiple of each, 0 where nothing
    is asked."""
    ours: str = Proxyherd.name
    """Which of ours it is about."""
    also: tuple[str, ...] = ()
    """What it is judged by, besides `main`."""
    rounds: int = 3
    """As many at most."""
    curve: str = ""
    at: int = 0
    ours_alone: bool = False
    """Whether only ours can do it."""

    @property
    def judged(self) -> tuple[str, ...]:
        """The figures that the table at the end has."""
        return (self.main, *self.also)

    @property
    def narrow(self) -> tuple[str, ...]:
        """Who is measured where this workload alone is asked for."""
        return (self.ours, *self.rivals) if self.rivals else self.usual

    def fits(self, contender: type[Contender]) -> bool:
        """Return whether a contender can be asked to do this."""
        if self.ours != Proxyherd.name:
            return contender.name in self.narrow
        if WIRES[contender.wire].carrier is not None:
            return False
        return (contender.is_herd or not self.edges) and (
            not self.ours_alone or issubclass(contender, Proxyherd)
        )


_ONE_OPEN: Final = {500: (0, 0), 1_000: (0.6, 0.7), 2_000: (0, 0), 5_000: (0.7, 0.75), 20_000: (0, 0)}
_FIVE_OPEN: Final = {500: (0.75, 0.9), 2_000: (0.65, 0.75), 5_000: (0, 0), 20_000: (0, 0)}
"""By reports a second: the most that ours is to be as a multiple of Twisted and of Node.js."""


def _open(rate: int, servers: str, goals: tuple[float, float]) -> Workload:
    plural = "" if servers == "one" else "s, CPU of all of them"
    return Workload(
        f"IAMAT at random times, {rate:,} a second on average, {OPEN_CONNECTIONS} connections, {servers} server{plural}",
        partial(drive, rate=rate, connections=OPEN_CONNECTIONS),
        edges=() if servers == "one" else FIVE,
        share=rate * _OPEN_SECONDS / COMMANDS,
        prepare=warm,
        usual=EQUALS,
        rivals=_equal(*goals),
        curve=f"{servers} open",
        at=rate,
    )


def _web(what: str, ours: type[Proxyherd], outstanding: int, goals: Mapping[str, float]) -> Workload:
    """Return a workload in which reports come over the web to ours, and to its rivals as they take them."""
    return Workload(
        f"{what}, 50 connections, {outstanding} outstanding, one server",
        partial(drive, outstanding=outstanding),
        ours=ours.name,
        usual=(ours.name, *goals),
        rivals=goals,
        rounds=5,
    )


WORKLOADS: Final = {
    "one 50x1": Workload(
        "IAMAT, 50 connections, 1 outstanding, one server", drive, rounds=5, rivals=_bare(0.4, 0.6)
    ),
    "one 50x32": Workload(
        "IAMAT, 50 connections, 32 outstanding, one server",
        partial(drive, outstanding=32),
        rounds=5,
        rivals=_bare(0.75, 0.7),
    ),
    "whatsat 50x32": Workload(
        "WHATSAT without places, 50 connections, 32 outstanding, one server",
        partial(drive, outstanding=32, asks_every=1),
        prepare=partial(drive, outstanding=32),
        usual=QUESTIONED,
        rivals=_equal(0.75, 1.0),
    ),
    "mixed 50x32": Workload(
        "9 IAMAT to a WHATSAT, 50 connections, 32 outstanding, one server",
        partial(drive, outstanding=32, asks_every=10),
        usual=QUESTIONED,
    ),
    "invalid 50x32": Workload(
        "lines that are no command, 50 connections, 32 outstanding, one server",
        partial(drive, outstanding=32, asks_every=1, wire="invalid"),
        usual=EQUALS,
        rivals=_equal(0.75, 1.0),
    ),
    "gazetteer 10 km": Workload(
        "WHATSAT 10 km, 5 places of the gazetteer, 50 connections, 1 outstanding, one server",
        partial(drive, asks_every=1, wire="places"),
        prepare=give_places,
        share=0.1,
        usual=(Proxyherd.name,),
        ours_alone=True,
    ),
    "five 10x1": Workload(
        "IAMAT, 10 connections, 1 outstanding, over five servers, CPU of all of them",
        partial(drive, connections=10),
        edges=FIVE,
        share=0.1,
        usual=HERDS,
        rivals=_equal(0.45, 0.6),
    ),
    "five 50x32": Workload(
        "IAMAT, 50 connections, 32 outstanding, over five servers, CPU of all of them",
        partial(drive, outstanding=32),
        edges=FIVE,
        share=0.15,
        usual=HERDS,
        rivals=_equal(0.22, 0.35),
    ),
    "propagation 2000": Workload(
        "an update through five servers that take 2,000 others a second: from its answer until the farthest server "
        "tells of it",
        partial(propagate, rate=2_000),
        edges=FIVE,
        share=0.3,
        main="p50_ms",
        prepare=warm,
        also=("p99_ms",),
        usual=HERDS,
        rivals={"node-equal": 1.0},
    ),
    "websocket 50x1": _web("IAMAT over WebSockets", ProxyherdWebSocket, 1, {"proxyherd": 1.5}),
    "websocket 50x32": _web("IAMAT over WebSockets", ProxyherdWebSocket, 32, {"proxyherd": 1.5}),
    "put 50x1": _web("PUT of a report", ProxyherdPut, 1, {"proxyherd": 5.0, "aiohttp": 1.0}),
    "batch 50x100": _web("reports in batches of 100", ProxyherdBatch, 100, {"proxyherd": 2.0}),
    **{f"one open {rate}": _open(rate, "one", goals) for rate, goals in _ONE_OPEN.items()},
    **{f"five open {rate}": _open(rate, "five", goals) for rate, goals in _FIVE_OPEN.items()},
    **{
        f"connections {connections}": Workload(
            f"IAMAT, {connections:,} connections, 1 outstanding, one server",
            partial(drive, connections=connections),
            prepare=partial(hold, connections=connections) if connections >= 1_000 else None,
            usual=(*FEW, "echo"),
            share=0.75,
            curve="connections",
            at=connections,
        )
        for connections in CONNECTIONS
    },
    **{
        f"clients {clients}": Workload(
            f"IAMAT of {clients:,} clients, 50 connections, 32 outstanding, one server",
            partial(update_filled, clients=clients),
            prepare=partial(fill, clients=clients),
            usual=FEW,
            share=1.25,
            rounds=2 if clients > 100_000 else 3,
            curve="clients",
            at=clients,
        )
        for clients in CLIENTS
    },
    **{
        f"{graph} {servers}": Workload(
            f"IAMAT, 50 connections, 1 outstanding, over {servers} servers in {_SPOKEN[graph]}, CPU of all of them",
            drive,
            edges=edges(servers),
            usual=("proxyherd", "node-equal"),
            share=0.2 if servers < 8 else 0.075,
            rounds=2,
            curve=graph,
            at=servers,
        )
        for graph, edges in GRAPHS.items()
        for servers in SERVERS
    },
}
"""By the name they are asked for with."""

QUICK: Final = (
    *("one 50x1", "one 50x32", "one open 500", "invalid 50x32", "gazetteer 10 km"),
    *("five 10x1", "five open 500", "propagation 2000"),
    *("connections 100", "connections 1000", "clients 1000", "clients 10000"),
    *(f"{graph} {servers}" for graph in GRAPHS for servers in (2, 5)),
)
"""Those that run to see whether all works, with FEW contenders."""
