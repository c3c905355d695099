"""Forms: what a check can be about, other than the substance. Pure.

Many honest servers do what they should and differ in a form: they want CR LF, answer without an LF, or write six
decimals. Each such form has one check, `form.` and its name, which carries the mark. Every other check talks to a
server in the forms that it has, or is not judged because of one.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Form(Enum):
    """A form; the value is its name. Most are found out first, when a server is met; see FOUND_OUT."""

    LINE_END = "line-end"
    """A command ends at LF; no CR is needed."""
    HALF_CLOSE = "half-close"
    """A command is answered when its line has come, and not only when the client has closed its sending half."""
    PACKETS = "packets"
    """A line ends at its LF, not at the end of a packet: several may come in one, and one in several."""
    CLOSING = "closing"
    """The connection stays open behind an answer."""
    END_OF_STREAM = "end-of-stream"
    """The end of the stream ends a line; all lines are answered, and then the server closes."""
    FINAL_LF = "final-lf"
    """An answer ends in one LF."""
    SIGN = "sign"
    """The difference in AT has one sign."""
    DECIMALS = "decimals"
    """The difference in AT has nine decimals."""
    OPERANDS = "operands"
    """The operands of a report come back in AT as they were sent."""
    WHOLE_DEGREES = "whole-degrees"
    """Coordinates need no decimal point."""
    ECHO = "echo"
    """An invalid line comes back as it was sent, behind `? `."""
    BLANK_LINES = "blank-lines"
    """A blank line is answered, like any other invalid line."""
    JSON_END = "json-end"
    """Two LFs stand behind the JSON of a WHATSAT answer."""
    RADIUS_FRACTIONS = "radius-fractions"
    """A radius may have a fraction."""
    WHITE_SPACE = "white-space"
    """Which bytes separate fields."""
    CLIENT_BYTES = "client-bytes"
    """Which bytes a client's ID may have."""
    SPELLING = "spelling"
    """How numbers are spelled: signs, exponents, underscores, digits, and how many."""
    HTTP = "http"
    """What becomes of a line that is a request of HTTP."""
    LONG_LINES = "long-lines"
    """What becomes of a line that is longer than the limit."""

    @property
    def check(self) -> str:
        """The ID of the check that carries the mark, if there is one."""
        return f"form.{self.value}"


FOUND_OUT: Final = (
    Form.LINE_END,
    Form.HALF_CLOSE,
    Form.PACKETS,
    Form.CLOSING,
    Form.END_OF_STREAM,
    Form.FINAL_LF,
    Form.SIGN,
    Form.DECIMALS,
    Form.OPERANDS,
    Form.WHOLE_DEGREES,
    Form.ECHO,
    Form.BLANK_LINES,
    Form.JSON_END,
)
"""The forms that have a check of their own, in its order."""

DEPARTURES: Final = {
    Form.LINE_END: "wants CR LF behind a command",
    Form.HALF_CLOSE: "answers only after a half-close",
    Form.PACKETS: "takes each packet for a command",
    Form.CLOSING: "closes behind an answer",
    Form.END_OF_STREAM: "does not answer or close as it should when its client half-closes",
    Form.FINAL_LF: "has no LF behind an answer, or more than one",
    Form.SIGN: "writes no sign before the difference, or two",
    Form.DECIMALS: "writes the difference with more or fewer than nine decimals",
    Form.OPERANDS: "writes the client's time in AT as a float",
    Form.WHOLE_DEGREES: "wants a decimal point in coordinates",
    Form.ECHO: "does not send an invalid line back as it came",
    Form.BLANK_LINES: "says nothing to a blank line",
    Form.JSON_END: "does not end its JSON in two LFs",
}
"""What a server does that departs from the protocol in such a form."""

SENDING_AHEAD: Final = frozenset((Form.HALF_CLOSE, Form.PACKETS, Form.CLOSING, Form.FINAL_LF))
"""What a server must do as the protocol says so that several lines may be sent ahead on one connection."""
