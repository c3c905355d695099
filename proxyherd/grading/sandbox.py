"""The sandbox of one submission, as command lines of bubblewrap. Pure, except for `problem`, which tries it.

There are two layers:

- the outer one has a network of its own, with nothing but loopback, and processes of its own. The grader runs in it,
  beside the stand-in for Google. Ports are free there, whatever runs outside, and everything ends with it.
- the inner one is around each server. It sees no process but its own, may write in a copy of the submission and in a
  private /tmp and /dev/shm only, and has bounds.

The rules: the kernel ends everything in a layer when the layer's first process ends, so nothing can escape by a fork,
a session or a signal. What a submission writes is in memory, in a file system of limited size that ends with the layer.
As root, servers run as a user of their own; otherwise in a user namespace.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

PROGRAMS: Final = ("bwrap", "setpriv", "prlimit")
FIRST_USER: Final = 2_000_000_000
"""The user ID of the first sandbox as root; the others follow. Nobody else has such a number."""

HIDDEN: Final = ("/home", "/root", "/run", "/media", "/mnt", "/srv", "/var/tmp")  # noqa: S108 - not to be used
"""Folders that servers see empty."""

_TMP: Final = "/tmp"  # noqa: S108 - a private one
SUBMISSION: Final = f"{_TMP}/submission"
"""Where servers see the copy of the submission."""

TRIAL_SECONDS: Final = 20.0


class Bounds(Struct, frozen=True):
    """What the servers of one submission may use."""

    memory: int = 1 << 30
    """Bytes: of each process, and of all together where there are control groups."""

    processes: int = 256
    """Processes and threads: of all servers together as root, else of each server."""

    disk: int = 1 << 28
    """Bytes of all files together, with the copy of the submission."""

    output: int = 1 << 28
    """Bytes that servers may print, together."""

    @property
    def all_memory(self) -> int:
        """Bytes of memory for all, with their files, which are in memory too: see `inner` and `outer`."""
        return self.memory + 2 * self.disk + self.output


class Layout(Struct, frozen=True):
    """Where things are outside of the sandbox."""

    stage: Path
    """An empty folder, where file systems of the sandbox are mounted."""

    user: int | None
    """The user ID of servers; None: a user namespace."""

    hidden: Sequence[Path] = ()
    """Further folders that servers see empty, such as that of all submissions."""

    shown: Sequence[Path] = ()
    """Paths in hidden folders that servers may read."""

    over: Mapping[str, Path] = {}
    """Files that servers see at other paths."""

    doors: Sequence[Path] = ()
    """Files of control groups that servers enter."""

    @property
    def files(self) -> Path:
        """What servers see as /tmp."""
        return self.stage / "files"

    @property
    def copy(self) -> Path:
        return self.files / Path(SUBMISSION).name

    @property
    def output(self) -> Path:
        """Where the grader keeps what servers print."""
        return self.stage / "output"


def outer(layout: Layout, bounds: Bounds, words: Sequence[str]) -> list[str]:
    """Return the command that runs another one in the outer layer."""
    # So that the stand-in for Google can listen at port 443.
    as_user = [] if layout.user is not None else ["--unshare-user", "--cap-add", "CAP_NET_BIND_SERVICE"]
    return [
        *("bwrap", "--die-with-parent", "--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *as_user,
        *("--dev-bind", "/", "/", "--proc", "/proc"),
        *("--perms", "0711", "--size", str(bounds.disk), "--tmpfs", str(layout.files)),
        *("--perms", "0700", "--size", str(bounds.output), "--tmpfs", str(layout.output)),
        *("--", *words),
    ]


def inner(layout: Layout, bounds: Bounds) -> list[str]:
    """Return the words before a server's command, which run it in the inner layer."""
    hidden = {path.resolve() for path in (*map(Path, HIDDEN), *layout.hidden) if path.is_dir()}
    hidden = {path for path in hidden if path != Path("/") and not path.is_relative_to(_TMP)}
    return [
        *(_entering(layout.doors) if layout.doors else []),
        # What the outer layer was given for the stand-in's port.
        *([] if layout.user is not None else ["setpriv", "--inh-caps=-all", "--ambient-caps=-all"]),
        *("bwrap", "--die-with-parent", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *([] if layout.user is not None else ["--unshare-user"]),
        *("--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"),
        *("--perms", "1777", "--size", str(bounds.disk), "--tmpfs", "/dev/shm"),  # noqa: S108 - a private one
        *(word for path in sorted(hidden) for word in ("--tmpfs", str(path))),
        *("--bind", str(layout.files), _TMP),
        *(word for path in layout.shown for word in _show(path)),
        *(word for seen, file in layout.over.items() for word in ("--ro-bind", str(file), seen)),
        # They are in memory, without a limit, and in a user namespace they are the servers' own.
        *(word for path in ("/dev", *sorted(hidden)) for word in ("--remount-ro", str(path))),
        *("--chdir", SUBMISSION, "--setenv", "HOME", SUBMISSION, "--setenv", "TMPDIR", _TMP, "--"),
        *bounded(layout.user, bounds),
    ]


def _show(path: Path) -> list[str]:
    # bwrap makes what is missing above it for its own user alone, unless it is told to make it.
    above = [folder for folder in reversed(path.parents) if folder != Path("/")]
    return [*(word for folder in above for word in ("--dir", str(folder))), "--ro-bind", str(path), str(path)]


def bounded(user: int | None, bounds: Bounds) -> list[str]:
    """Return the words before a command that run it as this user, with the limits of a process."""
    as_user = ["--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
    return [
        *(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *as_user] if user else []),
        *(
            "prlimit",
            f"--nproc={bounds.processes}",
            f"--data={bounds.memory}",
            "--core=0",
            "--memlock=0",
            "--",
        ),
    ]


def _entering(doors: Sequence[Path]) -> list[str]:
    script = 'for door in $DOORS; do echo 0 >"$door" || exit; done; exec "$@"'
    return ["sh", "-c", script.replace("$DOORS", " ".join(map(str, doors))), "sh"]


def shown_paths() -> list[Path]:
    """Return what servers need of this Python, which may be in a hidden folder."""
    usual = Path("/usr")
    return [
        path
        for path in sorted({Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()})
        if not path.is_relative_to(usual)
    ]


def problem(layout: Layout, bounds: Bounds) -> str:
    """Return why there can be no sandbox here; empty if there can be."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        return f"{', '.join(missing)} cannot be found"
    setup = 'mkdir "$1" && chmod 777 "$1" && shift && exec "$@"'
    trial = ["sh", "-c", setup, "sh", str(layout.copy), *inner(layout, bounds), "true"]
    try:
        done = subprocess.run(  # noqa: S603 - the command that is built here
            outer(layout, bounds, trial), capture_output=True, timeout=TRIAL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return (said[-1] if said else f"exit code {done.returncode}") if done.returncode else ""


def is_root() -> bool:
    return os.geteuid() == 0
