"""The engine `redis` against a cluster of dicts: whatever fails, and in whatever order, what is answered is true.

The masters are tests/support/fake_redis.py's; the clock jumps, so seconds of failing cost none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from random import Random
from typing import Any, cast
from unittest.mock import MagicMock

import pytest
from fake_redis import TIME, FullError, Master, RefusedError, TryAgainError, World, run
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from played_cluster import Asker, Front, iamat, namesakes, one_of_each, played, whatsat

from proxyherd.config.schema import Limits
from proxyherd.core.engine import Client
from proxyherd.core.messages import parse_question, parse_report
from proxyherd.core.reply import Reply
from proxyherd.core.turn import Turn
from proxyherd.engines.redis import engine as engine_module
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.engine import RedisEngine
from proxyherd.places import Places
from proxyherd.server.clients.clients import Clients
from proxyherd.server.clients.tcp import ClientConnection, line_connection
from proxyherd.server.driver import Driver
from proxyherd.server.places_queries import AsyncPlacesQueries

# Batches. ------------------------------------------------------------------------------------------------------


def test_one_batch_is_in_flight_to_a_master_while_the_next_gathers() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, clients = Asker(), [b"c%d" % number for number in range(600)]
        for master in world.masters.values():
            master.pace = 0.1
        front.say(asker, *(iamat(client, 1) for client in clients[:3]))
        for at in range(3, 600):
            await asyncio.sleep(0.0001)
            front.say(asker, iamat(clients[at], 1))  # the fake fails where two are in flight
        await front.all_settled(asker)
        assert set(asker.outcomes) == {"stored"}
        batches = [size for size in front.observer.sizes if size]
        assert len(batches) <= 3 * 3
        assert sum(batches) == 600

    played(scene)


def test_what_a_turn_wants_of_a_tag_goes_in_one_call_and_in_its_order() -> None:
    async def scene(world: World, front: Front) -> None:
        one, other = namesakes(b"kiwi", 2)
        asker = Asker()
        lines = [iamat(one, 1), iamat(other, 1), iamat(one, 2), whatsat(one), whatsat(other), iamat(one, 3)]
        front.say(asker, *lines)
        await front.all_settled(asker)
        (batch,) = (batch for batch in world.of(one).served if len(batch) > 3)
        assert [call[0] for call in batch] == [b"FCALL", b"MGET", b"FCALL", b"FCALL", b"WAIT"]
        assert batch[0][3:6] == [layout.key(one), layout.key(other), layout.key(one)]
        assert asker.outcomes == ["stored"] * 3 + ["found"] * 2 + ["stored"]
        assert b" 2" in asker.replies[3].entry.line  # type: ignore[union-attr] # it is found

    played(scene)


def test_a_batch_and_a_call_are_bounded_and_nothing_is_forgotten() -> None:
    async def scene(world: World, front: Front) -> None:
        crowd = namesakes(b"kiwi", 3)
        asker = Asker()
        front.say(asker, *(iamat(crowd[at % 3], at) for at in range(1_700)))
        front.say(asker, *(iamat(b"c%d" % at, 1) for at in range(9_000)))
        await front.all_settled(asker)
        served = [batch for master in world.masters.values() for batch in master.served]
        sizes = [int(call[2]) for batch in served for call in batch if call[0] == b"FCALL"]
        assert max(sizes) == engine_module._TAG_WISHES
        assert max(front.observer.sizes) < engine_module._BATCH_WISHES + engine_module._TAG_WISHES
        assert sum(front.observer.sizes) == 10_700
        assert front.engine.backlog.wishes == 0
        assert world.data[layout.key(crowd[1_699 % 3])].endswith(b" 1699")

    played(scene)


def test_many_turns_share_no_batch_with_what_failed_for_ever() -> None:
    """A tag that is refused again and again holds up nothing but itself."""

    async def scene(world: World, front: Front) -> None:
        stuck, well = namesakes(b"kiwi", 1)[0], b"plum"
        world.owners = [world.owners[layout.tag_of(stuck)]] * layout.TAGS
        front.engine.learn(world.owners)
        key = layout.key(stuck)
        world.fault = lambda _, __, keys: TryAgainError("TRYAGAIN") if key in keys else None
        asker, other = Asker(), Asker()
        front.say(asker, iamat(stuck, 1))
        for moment in range(20):
            front.say(other, iamat(well, moment))
            await front.all_settled(other, 0.2)
        assert asker.outcomes == ["waiting"]
        world.fault = lambda *_: None
        await front.all_settled(asker, 0.2)
        assert asker.outcomes == ["stored"]

    played(scene)


# What is believed. ---------------------------------------------------------------------------------------------


def test_nothing_is_answered_before_replicas_have_it() -> None:
    async def scene(world: World, front: Front) -> None:
        master, asker = world.of(b"kiwi"), Asker()
        master.replicas = 0
        front.say(asker, iamat(b"kiwi", 1), whatsat(b"kiwi"), whatsat(b"kiwo"))
        await asyncio.sleep(5)
        assert layout.key(b"kiwi") in world.data
        assert asker.outcomes[:2] == ["waiting"] * 2
        assert "0 replicas have acknowledged" in front.engine.routes.trouble()
        assert front.observer.again.count("unsealed") > 1
        master.replicas = 1
        await front.all_settled(asker)
        assert asker.outcomes == ["stored", "found", "unknown"]
        assert front.engine.routes.trouble() == ""

    played(scene)


def test_too_few_replicas_say_nothing_against_the_tag_of_the_seal() -> None:
    async def scene(world: World, front: Front) -> None:
        front.looks = False
        asker, master = Asker(), world.of(b"kiwi")
        seal = front.engine.routes.shards[master.address].seal
        master.replicas = 0
        front.say(asker, iamat(b"kiwi", 1))
        await asyncio.sleep(3)
        assert front.engine.routes.shards[master.address].seal == seal
        assert front.engine._singly == set()

    played(scene)


def test_more_replicas_are_waited_for_where_more_are_wanted() -> None:
    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        for master in world.masters.values():
            master.replicas = 2
        front.say(asker, iamat(b"kiwi", 1))
        await asyncio.sleep(3)
        assert asker.outcomes == ["waiting"]
        world.of(b"kiwi").replicas = 3
        await front.all_settled(asker)

    played(scene, replicas=3)


def test_a_batch_whose_seal_is_refused_is_not_believed() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, refusing = Asker(), True
        world.fault = lambda _, function, __: (
            RefusedError("NOREPLICAS") if refusing and function == b"seal" else None
        )
        front.say(asker, whatsat(b"kiwi"), iamat(b"kiwi", 1))
        await asyncio.sleep(3)
        assert asker.outcomes == ["waiting"] * 2
        assert "NOREPLICAS" in front.engine.routes.trouble()
        refusing = False
        await front.all_settled(asker)
        assert asker.outcomes[1] == "stored"

    played(scene)


def test_a_master_that_was_replaced_is_not_believed_and_what_it_took_is_done_again() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, old = Asker(), world.of(b"kiwi")
        old.replicas = 0  # cut off, and does not know it yet
        front.looks = False
        front.say(asker, iamat(b"kiwi", 5), whatsat(b"kiwi"))
        await asyncio.sleep(1)
        world.replace(old, goes_on=True)
        other = Asker()
        await asyncio.sleep(1)
        front.say(other, whatsat(b"kiwi"))
        await asyncio.sleep(3)
        assert {*asker.outcomes, *other.outcomes} == {"waiting"}
        front.looks = True
        front.doubt()
        await front.all_settled(asker, 1)
        await front.all_settled(other, 1)
        assert asker.outcomes == ["stored", "found"]
        assert world.kept[layout.key(b"kiwi")].endswith(b" 5")

    played(scene)


@pytest.mark.parametrize("mishap", ["broken", "torn", "late"])
def test_a_batch_that_did_not_come_back_is_done_again_on_a_new_connection(mishap: str) -> None:
    async def scene(world: World, front: Front) -> None:
        asker, master = Asker(), world.of(b"kiwi")
        before = {one for one in world.connections if one.master is master}
        happen = [mishap]
        world.mishap = lambda one: happen.pop() if happen and one is master else ""
        front.say(asker, iamat(b"kiwi", 1), whatsat(b"kiwi"))
        await front.all_settled(asker, 2)
        assert asker.outcomes == ["stored", "found"]
        assert not any(one.is_open for one in before)
        assert len([one for one in world.connections if one.master is master and one.is_open]) == 1
        assert front.observer.again == ["late" if mishap == "late" else "lost"]

    played(scene)


# Keys on their way. --------------------------------------------------------------------------------------------


def test_queries_of_a_tag_on_its_way_are_served_key_by_key_and_its_reports_when_it_has_arrived() -> None:
    """Whether a client was erased is known only when all tombstones of the tag are in one place."""

    async def scene(world: World, front: Front) -> None:
        here, there, new = namesakes(b"kiwi", 3)
        asker, tag = Asker(), layout.tag_of(here)
        front.say(asker, iamat(here, 1), iamat(there, 1))
        await front.all_settled(asker)
        to = next(one for one in world.masters if one != world.of(here).address)
        world.moving[tag] = to
        world.gone.add(layout.key(there))
        queries, reports = Asker(), Asker()
        front.say(queries, whatsat(there), whatsat(here))
        await front.all_settled(queries, 2)
        assert queries.outcomes == ["found"] * 2
        front.say(reports, iamat(here, 2), iamat(there, 2), iamat(new, 2), whatsat(there))
        await asyncio.sleep(1)
        assert reports.outcomes == ["waiting"] * 4
        world.owners[tag] = world.moving.pop(tag)
        await front.all_settled(reports, 1)
        assert reports.outcomes == ["stored"] * 3 + ["found"]
        assert {"asked", "split"} & {*front.observer.again}
        assert front.engine.routes.trouble() == ""

    played(scene)


def test_all_queries_of_a_tag_about_where_its_keys_move_to_go_there_together() -> None:
    """One after the other, a tag with hundreds of clients would miss the deadline."""

    async def scene(world: World, front: Front) -> None:
        asker, clients = Asker(), namesakes(b"kiwi", 400)
        to = next(one for one in world.masters if one != world.of(b"kiwi").address)
        world.moving[layout.tag_of(b"kiwi")] = to
        for client in clients:
            world.gone.add(layout.key(client))
        front.say(asker, *map(whatsat, clients))
        await front.all_settled(asker, 2)
        assert front.observer.again.count("asked") < 20

    played(scene)


def test_a_detour_ends_with_the_node_that_it_led_to() -> None:
    """A slot on its way to a master that dies, and the move is taken back: the tag is served where it stayed."""

    async def scene(world: World, front: Front) -> None:
        asker, tag = Asker(), layout.tag_of(b"kiwi")
        to = next(one for one in world.masters.values() if one is not world.of(b"kiwi"))
        to.is_down = True
        world.moving[tag] = to.address
        front.say(asker, whatsat(b"kiwi"))
        await asyncio.sleep(2)
        assert asker.outcomes == ["waiting"]
        world.replace(to, goes_on=False)
        world.moving.clear()
        await front.all_settled(asker, 6)
        assert asker.outcomes == ["unknown"]

    played(scene)


def test_a_moved_tag_is_asked_for_at_its_new_master_before_anybody_has_looked() -> None:
    async def scene(world: World, front: Front) -> None:
        front.looks = False
        asker, to = Asker(), next(one for one in world.masters.values() if one is not world.of(b"kiwi"))
        world.owners[layout.tag_of(b"kiwi")] = to.address
        front.say(asker, iamat(b"kiwi", 1))
        doubts: list[float] = []
        front.engine._doubt = lambda: doubts.append(front.loop.time())
        await front.all_settled(asker, 1)
        assert front.observer.again == ["moved"]
        assert len(doubts) == 1, "who has what is looked up soon"

    played(scene)


def test_a_master_that_has_lost_the_tag_of_its_seal_goes_on_with_another() -> None:
    async def scene(world: World, front: Front) -> None:
        front.looks = False
        asker, master = Asker(), world.of(b"kiwi")
        seal = front.engine.routes.shards[master.address].seal
        assert seal is not None
        world.owners[seal] = next(one for one in world.masters if one != master.address)
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker, 2)
        assert asker.outcomes == ["stored"]

    played(scene)


# No room. ------------------------------------------------------------------------------------------------------


def test_a_master_without_room_refuses_reports_and_answers_questions() -> None:
    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        front.say(asker, iamat(b"kiwi", 1))
        await front.all_settled(asker)
        world.fault = lambda _, function, __: FullError("OOM") if function == b"advance" else None
        front.say(asker, iamat(b"kiwi", 2), whatsat(b"kiwi"))
        await front.all_settled(asker, 1)
        assert asker.outcomes == ["stored", "refused", "found"]
        assert asker.replies[1].answer == b"? " + iamat(b"kiwi", 2)
        assert asker.replies[2].entry.line.endswith(b" 1")  # type: ignore[union-attr] # it is found
        assert front.engine.routes.trouble() == ""

    played(scene)


def test_a_master_is_told_of_when_its_memory_is_full_and_when_it_has_room_again() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, master, told = Asker(), world.of(b"kiwi"), list[tuple[str, bool]]()
        front.observer.master_full = lambda one, *, full: told.append((one, full))  # type: ignore[method-assign, assignment]
        world.fault = lambda one, function, _: (
            FullError("OOM") if one is master and function == b"advance" else None
        )
        front.say(asker, iamat(b"kiwi", 1))
        await asyncio.sleep(0.005)
        assert asker.outcomes == ["refused"]
        assert told == [(str(master.address), True)], "at once, and not by the next probe"
        world.fault = lambda *_: None
        await asyncio.sleep(3)
        assert told == [(str(master.address), True), (str(master.address), False)]

    played(scene)


def test_a_report_is_not_refused_that_may_have_been_stored() -> None:
    """It was, and nobody knows: then memory is full when it is done again."""

    async def scene(world: World, front: Front) -> None:
        asker, master = Asker(), world.of(b"kiwi")
        happen = ["late"]
        world.mishap = lambda one: happen.pop() if happen and one is master else ""
        front.say(asker, iamat(b"kiwi", 1))
        await asyncio.sleep(0.5)
        assert layout.key(b"kiwi") in world.data
        world.fault = lambda _, function, __: FullError("OOM") if function == b"advance" else None
        await asyncio.sleep(2)
        assert asker.outcomes != ["refused"]
        world.fault = lambda *_: None
        await front.all_settled(asker, 2)
        assert asker.outcomes == ["stored"]

    played(scene)


# Deadlines and bounds. -----------------------------------------------------------------------------------------


def test_the_deadline_closes_those_whose_shard_is_away_and_nobody_else() -> None:
    async def scene(world: World, front: Front) -> None:
        clients = one_of_each(world)
        askers = [Asker(client.decode()) for client in clients]
        world.of(clients[0]).is_down = True
        began = front.loop.time()
        for asker, client in zip(askers, clients, strict=True):
            front.say(asker, iamat(client, 1))
        late = Asker()
        while not askers[0].given_up:
            await asyncio.sleep(0.05)
            front.say(askers[1], whatsat(clients[1]))
            if front.loop.time() - began > 4 and not late.said:
                front.say(late, iamat(clients[0], 2))
        assert 5 <= front.loop.time() - began < 5.5
        assert [bool(asker.given_up) for asker in (*askers, late)] == [True, False, False, False]
        assert front.engine.backlog.wishes <= 2
        world.of(clients[0]).is_down = False
        await front.all_settled(late, 3)
        assert late.outcomes == ["stored"]
        assert askers[0].outcomes == ["waiting"]  # a turn makes it unanswered
        assert b" 2" in world.data[layout.key(clients[0])]

    played(scene, deadline_seconds=5.0)


def test_what_was_given_up_is_not_done_later() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, master = Asker(), world.of(b"kiwi")
        master.is_down = True
        front.say(asker, iamat(b"kiwi", 1))
        await asyncio.sleep(7)
        assert asker.given_up
        master.is_down = False
        await asyncio.sleep(7)
        assert world.data.get(layout.key(b"kiwi")) is None
        assert front.engine.backlog.wishes == 0

    played(scene, deadline_seconds=5.0)


@pytest.mark.long
def test_clients_wait_when_too_much_waits_for_masters_that_can_be_had_only() -> None:
    async def scene(world: World, front: Front) -> None:
        asker, clients = Asker(), one_of_each(world)
        away, well = world.of(clients[0]), world.of(clients[1])
        away.is_down = True
        for connection in world.connections:
            if connection.master is away:
                connection.master.pace = 0.0
        front.say(asker, iamat(clients[0], 1))
        await asyncio.sleep(0.3)
        front.say(asker, *(iamat(clients[0], at) for at in range(10_000)))
        await asyncio.sleep(0.3)
        assert not front.engine.full
        well.pace = 0.5
        front.say(asker, *(iamat(clients[1], at) for at in range(8_300)))
        assert front.engine.full
        await asyncio.sleep(30)
        assert not front.engine.full

    played(scene)


def test_clients_are_heard_again_as_soon_as_no_longer_too_much_waits() -> None:
    """A master fails with too much waiting for it: that counts no more, and turns must hear of it."""

    async def scene(world: World, front: Front) -> None:
        asker, client = Asker(), one_of_each(world)[0]
        for master in world.masters.values():
            master.pace = 0.9
        front.say(asker, *(iamat(client, at) for at in range(12_000)))
        assert front.engine.full
        woken: list[bool] = []
        world.of(client).is_down = True
        front.engine.wake = lambda: woken.append(front.engine.full)
        while front.engine.full:
            woken.clear()
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.11)  # a tick
        assert woken[-1:] == [False]

    played(scene)


def test_a_master_that_hangs_keeps_nobody_else_waiting() -> None:
    """It is not known to be lost yet, and much waits for it: others are read on."""

    async def scene(world: World, front: Front) -> None:
        clients = one_of_each(world)
        asker, other = Asker(), Asker()
        world.of(clients[0]).pace = 0.9
        front.say(asker, iamat(clients[0], 0))
        await asyncio.sleep(0.1)
        front.say(asker, *(iamat(clients[0], at) for at in range(1, 10_000)))
        assert front.engine.routes.trouble() == ""
        assert not front.engine.full
        front.say(other, iamat(clients[1], 1))
        await front.all_settled(other, seconds=0.1)

    played(scene)


def test_what_is_more_than_a_batch_goes_at_once_behind_it() -> None:
    """A backlog after a failover must be served within its deadline."""

    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        front.say(asker, *(iamat(b"c%d" % number, 1) for number in range(8_000)))
        await front.all_settled(asker, seconds=0.5)

    played(scene)


def test_a_batch_is_bounded_in_bytes_too() -> None:
    """Clients with long IDs must not make a master late for all."""

    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        front.say(asker, *(iamat(b"%d" % number + bytes(8_000), 1) for number in range(1_000)))
        assert not front.engine.full
        front.say(asker, *(iamat(b"%d" % number + bytes(8_000), 2) for number in range(100)))
        assert front.engine.full
        await front.all_settled(asker, seconds=5)
        assert max(front.observer.sizes) < 2 * engine_module._BATCH_BYTES // 8_000

    played(scene, limits=Limits(max_client_bytes=9_000))


def test_where_reports_gather_they_share_a_batch() -> None:
    async def scene(world: World, front: Front) -> None:
        asker = Asker()
        await asyncio.sleep(0.2)
        before = len(front.observer.sizes)
        for number in range(10):
            front.say(asker, iamat(b"kiwi", number))
            await asyncio.sleep(0.001)
        await front.all_settled(asker)
        assert 10 in front.observer.sizes[before:]

    played(scene, gather_seconds=0.05)


@pytest.mark.long
def test_past_what_may_wait_for_a_lost_master_the_next_is_given_up_at_once() -> None:
    async def scene(world: World, front: Front) -> None:
        clients = one_of_each(world)
        asker, late, other = Asker(), Asker(), Asker()
        world.of(clients[0]).is_down = True
        front.say(asker, iamat(clients[0], 1))
        await asyncio.sleep(0.2)
        front.say(asker, *(iamat(clients[0], at) for at in range(65_537)))
        await asyncio.sleep(0.2)
        waiting = front.engine.backlog.wishes
        front.say(late, iamat(clients[0], 1))
        front.say(other, iamat(clients[1], 1))
        await front.all_settled(other)
        assert late.given_up
        assert not asker.given_up
        assert front.engine.backlog.wishes == waiting

    played(scene)


# Connections. --------------------------------------------------------------------------------------------------


class Transport:
    """One connection's other side, which takes nothing more once it is told the end."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.ended = False
        self.unsent = 0

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else None

    def write(self, data: bytes) -> None:
        if self.ended:
            raise RuntimeError("Cannot call write() after write_eof()")
        self.written.append(data)

    def write_eof(self) -> None:
        self.ended = True

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        pass

    def close(self) -> None:
        """Close when all is sent that has not been: writes until then are sent too."""

    @property
    def lines(self) -> list[bytes]:
        return b"".join(self.written).splitlines()


