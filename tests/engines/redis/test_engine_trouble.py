"""The engine `redis` when masters refuse, send elsewhere, or are late: against a cluster of dicts, on a clock that jumps."""

from __future__ import annotations

import asyncio

import pytest
from fake_redis import FullError, Master, MovedError, RefusedError, TryAgainError, World
from played_cluster import Asker, Front, iamat, namesakes, one_of_each, played, whatsat

from proxyherd.config.address import Address
from proxyherd.engines.redis import layout

WITHIN = 2.2
"""Seconds: an idle master is asked once a second, and a batch takes less than another."""


def refuse(world: World, master: Master, error: Exception, *functions: bytes) -> None:
    """Let a master refuse these functions, as Redis does whatever the keys are."""

    def fault(asked: Master, function: bytes, _: list[bytes]) -> Exception | None:
        return error if asked is master and function in functions else None

    world.fault = fault


def heal(world: World) -> None:
    world.fault = lambda *_: None


# Reports are refused. ------------------------------------------------------------------------------------------


def test_a_full_master_is_told_though_nobody_reports_and_told_again_when_it_has_room() -> None:
    async def scene(world: World, front: Front) -> None:
        master, asker = world.of(b"kiwi"), Asker()
        refuse(world, master, FullError("OOM command not allowed"), b"advance")
        await asyncio.sleep(WITHIN)
        full = front.engine.routes.full()
        assert str(master.address) in full
        assert "raise maxmemory" in full
        assert full.startswith(
            f"{world.owners.count(master.address)} of 512 parts of the table take no reports"
        )
        assert front.engine.routes.trouble() == ""  # what it holds can be asked for
        assert front.observer.full == [(str(master.address), True)]
        front.say(asker, whatsat(b"kiwi"))
        await front.all_settled(asker, 0.1)
        heal(world)
        await asyncio.sleep(WITHIN)
        assert front.engine.routes.full() == ""
        assert front.observer.full == [(str(master.address), True), (str(master.address), False)]

    played(scene)


def test_a_report_that_is_refused_tells_of_a_full_master_at_once_and_questions_hide_nothing() -> None:
    async def scene(world: World, front: Front) -> None:
        master, asker = world.of(b"kiwi"), Asker()
        await asyncio.sleep(0.05)
        refuse(world, master, FullError("OOM command not allowed"), b"advance")
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker, 0.1)
        assert front.engine.routes.full()
        for _ in range(50):  # so that no batch is empty
            front.say(asker, whatsat(b"kiwi"))
            await asyncio.sleep(0.05)
        assert front.engine.routes.full()
        heal(world)
        for _ in range(50):
            front.say(asker, whatsat(b"kiwi"))
            await asyncio.sleep(0.05)
        assert front.engine.routes.full() == ""

    played(scene)


def test_asking_whether_there_is_room_stores_nothing_of_a_client() -> None:
    async def scene(world: World, _: Front) -> None:
        await asyncio.sleep(5)
        assert all(layout.client_of(key) is None for key in world.data)
        assert {*world.data.values()} == {b""}

    played(scene)


@pytest.mark.parametrize("functions", [(b"advance",), (b"seal",), (b"advance", b"seal")], ids=str)
@pytest.mark.parametrize(
    "said",
    [
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
        "READONLY You can't write against a read only replica.",
        "NOPERM User proxyherd has no permissions to run the 'fcall' command",
        "ERR Function not found",
    ],
    ids=lambda said: said.split()[0],
)
def test_a_master_that_takes_no_writes_is_told_with_its_reason_though_nobody_reports(
    said: str, functions: tuple[bytes, ...]
) -> None:
    async def scene(world: World, front: Front) -> None:
        master = world.of(b"kiwi")
        refuse(world, master, RefusedError(said), *functions)
        await asyncio.sleep(WITHIN)
        for _ in range(20):  # and does not come and go
            assert said in front.engine.routes.trouble()
            await asyncio.sleep(0.05)
        assert {one for one, _ in front.observer.troubles[3:]} <= {str(master.address)}
        assert {*front.observer.again} == {"unsealed" if b"seal" in functions else "refused"}
        heal(world)
        await asyncio.sleep(WITHIN)
        assert front.engine.routes.trouble() == ""

    played(scene)


# Sent elsewhere. -----------------------------------------------------------------------------------------------


def test_a_redirection_to_a_node_that_is_not_known_has_who_is_master_looked_up_at_once() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, new = Asker(), world.add()
        world.owners[layout.tag_of(b"kiwi")] = new.address
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker, 1)
        assert "moved" in front.observer.again

    played(scene)


@pytest.mark.parametrize("host", ["", "?"])
def test_a_redirection_without_a_host_is_to_the_host_that_has_sent_it(host: str) -> None:
    async def scene(world: World, front: Front) -> None:
        front.looks = False
        asker, tag = Asker(), layout.tag_of(b"kiwi")
        home = world.of(b"kiwi")
        to = next(one for one in world.masters.values() if one is not home)
        world.owners[tag] = to.address
        world.elsewhere = lambda node: MovedError(Address(host, node.port))
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker, 1)
        assert layout.key(b"kiwi") in world.kept

    played(scene)


def test_a_tag_whose_keys_have_all_arrived_goes_together_again() -> None:
    """Else it would cost a call a report for ever."""

    async def scene(world: World, front: Front) -> None:
        asker, crowd = Asker(), namesakes(b"kiwi", 50)
        refusing = [TryAgainError("TRYAGAIN")]
        world.fault = lambda _, function, __: refusing.pop() if refusing and function == b"advance" else None
        front.say(asker, *(iamat(client, 1) for client in crowd))
        await front.all_settled(asker, 1)
        assert "split" in front.observer.again
        await asyncio.sleep(6)  # a look at who is master
        before = len(world.of(b"kiwi").served)
        front.say(asker, *(iamat(client, 2) for client in crowd))
        await front.all_settled(asker, 1)
        batches = world.of(b"kiwi").served[before:]
        calls = [call for batch in batches for call in batch if call[1:2] == [b"proxyherd_2_advance"]]
        assert max(int(call[2]) for call in calls) == len(crowd)

    played(scene)


# Late. ---------------------------------------------------------------------------------------------------------


def test_the_deadline_counts_for_what_is_in_flight_when_it_passes() -> None:
    """Nothing in a batch is given up while it may still be answered, and everything as soon as it is not."""

    async def scene(world: World, front: Front) -> None:
        asker, other = Asker(), Asker()
        here, there = one_of_each(world)[:2]
        front.engine.tick = lambda now: None  # type: ignore[method-assign]
        world.mishap = lambda master: "late" if master is world.of(here) else ""
        front.say(asker, iamat(here, 1))
        front.say(other, iamat(there, 1))
        await asyncio.sleep(0.95)
        assert not asker.given_up
        await asyncio.sleep(0.1)
        assert asker.given_up
        assert other.outcomes == ["stored"]
        assert front.engine.backlog.wishes == 0

    played(scene, deadline_seconds=0.9, timeout_seconds=1.0)
