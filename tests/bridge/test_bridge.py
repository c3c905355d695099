"""The bridge with a fake member of the herd and a cluster of dicts: when it says that both are in step, and what it brings
across. Its clock jumps, so that seconds cost none.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from fake_redis import FakeConnection, FullError, World, run
from structlog.testing import capture_logs

from proxyherd.bridge import passes
from proxyherd.bridge.bridge import Outcome, _Bridge
from proxyherd.bridge.member import _UNSENT_BYTES, Member
from proxyherd.config import herd_file
from proxyherd.core.messages import At, Entry, parse_at, received
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.commands import LIBRARY, spell_erasure
from proxyherd.engines.redis.opening import Opener
from proxyherd.net import tls
from proxyherd.telemetry.logs import LogFile

NEIGHBOURS = ("Bona", "Jaquez")


def at(client: bytes, time: int) -> At:
    found = parse_at(b"AT Clark +0.000000000 %b +1+1 %d" % (client, time))
    assert found is not None
    return found


def value(one: At) -> bytes:
    return layout.VALUE % (one.entry.nanoseconds, one.entry.line)


class Neighbourhood:
    """The bridge's member of a herd, less the herd: a table, links, and what they have heard."""

    def __init__(self) -> None:
        self.held: dict[bytes, Entry] = {}
        self.erased: dict[bytes, int] = {}
        self.links: dict[str, object] = {name: object() for name in NEIGHBOURS}
        self.node = self
        self.heard = self.unsent = 0
        self.tell: Callable[[bytes], None] = lambda _: None
        self.room = asyncio.Event()
        self.room.set()
        self.last_words: list[At] = []
        self.done: list[str] = []

    def forget(self, client: bytes, until: int) -> None:
        """Let the herd erase a client."""
        self.erased[client] = until
        if client in self.held and received(self.held[client].line) <= until:
            del self.held[client]

    def says(self, one: At) -> None:
        """Let a neighbour bring news."""
        self.held[one.client] = one.entry
        self.heard += 1
        self.tell(one.client)

    # What the bridge wants of the node.

    @property
    def in_step(self) -> dict[str, object]:
        return dict(self.links)

    @property
    def linked(self) -> Iterable[str]:
        return self.links.keys()

    @property
    def table(self) -> dict[bytes, Entry]:
        return self.held

    def value_of(self, client: bytes) -> tuple[bytes, int, int] | None:
        entry = self.held.get(client)
        return (entry.line, entry.nanoseconds, 0) if entry else None

    # What it wants of the member.

    async def listen(self, _: object) -> None:
        pass

    def tick(self) -> None:
        pass

    @property
    def unlinked(self) -> list[str]:
        return [name for name in NEIGHBOURS if name not in self.links]

    def learn(self, ats: Iterable[At]) -> tuple[int, list[bytes], int]:
        news, ahead = 0, []
        for one in ats:
            held = self.held.get(one.client)
            if one.received <= self.erased.get(one.client, 0):
                ahead.append(one.client)
            elif held is None or (held.nanoseconds, held.line) < (one.entry.nanoseconds, one.entry.line):
                self.held[one.client] = one.entry
                news += 1
            elif held.line != one.entry.line:
                ahead.append(one.client)
        return news, ahead, 0

    async def erase(self, erased: layout.SaltedTombstones) -> None:
        for client in [*self.held]:
            if (until := erased.until(client)) > self.erased.get(client, 0):
                self.forget(client, until)

    def erased_until(self, client: bytes) -> int:
        return self.erased.get(client, 0)

    async def has_room(self) -> None:
        await self.room.wait()

    async def hear_out(self, seconds: float) -> None:
        assert seconds > 0
        for one in self.last_words:
            await asyncio.sleep(0.01)
            self.says(one)

    async def part(self, seconds: float) -> bool:
        assert seconds > 0
        self.done.append("part")
        self.links.clear()
        return not self.unsent