def connected(front: Front) -> Callable[[], tuple[ClientConnection, Transport]]:
    """Put real turns and connections before the engine."""
    observer = MagicMock()
    places: asyncio.Future[Places] = front.loop.create_future()
    driver = Driver(front.loop)
    questions = AsyncPlacesQueries[Client](places, observer, front.loop)
    turn = Turn(front.engine, questions, observer, driver.wake)
    front.engine.wake = driver.wake
    driver.start(turn)
    clients = Clients(Limits(), turn, observer)

    def connect() -> tuple[ClientConnection, Transport]:
        connection, transport = line_connection(clients), Transport()
        connection.connection_made(cast("asyncio.Transport", transport))
        return connection, transport

    return connect


def test_who_is_given_up_while_it_says_something_holds_up_nobody() -> None:
    async def scene(world: World, front: Front) -> None:
        connect = connected(front)
        (one, _), (other, answers) = connect(), connect()
        world.of(b"kiwi").is_down = True
        one.data_received(iamat(b"kiwi", 1) + b"\n")
        await asyncio.sleep(4.99)
        front.engine.tick(front.loop.time() + 1)
        one.data_received(b"hello\n")
        other.data_received(b"hello\n")
        await asyncio.sleep(0.05)
        other.data_received(b"again\n")
        await asyncio.sleep(0.05)
        assert answers.lines == [b"? hello", b"? again"]
        assert not one.owed

    played(scene, deadline_seconds=5.0)


