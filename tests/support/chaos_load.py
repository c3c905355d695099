"""The load on a herd in trouble: clients that report and ask, over every protocol, and keep what they were answered."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import aiohttp
from herd_process import RunningHerd, ServerProcess, now

from proxyherd.core.messages import NANOSECONDS, parse_at, received

ANSWER_SECONDS: Final = 2.0
"""After which a client gives a server up; as a server that is stopped or killed deserves."""

PLACES_SECONDS: Final = 8.0
"""Likewise where Places is asked, whose deadline is 5 s."""

RESTART: Final = 1012
"""With what a server that stops closes a WebSocket."""

Last: TypeAlias = dict[bytes, tuple[int, bytes]]
"""The greatest that a server has answered about each client, by time and AT line."""

_UNSEEN: Final = b"AT Somebody +0.000000000 "
"""What the AT line of a report begins with that was answered without one."""


class Report(NamedTuple):
    """A client, its location and time, as they stand in a line."""

    client: bytes
    lat: bytes
    lon: bytes
    time: bytes

    @property
    def operands(self) -> bytes:
        return b"%b %b%b %b" % self

    @property
    def position(self) -> bytes:
        """The keys and values of an object in JSON; the numbers keep their digits."""
        return b'"lat":%b,"lon":%b,"time":%b' % (self.lat.lstrip(b"+"), self.lon.lstrip(b"+"), self.time)


class Gone(NamedTuple):
    """Until when a client was erased, in nanoseconds; and which server has answered that."""

    until: int
    server: str


class Lines(Protocol):
    """A connection that speaks lines."""

    def send(self, lines: list[bytes]) -> Awaitable[None]: ...

    def line(self) -> Awaitable[bytes]:
        """Return the next line of an answer, with its LF."""


class ClosedError(EOFError):
    """A server has closed a WebSocket, or has gone."""


class LinesOverTcp:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, lines: list[bytes]) -> None:
        self._writer.write(b"".join(line + b"\n" for line in lines))

    async def line(self) -> bytes:
        return await self._reader.readuntil(b"\n")


class LinesOverWebSocket:
    """All lines in one message; the answers come in any number of messages."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket
        self._lines: list[bytes] = []

    async def send(self, lines: list[bytes]) -> None:
        await self._socket.send(b"\n".join(lines))

    async def line(self) -> bytes:
        while not self._lines:
            self._lines = (await self._socket.message()).splitlines(keepends=True)
        return self._lines.pop(0)


