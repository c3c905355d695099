"""Work in forks of this process that harms nobody, whatever it does: what mutants are tried in.

Each fork has a session and a folder of its own, may start no process, signal nobody, and change no file elsewhere. It
has bounds of CPU, memory and time, and ends with its parent.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.internal.charmap import charmap
from hypothesis.internal.conjecture import providers

MEMORY_BYTES = 6 << 30
FILE_BYTES = 256 << 20
STILL_SECONDS = 15.0
"""Without CPU used for so long, a process hangs: quick tests wait for less."""

STILL_CPU_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1  # of Linux's prctl: this process ends with its parent


class NotHereError(RuntimeError):
    """A test or a mutant tried what reaches out of its process."""


class Guard:
    """An audit hook: raises NotHereError for processes, signals to others, and files that change outside of a folder."""

    STARTS = frozenset(
        ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system", "os.killpg")
    )
    CHANGES = frozenset(
        (
            *("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate"),
            *("os.chmod", "os.chown", "os.utime", "shutil.rmtree", "shutil.move", "sqlite3.connect"),
        )
    )
    WATCHED = STARTS | CHANGES | {"os.kill", "open"}
    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self, folder: Path) -> None:
        self.inside = (f"{folder}/", "/dev/", "/proc/self/")
        self.refused = False
        self.pid = os.getpid()

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in self.WATCHED:
            return
        if event in self.STARTS or (event == "os.kill" and args[0] != self.pid):
            self._refuse(event, args)
        elif event == "open" and args[2] & self.WRITES:
            self._check(event, args[:1])
        elif event in self.CHANGES and not self._is_beside_a_folder(event, args):
            self._check(event, args[:2])

    def _is_beside_a_folder(self, event: str, args: tuple[Any, ...]) -> bool:
        """Whether a path is relative to a folder that was opened before, as shutil.rmtree does it."""
        return event != "os.truncate" and isinstance(args[-1], int) and args[-1] >= 0

    def _check(self, event: str, paths: tuple[Any, ...]) -> None:
        for path in paths:
            if isinstance(path, str | bytes | os.PathLike) and not _is_harmless(name := os.fsdecode(path)):
                name = os.path.realpath(name)
                if not name.startswith(self.inside):
                    self._refuse(event, (name,))

    def _refuse(self, event: str, args: tuple[Any, ...]) -> None:
        self.refused = True
        if callable(signal.getsignal(signal.SIGALRM)):
            signal.setitimer(signal.ITIMER_REAL, 0.3)  # pytest-timeout's: helpers would try again for long
        raise NotHereError(
            f"{event} {args!r}: a quick test starts no process, and changes no file but its own"
        )


def _is_harmless(name: str) -> bool:
    """Whether a name is SQLite's for no file, or for one that is only read."""
    return name == ":memory:" or (name.startswith("file:") and "mode=ro" in name)


@dataclass
class Work:
    """One piece of work for a fork. `do` returns what becomes JSON."""

    name: str
    do: Callable[[], Any]
    cpu_seconds: float
    seconds: float
    result: Any = None
    end: str = ""
    """How it ended, where there is no result."""

    pid: int = 0
    began: float = 0.0
    folder: Path = field(default_factory=Path)
    cpu: float = 0.0
    moved: float = 0.0


def run_forks(work: Iterable[Work], jobs: int) -> Iterator[Work]:
    """Do each piece of work in a fork, so many at once, and yield it when it ends; no result: it died or was killed."""
    waiting = iter(work)
    running: list[Work] = []
    with tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as scratch:
        while True:
            while len(running) < jobs and (one := next(waiting, None)) is not None:
                one.folder = Path(tempfile.mkdtemp(dir=os.path.realpath(scratch)))
                _fork(one)
                running.append(one)
            if not running:
                return
            for one in [one for one in running if _has_ended(one)]:
                running.remove(one)
                with suppress(OSError, ValueError):
                    one.result = json.loads((one.folder / "result").read_bytes())
                shutil.rmtree(one.folder, ignore_errors=True)
                yield one
            time.sleep(0.01)


def _fork(work: Work) -> None:
    work.began = work.moved = time.monotonic()
    work.pid = os.fork()
    if work.pid:
        return
    status = 1
    try:
        os.setsid()
        _confine(work)
        result = json.dumps(work.do()).encode()
        temporary = work.folder / "result.new"
        temporary.write_bytes(result)
        temporary.replace(work.folder / "result")
        status = 0
    finally:
        os._exit(status)


def prepare() -> None:
    """Load what every fork would have to load, or would have to write."""
    charmap()
    _hypothesis_looks_around()
    seen = providers._get_local_constants()
    providers._get_local_constants = lambda: seen
    gc.collect()
    gc.freeze()  # else each fork would look through all of it again and again


@hypothesis.settings(max_examples=5, database=None, deadline=None)
@hypothesis.given(strategies.integers() | strategies.text() | strategies.binary() | strategies.floats())
def _hypothesis_looks_around(_: object) -> None:
    """Before its first example it parses every module of the project for constants: seconds."""


def _confine(work: Work) -> None:
    """Make this process harmless to others."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sys.dont_write_bytecode = True
    os.chdir(work.folder)
    set_hypothesis_home_dir(work.folder / "hypothesis")
    os.environ["TMPDIR"] = os.environ["PYTEST_DEBUG_TEMPROOT"] = tempfile.tempdir = str(work.folder)
    log = os.open(work.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    seconds = int(time.process_time() + work.cpu_seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 2))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _has_ended(work: Work) -> bool:
    """Whether a fork has ended; one that hangs is killed."""
    if os.waitid(os.P_PID, work.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        now = time.monotonic()
        with suppress(OSError):
            fields = Path(f"/proc/{work.pid}/stat").read_text().rpartition(")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
            if cpu - work.cpu > STILL_CPU_SECONDS:
                work.cpu, work.moved = cpu, now
        if now - work.moved < STILL_SECONDS and now - work.began < work.seconds:
            return False
        work.end = f"hung for {now - work.moved:.0f} s, {work.cpu:.1f} s of CPU in {now - work.began:.0f} s"
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(work.pid, signal.SIGKILL)
    _, status = os.waitpid(work.pid, 0)
    code = os.waitstatus_to_exitcode(status)
    work.end = work.end or (f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit {code}")
    return True
