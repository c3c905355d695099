"""Mutation testing: changes the program in one small place at a time, and says which changes no quick test notices.

python tests/mutation/mutants.py [--most 1000] [--seed 1] [--only proxyherd/core/table.py] [--jobs 2]

Tried are the pure core, the engines, telemetry, places and what the web port understands: see TRIED. --only tries any file all the same.

Which quick tests (those that start no process) run which lines is recorded first, and kept until a source changes. A
mutant is tried with those that run its lines, the quickest first. It is killed when one fails, when the process dies,
or when it hangs; the others are listed: a law is missing, or the change changes nothing. The latter are kept in
tests/mutation/mutants.toml, with the reason, and no more tried.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import click
import forks
import pytest
import trials
from forks import Work
from mutations import CONTROL, Mutant, mutants_of
from trials import Lines, Quick

ROOT = Path(__file__).resolve().parents[2]

TRIED = (
    *("proxyherd/core", "proxyherd/places", "proxyherd/telemetry", "proxyherd/engines", "proxyherd/web"),
    *("proxyherd/server/driver.py", "proxyherd/server/places_queries.py"),
)
"""What is tried unless --only names something else: what decides, stores, counts and tells. The rest puts parts together
or is a shell around sockets and files: real connections and processes test it, which no fork here may start.
"""

LEFT_OUT = ("places/gazetteer/feature_types.py", "web/openapi.py")
"""Of that, a list of words; and a description, which is compared with the answers of real servers."""

UNUSED = ("test_cost.py", "test_floors.py", "test_docs.py", "test_mutants.py")
"""They judge the sources or their cost, not what the program does."""

NOT_RUN = ("mutants.py", "mutations.py", "test_mutants.py")
"""Of the tests' folder, what has no say in which test runs which lines."""

ONE_CONTROL_IN = 20
"""Of so many mutants, one is tried without its change too: its tests must pass."""

CPU_TIMES, CPU_SECONDS, TEST_CPU_SECONDS = 5, 20, 4
"""What a mutant may take: so many times what its tests took, and so many seconds more; likewise for each test."""


@dataclass(frozen=True)
class Project:
    """What is tried: a package and its tests, side by side."""

    root: Path
    package: Path
    tests: tuple[str, ...]
    """Files or folders, from the root."""

    def sources(self, only: Sequence[str]) -> list[Path]:
        """Return the files that are mutated: these, and those in these folders but for what is left out."""
        roots = [self.root / one for one in only]
        return [
            path
            for path in sorted(self.package.rglob("*.py"))
            if path in roots
            or (
                any(root in path.parents for root in roots)
                and not any(path.match(f"{self.package.name}/{pattern}") for pattern in LEFT_OUT)
            )
        ]

    def key(self) -> str:
        """Return a hash of everything that decides which test runs which lines."""
        digest = hashlib.sha256(f"{sys.version} {self.tests}".encode())
        for path in sorted([*self.package.rglob("*.py"), *(self.root / "tests").rglob("*.py")]):
            if path.name not in NOT_RUN:
                digest.update(str(path).encode() + path.read_bytes())
        return digest.hexdigest()[:16]


class Record:
    """Which quick tests run which lines, and how long they take."""

    def __init__(self, tests: dict[str, tuple[float, Lines]]) -> None:
        self.seconds = {name: seconds for name, (seconds, _) in tests.items()}
        self.tests: dict[tuple[str, int], set[str]] = {}
        self.files: dict[str, set[str]] = {}
        for name, (_, files) in tests.items():
            for file, lines in files.items():
                self.files.setdefault(file, set()).add(name)
                for line in lines:
                    self.tests.setdefault((file, line), set()).add(name)

    def running(self, file: str, lines: range) -> set[str]:
        """Return the tests that run any of these lines."""
        return set().union(*(self.tests.get((file, line), ()) for line in lines))


