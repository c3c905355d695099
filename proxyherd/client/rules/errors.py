"""What a call of a herd's client can raise, in plain words.

A text that comes from a client's ID or from a server is shown without characters that a terminal would obey. Wrong
arguments are ValueError, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from proxyherd.base.escapes import escaped

MOST_SHOWN = 200
"""Characters of a stranger's text that are shown."""


class HerdError(Exception):
    """Whatever a herd's client raises, but for wrong arguments. It can be copied and pickled, for other processes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return self._made_again, self.args, self.__dict__

    @classmethod
    def _made_again(cls, *args: object) -> Self:
        error = cls.__new__(cls, *args)
        error.args = args
        return error


class InvalidCommand(HerdError):  # noqa: N818 - it is what the server says of it
    """A server has answered `? ` and the line. `line`: as it was sent, without LF."""

    def __init__(self, line: bytes, why: str) -> None:
        super().__init__(f"{why}: {escaped(line)[:MOST_SHOWN]}")
        self.line = line


class UnknownClient(InvalidCommand):
    """No server has a report of this client. A report may come later, and then the same question has an answer."""


class ReportRefused(InvalidCommand):
    """The form of a report is right, and the server does not take it. Another server, or the same one later, may."""


class Unreachable(HerdError):  # noqa: N818 - it is what has happened
    """No server has given a complete answer. The text says for each address what was seen. The same call may be repeated."""

    def __init__(self, *reasons: str, wait: float = 0.0) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons
        self.wait = wait
        """Seconds for which the server wants to be left alone; 0: it has not said."""


class NoAnswer(Unreachable, TimeoutError):  # noqa: N818 - it is what has happened
    """The time of a call is over. A report may have been taken all the same; to repeat it with its time does no harm."""

    def __init__(self, seconds: float, reasons: Iterable[str]) -> None:
        super().__init__(f"no answer within {seconds:g} s", *reasons)


class NotAllowed(HerdError):  # noqa: N818 - it is what has happened
    """A server refuses the token, or wants one; or the token does not allow this. It is the same everywhere: get another token
    first.
    """


class FollowRefused(HerdError):  # noqa: N818 - it is what has happened
    """A server does not let this be followed, or not any more: there are too many clients in the area, or its engine cannot.
    The text says why.
    """


class AreaRefused(HerdError):  # noqa: N818 - it is what has happened
    """A server does not say who is in this area: it is none, or its engine cannot. The text says why."""


class ClientClosed(HerdError):  # noqa: N818 - it is what has happened
    """The client was closed before the answer came, or before the call."""


class ForeignAnswer(HerdError):  # noqa: N818 - it is what has happened
    """What came is not the answer of a herd's server. Callers see it as a reason of Unreachable: the connection ends, and
    another server is asked.
    """


class Postponed(HerdError):  # noqa: N818 - it is what has happened
    """A server does not answer a question now, and goes on to answer others. Callers see it as a reason of Unreachable:
    another server is asked, or this one later.
    """
