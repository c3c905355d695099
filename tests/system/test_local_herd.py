"""`make run`, `make stop` and `make clean` in folders in every state: what proxyherd/local sees and refuses.

supervisord, locks and sockets are real; in the servers' place stands `sleep`, which starts at once. What has to be seen
with real servers is in test_tutorial.py and test_supervisord.py.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from debian import needs
from herd_process import ROOT, short_folder, wait_until
from supervised import processes_in

from proxyherd.config import herd_file

NOBODY = 65_534
PYTHON = "/usr/bin/python3"
CONF = """
[supervisord]
environment = PROXYHERD_CONFIG="deploy/herd.toml"
logfile = var/log/supervisord.log
pidfile = var/run/supervisord.pid
directory = .
[unix_http_server]
file = var/run/supervisor.sock
chmod = 0700
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl = unix://var/run/supervisor.sock
[group:herd]
programs = Clark
[program:Clark]
command = sleep 600
startsecs = 1
"""


UP = (
    "import sys; sys.argv[0] = '.venv/bin/proxyherd'; from proxyherd.local import folder, herd; folder.prepare(); herd.up();"
    " print('The herd is up.')"
)
"""In place of the command, which is more than this folder has."""


class Checkout:
    """A folder like a checkout after its installation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user: int | None = None
        self.python = sys.executable
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "proxyherd").mkdir()
        shutil.copy(ROOT / "proxyherd/__init__.py", folder / "proxyherd")
        shutil.copytree(ROOT / "proxyherd/local", folder / "proxyherd/local")
        (folder / ".venv").mkdir()
        (folder / ".venv/bin").symlink_to(Path(sys.executable).parent)
        (folder / "pyproject.toml").write_text('requires-python = ">=3.11"\n')
        (folder / ".venv/run.stamp").touch()
        for below in ("lib/Clark", "log", "run"):
            (folder / "var" / below).mkdir(parents=True)
        (folder / "supervisord.conf").write_text(CONF)

    def make(self, target: str) -> subprocess.CompletedProcess[str]:
        return self.run("make", "--no-print-directory", target, f"PYTHON={self.python}")

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env={"PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            user=self.user,
        )

    def pretend(self, script: str) -> None:
        """Let `proxyherd` be a script, but for `up`; the other programs stay."""
        (self.folder / ".venv/bin").unlink()
        (self.folder / ".venv/bin").mkdir()
        for program in ("python", "supervisord", "supervisorctl"):
            real = Path(sys.executable).parent / program
            self._write(program, f'exec "{real}" "$@"')
        self._write("proxyherd", f'[ "$1" != up ] || exec .venv/bin/python -c "{UP}" "$@"\n{script}')

    def _write(self, program: str, script: str) -> None:
        file = self.folder / ".venv/bin" / program
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    def be_nobody(self) -> None:
        """Type as a user without rights from now on, who may not see the interpreter of the tests."""
        (self.folder / ".venv/bin").unlink()
        (self.folder / ".venv/bin").mkdir()
        self._write("proxyherd", f"exec {PYTHON} -m proxyherd.local prepare")
        self.python = PYTHON
        self.user = NOBODY

    def fails(self, target: str, *told: str) -> None:
        """See that a target fails with one line that says all of this, and that nothing is gone."""
        done = self.make(target)
        assert done.returncode == 2, done  # what make makes of 1
        line = done.stderr.splitlines()[0]
        assert line.startswith(f"make {target}: "), done.stderr
        assert all(one in line for one in told), line
        assert (self.folder / "var/lib/Clark").is_dir()


@pytest.fixture
def checkout() -> Iterator[Checkout]:
    with short_folder() as folder:
        try:
            yield Checkout(folder)
        finally:
            for process in processes_in(folder):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)


@pytest.fixture
def running(checkout: Checkout) -> Iterator[tuple[Checkout, int]]:
    """A checkout with a supervisord of its own, and that one's process."""
    done = checkout.run(".venv/bin/supervisord", "-c", "supervisord.conf")
    assert done.returncode == 0, done.stderr
    pid_file = checkout.folder / "var/run/supervisord.pid"
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), "supervisord runs")
    pid = int(pid_file.read_text())
    yield checkout, pid
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


TARGETS = ["run", "stop", "clean"]
REAL = f'case $1 in secret) exec "{sys.executable}" -m proxyherd "$@";; esac'


# --- what runs


def test_where_nothing_runs_stop_says_so_and_clean_cleans(checkout: Checkout) -> None:
    done = checkout.make("stop")
    assert (done.returncode, done.stdout) == (0, "No herd of this folder runs.\n")
    assert checkout.make("clean").returncode == 0
    left = {path.name for path in checkout.folder.iterdir()}
    assert left == {"Makefile", "proxyherd", "pyproject.toml", "supervisord.conf"}