class Session(Quick):
    """Collects the tests, and does its work where pytest would run them."""

    def __init__(self, project: Project, mutants: list[Mutant], jobs: int, spend: float) -> None:
        super().__init__()
        self.project, self.mutants, self.jobs, self.spend = project, mutants, jobs, spend
        self.killed: dict[Mutant, str] = {}
        self.untrue: list[str] = []
        """What failed though nothing was changed: a test that a busy machine fails, or a fault of this page."""
        self.survivors: list[Mutant] = []
        self.unrun: list[Mutant] = []
        self._named: dict[str, list[tuple[str, int]]] = {}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items if item.path.name not in UNUSED}
        forks.prepare()
        self.record = Record(self._recorded())
        self.functions = trials.functions(f"{self.project.package}/")
        self._try_all()
        return True

    # Which tests run which lines ------------------------------------------------------------------------------

    def _recorded(self) -> dict[str, tuple[float, Lines]]:
        kept = self.project.root / ".pytest_cache" / f"mutants-{self.project.key()}.json"
        if kept.exists():
            recorded: dict[str, tuple[float, Lines]] = json.loads(kept.read_bytes())
            return recorded
        recorded = {}
        files: dict[Path, list[pytest.Item]] = {}
        for item in self.items.values():
            files.setdefault(item.path, []).append(item)
        largest_first = sorted(files.values(), key=len, reverse=True)
        package = f"{self.project.package}/"
        work = [
            Work(items[0].path.name, partial(trials.record, items, self, package), 600, 900)
            for items in largest_first
        ]
        with click.progressbar(length=len(work), label="Which tests run which lines") as bar:
            for done in forks.run_forks(work, self.jobs):
                bar.update(1)
                if done.result is None:
                    click.echo(f"\n{done.name} died, and is not used", err=True)
                recorded.update(done.result or {})
        kept.parent.mkdir(exist_ok=True)
        for old in kept.parent.glob("mutants-*.json"):
            old.unlink()
        kept.write_text(json.dumps(recorded))
        return recorded

    # Trying -----------------------------------------------------------------------------------------------------

    def _tests(self, mutant: Mutant) -> list[str]:
        """Return the tests that may notice, file by file, the quickest first, as many as may be spent on one."""
        file = str(mutant.path)
        found = self.record.running(file, range(mutant.first, mutant.last + 1))
        if mutant.function is None:
            for name in mutant.names:
                for where, line in self._lines_naming(name):
                    found |= self.record.tests.get((where, line), set())
            folder = mutant.path.parent.relative_to(self.project.package)
            own = str(Path("tests", folder, f"test_{mutant.path.stem}"))
            # Also what runs none of its lines; but none that starts processes.
            found |= {one for one in self.record.seconds if one.startswith(own)}
            found = found or self.record.files.get(file, set())
        elif not found:
            found = self.record.running(file, range(mutant.function[1], mutant.function[2] + 1))
        return self._ordered(found, mutant.path.stem)

    def _lines_naming(self, name: str) -> list[tuple[str, int]]:
        if name not in self._named:
            word = re.compile(rf"\b{re.escape(name)}\b")
            self._named[name] = [
                (str(path), number)
                for path in self.project.package.rglob("*.py")
                for number, line in enumerate(path.read_text().splitlines(), 1)
                if word.search(line)
            ]
        return self._named[name]

    def _ordered(self, tests: set[str], stem: str) -> list[str]:
        """Return the file's own tests first, then one case of every other test, then another, …: cases are alike."""
        seconds = self.record.seconds
        ranks: Counter[str] = Counter()
        turns: dict[str, tuple[bool, int, float]] = {}
        for name in sorted(tests, key=lambda one: (seconds[one], one)):
            test = name.partition("[")[0]
            turns[name] = stem not in test, ranks[test], seconds[name]
            ranks[test] += 1
        chosen, spent = list[str](), 0.0
        for name in sorted(turns, key=turns.__getitem__):
            if name in self.items and (spent := spent + seconds[name]) <= self.spend:
                chosen.append(name)
        files: dict[str, float] = {}
        for name in chosen:
            file = name.partition("::")[0]
            files[file] = files.get(file, 0.0) + seconds[name] * (stem not in file)
        return sorted(chosen, key=lambda one: (files[file := one.partition("::")[0]], file, seconds[one]))

    def _try_all(self) -> None:
        work, of = [], dict[int, Mutant]()
        controls = [mutant.unchanged() for mutant in self.mutants[::ONE_CONTROL_IN]]
        for mutant in [*self.mutants, *controls]:
            tests = self._tests(mutant)
            if not tests:
                if mutant.operator != CONTROL:
                    self.unrun.append(mutant)
                continue
            seconds = sum(self.record.seconds[name] for name in tests)
            one = Work(
                "", partial(self._try, mutant, tests), CPU_TIMES * seconds + CPU_SECONDS, 60 + 20 * seconds
            )
            of[id(one)] = mutant
            work.append(one)
        with click.progressbar(length=len(work), label="Trying mutants") as bar:
            for done in forks.run_forks(work, self.jobs):
                bar.update(1)
                mutant = of[id(done)]
                by = done.end if done.result is None else done.result["by"]
                if mutant.operator == CONTROL:
                    self.untrue.extend([f"{mutant.path.name}:{mutant.line}: {by}"] if by else [])
                elif by is None:
                    self.survivors.append(mutant)
                else:
                    self.killed[mutant] = by

    def _try(self, mutant: Mutant, tests: list[str]) -> dict[str, str | None]:
        self.most_seconds = {name: CPU_TIMES * self.record.seconds[name] + TEST_CPU_SECONDS for name in tests}
        code = compile(mutant.source(), str(mutant.path), "exec", dont_inherit=True)
        if trials.replace(mutant, code, self.functions):
            return {"by": trials.try_again([self.items[name] for name in tests], self)}
        return {
            "by": trials.try_anew(mutant, code, self.most_seconds, self.project.root, self.project.package)
        }


