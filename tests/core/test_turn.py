"""The rules of a turn, whatever the engine: in which order it calls it, who waits, and how much is done at once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import pytest
from turns import Asked, Held, Pipeliner, Turns, node

from proxyherd.config.schema import Limits
from proxyherd.core.engine import Client, Said, Settled
from proxyherd.core.framing import Line
from proxyherd.core.messages import Entry, Report
from proxyherd.core.notes import LinkUp, Note
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules
from proxyherd.core.turn import Turn
from proxyherd.engines.herd.engine import HerdEngine
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

TURN_LINES = 512


class Scripted:
    """An engine that notes how it is called. Lines that begin with R are reports, with W what must wait, with Q queries for
    Places."""

    def __init__(self) -> None:
        self.rules = Rules("A", Limits())
        self.keeper = self
        self.full = False
        self.more = False
        self.kept: bool | None = True
        self.done: Callable[[bool], None]
        self.error: Exception | None = None
        self.called: list[str] = []
        self.undone = False
        self.lately: list[int] = []
        self.settle: list[Settled] = []
        self.noted: list[Note] = []

    def begin(self, now: float, received: int, lately: int) -> None:
        self.called.append("begin")
        self.lately.append(lately)

    def decide(self, said: Sequence[Said]) -> None:
        """Take lines that begin with R for reports, which are stored unless they could not be kept."""
        stored = 0 if self.undone else len(said)
        self.called.append(f"decide {[len(one.lines) for one in said]}")
        for one in said:
            lines = cast("list[bytes]", one.lines)
            run = [line for line in takewhile(lambda line: line.startswith(b"R"), lines) if stored]
            one.reports = [Report(line, b"AT A +0.000000000 %b +1+1 5" % line, 5) for line in run]
            one.stored = len(run)
            try:
                one.replies = [self.reply(one.client, line) for line in lines[len(run) :]]
            except ZeroDivisionError as error:
                one.error = error

    def reply(self, client: Client, line: bytes) -> Reply:
        if line.startswith(b"W"):
            return Reply("whatsat", "waiting")
        if line.startswith(b"Q"):
            return Reply("whatsat", "found", entry=Entry(b"AT " + line, 5))
        if line.startswith(b"A"):
            return Reply("whatsat", "answered", b"AT " + line, entry=Entry(b"AT " + line, 5))
        return Reply("other", "invalid", b"? " + line)

    def report(self, report: Report, now: float) -> bool:
        return False

    def keep(self, done: Callable[[bool], None]) -> bool | None:
        self.called.append("keep")
        self.done = done
        if self.error is not None:
            raise self.error
        return self.kept

    def undo(self) -> None:
        self.called.append("undo")
        self.undone = True

    def send(self, now: float) -> None:
        self.called.append("send")

    def end(self, now: float) -> Settled:
        self.called.append("end")
        settled = self.settle.pop(0) if self.settle else Settled()
        settled.notes, self.noted = self.noted, []
        settled.more = self.more
        return settled


class World:
    """One server's turns."""

    def __init__(self, observer: Observer, log: Path) -> None:
        self.engine = Scripted()
        self.observer = observer
        self.turns = turns = Turns()
        self.asked = Asked()
        self.turn = turns.turn = Turn(self.engine, self.asked, observer, turns.wake)
        self._log = log

    def client(self, *lines: bytes, name: str = "10.0.0.1:5") -> Pipeliner:
        client = Pipeliner(self.turn, list(lines), name)
        answer, release = client.answer, client.release

        def note_answer(answers: list[bytes]) -> None:
            self.engine.called.append("answer")
            answer(answers)

        def note_release() -> list[tuple[Line, Reply]]:
            self.engine.called.append("release")
            return release()

        client.answer, client.release = note_answer, note_release  # type: ignore[method-assign]
        return client

    def one_turn(self) -> list[str]:
        """Run a turn if one is due; return how the engine was called."""
        self.engine.called.clear()
        self.turns.one()
        return list(self.engine.called)

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self._log.read_text().splitlines())
        return [line for line in lines if line["event"] == event]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    file = LogFile(tmp_path / "log")
    log = make_logger(file, server="Bob", level="info", max_field_bytes=1_024)
    yield World(Observer(log, file, Metrics(), []), tmp_path / "log")
    file.close()


