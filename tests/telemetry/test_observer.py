"""What the log and the metrics say is exactly what happened: one scenario for every event, metric and label.

A subject's scenarios are in the test of its file. Each names all lines that it logs and all figures that it changes, and
nothing else may be logged or changed. docs/logs.md and docs/metrics.md are held to the scenarios.
"""

from __future__ import annotations

import contextlib
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from documented import LIFE, examples
from observed import figures, read
from scenarios import CLIENT, LABEL, LABELS, VIA, Scenario, Watched

from proxyherd.core.notes import CaughtUp, Flooded, Heard, LinkUp, Removed
from proxyherd.core.reply import Reply
from proxyherd.telemetry.commands import COMMANDS
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

SUBJECTS = (
    "cluster",
    "commands",
    "connections",
    "expiry",
    "erasures",
    "follows",
    "journal",
    "links",
    "places",
    "process",
    "table",
    "web",
)
SCENARIOS: dict[str, Scenario] = {
    name: scenario
    for subject in SUBJECTS
    for name, scenario in runpy.run_path(str(Path(__file__).with_name(f"test_{subject}.py")))[
        "SCENARIOS"
    ].items()
}
DOCS = Path(__file__).parents[2] / "docs"
AT = b"AT Bob +0.1 kiwi +1+1 5"


@pytest.mark.parametrize("other", ["a flood is sent", "a report", "iamat stale", "places google OK"])
def test_what_happens_twice_counts_twice(tmp_path: Path, other: str) -> None:
    """Also where the figures are asked for in between."""
    watched = Watched(tmp_path)
    for _ in range(2):
        SCENARIOS[other].act(watched)
        watched.observer.end_turn()
        watched.observer.settle()
    events, changed = watched.end()
    assert events == SCENARIOS[other].events * 2
    assert changed == {name: 2 * value for name, value in SCENARIOS[other].figures.items()}


def test_events_stand_in_the_order_in_which_they_happened(tmp_path: Path) -> None:
    """Reports gather, and are told before whatever comes next."""
    watched = Watched(tmp_path)
    it = watched.observer
    for number in range(2):
        it.commands.reports([LABEL], [b"IAMAT %d" % number], [b"AT"])
        it.commands.alike(LABEL, [b"FOO %d" % number], [Reply("other", "invalid", b"? ")])
    it.commands.reports([LABEL], [b"IAMAT 2"], [b"AT"])
    it.note([Flooded(("Ann",), [b"kiwi"])])
    it.commands.reports([LABEL], [b"IAMAT 3"], [b"AT"])
    events, _ = watched.end()
    said = [event.get("command", event["event"]) for event in events]
    assert said == ["IAMAT 0", "FOO 0", "IAMAT 1", "FOO 1", "IAMAT 2", "flood_sent", "IAMAT 3"]


@pytest.mark.parametrize("raises", [False, True])
def test_a_turn_writes_its_log_itself_and_asks_nobody_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    watched, asked = Watched(tmp_path), list[Callable[[], None]]()
    it = watched.observer
    watched.file.gather(asked.append)

    def stumble(*_: object, **__: object) -> None:
        watched.file.lines.append(b'{"timestamp":"","server":""}')
        raise ZeroDivisionError

    for turn in range(2):
        it.note([Flooded(("Ann",), [b"kiwi"])])
        it.commands.reports([LABEL], [b"IAMAT"], [b"AT"])
        with monkeypatch.context() as patch, contextlib.suppress(ZeroDivisionError):
            if raises:
                patch.setattr(it._events, "_tell", stumble)
            it.end_turn()
        assert not watched.file.lines
        assert len(read(tmp_path / "log")) == (1 + turn if raises else 2 + 2 * turn)
        assert not asked
    it.connections.opened(CLIENT, VIA, 1)
    assert asked == [watched.file.flush]
    watched.end()


def test_at_a_higher_level_frequent_events_are_counted_and_not_written(tmp_path: Path) -> None:
    file, metrics = LogFile(tmp_path / "log"), Metrics()
    it = Observer(
        make_logger(file, server="Bob", level="warning", max_field_bytes=99), file, metrics, ["Ann"]
    )
    it.commands.report(LABEL, b"IAMAT", b"AT")
    it.commands.reports([LABEL] * 2, [b"IAMAT"] * 2, [b"AT"] * 2)
    it.note([Flooded(("Ann",), [b"kiwi"])])
    it.end_turn()
    it.settle()
    file.close()
    assert read(tmp_path / "log") == []
    assert figures(metrics)["proxyherd_commands_total iamat stored"] == 3


