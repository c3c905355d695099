"""Events that come with nearly every command. Each has a class, whose fields are those of the log line, in this order.

A form of the line is made once from each class. If no value needs escapes in JSON, the values are only inserted. If a
value needs them, is missing or is too long, the form is not used, and the line is rendered as those of other events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, ClassVar, Final

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, fields

_encode = msgspec.json.Encoder().encode

_ODD: Final = bytes(code for code in range(256) if not 0x20 <= code < 0x7F or code in b'"\\')
"""Bytes that need an escape in a JSON text. The forms themselves contain quotation marks."""

_PLACES: Final = {
    bytes: b'"%b"',
    bytes | None: b'"%b"',
    str: b'"%b"',
    int: b"%d",
    float: b"%b",
    list[bytes]: b'["%b"]',  # client IDs; this must be the last field
}
_SPELLED: Final[dict[object, Callable[[Any], bytes]]] = {
    str: lambda text: text.encode("utf-8", "surrogatepass"),
    float: _encode,
}
"""How other values than bytes, integers and client IDs are spelled. Those cost less."""


class FrequentEvent(Struct, gc=False):
    """A frequent event, of level info. A subclass gives its name. Its fields have types of `_PLACES`."""

    name: ClassVar[str]


class SeveralEvents(Struct, gc=False):
    """Several events of one kind. Each field has a column of values, which are bytes or integers."""

    kind: type[FrequentEvent]
    columns: tuple[Sequence[object], ...]


class Forms(dict[type[FrequentEvent], "_Form"]):
    """The forms of one server's lines. Each is made at its first use. No text longer than `most_bytes` is inserted."""

    def __init__(self, server: str, most_bytes: int) -> None:
        super().__init__()
        self._server = server
        self._most_bytes = most_bytes

    def __missing__(self, kind: type[FrequentEvent]) -> _Form:
        made = self[kind] = _Form(kind, self._server, self._most_bytes)
        return made

    def fill(self, stamp: bytes, said: FrequentEvent | SeveralEvents) -> bytes | None:
        """Return the line or lines of these events; None if they must be rendered without a form."""
        if isinstance(said, SeveralEvents):
            return self[said.kind].several(stamp, said.columns)
        return self[said.__class__].one(stamp, said)


def spelled_out(said: FrequentEvent | SeveralEvents) -> list[dict[str, Any]]:
    """Return these events as dicts, which is how structlog has other events."""
    if isinstance(said, SeveralEvents):
        kind, rows = said.kind, list(zip(*said.columns, strict=True))
    else:
        kind, rows = said.__class__, [astuple(said)]
    return [{"event": kind.name, **dict(zip(kind.__struct_fields__, row, strict=True))} for row in rows]


class _Form:
    """A line of one kind of event, without its values."""

    def __init__(self, kind: type[FrequentEvent], server: str, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        head = _encode({"level": "info", "server": server, "event": kind.name})[1:-1].replace(b"%", b"%%")
        types = [(one.encode_name.encode(), one.type) for one in fields(kind)]
        places = [b',"%b":%b' % (name, _PLACES[type_]) for name, type_ in types]
        self._line = b'{"timestamp":"%b",' + head + b"".join(places) + b"}"
        self._spelled = [(at, _SPELLED[type_]) for at, (_, type_) in enumerate(types, 1) if type_ in _SPELLED]
        self._has_ids = types[-1][1] == list[bytes]
        self._odd = len(self._line) - len(self._line.translate(None, _ODD)) - 2 * self._has_ids

    def one(self, stamp: bytes, event: FrequentEvent) -> bytes | None:
        values: tuple[Any, ...] = (stamp, *astuple(event))
        odd = self._odd
        if self._has_ids:
            ids = values[-1]
            odd += 2 * len(ids)  # with no client ID, this is two too few, and the form is not used
            values = (*values[:-1], b'","'.join(ids))
        elif self._spelled:
            spelled = [*values]
            for at, spell in self._spelled:
                spelled[at] = spell(values[at])
            values = tuple(spelled)
        return self._filled(self._line, values, odd)

    def several(self, stamp: bytes, columns: tuple[Sequence[object], ...]) -> bytes | None:
        count = len(columns[0])
        values = chain.from_iterable(zip([stamp] * count, *columns, strict=True))
        return self._filled(b"\n".join([self._line] * count), tuple(values), count * (self._odd + 1) - 1)

    def _filled(self, form: bytes, values: tuple[Any, ...], odd: int) -> bytes | None:
        try:
            lines = form % values
        except TypeError:  # None, where an answer is expected
            return None
        size = len(lines)
        if size - len(lines.translate(None, _ODD)) != odd:
            return None
        most = self._most_bytes
        if size > most < max(map(len, lines.split(b"\n"))):
            return None if most < max(len(value) for value in values if isinstance(value, bytes)) else lines
        return lines
