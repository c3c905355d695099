"""Two processes for one grading, so that nothing that it starts outlives it, even if it is killed with SIGKILL.

The process that was called only waits. The other one grades, in its own session, so that a signal to the whole group
of the first does not reach it. If the first is killed, the other gets SIGTERM, and ends what it has started as usual.
If the other is killed, all that it has started becomes the first one's, which kills it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

from proxyherd.grading import processes

KILL_SECONDS: Final = 5.0
"""How long killed processes may take to end."""

_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def split() -> int | None:
    """Continue in two processes. Return None in the one that must grade. In the other, wait until that has ended, and
    return its exit code, or the negative number of the signal that ended it. Call it before there is any thread or
    event loop.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    strangers = processes.descendants(os.getpid())
    processes.adopt()
    parent = os.getpid()
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    child = os.fork()
    if not child:
        os.setsid()
        processes.die_with_parent(parent, signal.SIGTERM)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
        return None
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: processes.send(child, signal.Signals(number)))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
    _, status = os.waitpid(child, 0)
    processes.kill_descendants(strangers, KILL_SECONDS)
    return os.waitstatus_to_exitcode(status)
