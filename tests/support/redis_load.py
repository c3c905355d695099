"""Clients of front servers whose table is in a Redis Cluster: a steady load while nodes are killed, and what it proves.

    with running_cluster() as cluster, running_fronts(cluster, "Ann", "Bob") as herd, RedisLoad([*herd.values()]) as load:
        cluster.masters()[0].kill()
        load.check()

The cluster's slots are seen as three equal parts, which are its three masters' at the start. A connection has clients
of one part only, so that a part which waits holds up nobody else. The rule: each client's times rise, and whatever it
was answered is kept; it must be found ever after, or what it sent later.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count, islice
from types import TracebackType
from typing import Final, NamedTuple, Self

from herd_process import RunningHerd, ServerProcess, herd_of, now, wait_until
from redis_cluster import SLOTS, Cluster

from proxyherd.core.messages import parse_at
from proxyherd.engines.redis.layout import TAG_SLOTS, tag_of

PARTS: Final = 3
BUSY_SLOTS: Final = TAG_SLOTS[::28]
"""Where the load's clients are: few, so that calls carry several clients, and slots that are moved are in use."""

DEADLINE_SECONDS: Final = 5.0
"""How long servers let a command wait for a master, unless their file says otherwise."""

HANG_SECONDS: Final = 4.0
"""Past the deadline: for the batch that may be in flight then, and for a busy machine."""

_PAUSE_SECONDS: Final = 0.02
"""Between an answer and the next command on a connection."""


def part_of(client: bytes) -> int:
    return TAG_SLOTS[tag_of(client)] * PARTS // SLOTS


def clients_of(part: int, number: int, prefix: bytes = b"client") -> list[bytes]:
    """Return so many client IDs of a part, in its busy slots."""
    spelled = (b"%b-%d" % (prefix, at) for at in count())
    ours = (
        client for client in spelled if part_of(client) == part and TAG_SLOTS[tag_of(client)] in BUSY_SLOTS
    )
    return list(islice(ours, number))


# Servers. ----------------------------------------------------------------------------------------------------


def write_herd_file(herd: RunningHerd, nodes: Sequence[str], *more: str) -> None:
    """Let servers have their table in a cluster; `more` are lines of [redis]."""
    lines = ["[servers]"]
    lines += [
        f'{one.name} = {{ clients = "127.0.0.1:{one.client_port}", admin = "127.0.0.1:{one.admin_port}" }}'
        for one in herd.values()
    ]
    lines += ["[table]", 'engine = "redis"', "[redis]", f"nodes = {json.dumps([*nodes])}", *more]
    herd.file.write_text("\n".join(lines) + "\n")


@contextlib.contextmanager
def prepared_fronts(nodes: Sequence[str], *names: str, more: Sequence[str] = ()) -> Iterator[RunningHerd]:
    """Prepare servers in front of a cluster, not started."""
    with herd_of([], *names) as herd:
        write_herd_file(herd, nodes, *more)
        yield herd


@contextlib.contextmanager
def running_fronts(cluster: Cluster, *names: str, more: Sequence[str] = ()) -> Iterator[RunningHerd]:
    """Run servers in front of a cluster; they are ready when the body begins."""
    with prepared_fronts(cluster.addresses, *names, more=more) as herd:
        herd.start()
        for server in herd.values():
            server.wait_until_ready()
        yield herd


# The load. ---------------------------------------------------------------------------------------------------


class Pause(NamedTuple):
    """The longest time without an answer: to anybody in a part, and to one who had asked."""

    part: float
    client: float


