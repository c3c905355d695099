"""What `make mutants` does in each fork: record which quick tests run which lines, and try a mutant.

Everything is collected by pytest once, in the parent. A mutant inside a function is put in the place of that function's
code, so nothing is imported again. Where an import would run it (constants, defaults, classes), the fork imports the
package and the tests anew.
"""

from __future__ import annotations

import gc
import importlib.machinery
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any, Self

import hypothesis
import pytest
from forks import Guard
from mutations import Mutant

TRIED_EXAMPLES, RECORDED_EXAMPLES = 40, 10
"""Of Hypothesis for a test; with few of them lines are recorded, which takes five times as long."""

TEST_SECONDS = 60
"""A test that takes longer is not quick; on a busy machine, and traced, one of a second may take some."""

ENTRIES = 300
"""After so many calls of a function in one test its lines are looked at no more: loops would take minutes."""

PYTEST = (
    *(
        "-s",
        "-qq",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-o",
        "addopts=",
        "--import-mode=importlib",
        f"--timeout={TEST_SECONDS}",
    ),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # its plugins are loaded already
)

OWN = frozenset(
    str(Path(__file__).with_name(f"{name}.py")) for name in ("mutants", "mutations", "forks", "trials")
)

_IMPORTED = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)

Lines = dict[str, list[int]]


class Tracer:
    """Notes which lines of the package run, in all threads."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.lines: dict[CodeType, set[int]] = {}
        self.entries: dict[CodeType, int] = {}

    def __enter__(self) -> Self:
        threading.settrace(self._call)
        sys.settrace(self._call)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        threading.settrace(None)

    def _call(self, frame: FrameType, event: str, arg: object) -> Callable[..., Any] | None:
        if not (frame.f_globals.get("__package__") or "").startswith(self.package):
            return None  # before f_code, which is audited
        code = frame.f_code
        self.entries[code] = entries = self.entries.get(code, 0) + 1
        if entries > ENTRIES:
            return None
        add = self.lines.setdefault(code, set()).add

        def line(frame: FrameType, event: str, arg: object) -> Callable[..., Any]:
            if event == "line":
                add(frame.f_lineno)
            return line

        return line

    def by_file(self) -> Lines:
        found: dict[str, set[int]] = {}
        for code, lines in self.lines.items():
            found.setdefault(code.co_filename, set()).update(lines)
        return {name: sorted(lines) for name, lines in found.items()}


def quicken(items: Iterable[pytest.Item], examples: int) -> None:
    """Let Hypothesis try at most so many examples, always the same ones, and shrink none."""
    for item in items:
        test: Any = getattr(item, "obj", None)
        test = getattr(test, "__func__", test)
        stateful: Any = getattr(item, "cls", None)
        if isinstance(getattr(stateful, "settings", None), hypothesis.settings):
            stateful.settings = _quicker(stateful.settings, examples)
        old = getattr(test, "_hypothesis_internal_use_settings", None)
        if isinstance(old, hypothesis.settings):
            test._hypothesis_internal_use_settings = _quicker(old, examples)


def _quicker(old: hypothesis.settings, examples: int) -> hypothesis.settings:
    return hypothesis.settings(
        old,
        max_examples=min(old.max_examples, examples),
        derandomize=True,
        database=None,
        deadline=None,
        phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
    )


class Quick:
    """A plugin: Hypothesis repeats itself, does not shrink, and is quick; keeps reports."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.failed: str | None = None
        self.most_seconds: dict[str, float] = {}
        """CPU seconds after which a test ends its process, by test."""

    def pytest_runtest_call(self, item: pytest.Item) -> None:
        # Not before: what tests share is made by whichever comes first.
        signal.setitimer(signal.ITIMER_PROF, self.most_seconds.get(item.nodeid, 0.0))

    def pytest_runtest_teardown(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        quicken(items, TRIED_EXAMPLES)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
        if report.failed and self.failed is None:
            self.failed = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self.failed is None:
            self.failed = report.nodeid


class Only(Quick):
    """Of what is collected, these tests."""

    def __init__(self, tests: Iterable[str], most_seconds: dict[str, float]) -> None:
        super().__init__()
        self.tests = frozenset(tests)
        self.most_seconds = most_seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self.tests]
        super().pytest_collection_modifyitems(items)


