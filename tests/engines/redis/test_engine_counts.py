"""How much the engine `redis` sends, when, how often, and what it counts: to the number, on a clock that jumps."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from deciding import said
from fake_redis import FakeConnection, FullError, Master, RefusedError, TryAgainError, World, run
from msgspec.structs import replace
from played_cluster import NOW, Asker, Front, iamat, namesakes, one_of_each, played, whatsat

from proxyherd.config.address import Address
from proxyherd.config.schema import Limits
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.engine import RedisEngine
from proxyherd.engines.redis.shard import FIRST_RETRY_SECONDS

MILLISECOND = 10**6


def let_one_have_all(world: World, front: Front) -> Master:
    """Let a master have the whole table."""
    master = world.of(b"kiwi")
    world.owners = [master.address] * layout.TAGS
    front.engine.learn(world.owners)
    return master


def one_of_each_tag(size: int) -> list[bytes]:
    """Return a client for each tag, whose ID has so many bytes."""
    clients: dict[int, bytes] = {}
    number = 0
    while len(clients) < layout.TAGS:
        client = b"%0*d" % (size, number)
        clients.setdefault(layout.tag_of(client), client)
        number += 1
    return [*clients.values()]


def refuse(world: World, error: Exception, client: bytes) -> None:
    """Let reports of a client be refused, and whatever goes in one call with them."""
    key = layout.key(client)
    world.fault = lambda _, function, keys: error if function == b"advance" and key in keys else None


def calls_for(master: Master, client: bytes) -> list[list[bytes]]:
    """Return the calls to a master that have named a client."""
    key = layout.key(client)
    return [call for batch in master.served for call in batch if key in call]


def times_of(world: World, master: Master) -> list[float]:
    """Note from now on when a master gets batches."""
    times: list[float] = []
    loop = asyncio.get_running_loop()

    def note(asked: Master) -> str:
        if asked is master:
            times.append(round(loop.time(), 6))
        return ""

    world.mishap = note
    return times


def pauses(times: list[float]) -> list[float]:
    return [round(after - before, 6) for before, after in pairwise(times)]


# How much goes at once. ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("each", "size", "batches"), [(4, 20, [2_000, 48]), (1, 2_048, [256, 256])], ids=["wishes", "bytes"]
)
def test_a_batch_is_full_at_2000_wishes_or_half_a_mib_of_lines(
    each: int, size: int, batches: list[int]
) -> None:
    async def scene(world: World, front: Front) -> None:
        let_one_have_all(world, front)
        await asyncio.sleep(0.1)
        asker = Asker()
        clients = one_of_each_tag(size - len(iamat(b"", 1)))
        before = len(front.observer.sizes)
        front.say(asker, *(iamat(client, 1) for client in clients for _ in range(each)))
        await front.all_settled(asker)
        assert front.observer.sizes[before:][:2] == batches

    played(scene, limits=Limits(max_client_bytes=2_048))


@pytest.mark.parametrize(("count", "calls"), [(100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
def test_a_call_carries_at_most_100_of_a_tag(count: int, calls: list[int]) -> None:
    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        front.say(asker, *(iamat(b"kiwi", at) for at in range(count)))
        await front.all_settled(asker)
        assert [int(call[2]) for call in calls_for(world.of(b"kiwi"), b"kiwi")] == calls
        assert set(asker.outcomes) == {"stored"}

    played(scene)


def test_whether_reports_are_taken_is_asked_about_once_a_second_however_many_there_are() -> None:
    async def scene(world: World, front: Front) -> None:
        master, asker = world.of(b"kiwi"), Asker()
        before = len(master.served)
        for at in range(200):
            front.say(asker, iamat(b"kiwi", at))
            await asyncio.sleep(0.02)
        probes = [call for batch in master.served[before:] for call in batch if call[-2:] == [b"", b"0"]]
        assert 3 <= len(probes) <= 4
        assert len(master.served) - before >= 200

    played(scene)


def test_an_idle_master_is_asked_once_or_twice_in_a_batchs_time_whether_it_still_is_one() -> None:
    async def scene(world: World, front: Front) -> None:
        master = world.of(b"kiwi")
        await asyncio.sleep(1)
        times = times_of(world, master)
        await asyncio.sleep(10)
        (pause,) = set(pauses(times))
        assert 0.3 <= pause <= 0.701  # and the millisecond that it takes
        assert all([call[0] for call in batch][-2:] == [b"FCALL", b"WAIT"] for batch in master.served)

    played(scene, timeout_seconds=0.7)


def test_a_master_without_a_part_of_the_table_is_sent_nothing_but_what_moves_there() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, tag = Asker(), layout.tag_of(b"kiwi")
        new = world.add()
        world.moving[tag] = new.address
        front.say(asker, whatsat(b"kiwi"), whatsat(b"kiwi"))
        await front.all_settled(asker, 1)
        assert asker.outcomes == ["unknown"] * 2
        await asyncio.sleep(3)
        assert [[call[0] for call in batch] for batch in new.served] == [
            [b"ASKING", b"MGET", b"ASKING", b"MGET", b"ASKING", b"FCALL", b"WAIT"]
        ]
        assert front.engine.routes.trouble() == ""
        shard = front.engine.routes.shards[new.address]
        assert shard.trouble == ""
        assert front.engine.gather(shard)[1:] == (b"", 0)

    played(scene)


# When something is tried again. --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "why"),
    [(TryAgainError("TRYAGAIN"), "split"), (FullError("OOM"), "full"), (RefusedError("ERR what"), "refused")],
    ids=["split", "full", "refused"],
)
def test_what_was_refused_is_tried_again_20_ms_later_and_counted_as_what_it_is(
    error: Exception, why: str
) -> None:
    async def scene(world: World, front: Front) -> None:
        master, asker = let_one_have_all(world, front), Asker()
        await asyncio.sleep(0.3)
        # Where memory is full only what may have been stored before waits: let its first batch be lost.
        happen = ["broken"] if why == "full" else []
        world.mishap = lambda one: happen.pop() if happen and one is master else ""
        front.say(asker, iamat(b"kiwi", 1), iamat(b"kiwi", 2), whatsat(b"kiwi"))
        refuse(world, error, b"kiwi")
        await asyncio.sleep(0.5)
        times = times_of(world, master)
        front.observer.waited.clear()
        await asyncio.sleep(2.5)  # longer than the longest pause between two connections
        assert set(front.observer.waited) == {(why, 2 if why == "full" else 3)}
        if why != "refused":  # then the master is in doubt, and connected to anew
            assert len(front.observer.waited) >= 20
            assert set(pauses(times)) == {0.021}
        world.fault = lambda *_: None
        await front.all_settled(asker, 3)
        assert asker.outcomes == ["stored", "stored", "found"]

    played(scene)


def test_a_refusal_is_the_masters_trouble_in_its_own_words() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, master = Asker(), world.of(b"kiwi")
        refuse(world, RefusedError("MASTERDOWN what"), b"kiwi")
        front.say(asker, iamat(b"kiwi", 1))
        await asyncio.sleep(0.01)
        assert (str(master.address), "MASTERDOWN what") in front.observer.troubles

    played(scene)


def test_what_did_not_come_back_is_counted_with_all_of_its_batch() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, master = Asker(), world.of(b"kiwi")
        happen = ["torn"]
        world.mishap = lambda one: happen.pop() if happen and one is master else ""
        front.say(asker, iamat(b"kiwi", 1), whatsat(b"kiwi"), iamat(b"kiwi", 2))
        await front.all_settled(asker, 2)
        assert front.observer.waited == [("lost", 3)]

    played(scene)


def test_what_moved_is_counted_with_all_that_waits_behind_it_and_goes_there_20_ms_later() -> None:
    async def scene(world: World, front: Front) -> None:
        front.looks = False
        asker, old = Asker(), world.of(b"kiwi")
        to = next(one for one in world.masters.values() if one is not old)
        world.owners[layout.tag_of(b"kiwi")] = to.address
        await asyncio.sleep(0.3)
        began, times = front.loop.time(), times_of(world, to)
        front.say(asker, iamat(b"kiwi", 1), whatsat(b"kiwi"))
        await front.all_settled(asker, 0.5)
        assert front.observer.waited == [("moved", 2)]
        assert [round(time - began, 6) for time in times if time >= began] == [0.021]

    played(scene)


def test_once_a_key_has_been_asked_for_elsewhere_each_of_its_tag_goes_alone() -> None:
    """Else a call with keys at both ends is refused, and costs 20 ms."""

    async def scene(world: World, front: Front) -> None:
        asker, (here, there) = Asker(), namesakes(b"kiwi", 2)
        front.say(asker, iamat(here, 1), iamat(there, 1))
        await front.all_settled(asker)
        to = next(one for one in world.masters.values() if one is not world.of(here))
        world.moving[layout.tag_of(here)] = to.address
        world.gone.add(layout.key(there))
        front.say(asker, whatsat(there))
        await front.all_settled(asker)
        front.say(asker, whatsat(here), whatsat(there))
        await front.all_settled(asker)
        assert set(front.observer.again) == {"asked"}
        assert front.observer.waited == [("asked", 1), ("asked", 1)]
        assert asker.outcomes == ["stored"] * 2 + ["found"] * 3

    played(scene)


def test_the_seal_leaves_a_tag_that_moves_away() -> None:
    async def scene(world: World, front: Front) -> None:
        front.looks = False
        master = world.of(b"kiwi")
        shard = front.engine.routes.shards[master.address]
        before = shard.seal
        assert before is not None
        world.owners[before] = next(one for one in world.masters if one != master.address)
        await asyncio.sleep(4)
        assert shard.seal != before
        assert shard.trouble == ""
        assert [why for why, _ in front.observer.waited] == ["unsealed"]

    played(scene)


def test_questions_leave_nothing_behind_that_makes_reports_dearer() -> None:
    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        front.say(asker, whatsat(b"kiwi"), iamat(b"plum", 1))
        await front.all_settled(asker)
        assert front.engine._particular == set()

    played(scene)


# Deadlines, and time. ------------------------------------------------------------------------------------------


def test_the_deadline_is_met_to_the_tick_and_by_each_wish_for_itself() -> None:
    async def scene(world: World, front: Front) -> None:
        world.of(b"kiwi").is_down = True
        await asyncio.sleep(2)
        engine, began = front.engine, front.loop.time()
        engine.tick = lambda now: None  # type: ignore[method-assign] # only by hand
        one, two = Asker(), Asker()
        front.say(one, iamat(b"kiwi", 1), whatsat(b"kiwi"))
        await asyncio.sleep(1)
        front.say(two, whatsat(b"kiwi"), iamat(b"kiwi", 1))
        for at, given_up, left in [
            (10.0, [], 4),
            (10.01, [one], 2),
            (11.0, [one], 2),
            (11.01, [one, two], 0),
        ]:
            RedisEngine.tick(engine, began + at)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [asker for asker in (one, two) if asker.given_up] == given_up
            assert engine.backlog.wishes == left
            assert (engine.backlog.size == 0) == (left == 0)

    played(scene, deadline_seconds=10.0)


def test_what_is_in_flight_again_and_again_has_its_deadline_each_for_itself() -> None:
    async def scene(world: World, front: Front) -> None:
        master, one, two = world.of(b"kiwi"), Asker(), Asker()
        world.mishap = lambda asked: "late" if asked is master else ""
        engine, began = front.engine, front.loop.time()
        engine.tick = lambda now: None  # type: ignore[method-assign] # it sees nothing of what is in flight
        front.say(one, iamat(b"kiwi", 1))
        await asyncio.sleep(4)
        front.say(two, iamat(b"kiwi", 2))
        while not two.given_up:
            await asyncio.sleep(0.1)
            if not one.given_up:
                assert front.loop.time() - began < 12.5
        assert one.given_up
        assert front.loop.time() - began >= 14

    played(scene, deadline_seconds=10.0)


def test_each_reply_says_what_it_is_an_answer_to() -> None:
    async def scene(_: World, front: Front) -> None:
        asker = Asker()
        front.say(asker, iamat(b"kiwi", 1), whatsat(b"kiwi"), b"FOO")
        assert [reply.kind for reply in asker.replies] == ["iamat", "whatsat", "other"]
        await front.all_settled(asker)

    played(scene)


def test_a_report_expires_at_its_age_to_the_millisecond() -> None:
    async def scene(world: World, front: Front) -> None:
        for received in (NOW + 123 * MILLISECOND, NOW + 124 * MILLISECOND - 1):
            front.engine.begin(front.loop.time(), received)
            said(front.engine, Asker(), [iamat(b"kiwi", received // 10**9 - 60)], received)
            await asyncio.sleep(0.1)
            assert world.expiries[layout.key(b"kiwi")] == NOW // MILLISECOND + 123 + 90_500

    played(scene, limits=Limits(max_age_seconds=90.5))


def test_without_an_age_nothing_expires() -> None:
    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker)
        assert world.expiries == {}
        (call,) = calls_for(world.of(b"kiwi"), b"kiwi")
        assert len(call) == 6

    played(scene, limits=Limits(max_age_seconds=0))


@pytest.mark.parametrize("lost", [False, True])
def test_closing_waits_for_nobody_but_a_batch_in_flight(lost: bool) -> None:
    async def scene(world: World, front: Front) -> None:
        master, asker = world.of(b"kiwi"), Asker()
        master.is_down = lost
        await asyncio.sleep(3)
        began = front.loop.time()
        if not lost:
            master.pace = 0.2
            front.say(asker, iamat(b"kiwi", 1))
            await asyncio.sleep(0.1)
        await front.close()
        assert front.loop.time() - began <= (0.0 if lost else 0.2 + FIRST_RETRY_SECONDS)
        assert not any(one.is_open for one in world.connections)
        assert all(shard.task.done() for shard in front.engine.routes.shards.values())
        assert asker.outcomes == ([] if lost else ["stored"])

    played(scene)


# What is told. -------------------------------------------------------------------------------------------------


def test_who_has_which_parts_is_told_when_it_changes() -> None:
    async def scene(world: World, front: Front) -> None:
        await asyncio.sleep(0.1)
        assert [sorted(parts.values()) for parts in front.observer.parts] == [[170, 171, 171]]
        front.engine.learn(world.owners)
        assert len(front.observer.parts) == 1
        let_one_have_all(world, front)
        assert front.observer.parts[1:] == [{str(world.of(b"kiwi").address): layout.TAGS}]

    played(scene)


def test_each_master_is_told_of_when_it_can_be_had_and_when_not() -> None:
    async def scene(world: World, front: Front) -> None:
        masters = {str(address) for address in world.masters}
        assert sorted(front.observer.troubles) == sorted((master, "") for master in masters)
        front.observer.troubles.clear()
        front.engine._doubt = lambda: doubts.append(len(front.observer.troubles))
        doubts: list[int] = []
        lost = world.of(one_of_each(world)[0])
        lost.is_down = True
        await asyncio.sleep(3)
        assert front.observer.troubles == [
            (str(lost.address), "broken off"),
            (str(lost.address), f"{lost.address} refuses"),
        ]
        assert doubts == [0, 1, 2]  # for the batch that was lost, and for each trouble
        lost.is_down = False
        await asyncio.sleep(3)
        assert front.observer.troubles[2:] == [(str(lost.address), "")]
        assert len(doubts) == 3

    played(scene)


def test_a_fault_of_ours_is_told_with_the_master_and_ends_nothing() -> None:
    async def play() -> None:
        world = World()
        faults, bug = [ZeroDivisionError("ours")], ZeroDivisionError("ours too")

        async def connect(address: Address) -> FakeConnection:
            if faults:
                raise faults.pop()
            return await world.connect(address)

        front = Front(world)
        front.engine._library = replace(world.library, connect=connect)
        told: list[str] = []
        front.observer.fault = lambda what, error: told.append(f"{what}: {error}")  # type: ignore[method-assign, assignment]
        world.replace(world.of(b"kiwi"), goes_on=False)
        front.engine.learn(world.owners)
        master = world.of(b"kiwi")
        await asyncio.sleep(0.01)
        assert told == [f"{master.address} cannot be served: ours"]
        await asyncio.sleep(0.1)
        bugs = [bug]

        def batch(_: int, __: float) -> None:
            if bugs:
                raise bugs.pop()

        front.observer.batch = batch  # type: ignore[method-assign, assignment]
        asker = Asker()
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker, 1)
        assert asker.outcomes == ["stored"]
        assert told[1:] == [f"{master.address} cannot be served: ours too"]
        assert front.observer.waited[-1] == ("lost", 1)
        await front.close()

    run(play())


def test_one_engine_has_nothing_of_the_others_between_turns() -> None:
    async def scene(_: World, front: Front) -> None:
        engine = front.engine
        assert engine.keeper is None
        settled = engine.end(front.loop.time())
        assert (list(settled.notes), settled.more) == ([], False)
        assert (list(settled.clients), list(settled.found), list(settled.given_up)) == ([], [], [])

    played(scene)
