"""Erasures by the engine `redis`, against a cluster of dicts: what is answered is true, whatever has to be repeated."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from fake_redis import FullError, World
from played_cluster import KEPT_SECONDS, NOW, SECOND, Asker, Front, iamat, namesakes, played, whatsat

from proxyherd.core.messages import Forget
from proxyherd.core.notes import Removed
from proxyherd.core.tombstones import parse_gone
from proxyherd.engines.redis import layout


def until(asker: Asker, at: int) -> int:
    """Return up to which moment a client is erased, as the reply says."""
    tombstone = parse_gone(asker.replies[at].answer or b"")
    assert tombstone is not None
    return tombstone.until


def test_who_is_erased_is_unknown_behind_that_and_known_again_when_it_reports_again() -> None:
    async def scene(_: World, front: Front) -> None:
        asker, later, (kiwi, other) = Asker(), Asker(), namesakes(b"kiwi", 2)
        front.say(asker, iamat(kiwi, 1), iamat(other, 1), Forget(kiwi), whatsat(kiwi), whatsat(other))
        await front.all_settled(asker)
        assert asker.outcomes == ["stored", "stored", "erased", "unknown", "found"]
        assert until(asker, 2) == NOW, "what Redis holds is erased, though it is of this very moment"
        assert [*front.notes] == [Removed(kiwi)]
        front.received += 1
        front.say(later, iamat(kiwi, 1), whatsat(kiwi), Forget(b"nobody"))
        await front.all_settled(later)
        assert later.outcomes == ["stored", "found", "erased"]
        assert until(later, 2) == NOW, "what comes at this moment is later"

    played(scene)


def test_an_answer_and_a_size_tell_nothing_of_the_id() -> None:
    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        front.say(asker, Forget(b"kiwi"))
        assert front.engine.backlog.size == 0
        await front.all_settled(asker)
        assert b"kiwi" not in (asker.replies[0].answer or b"")
        stones = [key for key in world.data if layout.tombstone_part(key)]
        assert len(stones) == 2
        assert not any(b"kiwi" in key + world.data[key] for key in stones)

    played(scene)


@pytest.mark.parametrize(
    ("before", "outcomes"), [(NOW - 1, ["stayed", "found"]), (NOW, ["erased", "unknown"])]
)
def test_who_was_seen_since_a_moment_stays(before: int, outcomes: list[str]) -> None:
    async def scene(_: World, front: Front) -> None:
        asker, later = Asker(), Asker()
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker)
        front.received += 20 * SECOND
        front.say(later, Forget(b"kiwi", before), whatsat(b"kiwi"))
        await front.all_settled(later)
        assert later.outcomes == outcomes
        assert len([*front.notes]) == outcomes.count("erased")

    played(scene)


def test_a_tombstone_of_long_ago_is_kept_for_long_enough() -> None:
    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        world.clock = NOW // 1_000_000
        front.say(asker, Forget(b"kiwi", SECOND))
        await front.all_settled(asker)
        assert until(asker, 0) == NOW - KEPT_SECONDS * SECOND // 16
        kept = [at for key, at in world.expiries.items() if layout.tombstone_part(key)]
        assert kept == [(NOW + KEPT_SECONDS * SECOND * 15 // 16) // 1_000_000] * 2

    played(scene)


def test_an_erasure_whose_outcome_is_unknown_spares_a_report_that_has_come_since() -> None:
    """Another server takes it, between the erasure and its repetition."""

    async def scene(world: World, front: Front) -> None:
        asker, other = Asker(), Asker()
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker)
        front.received += SECOND
        master, happen = world.of(b"kiwi"), ["late"]
        world.mishap = lambda one: happen.pop() if happen and one is master else ""
        front.say(asker, Forget(b"kiwi"))
        await asyncio.sleep(0.1)
        assert master.get(layout.key(b"kiwi")) is None, "it was executed, and nobody knows"
        line = b"AT Zoe +%d.000000000 kiwi +1+1 1" % (front.received // SECOND + 1)
        master.set(layout.key(b"kiwi"), layout.VALUE % (SECOND, line))
        await front.all_settled(asker)
        assert asker.outcomes == ["stored", "stayed"], "something is there that is not erased"
        front.say(other, whatsat(b"kiwi"))
        await front.all_settled(other)
        assert other.outcomes == ["found"]

    played(scene)


def test_a_client_of_a_server_whose_clock_is_ahead_is_not_said_to_be_erased_when_only_the_repetition_was_executed() -> (
    None
):
    async def scene(world: World, front: Front) -> None:
        asker, again, key = Asker(), Asker(), layout.key(b"kiwi")
        master, happen = world.of(b"kiwi"), ["broken"]
        line = b"AT Zoe +%d.000000000 kiwi +1+1 1" % (front.received // SECOND + 1)
        master.set(key, layout.VALUE % (SECOND, line))
        world.mishap = lambda one: happen.pop() if happen and one is master else ""
        front.say(asker, Forget(b"kiwi"))
        await front.all_settled(asker)
        assert (asker.outcomes, master.get(key) is None) == (["stayed"], False)
        front.say(again, Forget(b"kiwi"))
        await front.all_settled(again)
        assert (again.outcomes, master.get(key)) == (["erased"], None)

    played(scene)


def test_a_report_that_waited_while_its_client_was_erased_is_not_stored() -> None:
    async def scene(world: World, front: Front) -> None:
        slow, eraser = Asker(), Asker()
        master, happen = world.of(b"kiwi"), ["broken"]
        world.mishap = lambda one: happen.pop() if happen and one is master else ""
        front.say(slow, iamat(b"kiwi", 1))
        master.set(layout.PREFIXES[layout.tag_of(b"kiwi")] + b" gone", b"0" * 32 + b" 9")
        hashed = hashlib.sha1(b"0" * 32 + b"kiwi").hexdigest()[:32].encode()
        master.set(layout.PREFIXES[layout.tag_of(b"kiwi")] + b" gone " + hashed, b"%022d" % NOW)
        await front.all_settled(slow)
        assert slow.outcomes == ["stale"]
        front.say(eraser, whatsat(b"kiwi"))
        await front.all_settled(eraser)
        assert eraser.outcomes == ["unknown"]

    played(scene)


def test_while_keys_move_an_erasure_waits_and_where_memory_is_full_it_does_not() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, tag = Asker(), layout.tag_of(b"kiwi")
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker)
        world.moving[tag] = next(one for one in world.masters if one != world.of(b"kiwi").address)
        front.say(asker, Forget(b"kiwi"))
        await asyncio.sleep(1)
        assert asker.outcomes == ["stored", "waiting"]
        world.owners[tag] = world.moving.pop(tag)
        world.fault = lambda _, function, __: FullError("OOM") if function == b"advance" else None
        await front.all_settled(asker, 1)
        assert asker.outcomes == ["stored", "erased"]

    played(scene)
