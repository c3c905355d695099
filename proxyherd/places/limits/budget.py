"""A budget of calls, kept on disk: what a server may spend at Google in a minute and in a day.

The rule: a call is recorded before it is made. So no race, crash or kill -9 makes a call that is not counted; if a
call cannot be recorded, it is not made. The windows slide, in slots of a second and of a minute; a slot that is only
partly in its window counts whole. So no 60 seconds and no 24 hours, by the system's clock, have more calls than
allowed. Calls with a time in the future, after the clock was set back, count as spent, for a window at most. Only a
clock that is wrong by more than a window, and makes calls then, deletes that window's record.

SQLite keeps the record, about 1,500 rows, and makes each entry atomic. It does not wait for the disk. An entry takes
25 microseconds with an empty day before it, and 120 with a full one, whose minutes are added up each time. A power cut
may lose the last seconds, or damage the file; then no call is made until the file is deleted. pyrate-limiter is
similar, but has a row for each call, and counts all of them at each call: 1.3 ms at 100,000 calls a day.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from msgspec import Struct

from proxyherd.base.files import check_replaceable, is_there, make_file
from proxyherd.places.answers import no_results
from proxyherd.places.failures import FailedError, ShareError, UnrecordedError, failed
from proxyherd.places.limits.shares import Shares

_TABLES: Final = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = OFF;
    CREATE TABLE IF NOT EXISTS spent (
        slot_seconds INTEGER, slot INTEGER, calls INTEGER NOT NULL, PRIMARY KEY (slot_seconds, slot)
    ) WITHOUT ROWID;
"""

_SPENT: Final = "SELECT total(calls) FROM spent WHERE slot_seconds = ? AND slot >= ?"

_SPEND: Final = "INSERT INTO spent VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET calls = calls + 1"

_FORGET_BEFORE: Final = "DELETE FROM spent WHERE slot_seconds = ? AND slot < ?"

# Entries more than a window ahead were recorded by a clock that was wrong by that much. This is a separate statement,
# because SQLite reads every row if the two are combined with an OR.
_FORGET_BEHIND: Final = "DELETE FROM spent WHERE slot_seconds = ? AND slot > ?"


_UNSPEND: Final = "UPDATE spent SET calls = calls - 1 WHERE slot_seconds = ? AND slot = ? AND calls > 0"

MEMORY: Final = Path(":memory:")
"""SQLite's name for a record without a file, which ends with its process."""

REST_SECONDS: Final = 1.0
"""The pause after a failure before the record is tried again."""

T = TypeVar("T")


def equal_share(of: int, part: int, parts: int) -> int:
    """Return the `part`th of `parts` equal shares of a number; the shares add up to exactly that number."""
    return of * (part + 1) // parts - of * part // parts


class Window(Struct, frozen=True):
    """At most so many calls in any so many seconds; `key`: where that is configured. The record has slots of `slot`
    seconds, the shares have longer ones.
    """

    key: str
    seconds: int
    slot: int
    most: int
    shares: Shares

    def refuses(self, asker: str | None, now: int, left: int) -> FailedError | None:
        """Return why a call must not be made, if the window has so many calls left."""
        if left <= 0:
            return failed("OVER_QUERY_LIMIT", f"this server's share of {self.key} is used up")
        if asker is None or self.shares.allows(asker, now, left):
            return None
        words = f"you have had your share of this server's {self.key}; the rest is for others"
        return ShareError(no_results("OVER_QUERY_LIMIT", words))


