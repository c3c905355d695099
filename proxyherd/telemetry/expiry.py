"""When certificates and the list of revoked ones (CRL) expire."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from proxyherd.net.certificates import CertificateExpiry
from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.metrics import Metrics

_NEW_LIST: Final = "it holds until there is a newer one; sign one, and send SIGHUP: see docs/security.md"
_NEW_CERTIFICATE: Final = (
    "others refuse it; put a new one in its place, and send SIGHUP: see docs/security.md"
)
_NEW_AUTHORITY: Final = (
    "servers refuse each other's certificates; make a new one and sign them anew: see docs/security.md"
)


class ExpiryObserver:
    """The certificates of one server and its list, if it has them. `clock`: POSIX seconds."""

    def __init__(self, events: Events, metrics: Metrics, clock: Callable[[], float] = time.time) -> None:
        self._events = events
        self._clock = clock
        self._list: tuple[Path, float] | None = None  # that has not expired, as far as was told
        self._certificates: Sequence[CertificateExpiry] = ()  # likewise
        self._list_gauge = metrics.gauge(
            "proxyherd_crl_expires_timestamp_seconds",
            "When the list of revoked certificates expires, in POSIX seconds; 0 without a list",
        )
        self._gauge = metrics.gauge(
            "proxyherd_certificate_expires_timestamp_seconds",
            "When a certificate expires, in POSIX seconds; of several in a file the first that does, of authorities the last",
            certificate={
                "clients": "shown to clients",
                "peers": "shown to neighbours",
                "authority": "of the herd's authority",
            },
        )

    def hold_list(self, file: Path, expires: float) -> None:
        """Note that the server has read a list; it expires at this POSIX time in seconds."""
        self._list = file, expires
        self._list_gauge.set(expires)

    def hold_certificates(self, certificates: Sequence[CertificateExpiry]) -> None:
        """Note that the server has read these certificates."""
        self._certificates = certificates
        for one in certificates:
            self._gauge.labels(one.use).set(one.expires)

    def tick(self) -> None:
        """Tell once of each of them that it has expired."""
        now, log = self._clock(), self._events.log
        if self._list is not None and now >= self._list[1]:
            log.error("crl_expired", reason=_expired(*self._list, _NEW_LIST))
            self._list = None
        if any(now >= one.expires for one in self._certificates):
            for one in self._certificates:
                if now >= one.expires:
                    remedy = _NEW_AUTHORITY if one.use == "authority" else _NEW_CERTIFICATE
                    log.error("certificate_expired", reason=_expired(one.file, one.expires, remedy))
            self._certificates = [one for one in self._certificates if now < one.expires]


def _expired(file: Path, expires: float, remedy: str) -> str:
    since = datetime.fromtimestamp(expires, UTC).isoformat(timespec="seconds")
    return f"{file}: expired at {since}; {remedy}"