def shown(mutant: Mutant, root: Path) -> str:
    """Return where a mutant is, and what it changes."""
    was, now = mutant.lines()
    return f"{mutant.path.relative_to(root)}:{mutant.line}: {mutant.operator}\n  - {was}\n  + {now}"


def equivalents(root: Path) -> Iterator[Mutant]:
    """The mutants that are known to change nothing. Raises UsageError for an entry that no mutant fits any more."""
    file = root / "tests/mutation/mutants.toml"
    entries = tomllib.loads(file.read_text()).get("equivalent", []) if file.exists() else []
    wanted: dict[tuple[str, str, str], Any] = {
        (one["file"], one["was"], one["becomes"]): one["why"] for one in entries
    }
    found = set()
    files = {one["file"] for one in entries}
    for path in files:
        for mutant in mutants_of(root / path) if (root / path).exists() else ():
            key = (path, *mutant.lines())
            if key in wanted:
                found.add(key)
                yield mutant
    if stale := wanted.keys() - found:
        told = "\n".join(f"  {path}: {was!r} to {becomes!r}" for path, was, becomes in sorted(stale))
        raise click.UsageError(f"{file}: no mutant fits these any more; delete or mend them\n{told}")


@click.command(help=__doc__)
@click.option("--most", default=1000, show_default=True, help="How many mutants, chosen by the seed.")
@click.option("--seed", default=1, show_default=True)
@click.option(
    "--only",
    multiple=True,
    default=TRIED,
    show_default=True,
    help="A file or folder, from the root; more than once for several.",
)
@click.option("--tests", multiple=True, default=("tests",), help="Use no other tests than these, likewise.")
@click.option("--jobs", default=os.cpu_count() or 2, show_default=True, help="How many at once.")
@click.option("--least", default=95.0, show_default=True, help="Percent that must be killed, else exit 1.")
@click.option(
    "--spend", default=20.0, show_default=True, help="CPU seconds of tests for one mutant, at most."
)
@click.option("--root", default=str(ROOT), help="The folder of the package and its tests.")
@click.option("--package", default="proxyherd", show_default=True)
def main(
    most: int,
    seed: int,
    only: tuple[str, ...],
    tests: tuple[str, ...],
    jobs: int,
    least: float,
    spend: float,
    root: str,
    package: str,
) -> None:
    project = Project(Path(root).resolve(), Path(root).resolve() / package, tests)
    sources = project.sources(only)
    for option, names in (("--only", only), ("--tests", tests)):
        for name in names:
            if not (project.root / name).exists():
                raise click.UsageError(f"{option} {name}: there is none in {project.root}")
    if not sources:
        raise click.UsageError(f"{', '.join(only)}: nothing there is mutated; name the files themselves")
    every = [mutant for path in sources for mutant in mutants_of(path)]
    known = set(equivalents(project.root))
    every = [mutant for mutant in every if mutant not in known]
    chosen = Random(seed).sample(every, min(most, len(every)))
    click.echo(f"{len(chosen)} of {len(every)} mutants of {len(sources)} files, seed {seed}")
    if not chosen:
        return
    os.environ.setdefault("PROXYHERD_SEEDS", "100")
    session = Session(project, chosen, jobs, spend)
    sys.path.insert(0, str(project.root))
    pytest.main(
        [*trials.PYTEST, f"--rootdir={project.root}", *(str(project.root / one) for one in tests)],
        plugins=[session],
    )
    _report(session, project.root, least)


def _report(session: Session, root: Path, least: float) -> None:
    left = [
        *((one, "no quick test runs it") for one in session.unrun),
        *((one, "") for one in session.survivors),
    ]
    for mutant, note in sorted(left, key=lambda pair: (pair[0].path, pair[0].start)):
        click.echo(shown(mutant, root) + (f"\n  {note}" if note else ""))
    tried = len(session.killed) + len(left)
    share = 100 * len(session.killed) / tried if tried else 0.0
    by_file = Counter(str(one.path.relative_to(root)) for one, _ in left)
    click.echo(
        f"{len(session.record.seconds)} quick tests killed {len(session.killed)} of {tried}: {share:.1f} %"
    )
    click.echo(
        f"not killed: {', '.join(f'{name} {count}' for name, count in by_file.most_common()) or 'none'}"
    )
    for by in session.untrue:
        click.echo(f"{by}: fails though nothing is changed, so not all that was killed was", err=True)
    sys.exit(0 if share >= least and not session.untrue else 1)


if __name__ == "__main__":
    main()