class Bridge(_Bridge):
    """The bridge between these two."""

    def __init__(self, world: World, member: Neighbourhood, folder: Path) -> None:
        (folder / "herd.toml").write_text(HERD)
        (folder / "redis.toml").write_text(REDIS)
        herd, to = (herd_file.load(folder / f"{name}.toml") for name in ("herd", "redis"))
        nothing = cast("Any", None)
        log = LogFile(folder / "log")
        server = herd.server("Clark")
        super().__init__(herd, server, to, nothing, tls.load(herd, "Clark"), log, 30.0, lambda _: None)
        self.world, self.member = world, member

    def _open(self) -> tuple[Member, Opener]:
        self.member.tell = self._heard
        return cast("Member", self.member), cast("Opener", self.world)

    @property
    def is_in_step(self) -> bool:
        return self.figures().in_step

    async def passed(self, more: int = 1) -> None:
        """Wait until so many more passes have ended, counted or not."""
        before = self.passes_ended
        while self.passes_ended < before + more:
            assert not self._ending, self._fault
            await asyncio.sleep(0.01)

    @property
    def passes_ended(self) -> int:
        return self._done


HERD = """
edges = [["Bona", "Clark"], ["Clark", "Jaquez"]]
[servers]
Bona = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
Clark = { clients = "127.0.0.1:4", peers = "127.0.0.1:5", admin = "127.0.0.1:6" }
Jaquez = { clients = "127.0.0.1:7", peers = "127.0.0.1:8", admin = "127.0.0.1:9" }
"""

REDIS = """
[table]
engine = "redis"
[redis]
nodes = ["127.0.0.1:7001"]
[servers]
Clark = { clients = "127.0.0.1:4", admin = "127.0.0.1:6" }
"""


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., Outcome]:
    """Play a scene while the bridge works, end it as SIGTERM does, and return how it has ended."""

    def played(
        scene: Callable[[Bridge, Neighbourhood, World], Awaitable[None]],
        prepare: Callable[[Neighbourhood, World], None] = lambda *_: None,
        *,
        once: bool = False,
    ) -> Outcome:
        async def body() -> Outcome:
            world, member = World(), Neighbourhood()
            world.several_at_once = True
            prepare(member, world)
            bridge = Bridge(world, member, tmp_path)
            with capture_logs():
                works = asyncio.create_task(bridge.run(once=once))
                await asyncio.sleep(0.01)
                await scene(bridge, member, world)
                if not once:
                    os.kill(os.getpid(), signal.SIGTERM)
                    await asyncio.sleep(0.01)
                return await works

        outcome = run(body())
        assert isinstance(outcome, Outcome)
        return outcome

    return played


Play = Callable[..., Outcome]

# In step. ------------------------------------------------------------------------------------------------------


def test_it_is_in_step_after_a_pass_all_of_which_all_links_were_in_step(play: Play) -> None:
    async def scene(bridge: Bridge, _: Neighbourhood, __: World) -> None:
        await bridge.passed()
        assert bridge.is_in_step

    assert play(scene).whole


@pytest.mark.parametrize("name", NEIGHBOURS)
@pytest.mark.parametrize("when", ["before", "during", "replaced"])
def test_a_link_that_broke_or_was_replaced_during_a_pass_is_not_in_step(
    play: Play, name: str, when: str
) -> None:
    async def scene(bridge: Bridge, member: Neighbourhood, _: World) -> None:
        await bridge.passed()
        member.room.clear()  # the next pass begins, and waits
        await asyncio.sleep(6)
        link = member.links[name]
        if when == "before":
            member.room.set()
            del member.links[name]
            await bridge.passed()
            assert not bridge.is_in_step
            member.links[name] = link
        elif when == "during":
            del member.links[name]
            member.room.set()
            await bridge.passed()
            assert not bridge.is_in_step
            member.links[name] = link
        else:
            member.links[name] = object()
            member.room.set()
            await bridge.passed()
            assert not bridge.is_in_step
        await bridge.passed(2)
        assert bridge.is_in_step

    assert play(scene).whole


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_without_one_of_the_links_it_is_never_in_step(play: Play, name: str) -> None:
    def prepare(member: Neighbourhood, _: World) -> None:
        del member.links[name]

    async def scene(bridge: Bridge, _: Neighbourhood, __: World) -> None:
        await bridge.passed(3)
        assert not bridge.is_in_step

    assert play(scene, prepare).text.startswith("ended before all of both was compared")


