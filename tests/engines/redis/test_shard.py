"""A shard's connection to its master: when it is dialled again."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from fake_redis import Clockwork, FakeConnection, RefusedError, World, run
from msgspec.structs import replace

from proxyherd.config.address import Address
from proxyherd.engines.redis.batch import Batch
from proxyherd.engines.redis.commands import encode
from proxyherd.engines.redis.shard import Shard


class Desk:
    """Has nothing but the end of a batch, and believes what it is told to."""

    def __init__(self) -> None:
        self.doubt = ""
        self.faults: list[Exception] = []

    def gather(self, _: Shard) -> tuple[Batch, bytes, int]:
        return Batch(b""), encode(b"WAIT", b"1", b"800"), 1

    def settle(self, _: Shard, __: Batch, ___: list[object], ____: float) -> str:
        return self.doubt

    def give_back(self, batch: Batch, why: str) -> None:
        pass

    def changed(self, shard: Shard) -> None:
        pass

    def fault(self, what: str, error: Exception) -> None:
        self.faults.append(error)


class Dialled:
    """A shard, and when it has dialled its master."""

    def __init__(self, gathers: float = 0.0) -> None:
        self.world, self.desk, self.times = World(1), Desk(), list[float]()
        (self.master,) = self.world.masters.values()
        loop = asyncio.get_running_loop()

        async def connect(address: Address) -> FakeConnection:
            self.times.append(loop.time())
            if self.master.is_down:
                raise RefusedError("away")
            return FakeConnection(self.master)

        library = replace(self.world.library, connect=connect)
        self.shard = Shard(self.master.address, self.desk, library, seconds=1.0, gathers=gathers)

    @property
    def pauses(self) -> list[float]:
        return [after - before for before, after in pairwise(self.times)]


def assert_backs_off(pauses: list[float], first: int = 0) -> None:
    for number, pause in enumerate(pauses, first):
        full = min(0.05 * 2**number, 1.0)
        assert full / 2 - 1e-6 <= pause <= full + 1e-6, (number, pauses)
    assert len({round(pause, 9) for pause in pauses[-5:]}) > 1, "no jitter"


@pytest.mark.parametrize("doubted", [False, True], ids=["refused", "connected, and never believed"])
def test_a_master_that_cannot_be_used_is_dialled_at_growing_intervals_up_to_a_second(doubted: bool) -> None:
    async def scene() -> None:
        dialled = Dialled()
        dialled.master.pace = 0.0
        dialled.master.is_down = not doubted
        dialled.desk.doubt = "0 replicas have acknowledged"
        await asyncio.sleep(15)
        assert_backs_off(dialled.pauses)
        assert 15 <= len(dialled.pauses) <= 35
        dialled.shard.part()

    run(scene())


def test_a_master_that_stood_still_together_with_the_server_is_dialled_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What it answers then, as quickly as ever, is done again: it may have been replaced."""

    async def scene() -> None:
        dialled = Dialled()
        lost: list[str] = []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clockwork)
        monkeypatch.setattr(dialled.desk, "give_back", lambda _, why: lost.append(why))
        await asyncio.sleep(10.01)
        assert len(dialled.times) == 1  # while time goes on
        assert len(dialled.master.served) >= 18  # idle, it is heard of twice in a batch's time
        loop.stand_still(0.9)  # less than it may be silent
        await asyncio.sleep(0.6)
        assert len(dialled.times) == 1
        loop.stand_still(1.51)
        await asyncio.sleep(0.6)
        assert lost == ["late"]
        assert len(dialled.times) == 2
        dialled.shard.part()

    run(scene())


def test_a_fault_of_ours_is_the_masters_trouble_until_it_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(*_: object) -> str:
        if bugs:
            raise bugs.pop()
        return ""

    bugs = [ZeroDivisionError("ours")]

    async def scene() -> None:
        dialled = Dialled()
        monkeypatch.setattr(dialled.desk, "settle", settle)
        await asyncio.sleep(0.004)
        assert (dialled.shard.trouble, [str(one) for one in dialled.desk.faults]) == ("ours", ["ours"])
        await asyncio.sleep(3)
        assert dialled.shard.trouble == ""
        dialled.shard.part()

    run(scene())


@pytest.mark.parametrize(("gathers", "still", "dialled"), [(0.4, 1.3, 1), (0.4, 1.95, 2)])
def test_the_time_for_which_reports_gather_is_no_silence(gathers: float, still: float, dialled: int) -> None:
    async def scene() -> None:
        it = Dialled(gathers)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, Clockwork)
        await asyncio.sleep(10.01)
        loop.stand_still(still)
        await asyncio.sleep(1.5)
        assert len(it.times) == dialled
        it.shard.part()

    run(scene())


def test_a_master_that_was_used_is_dialled_soon_again() -> None:
    async def scene() -> None:
        dialled = Dialled()
        dialled.master.pace, dialled.master.is_down = 0.0, True
        await asyncio.sleep(10)
        dialled.master.is_down = False
        await asyncio.sleep(3)
        assert dialled.shard.trouble == ""
        dialled.master.is_down = True
        before = len(dialled.times)
        await asyncio.sleep(1.01)  # its next batch breaks off
        while len(dialled.times) < before + 8:  # noqa: ASYNC110 - the clock jumps
            await asyncio.sleep(0.05)
        assert_backs_off(dialled.pauses[before:], first=1)
        dialled.shard.part()

    run(scene())
