"""`DELETE /v1/clients/{id}`: erases a client herd-wide, and what is answered to it.

No line can say that, so the turn gets a `Forget` in place of a line. The answer is the moment of the client's tombstone:
each report that a server has received up to then is gone, and later ones count. With `before`, a client that was seen
later stays: then nothing is erased, and the answer says that too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from proxyherd.core.messages import Forget, nanoseconds
from proxyherd.core.reply import Refusal, Reply
from proxyherd.core.tombstones import parse_gone
from proxyherd.web.ids import id_of
from proxyherd.web.problems import NOT_TAKEN, QUERY, RIGHT, Problem
from proxyherd.web.queries import read_parameters
from proxyherd.web.times import posix_or_rfc3339, spelled_time

STAYED: Final = "stayed"
"""The key of an answer about a client that stays."""

_BEFORE: Final = "before"
_REFUSALS: Final[Mapping[Refusal, str]] = {
    "full": "The server holds as many tombstones of this kind as max_tombstones in [limits] of the herd's file allows.",
    "not_ready": "The server has not caught up: it does not know yet who was seen since `before`.",
    "journal": "The server cannot write its journal, and so nothing would keep the client erased.",
}


def read_erasure(name: str, query: str, clock: int) -> Forget:
    """Return what erases the client with this name. `clock`: nanoseconds of POSIX time. Raises Problem."""
    spelled = read_parameters(query, (_BEFORE,)).get(_BEFORE)
    return Forget(id_of(name), None if spelled is None else _moment(spelled, clock))


def _moment(spelled: str, clock: int) -> int:
    """Return the moment of `before`, in nanoseconds. Raises Problem."""
    posix = posix_or_rfc3339(spelled.encode("utf-8", "surrogateescape"))
    if posix is None:
        text = "POSIX seconds with at most nine decimals, or a date and time of RFC 3339, belong here."
        raise Problem(QUERY, text, _BEFORE)
    seconds, _, fraction = posix.partition(b".")
    moment = nanoseconds(seconds, fraction or None)
    if not 0 < moment <= clock:
        raise Problem(
            QUERY, "A moment since 1970 that has passed on the server's clock belongs here.", _BEFORE
        )
    return moment


def erase_answer(reply: Reply) -> bytes:
    """Return when the client was erased, or that it stayed, as JSON. Raises Problem if the erasure was refused."""
    erased_at = tombstone_time(reply, "This token may not erase this client.")
    stayed = {STAYED: True} if reply.outcome == "stayed" else {}
    return msgspec.json.encode({"erased_at": erased_at, **stayed})


def tombstone_time(reply: Reply, denied: str) -> str:
    """Return the moment of the tombstone that was set, in POSIX seconds. Raises Problem if none was: with the text
    `denied` if the token does not allow it.
    """
    if reply.outcome == "denied":
        raise Problem(RIGHT, denied)
    gone = parse_gone(reply.answer or b"")
    if gone is None:
        raise Problem(NOT_TAKEN, _REFUSALS.get(reply.refusal, "The server cannot erase now."))
    return spelled_time(gone.until).decode()