def test_a_turn_stores_keeps_tells_neighbours_and_then_answers_and_logs(world: World) -> None:
    reports, others = world.client(b"R1", b"R2"), world.client(b"R3", b"bad", name="10.0.0.2:5")
    world.engine.noted = [LinkUp("Ann", dialled=True)]
    order = "begin, decide [2, 2], keep, send, end, answer, answer"
    assert ", ".join(world.one_turn()) == order
    assert [one[-6:] for one in reports.answers] == [b"+1+1 5"] * 2
    assert others.answers[1] == b"? bad"
    assert [(one["client"], one["command"], one["outcome"]) for one in world.logged("command")] == [
        ("10.0.0.1:5", "R1", "stored"),
        ("10.0.0.1:5", "R2", "stored"),
        ("10.0.0.2:5", "R3", "stored"),
        ("10.0.0.2:5", "bad", "invalid"),
    ]
    assert [one["neighbour"] for one in world.logged("peer_opened")] == ["Ann"]
    assert world.one_turn() == [], "there is nothing left, so no turn"


def test_a_report_behind_what_waits_is_stored_and_answered_after_it(world: World) -> None:
    client = world.client(b"W1")
    world.one_turn()
    client.send(b"R1")
    assert "answer" not in world.one_turn()
    assert client.answers == []
    (waits, stored) = (reply for _, reply in client.owed)
    assert stored.outcome == "stored"
    waits.outcome, waits.answer = "unknown", b"? W1"
    world.engine.settle = [Settled([client])]
    world.turns.wake()
    world.one_turn()
    assert client.answers == [b"? W1", b"AT A +0.000000000 R1 +1+1 5"]
    assert [one["outcome"] for one in world.logged("command")] == ["unknown", "stored"]


def test_clients_wait_while_the_engine_is_full_and_no_turn_spins_for_them(world: World) -> None:
    world.engine.full = True
    client = world.client(b"R1")
    assert "decide [1]" not in world.one_turn()
    assert world.one_turn() == []
    world.engine.full = False
    world.turns.wake()
    assert "decide [1]" in world.one_turn()
    assert len(client.answers) == 1


def places(*lines: bytes) -> list[bytes]:
    return [b"AT %b\nnothing\n" % line for line in lines]


def test_what_places_answer_at_once_leaves_with_the_turns_answers_and_few_in_one_turn(world: World) -> None:
    world.asked.at_once = True
    queries = [b"Q%d" % number for number in range(7)]
    alone, many = world.client(b"bad", queries[0]), world.client(*queries[1:], name="10.0.0.2:5")
    assert world.one_turn()[-3:] == ["end", "answer", "release"]
    assert alone.answers == [b"? bad", *places(queries[0])]
    assert many.answers == places(*queries[1:4]), "there was time for four"
    assert not world.asked.waiting, "the others were asked in this turn too"
    world.turns.rest()
    assert many.answers == places(*queries[1:])


def test_who_asks_too_fast_is_answered_so_and_each_query_counts_once(world: World) -> None:
    world.asked.at_once = True
    world.asked.too_fast = {"10.0.0.2:5"}
    queries = [b"Q%d" % number for number in range(7)]
    world.client(*queries, name="10.0.0.1:5")
    fast = world.client(b"Q8", b"bad", b"Q9", name="10.0.0.2:5")
    world.turns.rest()
    assert fast.answers == [*places(b"Q8"), b"? bad", *places(b"Q9")]
    assert sorted(world.asked.admitted) == ["10.0.0.1:5"] * 7 + ["10.0.0.2:5"] * 2


