"""One server through all its lives: the real turn, engine, node and table, and what watches them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import ref as weakref

from msgspec.structs import replace

from proxyherd.config.herd_file import PEER_LINE_SLACK
from proxyherd.core.contact import Contact
from proxyherd.core.engine import Said
from proxyherd.core.erasures import longest_absence
from proxyherd.core.flood_paths import NO_SPARE_COPIES, SPARE_COPY_SECONDS, spare_copies
from proxyherd.core.handshake import State, Terms
from proxyherd.core.link import Link
from proxyherd.core.messages import NANOSECONDS, Entry, Forget, Whatsat, received
from proxyherd.core.news import LinkErrorHandler, News, raise_it
from proxyherd.core.node import Node
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Judged
from proxyherd.core.table import Table
from proxyherd.core.ticks import seconds_ahead, seconds_to_tick, step
from proxyherd.core.tombstones import parse_gone, parse_learned
from proxyherd.core.turn import Turn
from proxyherd.engines.herd.delays import LEARNED_SECONDS
from proxyherd.engines.herd.engine import HerdEngine
from simulation.clients import SimulatedClient, SimulatedLog, SimulatedPlaces
from simulation.disk import Disk
from simulation.laws import Laws, Order
from simulation.network import SECRET, End, Network, WatchedLink
from simulation.tables import WatchedTable
from simulation.world import SimulatedWorld

if TYPE_CHECKING:
    from proxyherd.core.messages import Report

REWRITES = 0.3
"""How often a tick rewrites the journal, where somebody was erased."""

SETTLE_SECONDS = 20 * LEARNED_SECONDS
"""What neighbours tell waits longer than on a server, so that more happens in the meantime."""


class WatchedContact(Contact):
    """The real contact: what it drops counts for nothing that the server has answered before."""

    __slots__ = ("known_since", "server")
    known_since: int  # who was erased later was still known when lines were last set aside
    server: weakref[Server]  # it is in TERMS, which the collector of garbage does not look into

    def set_aside(self, table: Table, clock: int) -> None:
        server = self.server()
        assert server is not None
        self.known_since = clock - longest_absence(server.world.plan.erasure)
        super().set_aside(table, clock)
        server.laws.doubted |= (self.aside or {}).keys()

    def caught_up(self, began: int) -> dict[bytes, Entry]:
        aside, server = self.aside or {}, self.server()
        assert server is not None
        back = super().caught_up(began)
        if aside:
            server.world.say(f"{server.name} puts back {len(back)} of {len(aside)} clients")
        if not back:
            own = b"AT %b " % server.bytes
            for client, entry in aside.items():
                if entry.line.startswith(own) and received(entry.line) > self.known_since:
                    server.world.broken(f"{server.name} drops {entry.line!r}, which it alone can have")
                server.laws.dropped(server, client, (entry.nanoseconds, entry.line))
        return back


class WatchedNode(Node):
    """The real node, which also tells its table whence lines come, and when a link goes live."""

    table: WatchedTable

    def _set_aside_if_lost(self, now: float) -> None:
        self.table.doubting = True
        super()._set_aside_if_lost(now)
        self.table.doubting = False

    def _put_back(self, aside: dict[bytes, Entry]) -> None:
        source, self.table.source = self.table.source, None
        super()._put_back(aside)
        self.table.source = source

    def receive(self, link: Link, most: int, now: float) -> None:
        assert isinstance(link, WatchedLink)
        was_proved, self.table.source = link.proved, link
        super().receive(link, most, now)
        self.table.source = None
        if link.proved and not was_proved:
            link.end.network.laws.went_live(link.end)

    def receive_few(self, link: Link, data: bytes, most: int, now: float, clock: int) -> bool:
        self.table.source = link
        few = super().receive_few(link, data, most, now, clock)
        self.table.source = None
        return few

    def flood(self, failed: LinkErrorHandler = raise_it) -> None:
        news = self.news
        super().flood(failed)
        self._must_be_told(news)

    def flood_alone(self, news: News, failed: LinkErrorHandler) -> None:
        super().flood_alone(news, failed)
        self._must_be_told([news])

    def _must_be_told(self, news: list[News]) -> None:
        laws = self.table.server.laws
        for neighbour in self._neighbours.values():
            assert isinstance(neighbour.link, WatchedLink)
            for one in news:
                if one.source != neighbour.name and not one.caught_up:
                    laws.must_be_told(neighbour.link.end, one.client, one.line)

    def send_spare(self, link: Link) -> None:
        assert isinstance(link, WatchedLink)
        waited, is_live = link.spare.copy(), link.state is State.LIVE
        super().send_spare(link)
        for line in waited if is_live else ():
            self.table.server.laws.must_be_told(link.end, line.split(b" ")[3], line)

    def decide(self, line: Any, judged: Judged) -> Reply:
        if not isinstance(judged, Forget):
            return super().decide(line, judged)
        table = self.table
        table.forgets = True
        reply = super().decide(line, judged)
        table.forgets = False
        tombstone = parse_gone(reply.answer or b"")
        stays = tombstone is not None and table.get(judged.client) is not None
        if reply.outcome != ("refused" if tombstone is None else "stayed" if stays else "erased"):
            table.server.world.broken(f"{self.name} answers {reply.answer!r} to an erasure: {reply.outcome}")
        if tombstone is not None:
            table.server.laws.erasures.forgot(table.server, judged, tombstone.until)
        return reply

    def take_back(self, news: News) -> None:
        self.table.undo(lambda: super(WatchedNode, self).take_back(news), {news.line})

    def look_up(self, question: Whatsat, line: bytes) -> Reply:
        reply = super().look_up(question, line)
        if (held := reply.entry) is not None:
            server = self.table.server
            server.laws.found(server, question.client, (held.nanoseconds, held.line))
        return reply


class SimulatedDelays:
    """Lets what neighbours have told wait; sometimes no longer than until more comes."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._waits = self._passes_on = self._sends_spare = False

    def pass_on_soon(self) -> None:
        if not self._passes_on:
            self._passes_on = True
            self._server.later(0.0, self._pass_on)

    def _pass_on(self) -> None:
        self._passes_on = False
        self._server.engine.pass_on(self._server.now)

    def settle_later(self) -> None:
        if not self._waits:
            self._waits = True
            self._server.later(SETTLE_SECONDS, self._settle)
        elif self._server.world.rng.random() < 0.1:
            self._settle()

    def send_spare_later(self) -> None:
        if not self._sends_spare:
            self._sends_spare = True
            self._server.later(SPARE_COPY_SECONDS, self._send_spare)

    def _send_spare(self) -> None:
        self._sends_spare = False
        self._server.engine.send_spare(self._server.now)

    def settled(self) -> None:
        self._waits = False

    def _settle(self) -> None:
        self.settled()
        self._server.engine.settle()


