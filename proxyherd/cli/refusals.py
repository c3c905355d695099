"""Why a server has answered `? ` to a command that was typed: judged here, by the same rules as the server's.

The rule: a field is wrong if the command would be wrong with this field and nothing else as it was typed. If none is, the
server knows more.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from proxyherd.base.escapes import quoted
from proxyherd.base.words import shorten_text
from proxyherd.config.schema import Limits
from proxyherd.core.messages import command_forms, parse_question, parse_report

_IAMAT: Final = ("client", "location", "time")
_WHATSAT: Final = ("client", "radius_km", "limit")
_GOOD: Final = {"client": b"x", "location": b"+0+0", "time": b"0", "radius_km": b"0", "limit": b"0"}
_BELONGS: Final = {
    "location": "no location: that is degrees of latitude, -90 to 90, and of longitude, -180 to 180, "
    "as +34.068930-118.445127 or 34.06893,-118.445127",
    "time": "no time: that is POSIX seconds, at most 12 digits and 9 decimals, without a sign",
    "radius_km": "no radius: that is 0 to 50 kilometres, at most 20 characters, without a sign or an exponent",
    "limit": "no bound: that is 0 to 20 results, digits alone",
}
_SHOWN: Final = 60


class RefusedCommand(Struct, frozen=True, omit_defaults=True):
    """Why a command was refused. `field`: which operand it is about, "" if that is not known."""

    detail: str
    field: str = ""


def explain_refusal(line: bytes, limits: Limits) -> RefusedCommand:
    """Return why a server with these limits refuses an IAMAT or a WHATSAT with all its operands."""
    word, *operands = line.split()
    if len(line) > limits.max_line_bytes:
        return RefusedCommand(
            f"the command has {len(line)} bytes; a server takes {limits.max_line_bytes} (max_line_bytes)"
        )
    names = _IAMAT if word == b"IAMAT" else _WHATSAT
    for name, value in zip(names, operands, strict=True):
        if not _is_valid(word, [value if name == other else _GOOD[other] for other in names], limits):
            return RefusedCommand(_wrong(name, value, limits), name)
    if word == b"WHATSAT":
        return RefusedCommand(f"no server has heard of a client {_shown(operands[0])}", "client")
    return RefusedCommand("the server takes no new reports now; its log and `proxyherd status` say why")


def _is_valid(word: bytes, operands: list[bytes], limits: Limits) -> bool:
    forms = command_forms(limits.max_client_bytes)
    line = b" ".join([word, *operands])
    if word == b"IAMAT":
        return parse_report(line, b"x", 0, forms) is not None
    return parse_question(line, forms) is not None


def _wrong(name: str, value: bytes, limits: Limits) -> str:
    if name == "client":
        return f"the client's ID has {len(value)} bytes; a server takes {limits.max_client_bytes} (max_client_bytes)"
    return f"{_shown(value)} is {_BELONGS[name]}"


def _shown(value: bytes) -> str:
    return shorten_text(quoted(value), _SHOWN)
