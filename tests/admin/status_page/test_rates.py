"""How fast totals grow, and percentiles."""

from __future__ import annotations

import pytest
from states import a_state

from proxyherd.admin.status_page.rates import History, added, quantile
from proxyherd.admin.status_page.state import Histogram, ServerState


def at(uptime: float, *, life: str = "1", answered: int = 0, lag: Histogram | None = None) -> ServerState:
    return a_state(uptime=uptime, life=life, answered=answered, lag=lag or Histogram([], [0]))


def test_a_rate_is_what_a_total_grew_by_a_second() -> None:
    history = History()
    assert history.last is None
    for one in (at(1.0, answered=10), at(1.5, answered=30), at(1.5, answered=99)):
        history.add(one)
    assert history.rate("answered") == 40.0
    history.add(at(0.5, life="2", answered=50))  # started anew
    assert history.rate("answered") == 0.0
    history.add(at(1.5, life="2", answered=51))
    assert history.rate("answered") == 1.0


def test_the_states_of_a_minute_are_bounded_however_slow_a_servers_clock() -> None:
    history = History()
    for number in range(1_000):
        history.add(at(1 + 1e-6 * number, answered=number))
    assert len(history) <= 64
    assert history.last is not None
    assert history.last.answered == 999


def test_percentiles_are_of_the_last_minute_and_never_beyond_the_bounds() -> None:
    def lag(*counts: int) -> Histogram:
        return Histogram([0.1, 0.2, 0.4], list(counts))

    history = History()
    history.add(at(0.0))
    history.add(at(1.0, lag=lag(100, 100, 100, 100)))
    assert quantile(history.grown("lag"), 0.5) == 0.05
    history.add(at(61.5, lag=lag(100, 110, 110, 110)))
    assert quantile(history.grown("lag"), 0.5) == pytest.approx(0.15)
    history.add(at(62.0, lag=lag(100, 110, 110, 210)))
    assert quantile(history.grown("lag"), 0.99) == 0.4
    assert quantile(Histogram([], [0]), 0.5) is None
    assert quantile(lag(0, 0, 0, 0), 0.5) is None


def test_histograms_add_up_and_those_of_another_version_are_left_out() -> None:
    one, two = Histogram([1.0], [1, 2]), Histogram([1.0], [3, 5])
    assert added([Histogram([], [0]), one, two, Histogram([2.0], [9, 9])]) == Histogram([1.0], [4, 7])
    assert added([]) == Histogram([], [0])
