"""Lets clients follow a herd for a long time, while servers are killed, and finds what leaks, is missed or is untrue.

python tests/support/follow_soak.py [--seconds 3600] [--seed 0] [--followers 100] [--rate 500]

Five servers hear of five hundred clients. Followers of clients, circles and boxes, over WebSockets and streams, come and go;
some never read. Two of the servers are killed again and again, and clients are erased. Each follower judges what it is told.
At the end, what followers believe must be what their servers answer, nobody may be followed any more, and the servers that
were never killed may have grown by little.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
import click

sys.path.insert(0, str(Path(__file__).parent))

from chaos_load import ANSWER_SECONDS
from herd_process import RunningHerd, ServerProcess, raise_descriptor_limit, running_herd

EDGES: Final = [("A", "B"), ("B", "C"), ("C", "D"), ("D", "E"), ("E", "A"), ("A", "C")]
KILLED: Final = ("B", "D")
SETTINGS: Final = "[limits]\nslow_reader_seconds = 5\n[web]\n"

CLIENTS: Final = 500
REPORTERS: Final = 10
SLOW_FOLLOWERS: Final = 10

WEST, SOUTH, DEGREES = -118.5, 34.0, 0.2
"""Where clients are: a box of so many degrees."""

GROWTH_BYTES: Final = 16 << 20
"""Memory that a server may have grown by since a sixth of the time: buffers of followers that do not read come and go."""

_SOCKET_BYTES: Final = 4_096


class View:
    """What a follower believes, by what it was told: of each client that is there, the time of its report and of its receipt.
    Raises AssertionError where it is told what cannot be.
    """

    def __init__(self) -> None:
        self.there: dict[str, tuple[str, str]] = {}
        self.is_whole = False  # whether the snapshot has been told
        self.events = Counter[str]()

    def tell(self, event: dict[str, Any]) -> None:
        kind = event["event"]
        self.events[kind] += 1
        if kind == "snapshot":
            assert not self.is_whole, "a second snapshot"
            self.is_whole = event["complete"]  # else there is another one when the server is ready
            return
        client = event["client"]
        assert not (event.get("initial") and self.is_whole), f"initial after the snapshot: {event}"
        assert (client in self.there) is (kind != "enter"), (
            f"{event} about one who is {self.there.get(client)}"
        )
        if kind in ("leave", "gone"):
            del self.there[client]
            return
        told = event["time"], event["received"]
        if kind == "move":
            assert _order(told) > _order(self.there[client]), f"{event} after {self.there[client]}"
        self.there[client] = told


def _order(told: tuple[str, str]) -> tuple[int, int]:
    return _nanoseconds(told[0]), _nanoseconds(told[1])


def _nanoseconds(seconds: str) -> int:
    whole, _, fraction = seconds.partition(".")
    return int(whole + fraction.ljust(9, "0"))


class FollowSoak:
    """The load on one herd."""

    def __init__(self, herd: RunningHerd, seed: int, followers: int, rate: float) -> None:
        self.counts = Counter[str]()
        self.faults: list[str] = []
        self.ends = self.is_quiet = False
        self._herd = herd
        self._followers = followers
        self._rate = rate  # reports a second
        self._servers = [*herd.values()]
        self._rng = random.Random(seed)
        self._places = {
            f"phone-{number}": [self._rng.random() * DEGREES, self._rng.random() * DEGREES]
            for number in range(CLIENTS)
        }

    async def run(self, seconds: float) -> None:
        """Follow for so long; then judge."""
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        async with session, asyncio.TaskGroup() as tasks:
            self._session = session
            reporters = [tasks.create_task(self._report(number)) for number in range(REPORTERS)]
            killer = tasks.create_task(self._kill())
            followers = [tasks.create_task(self._follow_again()) for _ in range(self._followers)]
            slow = [tasks.create_task(self._never_read()) for _ in range(SLOW_FOLLOWERS)]
            await self._watch(seconds)
            self.is_quiet = True
            await asyncio.gather(*reporters, killer)
            await asyncio.to_thread(self._herd.wait_until_whole)
            await asyncio.sleep(3)
            self.ends = True
            for task in slow:
                task.cancel()
            await asyncio.gather(*followers)

    # Clients. --------------------------------------------------------------------------------------------------

    async def _report(self, number: int) -> None:
        """Let a share of the clients walk, and report to any server."""
        rng, mine = random.Random(number), [*self._places][number::REPORTERS]
        while not self.is_quiet:
            server = rng.choice(self._servers)
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", server.client_port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                for _ in range(500):
                    client = rng.choice(mine)
                    if rng.random() < 0.002:
                        await self._erase(server, client)
                    writer.write(self._line(client, rng))
                    async with asyncio.timeout(ANSWER_SECONDS):
                        answer = await reader.readuntil(b"\n")
                    self.counts["reports"] += answer.startswith(b"AT ")
                    if self.is_quiet:
                        break
                    await asyncio.sleep(REPORTERS / self._rate * rng.uniform(0.5, 1.5))
            writer.transport.abort()

    def _line(self, client: str, rng: random.Random) -> bytes:
        place = self._places[client]
        for axis in (0, 1):
            place[axis] = min(max(place[axis] + rng.uniform(-0.005, 0.005), 0.0), DEGREES)
        now = time.time_ns()
        return b"IAMAT %b %+.6f%+.6f %d.%09d\n" % (
            client.encode(),
            SOUTH + place[0],
            WEST + place[1],
            *divmod(now, 10**9),
        )

    async def _erase(self, server: ServerProcess, client: str) -> None:
        url = f"http://127.0.0.1:{server.web_port}/v1/clients/{client}"
        with contextlib.suppress(aiohttp.ClientError):
            async with self._session.delete(url) as response:
                self.counts["erasures"] += response.status == 202

    # Followers. ------------------------------------------------------------------------------------------------

    async def _follow_again(self) -> None:
        """Follow something over and over, at any server, for a while or until its server is gone."""
        while not self.ends:
            server, seconds = self._rng.choice(self._servers), self._rng.uniform(0.5, 60)
            follow = self._follow_socket if self._rng.random() < 0.8 else self._follow_stream
            try:
                await follow(server, seconds)
            except AssertionError as fault:
                self.faults.append(f"{server.name}: {fault}")
            except (OSError, EOFError, TimeoutError, aiohttp.ClientError):
                self.counts["lost"] += 1
                await asyncio.sleep(self._rng.uniform(0.1, 1.0))

    def _wanted(self) -> dict[str, Any]:
        """Return what to follow, as in an op."""
        rng = self._rng
        south, west = SOUTH + rng.random() * DEGREES, WEST + rng.random() * DEGREES
        match rng.randrange(3):
            case 0:
                return {"client": rng.sample([*self._places], rng.randint(1, 50))}
            case 1:
                return {
                    "near": {"lat": round(south, 5), "lon": round(west, 5), "radius_km": rng.randint(1, 5)}
                }
        box = {"west": west, "south": south, "east": west + DEGREES / 4, "north": south + DEGREES / 4}
        return {"within": {name: round(degrees, 5) for name, degrees in box.items()}}

    async def _follow_socket(self, server: ServerProcess, seconds: float) -> None:
        wanted = self._wanted() | ({"buffer_m": 100} if self._rng.random() < 0.3 else {})
        if "client" in wanted:
            wanted.pop("buffer_m", None)
        async with self._socket(server) as socket:
            await socket.send_json({"op": "follow", "id": 1, **wanted})
            answer = await self._told(socket)
            assert "following" in answer, answer

            async def events() -> AsyncIterator[dict[str, Any]]:
                while True:
                    yield await self._told(socket)

            await self._judge(server, events(), wanted, seconds)

    @contextlib.asynccontextmanager
    async def _socket(self, server: ServerProcess) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        url = f"http://127.0.0.1:{server.web_port}/v1/ws"
        async with asyncio.timeout(ANSWER_SECONDS):
            socket = await self._session.ws_connect(url, protocols=("proxyherd.json.v1",), max_msg_size=0)
        try:
            yield socket
        finally:
            await socket.close()

    async def _told(self, socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
        """Return the next message. Raises EOFError at the end."""
        message = await socket.receive()
        if message.type is not aiohttp.WSMsgType.TEXT:
            self.counts[f"closed with {message.data}"] += 1
            raise EOFError
        told: dict[str, Any] = json.loads(message.data)
        return told

    async def _follow_stream(self, server: ServerProcess, seconds: float) -> None:
        wanted = self._wanted()
        parameters: list[tuple[str, str]]
        if "client" in wanted:
            parameters = [("client", name) for name in wanted["client"]]
        else:
            ((name, area),) = wanted.items()
            parameters = [(name, ",".join(map(str, area.values())))]
        url = f"http://127.0.0.1:{server.web_port}/v1/events"
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_SECONDS)
        async with self._session.get(url, params=parameters, timeout=timeout) as response:
            assert response.status == 200, await response.text()

            async def events() -> AsyncIterator[dict[str, Any]]:
                async for line in response.content:
                    if line.startswith(b"data: "):
                        yield json.loads(line[6:])
                raise EOFError

            await self._judge(server, events(), wanted, seconds)

    async def _judge(
        self,
        server: ServerProcess,
        events: AsyncIterator[dict[str, Any]],
        wanted: dict[str, Any],
        seconds: float,
    ) -> None:
        """Be told events until the time is over, or to the end if it has come."""
        view, until = View(), time.monotonic() + seconds
        self.counts["follows"] += 1
        try:
            while (time.monotonic() < until or self.is_quiet) and not self.ends:
                event = asyncio.ensure_future(anext(events))
                while not (await asyncio.wait([event], timeout=1.0))[0]:
                    if self.ends or (time.monotonic() >= until and not self.is_quiet):
                        event.cancel()
                        break
                else:
                    view.tell(await event)
        finally:
            self.counts.update({f"told {kind}": count for kind, count in view.events.items()})
        if self.ends:
            await self._compare(server, view, wanted)

    async def _compare(self, server: ServerProcess, view: View, wanted: dict[str, Any]) -> None:
        """What a follower believes must be what its server answers now."""
        assert view.is_whole, "the snapshot has not come"
        self.counts["compared"] += 1
        base = f"http://127.0.0.1:{server.web_port}/v1"
        if "client" in wanted:
            for name in wanted["client"]:
                async with self._session.get(f"{base}/clients/{name}") as response:
                    held = await response.json(content_type=None)
                    is_known = response.status == 200
                believed = view.there.get(name)
                true = (str(held["time"]), held["received"]) if is_known else None
                assert believed == true, f"{name}: the follower believes {believed}, the server has {true}"
            return
        if "buffer_m" in wanted:
            return  # who is inside depends on the way there
        ((name, area),) = ((key, value) for key, value in wanted.items() if key in ("near", "within"))
        async with self._session.get(f"{base}/{name}", params={**area, "limit": 1000}) as response:
            answer = await response.json(content_type=None)
        true_names, told_names = {one["client"] for one in answer["clients"]}, {*view.there}
        assert true_names == told_names, f"differs: {true_names ^ told_names}"

    async def _never_read(self) -> None:
        """Follow everybody, and never read: be closed for it."""
        while True:
            server = self._rng.choice([one for one in self._servers if one.name not in KILLED])
            with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", server.web_port, limit=_SOCKET_BYTES
                )
                box = f"{WEST},{SOUTH},{WEST + DEGREES},{SOUTH + DEGREES}"
                writer.write(f"GET /v1/events?within={box} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                transport = writer.transport
                while not transport.is_closing():
                    await asyncio.sleep(0.5)
                    if not cast("asyncio.Transport", transport).is_reading():  # its limit is reached
                        await self._wait_until_closed(writer)
                        self.counts["slow and closed"] += 1
                        transport.abort()
                del reader

    @staticmethod
    async def _wait_until_closed(writer: asyncio.StreamWriter) -> None:
        """Wait until the other end has closed, which one who reads nothing sees only when writing."""
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"\n")
                await writer.drain()
                await asyncio.sleep(1)

    # The herd. -------------------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        while not self.is_quiet:
            server = self._herd[self._rng.choice(KILLED)]
            await asyncio.sleep(self._rng.uniform(5, 30))
            await asyncio.to_thread(server.kill)
            self.counts["kills"] += 1
            await asyncio.sleep(self._rng.uniform(0, 2))
            server.start()
            await asyncio.to_thread(server.wait_until_ready)

    async def _watch(self, seconds: float) -> None:
        """Look at the servers that are not killed, now and then."""
        began = time.monotonic()
        spared = [one for one in self._servers if one.name not in KILLED]
        before: dict[str, int] = {}
        while (passed := time.monotonic() - began) < seconds:
            await asyncio.sleep(min(30, seconds - passed))
            memory = {one.name: one.memory() for one in spared}
            if passed >= seconds / 6:
                before = before or memory
            click.echo(f"{passed:6.0f} s  {_table(memory)}  {dict(sorted(self.counts.items()))}")
            for fault in self.faults[:5]:
                click.echo(f"FAULT {fault[:500]}", err=True)
        for one in spared:
            if (growth := one.memory() - before.get(one.name, one.memory())) > GROWTH_BYTES:
                self.faults.append(f"{one.name} has grown by {growth / 2**20:.1f} MiB")

    def end(self) -> None:
        """Nobody follows any more: see that no server believes that somebody does."""
        deadline = time.monotonic() + 60
        for server in self._servers:
            while any(server.metrics("proxyherd_followers").values()):
                if time.monotonic() > deadline:
                    self.faults.append(f"{server.name}: {server.metrics('proxyherd_follow')}")
                    break
                time.sleep(0.2)
            self.counts["faults logged"] += len(server.events("internal_error"))


def _table(memory: dict[str, int]) -> str:
    return " ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in memory.items())


@click.command(help=__doc__)
@click.option("--seconds", default=3_600.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--followers", default=100, show_default=True, help="At once.")
@click.option("--rate", default=500.0, show_default=True, help="Reports a second.")
def main(seconds: float, seed: int, followers: int, rate: float) -> None:
    raise_descriptor_limit(8_192)
    with running_herd(EDGES, more=SETTINGS) as herd:
        soak = FollowSoak(herd, seed, followers, rate)
        asyncio.run(soak.run(seconds))
        soak.end()
    click.echo(dict(sorted(soak.counts.items())))
    for fault in soak.faults[:20]:
        click.echo(f"FAULT {fault[:1_000]}", err=True)
    sys.exit(bool(soak.faults))


if __name__ == "__main__":
    main()
