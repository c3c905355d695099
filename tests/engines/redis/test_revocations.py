"""Whose tokens were revoked, as a server in front of Redis learns it: against a cluster of dicts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from fake_redis import World
from played_cluster import Asker, Front, iamat, played

from proxyherd.core.messages import Forget
from proxyherd.core.tombstones import parse_gone
from proxyherd.engines.redis import layout, revocations
from proxyherd.engines.redis.revocations import BELIEVED_SECONDS, Revocations

JANE, BOB = b" token jane", b" token bob"
PROMISED_SECONDS = 5.0
"""How long a revocation takes at most, as docs/security.md has it."""


def subject(number: int) -> bytes:
    return b" token %d" % number


def asked(body: Callable[[World, Front, Revocations], Awaitable[None]]) -> None:
    """Play a scene in which a server asks."""

    async def scene(world: World, front: Front) -> None:
        world.several_at_once = True
        faults: list[Exception] = []
        found = Revocations(
            world.library, front.engine.routes.owner, 1.2, lambda _, error: faults.append(error)
        )
        task = asyncio.create_task(found.run())
        try:
            await body(world, front, found)
            assert faults == []
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        for connection in world.connections:
            assert not connection.is_open or connection.master.address in front.engine.routes.shards

    played(scene)


async def revoke(front: Front, *names: bytes) -> int:
    """Revoke subjects; return up to which moment."""
    asker = Asker()
    front.say(asker, *map(Forget, names))
    await front.all_settled(asker)
    (until,) = {
        gone.until for reply in asker.replies if (gone := parse_gone(reply.answer or b"")) is not None
    }
    return until


async def known(found: Revocations, *names: bytes) -> None:
    """Use subjects until all are known."""
    async with asyncio.timeout(5.0):
        while None in [found.erased_until(name) for name in names]:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.01)


def test_a_subject_that_was_not_seen_before_is_known_when_the_cluster_has_answered() -> None:
    async def scene(_: World, front: Front, found: Revocations) -> None:
        until = await revoke(front, JANE)
        assert [found.erased_until(JANE), found.erased_until(BOB)] == [None, None]
        await asyncio.sleep(0.05)
        assert [found.erased_until(JANE), found.erased_until(BOB)] == [until, 0]

    asked(scene)


def test_each_of_ten_thousand_subjects_is_known_to_be_revoked_in_the_promised_time() -> None:
    async def scene(_: World, front: Front, found: Revocations) -> None:
        names = [*map(subject, range(10_000))]
        await known(found, *names)
        until = await revoke(front, *names[::500])
        await asyncio.sleep(PROMISED_SECONDS)
        assert [found.erased_until(name) for name in names[::500]] == [until] * 20
        assert sum(bool(found.erased_until(name)) for name in names) == 20

    asked(scene)


def test_asking_writes_nothing_and_names_no_subject_and_each_exchange_is_short() -> None:
    async def scene(world: World, front: Front, found: Revocations) -> None:
        await revoke(front, *map(subject, range(600)))
        data = dict(world.data)
        for master in world.masters.values():
            master.served.clear()
        names = [*map(subject, range(3_000))]
        await known(found, *names)
        ours = [
            batch
            for master in world.masters.values()
            for batch in master.served
            if all(call[0] == b"MGET" for call in batch)
        ]
        assert sum(len(batch) for batch in ours) > 500
        assert all(layout.tombstone_part(key) for batch in ours for call in batch for key in call[1:])
        assert max(sum(len(call) - 1 for call in batch) for batch in ours) <= 512
        changed = {key for key, value in world.data.items() if data.get(key) != value}
        assert all(b" seal " in key for key in changed), "those are of the engine"
        assert data.keys() <= world.data.keys()

    asked(scene)


def test_memory_is_bounded_and_who_was_used_long_ago_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "MOST_SUBJECTS", 100)

    async def scene(_: World, front: Front, found: Revocations) -> None:
        await known(found, JANE)
        for number in range(1_000):
            assert found.erased_until(subject(number)) is None
            assert found.erased_until(JANE) == 0, "who comes often stays"
        held = [name for names in found._tags for name in names]
        assert sorted(held) == sorted(found._known)
        assert len(held) == 100
        assert sum(len(master.wanted) for master in found._masters.values()) <= 100
        await known(found, subject(0))
        await revoke(front, JANE)
        await asyncio.sleep(PROMISED_SECONDS)
        assert found.erased_until(JANE)

    asked(scene)


def test_who_is_used_no_more_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(revocations, "KEPT_SECONDS", 20.0)

    async def scene(_: World, __: Front, found: Revocations) -> None:
        await known(found, JANE, BOB)
        for _again in range(5):
            await asyncio.sleep(5.0)
            assert found.erased_until(BOB) == 0
        assert [*found._known] == [BOB]
        assert found.erased_until(JANE) is None

    asked(scene)


def test_while_a_master_hangs_its_answers_are_believed_for_a_while_and_the_others_answer() -> None:
    async def scene(world: World, front: Front, found: Revocations) -> None:
        other = next(one for one in map(subject, range(99)) if world.of(one) is not world.of(JANE))
        await known(found, JANE, other)
        world.of(JANE).pace = 3_600.0
        await asyncio.sleep(BELIEVED_SECONDS - PROMISED_SECONDS)
        assert found.erased_until(JANE) == 0
        until = await revoke(front, other)
        await asyncio.sleep(PROMISED_SECONDS)
        assert [found.erased_until(JANE), found.erased_until(other)] == [None, until]
        world.of(JANE).pace = 0.001
        await known(found, JANE)

    asked(scene)


def test_a_subject_whose_tag_moves_is_known_when_it_has_moved() -> None:
    async def scene(world: World, front: Front, found: Revocations) -> None:
        until, tag = await revoke(front, JANE), layout.tag_of(JANE)
        world.moving[tag] = next(one for one in world.masters if one != world.of(JANE).address)
        world.gone = {key for key in world.data if layout.tombstone_part(key)}
        assert found.erased_until(JANE) is None
        await asyncio.sleep(1.0)
        assert found.erased_until(JANE) is None, "nobody can tell"
        world.owners[tag] = world.moving.pop(tag)
        front.say(Asker(), iamat(JANE, 1))  # the engine learns of it
        await known(found, JANE)
        assert found.erased_until(JANE) == until

    asked(scene)


def test_without_a_master_nobody_knows_and_one_that_is_gone_is_left() -> None:
    async def scene(world: World, front: Front, found: Revocations) -> None:
        await known(found, JANE, *map(subject, range(50)))
        old = world.of(JANE)
        owners = [*world.owners]
        world.owners = [None if owner == old.address else owner for owner in owners]
        front.engine.learn(world.owners)
        await asyncio.sleep(PROMISED_SECONDS)
        assert old.address not in found._masters
        assert found.erased_until(JANE) == 0
        await asyncio.sleep(BELIEVED_SECONDS)
        assert found.erased_until(JANE) is None

    asked(scene)
