"""Output whose reader may leave, as `head` does: a command then ends silently, and its exit code is as usual."""

from __future__ import annotations

import contextlib
import os
import select
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO


class PipeWatch:
    """Says whether a stream is a pipe that nobody reads any more, before anything is written."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """`stream`: without it, stdout."""
        stream = stream or sys.stdout
        self._poll = select.poll()
        with contextlib.suppress(OSError):  # a test may have put in something without a descriptor
            if not stream.isatty():
                self._poll.register(stream.fileno(), 0)

    @property
    def is_alone(self) -> bool:
        """Whether the other end of the pipe is closed."""
        return bool(self._poll.poll(0))


@contextlib.contextmanager
def while_read() -> Iterator[None]:
    """Run what prints. If its reader leaves, end it, and print nothing from then on."""
    try:
        yield
    except BrokenPipeError:
        unread = [stream for stream in (sys.stdout, sys.stderr) if PipeWatch(stream).is_alone]
        if not unread:
            raise  # it was another pipe, or a socket
        silence(unread)


def silence(streams: Iterable[TextIO]) -> None:
    """Let these lead nowhere: what Python has not written yet, it would try to write once more."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def open_closed() -> None:
    """Let stdout and stderr lead nowhere if they are closed: Python has none then, and a file might get their numbers."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - it stays so
