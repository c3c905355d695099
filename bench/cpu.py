"""What processes cost: seconds of CPU, user and system, as the operating system counts them, and memory.

Linux' scheduler counts in nanoseconds, for each thread that lives; what has ended stays in the process' own count, in
ticks of a hundredth of a second. The greater of both is the truth to within a tick of what ended.

The scheduler also counts how long a thread was ready and had no core. Who runs or is ready all the time is the limit,
also on a machine that gives it half a core.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

_TICKS = os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """Seconds since the processes began: on a core, and ready without one."""

    cpu: float
    ready: float

    def since(self, before: Usage) -> Usage:
        """Return what was used from then to now."""
        return Usage(self.cpu - before.cpu, self.ready - before.ready)


def usage(pids: Iterable[int]) -> Usage:
    """Return what these processes, and children that they have waited for, have used so far."""
    each = [_of_process(pid) for pid in pids]
    return Usage(sum(one.cpu for one in each), sum(one.ready for one in each))


def memory(pids: Iterable[int]) -> int:
    """Return the bytes of memory that these processes have resident now, what they share counted for each."""
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def _of_process(pid: int) -> Usage:
    cpu = ready = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended just now
            of_task = task.read_text().split()
            cpu += int(of_task[0])
            ready += int(of_task[1])
    if not cpu:  # another system than Linux, or one that was built without these counts
        times = psutil.Process(pid).cpu_times()
        return Usage(times.user + times.system, 0.0)
    own_user, own_system, user, system = map(
        int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    )
    return Usage(max(cpu / 1e9, (own_user + own_system) / _TICKS) + (user + system) / _TICKS, ready / 1e9)


def settle(pids: list[int], quiet: float = 0.03, patience: float = 20.0) -> Usage:
    """Wait until the processes have done what there was to do; return what they have used so far.

    Done is who uses, or would use, less than a twentieth of a core over `quiet` seconds. What is still busy after
    `patience` seconds is taken as it is.
    """
    deadline = time.monotonic() + patience
    before = usage(pids)
    while True:
        time.sleep(quiet)
        now = usage(pids)
        if sum(now.since(before)) < quiet / 20 or time.monotonic() > deadline:
            return now
        before = now
