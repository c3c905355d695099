"""README's two commands, word for word, on a bare Debian that has what README asks for and nothing else.

The root is debootstrap's smallest, on a disk of memory that goes with the process that mounted it. The packages of
Python are fetched into it first, from where this machine gets its own; from then on it has a network of its own,
which keeps the default herd's ports apart from whatever else runs here.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from debian import PATH, needs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

pytestmark = [
    needs("debootstrap", "unshare", "setpriv", "ip", root=True),
    pytest.mark.xdist_group("bare machine"),
    pytest.mark.timeout(600),
]

PREREQUISITES = "They need Linux, Python 3.11 or newer with `venv`, and `make`."
PACKAGES = "python3,python3-venv,make"
"""Debian's packages that are these."""

PIP_FILES = "/etc/pip.conf /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt"
"""How this machine reaches its packages, where it needs telling."""

MAKE_ROOT = f"""
mount -t tmpfs tmpfs "$1"
debootstrap --variant=minbase --include={PACKAGES} {platform.freedesktop_os_release().get("VERSION_CODENAME", "stable")} "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mkdir "$1/herd"
git ls-files -z --cached --others --exclude-standard | tar -cf - --null --files-from=- --ignore-failed-read |
    tar -C "$1/herd" -xf -
for file in {PIP_FILES}; do
    if [ -e $file ]; then install -D -m 644 $file "$1$file"; fi
done
chroot "$1" python3 -m venv /packages
chroot "$1" /packages/bin/pip download --quiet --dest /packages/wheels '/herd[test,bench]' 'setuptools>=77'
exec unshare --net sh -euc 'ip link set lo up; exec chroot "$1" sh -euxc "cd /herd; $2" <&-' sh "$1" "$2"
"""


def on_a_bare_machine(commands: list[str], root: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run commands in the folder of the herd; what they start and mount ends with the first that fails."""
    root.mkdir()
    inherited = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    away = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
    return subprocess.run(
        ["setpriv", "--pdeathsig=KILL", *away, "sh", "-euc", MAKE_ROOT, "sh", root, "\n".join(commands)],
        cwd=ROOT,
        env={"HOME": "/root", "PATH": PATH, **inherited, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_readme_says_works_on_a_machine_with_nothing_but_what_readme_asks_for(tmp_path: Path) -> None:
    assert PREREQUISITES in re.sub(r"\s+", " ", README)
    run, test = re.findall(r"^\| `(make \w+)` \|", README, re.MULTILINE)
    session = re.findall(r"`(\.venv/bin/proxyherd (?:iamat|whatsat) kiwi[^`]*)`", README)
    assert len(session) == 2
    commands = [
        "unset PIP_EXTRA_INDEX_URL; export PIP_NO_INDEX=1 PIP_FIND_LINKS=/packages/wheels",
        *(run, *session, "make stop"),
        # A part of the tests: this one among them would never end, and all would take as long again.
        "export PYTEST_ADDOPTS='tests/test_conformance.py tests/test_messages.py tests/test_startup.py'",
        *(test, "echo all went well"),
    ]
    done = on_a_bare_machine(commands, tmp_path / "root")
    output = f"{shlex.join(commands)}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, output
    assert done.stdout.endswith("all went well\n"), output
    assert re.search(r"^AT \w+ \+\d+\.\d{9} kiwi\.cs\.ucla\.edu ", done.stdout, re.MULTILINE), output
    assert '"status": "OK"' in done.stdout, output
    assert re.search(r"^=+ \d+ passed in ", done.stdout, re.MULTILINE), output