class WatchedEngine(HerdEngine):
    """The real engine, whose decisions about reports are looked at."""

    def __init__(self, server: Server) -> None:
        plan = server.world.plan
        later = SimulatedDelays(server) if plan.gathers else None
        super().__init__(server.node, server.disk, server.wake, plan.sizes, later)
        self._server = server

    def begin(self, now: float, received: int, lately: int) -> None:
        self._server.refuses = not self._server.disk.takes_reports
        self._server.table.just_erased.clear()
        super().begin(now, received, lately)

    def decide(self, said: Sequence[Said]) -> None:
        server = self._server
        reported: list[Sequence[Report]] = [one.reports for one in said]
        super().decide(said)
        for one, reports in zip(said, reported, strict=True):
            if one.error is not None:
                server.world.broken(f"{one.lines} has raised {one.error!r}")
            if one.stored and server.refuses:
                server.world.broken(f"{server.name} stores {reports}, and cannot keep them")
            for line, reply in zip(one.lines[one.stored :], one.replies, strict=True):
                if reply.kind == "iamat":
                    assert isinstance(line, bytes)
                    server.laws.decided(server, line, reply.outcome)

    def report(self, report: Report, now: float) -> bool:
        server = self._server
        stored = super().report(report, now)
        if stored and server.refuses:
            server.world.broken(f"{server.name} stores {report}, and cannot keep it")
        return stored

    def undo(self) -> None:
        server = self._server
        reported = {news.line for news in server.node.news if news.source is None}
        server.table.undo(super().undo, reported)
        server.refuses = True
        for line in reported:
            server.laws.took_back(server, line)


