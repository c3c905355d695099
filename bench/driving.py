"""What is done to a contender once a round, and what is measured of it.

Each function drives a contender, notes in `Sent` what it sent and returns figures, whose names are those of `UNITS` in
workloads. CPU is that of all servers until the last of them has nothing more to do: floods and late writing count.
"""

from __future__ import annotations

import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import takewhile
from typing import Final, Self, TypeAlias

from contender import Contender, Sent, read_at
from cpu import memory, settle
from graphs import farthest
from lineup import Proxyherd
from load import LIMIT, Generator, Job
from plan import Plan, Report
from wire import spell_iamat, spell_whatsat

Figures: TypeAlias = dict[str, float]
Run: TypeAlias = "Callable[[Contender, Sent, int, int], Figures]"
"""Takes the contender, where to note what was sent, the commands of a run and how many clients there are."""

_PAUSE_SECONDS: Final = 0.002
"""Between two updates that are followed through a herd."""

_QUESTION_PAUSE_SECONDS: Final = 0.0002
"""Between two questions for an update: they should not be most of a herd's work."""

_LOST_SECONDS: Final = 10.0
"""After which an update that is followed counts as lost."""

_MOST_WARM_COMMANDS: Final = 20_000
_WARM_COMMANDS: Final = 2_000
_WARM_CLIENTS: Final = 50
_CONNECTIONS: Final = 50

_LATE_MS: Final = 1.0
"""The hundredth of an open loop's commands may be sent so late."""

_LEAST_TELLING: Final = 5_000
"""Clients from which on the memory for each is more than what a process gives and takes anyway."""


def drive(
    contender: Contender,
    sent: Sent,
    commands: int,
    clients: int,
    *,
    connections: int = _CONNECTIONS,
    outstanding: int = 1,
    rate: float = 0.0,
    asks_every: int = 0,
    stride: int = 1,
    patience: float = 30.0,
    wire: str = "",
) -> Figures:
    """Send commands over connections, spread evenly over the servers; one a connection, and a client each, at least.

    `wire`: another spelling than the contender's own.
    """
    commands, clients = max(commands, connections), max(clients, connections)
    plan = Plan(
        commands=commands, connections=connections, clients=clients, asks_every=asks_every, stride=stride
    )
    job = _job(contender, plan)
    job.outstanding, job.rate, job.patience, job.wire = outstanding, rate, patience, wire or job.wire
    generator = Generator(job)
    before = settle(contender.pids)
    generator.start()
    generator.wait()
    used = settle(contender.pids).since(before)
    result = generator.result()
    sent.add(plan, result, list(contender.ports))
    figures = {
        "cpu_us": used.cpu / commands * 1e6,
        "per_second": result.per_second,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "server_busy": used.cpu / result.seconds,
        "server_wanted": sum(used) / result.seconds,
        "generator_busy": result.busy,
        "generator_wanted": result.wanted,
    }
    if contender.has_turns and result.turn:
        figures["turn"] = result.turn
    return figures | ({"late_p99_ms": result.late_p99_ms} if rate else {})


def warm(contender: Contender, sent: Sent, commands: int, clients: int) -> Figures:
    """Let happen what happens once, more quickly than commands come by themselves: compilers warm up, tables fill."""
    drive(contender, sent, min(16 * commands, _MOST_WARM_COMMANDS), clients, outstanding=32)
    return {}


def give_places(contender: Contender, sent: Sent, commands: int, clients: int) -> Figures:
    """Let there be clients to ask about, and places near them."""
    assert isinstance(contender, Proxyherd)
    contender.build_gazetteer()
    return warm(contender, sent, commands, clients)


def _job(contender: Contender, plan: Plan) -> Job:
    return Job(plan=plan, ports=list(contender.targets.values()), wire=contender.wire)


def limit(figures: Figures, servers: int) -> str:
    """Return what kept a load from being as it should, by the medians of its figures.

    Of an open loop: `sent late`, where the machine kept the generator from sending when commands were due: they came in
    bursts, which cost less. Of a closed loop what kept it from being faster: `generator` or `server`: it, or each of them,
    had something to do all the time. `machine`: likewise, but more than half of the time others had the core that it wanted,
    or no core was left. `none`: server and generator waited for each other, as they do when both work in batches.
    """
    if "late_p99_ms" in figures:
        return "sent late" if figures["late_p99_ms"] > _LATE_MS else ""
    for name, processes in (("generator", 1), ("server", servers)):
        if figures[f"{name}_wanted"] > LIMIT * processes:
            return name if 2 * figures[f"{name}_busy"] > figures[f"{name}_wanted"] else "machine"
    cores = os.cpu_count() or 1
    return "machine" if figures["server_busy"] + figures["generator_busy"] > LIMIT * cores else "none"


