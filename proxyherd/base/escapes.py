r"""How text that a stranger chose is shown: on terminals, in logs, exports, reports and on the status page.

The rules: what comes out holds no character that a terminal acts on, that changes the direction of text, or that
shows nothing; and it can be told from the text that looks like it, because a backslash becomes two. So two strangers'
texts look alike only if they are the same.

    \x1b, \xff            an ASCII control character, or a byte that is not UTF-8
    \t, \n, \r            tab, LF, CR
    \u200e, \U000e0001    any other character that is not shown
    \\                    a backslash

Whoever puts a stranger's text into a text of ours uses `escaped` or `quoted`; whoever prints uses `visible`, which
leaves what was escaped before as it is. Pure.
"""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = {0x09: "\\t", 0x0A: "\\n", 0x0D: "\\r"}

_BYTES: Final = range(0xDC80, 0xDD00)
"""What Python's `surrogateescape` makes of bytes that are not UTF-8."""

_is_blank = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
).match
"""Characters that count as printable and show nothing: fillers, joiners, selectors of variants."""


def _spelled(code: int) -> str:
    """Return a character as it is shown, a backslash as it is."""
    character = chr(code)
    if character.isprintable() and not _is_blank(character):
        return character
    if code < 0x80:
        return _NAMED.get(code, f"\\x{code:02x}")
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _spelled_in_json(code: int) -> str:
    r"""Likewise as JSON spells it, with the same meaning; a byte that is not UTF-8, which JSON cannot hold, as \xNN."""
    spelled = _spelled(code)
    if spelled == chr(code) or code in _BYTES:
        return spelled
    units = chr(code).encode("utf-16-be", "surrogatepass").hex()
    return re.sub("....", r"\\u\g<0>", units)


class _Table(dict[int, str]):
    """For `str.translate`: exceptions, and what `spell` says of all others. Only a few are kept: a stranger could
    fill a larger table.
    """

    def __init__(self, spell: object, exceptions: dict[int, str]) -> None:
        assert callable(spell)
        super().__init__({**{code: spell(code) for code in range(0x100)}, **exceptions})
        self._spell = spell

    def __missing__(self, code: int) -> str:
        spelled: str = self._spell(code)
        return spelled


_TWO: Final = {0x5C: "\\\\"}
_CONTROLS: Final = {code: chr(code) for code in range(0x20)}
_ESCAPED: Final = _Table(_spelled, _TWO)
_VISIBLE: Final = _Table(_spelled, {})
_ESCAPED_FOR_JSON: Final = _Table(_spelled, _CONTROLS | _TWO)
_VISIBLE_FOR_JSON: Final = _Table(_spelled, _CONTROLS)
_JSON: Final = _Table(_spelled_in_json, {0x09: "\t", 0x0A: "\n"})


def escaped(data: bytes | str) -> str:
    """Return what a stranger sent as text for people, on one line."""
    return _text(data).translate(_ESCAPED)


def quoted(data: bytes | str) -> str:
    r"""Return it likewise in quotation marks; those in it become \"."""
    return '"{}"'.format(escaped(data).replace('"', '\\"'))


def visible(text: str) -> str:
    """Return text of ours, in which escaped text may stand, so that nothing in it is hidden; on one line."""
    return text.translate(_VISIBLE)


def escaped_for_json(data: bytes) -> str:
    """Return what `escaped` does, but with the control characters that every writer of JSON escapes by itself."""
    if data.isascii() and b"\x7f" not in data and b"\\" not in data:
        return data.decode()
    return _text(data).translate(_ESCAPED_FOR_JSON)


def visible_for_json(text: str) -> str:
    """Return what `visible` does, likewise."""
    return text.translate(_VISIBLE_FOR_JSON)


def visible_json(document: bytes | str) -> str:
    """Return a JSON document of the same meaning in which nothing is hidden. Its lines stay lines."""
    text = _text(document).replace("\r\n", "\n")
    return text.translate(_JSON)


def _text(data: bytes | str) -> str:
    return data.decode("utf-8", "surrogateescape") if isinstance(data, bytes) else data
