"""One control group for all processes of a submission: it bounds their memory and their number together.

Needs root, and a hierarchy of cgroup v2 whose root has the controllers `memory` and `pids`, or those of cgroup v1.
Anywhere else there is none, and only limits of single processes bind.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

MOUNTED: Final = Path("/sys/fs/cgroup")
REMOVE_SECONDS: Final = 2.0
"""How long the kernel may take to forget processes that have been killed."""


class ControlGroup(Struct, frozen=True):
    """The folders of one group: one with cgroup v2, one a controller with v1."""

    folders: Sequence[Path]

    @property
    def doors(self) -> list[Path]:
        """The files where a process writes 0 to enter."""
        return [folder / "cgroup.procs" for folder in self.folders]

    def remove(self) -> None:
        """Remove the group, whose processes have ended."""
        deadline = time.monotonic() + REMOVE_SECONDS
        for folder in self.folders:
            while folder.exists() and not _removed(folder) and time.monotonic() < deadline:
                time.sleep(0.02)


def make(name: str, memory: int, processes: int, mounted: Path = MOUNTED) -> ControlGroup | None:
    """Make a group for so many bytes and processes; None if this machine allows none."""
    v2 = {mounted / name: {"memory.max": memory, "memory.swap.max": 0, "pids.max": processes}}
    v1 = {
        mounted / "memory" / name: {"memory.limit_in_bytes": memory},
        mounted / "pids" / name: {"pids.max": processes},
    }
    limits = v2 if (mounted / "cgroup.controllers").exists() else v1
    group = ControlGroup(list(limits))
    try:
        for folder, values in limits.items():
            _make(folder, values)
    except OSError:
        group.remove()
        return None
    return group


def sweep(prefix: str, mounted: Path = MOUNTED) -> None:
    """Remove groups that a killed process has left: their names are the prefix, its ID, a hyphen and anything."""
    for folder in (*mounted.glob(f"{prefix}*"), *mounted.glob(f"*/{prefix}*")):
        if is_left(folder, prefix):
            ControlGroup([folder]).remove()


def is_left(folder: Path, prefix: str) -> bool:
    """Whether the maker of a folder has ended; the folder's name is the prefix, its maker's ID, a hyphen and anything."""
    maker = folder.name.removeprefix(prefix).partition("-")[0]
    return maker.isdigit() and not Path(f"/proc/{maker}").exists()


def _make(folder: Path, values: Mapping[str, int]) -> None:
    folder.mkdir(exist_ok=True)
    for file, value in values.items():
        if file != "memory.swap.max" or (folder / file).exists():  # a kernel may not count swap
            with (folder / file).open("r+") as opened:
                opened.write(str(value))


def _removed(folder: Path) -> bool:
    """Remove a group unless it has processes; return whether there is nothing to wait for."""
    try:
        folder.rmdir()
    except OSError as error:
        return error.errno != errno.EBUSY
    return True
