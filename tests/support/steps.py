"""Measures the longest step of an event loop in processor time, which other work on the machine does not lengthen.

    with measured_steps() as steps:
        await what_must_not_hold_up_others()
    assert steps.longest < 0.02

It sees asyncio's own loop, not uvloop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


class Steps:
    """What was measured: seconds of this thread's processor time."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.number = 0


@contextmanager
def measured_steps() -> Iterator[Steps]:
    """Measure each callback that begins in this block."""
    steps, run = Steps(), asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        steps.longest = max(steps.longest, time.thread_time() - began)
        steps.number += 1

    with patch.object(asyncio.Handle, "_run", measured):
        yield steps