def test_who_asks_too_fast_is_answered_so_also_if_the_engine_has_found_its_client_later(world: World) -> None:
    world.asked.too_fast = {"10.0.0.2:5"}
    clients = [world.client(b"W1", name=name) for name in ("10.0.0.1:5", "10.0.0.2:5")]
    world.one_turn()
    found = []
    for client in clients:
        ((_, reply),) = client.owed
        reply.entry = Entry(b"AT Q1", 5)
        found.append((client, reply))
    world.engine.settle = [Settled(clients, found)]
    world.turns.wake()
    world.turns.rest()
    assert [client.answers for client in clients] == [[b"AT Q1\nnothing\n"]] * 2
    assert world.asked.admitted == ["10.0.0.1:5", "10.0.0.2:5"]


def test_no_query_is_answered_before_those_that_wait(world: World) -> None:
    world.asked.at_once = True
    first, then = world.client(b"W"), world.client(b"Q1", name="10.0.0.2:5")
    world.asked.add(first, Reply("whatsat", "found", entry=Entry(b"AT Q0", 5)))
    assert world.one_turn()[-1] == "release"
    assert then.answers == []
    world.turns.rest()
    assert then.answers == places(b"Q1")


@pytest.mark.parametrize("asked", [b"Q1", b"A1"])  # the latter asks for no places, and has its answer
def test_who_has_gone_is_not_answered_and_nothing_is_searched_for_it(world: World, asked: bytes) -> None:
    world.asked.at_once = True
    gone = world.client(asked)
    gone.gone = True
    world.one_turn()
    assert gone.answers == [b""]
    assert [one["outcome"] for one in world.logged("command")] == ["left"]


def test_a_client_that_says_several_things_is_heard_once_in_a_turn_with_64_lines(world: World) -> None:
    client = world.client(*[b"bad"] * 100)
    world.turn.client_said(client)
    world.turn.client_said(client)
    world.one_turn()
    assert len(client.answers) == 64
    world.one_turn()
    assert len(client.answers) == 100
    assert world.one_turn() == []


