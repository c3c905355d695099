"""The programs that were installed with this one: where they are, and how the user types them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from proxyherd.local.messages import fail


def locate(program: str) -> Path:
    """Return the path of `proxyherd`, `supervisord` or `supervisorctl`: beside the program that runs, or beside its Python,
    or else on the PATH. Fails where it is not installed.
    """
    found = (folder / program for folder in _folders() if os.access(folder / program, os.X_OK))
    return next(found, None) or fail(
        f"there is no {program} beside {sys.argv[0]}, and none on the PATH; install it: pip install supervisor"
    )


def _folders() -> Iterator[Path]:
    started = Path(sys.argv[0]).absolute()
    if started.name == "proxyherd":
        yield started.parent
        yield started.resolve().parent
    yield Path(sys.executable).parent
    yield from map(Path, os.get_exec_path())


def typed_as(program: str) -> str:
    """Return how the user types a program in this folder: its name alone, if the shell finds it by that."""
    path = locate(program)
    on_path = shutil.which(program)
    if on_path and Path(on_path).samefile(path):
        return program
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def run_program(program: str, *arguments: str, stdout: int | None = None) -> None:
    """Run a program, which says itself what is wrong. Ends with its exit code if it fails."""
    if code := ask(program, *arguments, stdout=stdout):
        sys.exit(code)


def ask(program: str, *arguments: str, stdout: int | None = None) -> int:
    """Run a program; return its exit code."""
    sys.stdout.flush()
    return subprocess.run([locate(program), *arguments], stdout=stdout, check=False).returncode  # noqa: S603 - its own
