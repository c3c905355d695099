"""Logs: each command that came and each answer that left is there.

A log may be of any form, so only this is asked of it: a line holds the command as it was sent, and a line holds the
answer (of a WHATSAT answer the AT line). What is sent for this is plain ASCII, which no log has to escape.
"""

from __future__ import annotations

import asyncio
import re

from proxyherd.grading.checks import Check
from proxyherd.grading.faults import Fault, shown
from proxyherd.grading.herds import Herd, Log
from proxyherd.grading.servers import LOCATION, Server, new_client, now

RULE = "Each server logs every command as it came and every answer as it left (of places, the AT line)."


def checks(herd: Herd) -> list[Check]:
    return [
        Check("logs.iamat", "IAMAT and its answer are in the log", RULE, lambda: _everywhere(herd, "iamat")),
        Check(
            "logs.whatsat",
            "WHATSAT and its answer are in the log",
            RULE,
            lambda: _everywhere(herd, "whatsat"),
        ),
        Check(
            "logs.invalid",
            "An invalid command and its answer are in the log",
            RULE,
            lambda: _everywhere(herd, "invalid"),
        ),
    ]


async def _everywhere(herd: Herd, kind: str) -> None:
    await asyncio.gather(*(_one(log, kind) for log in herd.logs()))


async def _one(log: Log, kind: str) -> None:
    server = log.server
    command, answer = await _exchange(server, kind)
    # The answer to an invalid command has the command in it.
    patterns = {
        "the command": (re.compile(rb"(?<!\? )" + re.escape(command)), command),
        "the answer": (re.compile(re.escape(answer)), answer),
    }
    for what, (pattern, text) in patterns.items():
        if not await log.until_found(pattern.search, server.seconds):
            raise Fault(
                server.name, command, f"a line in {server.log} with {what}: {shown(text)}", "no such line"
            )


async def _exchange(server: Server, kind: str) -> tuple[bytes, bytes]:
    """Send a command of that kind; return it and its answer's first line, without LF."""
    client = new_client()
    if kind == "whatsat":
        await server.report(client)
    command = {
        "iamat": b"IAMAT %b %b %b" % (client, LOCATION, now()),
        "whatsat": b"WHATSAT %b %b" % (client, server.question),
        "invalid": b"WHEREIS %b now" % client,
    }[kind]
    return command, (await server.ask(command)).removesuffix(b"\n")
