"""The journal as laws: what was appended comes back, whatever a crash, a full disk or a bad sector did meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import stat
import tempfile
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from descriptors import descriptors_below
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyherd.config.schema import Limits, Timing
from proxyherd.core.messages import parse_at
from proxyherd.core.node import Node
from proxyherd.core.table import Table
from proxyherd.engines.herd.journal import Finding, Journal, files, read, record, records_bytes, sync, verify

LINE_BYTES = 1_000
LINES = [b"AT Ann +0.100000000 client%d +1+1 %d" % (number, number) for number in range(9)]
HOSTILE = st.binary(max_size=60).map(lambda line: line.replace(b"\n", b"\r"))


@contextlib.contextmanager
def opened(folder: Path, *, rewrite_bytes: int = 1 << 20) -> Iterator[Journal]:
    """Start a journal as a server does, but for its replay."""
    journal = Journal(folder, line_bytes=LINE_BYTES, rewrite_bytes=rewrite_bytes)
    journal.start()
    try:
        yield journal
    finally:
        journal.close()


def replayed(journal: Journal) -> tuple[list[bytes], list[Finding]]:
    """Replay; return the lines, and what was found in each file."""
    lines: list[bytes] = []
    findings: list[Finding] = []
    for found in journal.replay():
        if isinstance(found, Finding):
            findings.append(found)
        else:
            lines += found
    return lines, findings


def restarted(folder: Path) -> tuple[list[bytes], list[Finding]]:
    """Return what the next start of a server finds."""
    with opened(folder) as journal:
        return replayed(journal)


def read_whole(path: Path, line_bytes: int = LINE_BYTES) -> tuple[list[bytes], Finding]:
    lines: list[bytes] = []
    batches = read(path, line_bytes)
    while True:
        try:
            lines += next(batches)
        except StopIteration as end:
            finding: Finding = end.value
            return lines, finding


def rewrite(journal: Journal, table: Iterable[bytes]) -> bool:
    """Rewrite as a server does: one slice a line, and a failure is noted. True if a snapshot is in place."""
    rewriting = journal.begin_rewrite()
    if rewriting is None:
        return False
    try:
        for line in table:
            rewriting.write([line])
        rewriting.finish()
    except OSError as error:
        rewriting.abandon()
        journal.fail(error)
        return False
    journal.end_rewrite(rewriting)
    return True


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- appending and replaying


@given(st.lists(st.lists(HOSTILE, max_size=5), max_size=8))
def test_what_was_appended_is_replayed_in_order_byte_for_byte(batches: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        with opened(Path(folder)) as journal:
            for batch in batches:
                assert journal.append(batch)
        lines, findings = restarted(Path(folder))
        assert lines == [line for batch in batches for line in batch]
        assert [(one.damaged, one.torn) for one in findings] == [(0, 0)]


@given(st.integers(0, 1 << 32))
@settings(max_examples=30)
def test_records_are_found_wherever_reading_cuts_the_file(seed: int) -> None:
    rng = random.Random(seed)
    lines = [rng.randbytes(rng.randrange(LINE_BYTES)).replace(b"\n", b"") for _ in range(700)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "000000000001.segment")
        path.write_bytes(b"".join(map(record, lines)))
        assert path.stat().st_size > 262_144
        found, finding = read_whole(path)
        assert found == lines
        assert finding == Finding(path, len(lines), 0, path.stat().st_size, 0)


def test_each_start_appends_to_a_segment_of_its_own_and_all_are_replayed(tmp_path: Path) -> None:
    for line in LINES:
        with opened(tmp_path) as journal:
            replayed(journal)
            assert journal.append([line])
    assert len(files(tmp_path)) == len(LINES)
    assert restarted(tmp_path)[0] == LINES


def test_replaying_is_a_merge_that_neither_order_nor_repetition_changes(tmp_path: Path) -> None:
    rng = random.Random(5)
    lines = [
        b"AT %b +0.100000000 client%d +1+1 %d.5" % (rng.choice((b"Ann", b"Bob")), number % 40, time)
        for number, time in enumerate(rng.choices(range(30), k=400))
    ]
    tables: list[dict[bytes, bytes]] = []
    for _ in range(10):
        table = Table(bytes(32))
        node = Node("Ann", table, Limits(), Timing(), alone=True, now=0.0)
        node.replay(map(parse_at, rng.choices(lines, k=100) + lines))
        tables.append({client: entry.line for client, entry in table})
        rng.shuffle(lines)
    assert len(tables[0]) == 40
    assert all(table == tables[0] for table in tables)


@pytest.mark.parametrize("cut", range(1, len(record(LINES[2])) + 1))
def test_torn_tail_is_cut_off_and_costs_only_the_torn_record(tmp_path: Path, cut: int) -> None:
    with opened(tmp_path) as journal:
        journal.append(LINES[:3])
    [path] = files(tmp_path)
    whole = path.stat().st_size - len(record(LINES[2]))
    os.truncate(path, path.stat().st_size - cut)
    torn = path.stat().st_size - whole
    lines, [finding] = restarted(tmp_path)
    assert lines == LINES[:2]
    assert finding == Finding(path, 2, 0, whole, torn)
    assert path.stat().st_size == whole
    assert verify(path).torn == 0
    assert restarted(tmp_path)[0] == LINES[:2]


def test_torn_tail_of_zeros_as_a_power_cut_leaves_it_is_cut_off(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(LINES[:2])
    [path] = files(tmp_path)
    with path.open("ab") as file:
        file.write(bytes(300_000))
    lines, [finding] = restarted(tmp_path)
    assert lines == LINES[:2]
    assert (finding.damaged, finding.torn) == (0, 300_000)
    assert path.read_bytes() == b"".join(map(record, LINES[:2]))


def test_a_record_is_the_checksum_of_its_line_in_hexadecimal_and_the_line() -> None:
    """The check value of CRC-32, and a sum that begins with zeros: journals outlive the program that wrote them."""
    assert record(b"123456789") == b"cbf43926 123456789\n"
    assert record(b"") == b"00000000 \n"


@given(st.lists(HOSTILE, max_size=9))
def test_bytes_of_records_are_known_before_they_are_made(lines: list[bytes]) -> None:
    assert records_bytes(lines) == len(b"".join(map(record, lines)))


def test_a_line_may_be_as_long_as_the_herd_takes_and_one_byte_more_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "000000000001.segment"
    for line_bytes in (10, 262_144 - 10, 262_144 + 10, 1_049_088):
        longest = b"x" * line_bytes
        path.write_bytes(record(longest) + record(b"y") + record(longest + b"x") + record(b"z"))
        lines, finding = read_whole(path, line_bytes)
        assert lines == [longest, b"y", b"z"]
        assert finding == Finding(path, 3, 1, path.stat().st_size, 0)
    assert (verify(path).records, verify(path).damaged) == (3, 1), "the longest of any herd"


@pytest.mark.parametrize("tail", [b"x", b"\n", b"x\nx\n", b"x" * 300_000, b"x" * 300_000 + b"\nx"])
def test_what_is_behind_the_last_whole_record_is_torn_to_the_byte_however_it_is_read(
    tmp_path: Path, tail: bytes
) -> None:
    path = tmp_path / "000000000001.segment"
    whole = b"".join(map(record, LINES))
    path.write_bytes(whole + tail)
    assert read_whole(path)[1] == Finding(path, len(LINES), 0, len(whole), len(tail))


@pytest.mark.parametrize("number", [1, 2, 5])
def test_as_many_lines_as_are_damaged_are_told(tmp_path: Path, number: int) -> None:
    path = tmp_path / "000000000001.segment"
    path.write_bytes(record(LINES[0]) + b"x\n" * number + record(LINES[1]) + b"y\n" + record(LINES[2]))
    assert read_whole(path)[1] == Finding(path, 3, number + 1, path.stat().st_size, 0)


# --- damage


GARBAGE = {
    "words": b"what is this\n",
    "NULs": bytes(5_000) + b"\n",
    "blank lines": b"\n\n\n",
    "a record whose checksum is another's": record(LINES[0])[:9] + record(LINES[1])[9:],
    "a checksum in capitals": b"ABCDEF01 " + LINES[0] + b"\n",
    "a line longer than any record": b"x" * (LINE_BYTES + 100) + b"\n",
    "a line longer than what is read at once": b"x" * 400_000 + b"\n",
    "10 MB without an end": b"x" * 10_000_000,
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_damage_in_the_middle_is_found_and_what_is_around_it_survives(tmp_path: Path, garbage: bytes) -> None:
    with opened(tmp_path) as journal:
        journal.append(LINES)
    [path] = files(tmp_path)
    lost = not garbage.endswith(b"\n")  # it swallows the record behind it
    hurt = b"".join([*map(record, LINES[:4]), garbage, *map(record, LINES[4:])])
    path.write_bytes(hurt)
    assert verify(path).damaged
    with opened(tmp_path) as journal:
        lines, [finding] = replayed(journal)
        assert lines == LINES[:4] + LINES[4 + lost :]
        assert (finding.damaged >= 1, finding.end, finding.torn) == (True, len(hurt), 0)
        # It stays where it is until a snapshot stands for what was still right in it.
        assert path.read_bytes() == hurt
        assert journal.wants_rewrite
        assert rewrite(journal, lines)
        assert not journal.wants_rewrite
    assert not path.exists()
    assert path.with_name(f"{path.name}.damaged").read_bytes() == hurt
    after, findings = restarted(tmp_path)
    assert after == lines
    assert not any(one.damaged for one in findings)


@given(st.integers(0, 8 * len(b"".join(map(record, LINES[:-2]))) - 1))
def test_flipped_bit_costs_the_record_it_is_in_and_no_other(bit: int) -> None:
    data = bytearray(b"".join(map(record, LINES)))
    data[bit // 8] ^= 1 << bit % 8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "000000000001.segment")
        path.write_bytes(data)
        lines, finding = read_whole(path)
    lost = set(LINES) - set(lines)
    assert set(lines) < set(LINES)
    assert len(lost) == 1 or (
        len(lost) == 2 and data.count(b"\n") == len(LINES) - 1
    )  # the flipped bit was its LF's
    assert finding.damaged >= 1
    assert finding.torn == 0


@given(st.binary(max_size=3_000), st.integers(1, len(LINES) - 1))
def test_no_damage_whatever_makes_reading_raise_or_invent_a_line(garbage: bytes, at: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "000000000001.segment")
        path.write_bytes(b"".join([*map(record, LINES[:at]), garbage, b"\n", *map(record, LINES[at:])]))
        lines, finding = read_whole(path)
        assert lines == LINES
        assert finding.end + finding.torn == path.stat().st_size


def test_file_that_cannot_be_read_is_told_and_kept_aside_and_the_others_are_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for line in LINES[:3]:
        with opened(tmp_path) as journal:
            journal.append([line])
    bad = files(tmp_path)[1]
    real = os.open

    def failing(path: Path, *arguments: Any, **more: Any) -> Any:
        if path == bad:
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *arguments, **more)

    with opened(tmp_path) as journal:
        monkeypatch.setattr(os, "open", failing)
        lines, findings = replayed(journal)
        monkeypatch.undo()
        assert lines == [LINES[0], LINES[2]]
        assert [one.damaged for one in findings] == [0, 1, 0]
        assert findings[1] == Finding(bad, records=0, damaged=1, end=0, torn=0)
        assert journal.failing == f"{bad}: Input/output error"
        assert rewrite(journal, lines)
        assert journal.failing == ""
    assert bad.with_name(f"{bad.name}.damaged").exists()


def test_reading_takes_little_memory_whatever_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "000000000001.segment"
    contents = {
        "records": record(b"x" * (LINE_BYTES - 100)) * 7_000,
        "no end": b"x" * 6_000_000,
        "zeros": bytes(6_000_000),
        "blank lines": b"\n" * 270_000,
    }
    for what, content in contents.items():
        path.write_bytes(content)
        tracemalloc.start()
        for _ in read(path, LINE_BYTES):
            pass
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 5_000_000, f"{what}: {peak} bytes"


# --- a start


def test_start_deletes_what_a_rewrite_left_unfinished(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(LINES)
    (tmp_path / "000000000002.unfinished").write_bytes(b"half a rec")
    assert restarted(tmp_path)[0] == LINES
    assert not any(name.endswith(".unfinished") for name in names(tmp_path))


def test_start_leaves_alone_what_is_none_of_a_journals_files(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("by the operator")
    (tmp_path / "1.segment").write_bytes(record(LINES[0]))
    (tmp_path / "000000000007.segment.damaged").write_bytes(record(LINES[0]))
    with opened(tmp_path) as journal:
        assert replayed(journal) == ([], [])
        rewrite(journal, [])
    assert {"notes.txt", "1.segment", "000000000007.segment.damaged"} < set(names(tmp_path))


def test_start_that_cannot_look_at_its_folder_destroys_nothing(tmp_path: Path) -> None:
    """An unfinished snapshot that cannot be deleted (here because it is a folder) once hid the segments."""
    with opened(tmp_path) as journal:
        journal.append(LINES)
    (tmp_path / "000000000002.unfinished").mkdir()
    assert restarted(tmp_path)[0] == LINES
    (tmp_path / "000000000002.unfinished").rmdir()
    assert restarted(tmp_path)[0] == LINES


def test_start_that_cannot_list_its_folder_destroys_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as journal:
        journal.append(LINES)

    def failing(_: Path) -> list[Path]:
        raise OSError(errno.EIO, "Input/output error", str(tmp_path))

    monkeypatch.setattr("proxyherd.engines.herd.journal.files", failing)
    with opened(tmp_path) as journal:
        assert journal.failing
        rewrite(journal, [])
    monkeypatch.undo()
    assert restarted(tmp_path)[0] == LINES


def test_folder_that_cannot_be_made_is_a_failing_journal_and_no_exception(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("in the way")
    with opened(tmp_path / "journal") as journal:
        assert journal.failing
        assert not journal.append(LINES)
        assert replayed(journal) == ([], [])
        assert journal.begin_rewrite() is None
        assert not journal.unsynced
        assert journal.listing() == {}
        (tmp_path / "journal").unlink()
        rewriting = journal.begin_rewrite()
        assert rewriting is not None
        assert list(journal.listing()) == [path.name for path in files(tmp_path / "journal")]
        rewriting.abandon()
        assert rewrite(journal, LINES)
        assert journal.failing == ""
        assert list(journal.listing()) == [path.name for path in files(tmp_path / "journal")]
        assert journal.append(LINES[:1])
    assert restarted(tmp_path / "journal")[0] == [*LINES, LINES[0]]


# --- rewriting


@pytest.mark.parametrize(
    ("snapshot", "appended", "wanted"),
    [
        (0, 5_000, False),
        (0, 5_001, True),
        (9_999, 5_001, True),
        (20_000, 9_999, False),
        (20_000, 10_001, True),
    ],
)
def test_rewrite_is_wanted_after_its_bytes_and_half_of_the_snapshot(
    tmp_path: Path, snapshot: int, appended: int, *, wanted: bool
) -> None:
    (tmp_path / "000000000001.snapshot").write_bytes(bytes(snapshot))
    (tmp_path / "000000000002.segment").write_bytes(bytes(appended))
    with opened(tmp_path, rewrite_bytes=5_000) as journal:
        assert journal.wants_rewrite is wanted


def test_rewrite_is_wanted_as_appends_add_up_and_not_again_after_it(tmp_path: Path) -> None:
    with opened(tmp_path, rewrite_bytes=5_000) as journal:
        appended = 0
        while not journal.wants_rewrite:
            journal.append(LINES)
            appended += sum(map(len, map(record, LINES)))
        assert 5_000 < appended < 6_000
        assert journal.bytes_written == appended
        rewrite(journal, LINES)
        assert not journal.wants_rewrite
    with opened(tmp_path, rewrite_bytes=5_000) as journal:
        assert not journal.wants_rewrite


def test_rewrite_is_wanted_when_many_starts_have_left_many_files(tmp_path: Path) -> None:
    for _ in range(30):
        with opened(tmp_path) as journal:
            replayed(journal)
            if journal.wants_rewrite:
                rewrite(journal, [])
    assert len(files(tmp_path)) <= 18


@pytest.mark.parametrize("starts", [16, 17])
def test_rewrite_is_wanted_when_more_than_sixteen_files_were_found(tmp_path: Path, starts: int) -> None:
    for _ in range(starts):
        with opened(tmp_path) as journal:
            pass
    with opened(tmp_path) as journal:
        assert len(files(tmp_path)) == starts + 1
        assert journal.wants_rewrite == (starts > 16)


def test_rewrite_is_wanted_past_rewrite_bytes_and_past_half_of_a_large_snapshot(tmp_path: Path) -> None:
    """Also after a start, whose segments no snapshot stands for yet."""
    size = len(record(LINES[0]))
    assert size == len(record(LINES[1]))

    def wanted_after(journal: Journal) -> int:
        """Return the number of appended records at which it is wanted."""
        for number in range(1, 1_000):
            journal.append(LINES[:1])
            if journal.wants_rewrite:
                return number
        raise AssertionError("never")

    with opened(tmp_path, rewrite_bytes=10 * size) as journal:
        assert (journal.bytes_found, wanted_after(journal)) == (0, 11)
        assert rewrite(journal, LINES[:1] * 20)  # half of it is no more than rewrite_bytes
        assert wanted_after(journal) == 11
        assert rewrite(journal, LINES[:1] * 40)
        assert wanted_after(journal) == 21
        assert rewrite(journal, LINES[:1] * 40)
        assert journal.append(LINES[:1] * 5)
    with opened(tmp_path, rewrite_bytes=10 * size) as journal:
        assert (journal.bytes_found, wanted_after(journal)) == (45 * size, 16)


def test_what_is_appended_while_a_rewrite_lasts_is_not_covered_by_it(tmp_path: Path) -> None:
    with opened(tmp_path, rewrite_bytes=100) as journal:
        rewriting = journal.begin_rewrite()
        assert rewriting is not None
        journal.append(LINES)
        rewriting.finish()
        journal.end_rewrite(rewriting)
        assert journal.wants_rewrite
        assert rewrite(journal, LINES)
        assert not journal.wants_rewrite


def test_a_listing_has_every_file_as_it_is_on_disk_at_each_step(tmp_path: Path) -> None:
    def on_the_disk() -> dict[str, tuple[int, int]]:
        return {path.name: (path.stat().st_ino, path.stat().st_size) for path in files(tmp_path)}

    with opened(tmp_path) as journal:
        journal.append(LINES[:2])
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes() + b"torn")
    with opened(tmp_path) as journal:
        found = journal.found
        assert found == {path.name: on_the_disk()[path.name]}
        assert journal.listing() == on_the_disk()
        replayed(journal)
        assert journal.listing() == on_the_disk()
        journal.append(LINES[2:5])
        assert journal.listing() == on_the_disk()
        rewriting = journal.begin_rewrite()
        assert rewriting is not None
        assert journal.listing() == on_the_disk()
        journal.append(LINES[5:])
        rewriting.write(LINES)
        rewriting.finish()
        journal.end_rewrite(rewriting)
        assert journal.listing() == on_the_disk()
        assert journal.found == found, "what the start has found"
        assert rewrite(journal, LINES)
        assert rewrite(journal, LINES), "where nothing was appended, the segment is deleted"
        assert journal.listing() == on_the_disk()
        assert len(on_the_disk()) == 2


def test_a_rewrite_that_is_abandoned_leaves_no_file_and_no_descriptor_and_the_next_one_covers_all(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as journal:
        journal.append(LINES[:2])
        for number in range(3):
            rewriting = journal.begin_rewrite()
            assert rewriting is not None
            if number:
                rewriting.write(LINES[:1])
            rewriting.abandon()
            rewriting.abandon()
            assert not [name for name in names(tmp_path) if name.endswith(".unfinished")]
        assert descriptors_below(tmp_path) <= 2
        journal.append(LINES[2:3])
        assert on_disk(tmp_path) == LINES[:3]
        assert rewrite(journal, LINES[:3])
        assert [path.suffix for path in files(tmp_path)] == [".snapshot", ".segment"]
    assert restarted(tmp_path)[0] == LINES[:3]


def test_check_finds_any_file_that_is_gone_and_says_which(tmp_path: Path) -> None:
    for at in range(4):
        folder = tmp_path / f"{at}"
        with opened(folder) as journal:
            journal.append(LINES[:1])
        with opened(folder) as journal:
            replayed(journal)
            rewrite(journal, LINES[:1])
            journal.append(LINES[1:2])
        with opened(folder) as journal:
            replayed(journal)
            journal.check()
            assert (journal.failing, journal.failures) == ("", 0)
            every = files(folder)
            assert len(every) == 3
            if at == 3:
                assert journal.append(LINES[:1])
                assert (journal.failing, journal.failures) == ("", 0)
                continue
            every[at].unlink()
            journal.check()
            assert journal.failing == f"{every[at]}: deleted or replaced while the server runs"
            journal.check()
            assert journal.failures == 1, "it is told once"
            assert not journal.append(LINES[:1])


def test_a_journal_that_was_closed_takes_nothing_and_holds_nothing_open(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        assert journal.append(LINES[:1])
        journal.close()
        assert not journal.append(LINES[1:2])
        assert journal.begin_sync() == []
        assert descriptors_below(tmp_path) == 0
    assert restarted(tmp_path)[0] == LINES[:1]


def test_rewrite_leaves_one_snapshot_and_one_segment(tmp_path: Path) -> None:
    for line in LINES:
        with opened(tmp_path) as journal:
            journal.append([line])
    with opened(tmp_path) as journal:
        lines, _ = replayed(journal)
        assert rewrite(journal, lines)
        number = len(LINES) + 1
        assert [path.name for path in files(tmp_path)] == [
            f"{number + 1:012}.snapshot",
            f"{number + 2:012}.segment",
        ]
    assert restarted(tmp_path)[0] == LINES


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_files_have_the_modes_that_the_security_page_promises_whatever_the_umask(
    tmp_path: Path, umask: int
) -> None:
    before = os.umask(umask)
    try:
        with opened(tmp_path / "journal") as journal:
            journal.append(LINES)
            rewriting = journal.begin_rewrite()
            assert rewriting is not None
            rewriting.write(LINES)
            unfinished = stat.S_IMODE(next((tmp_path / "journal").glob("*.unfinished")).stat().st_mode)
            rewriting.finish()
            journal.end_rewrite(rewriting)
            modes = {stat.S_IMODE(path.stat().st_mode) for path in files(tmp_path / "journal")}
    finally:
        os.umask(before)
    assert modes == {unfinished} == {0o640 & ~umask}


def test_what_is_appended_during_a_rewrite_survives_it(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append(LINES[:3])
        rewriting = journal.begin_rewrite()
        assert rewriting is not None
        journal.append(LINES[3:5])
        rewriting.write(LINES[:2])
        journal.append(LINES[5:6])
        rewriting.write(LINES[2:3])
        rewriting.finish()
        journal.append(LINES[6:7])
        journal.end_rewrite(rewriting)
        journal.append(LINES[7:])
    assert restarted(tmp_path)[0] == LINES


class Disk:
    """Watches what is done to a folder, and says at each instant what a crash then would leave of it.

    Killed leaves what is there. A power cut leaves of each file what was synced of it, and of the names those as of
    the folder's last sync; since then a file system may have brought all changes to disk, or the deletions alone.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.promised: set[bytes] = set()  # to survive a kill
        self.synced: set[bytes] = set()  # to survive a power cut
        self.left: list[tuple[str, dict[str, bytes], frozenset[bytes]]] = []
        self._contents: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        for name in (
            "open",
            "write",
            "fsync",
            "fdatasync",
            "close",
            "rename",
            "unlink",
            "ftruncate",
            "truncate",
        ):
            monkeypatch.setattr(os, name, self._watched(name, getattr(os, name)))

    def _watched(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **more: Any) -> Any:
            self._look(f"before {name}")
            result = real(*arguments, **more)
            if name in ("fsync", "fdatasync"):
                path = Path(f"/proc/self/fd/{arguments[0]}").readlink()
                if path == self.folder:
                    self._names = self._now()
                elif path.exists():
                    self._contents[path.stat().st_ino] = self._read(path)
            self._look(f"after {name}")
            return result

        return watched

    def _now(self) -> dict[str, int]:
        return {entry.name: entry.inode() for entry in os.scandir(self.folder)}

    def _read(self, path: Path) -> bytes:
        return path.read_bytes()  # io.open, which is not watched

    def _look(self, when: str) -> None:
        now = self._now()
        killed = {name: self._read(self.folder / name) for name in now}
        self.left.append((f"killed {when}", killed, frozenset(self.promised)))
        deleted = {name: inode for name, inode in self._names.items() if name in now}
        for names in (self._names, now, deleted):
            cut = {name: self._contents.get(inode, b"") for name, inode in names.items()}
            self.left.append((f"cut off power {when}", cut, frozenset(self.synced)))


