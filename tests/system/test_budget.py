"""A budget on disk, whatever moment its process is killed at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "places-budget.sqlite"


SPENDER = """
import os, sys
from pathlib import Path
from proxyherd.places.limits.budget import MEMORY, Budget
from proxyherd.places.failures import FailedError, UnrecordedError
budget = Budget(Path(sys.argv[1]), 10**9, int(sys.argv[2]))
try:
    while True:
        budget.spend()
        os.write(1, b".")
except FailedError:
    os.write(1, b"!")
"""


def run_spender(file: Path, allowed: int, kill_after: int | None) -> bytes:
    """Run a process that prints a dot behind each call it may make; return what it printed until it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", SPENDER, file, str(allowed)], stdout=subprocess.PIPE
    ) as spender:
        assert spender.stdout is not None
        if kill_after is None:
            return spender.stdout.read()
        first = spender.stdout.read(kill_after)
        spender.kill()
        return first + spender.stdout.read()


def test_who_is_killed_at_any_moment_and_starts_again_spends_no_more_and_loses_one_call_a_kill(
    file: Path,
) -> None:
    moments, allowed, kills, printed = Random(7), 8_000, 7, 0
    for _ in range(kills):
        printed += run_spender(file, allowed, moments.randrange(500)).count(b".")
    last = run_spender(file, allowed, None)
    assert last.endswith(b"!")
    printed += last.count(b".")
    assert allowed - kills <= printed <= allowed
