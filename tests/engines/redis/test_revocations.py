"""Whose tokens were revoked, as a server in front of Redis learns it: against a cluster of dicts."""

from __future__ import annotations

import asyncio
import time

from fake_redis import World
from played_cluster import Front, played

from proxyherd.core.engine import Said
from proxyherd.core.messages import Forget
from proxyherd.engines.redis.revocations import MOST_SUBJECTS, Revocations

JANE, BOB = b" token jane", b" token bob"


def of(front: Front) -> Revocations:
    return Revocations(front.engine, asyncio.get_running_loop())


async def told(revocations: Revocations) -> None:
    """Wait until all that was asked is answered."""
    for _ in range(1_000):
        await asyncio.sleep(0.001)
        if not revocations._asked and not revocations._is_due:
            return
    raise AssertionError("no answer")


def revoke(front: Front, name: bytes) -> int:
    """Revoke a subject; return a moment that is not earlier."""
    front.engine.begin(asyncio.get_running_loop().time(), time.time_ns(), 0)
    front.engine.decide([Said(of(front), [b""], [], [Forget(name)])])
    return time.time_ns()


def test_a_revocation_is_learned_when_its_subject_is_asked_for_the_next_time() -> None:
    async def scene(_: World, front: Front) -> None:
        revocations = of(front)
        assert revocations.erased_until(JANE) == 0
        await told(revocations)
        now = revoke(front, JANE)
        await asyncio.sleep(0.01)
        assert revocations.erased_until(JANE) <= 1, "it has not asked again"
        revocations.ask()
        await told(revocations)
        assert 0 <= now - revocations.erased_until(JANE) < 60 * 10**9
        assert revocations.erased_until(BOB) == 0

    played(scene)


def test_asking_revokes_nobody() -> None:
    async def scene(_: World, front: Front) -> None:
        one, other = of(front), of(front)
        for revocations in (one, other):
            for _again in range(3):
                revocations.erased_until(JANE)
                revocations.ask()
                await told(revocations)
            assert revocations.erased_until(JANE) <= 1

    played(scene)


def test_what_nobody_uses_is_not_asked_for_and_memory_is_bounded() -> None:
    async def scene(_: World, front: Front) -> None:
        revocations = of(front)
        revocations.ask()
        assert revocations._asked == []
        for number in range(MOST_SUBJECTS + 100):
            revocations.erased_until(b" token %d" % number)
        assert len(revocations._used) == MOST_SUBJECTS
        await told(revocations)
        revocations.erased_until(JANE)
        revocations.ask()
        await told(revocations)
        assert len(revocations._until) == MOST_SUBJECTS

    played(scene)


def test_without_an_answer_what_is_known_stays_and_it_asks_again() -> None:
    async def scene(_: World, front: Front) -> None:
        revocations = of(front)
        revocations._until[JANE] = 7
        revocations.erased_until(JANE)
        revocations.ask()
        revocations.give_up("no answer from the cluster")
        assert revocations.erased_until(JANE) == 7
        revocations.ask()
        await told(revocations)

    played(scene)
