"""What one server says of itself at /state, for the status pages of the whole herd.

Totals, not rates: whoever asks twice can tell how fast they grow, and nobody has to keep anything. What another server
says is untrusted: `read` gives back what has the right shape and size, and None for anything else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Annotated, Final, Literal, Protocol

import msgspec
from msgspec import Meta, Struct
from prometheus_client.metrics import MetricWrapperBase

from proxyherd import __version__
from proxyherd.base.escapes import visible
from proxyherd.telemetry.observer import Observer
from proxyherd.telemetry.recent import MOST_KEPT, SHOWN_BYTES, Command

MAX_BYTES: Final = 262_144
"""Of a server's state. With `MOST_COMMANDS` of the longest it is some 150 KiB."""

MOST_COMMANDS: Final = 50
"""Commands in one state: to be asked once a second, they are a glimpse of a busy server and all of a quiet one."""

_LONGEST: Final = 12 * SHOWN_BYTES
"""Characters of a command as it is shown: a byte may be escaped."""

LinkState = Literal["live", "catching up", "cut"]

_Name = Annotated[str, Meta(max_length=63)]
_Text = Annotated[str, Meta(max_length=1_024)]
_Count = Annotated[int, Meta(ge=0, le=1 << 53)]  # what a page's numbers hold
_Seconds = Annotated[float, Meta(ge=0, le=1e12)]
_Counts = Annotated[list[_Count], Meta(max_length=64)]


class Histogram(Struct, frozen=True):
    """Bounds in seconds, and how many observations were within each; the last bound is infinity and not among them."""

    bounds: Annotated[list[_Seconds], Meta(max_length=63)]
    counts: _Counts


class ServerState(Struct, frozen=True):
    """One server. `life` is another after each start. `commands` is None where the asker may not see them; `cursor`
    is what to ask with the next time, for those behind.
    """

    server: _Name
    life: Annotated[str, Meta(max_length=32)]
    version: Annotated[str, Meta(max_length=64)]
    uptime: _Seconds
    ready: bool
    reason: _Text
    places_by: Annotated[str, Meta(max_length=64)]
    clients: _Count
    connections: _Count
    answered: _Count
    invalid: _Count
    floods_in: _Count
    floods_out: _Count
    mended: _Count
    links: Annotated[dict[_Name, LinkState], Meta(max_length=256)]
    places: Histogram
    lag: Histogram
    commands: list[Command] | None = None
    cursor: _Count = 0


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(ServerState).decode


def write_state(state: ServerState) -> bytes:
    """Return a state as JSON."""
    return _encode(state)


def read_state(data: bytes) -> ServerState | None:
    """Return the state that another server has sent; None if it is none."""
    if len(data) > MAX_BYTES:
        return None
    try:
        state = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    fits = all(_is_sane(histogram) for histogram in (state.places, state.lag))
    return _visible(state) if fits and _are_short(state.commands or ()) else None


def _visible(state: ServerState) -> ServerState:
    """Return a state in whose text nothing is hidden; one of ours is such already."""
    commands = state.commands and [
        Command(
            one.number,
            one.at,
            visible(one.kind),
            visible(one.outcome),
            visible(one.command),
            visible(one.answer),
        )
        for one in state.commands
    ]
    return msgspec.structs.replace(
        state,
        server=visible(state.server),
        version=visible(state.version),
        reason=visible(state.reason),
        places_by=visible(state.places_by),
        links={visible(name): link for name, link in state.links.items()},
        commands=commands,
    )


def _is_sane(histogram: Histogram) -> bool:
    return (
        len(histogram.counts) == len(histogram.bounds) + 1
        and histogram.bounds == sorted(histogram.bounds)
        and histogram.counts == sorted(histogram.counts)
    )


def _are_short(commands: Iterable[Command]) -> bool:
    commands = list(commands)
    return len(commands) <= MOST_KEPT and all(
        0 <= one.number < 1 << 53
        and 0 <= one.at < 1e12
        and max(map(len, (one.kind, one.outcome))) <= 32
        and max(map(len, (one.command, one.answer))) <= _LONGEST
        for one in commands
    )


class StatusSource(Protocol):
    """What is asked of a server."""

    def ready(self) -> tuple[bool, str]:
        """Return whether the server is ready, and the reason where it is not."""

    def refresh(self) -> None:
        """Bring the figures of the registry up to date that are not counted as things happen."""

    def places_by(self) -> str:
        """Return who answers what is near."""


class OwnState:
    """Says it of this server. What it says is kept for a moment, so that many askers cost little more than one."""

    _KEPT_SECONDS: Final = 0.2

    def __init__(self, server: str, status: StatusSource, observer: Observer) -> None:
        self._server = server
        self._status = status
        self._observer = observer
        self._life = secrets.token_hex(8)
        self._began = time.monotonic()
        self._kept: ServerState | None = None

    @property
    def life(self) -> str:
        """What tells this life of the server from others."""
        return self._life

    def state(self) -> ServerState:
        """Return the state, without commands."""
        uptime = time.monotonic() - self._began
        if self._kept is None or uptime - self._kept.uptime > self._KEPT_SECONDS:
            self._kept = self._look(uptime)
        return self._kept

    def with_commands(self, life: str, after: int) -> ServerState:
        """Return the state with the commands behind number `after` of that life."""
        recent = self._observer.recent
        commands = recent.commands(after if life == self._life else 0, MOST_COMMANDS)
        return msgspec.structs.replace(self.state(), commands=commands, cursor=recent.number)

    def _look(self, uptime: float) -> ServerState:
        self._status.refresh()
        observer = self._observer
        ready, reason = self._status.ready()
        commands = _totals(observer.commands.counter, "outcome")
        floods = _totals(observer.links.updates, "direction")
        return ServerState(
            server=self._server,
            life=self._life,
            version=__version__,
            uptime=round(uptime, 3),
            ready=ready,
            reason=reason[:1_024],
            places_by=self._status.places_by(),
            clients=_total(observer.process.clients),
            connections=_total(observer.connections.open),
            answered=sum(commands.values()),
            invalid=commands.get("invalid", 0) + commands.get("overlong", 0),
            floods_in=floods.get("in", 0),
            floods_out=floods.get("out", 0),
            mended=_total(observer.links.mended),
            links=dict(observer.links.states),
            places=_histogram(observer.places.seconds),
            lag=_histogram(observer.loop.lag),
        )


def _totals(metric: MetricWrapperBase, label: str) -> dict[str, int]:
    """Return the values of a counter, summed by one label."""
    totals: dict[str, int] = {}
    for family in metric.collect():
        for sample in family.samples:
            value = sample.labels[label]
            totals[value] = totals.get(value, 0) + int(sample.value)
    return totals


def _total(metric: MetricWrapperBase) -> int:
    return int(sum(sample.value for family in metric.collect() for sample in family.samples))


def _histogram(metric: MetricWrapperBase) -> Histogram:
    """Return a histogram, summed over its labels."""
    counts: dict[float, int] = {}
    for family in metric.collect():
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                bound = float(sample.labels["le"])
                counts[bound] = counts.get(bound, 0) + int(sample.value)
    bounds = sorted(counts)
    return Histogram(bounds[:-1], [counts[bound] for bound in bounds] or [0])
