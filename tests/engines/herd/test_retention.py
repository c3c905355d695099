"""What is erased leaves the disk, and no journal of long ago brings it back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest

from proxyherd.config.schema import DurabilitySettings, ErasureSettings, Limits, Timing
from proxyherd.core.messages import Forget
from proxyherd.core.node import Node
from proxyherd.core.table import Table
from proxyherd.core.tombstones import parse_learned
from proxyherd.engines.herd.durability import Durability
from proxyherd.engines.herd.journal import Journal, record
from proxyherd.engines.herd.mark import Mark
from proxyherd.engines.herd.retention import RewriteTimer
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

SECOND = 10**9
DAY = 86_400 * SECOND
ERASURE = ErasureSettings(tombstone_seconds=8 * 86_400, rewrite_seconds=8)
"""A journal is too old after seven days."""


def at(client: str, received: int) -> bytes:
    seconds, fraction = divmod(received, SECOND)
    return f"AT Ann +0.000000000 {client} +1+1 {seconds}.{fraction:09}".encode()


class Life:
    """One life of a server's journal."""

    def __init__(self, folder: Path, *, alone: bool = False) -> None:
        self.folder = folder / "journal"
        self.log = folder / "log"
        self.file = LogFile(self.log)
        self.table = Table(bytes(32), 2)
        self.node = Node("Ann", self.table, Limits(), Timing(), alone=alone, now=0.0, erasure=ERASURE)
        log = make_logger(self.file, server="Ann", level="info", max_field_bytes=1_024)
        self.journal = Journal(self.folder, line_bytes=1_000, rewrite_bytes=1 << 20)
        self.journal.start()
        self.durability = Durability(
            self.journal,
            Mark(folder / "journal.mark", b"boot"),
            self.node,
            DurabilitySettings(),
            Observer(log, self.file, Metrics(), []),
            ERASURE,
        )

    def report(self, client: str) -> bytes:
        """Let a client report now, as a turn does."""
        clock = time.time_ns()
        self.node.rules.begin(clock, takes_reports=True)
        line = f"IAMAT {client} +1+1 {clock // SECOND}".encode()
        (report,), _ = self.node.rules.judge([line], clock)
        assert self.node.store([[report]]) == [1]
        self.keep()
        return report.line

    def forget(self, client: str) -> bytes:
        self.node.rules.begin(time.time_ns(), takes_reports=True)
        reply = self.node.decide(b"", Forget(client.encode()))
        self.keep()
        assert reply.answer is not None
        return reply.answer

    def keep(self) -> None:
        assert self.durability.append([one.line for one in self.node.news])
        self.node.flood()

    def bytes_on_disk(self) -> bytes:
        while True:
            with contextlib.suppress(FileNotFoundError):  # a rewrite has deleted one since it was listed
                return b"".join(path.read_bytes() for path in sorted(self.folder.iterdir()))

    def held(self) -> set[bytes]:
        return {*self.table.lines(0, self.table.leaf_count, 1 << 30)[0]}

    def events(self, name: str) -> list[dict[str, Any]]:
        self.file.flush()
        events = map(json.loads, self.log.read_bytes().splitlines())
        return [event for event in events if event["event"] == name]


def live(folder: Path, body: Callable[[Life], Coroutine[Any, Any, None]], **more: Any) -> Life:
    """Play one life to its end."""

    async def play() -> Life:
        life = Life(folder, **more)
        keeping: asyncio.Task[None] | None = None
        try:
            await life.durability.replay()
            life.node.start(0.0, lacks=bool(life.durability.lacks))
            keeping = asyncio.ensure_future(life.durability.keep())
            await body(life)
        finally:
            if keeping is not None:
                keeping.cancel()
                await asyncio.gather(keeping, return_exceptions=True)
            await life.durability.close()
            life.file.close()
        return life

    return asyncio.run(play())


@pytest.fixture(autouse=True)
def short_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.engines.herd.durability._SECOND", 0.002)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - files do not tell
            await asyncio.sleep(0.005)


async def nothing(_: Life) -> None:
    pass


def write(folder: Path, lines: list[bytes], name: str = "000000000001.segment") -> None:
    """Leave a journal with these lines, and no mark, as a restored backup does."""
    (folder / "journal").mkdir(parents=True, exist_ok=True)
    (folder / "journal" / name).write_bytes(b"".join(map(record, lines)))


# The rewrite after an erasure. --------------------------------------------------------------------------------


