"""The driver: when a turn runs, and by which clocks."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import fake_redis

from proxyherd.core.turn import Turn
from proxyherd.server.driver import Driver


class Noting:
    """A turn that notes when it is run, and wakes another while it `wants` one."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.ran: list[tuple[float, int]] = []
        self.wants = 0

    def run(self, now: float, received: int) -> None:
        self.ran.append((now, received))
        if self.wants:
            self.wants -= 1
            self.driver.wake()


def test_a_turn_runs_once_after_all_that_is_ready_and_by_the_loops_clock_and_the_days() -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        driver = Driver(loop)
        turn = Noting(driver)
        driver.start(cast("Turn", turn))
        cast("Any", loop)._jumping.now = 77.0
        began = time.time_ns()
        driver.wake()
        driver.wake()
        assert turn.ran == []
        await asyncio.sleep(0)
        ((now, received),) = turn.ran
        assert now == 77.0
        assert began <= received <= time.time_ns()
        await asyncio.sleep(0)
        assert len(turn.ran) == 1

    fake_redis.run(body())


def test_a_turn_that_wakes_another_lets_what_is_ready_come_first() -> None:
    async def body() -> None:
        loop, order = asyncio.get_running_loop(), list[str]()
        driver = Driver(loop)
        turn = Noting(driver)
        driver.start(cast("Turn", turn))
        turn.wants = 2
        driver.wake()
        for _ in range(4):
            await asyncio.sleep(0)
            order.append(f"{len(turn.ran)} turns")
        assert order == ["1 turns", "2 turns", "3 turns", "3 turns"]

    fake_redis.run(body())


def test_who_is_woken_before_there_is_a_turn_runs_it_as_soon_as_there_is_one() -> None:
    async def body() -> None:
        driver = Driver(asyncio.get_running_loop())
        turn = Noting(driver)
        driver.wake()
        await asyncio.sleep(0)
        driver.start(cast("Turn", turn))
        driver.wake()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(turn.ran) == 1

    fake_redis.run(body())
