"""Starts, ends and starts again the servers of a herd, by a command for one server.

The rule: whatever happens, no process that was started here outlives `end`. Each is the leader of a group of its
own, and is not waited for (so its ID is not given away) before that whole group has been told to end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import socket
import subprocess
import time
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
        for server in servers:
            self._start(server)
        await asyncio.gather(*map(self._until_it_listens, servers))

    async def lose(self, server: Server) -> None:
        process = self._processes.get(server)
        if process is None or _ended(process):
            raise NotSeen(f"{server.name} has ended by itself")
        _signal_group(process, self._how)
        if not await until(lambda: _ended_async(process), END_SECONDS):
            _signal_group(process, signal.SIGKILL)
        self._forget(server)

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
        """End all that was started, and whatever it has started."""
        for process in self._processes.values():
            _signal_group(process, signal.SIGTERM)
            _signal_group(process, signal.SIGCONT)
        deadline = time.monotonic() + END_SECONDS
        while not all(map(_ended, self._processes.values())) and time.monotonic() < deadline:
            time.sleep(0.01)
        for server in list(self._processes):
            self._forget(server)

    def _start(self, server: Server) -> None:
        values = {"{name}": server.name, "{host}": server.host, "{port}": str(server.port)}
        words = list(self._words)
        for placeholder, value in values.items():
            words = [word.replace(placeholder, value) for word in words]
        with self.output(server).open("ab") as output:
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
        lines = self.output(server).read_bytes()[-4_096:].decode("ascii", "backslashreplace").split("\n")
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
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        return f"{shlex.join(words)}: {error.strerror}"
    try:
        async with asyncio.timeout(COMMAND_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        return f"{shlex.join(words)}: has not ended within {COMMAND_SECONDS:g} s"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = output.decode("ascii", "backslashreplace").strip()[-300:]
    return f"{shlex.join(words)}: exit code {process.returncode}: {said}" if process.returncode else ""


def _answers(server: Server) -> bool:
    """Whether somebody takes connections there."""
    try:
        with socket.create_connection((server.host, server.port), 1.0):
            return True
    except OSError:
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
