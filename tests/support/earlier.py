"""The program as it was when servers spoke only version 1 of the peer protocol, from this repository's history.

    if earlier.install(folder):
        server.program = earlier.program(folder)

Its dependencies are those of this environment. A checkout without its history has no such program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from herd_process import ROOT

COMMIT: Final = "7fb270e90ed911851b90e589c4642d4b1703f1b6"
"""The last commit whose servers speak version 1 only."""

LACKING: Final = f"this checkout's history lacks {COMMIT}, the last program of version 1"

_LACKS: Final = (b"not a git repository", b"not a valid object name", b"not a tree object")
_RUN: Final = """
import sys

sys.path.insert(0, {folder!r})
sys.argv[0] = "proxyherd"
from proxyherd.cli import main

main()
"""


def install(folder: Path) -> bool:
    """Put the program into a new folder; return whether the history has it, and git is there to tell."""
    if shutil.which("git") is None:
        return False
    archive = subprocess.run(
        ["git", "archive", COMMIT, "proxyherd"],
        cwd=ROOT,
        env=os.environ | {"LC_ALL": "C"},
        capture_output=True,
        check=False,
    )
    if any(sign in archive.stderr for sign in _LACKS):
        return False
    assert archive.returncode == 0, archive.stderr
    folder.mkdir(parents=True)
    subprocess.run(["tar", "-x"], cwd=folder, input=archive.stdout, check=True)
    return True


def program(folder: Path) -> list[str]:
    """Return the command of a program that is installed in a folder."""
    return [sys.executable, "-c", _RUN.format(folder=str(folder))]


def script(folder: Path) -> str:
    """Return the text of an executable file that is that command."""
    return f"#!{sys.executable}{_RUN.format(folder=str(folder))}"
