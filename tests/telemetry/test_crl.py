"""What the log and the metrics say of a list of revoked certificates."""

from __future__ import annotations

from pathlib import Path

import pytest
from scenarios import Scenario, Watched, assert_exactly, line

REASON = (
    "r.pem: expired at 2026-11-28T22:14:03+00:00; it holds until there is a newer one; sign one, and send SIGHUP: "
    "see docs/security.md"
)
END = 1_795_904_043.0


def tick(it: Watched, now: float) -> None:
    it.observer.crl._clock = lambda: now
    it.observer.crl.tick()


def in_time(it: Watched) -> None:
    tick(it, 1e12)
    it.observer.crl.hold(Path("r.pem"), END)
    tick(it, END - 1)


def late(it: Watched) -> None:
    in_time(it)
    for seconds in range(3):
        tick(it, END + seconds)


def late_again(it: Watched) -> None:
    late(it)
    it.observer.crl.hold(Path("r.pem"), END)
    tick(it, END + 9)


EXPIRES = {"proxyherd_crl_expires_timestamp_seconds": END}
SCENARIOS: dict[str, Scenario] = {
    "a list that has not expired": Scenario(in_time, [], EXPIRES),
    "a list that has": Scenario(late, [line("crl_expired", "error", reason=REASON)], EXPIRES),
    "a late list is read again": Scenario(
        late_again, [line("crl_expired", "error", reason=REASON)] * 2, EXPIRES
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)
