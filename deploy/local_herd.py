"""The herd of this folder under supervisord: what `make run`, `make run-redis`, `make stop` and `make clean` do.

It works in the folder where it is typed; deploy/redis/run.sh calls its steps one by one. Only the standard library is
imported, since `make stop` and `make clean` must see a running herd where `.venv` is gone.

The rule: the herd counts as stopped only when three witnesses say so: supervisord's socket, its pid file, and the
locks that servers hold on their state. A witness that cannot be asked is an error, not a no.
"""

from __future__ import annotations

import fcntl
import getpass
import http.client
import os
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

BIN = os.environ.get("BIN", ".venv/bin")
SOCKET = Path("var/run/supervisor.sock")
PID_FILE = Path("var/run/supervisord.pid")
SECRET = Path("var/secret")
SECRET_BYTES = 32

MAX_SOCKET_BYTES = 99
"""Of the 107 bytes that a UNIX socket's path may have, supervisord needs some for "." and its pid."""

PATIENCE_SECONDS = 30.0
"""How long nothing may change before a start or a stop is given up."""

RPC_SECONDS = 10.0
"""For one answer of supervisord."""

NEXT_STEPS = """
The herd is up. Next, for example:
  nc 127.0.0.1 10003      and type there:
    IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503
    WHATSAT kiwi.cs.ucla.edu 10 5
  http://127.0.0.1:10300/ in a browser: report where it is, and see what is around
  http://127.0.0.1:10203/ in a browser: the state of the whole herd
  make example            fifty phones move on a map, with a fence that lights up
  {bin}/proxyherd whatsat kiwi.cs.ucla.edu 10 5 --server Bailey
  {bin}/proxyherd near 34.06893,-118.445127 5
  {bin}/proxyherd status
  {bin}/supervisorctl tail -f herd:Clark
  {bin}/supervisorctl restart herd:Clark
  make stop"""


def fail(message: str) -> NoReturn:
    """End with exit code 1 and one line on stderr."""
    sys.exit(f"make {_typed()}: {message}")


def say(message: str) -> None:
    """Tell on stderr what was done besides."""
    print(f"make {_typed()}: {message}", file=sys.stderr)


def _typed() -> str:
    """Return what the user has typed behind make."""
    return {"run": "run", "stop": "stop", "check-stopped": "clean"}.get(sys.argv[1], "run-redis")


# What runs here. ---------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What runs in this folder."""

    answers: bool
    """supervisord answers at its socket."""
    supervisord: int
    """The process that the pid file names, if it is this folder's supervisord; else 0."""
    holders: dict[Path, str]
    """By the directory with the state: the process that uses it, "?" where that is not known."""

    @property
    def nothing(self) -> bool:
        """Whether no part of a herd runs here."""
        return not (self.answers or self.supervisord or self.holders)


def look() -> Found:
    """Ask all three witnesses. Fails where one cannot be asked."""
    try:
        return Found(_answers(), _supervisord(), dict(_holders()))
    except PermissionError as error:
        fail(
            f"{error.filename or SOCKET}: permission denied, so it cannot be told whether a herd runs here; "
            f"type this as the user {_owner(error.filename or SOCKET)}, or as root"
        )


def is_up() -> None:
    """End with exit code 0 if supervisord runs, else 1."""
    sys.exit(not look().answers)


def check_stopped() -> None:
    """Fails while any part of a herd runs here."""
    found = look()
    if found.answers:
        fail("the herd runs, and its state is in var/; type make stop first")
    refuse_parts(found)


def refuse_parts(found: Found) -> None:
    """Fails where a herd runs that cannot be reached through supervisord's socket."""
    if found.answers:
        return
    if found.supervisord:
        pid = found.supervisord
        fail(
            f"supervisord runs as process {pid}, but nobody answers at {SOCKET}; stop it and its servers with: kill {pid}"
        )
    if found.holders:
        who = ", ".join(f"{state} (process {pid})" for state, pid in found.holders.items())
        pids = " ".join(pid for pid in found.holders.values() if pid != "?")
        fail(
            f"these are in use by processes that no supervisord controls: {who}; stop them with: kill {pids}"
        )


def _answers() -> bool:
    """Whether anybody listens at supervisord's socket. Raises PermissionError."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(RPC_SECONDS)
        try:
            probe.connect(str(SOCKET))
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return False
        except PermissionError as error:
            raise PermissionError(error.errno, error.strerror, str(SOCKET)) from error
        except (TimeoutError, BlockingIOError):
            return True  # somebody listens, and hangs
    return True


def _supervisord() -> int:
    """Return the process in the pid file if it is this folder's supervisord: ids are used again. Raises
    PermissionError.
    """
    return _process(PID_FILE, b"supervisord", Path.cwd())


def _process(pid_file: Path, program: bytes, folder: Path) -> int:
    """Return the process in a pid file if it is this program at work in this folder, else 0: ids are used again.
    Raises PermissionError.
    """
    try:
        pid = int(pid_file.read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, NotADirectoryError, ProcessLookupError, ValueError):
        return 0
    if program not in command:  # a zombie has no command line
        return 0
    try:
        works_in = Path(f"/proc/{pid}/cwd").readlink()
    except OSError:  # another user's
        return pid
    return pid if works_in == folder or bytes(folder) in command else 0


def _holders() -> Iterator[tuple[Path, str]]:
    """Yield the directories of state that are in use, and by whom. Raises PermissionError."""
    for file in _files("var/redis", "redis.pid"):
        if pid := _process(file, b"redis-server", file.parent.absolute()):
            yield file.parent, str(pid)
    for lock in _files("var/lib", "lock"):
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(descriptor, 16).decode(errors="replace").strip()
            yield lock.parent, text if text.isdecimal() else "?"
        finally:
            os.close(descriptor)


def _files(folder: str, name: str) -> list[Path]:
    """Return the files of that name one level below a folder. Raises PermissionError."""
    try:
        return [below / name for below in sorted(Path(folder).iterdir())]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _owner(path: str | Path) -> str:
    """Return the user that owns a file, or the nearest folder above it that can be seen."""
    at = Path(path)
    while True:
        try:
            return at.owner()
        except KeyError:
            return str(at.stat().st_uid)
        except OSError:
            at = at.parent


# supervisord. ------------------------------------------------------------------------------------------------


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(RPC_SECONDS)
        self.sock.connect(str(SOCKET))


class _Transport(xmlrpc.client.Transport):
    def make_connection(self, host: Any) -> http.client.HTTPConnection:  # noqa: ARG002 - there is one
        return _Connection("localhost")


def call(method: str) -> Any:
    """Call a method of supervisord's without arguments. Raises OSError."""
    server = xmlrpc.client.ServerProxy("http://localhost", transport=_Transport())
    try:
        return getattr(server.supervisor, method)()
    except (xmlrpc.client.Error, http.client.HTTPException) as error:
        raise OSError(str(error)) from error


def states() -> dict[str, str]:
    """Return the state of each of supervisord's processes, such as `herd:Clark`. Fails where it does not answer."""
    return {f"{one['group']}:{one['name']}": one["statename"] for one in answered("getAllProcessInfo")}


def answered(method: str) -> Any:
    """Call a method of supervisord's. Fails where it does not answer."""
    try:
        return call(method)
    except OSError as error:
        fail(f"supervisord does not answer ({error}); stop it with: kill {look().supervisord or '(see ps)'}")


def wait_while_it_changes(seen: Callable[[], object], is_done: Callable[[Any], bool]) -> Any:
    """Look until all is done, or until nothing has changed for `PATIENCE_SECONDS`; return what was seen last."""
    last, deadline = seen(), time.monotonic() + PATIENCE_SECONDS
    while not is_done(last) and time.monotonic() < deadline:
        time.sleep(0.1)
        if (now := seen()) != last:
            last, deadline = now, time.monotonic() + PATIENCE_SECONDS
    return last


def stop() -> None:
    """Stop supervisord and all that it runs, and wait until they have ended."""
    found = look()
    refuse_parts(found)
    if found.nothing:
        print("No herd of this folder runs.")
        return
    answered("shutdown")
    # The process itself may stay a zombie where nobody reaps it: its pid file and its socket are gone.
    left = wait_while_it_changes(look, lambda one: not one.answers and not one.supervisord)
    if left.answers or left.supervisord:
        fail(f"supervisord has not ended in {PATIENCE_SECONDS:g} s; see var/log/supervisord.log")
    refuse_parts(left)
    print("The herd has stopped.")


# Starting. ---------------------------------------------------------------------------------------------------


def refuse_folder() -> None:
    """Fails in a folder whose path the herd cannot have."""
    folder = Path.cwd()
    size = len(bytes(folder / SOCKET))
    if size > MAX_SOCKET_BYTES:
        fail(
            f"{folder / SOCKET}: {size} bytes, a socket's path has {MAX_SOCKET_BYTES} at most; move this folder to a "
            "shorter path"
        )
    if not str(folder).isprintable() or any(character in str(folder) for character in '"\\'):
        fail(f"{str(folder)!r}: supervisord cannot start programs at a path with this; move this folder")


def make_folders() -> None:
    """Make the folders of state, logs and sockets, which are not for other users. Fails where that cannot be."""
    try:
        for folder in ("var", "var/lib", "var/log", "var/run"):
            Path(folder).mkdir(mode=0o750, exist_ok=True)
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}; {_remedy()}")