def test_a_herd_that_runs_is_not_cleaned_away_and_stop_waits_for_its_end(
    running: tuple[Checkout, int],
) -> None:
    checkout, _ = running
    checkout.fails("clean", "the herd runs", "make stop first")
    done = checkout.make("stop")
    assert (done.returncode, done.stdout) == (0, "The herd has stopped.\n")
    assert not (checkout.folder / "var/run/supervisord.pid").exists()
    wait_until(lambda: not processes_in(checkout.folder), "all have ended")
    assert checkout.make("clean").returncode == 0


def test_stop_needs_no_virtual_environment(running: tuple[Checkout, int]) -> None:
    checkout, _ = running
    (checkout.folder / ".venv/bin").unlink()
    checkout.fails("clean", "make stop first")
    assert checkout.make("stop").stdout == "The herd has stopped.\n"


@pytest.mark.parametrize("target", TARGETS)
def test_a_supervisord_whose_socket_is_gone_is_found_by_its_pid_file(
    running: tuple[Checkout, int], target: str
) -> None:
    checkout, pid = running
    (checkout.folder / "var/run/supervisor.sock").unlink()
    checkout.fails(target, f"runs as process {pid}", "var/run/supervisor.sock", f"kill {pid}")


@pytest.mark.parametrize("target", TARGETS)
def test_servers_without_a_supervisord_are_found_by_their_locks(checkout: Checkout, target: str) -> None:
    lock = checkout.folder / "var/lib/Clark/lock"
    lock.write_text(f"{os.getpid()}\n")
    with lock.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        checkout.fails(target, f"var/lib/Clark (process {os.getpid()})", f"kill {os.getpid()}")
    assert checkout.make("stop").stdout == "No herd of this folder runs.\n"


def test_a_secret_that_is_gone_is_not_made_anew_while_servers_know_it(running: tuple[Checkout, int]) -> None:
    checkout, _ = running
    wait_until(
        lambda: "RUNNING" in checkout.run(".venv/bin/supervisorctl", "status").stdout, "the server runs"
    )
    checkout.pretend(REAL)
    checkout.fails("run", "var/secret is gone", "herd:Clark still use it", "make stop")
    assert not (checkout.folder / "var/secret").exists()


@needs("setpriv", root=True)
@pytest.mark.parametrize("denied", ["var/run/supervisor.sock", "var/run", "var/lib/Clark/lock", "var/lib"])
@pytest.mark.parametrize("target", TARGETS)
def test_what_may_not_be_asked_is_not_taken_for_a_no(
    running: tuple[Checkout, int], denied: str, target: str
) -> None:
    checkout, _ = running
    (checkout.folder / "var/lib/Clark/lock").touch()
    checkout.folder.chmod(0o777)
    if not denied.endswith(".sock"):
        (checkout.folder / "var/run/supervisor.sock").chmod(0o777)
    for path in (checkout.folder / denied, checkout.folder / "var/lib/Clark"):
        path.chmod(0o700 if str(path).endswith(denied) else 0o777)
    checkout.be_nobody()
    checkout.fails(target, denied, "permission denied", "the user root")


# --- what is left from the day before


def leave_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "var/run/supervisor.sock"))


def leave_pid_of_another_process(folder: Path) -> None:
    (folder / "var/run/supervisord.pid").write_text(f"{os.getpid()}\n")


def leave_pid_of_nobody(folder: Path) -> None:
    (folder / "var/run/supervisord.pid").write_text("4194305\n")  # above any that there can be


def leave_empty_pid_file(folder: Path) -> None:
    (folder / "var/run/supervisord.pid").touch()


def leave_lock(folder: Path) -> None:
    (folder / "var/lib/Clark/lock").write_text(f"{os.getpid()}\n")


def leave_readable_secret(folder: Path) -> None:
    (folder / "var/secret").write_bytes(bytes(32))
    (folder / "var/secret").chmod(0o644)


def leave_cut_secret(folder: Path) -> None:
    (folder / "var/secret").write_bytes(bytes(7))
    (folder / "var/secret").chmod(0o600)


LEFT = [
    (leave_socket, leave_pid_of_another_process, leave_lock, leave_readable_secret),
    (leave_pid_of_nobody, leave_cut_secret),
    (leave_empty_pid_file,),
]


