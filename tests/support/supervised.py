"""The default herd under a real supervisord, in a folder of its own.

    with supervised_herd() as herd:
        assert herd.ctl("restart", "herd:Clark").returncode == 0

supervisord runs as it does for users: as a daemon, which is nobody's child, and which the servers may outlive. So
ending it all is the work of a guard, a process that does nothing until its stdin ends, as it does when the test is
over and also when the tests are killed. Whatever works in the folder is then ended, by its id.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, cast
from xmlrpc.client import Fault, dumps, loads

from herd_process import ROOT, RunningHerd, ServerProcess, herd_of, wait_until

from proxyherd.config import herd_file

_NOT_OURS = re.compile(
    r"PROXYHERD_|GOOGLE_PLACES_|CREDENTIALS_DIRECTORY|STATE_DIRECTORY|LOGS_DIRECTORY|NOTIFY_"
)


def processes_in(folder: Path) -> set[int]:
    """Return the ids of the processes whose working directory is this folder or below it."""
    found = set()
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                if (process / "cwd").readlink().is_relative_to(folder):
                    found.add(int(process.name))
    return found


class Supervised(Mapping[str, ServerProcess]):
    """A herd's servers by name, and their supervisord."""

    def __init__(self, herd: RunningHerd) -> None:
        self.herd = herd
        self.folder = herd.folder
        self.log_file = herd.folder / "var/log/supervisord.log"

    def __getitem__(self, name: str) -> ServerProcess:
        return self.herd[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.herd)

    def __len__(self) -> int:
        return len(self.herd)

    def install(self, program: str = "") -> None:
        """Install our program, or one with this text, as `make .venv/run.stamp` does. What runs is left alone."""
        ours, programs = Path(sys.executable).parent, self.folder / ".venv/bin"
        programs.mkdir(parents=True, exist_ok=True)
        for name in ("proxyherd", "supervisord", "supervisorctl"):
            (programs / name).unlink(missing_ok=True)
            (programs / name).symlink_to(ours / name)
        if program:
            (programs / "proxyherd").unlink()
            (programs / "proxyherd").write_text(program)
            (programs / "proxyherd").chmod(0o755)

    def run(self, step: str) -> subprocess.CompletedProcess[str]:
        """Carry out what the documentation says, in the folder."""
        return subprocess.run(
            ["sh", "-e", "-c", step],
            cwd=self.folder,
            env={name: value for name, value in os.environ.items() if not _NOT_OURS.match(name)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def start(self) -> None:
        """Start supervisord, which starts the servers."""
        done = self.run("umask 027; .venv/bin/supervisord -c supervisord.conf")
        assert done.returncode == 0, done.stderr

    def ctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run supervisorctl."""
        return self.run(" ".join([".venv/bin/supervisorctl", *(f"'{one}'" for one in arguments)]))

    def states(self) -> dict[str, str]:
        """Return the state of each server, as `supervisorctl status` prints it."""
        return {name: str(info["statename"]) for name, info in self._told().items()}

    def pid(self, name: str) -> int:
        """Return the process that serves; 0 while there is none."""
        return int(self._told()[name]["pid"])

    def _told(self) -> dict[str, dict[str, Any]]:
        """Return what supervisord tells supervisorctl of each server. Starting that one takes a third of a second of a
        core, and tests ask again and again.
        """
        connection = HTTPConnection("localhost")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            with contextlib.closing(connection):
                connection.sock.connect(str(self.folder / "var/run/supervisor.sock"))
                connection.request("POST", "/RPC2", dumps((), "supervisor.getAllProcessInfo"))
                [every], _ = cast("tuple[Any, Any]", loads(connection.getresponse().read()))
        except (OSError, Fault):  # it does not run, or is about to end
            return {}
        return {info["name"]: info for info in every if info["group"] == "herd"}

    def holder(self, name: str) -> int:
        """Return the process that had the state directory last."""
        return int((self[name].state / "lock").read_text())

    def supervisord(self) -> int:
        """Return supervisord's own process."""
        return int((self.folder / "var/run/supervisord.pid").read_text())

    def is_well(self) -> bool:
        """Return whether supervisord and its servers run, and nothing else of this folder."""
        return set(self.states().values()) <= {"RUNNING", "STARTING"} and len(
            processes_in(self.folder)
        ) == 1 + len(self)

    def renew(self) -> None:
        """End whatever runs here and start supervisord anew."""
        _end(self.folder)
        self.start()

    def wait_until_whole(self) -> None:
        """Wait until supervisord says that all run, and they say that they are ready and linked."""
        wait_until(lambda: set(self.states().values()) == {"RUNNING"}, "all servers run")
        self.herd.wait_until_whole()


@contextlib.contextmanager
def _guarded(folder: Path) -> Iterator[None]:
    guard = subprocess.Popen(
        [sys.executable, __file__, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        guard.communicate()


@contextlib.contextmanager
def supervised_herd(changes: Mapping[str, str] | None = None, program: str = "") -> Iterator[Supervised]:
    """Start supervisord; the herd is whole when the body begins. `changes`: what stands in supervisord.conf, and
    what is to stand there instead. `program`: the text of another program, until `install` puts ours in its place.
    """
    default = herd_file.load(ROOT / "deploy/herd.toml")
    text = (ROOT / "supervisord.conf").read_text()
    for old, new in (changes or {}).items():
        assert old in text
        text = text.replace(old, new)
    with herd_of(default.edges) as herd, _guarded(herd.folder):
        (herd.folder / "supervisord.conf").write_text(text)
        supervised = Supervised(herd)
        supervised.install(program)
        supervised.start()
        supervised.wait_until_whole()
        yield supervised


def _end(folder: Path) -> None:
    while found := processes_in(folder):
        for process in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)  # they are nobody's children here, so that none can be waited for


if __name__ == "__main__":
    sys.stdin.read()
    _end(Path(sys.argv[1]))
