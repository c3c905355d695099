"""Every metric of one server, in one registry a process.

Names begin with `proxyherd_`, units are base units, and a label only ever takes a few values: commands, outcomes,
neighbours, reasons. Never a client ID. What is counted for each command is added when somebody asks for it.

What stands here is what operators read: Prometheus and Grafana show the help texts, and docs/make_metrics.py makes
docs/metrics.md of them and of the values of labels.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from proxyherd import __version__

_PLACES_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    4.5,
    5.0,
    5.5,
)
"""Seconds: offline answers take one or two milliseconds, Google a tenth, and 5 s is the deadline."""

_PROPAGATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Seconds: a hop takes under a millisecond, and what takes longer than five is no flood any more."""

_BATCH_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Seconds: a master and a replica on the same network take under a millisecond, and a second is the timeout."""

_BATCH_SIZES = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: no answer is to be held up by more than a tenth."""

COMMANDS: Final = (
    ("iamat", "stored", "taken, and flooded"),
    ("iamat", "stale", "in form, but not later than what is held"),
    (
        "iamat",
        "refused",
        "in form, but the table is full, the journal cannot be written, the client's clock is too far ahead, or Redis has no room or a stranger's key there",
    ),
    (
        "iamat",
        "unanswered",
        "nobody could serve its part of the table for deadline_seconds; engine redis only",
    ),
    ("iamat", "invalid", "out of form or bounds"),
    ("whatsat", "answered", "with an AT line and places, whatever their status"),
    ("whatsat", "unknown", "in form, but no such client"),
    ("whatsat", "refused", "before the server was ready, behind 65,536 others that wait"),
    ("whatsat", "unanswered", "as above"),
    ("whatsat", "left", "the client had gone before places were asked"),
    ("whatsat", "invalid", "out of form or bounds"),
    ("at", "invalid", "an AT from a client"),
    ("other", "invalid", "any other word, or none"),
    ("other", "overlong", "longer than max_line_bytes"),
)
"""The values of `command` and `outcome` in proxyherd_commands_total, and what they mean."""

LABELS: Final = (
    (
        "proxyherd_client_connections_closed_total",
        "reason",
        {
            "closed by client": "",
            "broken by client": "",
            "idle": "for idle_seconds",
            "slow reader": "for slow_reader_seconds",
            "HTTP request": "a line of its form",
            "server stops": "",
            "no answer from the cluster": "for deadline_seconds of [redis]",
            "internal error": "the log has its traceback as internal_error",
            "refused": "too many, or a TLS handshake failed",
        },
    ),
    (
        "proxyherd_flood_updates_total",
        "direction",
        {"in": "", "out": "always news, as it was to this server"},
    ),
    ("proxyherd_flood_updates_total", "news", {"true": "", "false": "it was known here already"}),
    ("proxyherd_places_seconds", "provider", {"google": "", "google-new": "", "gazetteer": ""}),
    (
        "proxyherd_places_seconds",
        "outcome",
        {
            "OK": "",
            "ZERO_RESULTS": "",
            "INVALID_REQUEST": "",
            "OVER_QUERY_LIMIT": "",
            "REQUEST_DENIED": "",
            "UNKNOWN_ERROR": "",
            "OTHER": "what Google has not documented",
        },
    ),
    (
        "proxyherd_places_calls_total",
        "outcome",
        {
            "answered": "",
            "denied": "",
            "limited": "",
            "failed": "",
            "unreachable": "",
            "broken": "",
            "late": "",
            "nonsense": "",
            "abandoned": "",
        },
    ),
    (
        "proxyherd_places_spared_total",
        "why",
        {
            "shared": "with one under way",
            "kept": "there was an answer that may be kept",
            "shed": "too many",
            "late": "less time was left than answers take",
            "breaker": "it is open",
            "budget": "used up",
            "unrecorded": "the budget cannot be recorded",
        },
    ),
    (
        "proxyherd_retried_total",
        "why",
        {
            "moved": "another master has this part of the table now",
            "asked": "it is on its way there",
            "split": "half of it",
            "late": "no reply within timeout_seconds",
            "lost": "the connection broke",
            "unsealed": "too few replicas have acknowledged",
            "full": "Redis has no room for what may have been stored already",
            "refused": "by Redis, and the log says why",
        },
    ),
    ("proxyherd_places_breaker_state", "state", {"closed": "", "open": "", "half_open": ""}),
)
"""The values of other labels: a metric that has the label, the label, its values and what is not plain of them."""


