"""Every metric of one server, in one registry a process.

Names begin with `proxyherd_`, units are base units, and a label only ever takes a few values: commands, outcomes,
neighbours, reasons. Never a client ID. What is counted for each command is added once a turn of the event loop.
"""

from __future__ import annotations

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

_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: no answer is to be held up by more than a tenth."""


class Metrics:
    """The figures of one server; each attribute is one metric."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nobody asks for
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("proxyherd_build", "What is running", registry=registry).info({"version": __version__})
        self._count_clients(registry)
        self._count_neighbours(registry)
        self._count_places(registry)
        self._count_upkeep(registry)

    def _count_clients(self, registry: CollectorRegistry) -> None:
        self.ready = Gauge("proxyherd_ready", "1 when ready to answer queries", registry=registry)
        self.clients = Gauge("proxyherd_clients", "Clients in the table", registry=registry)
        self.commands = Counter(
            "proxyherd_commands_total",
            "Commands answered, by what they were and what became of them",
            ["command", "outcome"],
            registry=registry,
        )
        self.connections = Gauge("proxyherd_client_connections", "Open client connections", registry=registry)
        self.connections_opened = Counter(
            "proxyherd_client_connections_opened_total", "Client connections accepted", registry=registry
        )
        self.connections_closed = Counter(
            "proxyherd_client_connections_closed_total",
            "Client connections ended, by reason",
            ["reason"],
            registry=registry,
        )

    def _count_neighbours(self, registry: CollectorRegistry) -> None:
        self.links_up = Gauge(
            "proxyherd_links_up",
            "1 while the link with this neighbour is live",
            ["neighbour"],
            registry=registry,
        )
        self.links_failed = Counter(
            "proxyherd_link_failures_total",
            "Connections with neighbours that ended before they were proved, and attempts to make one",
            ["neighbour"],
            registry=registry,
        )
        self.flood_updates = Counter(
            "proxyherd_flood_updates_total",
            "Updates that crossed a link live, by neighbour, direction and whether they were news here",
            ["neighbour", "direction", "news"],
            registry=registry,
        )
        self.flood_batches = Counter(
            "proxyherd_flood_batches_total",
            "Batches of live updates, by neighbour and direction",
            ["neighbour", "direction"],
            registry=registry,
        )
        self.lines_skipped = Counter(
            "proxyherd_peer_lines_skipped_total",
            "Lines from a neighbour that were not learned, being malformed or past the table's limit",
            ["neighbour"],
            registry=registry,
        )
        self.mended = Gauge(
            "proxyherd_mended_entries",
            "Entries that the last check with this neighbour brought",
            ["neighbour"],
            registry=registry,
        )
        self.checks = Counter(
            "proxyherd_checks_total", "Checks with a neighbour that ended", ["neighbour"], registry=registry
        )

    def _count_places(self, registry: CollectorRegistry) -> None:
        self.places_seconds = Histogram(
            "proxyherd_places_seconds",
            "Seconds a query of Places took, by provider and outcome",
            ["provider", "outcome"],
            buckets=_PLACES_BUCKETS,
            registry=registry,
        )
        self.places_in_flight = Gauge("proxyherd_places_in_flight", "Queries under way", registry=registry)
        self.places_calls = Counter(
            "proxyherd_places_calls_total",
            "Calls to Google, retries included, by provider and what became of them",
            ["provider", "outcome"],
            registry=registry,
        )
        self.places_cost = Counter(
            "proxyherd_places_cost_dollars_total",
            "What these calls may have cost, at places.dollars_per_call each",
            ["provider"],
            registry=registry,
        )
        self.places_spared = Counter(
            "proxyherd_places_spared_total",
            "Queries, and further attempts at them, that cost no call, by why",
            ["why"],
            registry=registry,
        )
        self.places_breaker = Gauge(
            "proxyherd_places_breaker_state",
            "1 for the state that the circuit breaker of Places is in",
            ["state"],
            registry=registry,
        )

    def _count_upkeep(self, registry: CollectorRegistry) -> None:
        self.journal_bytes = Counter(
            "proxyherd_journal_bytes_total", "Bytes appended to the journal", registry=registry
        )
        self.journal_failures = Counter(
            "proxyherd_journal_failures_total",
            "Attempts to write or sync the journal that failed",
            registry=registry,
        )
        self.journal_failing = Gauge(
            "proxyherd_journal_failing", "1 while the table is not on disk whole", registry=registry
        )
        self.loop_lag = Histogram(
            "proxyherd_event_loop_lag_seconds",
            "How late the event loop ran a timer",
            buckets=_LAG_BUCKETS,
            registry=registry,
        )
        self.log_bytes = Counter("proxyherd_log_bytes_total", "Bytes written to the log", registry=registry)
        self.log_lines_lost = Counter(
            "proxyherd_log_lines_lost_total", "Log lines that could not be written", registry=registry
        )
        self.log_failures = Counter(
            "proxyherd_log_failures_total",
            "Attempts to write or reopen the log that failed",
            registry=registry,
        )
