"""The folders of the package are floors: each module stands on one, and imports what stands below."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import floors
import pytest
from floors import FLOORS, cycle, modules, violations

import proxyherd

PACKAGE = Path(proxyherd.__file__).parent
DOCS = PACKAGE.parent / "docs"

pytestmark = pytest.mark.xdist_group("floors")
"""So that one worker parses the package, which takes seconds, for all."""


def test_every_module_stands_on_a_floor_and_imports_what_stands_below() -> None:
    assert list(violations(PACKAGE)) == []


def test_no_modules_import_one_another_in_a_circle() -> None:
    assert cycle(PACKAGE) == []


def test_every_folder_of_the_table_is_there() -> None:
    assert {folder for floor in FLOORS for folder in floor} <= {module.name for module in modules(PACKAGE)}


def test_every_folder_says_what_its_modules_are_for() -> None:
    """What a reader of the tree opens first is never behind the tree."""
    every = list(modules(PACKAGE))
    for folder in (module for module in every if module.is_package and module.name):
        said = ast.get_docstring(folder.tree) or ""
        inside = [m.name.rpartition(".")[2] for m in every if m.name.rpartition(".")[0] == folder.name]
        missing = [name for name in inside if not re.search(rf"\b{name}\b", said)]
        assert not missing, folder.name


def test_the_page_on_the_design_shows_this_table() -> None:
    subprocess.run([sys.executable, DOCS / "make_design.py", "--check"], check=True)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small package that keeps the rules."""
    _write(
        tmp_path,
        {
            "__init__": "__version__ = '1'",
            "__main__": "from proxyherd.cli import main",
            "base/files": "import os",
            "config/schema": "from proxyherd.base.files import open_regular",
            "core/messages": "import re\nfrom proxyherd.config.schema import Limits",
            "core/node": "from . import messages\nfrom proxyherd import __version__",
            "net/tls": "import ssl",
            "places/__init__": "from proxyherd.places.google.old import Google",
            "places/google/old": "import aiohttp\nfrom ...config import schema",
            "engines/__init__": "",
            "engines/redis/opening": "from redis.asyncio import Connection\nfrom proxyherd.core.node import Node",
            "engines/herd/journal": "import os",
            "server/daemon": "from proxyherd.engines import herd, redis",
            "grading/judging": "from proxyherd.base import files",
            "cli/serve": "from proxyherd.server import daemon",
        },
    )
    return tmp_path


def _write(folder: Path, sources: Mapping[str, str]) -> None:
    for name, source in sources.items():
        file = folder / f"{name}.py"
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_text(source)


def test_a_package_that_keeps_the_rules_is_left_alone(package: Path) -> None:
    assert list(violations(package)) == []
    assert cycle(package) == []


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("node", "", "node stands on no floor"),
        ("engines/other", "", "engines.other stands on no floor"),
        ("base/files", "import proxyherd.config.schema", "base.files imports config.schema"),
        ("config/schema", "from proxyherd.core import node", "config.schema imports core.node"),
        ("core/node", "from proxyherd.net.tls import Contexts", "core.node imports net.tls.Contexts"),
        ("core/node", "from ..server import daemon", "core.node imports server.daemon"),
        ("core/node", "def f():\n    import proxyherd.cli", "core.node imports cli"),
        ("net/tls", "from proxyherd.core import messages", "net.tls imports core.messages"),
        ("places/__init__", "from proxyherd import telemetry", "places imports telemetry"),
        (
            "engines/redis/shard",
            "from ..herd import journal",
            "engines.redis.shard imports engines.herd.journal",
        ),
        (
            "engines/herd/peers",
            "from proxyherd.engines import redis",
            "engines.herd.peers imports engines.redis",
        ),
        ("admin/app", "from proxyherd.engines.herd import x", "admin.app imports engines.herd.x"),
        ("grading/judging", "from proxyherd.core import messages", "grading.judging imports core.messages"),
        ("remote/ask", "from proxyherd.grading import x", "remote.ask imports grading.x"),
        ("client/links", "from proxyherd.core import messages", "client.links imports core.messages"),
        ("client/rules/fields", "import time", "client.rules.fields imports time"),
        ("server/daemon", "from proxyherd.cli import serve", "server.daemon imports cli.serve"),
        ("server/daemon", "import redis.crc", "server.daemon imports redis"),
        ("engines/redis/shard", "from redis import exceptions", "engines.redis.shard imports redis"),
        *(
            ("core/node", f"import {name}", f"core.node imports {name.partition('.')[0]}")
            for name in ("asyncio", "time", "os.path", "socket", "structlog", "pathlib", "aiohttp", "logging")
        ),
        ("core/node", "if TYPE_CHECKING:\n    from asyncio import Task", "core.node imports asyncio"),
        ("core/node", "def f():\n    print('x')", "core.node names print"),
        ("core/node", "x = __import__('time')", "core.node names __import__"),
    ],
)
def test_a_planted_fault_is_found(package: Path, module: str, source: str, complaint: str) -> None:
    _write(package, {module: source})
    assert list(violations(package)) == [complaint]


def test_a_circle_is_found(package: Path) -> None:
    _write(package, {"core/messages": "from proxyherd.core import node"})
    assert set(cycle(package)) == {"proxyherd.core.messages", "proxyherd.core.node"}


@pytest.mark.parametrize("floor", range(1, len(FLOORS)))
def test_two_floors_that_change_places_are_found(floor: int, monkeypatch: pytest.MonkeyPatch) -> None:
    changed = list(FLOORS)
    changed[floor - 1], changed[floor] = changed[floor], changed[floor - 1]
    monkeypatch.setattr(floors, "FLOORS", tuple(changed))
    assert list(violations(PACKAGE))
