from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from proxyherd.grading import submissions
from proxyherd.grading.submissions import (
    Submission,
    SubmissionError,
    copy,
    digest,
    find_submissions,
    program_name,
)


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
    for name in ("c.zip", "D.ZIP", "d.tar.gz", "README.md", "e.rar", "f.7z", "g.py", ".e.zip", "._c.zip"):
        (tmp_path / name).touch()
    found, others = find_submissions(tmp_path)
    assert [one.name for one in found] == ["D.ZIP", "a", "b", "c.zip", "d.tar.gz"]
    assert others == ["README.md", "e.rar", "f.7z", "g.py"], "they are told"


@pytest.mark.parametrize(
    ("start", "name"),
    [
        ("python3 server.py {name}", "server.py"),
        ("sh -c 'exec python3 -u server.py {name} >log'", "server.py"),
        ("python3 {name}.py", ""),
        ("python3 src/server.py {name}", ""),
        ("python3 a.py b.py", ""),
        ("node server.mjs", ""),
    ],
)
def test_a_lone_program_is_a_submission_under_the_name_that_the_command_has(
    tmp_path: Path, start: str, name: str
) -> None:
    (tmp_path / "anna_17.py").write_text("print()\n")
    found, others = find_submissions(tmp_path, start)
    assert program_name(start) == name
    if not name:
        assert (found, others) == ([], ["anna_17.py"])
        return
    [one] = found
    assert digest(one)
    copy(one.path, tmp_path / "two", start)
    assert [path.name for path in (tmp_path / "two").iterdir()] == [name]
    assert (tmp_path / "two" / name).read_text() == "print()\n"


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


START = "python3 server.py {name}"
ATTRIBUTES = bytes.fromhex("00051607 00020000") + b"Mac OS X        "
"""How files begin in which a Mac puts what other systems have no place for."""

OF_A_MAC = {
    "herd/": b"",
    "__MACOSX/._herd": ATTRIBUTES,
    "herd/server.py": b"print()\n",
    "__MACOSX/herd/._server.py": ATTRIBUTES,
    "herd/.DS_Store": b"\0\0\0\1Bud1",
    "__MACOSX/herd/._.DS_Store": ATTRIBUTES,
    "herd/src/run.sh": b"#!/bin/sh\n",
    "herd/src/._run.sh": ATTRIBUTES,
    ".DS_Store": b"\0\0\0\1Bud1",
}
"""What Finder's Compress and a copy to a stick make of a folder."""


def zip_of(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return made.getvalue()


def tar_of(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.type = len(data), tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(member, io.BytesIO(data))
    return made.getvalue()


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("name", ["a.zip", "A.ZIP", "a.tgz", "a.Tar.Gz", "a folder"])
def test_what_a_mac_adds_is_left_out_and_the_folder_that_was_packed_taken_off(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    if name == "a folder":
        with zipfile.ZipFile(io.BytesIO(zip_of(OF_A_MAC))) as archive:
            archive.extractall(path)
    else:
        path.write_bytes((zip_of if name.lower().endswith("zip") else tar_of)(OF_A_MAC))
    assert [one.name for one in find_submissions(tmp_path).submissions] == [name]
    copy(path, tmp_path / "two", START)
    assert files_in(tmp_path / "two") == ["server.py", "src/run.sh"]


def test_opening_a_folder_on_a_mac_changes_no_submission(tmp_path: Path) -> None:
    one = Submission("one", write(tmp_path / "one"))
    before = digest(one)
    (one.path / ".DS_Store").write_bytes(b"Bud1")
    assert digest(one) == before


@pytest.mark.parametrize("packed", ["folders", "a zip", "a zip in folders", "a zip of folders in a folder"])
def test_folders_around_a_program_are_taken_off_and_a_lone_archive_in_them_is_unpacked(
    tmp_path: Path, packed: str
) -> None:
    inner = {f"{'x/y/' if 'folders' in packed else ''}server.py": b"print()\n"}
    one = tmp_path / "one"
    if "zip" in packed:
        inner = {f"{'a/b/' if packed.endswith('folders') else ''}p.ZIP": zip_of(inner)}
    for name, data in inner.items():
        (one / name).parent.mkdir(parents=True, exist_ok=True)
        (one / name).write_bytes(data)
    copy(one, tmp_path / "two", START)
    assert files_in(tmp_path / "two") == ["server.py"]
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("one", "two")] == []


@pytest.mark.parametrize(
    "start", ["python3 src/server.py {name}", "sh -c 'cd src && exec python3 server.py {name}'"]
)
def test_a_folder_that_the_command_names_is_not_taken_off(tmp_path: Path, start: str) -> None:
    (tmp_path / "one/herd/src").mkdir(parents=True)
    (tmp_path / "one/herd/src/server.py").touch()
    copy(tmp_path / "one", tmp_path / "two", start)
    assert files_in(tmp_path / "two") == ["src/server.py"]


def test_neither_a_link_to_a_folder_nor_one_to_an_archive_is_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.zip").write_bytes(zip_of({"server.py": b""}))
    for name, target in (("a", tmp_path), ("b.zip", tmp_path / "secret.zip")):
        one = tmp_path / f"one-{name}"
        one.mkdir()
        (one / name).symlink_to(target)
        copy(one, tmp_path / f"two-{name}", START)
        assert [path.name for path in (tmp_path / f"two-{name}").iterdir()] == [name]


def test_an_empty_archive_has_an_empty_copy(tmp_path: Path) -> None:
    for name, data in (
        ("a.zip", zip_of({})),
        ("b.tar", tar_of({})),
        ("c.zip", zip_of({"__MACOSX/._c": b""})),
    ):
        (tmp_path / name).write_bytes(data)
        copy(tmp_path / name, tmp_path / f"two-{name}", START)
        assert list((tmp_path / f"two-{name}").iterdir()) == []


def test_an_archive_cannot_write_beside_its_copy(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"))
    with pytest.raises(SubmissionError, match="cannot be unpacked"):
        copy(tmp_path / "a.tar", tmp_path / "two")
    assert not (tmp_path / "escaped").exists()


def with_password(data: bytes) -> bytes:
    """Set the flag of both headers of a zip of one file."""
    made = bytearray(data)
    made[6] |= 1
    made[data.index(b"PK\1\2") + 8] |= 1
    return bytes(made)


DAMAGED = {
    "a.zip": b"PK\3\4nonsense",
    "a.tar.gz": b"PK\3\4nonsense",
    "b.tar.gz": tar_of({"server.py": bytes(range(256)) * 99})[:-40],
    "c.zip": zip_of({"server.py": b"x" * 99}).replace(b"x" * 99, b"x" * 98 + b"y"),
    "d.tar.xz": b"\xfd7zXZ\0" + bytes(50),
    "with a password.zip": with_password(zip_of({"server.py": b"x"})),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(DAMAGED[name])
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