# Memory. -----------------------------------------------------------------------------------------------------


def _warm(contender: Contender, sent: Sent) -> int:
    """Let happen what happens once; return the bytes in use then."""
    drive(contender, sent, _WARM_COMMANDS, _WARM_CLIENTS, outstanding=32)
    return memory(contender.pids)


def hold(contender: Contender, sent: Sent, _: int, clients: int, *, connections: int) -> Figures:
    """Open connections that say nothing, then let each say one thing: bytes of the server's memory for each.

    What the system's kernel keeps for a connection is not in it.
    """
    before = _warm(contender, sent)
    plan = Plan(commands=connections, connections=connections, clients=max(clients, connections))
    generator = Generator(_job(contender, plan))
    settle(contender.pids)
    idle = memory(contender.pids)
    generator.start()
    generator.wait()
    settle(contender.pids)
    used = memory(contender.pids)
    sent.add(plan, generator.result(), list(contender.ports))
    return {"idle_bytes": (idle - before) / connections, "used_bytes": (used - before) / connections}


def fill(contender: Contender, sent: Sent, _: int, __: int, *, clients: int) -> Figures:
    """Let so many clients report once: bytes of memory for each, and all that the server then uses."""
    before = _warm(contender, sent)
    drive(contender, sent, clients, clients, outstanding=32)
    after = memory(contender.pids)
    figures = {"rss_mib": after / 2**20}
    return figures | ({"client_bytes": (after - before) / clients} if clients >= _LEAST_TELLING else {})


def update_filled(contender: Contender, sent: Sent, commands: int, _: int, *, clients: int) -> Figures:
    """Let clients out of so many report again, in an order that is not the one they came in."""
    return drive(contender, sent, commands, clients, outstanding=32, stride=7_919)


# Propagation. ------------------------------------------------------------------------------------------------


def propagate(contender: Contender, sent: Sent, commands: int, clients: int, *, rate: float) -> Figures:
    """Follow updates one by one through a herd that takes so many others a second."""
    plan = Plan(commands=commands, connections=_CONNECTIONS, clients=max(clients, _CONNECTIONS))
    job = _job(contender, plan)
    job.rate = rate
    generator = Generator(job)
    settle(contender.pids)
    followed = Plan(commands=100_000, connections=1, clients=1_000, word="follow").made(0)
    generator.start()
    end = time.monotonic() + commands / rate
    figures = _follow(contender, sent, takewhile(lambda _: time.monotonic() < end, followed))
    generator.wait()
    settle(contender.pids)
    result = generator.result()
    sent.add(plan, result, list(contender.ports))
    return figures | {"per_second": result.per_second, "late_p99_ms": result.late_p99_ms}


def _follow(contender: Contender, sent: Sent, reports: Iterator[Report]) -> Figures:
    """Measure from a client's answer at one server until the farthest one tells of it.

    The farthest is asked over and over on one connection, so a figure is too long by up to the time of one
    question, which is told beside it, and the pause after it.
    """
    first, last, _ = farthest(contender.edges)
    seconds: list[float] = []
    questions: list[float] = []
    with ExitStack() as stack:
        here, there = (stack.enter_context(_Asker(contender.ports[name])) for name in (first, last))
        for report in reports:
            answer = here.ask(spell_iamat(report))
            answered = time.perf_counter()
            question = spell_whatsat(report)
            while there.ask(question) != answer:
                if time.perf_counter() - answered > _LOST_SECONDS:
                    sent.faults.append(f"{last} did not hear of {answer!r} within {_LOST_SECONDS:g} s")
                    break
                time.sleep(_QUESTION_PAUSE_SECONDS)
            seconds.append(time.perf_counter() - answered)
            sent.report(first, report)
            began = time.perf_counter()
            there.ask(question)
            questions.append(time.perf_counter() - began)
            time.sleep(_PAUSE_SECONDS)
    return {
        "p50_ms": statistics.median(seconds) * 1e3,
        "p99_ms": statistics.quantiles(seconds, n=100, method="inclusive")[98] * 1e3,
        "question_ms": statistics.median(questions) * 1e3,
    }


class _Asker:
    """A client that waits for each answer."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self._socket.makefile("rb")

    def ask(self, command: bytes) -> bytes:
        """Return the AT line of the answer, without LF."""
        self._socket.sendall(command)
        if command.startswith(b"IAMAT "):
            return self._answers.readline().removesuffix(b"\n")
        return read_at(self._answers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answers.close()
        self._socket.close()
