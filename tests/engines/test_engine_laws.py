"""What both engines decide alike, whatever keeps the table: the herd's own, and Redis' with its function.

Each law is a scene of commands at given times, played on a node and on the engine `redis` in front of a cluster of dicts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import pytest
from deciding import decide, said
from fake_redis import World, run
from played_cluster import Asker, Front, played

from proxyherd.config.schema import Limits, Timing
from proxyherd.core.framing import Line, Overlong
from proxyherd.core.messages import Forget
from proxyherd.core.node import Node
from proxyherd.core.reply import Reply
from proxyherd.core.table import Table
from proxyherd.core.tombstones import parse_gone
from proxyherd.engines.redis import layout

SECOND = 10**9


class Engine(Protocol):
    """One server, whatever its engine."""

    async def say(self, line: Line, at: int) -> Reply:
        """Let a client say a line at this time, in nanoseconds; return what becomes of it."""

    async def say_all(self, lines: Sequence[Line], at: int) -> list[Reply]:
        """Let a client say lines in one turn."""


class OnHerd:
    def __init__(self, limits: Limits) -> None:
        self._node = Node("Clark", Table(bytes(32)), limits, Timing(), alone=True, now=0.0)

    async def say(self, line: Line, at: int) -> Reply:
        self._node.rules.clock = at
        return decide(self._node, line, at)

    async def say_all(self, lines: Sequence[Line], at: int) -> list[Reply]:
        self._node.rules.begin(at, takes_reports=True)
        reports, others = self._node.rules.judge(lines, at)
        return [*map(self._node.decide, lines, [*reports, *others])]


class OnRedis:
    def __init__(self, limits: Limits) -> None:
        self._world = World()
        self._front = Front(self._world, limits)

    async def say(self, line: Line, at: int) -> Reply:
        (reply,) = await self.say_all([line], at)
        return reply

    async def say_all(self, lines: Sequence[Line], at: int) -> list[Reply]:
        front, asker = self._front, Asker()
        self._world.clock = at // 1_000_000
        front.engine.begin(front.loop.time(), at)
        replies = said(front.engine, asker, lines, at)
        asker.said += [(b"", reply) for reply in replies]
        await front.all_settled(asker)
        return list(replies)

    async def close(self) -> None:
        await self._front.close()


Scene = Callable[[Engine], Awaitable[None]]


@pytest.fixture(params=["herd", "redis"])
def play(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Play a scene on an engine with these limits."""

    def on_both(scene: Scene, **limits: float) -> None:
        async def played() -> None:
            if request.param == "herd":
                await scene(OnHerd(Limits(**limits)))  # type: ignore[arg-type] # numbers all
                return
            redis = OnRedis(Limits(**limits))  # type: ignore[arg-type] # numbers all
            await asyncio.sleep(0.1)
            await scene(redis)
            await redis.close()

        run(played())

    return on_both


def iamat(time: str, client: str = "kiwi") -> bytes:
    return f"IAMAT {client} +1+1 {time}".encode()


WHATSAT = b"WHATSAT kiwi 10 5"
Play = Callable[..., None]


async def outcome(engine: Engine, line: bytes, at: int) -> str:
    return (await engine.say(line, at)).outcome


def test_a_time_from_the_future_locks_a_client_out_for_no_longer_than_the_lead(play: Play) -> None:
    async def scene(engine: Engine) -> None:
        theirs = await engine.say(iamat("999999999999.999999999"), 100 * SECOND)
        assert theirs.outcome == "stored"
        assert theirs.answer == b"AT Clark -999999999899.999999999 kiwi +1+1 999999999999.999999999"
        assert await outcome(engine, iamat("101"), 101 * SECOND) == "stale", "its time counts as second 101"
        honest = await engine.say(iamat("101.000000001"), 101 * SECOND + 1)
        assert honest.outcome == "stored"
        found = await engine.say(WHATSAT, 102 * SECOND)
        assert found.entry is not None
        assert found.entry.line == honest.answer

    play(scene)


