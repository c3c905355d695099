"""Starts one server of the herd as `python3 server.py Clark`, for scripts that grade herds in that way.

The herd is that of $PROXYHERD_CONFIG, else of `herd.toml` beside this file, else the default herd. Secret, logs and
state are in `var` beside this file, or in the working directory where that cannot be written. The gazetteer is that of
$PROXYHERD_GAZETTEER; without this variable, that of `var`, else of the repository. Where there is neither, one is built
in `var`, at a lower priority; until it is there, some seconds later, no places are found.

The rules: a server that is ended and started again while others of the herd run has its state; a herd of which no
server runs begins with nothing, so that one grading does not see the clients of the last. It listens as soon as it can,
because such scripts wait half a second: what it does before is in this process, and what can wait waits.

It needs no installation: where this Python has not what the herd imports, the `.venv` of the repository that this
file is in has it.
"""

# ruff: noqa: INP001 - a script by itself, to be copied

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

NEEDED = (
    "aiohttp",
    "cachetools",
    "click",
    "msgspec",
    "prometheus_client",
    "redis",
    "structlog",
)
HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PYTHON = ROOT / ".venv/bin/python"


def main() -> int:
    """Be a server until it is told to stop; return its exit code. It is 2, with the reason, if it cannot be one."""
    # Nothing has begun yet that would have to be drained.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})  # until the server can reopen its log
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        _fail("usage: python3 server.py NAME, such as: python3 server.py Clark")
    _find_package()
    from proxyherd.base.imports import quick_imports  # noqa: PLC0415 - only now can it be found

    with quick_imports():
        from proxyherd.config import secrets as secret  # noqa: PLC0415 - likewise
        from proxyherd.config.errors import ConfigError  # noqa: PLC0415 - likewise
        from proxyherd.config.herd_file import load  # noqa: PLC0415 - likewise
        from proxyherd.server import daemon  # noqa: PLC0415 - likewise

    name, file = sys.argv[1], _herd_file()
    var = (HERE if os.access(HERE, os.W_OK) else Path.cwd()) / "var"
    try:
        herd = load(file)
        herd.server(name)
        _join(var)
        with contextlib.suppress(FileExistsError):  # another server of the herd has been faster
            secret.create(var / "secret")
        gazetteer = _gazetteer(var)
        if gazetteer.parent == var and not gazetteer.exists():
            own = herd.places.own_places
            _build_aside(gazetteer, herd.file.parent / own if own else None)
        paths = daemon.Paths(
            state=var / "lib" / name,
            log=var / "log" / f"{name}.log",
            secret=var / "secret",
            gazetteer=gazetteer,
        )
        return daemon.serve(herd, name, paths)
    except ConfigError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}; start it where files can be written")


def _find_package() -> None:
    """See that the herd's program can be imported; else go on with the Python that can."""
    package = find_spec("proxyherd")
    if (
        package is None or package.origin is None
    ):  # a folder called proxyherd is no package: it may be a clone
        folders = [ROOT, *map(Path, (package and package.submodule_search_locations) or ())]
        for folder in folders:
            if (folder / "proxyherd/__init__.py").exists():
                sys.path.insert(0, str(folder))
                break
    missing = [module for module in ("proxyherd", *NEEDED) if find_spec(module) is None]
    if not missing:
        return
    if os.access(PYTHON, os.X_OK) and Path(sys.prefix).resolve() != PYTHON.parents[1].resolve():
        os.execv(PYTHON, [str(PYTHON), __file__, *sys.argv[1:]])  # noqa: S606 - no shell is wanted
    package_folder = ROOT if (ROOT / "pyproject.toml").exists() else "the folder of the proxyherd repository"
    _fail(
        f"{sys.executable} has no {', '.join(missing)}; install what the herd needs: "
        f"{sys.executable} -m pip install {package_folder}, or `make run` there once, which makes its .venv"
    )


def _herd_file() -> Path:
    named = os.environ.get("PROXYHERD_CONFIG")
    if named:
        return Path(named)
    import proxyherd  # noqa: PLC0415 - only now can it be found

    beside = HERE / "herd.toml"
    return beside if beside.exists() else Path(proxyherd.__file__).parents[1] / "deploy/herd.toml"


def _join(var: Path) -> None:
    """Be one of the herd that keeps its state in `var`; the first forgets what the last herd knew.

    Each server has a shared lock as long as it lives. Who can have it alone is the first. While somebody shares it,
    nobody can: so nothing is forgotten that a server has begun to write.
    """
    var.mkdir(mode=0o750, exist_ok=True)
    lock = os.open(var / "herd.lock", os.O_CREAT | os.O_RDWR, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        shutil.rmtree(var / "lib", ignore_errors=True)
    fcntl.flock(lock, fcntl.LOCK_SH)


def _gazetteer(var: Path) -> Path:
    """Return the file of the offline places."""
    named = os.environ.get("PROXYHERD_GAZETTEER")
    if named:
        return Path(named)
    ours, made = var / "gazetteer.dat", ROOT / "var/gazetteer.dat"
    return made if made.exists() and not ours.exists() else ours


def _build_aside(gazetteer: Path, own: Path | None) -> None:
    """Build the gazetteer in a process of its own, unless another server of the herd does."""
    lock = os.open(gazetteer.with_name("building.lock"), os.O_CREAT | os.O_RDWR, 0o640)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return
    # The builder is no child of the server, which waits for none. It has the lock as long as it lives.
    child = os.fork()
    if child:
        os.close(lock)
        os.waitpid(child, 0)
        return
    if os.fork():
        os._exit(0)
    os.setsid()
    os.nice(5)  # with less, it would not come to its turn on a busy machine
    code = "import sys; from pathlib import Path; from proxyherd.places.gazetteer import build, geonames\n"
    code += "try: build.build(Path(sys.argv[1]), own=Path(sys.argv[2]) if sys.argv[2:] else None)\n"
    code += "except geonames.MissingDataError as error: sys.exit(f'server.py: there are no places: {error}')"
    os.set_inheritable(lock, True)
    words = [sys.executable, "-P", "-c", code, str(gazetteer), *([str(own)] if own else [])]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    os.execve(sys.executable, words, environ)  # noqa: S606 - as above


def _fail(reason: str) -> NoReturn:
    sys.stderr.write(f"server.py: {reason}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    raise SystemExit(main())