def test_an_erased_client_leaves_the_disk_and_others_and_the_tombstone_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bytes] = []

    async def body(life: Life) -> None:
        life.report("victim")
        kept.append(life.report("plum"))
        kept.append(life.forget("victim"))
        assert b"victim" in life.bytes_on_disk()
        monkeypatch.setattr(life.durability._timer, "_pause", 0.01)
        await until(lambda: life.events("journal_rewritten") != [])
        assert b"victim" not in life.bytes_on_disk()

    life = live(tmp_path, body)
    assert len(life.events("journal_rewritten")) == 1
    again = live(tmp_path, nothing)
    assert again.held() == {*kept}


def test_a_rewrite_is_due_half_of_the_time_after_the_first_erasure_that_none_covers() -> None:
    node = Node("Ann", Table(bytes(32), 2), Limits(), Timing(), alone=True, now=0.0)
    timer = RewriteTimer(node, 10)

    def erase(moment: int) -> None:
        assert node.admit(node.table.tombstone(b"kiwi", moment))

    assert not any(timer.look(now) for now in (0, 1, 1_000))
    erase(1)
    assert [timer.look(now) for now in (2_000, 2_001, 2_004.9, 2_005)] == [False, False, False, True]
    assert timer.look(2_006), "the rewrite has failed"
    timer.rewritten(2_006)
    assert not any(timer.look(now) for now in (2_007, 9_999))
    erase(2)
    assert not timer.look(10_000)
    erase(3)
    assert timer.look(10_006), "the first one counts"
    timer.rewritten(10_006)  # the last one was only just noticed
    assert [timer.look(now) for now in (10_007, 10_010, 10_011)] == [False, False, True]
    erase(4)  # while it is written
    timer.rewritten(10_011)
    assert [timer.look(now) for now in (10_012, 10_016)] == [False, True]
    timer.rewritten(10_016)
    assert not timer.look(99_999)


def test_a_start_that_finds_tombstones_rewrites_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def erase(life: Life) -> None:
        life.report("victim")
        life.forget("victim")

    async def body(life: Life) -> None:
        monkeypatch.setattr(life.durability._timer, "_pause", 0.01)
        await until(lambda: b"victim" not in life.bytes_on_disk())

    assert b"victim" in live(tmp_path, erase).bytes_on_disk()
    life = live(tmp_path, body)
    assert len(life.held()) == len(life.table.tombstones) == 1


# The age of a journal. ----------------------------------------------------------------------------------------


def test_a_journal_whose_youngest_record_is_too_old_is_not_used(tmp_path: Path) -> None:
    clock = time.time_ns()
    write(tmp_path, [at("old", clock - 20 * DAY), at("young", clock - 7 * DAY - SECOND)])
    found: list[str] = []

    async def body(life: Life) -> None:
        assert life.durability.lacks == "they are older than 7 days"
        found.extend(path.suffix for path in sorted(life.folder.iterdir()))
        life.report("plum")

    life = live(tmp_path, body)
    assert [client for client, _ in life.table] == [b"plum"]
    assert found == [".outdated", ".segment"]
    (event,) = life.events("journal_outdated")
    assert "tombstone_seconds" in event["remedy"]
    assert len(live(tmp_path, nothing).held()) == 1, "the next start does not use it either"


LEARNED = {"of-the-last-days": 2 * DAY, "of-today": DAY // 2, "of-before": 7 * DAY + SECOND, "nothing": 0}
"""The age of what a neighbour tells; what it shows."""


@pytest.mark.parametrize("caught_up", [False, True])
@pytest.mark.parametrize("told", LEARNED)
@pytest.mark.parametrize("again", [False, True])
def test_files_that_were_set_aside_go_once_a_neighbour_has_told_of_reports_of_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caught_up: bool, told: str, again: bool
) -> None:
    monkeypatch.setattr(Node, "caught_up", caught_up)
    write(tmp_path, [at("old", time.time_ns() - 20 * DAY)])

    async def body(life: Life) -> None:
        life.report("plum")
        life.forget("mango")
        if told != "nothing":
            learned = parse_learned(at("kiwi", time.time_ns() - LEARNED[told]), life.node.rules.lead)
            assert learned is not None
            assert life.node.admit(learned)
        monkeypatch.setattr(life.durability._timer, "_pause", 0.01)
        await until(lambda: life.events("journal_rewritten") != [])
        await asyncio.sleep(0.1)

    if again:
        live(tmp_path, nothing)
    life = live(tmp_path, body)
    goes = caught_up and told == "of-the-last-days"
    assert (b"old" in life.bytes_on_disk()) == (not goes)
    assert len([*(tmp_path / "journal").glob("*.outdated")]) == (not goes)
    kept = life.events("journal_outdated_kept")
    assert len(kept) == (caught_up and not goes)
    assert all("greater tombstone_seconds" in event["remedy"] for event in kept)