def test_crash_at_any_step_of_a_rewrite_loses_nothing_that_was_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    disk = Disk(folder, monkeypatch)
    with opened(folder) as journal:
        table: list[bytes] = []

        def append(*lines: bytes) -> None:
            assert journal.append(lines)
            disk.promised.update(lines)
            table.extend(lines)

        def bring_to_disk() -> None:
            before = set(disk.promised)
            sync(journal.begin_sync())
            disk.synced |= before

        append(*LINES[:2])
        bring_to_disk()
        for round_ in range(2):
            more = iter(LINES[2 + round_ * 3 :])
            append(next(more))
            snapshot = list(table)
            rewriting = journal.begin_rewrite()
            assert rewriting is not None
            rewriting.write(snapshot[:1])
            append(next(more))
            bring_to_disk()
            rewriting.write(snapshot[1:])
            rewriting.finish()
            append(next(more))
            journal.end_rewrite(rewriting)
            bring_to_disk()
        monkeypatch.undo()
    assert len(disk.left) > 100
    for number, (when, left, promised) in enumerate(disk.left):
        copy = tmp_path / f"copy{number}"
        copy.mkdir()
        for name, content in left.items():
            (copy / name).write_bytes(content)
        lines, findings = restarted(copy)
        assert promised <= set(lines), f"{when}: {sorted(left)}"
        assert not any(one.damaged for one in findings), when