class Server:
    """One server. What is of one life alone is made anew by `start`."""

    def __init__(
        self,
        world: SimulatedWorld,
        network: Network,
        name: str,
        neighbours: list[str],
        learned: Callable[[Server, bytes], None],
    ) -> None:
        plan, rng = world.plan, world.rng
        self.world = world
        self.network = network
        self.laws: Laws = network.laws
        self.name = name
        self.bytes = name.encode()
        self.neighbours = neighbours
        self.learned = learned  # is told of what neighbours have brought
        self.life = 0
        self.up = False
        self.skew = rng.randint(-plan.skew, plan.skew)  # nanoseconds that its clock is wrong
        self.offset = rng.uniform(0, 1e6)  # its monotonic clock began somewhere
        self.disk = Disk(world, name)
        # The greatest that it has ever answered, where no crash may lose that; and what that no longer counts for,
        # because a greater line was erased.
        self.promised: dict[bytes, Order] = {}
        self.voided: dict[bytes, Order] = {}
        self.erased: dict[bytes, int] = {}  # until when clients are erased, where no crash may lose that
        self.keep = int(plan.tombstone_seconds * NANOSECONDS)
        self.away_until = 0.0
        self.is_old = rng.random() < plan.old  # it speaks version 1
        self.lacks = False  # the journal has lost something that was answered
        self.stalled_until = 0.0
        self._kernel: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()  # while it was stalled
        timing = world.timing
        self.terms = Terms(
            name=name,
            neighbours=frozenset(neighbours),
            secrets=(SECRET,),
            line_bytes=plan.limits.max_line_bytes + PEER_LINE_SLACK,
            lead=plan.limits.clock_lead,
            fingerprint=b"0" * 16,
            heartbeat=timing.heartbeat_seconds,
            handshake=timing.handshake_seconds,
            depth=plan.depth,
        )

    @property
    def now(self) -> float:
        return self.world.now + self.offset

    @property
    def clock(self) -> int:
        return self.world.posix + self.skew

    @property
    def live_ends(self) -> list[End]:
        return [end for end in self.ends if end.link.state is State.LIVE]

    def has_kept(self, line: bytes) -> bool:
        return self.disk.kind == "none" or line in self.disk.kept

    # From start to crash. ------------------------------------------------------------------------------------

    def start(self) -> None:
        world, plan = self.world, self.world.plan
        if self.up or self.away_until > world.now:
            return
        self.life += 1
        self.up, self.stops, self.replays = True, False, True
        self.ends: list[End] = []
        self.clients: dict[str, SimulatedClient] = {}
        self.answered: list[SimulatedClient] = []  # in this turn
        self.refuses = False  # in this turn
        self._is_due = False
        self.table = WatchedTable(self)
        self.node = WatchedNode(
            self.name,
            self.table,
            plan.limits,
            world.timing,
            alone=False,
            now=self.now,
            sizes=plan.sizes,
            erasure=plan.erasure,
            spare_copies=spare_copies(self.network.graph, self.name) if plan.gathers else NO_SPARE_COPIES,
        )
        self.node.contact = WatchedContact(self.name, longest_absence(plan.erasure))
        self.node.contact.server = weakref(self)
        self.node.begin_replay()
        self.engine = WatchedEngine(self)
        self.turn = Turn(self.engine, SimulatedPlaces(self), SimulatedLog(self), self.wake, plan.sizes)
        world.say(f"{self.name} starts, life {self.life}, {len(self.disk.records)} records")
        self.node.rules.clock = self.clock
        if self.disk.is_outdated(
            self.clock - longest_absence(plan.erasure), self.node.rules.latest_receipt()
        ):
            self.lose_journal([])
        self.node.contact.last = self.disk.moment or self.clock
        self.node.contact.began = 0 if self.disk.moment and self.disk.records else self.clock
        self.terms = replace(self.terms, contact=self.node.contact)
        self._replay(list(self.disk.records))

    def _replay(self, lines: list[bytes]) -> None:
        """Read some of the journal, unless a turn waits for the disk; then meet the neighbours."""
        world, plan = self.world, self.world.plan
        if self.node.news:
            self.later(0.001, self._replay, lines)
            return
        some = world.rng.randint(0, len(lines)) if plan.replay_seconds else len(lines)
        self.node.replay(map(parse_learned, lines[:some]))
        if some < len(lines):
            self.later(world.rng.uniform(0, plan.replay_seconds / 4), self._replay, lines[some:])
            return
        world.say(f"{self.name} has replayed {len(self.table)} clients")
        self.laws.erasures.started(self)
        self.replays = False
        self.node.start(self.now, lacks=self.lacks)
        self.wake()
        phase = world.rng.uniform(0, step(world.timing.heartbeat_seconds))
        self._ticks_from = self.now + phase  # where its clock begins, which is not where others' do
        self.later(phase, self._tick)
        for neighbour in self.neighbours:
            if neighbour > self.name:
                wait = world.rng.uniform(0, 0.05) + (plan.apart if self.life == 1 else 0.0)
                self.later(wait, self.network.dial, self, neighbour, self.network.pauses())

    def stop(self) -> None:
        """Be told to stop: let go of the clients, then end."""
        if self.up and not self.stops and not self.replays:
            self.world.say(f"{self.name} is told to stop")
            self.stops = True
            for client in self.clients.values():
                client.drain()
            self.engine.let_go()
            self.later(self.world.rng.uniform(0, 0.2), self.crash, False)

    def crash(self, power_cut: bool) -> None:
        """Be killed; in a power cut nobody is told, and the disk may lack the last second."""
        if not self.up:
            return
        self.world.say(f"{self.name} {'loses power' if power_cut else 'is killed'}")
        self.up = False
        self._kernel.clear()
        self.stalled_until = 0.0
        for end in self.ends:
            end.gone = True
            if not power_cut:
                self.network.notify(end)
        for client in self.clients.values():
            client.lost = True
        kind = self.disk.kind
        self.lacks = self.lacks and not self.node.caught_up
        lost = self.disk.failed or kind == "none" or (power_cut and kind == "less a second")
        if lost:
            self.promised = {}
        self.laws.erasures.crashed(self, lost=lost)
        self.lacks = self.lacks or lost or (power_cut and kind != "kept")
        self.disk.crash(power_cut=power_cut)

    def lose_journal(self, left: list[bytes]) -> None:
        """Have no more than this of the journal at the next start, or at this one."""
        self.world.say(f"{self.name} has only {len(left)} of {len(self.disk.records)} records left")
        self.disk.put_back(left)
        self.lacks, self.promised, self.erased = True, {}, {}
        self.laws.lost(self)

    # Turns and time. -----------------------------------------------------------------------------------------

    def later(self, seconds: float, action: Callable[..., object], *arguments: Any) -> None:
        """Do something in this life, when time has passed and the process runs."""
        self.world.after(seconds, self._in_life, self.life, action, arguments)

    def _in_life(self, life: int, action: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        if self.up and self.life == life:
            if self.stalled_until > self.world.now or self._kernel:
                self._kernel.append((action, arguments))
            else:
                action(*arguments)

    def now_or_later(self, action: Callable[..., object], *arguments: Any) -> None:
        """Do something as soon as the process runs, in the order in which it came."""
        if self.stalled_until > self.world.now or self._kernel:
            self._kernel.append((action, arguments))
        else:
            action(*arguments)

    def wake(self) -> None:
        if not self._is_due:
            self._is_due = True
            self.later(0.0, self._run)

    def _run(self) -> None:
        self._is_due = False
        self.turn.run(self.now, self.clock)

    def _tick(self) -> None:
        now = self.now
        self.node.rules.clock = self.clock
        heartbeat = self.world.timing.heartbeat_seconds
        ahead, due = seconds_ahead(now - self._ticks_from, heartbeat), math.inf
        for end in tuple(self.ends):
            due = min(due, end.link.tick(now, ahead))
            if end.link.state is State.CLOSED:
                self.node.closed(end.link)
        due = min(due, self.node.tick(now))
        self.engine.beat(now)
        contact = self.node.contact
        if contact.aside is None:  # else the snapshot would lack it
            self.disk.mend(self.table)
            rewrites = self.table.gone_until and self.world.rng.random() < REWRITES
            if (contact.doubted or rewrites) and self.disk.rewrite(self.table):
                contact.doubted = 0
        self.disk.moment = contact.of_journal
        own = self._ticks_from
        self.later(seconds_to_tick(now - own, due - own, heartbeat), self._tick)

    def revoke(self, end: End) -> None:
        """Read that the other's certificate is revoked, as when `Peers` get other certificates."""
        self.world.say(f"{self.name} revokes the certificate of {end.other.name}")
        end.link.revoke()
        if end.link.state is State.CLOSED:
            self.node.closed(end.link)
        self.engine.wake()

    def stall(self, seconds: float) -> None:
        seconds = min(seconds, self.world.plan.seconds - self.world.now)
        if self.up:
            self.world.say(f"{self.name} is stopped for {seconds:.3f} s")
            self.stalled_until = max(self.stalled_until, self.world.now + seconds)
            self.world.after(self.stalled_until - self.world.now, self._resume, self.life)

    def _resume(self, life: int) -> None:
        if self.up and self.life == life and self.stalled_until <= self.world.now:
            kernel = self._kernel
            while kernel:
                action, arguments = kernel[0]
                action(*arguments)
                if kernel:  # else it has crashed
                    kernel.popleft()
