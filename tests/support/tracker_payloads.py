"""What apps on phones send, with the lines that are made of it, and the answer that each app needs: a file of JSON lines.

`{now}` in a line is the time at which the request came.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct, field

_FILE = Path(__file__).parents[1] / "web/trackers/payloads.jsonl"


class Payload(Struct, frozen=True, forbid_unknown_fields=True):
    """One request of an app, and what must become of it."""

    app: str
    why: str
    method: str
    lines: list[str]
    consumed: dict[str, int]
    answer: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    user: str = ""
    body: str = ""

    @property
    def name(self) -> str:
        """The name of a test with it."""
        return f"{self.app}: {self.why}"


PAYLOADS = msgspec.json.decode(b"[%b]" % b",".join(_FILE.read_bytes().splitlines()), type=list[Payload])
