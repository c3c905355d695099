"""Run the fuzz targets under atheris, each for a fixed number of inputs; say how many, how long, and what was found.

    python tests/fuzz/run.py [--inputs N] [--targets client,peer] [--jobs 2]

An input that breaks a law, takes longer than ten seconds or lets memory grow past a bound is kept as a file below
`var/fuzz/finds/`, and the exit code is 1. Once it is understood its file belongs in `tests/fuzz/regressions/`,
below the target's name, where `make test` finds it. What coverage has taught is kept in `var/fuzz/corpus/`.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from targets import HERE, TARGETS, Target

ROOT = HERE.parent.parent
WORK = ROOT / "var/fuzz"
MOST_MEGABYTES = 512
"""What a process may have in use: the coverage maps, and a corpus of small inputs. Inputs leave nothing behind."""

SLOW_SECONDS = 10
"""An input takes a millisecond, on a busy machine some; this is a hang."""

DEFAULT_INPUTS = 200_000
_DONE = re.compile(r"Done (\d+) runs? in \d+ second")
_MEMORY = re.compile(r"rss: (\d+)Mb")


@dataclass(frozen=True)
class Outcome:
    """What became of one target."""

    target: Target
    wanted: int
    inputs: int
    seconds: float
    megabytes: int
    finds: list[Path]
    log: Path

    @property
    def is_good(self) -> bool:
        return self.inputs >= self.wanted and not self.finds


def main() -> int:
    options = _options()
    chosen = [TARGETS[name] for name in options.targets.split(",")]
    shares = sum(target.share for target in chosen)
    counts = [-(-options.inputs * target.share // shares) for target in chosen]
    began = time.monotonic()
    with ThreadPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(_fuzz, chosen, counts, [options.seed] * len(chosen)))
    for one in outcomes:
        rate = one.inputs / max(one.seconds, 0.001)
        print(
            f"{one.target.name:8} {one.inputs:9} inputs {one.seconds:8.1f} s {rate:8.0f}/s "
            f"{one.megabytes:4} MB  {len(one.finds)} found"
        )
        for find in one.finds:
            print(f"         {find.relative_to(ROOT)}; what it broke stands in {one.log.relative_to(ROOT)}")
        if not one.is_good and not one.finds:
            print(f"         ended early; see {one.log.relative_to(ROOT)}")
    total = sum(one.inputs for one in outcomes)
    found = sum(len(one.finds) for one in outcomes)
    print(f"{'all':8} {total:9} inputs {time.monotonic() - began:8.1f} s, {found} found")
    return 0 if all(one.is_good for one in outcomes) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz proxyherd with atheris.")
    parser.add_argument("--inputs", type=int, default=DEFAULT_INPUTS, help="inputs over all targets")
    parser.add_argument("--targets", default=",".join(TARGETS), help="names with commas between")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at once")
    parser.add_argument("--seed", type=int, default=0, help="0: another one each time")
    options = parser.parse_args()
    if unknown := set(options.targets.split(",")) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    return options


def _fuzz(target: Target, count: int, seed: int) -> Outcome:
    """Run one target in a process of its own."""
    finds, corpus, seeds = (WORK / kind / target.name for kind in ("finds", "corpus", "seeds"))
    for folder in (finds, corpus, seeds):
        folder.mkdir(parents=True, exist_ok=True)
    for stale in seeds.iterdir():
        stale.unlink()
    for number, data in enumerate([*target.seeds(), *(data for _, data in target.regressions())]):
        (seeds / f"{number:03}").write_bytes(data)
    before = set(finds.iterdir())
    log = WORK / f"{target.name}.log"
    command = [
        *(sys.executable, str(HERE / "under_atheris.py"), target.name),
        *(f"-runs={count}", f"-seed={seed}", "-max_len=1024", f"-timeout={SLOW_SECONDS}"),
        *(f"-rss_limit_mb={MOST_MEGABYTES}", f"-artifact_prefix={finds}/", f"-dict={target.dictionary}"),
        *("-print_final_stats=1", "-detect_leaks=0", str(corpus), str(seeds)),
    ]
    began = time.monotonic()
    with log.open("wb") as output:
        subprocess.run(command, check=False, stdout=output, stderr=output, cwd=ROOT)
    seconds = time.monotonic() - began
    said = log.read_text(errors="replace")
    done = _DONE.findall(said)
    stopped = re.findall(r"stat::number_of_executed_units:\s*(\d+)", said)
    inputs = int((done or stopped or ["0"])[-1])
    megabytes = max(map(int, _MEMORY.findall(said)), default=0)
    return Outcome(target, count, inputs, seconds, megabytes, sorted(set(finds.iterdir()) - before), log)


if __name__ == "__main__":
    sys.exit(main())
