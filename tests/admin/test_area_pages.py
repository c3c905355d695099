"""The map's questions over HTTP: who is near, and a stream of what changes; who may ask, and for what."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from admin_port import ALONE, Working, exchange, get, get_and_close, listening, make_observer, status
from following import FollowedServer
from prometheus_client import CollectorRegistry

from proxyherd.admin import area_pages
from proxyherd.admin.app import make_app
from proxyherd.admin.listener import AdminListener
from proxyherd.admin.status_page.herd import HerdWatch
from proxyherd.config.herd_file import parse
from proxyherd.core.spatial.areas import Circle

CIRCLE = "lat=0&lon=0&km=100"


class Clients(FollowedServer):
    """A server whose turns come by themselves."""

    def __init__(self) -> None:
        super().__init__(make_observer())
        self.table, self.areas, self.follows = self.node.table, self.engine.areas, self.engine.follows

    def put(self, client: bytes, place: bytes, moment: int = 1) -> None:
        self.report(client, moment, place)

    async def run(self) -> None:
        """Run turns as long as the test lasts."""
        while True:
            self.turns.rest()
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def serving(clients: Clients, more: str = "") -> AsyncIterator[int]:
    herd, faults = parse(ALONE + more, Path("herd.toml")), list[str]()
    watch = HerdWatch(herd, "Clark", Working(), make_observer(), clients.table)
    app = make_app(
        Working(),
        CollectorRegistry(),
        herd.admin,
        watch,
        lambda what, error: faults.append(f"{what}: {error}"),
        clients,
    )
    running = asyncio.create_task(clients.run())
    async with listening(AdminListener(app)) as port:
        yield port
    running.cancel()
    assert faults == []


def test_the_nearest_clients_are_answered_nearest_first() -> None:
    clients = Clients()
    for client, place in ((b"far", b"+0.5+0"), (b"my%20phone", b"+0.1+0"), (b"off", b"+1+0")):
        clients.put(client, place)

    async def scenario() -> None:
        async with serving(clients) as port:
            answer = await exchange(port, get_and_close(f"/near?{CIRCLE}"))
            found = json.loads(answer.partition(b"\r\n\r\n")[2])["clients"]
            assert [(one["client"], one["lat"], one["metres"]) for one in found] == [
                ("my phone", 0.1, 11119.5),
                ("far", 0.5, 55597.5),
            ]
            answer = await exchange(port, get_and_close(f"/near?{CIRCLE}&most=1"))
            assert answer.count(b'"metres"') == 1

    asyncio.run(scenario())


WRONG = [
    "",
    "lat=0&lon=0",
    "lat=x&lon=0&km=1",
    "lat=91&lon=0&km=1",
    "lat=nan&lon=0&km=1",
    "lat=0&lon=0&km=2001",
]


@pytest.mark.parametrize("path", ["/near", "/follow"])
def test_a_circle_that_is_none_is_refused_and_a_site_of_strangers_too(path: str) -> None:
    async def scenario() -> None:
        async with serving(Clients()) as port:
            for query in [*WRONG, f"{CIRCLE}&most=201" if path == "/near" else "client="]:
                assert status(await exchange(port, get_and_close(f"{path}?{query}"))) == 400
            strange = get_and_close(f"{path}?{CIRCLE}").replace(
                b"Conn", b"Sec-Fetch-Site: cross-site\r\nConn"
            )
            assert status(await exchange(port, strange)) == 403

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/near", "/follow"])
def test_where_positions_are_not_shown_nobody_is_found(path: str) -> None:
    async def scenario() -> None:
        clients = Clients()
        clients.put(b"kiwi", b"+0+0")
        async with serving(clients, '[admin]\npositions = "never"\n') as port:
            answer = await exchange(port, get_and_close(f"{path}?{CIRCLE}"))
            assert status(answer) == 403
            assert b"kiwi" not in answer
            assert b'positions = "never"' in answer

    asyncio.run(scenario())


@pytest.mark.parametrize("path", ["/near", "/follow"])
def test_a_server_without_the_table_says_so(path: str) -> None:
    async def scenario() -> None:
        clients: Any = Clients()
        clients.table = clients.areas = clients.follows = None
        async with serving(clients) as port:
            assert status(await exchange(port, get_and_close(f"{path}?{CIRCLE}"))) == 501

    asyncio.run(scenario())


async def told(reader: asyncio.StreamReader) -> dict[str, Any]:
    """Return the next event of a stream."""
    async with asyncio.timeout(30):
        await reader.readuntil(b"event: ")
        kind, _, data = (await reader.readuntil(b"\n\n")).partition(b"\ndata: ")
    event: dict[str, Any] = json.loads(data)
    assert event["event"] == kind.decode()
    return event


def test_a_stream_tells_what_changes_and_ends_with_the_server() -> None:
    async def scenario() -> None:
        clients = Clients()
        clients.put(b"kiwi", b"+0+0")
        async with serving(clients) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get(f"/follow?{CIRCLE}"))
            event = await told(reader)
            assert [event[key] for key in ("event", "client", "lat", "lon", "initial")] == [
                *("enter", "kiwi", 0, 0, True)
            ]
            assert await told(reader) == {"event": "snapshot", "complete": True, "clients": 1}
            for moment, place in enumerate((b"+0.25+0", b"+0.5+0"), 2):
                clients.put(b"kiwi", place, moment)
                event = await told(reader)
                assert (event["event"], event["lat"]) == ("move", float(place[:-2]))
            clients.put(b"kiwi", b"+5+0", 4)
            assert (await told(reader))["event"] == "leave"
            other, its_writer = await asyncio.open_connection("127.0.0.1", port)
            its_writer.write(get("/follow?client=kiwi"))
            assert (await told(other))["lat"] == 5
            assert (await told(other))["clients"] == 1
            clients.forget(b"kiwi")
            assert await told(other) == {"event": "gone", "client": "kiwi"}
        async with asyncio.timeout(30):
            for one in (reader, other):
                with contextlib.suppress(ConnectionError):
                    await one.read()
        writer.close()
        its_writer.close()
        clients.turns.wake()
        clients.turns.rest()
        assert not clients.follows.used

    asyncio.run(scenario())


def test_so_many_may_follow_and_who_leaves_makes_room_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(area_pages, "MAX_VIEWERS", 1)

    async def scenario() -> None:
        async with serving(Clients()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(get("/follow?client=kiwi"))
            await told(reader)
            assert status(await exchange(port, get_and_close("/follow?client=kiwi"))) == 503
            head = get_and_close("/follow?client=kiwi").replace(b"GET", b"HEAD")
            assert status(await exchange(port, head)) == 200
            writer.close()
            await writer.wait_closed()
            async with asyncio.timeout(30):
                while True:
                    again, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.write(get("/follow?client=kiwi"))
                    if status(await again.readuntil(b"\r\n\r\n")) == 200:
                        break
                    writer.close()
            writer.close()

    asyncio.run(scenario())


def test_a_search_goes_on_in_turns_alone_as_those_of_clients_do() -> None:
    """It shares them with clients, whose searches must not end outside of a turn."""

    async def scenario() -> None:
        server = Clients()
        server.put(b"kiwi", b"+0+0")
        searching = asyncio.create_task(area_pages.search_circle(server.areas, Circle(0.0, 0.0, 1_000.0), 5))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not searching.done()
        server.turns.rest()
        found = await searching
        assert found is not None
        assert [one.client for one in found.found] == [b"kiwi"]
        assert not server.areas

    asyncio.run(scenario())


def test_a_search_ends_with_who_has_asked_for_it() -> None:
    async def scenario() -> None:
        server = Clients()
        searching = asyncio.create_task(
            area_pages.search_circle(server.areas, Circle(0.0, 0.0, 200_000.0), 5)
        )
        await asyncio.sleep(0)
        assert server.areas.has_work
        searching.cancel()
        await asyncio.gather(searching, return_exceptions=True)
        assert not server.areas.has_work
        server.turns.rest()
        assert server.node.searches.indexed is None

    asyncio.run(scenario())
