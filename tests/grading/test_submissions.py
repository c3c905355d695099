from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from proxyherd.grading import submissions
from proxyherd.grading.submissions import Submission, SubmissionError, copy, digest, find_submissions


def write(folder: Path) -> Path:
    """Write a submission with everything that a folder may have."""
    (folder / "src").mkdir(parents=True)
    (folder / "server.py").write_text("print()\n")
    (folder / "src/run.sh").write_text("#!/bin/sh\n")
    (folder / "src/run.sh").chmod(0o4777)
    (folder / "link").symlink_to("server.py")
    (folder / "out").symlink_to("/etc/passwd")
    (folder / ".hidden").write_text("")
    os.mkfifo(folder / "pipe")
    return folder


def test_folders_and_archives_are_submissions_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b", "a", ".git"):
        (tmp_path / name).mkdir()
    for name in ("c.zip", "d.tar.gz", "README.md", ".e.zip"):
        (tmp_path / name).touch()
    assert [one.name for one in find_submissions(tmp_path)] == ["a", "b", "c.zip", "d.tar.gz"]


def relink(folder: Path) -> None:
    (folder / "link").unlink()
    (folder / "link").symlink_to("src")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": lambda folder: (folder / "server.py").write_text("print()!"),
    "a new file": lambda folder: (folder / "src/new").touch(),
    "a name": lambda folder: (folder / ".hidden").rename(folder / ".hidder"),
    "a mode": lambda folder: (folder / "server.py").chmod(0o755),
    "a link": relink,
    "a new folder": lambda folder: (folder / "new").mkdir(),
    "a file that is gone": lambda folder: (folder / ".hidden").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_digest_tells_each_change(tmp_path: Path, change: str) -> None:
    one = Submission("one", write(tmp_path / "one"))
    before = digest(one)
    assert digest(Submission("two", one.path)) == before
    CHANGES[change](one.path)
    assert digest(one) != before


def test_a_copy_has_files_folders_and_links_with_harmless_modes_and_no_pipes(tmp_path: Path) -> None:
    copy(write(tmp_path / "one"), tmp_path / "two")
    two = tmp_path / "two"
    assert sorted(str(path.relative_to(two)) for path in two.rglob("*")) == [
        *(".hidden", "link", "out", "server.py", "src", "src/run.sh")
    ]
    assert (two / "out").readlink() == Path("/etc/passwd")
    assert (two / "src/run.sh").stat().st_mode & 0o7777 == 0o755
    assert (two / "server.py").read_text() == "print()\n"


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_is_unpacked_without_the_folder_around_it(tmp_path: Path, kind: str) -> None:
    (tmp_path / "packed/herd/src").mkdir(parents=True)
    (tmp_path / "packed/herd/server.py").write_text("print()\n")
    archive = Path(shutil.make_archive(str(tmp_path / "a"), kind, tmp_path / "packed"))
    before = digest(Submission("a", archive))
    copy(archive, tmp_path / "two")
    assert (tmp_path / "two/server.py").read_text() == "print()\n"
    assert (tmp_path / "two/src").is_dir()
    archive.write_bytes(archive.read_bytes() + b"\0")
    assert digest(Submission("a", archive)) != before


def test_an_archive_cannot_write_beside_its_copy(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"))
    with pytest.raises(SubmissionError, match="cannot be unpacked"):
        copy(tmp_path / "a.tar", tmp_path / "two")
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_a_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\3\4nonsense")
    with pytest.raises(SubmissionError, match=name):
        copy(tmp_path / name, tmp_path / "two")


def test_a_folder_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submissions, "MOST_FILES", 3)
    with pytest.raises(SubmissionError, match="more than 3 files"):
        digest(Submission("one", write(tmp_path / "one")))


def test_a_copy_is_given_to_its_user_with_all_that_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(
        os, "chown", lambda path, user, group, *, follow_symlinks: given.append((path, follow_symlinks))
    )
    folder = tmp_path / "two"
    copy(write(tmp_path / "one"), folder)
    submissions.give(folder, 7)
    names = [*(".hidden", "link", "out", "server.py", "src", "src/run.sh")]
    assert sorted(given) == [(folder, False), *((folder / name, False) for name in names)]
