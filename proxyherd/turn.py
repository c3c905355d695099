"""One turn of the event loop: gathers what it brought, decides, and lets everything out in order.

What peers sent goes before what clients asked. Then, in this order, and in one write to each destination: the
journal, the live peer links, the clients' answers; the log and the metrics last. So a neighbour asked right after
an answer already knows; and the busier a server is, the less a command costs it. What is too much for one turn
waits for the next, so that nobody's flood holds up another's answer for long.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Sized
from functools import partial
from typing import Final, Protocol, cast

from proxyherd.framing import Overlong
from proxyherd.link import Link
from proxyherd.messages import invalid, metres, position
from proxyherd.node import Node, Reply
from proxyherd.observe import Observer
from proxyherd.places import STATUSES, Places, Query, no_results
from proxyherd.waiting import EarlyQueries

_CLIENT_LINES: Final = 64
"""Lines of one client in one turn: who sends more at once waits for others in between."""

_TURN_LINES: Final = 512
"""Lines of all clients in one turn: some five milliseconds."""

_TURN_QUERIES: Final = 32
"""Queries of Places that begin in one turn: each starts two tasks."""

_PEER_LINES: Final = 1_024
"""Lines of all peers in one turn: some five milliseconds."""

_PEER_LEAST: Final = 32
"""Lines of one peer in one turn, however many there are."""


class Client(Protocol):
    """What a turn wants of a client's connection."""

    name: str
    label: bytes  # the name, for the log
    queued: bool

    @property
    def owed(self) -> Sized:
        """What `release` has not returned yet."""

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more to be answered."""

    def take(self, most: int, now: float) -> list[bytes | Overlong]:
        """Return lines to answer now."""

    def answer(self, answers: list[bytes]) -> None:
        """Write the answers to what was taken, in one write, where nothing else is owed."""

    def owe(self, line: bytes | Overlong, reply: Reply) -> None:
        """Take note of a command whose answer stands in `reply`, or will."""

    def release(self) -> list[tuple[bytes | Overlong, Reply]]:
        """Write the answers that are there, in order, in one write; return them."""


class Peer(Protocol):
    """What a turn wants of a peer's connection."""

    link: Link
    queued: bool

    def heard(self) -> None:
        """Go on: everything that was received has been heard."""

    def release(self, now: float) -> None:
        """Write what the link has to send, in one write; end the connection if the link has ended."""


class Journal(Protocol):
    """What a turn wants of the journal."""

    always: bool

    @property
    def takes_reports(self) -> bool:
        """Whether reports may be answered."""

    def append(self, lines: list[bytes]) -> bool:
        """Append a turn's updates; False if its reports must be refused."""

    async def sync(self) -> bool:
        """Bring them to disk, where `always`; False likewise."""