def test_who_is_given_up_at_once_holds_up_nobody() -> None:
    async def scene(world: World, front: Front) -> None:
        connect = connected(front)
        (one, heard), (other, answers) = connect(), connect()
        world.of(b"kiwi").is_down = True
        front.say(Asker(), iamat(b"kiwi", 0))
        await asyncio.sleep(0.5)
        front.engine.backlog.crowded = True
        one.data_received(b"hello\n" + iamat(b"kiwi", 1) + b"\n")
        other.data_received(b"hello\n")
        await asyncio.sleep(0.05)
        assert answers.lines == [b"? hello"]
        assert heard.lines in ([], [b"? hello"])
        assert heard.ended
        assert not one.owed

    played(scene)


def test_who_was_given_up_is_answered_nothing_more() -> None:
    """Its next answer would be taken for the one that is missing."""

    async def scene(world: World, front: Front) -> None:
        one, transport = connected(front)()
        world.of(b"kiwi").is_down = True
        one.data_received(b"".join(iamat(b"kiwi", at) + b"\n" for at in range(300)))
        transport.unsent = 1
        await asyncio.sleep(5.5)
        assert not one.owed
        one.resume_writing()
        await asyncio.sleep(0.5)
        world.of(b"kiwi").is_down = False
        await asyncio.sleep(3)
        assert transport.lines == []

    played(scene, deadline_seconds=5.0)