@pytest.mark.parametrize("wanted", [True, False])
def test_while_somebody_looks_commands_and_clients_are_kept(tmp_path: Path, wanted: bool) -> None:
    watched = Watched(tmp_path)
    it, recent = watched.observer, watched.observer.recent
    recent.wanted = wanted
    it.commands.reports([LABEL], [b"IAMAT"], [AT])
    it.note([Heard("Ann", [b"plum"], 1, None)])
    it.commands.alike(LABEL, [b"FOO"], [Reply("other", "invalid", b"? FOO")])
    watched.end()
    assert [one.command for one in recent.commands(0, 9)] == (["IAMAT", "FOO"] if wanted else [])
    assert recent.take_clients() == ([b"kiwi", b"plum"] if wanted else [])


def test_what_is_kept_of_a_client_goes_when_it_is_erased(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    it, recent = watched.observer, watched.observer.recent
    recent.wanted = True
    it.commands.reports([LABEL], [b"IAMAT"], [AT])
    it.note([Removed(b"kiwi")])
    watched.end()
    assert (recent.commands(0, 9), recent.take_clients()) == ([], [])


def test_times_are_logged_to_the_microsecond_and_those_of_people_and_walks_to_the_millisecond(
    tmp_path: Path,
) -> None:
    watched, third = Watched(tmp_path), 1 / 3
    watched.observer.places.asked("google", "OK", "OK", third)
    watched.observer.places.count_call("google", "answered", third, 0.0)
    watched.observer.connections.line_unfinished(CLIENT, 1, third)
    watched.observer.note([CaughtUp("Ann", lines=1, news=1, seconds=third)])
    events, _ = watched.end()
    assert [event["seconds"] for event in events] == [0.333333, 0.333333, 0.333, 0.333]


def test_a_note_that_cannot_be_told_is_a_fault_and_the_others_are_told(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    odd: Any = Flooded(("Ann",), cast("Any", 5))
    watched.observer.note([odd, LinkUp("Ann", dialled=True)])
    events, _ = watched.end()
    assert [event["event"] for event in events] == ["internal_error", "peer_opened"]
    assert events[0]["reason"] == "a note of the core cannot be told"
    assert "TypeError" in events[0]["exception"]


ELSEWHERE = {
    "cannot_listen": "system/test_clients.py",
    "limit_lowered": "system/test_attacks.py",
    "listening": "system/test_clients.py",
    "places_key_unusable": "system/test_secrets_kept.py",
    "reload_failed": "system/test_tls.py",
    "table_key_differs": "system/test_secrets_kept.py",
    "token_keys_read": "system/test_tokens.py",
    "token_keys_unusable": "system/test_tokens.py",
}
"""Events that no observer is told of, and the tests that make them happen."""


def test_every_documented_event_has_a_scenario_with_the_fields_of_the_page() -> None:
    seen: dict[str, set[tuple[str, ...]]] = {}
    for scenario in SCENARIOS.values():
        for event in scenario.events:
            seen.setdefault(event["event"], set()).add((event["level"], *list(event)[2:]))
    assert set(examples()) == seen.keys() | ELSEWHERE.keys() | set(LIFE)
    assert not seen.keys() & ELSEWHERE.keys()
    for name, forms in seen.items():
        for example in examples()[name]:
            assert (example["level"], *list(example)[4:]) in forms, name


@pytest.mark.parametrize("event", ELSEWHERE)
def test_events_that_have_their_tests_elsewhere_are_there(event: str) -> None:
    assert event in (Path(__file__).parents[1] / ELSEWHERE[event]).read_text()


GAUGES = {
    "proxyherd_ready",
    "proxyherd_clients",
    "proxyherd_places_in_flight",
    "proxyherd_event_loop_lag_seconds",
    "proxyherd_log_bytes_total",
    "proxyherd_log_lines_lost_total",
    "proxyherd_log_failures_total",
    "proxyherd_masters",
    "proxyherd_masters_full",
    "proxyherd_masters_up",
    "proxyherd_waiting",
}
"""Of these see the tests of whole servers in test_observer_herd.py and of the process."""


def test_every_documented_metric_and_value_of_a_label_has_a_scenario() -> None:
    page = (DOCS / "metrics.md").read_text()
    documented = set(
        re.findall(r"^\| `(proxyherd_\w+)` \| (?:counter|gauge|histogram) \|", page, re.MULTILINE)
    )
    documented.discard("proxyherd_build_info")
    changed = {key for scenario in SCENARIOS.values() for key in scenario.figures}
    metrics = {re.sub(r"_(count|sum)$", "", key.split(" ")[0]) for key in changed}
    assert documented == metrics | GAUGES
    assert {f"proxyherd_commands_total {kind} {outcome}" for kind, outcome, _ in COMMANDS} <= changed
    for metric, _, values in LABELS:
        mine = [f" {key.split(' ', 1)[1]} " for key in changed if re.match(rf"{metric}(_count|_sum)? ", key)]
        for value in values:
            assert any(f" {value} " in one for one in mine), f"{metric}: {value}"
