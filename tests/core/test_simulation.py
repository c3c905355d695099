"""Hundreds of herds, each a seed; and that the simulation finds the bugs it is there to find.

PROXYHERD_SEEDS says how many seeds are run (500 where it is not set), PROXYHERD_FIRST_SEED which is the first.
One alone: `python -c 'from simulation import check; check(4711)'` in tests/support.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import pytest
from simulation import Herd, LawBroken, Plan, WatchedTable, check, run
from simulation.disk import Disk

from proxyherd.core import contact as core_contact
from proxyherd.core import erasures as core_erasures
from proxyherd.core import news as core_news
from proxyherd.core import table as core_table
from proxyherd.core.contact import Contact
from proxyherd.core.conversation import Conversation
from proxyherd.core.decider import Decider
from proxyherd.core.engine import Said, Settled
from proxyherd.core.erasures import Erasures
from proxyherd.core.follows.event import Event
from proxyherd.core.follows.followed_clients import FollowedClients
from proxyherd.core.follows.follower import Follower
from proxyherd.core.follows.follows import Follows
from proxyherd.core.follows.snapshots import Snapshots
from proxyherd.core.framing import Line
from proxyherd.core.handshake import State
from proxyherd.core.link import Link
from proxyherd.core.messages import At, Entry, Forget, Report, Whatsat, parse_at
from proxyherd.core.news import News, concerning
from proxyherd.core.node import Node
from proxyherd.core.peer_messages import Changed, LinkEvent
from proxyherd.core.reply import Reply
from proxyherd.core.table import Erasure, Room, Table
from proxyherd.core.tombstones import Tombstone, Tombstones
from proxyherd.core.turn import Turn
from proxyherd.core.walks import Neighbour
from proxyherd.engines.herd.engine import HerdEngine
from proxyherd.web import routes
from proxyherd.web.conversations.http import HttpConversation
from proxyherd.web.conversations.lines import LineSocket
from proxyherd.web.conversations.sockets import WebSocketConversation
from proxyherd.web.exchanges import Exchanges
from proxyherd.web.frames import Message, Opcode, WebSocketError
from proxyherd.web.problems import Problem
from proxyherd.web.reports import batch_answer

SEEDS = int(os.environ.get("PROXYHERD_SEEDS", "500"))
FIRST = int(os.environ.get("PROXYHERD_FIRST_SEED", "0"))
CHUNK = 50
FOUND_WITHIN = 200

_undo, _flood_alone, _report = Node.undo, Node.flood_alone, HerdEngine.report
_act, _flood = Node._act, Node.flood
_look_up, _start = Node.look_up, Node.start
_begin, _end, _keep = HerdEngine.begin, HerdEngine.end, HerdEngine.keep
_decide, _pass_on = HerdEngine.decide, HerdEngine.pass_on
_release, _tell = Conversation.release, Turn._tell
_turn_decide, _hear, _sent = Turn._decide, WebSocketConversation._hear, LineSocket._sent
_erased, _forget, _snapshot = Node._erased, Erasures.forget, Disk._snapshot
_admit, _erase = Table.admit, Table.erase
_set_aside, _caught_up = Contact.set_aside, Contact.caught_up
_put, _until = Tombstones.put, Tombstones.until
_take_in, _hold = FollowedClients.take_in, Follower._hold
_run_snapshots = Snapshots.run
_release_exchanges, _serve_some = Exchanges.release, HttpConversation._serve_some


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, CHUNK))
def test_a_herd_keeps_its_laws_whatever_the_world_does(first: int) -> None:
    for seed in range(first, min(first + CHUNK, FIRST + SEEDS)):
        check(seed)


@pytest.mark.long
@pytest.mark.parametrize("servers", [2, 3, 12, 30])
@pytest.mark.parametrize("journal", ["none", "kept", "less a second", "always"])
def test_a_herd_of_any_size_keeps_its_laws_on_trees_of_the_real_depth(servers: int, journal: str) -> None:
    herd = check(FIRST, servers=servers, journal=journal, depth=4, troubles=8)
    assert len(herd.servers) == servers


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3, 4, 5, 6])
def test_a_seed_reproduces_its_run_exactly(seed: int) -> None:
    """All herds are kept, so that in each one other objects lie at other addresses."""
    herds = [Herd(seed, trace=True) for _ in range(3)]
    for herd in herds:
        herd.run()
    first, *rest = ([*(herd.world.trace or ())] for herd in herds)
    assert rest == [first, first]
    assert len(first) > 10


@pytest.mark.long
def test_in_some_of_the_seeds_each_thing_happens_that_may_become_of_a_command() -> None:
    outcomes, ways = Counter[str](), Counter[str]()
    for seed in range(100):
        laws = run(seed).laws
        outcomes += laws.outcomes
        ways += laws.ways
    assert outcomes.keys() == {
        *("stored", "stale", "refused", "erased", "stayed"),
        *("answered", "unknown", "left", "unanswered", "invalid"),
        *("following", "unfollowed"),
    }
    reports = {
        f"{how}: {what}" for how in ("put", "batch", "report") for what in ("stored", "stale", "refused")
    }
    questions = {
        f"{how}: {what}"
        for how in ("places", "locate", "places op", "locate op")
        for what in ("answered", "unknown")
    }
    others = {"line", "batch: problem", "nothing: problem", "no op: problem"}
    erasures = {"erase: erased", "erase: refused", "erase before: erased", "erase before: stayed"}
    assert ways.keys() >= reports | questions | others | erasures


def test_seeds_differ() -> None:
    plans = [vars(Plan(seed)) for seed in range(200)]
    assert len({str(plan) for plan in plans}) == 200
    assert {plan["journal"] for plan in plans} == {"none", "kept", "less a second", "always"}
    assert {plan["servers"] for plan in plans} >= set(range(2, 10))
    assert max(plan["servers"] for plan in plans) > 20


# Bugs planted to be found. ------------------------------------------------------------------------------------


def forwards_to_the_sender(neighbour: Neighbour, news: list[News]) -> list[News]:
    return concerning(neighbour, [News(one.client, one.line, None, one.caught_up) for one in news])


def tells_erased_spare_copies(_: Node, link: Link) -> None:
    if link.spare and link.state is State.LIVE:
        link.send_spare()


def loses_spare_copies(_: Node, link: Link) -> None:
    link.spare.clear()


def keeps_no_news_of_neighbours(engine: HerdEngine, done: Callable[[bool], None]) -> bool | None:
    own = [one for one in engine._node.news if one.source is None]
    news, engine._node.news = engine._node.news, own
    kept = _keep(engine, done)
    engine._node.news = news
    return kept


def updates_overtake_a_handshake(link: Link, lines: bytes) -> None:
    link.out.insert(0, lines)


def takes_equal_times(node: Node, at: At) -> bool:
    leaf = node.table.leaf(at.client)
    held = node.table.get(at.client, leaf)
    if held is not None and at.entry.nanoseconds < held.nanoseconds:
        return False
    node.table.put(at.client, at.entry, leaf)
    return True


def floods_only_where_it_has_walked(node: Node, failed: Any) -> None:
    """What comes between the handshake and the end of the first walk is lost."""
    every = node._neighbours
    node._neighbours = {name: one for name, one in every.items() if one.pulled}
    try:
        _flood(node, failed)
    finally:
        node._neighbours = every


def forgets_to_walk_again(node: Node, neighbour: Neighbour, event: LinkEvent, now: float) -> None:
    """CHANGED is dropped where a walk is under way, which may have passed by what has changed."""
    if isinstance(event, Changed):
        node._walks.begin(neighbour)
    else:
        _act(node, neighbour, event, now)


def never_says_changed(neighbour: Neighbour, news: list[News]) -> list[News]:
    told = concerning(neighbour, news)
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


def begins_without_a_replay(node: Node) -> None:
    """Queries are answered from the table as it was before the journal was read."""


def tells_of_refused_reports(node: Node) -> None:
    news = node.news
    _undo(node)
    node.news = news


def ends_before_the_flood(engine: HerdEngine, now: float) -> Settled:
    """Neighbours are told in the next turn, when clients have their answers."""
    with patch.object(engine._node, "flood", lambda _: None):
        settled = _end(engine, now)
    settled.more = settled.more or bool(engine._node.news)
    return settled


def begins_with_the_flood(engine: HerdEngine, now: float, received: int, lately: int) -> None:
    engine._node.flood(engine._failed)
    _begin(engine, now, received, lately)


def keeps_without_waiting_for_the_disk(engine: HerdEngine, done: Callable[[bool], None]) -> bool:
    kept = _keep(engine, lambda _: None)
    return True if kept is None else kept


def answers_while_what_it_has_learned_waits(engine: HerdEngine, said: Sequence[Said]) -> None:
    settles = engine._settles
    _decide(engine, said)
    engine._settles = settles or any(
        isinstance(line, bytes) and b"IAMAT" in line for one in said for line in one.lines
    )


def forgets_what_it_has_learned_without_a_turn(engine: HerdEngine, now: float) -> None:
    """It is never in the journal."""
    unkept = engine._unkept.copy()
    _pass_on(engine, now)
    engine._unkept = unkept


def passes_nothing_on_without_a_turn(engine: HerdEngine, now: float) -> None:
    with patch.object(engine._node, "flood", lambda _: engine._node.news.clear()):
        _pass_on(engine, now)


def releases_what_is_there_in_any_order(
    conversation: Conversation,
) -> tuple[list[tuple[Line, Reply]], bytes]:
    there = sorted(conversation.owed, key=lambda owed: owed[1].answer is None)
    conversation.owed.clear()
    conversation.owed.extend(there)
    return _release(conversation)


def logs_no_query(turn: Turn, client: Any, lines: Sequence[Line], replies: Sequence[Reply]) -> None:
    logged = [one for one in zip(lines, replies, strict=True) if one[1].kind != "whatsat"]
    _tell(turn, client, [line for line, _ in logged], [reply for _, reply in logged])


def decides_nothing_again(turn: Turn) -> None:
    """Reports that could not be kept are taken back, and answered as if they had been kept."""
    turn._engine.keeper.undo()  # type: ignore[union-attr]


# Of the web. --------------------------------------------------------------------------------------------------


def answers_the_web_before_its_flood(turn: Turn, said: list[Said]) -> None:
    """What came by HTTP is answered as soon as it is decided."""
    _turn_decide(turn, said)
    for one in [*turn._said]:
        if isinstance(getattr(one.client, "conversation", None), HttpConversation):
            turn._said.remove(one)
            turn._answer(one)


def says_that_all_of_a_batch_is_stored(batch: Sequence[bytes | Problem], replies: Sequence[Reply]) -> bytes:
    stored = [
        Reply(one.kind, "stored", (one.answer or b"").replace(b"? IAMAT", b"AT A +0.000000001"))
        for one in replies
    ]
    return batch_answer(batch, stored)


def skips_what_is_bad_in_a_batch(batch: Sequence[bytes | Problem], replies: Sequence[Reply]) -> bytes:
    return batch_answer([one for one in batch if isinstance(one, bytes)], replies)


def finishes_exchanges_in_any_order(exchanges: Exchanges) -> list[tuple[Line, Reply]]:
    """Replies that are there go to the first exchange."""
    there = sorted(exchanges._commands, key=lambda owed: owed[1].answer is None)
    exchanges._commands = deque(there)
    return _release_exchanges(exchanges)


def closes_without_what_is_owed(socket: WebSocketConversation, one: Message | WebSocketError) -> None:
    if isinstance(one, Message) and one.opcode == Opcode.CLOSE:
        socket._close(1000)
    else:
        _hear(socket, one)


def answers_in_text_alone(socket: LineSocket, data: bytes) -> bytes:
    socket._kind = int(Opcode.TEXT)
    return _sent(socket, data)


def serves_one_request_of_a_packet(conversation: HttpConversation, most: int, now: float) -> None:
    _serve_some(conversation, 1, now)
    conversation.more = False


# Of erasure. --------------------------------------------------------------------------------------------------


def leaves_tombstones_out_of_a_rewrite(disk: Disk, table: Table) -> list[bytes]:
    return [line for line in _snapshot(disk, table) if not line.startswith(b"GONE")]


def covers_by_the_time_that_counts(table: Table, client: bytes, line: bytes, leaf: int | None = None) -> bool:
    at = parse_at(line)
    return at is not None and at.entry.nanoseconds <= table.erased_until(client, leaf)


def admits_what_was_erased(
    table: Table, client: bytes, entry: Entry, room: Room, too_old: Callable[[Entry], bool] | None = None
) -> bool | None:
    """What a neighbour tells, which has not heard of an erasure, is believed."""
    with patch.object(table, "gone", {}):
        return _admit(table, client, entry, room, too_old)


def puts_hashes_in_another_leaf(tombstones: Tombstones, digest: bytes, until: int, leaf: int) -> None:
    _put(tombstones, digest, until, leaf ^ 1)


def looks_in_another_leaf(tombstones: Tombstones, digest: bytes, leaf: int) -> int:
    """Together with the one above, the same on all servers: only digests, batches and lookups differ."""
    return _until(tombstones, digest, leaf ^ 1)


def restores_the_line_alone(table: Table, tombstone: Tombstone, erasure: Erasure) -> None:
    """An erasure that could not be kept is refused, and its tombstone stays."""
    if erasure.client is not None and erasure.entry is not None:
        table.put(erasure.client, erasure.entry, table.leaf(erasure.client))


def removes_later_reports_too(table: Table, tombstone: Tombstone) -> Erasure | None:
    with patch.object(core_table, "received", lambda _: 0):
        return _erase(table, tombstone)


def forgets_too_early(erasures: Erasures) -> int:
    return erasures._rules.clock - erasures._keep // 2


_early: Any = property(forgets_too_early)


def lets_the_old_in(node: Node, erasure: Erasure) -> None:
    """A neighbour that does not understand tombstones stays linked, and is told of them."""
    old = [one for one in node._neighbours.values() if one.link.is_old]
    for one in old:
        one.link.is_old = False
    _erased(node, erasure)
    for one in old:
        one.link.is_old = True


def asks_nobody_after_an_erasure(node: Node, erasure: Erasure) -> None:
    _erased(node, Erasure(erasure.before))


def erases_only_until_before_the_last_report(erasures: Erasures, command: Forget) -> tuple[Reply, list[News]]:
    """A line that came in the same turn, or from a clock that is ahead, is not covered."""
    with patch.object(core_erasures, "received", lambda _: 0):
        return _forget(erasures, command)


def tells_nobody_of_erasures(erasures: Erasures, command: Forget) -> tuple[Reply, list[News]]:
    return _forget(erasures, command)[0], []


def puts_everything_back(contact: Contact, _: int) -> dict[bytes, Entry]:
    return _caught_up(contact, contact.doubted + 1)


def sets_all_aside(contact: Contact, table: Table, clock: int) -> None:
    """Also what nobody else can have."""
    with patch.object(core_contact, "received", lambda _: 0):
        _set_aside(contact, table, clock)


# Of follows. -------------------------------------------------------------------------------------------------


def tells_what_was_told(followed: FollowedClients, client: bytes, entry: Entry | None) -> None:
    """An entry that has not changed is told again."""
    one = followed._followed[client]
    if entry is not None and one.entry is not None and entry.line == one.entry.line:
        followed._tell(one, Event("move", client, entry))
    _take_in(followed, client, entry)


def tells_nobody_that_an_erased_client_is_gone(
    followed: FollowedClients, client: bytes, entry: Entry | None
) -> None:
    if entry is not None:
        _take_in(followed, client, entry)


def keeps_the_first_of_what_waits(follower: Follower, event: Event) -> None:
    """Who reads slowly is told where a client was first, and not where it is now."""
    if not any(key[1] == event.client for key in follower._held):
        _hold(follower, event)


def resumes_at_once(follower: Follower) -> None:
    """Who reads on is told what waits, though the server may know since that it was erased."""
    follower.pushed.push()


def begins_follows_while_it_replays(snapshots: Snapshots, now: float) -> None:
    node = snapshots._node
    waits, node._all_wait = node._all_wait, False
    try:
        _run_snapshots(snapshots, now)
    finally:
        node._all_wait = waits


def takes_in_no_change(follows: Follows) -> bool:
    follows._reader.take()  # type: ignore[union-attr]
    return False


def keeps_no_report_alone(engine: HerdEngine, one: Report, now: float) -> bool:
    journal, engine._journal = engine._journal, KeepsNothing()
    try:
        return _report(engine, one, now)
    finally:
        engine._journal = journal


class KeepsNothing:
    """A journal that says that it has kept what it was given."""

    always, takes_reports = False, True

    def append(self, _: list[bytes]) -> bool:
        return True

    def sync(self, done: Callable[[bool], None]) -> None:
        done(True)


def tells_nobody_of_news_alone(*_: object) -> None:
    pass


def returns_news_alone(node: Node, news: News, failed: Any) -> None:
    _flood_alone(node, News(news.client, news.line, None, False), failed)


BUGS: dict[str, list[tuple[object, str, Callable[..., object]]]] = {
    "forwards to the sender": [(core_news, "concerning", forwards_to_the_sender)],
    "tells erased spare copies": [(Node, "send_spare", tells_erased_spare_copies)],
    "loses spare copies": [(Node, "send_spare", loses_spare_copies)],
    "sends no spare copies when they have waited": [(HerdEngine, "send_spare", lambda *_: None)],
    "does not journal what neighbours tell": [(HerdEngine, "keep", keeps_no_news_of_neighbours)],
    "updates overtake a handshake": [(Link, "send_updates", updates_overtake_a_handshake)],
    "takes equal times": [(Node, "admit", takes_equal_times)],
    "floods only where it has walked": [(Node, "flood", floods_only_where_it_has_walked)],
    "forgets to walk again": [(Node, "_act", forgets_to_walk_again)],
    "never says CHANGED": [(core_news, "concerning", never_says_changed)],
    "answers while it replays": [(Node, "look_up", answers_while_it_replays)],
    "believes a journal that lacks records": [(Node, "start", believes_a_journal_that_lacks_records)],
    "answers from before the replay": [(Node, "begin_replay", begins_without_a_replay)],
    "answers before its flood": [
        (HerdEngine, "end", ends_before_the_flood),
        (HerdEngine, "begin", begins_with_the_flood),
    ],
    "answers before its sync": [(HerdEngine, "keep", keeps_without_waiting_for_the_disk)],
    "answers from what is not in the journal yet": [
        (HerdEngine, "decide", answers_while_what_it_has_learned_waits)
    ],
    "forgets what it has learned without a turn": [
        (HerdEngine, "pass_on", forgets_what_it_has_learned_without_a_turn)
    ],
    "passes nothing on without a turn": [(HerdEngine, "pass_on", passes_nothing_on_without_a_turn)],
    "keeps no report alone": [(HerdEngine, "report", keeps_no_report_alone)],
    "tells nobody of news alone": [(Node, "flood_alone", tells_nobody_of_news_alone)],
    "returns news alone": [(Node, "flood_alone", returns_news_alone)],
    "takes no report alone back": [(Decider, "take_back", lambda *_: None)],
    "tells of refused reports": [(Node, "undo", tells_of_refused_reports)],
    "answers refused reports": [(Turn, "_decide_again", decides_nothing_again)],
    "answers in any order": [(Conversation, "release", releases_what_is_there_in_any_order)],
    "logs no query": [(Turn, "_tell", logs_no_query)],
    "answers the web before its flood": [(Turn, "_decide", answers_the_web_before_its_flood)],
    "says that all of a batch is stored": [(routes, "batch_answer", says_that_all_of_a_batch_is_stored)],
    "skips what is bad in a batch": [(routes, "batch_answer", skips_what_is_bad_in_a_batch)],
    "gives replies to other exchanges": [(Exchanges, "release", finishes_exchanges_in_any_order)],
    "closes a WebSocket without what is owed": [
        (WebSocketConversation, "_hear", closes_without_what_is_owed)
    ],
    "answers in text alone": [(LineSocket, "_sent", answers_in_text_alone)],
    "serves one request of a packet": [(HttpConversation, "_serve_some", serves_one_request_of_a_packet)],
    "leaves tombstones out of a rewrite": [(Disk, "_snapshot", leaves_tombstones_out_of_a_rewrite)],
    "covers by the time that counts": [(Table, "is_erased", covers_by_the_time_that_counts)],
    "admits what was erased": [(Table, "admit", admits_what_was_erased)],
    "puts hashes in another leaf": [(Tombstones, "put", puts_hashes_in_another_leaf)],
    "puts and finds hashes in another leaf": [
        (Tombstones, "put", puts_hashes_in_another_leaf),
        (Tombstones, "until", looks_in_another_leaf),
    ],
    "restores the line alone": [(Table, "restore", restores_the_line_alone)],
    "removes later reports too": [(Table, "erase", removes_later_reports_too)],
    "forgets tombstones too early": [(Erasures, "oldest", _early)],
    "lets a neighbour of version 1 stay": [(Node, "_erased", lets_the_old_in)],
    "asks nobody after an erasure": [(Node, "_erased", asks_nobody_after_an_erasure)],
    "erases only until before the last report": [
        (Erasures, "forget", erases_only_until_before_the_last_report)
    ],
    "tells everything after a long absence": [(Contact, "was_lost", lambda *_: False)],
    "sets its own reports aside": [(Contact, "set_aside", sets_all_aside)],
    "puts back what others have dropped": [(Contact, "caught_up", puts_everything_back)],
    "tells nobody of erasures": [(Erasures, "forget", tells_nobody_of_erasures)],
    "tells followers what was told": [(FollowedClients, "take_in", tells_what_was_told)],
    "tells no follower who is gone": [
        (FollowedClients, "take_in", tells_nobody_that_an_erased_client_is_gone)
    ],
    "keeps the first of what waits": [(Follower, "_hold", keeps_the_first_of_what_waits)],
    "tells what waits at once": [(Follower, "resume", resumes_at_once)],
    "keeps positions of the erased": [(Follower, "_as_known", lambda _, event: event)],
    "begins follows while it replays": [(Snapshots, "run", begins_follows_while_it_replays)],
    "follows take in no change": [(Follows, "take_in", takes_in_no_change)],
}


SHORT: dict[str, Any] = {
    "servers": 5,
    "depth": 2,
    "skew": 0,
    "erasures": 10,
    "compare_seconds": 2.0,
    "tombstone_seconds": 60.0,
    "absences": 1,
    "cuts_off": True,
}
"""A plan in which erasures are forgotten, and a server is cut off for as long: few seeds have such a one."""

FOLLOWED: dict[str, Any] = {
    "servers": 3,
    "depth": 2,
    "clients": 3,
    "reports": 25,
    "erasures": 30,
    "followers": 8,
    "leaving": 0.4,
}
"""A plan in which many follow the same clients, which are erased often."""

PLANS = {
    "tells everything after a long absence": SHORT,
    "sets its own reports aside": SHORT,
    "puts back what others have dropped": SHORT,
    "tells what waits at once": FOLLOWED,
    "keeps positions of the erased": FOLLOWED,
    "begins follows while it replays": FOLLOWED,
}


@pytest.mark.long
@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for owner, method, bug in BUGS[name]:
        monkeypatch.setattr(owner, method, bug)
    plan = PLANS.get(name, {})
    seed, law = first_broken(**plan)
    assert law.startswith(f"seed {seed}, at ")
    with pytest.raises(LawBroken, match=r"(?s)plan: .*edges: .*\n +[0-9]+\.[0-9]{4} ") as told:
        check(seed, **plan)
    assert str(told.value).startswith(law)


def first_broken(**plan: Any) -> tuple[int, str]:
    """Return the first seed that finds what is wrong, and which law that broke."""
    for seed in range(FOUND_WITHIN):
        try:
            run(seed, **plan)
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
    assert "went back" not in law
