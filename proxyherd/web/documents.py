"""JSON from strangers, read so that the text of each value stays as it was spelled.

So numbers keep their digits, and never become floats: msgspec's `Raw` is the text of a value. The standard library's
`json` could keep it too, by `parse_float`, but takes seven times as long.

- A document is UTF-8. A byte order mark before it is ignored.
- NaN, Infinity and deep nesting are problems.
- In objects of the API, a key that occurs twice or is not known is a problem too: one reader would take the first value
  and another one the last. GeoJSON, and what apps on phones send, may have any keys, which are skipped.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Final, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct, defstruct
from msgspec.structs import astuple

from proxyherd.web.problems import JSON, LARGE, MEANING, Problem

MOST_COMMAS: Final = 65_536
"""Commas in a document: each value costs time, and 2 MiB can hold a million. 1,000 points of Overland have 29,000."""

MOST_ESCAPES: Final = 32_768
"""Backslashes and percent signs in a document, which cost time too. It allows for names of 30 escaped characters in a
batch of 1,000 reports."""

_MISSING: Final = Raw()
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_string = msgspec.json.Decoder(str).decode
_T = TypeVar("_T")


class DocumentReader(Generic[_T]):
    """Reads documents of one type. `expected`: what belongs where a document has another type, in a sentence; it is not
    needed where nobody is told.
    """

    def __init__(self, type_: type[_T], expected: str = "") -> None:
        self._decode = msgspec.json.Decoder(type_).decode
        self._expected = expected

    def read_document(self, data: bytes) -> _T:
        """Return what a document says. Raises Problem."""
        check_size(data)
        return self.decode(data)

    def decode(self, data: bytes) -> _T:
        """Return what a document says that has few values, or passed `check_size`. Raises Problem."""
        try:
            return self._decode(data.removeprefix(BYTE_ORDER_MARK))
        except msgspec.ValidationError:
            raise Problem(MEANING, self._expected) from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Problem(JSON, "The JSON breaks off, or has something that JSON does not have.") from None
        except RecursionError:
            raise Problem(JSON, "The JSON is nested too deeply.") from None


class ObjectReader:
    """Reads objects with these keys, and no others."""

    def __init__(self, required: Sequence[str], optional: Sequence[str] = ()) -> None:
        self._required = required
        type_ = defstruct(
            "Object",
            [(key, Raw, _MISSING) for key in (*required, *optional)],
            forbid_unknown_fields=True,
            gc=False,
        )
        self._array = msgspec.json.Decoder(list[type_]).decode  # type: ignore[valid-type]
        keys = ", ".join([*required, *(f"perhaps {key}" for key in optional)])
        self._document: DocumentReader[Struct] = DocumentReader(
            type_, f"An object with these keys and no others belongs here: {keys}."
        )

    def read_object(self, data: bytes) -> list[bytes]:
        """Return the text of each value, in the order of the keys; it is empty if an optional key is missing. Raises
        Problem.
        """
        values = [*map(bytes, astuple(self._document.decode(data)))]
        # One colon stands behind each key; all other ones are inside of values.
        colons = data.count(b":") - sum(map(bool, values))
        if colons and colons != sum(value.count(b":") for value in values):
            raise Problem(JSON, "A key occurs twice.")
        if not all(values[: len(self._required)]):
            missing = self._required[values.index(b"")]
            raise Problem(MEANING, "This key is missing.", missing)
        return values

    def read_array(self, data: bytes, most: int) -> list[tuple[Raw, ...]] | None:
        """Return the same for each object of an array, which costs less than to read them one by one; None if there is a
        problem, or may be one, or if there are more than `most` objects. Use `check_size` before.
        """
        try:
            objects = self._array(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if len(objects) > most:
            return None
        rows = [*map(astuple, objects)]
        columns = [*zip(*rows, strict=True)]
        if any(_MISSING in column for column in columns[: len(self._required)]):
            return None
        missing = sum(column.count(_MISSING) for column in columns)
        keys, colons = len(rows) * len(columns) - missing, data.count(b":")
        if colons != keys and colons != keys + b"".join(chain.from_iterable(rows)).count(b":"):
            return None
        return rows


class MemberReader:
    """Reads objects that may have any keys, such as those of GeoJSON."""

    def __init__(self, expected: str) -> None:
        self._document: DocumentReader[dict[str, Raw]] = DocumentReader(dict[str, Raw], expected)

    def read_members(self, data: bytes) -> dict[str, bytes]:
        """Return the text of each value by its key. The document has passed `check_size`. Raises Problem."""
        members = {key: bytes(value) for key, value in self._document.decode(data).items()}
        if data.count(b":") != len(members) + sum(map(_colons, members.items())):
            raise Problem(JSON, "A key occurs twice, or has an escaped colon.")
        return members


def _colons(member: tuple[str, bytes]) -> int:
    key, value = member
    return key.count(":") + value.count(b":")


def check_size(data: bytes, most_commas: int = MOST_COMMAS) -> None:
    """Check that reading these documents does not delay others' answers. Raises Problem."""
    if data.count(b",") > most_commas:
        raise Problem(LARGE, f"At most {most_commas:,} commas are read here.")
    if data.count(b"\\") + data.count(b"%") > MOST_ESCAPES:
        raise Problem(LARGE, f"A document has at most {MOST_ESCAPES:,} backslashes and percent signs.")


def string_text(value: bytes, field: str) -> str:
    """Return the string whose JSON this is. Raises Problem."""
    if value[:1] != b'"':
        raise Problem(MEANING, "A string belongs here.", field)
    try:
        return _string(value)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Problem(JSON, "This string is not UTF-8, or has half of a surrogate pair.", field) from None


def number_text(value: bytes, field: str) -> bytes:
    """Return the text of the number, or the string, whose JSON this is. Raises Problem."""
    return value if value[:1] in b"-0123456789" else string_text(value, field).encode()
