"""Starts, ends and starts again the servers of a herd, by a command for one server.

The rule: whatever happens, no process that was started here outlives `end`. Each is the leader of a group of its
own, and is not waited for (so its ID is not given away) before that whole group has been told to end. What leaves its
group (setsid, a daemon) becomes a child of this process when its parent ends, and so is found.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from proxyherd.grading.faults import NotSeen
from proxyherd.grading.servers import Server, until

START_SECONDS: Final = 20.0
"""For a server to take its first connection, from when it was started."""

END_SECONDS: Final = 5.0
"""For started servers to end by themselves once told to, before they are killed."""

COMMAND_SECONDS: Final = 60.0
"""For a command that stops or starts a server of a herd that runs already."""


MOST_FILE_BYTES: Final = 1 << 28
"""What a started server may write into one file, its output among them: the disk is not its own."""

LAST_WORDS_BYTES: Final = 4_096

_PR_SET_CHILD_SUBREAPER: Final = 36


class StartError(Exception):
    """A server could not be started; the text says which, how, and what it said."""


class Keeper(Protocol):
    """Who can take a server away and bring it back."""

    async def lose(self, server: Server) -> None:
        """End a server without warning. Raises NotSeen where that fails."""

    async def regain(self, server: Server) -> None:
        """Start it again; return when it takes connections. Raises StartError."""

    async def revive(self) -> None:
        """Start again what has ended and should not have."""

    def deaths(self) -> list[str]:
        """Return what has ended and should not have, a sentence each."""


class Started:
    """A herd started by a command with {name}, {host} and {port} in it."""

    def __init__(self, command: str, directory: Path, outputs: Path, how: signal.Signals) -> None:
        self._words = shlex.split(command)
        self._directory = directory
        self._outputs = outputs
        self._how = how
        self._processes: dict[Server, subprocess.Popen[bytes]] = {}
        self._deaths: list[str] = []
        self._has_started = False
        self._strangers: set[int] = set()
        self._files = resource.getrlimit(resource.RLIMIT_NOFILE)

    def output(self, server: Server) -> Path:
        """Return the file that takes what a server prints."""
        return self._outputs / f"{server.name}.out"

    async def start(self, servers: list[Server]) -> None:
        """Start all servers; return when each takes connections. Raises StartError."""
        for server in servers:
            if _answers(server):
                raise StartError(
                    f"{server.name}: another process listens at {server.host}:{server.port} already; end it, or "
                    "name another address"
                )
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._strangers, self._has_started = _descendants(os.getpid()), True
        for server in servers:
            self._start(server)
        await asyncio.gather(*map(self._until_it_listens, servers))

    async def lose(self, server: Server) -> None:
        process = self._processes.get(server)
        if process is None or _ended(process):
            raise NotSeen(f"{server.name} has ended by itself")
        # Whose they are cannot be told once their parent has ended.
        family = _descendants(process.pid)
        for pid in family - _group(process.pid, family):
            _signal(pid, self._how)
        _signal_group(process, self._how)
        if not await until(lambda: _ended_async(process), END_SECONDS):
            _signal_group(process, signal.SIGKILL)
        self._forget(server)
        for pid in family & self._descendants():
            _signal(pid, signal.SIGKILL)

    async def regain(self, server: Server) -> None:
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

    def end(self) -> None:
        """End all that was started, and whatever it has started. To be called without regard to what has ended."""
        try:
            for number in (signal.SIGTERM, signal.SIGCONT):
                for process in self._processes.values():
                    _signal_group(process, number)
                for pid in self._descendants() - self._groups():
                    _signal(pid, number)
            deadline = time.monotonic() + END_SECONDS
            while any(map(_is_alive, self._descendants())) and time.monotonic() < deadline:
                time.sleep(0.02)
        finally:
            for server in list(self._processes):
                self._forget(server)
            self._end_the_rest()

    def _end_the_rest(self) -> None:
        """Kill what has left its group, and what that starts meanwhile."""
        deadline = time.monotonic() + END_SECONDS
        while (rest := self._descendants()) and time.monotonic() < deadline:
            for pid in rest:
                _signal(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            time.sleep(0.005)

    def _descendants(self) -> set[int]:
        return _descendants(os.getpid(), self._strangers) if self._has_started else set()

    def _groups(self) -> set[int]:
        found = self._descendants()
        return {pid for process in self._processes.values() for pid in _group(process.pid, found)}

    def _start(self, server: Server) -> None:
        values = {"{name}": server.name, "{host}": server.host, "{port}": str(server.port)}
        words = list(self._words)
        for placeholder, value in values.items():
            words = [word.replace(placeholder, value) for word in words]
        with self.output(server).open("ab") as output, self._limits():
            try:
                self._processes[server] = subprocess.Popen(  # noqa: S603 - the command that the user gave
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd=self._directory,
                    # So that a Python program's prints are in its log when its answers leave.
                    env={**os.environ, "PYTHONUNBUFFERED": "1"},
                    start_new_session=True,
                )
            except OSError as error:
                raise StartError(f"{server.name}: {shlex.join(words)}: {error.strerror}") from error

    @contextlib.contextmanager
    def _limits(self) -> Iterator[None]:
        """Have the limits that a started server is to have, which it takes over."""
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

    async def _until_it_listens(self, server: Server) -> None:
        async def listens() -> bool:
            return _ended(self._processes[server]) or _answers(server)

        if not await until(listens, START_SECONDS):
            raise StartError(
                f"{server.name}: takes no connection at {server.host}:{server.port} after {START_SECONDS:g} s"
                f"{self._last_words(server)}"
            )
        if _ended(self._processes[server]):
            raise StartError(f"{server.name}: has ended at its start{self._last_words(server)}")

    def _note_death(self, server: Server) -> None:
        self._deaths.append(f"{server.name} has ended{self._last_words(server)}")

    def _last_words(self, server: Server) -> str:
        with self.output(server).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
            lines = file.read(LAST_WORDS_BYTES).decode("ascii", "backslashreplace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"; it printed last: {said[-200:]}" if said else ", and had printed nothing"

    def _forget(self, server: Server) -> None:
        process = self._processes.pop(server)
        _signal_group(process, signal.SIGKILL)
        process.wait()


class Commanded:
    """A herd that runs already, whose servers are stopped and started by commands with {name} in them."""

    def __init__(self, lose: str, regain: str) -> None:
        self._lose = lose
        self._regain = regain

    async def lose(self, server: Server) -> None:
        if problem := await _run(self._lose, server):
            raise NotSeen(problem)
        if not await until(lambda: _is_away(server), END_SECONDS):
            raise NotSeen(f"{server.name} still takes connections after: {self._lose}")

    async def regain(self, server: Server) -> None:
        if problem := await _run(self._regain, server):
            raise StartError(problem)
        if await until(lambda: _listens(server), START_SECONDS):
            return
        raise StartError(f"{server.name} takes no connection {START_SECONDS:g} s after: {self._regain}")

    async def revive(self) -> None:
        """Leave it to whoever runs the herd."""

    def deaths(self) -> list[str]:
        return []


async def _run(command: str, server: Server) -> str:
    """Run a command; return what went wrong."""
    words = [word.replace("{name}", server.name) for word in shlex.split(command)]
    # No pipe: a server that is started in the background keeps its end open.
    with tempfile.TemporaryFile() as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *words, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
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
        output.seek(max(0, output.seek(0, os.SEEK_END) - LAST_WORDS_BYTES))
        said = output.read(LAST_WORDS_BYTES).decode("ascii", "backslashreplace").strip()[-300:]
    return f"{shlex.join(words)}: exit code {process.returncode}: {said}" if process.returncode else ""


def _answers(server: Server) -> bool:
    """Whether somebody takes connections there."""
    try:
        with socket.create_connection((server.host, server.port), 1.0):
            return True
    except (OSError, UnicodeError):
        return False


async def _listens(server: Server) -> bool:
    return _answers(server)


async def _is_away(server: Server) -> bool:
    return not _answers(server)


async def _ended_async(process: subprocess.Popen[bytes]) -> bool:
    return _ended(process)


def _ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; it is left unreaped, so that its ID and its group's stay its own."""
    if process.returncode is not None:
        return True
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _stat(pid: int | str) -> list[str]:
    """Return what /proc says of a process from its state on: state, parent, group, ...; nothing of one that is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # its name may hold anything


def _is_alive(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def _descendants(root: int, without: set[int] | None = None) -> set[int]:
    """Return the children of a process, theirs, and so on; not some of them, nor theirs."""
    children: dict[int, list[int]] = {}
    for entry in (path.name for path in Path("/proc").iterdir()):
        if entry.isdigit() and (stat := _stat(entry)):
            children.setdefault(int(stat[1]), []).append(int(entry))
    found: set[int] = set()
    frontier = [root]
    while frontier:
        fresh = [pid for pid in children.get(frontier.pop(), []) if pid not in (without or ())]
        found.update(fresh)
        frontier += fresh
    return found


def _group(leader: int, pids: set[int]) -> set[int]:
    """Return those that are in a process's group."""
    return {pid for pid in pids if _stat(pid)[2:3] == [str(leader)]}
