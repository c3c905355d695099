"""Servers as nodes, wired in this process: the test can hold back every message between them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from itertools import count

import pytest
from deciding import decide

from proxyherd.config.herd_file import PEER_LINE_SLACK
from proxyherd.config.schema import Limits, Timing
from proxyherd.core.evictions import EvictingTable
from proxyherd.core.handshake import NONCE_BYTES, Terms
from proxyherd.core.link import Link
from proxyherd.core.messages import Report, parse_at, parse_report
from proxyherd.core.node import Node
from proxyherd.core.reply import Reply
from proxyherd.core.table import Room, Table

SECRET, KEY = b"s" * 32, b"k" * 32
SECOND = 10**9
TIMING = Timing()
ALL = 1_000_000
QUIET_TURNS = 10_000


def iamat(client: str = "kiwi", time: str = "5", place: str = "+1+1") -> bytes:
    return f"IAMAT {client} {place} {time}".encode()


def whatsat(client: str = "kiwi") -> bytes:
    return f"WHATSAT {client} 10 5".encode()


def reports(*lines: bytes) -> list[Report]:
    """These reports as server A has received them."""
    parsed = [parse_report(line, b"A", 5 * SECOND) for line in lines]
    return [report for report in parsed if report is not None]


class WiredServer:
    """A node, and a wire to each neighbour that carries only what the test lets through."""

    def __init__(self, name: str, *, limits: Limits | None = None, now: float = 0) -> None:
        self.name = name
        self.limits = limits or Limits()
        room = Room(self.limits.max_clients, self.limits.max_table_bytes)
        self.table = EvictingTable(KEY, room) if self.limits.on_full == "evict" else Table(KEY)
        self.node = Node(name, self.table, self.limits, TIMING, alone=False, now=now)
        self.links: dict[str, Link] = {}

    def report(self, line: bytes = iamat(), received: int = 5 * SECOND) -> Reply:
        return decide(self.node, line, received)

    def learn(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            update = parse_at(line)
            assert update is not None
            self.table.put(update.client, update.entry, self.table.leaf(update.client))

    def line(self, client: str = "kiwi") -> bytes | None:
        entry = self.table.get(client.encode())
        return entry.line if entry else None

    def lines(self) -> set[bytes]:
        return {entry.line for _, entry in self.table}


class Wires:
    """Carries bytes between servers, turn by turn, counts them, and can hold a direction back."""

    nonces = count(1)

    def __init__(self, *servers: WiredServer) -> None:
        self.servers = {server.name: server for server in servers}
        self.held: set[tuple[str, str]] = set()
        self.bytes: Counter[tuple[str, str]] = Counter()
        self.said: defaultdict[tuple[str, str], list[bytes]] = defaultdict(list)
        self._under_way: dict[tuple[str, str], bytes] = {}
        self.now = 0.0

    def connect(self, dialler: str, listener: str) -> tuple[Link, Link]:
        """Open a connection; whatever was between the two before is forgotten, unclosed."""
        ends = []
        for name, peer in ((dialler, listener), (listener, dialler)):
            server = self.servers[name]
            terms = Terms(
                name=name,
                neighbours=frozenset(self.servers) - {name},
                secrets=(SECRET,),
                line_bytes=server.limits.max_line_bytes + PEER_LINE_SLACK,
                lead=server.limits.clock_lead,
                fingerprint=server.table.fingerprint,
                heartbeat=TIMING.heartbeat_seconds,
                handshake=TIMING.handshake_seconds,
                contact=server.node.contact,
            )
            nonce = next(self.nonces).to_bytes(NONCE_BYTES, "big")
            server.links[peer] = Link(
                terms, dial=listener if name == dialler else None, nonce=nonce, now=self.now
            )
            self._under_way[name, peer] = b""
            ends.append(server.links[peer])
        return ends[0], ends[1]

    def turn(self, name: str, *, lines: int = ALL) -> bool:
        """Let one server have one turn; True if anything moved."""
        server = self.servers[name]
        moved = False
        for peer, link in server.links.items():
            if (data := self._under_way[peer, name]) and (peer, name) not in self.held:
                self._under_way[peer, name] = b""
                link.receive_data(data, self.now)
                moved = True
            server.node.receive(link, lines, self.now)
            moved = moved or link.more
        moved = server.node.work(self.now) or moved
        server.node.flood()
        for peer, link in server.links.items():
            if data := link.data_to_send(self.now):
                self._under_way[name, peer] += data
                self.bytes[name, peer] += len(data)
                self.said[name, peer] += data.splitlines()
                moved = True
        return moved

    def turns(self) -> bool:
        """Let each server have one turn; True if anything moved."""
        moved = [self.turn(name) for name in self.servers]
        return any(moved)

    def settle(self) -> None:
        """Let all have turns until nothing moves any more."""
        for _ in range(QUIET_TURNS):
            if not self.turns():
                return
        pytest.fail("the herd does not come to rest")

    def forget_traffic(self) -> None:
        self.bytes.clear()
        self.said.clear()

    def live(self, sender: str, receiver: str) -> list[bytes]:
        """The AT lines sent live so far."""
        lines: Iterator[bytes] = iter(self.said[sender, receiver])
        found = []
        for line in lines:
            if line.startswith(b"BATCH "):
                for _ in range(int(line.split(b" ")[3], 16)):
                    next(lines)
            elif line.startswith(b"AT "):
                found.append(line)
        return found


def herd(*edges: str, **servers: WiredServer) -> Wires:
    """Linked servers, in step, each with an empty table; an edge is spelled as two letters, the dialler first."""
    wires = Wires(*(servers.get(name) or WiredServer(name) for name in sorted(set("".join(edges)))))
    for edge in edges:
        wires.connect(*edge)
    wires.settle()
    wires.forget_traffic()
    return wires


def at_lines(number: int, *, time: str = "5", form: str = "client-{}.example.org") -> list[bytes]:
    return [
        f"AT Clark +0.263873386 {form.format(n)} +34.068930-118.445127 {time}".encode() for n in range(number)
    ]