CALLS = ("open", "write", "fsync", "fdatasync", "rename", "unlink", "scandir")


def test_failure_at_any_step_of_a_rewrite_loses_nothing_and_the_next_one_mends_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed_at: list[str] = []
    for step in range(100):
        folder = tmp_path / f"journal{step}"
        with opened(folder) as journal:
            journal.append(LINES[:3])
            with monkeypatch.context() as patch:
                calls = fail_at(patch, step)
                done = rewrite(journal, LINES[:3])
            if len(calls) <= step:
                break
            failed_at.append(calls[step])
            assert done == (not journal.failing), calls
            kept = journal.append(LINES[3:4])
            assert set(LINES[: 3 + kept]) <= set(on_disk(folder))
            if not done:
                assert rewrite(journal, LINES[: 3 + kept])
            assert journal.failing == ""
            assert journal.append(LINES[4:5])
            assert set(LINES[: 3 + kept]) | {LINES[4]} <= set(on_disk(folder))
            if calls[step] != "unlink":  # what could not be deleted is left for the next start
                assert len(files(folder)) == 2, (calls[step], names(folder))
            assert descriptors_below(folder) <= 3
        assert descriptors_below(folder) == 0
    assert {"open", "write", "fsync", "rename", "unlink"} <= set(failed_at)
    assert len(failed_at) >= 10


def fail_at(patch: pytest.MonkeyPatch, step: int) -> list[str]:
    """Let the call of that number fail, and count them in what is returned."""
    calls: list[str] = []

    def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            calls.append(name)
            if len(calls) == step + 1:
                raise OSError(errno.EIO, "Input/output error")
            return real(*arguments, **more)

        return call

    for name in CALLS:
        patch.setattr(os, name, failing(name, getattr(os, name)))
    return calls


def on_disk(folder: Path) -> list[bytes]:
    """Return the lines there, without touching anything as a start does."""
    return [line for path in files(folder) for line in read_whole(path)[0]]


# --- a disk without room


class Full:
    """A disk with so much room: what is longer is written in part, as a kernel does, and then refused."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, fd: int, data: bytes) -> int:
        if not data:
            return 0
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(fd, data[: self.room])
        self.room -= written
        return written


@given(st.integers(0, sum(map(len, map(record, LINES)))))
def test_short_write_leaves_whole_records_only_and_a_rewrite_mends_the_journal(room: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as monkeypatch:
        folder = Path(name)
        with opened(folder) as journal:
            disk = Full(monkeypatch, room)
            kept: list[bytes] = []
            for at in range(0, len(LINES), 3):
                if journal.append(LINES[at : at + 3]):
                    kept += LINES[at : at + 3]
            assert on_disk(folder) == kept
            assert not any(verify(path).torn for path in files(folder))
            if len(kept) < len(LINES):
                assert "No space left on device" in journal.failing
                assert journal.failures == 1
                disk.room = 10
                assert not rewrite(journal, LINES)
                assert on_disk(folder) == kept
                disk.room = 1 << 20
                assert rewrite(journal, LINES)
                assert journal.append(LINES[:1])
            assert journal.failing == ""
        monkeypatch.undo()
        assert set(restarted(folder)[0]) == set(LINES)


def test_broken_segment_is_never_appended_to_again_before_a_rewrite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where cutting the short write off fails too: the next record would be glued to what is left of it."""
    with opened(tmp_path) as journal:
        disk = Full(monkeypatch, len(record(LINES[0])) + 5)

        def failing(fd: int, size: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "ftruncate", failing)
        assert journal.append(LINES[:1])
        assert not journal.append(LINES[1:2])
        disk.room = 1 << 20
        assert not journal.append(LINES[2:3])
        assert rewrite(journal, LINES[:3])
        assert journal.append(LINES[3:4])
    monkeypatch.undo()
    lines, findings = restarted(tmp_path)
    assert lines == LINES[:4]
    assert not any(one.damaged or one.torn for one in findings)


def test_append_that_fails_during_a_rewrite_leaves_the_journal_failing_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as journal:
        journal.append(LINES[:2])
        rewriting = journal.begin_rewrite()
        assert rewriting is not None
        rewriting.write(LINES[:2])
        disk = Full(monkeypatch, 4)
        assert not journal.append(LINES[2:3])  # learned, and not in the slices written so far
        disk.room = 1 << 20
        rewriting.finish()
        journal.end_rewrite(rewriting)
        assert journal.failing
        assert not journal.append(LINES[3:4])
        assert rewrite(journal, LINES[:4])
        assert journal.failing == ""
    assert set(restarted(tmp_path)[0]) == set(LINES[:4])


def test_disk_that_stays_full_costs_neither_descriptors_nor_files_and_the_reason_stays_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path) as journal:
        journal.append(LINES[:2])
        disk = Full(monkeypatch, 0)
        assert not journal.append(LINES[2:3])
        reasons = {journal.failing}
        for _ in range(50):
            assert not rewrite(journal, LINES[:3])
            reasons.add(journal.failing)
        assert len(reasons) <= 2
        assert len(names(tmp_path)) <= 4
        assert descriptors_below(tmp_path) <= 4
        disk.room = 1 << 20
        assert rewrite(journal, LINES[:3])
        assert len(names(tmp_path)) == 2


# --- syncing


def test_sync_brings_every_segment_appended_to_since_the_last_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fdatasync

    def fdatasync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", fdatasync)
    with opened(tmp_path) as journal:
        journal.append(LINES[:1])
        assert journal.unsynced
        rewriting = journal.begin_rewrite()
        journal.append(LINES[1:2])
        sync(journal.begin_sync())
        assert not journal.unsynced
        assert sorted(synced) == ["000000000001.segment", "000000000003.segment"]
        synced.clear()
        journal.append(LINES[2:3])
        sync(journal.begin_sync())
        assert synced == ["000000000003.segment"]
        assert rewriting is not None
        rewriting.abandon()


def test_sync_closes_every_descriptor_also_when_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with opened(tmp_path) as journal:
        journal.append(LINES[:1])
        rewriting = journal.begin_rewrite()
        assert rewriting is not None
        rewriting.abandon()
        monkeypatch.setattr(os, "fdatasync", failing)
        with pytest.raises(OSError, match="Input/output error"):
            sync(journal.begin_sync())
        assert descriptors_below(tmp_path) == 1
        assert journal.begin_sync() != []


def test_rewriting_again_and_again_leaves_no_descriptor_open_whether_synced_or_not(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for number in range(40):
            journal.append(LINES[:1])
            assert rewrite(journal, LINES)
            if number % 8 == 0:
                sync(journal.begin_sync())
        assert descriptors_below(tmp_path) <= 2
    assert descriptors_below(tmp_path) == 0
