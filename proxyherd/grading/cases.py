"""The client protocol by example: `cases.jsonl`, with one case on each line. Pure, except for reading that file.

The file knows nothing of any implementation. Its keys:

    name        the subject of the case
    send        what a client sends on a new connection; each character is one byte (latin-1), placeholders are replaced
    half_close  whether the client then closes its sending half
    chunk       how many bytes it sends at a time, with short pauses; without it, all at once
    about       the form that it is about (forms.py), if that is not the substance
    closes      whether the server must close after the answers, without waiting for the client
    expect      the answer, or a list of answers in order

Placeholders: `{id}` is a new client, the same throughout a case; `{known}` a client that has reported; `{now}` the
present time in seconds with nine decimals. An expected answer is one of

    at          an AT line by the server that was asked, with a sign and nine decimals, and the operands as sent
    at+json     the AT line of the client in the query, places in the format of Nearby Search, no more than the
                bound, and two LFs
    invalid     `? ` and the line as sent
    (others)    exactly this line
"""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

import msgspec
from msgspec import Struct

from proxyherd.grading.forms import SENDING_AHEAD, Form


class Case(Struct, frozen=True, forbid_unknown_fields=True):
    """One example."""

    name: str
    send: str
    expect: str | list[str]
    half_close: bool = False
    closes: bool = False
    chunk: int | None = None
    about: Form | None = None

    @property
    def slug(self) -> str:
        """The name as one word, for the ID of a check."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")

    @property
    def expected(self) -> list[str]:
        return [self.expect] if isinstance(self.expect, str) else self.expect

    @property
    def needs(self) -> frozenset[Form]:
        """The forms in which it talks."""
        found = {Form.ECHO} if {*self.expected} - {"at", "at+json", "invalid"} else set()
        if self.send.removesuffix("\n").count("\n"):
            found |= SENDING_AHEAD
            if "invalid" in self.expected[:-1]:
                found.add(Form.ECHO)  # silence does not show where the next answer begins
        if not self.send.removesuffix("\n"):
            found.add(Form.BLANK_LINES)
        if not self.send.endswith("\n"):
            found |= {Form.LINE_END, Form.END_OF_STREAM}
        if "\r" in self.send:
            found |= {Form.LINE_END} if "at" in self.expected else {Form.LINE_END, Form.FINAL_LF}
        if self.half_close:
            found.add(Form.END_OF_STREAM)
        return frozenset(found)

    def filled(self, client: bytes, known: bytes, now: bytes) -> bytes:
        """Return what is sent."""
        data = self.send.encode("latin-1")
        for placeholder, value in ((b"{id}", client), (b"{known}", known), (b"{now}", now)):
            data = data.replace(placeholder, value)
        return data


@cache
def load_cases() -> tuple[Case, ...]:
    """Return all cases."""
    lines = resources.files(__package__).joinpath("cases.jsonl").read_bytes().splitlines()
    return tuple(msgspec.json.decode(line, type=Case) for line in lines)
