"""A viewer that follows is told what is newest, however slowly it reads, until too much waits."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from admin_port import make_observer
from following import FollowedServer

from proxyherd.admin import follow_viewer
from proxyherd.admin.follow_viewer import FollowViewer
from proxyherd.core.follows.follower import MOST_PENDING
from proxyherd.core.spatial.areas import Circle

TOWN = Circle(1.0, 1.0, 100.0)


@pytest.fixture
def server() -> FollowedServer:
    return FollowedServer(make_observer())


async def read(viewer: FollowViewer, server: FollowedServer) -> list[dict[str, Any]]:
    """Return the events of one update."""
    reading = asyncio.create_task(viewer.read())
    await asyncio.sleep(0)
    server.turns.rest()
    data = await reading
    return [json.loads(event.partition(b"data: ")[2]) for event in data.split(b"\n\n")[:-1]]


def test_who_reads_slowly_is_told_where_a_client_is_now(server: FollowedServer) -> None:
    async def scenario() -> None:
        viewer = FollowViewer(server.engine.follows, (b"kiwi",), None)
        assert [event["event"] for event in await read(viewer, server)] == ["snapshot"]
        for time in range(1, 5):
            server.report(b"kiwi", time, b"+1+%d" % time)
        [event] = await read(viewer, server)
        assert (event["event"], event["lon"]) == ("enter", 4)
        viewer.close()

    asyncio.run(scenario())


def test_a_follow_that_has_just_begun_outlives_a_turn_that_could_not_be_kept() -> None:
    async def scenario() -> None:
        server = FollowedServer(make_observer(), always=True)
        server.journal.fails = True
        viewer = FollowViewer(server.engine.follows, (b"kiwi",), None)
        server.say(b"IAMAT kiwi +1+1 1")
        server.journal.release()
        [event] = await read(viewer, server)
        assert (event["event"], event["clients"]) == ("snapshot", 0)

    asyncio.run(scenario())


def test_a_viewer_for_whom_too_much_waits_is_disconnected(server: FollowedServer) -> None:
    async def scenario() -> None:
        viewer = FollowViewer(server.engine.follows, (), TOWN)
        server.turns.rest()
        for number in range(MOST_PENDING):
            server.report(b"c%d" % number, 1)
        assert not viewer.cut
        server.report(b"another", 1)
        assert viewer.cut
        assert await viewer.read() == b""

    asyncio.run(scenario())


def test_a_viewer_to_whom_nothing_happens_gets_comments(
    server: FollowedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_viewer, "_COMMENT_SECONDS", 0.0)

    async def scenario() -> None:
        viewer = FollowViewer(server.engine.follows, (b"kiwi",), None)
        assert await viewer.read() == b":\n\n"
        viewer.fail()
        assert viewer.cut

    asyncio.run(scenario())
