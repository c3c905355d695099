"""The cases of the protocol, played against a server."""

from __future__ import annotations

import asyncio

from herd_process import PATIENCE_SECONDS, ServerProcess

from proxyherd.grading import cases, playing, servers
from proxyherd.grading.cases import Case

CASES = cases.load_cases()


BYTE_BY_BYTE = 1


def play(case: Case, server: ServerProcess, chunk: int | None) -> None:
    """Play one case on a connection of its own, and check every answer and that there are no others."""
    judged = servers.GradedServer(server.name, "127.0.0.1", server.client_port, seconds=PATIENCE_SECONDS)
    asyncio.run(playing.play(case, judged, chunk))
