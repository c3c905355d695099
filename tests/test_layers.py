"""Who may import whom: the layers of the design, read from the sources.

A pure room imports only pure rooms below it, and of the world only what can neither wait, nor look at a clock,
nor touch anything outside the process. The rooms that do touch it don't know one another.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

import proxyherd

PACKAGE = "proxyherd"

PURE = (
    "escapes",
    "messages",
    "framing",
    "table",
    "peer_messages",
    "catchup",
    "link",
    "notes",
    "reply",
    "backoff",
    "schema",
    "config",
    "walks",
    "node",
)
"""From the bottom up: each may import those before it."""

HARMLESS = {
    *("__future__", "typing", "collections", "enum", "re", "decimal", "functools", "itertools", "operator"),
    *("array", "hashlib", "hmac", "msgspec"),
}
"""Of the world, what every pure room may import."""

ALLOWED = {"config": {"ipaddress", "pathlib", "tomllib", "urllib"}, "backoff": {"random"}}
"""What else single rooms may: the herd's file is found and read by the room that checks it; the source of random
numbers is an argument, and random is imported for its type.
"""

OUTER = ("clients", "peers", "admin", "places", "journal")
"""They touch the world, each another part of it."""

KNOWS_NONE = ("cluster",)
"""They touch the world too, and know of no other part of it."""

KNOWS_ALL = "daemon"

ALONE = {"redis": "cluster.opening"}
"""Libraries that one module alone may import: the others see of them what it shows."""

KNOW_SOME = {"cli": {"places", "journal"}, "replica": {"peers", "journal"}}
"""The command line has tools for the files of both; a replica is put together of both."""

REACHES_OUT = {"open", "input", "print", "breakpoint", "exec", "eval", "compile", "__import__"}
"""Builtins that no pure room may name."""


def imports(source: str, module: str, *, is_package: bool = False) -> Iterator[str]:
    """Every module that a source imports, anywhere in it, by its whole name."""
    parts = module.split(".")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = parts[: len(parts) - node.level + is_package]
                base = ".".join([*above, base] if base else above)
            if base == PACKAGE:  # what is imported from the package itself may be a room of it
                yield from (f"{base}.{alias.name}" for alias in node.names)
            else:
                yield base


def names(source: str) -> set[str]:
    return {node.id for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name)}


def read_rooms(folder: Path) -> dict[str, dict[str, tuple[str, bool]]]:
    """The sources of a package by room: whole module name to source and whether it is a package itself."""
    rooms: dict[str, dict[str, tuple[str, bool]]] = {}
    for file in sorted(folder.rglob("*.py")):
        parts = file.relative_to(folder).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        module = ".".join([PACKAGE, *(parts[:-1] if is_package else parts)])
        room = parts[0] if len(parts) > 1 or not is_package else ""
        rooms.setdefault(room, {})[module] = (file.read_text(), is_package)
    return rooms


def violations(folder: Path) -> list[str]:
    """Say what breaks the layers, a sentence each."""
    rooms = read_rooms(folder)
    found: list[str] = []
    for room, sources in rooms.items():
        reached = set[str]()
        for module, (source, is_package) in sources.items():
            named = set(imports(source, module, is_package=is_package))
            reached |= named
            found += _strangers(module, named)
            if room in PURE:
                found += [f"{room} names {name}" for name in sorted(names(source) & REACHES_OUT)]
        inside = {name.split(".")[1] for name in reached if name.startswith(f"{PACKAGE}.")}
        inside = (inside & set(rooms)) - {room}
        outside = {name.partition(".")[0] for name in reached} - {PACKAGE}
        found += _judge(room, inside, outside)
    return found


def _strangers(module: str, named: Iterable[str]) -> Iterator[str]:
    for library in sorted({name.partition(".")[0] for name in named} & ALONE.keys()):
        if module != f"{PACKAGE}.{ALONE[library]}":
            yield f"{module.removeprefix(PACKAGE + '.')} imports {library}"


def _judge(room: str, inside: Iterable[str], outside: Iterable[str]) -> Iterator[str]:
    if room in PURE:
        below = PURE[: PURE.index(room)]
        yield from (f"{room} imports {other}" for other in sorted(inside) if other not in below)
        allowed = HARMLESS | ALLOWED.get(room, set())
        yield from (f"{room} imports {other}" for other in sorted(outside) if other not in allowed)
    outer = sorted(set(inside) & set(OUTER))
    if room in OUTER or room in KNOWS_NONE:
        yield from (f"{room} imports {other}" for other in outer)
    elif len(outer) > 1 and room != KNOWS_ALL and not set(outer) <= KNOW_SOME.get(room, set()):
        yield f"{room} knows {' and '.join(outer)}"


def test_the_package_keeps_its_layers() -> None:
    assert violations(Path(proxyherd.__file__).parent) == []


def test_every_pure_room_is_there_to_be_judged() -> None:
    rooms = read_rooms(Path(proxyherd.__file__).parent)
    assert set(PURE) <= set(rooms)
    assert {"clients", "peers", "admin", "places", KNOWS_ALL, *KNOWS_NONE} <= set(rooms)
    modules = {module for sources in rooms.values() for module in sources}
    assert {f"{PACKAGE}.{module}" for module in ALONE.values()} <= modules


def test_every_package_is_installed() -> None:
    """A package that pyproject.toml leaves out works in a checkout, and nowhere else."""
    folder = Path(proxyherd.__file__).parent
    found = {".".join(file.parent.relative_to(folder.parent).parts) for file in folder.rglob("__init__.py")}
    project = tomllib.loads((folder.parent / "pyproject.toml").read_text())
    assert set(project["tool"]["setuptools"]["packages"]) == found


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package that keeps the layers."""
    _write(
        tmp_path,
        {
            "__init__": "",
            "messages": "import re",
            "framing": "from proxyherd.core.messages import COPIED_BYTES",
            "node": "from proxyherd import messages\nfrom .framing import LineFramer",
            "turn": "import asyncio\nfrom proxyherd.places import Places",
            "clients": "import asyncio, socket\nfrom proxyherd.core.node import Node",
            "peers": "import random\nfrom . import node",
            "places/__init__": "from proxyherd.places.google.legacy import Google",
            "places/google": "from . import answers\nimport aiohttp",
            "places/answers": "import json",
            "cluster/opening": "from redis.asyncio import Connection\nfrom ..turn import Turn",
            "cluster/engine": "import asyncio\nfrom proxyherd.server.turn import Turn",
            "daemon": "from proxyherd import clients, peers, places",
        },
    )
    return tmp_path


