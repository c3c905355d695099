"""Logs: each command that came and each answer that left is there.

A log may be of any form, so only this is asked of it: a line holds the command as it was sent, and a line holds the
answer (of a WHATSAT answer the AT line). What is sent for this is plain ASCII, which no log has to escape.

What servers say to each other has the same AT lines in it. So the answer that is looked for is one that nobody floods:
that to a stale report; and that to a question once nothing more is logged of the client's report.
"""

from __future__ import annotations

import re
import time
from typing import Final

from proxyherd.grading.checks import Check
from proxyherd.grading.faults import Fault, shown
from proxyherd.grading.herds import GradedHerd, Log
from proxyherd.grading.servers import LOCATION, GradedServer, new_client, spelled, together

RULE = "Each server logs every command as it came and every answer as it left (of places, the AT line)."

LOG_QUIET_SECONDS: Final = 0.3
SECONDS: Final = 2.0
"""When no more lines come of a report, and how long that is waited for."""


def checks(herd: GradedHerd) -> list[Check]:
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


async def _everywhere(herd: GradedHerd, kind: str) -> None:
    await together(*(_one(herd, log.server, kind) for log in herd.logs()))


async def _one(herd: GradedHerd, server: GradedServer, kind: str) -> None:
    client, when = new_client(), time.time_ns()
    report = b"IAMAT %b %b " % (client, LOCATION)
    commands = {
        "iamat": [report + spelled(when), report + spelled(when - 1_000_000_000)],
        "whatsat": [b"WHATSAT %b %b" % (client, server.question)],
        "invalid": [b"WHEREIS %b now" % client],
    }
    if kind == "whatsat":
        log = Log(server)
        await server.report(client)
        await log.until_quiet_about(client, LOG_QUIET_SECONDS, SECONDS)
    for command in commands[kind]:
        await _expect_logged(herd, server, command)


async def _expect_logged(herd: GradedHerd, server: GradedServer, command: bytes) -> None:
    log = Log(server)
    answer = (await server.ask(command)).removesuffix(b"\n")
    # The answer to an invalid command has the command in it.
    patterns = {
        "the command": (re.compile(rb"(?<!\? )" + re.escape(command)), command),
        "the answer": (re.compile(re.escape(answer)), answer),
    }
    for what, (pattern, text) in patterns.items():
        if not await log.until_found(pattern.search, server.seconds):
            raise herd.unlogged(
                Fault(
                    server.name, command, f"a line in {server.log} with {what}: {shown(text)}", "no such line"
                )
            )
