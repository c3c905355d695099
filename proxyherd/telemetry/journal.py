"""The journal: what was found in it, whether it can be written, and how many bytes were written."""

from __future__ import annotations

from typing import Final

from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.metrics import Metrics

_USE_OUTDATED: Final = "If all were away: stop all servers, set a greater tombstone_seconds, rename the files back on each, and start"


class JournalObserver:
    """The journal of one server."""

    def __init__(self, events: Events, metrics: Metrics) -> None:
        self._events = events
        self._told = ""
        self._state = (-1, -1, "")
        self._bytes = metrics.total(
            "proxyherd_journal_bytes_total", "Bytes appended to the journal, snapshots left out"
        )
        self._failures = metrics.total(
            "proxyherd_journal_failures_total",
            "Attempts to write or sync the journal that failed, and files of it that were deleted",
        )
        self.failing = metrics.gauge(
            "proxyherd_journal_failing", "1 while an answered report might not survive a kill"
        )

    def state(self, written: int, failures: int, failing: str, *, takes_reports: bool) -> None:
        """Note its state: all bytes written since the start, all failures, why it fails now (empty if it does not), and
        whether reports are taken nevertheless.
        """
        if self._state == (state := (written, failures, failing)):
            return
        self._state = state
        if failing and failing != self._told:
            effect = "reports are taken without a promise" if takes_reports else "reports are refused"
            self._events.log.error("journal_failing", reason=failing, effect=effect)
        elif self._told and not failing:
            self._events.log.info("journal_whole")
        self._told = failing
        self._bytes.reach(written)
        self._failures.reach(failures)
        self.failing.set(bool(failing))

    def replayed(self, lines: int, clients: int, seconds: float) -> None:
        """Note the end of the replay: the number of lines read, and of clients in the table."""
        self._events.log.info("replayed", lines=lines, clients=clients, seconds=round(seconds, 3))

    def lacks(self, reason: str) -> None:
        """Note that records of before the restart may be missing."""
        self._events.log.warning("journal_lacks", reason=reason, effect="queries wait for the first catch-up")

    def outdated(self, reason: str) -> None:
        """Note that the journal is too old to be used."""
        remedy = (
            "none if a server of the herd was up; its files are kept, with the suffix .outdated, until a neighbour has shown "
            f"that it has the table. {_USE_OUTDATED}"
        )
        self._events.log.error("journal_outdated", reason=reason, remedy=remedy)

    def outdated_kept(self, files: int) -> None:
        """Note that so many files of a journal that is too old are kept, because no neighbour has shown that it has the
        table.
        """
        reason = "no neighbour has told of a report from the time before they were set aside"
        remedy = f"{_USE_OUTDATED}. If you need them no more, delete them: erased clients may be in them"
        self._events.log.warning("journal_outdated_kept", files=files, reason=reason, remedy=remedy)

    def dropped(self, lines: int, days: str) -> None:
        """Note that so many lines were dropped after a long absence, and have left the journal."""
        reason = f"this server was without contact with its herd for more than {days}, so clients may have been erased that nobody remembers"
        effect = "neighbours tell what they have; what this server has taken itself less long ago stays"
        self._events.log.warning("doubtful_dropped", lines=lines, reason=reason, effect=effect)

    def torn(self, file: str, records: int, cut_bytes: int) -> None:
        """Note that a file ended in the middle of a record."""
        self._events.log.warning("journal_torn", file=file, records=records, cut_bytes=cut_bytes)

    def damaged(self, file: str, records: int, damaged: int) -> None:
        """Note that a file has damaged records."""
        remedy = (
            f"kept as {file}.damaged; neighbours have what is missing. Delete it when you have looked at it: erased clients "
            "may be in it"
        )
        self._events.log.error("journal_damaged", file=file, records=records, damaged=damaged, remedy=remedy)

    def rewritten(self, size: int, seconds: float) -> None:
        """Note that the whole table was written again, in this many bytes."""
        self._events.log.info("journal_rewritten", bytes=size, seconds=round(seconds, 3))
