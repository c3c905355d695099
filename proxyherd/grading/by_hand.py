"""How to see a fault by hand: the commands of a shell that send what the grader sent. Pure, but for the record of that.

The rule: a student pastes the commands one after another, into a shell, while the herd runs. So they are in the order of
the check, as the server wants to be spoken to, and few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, NamedTuple, Protocol

from proxyherd.grading.faults import Fault

MOST_TYPED_COMMANDS: Final = 4
MOST_TYPED_BYTES: Final = 600
"""Commands that are shown, and bytes that one of them sends. More would not be typed."""

MOST_STEPS: Final = 2_000
"""Steps of a check that are kept."""


class Reachable(Protocol):
    """A server that is judged."""

    name: str
    host: str
    port: int


class Step(NamedTuple):
    """What was sent at once to a server, byte for byte."""

    server: str
    data: bytes


is_client = re.compile(rb"g[0-9a-f]{10}\.[0-9]{6}")
"""The ID of a client: servers.new_client."""

_steps: ContextVar[list[Step] | None] = ContextVar("steps", default=None)


@contextmanager
def recording() -> Iterator[list[Step]]:
    """Lend the list of what is sent meanwhile, by this task and those that it begins."""
    steps: list[Step] = []
    token = _steps.set(steps)
    try:
        yield steps
    finally:
        _steps.reset(token)


def note_sent(server: str, data: bytes) -> None:
    """Keep what is sent to a server, if there is a recording."""
    steps = _steps.get()
    if steps is not None and len(steps) < MOST_STEPS:
        steps.append(Step(server, data))


def commands(fault: Fault, steps: Sequence[Step], servers: Sequence[Reachable]) -> tuple[str, ...]:
    """Return commands that show a fault: those about the clients that it names, else what it says was sent.

    Queries at servers that the fault does not name are left out.
    """
    at = {server.name: server for server in servers}
    story = b"\n".join((fault.sent, fault.expected.encode(), fault.got.encode()))
    clients: set[bytes] = set(is_client.findall(story))
    found = [step for step in steps if clients & set(is_client.findall(step.data)) and _concerns(step, fault)]
    if not found:
        found = [step for step in steps if step.server == fault.server and _tells_of(fault, step)]
    # A query that was repeated is to be repeated last.
    distinct = list(reversed(dict.fromkeys(reversed(found))))
    if any(len(step.data) > MOST_TYPED_BYTES for step in distinct):
        return ()
    return tuple(
        f"printf {_quoted(step.data)} | nc -N {at[step.server].host} {at[step.server].port}"
        for step in distinct[-MOST_TYPED_COMMANDS:]
        if step.server in at
    )


def _tells_of(fault: Fault, step: Step) -> bool:
    """Whether what was sent is what the fault shows, or a part of that."""
    line = fault.sent.rstrip(b"\r\n")
    return bool(step.data) and (step.data in fault.sent or bool(line and line in step.data))


def _concerns(step: Step, fault: Fault) -> bool:
    is_query = step.data.lstrip().startswith(b"WHATSAT")
    return not is_query or step.server == fault.server or f"{step.server}: " in fault.got


def _quoted(data: bytes) -> str:
    r"""Return the argument of printf that makes it print these bytes: 'IAMAT kiwi\r\n'."""
    named = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x25: "%%", 0x5C: "\\\\"}
    plain = set(range(0x20, 0x7F)) - {0x27}  # a single quotation mark would end the argument
    text = "".join(named.get(one) or (chr(one) if one in plain else f"\\{one:03o}") for one in data)
    # printf takes a hyphen at the beginning for an option.
    return f"'{text.replace('-', chr(92) + '055', 1) if text.startswith('-') else text}'"
