"""A newcomer's machine: a copy of the checkout, in which the pages' commands are typed."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from gazetteer_file import gazetteer_file
from herd_process import ROOT, short_folder, wait_until
from places_sim import environment

from proxyherd.config import herd_file

HERD = herd_file.load(ROOT / "deploy/herd.toml")


MOST_SECONDS = 600.0
"""For one command on a busy machine."""


class Machine:
    """A network and process ids of their own, and a folder like a checkout that has been installed."""

    def __init__(self, folder: Path, notes: Path, inside: int) -> None:
        self.folder = folder
        self._notes = notes
        self._enter = ["nsenter", f"--target={inside}", "--net", "--pid", "--mount", f"--wd={folder}"]
        self._count = 0
        self._started: list[subprocess.Popen[str]] = []
        self._shell = self.start("exec bash --norc", stdin=subprocess.PIPE)[0]

    def start(self, command: str, stdin: int = subprocess.DEVNULL) -> tuple[subprocess.Popen[str], Path]:
        """Start a command in a terminal of its own; return it, and the file of what it prints."""
        self._count += 1
        printed = self._notes / f"{self._count}.printed"
        variables = environment(PYTHONUNBUFFERED="1").items()
        with printed.open("w") as out:
            process = subprocess.Popen(
                [*self._enter, "bash", "-c", command],
                stdin=stdin,
                stdout=out,
                stderr=out,
                text=True,
                env={name: value for name, value in variables if not name.startswith("MAKE")},
            )
        self._started.append(process)
        return process, printed

    def make_run(self) -> str:
        """Start the herd. Readers type slower than this: supervisord has seen it last when they go on."""
        printed = self.run("make run")
        status = ".venv/bin/supervisorctl status || true"
        wait_until(lambda: self.run(status).count(" RUNNING ") == len(HERD.servers), "all are RUNNING")
        return printed

    def wait(self) -> None:
        """Wait for what was started: its process ids have ended."""
        for process in self._started:
            process.communicate()

    def run(self, command: str, typed: str = "") -> str:
        """Run a command in the first terminal, whose shell stays the same; return what it has printed."""
        self._count += 1
        step, stdin, printed, ended = (
            self._notes / f"{self._count}.{what}" for what in ("step", "stdin", "printed", "ended")
        )
        step.write_text(f"{command}\n")
        stdin.write_text(typed)
        assert self._shell.stdin is not None
        self._shell.stdin.write(f". {step} <{stdin} >{printed} 2>&1; echo $? >{ended}\n")
        self._shell.stdin.flush()
        code = wait_until(
            lambda: ended.exists() and ended.read_text().strip(), f"{command} ends", MOST_SECONDS
        )
        assert code == "0", f"exit code {code}: {command}\n{printed.read_text()}"
        return printed.read_text()


@contextlib.contextmanager
def machine() -> Iterator[Machine]:
    away = ("unshare", "--net", "--pid", "--mount-proc", "--fork", "--kill-child")
    with short_folder() as folder, short_folder() as notes:
        _lay_out(folder)
        holder = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *away, "sh", "-c", "ip link set lo up && echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "up\n"
            [inside] = _children(holder)
            there = Machine(folder, notes, inside)
        except BaseException:
            holder.communicate()
            raise
        try:
            yield there
        finally:
            holder.communicate()  # with its stdin the first of the process ids ends, and all others with it
            there.wait()


def _lay_out(folder: Path) -> None:
    for file in ("Makefile", "pyproject.toml", "supervisord.conf"):
        shutil.copy(ROOT / file, folder)
    shutil.copytree(ROOT / "deploy", folder / "deploy", ignore=shutil.ignore_patterns("var"))
    (folder / "proxyherd").symlink_to(ROOT / "proxyherd")
    (folder / ".venv").mkdir()
    (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv/run.stamp").touch()
    (folder / "var").mkdir()
    shutil.copy(gazetteer_file(), folder / "var/gazetteer.dat")


def _children(process: subprocess.Popen[str]) -> list[int]:
    """Return the process that runs in a terminal, if it does: nsenter only waits for it, as unshare does."""
    return [*map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())]
