"""What the log and the metrics say of certificates and lists of revoked ones that expire."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scenarios import Scenario, Watched, assert_exactly, line

from proxyherd.net.certificates import CertificateExpiry

REASON = (
    "r.pem: expired at 2026-11-28T22:14:03+00:00; it holds until there is a newer one; sign one, and send SIGHUP: "
    "see docs/security.md"
)
END = 1_795_904_043.0


def tick(it: Watched, now: float) -> None:
    it.observer.expiry._clock = lambda: now
    it.observer.tick()


def in_time(it: Watched) -> None:
    tick(it, 1e12)
    it.observer.expiry.hold_list(Path("r.pem"), END)
    tick(it, END - 1)


def late(it: Watched) -> None:
    in_time(it)
    for seconds in range(3):
        tick(it, END + seconds)


def late_again(it: Watched) -> None:
    late(it)
    it.observer.expiry.hold_list(Path("r.pem"), END)
    tick(it, END + 9)


def certificates(it: Watched) -> None:
    """Three certificates, of which one expires, and then another one, which is renewed."""
    it.observer.expiry.hold_certificates(
        [
            CertificateExpiry("clients", Path("c.pem"), END),
            CertificateExpiry("peers", Path("p.pem"), END + 9),
            CertificateExpiry("authority", Path("a.pem"), END + 99),
        ]
    )
    for seconds in (-1, 0, 1, 10):
        tick(it, END + seconds)


def certificates_renewed(it: Watched) -> None:
    certificates(it)
    it.observer.expiry.hold_certificates(
        [
            CertificateExpiry("clients", Path("c.pem"), END),
            CertificateExpiry("peers", Path("p.pem"), END + 90),
            CertificateExpiry("authority", Path("a.pem"), END + 99),
        ]
    )
    tick(it, END + 11)


def late_authority(it: Watched) -> None:
    it.observer.expiry.hold_certificates([CertificateExpiry("authority", Path("a.pem"), END)])
    tick(it, END)


def expired(name: str, since: str) -> dict[str, Any]:
    return line(
        "certificate_expired",
        "error",
        reason=f"{name}.pem: expired at 2026-11-28T22:14:{since}+00:00; others refuse it; put a new one in its place, "
        "and send SIGHUP: see docs/security.md",
    )


def expire(**uses: float) -> dict[str, float]:
    name = "proxyherd_certificate_expires_timestamp_seconds"
    return {f"{name} {use}": END + seconds for use, seconds in uses.items()}


EXPIRES = {"proxyherd_crl_expires_timestamp_seconds": END}
SCENARIOS: dict[str, Scenario] = {
    "a list that has not expired": Scenario(in_time, [], EXPIRES),
    "a list that has": Scenario(late, [line("crl_expired", "error", reason=REASON)], EXPIRES),
    "a late list is read again": Scenario(
        late_again, [line("crl_expired", "error", reason=REASON)] * 2, EXPIRES
    ),
    "certificates": Scenario(
        certificates, [expired("c", "03"), expired("p", "12")], expire(clients=0, peers=9, authority=99)
    ),
    "an authority": Scenario(
        late_authority,
        [
            line(
                "certificate_expired",
                "error",
                reason="a.pem: expired at 2026-11-28T22:14:03+00:00; servers refuse each other's certificates; make a new "
                "one and sign them anew: see docs/security.md",
            )
        ],
        expire(authority=0),
    ),
    "one is renewed, and the other one is not": Scenario(
        certificates_renewed,
        [expired("c", "03"), expired("p", "12"), expired("c", "03")],
        expire(clients=0, peers=90, authority=99),
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)
