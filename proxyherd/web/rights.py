"""Who may do what with which clients. It is decided here alone: behind what a request means, and before a turn does it.

A token grants rights. Its subject is the name of a client, or the beginning of names with `*` behind it; it may report and
erase these, and see the same ones or those that the token lists. What it may not do is told to the turn as `Denied`, which
asks neither the table nor a provider of places. So nobody learns whether a client is known that they may not see.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct
from msgspec.structs import replace

from proxyherd.core.area_queries import AreaQuery
from proxyherd.core.follows.follow import Follow, Unfollow
from proxyherd.core.framing import Denied, Line, Overlong, WebCommand
from proxyherd.core.messages import Forget
from proxyherd.web.ids import name_of

Right: TypeAlias = Literal["report", "see", "erase", "operate"]
"""What a token may allow: to report, to see and to erase clients, and to revoke tokens."""

RIGHTS: Final[tuple[Right, ...]] = get_args(Right)

MOST_NAME_CHARACTERS: Final = 512
"""Characters of a subject, and of each name in `see`."""

_REVOKED: Final = b" token "
"""Before a subject, in the name of its tombstone. No client has such an ID: it has white space."""


class Grant(Struct, frozen=True):
    """What a token allows. `subject` and `see`: names of clients, or beginnings of names with `*` behind them; `key`: the
    one that has signed it; all times are nanoseconds of POSIX time.
    """

    subject: str
    may: frozenset[Right]
    see: tuple[str, ...]
    issued: int
    begins: int
    ends: int
    key: str

    @property
    def client(self) -> str:
        """The name of the only client that it is about, or "" if there may be several."""
        return "" if self.subject.endswith("*") else self.subject


def revocation(subject: str) -> bytes:
    """Return the ID whose tombstone revokes the tokens of a subject."""
    return _REVOKED + subject.encode()


def permitted(lines: Sequence[Line], grant: Grant) -> list[Line]:
    """Return what a client says, with `Denied` in place of what its grant does not allow. A query or a follow of an area is told
    whom the grant sees.
    """
    return [line if isinstance(line, Overlong | Denied) else _permitted(line, grant) for line in lines]


def _permitted(line: bytes | WebCommand, grant: Grant) -> bytes | WebCommand | Denied:
    if isinstance(line, Unfollow):
        return line
    if not isinstance(line, AreaQuery | Follow):
        return line if _is_permitted(line, grant) else Denied(line)
    if "see" not in grant.may:
        return Denied(line)
    if isinstance(line, AreaQuery) and line.around and not covers(grant.see, line.around):
        return Denied(line)
    return line if "*" in grant.see else replace(line, sees=partial(covers, grant.see))


def _is_permitted(line: bytes | Forget, grant: Grant) -> bool:
    if isinstance(line, Forget):
        if line.client.startswith(_REVOKED):
            return "operate" in grant.may
        return "erase" in grant.may and covers([grant.subject], line.client)
    words = line.split(None, 2)
    if len(words) > 1 and words[0] == b"IAMAT":
        return "report" in grant.may and covers([grant.subject], words[1])
    if len(words) > 1 and words[0] == b"WHATSAT":
        return "see" in grant.may and covers(grant.see, words[1])
    return True  # it is no command


def covers(names: Sequence[str], client: bytes) -> bool:
    """Whether one of these names, or beginnings of names, is that of the client with this ID."""
    name = name_of(client)
    return any(name.startswith(one[:-1]) if one.endswith("*") else name == one for one in names)
