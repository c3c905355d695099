"""What happened between two askings of a server, as `status --watch` has it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from states import a_state

from proxyherd.admin.status_page.state import Histogram
from proxyherd.cli import status_json
from proxyherd.config import herd_file
from proxyherd.config.address import Address
from proxyherd.remote import ask, polling


def test_rates_are_what_was_counted_in_between() -> None:
    rates = polling.rates(
        a_state(uptime=5.0, answered=10, floods_in=4, floods_out=9),
        a_state(uptime=7.0, answered=40, floods_in=5, floods_out=9),
    )
    assert rates == polling.Rates(2.0, commands=15.0, floods_in=0.5, floods_out=0.0, lag_p99=None)


def test_there_are_no_rates_over_a_restart_or_a_silence() -> None:
    assert polling.rates(a_state(uptime=5.0, life="1"), a_state(uptime=6.0, life="2", answered=5)) is None
    assert polling.rates(a_state(uptime=5.0), None) is None
    assert polling.rates(None, a_state(uptime=7.0)) is None
    assert polling.rates(a_state(uptime=7.0), a_state(uptime=7.0)) is None


BOUNDS = (0.001, 0.01, 0.1, float("inf"))


@settings(deadline=None)
@given(before=st.lists(st.sampled_from(BOUNDS)), between=st.lists(st.sampled_from(BOUNDS)))
def test_lag_is_the_least_bound_under_which_99_of_100_measurements_of_the_interval_lie(
    before: list[float], between: list[float]
) -> None:
    def cumulative(measured: list[float]) -> Histogram:
        return Histogram([*BOUNDS[:-1]], [sum(one <= bound for one in measured) for bound in BOUNDS])

    rates = polling.rates(
        a_state(uptime=5.0, lag=cumulative(before)), a_state(uptime=6.0, lag=cumulative(before + between))
    )
    assert rates is not None
    if not between:
        assert rates.lag_p99 is None
    else:
        enough = [
            bound for bound in BOUNDS if sum(one <= bound for one in between) * 100 >= 99 * len(between)
        ]
        assert rates.lag_p99 == enough[0]


COUNTED = st.integers(0, 9) | st.integers(0, 1 << 53)
TIMES = st.floats(0, 1e12) | st.sampled_from([0.0, 5e-324, 1.0])


@settings(deadline=None)
@given(before=st.tuples(TIMES, COUNTED, COUNTED), now=st.tuples(TIMES, COUNTED, COUNTED))
def test_whatever_a_stranger_counts_makes_rates_that_are_numbers_or_none(
    before: tuple[float, int, int], now: tuple[float, int, int]
) -> None:
    """Nobody else than a stranger answers twice within a moment that no clock can tell from none."""
    first, second = (
        a_state(uptime=uptime, answered=answered, floods_in=floods, lag=Histogram([uptime], [0, floods]))
        for uptime, answered, floods in (before, now)
    )
    rates = polling.rates(first, second)
    if rates is not None:
        assert rates.lag_p99 is None or rates.lag_p99 >= 0
        json.dumps(status_json._rates_object(rates), allow_nan=False)


def test_a_server_that_says_the_same_again_keeps_its_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says the same for a moment, so whoever asks more often than that would see nothing happen."""
    said = [a_state(uptime=1.0, answered=0), *[a_state(uptime=2.0, answered=7)] * 3, None]
    seen: list[polling.Seen] = []
    server = herd_file.Server("Ann", {"admin": (Address("::1", 2),)}, ())
    poller = polling.Poller(cast("Any", SimpleNamespace(servers={"Ann": server})), 0.0)

    def status(*_: object) -> ask.Status:
        seen.extend(poller._seen.values())
        if not said:
            poller.stop()
        return ask.Status(server, 0.0, said.pop(0) if said else None)

    monkeypatch.setattr(ask, "status", status)
    poller._ask(server)
    assert [one.rates and one.rates.commands for one in seen] == [None, 7.0, 7.0, 7.0, None]
