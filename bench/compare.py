"""How the herd stands against others: workloads over all contenders, in turns, as tables, JSON and pictures.

    .venv/bin/python bench/compare.py [--quick] [--workload iamat-1] [--contender node] [--rounds 3] [--folder FOLDER]

All contenders of a workload run the whole time and take turns, each round from another one on, so that a noisy machine
disturbs all alike; the first turn of each is not counted. Figures are medians over the rounds with the least and the
most. What does not pass its check has no figures that count, and the exit code is 1.

Into FOLDER go results.json and the pictures. With all workloads that is docs/bench, and the tables of docs/report.md are
written anew too; with --quick or with chosen ones it is var/bench, and the report stays as it is.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import click
import flame
import report
from contender import Contender, Sent
from driving import Figures, Run, limit
from lineup import CONTENDERS
from messages import count_messages
from tables import text
from workloads import FEW, QUICK, USUAL, WORKLOADS, Workload

Told = Callable[[str], None]
ROOT = Path(__file__).parent.parent


class Options(NamedTuple):
    """How much is measured."""

    rounds: int
    commands: int
    clients: int


FULL = Options(rounds=5, commands=30_000, clients=20_000)
SHORT = Options(rounds=1, commands=10_000, clients=5_000)
_LEAST_COMMANDS = 200


class Entrant:
    """One contender in one workload: what it was sent and what was measured, until something goes wrong."""

    def __init__(self, contender: Contender, workload: Workload, options: Options) -> None:
        self.contender = contender
        self.sent = Sent()
        self.once: Figures = {}
        self.rounds: list[Figures] = []
        self.faults: list[str] = []
        self._workload = workload
        self._commands = max(_LEAST_COMMANDS, round(options.commands * workload.share))
        self._clients = options.clients

    def prepare(self) -> None:
        """Do what is done once."""
        self.once = self._do(self._workload.prepare or self._workload.run) or {}

    def measure(self) -> None:
        """Do a round."""
        figures = self._do(self._workload.run)
        if figures is not None:
            self.rounds.append(figures)

    def check(self) -> None:
        """See whether what it holds is what it was sent."""
        if not self.faults:
            self.faults = self.contender.check(self.sent)

    def _do(self, run: Run) -> Figures | None:
        if self.faults:
            return None
        try:
            return run(self.contender, self.sent, self._commands, self._clients)
        except (OSError, RuntimeError) as error:
            self.faults.append(f"{self.contender.name}: {error}")
            return None

    def report(self) -> dict[str, Any]:
        """Return what is known, as JSON has it."""
        runs = {key: [round(one[key], 4) for one in self.rounds] for key in (self.rounds or [{}])[0]}
        runs = {**{key: [round(value, 4)] for key, value in self.once.items()}, **runs}
        medians = {key: statistics.median(values) for key, values in runs.items()}
        figures = {
            key: {"median": medians[key], "least": min(values), "most": max(values), "rounds": values}
            for key, values in runs.items()
        }
        report: dict[str, Any] = {"figures": figures, "faults": self.faults}
        if "generator_busy" in medians and "late_p99_ms" not in medians:
            report["limit"] = limit(medians, len(self.contender.names))
        return report


def compare(
    workload: Workload, contenders: Iterable[type[Contender]], options: Options, tell: Told
) -> dict[str, Any]:
    """Run one workload; return the report of each contender by name. `tell` hears of each step, by a contender's name."""
    with ExitStack() as stack:
        entrants = [
            Entrant(stack.enter_context(contender(workload.edges)), workload, options)
            for contender in contenders
        ]
        steps = [Entrant.prepare, *[Entrant.measure] * min(options.rounds, workload.rounds), Entrant.check]
        for number, step in enumerate(steps):
            first = number % max(1, len(entrants))
            for entrant in [*entrants[first:], *entrants[:first]]:
                tell(entrant.contender.name)
                step(entrant)
        return {entrant.contender.name: entrant.report() for entrant in entrants}


