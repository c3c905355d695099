"""Tests that need programs of the system: skipped where they are missing, and then the reason says what to do.

    pytestmark = needs("prometheus", "promtool")

`make test` installs their packages where it may. With CI set, a skipped test is a failure (conftest.py): what was
to be tested there has not been.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PACKAGES = Path(__file__).with_name("debian-packages.txt")
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
"""Debian keeps what administrators run out of other people's way."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""What root has on Debian, whatever the tests were started with."""


def packages() -> dict[str, str]:
    """Return the Debian package of each program that tests run."""
    lines = (line.partition("#")[0].split() for line in PACKAGES.read_text().splitlines())
    return {line[0]: line[1] for line in lines if line}


def needs(*programs: str, root: bool = False) -> pytest.MarkDecorator:
    """Return a mark that skips a test where a program is missing, or where it would have to be root and make
    namespaces. `python3:ensurepip` is a module of root's Python.
    """
    missing = [program for program in programs if not _is_there(program)]
    reasons = []
    if missing:
        known = packages()
        install = " ".join(sorted({known.get(program, program) for program in missing}))
        reasons.append(f"there is no {', '.join(missing)}: apt-get install {install}")
    if root:
        reasons += _forbidden()
    return pytest.mark.skipif(bool(reasons), reason="; ".join(reasons))


@functools.cache
def _is_there(program: str) -> bool:
    interpreter, _, module = program.partition(":")
    if not module:
        return shutil.which(program, path=PATH) is not None
    found = shutil.which(interpreter, path=SYSTEM_PATH)
    if found is None:
        return False
    tried = subprocess.run([found, "-c", f"import {module}"], capture_output=True, check=False)
    return tried.returncode == 0


@functools.cache
def _forbidden() -> list[str]:
    """Return why this process may not do what only root may: root in a container often may not either."""
    if os.geteuid() != 0:
        return ["only root can do this"]
    namespaces = ["unshare", "--mount", "--propagation", "private", "--net", "--pid", "--fork"]
    tried = subprocess.run(
        [*namespaces, "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        env={**os.environ, "PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode == 0:
        return []
    return [
        f"this root may not make namespaces and mounts, so start its container with more: {tried.stderr.strip()}"
    ]


def environ_to_fetch() -> dict[str, str]:
    """Return what of the environment says how this machine reaches its packages."""
    return {
        name: value
        for name, value in os.environ.items()
        if re.search("PIP_|PROXY|SSL|CERT|CA_BUNDLE", name.upper())
    }
