"""Who is asked who is master, how often, and what is made of the answers: nodes are functions, and the clock jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any, cast

from fake_redis import RefusedError, run

from proxyherd.config.address import Address
from proxyherd.engines.redis.layout import SLOTS, TAGS
from proxyherd.engines.redis.lookout import Lookout
from proxyherd.engines.redis.opening import Opener
from proxyherd.engines.redis.views import Claim, View
from proxyherd.telemetry.observer import Observer

SECONDS = 1.0
"""That a node may take."""


def node(number: int) -> Address:
    return Address(f"10.0.0.{number}", 6_379)


def whole(number: int, *nodes: int, epoch: int = 1) -> View:
    """Return the view in which one node is master of everything, and these are to be asked."""
    return View(tuple(map(node, nodes)), (Claim(epoch, node(number), ((0, SLOTS - 1),)),))


class Scene:
    """A lookout, what its nodes say, and what it has asked, learned and told."""

    def __init__(self, seeds: int) -> None:
        self.says: dict[Address, View | Exception | float] = {}
        """By node: a view, an error, or seconds of silence. Who is not there, refuses."""
        self.asked: list[tuple[float, Address]] = []
        self.learned: list[tuple[float, Address | None]] = []
        self.failed: list[tuple[str, str]] = []
        self.faults: list[tuple[str, BaseException]] = []
        self.trouble = ""
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        opener = SimpleNamespace(ask_view=self._ask, library=SimpleNamespace(errors=(OSError, RefusedError)))
        observer = SimpleNamespace(
            cluster=SimpleNamespace(node_failed=lambda *told: self.failed.append(told)),
            fault=lambda *told: self.faults.append(told),
        )
        self.lookout = Lookout(
            [node(number) for number in range(seeds)],
            cast("Opener", opener),
            SECONDS,
            cast("Observer", observer),
            self._learn,
            lambda: self.trouble,
        )

    @property
    def now(self) -> float:
        return self.loop.time() - self.began

    async def _ask(self, address: Address) -> View:
        self.asked.append((self.now, address))
        said = self.says.get(address, RefusedError(f"{address} refuses"))
        if isinstance(said, float):
            await asyncio.sleep(said)
            return whole(0)
        if isinstance(said, Exception):
            raise said
        return said

    def _learn(self, masters: list[Address | None]) -> None:
        assert len(masters) == TAGS
        self.learned.append((self.now, masters[0]))

    @property
    def times(self) -> list[float]:
        """When it has looked."""
        return sorted({round(time, 6) for time, _ in self.asked})

    @property
    def pauses(self) -> set[float]:
        return {round(after - before, 6) for before, after in pairwise(self.times)}


def play(body: Callable[[Scene], Awaitable[Any]], seeds: int = 3) -> None:
    async def played() -> None:
        scene = Scene(seeds)
        task = asyncio.create_task(scene.lookout.run())
        await asyncio.sleep(0.001)
        await body(scene)
        task.cancel()

    run(played())


def test_while_all_is_well_it_looks_about_every_five_seconds_and_soon_when_somebody_doubts() -> None:
    async def body(scene: Scene) -> None:
        scene.says = {node(0): whole(0, 0)}
        await asyncio.sleep(30)
        assert scene.pauses == {5.2}
        scene.asked.clear()
        scene.lookout.doubt()
        await asyncio.sleep(0.001)
        assert len(scene.times) == 1
        scene.lookout.doubt()  # one doubt is one look, and another no sooner than a while after it
        scene.lookout.doubt()
        await asyncio.sleep(4)
        assert scene.pauses == {0.2}
        assert len(scene.times) == 2

    play(body, seeds=1)


def test_while_something_is_amiss_it_looks_five_times_a_second() -> None:
    async def body(scene: Scene) -> None:
        scene.says, scene.trouble = {node(0): whole(0, 0)}, "a master is away"
        await asyncio.sleep(6)
        scene.asked.clear()
        await asyncio.sleep(2)
        assert scene.pauses == {0.2}
        scene.trouble = ""
        await asyncio.sleep(1)
        scene.asked.clear()
        await asyncio.sleep(4)
        assert scene.asked == []

    play(body, seeds=1)


def test_three_are_asked_at_once_and_others_only_where_none_of_them_tells() -> None:
    async def body(scene: Scene) -> None:
        scene.trouble = "always"
        await asyncio.sleep(0.1)
        assert {address for _, address in scene.asked} == {node(number) for number in range(7)}
        scene.says = {node(number): whole(0, *range(7)) for number in range(7)}
        scene.asked.clear()
        await asyncio.sleep(10)
        for at in scene.times:
            assert len([time for time, _ in scene.asked if round(time, 6) == at]) == 3
        assert len({address for _, address in scene.asked}) == 7, "always the same are asked"

    play(body, seeds=7)


def test_those_that_do_not_tell_cost_one_patience_for_each_three_and_the_next_three_are_asked() -> None:
    async def body(scene: Scene) -> None:
        scene.says = {node(number): 1e9 for number in range(4)}
        scene.asked.clear()
        scene.failed.clear()
        scene.lookout.doubt()
        await asyncio.sleep(SECONDS)
        assert len(scene.asked) == 3
        await asyncio.sleep(SECONDS)
        assert len(scene.asked) == 4
        await asyncio.sleep(0.3)
        assert scene.pauses == {SECONDS}
        assert sorted(scene.failed) == sorted(
            (str(address), "no answer in time") for _, address in scene.asked
        )
        assert scene.lookout.silence == f"{scene.asked[-1][1]}: no answer in time"
        assert scene.learned == []

    play(body, seeds=4)


def test_the_nodes_that_were_told_of_are_asked_next_and_the_seeds_behind_them() -> None:
    async def body(scene: Scene) -> None:
        scene.says = {node(0): whole(0, 5, 6), node(5): whole(5, 5, 6, 7), node(6): whole(5, 5, 6, 7)}
        scene.trouble = "always"
        await asyncio.sleep(0.2)  # hears of two
        scene.asked.clear()
        await asyncio.sleep(0.2)  # and of a third
        assert {address for _, address in scene.asked} == {node(5), node(6), node(0)}
        scene.says = {node(0): scene.says[node(0)]}  # all that it has heard of are away
        scene.asked.clear()
        await asyncio.sleep(0.2)
        asked = [address for _, address in scene.asked]
        assert set(asked[:3]) == {node(5), node(6), node(7)}
        assert asked[3:] == [node(0)]
        assert scene.learned[-1][1] == node(0)

    play(body, seeds=1)


def test_of_those_that_tell_the_greatest_epoch_is_believed_and_who_is_silent_beside_them_does_no_harm() -> (
    None
):
    async def body(scene: Scene) -> None:
        scene.says = {node(0): whole(0, 0, 1, 2, epoch=4), node(1): whole(1, 0, 1, 2, epoch=5), node(2): 1e9}
        scene.trouble = "always"
        await asyncio.sleep(3)
        assert scene.learned
        assert {master for _, master in scene.learned} == {node(1)}
        assert scene.lookout.silence == ""

    play(body)


def test_silence_is_why_the_last_one_did_not_tell_and_ends_when_one_tells() -> None:
    async def body(scene: Scene) -> None:
        scene.trouble = "always"
        assert scene.lookout.silence == f"{node(0)}: {node(0)} refuses"
        scene.says = {node(0): OSError()}
        await asyncio.sleep(0.2)
        assert scene.failed[-1] == (str(node(0)), "OSError")
        scene.says = {node(0): whole(0)}
        await asyncio.sleep(0.2)
        assert scene.lookout.silence == ""
        scene.says = {}
        await asyncio.sleep(0.2)
        assert scene.lookout.silence == f"{node(0)}: {node(0)} refuses"

    play(body, seeds=1)


def test_a_fault_of_ours_is_told_and_is_not_the_last_look() -> None:
    async def body(scene: Scene) -> None:
        scene.says, scene.trouble = {node(0): ZeroDivisionError("ours")}, "always"
        await asyncio.sleep(1)
        assert len(scene.faults) >= 4
        what, error = scene.faults[0]
        assert (what, str(error)) == ("the masters cannot be found out", "ours")
        assert scene.failed == [(str(node(0)), f"{node(0)} refuses")]
        scene.says = {node(0): whole(0)}
        await asyncio.sleep(0.3)
        assert scene.learned

    play(body, seeds=1)