class Socket:
    """A WebSocket. Reading raises ClosedError at its end; `codes` counts with what servers have closed."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, codes: Counter[int]) -> None:
        self._socket, self._codes = socket, codes

    async def send(self, message: bytes) -> None:
        await self._socket.send_str(message.decode())

    async def message(self) -> bytes:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.TEXT:
            return str(message.data).encode()
        if message.type is aiohttp.WSMsgType.CLOSE:
            self._codes[int(message.data)] += 1
        raise ClosedError(f"{message.type}: {message.data}")


class Visit:
    """What one server answers to one client: it is judged by what this server has answered before, here and in all its
    lives.
    """

    def __init__(self, load: ChaosLoad, server: ServerProcess) -> None:
        self.reports = 0  # that were answered
        self._load = load
        self._name = server.name
        self._last = load.last[server.name]  # of this life: it is another one after `forget`

    def refused(self, _: Report) -> None:
        self._load.refused[self._name] += 1

    def taken(self, report: Report, answer: bytes) -> None:
        """A report was answered, with an AT line."""
        if not answer.startswith(b"AT %b " % self._name.encode()) or not answer.endswith(
            b" " + report.operands
        ):
            self._fault(f"answered {report} with {answer!r}")
            return
        self._keep(report, answer)

    def taken_unseen(self, report: Report) -> None:
        """A report was answered, and its AT line was not shown."""
        self._keep(report, _UNSEEN + report.operands)

    def _keep(self, report: Report, line: bytes) -> None:
        self.reports += 1
        self._load.counts["reports"] += 1
        self._load.answered[report.client] = line  # its times increase, and it waits for each answer
        self._last[report.client] = _time(line), line

    def found(self, client: bytes, answer: bytes) -> None:
        """A question was answered with this AT line."""
        at, before = parse_at(answer), self._before(client)
        if at is None or at.client != client:
            self._fault(f"answered a question about {client!r} with {answer!r}")
            return
        self._load.counts["queries"] += 1
        self._load.counts["queries judged"] += before is not None
        gone = self._load.gone.get(client)
        if gone is not None and gone.server == self._name and at.received <= gone.until:
            self._fault(f"brings {client!r} back, which it has erased until {gone.until}: {answer!r}")
        told = at.entry.nanoseconds, answer
        if before is not None and (told < before if _is_seen(before[1]) else told[0] < before[0]):
            self._fault(f"takes {before[1]!r} back: about {client!r} it answers {answer!r}")
        self._last[client] = told

    def unknown(self, client: bytes) -> None:
        """A question was answered as one about nobody."""
        if (before := self._before(client)) is not None:
            self._fault(f"takes {before[1]!r} back: it does not know {client!r}")

    def _before(self, client: bytes) -> tuple[int, bytes] | None:
        """Return what this server has answered about a client, unless that was erased since."""
        before, gone = self._last.get(client), self._load.gone.get(client)
        if before is None or gone is None or received(before[1]) > gone.until:
            return before
        return None

    def erases(self, client: bytes) -> None:
        """A client is to be erased. What any server has answered about it counts no more: each will learn of the erasure
        at a time of its own.
        """
        self._load.answered.pop(client, None)
        self._load.to_erase.add(client)
        for last in self._load.last.values():
            last.pop(client, None)

    def erased(self, client: bytes, moment: str) -> None:
        """The erasure of a client was answered."""
        whole, fraction = moment.split(".")
        self._load.counts["erasures"] += 1
        self._load.gone[client] = Gone(int(whole + fraction), self._name)

    def refused_erasure(self) -> None:
        self._load.refused[self._name] += 1

    def _fault(self, what: str) -> None:
        self._load.faults.append(f"{self._name} {what}")


class ChaosLoad:
    """Clients that report, ask, and keep what they were answered, on an event loop in a thread of its own.

    Each client's times increase, whatever server it reports to, and it gives a server up that does not answer. So
    what must be known at the end is, of each client, the latest report that was answered, or a later one. And each
    client is one worker's, who has read one answer before it asks for the next: so what a server answers about it is
    never less than what that server has answered before, however often it was killed meanwhile.
    """

    def __init__(self, herd: RunningHerd, seed: int, *, workers: int = 10, clients_each: int = 50) -> None:
        self.answered: dict[bytes, bytes] = {}
        """Of each client, the AT line of its latest answered report, without LF."""
        self.gone: dict[bytes, Gone] = {}
        """Of each client that was erased, the latest answered erasure."""
        self.to_erase: set[bytes] = set()
        """Clients whose erasure was asked for, answered or not. What was answered about them before counts no more."""
        self.refused: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self.codes: Counter[int] = Counter()
        """With what servers have closed WebSockets."""
        self.faults: list[str] = []
        self.last: dict[str, Last] = {name: {} for name in herd}
        self._herd = herd
        self._workers = workers
        self._clients_each = clients_each
        self._seed = seed
        self.ends = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._drive()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Stop reporting, and wait for the last answers."""
        self.ends = True
        self._thread.join()

    def forget(self, server: ServerProcess) -> None:
        """Judge a server no longer by what it has answered: its journal may lack some of it."""
        self.last[server.name] = {}

    def forget_recent(self, server: ServerProcess, since: float) -> None:
        """Judge nobody by what only this server may know, because it was answered there `since` these POSIX seconds."""
        self.forget(server)
        moment, took = int(since * NANOSECONDS), b"AT %b " % server.name.encode()
        for client, line in [*self.answered.items()]:
            at = parse_at(line)
            if at is not None and ((at.received > moment and line.startswith(took)) or not _is_seen(line)):
                self.answered.pop(client, None)
        for client, gone in [*self.gone.items()]:
            if gone.server == server.name and gone.until > moment:
                self.gone.pop(client, None)

    async def _drive(self) -> None:
        async with asyncio.TaskGroup() as workers:
            for number in range(self._workers):
                workers.create_task(self._work(number))

    async def _work(self, number: int) -> None:
        clients = [b"client-%d-%d" % (number, at) for at in range(self._clients_each)]
        phone = b"phone-%d-%d" % (self._seed, number)  # its times begin anew with each load
        worker = Worker(self, clients, phone, random.Random(f"{self._seed} {number}"))
        visit, way = WAYS[number % len(WAYS)]
        servers, lost = list(self._herd.values()), None
        while not self.ends:
            server = worker.rng.choice([one for one in servers if one is not lost or way != "websocket"])
            told = Visit(self, server)
            try:
                await visit(worker, server, told)
                self.counts["visits"] += 1
                self.counts[f"went on over {way}"] += lost is not None and told.reports > 0
                lost = None
            except (OSError, EOFError, TimeoutError, aiohttp.ClientError):
                self.counts["broken visits"] += 1
                lost = server
                await asyncio.sleep(0.02)


