"""What becomes of one command: how it is counted, and what is answered."""

from __future__ import annotations

from msgspec import Struct

from proxyherd.core.messages import Entry, Whatsat


class Reply(Struct, gc=False):
    """What becomes of one command. `answer` has no LF, and is None while it must wait: for Places where
    `entry` is there, else for the engine.
    """

    kind: str
    outcome: str
    answer: bytes | None = None
    whatsat: Whatsat | None = None
    entry: Entry | None = None
    status: str = ""  # of Places
    results: int = 0  # from Places


def leave(reply: Reply) -> None:
    """Answer nobody: the client has gone."""
    reply.outcome, reply.answer, reply.entry = "left", b"", None