def test_clients_ask_for_one_turn_together_and_for_another_one_from_its_begin_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    turn = Turn(world.engine, world.asked, world.observer, lambda: asked.append(1))

    def say(*names: str) -> None:
        asked.clear()
        for name in names:
            Pipeliner(turn, [b"R1"], name)
        assert len(asked) == 1

    say("one", "two")
    monkeypatch.setattr(world.engine, "send", lambda _: say("three", "four"))
    turn.run(0.0, 5)
    monkeypatch.setattr(world.engine, "begin", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        turn.run(0.0, 5)
    say("five", "six")


def test_turns_go_on_while_the_engine_has_more(world: World) -> None:
    world.engine.more = True
    world.turns.wake()
    for _ in range(3):
        assert (world.one_turn()).count("begin") == 1
    world.engine.more = False
    world.one_turn()
    assert world.one_turn() == []


def test_what_clients_have_said_lately_counts_for_a_twentieth_of_a_second(world: World) -> None:
    world.engine.more = True
    world.turns.wake()
    world.one_turn()
    assert world.engine.lately == [0]
    client = world.client(b"bad", b"bad", b"bad")
    world.one_turn()
    assert world.engine.lately == [0, 1], "they are about, and nobody knows yet how much they say"
    world.one_turn()
    world.turns.now += 0.049
    world.one_turn()
    assert world.engine.lately == [0, 1, 3, 3]
    client.send(b"bad")
    world.one_turn()
    world.turns.now += 0.051
    world.one_turn()
    client.send(b"bad")
    world.one_turn()
    assert world.engine.lately == [0, 1, 3, 3, 3, 0, 1]


@pytest.mark.parametrize(("how", "faults"), [("false", 0), ("raises", 1), ("false later", 0)])
def test_what_cannot_be_kept_is_taken_back_and_decided_again_before_anybody_is_told(
    world: World, how: str, faults: int
) -> None:
    engine, first, second = world.engine, world.client(b"R1", b"R2"), world.client(b"R3", b"bad")
    if how == "raises":
        engine.error = OSError("the disk has gone")
    else:
        engine.kept = False if how == "false" else None
    called = world.one_turn()
    if how == "false later":
        engine.called.clear()
        engine.done(False)
        called += engine.called  # at once: nobody may read what is not kept
        called += world.one_turn()
    assert called[:7] == ["begin", "decide [2, 2]", "keep", "undo", "decide [2, 2]", "send", "end"]
    assert first.answers == [b"? R1", b"? R2"]
    assert second.answers == [b"? R3", b"? bad"]
    told = [one["reason"] for one in world.logged("internal_error")]
    assert told == ["what this turn has stored cannot be kept"] * faults


def test_no_turn_runs_while_one_waits_for_the_disk_and_the_next_comes_behind_it(world: World) -> None:
    world.engine.kept = None
    first = world.client(b"R1")
    assert world.one_turn()[-1] == "keep"
    second = world.client(b"R2")
    for _ in range(3):
        world.turns.wake()
        assert world.one_turn() == []
    assert first.answers == []
    world.engine.done(True)
    world.engine.kept = True
    assert world.one_turn() == ["send", "end", "answer"], "the first is answered before another turn"
    assert world.one_turn() == ["begin", "decide [1]", "keep", "send", "end", "answer"]
    assert [len(one.answers) for one in (first, second)] == [1, 1]


def test_an_engine_without_a_keeper_is_asked_to_keep_nothing(world: World) -> None:
    engine = Scripted()
    engine.keeper = None  # type: ignore[assignment]
    world.turn = world.turns.turn = Turn(engine, Asked(), world.observer, world.turns.wake)
    client = world.client(b"R1")
    world.turns.one()
    assert engine.called == ["begin", "decide [1]", "send", "end"]
    assert len(client.answers) == 1


@pytest.mark.parametrize("lines", [511, 512])
def test_a_turn_that_has_a_line_left_hears_one_more_client_and_one_that_has_none_does_not(
    world: World, lines: int
) -> None:
    said = [64] * 7 + [lines - 7 * 64]
    for number, count in enumerate(said):
        world.client(*[b"bad"] * count, name=f"10.0.0.{number}:5")
    last = world.client(b"bad", b"bad", name="10.0.1.1:5")
    world.one_turn()
    assert len(last.answers) == (2 if lines < TURN_LINES else 0)
    world.one_turn()
    assert len(last.answers) == 2


@pytest.mark.parametrize("owed", [511, 512])
def test_a_turn_that_has_a_line_left_lets_one_more_client_go_and_one_that_has_none_does_not(
    world: World, owed: int
) -> None:
    first, last = world.client(*[b"W"] * owed), world.client(b"W", b"W", name="10.0.0.2:5")
    while len(first.owed) < owed:
        world.one_turn()
    world.engine.settle = [Settled([], given_up=[(first, "server stops"), (last, "server stops")])]
    world.turns.wake()
    world.one_turn()
    assert first.given_up
    assert bool(last.given_up) == (owed < TURN_LINES)
    world.one_turn()
    assert last.given_up == "server stops"


def test_who_raises_while_it_is_let_go_holds_up_nobody_who_goes_too(world: World) -> None:
    raises, goes = world.client(b"W"), world.client(b"W", name="10.0.0.2:5")
    failed: list[bool] = []

    def stumble(reason: str) -> list[tuple[Line, Reply]]:
        raise ZeroDivisionError

    raises.give_up, raises.fail = stumble, lambda: failed.append(True)  # type: ignore[method-assign]
    world.one_turn()
    world.engine.settle = [Settled([], given_up=[(raises, "server stops"), (goes, "server stops")])]
    world.turns.wake()
    world.one_turn()
    assert failed == [True]
    assert goes.given_up == "server stops"
    assert world.one_turn() == []


def test_a_client_that_makes_the_engine_raise_is_ended_and_the_others_have_their_answers(
    world: World,
) -> None:
    raises, behind = world.client(b"bad"), world.client(b"bad", name="10.0.0.2:5")
    reply, failed = world.engine.reply, []

    def stumble(client: Client, line: bytes) -> Reply:
        if client is raises:
            raise ZeroDivisionError
        return reply(client, line)

    world.engine.reply = stumble  # type: ignore[method-assign]
    raises.fail = lambda: failed.append(True)  # type: ignore[method-assign]
    world.one_turn()
    assert failed == [True]
    assert raises.answers == []
    assert behind.answers == [b"? bad"]
    assert [one["reason"] for one in world.logged("internal_error")] == ["a client cannot be served"]


def test_a_report_that_waited_for_its_answer_shows_as_one_that_did_not(world: World) -> None:
    recent = world.observer.recent
    recent.wanted = True
    client = world.client(b"W1", b"R1", b"R2")
    world.one_turn()
    assert recent.take_clients() == []
    waits, *reports = (reply for _, reply in client.owed)
    waits.outcome, waits.answer = "unknown", b"? W1"
    for number, reply in enumerate(reports):
        reply.outcome, reply.answer = "stored", b"AT A +0.000000000 client%d +1+1 5" % number
    world.engine.settle = [Settled([client])]
    world.turns.wake()
    world.one_turn()
    assert recent.take_clients() == [b"client0", b"client1"]
    assert [one.outcome for one in recent.commands(0, 9)] == ["unknown", "stored", "stored"]


def test_clients_are_let_go_without_their_answers_as_many_as_a_turn_has_lines_for(world: World) -> None:
    clients = [world.client(*[b"W"] * 64, name=f"10.0.0.{number}:5") for number in range(20)]
    while any(len(client.owed) < 64 for client in clients):
        world.one_turn()
    assert world.one_turn() == []
    world.engine.settle = [Settled([], given_up=[(client, "server stops") for client in clients])]
    world.turns.wake()
    gone = []
    for _ in range(4):
        world.one_turn()
        gone.append(sum(client.given_up == "server stops" for client in clients))
    assert gone == [TURN_LINES // 64, 2 * TURN_LINES // 64, 20, 20]
    told = world.logged("command")
    assert len(told) == 20 * 64, "what they are owed is logged"
    assert {one["outcome"] for one in told} == {"unanswered"}


@pytest.mark.parametrize("fails", [False, True])
def test_with_fsync_always_no_answer_leaves_before_the_sync_that_covers_it(
    observer: Observer, *, fails: bool
) -> None:
    """More lines than one turn takes: what they wake must gather, not run, while the disk is waited for."""
    journal, turns = Held(), Turns()
    turn = turns.turn = Turn(HerdEngine(node(), journal, turns.wake), Asked(), observer, turns.wake)
    lines = [b"IAMAT client%d +1+1 %d" % (number, number) for number in range(1_000)]
    client = Pipeliner(turn, lines)
    while len(client.answers) < len(lines):
        turns.rest()
        assert journal.appends == journal.syncs
        assert len(client.answers) == len(journal.synced)
        journal.fails = fails and journal.syncs == 2
        journal.release()
        if not journal.takes_reports:
            break
        turns.one()
    if not fails:
        assert journal.syncs < len(lines) / 10  # many lines share one
        assert client.answers == journal.appended
        return
    turns.rest()
    assert len(client.answers) == len(lines)
    kept = len(journal.synced)
    assert client.answers[:kept] == journal.appended[:kept]
    assert client.answers[kept:] == [b"? " + line for line in lines[kept:]]
