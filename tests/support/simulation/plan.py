"""What a seed decides once for its whole run."""

from __future__ import annotations

from random import Random
from typing import Any

from proxyherd.config.schema import ErasureSettings, Limits
from proxyherd.core.sizes import SIZES, Sizes

SECOND = 10**9


class Plan:
    """The world of one run. Each of its figures may be overridden by name."""

    def __init__(self, seed: int, **overrides: Any) -> None:
        rng = Random(f"plan {seed}")
        size = rng.random()
        self.servers = (
            rng.randint(2, 5) if size < 0.75 else rng.randint(6, 9) if size < 0.96 else rng.randint(10, 30)
        )
        self.extra_edges = rng.choice([0.0, 0.2, 0.5, 1.0])
        self.clients = rng.choice([1, 3, 30, 100])  # IDs that are reported for and asked about
        self.preloaded = rng.choice([0, 5, 30, 80])
        self.reports = rng.choice([1, 10, 25])
        self.questions = rng.choice([0, 10, 20])
        self.replay_seconds = rng.choice([0.0, 0.05, 0.4])  # that a start takes at most to read its journal
        self.seconds = rng.uniform(0.3, 3.0)
        self.apart = rng.choice([0.0, 0.2])  # seconds before the first servers begin to dial
        self.troubles = rng.choice([0, 5, 15, 40])
        self.slowest = rng.choice([0.01, 0.05, 0.2])  # seconds that a packet takes at most; few take so long
        self.notices = rng.choice([0.0, 0.5, 1.0])  # how often the end of a connection is told to the other
        self.journal = rng.choice(["none", "none", "kept", "less a second", "always"])
        self.gathers = rng.random() < 0.8  # what neighbours tell may wait for the journal
        self.disk_seconds = rng.choice([0.0, 0.01, 0.1])  # that a sync takes at most
        self.places_seconds = rng.choice([0.0, 0.02, 0.5])  # that Places take at most to answer
        self.skew = rng.choice([0, 0, 3_600]) * SECOND
        self.queue_bytes = rng.choice([500, 1 << 24, 1 << 24])
        self.outstanding = rng.choice([1, 3, 256])  # answers that a client may be owed
        self.curious = rng.choice([0.0, 0.0, 0.1])  # how often somebody asks at once about what was learned
        self.leaving = rng.choice([0.0, 0.1, 0.4])  # how often a client leaves, or reads nothing for a while
        self.lines = rng.choice([1, 3, 1_024, 1_024])  # of all peers in one turn
        self.client_lines = rng.choice([1, 3, 64, 64])  # of one client in one turn
        self.early = rng.choice([2, 65_536, 65_536])  # queries that wait at once
        self.depth = 4 if seed % 50 == 49 else 2  # of the tree; 4 is the real one, and slow to start with
        self.slice_lines = rng.choice([1, 3, 4_096])
        self.batch_bytes = rng.choice([100, 300, 65_536])
        # One request at a time over the slowest network would take longer than the herd has to agree.
        self.window = rng.choice([1, 2, 16]) if self.slowest < 0.2 else 16
        if self.journal == "always" and self.disk_seconds > 0.01:  # likewise of a sync for each line
            self.lines, self.client_lines, self.batch_bytes, self.window = 1_024, 64, 65_536, 16
        self.compare_seconds = 10_000.0 if rng.random() < 0.85 else rng.uniform(0.3, 2.0)
        self.erasures = rng.choice([0, 3, 10, 30])
        self.old = rng.choice([0.0, 0.0, 0.0, 0.3])  # how many servers speak version 1 until all is well
        self.restores = rng.choice([0, 0, 1, 3])  # backups of journals that are put back
        self.tombstone_seconds = ErasureSettings().tombstone_seconds
        self.absences = 0  # servers that are away for about as long
        self.cuts_off = False  # whether a server has no link for about as long, when the rest is quiet
        if rng.random() < 0.04:
            self._be_short(rng)
        self.followers = rng.choice([0, 0, 1, 4])
        for name, value in overrides.items():
            assert hasattr(self, name)
            setattr(self, name, value)

    def _be_short(self, rng: Random) -> None:
        """Let tombstones be forgotten within the run, long after the last trouble."""
        self.tombstone_seconds, self.absences = 60.0, rng.choice([1, 2, 3])
        self.servers, self.skew, self.depth = min(self.servers, 5), rng.choice([0, 1]) * SECOND, 2
        self.erasures, self.compare_seconds = max(self.erasures, 10), 2.0
        self.cuts_off = rng.random() < 0.7

    @property
    def erasure(self) -> ErasureSettings:
        """What the servers' herd file says of erasures."""
        return ErasureSettings(tombstone_seconds=self.tombstone_seconds)

    @property
    def sizes(self) -> Sizes:
        """Small trees, slices, batches and turns: all the code is the same."""
        return Sizes(
            depth=self.depth,
            window=self.window,
            slice_lines=self.slice_lines,
            batch_bytes=self.batch_bytes,
            client_lines=self.client_lines,
            turn_lines=8 * self.client_lines,
            peer_lines=self.lines,
            peer_lines_beside_clients=min(self.lines, SIZES.peer_lines_beside_clients),
            early_queries=self.early,
            look_ups=self.client_lines,
        )

    @property
    def limits(self) -> Limits:
        """What the servers' herd file says."""
        return Limits(max_answers_outstanding=self.outstanding)
