"""`make dist`, with the wheels of `make wheel`, and the compiled modules: they keep the laws that the same sources keep as
Python.

`make test-compiled` runs these tests. `make test` does not, because the build takes a minute of CPU, and as long
again to fetch what it needs. All is built once, in a copy of this checkout, and the compiled wheel is installed
into a folder. Tests that replace something inside these modules, or derive classes from theirs, cannot run on it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from booted import copy_whole_checkout
from debian import needs
from herd_process import short_folder

ROOT = Path(__file__).parents[2]
HEADER = Path(sysconfig.get_path("include"), "Python.h")
pytestmark = [
    needs("cc"),
    pytest.mark.skipif(not HEADER.exists(), reason=f"there is no {HEADER}: apt-get install python3-dev"),
    pytest.mark.xdist_group("compiled"),
]

LAWS = (
    "tests/core/test_conversation.py",
    "tests/core/test_framing.py",
    "tests/core/test_link.py",
    "tests/core/test_messages.py",
    "tests/core/test_node.py",
    "tests/core/test_rules.py",
    "tests/core/test_table.py",
    "tests/core/test_turn.py",
    "tests/engines/herd/test_engine.py",
    "tests/system/test_conformance.py",
    "tests/system/test_web.py",
)

REPLACES = (
    "test_a_leaf_is_the_same_whether_it_is_remembered_or_not",
    "test_a_leaf_with_more_clients_than_a_line_has_room_for_hashes_is_caught_up_too",
    "test_a_query_that_waited_is_answered_by_what_is_in_the_journal",
    "test_each_line_is_parsed_once",
    "test_many_peers_share_what_is_heard_in_a_turn_and_each_has_something",
    "test_nothing_is_answered_by_what_is_not_in_the_journal",
    "test_thousands_that_waited_are_looked_up_in_portions_and_nobody_is_held_up",
    "test_what_fails_for_one_peer_without_a_turn_ends_that_peer",
    "test_what_is_remembered_of_ids_is_bounded",
    "test_what_was_learned_without_a_turn_leaves_with_the_turn_for_which_another_neighbour_asks",
)
"""Tests that replace something inside a compiled module, or count its calls, so they only run as Python."""


class Wheels:
    """What `make dist` has built."""

    def __init__(self, folder: Path) -> None:
        self._checkout = folder / "checkout"
        copy_whole_checkout(self._checkout)
        (self._checkout / ".venv").mkdir()
        (self._checkout / ".venv/bin").symlink_to(Path(sys.executable).parent)
        (self._checkout / ".venv/run.stamp").touch()
        done = subprocess.run(
            ["make", "--no-print-directory", "dist", f"PYTHON={sys.executable}"],
            cwd=self._checkout,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.told = done.stdout
        self.dist = self._checkout / "dist"
        self.names = sorted(wheel.name for wheel in self.dist.glob("*.whl"))
        self.installed = folder / "installed"
        self._elsewhere = folder / "elsewhere"  # where no proxyherd is found but the installed one
        self._elsewhere.mkdir()
        [compiled] = (name for name in self.names if "none-any" not in name)
        self.run(
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            self.installed,
            self.dist / compiled,
        )

    def run(self, *arguments: str | Path) -> str:
        """Run Python, which finds the compiled modules; return what it prints."""
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=self._elsewhere,
            env={**os.environ, "PYTHONPATH": str(self.installed)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def wheels() -> Iterator[Wheels]:
    with short_folder() as folder:
        yield Wheels(folder)


def test_there_is_one_wheel_for_all_machines_and_one_for_this_python(wheels: Wheels) -> None:
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    forms = [rf"proxyherd-[\d.]+-{tag}-{tag}-\w+\.whl", r"proxyherd-[\d.]+-py3-none-any\.whl"]
    assert len(wheels.names) == len(forms)
    for name, form in zip(wheels.names, forms, strict=True):
        assert re.fullmatch(form, name)


def test_a_release_has_all_that_is_published_and_names_all_that_it_brings_along(wheels: Wheels) -> None:
    [source], [listed] = wheels.dist.glob("*.tar.gz"), wheels.dist.glob("*.cdx.json")
    assert {file.name for file in wheels.dist.iterdir()} == {*wheels.names, source.name, listed.name}
    assert wheels.told.count("PASSED") == len(wheels.names) + 1  # what an index would show of each
    components = {one["name"].lower(): one["version"] for one in json.loads(listed.read_text())["components"]}
    lock = (ROOT / "deploy/requirements.txt").read_text()
    locked = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))
    assert {name.replace("_", "-") for name in components} - locked == set()
    assert {name for name in ("aiohttp", "cryptography", "uvloop") if name not in components} == set()


def test_every_module_of_the_list_is_compiled_and_the_version_says_so(wheels: Wheels) -> None:
    assert wheels.run("-m", "proxyherd", "--version").endswith(" (compiled)\n")
    script = f"""
import importlib, tomllib
for module in tomllib.load(open({str(ROOT / "pyproject.toml")!r}, "rb"))["tool"]["proxyherd"]["compiled"]:
    module = importlib.import_module("proxyherd." + module.replace("/", "."))
    assert module.__file__.endswith(".so"), module
"""
    wheels.run("-c", script)


def test_compiled_modules_keep_the_laws(wheels: Wheels) -> None:
    """The conformance cases run against a real server; that with a table in Redis has few compiled modules."""
    options = f"-q -p no:cacheprovider -c {ROOT / 'pyproject.toml'} --rootdir {ROOT}".split()
    without = " or ".join(["redis", *REPLACES])
    printed = wheels.run("-m", "pytest", *options, "-k", f"not ({without})", *(ROOT / law for law in LAWS))
    assert re.search(r"^\d+ passed", printed, re.MULTILINE), printed


def test_the_tests_that_run_only_as_python_are_there() -> None:
    sources = "".join((ROOT / law).read_text() for law in LAWS)
    assert [name for name in REPLACES if f"def {name}(" not in sources] == []
