"""How the herd stands against others: workloads over all contenders, in turns, as tables, JSON and pictures.

    make bench                                                          all of it, and docs/report.md anew
    make bench BENCH_ARGS=--quick                                       does it work?
    make bench BENCH_ARGS='--only "one 50x32"'                          one workload, in less than a minute
    make bench BENCH_ARGS='--only "one 50x32" --against ../before'      this checkout and another one, in turns
    make bench BENCH_ARGS='--only "one 50x32" --contender node --rounds 9 --folder FOLDER'

All contenders of a workload run the whole time and take turns, each round from another one on, so that a noisy machine
disturbs all alike; the first turn of each is not counted. Figures are medians over the rounds with the least and the
most. The table at the end has ours as a multiple of others, from the pairs that each round makes. What does not pass
its check has no figures that count. If that is this program, the exit code is 1; some of the others lose updates by design.

To measure a change: commit what was before into a worktree (`git worktree add ../before HEAD`), and run --against it. The
other checkout runs on the Python of its own .venv, without one on this one's; both are driven and checked by this one.

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
import native
import report
from contender import Contender, Sent
from driving import Figures, Run, limit
from lineup import CONTENDERS, Proxyherd, checkout
from messages import count_messages
from tables import aligned, goals, text
from workloads import COMMANDS, FEW, QUICK, WORKLOADS, Workload

Told = Callable[[str], None]
ROOT = Path(__file__).parent.parent


class Options(NamedTuple):
    """How much is measured. A workload may want fewer rounds, unless so many were asked for."""

    rounds: int
    commands: int
    clients: int
    asked_for: bool = False

    def rounds_of(self, workload: Workload) -> int:
        """Return how many rounds count."""
        return self.rounds if self.asked_for else min(self.rounds, workload.rounds)


FULL = Options(rounds=5, commands=COMMANDS, clients=20_000)
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
        if {"generator_busy", "late_p99_ms"} & medians.keys():
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
        steps = [Entrant.prepare, *[Entrant.measure] * options.rounds_of(workload), Entrant.check]
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
        "system": f"{_distribution()}, {platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "generator": "in Python" if native.missing() else "in C",
        "versions": {
            **{name: _installed(name) for name in ("uvloop", "Twisted")},
            **{name: _said(name, "--version") for name in ("node", "redis-server")},
        },
    }


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        return "unknown distribution"


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


def present(chosen: Sequence[type[Contender]]) -> tuple[list[type[Contender]], dict[str, str]]:
    """Return those that can run here, and why the others cannot."""
    missing = {one.name: why for one in chosen if (why := one.missing())}
    return [one for one in chosen if one.name not in missing], missing


def chosen_ones(
    names: Sequence[str], against: Sequence[type[Contender]], *, quick: bool
) -> list[type[Contender]]:
    """Return who was asked for; all there are, where nobody was."""
    if against:
        names = names or (Proxyherd.name,)
    elif quick:
        names = names or FEW
    return [*(CONTENDERS[name] for name in names or CONTENDERS), *against]


def measure(
    lineups: dict[str, list[type[Contender]]],
    options: Options,
) -> dict[str, Any]:
    """Run workloads, with a bar of progress; print each one's table; return their reports by name."""
    steps = {name: len(lineup) * (options.rounds_of(WORKLOADS[name]) + 2) for name, lineup in lineups.items()}
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
                "ours": workload.ours,
                "curve": workload.curve,
                "at": workload.at,
                "contenders": reports,
            }
            click.echo(("\r\033[K" if sys.stderr.isatty() else "") + text(results[name]) + "\n")
    return results


def line_up(
    names: Sequence[str], contenders: Sequence[type[Contender]], *, all_of_them: bool, quick: bool
) -> dict[str, list[type[Contender]]]:
    """Return who takes part in which workload: in those that were asked for its rivals, in others the usual ones."""
    lineups = {}
    for name in names or (QUICK if quick else WORKLOADS):
        workload = WORKLOADS[name]
        among = () if all_of_them else workload.narrow if names else workload.usual
        lineups[name] = [one for one in contenders if workload.fits(one) and (not among or one.name in among)]
    return lineups


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option(
    "--only", "names", multiple=True, type=click.Choice(list(WORKLOADS)), help="Workloads. [default: most]"
)
@click.option(
    "--against",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Another checkout of proxyherd that takes turns with this one.",
)
@click.option(
    "--contender",
    "chosen",
    multiple=True,
    type=click.Choice(list(CONTENDERS)),
    help="[default: as each workload has them; with --only its rivals, with --against nobody else]",
)
@click.option("--quick", is_flag=True, help="Two minutes, to see whether all works.")
@click.option("--rounds", type=click.IntRange(1), help=f"[default: {FULL.rounds} at most]")
@click.option(
    "--commands",
    type=click.IntRange(_LEAST_COMMANDS),
    help=f"In a run, times a workload's share. [default: {FULL.commands}]",
)
@click.option("--clients", type=click.IntRange(1_000), help=f"Distinct ones. [default: {FULL.clients}]")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where results go.")
def main(
    names: Sequence[str],
    against: Sequence[Path],
    chosen: Sequence[str],
    *,
    quick: bool,
    rounds: int | None,
    commands: int | None,
    clients: int | None,
    folder: Path | None,
) -> None:
    """Measure, and print tables."""
    try:
        others = [checkout(one) for one in against]
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    contenders, missing = present(chosen_ones(chosen, others, quick=quick))
    if why := native.missing():
        missing["the generator in C"] = f"{why}; the one in Python may be the limit itself"
    for name, why in missing.items():
        click.echo(f"left out: {name}: {why}", err=True)
    if not contenders:
        raise click.ClickException("none of these contenders can run here")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the servers inherit it
    default = SHORT if quick else FULL
    options = Options(
        rounds or default.rounds, commands or default.commands, clients or default.clients, bool(rounds)
    )
    whole = not (quick or names or chosen or against)
    folder = folder or ROOT / ("docs/bench" if whole else "var/bench")
    folder.mkdir(parents=True, exist_ok=True)
    lineups = line_up(names, contenders, all_of_them=bool(chosen or against), quick=quick)
    results: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "options": options._asdict(),
        "left_out": missing,
        "workloads": measure(lineups, options),
    }
    if not names:
        _add_the_rest(results, folder, quick=quick)
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    if not (names or against):
        report.draw(results, folder)
    if whole:
        report.write(results, ROOT / "docs/report.md")
    if pairs := goals(results["workloads"]):
        click.echo(aligned(pairs))
    click.echo(f"{folder}: results.json{'' if names or against else ' and pictures'}", err=True)
    if any(
        one["faults"]
        for work in results["workloads"].values()
        for name, one in work["contenders"].items()
        if name.startswith("proxyherd")
    ):
        raise SystemExit(1)


def _add_the_rest(results: dict[str, Any], folder: Path, *, quick: bool) -> None:
    """Count messages, and draw where a full server spends its time."""
    results["messages"] = count_messages()
    if why := flame.record(folder / "profile.svg", seconds=2 if quick else 5):
        results["left_out"]["profile"] = why
        click.echo(f"left out: profile: {why}", err=True)


if __name__ == "__main__":
    main()
