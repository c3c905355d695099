"""The process itself: whether it is ready, how late its event loop runs, and what its log writes.

Its other events have no metric; the code that starts, reloads and stops the process logs them.
"""

from __future__ import annotations

from typing import Final

from proxyherd.telemetry.logs import LogFile
from proxyherd.telemetry.metrics import Metrics

_LAG_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Seconds: no answer may be delayed by more than a tenth."""


class ProcessObserver:
    """One server as a whole."""

    def __init__(self, metrics: Metrics) -> None:
        self.ready = metrics.gauge("proxyherd_ready", "1 when ready: /readyz says 200")
        self.clients = metrics.gauge("proxyherd_clients", "Clients in the table")


class LoopObserver:
    """The event loop of the server."""

    def __init__(self, metrics: Metrics) -> None:
        self.lag = metrics.histogram(
            "proxyherd_event_loop_lag_seconds",
            "Seconds by which the event loop ran a timer late, measured up to four times a heartbeat",
            _LAG_BUCKETS,
        )


class LogObserver:
    """The log file of the server."""

    def __init__(self, metrics: Metrics, file: LogFile) -> None:
        self._file = file
        self._bytes = metrics.total("proxyherd_log_bytes_total", "Bytes written to the log")
        self._lost = metrics.total(
            "proxyherd_log_lines_lost_total", "Lines of the log that could not be written"
        )
        self._failures = metrics.total(
            "proxyherd_log_failures_total", "Attempts to write, rotate or reopen the log that failed"
        )

    @property
    def failing(self) -> bool:
        """Whether the last lines of the log were lost."""
        return self._file.failing

    def settle(self) -> None:
        """Update the metrics to what the file has counted."""
        self._bytes.reach(self._file.bytes_written)
        self._lost.reach(self._file.lines_lost)
        self._failures.reach(self._file.failures)
