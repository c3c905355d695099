"""How to see a fault by hand: the commands of a shell that send what the grader sent. Pure, but for the record of that.

The rule: a student pastes the commands one after another, into a shell, while the herd runs. So they are in the order of
the check, and few. Each is one connection, on which the sending half is closed only where the grader has closed it: many
servers lose an answer because of a half-close, and some answer only after it. And each ends by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol

from proxyherd.grading.faults import Fault, Step

MOST_TYPED_COMMANDS: Final = 6
MOST_TYPED_BYTES: Final = 600
"""Commands that are shown, and bytes that one of them sends. More would not be typed."""

MOST_PIECES: Final = 3
"""Pieces of one connection with pauses between them; more are sent at once."""

MOST_STEPS: Final = 2_000
"""Steps of a check that are kept."""

WAIT_SECONDS: Final = 2
"""How long a command waits for an answer."""


class Reachable(Protocol):
    """A server that is judged."""

    name: str
    host: str
    port: int


is_client = re.compile(rb"g[0-9a-f]{10}\.[0-9]{6}")
"""The ID of a client: servers.new_client."""

_steps: ContextVar[list[Step] | None] = ContextVar("steps", default=None)


@contextmanager
def recording(steps: list[Step]) -> Iterator[None]:
    """Add to this list what is sent meanwhile, by this task and those that it begins."""
    token = _steps.set(steps)
    try:
        yield
    finally:
        _steps.reset(token)


def note(step: Step) -> None:
    """Keep a step, to which pieces may be added later, if there is a recording."""
    steps = _steps.get()
    if steps is not None and len(steps) < MOST_STEPS:
        steps.append(step)


def commands(fault: Fault, steps: Sequence[Step], servers: Sequence[Reachable]) -> tuple[str, ...]:
    """Return commands that show a fault: those that it names; else those about its clients; else those that send what
    it says was sent. What was done with servers stands between them, as comments.

    Queries at servers that the fault does not name are left out.
    """
    at = {server.name: server for server in servers}
    found = [step for step in fault.steps or _about(fault, steps) if step.server in at]
    if any(len(step.data) > MOST_TYPED_BYTES for step in found) or all(step.deed for step in found):
        return ()
    return tuple(_command(step, at[step.server]) for step in found)


def _about(fault: Fault, steps: Sequence[Step]) -> list[Step]:
    """Return the steps that have to do with a fault, and what was done with servers."""
    story = b"\n".join((fault.sent, fault.expected.encode(), fault.got.encode()))
    clients: set[bytes] = set(is_client.findall(story))
    found = [step for step in steps if clients & set(is_client.findall(step.data)) and _concerns(step, fault)]
    if not found:
        found = [step for step in steps if step.server == fault.server and _tells_of(fault, step)]
    few = _few(_distinct(found))
    return [step for step in steps if step.deed or step in few]


def _distinct(steps: Sequence[Step]) -> list[Step]:
    """Return steps that differ. A query that was repeated is to be repeated last."""
    last = {(step.server, step.data, step.half_close): step for step in steps}.values()
    return [step for step in steps if step in last]


def _few(steps: Sequence[Step]) -> list[Step]:
    """Return the last steps. Queries are left out first, but for one, because they need the reports before them."""
    queries = [step for step in steps if _is_query(step)]
    reports = [step for step in steps if not _is_query(step)][-MOST_TYPED_COMMANDS + bool(queries) :]
    kept = [*reports, *queries[len(reports) - MOST_TYPED_COMMANDS :]]
    return [step for step in steps if step in kept]


def _tells_of(fault: Fault, step: Step) -> bool:
    """Whether what was sent is what the fault shows, or a part of that, in whatever way lines end."""
    data, sent = (text.replace(b"\r\n", b"\n") for text in (step.data, fault.sent))
    line = sent.rstrip(b"\n")
    return bool(data) and (data in sent or bool(line and line in data))


def _concerns(step: Step, fault: Fault) -> bool:
    return not _is_query(step) or step.server == fault.server or f"{step.server}: " in fault.got


def _is_query(step: Step) -> bool:
    return step.data.lstrip().startswith(b"WHATSAT")


def _command(step: Step, server: Reachable) -> str:
    """Return the command that sends what was sent on one connection, and shows what comes."""
    if step.deed:
        return f"# {step.deed}"
    pieces = step.pieces if len(step.pieces) <= MOST_PIECES else [step.data]
    sending = "; sleep 1; ".join(f"printf {_quoted(piece)}" for piece in pieces)
    if not step.half_close:
        sending = f"({sending}; sleep {WAIT_SECONDS})"
    elif pieces[1:]:
        sending = f"({sending})"
    option = "-N " if step.half_close else ""
    return f"{sending} | nc {option}-w {WAIT_SECONDS} {server.host} {server.port}"


def _quoted(data: bytes) -> str:
    r"""Return the argument of printf that makes it print these bytes: 'IAMAT kiwi\r\n'."""
    named = {0x0A: "\\n", 0x0D: "\\r", 0x09: "\\t", 0x25: "%%", 0x5C: "\\\\"}
    plain = set(range(0x20, 0x7F)) - {0x27}  # a single quotation mark would end the argument
    text = "".join(named.get(one) or (chr(one) if one in plain else f"\\{one:03o}") for one in data)
    # printf takes a hyphen at the beginning for an option.
    return f"'{text.replace('-', chr(92) + '055', 1) if text.startswith('-') else text}'"
