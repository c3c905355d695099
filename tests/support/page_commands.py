"""Commands of pages that change files and send SIGHUP, carried out in the folder of a herd that was started otherwise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def stand_in(folder: Path) -> None:
    """Put the documented programs where the commands look for them; supervisorctl only notes what it is told."""
    programs = folder / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "proxyherd").symlink_to(Path(sys.executable).parent / "proxyherd")
    (programs / "supervisorctl").write_text('#!/bin/sh\necho "$@" >> var/run/told\n')
    (programs / "supervisorctl").chmod(0o755)


def carry_out(step: str, folder: Path) -> None:
    told = folder / "var/run/told"
    told.write_text("")
    done = subprocess.run(["sh", "-e", "-c", step], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert told.read_text() == ("signal HUP herd:*\n" if "HUP" in step else "")