def test_files_that_a_start_with_a_clock_far_ahead_has_set_aside_are_kept_when_the_clock_is_right_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = time.time_ns()
    write(tmp_path, [at("old", clock - DAY)])
    with monkeypatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: clock + 1_000 * DAY)
        live(tmp_path, nothing)

    async def body(life: Life) -> None:
        monkeypatch.setattr(Node, "caught_up", True)
        learned = parse_learned(at("kiwi", clock - 2 * DAY), life.node.rules.lead)
        assert learned is not None
        life.node.admit(learned)
        monkeypatch.setattr(life.durability._timer, "_pause", 0.01)
        await until(lambda: life.events("journal_outdated_kept") != [])

    assert b"old" in live(tmp_path, body).bytes_on_disk()


@pytest.mark.parametrize(
    ("youngest", "used"),
    [(7 * DAY - 60 * SECOND, True), (7 * DAY + SECOND, False), (-DAY // 2, True), (-2 * DAY, False)],
)
def test_one_young_record_is_enough_but_not_one_from_the_future(
    tmp_path: Path, youngest: int, used: bool
) -> None:
    clock = time.time_ns()
    write(tmp_path, [at("a", clock - youngest), at("b", clock - 20 * DAY)])
    write(tmp_path, [at("c", clock - 20 * DAY)], "000000000002.segment")
    assert (len(live(tmp_path, nothing).table) == 3) == used


def test_a_tombstone_shows_how_old_a_journal_is_too(tmp_path: Path) -> None:
    clock = time.time_ns()
    young = Table(bytes(32), 2).tombstone(b"kiwi", clock - DAY).line
    write(tmp_path, [at("a", clock - 20 * DAY), young])
    assert len(live(tmp_path, nothing).held()) == 2


def test_a_server_that_ran_lately_uses_its_journal_however_old_its_records_are(tmp_path: Path) -> None:
    async def body(life: Life) -> None:
        assert life.durability.append([at("old", time.time_ns() - 100 * DAY)])

    live(tmp_path, body, alone=True)
    assert len(live(tmp_path, nothing).table) == 1
    (tmp_path / "journal.mark").unlink()
    assert len(live(tmp_path, nothing).table) == 0


def test_a_backup_is_as_old_as_its_records_though_the_mark_was_left_in_place(tmp_path: Path) -> None:
    async def body(life: Life) -> None:
        life.report("plum")

    live(tmp_path, body, alone=True)
    (segment,) = (tmp_path / "journal").iterdir()
    segment.rename(tmp_path / "moved")  # its inode must not come back
    write(tmp_path, [at("old", time.time_ns() - 20 * DAY)])
    assert b"closed" in (tmp_path / "journal.mark").read_bytes()
    assert len(live(tmp_path, nothing).table) == 0


def test_a_herd_of_one_server_always_uses_its_journal(tmp_path: Path) -> None:
    write(tmp_path, [at("old", time.time_ns() - 1_000 * DAY)])
    assert len(live(tmp_path, nothing, alone=True).table) == 1


def test_a_clock_that_was_never_set_makes_no_journal_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [at("old", time.time_ns() - 20 * DAY)])
    monkeypatch.setattr(time, "time_ns", lambda: 30 * DAY)
    assert len(live(tmp_path, nothing).table) == 1


def test_a_journal_that_cannot_be_set_aside_is_not_used_and_mended_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [at("old", time.time_ns() - 20 * DAY)])

    def refuse(*_: object) -> Path:
        raise OSError(30, "Read-only file system")

    async def body(life: Life) -> None:
        assert len(life.table) == 0
        await until(lambda: not life.durability.failing)
        assert [path.suffix for path in life.folder.iterdir() if b"old" in path.read_bytes()] == [".outdated"]

    real, renames = Path.rename, iter([refuse])

    def rename(path: Path, to: Path) -> Path:
        return next(renames, real)(path, to)

    monkeypatch.setattr(Path, "rename", rename)
    live(tmp_path, body)


# A running server that was cut off for too long. --------------------------------------------------------------

AWAY = 9 * DAY


