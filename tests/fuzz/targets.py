"""The fuzz targets by name: what each is given, what it begins with, and how many of all inputs it gets."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).parent
SUPPORT = HERE.parent / "support"
if str(SUPPORT) not in sys.path:
    sys.path.insert(0, str(SUPPORT))  # the oracle is there


@dataclass(frozen=True)
class Target:
    """`one_input` takes any bytes, and raises where a law is broken."""

    name: str
    module: str
    share: int  # of a hundred inputs; the slow ones get fewer

    def one_input(self) -> Callable[[bytes], None]:
        function: Callable[[bytes], None] = import_module(self.module).one_input
        return function

    def seeds(self) -> list[bytes]:
        """Return well-formed and nearly well-formed inputs to begin with."""
        return list(import_module(self.module).SEEDS)

    def regressions(self) -> list[tuple[str, bytes]]:
        """Return every input that once broke a law, with the name of its file."""
        return [(path.name, path.read_bytes()) for path in sorted(self.regression_folder.glob("*"))]

    @property
    def regression_folder(self) -> Path:
        return HERE / "regressions" / self.name

    @property
    def dictionary(self) -> Path:
        """Words of the format, in libFuzzer's form: `"..."` with `\\xNN`, one a line."""
        return HERE / "dictionaries" / f"{self.name}.dict"

    def words(self) -> list[bytes]:
        """Return the words of the dictionary."""
        lines = self.dictionary.read_text().splitlines()
        quoted = [line[1:-1] for line in lines if line.startswith('"')]
        return [word.encode("latin-1").decode("unicode_escape").encode("latin-1") for word in quoted]


TARGETS = {
    target.name: target
    for target in (
        Target("client", "client_stream", 12),
        Target("peer", "peer_link", 8),
        Target("journal", "journal_file", 3),
        Target("config", "herd_file", 27),
        Target("places", "places_answer", 35),
        Target("web", "web_request", 15),
    )
}
