"""Starts, ends and restarts the servers of a herd, by a command for one server.

The rules: a command gets no more of the environment than it needs. Whatever happens, no process that was started here
outlives `end` (guard.py ensures this if `end` is never called). Each process leads its own group, and is not reaped
before its whole group has been told to end, so that its ID is not reused. A process that leaves its group (setsid, a
daemon) becomes a child of this process when its parent ends, and so is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from proxyherd.base import holders
from proxyherd.base.files import open_regular
from proxyherd.grading import processes
from proxyherd.grading.faults import NotSeen
from proxyherd.grading.last_words import LastWords, last_lines, telling_line
from proxyherd.grading.servers import GradedServer, until

START_SECONDS: Final = 20.0
"""How long a started server may take to accept its first connection."""

RESTART_FACTOR: Final = 3
"""A multiple of the time of its first start: how long a server may take that is started again, if that is more. Then it
is ended, and has one more try."""

END_SECONDS: Final = 5.0
"""How long started servers may take to end after they are told to, before they are killed."""

MOST_FILE_BYTES: Final = 1 << 28
"""Bytes that a started server may write into one file, including its output."""

PASSED: Final = frozenset(("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"))
"""Variables of the environment that commands get, besides those that begin with LC_. Started programs are untrusted, and
other variables may contain passwords and keys."""


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that commands get: the variables that programs need, and those that the user gives."""
    ours = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith("LC_")}
    return ours | dict(more)


MOST_OUTPUT_KEPT: Final = 1 << 25
"""Bytes of what a server has printed. What is longer is deleted when it is lost or started again, so that the next one
has room."""

_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW


class StartError(Exception):
    """A server could not be started; the text says which, how, and what it printed."""


class SlowStartError(StartError):
    """It has not listened in time, and has not ended either."""


class Restarter(Protocol):
    """Stops and restarts servers."""

    async def lose(self, server: GradedServer) -> None:
        """End a server without warning. Raises NotSeen if that fails."""

    async def regain(self, server: GradedServer) -> None:
        """Start it again; return when it accepts connections. Raises StartError."""

    async def revive(self) -> None:
        """Restart servers that have crashed."""

    def deaths(self) -> list[str]:
        """Return a sentence for each server that has crashed."""

    def end_of(self, server: GradedServer, /) -> str:
        """Return how a server has crashed that was not started again; "" if it has not, or nobody knows."""


