"""The updates of the status page: one a second, made once, and sent to all viewers.

Without viewers, nothing is asked, counted or kept, except for a sample of this server's figures every ten seconds. The number of viewers is limited, and one that does not read is
disconnected. Commands and clients' locations are sent only to viewers that may see them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, Final

import msgspec

from proxyherd.admin.status_page.density import Density, place
from proxyherd.admin.status_page.hour import SAMPLE_SECONDS, Hour, Sample
from proxyherd.admin.status_page.others import Others, known
from proxyherd.admin.status_page.own_state import OwnState, StatusSource
from proxyherd.admin.status_page.rates import History, added, quantile
from proxyherd.admin.status_page.state import ServerState
from proxyherd.admin.status_page.troubles import Silence, Troubles
from proxyherd.config.herd_file import Herd
from proxyherd.core.table import Table
from proxyherd.telemetry.observer import Observer
from proxyherd.telemetry.recent import MOST_KEPT, Command

MAX_VIEWERS: Final = 32

_EVERY_SECONDS: Final = 1.0
_FIRST_SECONDS: Final = 0.2
"""The time from the first viewer to its first update: most of the other servers have answered by then."""

_SLICE_SECONDS: Final = 0.5
"""The interval of slices of a sweep over the table, which take 2 ms each."""

_FIRST_SLICE_SECONDS: Final = 0.2
"""The same while there is no map yet: it counts 100,000 clients in about fifteen seconds."""

_TOLD_SLICES: Final = 10
"""After this many slices, the first sweep shows its counts so far."""

_REST_SECONDS: Final = 1.0
"""The pause between two sweeps."""

_WANTED_SECONDS: Final = 10.0
"""How long commands are kept after the last viewer has left."""

_MOST_WAITING: Final = 5
"""Updates that wait for a viewer that does not read."""

_encode: Final = msgspec.json.Encoder().encode


def event(name: str, data: object) -> bytes:
    """Return a server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode(data))


class Viewer:
    """A viewer. `personal`: whether it may see commands and clients' locations."""

    def __init__(self, *, personal: bool) -> None:
        self.personal = personal
        self.cut = False
        self._waiting: deque[bytes] = deque()
        self._told = asyncio.Event()

    def send(self, data: bytes) -> None:
        """Queue an update; if too many wait, disconnect the viewer."""
        if len(self._waiting) >= _MOST_WAITING:
            self.end()
        self._waiting.append(data)
        self._told.set()

    def end(self) -> None:
        """Send it nothing more."""
        self.cut = True
        self._told.set()

    async def next(self) -> bytes:
        """Return the next update; b"" when it is disconnected."""
        await self._told.wait()
        self._told.clear()
        if self.cut:
            return b""
        data = b"".join(self._waiting)
        self._waiting.clear()
        return data


