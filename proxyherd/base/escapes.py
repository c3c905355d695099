r"""How text from strangers is shown: on terminals, in logs, exports and reports, and on the status page.

The rules: the result has no character that controls a terminal, changes the direction of text, or is invisible. And
escapes cannot be confused with text, because a backslash becomes two. So different texts never look the same.

    \x1b, \xff            an ASCII control character, or a byte that is not UTF-8
    \t, \n, \r            tab, LF, CR
    \u200e, \U000e0001    any other invisible character
    \\                    a backslash

To put a stranger's text into a text of ours, use `escaped` or `quoted`. To print, use `visible`, which keeps earlier
escapes as they are. Pure.
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
"""Characters that count as printable but are invisible: fillers, joiners, variation selectors."""


def _spelled(code: int) -> str:
    """Return a character as it is shown; a backslash stays."""
    character = chr(code)
    if character.isprintable() and not _is_blank(character):
        return character
    if code < 0x80:
        return _NAMED.get(code, f"\\x{code:02x}")
    if code in _BYTES:
        return f"\\x{code - 0xDC00:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _spelled_in_json(code: int) -> str:
    r"""The same in JSON's spelling, with the same meaning. A byte that is not UTF-8, which JSON cannot hold,
    becomes \xNN.
    """
    spelled = _spelled(code)
    if spelled == chr(code) or code in _BYTES:
        return spelled
    units = chr(code).encode("utf-16-be", "surrogatepass").hex()
    return re.sub("....", r"\\u\g<0>", units)


class _Table(dict[int, str]):
    """A table for `str.translate`: exceptions, and the result of `spell` for all other characters. It caches only a few,
    because a stranger could fill a larger table.
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
    """Return a stranger's bytes as text for people, on one line."""
    return _text(data).translate(_ESCAPED)


def quoted(data: bytes | str) -> str:
    r"""Return the same in quotation marks; quotation marks in it become \"."""
    return '"{}"'.format(escaped(data).replace('"', '\\"'))


def visible(text: str) -> str:
    """Return our own text, which may contain escaped text, without invisible characters and on one line."""
    return text.translate(_VISIBLE)


def escaped_for_json(data: bytes) -> str:
    """Return the result of `escaped`, but with the control characters that every JSON writer escapes by itself."""
    if data.isascii() and b"\x7f" not in data and b"\\" not in data:
        return data.decode()
    return _text(data).translate(_ESCAPED_FOR_JSON)


def visible_for_json(text: str) -> str:
    """Return the result of `visible`, with the same exception."""
    return text.translate(_VISIBLE_FOR_JSON)


def visible_json(document: bytes | str) -> str:
    """Return a JSON document with the same meaning and no invisible characters. Its lines stay lines."""
    text = _text(document).replace("\r\n", "\n")
    return text.translate(_JSON)


def _text(data: bytes | str) -> str:
    return data.decode("utf-8", "surrogateescape") if isinstance(data, bytes) else data
