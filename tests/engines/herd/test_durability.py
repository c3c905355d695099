"""What keeps a journal, second by second, on a clock that jumps: real files, whose syncs take no time here."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import fake_redis
import pytest
from deciding import decide
from descriptors import descriptors_below
from prometheus_client import generate_latest
from turns import node

import proxyherd.engines.herd.durability
from proxyherd.config.schema import DurabilitySettings, Limits, Timing
from proxyherd.core.messages import At, Entry, Forget, parse_at
from proxyherd.core.node import Node
from proxyherd.core.table import Table
from proxyherd.engines.herd.durability import Durability
from proxyherd.engines.herd.journal import Journal, files, read, record, sync
from proxyherd.engines.herd.mark import Mark
from proxyherd.engines.herd.rewrite import Rewrite
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

ATS = [b"AT Ann +0.100000000 client%d +1+1 5" % number for number in range(3_000)]


async def at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    """Stand in for asyncio.to_thread: the clock does not wait for threads."""
    return function(*arguments)


class Life:
    """One life of a server's journal, with a real node, log and metrics."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        monkeypatch.setattr("proxyherd.engines.herd.durability.asyncio.to_thread", at_once)
        self.folder = folder / "journal"
        self.log = folder / "log"
        self.file = LogFile(self.log)
        self.metrics = Metrics()
        log = make_logger(self.file, server="Ann", level="info", max_field_bytes=1024)
        self.observer = Observer(log, self.file, self.metrics, [])
        self.journal = Journal(self.folder, line_bytes=1_000, rewrite_bytes=4_096)
        self.journal.start()
        self.node = node()
        mark = Mark(folder / "journal.mark", b"boot")
        self.durability = Durability(
            self.journal, mark, self.node, DurabilitySettings(**settings), self.observer
        )
        self.tasks: list[asyncio.Task[None]] = []
        self.synced: list[float] = []
        real = os.fdatasync

        def fdatasync(fd: int) -> None:
            self.synced.append(asyncio.get_running_loop().time())
            real(fd)

        monkeypatch.setattr(os, "fdatasync", fdatasync)

    def begin(self, *parts: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.tasks += [asyncio.ensure_future(part()) for part in parts]

    def learn(self, lines: list[bytes]) -> None:
        self.node.replay(map(parse_at, lines))

    def on_disk(self) -> list[bytes]:
        return [line for path in files(self.folder) for lines in read(path) for line in lines]

    def events(self, *names: str) -> list[dict[str, Any]]:
        events = list(map(json.loads, self.log.read_bytes().splitlines()))
        return [event for event in events if not names or event["event"] in names]

    def figure(self, name: str) -> float | None:
        self.observer.settle()
        return self.metrics.registry.get_sample_value(name)


def live(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    body: Callable[[Life], Coroutine[Any, Any, Any]],
    **more: Any,
) -> Life:
    """Play one life to its end."""

    async def play() -> Life:
        life = Life(folder, monkeypatch, **more)
        try:
            await body(life)
        finally:
            for task in life.tasks:
                task.cancel()
            await asyncio.gather(*life.tasks, return_exceptions=True)
            life.journal.close()
            life.file.close()
        return life

    found: Life = fake_redis.run(play())
    return found


def full(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let nothing be written to the journal any more; the log goes on."""
    real = os.write

    def write(fd: int, data: bytes) -> int:
        if "/journal/" in str(Path(f"/proc/self/fd/{fd}").readlink()):
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    return monkeypatch


def test_what_is_done_each_second_is_done_at_the_same_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(life: Life) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        looked: list[float] = []
        swept: list[float] = []
        monkeypatch.setattr(life.journal, "check", lambda: looked.append(loop.time() - began))
        monkeypatch.setattr(life.journal, "drop_unsynced", lambda: swept.append(loop.time() - began))
        life.begin(life.durability.watch)
        await asyncio.sleep(0.3)
        life.begin(life.durability.keep)
        await asyncio.sleep(3.0)
        assert looked == pytest.approx([1.0, 2.0, 3.0])
        assert swept == pytest.approx([1.0, 2.0, 3.0])

    live(tmp_path, monkeypatch, body, fsync="off")


def test_a_second_in_which_nothing_is_to_be_done_resumes_no_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An idle server has several of them each second, and to resume one costs more than to ask."""

    async def body(life: Life) -> None:
        life.durability.lacks = ""
        life.begin(life.durability.watch, life.durability.keep)
        await asyncio.sleep(0.1)
        waiting = [cast("Any", task.get_coro()).cr_await for task in life.tasks]
        looked: list[None] = []
        monkeypatch.setattr(life.journal, "check", lambda: looked.append(None))
        await asyncio.sleep(5.0)
        assert len(looked) == 5
        assert [cast("Any", task.get_coro()).cr_await for task in life.tasks] == waiting
        assert None not in waiting

    live(tmp_path, monkeypatch, body)


def test_a_fault_is_raised_by_the_task_and_one_that_has_ended_asks_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(life: Life) -> None:
        faults: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

        def stumble() -> None:
            life.tasks[1].cancel()
            raise ZeroDivisionError

        monkeypatch.setattr(life.journal, "check", stumble)
        monkeypatch.setattr(life.journal, "drop_unsynced", lambda: faults.append("asked"))
        life.begin(life.durability.watch, life.durability.keep)
        await asyncio.sleep(3.5)
        assert isinstance(life.tasks[0].exception(), ZeroDivisionError)
        assert life.tasks[1].cancelled()
        assert not faults

    live(tmp_path, monkeypatch, body, fsync="off")


# Syncing. ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fsync", "times"), [("everysecond", [1.0, 3.0]), ("always", []), ("off", [])])
def test_what_was_appended_is_synced_at_the_next_second_by_that_policy_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, times: list[float]
) -> None:
    async def body(life: Life) -> None:
        began = asyncio.get_running_loop().time()
        life.begin(life.durability.watch)
        await asyncio.sleep(0.3)
        assert life.durability.append(ATS[:1])
        await asyncio.sleep(2.0)
        assert life.durability.append(ATS[1:2])
        await asyncio.sleep(5.0)
        assert [round(time - began, 3) for time in life.synced] == times
        assert life.journal.unsynced == (not times)

    live(tmp_path, monkeypatch, body, fsync=fsync)


@pytest.mark.parametrize(("fsync", "syncs"), [("everysecond", [0, 2]), ("always", [2, 2]), ("off", [0, 0])])
def test_what_a_killed_life_has_not_synced_is_synced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, syncs: list[int]
) -> None:
    """Else a power cut after a restart could take more than the last second, and what `always` has answered again."""
    killed = Journal(tmp_path / "journal", line_bytes=1_000, rewrite_bytes=4_096)
    killed.start()
    assert killed.append(ATS[:1])

    async def body(life: Life) -> None:
        learned: list[int] = []
        replay = life.node.replay

        def noting(ats: Iterable[At | None]) -> None:
            learned.append(len(life.synced))
            replay(ats)

        monkeypatch.setattr(life.node, "replay", noting)
        life.begin(life.durability.watch)
        await life.durability.replay()
        await asyncio.sleep(1.5)
        assert [*learned, len(life.synced)] == syncs, "the old file and the new one"

    live(tmp_path, monkeypatch, body, fsync=fsync)
    killed.close()


