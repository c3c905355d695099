"""This server's own state for /state: its figures, as in the metrics."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import Final, Protocol

import msgspec
from prometheus_client.metrics import MetricWrapperBase

from proxyherd import __version__
from proxyherd.admin.status_page.state import MOST_COMMANDS, MOST_REASON, Histogram, ServerState
from proxyherd.base.words import shorten_text
from proxyherd.telemetry.observer import Observer


class StatusSource(Protocol):
    """What is needed from a server."""

    def ready(self) -> tuple[bool, str]:
        """Return whether the server is ready, and the reason if it is not."""

    def refresh(self) -> None:
        """Update the metrics that are not counted by events."""

    def places_by(self) -> str:
        """Return the provider of places."""


class OwnState:
    """The state of this server. It is cached for a moment, so that many requests cost little more than one."""

    _KEPT_SECONDS: Final = 0.2

    def __init__(self, file: Path, server: str, status: StatusSource, observer: Observer) -> None:
        """`file`: the herd's file."""
        self._file = str(file.resolve())
        self._server = server
        self._status = status
        self._observer = observer
        self._life = secrets.token_hex(8)
        self._began = time.monotonic()
        self._kept: ServerState | None = None
        self._ready, self._ready_since = False, self._began

    def state(self) -> ServerState:
        """Return the state, without commands."""
        uptime = time.monotonic() - self._began
        if self._kept is None or uptime - self._kept.uptime > self._KEPT_SECONDS:
            self._kept = self.fresh()
        return self._kept

    def with_commands(self, life: str, after: int) -> ServerState:
        """Return the state with the commands after number `after` of that life."""
        recent = self._observer.recent
        commands = recent.commands(after if life == self._life else 0, MOST_COMMANDS)
        return msgspec.structs.replace(self.state(), commands=commands, cursor=recent.number)

    def fresh(self) -> ServerState:
        """Return the state as it is now, without commands, and do not cache it."""
        self._status.refresh()
        observer = self._observer
        now = time.monotonic()
        ready, reason = self._status.ready()
        if ready != self._ready:
            self._ready, self._ready_since = ready, now
        commands = _totals(observer.commands.counter, "outcome")
        floods = _totals(observer.links.updates, "direction")
        return ServerState(
            server=self._server,
            life=self._life,
            version=__version__,
            uptime=round(now - self._began, 3),
            ready=ready,
            reason=reason[:1_024],
            places_by=self._status.places_by(),
            clients=_total(observer.process.clients),
            connections=_total(observer.connections.open),
            protocols=_totals(observer.connections.by_protocol, "via"),
            answered=sum(commands.values()),
            invalid=commands.get("invalid", 0) + commands.get("overlong", 0),
            floods_in=floods.get("in", 0),
            floods_out=floods.get("out", 0),
            mended=_total(observer.links.mended),
            links=dict(observer.links.states),
            places=_histogram(observer.places.seconds),
            lag=_histogram(observer.loop.lag),
            journal_failing=bool(_total(observer.journal.failing)),
            over_rate=_total(observer.connections.waiting),
            clocks={name: round(ahead, 3) for name, ahead in observer.erasures.clocks.items()},
            other_keys=sorted(observer.links.other_keys),
            refusals={name: shorten_text(why, MOST_REASON) for name, why in observer.links.refusals.items()},
            file=self._file,
            process=os.getpid(),
            masters=_total(observer.cluster.masters_known),
            masters_up=_total(observer.cluster.masters_up),
            waiting=_total(observer.cluster.waiting),
            readiness_seconds=round(now - self._ready_since, 1),
            log_failing=observer.log.failing,
            link_seconds={name: round(now - since, 1) for name, since in observer.links.since.items()},
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