class Worker:
    """One worker: its clients, and how it visits a server."""

    def __init__(self, load: ChaosLoad, clients: list[bytes], phone: bytes, rng: random.Random) -> None:
        self.rng = rng
        self._load = load
        self._clients = clients
        self._phone = phone
        self._moments = count(int(time.time()) - 100_000)
        """The phone's times: whole seconds, which increase too."""

    def report(self) -> Report:
        lat, lon = (b"%+.6f" % self.rng.uniform(-most, most) for most in (90, 180))
        return Report(self.client(), lat, lon, now())

    def client(self) -> bytes:
        return self.rng.choice(self._clients)

    def steps(self) -> Sequence[int]:
        return range(self.rng.randrange(1, 40))

    async def pause(self) -> None:
        await asyncio.sleep(self.rng.uniform(0, 0.05))

    # Lines. ----------------------------------------------------------------------------------------------------

    async def over_tcp(self, server: ServerProcess, visit: Visit, *, places: bool = False) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.client_port)
        try:
            await self._speak(LinesOverTcp(reader, writer), visit, places=places)
        finally:
            writer.transport.abort()

    async def over_tcp_with_places(self, server: ServerProcess, visit: Visit) -> None:
        await self.over_tcp(server, visit, places=True)

    async def lines_over_websocket(self, server: ServerProcess, visit: Visit) -> None:
        async with self._websocket(server, "proxyherd.lines.v1") as socket:
            await self._speak(LinesOverWebSocket(socket), visit, places=False)

    async def _speak(self, lines: Lines, visit: Visit, *, places: bool) -> None:
        for _ in self.steps():
            if self._load.ends:
                return
            asked: list[Report | bytes] = [
                self.report() if self.rng.random() < 0.7 else self._question(places=places)
                for _ in range(self.rng.randrange(1, 6))
            ]
            said = [b"IAMAT " + one.operands if isinstance(one, Report) else one for one in asked]
            await lines.send(said)
            for one in asked:
                async with asyncio.timeout(PLACES_SECONDS if places else ANSWER_SECONDS):
                    await self._hear(lines, one, visit)
            await self.pause()

    def _question(self, *, places: bool) -> bytes:
        return b"WHATSAT %b %b" % (self.client(), b"5 3" if places and self.rng.random() < 0.3 else b"0 0")

    async def _hear(self, lines: Lines, asked: Report | bytes, visit: Visit) -> None:
        answer = (await lines.line())[:-1]
        if isinstance(asked, Report):
            if answer == b"? IAMAT " + asked.operands:
                visit.refused(asked)
            else:
                visit.taken(asked, answer)
            return
        client = asked.split(b" ")[1]
        if answer == b"? " + asked:
            visit.unknown(client)
            return
        visit.found(client, answer)
        while await lines.line() != b"\n":
            pass

    # The web. --------------------------------------------------------------------------------------------------

    async def over_http(self, server: ServerProcess, visit: Visit) -> None:
        """Report by PUT, in batches, and as a phone; and ask. All on one connection."""
        async with self._session(server) as session:
            for _ in self.steps():
                if self._load.ends:
                    return
                asks = self._put, self._put, self._batch, self._locate, self._own_tracks, self._erase
                await self.rng.choice(asks)(session, visit)
                await self.pause()

    async def _erase(self, session: aiohttp.ClientSession, visit: Visit) -> None:
        """Erase a client. Where no answer comes, it may be erased later: then nobody speaks of it any more."""
        client = self.client()
        at = self._clients.index(client)
        self._clients[at] = client + b"+"
        visit.erases(client)
        async with session.delete(f"/v1/clients/{client.decode()}") as response:
            answer = await response.json(content_type=None)
        self._clients[at] = client
        if response.status == 503:
            visit.refused_erasure()
        else:
            assert response.status == 202, answer
            visit.erased(client, str(answer["erased_at"]))

    async def _put(self, session: aiohttp.ClientSession, visit: Visit) -> None:
        report = self.report()
        body = b"{%b}" % report.position
        async with session.put(f"/v1/clients/{report.client.decode()}", data=body) as response:
            answer = await response.json(content_type=None)
        self._take(report, answer, visit)

    async def _batch(self, session: aiohttp.ClientSession, visit: Visit) -> None:
        reports = [self.report() for _ in range(self.rng.randrange(1, 20))]
        objects = [b'{"client":"%b",%b}' % (one.client, one.position) for one in reports]
        async with session.post("/v1/reports", data=b"[%b]" % b",".join(objects)) as response:
            answers = await response.json(content_type=None)
        for report, answer in zip(reports, answers, strict=True):
            self._take(report, answer, visit)

    def _take(self, report: Report, answer: Mapping[str, Any], visit: Visit) -> None:
        if answer.get("status") == 503:
            visit.refused(report)
        else:
            visit.taken(report, str(answer.get("at")).encode())

    async def _locate(self, session: aiohttp.ClientSession, visit: Visit) -> None:
        client = self._phone if self.rng.random() < 0.2 else self.client()
        async with session.get(f"/v1/clients/{client.decode()}") as response:
            answer = await response.json(content_type=None)
        self._find(client, answer, visit)

    def _find(self, client: bytes, answer: Mapping[str, Any], visit: Visit) -> None:
        if answer.get("status") == 404:
            visit.unknown(client)
        elif answer.get("status") != 503:  # it waits for others
            visit.found(client, str(answer.get("at")).encode())

    async def _own_tracks(self, session: aiohttp.ClientSession, visit: Visit) -> None:
        report = self.report()._replace(client=self._phone, time=b"%d" % next(self._moments))
        body = b'{"_type":"location","tst":%b,"lat":%b,"lon":%b}' % (
            *(report.time, report.lat.lstrip(b"+"), report.lon.lstrip(b"+")),
        )
        async with session.post("/owntracks", params={"u": self._phone.decode()}, data=body) as response:
            answer = await response.read()
        if response.status == 503:
            visit.refused(report)
        else:
            assert (response.status, answer) == (200, b"[]")
            visit.taken_unseen(report)

    async def objects_over_websocket(self, server: ServerProcess, visit: Visit) -> None:
        """Report and ask in JSON, several at once."""
        async with self._websocket(server, "proxyherd.json.v1") as socket:
            for _ in self.steps():
                if self._load.ends:
                    return
                asked: list[Report | bytes] = [
                    self.report() if self.rng.random() < 0.7 else self.client()
                    for _ in range(self.rng.randrange(1, 6))
                ]
                for number, one in enumerate(asked):
                    await socket.send(_op(number, one))
                for number, one in enumerate(asked):
                    async with asyncio.timeout(ANSWER_SECONDS):
                        answer = json.loads(await socket.message())
                    assert answer["id"] == number, answer
                    answer = answer.get("problem", answer)
                    if isinstance(one, Report):
                        self._take(one, answer, visit)
                    else:
                        self._find(one, answer, visit)
                await self.pause()

    @contextlib.asynccontextmanager
    async def _websocket(self, server: ServerProcess, protocol: str) -> AsyncIterator[Socket]:
        async with self._session(server) as session:
            async with asyncio.timeout(ANSWER_SECONDS):
                socket = await session.ws_connect("/v1/ws", protocols=(protocol,))
            yield Socket(socket, self._load.codes)  # it ends with its session, without a close frame

    def _session(self, server: ServerProcess) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            f"http://127.0.0.1:{server.web_port}",
            connector=aiohttp.TCPConnector(limit=1),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Content-Type": "application/json"},
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
        )


