"""Runs `python -m proxyherd …` as a process that is forked from one which has imported the package already.

A start takes half a second of the processor, nearly all of it for imports, and the tests start servers by the
hundred. So each process that runs tests keeps a template: an interpreter that has imported the package, does nothing
with it, and forks. What is forked is a process like any other, with the arguments, environment, folder and files that
it is given. Starts as users have them, each in a new interpreter, are for the tests of starting, of the command line,
and of herds under supervisord and systemd.

    process = start(["serve", "Clark"], environ, folder, stdout=file, stderr=file)
    assert process.wait() == 0
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Final, TypeAlias

PROGRAM: Final = [sys.executable, "-m", "proxyherd"]

_MODULES: Final = (
    *(
        "sqlite3",
        "uvloop",
        "proxyherd.admin.app",
        "proxyherd.cli",
        "proxyherd.engines.redis.backend",
        "proxyherd.server.daemon",
    ),
    *(
        "proxyherd.places.google.auto",
        "proxyherd.places.limits.budget",
        "proxyherd.places.gazetteer.provider",
    ),
    "proxyherd.bridge.bridge",
)
"""With what they import, all that servers and the bridge import at their start."""

StartRequest: TypeAlias = tuple[list[str], dict[str, str], str]
"""Arguments, environment, folder."""

_MOST_BYTES: Final = 1 << 18
"""Of a request. Most of it is an environment."""


class ForkedProcess:
    """A process that was forked. What it offers is subprocess.Popen's."""

    def __init__(self, args: list[str], line: socket.socket) -> None:
        self.args = args
        self.returncode: int | None = None
        self._line = line
        self.pid = self._hear()

    def poll(self) -> int | None:
        """Return its exit code, None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its exit code. Raises TimeoutExpired."""
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                self.returncode = self._hear()
            except (BlockingIOError, TimeoutError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._line.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _hear(self) -> int:
        """Return the next number that the template says of this process."""
        told = self._line.recv(64)
        assert told, f"{self.args}: the template has ended"
        return int(told)

    def __del__(self) -> None:
        self._line.close()


def start(
    arguments: list[str], environ: dict[str, str], folder: Path, *, stdout: IO[bytes], stderr: IO[bytes]
) -> ForkedProcess:
    """Run the command line with these arguments, from this folder, in exactly this environment, with no input."""
    sys.audit("warm_start.start", arguments)
    line, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    request = json.dumps([arguments, environ, str(folder)]).encode()
    with far_end:
        socket.send_fds(_template(), [request], [far_end.fileno(), stdout.fileno(), stderr.fileno()])
    return ForkedProcess([*PROGRAM, *arguments], line)


def can_start(program: list[str], environ: dict[str, str]) -> bool:
    """Return whether a program is the one that a template has imported, and nothing here is for its interpreter."""
    return program == PROGRAM and not any(name.startswith("PYTHON") for name in environ)


@cache
def _template() -> socket.socket:
    """Start this process's template, and return the connection to it. It ends when that is closed."""
    control, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _MOST_BYTES)
    with far_end:
        command = [sys.executable, __file__, str(far_end.fileno())]
        template = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[far_end.fileno()])
    assert control.recv(64), "the template could not import the program"

    def end() -> None:
        control.close()
        template.wait()

    atexit.register(end)
    return control


def _fork_on_request(control: socket.socket) -> tuple[StartRequest, list[int]]:
    """Fork for each request, and tell who asked for it the process's ID and, in the end, its exit code.

    Returns in what was forked only: what it is to be, and its files.
    """
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    running: dict[int, tuple[int, int]] = {}
    while True:
        for ready, _ in waiting.poll():
            if ready == control.fileno():
                request, files, _, _ = socket.recv_fds(control, _MOST_BYTES, 3)
                if not request:
                    os._exit(0)
                if (pid := os.fork()) == 0:
                    control.detach()
                    return json.loads(request), files
                line, *outputs = files
                os.write(line, b"%d" % pid)
                for file in outputs:
                    os.close(file)
                ended = os.pidfd_open(pid)
                running[ended] = pid, line
                waiting.register(ended, select.POLLIN)
            else:
                pid, line = running.pop(ready)
                code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                with suppress(OSError):  # nobody may want to know
                    os.write(line, b"%d" % code)
                waiting.unregister(ready)
                os.close(ready)
                os.close(line)


def _become(request: StartRequest, outputs: list[int]) -> None:
    """Make this process what was asked for, as far as an interpreter does not do that itself."""
    arguments, environ, folder = request
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, file in enumerate(outputs, 1):
        os.dup2(file, number)
    os.closerange(3, 1 << 16)  # the template's, for other processes too
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environ)
    sys.path[0], sys.argv[1:] = folder, arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, and for what was forked
    control = socket.socket(fileno=int(sys.argv[1]))
    sys.path.pop(0)
    for module in _MODULES:
        importlib.import_module(module)
    sys.path.insert(0, "")
    gc.collect()
    gc.freeze()  # else each fork would look through all of it, and so copy it
    control.send(b"ready")
    request, (_, *outputs) = _fork_on_request(control)
    _become(request, outputs)
    runpy.run_module("proxyherd", run_name="__main__")


if __name__ == "__main__":
    _main()
