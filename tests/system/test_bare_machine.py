"""README's two commands, word for word, on a bare Debian that has what README asks for and nothing else.

The root is mmdebstrap's smallest, on a disk of memory that goes with the process that mounted it. All that is fetched
is fetched first, from where this machine gets its own; from then on it has a network of its own, which keeps the
default herd's ports apart from whatever else runs here, and knows of no packages of Debian.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from debian import PATH, environ_to_fetch, needs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def system() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {"ID": "unknown"}


CODENAME = system().get("VERSION_CODENAME", "stable")
pytestmark = [
    needs("mmdebstrap", "unshare", "setpriv", "ip", root=True),
    pytest.mark.skipif(
        system()["ID"] != "debian", reason="this is no Debian, whose sources could make another"
    ),
    pytest.mark.skipif(
        "CI" not in os.environ, reason="it takes minutes of processor time: CI=true make test runs it too"
    ),
    pytest.mark.xdist_group("bare machine"),
]

PREREQUISITES = "They need Linux, Python 3.11 or newer with `venv`, and `make`."
PACKAGES = "python3,python3-venv,make"
"""Debian's packages that are these."""

FILES = ("/etc/pip.conf", "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt")
"""How this machine reaches its packages, where it needs telling; and what variables of its environment name."""

MADE = (".git", ".venv", "var", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis")
"""What is in a checkout that was used and not in a new one."""

SUITES = f"{CODENAME}(-updates|-security)?"
MAKE_ROOT = rf"""
root=$1 commands=$2
shift 2
mount -t tmpfs tmpfs "$root"
sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
    grep -E ' {SUITES} main$' || true)
apt-config dump --no-empty --format '%f "%v";%n' Acquire::http Acquire::https >"$root.apt.conf"
echo "$sources" | mmdebstrap --quiet --mode=root --variant=minbase --include={PACKAGES} --aptopt="$root.apt.conf" \
    {CODENAME} "$root" ${{sources:+-}}
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir "$root/herd"
tar -cf "$root/herd.tar" --exclude=__pycache__ {" ".join(f"--exclude='./{name}'" for name in MADE)} . ||
    [ $? -eq 1 ]  # a file was changed meanwhile
tar -C "$root/herd" -xf "$root/herd.tar"
rm "$root/herd.tar"
for file; do
    if [ -d "$file" ]; then mkdir -p "$root$file"; mount -o bind,ro "$file" "$root$file"
    elif [ -e "$file" ]; then install -D -m 644 "$file" "$root$file"; fi
done
chroot "$root" python3 -m venv /packages
chroot "$root" /packages/bin/pip download --quiet --dest /packages/wheels '/herd[test,bench]' 'setuptools>=77'
exec unshare --net sh -euc 'ip link set lo up; exec chroot "$1" sh -euxc "cd /herd; $2" <&-' sh "$root" "$commands"
"""


def named(environ: dict[str, str]) -> list[str]:
    """Return the files that variables name, and the folders of certificates and packages."""
    files = [value for value in environ.values() if value.startswith("/") and Path(value).is_file()]
    folders = (
        f"{environ.get('PIP_FIND_LINKS', '')} {environ.get('SSL_CERT_DIR', '').replace(':', ' ')}".split()
    )
    return files + [folder for folder in folders if folder.startswith("/") and Path(folder).is_dir()]


def on_a_bare_machine(commands: list[str], root: Path) -> subprocess.CompletedProcess[str]:
    """Run commands in the folder of the herd; what they start and mount ends with the first that fails."""
    root.mkdir()
    fetch = environ_to_fetch()
    away = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
    script = ("sh", "-euc", MAKE_ROOT, "sh", str(root), "\n".join(commands), *FILES, *named(fetch))
    return subprocess.run(
        ["setpriv", "--pdeathsig=KILL", *away, *script],
        cwd=ROOT,
        env={**fetch, "HOME": "/root", "PATH": PATH},
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
        "export PIP_NO_COMPILE=1",  # most of it is never imported
        *(run, *session, "make stop"),
        # A part of the tests: this one among them would never end, and all would take as long again. These
        # have found what is different with Debian's own Python.
        """export PYTEST_ADDOPTS='tests/system/test_conformance.py tests/core/test_messages.py -k "not redis"'""",
        *(test, "echo all went well"),
    ]
    done = on_a_bare_machine(commands, tmp_path / "root")
    output = f"{shlex.join(commands)}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, output
    assert done.stdout.endswith("all went well\n"), output
    assert re.search(r"^AT \w+ \+\d+\.\d{9} kiwi\.cs\.ucla\.edu ", done.stdout, re.MULTILINE), output
    assert '"status": "OK"' in done.stdout, output
    assert re.search(r"^=+ \d+ passed in ", done.stdout, re.MULTILINE), output
