"""Tests stand where their source stands: proxyherd/core/link.py is tested by tests/core/test_link.py, and what does not fit
in there by tests/core/test_link_more.py. Outside tests/system and tests/project they start no process.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from itertools import pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Final, NamedTuple

import pytest

import proxyherd

PACKAGE = Path(proxyherd.__file__).parent
TESTS = Path(__file__).parents[1]
OTHERS = {"fuzz", "mutation", "project", "support", "system", "__pycache__"}
IN_PROCESS = [folder for folder in TESTS.iterdir() if folder.is_dir() and folder.name not in OTHERS]


class Elsewhere(NamedTuple):
    """Source files of one folder that have no test of their own; the test that they have, and why."""

    folder: str
    files: str
    test: str
    why: str


ELSEWHERE: Final = (
    Elsewhere(
        "admin/status_page",
        "own_state",
        "system/test_page.py",
        "what it says is compared with the metrics of real servers",
    ),
    Elsewhere("base", "earth", "core/spatial/test_sphere.py", "a number"),
    Elsewhere(
        "bridge",
        "masters passes",
        "bridge/test_bridge.py",
        "the bridge runs whole, with a herd and a cluster that are fakes",
    ),
    Elsewhere("bridge", "inventory", "system/test_erasure.py", "a real cluster is listed and erased from"),
    Elsewhere(
        "cli",
        "asking check_config common iamat secret serve whatsat",
        "cli/test_commands.py",
        "what all commands print, and their exit codes",
    ),
    Elsewhere("cli", "completion", "system/test_completion.py", "shells complete"),
    Elsewhere(
        "cli",
        "contents export",
        "remote/test_exporting.py",
        "they read and print what remote/exporting makes",
    ),
    Elsewhere("cli", "follow near", "system/test_near_and_follow.py", "a real server is asked, and followed"),
    Elsewhere("cli", "gazetteer", "places/gazetteer/test_file.py", "it builds the file that is tested there"),
    Elsewhere(
        "cli",
        "grade grade_herd grade_marks grade_run grade_usage",
        "system/test_grade.py",
        "a herd is graded as processes",
    ),
    Elsewhere("cli", "grade_batch", "system/test_grade_batch.py", "a class is graded as processes"),
    Elsewhere("cli", "down", "system/test_wheel.py", "a herd is started and stopped in an empty folder"),
    Elsewhere("cli", "journal", "system/test_durability.py", "the journal of a running server is read"),
    Elsewhere("cli", "places_sim", "system/test_places_sim.py", "the stand-in runs as a process"),
    Elsewhere("cli", "signing", "cli/test_token.py", "the tokens that are made are looked at there"),
    Elsewhere("cli", "web_port", "cli/test_forget.py", "clients are erased over it"),
    Elsewhere("cli", "status status_json", "system/test_status.py", "real servers are asked"),
    Elsewhere("client", "calls", "client/test_concurrent.py", "calls of that client"),
    Elsewhere(
        "client", "follows", "system/test_herd_client.py", "real servers are followed, and one is killed"
    ),
    Elsewhere("client", "sockets", "net/test_resolving.py", "names with silent servers are connected to"),
    Elsewhere("client/rules", "errors", "client/rules/test_commands.py", "answers are such errors"),
    Elsewhere("config", "errors", "config/test_herd_file.py", "each mistake in a file is such an error"),
    Elsewhere("core", "engine", "engines/test_engine_laws.py", "an interface: both engines keep its laws"),
    Elsewhere("core", "turn_ports", "core/test_turn.py", "interfaces: a turn is tested with them"),
    Elsewhere("core", "decider", "core/test_node.py", "a node decides about commands"),
    Elsewhere("core", "news notes reply", "core/test_node.py", "what a node passes on, tells and answers"),
    Elsewhere("core", "peer_messages", "core/test_link.py", "a link reads and writes each of them"),
    Elsewhere(
        "engines/herd", "ports", "engines/herd/test_engine.py", "interfaces: the engine is tested with them"
    ),
    Elsewhere(
        "engines/herd", "open_links", "engines/herd/test_engine.py", "what leaves at the end of a turn"
    ),
    Elsewhere("engines/herd", "rewrite", "engines/herd/test_journal.py", "a journal begins and ends it"),
    Elsewhere("core", "handshake", "core/test_link.py", "with it each link begins"),
    Elsewhere("core", "value", "core/test_messages.py", "what it promises is tested with entries"),
    Elsewhere("core", "sizes", "core/test_simulation.py", "numbers: tests of what they bound name them"),
    Elsewhere("core/follows", "event", "core/follows/test_follower.py", "a follower is told them"),
    Elsewhere(
        "core/follows",
        "followed_clients snapshots",
        "core/follows/test_follows.py",
        "a server tells its followers",
    ),
    Elsewhere(
        "core/spatial", "crossings", "core/spatial/test_polygons.py", "which polygons cross themselves"
    ),
    Elsewhere("engines/herd", "neighbour_hosts", "net/test_resolving.py", "names of hosts are looked up"),
    Elsewhere("engines/redis", "backlog", "engines/redis/test_routes.py", "what is routed waits in it"),
    Elsewhere(
        "engines/redis",
        "commands outcomes sealing",
        "engines/redis/test_batch.py",
        "the parts of a batch: how it is spelled, how it ends, and what came of it",
    ),
    Elsewhere(
        "grading",
        "cases checks conformance dialect endless exchanges faults floods formal forms hardness logged places playing "
        "regaining servers times",
        "grading/test_broken_herds.py",
        "for each check there is a herd that fails it",
    ),
    Elsewhere("grading", "report_files report_text", "grading/test_report.py", "one report, three ways"),
    Elsewhere(
        "grading",
        "commanded guard keeping processes",
        "system/test_grade.py",
        "processes are started and ended",
    ),
    Elsewhere("grading", "web", "system/test_grade_web.py", "real web ports are judged"),
    Elsewhere(
        "grading", "batch inside", "system/test_grade_batch.py", "a class is graded as processes in sandboxes"
    ),
    Elsewhere(
        "local",
        "messages witnesses",
        "system/test_local_herd.py",
        "supervisord and locks are real",
    ),
    Elsewhere(
        "net",
        "tls",
        "system/test_tls.py",
        "OpenSSL makes the certificates, and real servers use them",
    ),
    Elsewhere("places", "failures", "places/limits/test_resilience.py", "which failures are tried again"),
    Elsewhere("places", "query watch", "places/test_front.py", "what is asked, and who is told: types"),
    Elsewhere("places/gazetteer", "build", "places/gazetteer/test_file.py", "what is built is asked there"),
    Elsewhere("places/gazetteer", "feature_types", "places/gazetteer/test_own_places.py", "a table"),
    Elsewhere("remote", "nearby", "system/test_near_and_follow.py", "a real server is asked"),
    Elsewhere("remote", "ask", "system/test_status.py", "real servers are asked"),
    Elsewhere(
        "server/clients", "http_reader", "web/conversations/test_http.py", "what it reads is answered there"
    ),
    Elsewhere("server", "backend", "engines/test_engine_laws.py", "an interface: both engines have it"),
    Elsewhere("server", "daemon", "system/test_startup.py", "a server starts and ends as a process"),
    Elsewhere("server", "supervision", "system/test_systemd.py", "systemd and supervisord are told"),
    Elsewhere("standin", "new old shapes", "standin/test_app.py", "both APIs are asked over HTTP"),
    Elsewhere("core", "slow_reader", "core/test_conversation.py", "who is disconnected, and when"),
    Elsewhere("telemetry", "event_names", "project/test_docs.py", "the sources and the page have the same"),
    Elsewhere("web", "answers", "web/test_routes.py", "what routes find"),
    Elsewhere(
        "web", "openapi_areas openapi_events openapi_parts", "web/test_openapi.py", "parts of one document"
    ),
    Elsewhere(
        "web/conversations",
        "base http_bytes",
        "web/conversations/test_http.py",
        "what all conversations do, and the bytes of answers",
    ),
    Elsewhere(
        "web/conversations", "http_waits", "web/conversations/test_http_rates.py", "what connections let wait"
    ),
    Elsewhere("web/conversations", "lines", "web/conversations/test_sockets.py", "laws of all WebSockets"),
    Elsewhere(
        "web/trackers",
        "gpslogger osmand overland owntracks parameters",
        "web/trackers/test_apps.py",
        "what apps send is a file of data, which is read there",
    ),
)


def sources() -> list[str]:
    """Return the files of the package, from the package on, but for those that only say what a folder is."""
    files = (file.relative_to(PACKAGE) for file in PACKAGE.rglob("*.py"))
    return sorted(str(file) for file in files if file.name not in ("__init__.py", "__main__.py"))


def own_test(source: str) -> Path:
    return TESTS / Path(source).with_name(f"test_{Path(source).name}")


def test_each_source_file_has_its_test_file_or_a_reason_why_it_has_none() -> None:
    """And each reason is needed."""
    alone = [source for source in sources() if not own_test(source).is_file()]
    assert sorted(f"{one.folder}/{file}.py" for one in ELSEWHERE for file in one.files.split()) == alone


def test_the_tests_that_are_named_are_there() -> None:
    assert [one.test for one in ELSEWHERE if not (TESTS / one.test).is_file()] == []


OF_NO_FILE: Final = {
    "cli/test_tools_page.py": "the page on the commands, whose examples are run",
    "places/test_herd.py": "Places of a whole herd, whose servers share a budget",
    "telemetry/test_rules_and_dashboard.py": "what `deploy/` has for Prometheus and Grafana, which stands on the metrics",
}
"""Tests of several files together or of none, and why they have a name of their own."""


def test_each_test_that_starts_no_process_is_named_after_a_source_file() -> None:
    """`test_peers_laws` is a second one of `peers`. What stands for files without a test has a name of its own."""
    of_files = [own_test(source).with_suffix("") for source in sources()]
    elsewhere = {TESTS / one.test for one in ELSEWHERE}
    in_process = (file for folder in IN_PROCESS for file in folder.rglob("test_*.py"))
    others = [
        str(file.relative_to(TESTS))
        for file in sorted(in_process)
        if file not in elsewhere
        and not any(f"{file.with_suffix('')}_".startswith(f"{source}_") for source in of_files)
    ]
    assert others == sorted(OF_NO_FILE)


def test_what_is_no_module_is_installed_with_the_package() -> None:
    """`pip` takes only modules, and what pyproject.toml names."""
    data = tomllib.loads((TESTS.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    named = {
        file
        for package, patterns in data.items()
        for pattern in patterns
        for file in PACKAGE.joinpath(*package.split(".")[1:]).glob(pattern)
    }
    others = {file for file in PACKAGE.rglob("*.*") if file.is_file() and file.suffix not in (".py", ".pyc")}
    assert {file.relative_to(PACKAGE) for file in others - named if file.suffix != ".so"} == set()


STARTS = {
    "a_program": "subprocess.run(['true'], check=True)",
    "a_program_whatever_comes_of_it": "with contextlib.suppress(Exception): subprocess.run(['true'])",
    "a_shell": "os.system('true')",
    "a_fork": "os.fork() or os._exit(0)",
    "a_spawn": "os.waitpid(os.posix_spawn('/bin/true', ['true'], {}), 0)",
    "a_server": "warm_start.start(['--version'], {}, Path(), stdout=sys.__stdout__, stderr=sys.__stdout__).wait()",
}


@pytest.mark.long
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


def conftest() -> ModuleType:
    spec = spec_from_file_location("rules_for_all_tests", TESTS / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module := module_from_spec(spec))
    return module


def item(name: str, group: str = "") -> Any:
    mark = SimpleNamespace(args=(group,)) if group else None
    return SimpleNamespace(nodeid=name, path=TESTS / name, get_closest_marker=lambda _: mark)


def test_the_longest_groups_begin_first_and_tests_that_compute_take_turns_with_tests_that_wait() -> None:
    rules = conftest()
    computing = [item(f"core/{number}") for number in range(60)]
    waiting = [item(f"system/{number}") for number in range(10)]
    shared = [item(f"project/{number}", "a group") for number in range(3)]
    longest = [
        item(f"system/{name}{number}", name) for name in rules.LONGEST_GROUPS[:2] for number in range(5)
    ]
    items = [*computing, *waiting, *shared, *reversed(longest)]
    rules._mix(items)
    names = [one.nodeid for one in items]
    assert sorted(names) == sorted(one.nodeid for one in (*computing, *waiting, *shared, *longest))
    assert {*names[:5]} == {one.nodeid for one in longest[:5]}
    assert max(names.index(one.nodeid) for one in longest) < len(names) // 2
    assert [name for name in names if name.startswith("project")] == [one.nodeid for one in shared]
    assert names.index("project/2") == names.index("project/0") + 2, "a group stays together"
    apart = [names.index(one.nodeid) for one in waiting]
    assert apart == sorted(apart)
    assert all(4 <= after - before <= 12 for before, after in pairwise(apart))


def test_the_longest_groups_are_groups() -> None:
    texts = [
        file.read_text()
        for folder in ("project", "support", "system")
        for file in (TESTS / folder).glob("*.py")
    ]
    groups = {name for text in texts for name in re.findall(r'xdist_group\("([^"]+)"\)', text)}
    assert {*conftest().LONGEST_GROUPS} <= groups
