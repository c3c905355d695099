"""The network between servers: it delays, cuts one way, doubles connections, breaks them, and lets strangers in."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from unittest.mock import patch

from proxyherd.base.backoff import backoff
from proxyherd.core import handshake
from proxyherd.core.framing import Overlong
from proxyherd.core.handshake import NONCE_BYTES, OLD_VERSION, State, Terms
from proxyherd.core.link import Link
from proxyherd.core.messages import NANOSECONDS
from proxyherd.core.peer_messages import LinkEvent, Misspoken
from proxyherd.engines.herd.peers import FIRST_PAUSE_SECONDS
from simulation.laws import Laws
from simulation.world import SimulatedWorld

if TYPE_CHECKING:
    from simulation.servers import Server

SECRET, WRONG_SECRET = b"s" * 32, b"w" * 32

Wire = tuple[str, str]


class WatchedLink(Link):
    """The real link, which also tells what was flooded over it."""

    end: End

    def send_updates(self, lines: bytes) -> None:
        self.end.network.laws.flooded(self.end, lines)
        super().send_updates(lines)

    def send_spare(self) -> None:
        self.end.network.laws.flooded(self.end, b"\n".join([*self.spare, b""]))
        super().send_spare()

    def close(self, reason: str) -> None:
        if isinstance(sys.exception(), Misspoken):
            self.end.network.laws.misspoken(self.end, reason)
        super().close(reason)

    def send_batch(self, first: int, following: int, lines: list[bytes]) -> None:
        server = self.end.server
        assert server is not None
        for line in lines:
            server.laws.erasures.told_line(server, line, self)
        super().send_batch(first, following, lines)


class OldLink(WatchedLink):
    """A link of a server that speaks version 1."""

    def __init__(self, terms: Terms, *, dial: str | None, nonce: bytes, now: float, takes_old: bool) -> None:
        with patch.object(handshake, "VERSIONS", (OLD_VERSION,)):
            super().__init__(terms, dial=dial, nonce=nonce, now=now)

    def _shake(self, line: bytes | Overlong, clock: int) -> list[LinkEvent]:
        with patch.object(handshake, "VERSIONS", (OLD_VERSION,)):
            return super()._shake(line, clock)


class End:
    """One end of a connection, as a turn knows it, and the bytes on their way from here to the other end."""

    def __init__(self, network: Network, server: Server | None, link: WatchedLink) -> None:
        self.network = network
        self.server = server  # None: a stranger's
        self.life = server.life if server else 0
        self.link = link
        link.end = self
        self.other: End
        self.queued = False  # heard something not acted upon
        self.closing = False  # the socket is told to close
        self.gone = False  # the socket is closed
        self.has_ended = False  # and all that came over it was heard
        self.clear_at = 0.0  # nothing sent later may arrive before this
        self.held: list[bytes | None] = []  # what a cut holds back; None: the end of the stream
        self.redial: Callable[[bool], None] | None = None

    @property
    def name(self) -> str:
        return self.server.name if self.server else "stranger"

    @property
    def wire(self) -> Wire:
        return self.name, self.other.name

    @property
    def lives(self) -> bool:
        """Whether the server of this end is still in the life in which it was made."""
        return self.server is not None and self.server.up and self.server.life == self.life

    def heard(self) -> None:
        """All that has arrived was heard: end the link if the connection is gone."""
        if not self.gone or self.has_ended:
            return
        server = self.server
        assert server is not None
        self.has_ended = True
        server.world.say(
            f"{self.name}'s connection with {self.other.name} ends: {self.link.reason or 'lost'}"
        )
        self.link.receive_eof()
        server.node.closed(self.link)
        server.ends.remove(self)
        server.engine.remove_link(self)
        if self.redial is not None:
            self.redial(self.link.proved)

    def release(self, now: float) -> None:
        """Write what the link has to send; end the connection if the link has ended."""
        if self.closing or self.gone:
            return
        network, server = self.network, self.server
        assert server is not None
        if data := self.link.data_to_send(now):
            network.send(self, data)
            if sum(len(one or b"") for one in self.held) > network.world.plan.queue_bytes:
                self.link.close("too much waits for it")
        if self.link.state is State.CLOSED:
            server.node.closed(self.link)
            self.closing = True
            network.notify(self)
            server.later(0.0, self.lose)

    def fail(self, error: Exception) -> None:
        self.network.world.broken(f"work for {self.name}'s link with {self.other.name} has raised {error!r}")

    def receive(self, data: bytes) -> None:
        if not self.gone and not self.closing:
            server = self.server
            assert server is not None
            if not server.engine.hear_few(self, data, server.now, server.clock):
                self.link.receive_data(data, server.now)
                server.engine.peer_said(self)

    def lose(self) -> None:
        """The socket of this end is closed, or broke: what has arrived is still heard."""
        if not self.gone:
            self.gone = True
            assert self.server is not None
            self.server.engine.peer_said(self)


class Network:
    """The connections of one run."""

    def __init__(self, world: SimulatedWorld, laws: Laws) -> None:
        self.world = world
        self.laws = laws
        self.servers: dict[str, Server] = {}
        self.graph: dict[str, list[str]] = {}  # the neighbours of each server
        self._recorded: dict[str, bytes] = {}  # what the last dialler of a server said, for who replays it
        self._cuts: dict[Wire, int] = {}
        self._healed = False
        self.isolated = ""  # the server all of whose wires are cut, until that is changed

    # Connecting. ---------------------------------------------------------------------------------------------

    def pauses(self) -> Iterator[float]:
        return backoff(FIRST_PAUSE_SECONDS, self.world.timing.backoff_seconds, self.world.rng)

    def dial(self, server: Server, neighbour: str, pauses: Iterator[float] | None) -> None:
        """Try to connect; where `pauses` is None, once, beside whatever connection there is."""
        wire = server.name, neighbour
        if self.is_cut(wire) or self.is_cut(wire[::-1]):
            if pauses is not None:
                pause = self.world.timing.handshake_seconds + next(pauses)
                server.later(pause, self.dial, server, neighbour, pauses)
            return
        server.later(2 * self.delay(), self._connect, server, neighbour, pauses)

    def _connect(self, server: Server, neighbour: str, pauses: Iterator[float] | None) -> None:
        def again(was_live: bool) -> None:
            if pauses is not None:
                pause, fresh = (0.0, self.pauses()) if was_live else (next(pauses), pauses)
                server.later(pause, self.dial, server, neighbour, fresh)

        other = self.servers[neighbour]
        if not other.up or other.replays:
            again(False)
            return
        near = End(self, server, self._link(server, neighbour))
        near.redial = again
        self._join(near, other)

    def _join(self, near: End, other: Server) -> None:
        far = End(self, other, self._link(other, None))
        near.other, far.other = far, near
        for end in (near, far):
            if end.server is not None:
                end.server.ends.append(end)
                end.server.engine.add_link(end)
        self.world.say(f"{near.name} connects to {far.name}")

    def _link(self, server: Server, dial: str | None, terms: Terms | None = None) -> WatchedLink:
        nonce = next(self.world.nonces).to_bytes(NONCE_BYTES, "big")
        kind = OldLink if server.is_old and terms is None else WatchedLink
        takes_old = not server.table.gone
        return kind(terms or server.terms, dial=dial, nonce=nonce, now=server.now, takes_old=takes_old)

    # Bytes. --------------------------------------------------------------------------------------------------

    def delay(self) -> float:
        slow = 10.0 if self.world.rng.random() < 0.05 else 1.0
        return self.world.rng.uniform(0.01, 0.1) * self.world.plan.slowest * slow

    def send(self, end: End, data: bytes | None) -> None:
        """Put bytes on their way, or the end of the stream; they arrive in order."""
        world, other = self.world, end.other.name
        if world.trace is not None and data != b"BEAT\n":
            world.say(f"{end.name} -> {other}: {_shown(data)}")
        if end.link.dialled and data and end.server and len(self._recorded.get(other, b"")) < 1_000:
            self._recorded[other] = self._recorded.get(other, b"") + data
        end.clear_at = max(end.clear_at, world.now + self.delay())
        world.at(end.clear_at, self._arrive, end, data)

    def notify(self, end: End) -> None:
        """Tell the other end that this one has ended: soon, late, or never."""
        rng = self.world.rng
        if rng.random() < self.world.plan.notices:
            if rng.random() < 0.3:
                end.clear_at = max(end.clear_at, self.world.now + rng.uniform(0, 1))
            self.send(end, None)

    def _arrive(self, end: End, data: bytes | None) -> None:
        if end.held or self.is_cut(end.wire):
            end.held.append(data)
        else:
            self._deliver(end.other, data)

    def _deliver(self, end: End, data: bytes | None) -> None:
        server = end.server
        if server is None:
            self._stranger_hears(end, data)
        elif end.gone or not end.lives:
            if data is not None and server.up and not end.other.gone:
                self.notify(end)  # a reset
        elif data is None:
            server.now_or_later(end.lose)
        else:
            server.now_or_later(end.receive, data)

    # Troubles. -----------------------------------------------------------------------------------------------

    def is_cut(self, wire: Wire) -> bool:
        return self._cuts.get(wire, 0) > 0 or self.isolated in wire

    def cut(self, wire: Wire, seconds: float) -> None:
        """Hold back all that goes this way, for so long."""
        self.world.say(f"{wire[0]} -> {wire[1]} is cut for {seconds:.3f} s")
        self._cuts[wire] = self._cuts.get(wire, 0) + 1
        self.world.after(seconds, self._mend, wire)

    def _mend(self, wire: Wire) -> None:
        if self._healed:
            return
        self._cuts[wire] -= 1
        if not self._cuts[wire]:
            for end in self.all_ends():
                if end.wire == wire and end.held:
                    self._release_held(end)

    def heal(self) -> None:
        """Be whole from now on."""
        self._healed = True
        self._cuts.clear()

    def release_all(self) -> None:
        """Let go of what cuts have held back."""
        for end in self.all_ends():
            self._release_held(end)

    def _release_held(self, end: End) -> None:
        held, end.held = end.held, []
        for data in held:
            self._deliver(end.other, data)  # at once: it was sent before what is on its way

    def all_ends(self) -> list[End]:
        """All ends of connections that at least one living server knows."""
        ends: dict[int, End] = {}
        for server in self.servers.values():
            for end in server.ends if server.up else ():
                ends[id(end)] = end
                ends[id(end.other)] = end.other
        return list(ends.values())

    # Strangers. ----------------------------------------------------------------------------------------------

    def intrude(self, name: str, target: Server) -> None:
        """Connect as a neighbour without its secret: with a wrong one, or with what the neighbour once said."""
        replay = self.world.rng.random() < 0.5
        if not target.up or target.replays:
            return
        timing = self.world.timing
        terms = Terms(
            name=name,
            neighbours=frozenset([target.name]),
            secrets=(WRONG_SECRET,),
            line_bytes=8_448,
            lead=NANOSECONDS,
            fingerprint=b"0" * 16,
            heartbeat=timing.heartbeat_seconds,
            handshake=timing.handshake_seconds,
            depth=self.world.plan.depth,
        )
        near = End(self, None, self._link(target, target.name, terms))
        self._join(near, target)
        said = self._recorded.get(target.name, b"") if replay else near.link.data_to_send(self.world.now)
        self.send(near, said + b"AT Forger +0.000000000 forged +1+1 5\n")

    def _stranger_hears(self, end: End, data: bytes | None) -> None:
        if data is None or end.gone:
            end.gone = True
            return
        end.link.receive_data(data, self.world.now)
        end.link.events(1_000)
        if said := end.link.data_to_send(self.world.now):
            self.send(end, said)


def _shown(data: bytes | None) -> str:
    if data is None:
        return "(end)"
    lines = data.decode("latin-1").splitlines()
    shown = " | ".join(line if len(line) < 90 else f"{line[:80]}..." for line in lines[:6])
    return shown + (f" | and {len(lines) - 6} lines" if len(lines) > 6 else "")
