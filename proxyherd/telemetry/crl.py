"""The list of revoked certificates (CRL): when it expires."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.metrics import Metrics

_REMEDY: Final = "it holds until there is a newer one; sign one, and send SIGHUP: see docs/security.md"


class CrlObserver:
    """The list of one server, if it has one. `clock`: POSIX seconds."""

    def __init__(self, events: Events, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._events = events
        self._clock = clock
        self._file: Path | None = None
        self._expires = 0.0
        self._gauge = metrics.gauge(
            "proxyherd_crl_expires_timestamp_seconds",
            "When the list of revoked certificates expires, in POSIX seconds; 0 without a list",
        )

    def hold(self, file: Path, expires: float) -> None:
        """Note that the server has read a list; it expires at this POSIX time in seconds."""
        self._file, self._expires = file, expires
        self._gauge.set(expires)

    def tick(self) -> None:
        """Tell once that the list has expired."""
        if self._file is not None and self._clock() >= self._expires:
            since = datetime.fromtimestamp(self._expires, UTC).isoformat(timespec="seconds")
            self._events.log.error("crl_expired", reason=f"{self._file}: expired at {since}; {_REMEDY}")
            self._file = None
