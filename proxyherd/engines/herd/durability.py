"""Replays a server's journal, syncs it, keeps it short, and mends it.

`everysecond` syncs in a thread once a second: a power cut costs at most the last second. `always` delays a turn's
answers and floods until the disk has what the turn stored; what arrives meanwhile shares the next sync. `off` leaves
syncing to the system. With any policy, a killed process loses no answered report: the kernel has what was appended.

When the journal fails, reports are refused until a rewrite has brought the whole table to disk again. (If configured
so, they are taken without a promise instead.) A rewrite is tried every second.

A journal that is too old is not used, and after an erasure the journal is rewritten within `rewrite_seconds`: see
`retention`. Its age counts from the last contact with the herd. After a long time without one, a running server may drop
what is in doubt (`core/contact.py`); then the journal is rewritten at once.

After a start, the journal may lack records: if its mark does not say that it is whole (see `mark`), or if a file is
damaged or torn. Then `lacks` says why, and the mark is void, until a first catch-up has brought what is missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from itertools import repeat
from typing import Final

from proxyherd.config.schema import DurabilitySettings, ErasureSettings
from proxyherd.core.erasures import longest_absence
from proxyherd.core.messages import NANOSECONDS
from proxyherd.core.node import Node
from proxyherd.core.ticks import seconds_to_moment
from proxyherd.core.tombstones import parse_learned
from proxyherd.engines.herd.journal import Finding, Journal, records_bytes, sync
from proxyherd.engines.herd.mark import Mark
from proxyherd.engines.herd.retention import RewriteTimer, TableElsewhere, is_outdated
from proxyherd.engines.herd.rewrite import Rewrite
from proxyherd.telemetry.observer import Observer

_SECOND: Final = 1.0

_MOMENT_NANOSECONDS: Final = 3_600 * NANOSECONDS
"""How often the mark gets a new moment, at most, while the server is in contact: an idle one need not write more often."""

_LOST_NANOSECONDS: Final = 10 * NANOSECONDS
"""How long after the last contact it is written as it was."""

_SLICE_BYTES: Final = 131_072
_SLICE_LINES: Final = 512

_LOOK_SECONDS: Final = 0.001
"""Between two looks whether a turn still waits for the disk."""


async def _second_when(condition: Callable[[], bool]) -> None:
    """Wait for a second at whose beginning a condition holds. A timer asks: to resume a task costs more than that."""
    loop = asyncio.get_running_loop()
    held = loop.create_future()
    timer: asyncio.TimerHandle

    def ask_later() -> None:
        nonlocal timer
        timer = loop.call_later(seconds_to_moment(loop.time(), _SECOND), ask)

    def ask() -> None:
        if held.cancelled():
            return
        try:
            if condition():
                held.set_result(None)
            else:
                ask_later()
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            held.set_exception(error)

    ask_later()
    try:
        await held
    finally:
        timer.cancel()


class Durability:
    """Drives the journal of one server. The journal has been started before."""

    def __init__(
        self,
        journal: Journal,
        mark: Mark,
        node: Node,
        settings: DurabilitySettings,
        observer: Observer,
        erasure: ErasureSettings = ErasureSettings(),  # noqa: B008 - it never changes
    ) -> None:
        self.lacks = journal.failing or mark.lacks(journal.found)
        """Why records from before the start may be missing; empty if none are."""
        self._journal = journal
        self._mark = mark
        self._node = node
        self._settings = settings
        self._observer = observer
        self.always = settings.fsync == "always"
        self.replayed = 0.0
        """The part of the journal that has been replayed, from 0 to 1."""
        self._syncs: set[asyncio.Task[None]] = set()
        self._absence = longest_absence(erasure)
        self._step = min(_MOMENT_NANOSECONDS, self._absence // 32)
        self._timer = RewriteTimer(node, erasure.rewrite_seconds)
        self._told_kept = False
        self._has_to_rewrite = False
        self._dropped = 0  # lines that were in doubt, as far as they are told
        # Only one that others keep up to date can be too old. Until that is known, the last mark stays.
        moment, clock = mark.moment(journal.found), time.time_ns()
        self._may_be_outdated = not node.alone and moment <= clock - self._absence
        node.contact.last, node.contact.began = moment or mark.last_moment or clock, 0 if moment else clock
        self._leave_mark()

    @property
    def failing(self) -> str:
        """Why an answered report might not survive a kill; empty if it will."""
        return self._journal.failing

    @property
    def takes_reports(self) -> bool:
        """Whether reports are taken."""
        return not self._journal.failing or self._settings.on_failure == "accept"

    def append(self, lines: list[bytes]) -> bool:
        """Append a turn's updates. Return False if the reports among them must be refused."""
        if self._journal.append(lines):
            return True
        self._tell()
        return self.takes_reports

    def sync(self, done: Callable[[bool], None]) -> None:
        """Bring what was appended to disk. Then call `done`, with False if the turn's reports must be refused. Call it
        in an event loop.
        """
        task = asyncio.get_running_loop().create_task(self._sync_then(done))
        self._syncs.add(task)
        task.add_done_callback(self._syncs.discard)

    async def _sync_then(self, done: Callable[[bool], None]) -> None:
        kept = False
        try:
            kept = await self._sync()
        except Exception as error:  # noqa: BLE001 - as if the disk had failed: the turn goes on
            with contextlib.suppress(Exception):  # it may be the log that fails
                self._observer.fault("what this turn has stored cannot be kept", error)
        # In the same step in which the failure is noted: a rewrite that begins later must not find what `done` removes.
        done(kept)

    async def _sync(self) -> bool:
        try:
            await asyncio.to_thread(sync, self._journal.begin_sync())
        except OSError as error:
            self._journal.fail(error)
            self._tell()
        return self.takes_reports

    async def replay(self) -> None:
        """Load the journal's records into the table, in slices. The server takes reports meanwhile. With `always`, the
        records are synced first: nobody may learn what a power cut could still take.
        """
        if self.always:
            await self._sync()
        began = time.monotonic()
        lines = size = 0
        whole = max(self._journal.bytes_found, 1)
        self._node.rules.begin(time.time_ns(), takes_reports=self.takes_reports)
        await self._set_aside_if_outdated()
        for found in self._journal.replay():
            if isinstance(found, Finding):
                self._report(found)
                continue
            lines += len(found)
            size += records_bytes(found)
            self.replayed = size / whole
            for at in range(0, len(found), _SLICE_LINES):
                # While a turn waits for the disk, what it has stored hides older records. If that has to be taken back,
                # they must not have been passed over.
                while self._node.news:  # noqa: ASYNC110 - a turn sets no event, for this alone
                    await asyncio.sleep(_LOOK_SECONDS)
                self._node.replay(
                    map(parse_learned, found[at : at + _SLICE_LINES], repeat(self._node.rules.lead))
                )
                await asyncio.sleep(0)
        self.lacks = self.lacks or self._journal.failing
        self._observer.journal.replayed(lines, len(self._node.table), time.monotonic() - began)
        if self.lacks and self._journal.found:
            self._observer.journal.lacks(self.lacks)
        self._tell()

    async def _set_aside_if_outdated(self) -> None:
        """Do not use a journal that is too old: clients may have been erased since, and nobody will know it any more."""
        oldest = self._node.rules.clock - self._absence
        if self._may_be_outdated and await is_outdated(self._journal.newest_first(), self._node, oldest):
            self._journal.set_aside(self._node.rules.clock)
            self.lacks = f"they are older than {self._days}"
            self._observer.journal.outdated(self.lacks)
            self._node.contact.last = self._node.contact.began = self._node.rules.clock
        self._may_be_outdated = False

    @property
    def _days(self) -> str:
        return f"{self._absence / NANOSECONDS / 86_400:g} days"

    async def watch(self) -> None:
        """Each second, for ever, check that the files are still there, and sync them if that is the policy. This goes on
        during a replay and a rewrite.
        """
        while True:
            await _second_when(self._has_to_sync)
            await self._sync()

    def _has_to_sync(self) -> bool:
        self._journal.check()
        self._tell()  # before any wait: a rewrite may mend it meanwhile
        return self._journal.unsynced and self._settings.fsync == "everysecond"

    async def keep(self) -> None:
        """Rewrite and mend the journal, for ever; call when everything is replayed."""
        while True:
            await _second_when(self._has_to_write)
            if self._has_to_rewrite:
                await self._rewrite()
            if self._node.caught_up:
                self.lacks = ""
            self._tell()

    def _has_to_write(self) -> bool:
        """Whether a rewrite is due, or the mark may change; `watch` tells the rest."""
        journal = self._journal
        if self._settings.fsync == "off":
            journal.drop_unsynced()
        due = self._timer.look(time.monotonic(), wanted=self._has_to_look)
        self._has_to_rewrite = due or bool(journal.failing) or journal.wants_rewrite or self._has_dropped
        return self._has_to_rewrite or bool(self.lacks)

    @property
    def _has_to_look(self) -> bool:
        """Whether files are set aside, and it can be known whether a neighbour has what is in them."""
        return bool(self._journal.outdated) and self._node.caught_up and not self._told_kept

    @property
    def _has_dropped(self) -> bool:
        """Whether lines were dropped that the journal still has."""
        return self._node.contact.doubted != 0 and self._node.contact.aside is None

    async def close(self) -> None:
        """Bring everything to disk and close the files."""
        await self._sync()
        if self._node.caught_up:  # it may have ended a moment ago
            self.lacks = ""
        self._leave_mark(closed=True)
        self._journal.close()

    async def _rewrite(self) -> None:
        began, table, rewrite = time.monotonic(), self._node.table, self._journal.begin_rewrite()
        if rewrite is None:
            return
        contact, has_dropped = self._node.contact, self._has_dropped
        self._leave_mark()
        elsewhere = (
            TableElsewhere(self._journal.set_aside_at, self._absence) if self._journal.outdated else None
        )
        finishing = False
        try:
            await self._write_aside(rewrite)  # even if it is put back meanwhile
            leaf = 0
            while leaf < table.leaf_count:
                lines, leaf = table.lines(leaf, table.leaf_count, _SLICE_BYTES)
                rewrite.write(lines)
                if elsewhere is not None:
                    elsewhere.look(lines)
                await asyncio.sleep(0)
            await self._write_aside(rewrite)  # if it was set aside meanwhile
            finishing = True
            gone = self._node.caught_up and elsewhere is not None and elsewhere.shown
            await asyncio.to_thread(rewrite.finish, self._journal.outdated if gone else ())
        except OSError as error:
            rewrite.abandon()
            self._journal.fail(error)
            return
        except asyncio.CancelledError:
            if not finishing:  # else the thread still works on the files, and ends by itself
                rewrite.abandon()
            raise
        self._journal.end_rewrite(rewrite)
        if has_dropped:
            contact.doubted = 0
            self._observer.journal.dropped(contact.dropped - self._dropped, self._days)
            self._dropped = contact.dropped
        self._timer.rewritten(time.monotonic())
        self._leave_mark()
        self._observer.journal.rewritten(rewrite.size, time.monotonic() - began)
        if self._has_to_look:
            self._told_kept = True
            self._observer.journal.outdated_kept(len(self._journal.outdated))

    async def _write_aside(self, rewrite: Rewrite) -> None:
        """Write what is set aside: it is in no leaf, and may be put back."""
        aside = self._node.contact.aside
        lines = [entry.line for entry in aside.values()] if aside else []
        for at in range(0, len(lines), _SLICE_LINES):
            rewrite.write(lines[at : at + _SLICE_LINES])
            await asyncio.sleep(0)

    def _report(self, found: Finding) -> None:
        name = found.path.name
        if found.torn or found.damaged:
            self.lacks = self.lacks or f"{name} is damaged"
            self._leave_mark()
        if found.torn:
            self._observer.journal.torn(name, found.records, found.torn)
        if found.damaged:
            self._observer.journal.damaged(name, found.records, found.damaged)

    def _tell(self) -> None:
        """Log that the journal fails, or no longer fails, and update the mark for the next start."""
        self._leave_mark()
        journal = self._journal
        self._observer.journal.state(
            journal.bytes_written, journal.failures, journal.failing, takes_reports=self.takes_reports
        )

    def _leave_mark(self, *, closed: bool = False) -> None:
        if self._may_be_outdated:
            return
        clock = time.time_ns()
        moment = clock if self._node.alone else self._node.contact.of_journal
        if not closed and clock - moment < _LOST_NANOSECONDS:
            moment -= moment % self._step
        if self.lacks or self._journal.failing:
            self._mark.make_void(moment)
        else:
            self._mark.write(self._journal.listing(), moment, closed=closed)