# Whatever happens. ---------------------------------------------------------------------------------------------

CROWD = [*namesakes(b"kiwi", 4), b"plum", b"fig"]
says = st.tuples(
    st.just("say"),
    st.integers(0, 2),
    st.lists(st.tuples(st.sampled_from(CROWD), st.none() | st.integers(0, 6)), min_size=1, max_size=12),
)
happens: st.SearchStrategy[tuple[str, int, list[tuple[bytes, int | None]]]] = st.tuples(
    st.sampled_from(
        [
            "pause",
            "pause",
            "move",
            "keys",
            "arrive",
            "replace",
            "cut off",
            "cut off",
            "join",
            "disturb",
            "calm",
        ]
    ),
    st.integers(0, 5),
    st.just([]),
)


class Trouble:
    """What befalls a cluster, one thing after another."""

    def __init__(self, world: World, rng: Random) -> None:
        self.world = world
        self._rng = rng
        self._share = rng.choice([0.0, 0.1, 0.3])
        world.fault, world.mishap = self._fault, self._mishap

    def befall(self, what: str, number: int) -> None:
        world, client = self.world, CROWD[number]
        tag = layout.tag_of(client)
        if what == "move" and tag not in world.moving:
            others = [one for one in set(world.owners) if one is not None and one != world.owners[tag]]
            world.moving[tag] = sorted(others, key=str)[number % len(others)]
        elif what == "keys" and tag in world.moving:
            world.gone.add(layout.key(client))
        elif what == "arrive":
            self.arrive(tag)
        elif what == "cut off":
            world.of(client).replicas = 0
        elif what == "join":
            world.of(client).replicas = 2
        elif what == "replace" and not world.moving:
            world.replace(world.of(client), goes_on=bool(number % 2))
        elif what in ("disturb", "calm"):
            self._share = 0.3 if what == "disturb" else 0.0

    def arrive(self, tag: int) -> None:
        if tag in self.world.moving:
            self.world.owners[tag] = self.world.moving.pop(tag)
            self.world.gone = {key for key in self.world.gone if layout.tag_of(_client(key)) != tag}

    def heal(self) -> None:
        for tag in list(self.world.moving):
            self.arrive(tag)
        self._share = 0.0
        for master in self.world.masters.values():
            if master.data is self.world.data:
                master.replicas = 2

    def _mishap(self, _: Master) -> str:
        mishaps = ["broken", "torn", "late"]
        return self._rng.choice(mishaps) if self._rng.random() < self._share / 3 else ""

    def _fault(self, _: Master, function: bytes, __: list[bytes]) -> Exception | None:
        if self._rng.random() >= self._share:
            return None
        faults = [TryAgainError("TRYAGAIN"), RefusedError("CLUSTERDOWN"), RefusedError("MASTERDOWN")]
        if function == b"advance":
            faults.append(FullError("OOM"))
        return self._rng.choice(faults)


