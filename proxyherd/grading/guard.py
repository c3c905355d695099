"""Two processes for one grading, so that nothing it starts outlives it, even if it is killed with SIGKILL.

The one that was called only waits. The other grades, in a session of its own, so that a signal to the whole group of
the first does not reach it. Where the first is killed, the other gets SIGTERM, and ends what it has started as it
always does. Where the other is killed, all that it has started becomes the first one's, which kills it.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

from proxyherd.grading import processes

KILL_SECONDS: Final = 5.0
"""For what was started to be gone once it has been killed."""

_FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def split() -> int | None:
    """Go on in two processes: return None in the one that is to grade, and in the other, once that has ended, its exit
    code, or the negative number of the signal that ended it. To be called before any thread or event loop is there.
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