class Budget:
    """A limit of calls per minute and per day, recorded in `file`, which need not exist yet. Any thread may use it. An
    asker gets at most `asker_share` of the calls that others have left; which they are is kept in memory alone.
    """

    def __init__(self, file: Path, per_minute: int, per_day: int, asker_share: float = 1.0) -> None:
        self._file = file
        self._windows = (
            Window("places.calls_per_minute", 60, 1, per_minute, Shares(60, asker_share)),
            Window("places.calls_per_day", 86_400, 60, per_day, Shares(86_400, asker_share)),
        )
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._rests_until = 0.0
        self._failure = ""

    def spend(self, asker: str | None = None) -> int:
        """Record a call that is about to be made for this asker; return its time, in seconds of POSIX time. None: for
        somebody without a limit to its share.

        Raises FailedError, OVER_QUERY_LIMIT, if it must not be made: ShareError if the asker has had its share, and
        UnrecordedError if it cannot be recorded.
        """
        now = int(time.time())
        if (error := self._spend(now, asker)) is not None:
            raise error
        return now

    def give_back(self, spent: int, asker: str | None = None) -> None:
        """Remove the record of a call that was not made because there was no connection. Raises nothing."""
        with self._lock, contextlib.suppress(sqlite3.Error, OSError):
            if asker is not None:
                for window in self._windows:
                    window.shares.give_back(asker, spent)
            self._try(self._unrecord, spent)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            self._forget()

    def _spend(self, now: float, asker: str | None = None) -> FailedError | None:
        try:
            with self._lock:
                refusal = self._try(partial(self._record, asker), int(now))
        except (sqlite3.Error, OSError) as error:
            words = (
                f"this server cannot record its calls ({error}) and so makes none; its operator can see to the disk, or "
                f"stop the server and delete {self._file.name} in its state directory, if that is damaged"
            )
            return UnrecordedError(no_results("OVER_QUERY_LIMIT", words))
        return refusal

    def _try(self, what: Callable[[int], T], now: int) -> T:
        """Work on the record, unless that failed within the last second: it never waits for a lock or a disk."""
        if time.monotonic() < self._rests_until:
            raise sqlite3.OperationalError(self._failure)
        try:
            return what(now)
        except BaseException as error:
            self._failure, self._rests_until = str(error), time.monotonic() + REST_SECONDS
            self._forget()  # the next call opens the file that is there then
            raise

    def _record(self, asker: str | None, now: int) -> FailedError | None:
        """Record a call, or return why it must not be made."""
        connection = self._connection = self._connection or self._open()
        with connection:  # commits, or takes back
            connection.execute("BEGIN IMMEDIATE")
            for window in self._windows:
                slot, first = window.slot, (now - window.seconds) // window.slot
                connection.execute(_FORGET_BEFORE, (slot, first))
                connection.execute(_FORGET_BEHIND, (slot, (now + window.seconds) // slot))
                (spent,) = connection.execute(_SPENT, (slot, first)).fetchone()
                if (refusal := window.refuses(asker, now, window.most - int(spent))) is not None:
                    return refusal
            for window in self._windows:
                connection.execute(_SPEND, (window.slot, now // window.slot))
        if asker is not None:
            for window in self._windows:
                window.shares.spend(asker, now)
        return None

    def _unrecord(self, spent: int) -> None:
        connection = self._connection = self._connection or self._open()
        with connection:
            connection.execute("BEGIN IMMEDIATE")
            for window in self._windows:
                connection.execute(_UNSPEND, (window.slot, spent // window.slot))

    def _open(self) -> sqlite3.Connection:
        if self._file != MEMORY:
            check_replaceable(self._file)  # SQLite would count writes to /dev/null as recorded
            self._make_files()
        connection = sqlite3.connect(self._file, isolation_level=None, timeout=0, check_same_thread=False)
        try:
            connection.executescript(_TABLES)
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_files(self) -> None:
        """Make the files with the right mode. SQLite gives the files beside it the same mode."""
        try:
            make_file(self._file)
            for end in ("-wal", "-shm"):
                beside = self._file.with_name(self._file.name + end)
                if is_there(beside):
                    make_file(beside)
        except OSError as error:  # its text has the path, which is not for clients
            raise sqlite3.OperationalError(error.strerror) from error

    def _forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
