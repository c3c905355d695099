"""Pauses between attempts: bounded on both sides, and spread between the bounds."""

from __future__ import annotations

from itertools import islice
from random import Random

import pytest

from proxyherd.base.backoff import backoff

FIRST = 0.05
PAUSES = 40


class Extreme(Random):
    """A source that always draws its least number, 0, or its greatest, just below 1."""

    def __init__(self, drawn: float) -> None:
        super().__init__()
        self._drawn = drawn

    def random(self) -> float:
        return self._drawn


LEAST, GREATEST = 0.0, 1 - 2**-53


def pauses(most: float, rng: Random, number: int = PAUSES) -> list[float]:
    return list(islice(backoff(FIRST, most, rng), number))


@pytest.mark.parametrize("most", [0.01, FIRST, 0.07, 1.0, 3_600.0])
def test_the_nth_pause_lies_between_half_and_all_of_the_first_doubled_n_times_up_to_the_cap(
    most: float,
) -> None:
    whole = [min(FIRST * 2**n, most) for n in range(PAUSES)]
    assert pauses(most, Extreme(LEAST)) == pytest.approx([pause / 2 for pause in whole])
    assert pauses(most, Extreme(GREATEST)) == pytest.approx(whole)
    assert max(pauses(most, Extreme(GREATEST))) <= most


def test_pauses_may_begin_at_any_part_of_the_whole() -> None:
    """At nothing, say, where those that are to part are many."""
    assert list(islice(backoff(FIRST, 1.0, Extreme(LEAST), least=0.0), 8)) == [0.0] * 8
    assert list(islice(backoff(FIRST, 1.0, Extreme(LEAST), least=0.75), 2)) == pytest.approx(
        [0.75 * FIRST, 1.5 * FIRST]
    )


def test_pauses_are_spread_over_the_whole_of_their_range() -> None:
    """So that servers that have lost the same neighbour do not come back in step."""
    last = [pauses(1.0, Random(seed), 8)[-1] for seed in range(400)]
    counts = [sum(low <= pause < low + 0.1 for pause in last) for low in (0.5, 0.6, 0.7, 0.8, 0.9)]
    assert sum(counts) == 400
    assert min(counts) > 40
    assert len(set(last)) == 400


def test_pauses_go_on_for_ever() -> None:
    assert pauses(1.0, Extreme(GREATEST), 5_000)[-1] == pytest.approx(1.0)
