"""`proxyherd follow` as a process, and what it prints."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Self

from herd_process import PATIENCE_SECONDS, RunningHerd


class Follower:
    """Follows as long as the body runs."""

    def __init__(self, herd: RunningHerd, *arguments: str) -> None:
        program = Path(sys.executable).with_name("proxyherd")
        self.process = subprocess.Popen(
            [program, "follow", *arguments, "--config", herd.file],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines = queue.Queue[str]()
        self._notes = queue.Queue[str]()
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._lines)),
            threading.Thread(target=self._read, args=(self.process.stderr, self._notes)),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    @staticmethod
    def _read(pipe: object, lines: queue.Queue[str]) -> None:
        for line in pipe:  # type: ignore[attr-defined]
            lines.put(line.rstrip("\n"))

    def line(self) -> str:
        """Return the next line."""
        return self._lines.get(timeout=PATIENCE_SECONDS)

    def note(self) -> str:
        """Return the next line of stderr."""
        return self._notes.get(timeout=PATIENCE_SECONDS)

    def end(self) -> int:
        """Press Ctrl-C; return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE_SECONDS)
