"""Logs: each command and each answer is logged.

A log may have any form. So only this is required: a line contains the command as it was sent, and a line contains the
answer (for a WHATSAT, the AT line). The commands for this check are plain ASCII, which no log must escape.

Messages between servers contain the same AT lines. So these checks look for answers that are not flooded: the answer
to a stale report, and the answer to a query after the log mentions the client's report no more.
"""

from __future__ import annotations

import re
import time
from typing import Final

from proxyherd.grading.checks import Check
from proxyherd.grading.faults import Fault, shown
from proxyherd.grading.forms import Form
from proxyherd.grading.herds import GradedHerd, Log
from proxyherd.grading.servers import LOCATION, GradedServer, new_client, spelled, together

RULE = "Each server logs every command as it came and every answer as it left (of places, the AT line)."

LOG_QUIET_SECONDS: Final = 0.3
SECONDS: Final = 2.0
"""After how long without lines about a report there are no more, and how long to wait for that."""


def checks(herd: GradedHerd) -> list[Check]:
    return [
        Check("logs.iamat", "IAMAT and its answer are in the log", RULE, lambda: _everywhere(herd, "iamat")),
        Check(
            "logs.whatsat",
            "WHATSAT and its answer are in the log",
            RULE,
            lambda: _everywhere(herd, "whatsat"),
            follows=frozenset(("places.form",)),
        ),
        Check(
            "logs.invalid",
            "An invalid command and its answer are in the log",
            RULE,
            lambda: _everywhere(herd, "invalid"),
            needs=frozenset((Form.ECHO,)),
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
    answer = await server.ask(command)
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
