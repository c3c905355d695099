"""Which master a tag goes to, what is said of masters that cannot be had, and how much may wait for them."""

from __future__ import annotations

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import cast

import pytest

from proxyherd.config.address import Address
from proxyherd.core.engine import Client
from proxyherd.engines.redis.backlog import Backlog, Load
from proxyherd.engines.redis.batch import Asked, Wish
from proxyherd.engines.redis.layout import TAGS
from proxyherd.engines.redis.routes import Routes, named
from proxyherd.engines.redis.shard import Shard

ONE, TWO, THREE = (Address(f"10.0.0.{number}", 7_000 + number) for number in (1, 2, 3))
HALVES = [ONE] * (TAGS // 2) + [TWO] * (TAGS // 2)


class Node:
    """A master, less its connection: what is wanted of it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.trouble = ""
        self.full = False
        self.seal: int | None = None
        self.sent = 0.0
        self.wanted: deque[int] = deque()
        self.parted = False
        self.task: asyncio.Future[None]

    def want(self, tag: int) -> None:
        self.wanted.append(tag)

    def part(self) -> None:
        self.parted = True


class Known:
    """Routes, and all masters that were ever made."""

    def __init__(self) -> None:
        self.made: list[Node] = []
        self.routes = Routes(self._make)

    def _make(self, address: Address) -> Shard:
        self.made.append(Node(address))
        return cast("Shard", self.made[-1])

    def at(self, address: Address) -> Node:
        return cast("Node", self.routes.shards[address])


@pytest.fixture
def known() -> Known:
    return Known()


def test_a_tag_without_a_master_waits_and_goes_to_whoever_is_found(known: Known) -> None:
    for tag in (0, TAGS - 1, 5):
        known.routes.route(tag)
    assert known.made == []
    known.routes.learn([None] * (TAGS - 1) + [TWO])
    assert list(known.at(TWO).wanted) == [TAGS - 1]
    known.routes.learn(HALVES)
    assert sorted(known.at(ONE).wanted) == [0, 5]
    assert list(known.at(TWO).wanted) == [TAGS - 1]
    assert known.routes.homeless == set()


def test_each_master_is_connected_to_once_and_left_when_it_has_nothing_more(known: Known) -> None:
    for _ in range(3):
        known.routes.learn(HALVES)
    assert [node.address for node in known.made] == [ONE, TWO]
    one = known.at(ONE)
    one.want(3)
    one.want(4)
    known.routes.learn([None, *[TWO] * (TAGS - 1)])
    assert one.parted
    assert list(one.wanted) == []
    assert set(known.routes.shards) == {TWO}
    assert not known.at(TWO).parted
    assert list(known.at(TWO).wanted) == [3, 4]
    assert len(known.made) == 2


def test_what_waits_for_a_master_that_stays_is_wanted_once_and_in_its_order(known: Known) -> None:
    known.routes.learn(HALVES)
    for tag in (7, 3, 5):
        known.routes.route(tag)
    known.routes.learn(HALVES)
    assert list(known.at(ONE).wanted) == [7, 3, 5]


def test_a_detour_leads_elsewhere_until_masters_are_learned(known: Known) -> None:
    known.routes.learn(HALVES)
    known.routes.detours[3] = known.routes.shard(THREE), 1
    known.routes.route(3)
    assert list(known.at(THREE).wanted) == [3]
    three = known.at(THREE)
    known.routes.learn(HALVES)
    assert three.parted
    assert known.routes.detours == {}
    assert list(known.at(ONE).wanted) == [3]


def test_a_tag_is_served_where_its_master_can_be_had(known: Known) -> None:
    known.routes.learn([None, *HALVES[1:]])
    known.at(TWO).trouble = "away"
    assert [known.routes.is_served(tag) for tag in (0, 1, TAGS - 1)] == [False, True, False]


def test_figures_tell_who_has_how_much(known: Known) -> None:
    assert known.routes.masters == set()
    known.routes.learn([None, *HALVES[1:]])
    assert {master.address for master in known.routes.masters} == {ONE, TWO}
    assert known.routes.spread() == {str(ONE): TAGS // 2 - 1, str(TWO): TAGS // 2}


def test_what_is_wrong_is_said_with_how_much_of_the_table_and_why(known: Known) -> None:
    assert known.routes.trouble() == "512 of 512 parts of the table wait (no master is known)"
    known.routes.learn([None, None, *HALVES[2:]])
    assert known.routes.trouble() == "2 of 512 parts of the table wait (no master is known)"
    known.at(TWO).trouble = "no answer in time"
    assert known.routes.trouble() == (
        "2 of 512 parts of the table wait (no master is known); "
        "256 of 512 parts of the table wait (10.0.0.2:7002: no answer in time)"
    )
    assert known.routes.full() == ""
    for node in known.made:
        node.full = True
    assert known.routes.full() == (
        "254 of 512 parts of the table take no reports (10.0.0.1:7001: its memory is full, raise maxmemory or add a "
        "shard); 256 of 512 parts of the table take no reports (10.0.0.2:7002: its memory is full, raise maxmemory or "
        "add a shard)"
    )
    known.at(TWO).trouble = known.at(ONE).trouble = ""
    known.routes.learn(HALVES)
    assert known.routes.trouble() == ""


def test_the_seal_stays_in_a_tag_of_the_master_that_does_not_move(known: Known) -> None:
    known.routes.learn(HALVES)
    shard = known.routes.shards[TWO]
    first = TAGS // 2

    def chosen(*moving: int) -> int | None:
        known.routes.choose_seal(shard, moving)
        return shard.seal

    assert chosen() == first
    shard.seal = first + 9
    assert chosen(first) == first + 9  # no reason to change it
    assert chosen(first, first + 9) == first + 1
    known.routes.owners[first + 1] = known.routes.shards[ONE]
    assert chosen(first) == first + 2
    assert chosen(*range(TAGS)) == first  # all of them move
    known.routes.owners = [known.routes.shards[ONE]] * TAGS
    assert chosen() is None


def test_parting_waits_for_all_masters_whatever_their_end() -> None:
    async def scene() -> None:
        known = Known()
        known.routes.learn(HALVES)
        loop = asyncio.get_running_loop()
        for node in known.made:
            node.task = loop.create_future()
        closing = asyncio.create_task(known.routes.close())
        await asyncio.sleep(0)
        assert all(node.parted for node in known.made)
        known.made[0].task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not closing.done()
        known.made[1].task.set_exception(OSError())
        await closing

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("host", "found"), [("10.0.0.3", "10.0.0.3"), ("", "10.0.0.1"), ("?", "10.0.0.1"), ("h", "h")]
)
def test_a_redirection_names_a_node_or_the_host_that_has_sent_it(host: str, found: str) -> None:
    error = SimpleNamespace(node_addr=(host, 7_003))
    assert named(error, cast("Shard", Node(ONE))) == Address(found, 7_003)


# How much waits. -----------------------------------------------------------------------------------------------


def wish(size: int = 1) -> Wish:
    return cast("Client", None), Asked("iamat", "waiting"), bytes(size)


class Waiting:
    """What waits for two masters, each of which has a half of the table."""

    def __init__(self) -> None:
        self.known = Known()
        self.known.routes.learn(HALVES)
        self.one, self.two = self.known.at(ONE), self.known.at(TWO)
        self.queues: list[list[Wish]] = [[] for _ in range(TAGS)]
        self.backlog = Backlog(self.queues, self.known.routes)

    def add(self, tag: int, count: int, size: int = 1) -> None:
        wishes = [wish(size)] * count
        self.queues[tag] += wishes
        self.backlog.remember(wishes)


def test_a_load_exceeds_bounds_when_either_is_passed_and_not_when_it_is_met() -> None:
    assert not Load(5, 10).exceeds(5, 10)
    assert Load(6, 0).exceeds(5, 10)
    assert Load(0, 11).exceeds(5, 10)


def test_what_waits_is_counted_in_and_out_with_its_bytes() -> None:
    backlog = Backlog([], Known().routes)
    backlog.remember([wish(3), wish(4)])
    backlog.forget([wish(4)])
    assert (backlog.wishes, backlog.size) == (1, 3)


@pytest.mark.parametrize(("count", "size"), [(8_192, 1), (1_024, 8_192)], ids=["wishes", "bytes"])
def test_clients_wait_from_8192_wishes_or_8_mib_on_and_hear_once_when_it_is_less(
    count: int, size: int
) -> None:
    waiting = Waiting()
    waiting.add(0, count, size)
    assert not waiting.backlog.full
    assert not waiting.backlog.tick(1.0)  # nobody waits to hear of it
    waiting.add(0, 1, 1)
    assert waiting.backlog.full
    assert not waiting.backlog.tick(2.0)
    waiting.backlog.forget([waiting.queues[0].pop()])
    assert not waiting.backlog.full
    assert waiting.backlog.tick(3.0)
    assert not waiting.backlog.tick(4.0)


def test_who_is_not_told_that_it_is_full_need_not_be_woken() -> None:
    waiting = Waiting()
    waiting.add(0, 8_193)
    waiting.one.trouble = "away"  # since the last count
    assert not waiting.backlog.full
    assert not waiting.backlog.tick(1.0)


@pytest.mark.parametrize("homeless", [False, True])
def test_what_waits_for_masters_that_cannot_be_had_keeps_nobody_waiting(homeless: bool) -> None:
    waiting = Waiting()
    waiting.add(TAGS - 1, 60_000)
    waiting.two.trouble = "" if homeless else "away"
    if homeless:
        waiting.known.routes.owners[TAGS - 1] = None
    assert not waiting.backlog.full
    waiting.add(0, 8_192)
    assert not waiting.backlog.full
    waiting.add(0, 1)
    assert waiting.backlog.full


@pytest.mark.parametrize(
    ("count", "size", "more"), [(65_536, 1, 1), (4_096, 4_096, 1)], ids=["wishes", "bytes"]
)
def test_past_65536_wishes_or_16_mib_for_those_no_more_may_wait(count: int, size: int, more: int) -> None:
    waiting = Waiting()
    waiting.two.trouble = "away"
    waiting.add(TAGS - 1, count, size)
    waiting.backlog.tick(1.0)
    assert not waiting.backlog.crowded
    waiting.add(TAGS - 2, 1, more)
    waiting.backlog.tick(2.0)
    assert waiting.backlog.crowded
    waiting.two.trouble = ""
    waiting.backlog.tick(3.0)
    assert not waiting.backlog.crowded


def test_a_master_that_hangs_is_seen_by_the_time_that_passes_though_nobody_says_anything() -> None:
    waiting = Waiting()
    waiting.add(0, 8_193)
    waiting.one.sent = waiting.backlog.clock = 100.0
    assert waiting.backlog.full
    assert not waiting.backlog.tick(100.049)
    assert waiting.backlog.tick(100.051)
    assert not waiting.backlog.full


def test_a_master_may_hang_from_50_ms_on_and_nobody_waits_for_it_up_to_a_bound() -> None:
    waiting = Waiting()
    waiting.add(0, 8_193)
    waiting.one.sent = 100.0
    waiting.backlog.clock = 100.0
    assert waiting.backlog.full
    waiting.backlog.clock = 100.05 - 1e-9
    assert waiting.backlog.full
    waiting.backlog.clock = 100.051
    assert not waiting.backlog.full
    assert not waiting.backlog.crowded
    waiting.add(0, 65_536 - 8_193)
    assert not waiting.backlog.full
    waiting.add(0, 1)
    waiting.backlog.tick(100.2)
    assert waiting.backlog.full
    assert not waiting.backlog.crowded  # it can be had, as far as is known
