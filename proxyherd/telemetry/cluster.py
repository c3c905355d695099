"""Redis Cluster: its masters, and the batches that are sent to them. A bridge reports the same."""

from __future__ import annotations

from typing import Final

from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.metrics import Metrics

_BATCH_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds: a master and a replica in the same network take less than a millisecond; the timeout is about a second."""

_BATCH_SIZES: Final = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)


class ClusterObserver:
    """The cluster, as one server sees it."""

    def __init__(self, events: Events, metrics: Metrics) -> None:
        self._events = events
        self.masters_known = metrics.gauge(
            "proxyherd_masters", "Masters of the cluster that have a part of the table"
        )
        self.masters_up = metrics.gauge("proxyherd_masters_up", "Those of them that can be had")
        self._masters_full = metrics.gauge(
            "proxyherd_masters_full", "Those that refuse reports because their memory is full"
        )
        self._batch_seconds = metrics.histogram(
            "proxyherd_batch_seconds",
            "From sending a batch to a master until a replica has it, too",
            _BATCH_SECONDS,
        )
        self._batch_commands = metrics.histogram(
            "proxyherd_batch_commands",
            "Reports and queries in a batch; one without is a look at whether the master still is one",
            _BATCH_SIZES,
        )
        self._retried = metrics.counter(
            "proxyherd_retried_total",
            "Reports and queries that were sent to a master again",
            why={
                "moved": "another master has this part of the table now",
                "asked": "this part is moving to another master now",
                "split": "half of this part has moved already",
                "late": "no reply within timeout_seconds",
                "lost": "the connection broke",
                "unsealed": "too few replicas have acknowledged",
                "full": "Redis has no memory left, and the batch may have been stored before",
                "refused": "by Redis; the log says why",
            },
        )
        self.waiting = metrics.gauge(
            "proxyherd_waiting", "Reports and queries that have no outcome from the cluster yet"
        )

    def state(self, masters: int, *, up: int, full: int, waiting: int) -> None:
        """Note how many masters there are, how many are available and how many are full, and how many reports and queries
        wait.
        """
        self.masters_known.set(masters)
        self.masters_up.set(up)
        self._masters_full.set(full)
        self.waiting.set(waiting)

    def batch(self, commands: int, seconds: float) -> None:
        """Note a batch that a master has executed and its replicas have received."""
        self._batch_commands.observe(commands)
        self._batch_seconds.observe(seconds)

    def retried(self, why: str, commands: int) -> None:
        """Note that this many reports and queries are sent again."""
        self._retried.labels(why).inc(commands)

    def master(self, master: str, trouble: str) -> None:
        """Note that a master is available, or not."""
        if not trouble:
            self._events.lift_limits(master, "master_down")
            self._events.seldom(master, "master_up", master=master)
        else:
            self._events.limited(master, "master_down", trouble, master=master)

    def master_full(self, master: str, *, full: bool) -> None:
        """Note that a master has no memory for reports, or has room again."""
        if full:
            reason = "its memory is full: raise maxmemory there, or add a shard"
            self._events.log.warning("master_full", master=master, reason=reason)
        else:
            self._events.log.info("master_has_room", master=master)

    def masters(self, parts: dict[str, int]) -> None:
        """Note how many parts of the table each master has now."""
        self._events.log.info("masters", parts=parts)

    def node_failed(self, node: str, reason: str) -> None:
        """Note that a node did not say which masters there are."""
        self._events.limited(node, "node_failed", reason, node=node)

    def master_unsafe(self, master: str, reason: str) -> None:
        """Note a setting of a master that can lose answered reports."""
        self._events.limited(master, "master_unsafe", reason, master=master)
