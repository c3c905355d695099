"""The first ten minutes on a bare Debian, word for word: README's two commands; the wheel; the Debian package.

Each has the smallest root that mmdebstrap makes, with the packages that the pages ask for and nothing else, on a disk of
memory that goes with the process that mounted it. All that is fetched is fetched first, from where this machine gets its
own; from then on it has a network of its own, which keeps the default herd's ports apart from whatever else runs here,
and knows of no packages.

Here the release of Debian is that of this machine, and with PROXYHERD_SUITES=all, as `make test-packages` sets it, each
of those that are promised, with the Python that it has.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from bare_root import BRING, CODENAME, FILES, MAKE_ROOT, block, named, needs_debian
from debian import PATH, environ_to_fetch, needs

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()
SUITES = ("bookworm", "trixie") if os.environ.get("PROXYHERD_SUITES") == "all" else (CODENAME,)

pytestmark = [
    needs("mmdebstrap", "unshare", "setpriv", "ip", root=True),
    needs_debian,
    pytest.mark.skipif(
        "CI" not in os.environ, reason="it takes minutes of processor time: make test-packages runs it too"
    ),
    pytest.mark.xdist_group("bare machine"),
    pytest.mark.parametrize("suite", SUITES),
]

PREREQUISITES = "They need Linux, Python 3.11 or newer with `venv`, and `make`."
PACKAGES = "python3,python3-venv,make"
"""Debian's packages that are these."""

FOR_THE_PACKAGE = f"{PACKAGES},binutils,systemd-standalone-sysusers,systemd-standalone-tmpfiles"
"""What it takes to build the Debian package, and to install it: here there is no systemd."""

MADE = (".git", ".venv", "var", "build", "dist", "*.egg-info", ".*_cache", ".hypothesis")
"""What is in a checkout that was used and not in a new one."""

ON_A_BARE_MACHINE = rf"""
{MAKE_ROOT}{BRING}
suite=$1 root=$2 packages=$3 fetched=$4 commands=$5
shift 5
mount -t tmpfs tmpfs "$root"
make_root "$suite" "$root" "$packages"
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/sources.list.d/*
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mkdir "$root/herd"
tar -cf "$root/herd.tar" --exclude=__pycache__ {" ".join(f"--exclude='./{name}'" for name in MADE)} . ||
    [ $? -eq 1 ]  # a file was changed meanwhile
tar -C "$root/herd" -xf "$root/herd.tar"
rm "$root/herd.tar"
bring "$root" "$@"
chroot "$root" python3 -m venv /packages
chroot "$root" sh -euc "cd /herd; pip() {{ /packages/bin/pip \"\$@\"; }}; $fetched"
exec unshare --net sh -euc 'ip link set lo up; exec chroot "$1" bash -euxc "cd /herd; $2" <&-' sh "$root" "$commands"
"""
OFFLINE = "unset PIP_EXTRA_INDEX_URL; export PIP_NO_INDEX=1 PIP_FIND_LINKS=/packages/wheels"
BUILDERS = "pip download --quiet --dest /packages/wheels 'setuptools>=77'"


