"""The queries of areas that one server has taken, until they have their answers.

They are searched at the end of turns alone: when the table has what the turn's clients have reported, and before their
answers leave. So an answer is true when it is given, and whoever was erased before is not in it. A turn begins a few of
them, and does one slice of those that need more.

While every query waits, because the journal is replayed, these wait too. One around a client that is not known waits until
the server is ready. The search of a client that has left ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, TypeAlias

from proxyherd.core.area_queries import AreaQuery, AreaReply
from proxyherd.core.engine import Client, Settled
from proxyherd.core.messages import Entry, received
from proxyherd.core.node import Node
from proxyherd.core.reply import leave
from proxyherd.core.spatial.areas import Area, Circle, Misdrawn
from proxyherd.core.spatial.index import degrees
from proxyherd.core.spatial.search import FIRST, Accepts, Question, SearchResult
from proxyherd.core.spatial.searches import MOST_SEARCHES, Answered

BEGUN: Final = 4
"""Searches that begin in one turn, at most: each takes half a millisecond then, or less."""

SHARE: Final = MOST_SEARCHES // 4
"""Queries that are searched, or wait, for one who asks."""

_Asked: TypeAlias = tuple[Client, AreaQuery, AreaReply]


class AreaSearches:
    """The queries of one server. What they are answered with is in their replies. `wake` asks for a turn."""

    def __init__(self, node: Node, wake: Callable[[], None]) -> None:
        self._wake = wake
        self.used = False  # whether anybody has ever asked
        self._node = node
        self._searches = node.searches
        self._asked: list[_Asked] = []  # in this turn
        self._waiting: deque[_Asked] = deque()  # to begin
        self._unknown: list[_Asked] = []  # around clients that are not known
        self._others: deque[tuple[Question, Answered]] = deque()  # to begin, for those who are no clients
        self._number = 0  # of the last search that began
        self._going_on: dict[int, tuple[Client, AreaReply, Answered]] = {}
        self._done: list[Client] = []
        self._failed: list[tuple[Client, Exception]] = []

    def __len__(self) -> int:
        return len(self._waiting) + len(self._unknown) + len(self._going_on) + len(self._others)

    @property
    def has_work(self) -> bool:
        """Whether `run` has something to do."""
        return self._searches.has_work or (bool(self._waiting or self._others) and not self._node.all_wait)

    def ask(self, client: Client, query: AreaQuery, reply: AreaReply) -> None:
        """Take a query that a turn has decided."""
        self.used = True
        self._asked.append((client, query, reply))

    def search(self, area: Area, most: int, answered: Answered) -> bool:
        """Search for somebody who is no client, in the next turns. `answered` is called in one of them, unless `cancel` is
        called before. Return whether it will be: there may be too many.
        """
        if len(self) >= MOST_SEARCHES:
            return False
        self.used = True
        self._others.append(
            (Question(area, most, FIRST, self._judge(AreaQuery("near", most, area))), answered)
        )
        self._wake()
        return True

    def cancel(self, answered: Answered) -> None:
        """End a search of `search`, if it goes on."""
        self._others = deque(one for one in self._others if one[1] != answered)
        self._searches.cancel(answered)

    def undo(self) -> None:
        """Forget the queries of this turn, which will be decided again."""
        self._asked.clear()

    def run(self, settled: Settled, now: float, *, stops: bool) -> None:
        """Search for as long as a turn may, at the end of it. Add to its results the clients some of whose queries have their
        answers now, and those whose search has raised an exception. If the server stops, give up those whose queries wait
        for what it must learn first. `now`: seconds of one monotonic clock.
        """
        for client, query, reply in self._asked:
            if self._has_room(client):
                self._waiting.append((client, query, reply))
            else:
                reply.outcome, reply.answer, reply.refusal = "refused", b"", "full"
        self._asked.clear()
        if not self._node.all_wait:
            self._begin_some(now)
        for number, (client, _, answered) in [*self._going_on.items()]:
            if client.gone:
                self._searches.cancel(answered)
                leave(self._end(number))
        if self._searches.has_work:
            self._searches.work()
        if self._done:
            settled.clients = dict.fromkeys([*settled.clients, *self._done])
            settled.failed, self._done, self._failed = self._failed, [], []
        if stops:
            self._let_go(settled)

    def _begin_some(self, now: float) -> None:
        self._look_for_the_unknown()
        for _ in range(min(BEGUN, len(self._waiting))):
            self._begin(*self._waiting.popleft(), now)
        for _ in range(min(BEGUN, len(self._others))):
            if self._searches.ask(*self._others[0], now):
                self._others.popleft()

    def _has_room(self, client: Client) -> bool:
        """Whether one more query may be searched. Nobody has more than a share of them, over all connections."""
        if len(self) >= MOST_SEARCHES:
            return False
        if len(self) < SHARE:
            return True
        others = [one for one, *_ in (*self._waiting, *self._unknown, *self._going_on.values())]
        return [one.payer for one in others].count(client.payer) < SHARE

    def _let_go(self, settled: Settled) -> None:
        waiting = [*self._unknown]
        self._unknown.clear()
        if self._node.all_wait:
            waiting += self._waiting
            self._waiting.clear()
        settled.given_up = [*settled.given_up, *((client, "server stops") for client, _, _ in waiting)]

    def _look_for_the_unknown(self) -> None:
        """Let the queries begin whose client has become known, or will not; and those end whose asker has left."""
        unknown, self._unknown = self._unknown, []
        for one in unknown:
            client, query, _ = one
            if client.gone or self._node.ready or self._node.table.get(query.around) is not None:
                self._waiting.append(one)
            else:
                self._unknown.append(one)

    def _begin(self, client: Client, query: AreaQuery, reply: AreaReply, now: float) -> None:
        node, area = self._node, query.area
        if client.gone:
            leave(reply)
            self._done.append(client)
            return
        if area is None:
            held = node.rules.remembered(node.table.get(query.around))
            if held is None:
                if node.ready:
                    reply.outcome, reply.answer = "unknown", b""
                    self._done.append(client)
                else:
                    self._unknown.append((client, query, reply))
                return
            area = Circle(*degrees(held.line), query.metres)
        question = Question(area, query.most, query.after, self._judge(query))
        self._number += 1
        answered = partial(self._answer, self._number)
        self._going_on[self._number] = client, reply, answered
        if not self._searches.ask(question, answered, now):
            del self._going_on[self._number]
            self._waiting.appendleft((client, query, reply))

    def _end(self, number: int) -> AreaReply:
        """Return the reply of a search that has ended."""
        client, reply, _ = self._going_on.pop(number)
        self._done.append(client)
        return reply

    def _judge(self, query: AreaQuery) -> Accepts | None:
        """Return what decides who may be in the answer to a query; None: everybody."""
        rules, since, sees = self._node.rules, query.received_since, query.sees
        if sees is None and not since and not rules.age:
            return None

        def accepts(client: bytes, entry: Entry) -> bool:
            return (
                (sees is None or sees(client))
                and (not since or received(entry.line) >= since)
                and not rules.is_forgotten(entry)
            )

        return accepts

    def _answer(self, number: int, answer: SearchResult | Exception) -> None:
        reply = self._end(number)
        reply.answer = b""
        if isinstance(answer, SearchResult):
            rules = self._node.rules
            if rules.age:  # some may have become too old since they were looked at
                found = [one for one in answer.found if not rules.is_forgotten(one.entry)]
                answer = SearchResult(found, answer.next)
            reply.outcome, reply.result, reply.complete = "answered", answer, self._node.ready
        elif isinstance(answer, Misdrawn):
            reply.outcome, reply.reason = "invalid", str(answer)
        else:
            reply.outcome = "unanswered"
            self._failed.append((self._done[-1], answer))