@pytest.mark.parametrize("left", LEFT)
def test_run_starts_whatever_is_left_from_before(
    checkout: Checkout, left: Sequence[Callable[[Path], None]]
) -> None:
    for leave in left:
        leave(checkout.folder)
    checkout.pretend(REAL)
    done = checkout.make("run")
    assert done.returncode == 0, done.stderr
    assert "The herd is up." in done.stdout
    # It is not back while supervisord waits to see whether the server lasts.
    status = checkout.run(".venv/bin/supervisorctl", "status").stdout
    assert status.split()[:2] == ["herd:Clark", "RUNNING"]
    secret = (checkout.folder / "var/secret").stat()
    assert (stat.S_IMODE(secret.st_mode), secret.st_size) == (0o600, 32)
    for log in (checkout.folder / "var/log").iterdir():
        assert log.stat().st_mode & stat.S_IRWXO == 0, log


def test_a_new_secret_is_told_where_a_herd_was_before(checkout: Checkout) -> None:
    """Servers on other machines refuse those that have it, until they have it too."""
    checkout.pretend(REAL)
    done = checkout.make("run")
    assert (
        "var/secret was missing, and is a new one now; servers of this herd on other machines" in done.stderr
    )
    assert checkout.make("stop").returncode == 0
    assert "missing" not in checkout.make("run").stderr
    assert checkout.make("stop").returncode == 0
    (checkout.folder / "var/lib/Clark").rmdir()
    (checkout.folder / "var/secret").unlink()
    assert "missing" not in checkout.make("run").stderr, "the first start of a herd"


def test_a_secret_that_is_cut_is_put_aside_and_a_good_one_kept(checkout: Checkout) -> None:
    leave_cut_secret(checkout.folder)
    checkout.pretend(REAL)
    done = checkout.make("run")
    [aside] = (checkout.folder / "var").glob("secret.unusable-*")
    assert aside.read_bytes() == bytes(7)
    assert f"var/secret had 7 bytes, a secret has 32; it is now var/{aside.name}" in done.stderr
    secret = (checkout.folder / "var/secret").read_bytes()
    assert checkout.make("stop").returncode == 0
    assert checkout.make("run").returncode == 0
    assert (checkout.folder / "var/secret").read_bytes() == secret


