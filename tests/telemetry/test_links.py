"""What the log and the metrics say of neighbours."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
from observed import figures
from scenarios import Scenario, Watched, assert_exactly, line, noted

from proxyherd.core.notes import REPLACED, CaughtUp, Flooded, Heard, LinkDown, LinkFailed, LinkUp, Skipped
from proxyherd.telemetry.links import _MOST_SETS, OTHER_KEY, SETTINGS_DIFFER

SECOND = 10**9


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


def other_keys(it: Watched) -> None:
    """A neighbour whose table has another key, twice; then it has the right one; then the other one again."""
    for other_key in (True, True, False, True):
        it.observer.note([LinkUp("Ann", dialled=True, other_key=other_key)])
        assert it.observer.links.other_keys == ({"Ann"} if other_key else set())


def other_settings(it: Watched) -> None:
    """A neighbour whose settings differ, twice; then they are right; then they differ again."""
    for differing in ("on_full = evict, this server refuse", "on_full = evict, this server refuse", "") * 2:
        it.observer.note([LinkUp("Ann", dialled=True, differing=differing)])


UP = {"proxyherd_links_up Ann": 1.0}
OTHER_SETTINGS = f"it has on_full = evict, this server refuse; {SETTINGS_DIFFER}"
OPENED = line("peer_opened", neighbour="Ann", dialled=True)


SCENARIOS: dict[str, Scenario] = {
    "a flood is sent": noted(
        Flooded(("Ann",), [b"kiwi", b"\xff"]),
        [line("flood_sent", neighbour="Ann", updates=2, clients=["kiwi", "\\xff"])],
        {"proxyherd_flood_updates_total Ann out true": 2, "proxyherd_flood_batches_total Ann out": 1},
    ),
    "an update of an odd client is sent": noted(
        Flooded(("Ann",), [b"ki\xff"]),
        [line("flood_sent", neighbour="Ann", updates=1, clients=["ki\\xff"])],
        {"proxyherd_flood_updates_total Ann out true": 1, "proxyherd_flood_batches_total Ann out": 1},
    ),
    **{
        f"an update of a client of {size} bytes is sent": noted(
            Flooded(("Ann",), [b"x" * size]),
            [line("flood_sent", neighbour="Ann", updates=1, clients=["x" * size] * shown)],
            {"proxyherd_flood_updates_total Ann out true": 1, "proxyherd_flood_batches_total Ann out": 1},
        )
        for size, shown in ((1_021, 1), (1_022, 0))
    },
    **{
        f"an update of a client of {size} bytes is heard": noted(
            Heard("Ann", [b"x" * size], 0, None),
            [line("flood_received", neighbour="Ann", updates=1, news=0, clients=["x" * size] * shown)],
            {"proxyherd_flood_updates_total Ann in false": 1, "proxyherd_flood_batches_total Ann in": 1},
        )
        for size, shown in ((1_021, 1), (1_022, 0))
    },
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
    "a neighbour's table has another key": Scenario(
        other_keys,
        [
            OPENED,
            line("peer_key_differs", "warning", neighbour="Ann", reason=OTHER_KEY, left_out=0),
            *([OPENED] * 3),
            line("peer_key_differs", "warning", neighbour="Ann", reason=OTHER_KEY, left_out=0),
        ],
        {**UP, "proxyherd_peer_table_key_differs Ann": 1.0},
    ),
    "a neighbour has other settings": Scenario(
        other_settings,
        [
            OPENED,
            line("peer_settings_differ", "warning", neighbour="Ann", reason=OTHER_SETTINGS, left_out=0),
            *([OPENED] * 3),
            line("peer_settings_differ", "warning", neighbour="Ann", reason=OTHER_SETTINGS, left_out=0),
            *([OPENED] * 2),
        ],
        UP,
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
        LinkFailed("Ann", dialled=False, reason="no proof", address="::1"),
        [line("peer_refused", "warning", neighbour="Ann", address="::1", reason="no proof", left_out=0)],
        {"proxyherd_link_failures_total Ann": 1},
    ),
    "a stranger comes": noted(
        LinkFailed(None, dialled=False, reason="no handshake"),
        [line("peer_refused", "warning", neighbour=None, address="", reason="no handshake", left_out=0)],
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
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)


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


@pytest.mark.parametrize(
    "ending", [LinkUp("Ann", dialled=False), LinkFailed("Ann", dialled=True, reason="nobody listens")]
)
def test_why_a_neighbour_is_refused_is_known_until_it_is_linked_or_is_not_there(
    tmp_path: Path, ending: LinkUp | LinkFailed
) -> None:
    watched = Watched(tmp_path)
    links = watched.observer.links
    for claimed in ("Ann", "Eve", None):
        watched.observer.note([LinkFailed(claimed, dialled=False, reason=f"{claimed} has no proof")])
    assert links.refusals == {"Ann": "refused: Ann has no proof"}
    watched.observer.note([ending])
    assert links.refusals == {}
    watched.observer.note([LinkDown("Ann", "silent")])
    watched.observer.note([LinkFailed("Ann", dialled=True, reason="refused by the other: no proof")])
    assert links.refusals == {"Ann": "refused by the other: no proof"}
    watched.end()


@pytest.mark.parametrize("is_caught_up", [True, False])
def test_nobody_is_refused_while_it_is_linked(tmp_path: Path, is_caught_up: bool) -> None:
    """Whoever claims a neighbour's name, or dials it once more, says nothing about the link."""
    watched = Watched(tmp_path)
    watched.observer.note([LinkUp("Ann", dialled=False), *[CaughtUp("Ann", 1, 0, 0.1)] * is_caught_up])
    watched.observer.note([LinkFailed("Ann", dialled=False, reason="no proof")])
    watched.observer.note([LinkFailed("Ann", dialled=True, reason="refused by the other: no proof")])
    assert watched.observer.links.refusals == {}
    watched.end()