WAYS: Final[Sequence[tuple[Callable[[Worker, ServerProcess, Visit], Awaitable[None]], str]]] = (
    (Worker.over_tcp_with_places, "tcp"),
    (Worker.over_tcp, "tcp"),
    (Worker.over_http, "http"),
    (Worker.lines_over_websocket, "websocket"),
    (Worker.objects_over_websocket, "websocket"),
)
"""How workers visit servers, in turns; and by what transport."""


def _op(number: int, asked: Report | bytes) -> bytes:
    if isinstance(asked, Report):
        return b'{"op":"report","id":%d,"client":"%b",%b}' % (number, asked.client, asked.position)
    return b'{"op":"locate","id":%d,"client":"%b"}' % (number, asked)


def table_of(server: ServerProcess, clients: Sequence[bytes]) -> dict[bytes, bytes]:
    """Return what a server holds of these clients: AT lines without LF; b"" for who is not known."""
    table: dict[bytes, bytes] = {}
    with server.connect() as connection:
        for at in range(0, len(clients), 200):
            some = clients[at : at + 200]
            connection.send(*(b"WHATSAT %b 0 0" % client for client in some))
            for client in some:
                answer = connection.places().split(b"\n", 1)[0]
                table[client] = b"" if answer.startswith(b"? ") else answer
    return table


def missing(answered: Mapping[bytes, bytes], table: Mapping[bytes, bytes]) -> list[str]:
    """Return the answered reports that a table has neither kept nor replaced by a later one."""
    lost = []
    for client, line in answered.items():
        held = table[client]
        is_same = held == line if _is_seen(line) else held.endswith(line.removeprefix(_UNSEEN))
        if not is_same and _time(held) <= _time(line):
            lost.append(f"{line!r}: {held!r} is known")
    return lost


def resurrected(gone: Mapping[bytes, Gone], table: Mapping[bytes, bytes]) -> list[str]:
    """Return what a table holds of clients though it was erased."""
    return [
        f"{client!r} was erased until {moment.until} by {moment.server}: {table[client]!r} is known"
        for client, moment in gone.items()
        if table.get(client) and received(table[client]) <= moment.until
    ]


def _is_seen(line: bytes) -> bool:
    return not line.startswith(_UNSEEN)


def _time(line: bytes) -> int:
    at = parse_at(line)
    return at.entry.nanoseconds if at is not None else -1
