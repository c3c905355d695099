"""Tests stand where their source stands: proxyherd/core/link.py is tested by tests/core/test_link.py. And outside
tests/system and tests/project they start no process.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import proxyherd

PACKAGE = Path(proxyherd.__file__).parent
TESTS = Path(__file__).parents[1]

ELSEWHERE: Final = {
    # Source files, and the test of them all, with the reason why they have none of their own.
    "admin/status_page/*.py": ("system/test_page.py", "the page is asked of real servers"),
    "bridge/*.py": (
        "bridge/test_bridge.py",
        "the bridge runs whole, with a herd and a cluster that are fakes",
    ),
    "cli/completion.py": ("system/test_completion.py", "shells complete"),
    "cli/export.py": ("remote/test_exporting.py", "the command prints what remote/exporting makes"),
    "cli/gazetteer.py": ("places/gazetteer/test_file.py", "the command builds the file that is tested there"),
    "cli/grade.py": ("system/test_grade.py", "a herd is graded as processes"),
    "cli/journal.py": ("system/test_durability.py", "the journal of a running server is read"),
    "cli/places_sim.py": ("system/test_places_sim.py", "the stand-in runs as a process"),
    "cli/status.py": ("system/test_status.py", "real servers are asked"),
    "cli/*.py": ("cli/test_commands.py", "what all commands print, and their exit codes"),
    "core/engine.py": ("engines/test_engine_laws.py", "an interface: both engines keep its laws"),
    "core/notes.py": ("core/test_node.py", "types of what a node tells"),
    "core/peer_messages.py": ("core/test_messages.py", "all messages are in one test"),
    "core/reply.py": ("core/test_node.py", "a type of what a node answers"),
    "core/sizes.py": ("core/test_simulation.py", "numbers: tests of what they bound name them"),
    "engines/herd/neighbour_hosts.py": ("net/test_resolving.py", "neighbours' names are looked up"),
    "engines/redis/*.py": ("engines/redis/test_engine.py", "parts of an engine that is tested whole"),
    "grading/*.py": ("grading/test_broken_herds.py", "for each check there is a herd that fails it"),
    "net/tls.py": ("system/test_tls.py", "OpenSSL makes the certificates, and real servers use them"),
    "places/failures.py": ("places/limits/test_resilience.py", "types: which failures are tried again"),
    "places/gazetteer/build.py": ("places/gazetteer/test_file.py", "what is built is tested by asking it"),
    "places/gazetteer/feature_types.py": ("places/gazetteer/test_own_places.py", "a table"),
    "places/query.py": ("places/test_front.py", "a type of what is asked"),
    "places/watch.py": ("places/test_front.py", "an interface: whom Places tell"),
    "remote/ask.py": ("system/test_status.py", "real servers are asked"),
    "server/daemon.py": ("system/test_startup.py", "a server starts and ends as a process"),
    "server/supervision.py": ("system/test_systemd.py", "systemd and supervisord are told"),
    "standin/*.py": ("standin/test_app.py", "both APIs are asked over HTTP"),
    "telemetry/*.py": (
        "telemetry/test_observer.py",
        "events and metrics of all subjects, beside their pages",
    ),
}
"""The first pattern that fits a file counts."""


def sources() -> list[str]:
    """Return the files of the package, from the package on, but for those that only say what a folder is."""
    files = (file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py"))
    return sorted(str(file) for file in files if file.name not in ("__init__.py", "__main__.py"))


def own_test(source: str) -> Path:
    return TESTS / Path(source).with_name(f"test_{Path(source).name}")


def alone() -> dict[str, str]:
    """Return the files that have no test of their own, each with the pattern that fits it or nothing."""
    without = [source for source in sources() if not own_test(source).is_file()]
    return {one: next((pattern for pattern in ELSEWHERE if fnmatch(one, pattern)), "") for one in without}


def test_each_source_file_has_its_test_file_or_a_reason_why_it_has_none() -> None:
    assert [source for source, pattern in alone().items() if not pattern] == []


def test_each_reason_is_needed_and_names_a_test_that_is_there() -> None:
    """A whole folder may have a reason that its files do not need yet."""
    assert {pattern for pattern in ELSEWHERE if "*" not in pattern} - set(alone().values()) == set()
    assert [test for test, _ in ELSEWHERE.values() if not (TESTS / test).is_file()] == []


STARTS = {
    "a_program": "subprocess.run(['true'], check=True)",
    "a_program_whatever_comes_of_it": "with contextlib.suppress(Exception): subprocess.run(['true'])",
    "a_shell": "os.system('true')",
    "a_fork": "os.fork() or os._exit(0)",
    "a_spawn": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "a_server": "warm_start.start(['--version'], {}, Path(), stdout=sys.__stdout__, stderr=sys.__stdout__).wait()",
}


def test_a_test_that_starts_a_process_fails_outside_these_folders(tmp_path: Path) -> None:
    shutil.copy(TESTS / "conftest.py", tmp_path)
    tests = "import contextlib, os, subprocess, sys\nfrom pathlib import Path\nimport pytest, warm_start\n"
    tests += "".join(f"def test_{name}():\n    {start}\n" for name, start in STARTS.items())
    tests += "@pytest.fixture\ndef made(): subprocess.run(['true'])\ndef test_a_fixture(made): pass\n"
    tests += "def test_none(): pass\n"
    for folder in ("core", "system"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test_it.py").write_text(tests)
    program = [
        sys.executable,
        "-m",
        "pytest",
        "-rA",
        "-p",
        "no:cacheprovider",
        "--import-mode=importlib",
        f"--rootdir={tmp_path}",
    ]
    environ = {**os.environ, "PYTHONPATH": str(TESTS / "support")}
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False, env=environ)
    lines = re.findall(r"^([A-Z]+) (\w+/test_it\.py::\w+)", done.stdout, re.MULTILINE)
    outcomes = {name: outcome for outcome, name in lines}
    assert outcomes == {
        **{f"core/test_it.py::test_{name}": "FAILED" for name in STARTS},
        "core/test_it.py::test_a_fixture": "ERROR",
        **{f"system/test_it.py::test_{name}": "PASSED" for name in [*STARTS, "a_fixture"]},
        **{f"{folder}/test_it.py::test_none": "PASSED" for folder in ("core", "system")},
    }, done.stdout