@pytest.mark.parametrize(("reason", "failures"), [(REPLACED, 1.0), ("silent", 0.0)])
def test_a_link_that_a_newer_one_replaced_counts_as_a_failure(
    tmp_path: Path, reason: str, failures: float
) -> None:
    watched = Watched(tmp_path)
    watched.observer.note([LinkDown("Ann", reason)])
    assert figures(watched.metrics)["proxyherd_link_failures_total Ann"] == failures
    events, _ = watched.end()
    assert events == [line("peer_closed", "warning", neighbour="Ann", reason=reason)]


def test_the_same_failure_at_another_address_is_told_too(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        watched.observer.note([LinkFailed(None, dialled=False, reason="no handshake", address=address)])
    events, _ = watched.end()
    assert [(event["address"], event["left_out"]) for event in events] == [("192.0.2.1", 0), ("192.0.2.2", 1)]


def test_one_reason_is_told_again_when_its_link_has_been_up_meanwhile(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for _ in range(2):
        for dialled in (True, False):
            for _ in range(3):
                watched.observer.note([LinkFailed("Ann", dialled=dialled, reason="refused")])
        watched.observer.note([LinkUp("Ann", dialled=True)])
    events, _ = watched.end()
    assert [event["event"] for event in events] == ["peer_unreachable", "peer_refused", "peer_opened"] * 2


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
    watched.observer.note([Flooded(("Ann",), clients)])
    ((event,), _) = watched.end()
    assert event["updates"] == len(sizes)
    assert event["clients"] == [client.decode() for client in clients[:shown]]


def test_what_is_sent_is_counted_however_many_sets_of_neighbours_it_goes_to(tmp_path: Path) -> None:
    watched, names = Watched(tmp_path), [f"N{number}" for number in range(9)]
    told = [*permutations(names, 1), *permutations(names, 2)]
    assert len(told) > _MOST_SETS
    for neighbours in told:
        watched.observer.note([Flooded(neighbours, [b"kiwi", b"plum"])])
    assert len(watched.observer.links._sent) <= _MOST_SETS
    _, counted = watched.end()
    for name in names:
        times = sum(neighbours.count(name) for neighbours in told)
        assert counted[f"proxyherd_flood_updates_total {name} out true"] == 2 * times
        assert counted[f"proxyherd_flood_batches_total {name} out"] == times


def test_figures_of_each_neighbour_are_there_before_anything_happens(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    shown = figures(watched.metrics)
    for name in ("proxyherd_links_up Ann", "proxyherd_link_failures_total Ann"):
        assert shown[name] == 0.0
    watched.end()
