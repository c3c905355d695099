"""Who may import whom in the package: the one table, and what breaks it.

A folder of the package stands on a floor. It imports what stands on lower floors, and nothing of its own floor but
itself. docs/make_design.py prints the table.
"""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Final

PACKAGE: Final = "proxyherd"

FLOORS: Final = (
    ("base", "local"),
    ("config", "client.rules"),
    ("core", "net", "places"),
    ("telemetry", "web", "client"),
    ("engines.herd", "engines.redis", "admin"),
    ("server",),
    ("bridge", "remote", "standin", "grading"),
    ("cli",),
)
"""From the bottom up."""

KNOWS_ONLY: Final = {"grading": {"base"}, "client": {"base", "config", "net", "client.rules"}}
"""Folders that may import less than what stands below: the grader judges by rules of its own, and programs of others
import the client library, which must not load the server.
"""

PURE: Final = {
    "client.rules": frozenset(["datetime"]),
    "core": frozenset[str](),
    "web": frozenset(
        [
            *(
                "abc",
                "base64",
                "binascii",
                "datetime",
                "email",
                "http",
                "ipaddress",
                "struct",
                "urllib",
                "zlib",
            ),
            *("cryptography", "jwt"),
        ]
    ),
}
"""The folders whose code can neither wait, nor look at a clock, nor touch anything outside the process; and what they may
import besides HARMLESS. Of `datetime` they use dates that they are given, and of `jwt` signatures alone, not the clock.
"""

HARMLESS: Final = frozenset(
    [
        "__future__",
        "array",
        "bisect",
        "collections",
        "contextlib",
        "decimal",
        "enum",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "itertools",
        "math",
        "msgspec",
        "operator",
        "random",
        "re",
        "typing",
    ]
)
"""Of the world, what pure folders may import. Sources of random numbers are arguments: it names their type."""

REACHES_OUT: Final = frozenset(
    ["open", "input", "print", "breakpoint", "exec", "eval", "compile", "__import__"]
)
"""Builtins that pure folders may not name."""

ALONE: Final = {"redis": "engines.redis.opening"}
"""Libraries that one module alone may import: the others see of them what it shows."""


@dataclass(frozen=True)
class Module:
    """A module of the package: its name from the package on, empty for the package itself, and its source."""

    name: str
    tree: ast.Module
    is_package: bool

    @property
    def folder(self) -> str:
        """The folder that stands on a floor; empty for what lies beside the floors."""
        inside = [folder for floor in FLOORS for folder in floor if f"{self.name}.".startswith(f"{folder}.")]
        return inside[0] if inside else ""

    @cached_property
    def imports(self) -> frozenset[str]:
        """Whatever it imports, anywhere in it, by its whole name."""
        return frozenset(self._imports())

    def _imports(self) -> Iterator[str]:
        here = [PACKAGE, *filter(None, self.name.split("."))]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = here[: len(here) - node.level + self.is_package] if node.level else []
                base = ".".join([*above, *filter(None, [node.module])])
                yield from (f"{base}.{alias.name}" for alias in node.names)

    @cached_property
    def names(self) -> frozenset[str]:
        """The plain names in it."""
        return frozenset(node.id for node in ast.walk(self.tree) if isinstance(node, ast.Name))


@cache
def _parse(name: str, text: str, is_package: bool) -> Module:
    """Return a module. Each is parsed once, though many tests look at all."""
    return Module(name, ast.parse(text), is_package)


def modules(package: Path) -> Iterator[Module]:
    """Yield all modules of a package."""
    for file in sorted(package.rglob("*.py")):
        parts = file.relative_to(package).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        yield _parse(".".join(parts[:-1] if is_package else parts), file.read_text(), is_package)


def may_import(folder: str) -> set[str]:
    """Return the folders that one may import besides itself."""
    level = next(level for level, floor in enumerate(FLOORS) if folder in floor)
    below = {other for floor in FLOORS[:level] for other in floor}
    return below & KNOWS_ONLY.get(folder, below)


def violations(package: Path) -> Iterator[str]:
    """Say what breaks the rules, a sentence each."""
    for module in modules(package):
        if module.name in ("", "__main__", "engines"):  # the version; the way in; the name of two folders
            continue
        if not module.folder:
            yield f"{module.name} stands on no floor"
            continue
        allowed = {module.folder, *may_import(module.folder)}
        for name in sorted(module.imports):
            library, _, inside = name.partition(".")
            if library == PACKAGE and inside != "__version__":
                if not any(f"{inside}.".startswith(f"{folder}.") for folder in allowed):
                    yield f"{module.name} imports {inside}"
            elif (
                library != PACKAGE and module.folder in PURE and library not in HARMLESS | PURE[module.folder]
            ) or module.name != ALONE.get(library, module.name):
                yield f"{module.name} imports {library}"
        if module.folder in PURE:
            yield from (f"{module.name} names {name}" for name in sorted(module.names & REACHES_OUT))


def cycle(package: Path) -> list[str]:
    """Return modules of which each imports the next, and the last the first; empty where there are none."""
    found = {f"{PACKAGE}.{module.name}": module.imports for module in modules(package)}
    imported = {
        name: {base for one in named for base in (one, one.rpartition(".")[0]) if base in found} - {name}
        for name, named in found.items()
    }
    try:
        graphlib.TopologicalSorter(imported).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []
