"""Whether a journal may lack records: what each end of a life leaves, and what may befall the files before the next."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from proxyherd.engines.herd.journal import Journal
from proxyherd.engines.herd.mark import Mark, this_boot

LINES = [b"AT Ann +0.100000000 client%d +1+1 %d" % (number, number) for number in range(9)]
BOOT = b"boot-1"


def start(state: Path) -> Journal:
    journal = Journal(state / "journal", line_bytes=1_000, rewrite_bytes=1 << 20)
    journal.start()
    return journal


def mark_of(state: Path, boot: bytes = BOOT) -> Mark:
    return Mark(state / "journal.mark", boot)


def live(state: Path, *, closed: bool = False, boot: bytes = BOOT) -> None:
    """Live once, and leave a snapshot and a segment."""
    journal, mark = start(state), mark_of(state, boot)
    journal.append(LINES[:2])
    rewriting = journal.begin_rewrite()
    assert rewriting is not None
    rewriting.write(LINES[:2])
    rewriting.finish()
    journal.end_rewrite(rewriting)
    journal.append(LINES[2:4])
    mark.write(journal.listing(), closed=closed)
    journal.close()


def lacks(state: Path, boot: bytes = BOOT) -> str:
    journal = start(state)
    journal.close()
    return mark_of(state, boot).lacks(journal.found)


def segment(state: Path) -> Path:
    return max(state.glob("journal/*.segment"))


def append(state: Path) -> None:
    with segment(state).open("ab") as file:
        file.write(b"0badc0de")


def shorten(state: Path) -> None:
    with segment(state).open("r+b") as file:
        file.truncate(segment(state).stat().st_size - 1)


def move_back(state: Path) -> None:
    """Put other files there under the same names, of the same lengths."""
    for path in (state / "journal").iterdir():
        path.rename(path.with_suffix(".old"))
        shutil.copy2(path.with_suffix(".old"), path)


def delete(pattern: str) -> Callable[[Path], None]:
    def deleting(state: Path) -> None:
        for path in state.glob(pattern):
            path.unlink()

    return deleting


def add_a_file(state: Path) -> None:
    (state / "journal/999999999999.segment").touch()


def cut_the_mark(state: Path) -> None:
    mark = state / "journal.mark"
    mark.write_bytes(mark.read_bytes()[:-1])


def test_a_life_that_was_killed_leaves_word_that_nothing_is_missing(tmp_path: Path) -> None:
    live(tmp_path)
    append(tmp_path)  # what came since the mark was written
    assert lacks(tmp_path) == ""


def test_a_life_that_was_closed_leaves_word_that_outlives_the_boot(tmp_path: Path) -> None:
    live(tmp_path, closed=True)
    assert lacks(tmp_path, b"boot-2") == ""


@pytest.mark.parametrize("boot", [b"boot-2", b""])
def test_after_a_power_cut_records_may_be_missing(tmp_path: Path, boot: bytes) -> None:
    live(tmp_path, boot=BOOT if boot else b"")
    why = "the machine has been started again" if boot else "has not left word"
    assert why in lacks(tmp_path, boot)


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        (move_back, "not the file that the last life"),
        (shorten, "is shorter than"),
        (delete("journal/*.snapshot"), "not the files that the last life"),
        (delete("journal/*.segment"), "not the files that the last life"),
        (add_a_file, "not the files that the last life"),
        (delete("journal.mark"), "has not left word"),
        (cut_the_mark, "has not left word"),
    ],
)
def test_files_that_were_changed_meanwhile_may_lack_records(
    tmp_path: Path, change: Callable[[Path], None], why: str, *, closed: bool
) -> None:
    live(tmp_path, closed=closed)
    change(tmp_path)
    assert why in lacks(tmp_path)


def test_a_restored_backup_that_is_older_may_lack_records(tmp_path: Path) -> None:
    live(tmp_path)
    shutil.copytree(tmp_path / "journal", tmp_path / "backup")
    live(tmp_path)
    shutil.rmtree(tmp_path / "journal")
    shutil.copytree(tmp_path / "backup", tmp_path / "journal")
    assert "not the files that the last life" in lacks(tmp_path)


def test_a_mark_that_was_made_void_says_nothing(tmp_path: Path) -> None:
    live(tmp_path)
    mark_of(tmp_path).make_void(17)
    text = (tmp_path / "journal.mark").read_bytes()
    assert text == b"- 17", "it keeps its block: on a full disk nobody gets room"
    assert "has not left word" in lacks(tmp_path)
    assert mark_of(tmp_path).last_moment == 17


def test_a_mark_that_cannot_be_written_is_no_error_and_one_that_cannot_be_made_void_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = Mark(tmp_path / "missing" / "journal.mark", BOOT)
    nowhere.write({"x": (1, 2)})
    nowhere.make_void()
    live(tmp_path)
    mark = mark_of(tmp_path)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    mark.write({"x": (1, 2)})
    assert not (tmp_path / "journal.mark").exists()
    mark.make_void()


@pytest.mark.parametrize("cut", range(1, 9))
def test_a_mark_that_was_being_written_when_its_server_was_killed_is_never_believed_wrongly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """What is left of a longer one may stand behind it."""
    mark, path = mark_of(tmp_path), tmp_path / "journal.mark"
    mark.write({"a": (10**cut, 10**cut), "b": (2, 20)})
    monkeypatch.setattr(os, "ftruncate", lambda *_: None)
    mark.write({"a": (1, 2)})
    assert path.stat().st_size > len(b"boot-1 0\na 1 2\n")
    assert mark_of(tmp_path).lacks({"a": (1, 1)}) != ""


def test_a_mark_is_written_anew_only_when_something_has_changed_and_for_its_owner_alone(
    tmp_path: Path,
) -> None:
    mark, path = mark_of(tmp_path), tmp_path / "journal.mark"
    mark.write({"x": (1, 2)})
    path.unlink()
    mark.write({"x": (1, 2)})
    assert not path.exists()
    mark.write({"x": (1, 3)})
    assert path.read_bytes() == b"boot-1 0\nx 1 3\n"
    assert path.stat().st_mode & 0o137 == 0
    mark.make_void()
    mark.write({"x": (1, 3)})
    assert path.read_bytes() == b"boot-1 0\nx 1 3\n"
    mark.write({"x": (1, 3)}, closed=True)
    assert path.read_bytes() == b"closed 0\nx 1 3\n", "a server closes though nothing has changed since"


def test_a_mark_has_a_moment_and_one_of_an_earlier_program_has_none(tmp_path: Path) -> None:
    files = {"x": (1, 2)}
    path, moment = tmp_path / "journal.mark", 1_621_464_827_959_498_503
    assert mark_of(tmp_path).moment(files) == 0
    mark_of(tmp_path).write(files, moment)
    assert (mark_of(tmp_path).moment(files), mark_of(tmp_path).lacks(files)) == (moment, "")
    mark = mark_of(tmp_path)
    mark.write(files, moment + 1)
    assert mark_of(tmp_path).moment(files) == moment + 1
    for earlier in (b"boot-1\nx 1 2\n", b"boot-1 x\nx 1 2\n"):
        path.write_bytes(earlier)
        assert (mark_of(tmp_path).moment(files), mark_of(tmp_path).lacks(files)) == (0, "")
    mark.make_void()
    assert mark_of(tmp_path).moment(files) == 0


@pytest.mark.parametrize("others", [{}, {"y": (1, 2)}, {"x": (3, 2)}, {"x": (1, 1)}])
@pytest.mark.parametrize("boot", [BOOT, b"boot-2"])
def test_the_moment_of_a_mark_says_nothing_about_other_files(
    tmp_path: Path, others: dict[str, tuple[int, int]], boot: bytes
) -> None:
    mark_of(tmp_path).write({"x": (1, 2)}, 7)
    assert mark_of(tmp_path, boot).moment(others) == 0
    assert mark_of(tmp_path, boot).moment({"x": (1, 3)}) == 7


def test_a_pipe_or_a_device_by_the_name_of_the_mark_holds_nobody_up_and_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.mark"
    os.mkfifo(path)
    assert "has not left word" in mark_of(tmp_path).lacks({})
    mark_of(tmp_path).write({"x": (1, 2)})  # which makes room for a file
    mark_of(tmp_path).write({"x": (1, 2)})
    assert mark_of(tmp_path).lacks({"x": (1, 2)}) == ""


def test_a_mark_names_the_boot_of_this_machine_where_nobody_says_another(tmp_path: Path) -> None:
    path = tmp_path / "journal.mark"
    Mark(path).write({"x": (1, 2)})
    assert path.read_bytes() == this_boot() + b" 0\nx 1 2\n"
    assert Mark(path).lacks({"x": (1, 2)}) == ""


def test_a_machine_that_does_not_name_its_boot_leaves_a_mark_that_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.engines.herd.mark._BOOT", tmp_path / "there is none")
    assert this_boot() == b""
    mark = Mark(tmp_path / "journal.mark")
    mark.write({"x": (1, 2)})
    assert "has not left word" in Mark(tmp_path / "journal.mark").lacks({"x": (1, 2)})


def test_this_machine_names_its_boot() -> None:
    assert this_boot() == this_boot() != b""


def test_a_mark_of_many_files_is_believed_and_no_more_than_64_kib_is_ever_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.mark"
    listing = {f"{number:012}.segment": (number, 10**9) for number in range(1_000)}
    mark_of(tmp_path).write(listing)
    assert 30_000 < path.stat().st_size < 65_536
    assert mark_of(tmp_path).lacks(listing) == ""
    text = b"boot-1\n" + b"x 1 2\n" * 20_000
    path.write_bytes(text)
    assert mark_of(tmp_path)._left == text[:65_536]


@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("grown", [-1, 0, 1])
def test_a_file_may_have_grown_since_and_may_not_have_shrunk(
    tmp_path: Path, *, closed: bool, grown: int
) -> None:
    mark_of(tmp_path).write({"a": (1, 10), "b": (2, 20)}, closed=closed)
    lacks = mark_of(tmp_path).lacks({"b": (2, 20), "a": (1, 10 + grown)})
    assert lacks == ("" if grown >= 0 else "a is shorter than the last life of this server has left it")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-",
        b"- 17",
        b"-\n",
        b"\n",
        b"boot-1",
        b"boot-1\na 1\n",
        b"boot-1\na 1 x\n",
        b"boot-1\na 1 2 3\n",
        b"boot-1\na 1 2",
    ],
)
def test_what_is_no_mark_says_nothing(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "journal.mark").write_bytes(text)
    assert "has not left word" in mark_of(tmp_path).lacks({"a": (1, 2)} if b"a" in text else {})


def test_the_boot_is_told_by_systemd_whose_sandbox_hides_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.engines.herd.mark._BOOT", Path("/nonexistent"))
    assert this_boot() == b""
    monkeypatch.setenv("PROXYHERD_BOOT", "0123456789abcdef0123456789abcdef")
    assert this_boot() == b"0123456789abcdef0123456789abcdef"