def _client(key: bytes) -> bytes:
    return key.partition(b"}")[2]


def story(asker: Asker) -> Iterator[tuple[bytes, int, Reply]]:
    """What a connection has said: about whom, the nanoseconds of a report, -1 for a question, and the reply."""
    for line, reply in asker.said:
        assert isinstance(line, bytes)
        if (report := parse_report(line, b"", 10**21)) is not None:
            yield report.client, report.nanoseconds, reply
        else:
            question = parse_question(line)
            assert question is not None
            yield question.client, -1, reply


def check_story(asker: Asker) -> None:
    """What one connection was answered fits what it had been answered before."""
    floor: dict[bytes, int] = {}
    for client, nanoseconds, reply in story(asker):
        known = floor.get(client, -1)
        if nanoseconds >= 0 and reply.outcome == "refused":
            continue
        if nanoseconds >= 0:
            assert reply.outcome in {"stored", "stale"}
            assert reply.answer is not None
            assert reply.answer.startswith(b"AT Clark ")
            floor[client] = max(known, nanoseconds)
        elif reply.outcome == "unknown":
            assert known == -1, "what it had been told was stored is not known any more"
        else:
            assert reply.entry is not None
            assert reply.entry.nanoseconds >= known, "it had been told something later"
            floor[client] = reply.entry.nanoseconds