@needs("setpriv", root=True)
@pytest.mark.parametrize("which", ["var/lib/Clark", "var/log/Clark.log", "var/secret", "var/run"])
def test_files_of_root_are_told_with_the_remedy(checkout: Checkout, which: str) -> None:
    for path in (checkout.folder, *checkout.folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    path = checkout.folder / which
    if not path.exists():
        path.touch()
    os.chown(path, 0, 0)
    path.chmod(0o755)
    checkout.be_nobody()
    remedy = f"sudo chown -R nobody '{checkout.folder}/var'"
    checkout.fails("run", f"{which}: is of the user root", remedy)


def test_a_server_that_never_lasts_fails_the_start(checkout: Checkout) -> None:
    checkout.pretend(REAL)
    module = checkout.folder / "proxyherd/local/supervision.py"
    module.write_text(
        module.read_text().replace("STANDSTILL_SECONDS: Final = 30.0", "STANDSTILL_SECONDS: Final = 0.5")
    )
    (checkout.folder / "supervisord.conf").write_text(CONF.replace("sleep 600", "false"))
    done = checkout.make("run")
    assert done.returncode == 2
    assert "make run: supervisord says that herd:Clark is BACKOFF" in done.stderr


def test_a_start_that_is_given_up_says_that_it_may_still_come_and_be_typed_again(checkout: Checkout) -> None:
    checkout.pretend(REAL.replace("esac", "status) exit 1;; esac"))
    done = checkout.make("run")
    assert done.returncode == 2
    assert "On a busy machine its servers may still come: " in done.stderr
    assert "and make run may be typed again; see also: " in done.stderr


# --- before anything is started


def test_run_redis_prints_addresses_that_there_are() -> None:
    servers = herd_file.load(ROOT / "deploy/redis/herd.toml").servers
    clark, bailey = servers["Clark"].clients[0], servers["Bailey"].web[0]
    text = (ROOT / "deploy/redis/run.sh").read_text()
    assert f"nc {clark.host} {clark.port} " in text
    assert f" http://{bailey}/ " in text


@pytest.mark.parametrize(
    ("name", "told"),
    [("x" * 90, "bytes, a socket's path has 99 at most; move this folder"), ('a "b"', "move this folder")],
)
def test_run_at_a_path_that_cannot_be_says_so(checkout: Checkout, name: str, told: str) -> None:
    before = checkout.folder
    checkout.folder = before.rename(before.with_name(before.name + name))
    try:
        checkout.fails("run", told)
    finally:
        checkout.folder.rename(before)


def test_nothing_is_fetched_and_started_when_a_port_is_taken(checkout: Checkout) -> None:
    (checkout.folder / "var/secret").write_bytes(bytes(32))
    (checkout.folder / "var/secret").chmod(0o600)
    checkout.pretend('echo "$1" >>typed; test "$1" != check-config || { echo taken >&2; exit 1; }')
    done = checkout.make("run")
    assert (checkout.folder / "typed").read_text() == "secret\ncheck-config\n"
    assert done.returncode != 0
    assert done.stderr.startswith("taken\n")
    assert not (checkout.folder / "var/run/supervisord.pid").exists()


def pretended_python(checkout: Checkout, version: str = "") -> Path:
    """Return a Python that says "made" instead of making an environment. `version`: the one that it pretends to be."""
    made = (
        'import sys; from pathlib import Path; print("made"); Path(".venv").mkdir(exist_ok=True); sys.exit(1)'
    )
    lie = f"import sys; sys.version_info = ({version.replace('.', ', ')}); " if version else ""
    python = checkout.folder / "python"
    python.write_text(
        f"""#!/bin/sh
case "$*" in
    "-m venv --clear .venv") exec {sys.executable} -c '{made}' ;;
    -V) echo "Python {version}" ;;
    *) test "$1" != -c || exec {sys.executable} -c "{lie}$2" ;;
esac
"""
    )
    python.chmod(0o755)
    return python


def test_an_interrupted_start_says_what_still_runs(checkout: Checkout) -> None:
    """supervisord is in the background, where Ctrl-C does not reach it."""
    checkout.pretend('case "$1" in status) kill -INT $PPID; exit 130;; esac')
    done = checkout.make("run")
    told = "make run: interrupted; what has been started goes on in the background: make stop ends it"
    assert told in done.stderr.splitlines()
    assert done.returncode == 2
    assert checkout.make("stop").stdout == "The herd has stopped.\n"


def test_a_start_that_is_interrupted_before_anything_runs_says_no_more(checkout: Checkout) -> None:
    checkout.pretend('case "$1" in secret) kill -INT $PPID; exit 130;; esac')
    assert checkout.make("run").stderr.splitlines()[0] == "make run: interrupted"


def test_the_environment_is_made_anew_in_a_folder_that_was_moved(checkout: Checkout) -> None:
    """Its programs name the folder of before."""
    command = (
        "make",
        "--no-print-directory",
        ".venv/run.stamp",
        f"PYTHON={pretended_python(checkout)}",
    )
    for folder, expected in ((checkout.folder, False), (Path("/elsewhere"), True)):
        (checkout.folder / ".venv/folder").write_text(f"{folder}\n")
        assert ("made" in checkout.run(*command).stdout) == expected


def test_the_environment_is_made_anew_when_its_python_is_gone(checkout: Checkout) -> None:
    """As after an upgrade of the system."""
    command = (
        "make",
        "--no-print-directory",
        ".venv/run.stamp",
        f"PYTHON={pretended_python(checkout)}",
    )
    (checkout.folder / ".venv/folder").write_text(f"{checkout.folder}\n")
    (checkout.folder / ".venv/bin").unlink()
    (checkout.folder / ".venv/bin").mkdir()
    for real, expected in ((sys.executable, False), ("/usr/bin/python0.1", True)):
        (checkout.folder / ".venv/bin/python").unlink(missing_ok=True)
        (checkout.folder / ".venv/bin/python").symlink_to(real)
        assert ("made" in checkout.run(*command).stdout) == expected


def test_a_python_that_is_too_old_makes_no_environment_and_is_named(checkout: Checkout) -> None:
    """Else pip shows the traceback of a build, and the environment of the old Python stays."""
    (checkout.folder / ".venv/run.stamp").unlink()
    python = pretended_python(checkout, "3.10.13")
    done = checkout.run("make", "--no-print-directory", "run", f"PYTHON={python}")
    assert done.returncode != 0
    assert "made" not in done.stdout
    assert done.stderr.splitlines()[0] == (
        f"make run: {python} is Python 3.10.13, and 3.11 or newer is needed: make run PYTHON=/path/to/python3"
    )


@pytest.mark.parametrize("target", ["stop", "clean"])
def test_what_needs_no_environment_takes_its_python_and_without_one_names_what_is_needed(
    checkout: Checkout, target: str
) -> None:
    """An old Python cannot even read the program."""
    old = pretended_python(checkout, "3.7.3")
    checkout.python = str(old)
    assert checkout.make("stop").stdout == "No herd of this folder runs.\n"
    (checkout.folder / ".venv/bin").unlink()
    checkout.fails(
        target, f"{old} is Python 3.7.3, and 3.11 or newer is needed: make {target} PYTHON=/path/to/python3"
    )


def test_a_byte_order_mark_in_the_herds_file_is_no_mistake(tmp_path: Path) -> None:
    file = tmp_path / "herd.toml"
    file.write_bytes(b"\xef\xbb\xbf" + (ROOT / "deploy/herd.toml").read_bytes())
    assert herd_file.load(file).servers == herd_file.load(ROOT / "deploy/herd.toml").servers