def _write(folder: Path, sources: Mapping[str, str]) -> None:
    for name, source in sources.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(dedent(source))


def test_a_package_that_keeps_the_layers_is_left_alone(package: Path) -> None:
    assert violations(package) == []


@pytest.mark.parametrize(
    ("room", "source", "complaint"),
    [
        *(
            ("messages", f"import {module}", f"messages imports {module}")
            for module in (
                "socket",
                "asyncio",
                "time",
                "logging",
                "structlog",
                "random",
                "os",
                "datetime",
                "select",
            )
        ),
        ("node", "from prometheus_client import Counter", "node imports prometheus_client"),
        ("node", "import aiohttp.web", "node imports aiohttp"),
        ("node", "import os.path as p", "node imports os"),
        ("node", "from time import monotonic", "node imports time"),
        ("node", "def f():\n    import time", "node imports time"),
        ("node", "if TYPE_CHECKING:\n    from asyncio import Task", "node imports asyncio"),
        ("node", "def f():\n    print('x')", "node names print"),
        ("node", "x = __import__('time')", "node names __import__"),
        ("framing", "import pathlib", "framing imports pathlib"),
        ("messages", "from proxyherd.core.framing import LineFramer", "messages imports framing"),
        ("messages", "import proxyherd.core.node", "messages imports node"),
        ("messages", "from . import node", "messages imports node"),
        ("framing", "from .node import Node", "framing imports node"),
        ("node", "from proxyherd.server.clients.tcp import Clients", "node imports clients"),
        ("node", "from proxyherd.server.turn import Turn", "node imports turn"),
        ("clients", "from proxyherd.engines.herd.peers import Peers", "clients imports peers"),
        ("peers", "def f():\n    from proxyherd import clients", "peers imports clients"),
        ("clients", "from .places.google import Google", "clients imports places"),
        ("places/google", "from ..peers import Peers", "places imports peers"),
        ("places/google", "from .. import clients", "places imports clients"),
        ("places/__init__", "from ..clients import Clients", "places imports clients"),
        *(
            ("cluster/engine", f"from proxyherd import {other}", f"cluster imports {other}")
            for other in ("clients", "peers", "admin", "places", "journal")
        ),
        ("cluster/engine", "import redis", "cluster.engine imports redis"),
        ("cluster/engine", "def f():\n    from redis.asyncio import Redis", "cluster.engine imports redis"),
        ("cluster/__init__", "from redis.exceptions import RedisError", "cluster imports redis"),
        ("daemon", "import redis.crc", "daemon imports redis"),
        ("turn", "from proxyherd import places, peers", "turn knows peers and places"),
        ("replica", "from proxyherd import clients, peers", "replica knows clients and peers"),
        ("cli", "from proxyherd.server.clients.tcp import x\nfrom proxyherd.admin.app import y", None),
    ],
)
def test_a_planted_violation_is_found(package: Path, room: str, source: str, complaint: str | None) -> None:
    _write(package, {"admin": "", "journal": "", room: source})
    assert violations(package) == [complaint or "cli knows admin and clients"]
