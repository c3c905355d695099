"""One run: a graph of servers, clients that come and leave, troubles, and at the end a world that is whole again."""

from __future__ import annotations

from typing import Any

from proxyherd.core.follows.follow import Follow, Unfollow
from proxyherd.core.spatial.areas import Area
from proxyherd.engines.herd.delays import LEARNED_SECONDS
from simulation.clients import LineClient, SimulatedClient
from simulation.followers import AREAS, SimulatedFollower
from simulation.laws import Laws
from simulation.network import End, Network, Wire
from simulation.plan import SECOND, Plan
from simulation.servers import Server
from simulation.web_clients import HttpClient, JsonClient, LineSocketClient
from simulation.world import EPOCH, LawBroken, SimulatedWorld

FORGOTTEN = 1.2
"""Times `tombstone_seconds`: after that, all tombstones are forgotten."""

HEAL_SECONDS = 5.0
QUIET_SECONDS = 0.3


class Herd:
    """A seed's herd in its world."""

    def __init__(
        self, seed: int, *, trace: bool = False, edges: list[Wire] | None = None, **overrides: Any
    ) -> None:
        self.plan = Plan(seed, **overrides)
        self.world = SimulatedWorld(seed, self.plan, trace=trace)
        self.laws = Laws(self.world)
        self.network = Network(self.world, self.laws)
        self.edges = self._graph() if edges is None else edges
        names = {name for edge in self.edges for name in edge}
        self.servers = self.laws.servers = self.network.servers
        for name in sorted(names):
            neighbours = [b if a == name else a for a, b in self.edges if name in (a, b)]
            self.network.graph[name] = neighbours
            self.servers[name] = Server(self.world, self.network, name, neighbours, self.ask_at_once)
        self._connections = 0
        self.followers: list[SimulatedFollower] = []

    def _graph(self) -> list[Wire]:
        rng, plan = self.world.rng, self.plan
        names = [f"{chr(65 + number % 26)}{number // 26 or ''}" for number in range(plan.servers)]
        rng.shuffle(names)
        edges = [(names[number], names[rng.randrange(number)]) for number in range(1, plan.servers)]
        for _ in range(int(plan.extra_edges * plan.servers)):
            left, right = rng.sample(names, 2)
            if (left, right) not in edges and (right, left) not in edges:
                edges.append((left, right))
        return [(min(edge), max(edge)) for edge in edges]

    # Clients. ------------------------------------------------------------------------------------------------

    def connect(self, server: Server, *, http: bool = False) -> SimulatedClient:
        """Let a client connect to a server that is up; one that speaks HTTP, or any."""
        self._connections += 1
        name = f"{server.name}#{self._connections}"
        client: SimulatedClient
        match 1 if http else self._connections % 12:
            case 1:
                client = HttpClient(server, name)
            case 5:
                client = JsonClient(server, name)
            case 11:
                client = LineSocketClient(server, name)
            case turn:
                client = LineClient(server, name, tls=turn % 4 == 0)
        server.clients[name] = client
        return client

    def report(self, client: int | None = None) -> bytes:
        """Return a report, of this client or any, often at a time that others report for it too."""
        rng = self.world.rng
        whole, fraction = EPOCH + int(self.world.now), rng.choice(["", ".5", ".50", ".500000000", ".7"])
        whole -= rng.choice([0, 0, 0, 1])
        if client is None:
            client = rng.randrange(self.plan.clients)
        place = rng.choice(["+1+1", "-34.5+118"])
        return f"IAMAT c{client} {place} {whole}{fraction}".encode()

    def question(self) -> bytes:
        """Return a question."""
        rng = self.world.rng
        return b"WHATSAT c%d %d 5" % (rng.randrange(self.plan.clients), rng.choice([0, 10]))

    def erasure(self, client: int) -> bytes:
        """Return an erasure as it is noted here, perhaps only of who was not seen for a while."""
        rng = self.world.rng
        line = b"FORGET c%d" % client
        if rng.random() < 0.7:
            return line
        ago = rng.choice([1.0, 0.25 * self.plan.tombstone_seconds]) * rng.random()
        return b"%b %d.%09d" % (
            line,
            *divmod(self.world.posix - self.plan.skew - int(ago * SECOND) - 1, SECOND),
        )

    def nonsense(self) -> bytes:
        """Return an invalid command."""
        return b"WHEREIS c%d" % self.world.rng.randrange(self.plan.clients)

    def say(self, server: Server, *lines: bytes) -> None:
        """Let a client of a server say this and perhaps more, in one piece or in two, and then perhaps leave."""
        rng, plan = self.world.rng, self.plan
        if not server.up or server.stops:
            return
        erases = lines[0].startswith(b"FORGET")
        speaking = [
            one
            for one in server.clients.values()
            if not (one.gone or one.has_said_all) and (isinstance(one, HttpClient) or not erases)
        ]
        client = (
            rng.choice(speaking) if speaking and rng.random() < 0.7 else self.connect(server, http=erases)
        )
        if rng.random() < 0.25:
            more = self.report, self.report, self.question, self.question, self.nonsense
            lines += tuple(rng.choice(more)() for _ in range(rng.randint(1, 5)))
        data, asked = client.spell(lines)
        leaves = rng.random() < plan.leaving
        how = rng.choice(["half-closes", "breaks", "breaks in a wait", "reads nothing"]) if leaves else ""
        if how == "half-closes":
            client.has_said_all = True
            if isinstance(client, LineClient):
                data = data[: len(data) - rng.randint(0, 1)]  # perhaps without the last LF
        cut = rng.randint(0, len(data)) if rng.random() < 0.2 else len(data)
        seconds = max(client.clear_at - self.world.now, 0.0) + self.network.delay()
        server.later(seconds, client.say, data[:cut], asked)
        if cut < len(data):
            seconds += self.network.delay()
            server.later(seconds, client.say, data[cut:], ())
        client.clear_at = self.world.now + seconds
        if how == "half-closes":
            server.later(seconds, client.half_close)
        elif how == "reads nothing":
            server.later(seconds * rng.random(), client.stop_reading)
            server.later(seconds + rng.uniform(0, 0.5), client.read_on)
        elif how:
            server.later(seconds + rng.uniform(0, 0.3 if "wait" in how else 0.001), client.break_off)

    def ask_at_once(self, server: Server, client: bytes) -> None:
        """Perhaps let somebody ask about a client of whom a server has just learned."""
        rng = self.world.rng
        if rng.random() < self.plan.curious and not server.stops:
            asking, seconds = self.connect(server), rng.uniform(0, LEARNED_SECONDS)
            asking.clear_at = self.world.now + seconds
            server.later(seconds, asking.say, *asking.spell([b"WHATSAT %b 0 5" % client]))

    def erase(self) -> None:
        """Let a client be erased at a server that understands it, and perhaps report at others before they know it."""
        rng, servers = self.world.rng, list(self.servers.values())
        able, client = [one for one in servers if not one.is_old], rng.randrange(self.plan.clients)
        if able:
            self.say(rng.choice(able), self.erasure(client))
            for _ in range(rng.choice([0, 0, 1, 3])):
                seconds = 2 * self.plan.slowest * rng.random()
                self.world.after(seconds, lambda: self.say(rng.choice(servers), self.report(client)))

    # Followers. ----------------------------------------------------------------------------------------------

    def follow(
        self, commands: list[tuple[bytes, tuple[bytes, ...], Area | None, float]] | None = None
    ) -> None:
        """Let somebody follow clients and areas, at any server that is up; and look again later whether it still does."""
        rng, plan = self.world.rng, self.plan
        if commands is None:
            commands = [self._follow(number) for number in range(rng.randint(1, 3))]
        up = [server for server in self.servers.values() if server.up and not server.stops]
        if not up:
            self.world.after(0.1, self.follow, commands)
            return
        server = rng.choice(up)
        self._connections += 1
        follower = SimulatedFollower(
            server, f"{server.name}#{self._connections}", rng.choice([b"", b"", b"1"])
        )
        server.clients[follower.name] = follower
        self.followers.append(follower)
        sees = follower.sees if follower.unseen else None
        for name, clients, area, buffer in commands:
            follower.command(Follow(follower.follower, name, clients, area, buffer, sees))
        if rng.random() < 0.2:
            again = Follow(follower.follower, b"0", (b"c0",), None, 0.0, sees)
            server.later(rng.random() / 2, follower.command, Unfollow(follower.follower, b"0"))
            server.later(rng.random() / 2, follower.command, again)
        for _ in range(rng.choice([0, 1, 3]) if plan.leaving else 0):
            seconds = plan.seconds * rng.random()
            server.later(seconds, follower.stop_reading)
            server.later(seconds + rng.uniform(0, 0.5), follower.read_on)
        self.world.after(plan.seconds * rng.random(), self._look_after, follower, commands)

    def _follow(self, number: int) -> tuple[bytes, tuple[bytes, ...], Area | None, float]:
        rng = self.world.rng
        if rng.random() < 0.5:
            return b"%d" % number, (), rng.choice(AREAS), rng.choice([0.0, 50.0])
        some = rng.sample(range(self.plan.clients), rng.randint(1, self.plan.clients))
        return b"%d" % number, tuple(b"c%d" % client for client in some), None, 0.0

    def _look_after(self, follower: SimulatedFollower, commands: Any) -> None:
        """Let it follow at another server, if its own is no longer there, or sometimes."""
        if not follower.lost and self.world.rng.random() < 0.3:
            follower.break_off()
        if follower.lost:
            self.followers.remove(follower)
            self.follow(commands)
        elif self.world.now < self.plan.seconds:
            seconds = self.plan.seconds * self.world.rng.random()
            self.world.after(seconds, self._look_after, follower, commands)

    # Troubles. -----------------------------------------------------------------------------------------------

    def trouble(self) -> None:
        """One thing goes wrong."""
        rng = self.world.rng
        server, edge = rng.choice(list(self.servers.values())), rng.choice(self.edges)
        rng.choice(
            [
                *(self.crash_and_start,) * 3,
                self.stop_and_start,
                *(self.cut_link,) * 2,
                self.partition,
                *(self.break_connection,) * 2,
                *(self.break_all,) * 3,
                self.dial_again,
                self.stop_and_continue,
                *(self.fill_disk,) * 2,
                self.intrude,
                self.revoke,
            ]
        )(server, edge)

    def crash_and_start(self, server: Server, edge: Wire) -> None:
        rng = self.world.rng
        server.crash(rng.random() < 0.5)
        seconds = rng.choice([0.01, 0.1, 0.6, 2.0]) * rng.random()
        self.world.after(seconds, server.start)
        for _ in range(rng.choice([0, 4])):
            again = rng.random() * max(self.plan.replay_seconds / 2, 0.02)
            self.world.after(seconds + again, self.ask_again, server)

    def ask_again(self, server: Server) -> None:
        """Let a client that has lost its server come back at once, and ask about one that it has had an answer about."""
        if server.promised:
            self.say(server, b"WHATSAT %b 0 5" % self.world.rng.choice([*server.promised]))

    def stop_and_start(self, server: Server, _: Wire) -> None:
        server.stop()
        self.world.after(0.2 + self.world.rng.random(), server.start)

    def cut_link(self, _: Server, edge: Wire) -> None:
        rng = self.world.rng
        wires = rng.choice([[edge], [edge[::-1]], [edge, edge[::-1]]])
        seconds = rng.choice([0.02, 0.3, 2.5]) * rng.random()
        for wire in wires:
            self.network.cut(wire, seconds)

    def partition(self, _: Server, __: Wire) -> None:
        rng = self.world.rng
        part = set(rng.sample(list(self.servers), rng.randint(1, len(self.servers))))
        seconds = rng.choice([0.3, 3.0]) * rng.random()
        for left, right in self.edges:
            if (left in part) != (right in part):
                self.network.cut((left, right), seconds)
                self.network.cut((right, left), seconds)

    def break_connection(self, server: Server, _: Wire) -> None:
        """One end, or both, find it broken; the other may believe in it for long."""
        rng = self.world.rng
        if server.up and server.ends:
            end = rng.choice(server.ends)
            for broken in rng.choice([[end], [end, end.other]]):
                self._lose(broken)

    def break_all(self, server: Server, _: Wire) -> None:
        """A server loses all its links at once, so that many walks begin together."""
        for end in tuple(server.ends) if server.up else ():
            self._lose(end)
            self._lose(end.other)

    def _lose(self, end: End) -> None:
        if end.lives:
            assert end.server is not None
            end.server.now_or_later(end.lose)

    def dial_again(self, _: Server, edge: Wire) -> None:
        dialler = self.servers[edge[0]]
        if dialler.up and not dialler.replays:
            dialler.now_or_later(self.network.dial, dialler, edge[1], None)

    def back_up(self) -> None:
        """Copy a server's journal, and put the copy in its place some time later."""
        rng = self.world.rng
        server = rng.choice(list(self.servers.values()))
        if server.disk.kind != "none":
            self.world.after(
                self.plan.seconds * rng.random(), self.put_back, server, list(server.disk.records)
            )

    def put_back(self, server: Server, backup: list[bytes]) -> None:
        if self.world.now < self.plan.seconds:
            server.crash(False)
            if server.life:
                server.lose_journal(backup)
            self.world.after(self.world.rng.random() / 2, server.start)

    def go_away(self) -> None:
        """Let a server be away for about as long as it is known that clients were erased, and the others not be cut apart by
        that: what is erased reaches all who are there.
        """
        rng = self.world.rng
        server = rng.choice(list(self.servers.values()))
        if not self._is_connected_without(server):
            return
        server.crash(rng.random() < 0.5)
        server.away_until = self.world.now + self.plan.tombstone_seconds * rng.uniform(0.8, 1.3)
        self.world.after(server.away_until - self.world.now, server.start)

    def cut_off(self) -> None:
        """Let a server without which the others are linked have no link for longer than it is known that clients were erased,
        or nearly. It has clients meanwhile, as the others have; the others erase some.
        """
        rng, world, servers = self.world.rng, self.world, self.servers
        able = [name for name in servers if len(servers) > 2 and self._are_linked_without(name)]
        if not able:
            return
        name = rng.choice(able)
        seconds, others = self.plan.tombstone_seconds * rng.uniform(0.8, 1.4), [*servers.values()]
        others.remove(servers[name])
        self.network.isolated = name
        world.say(f"{name} is cut off for {seconds:.3f} s")
        for client in range(self.plan.clients):
            if rng.random() < 0.3:
                line = b"FORGET c%d" % client
                world.after(2.0 + 0.1 * seconds * rng.random(), self.say, rng.choice(others), line)
            if rng.random() < 0.3:
                server = rng.choice([servers[name], *others[:1]])
                world.after(
                    seconds * rng.random(), lambda it=server, of=client: self.say(it, self.report(of))
                )
        world.run_until(world.now + seconds)
        self.network.isolated = ""
        world.say(f"{name} has links again")
        self.network.release_all()

    def _are_linked_without(self, name: str) -> bool:
        """Whether the other servers are linked with each other, directly or not."""
        left = {one for one in self.servers if one != name}
        reached = {next(iter(left))}
        while more := {
            one for edge in self.edges for one in edge if one in left - reached and reached & {*edge}
        }:
            reached |= more
        return reached == left

    def fill_disk(self, server: Server, _: Wire) -> None:
        server.disk.full_until = self.world.now + self.world.rng.random()

    def stop_and_continue(self, server: Server, _: Wire) -> None:
        server.stall(self.world.rng.choice([0.01, 0.2, 2.0]) * self.world.rng.random())

    def revoke(self, server: Server, _: Wire) -> None:
        """A server learns that a neighbour has lost its certificate; the neighbour has another one when it is dialled again."""
        if server.up and server.ends:
            server.now_or_later(server.revoke, self.world.rng.choice(server.ends))

    def intrude(self, _: Server, edge: Wire) -> None:
        self.network.intrude(edge[0], self.servers[edge[1]])

    def _is_connected_without(self, away: Server) -> bool:
        """Whether those who are there would still reach one another if this one were away too."""
        there = {
            name: server
            for name, server in self.servers.items()
            if server is not away and server.away_until <= self.world.now
        }
        reached = set[str]()
        ahead = [*there][:1]
        while ahead:
            name = ahead.pop()
            if name not in reached:
                reached.add(name)
                ahead += [one for one in there[name].neighbours if one in there]
        return len(reached) == len(there)

    # The run. ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        world, rng, plan = self.world, self.world.rng, self.plan
        servers = list(self.servers.values())
        for server in servers:
            world.after(rng.choice([0.0, 0.2, plan.seconds]) * rng.random(), server.start)
        for count, seconds, what in (
            (plan.preloaded, 0.2, self.report),
            (plan.reports, plan.seconds, self.report),
            (plan.questions, plan.seconds, self.question),
        ):
            for _ in range(count):
                world.after(seconds * rng.random(), lambda what=what: self.say(rng.choice(servers), what()))
        for count, act in (
            (plan.erasures, self.erase),
            (plan.restores, self.back_up),
            (plan.absences, self.go_away),
        ):
            for _ in range(count):
                world.after(plan.seconds * rng.random(), act)
        for _ in range(plan.followers):
            world.after(plan.seconds * rng.random(), self.follow)
        for _ in range(plan.troubles):
            world.after(plan.seconds * rng.random(), self.trouble)
        world.run_until(plan.seconds)
        self.heal()
        world.run_until(max(world.now, *(server.away_until for server in servers)))
        self.heal()
        self.wait_for_agreement()
        if plan.cuts_off:
            self.cut_off()
            self.wait_for_agreement(links=2)
        if plan.absences:
            world.run_until(world.now + FORGOTTEN * plan.tombstone_seconds)
            self.wait_for_agreement()
        self.judge()

    def wait_for_agreement(self, links: int = 1) -> None:
        """Let all agree. `links`: how often a link may have to be made: a server that was lost for long closes its first.
        What is learned last still passes through the whole herd: with the delay of a link, and a sync, at each server.
        """
        world, plan = self.world, self.plan
        patience = HEAL_SECONDS * links + plan.servers * (plan.slowest + plan.disk_seconds)
        healed = world.now
        while not self.agreed() or world.now < max(self.laws.last_flood, healed) + QUIET_SECONDS:
            if world.now >= healed + patience and not self.agreed():
                world.broken(f"{patience:g} s after all is well the servers differ: {self.difference()}")
            if world.now >= healed + patience + QUIET_SECONDS:
                world.broken("a flood does not end")
            world.run_until(world.now + 0.1)

    def heal(self) -> None:
        """Let the network be whole, all servers up and upgraded, and all clients read."""
        self.world.say("all is well from now on")
        self.network.heal()
        for server in self.servers.values():
            if server.up and (server.stops or server.is_old):
                server.crash(False)
            server.is_old = False
            server.start()
            server.disk.full_until = self.world.now
        for follower in self.followers:
            follower.read_on()
        self.network.release_all()

    def agreed(self) -> bool:
        """Whether all journals are replayed, all tables equal, and all that was said to servers that are ready is
        answered and logged.
        """
        first, *rest = self.servers.values()
        return (
            not any(server.replays for server in self.servers.values())
            and all(one.table.greatest == first.table.greatest for one in rest)
            and all(self.remembered(one) == self.remembered(first) for one in rest)
            and not self.unsettled()
        )

    def remembered(self, server: Server) -> dict[bytes, int]:
        """Return the tombstones that no server has forgotten yet."""
        oldest = self.world.posix - server.keep + self.plan.skew
        return {client: until for client, until in server.table.gone_until.items() if until > oldest}

    def unsettled(self) -> list[str]:
        """Return the clients who wait, and those who have left and are not logged yet."""
        return [
            client.name
            for server in self.servers.values()
            if server.node.ready
            for client in server.clients.values()
            if client.waits or client.unlogged
        ]

    def difference(self) -> str:
        """Return what the servers do not agree about, and who waits."""
        clients = sorted({client for server in self.servers.values() for client in server.table.greatest})
        lines = [f"{name} waits" for name in self.unsettled()]
        for client in clients:
            held = {
                name: one.table.greatest.get(client, (0, b"nothing"))[1] for name, one in self.servers.items()
            }
            if len(set(held.values())) > 1:
                lines.append(", ".join(f"{name} has {line.decode()}" for name, line in held.items()))
        gone = {name: self.remembered(server) for name, server in self.servers.items()}
        if len({tuple(sorted(one.items())) for one in gone.values()}) > 1:
            lines.append(f"tombstones: {gone}")
        return "; ".join(lines)

    def judge(self) -> None:
        """What must hold at the end on every server."""
        broken = self.world.broken
        for follower in self.followers:
            follower.judge()
        for server in self.servers.values():
            held = {client: (entry.nanoseconds, entry.line) for client, entry in server.table}
            if held != server.table.greatest:
                broken(f"{server.name} does not hold the greatest that it ever held")
            if b"forged" in held:
                broken(f"{server.name} believed a stranger")
            self.laws.erasures.judge(server)
            waits = server.node.news or any(end.link.out or end.link.spare for end in server.live_ends)
            if waits and not server.disk.syncs:
                broken(f"{server.name} has something to tell its neighbours, and is at rest")
            if server.disk.kind != "none" and not server.disk.has_failed:
                there = server.disk.records.keys() | {*server.engine._unkept}
                lost = [line for _, line in held.values() if line not in there]
                if lost:
                    broken(f"{server.name} holds what its journal lacks: {lost}")
            if len(server.table) != len(held):
                broken(f"{server.name} counts {len(server.table)} clients and holds {len(held)}")
            if (
                sorted(server.node.linked) != sorted(server.neighbours)
                and self.world.now > self.plan.seconds + HEAL_SECONDS
            ):
                broken(f"{server.name} is linked with {list(server.node.linked)} only")


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
            trace = "\n".join(herd.world.trace or ())
            raise LawBroken(f"{error}\nplan: {plan}\nedges: {herd.edges}\n{trace}") from None
        raise LawBroken(f"seed {seed} does not reproduce: a run hangs on more than its seed") from None
