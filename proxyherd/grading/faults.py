"""How a check ends if it does not pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from proxyherd.base.escapes import quoted

MOST_SHOWN_BYTES: Final = 300
"""Bytes of a line or an answer that a report shows."""


class Step(Struct, eq=False):
    """What was sent to a server on one connection, piece by piece."""

    server: str
    pieces: list[bytes] = []
    half_close: bool = False
    """Whether the sending half was closed behind them, before an answer was read."""
    deed: str = ""
    """What was done with the server, if nothing was sent, such as `end Clark`."""

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class Fault(Exception):  # noqa: N818 - it is the herd's, not the program's
    """A rule is broken: what was sent to which server, what was expected, and what came."""

    def __init__(
        self,
        server: str,
        sent: bytes,
        expected: str,
        got: str,
        *,
        cut: bool = False,
        down: bool = False,
        steps: Sequence[Step] = (),
    ) -> None:
        super().__init__(f"{server}: sent {shown(sent)}; expected {expected}; got {got}")
        self.server = server
        self.sent = sent
        self.expected = expected
        self.got = got
        self.cut = cut
        """Whether the server ended the connection before its answer: it may have ended, or only have hung up."""
        self.down = down
        """Whether nobody listens at its address, so that the server has ended."""
        self.steps = steps
        """What shows it, if that is not what its check has sent."""


class NotSeen(Exception):  # noqa: N818 - no error either
    """It cannot be seen whether the rule holds; the text says what would show it."""


class NotJudged(Exception):  # noqa: N818 - likewise
    """A fault that another check reports keeps the rule from being seen; the text says what it is."""

    def __init__(self, cause: str, why: str) -> None:
        super().__init__(why)
        self.cause = cause
        """The ID of the check that reports the fault."""


class NotApplicable(Exception):  # noqa: N818 - likewise
    """The rule is about a feature that this herd does not have; the text says which."""


def shown(data: bytes) -> str:
    """Return bytes in quotation marks on one line, escaped, and cut if they are long."""
    text = quoted(data[:MOST_SHOWN_BYTES])
    return text if len(data) <= MOST_SHOWN_BYTES else f"{text}... ({len(data):,} bytes)"
