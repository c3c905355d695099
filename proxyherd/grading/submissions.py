"""The submissions of a class: which there are, whether one has changed, and copies of them.

A submission is a folder, or an archive of one. The rule: its contents are a stranger's. Of it, only regular files,
folders and symbolic links are read or copied; a link is never followed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from proxyherd.base.files import open_regular

ARCHIVES: Final = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")

MOST_FILES: Final = 50_000
MOST_BYTES: Final = 1 << 30
"""What one submission may have, so that looking at it ends."""

_CHUNK: Final = 1 << 20


class Submission(Struct, frozen=True):
    """One submission: a folder or an archive, and its name."""

    name: str
    path: Path


class SubmissionError(Exception):
    """A submission cannot be read or copied; the text says why."""


def find_submissions(folder: Path) -> list[Submission]:
    """Return the folders and archives in a folder by name, without hidden ones. Raises OSError."""
    return [
        Submission(os.fsencode(path.name).decode(errors="replace"), path)
        for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (path.is_dir() or path.name.endswith(ARCHIVES))
    ]


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


def copy(submission: Path, target: Path) -> None:
    """Copy a submission into a new folder, or unpack it there. Raises SubmissionError."""
    try:
        if submission.is_dir():
            _copy_folder(submission, target)
        else:
            _unpack(submission, target)
    except (tarfile.TarError, zipfile.BadZipFile, shutil.ReadError, EOFError, ValueError) as error:
        raise SubmissionError(f"{submission}: the archive cannot be unpacked: {error}") from error
    except OSError as error:
        raise SubmissionError(f"{error.filename or target}: {error.strerror}") from error


def _copy_folder(submission: Path, target: Path) -> None:
    target.mkdir(mode=0o755)
    for path, info in _entries(submission):
        new = target / path.relative_to(submission)
        if stat.S_ISDIR(info.st_mode):
            new.mkdir(mode=0o755)
        elif stat.S_ISLNK(info.st_mode):
            new.symlink_to(path.readlink())
        else:
            with (
                os.fdopen(open_regular(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source,
                new.open("xb") as sink,
            ):
                shutil.copyfileobj(source, sink, _CHUNK)
            new.chmod(info.st_mode & 0o755)


def _unpack(archive: Path, target: Path) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(target)  # noqa: S202 - zipfile leaves no path that leads out, and no link
    else:
        with tarfile.open(archive) as opened:
            opened.extractall(target, filter="data")
    found = list(target.iterdir())
    if len(found) == 1 and found[0].is_dir() and not found[0].is_symlink():  # the folder that was packed
        aside = found[0].rename(target.with_name(f"{target.name}.packed"))
        target.rmdir()
        aside.rename(target)


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