def check_kept(world: World, askers: Iterable[Asker]) -> None:
    """What was answered is kept; what is kept was said, and not refused."""
    said = set[tuple[bytes, bytes]]()
    for client, nanoseconds, reply in (one for asker in askers for one in story(asker)):
        if nanoseconds >= 0 and reply.outcome != "refused":
            assert reply.answer is not None
            value = layout.VALUE % (nanoseconds, reply.answer)
            said.add((layout.key(client), value))
            assert world.kept[layout.key(client)][:TIME] >= value[:TIME], "an answered report is lost"
    assert {(key, value) for key, value in world.kept.items() if value} <= said


def check_at_rest(engine: RedisEngine) -> None:
    assert engine.backlog.wishes == 0
    assert not any(engine._queues)
    assert not any(engine._busy)
    assert not engine.routes.detours
    assert not engine.routes.homeless
    assert engine.routes.trouble() == ""


@pytest.mark.long
@given(st.lists(says | happens, min_size=1, max_size=25), st.integers(0, 1 << 32))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_happens_answers_are_true_and_nothing_is_forgotten(
    steps: Sequence[tuple[str, int, Sequence[tuple[bytes, int | None]]]], seed: int
) -> None:
    async def play() -> None:
        world = World()
        front, trouble, askers = Front(world), Trouble(world, Random(seed)), [Asker() for _ in range(3)]
        for what, number, commands in steps:
            if what == "say":
                lines = [
                    whatsat(client) if time is None else iamat(client, time) for client, time in commands
                ]
                front.say(askers[number], *lines)
            elif what == "pause":
                await asyncio.sleep([0, 0.001, 0.02, 0.1, 0.5, 2][number])
            else:
                trouble.befall(what, number)
        trouble.heal()
        front.doubt()
        for asker in askers:
            await front.all_settled(asker)
            check_story(asker)
        await asyncio.sleep(5)
        check_kept(world, askers)
        check_at_rest(front.engine)
        assert front.observer.faults == []
        await front.close()

    run(play())