def refuse_files_of_others() -> None:
    """Fails for what is in var/ and cannot be used: `make run` was typed as root before, say."""
    for folder, folders, names in os.walk("var"):
        logs = Path(folder) == Path("var/log")  # rotated ones are not written to
        for path in (Path(folder, one) for one in (*folders, *names)):
            if logs and path.suffix not in {".log", ".pid"}:
                continue
            if path.is_file() or path.is_dir():
                needed = os.R_OK | os.W_OK | (os.X_OK if path.is_dir() else 0)
                if path.stat().st_uid != os.geteuid() and not os.access(path, needed):
                    fail(f"{path}: is of the user {_owner(path)}, and cannot be written; {_remedy()}")


def _remedy() -> str:
    return f"give var/ to the user that runs the herd: sudo chown -R {getpass.getuser()} {str(Path.cwd() / 'var')!r}"


def mend_secret() -> None:
    """Make a secret that is left from before usable, or put it aside. Only while no server knows it."""
    if not SECRET.exists():
        return
    found = SECRET.stat()
    if found.st_size != SECRET_BYTES:
        aside = SECRET.with_name(f"secret.unusable-{time.time_ns()}")
        SECRET.rename(aside)
        say(f"{SECRET} had {found.st_size} bytes, a secret has {SECRET_BYTES}; it is now {aside}")
    elif found.st_mode & 0o077:
        SECRET.chmod(0o600)
        say(f"{SECRET} could be read by other users; it is now for its owner only")


def prepare() -> None:
    """See that a herd can run in this folder. Fails where it cannot."""
    refuse_folder()
    make_folders()
    found = look()
    refuse_parts(found)
    if found.nothing:
        refuse_files_of_others()
        mend_secret()


def build_gazetteer(file: str) -> None:
    """Build the offline places unless they are current."""
    build = [f"{BIN}/proxyherd", "gazetteer", "build", "var/gazetteer.dat", "--config", file]
    if subprocess.run(build, check=False).returncode:
        say("the herd starts with the offline places that it has")


def start(conf: str, file: str) -> None:
    """Have supervisord run what a supervisord.conf says; what runs already is left running."""
    redis = conf != "supervisord.conf"
    if look().answers:
        if any(name.startswith("redis:") for name in states()) != redis:
            fail(f"the herd {'' if redis else 'on Redis '}runs in this folder; type make stop first")
        for arguments in (["update"], ["start", *(["redis:*"] if redis else []), "herd:*"]):
            subprocess.run([f"{BIN}/supervisorctl", *arguments], stdout=subprocess.DEVNULL, check=False)
        return
    _run("proxyherd", "check-config", "--config", file, "--ports", stdout=subprocess.DEVNULL)
    os.umask(0o027)  # supervisord opens its log before it takes the umask of its file
    _run("supervisord", "-c", conf)


def wait(file: str) -> None:
    """Wait until all servers are ready and linked, and supervisord has seen each last; print how they are."""
    status = [
        f"{BIN}/proxyherd",
        "status",
        "--config",
        file,
        "--wait",
        f"{PATIENCE_SECONDS:g}",
        "--progress",
    ]
    seen = f"see also: {BIN}/supervisorctl status"
    if subprocess.run(status, check=False).returncode:
        fail(f"the herd is not whole; {seen}")
    found = wait_while_it_changes(states, lambda now: set(now.values()) == {"RUNNING"})
    if poor := [f"{name} is {state}" for name, state in found.items() if state != "RUNNING"]:
        fail(f"supervisord says that {', '.join(poor)}; {seen}")


def run() -> None:
    """Bring up the default herd."""
    prepare()
    _run("proxyherd", "secret", "new", str(SECRET), "--if-missing")
    build_gazetteer("deploy/herd.toml")
    start("supervisord.conf", "deploy/herd.toml")
    wait("deploy/herd.toml")
    print(NEXT_STEPS.format(bin=BIN))


def _run(program: str, *arguments: str, stdout: int | None = None) -> None:
    """Run a program of the virtual environment, which says itself what is wrong. Fails with it."""
    if subprocess.run([f"{BIN}/{program}", *arguments], stdout=stdout, check=False).returncode:
        sys.exit(1)


def main() -> None:
    """Carry out what the command line says."""
    commands: dict[str, Callable[..., None]] = {
        "run": run,
        "prepare": prepare,
        "gazetteer": build_gazetteer,
        "start": start,
        "wait": wait,
        "is-up": is_up,
        "stop": stop,
        "check-stopped": check_stopped,
    }
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    commands[sys.argv[1]](*sys.argv[2:])


if __name__ == "__main__":
    main()