def test_a_client_whose_clock_is_an_hour_ahead_has_each_of_its_reports_stored(play: Play) -> None:
    async def scene(engine: Engine) -> None:
        for second in range(100, 105):
            report = await engine.say(iamat(str(second + 3_600)), second * SECOND)
            assert report.outcome == "stored"
            assert report.answer == f"AT Clark -3600.000000000 kiwi +1+1 {second + 3_600}".encode()
        assert await outcome(engine, iamat("9999"), 104 * SECOND) == "stale", "it came no later"

    play(scene)


def test_a_client_whose_clock_is_ahead_has_each_report_of_one_turn_stored(play: Play) -> None:
    """A phone that was offline sends its points in one batch."""

    async def scene(engine: Engine) -> None:
        lines = [iamat(str(second + 3_600)) for second in range(100, 105)]
        replies = await engine.say_all(lines, 105 * SECOND)
        assert [reply.outcome for reply in replies] == ["stored"] * 5
        found = await engine.say(WHATSAT, 106 * SECOND)
        assert found.entry is not None
        assert found.entry.line == replies[-1].answer == b"AT Clark -3598.999999996 kiwi +1+1 3704"

    play(scene)


def test_an_erasure_covers_the_reports_before_it_in_its_turn_and_none_after_it(play: Play) -> None:
    async def scene(engine: Engine) -> None:
        before = [iamat(str(second)) for second in (5, 6, 7)]
        lines: list[Line] = [*before, Forget(b"kiwi"), WHATSAT, iamat("4"), iamat("5")]
        replies = await engine.say_all(lines, 100 * SECOND)
        assert [reply.outcome for reply in replies] == [
            *["stored"] * 3, "erased", "unknown", "stored", "stored"
        ]  # fmt: skip
        assert replies[3].answer is not None
        erased = parse_gone(replies[3].answer)
        assert erased is not None
        assert erased.until == 100 * SECOND + 2, "when the last one before it was received"
        found = await engine.say(WHATSAT, 101 * SECOND)
        assert found.entry is not None
        assert found.entry.line == replies[-1].answer

    play(scene)


def test_without_a_lead_the_servers_clock_is_the_latest_time_that_counts(play: Play) -> None:
    async def scene(engine: Engine) -> None:
        assert await outcome(engine, iamat("9999"), 5 * SECOND) == "stored"
        assert await outcome(engine, iamat("5"), 6 * SECOND) == "stale"
        assert await outcome(engine, iamat("5.000000001"), 6 * SECOND) == "stored"

    play(scene, max_clock_lead_seconds=0)


def test_a_location_is_forgotten_at_an_age_that_counts_from_when_its_server_received_it(play: Play) -> None:
    async def scene(engine: Engine) -> None:
        assert (
            await outcome(engine, iamat("5000"), 100 * SECOND) == "stored"
        )  # the client's clock is wrong by far
        assert await outcome(engine, WHATSAT, 110 * SECOND - 1) == "found"
        gone = await engine.say(WHATSAT, 110 * SECOND + 1)
        assert (gone.outcome, gone.answer) == ("unknown", b"? " + WHATSAT)
        # It does not stand in the way of an earlier time either, as where it was never known.
        assert await outcome(engine, iamat("99"), 111 * SECOND) == "stored"
        assert await outcome(engine, WHATSAT, 120 * SECOND) == "found"

    play(scene, max_age_seconds=10)


def test_a_later_report_is_as_young_as_it_is(play: Play) -> None:
    async def scene(engine: Engine) -> None:
        assert await outcome(engine, iamat("1"), 100 * SECOND) == "stored"
        assert await outcome(engine, iamat("2"), 109 * SECOND) == "stored"
        assert await outcome(engine, WHATSAT, 118 * SECOND) == "found"
        assert await outcome(engine, iamat("1"), 118 * SECOND) == "stale"
        assert await outcome(engine, WHATSAT, 119 * SECOND + 1) == "unknown"

    play(scene, max_age_seconds=10)


