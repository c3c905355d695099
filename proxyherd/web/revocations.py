"""`DELETE /v1/tokens/{sub}`: revokes the tokens of a subject that were made up to now, herd-wide.

A revocation is a tombstone of an ID that no client has. So it is kept, told to the other servers, and remembered for as
long as a token may live, as an erasure is. Tokens that are made later are good, if it is later by more than the leeway of
their maker's clock. A part of `max_tombstones` is kept for revocations: see `Erasures`.
"""

from __future__ import annotations

import msgspec

from proxyherd.core.messages import Forget
from proxyherd.core.reply import Reply
from proxyherd.web.erasures import tombstone_time
from proxyherd.web.problems import CLIENT, Problem
from proxyherd.web.queries import read_parameters
from proxyherd.web.rights import MOST_NAME_CHARACTERS, revocation


def read_revocation(subject: str, query: str) -> Forget:
    """Return what revokes the tokens of a subject. Raises Problem."""
    read_parameters(query, ())
    if not 0 < len(subject) <= MOST_NAME_CHARACTERS:
        raise Problem(CLIENT, f"A subject has 1 to {MOST_NAME_CHARACTERS} characters.", "sub")
    return Forget(revocation(subject))


def revocation_answer(reply: Reply) -> bytes:
    """Return up to when the tokens are revoked, as JSON. Raises Problem if they are not."""
    revoked_at = tombstone_time(reply, "This token may not revoke others: it lacks the right operate.")
    return msgspec.json.encode({"revoked_at": revoked_at})
