"""Where a full server spends its time: a flame graph of one that takes reports as fast as it can, by py-spy.

    .venv/bin/python bench/flame.py [FILE]

Frames are functions of Python; what C code and the system spend for one is its own. A frame's width is its share of
the samples, which are taken only of threads that run.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from contender import Sent
from driving import drive
from lineup import Proxyherd
from load import Generator, Job
from plan import Plan

ROOT: Final = Path(__file__).parent.parent
_SAMPLES_A_SECOND: Final = 500
_MOST_COMMANDS_A_SECOND: Final = 120_000
"""More than a server answers: the load has to outlast the samples."""


def record(file: Path, *, seconds: int) -> str:
    """Write a flame graph as SVG; return why there is none, nothing if there is."""
    program = Path(sys.executable).with_name("py-spy")
    if not program.exists():
        return "py-spy is not installed; pip install -e '.[bench]'"
    with Proxyherd() as server:
        drive(server, Sent(), 10_000, 10_000, outstanding=32)
        plan = Plan(commands=_MOST_COMMANDS_A_SECOND * (seconds + 1), connections=50)
        generator = Generator(Job(plan=plan, ports=list(server.ports.values()), outstanding=32))
        generator.start()
        arguments = ["--format", "flamegraph", "--function", "--duration", str(seconds)]
        done = subprocess.run(
            [
                *(str(program), "record", *arguments, "--rate", str(_SAMPLES_A_SECOND)),
                *("--output", str(file), "--pid", str(server.pids[0])),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        generator.end()
    if done.returncode:
        return f"py-spy failed: {(done.stderr.strip().splitlines() or ['it does not say why'])[-1]}"
    file.write_text(clean(file.read_text()))
    return ""


def clean(svg: str) -> str:
    """Return the picture with a title, and without the folders of this machine."""
    title = "One proxyherd server, IAMAT, 50 connections, 32 outstanding: share of CPU samples by function"
    svg = re.sub(r'(<text id="title"[^>]*>)[^<]*', rf"\g<1>{title}", svg)
    return re.sub(r"\(/[^\s)]*/(?:site-packages|lib/python3\.\d+)/", "(", svg.replace(f"{ROOT}/", ""))


def main() -> None:
    """Record, into the file on the command line."""
    file = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "var/profile.svg")
    file.parent.mkdir(parents=True, exist_ok=True)
    if why := record(file, seconds=5):
        raise SystemExit(why)


if __name__ == "__main__":
    main()