def test_it_is_not_in_step_while_a_master_takes_nothing_new(play: Play) -> None:
    async def scene(bridge: Bridge, member: Neighbourhood, world: World) -> None:
        world.fault = lambda _, function, __: FullError("OOM") if function == b"admit" else None
        member.says(at(b"kiwi", 1))
        await asyncio.sleep(20)
        assert not bridge.is_in_step
        world.fault = lambda *_: None
        await bridge.passed(2)
        assert bridge.is_in_step

    assert play(scene).whole


def test_it_is_not_in_step_before_what_was_heard_is_written_and_what_was_read_has_left(play: Play) -> None:
    async def scene(bridge: Bridge, member: Neighbourhood, world: World) -> None:
        master = world.of(b"kiwi")
        member.room.clear()
        await asyncio.sleep(1)
        master.replicas = 0
        member.says(at(b"kiwi", 1))
        member.unsent = 1
        member.room.set()
        await asyncio.sleep(10)
        assert not bridge.is_in_step
        master.replicas = 2
        await asyncio.sleep(10)
        assert world.kept[layout.key(b"kiwi")] == value(at(b"kiwi", 1))
        assert not bridge.is_in_step  # for what is unsent
        member.unsent = 0
        await bridge.passed(2)
        assert bridge.is_in_step

    assert play(scene).whole


# What goes across. ---------------------------------------------------------------------------------------------


def test_what_each_side_has_alone_or_later_is_on_both(play: Play) -> None:
    kiwi, plum, fig, old_fig, lime, old_lime = (
        at(client, time)
        for client, time in (
            *((b"kiwi", 1), (b"plum", 1)),
            *((b"fig", 2), (b"fig", 1), (b"lime", 2), (b"lime", 1)),
        )
    )

    def prepare(member: Neighbourhood, world: World) -> None:
        for one in (kiwi, fig, old_lime):
            member.held[one.client] = one.entry
        for one in (plum, old_fig, lime):
            world.data[layout.key(one.client)] = value(one)

    async def scene(bridge: Bridge, member: Neighbourhood, world: World) -> None:
        member.says(kiwi)
        await bridge.passed(2)
        wanted = {one.client: one.entry for one in (kiwi, plum, fig, lime)}
        assert member.held == wanted
        ours = {key: text for key, text in world.data.items() if text}
        assert ours == {layout.key(one.client): value(one) for one in (kiwi, plum, fig, lime)}
        assert world.kept[layout.key(b"fig")] == value(fig), "what the cluster has gone back on is told again"

    assert play(scene, prepare).whole


def test_who_is_erased_on_one_side_is_erased_on_both_and_may_report_again_on_either(play: Play) -> None:
    gone = 5 * 10**9
    kiwi, plum, fig, lime = (at(client, 5) for client in (b"kiwi", b"plum", b"fig", b"lime"))
    later = at(b"lime", 6)

    def prepare(member: Neighbourhood, world: World) -> None:
        for one in (kiwi, plum, fig, lime):
            member.held[one.client] = one.entry
            world.data[layout.key(one.client)] = value(one)
        member.forget(b"kiwi", gone)
        member.forget(b"lime", gone)
        member.held[b"lime"] = later.entry
        connection = FakeConnection(world.of(b"plum"))
        words = spell_erasure(gone, None, 10**9, b"0" * 32)
        connection.execute([[b"FCALL", LIBRARY + b"_erase", b"1", layout.key(b"plum"), *of_words(words)]])

    async def scene(bridge: Bridge, member: Neighbourhood, world: World) -> None:
        await bridge.passed(2)
        assert member.held == {b"fig": fig.entry, b"lime": later.entry}
        assert member.erased_until(b"plum") == gone
        clients = {key: text for key, text in world.data.items() if text and layout.client_of(key)}
        assert clients == {layout.key(one.client): value(one) for one in (fig, later)}
        assert bridge._passes.tombstones.until(b"kiwi") == bridge._passes.tombstones.until(b"lime") == gone
        assert bridge._passes.tombstones.until(b"fig") == 0
        again = at(b"kiwi", 7)
        member.says(again)
        await bridge.passed(2)
        assert world.data[layout.key(b"kiwi")] == value(again)

    outcome = play(scene, prepare)
    assert outcome.whole
    assert "others" not in outcome.text, "a tombstone is no stranger's key"