def machine() -> dict[str, Any]:
    """Return what the figures are measured on."""
    return {
        "cpus": os.cpu_count(),
        "processor": _processor(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "versions": {
            **{name: _installed(name) for name in ("uvloop", "Twisted")},
            **{name: _said(name, "--version") for name in ("node", "redis-server")},
        },
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _said(program: str, question: str) -> str:
    """Return the first word with a digit that a program says of its version."""
    if shutil.which(program) is None:
        return ""
    said = subprocess.run([program, question], capture_output=True, text=True, check=False).stdout
    words = [word.removeprefix("v").removeprefix("v=") for word in said.split()]
    return next((word.removeprefix("=") for word in words if word[:1].isdigit() or word[:1] == "="), "")


def present(names: Sequence[str]) -> tuple[list[type[Contender]], dict[str, str]]:
    """Return those that can run here, and why the others cannot."""
    chosen = [CONTENDERS[name] for name in names or CONTENDERS]
    missing = {one.name: why for one in chosen if (why := one.missing())}
    return [one for one in chosen if one.name not in missing], missing


def line_up(
    workload: Workload, contenders: Iterable[type[Contender]], *, asked_for: bool
) -> list[type[Contender]]:
    """Return who takes part in a workload."""
    usual = () if asked_for else workload.usual
    return [one for one in contenders if workload.fits(one) and (not usual or one.name in usual)]


def measure(
    names: Sequence[str], contenders: list[type[Contender]], options: Options, *, asked_for: bool
) -> dict[str, Any]:
    """Run workloads, with a bar of progress; print each one's table; return their reports by name."""
    lineups = {name: line_up(WORKLOADS[name], contenders, asked_for=asked_for) for name in names}
    steps = {
        name: len(lineup) * (min(options.rounds, WORKLOADS[name].rounds) + 2)
        for name, lineup in lineups.items()
    }
    results: dict[str, Any] = {}
    with click.progressbar(
        length=sum(steps.values()), file=sys.stderr, hidden=not sys.stderr.isatty(), width=24
    ) as bar:
        for name, lineup in lineups.items():
            workload = WORKLOADS[name]

            def tell(contender: str, name: str = name) -> None:
                bar.label = f"{name} {contender}"
                bar.update(1)

            reports = compare(workload, lineup, options, tell)
            results[name] = {
                "title": workload.title,
                "main": workload.main,
                "curve": workload.curve,
                "at": workload.at,
                "contenders": reports,
            }
            click.echo(("\r\033[K" if sys.stderr.isatty() else "") + text(results[name]) + "\n")
    return results


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option(
    "--workload", "names", multiple=True, type=click.Choice(list(WORKLOADS)), help="[default: most]"
)
@click.option(
    "--contender",
    "chosen",
    multiple=True,
    type=click.Choice(list(CONTENDERS)),
    help="[default: as each workload has them]",
)
@click.option("--quick", is_flag=True, help="Two minutes, to see whether all works.")
@click.option("--rounds", type=click.IntRange(1), help=f"At most. [default: {FULL.rounds}]")
@click.option(
    "--commands",
    type=click.IntRange(_LEAST_COMMANDS),
    help=f"In a run, times a workload's share. [default: {FULL.commands}]",
)
@click.option("--clients", type=click.IntRange(1_000), help=f"Distinct ones. [default: {FULL.clients}]")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where results go.")
def main(
    names: Sequence[str],
    chosen: Sequence[str],
    *,
    quick: bool,
    rounds: int | None,
    commands: int | None,
    clients: int | None,
    folder: Path | None,
) -> None:
    """Measure, and print tables."""
    contenders, missing = present(chosen or (FEW if quick else ()))
    for name, why in missing.items():
        click.echo(f"left out: {name}: {why}", err=True)
    if not contenders:
        raise click.ClickException("none of these contenders can run here")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the servers inherit it
    default = SHORT if quick else FULL
    options = Options(rounds or default.rounds, commands or default.commands, clients or default.clients)
    whole = not (quick or names or chosen)
    folder = folder or ROOT / ("docs/bench" if whole else "var/bench")
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "options": options._asdict(),
        "left_out": missing,
    }
    results["workloads"] = measure(
        names or (QUICK if quick else USUAL), contenders, options, asked_for=bool(chosen)
    )
    if not names:
        results["messages"] = count_messages()
        if why := flame.record(folder / "profile.svg", seconds=2 if quick else 5):
            results["left_out"]["profile"] = why
            click.echo(f"left out: profile: {why}", err=True)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    report.draw(results, folder)
    if whole:
        report.write(results, ROOT / "docs/report.md")
    click.echo(f"{folder}: results.json and pictures", err=True)
    if any(one["faults"] for work in results["workloads"].values() for one in work["contenders"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
