"""Hundreds of herds, each a seed; and that the simulation finds the bugs it is there to find.

PROXYHERD_SEEDS says how many seeds are run (500 where it is not set), PROXYHERD_FIRST_SEED which is the first.
One alone: `python -c 'from simulation import check; check(4711)'` in this folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from simulation import Herd, LawBroken, Plan, WatchedTable, check, run

from proxyherd.core.messages import At, Entry, Whatsat
from proxyherd.core.node import News, Node
from proxyherd.core.peer_messages import Changed, LinkEvent
from proxyherd.core.reply import Reply
from proxyherd.core.table import Table
from proxyherd.core.walks import Neighbour

SEEDS = int(os.environ.get("PROXYHERD_SEEDS", "500"))
FIRST = int(os.environ.get("PROXYHERD_FIRST_SEED", "0"))
CHUNK = 50
FOUND_WITHIN = 200

_concerning, _act, _flood = Node._concerning, Node._act, Node.flood
_look_up, _start = Node.look_up, Node.start


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, CHUNK))
def test_a_herd_keeps_its_laws_whatever_the_world_does(first: int) -> None:
    for seed in range(first, min(first + CHUNK, FIRST + SEEDS)):
        check(seed)


@pytest.mark.parametrize("servers", [2, 3, 12, 30])
@pytest.mark.parametrize("journal", ["none", "kept", "less a second"])
def test_a_herd_of_any_size_keeps_its_laws_on_trees_of_the_real_depth(servers: int, journal: str) -> None:
    herd = check(FIRST, servers=servers, journal=journal, depth=4, troubles=8)
    assert len(herd.servers) == servers


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_seed_reproduces_its_run_exactly(seed: int) -> None:
    def told() -> list[str]:
        herd = Herd(seed, trace=True)
        herd.run()
        return list(herd.trace or ())

    assert told() == told()
    assert len(told()) > 10


def test_seeds_differ() -> None:
    plans = [vars(Plan(seed)) for seed in range(200)]
    assert len({str(plan) for plan in plans}) == 200
    assert {plan["journal"] for plan in plans} == {"none", "kept", "less a second"}
    assert {plan["servers"] for plan in plans} >= set(range(2, 10))
    assert max(plan["servers"] for plan in plans) > 20


# Bugs planted to be found. ------------------------------------------------------------------------------------


def forwards_to_the_sender(node: Node, neighbour: Neighbour, news: list[News]) -> list[News]:
    return _concerning(node, neighbour, [News(one.client, one.line, None, one.caught_up) for one in news])


def takes_equal_times(node: Node, at: At) -> bool:
    leaf = node.table.leaf(at.client)
    held = node.table.get(at.client, leaf)
    if held is not None and at.entry.nanoseconds < held.nanoseconds:
        return False
    node.table.put(at.client, at.entry, leaf)
    return True


def floods_only_where_it_has_walked(node: Node) -> None:
    """What comes between the handshake and the end of the first walk is lost."""
    every = node._neighbours
    node._neighbours = {name: one for name, one in every.items() if one.pulled}
    try:
        _flood(node)
    finally:
        node._neighbours = every


def forgets_to_walk_again(node: Node, neighbour: Neighbour, event: LinkEvent, now: float) -> None:
    """CHANGED is dropped where a walk is under way, which may have passed by what has changed."""
    if isinstance(event, Changed):
        node._walks.begin(neighbour)
    else:
        _act(node, neighbour, event, now)


def never_says_changed(node: Node, neighbour: Neighbour, news: list[News]) -> list[News]:
    told = _concerning(node, neighbour, news)
    neighbour.owed = False
    return told


def answers_while_it_replays(node: Node, question: Whatsat, line: bytes) -> Reply:
    waits, node._all_wait = node._all_wait, False
    try:
        return _look_up(node, question, line)
    finally:
        node._all_wait = waits


def believes_a_journal_that_lacks_records(node: Node, now: float, *, lacks: bool) -> None:
    _start(node, now)


@pytest.mark.parametrize(
    ("method", "bug"),
    [
        ("_concerning", forwards_to_the_sender),
        ("admit", takes_equal_times),
        ("flood", floods_only_where_it_has_walked),
        ("_act", forgets_to_walk_again),
        ("_concerning", never_says_changed),
        ("look_up", answers_while_it_replays),
        ("start", believes_a_journal_that_lacks_records),
    ],
)
def test_a_planted_bug_is_found(
    method: str, bug: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Node, method, bug)
    seed, law = first_broken()
    assert law.startswith(f"seed {seed}, at ")
    with pytest.raises(LawBroken, match=r"(?s)plan: .*edges: .* -> ") as told:
        check(seed)
    assert str(told.value).startswith(law)


def first_broken() -> tuple[int, str]:
    """Return the first seed that finds what is wrong, and which law that broke."""
    for seed in range(FOUND_WITHIN):
        try:
            run(seed)
        except LawBroken as error:
            return seed, str(error)
    pytest.fail(f"not found within {FOUND_WITHIN} seeds")


def unwatched(watched: WatchedTable, client: bytes, entry: Entry, leaf: int) -> None:
    Table.put(watched, client, entry, leaf)
    watched.greatest[client] = entry.nanoseconds, entry.line


def test_taking_equal_times_is_found_by_what_it_does_to_the_herd_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Node, "admit", takes_equal_times)
    monkeypatch.setattr(WatchedTable, "put", unwatched)
    _, law = first_broken()
    assert "a second time" in law or "back to" in law or "does not come to rest" in law
