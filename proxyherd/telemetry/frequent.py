"""Events that come with nearly every command. Each has a class, whose fields are those of the log line, in this order.

A form of the line is made once from each class. If no value needs escapes in JSON, the values are only inserted. If a
value needs them, is missing or is too long, the form is not used, and the line is rendered as those of other events.
First the lines of several events are made in one step. If that fails, the lines that do fit are made one by one. The
forms of a few events that come together are joined once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
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

Only: TypeAlias = Annotated[bytes, "only"]
"""The only element of a list of client IDs."""

_VIA: Final = b'","via":"'

_STAMP: Final = b"\0"
"""Stands in a form where the time stamp will be. No JSON text contains this byte."""

_FEW: Final = 8
"""Of so many events at most, the joined forms are kept."""

_MOST_JOINED: Final = 256
"""Of so many rows of kinds at most; the usual ones are a dozen."""

_PLACES: Final = {
    Label: b'"%b"',
    bytes: b'"%b"',
    bytes | None: b'"%b"',
    Only: b'["%b"]',
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
        self._joined = lru_cache(_MOST_JOINED)(self._join)

    def __missing__(self, kind: type[FrequentEvent]) -> _Form:
        made = self[kind] = _Form(kind, self._server)
        return made

    def fill(self, stamp: bytes, said: Sequence[FrequentEvent | SeveralEvents]) -> bytes | None:
        """Return the lines of these events; None if that fails: then fill in one event at a time, and render
        one that fails alone without a form.
        """
        joined = self._joined((*map(type, said),)) if len(said) <= _FEW else None
        if joined is not None:
            text, odd = joined
            values = (*chain.from_iterable(map(astuple, said)),)
        elif len(said) > 1 and SeveralEvents in map(type, said):
            return None  # one odd value, in any of the events, would make all of these cost more
        else:
            text, odd, values = self._gather(said)
        try:
            lines = text.replace(_STAMP, stamp) % values
        except TypeError:  # None, where an answer is expected
            return None
        size = len(lines)
        if size - len(lines.translate(None, _ODD)) != odd:
            return None
        if size > (most := self._most_bytes) < max(map(len, lines.split(b"\n"))):
            return None if most < max(len(value) for value in values if isinstance(value, bytes)) else lines
        return lines

    def _join(self, kinds: tuple[type[FrequentEvent | SeveralEvents], ...]) -> tuple[bytes, int] | None:
        """Return the text of events of these kinds, and how many of its bytes need an escape; None if some of their values
        cannot be inserted as they are.
        """
        forms = [self[kind] for kind in kinds if issubclass(kind, FrequentEvent)]
        if len(forms) < len(kinds) or not all(form.is_plain for form in forms):
            return None
        return b"\n".join([form.text for form in forms]), sum(form.odd for form in forms) - 1

    def _gather(self, said: Sequence[FrequentEvent | SeveralEvents]) -> tuple[bytes, int, tuple[Any, ...]]:
        """Return the text of any events, how many of its bytes need an escape, and the values."""
        texts: list[bytes] = []
        values: list[Any] = []
        odd = -1  # there is no line feed after the last line
        for one in said:
            if type(one) is SeveralEvents:
                form, count = self[one.kind], len(one.columns[0])
                texts += [form.text] * count
                values += chain.from_iterable(zip(*one.columns, strict=True))
                odd += count * form.odd
            else:
                form = self[one.__class__]
                texts.append(form.text)
                values += astuple(one)
                odd += form.odd
                if form.has_ids:
                    ids = values[-1]
                    values[-1] = b'","'.join(ids)
                    odd += 2 * len(ids)  # with no client ID, this is two too few, and the form is not used
                elif form.spelled:
                    form.spell(values)
        return b"\n".join(texts), odd, (*values,)


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
        elif one.type == Only:
            yield one.encode_name, [value]
        else:
            yield one.encode_name, value


class _Form:
    """A line of one kind of event, without its values."""

    def __init__(self, kind: type[FrequentEvent], server: str) -> None:
        head = _encode({"level": "info", "server": server, "event": kind.name})[1:-1].replace(b"%", b"%%")
        types = [(one.encode_name.encode(), one.type) for one in fields(kind)]
        places = [b',"%b":%b' % (name, _PLACES[type_]) for name, type_ in types]
        self.text = b'{"timestamp":"%b",' % _STAMP + head + b"".join(places) + b"}"
        self.has_ids = types[-1][1] == list[bytes]
        # How many bytes need an escape in a text: of the form, of the line feed behind it, and of the labels. If there are
        # client IDs, two fewer: `fill` adds two for each ID, but there are two only between one ID and the next.
        plain = self.text.translate(None, _ODD)
        self.odd = len(self.text) - len(_STAMP) - len(plain) - 2 * self.has_ids + 1
        self.odd += _VIA.count(b'"') * sum(type_ == Label for _, type_ in types)
        self.spelled = [
            (at - len(types), _SPELLED[type_]) for at, (_, type_) in enumerate(types) if type_ in _SPELLED
        ]
        """Places from the end of an event's values, and how the values there are spelled."""
        self.is_plain = not (self.has_ids or self.spelled)

    def spell(self, values: list[Any]) -> None:
        """Spell the last values, which are those of an event, as the form needs them."""
        for at, spell in self.spelled:
            values[at] = spell(values[at])
