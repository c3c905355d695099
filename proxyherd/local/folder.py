"""What a folder needs so that a herd can run in it, and what is left there from before."""

from __future__ import annotations

import getpass
import os
import time
from pathlib import Path
from typing import Final

from proxyherd.local.messages import fail, say, to_type
from proxyherd.local.supervision import states
from proxyherd.local.witnesses import SOCKET, look, owner, refuse_parts

SECRET: Final = Path("var/secret")
_SECRET_BYTES: Final = 32

MAX_SOCKET_BYTES: Final = 99
"""Of the 107 bytes that a UNIX socket's path may have, supervisord needs some for "." and its pid."""


def refuse_folder() -> None:
    """Fails in a folder whose path the herd cannot have."""
    folder = Path.cwd()
    size = len(bytes(folder / SOCKET))
    if size > MAX_SOCKET_BYTES:
        fail(
            f"{folder / SOCKET}: {size} bytes, a socket's path has {MAX_SOCKET_BYTES} at most; move this folder to a "
            "shorter path"
        )
    if not str(folder).isprintable() or any(character in str(folder) for character in '"\\'):
        fail(f"{str(folder)!r}: supervisord cannot start programs at a path with this; move this folder")


def make_folders() -> None:
    """Make the folders of state, logs and sockets, which are not for other users. Fails where that cannot be."""
    try:
        for folder in ("var", "var/lib", "var/log", "var/run"):
            Path(folder).mkdir(mode=0o750, exist_ok=True)
    except OSError as error:
        if isinstance(error, FileExistsError):
            remedy = "it must be a folder; move what is there elsewhere"
        else:
            remedy = (
                _remedy() if Path("var").exists() else f"{Path.cwd()} must be a folder that you can write"
            )
        fail(f"{error.filename}: {error.strerror}; {remedy}")


def refuse_files_of_others() -> None:
    """Fails for what is in var/ and cannot be used: it was started as root before, say."""
    for folder, folders, names in os.walk("var"):
        logs = Path(folder) == Path("var/log")  # rotated ones are not written to
        for path in (Path(folder, one) for one in (*folders, *names)):
            if logs and path.suffix not in {".log", ".pid"}:
                continue
            if path.is_file() or path.is_dir():
                needed = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
                if path.stat().st_uid != os.geteuid() and not os.access(path, needed):
                    fail(f"{path}: is of the user {owner(path)}, and cannot be written; {_remedy()}")


def _remedy() -> str:
    return f"give var/ to the user that runs the herd: sudo chown -R {getpass.getuser()} {str(Path.cwd() / 'var')!r}"


def mend_secret() -> None:
    """Make a secret that is left from before usable, or put it aside. Only while no server knows it."""
    if not SECRET.exists():
        return
    found = SECRET.stat()
    if found.st_size != _SECRET_BYTES:
        aside = SECRET.with_name(f"secret.unusable-{time.time_ns()}")
        SECRET.rename(aside)
        say(f"{SECRET} had {found.st_size} bytes, a secret has {_SECRET_BYTES}; it is now {aside}")
    elif found.st_mode & 0o077:
        try:
            SECRET.chmod(0o600)
        except PermissionError:
            fail(f"{SECRET}: others than its owner, {owner(SECRET)}, can use it; {_remedy()}")
        say(f"{SECRET} could be read by other users; it is now for its owner only")


def refuse_lost_secret() -> None:
    """Fails where servers run and their secret's file is gone: with another one, a server would be refused by those. Servers
    in front of Redis have none.
    """
    found = states()
    if any(name.startswith("redis:") for name in found):
        return
    running = [name for name, state in found.items() if name.startswith("herd:") and state == "RUNNING"]
    if running and not SECRET.exists():
        fail(
            f"{SECRET} is gone, and {', '.join(running)} still use it; put it back, from a backup or another host of the "
            f"herd. If there is no copy, type {to_type('down')} and then {to_type('up')}: that makes a new one for all"
        )


def prepare() -> None:
    """See that a herd can run in this folder. Fails where it cannot."""
    refuse_folder()
    make_folders()
    found = look()
    refuse_parts(found)
    if found.answers:
        refuse_lost_secret()
    if found.nothing:
        refuse_files_of_others()
        mend_secret()
