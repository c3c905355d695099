"""The submissions of a class: which there are, whether one has changed, and copies of them.

A submission is a folder, an archive of one, or a lone program. The rules: its contents are a stranger's. Of it, only
regular files, folders and symbolic links are read or copied; a link is never followed. And how it was packed is of no
matter: what a Mac adds is left out, and folders around the program are taken off.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from msgspec import Struct

from proxyherd.base.files import open_regular

ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

PROGRAM: Final = ".py"
"""How the name of a lone program ends."""

MOST_FILES: Final = 50_000
MOST_BYTES: Final = 1 << 30
"""What one submission may have, so that looking at it ends."""

_CHUNK: Final = 1 << 20

_UNPACKABLE: Final = (
    *(
        tarfile.TarError,
        zipfile.BadZipFile,
        shutil.ReadError,
        EOFError,
        ValueError,
        zlib.error,
        lzma.LZMAError,
    ),
    *(NotImplementedError, RuntimeError),  # of zipfile: a way to pack that it does not know; a password
)


class Submission(Struct, frozen=True):
    """One submission: a folder, an archive or a program, and its name."""

    name: str
    path: Path


class SubmissionError(Exception):
    """A submission cannot be read or copied; the text says why."""


class ClassListing(NamedTuple):
    """What is in the folder of a class."""

    submissions: list[Submission]
    others: list[str]
    """Names of what is none."""


def find_submissions(folder: Path, start: str = "") -> ClassListing:
    """Return the submissions in a folder by name. Names that begin with a dot are left out. `start` is the command of a
    server; if it names one program of Python, a file that ends in .py is a submission. Raises OSError.
    """
    found = ClassListing([], [])
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or _is_of_mac(path.name):
            continue
        name = os.fsencode(path.name).decode(errors="replace")
        if path.is_dir() or _is_archive(path) or (path.suffix == PROGRAM and program_name(start)):
            found.submissions.append(Submission(name, path))
        else:
            found.others.append(name)
    return found


def program_name(start: str) -> str:
    """Return the program of Python that a command names, such as server.py; empty if it names none, or several."""
    names = {word for word in _words(start) if word.endswith(PROGRAM) and not {*"/{"} & {*word}}
    return names.pop() if len(names) == 1 else ""


def _words(start: str) -> list[str]:
    """Return the words of a command that may be paths, also those in a command for a shell."""
    return re.findall(r"[\w./+{}-]*\w[\w./+{}-]*", start)


def digest(submission: Submission) -> str:
    """Return a digest of all names, kinds, modes and contents of a submission. Raises SubmissionError."""
    found = hashlib.sha256()
    try:
        if not submission.path.is_dir():
            _digest_file(found, submission.path)
            return found.hexdigest()
        for path, info in _entries(submission.path):
            name = os.fsencode(path.relative_to(submission.path))
            found.update(b"%d:%b %o " % (len(name), name, info.st_mode))
            if stat.S_ISLNK(info.st_mode):
                found.update(os.fsencode(path.readlink()))
            elif stat.S_ISREG(info.st_mode):
                found.update(b"%d:" % info.st_size)
                _digest_file(found, path)
    except OSError as error:
        raise SubmissionError(f"{error.filename}: {error.strerror}") from error
    return found.hexdigest()


def copy(submission: Path, target: Path, start: str = "") -> None:
    """Copy a submission into a new folder, or unpack it there. `start` is the command of a server: folders around what it
    names are taken off, and a lone program gets the name that it has there. Raises SubmissionError.
    """
    try:
        if submission.is_dir():
            _copy_folder(submission, target)
            _take_off(target, start)
            if (packed := _only(target)) and _is_archive(packed) and _is(stat.S_IFREG, packed):
                aside = packed.rename(target.with_name(f"{target.name}.{packed.name}"))
                target.rmdir()
                _unpack(aside, target)
                aside.unlink()
        elif _is_archive(submission):
            _unpack(submission, target)
        else:
            target.mkdir(mode=0o755)
            _copy_file(submission, target / (program_name(start) or submission.name))
        _take_off(target, start)
    except _UNPACKABLE as error:
        raise SubmissionError(f"{submission}: the archive cannot be unpacked: {error}") from error
    except OSError as error:
        raise SubmissionError(f"{error.filename or submission}: {error.strerror or error}") from error


def _copy_folder(submission: Path, target: Path) -> None:
    target.mkdir(mode=0o755)
    for path, info in _entries(submission):
        new = target / path.relative_to(submission)
        if stat.S_ISDIR(info.st_mode):
            new.mkdir(mode=0o755)
        elif stat.S_ISLNK(info.st_mode):
            new.symlink_to(path.readlink())
        else:
            _copy_file(path, new)
            new.chmod(info.st_mode & 0o755)


def _copy_file(path: Path, new: Path) -> None:
    with os.fdopen(open_regular(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source, new.open("xb") as sink:
        shutil.copyfileobj(source, sink, _CHUNK)


def _unpack(archive: Path, target: Path) -> None:
    target.mkdir(mode=0o755)
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as opened:
            names = [name for name in opened.namelist() if not _is_of_mac(name)]
            opened.extractall(target, names)  # noqa: S202 - zipfile leaves no path that leads out, and no link
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(target, filter=_safe)  # noqa: S202 - which has the filter "data" in it


def _safe(member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
    return None if _is_of_mac(member.name) else tarfile.data_filter(member, target)


def _take_off(target: Path, start: str) -> None:
    """While a folder has nothing but one folder, put what is in that in its place, unless the command names something in
    it.
    """
    words = [word for word in _words(start) if not word.startswith("/")]
    while (inside := _only(target)) and _is(stat.S_IFDIR, inside):
        if any(os.path.exists(target / word) for word in words):  # noqa: PTH110 - Path's raises for long words
            return
        aside = inside.rename(target.with_name(f"{target.name}.packed"))
        target.rmdir()
        aside.rename(target)


def _only(folder: Path) -> Path | None:
    """Return what a folder has, if that is one thing."""
    found = list(folder.iterdir())
    return found[0] if len(found) == 1 else None


def _is(kind: int, path: Path) -> bool:
    """Whether a path is a file of this kind itself, and no link."""
    return stat.S_IFMT(path.lstat().st_mode) == kind


def _is_archive(path: Path) -> bool:
    return path.name.lower().endswith(ARCHIVES)


def _is_of_mac(name: str) -> bool:
    """Whether a path is what a Mac puts beside files: attributes, icons, the order of a window."""
    parts = PurePosixPath(name).parts
    return any(part in ("__MACOSX", ".DS_Store") or part.startswith("._") for part in parts)


def give(target: Path, user: int) -> None:
    """Give a copy to a user. Raises SubmissionError."""
    try:
        os.chown(target, user, user, follow_symlinks=False)
        for path, _ in _entries(target):
            os.chown(path, user, user, follow_symlinks=False)
    except OSError as error:
        raise SubmissionError(f"{error.filename}: {error.strerror}") from error


def _entries(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield all folders, regular files and links in a folder, each folder before what is in it."""
    count = size = 0
    frontier = [folder]
    while frontier:
        for entry in sorted(os.scandir(frontier.pop()), key=lambda entry: entry.name):
            info = entry.stat(follow_symlinks=False)
            if _is_of_mac(entry.name):
                continue
            if not (stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)):
                continue
            count, size = count + 1, size + info.st_size
            if count > MOST_FILES or size > MOST_BYTES:
                raise SubmissionError(f"{folder}: more than {MOST_FILES:,} files or {MOST_BYTES:,} bytes")
            if stat.S_ISDIR(info.st_mode):
                frontier.append(Path(entry.path))
            yield Path(entry.path), info


def _digest_file(found: hashlib._Hash, path: Path) -> None:
    with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
        while data := file.read(_CHUNK):
            found.update(data)
