"""What the log and the metrics say of Places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from observed import figures
from scenarios import Scenario, Watched, assert_exactly, line, values_of

from proxyherd.places import STATES, CallOutcome, Spared


def places() -> Iterator[tuple[str, Scenario]]:
    asked = "proxyherd_places_seconds"
    for provider in values_of(asked, "provider"):
        for outcome in values_of(asked, "outcome"):
            yield (
                f"places {provider} {outcome}",
                Scenario(
                    lambda it, provider=provider, outcome=outcome: it.observer.places.asked(
                        provider, "S", outcome, 0.25
                    ),  # type: ignore[misc]
                    [line("places", provider=provider, status="S", seconds=0.25)],
                    {f"{asked}_count {provider} {outcome}": 1, f"{asked}_sum {provider} {outcome}": 0.25},
                ),
            )
    called: tuple[CallOutcome, ...] = get_args(CallOutcome)
    for result in called:
        yield (
            f"a call {result}",
            Scenario(
                lambda it, result=result: it.observer.places.count_call("google", result, 0.5, 0.032),  # type: ignore[misc]
                [line("places_call", provider="google", outcome=result, seconds=0.5)],
                {
                    f"proxyherd_places_calls_total google {result}": 1,
                    "proxyherd_places_cost_dollars_total google": 0.032,
                },
            ),
        )
    spared: tuple[Spared, ...] = get_args(Spared)
    for why in spared:
        logged = why in {"shed", "rate", "late", "share", "budget", "unrecorded"}
        yield (
            f"spared {why}",
            Scenario(
                lambda it, why=why: it.observer.places.count_spared(why),  # type: ignore[misc]
                [line("places_spared", "warning", reason=why, left_out=0)] if logged else [],
                {f"proxyherd_places_spared_total {why}": 1},
            ),
        )
    for state in STATES:
        level = "warning" if state == "open" else "info"
        changed = {} if state == "closed" else {f"proxyherd_places_breaker_state {state}": 1.0}
        if changed:
            changed["proxyherd_places_breaker_state closed"] = 0.0
        yield (
            f"the breaker is {state}",
            Scenario(
                lambda it, state=state: it.observer.places.note_breaker(state),  # type: ignore[misc]
                [line("places_breaker", level, state=state)],
                changed,
            ),
        )


SCENARIOS: dict[str, Scenario] = {
    **dict(places()),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)


def test_the_breaker_is_closed_before_anything_happens(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    shown = figures(watched.metrics)
    assert [shown[f"proxyherd_places_breaker_state {state}"] for state in STATES] == [
        float(state == "closed") for state in STATES
    ]
    watched.end()
