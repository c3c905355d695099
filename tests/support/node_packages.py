"""Node.js' packages for tests: those of tests/support/node/package.json, which npm installs once for a checkout."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
from pathlib import Path

from herd_process import ROOT

_NAMED = Path(__file__).with_name("node")
_FILES = ("package.json", "package-lock.json", ".npmrc")


def node_modules() -> Path:
    """Return the folder that Node.js looks for beside a script. Test processes that want it at once wait for the first."""
    folder = ROOT / ".venv/node"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = "".join((_NAMED / name).read_text() for name in _FILES)
        installed = folder / "installed"
        if not installed.exists() or installed.read_text() != wanted:
            for name in _FILES:
                shutil.copy(_NAMED / name, folder)
            options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            subprocess.run(["npm", "ci", *options], cwd=folder, check=True, stdin=subprocess.DEVNULL)
            installed.write_text(wanted)
    return folder / "node_modules"