def on_a_bare_machine(
    suite: str, root: Path, commands: list[str], fetched: list[str], packages: str = PACKAGES
) -> str:
    """Run commands in the folder of the herd; return what they print. What they start and mount ends with the first
    that fails. `fetched`: commands that run before them, with the network; `pip` there is that of an environment which
    is not the one that they use.
    """
    root.mkdir()
    fetch = environ_to_fetch()
    away = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child")
    lists = (packages, "\n".join(fetched), "\n".join([OFFLINE, *commands, "echo all went well"]))
    script = ("sh", "-euc", ON_A_BARE_MACHINE, "sh", suite, str(root), *lists, *FILES, *named(fetch))
    done = subprocess.run(
        ["setpriv", "--pdeathsig=KILL", *away, *script],
        cwd=ROOT,
        env={**fetch, "HOME": "/root", "PATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    output = f"{shlex.join(commands)}\n{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, output
    assert done.stdout.endswith("all went well\n"), output
    return done.stdout


def test_what_readme_says_works_on_a_machine_with_nothing_but_what_readme_asks_for(
    suite: str, tmp_path: Path
) -> None:
    assert PREREQUISITES in re.sub(r"\s+", " ", README)
    run, test = re.findall(r"^\| `(make \w+)` \|", README, re.MULTILINE)
    session = re.findall(r"`(\.venv/bin/proxyherd (?:iamat|whatsat) plum[^`]*)`", README)
    assert len(session) == 2
    commands = [
        "export PIP_NO_COMPILE=1",  # most of it is never imported
        *(run, *session, "make stop"),
        # A part of the tests: this one among them would never end, and all would take as long again. These
        # have found what is different with Debian's own Python.
        """export PYTEST_ADDOPTS='tests/system/test_conformance.py tests/core/test_messages.py -k "not redis"'""",
        test,
    ]
    fetched = ["pip download --quiet --dest /packages/wheels '.[test,bench]' 'setuptools>=77'"]
    output = on_a_bare_machine(suite, tmp_path / "root", commands, fetched)
    assert re.search(r"^AT \w+ \+\d+\.\d{9} plum ", output, re.MULTILINE), output
    assert '"status": "OK"' in output, output
    assert re.search(r"^=+ \d+ passed in ", output, re.MULTILINE), output


def test_what_readme_says_of_the_wheel_works_in_an_empty_folder(suite: str, tmp_path: Path) -> None:
    install, *start = block(README, "pip install ./proxyherd-")
    fetched = [
        BUILDERS,
        "pip wheel --quiet --no-deps --wheel-dir /packages/wheels .",
        # By its path: another project has the same name elsewhere.
        'pip download --quiet --dest /packages/wheels "$(echo /packages/wheels/proxyherd-*.whl)[gazetteer]"',
        "rm -rf /herd/*",
    ]
    commands = [
        "python3 -m venv /own; PATH=/own/bin:$PATH; mkdir /empty; cd /empty; cp /packages/wheels/proxyherd-*.whl .",
        *(install, *start),
        "proxyherd iamat kiwi 34.068930,-118.445127",
        "proxyherd whatsat kiwi 10 5",
        "proxyherd down",
    ]
    output = on_a_bare_machine(suite, tmp_path / "root", commands, fetched)
    assert re.search(r"^AT \w+ \+\d+\.\d{9} kiwi ", output, re.MULTILINE), output
    assert '"status": "OK"' in output, output


def test_what_operations_say_of_the_debian_package_works_without_systemd_too(
    suite: str, tmp_path: Path
) -> None:
    """Where there is systemd, test_deb.py starts the herd. Here one server is started as its unit does."""
    install, *_ = block(OPERATIONS, "apt-get install ./proxyherd")
    fetched = [
        "for file in deploy/requirements*.txt; do pip download --quiet --dest /packages/wheels --require-hashes -r $file; done"
    ]
    commands = [
        *("make deb", "cd dist", install, "cd /tmp"),
        "stat -c '%U %a' /etc/proxyherd/secret",
        "id proxyherd",
        "install -d -o proxyherd state log credentials",
        "install -o proxyherd -m 600 /etc/proxyherd/secret credentials/secret",
        "export PROXYHERD_GAZETTEER=/usr/share/proxyherd/gazetteer.dat",
        "export STATE_DIRECTORY=/tmp/state LOGS_DIRECTORY=/tmp/log CREDENTIALS_DIRECTORY=/tmp/credentials",
        "setpriv --reuid proxyherd --clear-groups proxyherd serve Clark & server=$!",
        "until proxyherd iamat kiwi 34.068930,-118.445127 --server Clark; do kill -0 $server; sleep 0.1; done",
        "proxyherd whatsat kiwi 10 5 --server Clark",
        "kill $server; wait $server",
        "dpkg --purge proxyherd",
        "test ! -e /etc/proxyherd",
    ]
    output = on_a_bare_machine(suite, tmp_path / "root", commands, fetched, FOR_THE_PACKAGE)
    assert "root 600\n" in output
    assert re.search(r"^AT Clark \+\d+\.\d{9} kiwi ", output, re.MULTILINE), output
    assert '"status": "OK"' in output, output
