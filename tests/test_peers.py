"""Sockets under the peer links: when neighbours are dialled, for how long, and who is let go first."""

from __future__ import annotations

import pytest

from proxyherd.schema import Places, Redis, Timing
from proxyherd.tools import polling
from proxyherd.watching import others

SYN_SENT_AGAIN = (1.0, 3.0, 7.0)
"""Seconds after which Linux sends a SYN again that was not answered (tcp(7), tcp_syn_retries; RFC 6298)."""


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("handshake_seconds", Timing().handshake_seconds),
        ("redis.timeout_seconds", Redis(nodes=("10.0.0.1:6379",)).timeout_seconds),
        ("places.attempt_seconds", Places().attempt_seconds),
        ("status", polling.DEADLINE_SECONDS),
        ("status page", others.DEADLINE_SECONDS),
    ],
)
def test_the_time_to_connect_does_not_end_just_when_a_lost_syn_is_sent_again(
    name: str, seconds: float
) -> None:
    """Else the connection is made at the very moment at which it is given up, and is of no use to anybody."""
    assert all(abs(seconds - moment) > 0.15 for moment in SYN_SENT_AGAIN), name
