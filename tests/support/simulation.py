"""Whole herds in one thread, on a clock that only the simulation turns.

The servers are the real ones: node, table, link and catch-up, driven turn by turn as the shell drives them. The
world around them is a seed: a graph, delays, one-way cuts, half-open and doubled connections, stalls, crashes
with and without what the disk had, strangers, clocks that are wrong, and clients that report and ask meanwhile. A seed
reproduces a run exactly. The laws are checked as the herd runs, and when the world has become whole again.

`check(seed)` runs one; where a law is broken it raises LawBroken with the seed and what happened before.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from random import Random
from typing import Any, Literal

from deciding import decide

from proxyherd.base.backoff import backoff
from proxyherd.config.herd_file import PEER_LINE_SLACK
from proxyherd.config.schema import Limits, Timing
from proxyherd.core.link import NONCE_BYTES, Link, State, Terms
from proxyherd.core.messages import Entry, parse_at, parse_question, parse_report
from proxyherd.core.node import Node
from proxyherd.core.reply import Reply
from proxyherd.core.sizes import Sizes
from proxyherd.core.table import Room, Table
from proxyherd.engines.herd.peers import FIRST_PAUSE_SECONDS

SECRET, WRONG_SECRET, KEY = b"s" * 32, b"w" * 32, b"k" * 32
SECOND = 10**9
EPOCH = 1_600_000_000
HEAL_SECONDS = 5.0
QUIET_SECONDS = 0.3
MOST_EVENTS = 400_000
TRACE_LINES = 400

Order = tuple[int, bytes]
Edge = tuple[str, str]


class LawBroken(AssertionError):  # noqa: N818 - it is no error of the test's
    """A run broke a law; the text has the seed, the law and the trace."""


class Plan:
    """What a seed decides once for its whole run. Each may be overridden by name."""

    def __init__(self, seed: int, **overrides: Any) -> None:
        rng = Random(f"plan {seed}")
        size = rng.random()
        self.servers = (
            rng.randint(2, 5) if size < 0.7 else rng.randint(6, 9) if size < 0.95 else rng.randint(10, 30)
        )
        self.extra_edges = rng.choice([0.0, 0.2, 0.5, 1.0])
        self.clients = rng.choice([1, 3, 30, 100])
        self.preloaded = rng.choice([0, 5, 40, 150])
        self.reports = rng.choice([1, 10, 50])
        self.questions = rng.choice([0, 10, 50])
        self.replay_seconds = rng.choice([0.0, 0.02, 0.3])  # that a start takes at most to read its journal
        self.seconds = rng.uniform(0.3, 3.0)
        self.apart = rng.choice([0.0, 0.2])  # seconds before the first servers begin to dial
        self.troubles = rng.choice([0, 5, 15, 40])
        self.slowest = rng.choice([0.01, 0.05, 0.2])  # seconds that a packet takes at most; few take so long
        self.notices = rng.choice([0.0, 0.5, 1.0])  # how often the end of a connection is told to the other
        self.journal = rng.choice(["none", "none", "kept", "less a second"])
        self.skew = rng.choice([0, 0, 3_600]) * SECOND
        self.queue_bytes = rng.choice([500, 1 << 24, 1 << 24])
        self.lines = rng.choice([1, 3, 1_024])  # lines of one peer in one turn
        self.depth = 4 if seed % 50 == 49 else 2  # of the tree; 4 is the real one, and slow to start with
        self.slice_lines = rng.choice([1, 3, 4_096])
        self.batch_bytes = rng.choice([100, 300, 65_536])
        # One request at a time over the slowest network would take longer than the herd has to agree.
        self.window = rng.choice([1, 2, 16]) if self.slowest < 0.2 else 16
        self.compare_seconds = 10_000.0 if rng.random() < 0.85 else rng.uniform(0.3, 2.0)
        for name, value in overrides.items():
            assert hasattr(self, name)
            setattr(self, name, value)

    @property
    def sizes(self) -> Sizes:
        """Small trees, slices and batches: all the code is the same."""
        return Sizes(
            depth=self.depth,
            window=self.window,
            slice_lines=self.slice_lines,
            batch_bytes=self.batch_bytes,
        )


class WatchedTable(Table):
    """The real table, which also notices if it does not grow in the order, and whence each line came."""

    def __init__(self, herd: Herd, owner: str) -> None:
        super().__init__(KEY, herd.plan.depth)
        self._herd = herd
        self._owner = owner
        self.source: Link | None = None
        self.undoing = False  # reports that could not be kept: nobody has seen them
        self.came_from: dict[bytes, str | None] = {}
        self.greatest: dict[bytes, Order] = {}

    def advance(
        self, client: bytes, entry: Entry, room: Room, too_old: Callable[[Entry], bool] | None = None
    ) -> Entry | Literal[False] | None:
        held = super().advance(client, entry, room, too_old)
        if held:  # else `put` has noticed
            self.notice(client, entry)
        return held

    def remove(self, client: bytes, leaf: int) -> None:
        assert self.undoing
        super().remove(client, leaf)
        del self.greatest[client]

    def put(self, client: bytes, entry: Entry, leaf: int) -> None:
        self.notice(client, entry)
        super().put(client, entry, leaf)

    def notice(self, client: bytes, entry: Entry) -> None:
        new = (entry.nanoseconds, entry.line)
        if self.undoing:
            self.greatest[client] = new
            return
        if new <= self.greatest.get(client, (-1, b"")):
            self._herd.broken(f"{self._owner}'s table went back from {self.greatest[client]} to {new}")
        self.greatest[client] = new
        self.came_from[entry.line] = self.source.peer if self.source else None


class WatchedLink(Link):
    """The real link, which also tells what was flooded over it."""

    end: End

    def send_updates(self, lines: bytes) -> None:
        self.end.herd.flooded(self.end, lines)
        super().send_updates(lines)


class End:
    """One end of a connection, and the bytes on their way from here to the other end."""

    def __init__(self, herd: Herd, server: Server | None, link: WatchedLink) -> None:
        self.herd = herd
        self.server = server  # None: a stranger's
        self.life = server.life if server else 0
        self.link = link
        link.end = self
        self.other: End
        self.queued = False  # heard something not acted upon
        self.closing = False  # the socket is told to close
        self.gone = False  # the socket is closed
        self.clear_at = 0.0  # nothing sent later may arrive before this
        self.held: list[bytes | None] = []  # what a cut holds back; None: the end of the stream
        self.redial: Callable[[bool], None] | None = None

    @property
    def name(self) -> str:
        return self.server.name if self.server else "stranger"

    @property
    def wire(self) -> tuple[str, str]:
        return self.name, self.other.name


class Server:
    """One server through all its lives."""

    def __init__(self, name: str, neighbours: list[str], rng: Random, skew: int) -> None:
        self.name = name
        self.neighbours = neighbours
        self.life = 0
        self.up = False
        self.skew = rng.randint(-skew, skew)  # nanoseconds that its clock is wrong
        self.offset = rng.uniform(0, 1e6)  # its monotonic clock began somewhere
        self.node: Node
        self.table: WatchedTable
        self.terms: Terms
        self.ends: list[End] = []
        self.commands: deque[bytes] = deque()
        self.waiting: list[bytes] = []  # questions that came before it was ready
        self.promised: dict[
            bytes, Order
        ] = {}  # the greatest that it has ever answered, where no crash may lose that
        self.lacks = False  # the journal has lost something that was answered
        self.replays = False
        self.journal: list[tuple[float, bytes]] = []
        self.turn_due = False
        self.disk_full_until = 0.0
        self.disk_failed = False
        self.takes_reports = True  # in this turn
        self.stalled_until = 0.0
        self.kernel: deque[tuple[End, bytes | None]] = deque()  # arrived while it was stalled


class Herd:
    """One run."""

    def __init__(self, seed: int, *, trace: bool = False, **overrides: Any) -> None:
        self.seed = seed
        self.plan = Plan(seed, **overrides)
        self.rng = Random(f"run {seed}")
        self.now = 0.0
        self.trace: deque[str] | None = deque(maxlen=TRACE_LINES) if trace else None
        self.timing = Timing(compare_seconds=self.plan.compare_seconds)
        self.limits = Limits()
        self.crossings: set[tuple[str, int, str, int, bytes]] = set()
        self.last_flood = 0.0
        self.durable: dict[bytes, Order] = {}  # the greatest that no crash may lose
        self.answered = 0
        self.asked = 0
        self.events_run = 0
        self.recorded: dict[str, bytes] = {}  # what the last dialler of a server said, for who replays it
        self._events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._nonces = count(1)
        self._cuts: dict[tuple[str, str], int] = {}
        self._graph()

    def _graph(self) -> None:
        rng, plan = self.rng, self.plan
        names = [f"{chr(65 + number % 26)}{number // 26 or ''}" for number in range(plan.servers)]
        rng.shuffle(names)
        edges = [(names[number], names[rng.randrange(number)]) for number in range(1, plan.servers)]
        for _ in range(int(plan.extra_edges * plan.servers)):
            left, right = rng.sample(names, 2)
            if (left, right) not in edges and (right, left) not in edges:
                edges.append((left, right))
        self.edges = [(min(edge), max(edge)) for edge in edges]
        self.servers = {
            name: Server(
                name,
                [b if a == name else a for a, b in self.edges if name in (a, b)],
                rng,
                plan.skew,
            )
            for name in sorted(names)
        }

    # The clock. ----------------------------------------------------------------------------------------------

    def after(self, seconds: float, action: Callable[..., None], *arguments: Any) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), action, arguments))

    def run_until(self, time: float) -> None:
        events = self._events
        while events and events[0][0] <= time:
            self.now, _, action, arguments = heapq.heappop(events)
            action(*arguments)
            self.events_run += 1
            if self.events_run > MOST_EVENTS:
                self.broken("the herd does not come to rest")
        self.now = time

    def say(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now:9.4f} {text}")

    def broken(self, law: str) -> None:
        raise LawBroken(f"seed {self.seed}, at {self.now:.4f} s: {law}")

    # Servers. ------------------------------------------------------------------------------------------------

    def start(self, server: Server) -> None:
        if server.up:
            return
        server.life += 1
        server.up = True
        server.ends, server.turn_due, server.stalled_until = [], False, 0.0
        server.disk_failed = False
        server.commands.clear()
        server.waiting.clear()
        server.kernel.clear()
        server.replays = True
        now = self.now + server.offset
        server.table = WatchedTable(self, server.name)
        server.node = Node(
            server.name, server.table, self.limits, self.timing, alone=False, now=now, sizes=self.plan.sizes
        )
        server.node.begin_replay()
        server.terms = Terms(
            name=server.name,
            neighbours=frozenset(server.neighbours),
            secrets=(SECRET,),
            line_bytes=self.limits.max_line_bytes + PEER_LINE_SLACK,
            heartbeat=self.timing.heartbeat_seconds,
            handshake=self.timing.handshake_seconds,
            depth=self.plan.depth,
        )
        self.say(f"{server.name} starts, life {server.life}, {len(server.journal)} records")
        self.replay(server, server.life, [line for _, line in server.journal])

    def replay(self, server: Server, life: int, lines: list[bytes]) -> None:
        """Read some of the journal; then meet the neighbours."""
        if not self.lives(server, life) or self.put_off(server, self.replay, server, life, lines):
            return
        some = self.rng.randint(0, len(lines)) if self.plan.replay_seconds else len(lines)
        server.node.replay(map(parse_at, lines[:some]))
        if some < len(lines):
            self.after(
                self.rng.uniform(0, self.plan.replay_seconds / 4), self.replay, server, life, lines[some:]
            )
            return
        self.say(f"{server.name} has replayed {len(server.table)} clients")
        server.replays = False
        server.node.start(self.now + server.offset, lacks=server.lacks)
        self.wake(server)
        self.after(self.rng.uniform(0, self.timing.heartbeat_seconds / 4), self.tick, server, server.life)
        for neighbour in server.neighbours:
            if neighbour > server.name:
                wait = self.rng.uniform(0, 0.05) + (self.plan.apart if server.life == 1 else 0.0)
                self.after(wait, self.dial, server, server.life, neighbour, self.pauses())

    def crash(self, server: Server, *, power_cut: bool) -> None:
        """Kill a server; in a power cut nobody is told, and the disk may lack the last second."""
        if not server.up:
            return
        self.say(f"{server.name} {'loses power' if power_cut else 'is killed'}")
        server.up = False
        for end in server.ends:
            end.gone = True
            if not power_cut:
                self.notify(end)
        server.lacks = server.lacks and not server.node.caught_up
        if server.disk_failed or self.plan.journal == "none" or (power_cut and self.plan.journal != "kept"):
            server.promised, server.lacks = {}, True
        if self.plan.journal == "none":
            server.journal.clear()
        elif power_cut and self.plan.journal == "less a second":
            server.journal = [one for one in server.journal if one[0] < self.now - 1.0]

    def lives(self, server: Server, life: int) -> bool:
        return server.up and server.life == life

    def wake(self, server: Server) -> None:
        if not server.turn_due and server.up:
            server.turn_due = True
            self.after(0.0, self.turn, server, server.life)

    def turn(self, server: Server, life: int) -> None:
        """One turn of the event loop: peers, a slice of work, clients, journal, floods out, answers out."""
        if not self.lives(server, life) or self.put_off(server, self.turn, server, life):
            return
        server.turn_due = False
        now, acting = self.now + server.offset, server.node
        for end in server.ends:
            if end.queued:
                end.queued = False
                self.hear(end, self.plan.lines, now)
                end.queued = end.link.more
        more = acting.work(now)
        lines = list(server.commands)
        server.commands.clear()
        server.takes_reports = self.disk_works(server)
        acting.rules.begin(0, takes_reports=server.takes_reports)
        replies = [self.command(server, line) for line in lines]
        if acting.news and not self.append(server):
            self.undo(server)
            server.takes_reports = False
            acting.rules.refuse_reports()
            replies = [self.command(server, line) for line in lines]
        if server.waiting and not acting.all_wait:
            again, server.waiting = server.waiting, []
            lines += again
            replies += [self.command(server, line) for line in again]
        acting.flood()
        for end in tuple(server.ends):
            self.release(end, now)
        for reply, line in zip(replies, lines, strict=True):
            self.answer(server, reply, line)
        acting.notes.clear()
        if more or any(end.queued for end in server.ends):
            self.wake(server)

    def hear(self, end: End, lines: int, now: float) -> None:
        assert end.server is not None
        server, was = end.server, end.link.proved
        server.table.source = end.link
        server.node.receive(end.link, lines, now)
        server.table.source = None
        if end.link.proved and not was:
            self.went_live(end)

    def command(self, server: Server, line: bytes) -> Reply:
        report = parse_report(line, b"", 0)
        if report is None:
            assert parse_question(line) is not None
            return decide(server.node, line, 0)
        held = server.table.get(report.client)
        reply = decide(server.node, line, EPOCH * SECOND + int(self.now * SECOND) + server.skew)
        later = held is None or report.nanoseconds > held.nanoseconds
        due = "refused" if not server.takes_reports else "stored" if later else "stale"
        if reply.outcome != due:
            self.broken(f"{server.name} answered {line!r} as {reply.outcome}")
        return reply

    def answer(self, server: Server, reply: Reply, line: bytes) -> None:
        """Let the client have its answer: from now on it may rely on it."""
        if reply.kind == "whatsat":
            self.answer_question(server, reply, line)
            return
        assert reply.answer is not None
        self.say(f"{server.name} answers {reply.answer.decode()} ({reply.outcome})")
        if reply.outcome == "stored":
            self.answered += 1
            report = parse_report(line, b"", 0)
            assert report is not None
            order = report.nanoseconds, reply.answer
            server.promised[report.client] = max(order, server.promised.get(report.client, order))
            if self.plan.journal == "kept":
                self.durable[report.client] = max(order, self.durable.get(report.client, order))

    def answer_question(self, server: Server, reply: Reply, line: bytes) -> None:
        """Let a client have what it asked for, or wait. What a server has answered once it never takes back."""
        client = line.split()[1]
        promised = server.promised.get(client, (-1, b""))
        if reply.outcome == "waiting":
            server.waiting.append(line)
            return
        if server.lacks and not server.node.ready:
            self.broken(f"{server.name} answers {line!r} though its journal lacks something")
        found = (-1, b"") if reply.entry is None else (reply.entry.nanoseconds, reply.entry.line)
        self.say(f"{server.name} answers {line!r} with {found[1]!r} ({reply.outcome})")
        if found < promised:
            self.broken(
                f"{server.name} has answered {promised[1]!r}, and answers {line!r} with {found[1]!r} now"
            )
        if reply.entry is not None:
            server.promised[client] = found
            self.asked += 1

    def undo(self, server: Server) -> None:
        """Let a server take its reports back; all else stays as it was."""
        reported = {news.line for news in server.node.news if news.source is None}
        server.table.undoing = True
        server.node.undo_reports()
        server.table.undoing = False
        if any(entry.line in reported for _, entry in server.table):
            self.broken(f"{server.name} keeps a report that it refuses")

    def append(self, server: Server) -> bool:
        """Append what is new to the journal, if there is one; False if it cannot be written."""
        if self.plan.journal == "none":
            return True
        if server.disk_full_until > self.now:
            if not server.disk_failed:
                self.say(f"{server.name}'s disk is full")
            server.disk_failed = True
        if not server.disk_failed:
            server.journal += [(self.now, news.line) for news in server.node.news]
        return not server.disk_failed

    def disk_works(self, server: Server) -> bool:
        """Whether reports are taken; a journal that failed is first written anew, as a synced snapshot."""
        if server.disk_failed and server.disk_full_until <= self.now:
            self.say(f"{server.name} writes its journal anew")
            server.disk_failed = False
            server.journal = [(-math.inf, entry.line) for _, entry in server.table]
        return not server.disk_failed

    def tick(self, server: Server, life: int) -> None:
        if not self.lives(server, life) or self.put_off(server, self.tick, server, life):
            return
        now = self.now + server.offset
        for end in tuple(server.ends):
            end.link.tick(now)
            if end.link.state is State.CLOSED:
                server.node.closed(end.link)
        server.node.tick(now)
        self.wake(server)
        self.after(self.timing.heartbeat_seconds / 4, self.tick, server, life)

    def stall(self, server: Server, seconds: float) -> None:
        seconds = min(seconds, self.plan.seconds - self.now)
        if server.up:
            self.say(f"{server.name} is stopped for {seconds:.3f} s")
            server.stalled_until = max(server.stalled_until, self.now + seconds)
            self.after(server.stalled_until - self.now, self.resume, server, server.life)

    def resume(self, server: Server, life: int) -> None:
        if self.lives(server, life) and server.stalled_until <= self.now:
            while server.kernel:
                self.deliver(*server.kernel.popleft())

    def put_off(self, server: Server, action: Callable[..., None], *arguments: Any) -> bool:
        if server.stalled_until <= self.now:
            return False
        self.after(server.stalled_until - self.now, action, *arguments)
        return True

    # Connections. --------------------------------------------------------------------------------------------

    def pauses(self) -> Iterator[float]:
        return backoff(FIRST_PAUSE_SECONDS, self.timing.backoff_seconds, self.rng)

    def dial(self, server: Server, life: int, neighbour: str, pauses: Iterator[float] | None) -> None:
        """Try to connect; where `pauses` is None, once, beside whatever connection there is."""
        if not self.lives(server, life) or self.put_off(server, self.dial, server, life, neighbour, pauses):
            return
        wire = server.name, neighbour
        if self.is_cut(wire) or self.is_cut(wire[::-1]):
            if pauses is not None:
                pause = self.timing.handshake_seconds + next(pauses)
                self.after(pause, self.dial, server, life, neighbour, pauses)
            return
        self.after(2 * self.delay(), self.connect, server, life, neighbour, pauses)

    def connect(self, server: Server, life: int, neighbour: str, pauses: Iterator[float] | None) -> None:
        if not self.lives(server, life):
            return

        def again(was_live: bool) -> None:
            if pauses is not None:
                pause, fresh = (0.0, self.pauses()) if was_live else (next(pauses), pauses)
                self.after(pause, self.dial, server, life, neighbour, fresh)

        other = self.servers[neighbour]
        if not other.up or other.replays:
            again(False)
            return
        near = End(self, server, self.link(server, neighbour))
        near.redial = again
        self.join(near, other)

    def join(self, near: End, other: Server) -> None:
        far = End(self, other, self.link(other, None))
        near.other, far.other = far, near
        for end in (near, far):
            if end.server is not None:
                end.server.ends.append(end)
                self.wake(end.server)
        self.say(f"{near.name} connects to {far.name}")

    def link(self, server: Server, dial: str | None, terms: Terms | None = None) -> WatchedLink:
        nonce = next(self._nonces).to_bytes(NONCE_BYTES, "big")
        return WatchedLink(terms or server.terms, dial=dial, nonce=nonce, now=self.now + server.offset)

    def release(self, end: End, now: float) -> None:
        """Write what the link has to send; end the connection if the link has ended."""
        if end.closing or end.gone:
            return
        if data := end.link.data_to_send(now):
            self.send(end, data)
            if sum(len(one or b"") for one in end.held) > self.plan.queue_bytes:
                end.link.close("too much waits for it")
        if end.link.state is State.CLOSED:
            assert end.server is not None
            end.server.node.closed(end.link)
            end.closing = True
            self.notify(end)
            self.after(0.0, self.lost, end)

    def delay(self) -> float:
        slow = 10.0 if self.rng.random() < 0.05 else 1.0
        return self.rng.uniform(0.01, 0.1) * self.plan.slowest * slow

    def send(self, end: End, data: bytes | None) -> None:
        """Put bytes on their way, or the end of the stream; they arrive in order."""
        if self.trace is not None and data != b"BEAT\n":
            self.say(f"{end.name} -> {end.other.name}: {_shown(data)}")
        if end.link.dialled and data and end.server and len(self.recorded.get(end.other.name, b"")) < 1_000:
            self.recorded[end.other.name] = self.recorded.get(end.other.name, b"") + data
        end.clear_at = max(end.clear_at, self.now + self.delay())
        self.after(end.clear_at - self.now, self.arrive, end, data)

    def notify(self, end: End) -> None:
        """Tell the other end that this one has ended: soon, late, or never."""
        if self.rng.random() < self.plan.notices:
            if self.rng.random() < 0.3:
                end.clear_at = max(end.clear_at, self.now + self.rng.uniform(0, 1))
            self.send(end, None)

    def arrive(self, end: End, data: bytes | None) -> None:
        if end.held or self.is_cut(end.wire):
            end.held.append(data)
        else:
            self.deliver(end.other, data)

    def deliver(self, end: End, data: bytes | None) -> None:
        server = end.server
        if server is None:
            self.stranger_hears(end, data)
            return
        if end.gone or not self.lives(server, end.life):
            if data is not None and server.up and not end.other.gone:
                self.notify(end)  # a reset
            return
        if server.stalled_until > self.now:
            server.kernel.append((end, data))
        elif data is None:
            self.lost(end)
        elif not end.closing:
            end.link.receive_data(data, self.now + server.offset)
            end.queued = True
            self.wake(server)

    def lost(self, end: End) -> None:
        """The socket of this end is closed, or broke."""
        server = end.server
        if end.gone or server is None or not self.lives(server, end.life):
            return
        if server.stalled_until > self.now:
            server.kernel.append((end, None))
            return
        end.gone = True
        self.say(f"{server.name}'s connection with {end.other.name} ends: {end.link.reason or 'lost'}")
        if end.link.waiting:
            self.hear(end, 262_144, self.now + server.offset)
        end.link.receive_eof()
        server.node.closed(end.link)
        server.ends.remove(end)
        self.wake(server)
        if end.redial is not None:
            end.redial(end.link.proved)

    def is_cut(self, wire: tuple[str, str]) -> bool:
        return self._cuts.get(wire, 0) > 0

    def cut(self, wire: tuple[str, str], seconds: float) -> None:
        """Hold back all that goes this way, for so long."""
        self.say(f"{wire[0]} -> {wire[1]} is cut for {seconds:.3f} s")
        self._cuts[wire] = self._cuts.get(wire, 0) + 1
        self.after(seconds, self.mend, wire)

    def mend(self, wire: tuple[str, str]) -> None:
        self._cuts[wire] -= 1
        if not self._cuts[wire]:
            for end in self.all_ends():
                if end.wire == wire and end.held:
                    self.release_held(end)

    def release_held(self, end: End) -> None:
        held, end.held = end.held, []
        for data in held:
            end.clear_at = max(end.clear_at, self.now + self.delay())
            self.after(end.clear_at - self.now, self.arrive, end, data)

    def all_ends(self) -> list[End]:
        """All ends of connections that at least one living server knows."""
        ends: dict[int, End] = {}
        for server in self.servers.values():
            for end in server.ends if server.up else ():
                ends[id(end)] = end
                ends[id(end.other)] = end.other
        return list(ends.values())

    # Strangers. ----------------------------------------------------------------------------------------------

    def intrude(self, _: Server, edge: Edge) -> None:
        """Connect as a neighbour without its secret: with a wrong one, or with what the neighbour once said."""
        name, target, replay = edge[0], self.servers[edge[1]], self.rng.random() < 0.5
        if not target.up or target.replays:
            return
        terms = Terms(
            name=name,
            neighbours=frozenset([target.name]),
            secrets=(WRONG_SECRET,),
            line_bytes=8_448,
            heartbeat=self.timing.heartbeat_seconds,
            handshake=self.timing.handshake_seconds,
            depth=self.plan.depth,
        )
        near = End(self, None, self.link(target, target.name, terms))
        self.join(near, target)
        said = self.recorded.get(target.name, b"") if replay else near.link.data_to_send(self.now)
        self.send(near, said + b"AT Forger +0.000000000 forged +1+1 5\n")

    def stranger_hears(self, end: End, data: bytes | None) -> None:
        if data is None or end.gone:
            end.gone = True
            return
        end.link.receive_data(data, self.now)
        end.link.events(1_000)
        if said := end.link.data_to_send(self.now):
            self.send(end, said)

    # Laws that hold as it runs. ------------------------------------------------------------------------------

    def went_live(self, end: End) -> None:
        other = end.other
        self.say(f"{end.name}'s link with {end.link.peer} is live")
        if other.server is None or other.server.name != end.link.peer:
            self.broken(f"{end.name} takes a stranger for {end.link.peer}")
        if end.link.dialled and not other.link.proved:
            self.broken(f"{end.name}'s link is live, and {other.name} has not proved itself")
        if other.link.state is State.HELLO:
            self.broken(f"{end.name}'s link is live before {other.name} has heard of it")

    def flooded(self, end: End, lines: bytes) -> None:
        assert end.server is not None
        name, peer = end.name, end.other.name
        self.last_flood = self.now
        if end.link.state is not State.LIVE:
            self.broken(f"{name} floods to {peer} over a link that is not live")
        for line in lines.splitlines():
            crossing = (name, end.life, peer, end.other.life, line)
            if crossing in self.crossings:
                self.broken(f"{name} floods to {peer} a second time: {line.decode()}")
            self.crossings.add(crossing)
            if end.server.table.came_from.get(line) == peer:
                self.broken(f"{name} floods back to {peer} what came from there: {line.decode()}")

    # The run. ------------------------------------------------------------------------------------------------

    def report(self, server: Server) -> None:
        """Let a client report, often at a time that others report for it too."""
        rng = self.rng
        whole, fraction = EPOCH + int(self.now), rng.choice(["", ".5", ".50", ".500000000", ".7"])
        whole -= rng.choice([0, 0, 0, 1])
        client, place = rng.randrange(self.plan.clients), rng.choice(["+1+1", "-34.5+118"])
        if server.up:
            server.commands.append(f"IAMAT c{client} {place} {whole}{fraction}".encode())
            self.wake(server)

    def question(self, server: Server) -> None:
        """Let a client ask about one."""
        if server.up:
            server.commands.append(b"WHATSAT c%d 0 0" % self.rng.randrange(self.plan.clients))
            self.wake(server)

    def trouble(self) -> None:
        """One thing goes wrong."""
        server, edge = self.rng.choice(list(self.servers.values())), self.rng.choice(self.edges)
        self.rng.choice(
            [
                *(self.crash_and_start,) * 3,
                *(self.cut_link,) * 2,
                self.partition,
                *(self.break_connection,) * 2,
                self.break_all,
                self.dial_again,
                self.stop_and_continue,
                self.fill_disk,
                self.intrude,
            ]
        )(server, edge)

    def crash_and_start(self, server: Server, _: Edge) -> None:
        self.crash(server, power_cut=self.rng.random() < 0.5)
        self.after(self.rng.choice([0.01, 0.1, 0.6, 2.0]) * self.rng.random(), self.start, server)

    def cut_link(self, _: Server, edge: Edge) -> None:
        wires = self.rng.choice([[edge], [edge[::-1]], [edge, edge[::-1]]])
        seconds = self.rng.choice([0.02, 0.3, 2.5]) * self.rng.random()
        for wire in wires:
            self.cut(wire, seconds)

    def partition(self, _: Server, __: Edge) -> None:
        part = set(self.rng.sample(list(self.servers), self.rng.randint(1, len(self.servers))))
        seconds = self.rng.choice([0.3, 3.0]) * self.rng.random()
        for left, right in self.edges:
            if (left in part) != (right in part):
                self.cut((left, right), seconds)
                self.cut((right, left), seconds)

    def break_connection(self, server: Server, _: Edge) -> None:
        """One end, or both, find it broken; the other may believe in it for long."""
        if server.up and server.ends:
            end = self.rng.choice(server.ends)
            for broken in self.rng.choice([[end], [end, end.other]]):
                self.lost(broken)

    def break_all(self, server: Server, _: Edge) -> None:
        """A server loses all its links at once, so that many walks begin together."""
        for end in tuple(server.ends) if server.up else ():
            self.lost(end)
            self.lost(end.other)

    def dial_again(self, _: Server, edge: Edge) -> None:
        dialler = self.servers[edge[0]]
        self.dial(dialler, dialler.life, edge[1], None)

    def fill_disk(self, server: Server, _: Edge) -> None:
        server.disk_full_until = self.now + self.rng.random()

    def stop_and_continue(self, server: Server, _: Edge) -> None:
        self.stall(server, self.rng.choice([0.01, 0.2, 2.0]) * self.rng.random())

    def run(self) -> None:
        rng, plan = self.rng, self.plan
        for server in self.servers.values():
            self.after(rng.choice([0.0, 0.2, plan.seconds]) * rng.random(), self.start, server)
        for _ in range(plan.preloaded):
            self.after(0.2 * rng.random(), self.report, rng.choice(list(self.servers.values())))
        for _ in range(plan.reports):
            self.after(plan.seconds * rng.random(), self.report, rng.choice(list(self.servers.values())))
        for _ in range(plan.questions):
            self.after(plan.seconds * rng.random(), self.question, rng.choice(list(self.servers.values())))
        for _ in range(plan.troubles):
            self.after(plan.seconds * rng.random(), self.trouble)
        self.run_until(plan.seconds)
        self.heal()
        healed = self.now
        while not self.agreed() or self.now < max(self.last_flood, healed) + QUIET_SECONDS:
            if self.now >= healed + HEAL_SECONDS and not self.agreed():
                self.broken(f"{HEAL_SECONDS:g} s after all is well the servers differ: {self.difference()}")
            if self.now >= healed + HEAL_SECONDS + QUIET_SECONDS:
                self.broken("a flood does not end")
            self.run_until(self.now + 0.1)
        self.judge()

    def heal(self) -> None:
        """Let the network be whole and all servers up."""
        self.say("all is well from now on")
        for wire in self._cuts:
            self._cuts[wire] = 0
        self.mend = lambda wire: None  # type: ignore[method-assign]
        for server in self.servers.values():
            self.start(server)
            server.disk_full_until = self.now
        for end in self.all_ends():
            self.release_held(end)

    def agreed(self) -> bool:
        if any(server.commands for server in self.servers.values()):
            return False
        first, *rest = (server.table.greatest for server in self.servers.values())
        return all(one == first for one in rest)

    def difference(self) -> str:
        clients = sorted({client for server in self.servers.values() for client in server.table.greatest})
        lines = []
        for client in clients:
            held = {
                name: one.table.greatest.get(client, (0, b"nothing"))[1] for name, one in self.servers.items()
            }
            if len(set(held.values())) > 1:
                lines.append(", ".join(f"{name} has {line.decode()}" for name, line in held.items()))
        return "; ".join(lines)

    def judge(self) -> None:
        """What must hold at the end on every server."""
        for server in self.servers.values():
            held = {client: (entry.nanoseconds, entry.line) for client, entry in server.table}
            if held != server.table.greatest:
                self.broken(f"{server.name} does not hold the greatest that it ever held")
            if server.waiting and server.node.ready:
                self.broken(f"{server.name} is ready and lets {server.waiting} wait")
            if b"forged" in held:
                self.broken(f"{server.name} believed a stranger")
            for client, order in self.durable.items():
                if held.get(client, (-1, b"")) < order:
                    self.broken(f"{server.name} has lost {order[1].decode()}, which was answered")
            if len(server.table) != len(held):
                self.broken(f"{server.name} counts {len(server.table)} clients and holds {len(held)}")
            if (
                sorted(server.node.linked) != sorted(server.neighbours)
                and self.now > self.plan.seconds + HEAL_SECONDS
            ):
                self.broken(f"{server.name} is linked with {list(server.node.linked)} only")


def _shown(data: bytes | None) -> str:
    if data is None:
        return "(end)"
    lines = data.decode("latin-1").splitlines()
    shown = " | ".join(line if len(line) < 90 else f"{line[:80]}..." for line in lines[:6])
    return shown + (f" | and {len(lines) - 6} lines" if len(lines) > 6 else "")


def run(seed: int, **overrides: Any) -> Herd:
    """Run a seed; raises LawBroken."""
    herd = Herd(seed, **overrides)
    herd.run()
    return herd


def check(seed: int, **overrides: Any) -> Herd:
    """Run a seed; where it breaks a law, run it again and tell what happened."""
    try:
        return run(seed, **overrides)
    except LawBroken:
        herd = Herd(seed, trace=True, **overrides)
        try:
            herd.run()
        except LawBroken as error:
            plan = ", ".join(f"{name}={value}" for name, value in vars(herd.plan).items())
            trace = "\n".join(herd.trace or ())
            raise LawBroken(f"{error}\nplan: {plan}\nedges: {herd.edges}\n{trace}") from None
        raise LawBroken(f"seed {seed} does not reproduce: a run hangs on more than its seed") from None
