"""What the log and the metrics say is exactly what happened: one scenario for every event, metric and label.

Each scenario names all lines that it logs and all figures that it changes, and nothing else may be logged or changed.
docs/logs.md and docs/metrics.md are held to the scenarios.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import pytest
from documented import LIFE, examples
from observed import Clock, Figures, figures, metrics_of_a_server, read

from proxyherd.core.framing import Overlong
from proxyherd.core.messages import Entry
from proxyherd.core.notes import REPLACED, CaughtUp, Flooded, Heard, LinkDown, LinkFailed, LinkUp, Skipped
from proxyherd.core.reply import Reply
from proxyherd.places import STATES, CallOutcome, Spared
from proxyherd.telemetry.commands import COMMANDS
from proxyherd.telemetry.connections import REASONS
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

DOCS = Path(__file__).parents[2] / "docs"
AT = b"AT Bob +0.1 kiwi +1+1 5"
CLIENT = "10.0.0.1:5"
SECOND = 10**9


class Watched:
    """A real observer with a real log and real metrics, on a clock of its own."""

    def __init__(self, folder: Path) -> None:
        self.clock = Clock()
        self.path = folder / "log"
        self.file = LogFile(self.path)
        self.metrics = Metrics()
        log = make_logger(self.file, server="Bob", level="info", max_field_bytes=1024)
        self.observer = Observer(log, self.file, self.metrics, ["Ann"], self.clock)
        self._before = figures(self.metrics)

    def end(self) -> tuple[list[dict[str, Any]], Figures]:
        """Return what was logged, and the figures that have changed; asked for twice, which must change nothing."""
        self.observer.end_turn()
        self.observer.settle()
        first = figures(self.metrics)
        self.observer.settle()
        assert figures(self.metrics) == first, "what is asked for twice is counted twice"
        self.file.close()
        assert first.pop("proxyherd_log_bytes_total") == self.path.stat().st_size
        changed = {name: value for name, value in first.items() if value != self._before.get(name, 0.0)}
        return read(self.path), changed


class Scenario(NamedTuple):
    """What happens, what is logged of it, and which figures have which values then."""

    act: Callable[[Watched], object]
    events: list[dict[str, Any]]
    figures: Figures


def line(event: str, level: str = "info", /, **fields: Any) -> dict[str, Any]:
    return {"level": level, "event": event, **fields}


def command(reply: Reply, said: bytes | Overlong = b"said", **more: Any) -> Scenario:
    answer = None if reply.answer is None else reply.answer.decode()
    fields = {
        "client": CLIENT,
        "kind": reply.kind,
        "outcome": reply.outcome,
        "command": "said",
        "answer": answer,
    }
    return Scenario(
        lambda it: it.observer.commands.command(CLIENT, said, reply),
        [line("command", **fields | more)],
        {f"proxyherd_commands_total {reply.kind} {reply.outcome}": 1},
    )


def replies() -> Iterator[tuple[str, Scenario]]:
    for kind, outcome, _ in COMMANDS:
        answer = {"unanswered": None, "left": b""}.get(outcome, b"? said")
        if outcome == "answered":
            places = Reply(kind, outcome, AT + b"\n{}\n", entry=Entry(AT, 5 * SECOND), status="OK", results=3)
            more: dict[str, Any] = {"answer": AT.decode(), "status": "OK", "results": 3, "bytes": len(AT) + 5}
            yield f"{kind} {outcome}", command(places, **more)
        elif outcome != "stored":
            said = Overlong(b"said") if outcome == "overlong" else b"said"
            yield f"{kind} {outcome}", command(Reply(kind, outcome, answer), said)


def reports(count: int) -> Scenario:
    said, answers = [b"IAMAT %d" % n for n in range(count)], [b"AT %d" % n for n in range(count)]
    return Scenario(
        lambda it: it.observer.commands.reports(CLIENT.encode(), said, answers),
        [
            line(
                "command",
                client=CLIENT,
                kind="iamat",
                outcome="stored",
                command=f"IAMAT {n}",
                answer=f"AT {n}",
            )
            for n in range(count)
        ],
        {"proxyherd_commands_total iamat stored": count},
    )


CLOSED = "proxyherd_client_connections_closed_total"
LABELS = metrics_of_a_server().labels


def values_of(metric: str, label: str) -> list[str]:
    return next([*values] for one, name, values in LABELS if (one, name) == (metric, label))


def connections() -> Iterator[tuple[str, Scenario]]:
    opened = line("client_opened", client=CLIENT)
    taken = {"proxyherd_client_connections_opened_total": 1.0}
    yield (
        "a client comes",
        Scenario(
            lambda it: it.observer.connections.opened(CLIENT, 1),
            [opened],
            {**taken, "proxyherd_client_connections": 1},
        ),
    )
    for reason in (one for one in REASONS if one != "refused"):

        def come_and_go(it: Watched, reason: str = reason) -> None:
            it.observer.connections.opened(CLIENT, 1)
            it.observer.connections.closed(CLIENT, reason, 0)

        closed = line("client_closed", client=CLIENT, reason=reason)
        yield (
            f"a client goes: {reason}",
            Scenario(come_and_go, [opened, closed], {**taken, f"{CLOSED} {reason}": 1}),
        )
    yield (
        "a line is unfinished",
        Scenario(
            lambda it: it.observer.connections.line_unfinished(CLIENT, 33, 6.0),
            [
                line(
                    "line_unfinished",
                    client=CLIENT,
                    bytes=33,
                    seconds=6.0,
                    remedy="end each line with LF, or close the sending half behind the last one",
                )
            ],
            {},
        ),
    )
    yield (
        "a client is refused",
        Scenario(
            lambda it: it.observer.connections.refused(CLIENT, "full"),
            [line("client_refused", "warning", client=CLIENT, reason="full", left_out=0)],
            {f"{CLOSED} refused": 1},
        ),
    )


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
        logged = why in {"shed", "late", "budget", "unrecorded"}
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


def noted(note: Any, events: list[dict[str, Any]], changed: Figures) -> Scenario:
    return Scenario(lambda it: it.observer.note([note]), events, changed)


UP = {"proxyherd_links_up Ann": 1.0}
NEIGHBOURS = {
    "a flood is sent": noted(
        Flooded("Ann", [b"kiwi", b"\xff"]),
        [line("flood_sent", neighbour="Ann", updates=2, clients=["kiwi", "\\xff"])],
        {"proxyherd_flood_updates_total Ann out true": 2, "proxyherd_flood_batches_total Ann out": 1},
    ),
    "a flood is heard": noted(
        Heard("Ann", [b"a", b"b", b"c"], 2, 3 * SECOND // 2),
        [line("flood_received", neighbour="Ann", updates=3, news=2, clients=["a", "b", "c"])],
        {
            "proxyherd_flood_updates_total Ann in true": 2,
            "proxyherd_flood_updates_total Ann in false": 1,
            "proxyherd_flood_batches_total Ann in": 1,
            "proxyherd_propagation_seconds_count": 1,
            "proxyherd_propagation_seconds_sum": 1.5,
        },
    ),
    "a flood that is no news": noted(
        Heard("Ann", [b"a"], 0, None),
        [line("flood_received", neighbour="Ann", updates=1, news=0, clients=["a"])],
        {"proxyherd_flood_updates_total Ann in false": 1, "proxyherd_flood_batches_total Ann in": 1},
    ),
    "a flood from a clock ahead": noted(
        Heard("Ann", [b"a"], 1, -SECOND),
        [line("flood_received", neighbour="Ann", updates=1, news=1, clients=["a"])],
        {
            "proxyherd_flood_updates_total Ann in true": 1,
            "proxyherd_flood_batches_total Ann in": 1,
            "proxyherd_propagation_seconds_count": 1,
        },
    ),
    "a link comes up": noted(
        LinkUp("Ann", dialled=True), [line("peer_opened", neighbour="Ann", dialled=True)], UP
    ),
    "a link goes down": Scenario(
        lambda it: it.observer.note([LinkUp("Ann", dialled=False), LinkDown("Ann", "silent")]),
        [
            line("peer_opened", neighbour="Ann", dialled=False),
            line("peer_closed", "warning", neighbour="Ann", reason="silent"),
        ],
        {},
    ),
    "a dial fails": noted(
        LinkFailed("Ann", dialled=True, reason="refused"),
        [line("peer_unreachable", "warning", neighbour="Ann", reason="refused", left_out=0)],
        {"proxyherd_link_failures_total Ann": 1},
    ),
    "a neighbour fails to prove itself": noted(
        LinkFailed("Ann", dialled=False, reason="no proof"),
        [line("peer_refused", "warning", neighbour="Ann", reason="no proof", left_out=0)],
        {"proxyherd_link_failures_total Ann": 1},
    ),
    "a stranger comes": noted(
        LinkFailed(None, dialled=False, reason="no handshake"),
        [line("peer_refused", "warning", neighbour=None, reason="no handshake", left_out=0)],
        {"proxyherd_link_failures_total unknown": 1},
    ),
    "a line is skipped": noted(
        Skipped("Ann", b"AT poison", "no AT line"),
        [
            line(
                "peer_line_skipped",
                "warning",
                neighbour="Ann",
                line="AT poison",
                reason="no AT line",
                left_out=0,
            )
        ],
        {"proxyherd_peer_lines_skipped_total Ann": 1},
    ),
    "a walk ends": noted(
        CaughtUp("Ann", lines=7, news=3, seconds=0.25),
        [line("caught_up", neighbour="Ann", lines=7, news=3, seconds=0.25)],
        {"proxyherd_mended_entries Ann": 3, "proxyherd_checks_total Ann": 1},
    ),
}


def many_failures(it: Watched) -> None:
    """Twelve different ones at once, of which ten are logged; then six seconds later one more."""
    for number in range(12):
        it.observer.note([LinkFailed("Ann", dialled=True, reason=f"failure {number}")])
    it.clock.now += 6.0
    it.observer.note([LinkFailed("Ann", dialled=True, reason="failure 12")])


def many_links(it: Watched) -> None:
    for _ in range(104):
        it.observer.note([LinkUp("Ann", dialled=True)])
    it.clock.now += 1.0
    it.observer.note([LinkUp("Ann", dialled=True)])


def many_faults(it: Watched) -> None:
    for _ in range(103):
        it.observer.fault("it failed", ValueError("why"))
    it.clock.now += 1.0
    it.observer.fault("it failed", ValueError("why"))


def many_clients(it: Watched) -> None:
    for _ in range(20_003):
        it.observer.connections.opened(CLIENT, 1)
    it.clock.now += 0.1
    it.observer.connections.opened(CLIENT, 1)


def many_commands(it: Watched) -> None:
    for _ in range(1_003):
        it.observer.commands.command(CLIENT, b"", Reply("other", "invalid", b"? "))
    it.observer.commands.tick()
    it.clock.now += 10.0
    it.observer.commands.tick()


def fault(it: Watched) -> None:
    it.observer.fault("it failed", ValueError("why"))


def room(it: Watched) -> None:
    it.observer.cluster.master_full("m:1", full=True)
    it.observer.cluster.master_full("m:1", full=False)


def masters(it: Watched) -> None:
    for trouble in ("late", "late", "", "late"):
        it.observer.cluster.master("m:1", trouble)


def journal(it: Watched) -> None:
    it.observer.journal.state(100, 2, "no space", takes_reports=False)
    it.observer.settle()
    it.observer.journal.state(150, 3, "no space", takes_reports=False)
    it.observer.journal.state(150, 3, "no file", takes_reports=True)


def journal_whole(it: Watched) -> None:
    for failing in ("", "no space", "", ""):
        it.observer.journal.state(1, 1, failing, takes_reports=False)


UPKEEP = {
    "failures in numbers": Scenario(
        many_failures,
        [
            line("peer_unreachable", "warning", neighbour="Ann", reason=f"failure {number}", left_out=0)
            for number in range(10)
        ]
        + [line("peer_unreachable", "warning", neighbour="Ann", reason="failure 12", left_out=2)],
        {"proxyherd_link_failures_total Ann": 13},
    ),
    "links in numbers": Scenario(
        many_links,
        [line("peer_opened", neighbour="Ann", dialled=True)] * 100
        + [line("peer_opened", neighbour="Ann", dialled=True, left_out=4)],
        UP,
    ),
    "faults in numbers": Scenario(
        many_faults,
        [line("internal_error", "error", reason="it failed", exception="ValueError: why")] * 100
        + [line("internal_error", "error", reason="it failed", left_out=3, exception="ValueError: why")],
        {},
    ),
    "clients in numbers": Scenario(
        many_clients,
        [line("client_opened", client=CLIENT)] * 20_000 + [line("client_opened", client=CLIENT, left_out=3)],
        {"proxyherd_client_connections": 1, "proxyherd_client_connections_opened_total": 20_004},
    ),
    "commands in numbers": Scenario(
        many_commands,
        [line("command", client=CLIENT, kind="other", outcome="invalid", command="", answer="? ")] * 1_000
        + [
            line(
                "commands_left_out",
                "warning",
                commands=3,
                outcomes={"other invalid": 3},
                addresses={"10.0.0.1": 3},
            )
        ],
        {"proxyherd_commands_total other invalid": 1_003},
    ),
    "a fault": Scenario(
        fault, [line("internal_error", "error", reason="it failed", exception="ValueError: why")], {}
    ),
    "the journal fails": Scenario(
        journal,
        [
            line("journal_failing", "error", reason="no space", effect="reports are refused"),
            line("journal_failing", "error", reason="no file", effect="reports are taken without a promise"),
        ],
        {
            "proxyherd_journal_bytes_total": 150,
            "proxyherd_journal_failures_total": 3,
            "proxyherd_journal_failing": 1,
        },
    ),
    "the journal is whole again": Scenario(
        journal_whole,
        [
            line("journal_failing", "error", reason="no space", effect="reports are refused"),
            line("journal_whole"),
        ],
        {"proxyherd_journal_bytes_total": 1, "proxyherd_journal_failures_total": 1},
    ),
    "the journal is replayed": Scenario(
        lambda it: it.observer.journal.replayed(3, 2, 1 / 3),
        [line("replayed", lines=3, clients=2, seconds=0.333)],
        {},
    ),
    "the journal lacks records": Scenario(
        lambda it: it.observer.journal.lacks("1.journal is damaged"),
        [
            line(
                "journal_lacks",
                "warning",
                reason="1.journal is damaged",
                effect="queries wait for the first catch-up",
            )
        ],
        {},
    ),
    "the journal is torn": Scenario(
        lambda it: it.observer.journal.torn("1.journal", 5, 20),
        [line("journal_torn", "warning", file="1.journal", records=5, cut_bytes=20)],
        {},
    ),
    "the journal is damaged": Scenario(
        lambda it: it.observer.journal.damaged("1.journal", 5, 2),
        [
            line(
                "journal_damaged",
                "error",
                file="1.journal",
                records=5,
                damaged=2,
                remedy="kept as 1.journal.damaged; neighbours have what is missing",
            )
        ],
        {},
    ),
    "the journal is rewritten": Scenario(
        lambda it: it.observer.journal.rewritten(100, 1 / 3),
        [line("journal_rewritten", bytes=100, seconds=0.333)],
        {},
    ),
    "a batch": Scenario(
        lambda it: it.observer.cluster.batch(7, 0.25),
        [],
        {
            "proxyherd_batch_commands_count": 1,
            "proxyherd_batch_commands_sum": 7,
            "proxyherd_batch_seconds_count": 1,
            "proxyherd_batch_seconds_sum": 0.25,
        },
    ),
    "a master goes and comes": Scenario(
        masters,
        [
            line("master_down", "warning", master="m:1", reason="late", left_out=0),
            line("master_up", master="m:1"),
            line("master_down", "warning", master="m:1", reason="late", left_out=0),
        ],
        {},
    ),
    "who is master": Scenario(
        lambda it: it.observer.cluster.masters({"m:1": 512}), [line("masters", parts={"m:1": 512})], {}
    ),
    "a node says nothing": Scenario(
        lambda it: it.observer.cluster.node_failed("n:1", "late"),
        [line("node_failed", "warning", node="n:1", reason="late", left_out=0)],
        {},
    ),
    "a master is unsafe": Scenario(
        lambda it: it.observer.cluster.master_unsafe("m:1", "no file"),
        [line("master_unsafe", "warning", master="m:1", reason="no file", left_out=0)],
        {},
    ),
    "a master is full, and has room again": Scenario(
        room,
        [
            line(
                "master_full",
                "warning",
                master="m:1",
                reason="its memory is full: raise maxmemory there, or add a shard",
            ),
            line("master_has_room", master="m:1"),
        ],
        {},
    ),
    **{
        f"retried {why}": Scenario(
            lambda it, why=why: it.observer.cluster.retried(why, 3),  # type: ignore[misc]
            [],
            {f"proxyherd_retried_total {why}": 3},
        )
        for why in values_of("proxyherd_retried_total", "why")
    },
}

SCENARIOS: dict[str, Scenario] = {
    **dict(replies()),
    "a report": reports(1),
    "reports": reports(3),
    **dict(connections()),
    **dict(places()),
    **NEIGHBOURS,
    **UPKEEP,
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    scenario = SCENARIOS[name]
    watched = Watched(tmp_path)
    scenario.act(watched)
    events, changed = watched.end()
    for event in events:
        if "exception" in event:
            event["exception"] = event["exception"].splitlines()[-1]
    assert events == scenario.events
    assert changed == pytest.approx(scenario.figures)


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


def test_a_total_that_goes_back_takes_nothing_away(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for written in (10, 4, 12):
        watched.observer.journal.state(written, 0, "", takes_reports=True)
        watched.observer.settle()
    assert figures(watched.metrics)["proxyherd_journal_bytes_total"] == 12
    watched.end()


def test_the_state_of_each_link_is_known_from_the_start_and_follows_what_happens(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    links = watched.observer.links.states
    states = [dict(links)]
    for note in (
        LinkUp("Ann", dialled=True),
        CaughtUp("Ann", lines=1, news=1, seconds=0.1),
        LinkDown("Ann", "silent"),
        LinkUp("Ann", dialled=False),
    ):
        watched.observer.note([note])
        states.append(dict(links))
    assert [state["Ann"] for state in states] == ["cut", "catching up", "live", "cut", "catching up"]
    assert all(len(state) == 1 for state in states)
    watched.end()


def test_figures_of_each_neighbour_are_there_before_anything_happens(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    shown = figures(watched.metrics)
    for name in ("proxyherd_links_up Ann", "proxyherd_link_failures_total Ann"):
        assert shown[name] == 0.0
    assert [shown[f"proxyherd_places_breaker_state {state}"] for state in STATES] == [
        float(state == "closed") for state in STATES
    ]
    watched.end()


def test_events_stand_in_the_order_in_which_they_happened(tmp_path: Path) -> None:
    """Reports gather, and are told before whatever comes next."""
    watched = Watched(tmp_path)
    it = watched.observer
    for number in range(2):
        it.commands.reports(CLIENT.encode(), [b"IAMAT %d" % number], [b"AT"])
        it.commands.command(CLIENT, b"FOO %d" % number, Reply("other", "invalid", b"? "))
    it.commands.reports(CLIENT.encode(), [b"IAMAT 2"], [b"AT"])
    it.note([Flooded("Ann", [b"kiwi"])])
    it.commands.reports(CLIENT.encode(), [b"IAMAT 3"], [b"AT"])
    events, _ = watched.end()
    said = [event.get("command", event["event"]) for event in events]
    assert said == ["IAMAT 0", "FOO 0", "IAMAT 1", "FOO 1", "IAMAT 2", "flood_sent", "IAMAT 3"]


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ([1021], 1),
        ([1022], 0),
        ([1022, 1], 0),
        ([500, 518], 2),
        ([500, 519], 1),
        ([9] * 100, 85),
        ([1] * 999, 256),
    ],
)
def test_the_clients_in_a_line_are_cut_where_the_next_would_be_too_much(
    tmp_path: Path, sizes: list[int], shown: int
) -> None:
    watched, clients = Watched(tmp_path), [b"x" * size for size in sizes]
    watched.observer.note([Flooded("Ann", clients)])
    ((event,), _) = watched.end()
    assert event["updates"] == len(sizes)
    assert event["clients"] == [client.decode() for client in clients[:shown]]


def test_where_nothing_was_left_out_nothing_is_told_of_it(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for _ in range(100):
        watched.clock.now += 1.0
        watched.observer.commands.tick()
    watched.observer.commands.tell_left_out()
    events, _ = watched.end()
    assert events == []


@pytest.mark.parametrize("seconds", [9.9, 10.0])
def test_what_was_left_out_is_told_every_ten_seconds(tmp_path: Path, seconds: float) -> None:
    watched = Watched(tmp_path)
    counts = []
    for _ in range(3):
        for _ in range(5_000):
            watched.observer.commands.command(CLIENT, b"", Reply("other", "invalid", b"? "))
        watched.clock.now += seconds
        watched.observer.commands.tick()
        watched.observer.end_turn()
        counts.append(sum(event["event"] == "commands_left_out" for event in read(watched.path)))
    assert counts == ([1, 2, 3] if seconds == 10.0 else [0, 1, 1])
    watched.end()


OFTEN: dict[str, tuple[int, float, Callable[[Observer], None]]] = {
    "client_opened": (20_000, 0.1, lambda it: it.connections.opened(CLIENT, 1)),
    "peer_opened": (100, 1.0, lambda it: it.note([LinkUp("Ann", dialled=True)])),
    "internal_error": (100, 1.0, lambda it: it.fault("odd", None)),
    "master_up": (100, 1.0, lambda it: it.cluster.master("127.0.0.1:7001", "")),
}
"""How many at once, and in how many seconds one more: docs/logs.md."""


@pytest.mark.parametrize("event", OFTEN)
def test_what_happens_often_is_logged_so_often_and_the_next_line_counts_the_others(
    tmp_path: Path, event: str
) -> None:
    burst, seconds, act = OFTEN[event]
    watched = Watched(tmp_path)
    watched.file.gather(lambda _: None)  # all in few writes
    for _ in range(burst + 3):
        act(watched.observer)
    for _ in range(2):
        watched.clock.now += 0.55 * seconds
        act(watched.observer)
    events, _ = watched.end()
    assert [one["event"] for one in events] == [event] * (burst + 1)
    assert [one["left_out"] for one in events if "left_out" in one] == [4]


@pytest.mark.parametrize(("reason", "failures"), [(REPLACED, 1.0), ("silent", 0.0)])
def test_a_link_that_a_newer_one_replaced_counts_as_a_failure(
    tmp_path: Path, reason: str, failures: float
) -> None:
    watched = Watched(tmp_path)
    watched.observer.note([LinkDown("Ann", reason)])
    assert figures(watched.metrics)["proxyherd_link_failures_total Ann"] == failures
    events, _ = watched.end()
    assert events == [line("peer_closed", "warning", neighbour="Ann", reason=reason)]


@pytest.mark.parametrize("wanted", [True, False])
def test_while_somebody_looks_commands_and_clients_are_kept(tmp_path: Path, wanted: bool) -> None:
    watched = Watched(tmp_path)
    it, recent = watched.observer, watched.observer.recent
    recent.wanted = wanted
    it.commands.reports(CLIENT.encode(), [b"IAMAT"], [AT])
    it.note([Heard("Ann", [b"plum"], 1, None)])
    it.commands.command(CLIENT, b"FOO", Reply("other", "invalid", b"? FOO"))
    watched.end()
    assert [one.command for one in recent.commands(0, 9)] == (["IAMAT", "FOO"] if wanted else [])
    assert recent.take_clients() == ([b"kiwi", b"plum"] if wanted else [])


def test_one_reason_is_told_again_when_its_link_has_been_up_meanwhile(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for _ in range(2):
        for dialled in (True, False):
            for _ in range(3):
                watched.observer.note([LinkFailed("Ann", dialled=dialled, reason="refused")])
        watched.observer.note([LinkUp("Ann", dialled=True)])
    events, _ = watched.end()
    assert [event["event"] for event in events] == ["peer_unreachable", "peer_refused", "peer_opened"] * 2


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
    odd: Any = Flooded("Ann", cast("Any", 5))
    watched.observer.note([odd, LinkUp("Ann", dialled=True)])
    events, _ = watched.end()
    assert [event["event"] for event in events] == ["internal_error", "peer_opened"]
    assert events[0]["reason"] == "a note of the core cannot be told"
    assert "TypeError" in events[0]["exception"]


def test_a_disk_that_is_full_is_counted(tmp_path: Path) -> None:
    metrics = Metrics()
    file = LogFile(Path("/dev/full"))
    log = make_logger(file, server="Bob", level="info", max_field_bytes=1024)
    observer = Observer(log, file, metrics, [])
    for _ in range(3):
        observer.connections.opened(CLIENT, 1)
    observer.settle()
    observer.settle()
    file.close()
    found = figures(metrics)
    assert found["proxyherd_log_lines_lost_total"] == found["proxyherd_log_failures_total"] == 3
    assert found["proxyherd_log_bytes_total"] == 0


# The pages. ----------------------------------------------------------------------------------------------------

ELSEWHERE = {
    "cannot_listen": "system/test_clients.py",
    "limit_lowered": "system/test_attacks.py",
    "listening": "system/test_clients.py",
    "places_key_unusable": "system/test_secrets_kept.py",
    "reload_failed": "system/test_tls.py",
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
"""Of these see the tests of whole servers in test_observed_herd.py, and above."""


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
