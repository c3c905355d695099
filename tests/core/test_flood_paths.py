"""Which copies of an update are spare: the others reach every server once, and with them nobody is left out."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.config.herd_file import DEFAULT_FILE, load
from proxyherd.core.flood_paths import NO_SPARE_COPIES, SpareCopies, spare_copies, spared

DEFAULT = load(Path(__file__).parents[2] / DEFAULT_FILE).graph


def line_of(server: str) -> bytes:
    return b"AT %b +0.5 kiwi +1+1 5" % server.encode()


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Connected herds of up to 12 servers."""
    rng = Random(draw(st.integers(0, 1 << 30)))
    names = [f"{chr(65 + number)}x" for number in range(rng.randint(1, 12))]
    rng.shuffle(names)
    edges = {frozenset((names[number], names[rng.randrange(number)])) for number in range(1, len(names))}
    for _ in range(rng.randint(0, 2 * len(names))):
        edges.add(frozenset((rng.choice(names), rng.choice(names))))
    pairs = [(one, other) for edge in edges if len(edge) == 2 for one, other in (sorted(edge),)]
    return {
        name: [other if one == name else one for one, other in pairs if name in (one, other)]
        for name in names
    }


class Flood:
    """One update that goes through a herd from its origin. Copies that are no spare ones arrive first."""

    def __init__(self, graph: dict[str, list[str]], origin: str, lost: Sequence[str] = ()) -> None:
        self.arrived: Counter[str] = Counter()  # copies that were not spare
        self.known: set[str] = set()
        soon: deque[tuple[str | None, str]] = deque([(None, origin)])
        spare: deque[tuple[str | None, str]] = deque()
        while soon or spare:
            source, name = soon.popleft() if soon else spare.popleft()
            if name in lost or name in self.known:
                continue
            self.known.add(name)
            copies = spared(spare_copies(graph, name), source, line_of(origin))
            assert source not in copies
            for other in graph[name]:
                if other != source:
                    (spare if other in copies else soon).append((name, other))
                    self.arrived[other] += other not in copies


@given(graphs())
def test_the_copies_that_do_not_wait_reach_each_server_once(
    graph: dict[str, list[str]],
) -> None:
    for origin in graph:
        flood = Flood(graph, origin)
        assert +flood.arrived == Counter(graph.keys() - {origin})
        assert flood.known == {*graph}


@given(graphs(), st.integers(0, 1 << 30))
def test_an_update_reaches_all_that_are_still_linked_whoever_is_lost(
    graph: dict[str, list[str]], seed: int
) -> None:
    rng = Random(seed)
    origin, *others = rng.sample(sorted(graph), len(graph))
    lost = [name for name in others if rng.random() < 0.3]
    reached, frontier = {origin}, [origin]
    for name in frontier:
        frontier += (more := [one for one in graph[name] if one not in reached and one not in lost])
        reached |= {*more}
    assert Flood(graph, origin, lost).known == reached


def test_what_did_not_come_on_the_shortest_path_is_passed_on_at_once() -> None:
    spare = spare_copies(DEFAULT, "Jaquez")
    assert spared(spare, "Campbell", line_of("Bona")) == {"Clark"}
    assert spared(spare, "Clark", line_of("Bona")) == set(), (
        "Campbell is as near to Bona, and sorts before Clark"
    )


def test_the_spare_copies_of_a_server_of_the_default_herd() -> None:
    assert spare_copies(DEFAULT, "Campbell") == {
        "Bailey": {b"AT Bailey": frozenset({"Bona"})},
        "Bona": {b"AT Bona": frozenset({"Bailey"}), b"AT Clark": frozenset({"Bailey", "Jaquez"})},
    }


@pytest.mark.parametrize(
    "line",
    [
        line_of("Campbell"),  # its own, which comes from a client
        line_of("Bone"),  # of a server that was removed
        line_of("Bon"),
        b"GONE 00 11 22",
        b"GONE Bona 11",
    ],
)
def test_of_other_lines_no_copy_is_spare(line: bytes) -> None:
    spare = spare_copies(DEFAULT, "Campbell")
    for source in (None, *DEFAULT["Campbell"], "Nobody"):
        assert spared(spare, source, line) == set()
        assert spared(NO_SPARE_COPIES, source, line) == set()


@pytest.mark.parametrize("graph", [{"A": []}, {"A": ["B"], "B": ["A"], "C": ["D"], "D": ["C"]}])
def test_in_a_herd_without_rings_nothing_is_spare(graph: dict[str, list[str]]) -> None:
    nothing: SpareCopies = {}
    assert [spare_copies(graph, name) for name in graph] == [nothing] * len(graph)


@pytest.mark.parametrize(
    ("servers", "neighbours", "is_searched"), [(1_000, 2, True), (40, 39, True), (100, 99, False)]
)
def test_the_search_for_paths_takes_some_30_ms_or_is_left(
    servers: int, neighbours: int, *, is_searched: bool
) -> None:
    names = [f"S{number}" for number in range(servers)]
    looked_up: Counter[str] = Counter()

    class Counted(dict[str, list[str]]):
        def __getitem__(self, name: str) -> list[str]:
            looked_up[name] += 1
            return super().__getitem__(name)

    near = [*range(1, neighbours // 2 + 1), *range(-((neighbours + 1) // 2), 0)]
    ring = {name: [names[(number + step) % servers] for step in near] for number, name in enumerate(names)}
    spare = spare_copies(Counted(ring), "S7")
    assert bool(spare) is is_searched
    assert sum(looked_up.values()) < 20_000