def test_without_an_age_nothing_is_forgotten(play: Play) -> None:
    async def scene(engine: Engine) -> None:
        assert await outcome(engine, iamat("1"), 1 * SECOND) == "stored"
        assert await outcome(engine, WHATSAT, 10**9 * SECOND) == "found"

    play(scene, max_age_seconds=0)


@pytest.mark.parametrize(
    ("first", "second", "outcome_of_second"),
    [
        ("5", "5.000000001", "stored"),
        ("5.5", "5.500000000", "stale"),
        ("5.5", "05.4", "stale"),
        ("9", "10", "stored"),
        ("9.999999999", "10", "stored"),
        ("99.999999998", "99.999999999", "stored"),
    ],
)
def test_only_a_later_time_is_stored_and_every_report_is_answered(
    play: Play, first: str, second: str, outcome_of_second: str
) -> None:
    async def scene(engine: Engine) -> None:
        old = await engine.say(iamat(first), 100 * SECOND)
        new = await engine.say(iamat(second), 101 * SECOND)
        assert (old.outcome, new.outcome) == ("stored", outcome_of_second)
        assert new.answer is not None
        assert new.answer.startswith(b"AT Clark ")
        assert new.answer.endswith(f" kiwi +1+1 {second}".encode())
        found = await engine.say(WHATSAT, 102 * SECOND)
        assert found.entry is not None
        assert found.entry.line == (new if outcome_of_second == "stored" else old).answer

    play(scene)


@pytest.mark.parametrize(
    ("line", "kind", "outcome", "answer"),
    [
        (b"", "other", "invalid", b"? "),
        (b"FOO bar", "other", "invalid", b"? FOO bar"),
        (b"IAMAT kiwi +1+1", "iamat", "invalid", b"? IAMAT kiwi +1+1"),
        (b"IAMAT kiwi +91+1 5", "iamat", "invalid", b"? IAMAT kiwi +91+1 5"),
        (b"WHATSAT kiwi 51 5", "whatsat", "invalid", b"? WHATSAT kiwi 51 5"),
        (b"WHATSAT plum 10 5", "whatsat", "unknown", b"? WHATSAT plum 10 5"),
        (b"AT Clark +0.000000000 kiwi +1+1 5", "at", "invalid", b"? AT Clark +0.000000000 kiwi +1+1 5"),
        (Overlong(b"long"), "other", "overlong", b"? long"),
    ],
)
def test_what_is_no_command_is_given_back_and_counted_alike(
    play: Play, line: Line, kind: str, outcome: str, answer: bytes
) -> None:
    async def scene(engine: Engine) -> None:
        reply = await engine.say(line, 5 * SECOND)
        assert (reply.kind, reply.outcome, reply.answer) == (kind, outcome, answer)

    play(scene)


def test_what_redis_never_expires_is_forgotten_at_its_age_too() -> None:
    """It was stored before `max_age_seconds` was set."""

    async def scene(world: World, front: Front) -> None:
        for client, received in ((b"kiwi", 89), (b"plum", 91)):
            at = b"AT Clark +%d.000000000 %b +1+1 0" % (received, client)
            world.data[layout.key(client)] = layout.VALUE % (0, at)
        asker = Asker()
        front.engine.begin(front.loop.time(), 100 * SECOND)
        lines = [b"WHATSAT kiwi 10 5", b"WHATSAT plum 10 5"]
        replies = said(front.engine, asker, lines, 100 * SECOND)
        asker.said += zip(lines, replies, strict=True)
        await front.all_settled(asker)
        assert asker.outcomes == ["unknown", "found"]

    played(scene, limits=Limits(max_age_seconds=10))