class Started:
    """A herd started by a command with {name}, {host} and {port} in it."""

    def __init__(
        self,
        command: str,
        directory: Path,
        outputs: Path,
        how: signal.Signals,
        environ: Mapping[str, str],
        within: Sequence[str] = (),
    ) -> None:
        """`within` are words before the command: those of a sandbox with processes of its own."""
        self._words = shlex.split(command)
        self._within = list(within)
        self._environ = dict(environ)
        self._directory = directory
        self._outputs = outputs
        self._how = how
        self._processes: dict[GradedServer, subprocess.Popen[bytes]] = {}
        self._deaths: list[str] = []
        self._began: dict[GradedServer, float] = {}
        self.starts: dict[GradedServer, float] = {}
        """How long each server took to accept its first connection, in seconds, at its first start."""
        self._not_started: GradedServer | None = None
        self._has_started = False
        self._strangers: set[int] = set()
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)

    def output(self, server: GradedServer) -> Path:
        """Return the file for a server's output."""
        return self._outputs / f"{server.name}.out"

    async def start(self, servers: list[GradedServer]) -> None:
        """Start all servers; return when each accepts connections. Raises StartError."""
        for server in servers:
            if await server.listens():
                holder = _described(await asyncio.to_thread(holders.listeners, [server.port]), server.port)
                raise StartError(
                    f"{server.name}: {holder} listens at {server.host}:{server.port} already; end it, "
                    "or name another address"
                )
        processes.adopt()
        self._strangers = await asyncio.to_thread(processes.descendants, os.getpid())
        self._has_started = True
        for server in servers:
            self._not_started = server
            self._start(server)
        self._not_started = None
        await asyncio.gather(*map(self._first_start, servers))
        await self._expect_own_ports(servers)

    async def lose(self, server: GradedServer) -> None:
        process = self._processes.get(server)
        if process is not None and _ended(process):
            self._note_death(server)
            self._forget(server)
            process = None
        if process is None:
            raise NotSeen(f"{server.name} has ended by itself")
        # Whose they are cannot be told once their parent has ended.
        family = await asyncio.to_thread(processes.descendants, process.pid)
        if self._within and self._how is not signal.SIGKILL:
            # A signal to the sandbox itself would end it, and all in it at once.
            for pid in processes.in_namespaces(family):
                processes.send(pid, self._how)
        else:
            for pid in family - processes.group(process.pid, family):
                processes.send(pid, self._how)
            _signal_group(process, self._how)
        if not await until(lambda: _ended(process), END_SECONDS):
            _signal_group(process, signal.SIGKILL)
        self._forget(server)
        for pid in family & await asyncio.to_thread(self._descendants):
            processes.send(pid, signal.SIGKILL)
        # Those in a sandbox end after it, and hold the port until then.
        await until(lambda: not any(map(processes.is_alive, family)), END_SECONDS)
        self._make_room(server)

    async def regain(self, server: GradedServer) -> None:
        try:
            await self._start_again(server)
        except SlowStartError:
            with contextlib.suppress(NotSeen):  # it has ended now
                await self.lose(server)
            await self._start_again(server)

    async def _start_again(self, server: GradedServer) -> None:
        self._start(server)
        seconds = max(START_SECONDS, RESTART_FACTOR * self.starts.get(server, 0.0))
        await self._until_it_listens(server, seconds)
        await self._expect_own_ports([server])

    async def revive(self) -> None:
        for server, process in list(self._processes.items()):
            if _ended(process):
                self._note_death(server)
                self._forget(server)
                with contextlib.suppress(StartError):
                    await self._start_again(server)

    def deaths(self) -> list[str]:
        return self._deaths

    def end_of(self, server: GradedServer) -> str:
        process = self._processes.get(server)
        if process is None or not _ended(process):
            return ""
        return f"the server has ended ({_how(process)}){self._last_words(server)}"

    def ended(self) -> list[str]:
        """Return a sentence for each server that has ended by itself and was not started again."""
        return [
            f"{server.name} has ended{self._last_words(server)}"
            for server, process in self._processes.items()
            if _ended(process)
        ]

    def last_words(self) -> LastWords | None:
        """Return what the server printed last that could not be started, or else the first that has ended by itself; None
        if there is no such server, or it cannot be read.
        """
        ended = (server for server, process in self._processes.items() if _ended(process))
        if (server := self._not_started or next(ended, None)) is None:
            return None
        try:
            lines = last_lines(self.output(server))
        except OSError:
            return None
        return LastWords(server.name, shlex.join(self._command(server)), lines)

    def end(self) -> None:
        """End everything that was started, and its descendants. Call it in every case."""
        try:
            for number in (signal.SIGTERM, signal.SIGCONT):
                for process in self._processes.values():
                    _signal_group(process, number)
                for pid in self._descendants() - self._groups():
                    processes.send(pid, number)
            deadline = time.monotonic() + END_SECONDS
            while any(map(processes.is_alive, self._descendants())) and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            for server in list(self._processes):
                self._forget(server)
            # What has left its group, and what that starts meanwhile.
            if self._has_started:
                processes.kill_descendants(self._strangers, END_SECONDS)

    def _descendants(self) -> set[int]:
        return processes.descendants(os.getpid(), self._strangers) if self._has_started else set()

    def _groups(self) -> set[int]:
        found = self._descendants()
        return {pid for process in self._processes.values() for pid in processes.group(process.pid, found)}

    def _command(self, server: GradedServer) -> list[str]:
        values = {"{name}": server.name, "{host}": server.host, "{port}": str(server.port)}
        words = list(self._words)
        for placeholder, value in values.items():
            words = [word.replace(placeholder, value) for word in words]
        return words

    def _start(self, server: GradedServer) -> None:
        words = self._command(server)
        self._make_room(server)
        try:
            output = os.fdopen(open_regular(self.output(server), _APPEND), "ab")
        except OSError as error:
            raise StartError(f"{server.name}: {error.filename}: {error.strerror}") from error
        self._began[server] = time.monotonic()
        with output, self._limits():
            try:
                self._processes[server] = subprocess.Popen(  # noqa: S603 - the command that the user gave
                    [*self._within, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._directory,
                    # So that a Python program's prints are in its log when its answers leave.
                    env={"PYTHONUNBUFFERED": "1", **self._environ},
                    start_new_session=True,
                )
            except OSError as error:
                raise StartError(f"{server.name}: {shlex.join(words)}: {error.strerror}") from error

    def _make_room(self, server: GradedServer) -> None:
        """Delete what a server has printed if it is very long."""
        with contextlib.suppress(OSError):
            if self.output(server).stat().st_size > MOST_OUTPUT_KEPT:
                self.output(server).unlink()

    @contextlib.contextmanager
    def _limits(self) -> Iterator[None]:
        """Set the limits of a started server, which it inherits."""
        ours = {one: resource.getrlimit(one) for one in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)}
        soft, hard = ours[resource.RLIMIT_FSIZE]
        most = MOST_FILE_BYTES if soft == resource.RLIM_INFINITY else min(soft, MOST_FILE_BYTES)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, self._files)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
            yield
        finally:
            for one, limits in ours.items():
                resource.setrlimit(one, limits)

    async def _first_start(self, server: GradedServer) -> None:
        try:
            await self._until_it_listens(server, START_SECONDS)
        except StartError:
            self._not_started = self._not_started or server
            raise

    async def _until_it_listens(self, server: GradedServer, seconds: float) -> None:
        async def listens() -> bool:
            return _ended(self._processes[server]) or await server.listens()

        if not await until(listens, seconds):
            raise SlowStartError(
                f"{server.name}: has not listened at {server.host}:{server.port} within {seconds:g} s"
                f"{self._last_words(server)}"
            )
        if _ended(self._processes[server]):
            raise StartError(f"{server.name}: has ended at its start{self._last_words(server)}")
        self.starts.setdefault(server, time.monotonic() - self._began[server])

    async def _expect_own_ports(self, servers: list[GradedServer]) -> None:
        """Raise StartError if what listens for a server was started as another one."""
        # In a thread, once, and when all listen: the time that it takes is not the servers'.
        ports = [server.port for server in servers]
        listeners, children = await asyncio.to_thread(
            lambda: (holders.listeners(ports), processes.families())
        )
        families = {
            server: {process.pid, *processes.descendants(process.pid, children=children)}
            for server, process in self._processes.items()
        }
        for server in servers:
            # What listens may be none of its processes, such as a proxy of Docker, but not another server's.
            strangers = listeners[server.port] - families.get(server, set())
            for other, family in families.items():
                if other is not server and strangers & family:
                    self._not_started = self._not_started or server
                    raise StartError(
                        f"{server.name}: its port {server.port} is held by {_described(listeners, server.port)}, "
                        f"which was started as {other.name}"
                    )

    def _note_death(self, server: GradedServer) -> None:
        self._deaths.append(f"{server.name} has ended{self._last_words(server)}")

    def _last_words(self, server: GradedServer) -> str:
        try:
            said = telling_line(self.output(server))
        except OSError as error:
            return f"; what it printed cannot be read: {error.filename}: {error.strerror}"
        return f"; it printed last: {said}" if said else ", and had printed nothing"

    def _forget(self, server: GradedServer) -> None:
        process = self._processes.pop(server)
        _signal_group(process, signal.SIGKILL)
        process.wait()


def _described(listeners: Mapping[int, set[int]], port: int) -> str:
    """Describe the process that listens at a port."""
    found = listeners[port]
    return holders.described(min(found)) if found else "another process"


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended; it is not reaped, so that its ID and its group's are not reused."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _how(process: subprocess.Popen[bytes]) -> str:
    """Return the exit status of a process that has ended and is not reaped, or the signal that ended it."""
    found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if found is None:
        return "status unknown"
    if found.si_code == os.CLD_EXITED:
        return f"status {found.si_status}"
    return signal.Signals(found.si_status).name


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
