"""The result of one command: how it is counted, and its answer."""

from __future__ import annotations

from msgspec import Struct

from proxyherd.core.messages import Entry, Whatsat


class Reply(Struct, gc=False):
    """The result of one command. `answer` has no LF, and is None while it must wait: for Places if there is an `entry`,
    otherwise for the engine.
    """

    kind: str
    outcome: str
    answer: bytes | None = None
    whatsat: Whatsat | None = None
    entry: Entry | None = None
    status: str = ""  # of Places
    results: int = 0  # from Places


def leave(reply: Reply) -> None:
    """Note that nobody gets an answer, because the client has left."""
    reply.outcome, reply.answer, reply.entry = "left", b"", None
