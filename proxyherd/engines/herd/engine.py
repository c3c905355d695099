"""The engine `herd`: the table is in this process, and in that of every other server.

A turn decides at once what it stores. Reports are appended to the journal, then sent to the live links, then answered:
one write to the journal, and one to each link. Updates that only neighbours have told are passed on at once. They are
appended to the journal within 5 ms, or before any client is answered, whichever comes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, Final

from proxyherd.core.area_queries import AreaReply
from proxyherd.core.area_searches import AreaSearches
from proxyherd.core.early_queries import EarlyQueries, EarlyQuery
from proxyherd.core.engine import Client, Said, Settled
from proxyherd.core.flood_paths import NO_SPARE_COPIES
from proxyherd.core.follows.follow import FollowReply
from proxyherd.core.follows.follows import Follows
from proxyherd.core.messages import Report
from proxyherd.core.news import its_line
from proxyherd.core.node import Node
from proxyherd.core.notes import Note
from proxyherd.core.reply import Reply, leave
from proxyherd.core.rules import refuse
from proxyherd.core.sizes import SIZES, Sizes
from proxyherd.engines.herd.open_links import OpenLinks
from proxyherd.engines.herd.ports import JournalWriter, Later, Peer

_PEER_LINES_A_CLIENT_LINE: Final = 4
"""Lines from peers that a turn handles for each line from clients: in a busy herd, most lines come from neighbours."""

_FEWEST_SHARES: Final = 32
"""A turn's lines are divided by the number of peers, but at most by this. So each peer has a share, however many there
are."""


_FEW_UPDATES: Final = SIZES.few_updates

_reports = attrgetter("reports")


def share(lately: int, sizes: Sizes = SIZES) -> int:
    """Return how many lines from peers one turn handles. `lately`: lines from clients in the latest turn with any, 0 if
    that was long ago.
    """
    if not lately:
        return sizes.peer_lines
    return min(max(sizes.peer_lines_beside_clients, _PEER_LINES_A_CLIENT_LINE * lately), sizes.peer_lines)


class HerdEngine:
    """The engine of one server. The connections of peers call `peer_said`, `add_link` and `wake`; `wake` asks for a turn.

    Until `later` calls `settle`, updates that only neighbours have told may wait for the journal and the log: the servers
    that took these reports have them in their journals. They are appended before any client is answered, and in front of
    the reports that came after them. Without `later`, nothing waits.
    """

    full = False
    """There is always room: everything is done within the turn."""

    def __init__(
        self,
        node: Node,
        journal: JournalWriter,
        wake: Callable[[], None],
        sizes: Sizes = SIZES,
        later: Later | None = None,
    ) -> None:
        self.wake = wake
        self._later = later
        self._unkept: list[bytes] = []  # lines of neighbours that are not in the journal yet
        self._can_wait = False  # whether updates from neighbours may wait for the journal
        self._settles = True  # whether nothing waits beyond this turn
        self.rules = node.rules
        self.keeper = self
        self._node = node
        self._journal = journal
        self._peers: deque[Peer] = deque()
        self._links = OpenLinks(node, later)
        self._release, self._failed = self._links.release, self._links.failed
        self._more: bool  # whether longer work is left
        self._syncs = False
        self._sizes = sizes
        self.areas = AreaSearches(node, wake)
        self.follows = Follows(node, wake)
        self._early: EarlyQueries[Client] = EarlyQueries(sizes)
        self._waiting: list[EarlyQuery[Client]] = []  # since this turn
        self._stage = self._decided_in = node.all_wait, node.ready
        self._looked_up: list[EarlyQuery[Client]] = []
        self._given_up: list[Client] = []
        self._stops = False

    # Calls from the connections of peers. --------------------------------------------------------------------

    def peer_said(self, peer: Peer) -> None:
        """Note that a peer has sent something."""
        if not peer.queued:
            peer.queued = True
            self._peers.append(peer)
            self.wake()

    def hear_few(self, peer: Peer, data: bytes, now: float, clock: int) -> bool:
        """Handle what a peer has sent without a turn, if it brings little or nothing new; return whether it was handled.
        `clock`: nanoseconds of POSIX time.
        """
        node = self._node
        most = _FEW_UPDATES if self._can_wait and not self._early else 0
        try:
            if not node.receive_few(peer.link, data, most, now, clock):
                return False
        except Exception as error:  # noqa: BLE001 - as in a turn
            peer.fail(error)
        if node.has_urgent_notes:
            self.wake()
        elif most and node.news and self._later is not None:
            self._later.pass_on_soon()
        elif node.notes:
            self._let_settle()
        return True

    def pass_on(self, now: float) -> None:
        """Pass on what was learned without a turn, if no turn has done so, and none will soon. The journal and the log
        have it later.
        """
        node = self._node
        if node.news and self._can_wait and not self._peers:
            self._unkept += map(its_line, node.news)
            node.flood(self._failed)
            self._release(now)
            self._let_settle()
            if self.follows.used and self.follows.take_in():
                self.wake()  # a turn tells them, behind the answers

    def add_link(self, peer: Peer) -> None:
        """Add a connection. At the end of each turn, it sends what its link has to send."""
        self._links.add(peer)
        self.wake()

    def remove_link(self, peer: Peer) -> None:
        """Forget a connection that is gone."""
        self._links.remove(peer)
        self.wake()

    def beat(self, now: float) -> None:
        """Send what the links have to send, such as heartbeats, even while a turn waits for the disk. Ask for a turn only
        if there is other work.
        """
        self._release(now)
        if self._node.notes or self._node.has_work or self._early or self.areas or self.follows.has_more:
            self.wake()

    def settle(self) -> list[Note]:
        """Append to the journal what waits for it, and return the notes for the log. If it cannot be appended, the
        journal fails as it does for a report, and its next snapshot has these lines.
        """
        if self._unkept:
            self._journal.append(self._unkept)
            self._unkept = []
        return self._node.take_notes()

    def send_spare(self, now: float) -> None:
        """Send the spare copies of updates that have waited."""
        self._links.send_spare()
        self._release(now)

    def let_go(self) -> None:
        """Let no query wait any more, because the server stops, perhaps long before it is ready. Clients whose queries
        wait are closed without an answer.
        """
        self._stops, self._can_wait = True, False
        self._node.spare_copies = NO_SPARE_COPIES
        self._links.send_spare()
        self._early.release()
        self.wake()

    # Calls from a turn. --------------------------------------------------------------------------------------

    def begin(self, now: float, received: int, lately: int) -> None:
        """Handle lines from the peers, and do a slice of longer work."""
        node = self._node
        self.rules.begin(received, takes_reports=self._journal.takes_reports)
        self._settles = not self._can_wait
        if self._peers:
            self._hear_peers(now, share(lately, self._sizes))
        self._more = node.work(now, self._failed)

    def decide(self, said: Sequence[Said]) -> None:
        """Store the reports with which each client's lines begin. Then decide about the lines after them."""
        self._settles = True
        for one, stored in zip(said, self._node.store(map(_reports, said)), strict=True):
            one.stored = stored
            if stored < len(one.lines):
                try:
                    self._decide_others(one)
                except Exception as error:  # noqa: BLE001 - the other clients' lines are decided
                    one.error = error

    def _decide_others(self, one: Said) -> None:
        lines: list[Any] = one.lines[one.stored :]  # an overlong one is not used
        judged = [*one.reports[one.stored :], *one.others]
        one.replies = replies = [*map(self._node.decide, lines, judged)]
        for line, reply in zip(lines, replies, strict=True):
            if reply.answer is None and reply.entry is None:
                if isinstance(reply, AreaReply):
                    self.areas.ask(one.client, line, reply)
                elif isinstance(reply, FollowReply):
                    self.follows.ask(one.client, line, reply)
                else:
                    self._waiting.append((one.client, line, reply))
                    self._decided_in = self._node.all_wait, self._node.ready

    def keep(self, done: Callable[[bool], None]) -> bool | None:
        """Append what this turn has stored to the journal. Return whether its reports are kept: if not, they must be
        refused. None: this is known when `done` is called.
        """
        node = self._node
        if self._early:
            self._look_up_again()
        lines = [*map(its_line, node.news)]
        if not self._settles:
            self._unkept += lines
            return True
        if self._unkept:
            lines = [*self._unkept, *lines]
        if not lines:
            return True
        kept = self._journal.append(lines)
        self._unkept = []
        if not kept or not self._journal.always:
            return kept

        def synced(kept: bool) -> None:
            self._syncs = False
            done(kept)

        self._syncs = True
        self._journal.sync(synced)
        return None

    def report(self, report: Report, now: float) -> bool:
        """Store, keep and send a report that is all this turn has to decide, in the usual state of a server."""
        node = self._node
        if not self._can_wait or node.news or self._early or (news := node.store_alone(report)) is None:
            return False
        try:
            kept = self._journal.append([*self._unkept, report.line])
        except Exception:  # noqa: BLE001 - `keep` raises it again
            kept = False
        if not kept:
            node.take_back(news)
            return False
        self._unkept.clear()
        self._settles = True
        node.flood_alone(news, self._failed)
        self._release(now)
        return True

    def undo(self) -> None:
        """Remove this turn's reports, which could not be kept, and take no more in this turn."""
        self._node.undo()
        self.rules.refuse_reports()
        self._waiting.clear()
        self.areas.undo()
        self.follows.undo()
        for client, line, reply in self._looked_up:
            self._look_up(client, line, reply)

    def send(self, now: float) -> None:
        """Send the updates over the links."""
        self._node.flood(self._failed)
        self._release(now)

    def end(self, now: float) -> Settled:
        """Return the results of the turn, such as the queries that no longer wait."""
        node = self._node
        settled = Settled()
        if self._waiting:
            self._let_wait()
        if self._looked_up or self._given_up:
            self._settle(settled)
        if self.areas.used or self.follows.used:
            self._serve_areas(settled, now)
        if self._settles or node.has_urgent_notes:
            settled.notes = node.take_notes()
        if self._unkept or node.notes:
            self._let_settle()
        elif self._later is not None:
            self._later.settled()
        if not self._can_wait and self._later is not None:
            # The first catch-up may bring what this server has answered before it was started again: until then, the
            # journal may not be whole.
            self._can_wait = node.caught_up and not (self._journal.always or self._stops or self.areas)
        settled.more = self.more
        return settled

    def _serve_areas(self, settled: Settled, now: float) -> None:
        """Do a slice of the searches, and gather what followers are to be told."""
        if self.areas.used:
            self.areas.run(settled, now, stops=self._stops)
            self._can_wait = self._can_wait and not self.areas  # what is in an answer is kept before
            self._more = self._more or self.areas.has_work
        if self.follows.used:
            self.follows.run(settled, now)
            self._more = self._more or self.follows.has_work

    def _let_settle(self) -> None:
        """Ask for a call of `settle` soon, or for a turn if nothing may wait."""
        if self._later is None:
            self.wake()
        else:
            self._later.settle_later()

    def _let_wait(self) -> None:
        """Let this turn's queries wait until the server is ready, or knows their client."""
        waiting, self._waiting = self._waiting, []
        self._stage = self._decided_in  # while the turn waited for the disk, it may have become another one
        for client, line, reply in waiting:
            if client.gone:
                leave(reply)
            elif self._stops:
                self._given_up.append(client)
            elif not self._early.add(client, line, reply):
                refuse(reply, line)

    def _settle(self, settled: Settled) -> None:
        looked_up, self._looked_up = self._looked_up, []
        given_up, self._given_up = dict.fromkeys(self._given_up), []
        done = [(client, reply) for client, line, reply in looked_up if not self._waits(client, line, reply)]
        settled.clients = dict.fromkeys(client for client, _ in done)
        settled.found = [(client, reply) for client, reply in done if reply.answer is None]
        settled.given_up = [(client, "server stops") for client in given_up]

    @property
    def more(self) -> bool:
        """Whether something is left for another turn."""
        early = self._early
        waited = bool(early) and (early.any_left or (early.any_due and not self._node.all_wait))
        return self._more or bool(self._peers) or waited

    def _hear_peers(self, now: float, lines: int) -> None:
        most = max(lines // min(len(self._peers), _FEWEST_SHARES), 1)
        for _ in range(len(self._peers)):
            peer = self._peers.popleft()
            peer.queued = False
            try:
                self._node.receive(peer.link, most, now)
                if peer.link.more:
                    self.peer_said(peer)
                else:
                    peer.heard()
            except Exception as error:  # noqa: BLE001 - the other neighbours are heard
                peer.fail(error)

    def _look_up_again(self) -> None:
        """Look up again the queries that came before the server was ready, if their answers may have changed."""
        node, early = self._node, self._early
        again = early.left()
        if self._stops:
            self._given_up += [client for client, _, _ in early.due(self._sizes.early_queries)]
        elif not node.all_wait:
            if self._stage != (stage := (node.all_wait, node.ready)):
                self._stage = stage
                early.release()
            again += early.known(node.news)
            again += early.due(self._sizes.look_ups)
        self._settles = self._settles or bool(again)
        for query in again:
            self._look_up(*query)
        self._looked_up += again

    def _waits(self, client: Client, line: bytes, reply: Reply) -> bool:
        """Let a query that was looked up again go on waiting, if it must; return whether it waits."""
        if reply.answer is not None or reply.entry is not None:
            return False
        if self._early.add(client, line, reply):
            return True
        refuse(reply, line)
        return False

    def _look_up(self, client: Client, line: bytes, reply: Reply) -> None:
        if client.gone:
            leave(reply)
            return
        assert reply.whatsat is not None
        again = self._node.look_up(reply.whatsat, line)
        reply.outcome, reply.answer = again.outcome, again.answer
        reply.entry, reply.status, reply.line = again.entry, again.status, again.line
