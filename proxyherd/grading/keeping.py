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
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from proxyherd.base.escapes import escaped
from proxyherd.base.files import open_regular
from proxyherd.grading import processes
from proxyherd.grading.faults import NotSeen
from proxyherd.grading.last_words import LastWords, last_bytes, last_lines
from proxyherd.grading.servers import GradedServer, until

START_SECONDS: Final = 20.0
"""How long a started server may take to accept its first connection."""

END_SECONDS: Final = 5.0
"""How long started servers may take to end after they are told to, before they are killed."""

COMMAND_SECONDS: Final = 60.0
"""How long a command may take that stops or starts a server of a running herd."""


MOST_FILE_BYTES: Final = 1 << 28
"""Bytes that a started server may write into one file, including its output."""

PASSED: Final = frozenset(("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR"))
"""Variables of the environment that commands get, besides those that begin with LC_. Started programs are untrusted, and
other variables may contain passwords and keys."""


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment that commands get: the variables that programs need, and those that the user gives."""
    ours = {name: value for name, value in os.environ.items() if name in PASSED or name.startswith("LC_")}
    return ours | dict(more)


_APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW


class StartError(Exception):
    """A server could not be started; the text says which, how, and what it printed."""


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
            if _answers(server):
                raise StartError(
                    f"{server.name}: {_holder(server.port)} listens at {server.host}:{server.port} already; end it, "
                    "or name another address"
                )
        processes.adopt()
        self._strangers, self._has_started = processes.descendants(os.getpid()), True
        for server in servers:
            self._not_started = server
            self._start(server)
        self._not_started = None
        await asyncio.gather(*map(self._first_start, servers))

    async def lose(self, server: GradedServer) -> None:
        process = self._processes.get(server)
        if process is None or _ended(process):
            raise NotSeen(f"{server.name} has ended by itself")
        # Whose they are cannot be told once their parent has ended.
        family = processes.descendants(process.pid)
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
        for pid in family & self._descendants():
            processes.send(pid, signal.SIGKILL)

    async def regain(self, server: GradedServer) -> None:
        self._start(server)
        await self._until_it_listens(server)

    async def revive(self) -> None:
        for server, process in list(self._processes.items()):
            if _ended(process):
                self._note_death(server)
                self._forget(server)
                with contextlib.suppress(StartError):
                    await self.regain(server)

    def deaths(self) -> list[str]:
        return self._deaths

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
            await self._until_it_listens(server)
        except StartError:
            self._not_started = self._not_started or server
            raise

    async def _until_it_listens(self, server: GradedServer) -> None:
        async def listens() -> bool:
            return _ended(self._processes[server]) or _answers(server)

        if not await until(listens, START_SECONDS):
            raise StartError(
                f"{server.name}: takes no connection at {server.host}:{server.port} after {START_SECONDS:g} s"
                f"{self._last_words(server)}"
            )
        if _ended(self._processes[server]):
            raise StartError(f"{server.name}: has ended at its start{self._last_words(server)}")
        self.starts.setdefault(server, time.monotonic() - self._began[server])
        # What listens may be none of its processes, such as a proxy of Docker, but not another server's.
        holders = processes.listeners(server.port) - self._family(server)
        others = [other for other in self._processes if other is not server and holders & self._family(other)]
        if others:
            raise StartError(
                f"{server.name}: its port {server.port} is held by {_holder(server.port)}, which was started as "
                f"{others[0].name}"
            )

    def _family(self, server: GradedServer) -> set[int]:
        pid = self._processes[server].pid
        return {pid, *processes.descendants(pid)}

    def _note_death(self, server: GradedServer) -> None:
        self._deaths.append(f"{server.name} has ended{self._last_words(server)}")

    def _last_words(self, server: GradedServer) -> str:
        try:
            said = [line.strip() for line in last_lines(self.output(server))]
        except OSError as error:
            return f"; what it printed cannot be read: {error.filename}: {error.strerror}"
        return f"; it printed last: {said[-1]}" if said else ", and had printed nothing"

    def _forget(self, server: GradedServer) -> None:
        process = self._processes.pop(server)
        _signal_group(process, signal.SIGKILL)
        process.wait()


class Commanded:
    """A running herd, whose servers are stopped and started by commands with {name} in them."""

    def __init__(self, lose: str, regain: str, environ: Mapping[str, str]) -> None:
        self._lose = lose
        self._regain = regain
        self._environ = dict(environ)

    async def lose(self, server: GradedServer) -> None:
        if problem := await _run(self._lose, server, self._environ):
            raise NotSeen(problem)
        if not await until(lambda: not _answers(server), END_SECONDS):
            raise NotSeen(f"{server.name} still takes connections after: {self._lose}")

    async def regain(self, server: GradedServer) -> None:
        if problem := await _run(self._regain, server, self._environ):
            raise StartError(problem)
        if await until(lambda: _answers(server), START_SECONDS):
            return
        raise StartError(f"{server.name} takes no connection {START_SECONDS:g} s after: {self._regain}")

    async def revive(self) -> None:
        """Do nothing: the operator of the herd does this."""

    def deaths(self) -> list[str]:
        return []


async def _run(command: str, server: GradedServer, environ: Mapping[str, str]) -> str:
    """Run a command; return what went wrong."""
    words = [word.replace("{name}", server.name) for word in shlex.split(command)]
    # No pipe: a server that is started in the background keeps its end open.
    with tempfile.TemporaryFile() as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, env=environ
            )
        except OSError as error:
            return f"{shlex.join(words)}: {error.strerror}"
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await process.wait()
        except TimeoutError:
            return f"{shlex.join(words)}: has not ended within {COMMAND_SECONDS:g} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        said = escaped(last_bytes(output).strip()[-300:])
    return f"{shlex.join(words)}: exit code {process.returncode}: {said}" if process.returncode else ""


def _answers(server: GradedServer) -> bool:
    """Whether a server accepts connections there."""
    try:
        with socket.create_connection((server.host, server.port), 1.0):
            return True
    except (OSError, UnicodeError):
        return False


def _holder(port: int) -> str:
    """Describe the process that listens at a port."""
    found = processes.listeners(port)
    return processes.described(min(found)) if found else "another process"


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended; it is not reaped, so that its ID and its group's are not reused."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)
