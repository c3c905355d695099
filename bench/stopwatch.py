"""What commands cost inside one server, in microseconds of CPU: for small changes, and on busy machines.

    .venv/bin/python bench/stopwatch.py FOLDER...

A FOLDER is a checkout, one of those that bench/pythons.sh makes, or one into which a wheel was installed (`pip install
--target FOLDER dist/….whl`). They take turns, each in a process of its own, on the Python of its own .venv, or else on
this one. The script is that of tests/support/cost.py, whose connections are lists: it writes its journal and its log,
but has no sockets. Figures are the least of all turns, because other work on the machine only adds to them.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Self

import click

HERE = Path(__file__).parent
_TURN_SECONDS = 3.0
_TURNS_OF_A_SERVER = 60


class Stopwatch:
    """Takes the place of cost.Meter: counts the CPU time of this thread instead of opcodes."""

    def __init__(self) -> None:
        self._nanoseconds = 0

    def __enter__(self) -> Self:
        gc.disable()
        self._began = time.thread_time_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self._nanoseconds += time.thread_time_ns() - self._began
        gc.enable()

    def a_command(self, commands: int) -> tuple[float, float]:
        """Return the microseconds of a command, where cost.Meter returns opcodes and calls."""
        return self._nanoseconds / commands / 1000, 0.0


def measure_here() -> dict[str, float]:
    """Measure this process' proxyherd for some seconds."""
    sys.path.insert(0, str(HERE.parent / "tests/support"))
    import cost  # noqa: PLC0415 - only a process that measures imports the program

    cost.Meter = Stopwatch  # type: ignore[misc,assignment]
    cost.TURNS = _TURNS_OF_A_SERVER
    least: dict[str, float] = {}
    end = time.monotonic() + _TURN_SECONDS
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            costs = asyncio.run(cost.BareServer(Path(folder)).run())
        for name, (microseconds, _) in costs.items():
            least[name] = min(microseconds, least.get(name, microseconds))
    return least


def measure(folder: Path) -> dict[str, float]:
    """Measure the proxyherd of a folder, in another process."""
    own = folder / ".venv/bin/python"
    script = folder / "bench/stopwatch.py"
    done = subprocess.run(
        [
            str(own) if own.exists() else sys.executable,
            str(script if script.exists() else __file__),
            "--here",
        ],
        env={**os.environ, "PYTHONPATH": str(folder)},
        cwd="/tmp",  # where no other proxyherd is found
        stdout=subprocess.PIPE,
        check=True,
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.argument("folders", nargs=-1, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--turns", type=click.IntRange(1), default=5, show_default=True, help="Of each folder.")
@click.option("--here", is_flag=True, hidden=True)
def main(folders: tuple[Path, ...], *, turns: int, here: bool) -> None:
    """Measure, and print a table: a command a line, and a column for each folder."""
    if here:
        warnings.simplefilter("ignore")
        click.echo(json.dumps(measure_here()))
        return
    folders = tuple(folder.resolve() for folder in folders or (HERE.parent,))
    least: dict[Path, dict[str, float]] = {folder: {} for folder in folders}
    for _ in range(turns):
        for folder, best in least.items():
            for name, microseconds in measure(folder).items():
                best[name] = min(microseconds, best.get(name, microseconds))
    click.echo("| CPU µs a command | " + " | ".join(folder.name for folder in folders) + " |")
    click.echo("| --- |" + " ---: |" * len(folders))
    for name in least[folders[0]]:
        click.echo(f"| {name} | " + " | ".join(f"{best[name]:.2f}" for best in least.values()) + " |")


if __name__ == "__main__":
    main()
