"""Processes of Linux, as far as grading needs them: their descendants, and how they are ended."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36

_POLL_SECONDS: Final = 0.005


def adopt() -> None:
    """Become the parent of every descendant whose own parent ends, such as a daemon."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Get this signal when the parent has ended, even if it has ended before."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), number)


def families() -> dict[int, list[int]]:
    """Return the children of each process that has some. On a full machine it takes long."""
    children: dict[int, list[int]] = {}
    for entry in (path.name for path in Path("/proc").iterdir()):
        if entry.isdigit() and (stat := _stat(entry)):
            children.setdefault(int(stat[1]), []).append(int(entry))
    return children


def descendants(
    root: int, without: set[int] | None = None, children: Mapping[int, list[int]] | None = None
) -> set[int]:
    """Return the children of a process, their children, and so on, without some of them and their children."""
    children = families() if children is None else children
    found: set[int] = set()
    frontier = [root]
    while frontier:
        fresh = [pid for pid in children.get(frontier.pop(), []) if pid not in (without or ())]
        found.update(fresh)
        frontier += fresh
    return found


def group(leader: int, pids: set[int]) -> set[int]:
    """Return the processes in a process's group."""
    return {pid for pid in pids if _stat(pid)[2:3] == [str(leader)]}


def in_namespaces(pids: set[int]) -> set[int]:
    """Return the processes that are in a PID namespace within ours, without the first one in it, which keeps the others."""
    ids = {pid: _ids_in_namespaces(pid) for pid in pids}
    return {pid for pid, found in ids.items() if len(found) > 1 and found[-1] != 1}


def _ids_in_namespaces(pid: int) -> list[int]:
    """Return the IDs of a process in our PID namespace and in those within it: proc(5), NSpid; none if it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
    [found] = [line.split()[1:] for line in lines if line.startswith("NSpid:")] or [[]]
    return [int(one) for one in found]


def is_alive(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def send(pid: int, number: signal.Signals) -> None:
    """Signal a process, which may have ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def kill_descendants(without: set[int], seconds: float) -> None:
    """Kill and reap all descendants of this process except some, and what they start meanwhile; for at most
    this long.
    """
    deadline = time.monotonic() + seconds
    while (rest := descendants(os.getpid(), without)) and time.monotonic() < deadline:
        for pid in rest:
            send(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_POLL_SECONDS)


def _stat(pid: int | str) -> list[str]:
    """Return the fields of a process in /proc from its state on: state, parent, group, ...; none if it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # its name may hold anything
