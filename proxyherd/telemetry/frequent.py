"""Events that come with nearly every command. Each has a class, whose fields are those of the log line, in this order.

A form of the line is made once from each class. If no value needs escapes in JSON, the values are only inserted. If a
value needs them, is missing or is too long, the form is not used, and the line is rendered as those of other events.
First the lines of several events are made in one step. If that fails, the lines that do fit are made one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Any, ClassVar, Final, TypeAlias, final

import msgspec
from msgspec import Struct
from msgspec.structs import astuple, fields

_encode = msgspec.json.Encoder().encode

_ODD: Final = bytes(code for code in range(256) if not 0x20 <= code < 0x7F or code in b'"\\')
"""Bytes that need an escape in a JSON text. The forms themselves contain quotation marks."""

Label: TypeAlias = Annotated[bytes, "label"]
"""A client and the protocol that it speaks, as `label` returns them: two fields of a line in one value."""

_VIA: Final = b'","via":"'

_PLACES: Final = {
    Label: b'"%b"',
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


@final
class SeveralEvents(Struct, gc=False):
    """Several events of one kind. Each field has a column of values, which are bytes or integers."""

    kind: type[FrequentEvent]
    columns: tuple[Sequence[object], ...]

    def each(self) -> list[FrequentEvent]:
        """Return the events one by one."""
        return [*map(self.kind, *self.columns)]


class Forms(dict[type[FrequentEvent], "_Form"]):
    """The forms of one server's lines. Each is made at its first use. No text longer than `most_bytes` is inserted."""

    def __init__(self, server: str, most_bytes: int) -> None:
        super().__init__()
        self._server = server
        self._most_bytes = most_bytes

    def __missing__(self, kind: type[FrequentEvent]) -> _Form:
        made = self[kind] = _Form(kind, self._server)
        return made

    def fill(self, stamp: bytes, said: Iterable[FrequentEvent | SeveralEvents]) -> bytes | None:
        """Return the lines of these events; None if any of them must be rendered without a form."""
        texts: list[bytes] = []
        values: list[Any] = []
        odd = -1  # there is no line feed after the last line
        for one in said:
            if type(one) is SeveralEvents:
                form, count = self[one.kind], len(one.columns[0])
                texts += [form.text] * count
                values += chain.from_iterable(zip([stamp] * count, *one.columns, strict=True))
                odd += count * form.odd
            else:
                form = self[one.__class__]
                texts.append(form.text)
                values += stamp, *astuple(one)
                odd += form.odd
                if form.has_ids:
                    ids = values[-1]
                    values[-1] = b'","'.join(ids)
                    odd += 2 * len(ids)  # with no client ID, this is two too few, and the form is not used
                elif form.spelled:
                    form.spell(values)
        try:
            lines = b"\n".join(texts) % tuple(values)
        except TypeError:  # None, where an answer is expected
            return None
        size, most = len(lines), self._most_bytes
        if size - len(lines.translate(None, _ODD)) != odd:
            return None
        if size > most < max(map(len, lines.split(b"\n"))):
            return None if most < max(len(value) for value in values if isinstance(value, bytes)) else lines
        return lines


def spelled_out(said: FrequentEvent) -> dict[str, Any]:
    """Return an event as a dict, which is how structlog has other events."""
    kind = said.__class__
    return {"event": kind.name, **dict(_named(kind, astuple(said)))}


def label(client: str, via: str) -> bytes:
    """Return the label of a client, named by its address, that speaks this protocol. It is made once, and inserted into
    all of its lines.
    """
    return client.encode() + _VIA + via.encode()


def labelled_name(label: bytes) -> str:
    """Return the name of the client with this label."""
    return label.partition(_VIA)[0].decode()


def labelled_via(label: bytes) -> str:
    """Return the protocol that the client with this label speaks."""
    return label.partition(_VIA)[2].decode()


def _named(kind: type[FrequentEvent], row: Sequence[Any]) -> Iterator[tuple[str, object]]:
    """Yield the names and values of an event's fields. A label has two."""
    for one, value in zip(fields(kind), row, strict=True):
        if one.type == Label:
            client, _, via = value.partition(_VIA)
            yield one.encode_name, client
            yield "via", via
        else:
            yield one.encode_name, value


class _Form:
    """A line of one kind of event, without its values."""

    def __init__(self, kind: type[FrequentEvent], server: str) -> None:
        head = _encode({"level": "info", "server": server, "event": kind.name})[1:-1].replace(b"%", b"%%")
        types = [(one.encode_name.encode(), one.type) for one in fields(kind)]
        places = [b',"%b":%b' % (name, _PLACES[type_]) for name, type_ in types]
        self.text = b'{"timestamp":"%b",' + head + b"".join(places) + b"}"
        self.has_ids = types[-1][1] == list[bytes]
        # How many bytes need an escape in a text: of the form, of the line feed behind it, and of the labels. If there are
        # client IDs, two fewer: `fill` adds two for each ID, but there are two only between one ID and the next.
        self.odd = len(self.text) - len(self.text.translate(None, _ODD)) - 2 * self.has_ids + 1
        self.odd += _VIA.count(b'"') * sum(type_ == Label for _, type_ in types)
        self.spelled = [
            (at - len(types), _SPELLED[type_]) for at, (_, type_) in enumerate(types) if type_ in _SPELLED
        ]
        """Places from the end of an event's values, and how the values there are spelled."""

    def spell(self, values: list[Any]) -> None:
        """Spell the last values, which are those of an event, as the form needs them."""
        for at, spell in self.spelled:
            values[at] = spell(values[at])
