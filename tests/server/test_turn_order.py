"""The rules of a turn, whatever the engine: in which order it calls it, who waits, and how much is done at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import fake_redis
import pytest
from turns import Held, Pipeliner, no_places, node, turns_of_the_loop

from proxyherd.config.schema import Limits
from proxyherd.core.engine import Client, Said, Settled
from proxyherd.core.framing import Overlong
from proxyherd.core.messages import Report
from proxyherd.core.notes import LinkUp, Note
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules
from proxyherd.engines.herd.engine import Replicated
from proxyherd.places import Places
from proxyherd.server.turn import Turn
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

TURN_LINES = 512


class Scripted:
    """An engine that notes how it is called. Lines that begin with R are reports, with W what must wait."""

    def __init__(self) -> None:
        self.wake: Callable[[], None] = lambda: None
        self.rules = Rules("A", Limits())
        self.full = False
        self.more = False
        self.kept: bool | Awaitable[bool] = True
        self.error: Exception | None = None
        self.called: list[str] = []
        self.lately: list[int] = []
        self.settle: list[Settled] = []
        self.noted: list[Note] = []

    def begin(self, now: float, received: int, lately: int) -> None:
        self.called.append("begin")
        self.lately.append(lately)

    def decide(self, said: Sequence[Said]) -> None:
        """Take lines that begin with R for reports, which are stored unless they could not be kept."""
        stored = len(said) if "undo" not in self.called else 0
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
        return Reply("other", "invalid", b"? " + line)

    def keep(self) -> bool | Awaitable[bool]:
        self.called.append("keep")
        if self.error is not None:
            raise self.error
        return self.kept

    def undo(self) -> None:
        self.called.append("undo")

    def end(self, now: float) -> Settled:
        self.called.append("end")
        settled = self.settle.pop(0) if self.settle else Settled()
        settled.notes, self.noted = self.noted, []
        settled.more = self.more
        return settled


class World:
    """One server's turns."""

    def __init__(self, observer: Observer, log: Path) -> None:
        loop = asyncio.get_running_loop()
        self.engine = Scripted()
        self.observer = observer
        self.turn = Turn(self.engine, no_places(loop), observer, loop)
        self._log = log

    def client(self, *lines: bytes, name: str = "10.0.0.1:5") -> Pipeliner:
        client = Pipeliner(self.turn, list(lines), name)
        answer, release = client.answer, client.release

        def note_answer(answers: list[bytes]) -> None:
            self.engine.called.append("answer")
            answer(answers)

        def note_release() -> list[tuple[bytes | Overlong, Reply]]:
            self.engine.called.append("release")
            return release()

        client.answer, client.release = note_answer, note_release  # type: ignore[method-assign]
        return client

    async def one_turn(self) -> list[str]:
        """Let the loop go round once; return how the engine was called."""
        self.engine.called.clear()
        await asyncio.sleep(0)
        return list(self.engine.called)

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self._log.read_text().splitlines())
        return [line for line in lines if line["event"] == event]


