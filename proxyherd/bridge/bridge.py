"""The bridge, put together: a member of the herd, the masters of the cluster, and when they are in step.

In step means: when a pass over the cluster has ended, both sides have everything that either had when it began. For
this, the links with all neighbours must have been in step from its beginning to its end; what neighbours had sent by
its end must have been written; and what the pass has read must have been sent to them.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct

from proxyherd import __version__
from proxyherd.bridge.masters import Masters, TagWrites
from proxyherd.bridge.member import Member
from proxyherd.bridge.passes import Passes, Unfit
from proxyherd.config import secrets as secret
from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd, Server
from proxyherd.core.messages import At
from proxyherd.core.ticks import seconds_to_moment, step
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.opening import Opener
from proxyherd.net import tls
from proxyherd.net.binding import Binder
from proxyherd.net.resolving import new_event_loop
from proxyherd.server.process import Background, forbid_core_dumps, open_log
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

_ALIKE: Final = (
    ("limits", "max_line_bytes"),
    ("limits", "max_age_seconds"),
    ("limits", "max_clock_lead_seconds"),
    ("erasure", "tombstone_seconds"),
)
"""Tables and keys that both sides must agree on."""

_PAUSE_SECONDS: Final = 0.5
_LONGEST_PAUSE_SECONDS: Final = 5.0
"""The pause between two passes: as long as the last pass took, within these bounds, to leave time for writing."""

_SHOW_SECONDS: Final = 0.2
_SETTLE_SECONDS: Final = 0.02
_HEAR_SECONDS: Final = 1.0
_LOG_BYTES: Final = 67_108_864
"""The size of its log before it is rotated; this cannot be configured."""


class Figures(Struct, frozen=True):
    """The progress. All are numbers of clients, except `passes`, and `lag`: the seconds for which the oldest waiting
    client has waited.
    """

    known: int
    heard: int
    written: int
    waiting: int
    read: int
    held: int
    news: int
    passes: int
    lag: float
    in_step: bool
    ending: bool
    trouble: str


class Outcome(Struct, frozen=True):
    """How it ended; `whole` if everything that it held is on both sides."""

    whole: bool
    text: str


def check(herd: Herd, to: Herd) -> None:
    """Check that these two can be joined. Raises ConfigError."""
    if herd.redis is not None:
        raise ConfigError(
            f'{herd.file}: key table.engine: is "redis"; name the herd\'s own file with --config'
        )
    if to.redis is None:
        raise ConfigError(
            f'{to.file}: key table.engine: is "herd"; name the file of servers of the cluster with --to'
        )
    for table, key in _ALIKE:
        one, other = (getattr(getattr(side, table), key) for side in (herd, to))
        if one != other:
            raise ConfigError(
                f"{to.file}: key {table}.{key}: is {other:g}, but {one:g} in {herd.file}; what moves must be as long "
                "and as old on both sides, and in the same order, so give both the same"
            )


def run(
    herd: Herd,
    name: str,
    to: Herd,
    *,
    secret_file: Path,
    log: Path,
    once: bool,
    patience: float,
    show: Callable[[Figures], None],
) -> Outcome:
    """Run the bridge in the place of a server, until it is stopped. Raises ConfigError."""
    server = herd.server(name)
    check(herd, to)
    if not server.neighbours:
        raise ConfigError(
            f"{herd.file}: key edges: {name} has no neighbours to hear from; name another server"
        )
    forbid_core_dumps()
    secrets, contexts = secret.read_all(secret_file), tls.load(herd, name)
    log_file = open_log(log, max_bytes=_LOG_BYTES)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        try:
            return runner.run(
                _Bridge(herd, server, to, secrets, contexts, log_file, patience, show).run(once=once)
            )
        finally:
            log_file.close()


class _Bridge:
    def __init__(
        self,
        herd: Herd,
        server: Server,
        to: Herd,
        secrets: secret.Secrets,
        contexts: tls.Contexts,
        log_file: LogFile,
        patience: float,
        show: Callable[[Figures], None],
    ) -> None:
        self._herd = herd
        self._server = server
        self._to = to
        self._secrets = secrets
        self._contexts = contexts
        self._log_file = log_file
        self._log = make_logger(
            log_file, server=server.name, level=herd.log.level, max_field_bytes=herd.log.max_field_bytes
        )
        self._patience = patience
        self._show = show
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._stepped = asyncio.Event()
        self._background = Background(self._failed)
        self._news = 0
        self._refused = 0
        self._done = 0
        self._unfit = ""
        self._once = False
        self._fault = ""
        self._ending = False

    async def run(self, *, once: bool) -> Outcome:
        """Run until SIGTERM or SIGINT, or, if `once`, until both are in step."""
        self._once = once
        loop = self._loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        self._log_file.gather(loop.call_soon)
        self._observer = Observer(self._log, self._log_file, Metrics(), self._server.neighbours)
        self._member, opener = self._open()
        self._masters = Masters(self._to, opener, self._observer, self._find)
        self._passes = Passes(self._masters, self._learn, self._member.has_room, self._herd.limits.clock_lead)
        binder = Binder(self._log, self._background.spawn)
        try:
            await self._member.listen(binder)
            if binder.unbound:
                return Outcome(
                    False,
                    f"{', '.join(sorted(binder.unbound))} cannot be had: the bridge takes the place of "
                    f"{self._server.name}, so stop that server first",
                )
            self._log.info("started", version=__version__, pid=os.getpid())
            self._well = loop.time()
            self._tick()
            self._reading = self._background.spawn(self._keep_reading())
            self._background.spawn(self._keep_showing())
            gave_up = await self._work()
            return await self._finish(gave_up)
        finally:
            await self._background.end()
            await self._masters.close()

    def _open(self) -> tuple[Member, Opener]:
        """Make the parts that reach both sides."""
        assert self._to.redis is not None
        member = Member(self._herd, self._server, self._secrets, self._contexts, self._observer, self._heard)
        return member, Opener(self._to.redis, self._to.file, os.environ, self._observer)

    def _told_to_stop(self) -> None:
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _failed(self, error: BaseException) -> None:
        self._observer.fault("a background task failed", error)
        self._fault = f"a fault of the program, which its log has: {error!r}"
        self._stop.set()

    def _tick(self) -> None:
        seconds = seconds_to_moment(self._loop.time(), step(self._herd.timing.heartbeat_seconds))
        self._ticker = self._loop.call_later(seconds, self._tick)
        self._member.tick()
        if not self.trouble:
            self._well = self._loop.time()

    async def _keep_showing(self) -> None:
        while True:
            self._show(self.figures())
            await asyncio.sleep(_SHOW_SECONDS)

    # What goes across. ---------------------------------------------------------------------------------------

    def _heard(self, client: bytes) -> None:
        self._masters.outbox.add(client, self._loop.time())

    def _find(self, clients: list[bytes]) -> TagWrites:
        """Return what to write for these clients, without those that are forgotten by now."""
        found = TagWrites([], [], [], [])
        for client in clients:
            if until := self._member.erased_until(client):
                found.erased.append((client, until))
            if (value := self._member.value_of(client)) is not None:
                line, nanoseconds, expires = value
                found.clients.append(client)
                found.values.append(layout.VALUE % (nanoseconds, line))
                if expires:
                    found.expiries.append(b"%d" % expires)
        return found

    def _learn(self, ats: list[At]) -> None:
        news, ahead, refused = self._member.learn(ats)
        self._news += news
        self._refused += refused
        for client in ahead:
            self._masters.outbox.add(client, self._loop.time())

    # When both are in step. ----------------------------------------------------------------------------------

    async def _keep_reading(self) -> None:
        while True:
            while not self._masters.found:  # noqa: ASYNC110 - masters do not tell
                await asyncio.sleep(_SETTLE_SECONDS)
            since, began = self._loop.time(), self._member.node.in_step
            try:
                await self._passes.read_all()
                await self._member.erase(self._passes.tombstones)
                await self._settle(self._loop.time())
            except Unfit as error:
                self._unfit = str(error)
                self._stepped.clear()
            else:
                self._unfit = ""
                self._done += 1
                if set(began) == {*self._server.neighbours} and began == self._member.node.in_step:
                    self._stepped.set()
                else:
                    self._stepped.clear()
            took = self._loop.time() - since
            await asyncio.sleep(min(max(took, _PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS))

    async def _settle(self, ended: float) -> None:
        """Wait until everything received before this time is written, and everything read is sent."""
        while self._masters.outbox.oldest <= ended or self._member.unsent:  # noqa: ASYNC110 - masters do not tell
            await asyncio.sleep(_SETTLE_SECONDS)

    @property
    def trouble(self) -> str:
        """What prevents both from getting in step; empty if it only takes time."""
        troubles = [f"no link with {', '.join(unlinked)}"] if (unlinked := self._member.unlinked) else []
        if self._refused:
            troubles.append(self._full)
        troubles += dict.fromkeys(filter(None, (self._masters.trouble, self._unfit)))
        return "; ".join(troubles)

    @property
    def _full(self) -> str:
        return (
            f"{self._refused} clients of the cluster have no room in the herd: raise limits.max_clients and "
            f"limits.max_table_bytes in {self._herd.file}"
        )

    def figures(self) -> Figures:
        """Return the progress."""
        masters, now = self._masters, self._loop.time()
        return Figures(
            known=len(self._member.node.table),
            heard=self._member.heard,
            written=masters.written,
            waiting=masters.outbox.count,
            read=self._passes.read,
            held=self._passes.held,
            news=self._news,
            passes=self._done,
            lag=max(0.0, now - masters.outbox.oldest),
            in_step=self._stepped.is_set(),
            ending=self._ending,
            trouble=self.trouble if not self._ending else masters.trouble,
        )

    # The end. ------------------------------------------------------------------------------------------------

    async def _work(self) -> str:
        """Wait for the end; return why it was given up, or "" if it was not."""
        while not self._stop.is_set():
            if self._once:
                if self._refused:
                    return self._full
                if self._stepped.is_set():
                    return ""
                if self._loop.time() - self._well > self._patience:
                    return f"not in step within {self._patience:g} s: {self.trouble}"
            await asyncio.sleep(_SETTLE_SECONDS)
        return self._fault or ("stopped before both were in step" if self._once else "")

    async def _finish(self, gave_up: str) -> Outcome:
        """Bring the rest to both sides."""
        self._log.info("stopping", connections=0)
        self._ending, member = True, self._member
        self._reading.cancel()
        await member.hear_out(_HEAR_SECONDS)
        await self._until(lambda: {*member.node.linked} <= {*member.node.in_step})
        neighbours = sorted(member.node.linked)
        in_step = {*neighbours} <= {*member.node.in_step}
        self._ticker.cancel()
        handed = await member.part(self._herd.timing.drain_seconds) and in_step
        written = await self._write_rest()
        self._log.info("stopped")
        known = len(member.node.table)
        reasons = [gave_up or (self._full if self._refused else "")]
        if not written:
            why = self._masters.trouble or "it was told to stop twice"
            reasons.append(
                f"{self._masters.outbox.count} of {known} clients may not be in the cluster ({why})"
            )
        if not handed:
            reasons.append(f"{', '.join(neighbours)} may not have all {known} clients")
        if any(reasons):
            return Outcome(False, f"{'; '.join(filter(None, reasons))}. Nothing was lost: start it again")
        when = "in step" if self._stepped.is_set() else "before all of both was compared"
        to = f", and {', '.join(neighbours)} have them" if neighbours else "; no neighbour was linked"
        foreign = self._passes.foreign
        left = f"; {foreign} keys there were written by others, and left alone" if foreign else ""
        return Outcome(True, f"ended {when}: all {known} clients it held are in the cluster{to}{left}")

    async def _until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, until patience ends or a second signal arrives."""
        deadline = self._loop.time() + self._patience
        while not (condition() or self._hurry.is_set() or self._loop.time() > deadline):  # noqa: ASYNC110 - as above
            await asyncio.sleep(_SETTLE_SECONDS)

    async def _write_rest(self) -> bool:
        """Wait until everything is written, as long as there is progress; return whether it is."""
        masters = self._masters
        written, since = masters.written, self._loop.time()
        while masters.outbox.count:
            if self._hurry.is_set() or self._loop.time() - since > self._patience:
                return False
            await asyncio.sleep(_SETTLE_SECONDS)
            if masters.written != written:
                written, since = masters.written, self._loop.time()
        return True
