"""No command gets slower unnoticed: what it costs in steps of the interpreter stays near what tests/support/cost.json says.

Nothing here is timed, so a busy machine changes nothing. Who makes a command cheaper keeps that too.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cost import (
    PYTHON,
    Core,
    Cost,
    Meter,
    ServerWithAWebPort,
    kept,
    kept_libraries,
    libraries,
    measure,
    table,
)

from proxyherd.core.messages import parse_question, parse_report

MOST = 0.1
"""How far a figure may be from what was kept, either way."""

REMEDY = "if that is meant, keep it: .venv/bin/python tests/support/cost.py --write"


def strayed(now: dict[str, Cost], then: dict[str, Cost]) -> list[str]:
    """The commands that cost more or less than they may, those that are new, and those that are gone."""
    return [
        name
        for name in now.keys() | then.keys()
        if name not in now
        or name not in then
        or any(abs(new / old - 1) > MOST for new, old in zip(now[name], then[name], strict=True))
    ]


@pytest.fixture(scope="module")
def now() -> dict[str, Cost]:
    return measure()


def test_a_command_costs_what_it_did(now: dict[str, Cost]) -> None:
    then = kept()
    if then is None:
        pytest.skip(
            f"no figures are kept for Python {PYTHON}; .venv/bin/python tests/support/cost.py --write"
        )
    assert not strayed(now, then), (
        f"{strayed(now, then)} strayed by more than {MOST:.0%}; {REMEDY}\n{table(now, then)}\n"
        f"counted with {libraries()}, kept with {kept_libraries()}"
    )


def test_counting_twice_gives_the_same(now: dict[str, Cost]) -> None:
    again = measure()
    assert now.keys() == again.keys()
    for name, cost in now.items():
        # What is done once, or once in a second, is in it, so more than nothing.
        assert again[name] == pytest.approx(cost, rel=0.02), name


def test_rates_make_a_command_of_a_counted_client_two_in_a_hundred_dearer_at_most(
    now: dict[str, Cost],
) -> None:
    for name in ("a report alone", "a report of 32 in a turn", "over the web: a report by PUT"):
        exempt, counted = now[f"server: {name}"], now[f"server: {name}, counted"]
        assert exempt.opcodes < counted.opcodes < 1.02 * exempt.opcodes, name


def test_a_web_port_that_is_open_and_idle_makes_no_command_dearer(now: dict[str, Cost]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        beside = asyncio.run(ServerWithAWebPort(Path(folder)).run())
    assert beside
    for name, cost in beside.items():
        assert cost == pytest.approx(now[f"server: {name}"], rel=0.01), name


def work(times: int) -> int:
    """Some steps, as many again for each time, and a call of C code in each."""
    return sum([len("x" * number) for number in range(times)])


def test_twice_the_work_counts_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cost._UNSEEN", ())
    costs = []
    for times in (100, 200):
        with Meter() as meter:
            work(times)
        costs.append((meter.opcodes, meter.calls))
    (opcodes, calls), (more_opcodes, more_calls) = costs
    assert opcodes > 500
    assert more_opcodes == pytest.approx(2 * opcodes, rel=0.05)
    assert more_calls - calls == 100


def twice(parse: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *line: parse(*line) and parse(*line)


def test_a_core_that_parses_twice_is_noticed(now: dict[str, Cost], monkeypatch: pytest.MonkeyPatch) -> None:
    for parse in (parse_question, parse_report):
        monkeypatch.setattr(f"proxyherd.core.rules.{parse.__name__}", twice(parse))
    slower = Core().run()
    assert {"a first report", "a later report", "a stale report", "a question"} <= set(
        strayed(slower, {name: now[f"core: {name}"] for name in slower})
    )


def test_a_change_beyond_a_tenth_is_told_in_either_direction() -> None:
    then = {name: Cost(1_000.0, 100.0) for name in ("same", "slower", "faster", "calls more", "gone")}
    now = {
        "same": Cost(1_090.0, 92.0),
        "slower": Cost(1_110.0, 100.0),
        "faster": Cost(890.0, 100.0),
        "calls more": Cost(1_000.0, 120.0),
        "new": Cost(1.0, 1.0),
    }
    assert set(strayed(now, then)) == {"slower", "faster", "calls more", "gone", "new"}