Run = Callable[[Callable[[World], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Run a test's body on a clock that stands still."""
    file = LogFile(tmp_path / "log")
    log = make_logger(file, server="Bob", level="info", max_field_bytes=1_024)
    observer = Observer(log, file, Metrics(), [])

    def run_it(body: Callable[[World], Coroutine[Any, Any, None]]) -> None:
        async def whole() -> None:
            await body(World(observer, tmp_path / "log"))

        fake_redis.run(whole())

    yield run_it
    file.close()


def pass_time(seconds: float) -> None:
    cast("Any", asyncio.get_running_loop())._jumping.now += seconds


def test_a_turn_stores_keeps_tells_neighbours_and_then_answers_and_logs(run: Run) -> None:
    async def body(world: World) -> None:
        reports, others = world.client(b"R1", b"R2"), world.client(b"R3", b"bad", name="10.0.0.2:5")
        world.engine.noted = [LinkUp("Ann", dialled=True)]
        order = "begin, decide [2, 2], keep, end, answer, release"
        assert ", ".join(await world.one_turn()) == order
        assert [one[-6:] for one in reports.answers] == [b"+1+1 5"] * 2
        assert others.answers[1] == b"? bad"
        assert others.released == [("iamat", "stored"), ("other", "invalid")]
        assert [(one["client"], one["command"], one["outcome"]) for one in world.logged("command")] == [
            ("10.0.0.1:5", "R1", "stored"),
            ("10.0.0.1:5", "R2", "stored"),
            ("10.0.0.2:5", "R3", "stored"),
            ("10.0.0.2:5", "bad", "invalid"),
        ]
        assert [one["neighbour"] for one in world.logged("peer_opened")] == ["Ann"]
        assert await world.one_turn() == [], "there is nothing left, so no turn"

    run(body)


def test_a_report_behind_what_waits_is_stored_and_answered_after_it(run: Run) -> None:
    async def body(world: World) -> None:
        client = world.client(b"W1")
        await world.one_turn()
        client.send(b"R1")
        assert "answer" not in await world.one_turn()
        assert client.answers == []
        (waits, stored) = (reply for _, reply in client.owed)
        assert stored.outcome == "stored"
        waits.outcome, waits.answer = "unknown", b"? W1"
        world.engine.settle = [Settled([client])]
        world.engine.wake()
        await world.one_turn()
        assert client.answers == [b"? W1", b"AT A +0.000000000 R1 +1+1 5"]
        assert [one["outcome"] for one in world.logged("command")] == ["unknown", "stored"]

    run(body)


def test_clients_wait_while_the_engine_is_full_and_no_turn_spins_for_them(run: Run) -> None:
    async def body(world: World) -> None:
        world.engine.full = True
        client = world.client(b"R1")
        assert "decide [1]" not in await world.one_turn()
        assert await world.one_turn() == []
        world.engine.full = False
        world.engine.wake()
        assert "decide [1]" in await world.one_turn()
        assert len(client.answers) == 1

    run(body)


def test_a_client_that_says_several_things_is_heard_once_in_a_turn_with_64_lines(run: Run) -> None:
    async def body(world: World) -> None:
        client = world.client(*[b"bad"] * 100)
        world.turn.client_said(client)
        world.turn.client_said(client)
        await world.one_turn()
        assert len(client.answers) == 64
        await world.one_turn()
        assert len(client.answers) == 100
        assert await world.one_turn() == []

    run(body)


def test_turns_go_on_while_the_engine_has_more(run: Run) -> None:
    async def body(world: World) -> None:
        world.engine.more = True
        world.turn.wake()
        world.turn.wake()  # one turn, not two
        for _ in range(3):
            assert (await world.one_turn()).count("begin") == 1
        world.engine.more = False
        await world.one_turn()
        assert await world.one_turn() == []

    run(body)


def test_what_clients_have_said_lately_counts_for_a_twentieth_of_a_second(run: Run) -> None:
    async def body(world: World) -> None:
        world.engine.more = True
        world.turn.wake()
        await world.one_turn()
        assert world.engine.lately == [0]
        client = world.client(b"bad", b"bad", b"bad")
        await world.one_turn()
        assert world.engine.lately == [0, 1], "they are about, and nobody knows yet how much they say"
        await world.one_turn()
        pass_time(0.049)
        await world.one_turn()
        assert world.engine.lately == [0, 1, 3, 3]
        client.send(b"bad")
        await world.one_turn()
        pass_time(0.051)
        await world.one_turn()
        client.send(b"bad")
        await world.one_turn()
        assert world.engine.lately == [0, 1, 3, 3, 3, 0, 1]

    run(body)


@pytest.mark.parametrize(
    ("how", "faults"), [("false", 0), ("raises", 1), ("awaits false", 0), ("awaits an error", 1)]
)
def test_what_cannot_be_kept_is_taken_back_and_decided_again_before_anybody_is_told(
    run: Run, how: str, faults: int
) -> None:
    async def kept() -> bool:
        if how == "awaits an error":
            raise OSError("the disk has gone")
        return False

    async def body(world: World) -> None:
        engine, first, second = world.engine, world.client(b"R1", b"R2"), world.client(b"R3", b"bad")
        if how == "raises":
            engine.error = OSError("the disk has gone")
        else:
            engine.kept = False if how == "false" else kept()
        called = [*await world.one_turn(), *await world.one_turn()]
        assert called[:6] == ["begin", "decide [2, 2]", "keep", "undo", "decide [2, 2]", "end"]
        assert first.answers == [b"? R1", b"? R2"]
        assert second.answers == [b"? R3", b"? bad"]
        told = [one["reason"] for one in world.logged("internal_error")]
        assert told == ["what this turn has stored cannot be kept"] * faults

    run(body)


def test_no_turn_runs_while_one_waits_for_the_disk_and_the_next_comes_behind_it(run: Run) -> None:
    async def body(world: World) -> None:
        disk = asyncio.get_running_loop().create_future()
        world.engine.kept = disk
        first = world.client(b"R1")
        assert (await world.one_turn())[-1] == "keep"
        second = world.client(b"R2")
        world.engine.wake()
        for _ in range(3):
            assert await world.one_turn() == []
        world.engine.kept = True
        disk.set_result(True)
        called = [call for _ in range(4) for call in await world.one_turn()]
        assert called.index("answer") < called.index("begin"), "the first is answered before another turn"
        assert called.count("begin") == 1
        assert [len(one.answers) for one in (first, second)] == [1, 1]

    run(body)


@pytest.mark.parametrize("lines", [511, 512])
def test_a_turn_that_has_a_line_left_hears_one_more_client_and_one_that_has_none_does_not(
    run: Run, lines: int
) -> None:
    async def body(world: World) -> None:
        said = [64] * 7 + [lines - 7 * 64]
        for number, count in enumerate(said):
            world.client(*[b"bad"] * count, name=f"10.0.0.{number}:5")
        last = world.client(b"bad", b"bad", name="10.0.1.1:5")
        await world.one_turn()
        assert len(last.answers) == (2 if lines < TURN_LINES else 0)
        await world.one_turn()
        assert len(last.answers) == 2

    run(body)


@pytest.mark.parametrize("owed", [511, 512])
def test_a_turn_that_has_a_line_left_lets_one_more_client_go_and_one_that_has_none_does_not(
    run: Run, owed: int
) -> None:
    async def body(world: World) -> None:
        first, last = world.client(*[b"W"] * owed), world.client(b"W", b"W", name="10.0.0.2:5")
        while len(first.owed) < owed:
            await world.one_turn()
        world.engine.settle = [Settled([], given_up=[(first, "server stops"), (last, "server stops")])]
        world.engine.wake()
        await world.one_turn()
        assert first.given_up
        assert bool(last.given_up) == (owed < TURN_LINES)
        await world.one_turn()
        assert last.given_up == "server stops"

    run(body)


def test_who_raises_while_it_is_let_go_holds_up_nobody_who_goes_too(run: Run) -> None:
    async def body(world: World) -> None:
        raises, goes = world.client(b"W"), world.client(b"W", name="10.0.0.2:5")
        failed: list[bool] = []

        def stumble(reason: str) -> list[tuple[bytes | Overlong, Reply]]:
            raise ZeroDivisionError

        raises.give_up, raises.fail = stumble, lambda: failed.append(True)  # type: ignore[method-assign]
        await world.one_turn()
        world.engine.settle = [Settled([], given_up=[(raises, "server stops"), (goes, "server stops")])]
        world.engine.wake()
        await world.one_turn()
        assert failed == [True]
        assert goes.given_up == "server stops"
        assert await world.one_turn() == []

    run(body)


def test_a_client_that_makes_the_engine_raise_is_ended_and_the_others_have_their_answers(run: Run) -> None:
    async def body(world: World) -> None:
        raises, behind = world.client(b"bad"), world.client(b"bad", name="10.0.0.2:5")
        reply, failed = world.engine.reply, []

        def stumble(client: Client, line: bytes) -> Reply:
            if client is raises:
                raise ZeroDivisionError
            return reply(client, line)

        world.engine.reply = stumble  # type: ignore[method-assign]
        raises.fail = lambda: failed.append(True)  # type: ignore[method-assign]
        await world.one_turn()
        assert failed == [True]
        assert raises.answers == []
        assert behind.answers == [b"? bad"]
        assert [one["reason"] for one in world.logged("internal_error")] == ["a client cannot be served"]

    run(body)


def test_a_report_that_waited_for_its_answer_shows_as_one_that_did_not(run: Run) -> None:
    async def body(world: World) -> None:
        recent = world.observer.recent
        recent.wanted = True
        client = world.client(b"W1", b"R1", b"R2")
        await world.one_turn()
        assert recent.take_clients() == []
        waits, *reports = (reply for _, reply in client.owed)
        waits.outcome, waits.answer = "unknown", b"? W1"
        for number, reply in enumerate(reports):
            reply.outcome, reply.answer = "stored", b"AT A +0.000000000 client%d +1+1 5" % number
        world.engine.settle = [Settled([client])]
        world.engine.wake()
        await world.one_turn()
        assert recent.take_clients() == [b"client0", b"client1"]
        assert [one.outcome for one in recent.commands(0, 9)] == ["unknown", "stored", "stored"]

    run(body)


def test_clients_are_let_go_without_their_answers_as_many_as_a_turn_has_lines_for(run: Run) -> None:
    async def body(world: World) -> None:
        clients = [world.client(*[b"W"] * 64, name=f"10.0.0.{number}:5") for number in range(20)]
        while any(len(client.owed) < 64 for client in clients):
            await world.one_turn()
        assert await world.one_turn() == []
        world.engine.settle = [Settled([], given_up=[(client, "server stops") for client in clients])]
        world.engine.wake()
        gone = []
        for _ in range(4):
            await world.one_turn()
            gone.append(sum(client.given_up == "server stops" for client in clients))
        assert gone == [TURN_LINES // 64, 2 * TURN_LINES // 64, 20, 20]
        told = world.logged("command")
        assert len(told) == 20 * 64, "what they are owed is logged"
        assert {one["outcome"] for one in told} == {"unanswered"}

    run(body)


@pytest.mark.parametrize("fails", [False, True])
def test_with_fsync_always_no_answer_leaves_before_the_sync_that_covers_it(
    observer: Observer, *, fails: bool
) -> None:
    """More lines than one turn takes: what they wake must gather, not run, while the disk is waited for."""

    async def scenario() -> None:
        journal, loop = Held(), asyncio.get_running_loop()
        places: asyncio.Future[Places] = loop.create_future()
        turn = Turn(Replicated(node(), journal, loop), places, observer, loop)
        lines = [b"IAMAT client%d +1+1 %d" % (number, number) for number in range(1_000)]
        client = Pipeliner(turn, lines)
        while len(client.answers) < len(lines):
            await turns_of_the_loop()
            assert journal.appends == journal.syncs
            assert len(client.answers) == len(journal.synced)
            journal.fails = fails and journal.syncs == 2
            journal.release()
            if not journal.takes_reports:
                break
            await turns_of_the_loop()
        if not fails:
            assert journal.syncs < len(lines) / 10  # many lines share one
            assert client.answers == journal.appended
            return
        await turns_of_the_loop()
        assert len(client.answers) == len(lines)
        kept = len(journal.synced)
        assert client.answers[:kept] == journal.appended[:kept]
        assert client.answers[kept:] == [b"? " + line for line in lines[kept:]]

    asyncio.run(scenario())
