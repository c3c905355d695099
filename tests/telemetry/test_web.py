"""What the metrics say of the web port."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from observed import figures
from scenarios import CLIENT, Scenario, Watched, assert_exactly, line

from proxyherd.telemetry.commands import WAYS
from proxyherd.telemetry.web import ANSWER_STATUSES, APP_NAMES, CONSUMED, TOKEN_REFUSALS
from proxyherd.web.access import DETAILS, TokenRefusal
from proxyherd.web.problems import KINDS
from proxyherd.web.trackers.apps import APPS
from proxyherd.web.trackers.points import Reason

SCENARIOS = {
    **{
        f"an answer {status}": Scenario(
            lambda it, status=status: it.observer.web.answered(int(status)),  # type: ignore[misc]
            [],
            {f"proxyherd_web_answers_total {status}": 1},
        )
        for status in ANSWER_STATUSES
    },
    **{
        f"{via}: {reason}": Scenario(
            lambda it, via=via, reason=reason: it.observer.web.consumed(via, reason, 3),  # type: ignore[misc]
            [],
            {f"proxyherd_web_consumed_total {via} {reason}": 3},
        )
        for via in APP_NAMES
        for reason in CONSUMED
    },
    **{
        f"a token is refused: {reason}": Scenario(
            lambda it, reason=reason: it.observer.web.token_refused(CLIENT, reason),  # type: ignore[misc]
            [line("token_refused", "warning", client=CLIENT, reason=reason, left_out=0)],
            {f"proxyherd_web_tokens_refused_total {reason}": 1},
        )
        for reason in TOKEN_REFUSALS
    },
    "a token is used": Scenario(
        lambda it: it.observer.web.token_used(CLIENT, "http", "jane/*", "0a1b", 1_800_000_000),
        [line("token_used", client=CLIENT, via="http", subject="jane/*", key="0a1b", expires=1_800_000_000)],
        {},
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)


def test_the_series_are_there_before_anything_is_counted_and_only_with_a_web_port(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    assert not [name for name in figures(watched.metrics) if re.match("proxyherd_web|.* owntracks", name)]
    watched.observer.open_web()
    found = figures(watched.metrics)
    assert {
        *(f"proxyherd_web_answers_total {status}" for status in ANSWER_STATUSES),
        *(f"proxyherd_web_consumed_total {via} {reason}" for via in APP_NAMES for reason in CONSUMED),
        *(f"proxyherd_web_tokens_refused_total {reason}" for reason in TOKEN_REFUSALS),
        *(f"proxyherd_commands_by_protocol_total {via} stored" for via in WAYS),
        *(f"proxyherd_commands_by_protocol_total {via} overlong" for via in WAYS if via not in APP_NAMES),
    } <= found.keys()
    assert "proxyherd_commands_by_protocol_total owntracks answered" not in found  # apps do not ask
    watched.end()


def test_the_values_of_labels_are_those_that_occur() -> None:
    assert {str(kind.status) for kind in KINDS} | {"101", "200", "204", "304"} == {*ANSWER_STATUSES}
    assert {*get_args(Reason)} == {*CONSUMED}
    assert {*get_args(TokenRefusal)} == {*TOKEN_REFUSALS} == {*DETAILS}
    assert {app.name for app in APPS} == {*APP_NAMES}