class HerdWatch:
    """Watches the herd for all viewers of one server's page."""

    def __init__(
        self, herd: Herd, server: str, status: StatusSource, observer: Observer, table: Table | None
    ) -> None:
        self.own = OwnState(herd.file, server, status, observer)
        self.viewers: set[Viewer] = set()
        self._herd = herd
        self._server = server
        self._observer = observer
        self._recent = observer.recent
        self._table = table
        self._others = Others(herd, server, lambda: self._personal)
        self._tasks: list[asyncio.Task[None]] = []
        self._hour = Hour()
        self._sampling: asyncio.Task[None] | None = None
        self._forget: asyncio.TimerHandle | None = None
        self._closing = asyncio.Lock()
        self._start_anew()

    def _start_anew(self) -> None:
        self._history = History()
        self._troubles = Troubles()
        self._forget_commands()
        self._density = Density(self._table)
        self._herd_event = b""

    def _forget_commands(self) -> None:
        self._number = self._recent.number - len(self._recent)  # of the last own command that was shown
        self._commands: deque[tuple[str, Command]] = deque(maxlen=MOST_KEPT)

    def start(self) -> None:
        """Begin to sample this server's figures."""
        self._sampling = asyncio.get_running_loop().create_task(self._guard(self._keep_sampling))

    async def _keep_sampling(self) -> None:
        while True:
            sample = self._hour.add(self.own.fresh(), time.time())
            if sample is not None:
                self._send(_of_hour([sample]), b"")
            await asyncio.sleep(SAMPLE_SECONDS)

    # Viewers. ------------------------------------------------------------------------------------------------

    async def open(self, *, personal: bool) -> Viewer | None:
        """Add a viewer; return None if there are as many as allowed."""
        async with self._closing:  # until the tasks of the previous viewers have ended
            if len(self.viewers) >= MAX_VIEWERS:
                return None
            if not self._tasks:
                self._start()
            viewer = Viewer(personal=personal)
            self.viewers.add(viewer)
        viewer.send(self._herd_event + _of_hour(self._hour.samples))
        if personal:
            self.want_commands()
            viewer.send(
                event("commands", self._told(self._commands, 0)) + event("cells", self._density.cells())
            )
        return viewer

    async def close(self, viewer: Viewer) -> None:
        """Remove a viewer; after the last one, forget everything that was kept for viewers."""
        self.viewers.discard(viewer)
        async with self._closing:
            if not self.viewers and self._tasks:
                await self._stop()

    async def end(self) -> None:
        """Remove all viewers and take no more samples, because the server stops."""
        if self._sampling is not None:
            self._sampling.cancel()
            await asyncio.gather(self._sampling, return_exceptions=True)
        for viewer in tuple(self.viewers):
            viewer.end()
        self.viewers.clear()
        async with self._closing:
            await self._stop()

    def want_commands(self) -> None:
        """Keep the latest commands for a while, because somebody views them."""
        self._recent.wanted = True
        if self._forget is not None:
            self._forget.cancel()
        self._forget = asyncio.get_running_loop().call_later(_WANTED_SECONDS, self._recent.forget)

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._start_anew()
        self._publish()
        self._others.start()
        work = (self._keep_publishing, self._keep_counting)
        self._tasks = [loop.create_task(self._guard(one)) for one in work]

    async def _guard(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """After a bug in the program, disconnect the viewers, which then connect again; nothing else ends."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - for the log
            self._observer.fault("the status page cannot be made", error)
            for viewer in self.viewers:
                viewer.end()

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._others.stop()
        self._start_anew()

    @property
    def _personal(self) -> bool:
        return any(viewer.personal for viewer in self.viewers)

    # What they get. ------------------------------------------------------------------------------------------

    async def _keep_publishing(self) -> None:
        await asyncio.sleep(_FIRST_SECONDS)
        while True:
            self._publish()
            await asyncio.sleep(_EVERY_SECONDS)

    def _publish(self) -> None:
        self._history.add(self.own.state())
        self._herd_event = event("herd", self._herd_now())
        personal = b""
        if self._personal:
            self.want_commands()
            personal = self._new_commands() + self._pings()
        else:
            self._forget_commands()
        self._send(self._herd_event, personal)

    def _send(self, everybody: bytes, personal: bytes) -> None:
        both = everybody + personal
        for viewer in tuple(self.viewers):
            if data := both if viewer.personal else everybody:
                viewer.send(data)

    async def _keep_counting(self) -> None:
        slices, sent = 0, b""
        while True:
            await asyncio.sleep(_SLICE_SECONDS if self._density.counted else _FIRST_SLICE_SECONDS)
            if not self._personal:
                continue
            slices += 1
            ended = self._density.slice()
            if ended or (not self._density.counted and slices % _TOLD_SLICES == 0):
                cells = event("cells", self._density.cells())
                if cells != sent:
                    self._send(b"", cells)
                sent = cells
            if ended:
                await asyncio.sleep(_REST_SECONDS)

    def _new_commands(self) -> bytes:
        """Return the commands of all servers since the last time; only the last ones if there are too many."""
        own = self._recent.commands(self._number, MOST_KEPT)
        left_out, self._number = self._recent.number - self._number - len(own), self._recent.number
        commands = [(self._server, one) for one in own]
        for other in self._others:
            commands += [(other.name, one) for one in other.commands]
            left_out += other.missed
            other.commands, other.missed = [], 0
        commands.sort(key=lambda one: one[1].at)
        shown = commands[-MOST_KEPT:]
        self._commands.extend(shown)
        return event("commands", self._told(shown, left_out + len(commands) - len(shown))) if shown else b""

    @staticmethod
    def _told(commands: Iterable[tuple[str, Command]], left_out: int) -> dict[str, object]:
        return {"commands": list(commands), "left_out": left_out}

    def _pings(self) -> bytes:
        clients, table = self._recent.take_clients(), self._table
        entries = [table.get(client) for client in clients] if table is not None else []
        places = [place(entry.line) for entry in entries if entry is not None]
        if not places:
            return b""
        return event("pings", [[round(latitude, 3), round(longitude, 3)] for latitude, longitude in places])

    def _herd_now(self) -> dict[str, object]:
        now = asyncio.get_running_loop().time()
        states: dict[str, ServerState] = {}
        servers: dict[str, dict[str, Any]] = {}
        silences: dict[str, Silence] = {}
        histories = [self._history]
        if (own := self._history.last) is not None:
            states[self._server] = own
            servers[self._server] = _figures(own, self._history)
        for other in self._others:
            if (state := known(other, now)) is not None:
                states[other.name] = state
                servers[other.name] = _figures(state, other.history)
                histories.append(other.history)
            else:
                servers[other.name] = {"known": False, "reason": other.problem or "no answer"}
                if other.asked:
                    silences[other.name] = Silence(other.silent)
        return {
            "time": round(time.time(), 3),
            "server": self._server,
            "servers": [{"name": name, **servers[name]} for name in self._herd.servers],
            "edges": [[*edge, _edge(edge, states)] for edge in self._herd.edges],
            "troubles": self._troubles.now(self._herd.edges, states, silences, now),
            "places": _percentiles(histories),
        }


def _of_hour(samples: Iterable[Sample]) -> bytes:
    return event("hour", [*samples])


def _figures(state: ServerState, history: History) -> dict[str, Any]:
    """Return what the page shows of one server."""
    return {
        "known": True,
        "ready": state.ready,
        "reason": state.reason,
        "version": state.version,
        "uptime": state.uptime,
        "clients": state.clients,
        "connections": state.connections,
        "protocols": state.protocols,
        "answered": state.answered,
        "mended": state.mended,
        "rates": {
            name: round(history.rate(name), 1) for name in ("answered", "invalid", "floods_in", "floods_out")
        },
        "links": state.links,
        "link_seconds": state.link_seconds,
        "places_by": state.places_by,
        "places": _percentiles([history]),
        "lag": _rounded(quantile(history.grown("lag"), 0.99)),
    }


def _percentiles(histories: Iterable[History]) -> dict[str, object]:
    """Return the percentiles of the seconds that queries for places took in the last minute."""
    grown = added([history.grown("places") for history in histories])
    p50, p95 = (_rounded(quantile(grown, part)) for part in (0.5, 0.95))
    return {"queries": grown.counts[-1], "p50": p50, "p95": p95}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _edge(edge: tuple[str, str], states: dict[str, ServerState]) -> str:
    """Return the worse of the states that the two ends of a link report; unknown if neither reports one."""
    said = set(_ends(edge, states))
    return next((state for state in ("cut", "catching up", "live") if state in said), "unknown")


def _ends(edge: tuple[str, str], states: dict[str, ServerState]) -> Iterator[str]:
    for name, neighbour in (edge, edge[::-1]):
        if (state := states.get(name)) is not None and (link := state.links.get(neighbour)) is not None:
            yield link