class RedisLoad:
    """Clients that report and ask, on an event loop in a thread of its own, while a block runs."""

    def __init__(
        self, servers: Sequence[ServerProcess], *, connections: int = 4, clients_each: int = 4, seed: int = 0
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.faults: list[str] = []
        """What no server may do: answers that are wrong, or neither an answer nor an end."""
        self.answered: dict[bytes, bytes] = {}
        """Of each client, the AT line of its latest answered report, without LF."""
        self._sent: dict[bytes, set[bytes]] = {}  # operands of each client's reports
        self._servers = servers
        self._seed = seed
        self._answers: list[list[tuple[float, float]]] = [
            [] for _ in range(PARTS)
        ]  # when asked, and answered
        self._unanswered: list[dict[int, float]] = [
            {} for _ in range(PARTS)
        ]  # when each connection has asked
        self._workers = []
        for part in range(PARTS):
            ours = clients_of(part, connections * clients_each)
            self._workers += [
                (part, at, ours[at * clients_each : (at + 1) * clients_each]) for at in range(connections)
            ]
        self._ends = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._drive()))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        """End it, and let it be judged, unless the block has failed."""
        self._ends.set()
        self._thread.join()
        if kind is None:
            assert self.faults == [], self.faults[:3]

    async def _drive(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for part, at, clients in self._workers:
                tasks.create_task(self._work(part, at, clients))

    async def _work(self, part: int, at: int, clients: list[bytes]) -> None:
        rng = random.Random(f"{self._seed} {part} {at}")
        while not self._ends.is_set():
            try:
                await self._visit(rng.choice(self._servers), part, at, clients, rng)
            except (OSError, EOFError):
                self.counts["ended"] += 1
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _visit(
        self, server: ServerProcess, part: int, at: int, clients: list[bytes], rng: random.Random
    ) -> None:
        """Report and ask on a connection until it ends; a server that ends it owes nothing."""
        reader, writer = await asyncio.open_connection("127.0.0.1", server.client_port)
        try:
            for _ in range(rng.randrange(20, 200)):  # then let it be another server
                if self._ends.is_set():
                    return
                began = time.monotonic()
                self._unanswered[part].setdefault(at, began)
                await self._exchange(server, reader, writer, rng.choice(clients), rng)
                self._answers[part].append((self._unanswered[part].pop(at), time.monotonic()))
                await asyncio.sleep(rng.uniform(0.5, 1.5) * _PAUSE_SECONDS)
        except TimeoutError:
            self.faults.append(f"{server.name} neither answers nor closes")
        finally:
            writer.transport.abort()

    async def _exchange(
        self,
        server: ServerProcess,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        client: bytes,
        rng: random.Random,
    ) -> None:
        """Let a client report; mostly it asks at once what is known of it, and now and then right before too."""
        operands = b"%b %+.6f%+.6f %b" % (client, rng.uniform(-90, 90), rng.uniform(-180, 180), now())
        self._sent.setdefault(client, set()).add(operands)
        before, behind = rng.random() < 0.2, rng.random() < 0.6
        question = b"WHATSAT %b 0 0\n" % client
        writer.write(before * question + b"IAMAT %b\n" % operands + behind * question)
        async with asyncio.timeout(DEADLINE_SECONDS + HANG_SECONDS):
            if before:
                known = await self._known(reader)
                if client in self.answered and not self._is_as_good(client, self.answered[client], known):
                    self.faults.append(f"{server.name} knows {known!r}, after {self.answered[client]!r}")
            line = (await reader.readuntil(b"\n"))[:-1]
            self._take(server, operands, line)
            if behind and (known := await self._known(reader)) != line:
                self.faults.append(f"{server.name} answered {line!r}, and right behind it {known!r}")

    async def _known(self, reader: asyncio.StreamReader) -> bytes:
        """Read the answer to a question; return its first line."""
        line = (await reader.readuntil(b"\n"))[:-1]
        if line.startswith(b"AT "):
            await reader.readuntil(b"\n\n")
        self.counts["queries"] += 1
        return line

    def _take(self, server: ServerProcess, operands: bytes, line: bytes) -> None:
        if not (line.startswith(b"AT %b " % server.name.encode()) and line.endswith(b" " + operands)):
            self.faults.append(f"{server.name} answered {operands!r} with {line!r}")
            return
        self.counts["reports"] += 1
        self.answered[operands.split(b" ", 1)[0]] = line

    # What it proves. -----------------------------------------------------------------------------------------

    def pause(self, part: int, since: float) -> Pause:
        """Return the longest times without an answer since then, those too that have not ended."""
        end = time.monotonic()
        asked = [*self._answers[part], *((began, end) for began in [*self._unanswered[part].values()])]
        answers = sorted(answered for _, answered in asked if answered >= since)
        gaps = [after - before for before, after in zip([since, *answers], [*answers, end], strict=True)]
        return Pause(
            max(gaps),
            max(
                (answered - max(began, since) for began, answered in asked if answered >= since), default=0.0
            ),
        )

    def wait_until_served(self, parts: Iterable[int] = range(PARTS)) -> None:
        """Wait until somebody in each of these parts has asked after this call, and has been answered."""
        since = time.monotonic()
        ours = [self._answers[part] for part in parts]
        wait_until(
            lambda: all(answers and answers[-1][0] >= since for answers in ours), "these parts are served"
        )

    def wait_for_reports(self, number: int) -> None:
        """Wait until so many more reports have been answered in each part."""
        wanted = [len(answers) + number for answers in self._answers]
        wait_until(
            lambda: all(len(one) >= least for one, least in zip(self._answers, wanted, strict=True)),
            f"{number} more reports in each part are answered",
        )

    def check(self) -> None:
        """See that every server knows what was answered, or what its client sent later."""
        wanted = dict(self.answered)
        lost = [why for server in self._servers for why in self.lost(server, wanted)]
        assert not lost, f"{len(lost)} answered reports are lost: {lost[:3]}"
        assert self.faults == [], self.faults[:3]
        self.counts["checks"] += 1

    def lost(self, server: ServerProcess, wanted: dict[bytes, bytes]) -> list[str]:
        """Return what a front does not know of what was answered."""
        found = knows(server, list(wanted))
        return [
            f"{server.name}: {line!r} was answered, {found[client]!r} is known"
            for client, line in wanted.items()
            if not self._is_as_good(client, line, found[client])
        ]

    def _is_as_good(self, client: bytes, answered: bytes, known: bytes) -> bool:
        if known == answered:
            return True
        before, after = parse_at(answered), parse_at(known)
        assert before is not None
        return (
            after is not None
            and after.entry.nanoseconds > before.entry.nanoseconds
            and known.split(b" ", 3)[3] in self._sent[client]
        )


def knows(server: ServerProcess, clients: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return the first line of what a server answers about each client, without LF."""
    found = {}
    with server.connect() as connection:
        connection.send(*(b"WHATSAT %b 0 0" % client for client in clients))
        for client in clients:
            answer = connection.places()
            assert answer, f"{server.name} closed without an answer about {client!r}"
            found[client] = answer.partition(b"\n")[0]
    return found
