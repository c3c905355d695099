"""The engine `redis`: turns put commands into queues, batches take them to the masters of a cluster, and
outcomes wake later turns.

Each tag has a queue, in the order of the commands. A tag is idle, or waits for its master's next batch, or is
under way; further commands queue behind. While its shard has no master, a tag waits, up to the deadline. Then
the connections that asked are closed without an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, cast
from zlib import crc32

from proxyherd.config.address import Address
from proxyherd.config.schema import RedisSettings
from proxyherd.core.area_queries import AreaQuery, AreaReply
from proxyherd.core.engine import Client, Said, Settled
from proxyherd.core.follows.follow import Follow, FollowReply, Unfollow
from proxyherd.core.framing import WebCommand
from proxyherd.core.messages import NANOSECONDS, Forget, Report, Whatsat
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.backlog import Backlog
from proxyherd.engines.redis.batch import Asked, Batch, Failed, Wish
from proxyherd.engines.redis.commands import (
    SENT_KEY,
    SENT_VALUE,
    repeated_erasure,
    spell_forget,
    spell_key,
    spell_word,
)
from proxyherd.engines.redis.layout import LAST_TAG, PREFIXES, VALUE_BYTES
from proxyherd.engines.redis.outcomes import AGAIN, Outcomes
from proxyherd.engines.redis.routes import Routes, named
from proxyherd.engines.redis.sealing import Sealing
from proxyherd.engines.redis.shard import Library, Shard
from proxyherd.telemetry.observer import Observer

_BATCH_WISHES: Final = 2_000
_BATCH_BYTES: Final = 524_288
"""How many commands are sent to a master at once, and bytes of their lines. The master also serves others,
and such a batch keeps it busy for about ten milliseconds. A batch may exceed this by the wishes of one tag.
"""

_TAG_WISHES: Final = 100
"""The same for one tag, because a call is not interrupted."""

_AGAIN_SECONDS: Final = 0.02
"""The pause before commands are repeated for a tag whose keys are being moved."""

_PROBE_SECONDS: Final = 1.0
"""How often a master without reports is tested for whether it takes them: the delay until `/readyz` knows."""

_MILLISECOND: Final = 1_000_000


class RedisEngine:
    """The engine of one server's turns. `tombstone_seconds`: how long a tombstone is kept. `wake` requests a
    turn, `doubt` a new look at the cluster.
    """

    keeper = None
    """None: nothing is stored at once. Masters get what waits for them when the turn is over."""

    def __init__(
        self,
        rules: Rules,
        settings: RedisSettings,
        observer: Observer,
        library: Library,
        *,
        tombstone_seconds: float,
        doubt: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self.wake = wake
        self.rules = rules
        self.routes = Routes(self._connect)
        self._doubt = doubt
        self._settings = settings
        self._observer = observer
        self._library = library
        self._kept = int(tombstone_seconds * NANOSECONDS)
        self._sealing = Sealing(settings)
        self._loop = asyncio.get_running_loop()
        self._now: float
        self._queues: list[list[Wish]] = [[] for _ in range(layout.TAGS)]
        self.backlog = Backlog(self._queues, self.routes)
        self._busy = bytearray(layout.TAGS)  # waits for a batch, or is in flight
        self._singly: set[int] = set()  # tags whose keys are on their way
        self._particular: set[int] = set()  # all of these, and tags that want more than reports
        self._outcomes = Outcomes(rules)
        self._lead = spell_word(b"%d" % rules.lead)

    # What a turn wants. --------------------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """Whether so much waits for available masters that clients must wait too."""
        return self.backlog.full

    def begin(self, now: float, received: int, *_: object) -> None:
        """Note the time: `now` by the loop's clock, `received` in nanoseconds of POSIX time."""
        self.backlog.clock = self._now = now
        self.rules.begin(received, takes_reports=True)

    def decide(self, said: Sequence[Said]) -> None:
        """Queue what clients have sent for the next batches."""
        for one in said:
            try:
                self._decide(one)
            except Exception as error:  # noqa: BLE001 - the other clients' lines are decided
                one.error = error

    def _decide(self, one: Said) -> None:
        client, now, ask, age = one.client, self._now, self._ask, self.rules.age
        expires = spell_word(b"%d" % ((self.rules.clock + age) // _MILLISECOND)) if age else b""
        lines = cast("list[bytes]", one.lines)  # of an overlong one nothing is asked
        replies: list[Reply] = []
        one.replies = replies
        for line, judged in zip(lines, (*one.reports, *one.others), strict=True):
            if type(judged) is not Report:
                replies.append(self._decide_other(client, line, judged))
                continue
            at, reported = judged.line, judged.client
            tag = crc32(reported) & LAST_TAG
            prefix = PREFIXES[tag]  # what `spell_key` does, without calling it for each report
            key = SENT_KEY % (len(prefix) + len(reported), prefix, reported)
            value = SENT_VALUE % (VALUE_BYTES + len(at), judged.nanoseconds, at)
            asked = Asked("iamat", "waiting", None, None, None, "", 0, "", b"", key, value, at, now, expires)
            replies.append(asked)
            ask(client, asked, line, tag)

    def _decide_other(self, client: Client, line: bytes, judged: Whatsat | WebCommand | Reply) -> Reply:
        """Queue a query or an erasure; return the reply of the line."""
        if type(judged) is Whatsat:
            asked = Asked("whatsat", "waiting", whatsat=judged, since=self._now)
        elif type(judged) is Forget:  # its ID stands in no log
            words, line, stays = (
                spell_forget(judged, self.rules.clock, self._kept),
                b"",
                judged.before is not None,
            )
            asked = Asked("forget", "waiting", value=words, at=judged.client, since=self._now, may_stay=stays)
        else:
            return _without_table(judged)
        tag = layout.tag_of(judged.client)
        asked.key = spell_key(tag, judged.client)
        self._particular.add(tag)
        self._ask(client, asked, line, tag)
        return asked

    def _ask(self, client: Client, asked: Asked, line: bytes, tag: int) -> None:
        """Queue a report or a query for its master's next batch."""
        backlog = self.backlog
        if backlog.crowded and not self.routes.is_served(tag):
            self._give_up(client)
            return
        self._queues[tag].append((client, asked, line))
        backlog.wishes += 1
        backlog.size += len(line)
        if not self._busy[tag]:
            self._busy[tag] = 1
            self.routes.route(tag)

    def send(self, _: float) -> None:
        """Send nothing: nobody else has to know."""

    def end(self, _: float) -> Settled:
        """Return the replies that have come since the last turn."""
        return self._outcomes.take()

    # What a shard wants. -------------------------------------------------------------------------------------

    def gather(self, shard: Shard) -> tuple[Batch, bytes, int]:
        """Return the next batch of a master, its bytes, and the number of its replies."""
        batch, now = Batch(self._lead), self._loop.time()
        self.routes.choose_seal(shard, self._singly)
        queues, owners, particular, wanted = self._queues, self.routes.owners, self._particular, shard.wanted
        for _ in range(len(wanted)):
            if batch.wishes >= _BATCH_WISHES or batch.size >= _BATCH_BYTES:
                break
            tag = wanted.popleft()
            queue = queues[tag]
            if not queue:
                self._busy[tag] = 0
            elif tag in particular or owners[tag] is not shard or len(queue) > _TAG_WISHES:
                self._gather_with_care(shard, tag, batch)
            else:
                queues[tag] = []
                batch.add_reports(tag, queue)
        if not batch.calls and shard.seal is None:
            return batch, b"", 0
        if shard.seal is None:
            return (batch, *batch.end(*self._sealing.spell(batch.tags[0], shard.address, asking=True)))
        batch.probes = now >= shard.probe_at
        if batch.probes:
            shard.probe_at = now + _PROBE_SECONDS
        return (batch, *batch.end(*self._sealing.spell(shard.seal, shard.address, probe=batch.probes)))

    def _gather_with_care(self, shard: Shard, tag: int, batch: Batch) -> None:
        """Add the wishes of a tag in the general case (more than a few reports for its own master), or send
        them elsewhere.
        """
        queue, asking = self._queues[tag], tag in self.routes.detours
        home, most = self.routes.detours[tag] if asking else (self.routes.owners[tag], _TAG_WISHES)
        if home is not shard:
            self.routes.route(tag)
            return
        self._queues[tag] = queue[most:]
        batch.add(tag, queue[:most], singly=tag in self._singly, asking=asking)
        if not self._queues[tag] and tag not in self._singly:
            self._particular.discard(tag)

    def settle(self, shard: Shard, batch: Batch, replies: list[object], seconds: float) -> str:
        """Handle the replies to a batch; return why they must not be believed, or "" if they are good."""
        sealed, acknowledged = replies[-2:]
        if doubt := self._sealing.doubt(sealed, acknowledged):
            if isinstance(sealed, Exception) and shard.seal is not None:
                self._separate(shard.seal)  # let another tag be the seal
            self.give_back(batch, "unsealed")
            return doubt
        if batch.probes and (doubt := self._take_probe(shard, replies[-3])):
            self.give_back(batch, "refused")
            return doubt
        self._observer.cluster.batch(batch.wishes, seconds)
        answers = batch.answers(replies)
        failed = batch.failed(answers)
        self._outcomes.give(batch, answers, some_failed=bool(failed))
        self.backlog.wishes -= batch.wishes
        self.backlog.size -= batch.size
        for tag, failure in failed.items():
            self._put_back(tag, failure.wishes, failure.first)
            self.backlog.remember(failure.wishes)
        doubts = [""]
        for tag in batch.tags:
            if tag in failed:
                doubts.append(self._redirect(shard, tag, failed[tag]))
            elif self._queues[tag] or tag in self.routes.detours:
                self._go_on(tag)
            else:
                self._busy[tag] = 0
        self.wake()
        return max(doubts)

    def _take_probe(self, shard: Shard, reply: object) -> str:
        """Note whether a master takes reports; return why it must not be used, or "" if it may."""
        if isinstance(reply, Exception) and not isinstance(reply, self._library.full):
            return f"reports are refused: {reply}"
        self._note_room(shard, full=isinstance(reply, Exception))
        return ""

    def _note_room(self, shard: Shard, *, full: bool) -> None:
        if full != shard.full:
            shard.full = full
            self._observer.cluster.master_full(str(shard.address), full=full)

    def give_back(self, batch: Batch, why: str) -> None:
        """Take back a batch whose outcome is unknown: all of it is repeated."""
        tags: dict[int, list[Wish]] = {}
        for tag, wishes in batch.calls:
            tags.setdefault(tag, []).extend(wishes)
        limit = self._loop.time() - self._settings.deadline_seconds
        for tag, wishes in tags.items():
            self._put_back(tag, wishes)
            if wishes[0][1].since < limit:  # `tick` does not see what is in flight
                self._expire(tag, limit)
            self.routes.detours.pop(tag, None)
            self.routes.route(tag)
        self._observer.cluster.retried(why, batch.wishes)
        self._doubt()

    def _put_back(self, tag: int, wishes: list[Wish], undone: int = 0) -> None:
        """Put wishes back into a tag's queue, before newer ones; so many were certainly not executed."""
        for _, asked, _ in wishes[undone:]:
            asked.outcome = AGAIN
            if asked.kind == "forget":
                asked.value = repeated_erasure(asked.value)  # a report may have come since that first time
                asked.may_stay = True  # or be of a server whose clock is ahead, and nobody knows which
        self._particular.add(tag)
        self._queues[tag][:0] = wishes

    def changed(self, shard: Shard) -> None:
        """Note that a master has become available, or is no longer."""
        self._observer.cluster.master(str(shard.address), shard.trouble)
        if shard.trouble:
            self._doubt()

    def fault(self, what: str, error: Exception) -> None:
        """Note a bug in the program."""
        self._observer.fault(what, error)

    # What has failed. ----------------------------------------------------------------------------------------

    def _redirect(self, shard: Shard, tag: int, failed: Failed) -> str:
        """Let a tag repeat what failed where it can succeed, perhaps later; return the master's fault, or ""."""
        error, library = failed.error, self._library
        if isinstance(error, library.moved):  # before the next, of which it is one
            self._observer.cluster.retried("moved", len(failed.wishes))
            # A node that is not known yet may have another name in the view that is asked for now.
            self.routes.owners[tag] = self.routes.shards.get(named(error, shard), self.routes.owners[tag])
            self._later(tag)
            self._doubt()
        elif isinstance(error, library.asked):
            self._observer.cluster.retried("asked", len(failed.wishes))
            self._separate(tag)
            queries = next(
                (at for at, (_, asked, _) in enumerate(failed.wishes) if asked.whatsat is None), failed.first
            )
            if queries:
                self.routes.detours[tag] = (
                    self.routes.shard(named(error, shard)),
                    min(queries, failed.first),
                )
                self.routes.route(tag)
            else:  # whether somebody was erased is known when the slot has moved
                self._later(tag)
        elif isinstance(error, library.later):
            self._observer.cluster.retried("split", len(failed.wishes))
            self._separate(tag)
            self._later(tag)
        elif isinstance(error, library.full):
            self._note_room(shard, full=True)
            if self._refuse(tag, failed.first):
                self._go_on(tag)
            else:
                self._observer.cluster.retried("full", failed.first)
                self._later(tag)
        else:
            self._observer.cluster.retried("refused", len(failed.wishes))
            self._later(tag)
            return str(error)
        return ""

    def _separate(self, tag: int) -> None:
        """Make each wish of a tag a call of its own, because its keys are being moved."""
        self._singly.add(tag)
        self._particular.add(tag)

    def _refuse(self, tag: int, count: int) -> bool:
        """Refuse the first reports in a queue, because Redis has no memory for them. Those that may have been
        stored before wait for memory, or for their deadline; return whether there are none of these.
        """
        queue = self._queues[tag]
        tried = self._outcomes.refuse(queue[:count])
        self._queues[tag] = tried + queue[count:]
        self.backlog.forget(queue[:count])
        self.backlog.remember(tried)
        return not tried

    def _later(self, tag: int) -> None:
        self.routes.detours.pop(tag, None)
        self._loop.call_later(_AGAIN_SECONDS, self.routes.route, tag)

    def _go_on(self, tag: int) -> None:
        """Schedule a tag's next turn, if something waits."""
        self.routes.detours.pop(tag, None)
        if self._queues[tag]:
            self.routes.route(tag)
        else:
            self._busy[tag] = 0

    # Masters, and time. --------------------------------------------------------------------------------------

    def learn(self, masters: Sequence[Address | None]) -> None:
        """Note the master of each tag, None if there is none."""
        before = self.routes.spread()
        self._singly.clear()
        self.routes.learn(masters)
        if (now := self.routes.spread()) != before:
            self._observer.cluster.masters(now)

    def tick(self, now: float) -> None:
        """Let time pass: give up what has waited too long, and count what waits for masters that are not
        available.
        """
        limit = now - self._settings.deadline_seconds
        for tag, queue in enumerate(self._queues):
            if queue and queue[0][1].since < limit:
                self._expire(tag, limit)
        if self.backlog.tick(now):
            self.wake()

    def _expire(self, tag: int, limit: float) -> None:
        queue = self._queues[tag]
        count = next((at for at, wish in enumerate(queue) if wish[1].since >= limit), len(queue))
        for wish in queue[:count]:
            self._give_up(wish[0])
        self._queues[tag] = queue[count:]
        self.backlog.forget(queue[:count])

    def _connect(self, address: Address) -> Shard:
        settings = self._settings
        return Shard(
            address, self, self._library, seconds=settings.timeout_seconds, gathers=settings.gather_seconds
        )

    async def close(self) -> None:
        """Close all connections, each after its batch."""
        await self.routes.close()

    def _give_up(self, client: Client) -> None:
        self._outcomes.give_up(client)
        self.wake()


def _without_table(judged: WebCommand | Reply) -> Reply:
    """Return a reply that does not depend on the table, or that to a command which needs an index of it."""
    if isinstance(judged, AreaQuery):
        return AreaReply(judged.kind, "refused", b"", refusal="no_index")
    if isinstance(judged, Follow | Unfollow):
        return FollowReply(type(judged).__name__.lower(), "refused", b"", refusal="no_index")
    assert isinstance(judged, Reply)
    return judged
