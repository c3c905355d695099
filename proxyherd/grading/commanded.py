"""A herd that runs, whose servers are stopped and started by the user's commands."""

from __future__ import annotations

import asyncio
import shlex
import tempfile
from collections.abc import Mapping
from typing import Final

from proxyherd.base.escapes import escaped
from proxyherd.grading.faults import NotSeen
from proxyherd.grading.keeping import END_SECONDS, RESTART_FACTOR, START_SECONDS, SlowStartError, StartError
from proxyherd.grading.last_words import last_bytes
from proxyherd.grading.servers import GradedServer, until

COMMAND_SECONDS: Final = 60.0
"""How long a command may take that stops or starts a server."""


class Commanded:
    """A running herd, whose servers are stopped and started by commands with {name} in them."""

    def __init__(self, lose: str, regain: str, environ: Mapping[str, str]) -> None:
        self._lose = lose
        self._regain = regain
        self._environ = dict(environ)

    async def lose(self, server: GradedServer) -> None:
        if problem := await _run(self._lose, server, self._environ):
            raise NotSeen(problem)

        async def is_away() -> bool:
            return not await server.listens()

        if not await until(is_away, END_SECONDS):
            raise NotSeen(f"{server.name} still takes connections after: {self._lose}")

    async def regain(self, server: GradedServer) -> None:
        if problem := await _run(self._regain, server, self._environ):
            raise StartError(problem)
        seconds = RESTART_FACTOR * START_SECONDS  # how long its first start took is not known
        if not await until(server.listens, seconds):
            raise SlowStartError(f"{server.name} has not listened within {seconds:g} s after: {self._regain}")

    async def revive(self) -> None:
        """Do nothing: the operator of the herd does this."""

    def deaths(self) -> list[str]:
        return []

    def end_of(self, _server: GradedServer, /) -> str:
        """Return "": nobody knows."""
        return ""


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
