"""A server's journal as its turns know it, through all the server's lives."""

from __future__ import annotations

import math
from collections.abc import Callable

from proxyherd.core.table import Table
from proxyherd.core.tombstones import parse_learned
from simulation.world import SimulatedWorld


class Disk:
    """Full, slow, failing, and in a power cut without what was not synced. What a plan's journal is:

    - none: nothing is kept
    - kept: a power cut loses nothing either
    - less a second: a power cut loses the last second
    - always: turns wait for a sync; a power cut may lose what was not synced
    """

    def __init__(self, world: SimulatedWorld, name: str) -> None:
        self.kind = world.plan.journal
        self.always = self.kind == "always"
        self.records: dict[bytes, float] = {}  # lines, and when a power cut spares them
        self.kept: set[bytes] = (
            set()
        )  # lines that may be told of: what they were ever kept as has its promise
        self.failed = False
        self.has_failed = False  # in this life
        self.full_until = 0.0
        self.moment = 0  # at which the server ran, as its mark has it
        self._world = world
        self._name = name
        self._life = 0
        self.syncs = False  # a turn waits, and what it has stored may have to be taken back

    @property
    def takes_reports(self) -> bool:
        return not self.failed

    def append(self, lines: list[bytes]) -> bool:
        """Append a turn's lines, all or none."""
        if self.kind == "none":
            return True
        now = self._world.now
        if self.full_until > now:
            self._fail("full")
        if self.failed:
            return False
        safe_at = {"kept": -math.inf, "less a second": now + 1.0, "always": math.inf}[self.kind]
        for line in lines:  # again at the end, if it is there already
            self.records[line] = min(safe_at, self.records.pop(line, math.inf))
        if not self.always:
            self.kept.update(lines)
        return True

    def sync(self, done: Callable[[bool], None]) -> None:
        """Bring to disk what was appended, which takes its time; it fails where the disk has become full."""
        covered = [line for line, safe_at in self.records.items() if safe_at == math.inf]
        world = self._world
        self.syncs = True
        world.after(world.rng.uniform(0, world.plan.disk_seconds), self._synced, self._life, covered, done)

    def _synced(self, life: int, covered: list[bytes], done: Callable[[bool], None]) -> None:
        if life != self._life:
            return
        self.syncs = False
        if self.full_until > self._world.now:
            self._fail("failing")
        else:
            self.records |= dict.fromkeys(covered, -math.inf)
            self.kept.update(covered)
        done(self.takes_reports)

    def _fail(self, how: str) -> None:
        if not self.failed:
            self._world.say(f"{self._name}'s disk is {how}")
        self.failed = self.has_failed = True

    def mend(self, table: Table) -> None:
        """Write a journal that failed anew, as a synced snapshot, where the disk has room again."""
        if self.failed and self.full_until <= self._world.now and not self.syncs:
            self.failed = False
            self.rewrite(table)

    def rewrite(self, table: Table) -> bool:
        """Write the journal anew, as a synced snapshot, if it can be written; return whether it was."""
        if self.kind == "none" or self.failed or self.full_until > self._world.now or self.syncs:
            return self.kind == "none"
        self._world.say(f"{self._name} writes its journal anew")
        self.records = dict.fromkeys(self._snapshot(table), -math.inf)
        self.kept.update(self.records)
        return True

    def _snapshot(self, table: Table) -> list[bytes]:
        lines, _ = table.lines(0, table.leaf_count, 1 << 30)
        return lines

    # Backups, and journals that are too old. -----------------------------------------------------------------

    def put_back(self, backup: list[bytes]) -> None:
        """Have what a backup had, in place of everything since; call between two lives."""
        self.records = dict.fromkeys(backup, -math.inf)
        # A start syncs what it finds, also what the server could not sync before the backup was made.
        self.kept.update(backup)
        self.moment = 0  # a backup has no mark

    def holds(self, line: bytes) -> bool:
        """Whether no crash loses this line any more."""
        return self.kind in ("kept", "always") and self.records.get(line) == -math.inf

    def is_outdated(self, oldest: int, latest: int) -> bool:
        """Whether neither the mark nor a record is younger than `oldest`."""
        learned = map(parse_learned, self.records)
        return self.moment <= oldest and not any(
            one is not None and oldest < one.received <= latest for one in learned
        )

    def crash(self, *, power_cut: bool) -> None:
        """End a life."""
        self._life += 1
        self.syncs = False
        self.failed = self.has_failed = False
        if self.kind == "none":
            self.records.clear()
        elif power_cut:
            now, rng = self._world.now, self._world.rng
            lucky = {
                line for line, safe_at in self.records.items() if safe_at == math.inf and rng.random() < 0.5
            }
            left = [line for line, safe_at in self.records.items() if safe_at <= now or line in lucky]
            self.records = dict.fromkeys(left, -math.inf)
        if self.always:  # a start begins with a sync of what it finds
            self.records = dict.fromkeys(self.records, -math.inf)
            self.kept.update(self.records)