class Metrics:
    """The figures of one server; each attribute is one metric."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nobody asks for
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("proxyherd_build", "Always 1; the version that runs", registry=registry).info(
            {"version": __version__}
        )
        self._gauge = partial(Gauge, registry=registry)
        self._counter = partial(Counter, registry=registry)
        self._histogram = partial(Histogram, registry=registry)
        self._count_clients()
        self._count_neighbours()
        self._count_places()
        self._count_upkeep()
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Let what is alerted on be there before it happens: Prometheus takes no counter that appears for a rise."""
        values = {metric: labels for metric, _, labels in LABELS}
        for command, outcome, _ in COMMANDS:
            self.commands.labels(command, outcome)
        for reason in values["proxyherd_client_connections_closed_total"]:
            self.connections_closed.labels(reason)
        for why in values["proxyherd_places_spared_total"]:
            self.places_spared.labels(why)

    def _count_clients(self) -> None:
        self.ready = self._gauge("proxyherd_ready", "1 when ready: /readyz says 200")
        self.clients = self._gauge("proxyherd_clients", "Clients in the table")
        self.commands = self._counter(
            "proxyherd_commands_total",
            "Commands answered, by what they were and what became of them",
            ["command", "outcome"],
        )
        self.connections = self._gauge("proxyherd_client_connections", "Client connections open now")
        self.connections_opened = self._counter(
            "proxyherd_client_connections_opened_total", "Client connections taken"
        )
        self.connections_closed = self._counter(
            "proxyherd_client_connections_closed_total",
            "Client connections ended; also those refused, which were not opened",
            ["reason"],
        )

    def _count_neighbours(self) -> None:
        self.links_up = self._gauge(
            "proxyherd_links_up", "1 while the link with this neighbour is live", ["neighbour"]
        )
        self.links_failed = self._counter(
            "proxyherd_link_failures_total",
            "Attempts at a link that came to nothing, made or received, and live links that a newer one replaced; unknown for strangers",
            ["neighbour"],
        )
        self.flood_updates = self._counter(
            "proxyherd_flood_updates_total",
            "Updates that crossed a link live, by neighbour, direction and whether they were news",
            ["neighbour", "direction", "news"],
        )
        self.flood_batches = self._counter(
            "proxyherd_flood_batches_total",
            "Batches in which updates crossed a link live",
            ["neighbour", "direction"],
        )
        self.propagation = self._histogram(
            "proxyherd_propagation_seconds",
            "Seconds from a server's taking a report to its being learned here, by both servers' clocks; of each "
            "batch of live updates its first that was news",
            buckets=_PROPAGATION_BUCKETS,
        )
        self.lines_skipped = self._counter(
            "proxyherd_peer_lines_skipped_total",
            "Lines from a neighbour that were not learned: malformed, from too far in the future, or the table was full",
            ["neighbour"],
        )
        self.mended = self._gauge(
            "proxyherd_mended_entries",
            "Entries that the last catch-up from this neighbour brought",
            ["neighbour"],
        )
        self.checks = self._counter(
            "proxyherd_checks_total", "Catch-ups from this neighbour that ended", ["neighbour"]
        )

    def _count_places(self) -> None:
        self.places_seconds = self._histogram(
            "proxyherd_places_seconds",
            "Seconds that a query of places took, by Google's status; also queries that are answered at once",
            ["provider", "outcome"],
            buckets=_PLACES_BUCKETS,
        )
        self.places_in_flight = self._gauge(
            "proxyherd_places_in_flight", "Queries of places that wait for an answer"
        )
        self.places_calls = self._counter(
            "proxyherd_places_calls_total",
            "Calls to Google, retries included, by what became of them",
            ["provider", "outcome"],
        )
        self.places_cost = self._counter(
            "proxyherd_places_cost_dollars_total",
            "What calls to Google may have cost, at dollars_per_call each, in US dollars",
            ["provider"],
        )
        self.places_spared = self._counter(
            "proxyherd_places_spared_total",
            "Queries of places, and further attempts at them, that cost no call, by why",
            ["why"],
        )
        self.places_breaker = self._gauge(
            "proxyherd_places_breaker_state",
            "1 for the state that the circuit breaker of places is in",
            ["state"],
        )

    def _count_upkeep(self) -> None:
        self.journal_bytes = self._counter(
            "proxyherd_journal_bytes_total", "Bytes appended to the journal, snapshots left out"
        )
        self.journal_failures = self._counter(
            "proxyherd_journal_failures_total",
            "Attempts to write or sync the journal that failed, and files of it that were deleted",
        )
        self.journal_failing = self._gauge(
            "proxyherd_journal_failing", "1 while an answered report might not survive a kill"
        )
        self.loop_lag = self._histogram(
            "proxyherd_event_loop_lag_seconds",
            "Seconds by which the event loop ran a timer late, measured four times a heartbeat",
            buckets=_LAG_BUCKETS,
        )
        self.masters = self._gauge(
            "proxyherd_masters", "Masters of the cluster that have a part of the table"
        )
        self.masters_up = self._gauge("proxyherd_masters_up", "Those of them that can be had")
        self.masters_full = self._gauge(
            "proxyherd_masters_full", "Those that refuse reports because their memory is full"
        )
        self.batch_seconds = self._histogram(
            "proxyherd_batch_seconds",
            "From sending a batch to a master until a replica has it, too",
            buckets=_BATCH_BUCKETS,
        )
        self.batch_commands = self._histogram(
            "proxyherd_batch_commands",
            "Reports and queries in a batch; one without is a look at whether the master still is one",
            buckets=_BATCH_SIZES,
        )
        self.retried = self._counter(
            "proxyherd_retried_total", "Reports and queries that were sent to a master again", ["why"]
        )
        self.waiting = self._gauge(
            "proxyherd_waiting", "Reports and queries that have no outcome from the cluster yet"
        )
        self.log_bytes = self._counter("proxyherd_log_bytes_total", "Bytes written to the log")
        self.log_lines_lost = self._counter(
            "proxyherd_log_lines_lost_total", "Lines of the log that could not be written"
        )
        self.log_failures = self._counter(
            "proxyherd_log_failures_total", "Attempts to write, rotate or reopen the log that failed"
        )
