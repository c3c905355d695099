"""Simulates as many herds as wanted, on all cores, with a progress bar; stops at the first law that is broken.

python tests/support/soak.py [--seeds 100000] [--first 0]

A failing seed prints itself and its trace; `simulation.check(seed)` runs it again, exactly the same.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).parent))

from simulation import check

CHUNK = 25


def run(first: int) -> int:
    """Run a chunk of seeds. Raises AssertionError with the seed and its trace."""
    for seed in range(first, first + CHUNK):
        check(seed)
    return CHUNK


@click.command(help=__doc__)
@click.option("--seeds", default=100_000, show_default=True, help="How many herds.")
@click.option("--first", default=0, show_default=True, help="The first seed.")
def main(seeds: int, first: int) -> None:
    with (
        ProcessPoolExecutor(os.cpu_count()) as pool,
        click.progressbar(length=seeds, label="Simulating herds") as bar,
    ):
        try:
            for done in pool.map(run, range(first, first + seeds, CHUNK)):
                bar.update(done)
        except AssertionError as broken:
            pool.shutdown(cancel_futures=True)
            click.echo(f"\n{broken}", err=True)
            sys.exit(1)


if __name__ == "__main__":
    main()