class Loader(importlib.machinery.SourceFileLoader):
    """Loads a mutant in the place of its module."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self.code = code

    def get_code(self, fullname: str) -> CodeType:
        return self.code


class Finder(MetaPathFinder):
    """Finds the mutant's module, and no other."""

    def __init__(self, path: str, code: CodeType) -> None:
        self.path, self.code = path, code

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        if spec is None or spec.origin != self.path:
            return None
        spec.loader = Loader(fullname, self.path, self.code)
        return spec


# In a fork -----------------------------------------------------------------------------------------------------


def record(items: Sequence[pytest.Item], quick: Quick, package: str) -> dict[str, tuple[float, Lines]]:
    """Run tests; return for each that passes, and keeps to itself, its CPU seconds and the lines it ran."""
    guard = Guard(Path.cwd())
    sys.addaudithook(guard)
    quicken(items, RECORDED_EXAMPLES)
    recorded = {}
    for item, following in zip(items, [*items[1:], None], strict=True):
        guard.refused = False
        began = time.process_time(), time.monotonic()
        with Tracer(Path(package).name) as tracer:
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        spent = time.process_time() - began[0], time.monotonic() - began[1]
        if quick.outcomes.get(item.nodeid) == "passed" and not guard.refused:
            recorded[item.nodeid] = max(spent[0], min(spent[1], 1.0) / 4), tracer.by_file()
    return recorded


def functions(package: str) -> dict[tuple[str, str, int], list[FunctionType]]:
    """Every function of the package that was imported, by file, qualified name and first line."""
    found: dict[tuple[str, str, int], list[FunctionType]] = {}
    for one in gc.get_objects():
        if type(one) is FunctionType and one.__code__.co_filename.startswith(package):
            code = one.__code__
            found.setdefault((code.co_filename, code.co_qualname, code.co_firstlineno), []).append(one)
    return found


def replace(mutant: Mutant, code: CodeType, known: dict[tuple[str, str, int], list[FunctionType]]) -> bool:
    """Give the functions that a mutant is in its code; False if that can't be done."""
    if mutant.function is None:
        return False
    name, first, _ = mutant.function
    held = known.get((str(mutant.path), name, first), [])
    new = next((one for one in _codes(code) if (one.co_qualname, one.co_firstlineno) == (name, first)), None)
    if new is None or not held or any(one.__code__.co_freevars != new.co_freevars for one in held):
        return False
    for one in held:
        one.__code__ = new
    return True


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _codes(one)


def try_again(items: Sequence[pytest.Item], quick: Quick) -> str | None:
    """Run tests until one fails, and return which."""
    sys.addaudithook(Guard(Path.cwd()))
    for item, following in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if quick.failed:
            return quick.failed
    return None


def _built_on(package: Path, tests: Path) -> set[str]:
    """The modules of the package, and those of the tests that import them, or import others that do."""
    files = {
        name: file
        for name, module in sys.modules.items()
        if (file := getattr(module, "__file__", None) or "") not in OWN and name != "__main__"
    }
    found = {name for name, file in files.items() if file.startswith(f"{package}/")}
    beside = {
        name: set(_IMPORTED.findall(Path(file).read_text()))
        for name, file in files.items()
        if file.startswith(f"{tests}/") and file.endswith(".py")
    }
    bases = {package.name}
    while more := {name for name in beside.keys() - found if bases & beside[name]}:
        found |= more
        bases |= more
    return found


def try_anew(
    mutant: Mutant, code: CodeType, most_seconds: dict[str, float], root: Path, package: Path
) -> str | None:
    """Import everything again with the mutant, and run tests until one fails: which, or None."""
    sys.addaudithook(Guard(Path.cwd()))
    for name in _built_on(package, root / "tests"):
        del sys.modules[name]
    sys.meta_path.insert(0, Finder(str(mutant.path), code))
    files = list(dict.fromkeys(test.partition("::")[0] for test in most_seconds))
    for at in range(0, len(files), 4):
        some = files[at : at + 4]
        only = Only(most_seconds, most_seconds)
        status = pytest.main(
            [*PYTEST, "-x", f"--rootdir={root}", *(str(root / name) for name in some)], plugins=[only]
        )
        if only.failed or status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return only.failed or str(status)
    return None