class Turn:
    """Runs the turns of one server. The listeners call `client_said`, `peer_said` and `wake`.

    `places` can be awaited as often as needed; until it is there, queries wait for it.
    """

    def __init__(
        self,
        node: Node,
        journal: Journal,
        places: Awaitable[Places],
        observer: Observer,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._node = node
        self._journal = journal
        self._places = places
        self._observer = observer
        self._loop = loop
        self._clients: deque[Client] = deque()
        self._peers: deque[Peer] = deque()
        self._links: set[Peer] = set()
        self._early: EarlyQueries[Client] = EarlyQueries()
        self._unasked: deque[tuple[Client, Reply]] = deque()
        self._queries: dict[Client, set[asyncio.Task[None]]] = {}
        self._scheduled = False
        self._more = False
        # What clients have said in this turn: reports alone, all stored, with their answers; and all else.
        self._reported: list[tuple[Client, list[bytes | Overlong], list[bytes]]] = []
        self._said: list[tuple[Client, list[bytes | Overlong], list[Reply]]] = []
        self._looked_up: list[tuple[Client, bytes, Reply]] = []
        self._commit: asyncio.Task[None] | None = None

    def client_said(self, client: Client) -> None:
        """A client has sent something, or can take answers again."""
        if not client.queued:
            client.queued = True
            self._clients.append(client)
            if not self._scheduled:
                self.wake()

    def client_left(self, client: Client) -> None:
        """A client's connection has broken: what it has asked of Places is wanted by nobody."""
        for query in tuple(self._queries.get(client, ())):
            query.cancel()

    def peer_said(self, peer: Peer) -> None:
        """A peer has sent something."""
        if not peer.queued:
            peer.queued = True
            self._peers.append(peer)
            self.wake()

    def add_link(self, peer: Peer) -> None:
        """Count a connection among those that have something to say at the end of a turn."""
        self._links.add(peer)
        self.wake()

    def remove_link(self, peer: Peer) -> None:
        """Forget a connection that is gone."""
        self._links.discard(peer)
        self.wake()

    def wake(self) -> None:
        """Let there be a turn, when everything that is ready now has been read."""
        if not self._scheduled and self._commit is None:
            self._scheduled = True
            self._loop.call_soon(self._run)

    def beat(self) -> None:
        """Let time pass on every link, also while a turn waits for the disk."""
        self.wake()
        if self._commit is not None:
            now = self._loop.time()
            for peer in tuple(self._links):
                peer.release(now)

    def _run(self) -> None:
        self._scheduled = False
        if self._commit is not None:  # it wakes the next turn
            return
        node, now = self._node, self._loop.time()
        node.clock = time.time_ns()
        self._hear_peers(now)
        self._more = node.work(now)
        self._hear_clients(now)
        if self._early:
            self._look_up_again()
        if not node.news:
            self._let_out()
            return
        kept = self._journal.append([news.line for news in node.news])
        if kept and self._journal.always:
            self._commit = self._loop.create_task(self._let_out_after_sync())
            return
        if not kept:
            self._refuse()
        self._let_out()

    async def _let_out_after_sync(self) -> None:
        try:
            if not await self._journal.sync():
                self._refuse()
        finally:
            self._commit = None
        self._let_out()

    def _refuse(self) -> None:
        """Take back this turn's reports, which could not be kept, and decide again about all its commands."""
        self._node.undo_reports()
        self._node.takes_reports = False
        decide, received = self._node.command, self._node.clock
        said = [(client, lines) for client, lines, _ in (*self._reported, *self._said)]
        self._reported.clear()
        self._said = [(client, lines, [decide(line, received) for line in lines]) for client, lines in said]
        for _, line, reply in self._looked_up:
            self._look_up(line, reply)

    def _let_out(self) -> None:
        """Peers first, then clients; the log and the metrics last."""
        node, observer, now = self._node, self._observer, self._loop.time()
        node.flood()
        for peer in tuple(self._links):
            peer.release(now)
        for client, line, reply in self._looked_up:
            self._wait(client, line, reply)
            self._answer(client, [], [])
        self._looked_up.clear()
        for client, lines, answers in self._reported:
            client.answer(answers)
            observer.reports(client.label, cast("list[bytes]", lines), answers)
        self._reported.clear()
        for client, lines, replies in self._said:
            self._answer(client, lines, replies)
        self._said.clear()
        if node.notes:
            notes, node.notes = node.notes, []
            observer.note(notes)
        observer.end_turn()
        self._ask_some()
        if self._more or self._unasked or self._clients or self._peers:
            self.wake()

    def _answer(self, client: Client, lines: list[bytes | Overlong], replies: list[Reply]) -> None:
        """Let a client have the answers that are there."""
        for line, reply in zip(lines, replies, strict=True):
            client.owe(line, reply)
            self._wait(client, line, reply)
        for line, reply in client.release():
            self._observer.command(client.name, line, reply)

    def _hear_peers(self, now: float) -> None:
        most = max(_PEER_LEAST, _PEER_LINES // max(1, len(self._peers)))
        for _ in range(len(self._peers)):
            peer = self._peers.popleft()
            peer.queued = False
            self._node.receive(peer.link, most, now)
            if peer.link.more:
                self.peer_said(peer)
            else:
                peer.heard()

    def _hear_clients(self, now: float) -> None:
        """Decide about what clients have sent."""
        node, received = self._node, self._node.clock
        node.takes_reports = self._journal.takes_reports
        clients: list[Client] = []
        said: list[list[bytes | Overlong]] = []
        lines_left = _TURN_LINES
        for _ in range(len(self._clients)):
            if lines_left <= 0:
                break
            client = self._clients.popleft()
            client.queued = False
            lines = client.take(_CLIENT_LINES, now)
            lines_left -= len(lines)
            clients.append(client)
            said.append(lines)
        for one in zip(clients, said, node.reports(said, received), strict=True):
            client, lines, answers = one
            if len(answers) == len(lines) and not client.owed:
                self._reported.append(one)
                continue
            replies = [Reply("iamat", "stored", answer) for answer in answers]
            replies += [node.command(line, received) for line in lines[len(answers) :]]
            self._said.append((client, lines, replies))

    # Answers that must wait. ---------------------------------------------------------------------------------

    def _wait(self, client: Client, line: bytes | Overlong, reply: Reply) -> None:
        if reply.answer is not None:
            return
        if client.gone:  # nobody to ask Places for; what is behind it is logged
            _leave(reply)
            return
        if reply.entry is None:
            assert isinstance(line, bytes)
            if not self._early.add(client, line, reply):
                reply.outcome, reply.answer = "refused", invalid(line)
            return
        self._unasked.append((client, reply))

    def _ask_some(self) -> None:
        """Begin queries of Places, as many as hold nobody up; the rest is for the next turn."""
        for _ in range(min(len(self._unasked), _TURN_QUERIES)):
            client, reply = self._unasked.popleft()
            if client.gone:
                _leave(reply)
                self.client_said(client)
                continue
            query = self._loop.create_task(self._ask_places(client, reply))
            self._queries.setdefault(client, set()).add(query)
            query.add_done_callback(partial(self._asked, client))

    def _asked(self, client: Client, query: asyncio.Task[None]) -> None:
        queries = self._queries[client]
        queries.discard(query)
        if not queries:
            del self._queries[client]

    def _look_up_again(self) -> None:
        """Decide again about queries that came before the server was ready."""
        early = self._early.all() if self._node.ready else self._early.known(self._node.news)
        for client, line, reply in early:
            self._look_up(line, reply)
            self._looked_up.append((client, line, reply))

    def _look_up(self, line: bytes, reply: Reply) -> None:
        assert reply.whatsat is not None
        again = self._node.look_up(reply.whatsat, line)
        reply.outcome, reply.answer, reply.entry = again.outcome, again.answer, again.entry

    async def _ask_places(self, client: Client, reply: Reply) -> None:
        assert reply.whatsat is not None
        assert reply.entry is not None
        latitude, longitude = position(reply.entry.line)
        query = Query(latitude, longitude, metres(reply.whatsat.radius), reply.whatsat.most)
        began = time.monotonic()  # the loop's own clock counts milliseconds
        try:
            places = await asyncio.shield(self._places)
            answer = await places.nearby(query, client)
        except asyncio.CancelledError:
            _leave(reply)
            self.client_said(client)  # what is behind it is logged
            return
        except Exception as error:  # noqa: BLE001 - the client gets an answer, as those who wait behind it
            self._observer.fault("Places cannot be asked", error)
            answer = no_results("UNKNOWN_ERROR", "this server cannot ask Places; its log says why")
        else:
            outcome = answer.status if answer.status in STATUSES else "OTHER"
            if query.metres and query.most:  # else nobody was asked
                self._observer.places(places.name, answer.status, outcome, time.monotonic() - began)
        reply.outcome, reply.status, reply.results = "answered", answer.status, answer.results
        reply.answer = reply.entry.line + b"\n" + answer.body + b"\n"
        self.client_said(client)


def _leave(reply: Reply) -> None:
    """Answer nobody: the client has gone."""
    reply.outcome, reply.answer, reply.entry = "left", b"", None
