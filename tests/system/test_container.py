"""The container image, built by podman from a bare Debian of this machine's release, and a server in it.

podman runs in namespaces of its own, whose first process the kernel kills with the test process, and keeps all on a disk
of memory there. What compose.yml starts, on Debian 13: test_compose.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bare_root import CODENAME, FILES, MAKE_ROOT, needs_debian
from debian import PATH, environ_to_fetch, needs
from herd_process import wait_until

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()

pytestmark = [
    needs("podman", "runc", "mmdebstrap", "unshare", "nsenter", "setpriv", root=True),
    needs_debian,
    pytest.mark.skipif(
        "CI" not in os.environ, reason="it takes a minute of processor time: make test-packages runs it too"
    ),
    pytest.mark.xdist_group("bare machine"),
]

PODMAN = ("podman", "--root=/mnt/images", "--runroot=/mnt/run", "--tmpdir=/mnt/tmp")
BY = ("--cgroup-manager=cgroupfs", "--runtime=runc", "--events-backend=none")


class Podman:
    """podman, in the namespaces of one process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def inside(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["nsenter", "-t", str(self._pid), "-m", "-p", *map(str, command)],
            env={**os.environ, "PATH": PATH, "TMPDIR": "/mnt"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
        return done

    def __call__(self, *command: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.inside(*PODMAN, *BY, *command, check=check)


def limits() -> list[str]:
    """Return options for limits that this machine lets a container have."""
    kinds = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    most = {name: resource.getrlimit(kind)[1] for name, kind in kinds.items()}
    return [f"--ulimit={name}={number}:{number}" for name, number in most.items()]


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    away = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
    begin = "mount -t tmpfs tmpfs /mnt; echo ready; exec sleep infinity"
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig=KILL", *away, "sh", "-euc", begin],
        env={**os.environ, "PATH": PATH},
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        [first] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        podman = Podman(int(first))
        with contextlib.ExitStack() as stack:
            stack.callback(podman, "rm", "--force", "--all", "--time=0", check=False)
            yield podman
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


@pytest.fixture(scope="module")
def image(podman: Podman) -> str:
    """The image, whose base is a bare Debian with Python."""
    make = f"{MAKE_ROOT}make_root {CODENAME} /mnt/base.tar python3,python3-venv,binutils"
    podman.inside("sh", "-euc", make)
    podman("import", "--quiet", "/mnt/base.tar", "localhost/bare")
    fetch = environ_to_fetch()
    named = [value for value in fetch.values() if value.startswith("/") and Path(value).exists()]
    mounts = [
        f"--volume={path}:{path}:ro" for path in {*FILES[:1], *FILES[2:], *named} if Path(path).exists()
    ]
    options = [
        f"--build-arg={name}={fetch[name]}" for name in ("PIP_FIND_LINKS", "PIP_INDEX_URL") if name in fetch
    ]
    podman(
        *("build", "--quiet", "--network=host", "--build-arg=BASE=localhost/bare", *options, *mounts),
        *(*limits(), "--tag=proxyherd", f"--file={ROOT}/deploy/container/Containerfile", ROOT),
    )
    return "proxyherd"


def test_a_server_answers_with_its_root_read_only_and_within_the_limits_of_the_page(
    podman: Podman, image: str
) -> None:
    [said] = re.findall(r"`docker run (--memory [^`]*) --ulimit nofile=65536`", OPERATIONS)
    # Its owner is the user of the image.
    podman.inside("sh", "-euc", "umask 077; head -c 32 /dev/urandom >/mnt/secret; chown 10001 /mnt/secret")
    podman.inside("sh", "-euc", "echo 127.0.1.1 clark >/mnt/hosts")
    options = [
        *(
            "--detach",
            "--name=clark",
            "--network=none",
            "--read-only",
            "--cap-drop=ALL",
            *said.split(),
            *limits(),
        ),
        *("--volume=/mnt/hosts:/etc/hosts:ro", "--volume=/mnt/secret:/run/secrets/proxyherd:ro"),
    ]
    podman("run", *options, image, "Clark")
    told = ["exec", "clark", "proxyherd", "iamat", "kiwi", "+34.068930-118.445127", "--server", "Clark"]
    wait_until(lambda: podman(*told, check=False).stdout.startswith("AT Clark "), "Clark answers")
    near = podman("exec", "clark", "proxyherd", "whatsat", "kiwi", "10", "5", "--server", "Clark")
    assert '"Bel Air"' in near.stdout
    assert '"event":"started"' in podman("logs", "clark").stdout
    podman("stop", "clark")
    assert podman("inspect", "--format={{.State.ExitCode}}", "clark").stdout == "0\n"
