"""The result of one command: how it is counted, and its answer."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

from proxyherd.core.messages import Entry, Whatsat

Refusal: TypeAlias = Literal[
    "",  # it is not refused
    "long_id",  # the client's ID has more bytes than max_client_bytes
    "full",  # there is no room for it: for another client, its bytes, or one more query that waits
    "journal",  # the journal cannot be written
    "not_ready",  # the server does not know yet who was seen since the moment up to which it shall erase
    "no_index",  # the engine has no index of positions, and so nothing to search
    "key",  # Redis has somebody else's value there
]
"""Why a command of the right form is refused. The line protocol has one answer for all of these."""


class Reply(Struct, gc=False):
    """The result of one command. `answer` has no LF, and is None while it must wait: for Places if there is an `entry`,
    otherwise for the engine. `refusal`: why, if the outcome is `refused`.
    """

    kind: str
    outcome: str
    answer: bytes | None = None
    whatsat: Whatsat | None = None
    entry: Entry | None = None
    status: str = ""  # of Places
    results: int = 0  # from Places
    refusal: Refusal = ""
    line: bytes = b""  # of a query that waits for Places


def leave(reply: Reply) -> None:
    """Note that nobody gets an answer, because the client has left."""
    reply.outcome, reply.answer, reply.entry = "left", b"", None
