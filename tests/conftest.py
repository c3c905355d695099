"""Rules for all tests: continuous integration skips none, and what takes longest begins first. And the cluster for
those that run on both engines: each asks for `cluster`, None for the herd's own table, and hands it to the servers
that it starts. What runs on the herd alone says why.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from engines import ENGINES, HERD
from hypothesis import settings
from redis_cluster import Cluster, running_cluster

from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

# A busy machine takes as long as it likes for an example; what must be quick is counted elsewhere. A run that ends red
# ends red again, so the examples are always the same; PROXYHERD_NEW_EXAMPLES=1 looks for others.
settings.register_profile("same", deadline=None, derandomize=True)
settings.register_profile("new", deadline=None, print_blob=True)
settings.load_profile("new" if os.environ.get("PROXYHERD_NEW_EXAMPLES") else "same")

STARTS_OF_PROCESSES = frozenset(
    ["subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "warm_start.start"]
)
"""Events of sys.audit, and one that tests/support/warm_start.py adds."""

MAY_START_PROCESSES = ("system", "project")
"""Folders of tests. All others are for `make check`: what they test runs in this process."""

LONGEST_GROUPS = (
    *(
        "bare machine",
        "systemd",
        "redis-faults",
        "redis-clients",
        "a class",
        "browser",
        "several hosts",
        "wheel",
    ),
    *(
        "supervisord",
        "tutorial",
        "independent herds",
        "redis-deployed",
        "operations",
        "install",
        "prometheus",
    ),
)
"""Groups of tests that take half a minute or more, the longest first."""

_runs: list[pytest.Item] = []
"""The test that runs now."""


@pytest.fixture(scope="session")
def running_redis() -> Iterator[Cluster]:
    """A cluster that lasts as long as the tests, from the first that needs it."""
    with running_cluster(replicas=1) as cluster:
        yield cluster


@pytest.fixture(scope="module", params=ENGINES)
def shared_cluster(request: pytest.FixtureRequest) -> Cluster | None:
    """Where the servers have their table that the tests of a module share."""
    if request.param == HERD:
        return None
    cluster: Cluster = request.getfixturevalue("running_redis")
    return cluster


@pytest.fixture
def cluster(shared_cluster: Cluster | None) -> Cluster | None:
    """Where a test's own servers have their table: tests call their clients the same."""
    if shared_cluster is not None:
        shared_cluster.flush()
    return shared_cluster


@pytest.fixture
def observer(tmp_path: Path) -> Iterator[Observer]:
    """Whom a server of this process tells what happens: a log in the test's folder, and metrics."""
    file = LogFile(tmp_path / "log")
    yield Observer(make_logger(file, server="Ann", level="info", max_field_bytes=1024), file, Metrics(), [])
    file.close()


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Make a skip a failure, where nobody would read its reason."""
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"With CI set nothing may be skipped. {reason}"


def _fail_if_it_may_not_start_processes(event: str, _: tuple[Any, ...]) -> None:
    if _runs and event in STARTS_OF_PROCESSES:  # neither is there while the interpreter ends
        folder = _folder(_runs[0])
        if folder not in MAY_START_PROCESSES:
            pytest.fail(f"A test in tests/{folder} starts no process: move it to tests/system")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note which test runs, with its fixtures. One that only computes leaves the processors to those that other workers
    run meanwhile, which may count seconds; as root, because others may not raise their priority again.
    """
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    if hasattr(item.config, "workerinput") and os.geteuid() == 0 and _folder(item) not in MAY_START_PROCESSES:
        os.setpriority(os.PRIO_PROCESS, 0, usual + 5)
    _runs[:] = [item]
    try:
        return (yield)
    finally:
        _runs.clear()
        with contextlib.suppress(PermissionError):  # in a container without that right
            os.setpriority(os.PRIO_PROCESS, 0, usual)


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = (
        False  # pytest-xdist keeps the order of _mix; old ones know no such option
    )
    sys.addaudithook(_fail_if_it_may_not_start_processes)
    # A shell ignores it for what it runs in the background, and so would every process that the tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without a look for garbage, of which there is hardly any, and look through them never again: each
    worker does this for all ten thousand. From then on leave no mode of a file or folder to the umask: whatever is
    missed shows, in processes started too. What was compiled until then only its owner may change. Garbage is looked for
    after ten thousand new objects instead of 700: that saves a tenth of the processor time of tests that start no process.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000)
        gc.enable()
        os.umask(0)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> Generator[None, object, object]:
    """Let one worker run the tests of a module that share something, which else each worker would start for itself."""
    for item in items:
        if isinstance(item, pytest.Function) and not item.get_closest_marker("xdist_group") and _shares(item):
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(item.config.rootpath))))
    result = yield
    if hasattr(config, "workerinput"):
        _mix(items)
    return result


def _mix(items: list[pytest.Item]) -> None:
    """Let workers that run at the same time wait for processes and compute, at any time about as many of them: tests
    of both kinds begin by turns. And let the longest groups begin in the first half: begun last, one would run on alone.
    """
    units = dict[str, list[pytest.Item]]()
    for item in items:
        group = item.get_closest_marker("xdist_group")
        units.setdefault(str(group.args[0]) if group else item.nodeid, []).append(item)
    longest = [name for name in LONGEST_GROUPS if name in units]
    others = [name for name in units if name not in LONGEST_GROUPS]
    waiting = [name for name in others if _folder(units[name][0]) in MAY_START_PROCESSES]
    computing = [name for name in others if _folder(units[name][0]) not in MAY_START_PROCESSES]
    places = dict[str, float]()
    for names, until in ((longest, 0.5), (waiting, 1.0), (computing, 1.0)):
        places |= {name: until * index / len(names) for index, name in enumerate(names)}
    items[:] = [item for name in sorted(places, key=places.__getitem__) for item in units[name]]


def _folder(item: pytest.Item) -> str:
    """Return which folder of tests it is in."""
    return item.path.relative_to(Path(__file__).parent).parts[0]


def _shares(item: pytest.Function) -> bool:
    """Return whether a test uses something that lasts as long as its module."""
    fixtures = item._fixtureinfo.name2fixturedefs
    return any(found[-1].scope == "module" for name, found in fixtures.items() if name != "shared_cluster")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_if_skipped(report)
    return report
