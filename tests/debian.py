"""Tests that need programs of the system: skipped where they are missing, and then the reason says what to do.

    pytestmark = needs("prometheus", "promtool")

`make test` installs their packages where it may. With CI set, a skipped test is a failure (conftest.py): what was
to be tested there has not been.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

PACKAGES = Path(__file__).with_name("debian-packages.txt")
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Debian keeps what administrators run out of other people's way."""


def packages() -> dict[str, str]:
    """Return the Debian package of each program that tests run."""
    lines = (line.partition("#")[0].split() for line in PACKAGES.read_text().splitlines())
    return {line[0]: line[1] for line in lines if line}


def needs(*programs: str, root: bool = False) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a program is missing, or where it would have to be root."""
    missing = [program for program in programs if shutil.which(program, path=PATH) is None]
    reasons = []
    if missing:
        known = packages()
        install = " ".join(sorted({known.get(program, program) for program in missing}))
        reasons.append(f"there is no {', '.join(missing)}: apt-get install {install}")
    if root and os.geteuid() != 0:
        reasons.append("only root can do this")
    return pytest.mark.skipif(bool(reasons), reason="; ".join(reasons))
