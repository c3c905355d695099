"""When what neighbours have told is passed on, and when it is written: within 5 ms, and with what comes late in that time.
And when spare copies leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from proxyherd.core.flood_paths import SPARE_COPY_SECONDS
from proxyherd.engines.herd.delays import LEARNED_SECONDS, Delays


class FakeTimer:
    def __init__(self, loop: FakeLoop) -> None:
        self._loop = loop

    def cancel(self) -> None:
        self._loop.timers.pop(self)


class FakeLoop:
    """A loop whose time a test turns."""

    def __init__(self) -> None:
        self.now = 7.0
        self.timers: dict[FakeTimer, tuple[float, Callable[[], None]]] = {}

    def time(self) -> float:
        return self.now

    def call_later(self, seconds: float, action: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(self)
        self.timers[timer] = self.now + seconds, action
        return timer

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and what is due be done; who was called does not cancel its own timer."""
        self.now += seconds
        for timer, (due, action) in [*self.timers.items()]:
            if due <= self.now and timer in self.timers:
                action()
                self.timers.pop(timer, None)


def delays() -> tuple[FakeLoop, Delays, list[float]]:
    loop, settled = FakeLoop(), list[float]()

    def settle() -> None:
        settled.append(round(loop.now - 7.0, 6))

    return loop, Delays(cast("asyncio.AbstractEventLoop", loop), no_call, settle, no_call), settled


def no_call() -> None:
    raise AssertionError("nobody asked for it")


def test_what_waits_is_written_after_5_ms_and_once() -> None:
    assert LEARNED_SECONDS == 0.005
    loop, waiting, settled = delays()
    waiting.settle_later()
    loop.pass_time(0.002)
    waiting.settle_later()
    loop.pass_time(0.002)
    assert settled == []
    loop.pass_time(0.001)
    assert settled == [0.005]
    loop.pass_time(1.0)
    assert settled == [0.005]


@pytest.mark.parametrize("late", [0.0025, 0.0049])
def test_what_comes_in_the_second_half_of_the_time_is_written_at_once_with_the_rest(late: float) -> None:
    loop, waiting, settled = delays()
    waiting.settle_later()
    loop.pass_time(late)
    waiting.settle_later()
    assert settled == [late]
    assert not loop.timers
    loop.pass_time(0.001)
    waiting.settle_later()
    loop.pass_time(0.002)
    assert settled == [late], "the time begins anew"
    loop.pass_time(0.003)
    assert settled == [late, pytest.approx(late + 0.006)]


def test_nothing_is_written_where_nothing_waits_any_more() -> None:
    loop, waiting, settled = delays()
    waiting.settled()
    waiting.settle_later()
    waiting.settled()
    loop.pass_time(1.0)
    assert settled == []
    assert not loop.timers
    waiting.settle_later()
    loop.pass_time(0.005)
    assert len(settled) == 1


def test_what_is_to_be_passed_on_is_so_once_in_the_next_step_of_the_loop() -> None:
    passed_on: list[int] = []

    async def body() -> None:
        waiting = Delays(asyncio.get_running_loop(), lambda: passed_on.append(1), no_call, no_call)
        for rounds in (1, 2):
            waiting.pass_on_soon()
            waiting.pass_on_soon()
            assert len(passed_on) == rounds - 1
            await asyncio.sleep(0)
            assert len(passed_on) == rounds
        await asyncio.sleep(0)
        assert len(passed_on) == 2

    asyncio.run(body())


def test_spare_copies_leave_after_25_ms_whoever_settles_meanwhile() -> None:
    assert SPARE_COPY_SECONDS == 0.025
    loop, sent = FakeLoop(), list[float]()
    waiting = Delays(
        cast("asyncio.AbstractEventLoop", loop),
        no_call,
        lambda: None,
        lambda: sent.append(round(loop.now - 7.0, 6)),
    )
    waiting.send_spare_later()
    loop.pass_time(0.024)
    waiting.send_spare_later()
    waiting.settle_later()
    waiting.settled()
    assert sent == []
    loop.pass_time(0.001)
    assert sent == [0.025]
    loop.pass_time(1.0)
    assert sent == [0.025]
    waiting.send_spare_later()
    loop.pass_time(0.025)
    assert sent == [0.025, 1.05]