@pytest.mark.parametrize(("fsync", "left"), [("everysecond", 2), ("always", 2), ("off", 1)])
def test_an_earlier_segment_waits_for_its_sync_unless_nobody_ever_syncs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fsync: str, left: int
) -> None:
    async def body(life: Life) -> None:
        life.begin(life.durability.keep)
        assert life.durability.append(ATS[:1])
        rewriting = life.journal.begin_rewrite()
        assert rewriting is not None
        rewriting.abandon()
        await asyncio.sleep(1.5)
        descriptors = life.journal.begin_sync()
        assert len(descriptors) == left
        for fd in descriptors:
            os.close(fd)

    live(tmp_path, monkeypatch, body, fsync=fsync)


async def synced(durability: Durability) -> bool:
    """Bring everything to disk as a turn does."""
    kept = asyncio.get_running_loop().create_future()
    durability.sync(kept.set_result)
    assert not kept.done(), "the turn goes on later"
    is_kept: bool = await kept
    return is_kept


def test_a_turn_hears_of_its_sync_whatever_that_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(life: Life) -> None:
        def stumble() -> None:
            raise ZeroDivisionError

        assert life.durability.append(ATS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(life.journal, "begin_sync", stumble)
            assert not await synced(life.durability)
        (told,) = life.events("internal_error")
        assert told["reason"] == "what this turn has stored cannot be kept"
        assert "ZeroDivisionError" in told["exception"]
        assert await synced(life.durability)
        await asyncio.sleep(0)
        assert not life.durability._syncs

    live(tmp_path, monkeypatch, body)


def test_a_turn_hears_of_a_sync_that_fails_before_anybody_else_may_act_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewrite that began in between would find in the table what the turn is about to take back."""

    async def body(life: Life) -> None:
        told: list[object] = []

        def stumble() -> None:
            asyncio.get_running_loop().call_soon(told.append, "the next round of the loop")
            raise OSError("the disk has gone")

        assert life.durability.append(ATS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(life.journal, "begin_sync", stumble)
            life.durability.sync(told.append)
            for _ in range(10):
                await asyncio.sleep(0)
        assert told == [False, "the next round of the loop"]

    live(tmp_path, monkeypatch, body)


def test_a_turn_goes_on_where_the_log_fails_with_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(life: Life) -> None:
        def stumble(*_: object) -> None:
            raise ZeroDivisionError

        assert life.durability.append(ATS[:1])
        with monkeypatch.context() as patch:
            patch.setattr(life.journal, "begin_sync", stumble)
            patch.setattr(life.durability._observer, "fault", stumble)
            assert not await synced(life.durability)

    live(tmp_path, monkeypatch, body)


@pytest.mark.parametrize("accepts", [False, True])
def test_a_sync_that_fails_is_told_and_reports_are_refused_unless_configured_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, accepts: bool
) -> None:
    def fails(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def body(life: Life) -> None:
        assert life.durability.append(ATS[:1])
        assert await synced(life.durability)
        assert life.durability.takes_reports
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fails)
            assert await synced(life.durability) == accepts
        assert len(life.events("journal_failing")) == 1, "before anything else is appended"
        assert life.durability.takes_reports == accepts
        assert life.durability.append(ATS[1:2]) == accepts
        assert "Input/output error" in life.durability.failing
        assert life.figure("proxyherd_journal_failing") == 1.0
        assert life.figure("proxyherd_journal_failures_total") == 1.0
        assert life.figure("proxyherd_journal_bytes_total") == len(record(ATS[0]))

    life = live(tmp_path, monkeypatch, body, on_failure="accept" if accepts else "refuse")
    (event,) = life.events("journal_failing")
    assert event["level"] == "error"
    assert event["reason"] == f"{life.folder}: Input/output error"
    assert event["effect"] == ("reports are taken without a promise" if accepts else "reports are refused")
    assert (tmp_path / "journal.mark").exists() is False


# Failing and mending. ------------------------------------------------------------------------------------------


def test_a_journal_that_fails_is_tried_every_second_told_once_and_told_again_when_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(life: Life) -> None:
        life.begin(life.durability.watch, life.durability.keep)
        life.learn(ATS[:10])
        assert life.durability.append(ATS[:10])
        with monkeypatch.context() as patch:
            full(patch)
            assert not life.durability.append(ATS[10:11])
            await asyncio.sleep(5.5)
            assert life.journal.failures == 6
        assert not life.durability.takes_reports
        await asyncio.sleep(1.0)
        assert life.durability.takes_reports
        assert set(life.on_disk()) == set(ATS[:10])
        assert life.figure("proxyherd_journal_failing") == 0.0
        assert life.figure("proxyherd_journal_failures_total") == 6.0

    life = live(tmp_path, monkeypatch, body)
    told = [event["event"] for event in life.events("journal_failing", "journal_whole", "journal_rewritten")]
    assert told[0] == "journal_failing"
    assert told[-2:] == ["journal_rewritten", "journal_whole"]
    assert len(told) <= 4, "the first reason names the segment, and then the snapshot fails"


def test_a_file_that_is_deleted_is_noticed_at_the_next_second_and_mended_by_the_one_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(life: Life) -> None:
        life.begin(life.durability.watch)
        life.learn(ATS[:3])
        assert life.durability.append(ATS[:3])
        await asyncio.sleep(0.5)
        files(life.folder)[0].unlink()
        assert not life.durability.failing
        await asyncio.sleep(0.6)
        assert "deleted" in life.durability.failing
        life.begin(life.durability.keep)
        await asyncio.sleep(0.9)
        assert life.durability.failing
        await asyncio.sleep(0.2)
        assert not life.durability.failing
        assert sorted(life.on_disk()) == ATS[:3]

    live(tmp_path, monkeypatch, body)


def test_that_a_file_is_gone_is_told_before_a_sync_during_which_a_rewrite_may_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slow_syncs(function: Callable[..., Any], *arguments: Any) -> Any:
        if function is sync:
            await asyncio.sleep(0.9)
        return function(*arguments)

    async def body(life: Life) -> None:
        monkeypatch.setattr("proxyherd.engines.herd.durability.asyncio.to_thread", slow_syncs)
        life.begin(life.durability.watch, life.durability.keep)
        life.learn(ATS[:3])
        assert life.durability.append(ATS[:3])
        files(life.folder)[0].unlink()
        await asyncio.sleep(1.5)
        assert not life.durability.failing
        assert life.figure("proxyherd_journal_failures_total") == 1.0

    life = live(tmp_path, monkeypatch, body)
    told = [event["event"] for event in life.events()]
    assert told == ["journal_failing", "journal_rewritten", "journal_whole"]


@pytest.mark.parametrize("step", ["write", "finish"])
def test_a_rewrite_that_fails_leaves_what_was_on_disk_and_the_next_one_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    async def body(life: Life) -> None:
        life.learn(ATS[:200])
        assert life.durability.append(ATS[:200])
        assert life.journal.wants_rewrite
        with monkeypatch.context() as patch:
            patch.setattr(Rewrite, step, fails)
            life.begin(life.durability.keep)
            await asyncio.sleep(1.5)
        assert life.journal.failing
        assert life.journal.failures == 1
        assert set(life.on_disk()) == set(ATS[:200])
        assert not list(life.folder.glob("*.unfinished"))
        assert not life.events("journal_rewritten")
        await asyncio.sleep(1.0)
        assert not life.journal.failing
        assert sorted(life.on_disk()) == sorted(ATS[:200])

    live(tmp_path, monkeypatch, body)


def test_nothing_is_rewritten_that_need_not_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(life: Life) -> None:
        life.begin(life.durability.watch, life.durability.keep)
        life.learn(ATS[:5])
        assert life.durability.append(ATS[:5])
        await asyncio.sleep(20.5)
        assert [path.name for path in files(life.folder)] == ["000000000001.segment"]

    life = live(tmp_path, monkeypatch, body)
    assert life.events() == []


# Slices. -------------------------------------------------------------------------------------------------------


class Beside:
    """Counts how often the loop came round to others."""

    def __init__(self) -> None:
        self.rounds = 0
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> None:
        while True:
            self.rounds += 1
            await asyncio.sleep(0)


def test_a_journal_is_replayed_in_slices_between_which_others_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    for number in (1, 2):
        lines = ATS[(number - 1) * 1_500 : number * 1_500]
        (folder / f"{number:012}.segment").write_bytes(b"".join(map(record, lines)))
    slices: list[tuple[int, int, float]] = []

    async def body(life: Life) -> None:
        beside, real = Beside(), life.node.replay

        def replay(updates: Any) -> None:
            some = list(updates)
            slices.append((len(some), beside.rounds, life.durability.replayed))
            real(some)

        monkeypatch.setattr(life.node, "replay", replay)
        assert life.durability.replayed == 0.0
        await life.durability.replay()
        assert life.durability.replayed == 1.0
        assert len(life.node.table) == 3_000
        beside.task.cancel()

    life = live(tmp_path, monkeypatch, body)
    assert [count for count, *_ in slices] == [512, 512, 476] * 2
    rounds = [at for _, at, _ in slices]
    assert rounds == sorted(set(rounds)), "others have had a turn between any two"
    assert [round(done, 2) for *_, done in slices] == [0.5] * 3 + [1.0] * 3
    (replayed,) = life.events("replayed")
    assert (replayed["lines"], replayed["clients"]) == (3_000, 3_000)
    assert 0 <= replayed["seconds"] < 600
    (lacks,) = life.events("journal_lacks")
    assert "has not left word" in lacks["reason"]
    assert lacks["level"] == "warning"


def test_nothing_is_replayed_while_a_turn_waits_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time_ns()
    erased = node().table.tombstone(b"client0", now - 10**9)

    async def before(life: Life) -> None:
        assert life.durability.append([ATS[1], erased.line])

    async def after(life: Life) -> None:
        replay = asyncio.ensure_future(life.durability.replay())
        assert decide(life.node, b"IAMAT client1 +1+1 6", now).outcome == "stored"
        assert decide(life.node, Forget(b"client0"), now).outcome == "erased"
        await asyncio.sleep(60)
        assert not replay.done()
        life.node.undo()  # this turn cannot be kept: so what was kept before must be there
        life.node.flood()
        await replay
        held = life.node.table.get(b"client1")
        assert held is not None
        assert held.line == ATS[1]
        assert life.node.table.held_until(erased.digest) == erased.until

    live(tmp_path, monkeypatch, before)
    live(tmp_path, monkeypatch, after)


@pytest.mark.parametrize("lead", [1, 60])
def test_who_was_locked_out_by_a_time_in_the_journal_is_free_with_the_next_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lead: int
) -> None:
    future = b"AT Ann -999999999994.000000000 kiwi +0+0 999999999999"  # received in second 5

    async def before(life: Life) -> None:
        assert life.durability.append([future])

    async def after(life: Life) -> None:
        life.node.rules.lead = lead * 10**9
        await life.durability.replay()
        held = life.node.table.get(b"kiwi")
        assert held == Entry(future, (5 + lead) * 10**9)
        report = b"IAMAT kiwi +1+1 %d.000000001" % (5 + lead)
        assert decide(life.node, report, (5 + lead) * 10**9 + 1).outcome == "stored"

    live(tmp_path, monkeypatch, before)
    live(tmp_path, monkeypatch, after)


def test_a_first_start_has_nothing_to_replay_and_tells_nothing_of_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(life: Life) -> None:
        await life.durability.replay()
        assert life.durability.lacks

    life = live(tmp_path, monkeypatch, body)
    assert [event["event"] for event in life.events()] == ["replayed"]


def test_a_table_is_rewritten_in_slices_between_which_others_have_their_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int]] = []

    async def body(life: Life) -> None:
        ats = [line.replace(b"client", b"c" * 150) for line in ATS]
        life.learn(ats)
        assert life.durability.append(ats)
        beside, real = Beside(), Rewrite.write

        def write(rewrite: Rewrite, lines: list[bytes]) -> None:
            written.append((sum(map(len, lines)), beside.rounds))
            real(rewrite, lines)

        monkeypatch.setattr(Rewrite, "write", write)
        await life.durability._rewrite()
        beside.task.cancel()
        assert sorted(life.on_disk()) == sorted(ats)
        (event,) = life.events("journal_rewritten")
        assert event["bytes"] == files(life.folder)[0].stat().st_size
        assert 0 <= event["seconds"] < 600

    live(tmp_path, monkeypatch, body)
    slices = [one for one in written if one[0]]
    assert all(size < 132_000 for size, _ in slices)
    assert 4 <= len(slices) <= 12, "and few enough"
    rounds = [at for _, at in slices]
    assert rounds == sorted(set(rounds))


def opened() -> list[Path]:
    """Return what this process has open."""
    return [path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


def test_a_rewrite_that_is_stopped_among_its_slices_leaves_neither_file_nor_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(life: Life) -> None:
        ats = [line.replace(b"client", b"c" * 150) for line in ATS]
        life.learn(ats)
        assert life.durability.append(ats)
        task = asyncio.ensure_future(life.durability._rewrite())
        for _ in range(3):
            await asyncio.sleep(0)
        assert [path.suffix for path in life.folder.iterdir()].count(".unfinished") == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert sorted(path.suffix for path in life.folder.iterdir()) == [".segment", ".segment"]
        assert not [path for path in opened() if path.suffix == ".unfinished"]
        assert life.on_disk() == ats

    live(tmp_path, monkeypatch, body)


# Damage and the end. -------------------------------------------------------------------------------------------


def test_what_was_torn_and_what_was_damaged_is_told_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    whole = [b"".join(map(record, ATS[at : at + 2])) for at in (0, 2, 4)]
    for number, data in enumerate((whole[0] + b"torn", whole[1] + b"x\n" + record(ATS[6]), whole[2]), 1):
        (folder / f"{number:012}.segment").write_bytes(data)

    async def body(life: Life) -> None:
        life.durability.lacks = ""
        await life.durability.replay()
        assert life.durability.lacks == "000000000001.segment is damaged", "the first that was found"
        assert len(life.node.table) == 7

    life = live(tmp_path, monkeypatch, body)
    torn, damaged, *rest = [
        {key: value for key, value in event.items() if key not in ("timestamp", "server")}
        for event in life.events()
    ]
    assert torn == {
        "level": "warning",
        "event": "journal_torn",
        "file": "000000000001.segment",
        "records": 2,
        "cut_bytes": 4,
    }
    assert damaged == {
        "level": "error",
        "event": "journal_damaged",
        "file": "000000000002.segment",
        "records": 3,
        "damaged": 1,
        "remedy": "kept as 000000000002.segment.damaged; neighbours have what is missing. Delete it when you have looked at it: erased clients "
        "may be in it",
    }
    assert [event["event"] for event in rest] == ["replayed", "journal_lacks"]


@pytest.mark.parametrize("damage", [b"torn", b"x\n" + record(ATS[5])])
def test_a_server_that_is_killed_while_it_replays_what_is_damaged_leaves_no_word_that_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    """What was torn is cut off: the next start finds no trace of it."""
    mark = tmp_path / "journal.mark"

    async def closed(life: Life) -> None:
        assert life.durability.append(ATS[:1])
        await life.durability.close()

    async def killed(life: Life) -> None:
        assert life.durability.lacks == ""
        assert mark.read_bytes().startswith(b"boot ")
        found: list[bytes] = []
        for kind in ("torn", "damaged"):
            told = life.durability._observer.journal
            monkeypatch.setattr(told, kind, lambda *_: found.append(mark.read_bytes()))
        await life.durability.replay()
        assert [mark[:2] for mark in found] == [b"- "]

    live(tmp_path, monkeypatch, closed)
    live(tmp_path, monkeypatch, closed)
    with files(tmp_path / "journal")[-1].open("ab") as last:
        last.write(damage)
    live(tmp_path, monkeypatch, killed)


def test_a_server_that_is_killed_just_after_its_start_leaves_word_of_its_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def closed(life: Life) -> None:
        await life.durability.close()

    async def killed(life: Life) -> None:
        assert life.durability.lacks == ""

    live(tmp_path, monkeypatch, closed)
    for _ in range(3):
        live(tmp_path, monkeypatch, killed)
    assert (tmp_path / "journal.mark").read_bytes().startswith(b"boot ")


@pytest.mark.parametrize("caught_up", [True, False])
def test_a_server_whose_journal_lacked_records_leaves_word_at_its_end_if_it_has_caught_up_and_no_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, caught_up: bool
) -> None:
    """Perhaps a moment ago, with nothing between that and its end; who has no neighbours has caught up at once."""

    async def body(life: Life) -> None:
        life.node = life.durability._node = node(alone=caught_up)
        assert life.durability.lacks
        await synced(life.durability)
        assert not mark.exists()
        await life.durability.close()
        assert bool(life.durability.lacks) == (not caught_up)

    mark = tmp_path / "journal.mark"
    live(tmp_path, monkeypatch, body)
    assert mark.exists() == caught_up
    assert not caught_up or mark.read_bytes().startswith(b"closed ")


@pytest.mark.parametrize("caught_up", [True, False])
def test_a_journal_lacks_records_until_a_first_catch_up_has_ended_and_leaves_word_within_a_second_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, caught_up: bool
) -> None:
    async def body(life: Life) -> None:
        life.node = life.durability._node = node(alone=caught_up)
        life.begin(life.durability.keep)
        await asyncio.sleep(0.9)
        assert life.durability.lacks
        await asyncio.sleep(0.2)
        assert bool(life.durability.lacks) == (not caught_up)
        assert mark.exists() == caught_up
        assert not caught_up or mark.read_bytes().startswith(b"boot ")

    mark = tmp_path / "journal.mark"
    live(tmp_path, monkeypatch, body)


def test_what_is_too_old_by_the_clock_of_the_day_is_not_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, now = tmp_path / "journal", time.time_ns() // 10**9
    folder.mkdir()
    young = b"AT Ann +0.000000000 young +1+1 %d" % now
    (folder / "000000000001.segment").write_bytes(record(ATS[0]) + record(young))

    async def body(life: Life) -> None:
        life.node = life.durability._node = Node(
            "Ann", Table(bytes(32)), Limits(max_age_seconds=86_400), Timing(), alone=True, now=0.0
        )
        await life.durability.replay()
        assert [client for client, _ in life.node.table] == [b"young"]

    live(tmp_path, monkeypatch, body)


def test_a_server_that_closes_brings_everything_to_disk_and_leaves_word_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(life: Life) -> None:
        life.durability.lacks = ""
        assert life.durability.append(ATS[:1])
        await life.durability.close()
        assert len(life.synced) == 1
        assert not life.journal.append(ATS[1:2])

    live(tmp_path, monkeypatch, body, fsync="off")
    size = len(record(ATS[0]))
    first, segment, end = (tmp_path / "journal.mark").read_bytes().split(b"\n")
    assert (first.split()[0], segment.split()[0], int(segment.split()[2]), end) == (
        b"closed",
        b"000000000001.segment",
        size,
        b"",
    )


NO_ROOM = "No space left on device"


@contextlib.contextmanager
def driven(
    folder: Path,
    observer: Observer,
    monkeypatch: pytest.MonkeyPatch,
    *,
    catches_up: bool = True,
    **settings: Any,
) -> Iterator[tuple[Journal, Durability]]:
    """A journal and what keeps it, with seconds that are short. `catches_up`: at once, having no neighbours."""
    monkeypatch.setattr(proxyherd.engines.herd.durability, "_SECOND", 0.002)
    journal = Journal(folder, line_bytes=1_000, rewrite_bytes=4_096)
    journal.start()
    mark = Mark(folder.with_name("journal.mark"))
    yield journal, Durability(journal, mark, node(alone=catches_up), DurabilitySettings(**settings), observer)
    journal.close()


async def until(condition: Any, what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.001)


class HeldRewrite:
    """Lets rewrites stand at their last step, in their thread, until released."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()
        real = Rewrite.finish

        def finish(rewrite: Rewrite, *also: Any) -> None:
            self.reached.set()
            assert self.release.wait(20)
            real(rewrite, *also)

        monkeypatch.setattr(Rewrite, "finish", finish)


LINE = b"AT Ann +0.100000000 kiwi +1+1 5"


def test_what_is_appended_during_a_long_rewrite_is_synced_each_second(
    tmp_path: Path, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with driven(tmp_path / "journal", observer, monkeypatch) as (journal, durability):
            held = HeldRewrite(monkeypatch)
            tasks = [asyncio.create_task(durability.watch()), asyncio.create_task(durability.keep())]
            try:
                assert durability.append([LINE] * 200)
                await until(held.reached.is_set, "a rewrite")
                assert durability.append([LINE])
                await until(lambda: not journal.unsynced, "a sync while the rewrite lasts")
                assert not held.release.is_set()
            finally:
                held.release.set()
                await until(lambda: not journal.wants_rewrite, "the end of the rewrite")
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())


def test_server_that_stops_at_the_last_step_of_a_rewrite_does_not_disturb_it(
    tmp_path: Path, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with driven(tmp_path / "journal", observer, monkeypatch) as (_, durability):
            held = HeldRewrite(monkeypatch)
            keeping = asyncio.create_task(durability.keep())
            durability._node.replay([parse_at(LINE)])
            durability.append([LINE] * 200)
            await until(held.reached.is_set, "a rewrite")
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping
            await durability.close()
            held.release.set()

    asyncio.run(scenario())  # ends when its threads have
    left = files(tmp_path / "journal")
    assert [path.suffix for path in left] == [".snapshot", ".segment"]
    assert left[0].read_bytes() == record(LINE)


def test_with_fsync_off_nothing_is_synced_and_no_descriptor_is_kept(
    tmp_path: Path, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        synced: list[int] = []
        monkeypatch.setattr(os, "fdatasync", synced.append)
        with driven(tmp_path / "journal", observer, monkeypatch, fsync="off") as (journal, durability):
            tasks = [asyncio.create_task(durability.watch()), asyncio.create_task(durability.keep())]
            for _ in range(20):
                durability.append([LINE] * 200)
                assert journal.wants_rewrite
                await until(lambda: not journal.wants_rewrite, "a rewrite")
            assert synced == []
            assert descriptors_below(tmp_path) <= 2
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())


def test_a_journal_that_fails_is_not_believed_at_the_next_start_until_a_first_catch_up_has_ended(
    tmp_path: Path, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def life(*, fails: bool = False, catches_up: bool = True) -> str:
        """Return why records may have been missing at the start; end as if killed."""
        with driven(tmp_path / "journal", observer, monkeypatch, catches_up=catches_up) as (_, durability):
            lacks = durability.lacks
            await durability.replay()
            keeping = asyncio.create_task(durability.keep())
            await until(lambda: not durability.lacks or not catches_up, "the end of the catch-up")
            assert durability.append([LINE])
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            if fails:
                monkeypatch.setattr(os, "write", no_room)
                assert not durability.append([LINE])
                monkeypatch.undo()
            return lacks

    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, NO_ROOM)

    assert "has not left word" in asyncio.run(life())  # the first
    assert asyncio.run(life()) == ""
    assert asyncio.run(life(fails=True)) == ""
    assert asyncio.run(life(catches_up=False)) != ""
    assert asyncio.run(life(catches_up=False)) != ""
    assert asyncio.run(life()) != ""
    assert asyncio.run(life()) == ""


@pytest.mark.parametrize("damage", [b"0badc0de", b"0badc0de\n" + record(LINE)])
def test_a_journal_that_is_torn_or_damaged_lacks_records(
    tmp_path: Path, observer: Observer, monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    async def life(*, catches_up: bool) -> str:
        with driven(tmp_path / "journal", observer, monkeypatch, catches_up=catches_up) as (_, durability):
            assert durability.append([LINE])
            await durability.replay()
            lacks = durability.lacks
            await durability.close()
            return lacks

    mark = tmp_path / "journal.mark"
    assert asyncio.run(life(catches_up=True)) != ""  # the first; it stops when it has just caught up
    assert asyncio.run(life(catches_up=False)) == ""
    [*_, last] = files(tmp_path / "journal")
    with last.open("ab") as file:
        file.write(damage)
    assert asyncio.run(life(catches_up=False)) == f"{last.name} is damaged"
    assert mark.read_bytes().startswith(b"- ")
    assert asyncio.run(life(catches_up=True)) != ""
    assert mark.read_bytes().startswith(b"closed ")


def delete_segment(folder: Path) -> None:
    files(folder)[-1].unlink()


def delete_snapshot(folder: Path) -> None:
    files(folder)[0].unlink()


def delete_folder(folder: Path) -> None:
    shutil.rmtree(folder)


def move_folder(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def replace_segment(folder: Path) -> None:
    """Put a copy in its place, as an editor or a restored backup does."""
    segment = files(folder)[-1]
    shutil.copy(segment, folder / "copy")
    (folder / "copy").rename(segment)


@pytest.mark.parametrize(
    "delete", [delete_segment, delete_snapshot, delete_folder, move_folder, replace_segment]
)
def test_files_that_are_deleted_under_a_running_server_are_noticed_and_written_anew(
    tmp_path: Path, observer: Observer, monkeypatch: pytest.MonkeyPatch, delete: Callable[[Path], None]
) -> None:
    ats = [b"AT Ann +0.100000000 client%d +1+1 5" % number for number in range(9)]

    async def scenario() -> None:
        folder = tmp_path / "journal"
        with driven(folder, observer, monkeypatch) as (journal, durability):

            def take(lines: list[bytes]) -> None:
                durability._node.replay(map(parse_at, lines))
                assert durability.append(lines)

            take(ats[:3])
            await durability._rewrite()
            take(ats[3:6])
            tasks = [asyncio.create_task(durability.watch()), asyncio.create_task(durability.keep())]
            await until(lambda: not durability.lacks, "the end of the catch-up")
            assert journal.failures == 0
            delete(folder)
            await until(lambda: journal.failures and not journal.failing, "a snapshot in its place")
            take(ats[6:])
            on_disk = {line for path in files(folder) for lines in read(path) for line in lines}
            assert on_disk == set(ats)
            assert journal.failures == 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())
    told = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
    [failing] = [one for one in told if one["event"] == "journal_failing"]
    assert "deleted or replaced while the server runs" in failing["reason"]
    assert str(tmp_path / "journal") in failing["reason"]
    assert [one["event"] for one in told][-2:] == ["journal_rewritten", "journal_whole"]


def test_while_files_are_gone_reports_are_refused_and_the_metric_says_so(
    tmp_path: Path, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with driven(tmp_path / "journal", observer, monkeypatch) as (_, durability):
            watching = asyncio.create_task(durability.watch())  # and nobody writes it anew
            assert durability.append([LINE])
            delete_segment(tmp_path / "journal")
            await until(lambda: durability.failing, "it is noticed")
            assert not durability.append([LINE])
            assert not durability.takes_reports
            observer.settle()
            assert "proxyherd_journal_failing 1.0" in generate_latest(observer.metrics.registry).decode()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(scenario())


def test_a_rewrite_that_deletes_files_is_no_alarm(
    tmp_path: Path, observer: Observer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        with driven(tmp_path / "journal", observer, monkeypatch) as (journal, durability):
            assert durability.append([LINE])
            rewriting = journal.begin_rewrite()
            assert rewriting is not None
            rewriting.finish()
            journal.check()
            assert journal.failing == ""
            delete_segment(tmp_path / "journal")  # what is appended to is looked for all the same
            journal.check()
            assert "deleted" in journal.failing

    asyncio.run(scenario())