def lose(life: Life) -> None:
    """Let the server notice at a link that it was without contact for too long."""
    life.node.rules.clock = time.time_ns()
    life.node.contact.last = life.node.rules.clock - AWAY
    life.node._set_aside_if_lost(0.0)
    assert life.node.contact.aside is not None


def catch_up(life: Life, began: int) -> None:
    """Let a catch-up end, from a neighbour that has had the table since then."""
    life.node._put_back(life.node.contact.caught_up(began))


@pytest.mark.parametrize("rewritten", [False, True])
@pytest.mark.parametrize("dropped", [False, True])
def test_what_a_server_has_set_aside_leaves_its_journal_if_it_is_dropped_and_no_earlier(
    tmp_path: Path, dropped: bool, rewritten: bool
) -> None:
    old, own = at("old", time.time_ns() - 10 * DAY), list[bytes]()

    async def body(life: Life) -> None:
        assert life.node.admit(cast("Any", parse_learned(old)))
        assert life.durability.append([old])
        own.append(life.report("own"))
        lose(life)
        assert life.held() == {*own}
        if rewritten:  # for another reason
            await life.durability._rewrite()
        assert b"old" in life.bytes_on_disk()
        catch_up(life, 0 if dropped else life.node.rules.clock)
        if dropped:
            await until(lambda: life.events("doubtful_dropped") != [])
            assert b"old" not in life.bytes_on_disk()
        else:
            await asyncio.sleep(0.02)
        assert life.node.contact.doubted == 0

    life = live(tmp_path, body)
    assert life.held() == live(tmp_path, nothing).held() == {*own, *[old][dropped:]}
    assert [event["lines"] for event in life.events("doubtful_dropped")] == [1] * dropped


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("reports", [False, True])
def test_a_server_that_is_started_again_while_it_is_cut_off_is_lost_nevertheless(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: bool, whole: bool
) -> None:
    """Also if its journal lacks something, so that there is no other word of it."""
    clock = time.time_ns()

    async def linked(life: Life) -> None:
        monkeypatch.setattr(Node, "caught_up", True)
        assert life.durability.append([at("old", clock - 60 * SECOND)])
        life.node.contact.last = clock

    async def cut_off(life: Life) -> None:
        assert (life.table.get(b"old") is None) is (not reports and time.time_ns() > clock + 7 * DAY)
        if reports:
            life.report("own")

    live(tmp_path, linked)
    monkeypatch.setattr(Node, "caught_up", False)
    if not whole:
        mark = tmp_path / "journal.mark"
        mark.write_bytes(mark.read_bytes().replace(b"closed", b"before"))  # as another boot leaves it
    for days in (3, 6, 9):
        monkeypatch.setattr(time, "time_ns", lambda days=days: clock + days * DAY)
        life = live(tmp_path, cut_off)
    if reports:
        life.node.rules.clock = time.time_ns()
        life.node._set_aside_if_lost(0.0)
    assert {client for client, _ in life.table} == ({b"own"} if reports else set())


@pytest.mark.parametrize("decided", [False, True])
def test_a_server_that_is_killed_before_what_was_in_doubt_has_left_its_journal_is_lost_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decided: bool
) -> None:
    async def body(life: Life) -> None:
        assert life.durability.append([at("old", time.time_ns() - 10 * DAY)])
        life.report("own")
        monkeypatch.setattr(Node, "caught_up", True)
        monkeypatch.setattr(Journal, "begin_rewrite", lambda *_: None)  # the disk is slow
        lose(life)
        if decided:
            catch_up(life, 0)

    live(tmp_path, body)
    monkeypatch.undo()
    again = live(tmp_path, nothing)
    assert again.node.contact.last < time.time_ns() - 8 * DAY
    assert {client for client, _ in again.table} == {b"old", b"own"}
    again.node.rules.clock = time.time_ns()
    again.node._set_aside_if_lost(0.0)
    assert {client for client, _ in again.table} == {b"own"}


def test_a_line_of_a_client_that_was_erased_is_not_replayed_from_any_file(tmp_path: Path) -> None:
    clock = time.time_ns()
    gone = Table(bytes(32), 2).tombstone(b"kiwi", clock - DAY).line
    for name, lines in {
        "000000000001.segment": [at("kiwi", clock - 2 * DAY)],
        "000000000002.snapshot": [gone],
        "000000000003.segment": [at("kiwi", clock - DAY), at("plum", clock - DAY)],
    }.items():
        write(tmp_path, lines, name)
    assert live(tmp_path, nothing).held() == {gone, at("plum", clock - DAY)}