def of_words(spelled: bytes) -> list[bytes]:
    """Return words that are spelled as Redis gets them."""
    return spelled.split(b"\r\n")[1::2]


def test_a_value_of_another_client_is_no_news_and_is_left_alone(play: Play) -> None:
    strange = {layout.key(b"kiwi"): value(at(b"plum", 5)), layout.key(b"fig"): b"what is this"}

    def prepare(_: Neighbourhood, world: World) -> None:
        world.data.update(strange)

    async def scene(bridge: Bridge, member: Neighbourhood, world: World) -> None:
        await bridge.passed()
        assert member.held == {}
        assert {key: text for key, text in world.data.items() if text} == strange

    assert "2 keys there were written by others, and left alone" in play(scene, prepare).text


def test_it_reads_no_further_than_neighbours_have_read(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes, "_READS", 10)

    def prepare(_: Neighbourhood, world: World) -> None:
        for number in range(300):
            one = at(b"c%d" % number, 1)
            world.data[layout.key(one.client)] = value(one)

    async def scene(bridge: Bridge, member: Neighbourhood, world: World) -> None:
        member.room.clear()
        await asyncio.sleep(1)
        before = len(member.held)
        await asyncio.sleep(10)
        assert len(member.held) == before < 300
        member.room.set()
        await bridge.passed()
        assert len(member.held) == 300

    assert play(scene, prepare).whole


# The end. ------------------------------------------------------------------------------------------------------


def test_what_neighbours_say_at_last_is_in_the_cluster_before_it_ends_well(play: Play) -> None:
    words = [at(b"c%d" % number, 7) for number in range(5)]

    def prepare(member: Neighbourhood, _: World) -> None:
        member.last_words = words

    kept: list[dict[bytes, bytes]] = []

    async def scene(bridge: Bridge, _: Neighbourhood, world: World) -> None:
        await bridge.passed()
        kept.append(world.kept)

    assert play(scene, prepare).whole
    assert {layout.key(one.client): value(one) for one in words}.items() <= kept[0].items()


def test_it_does_not_end_well_while_neighbours_have_not_got_all(play: Play) -> None:
    async def scene(bridge: Bridge, member: Neighbourhood, _: World) -> None:
        await bridge.passed()
        member.unsent = 1

    outcome = play(scene)
    assert (outcome.whole, "Bona, Jaquez may not have all" in outcome.text) == (False, True)


# The member itself. --------------------------------------------------------------------------------------------


def test_last_words_are_heard_until_there_are_none_for_a_moment() -> None:
    async def scene() -> None:
        loop = asyncio.get_running_loop()
        member = cast("Any", SimpleNamespace(_loop=loop, heard=0))

        async def speak() -> None:
            for _ in range(10):
                await asyncio.sleep(0.03)
                member.heard += 1

        speaking = asyncio.create_task(speak())
        await Member.hear_out(member, 1.0)
        assert speaking.done()
        began = loop.time()
        await Member.hear_out(member, 1.0)
        assert loop.time() - began < 0.2

    run(scene())


def test_whose_neighbours_read_slowly_waits_for_them() -> None:
    async def scene() -> None:
        peers = SimpleNamespace(unsent=_UNSENT_BYTES + 1)
        waiting = asyncio.create_task(Member.has_room(cast("Any", SimpleNamespace(_peers=peers))))
        await asyncio.sleep(60)
        assert not waiting.done()
        peers.unsent = _UNSENT_BYTES
        await asyncio.sleep(0.1)
        assert waiting.done()

    run(scene())
