"""A system of its own, booted by systemd, for tests: what it does stays in it, and it ends with the test.

    with booted() as machine:
        machine.run("systemctl start proxyherd@Clark")
        machine.connect(10003)

Its root is an overlay on this system's, which it sees and cannot change; it has its own processes, users of ports and
journal. The rule: nothing of it outlives the test process, however that ends. So all of it, mounts too, lives in
namespaces whose first process the kernel kills with the test process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from debian import PATH, SYSTEM_PATH
from herd_process import ROOT, Connection, wait_until

T = TypeVar("T")

BOOT_SECONDS = 90.0
"""Of a busy machine, after which a boot has failed."""

_CLONE_NEWNET = 0x40000000
_GROUPS = "proxyherd-booted-"
_REBOOT = 133
"""Exit code by which systemd-nspawn asks to be started again."""

# Below /mnt, which is there, and covered in this mount namespace only. What other software of this system would start
# is left out, and so is what a real installation of proxyherd has put.
_BOOT = f"""
set -eu
for group in "$@"; do echo 0 >"$group/cgroup.procs"; done
mount -t tmpfs -o mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cd /mnt/root
rm -rf etc/systemd/system/*.wants etc/proxyherd var/lib/proxyherd var/log/proxyherd var/log/journal
: >etc/machine-id
while :; do
    code=0
    systemd-nspawn --directory=/mnt/root --boot --register=no --keep-unit --console=pipe --private-network --quiet \
        --machine=proxyherd systemd.unit=multi-user.target || code=$?
    [ $code = {_REBOOT} ] || exit $code
done
"""


def copy_checkout(where: Path) -> Path:
    """Copy what `make install` reads of this checkout into a folder, which is made."""
    where.mkdir(parents=True)
    for name in (
        "Makefile",
        "pyproject.toml",
        "setup.py",
        "README.md",
        "LICENSE",
        "proxyherd",
        "deploy",
        "systemd",
    ):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, where / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, where)
    return where


def copy_whole_checkout(where: Path) -> set[str]:
    """Copy the files that the repository has, and those that it would have with the next commit; return their names.

    In a copy without git, as tests/support/pythons.sh makes one, they are those that nothing has made.
    """
    if (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        names = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
    else:
        there = (file for top in ROOT.iterdir() if not _is_made(top) for file in (top, *top.rglob("*")))
        files = (file for file in there if file.is_file() and "__pycache__" not in file.parts)
        names = {file.relative_to(ROOT).as_posix() for file in files}
    for name in names:
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, where / name)
    return names


def _is_made(top: Path) -> bool:
    """Return whether a file or folder of a checkout comes from its use, as .gitignore has it."""
    made = (".venv", "var", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis", "__pycache__")
    return any(top.match(form) for form in made)


def system_python() -> str:
    """Return root's Python, which `make install` takes there: that of these tests may lie in a home folder."""
    found = shutil.which("python3", path=SYSTEM_PATH)
    fits = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
    if not found or subprocess.run([found, "-c", fits], check=False).returncode:
        pytest.skip("there is no Python 3.11 with venv but in home folders: apt-get install python3-venv")
    return found


class BootedMachine:
    """A booted system."""

    def __init__(self, outermost: subprocess.Popen[bytes]) -> None:
        self._outermost = outermost
        self._network: ThreadPoolExecutor | None = None
        self._init = 0

    def wait_until_up(self) -> None:
        """Wait until everything that starts at boot has been started."""
        self._init = wait_until(self._find_init, "systemd runs", BOOT_SECONDS)
        wait_until(self._is_up, "the system is up", BOOT_SECONDS)
        if self._network:
            self._network.shutdown()
        self._network = ThreadPoolExecutor(1, initializer=self._enter_network)

    def _find_init(self) -> int:
        assert self._outermost.poll() is None, "systemd-nspawn has ended"
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self._outermost.pid).children(recursive=True):
                names = [one.name() for one in (process, *process.parents()[:1])]
                if names == ["systemd", "systemd-nspawn"] and process.pid != self._init:
                    return process.pid
        return 0

    def _is_up(self) -> bool:
        done = self.run("systemctl is-system-running", check=False)
        return done.stdout.strip() in {"running", "degraded"}

    def run(
        self,
        script: str,
        *,
        check: bool = True,
        stdin: str = "",
        seconds: float = 600,
        outside_network: bool = False,
        environ: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of bash in it, as root. It fails with the first command that does, unless not to `check`."""
        namespaces = ["-m", "-p", "-u", "-i", "-C", "-r", "-w", *([] if outside_network else ["-n"])]
        done = subprocess.run(
            ["nsenter", "-t", str(self._init), *namespaces, "bash", "-c", f"set -eu; cd /root; {script}"],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            env={"PATH": SYSTEM_PATH, "HOME": "/root", "LC_ALL": "C", **(environ or {})},
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done

    def path(self, path: str) -> Path:
        """Return where one of its files is found from here."""
        return Path(f"/proc/{self._init}/root/{path.lstrip('/')}")

    def changed(self) -> set[str]:
        """Return all files in which it differs from this system, on which others work too."""
        [shell] = psutil.Process(self._outermost.pid).children()
        upper = Path(f"/proc/{shell.pid}/root/mnt/upper")
        # Character devices there stand for files that were removed.
        files = (file for file in upper.rglob("*") if file.is_symlink() or file.is_file())
        return {f"/{file.relative_to(upper)}" for file in files}

    def inside_network(self, call: Callable[[], T]) -> T:
        """Let a call make its sockets there; they stay there, whoever uses them."""
        assert self._network
        return self._network.submit(call).result()

    def connect(self, port: int) -> Connection:
        return self.inside_network(lambda: Connection(port))

    def reboot(self) -> None:
        self.run("systemctl reboot", check=False)
        self.wait_until_up()

    def _enter_network(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = os.open(f"/proc/{self._init}/ns/net", os.O_RDONLY)
        try:
            if libc.setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End every process of it."""
        if self._network:
            self._network.shutdown()
        if self._outermost.poll() is None:
            processes = psutil.Process(self._outermost.pid).children(recursive=True)
            self._outermost.kill()
            self._outermost.wait()
            psutil.wait_procs(processes)


@contextlib.contextmanager
def booted() -> Iterator[BootedMachine]:
    """Boot a system; it is up when the body begins."""
    with _groups() as groups, tempfile.TemporaryFile() as output:
        namespaces = ["--mount", "--propagation", "private", "--pid", "--mount-proc"]
        outermost = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "--"),
                *("unshare", *namespaces, "--fork", "--kill-child=KILL", "--"),
                *("sh", "-c", _BOOT, "sh", *map(str, groups)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "PATH": PATH},
        )
        machine = BootedMachine(outermost)
        try:
            try:
                machine.wait_until_up()
            except AssertionError as error:
                output.seek(0)
                said = output.read().decode(errors="replace")
                if "Operation not permitted" in said or "permission denied" in said:
                    pytest.skip(f"this root may not boot a system of its own: {said}")
                raise AssertionError(said) from error
            yield machine
        finally:
            machine.close()


def remove_leftovers() -> None:
    """Remove the control groups of test processes that were killed: empty, the kernel leaves them behind."""
    for group in [group for top in _tops() for group in top.glob(f"{_GROUPS}*")]:
        if not psutil.pid_exists(int(group.name.removeprefix(_GROUPS))):
            _remove_empty(group)


@contextlib.contextmanager
def _groups() -> Iterator[Sequence[Path]]:
    """Lend control groups of its own, in each hierarchy where systemd wants one."""
    remove_leftovers()
    groups = [top / f"{_GROUPS}{os.getpid()}" for top in _tops()]
    try:
        for group in groups:
            group.mkdir()
        yield groups
    finally:
        for group in groups:
            wait_until(partial(_remove_empty, group), f"{group} is empty")


def _tops() -> list[Path]:
    """Return the control groups that this process is in."""
    return [
        hierarchy / group.lstrip("/")
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        for _, controllers, group in [line.split(":", 2)]
        for hierarchy in _hierarchies(controllers)
    ]


def _hierarchies(controllers: str) -> list[Path]:
    """Return where systemd's hierarchy is mounted: that of version 2, and of the mixed form the named one too."""
    top = Path("/sys/fs/cgroup")
    if controllers == "name=systemd":
        return [top / "systemd"]
    if not controllers:
        return [top / "unified" if (top / "unified").exists() else top]
    return []


def _remove_empty(group: Path) -> bool:
    """Remove groups, the innermost first, that no process is in; return whether all have gone."""
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)  # noqa: PTH106 - as os.walk names it
    return not group.exists()
