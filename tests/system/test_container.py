"""The container image: built from a bare Debian by the Containerfile, and run as compose.yml says, by podman.

podman runs in namespaces of its own, whose first process the kernel kills with the test process, and keeps all on a disk
of memory there. The containers share one network, with nothing but loopback addresses.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from bare_root import CODENAME, FILES, MAKE_ROOT, needs_debian
from debian import PATH, environ_to_fetch, needs
from herd_process import wait_until

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "deploy/container/compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ADDRESSES = {name: f"127.0.1.{number}" for number, name in enumerate(SERVICES, 1)}

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

    def execute(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self("exec", name, *command, check=False)

    def log(self, name: str) -> str:
        return self("logs", name).stdout

    def inspect(self, name: str, what: str) -> str:
        return self("inspect", "--format", f"{{{{.{what}}}}}", name).stdout.strip()


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
    make = f"{MAKE_ROOT}make_root {CODENAME} /mnt/base.tar python3,python3-venv"
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


def start(podman: Podman, name: str, network: str) -> None:
    """Start a service as compose.yml says."""
    service = SERVICES[name]
    options = [
        *("--detach", f"--name={name}", f"--network={network}", "--volume=/mnt/hosts:/etc/hosts:ro"),
        *("--read-only" if service["read_only"] else "--read-only=false", f"--memory={service['mem_limit']}"),
        *(f"--cap-drop={one}" for one in service["cap_drop"]),
        *(f"--security-opt={one.replace(':', '=')}" for one in service["security_opt"]),
        *(f"--pids-limit={service['pids_limit']}", f"--cpus={service['cpus']}", *limits()),
        *(
            f"--stop-signal={service['stop_signal']}",
            f"--stop-timeout={service['stop_grace_period'].rstrip('s')}",
        ),
        *(f"--volume={one}" for one in service["volumes"]),
        *("--volume=/mnt/secret:/run/secrets/proxyherd:ro",),
        f"--volume={ROOT}/deploy/container/herd.toml:{service['configs'][0]['target']}:ro",
    ]
    podman("run", *options, service["image"], *service["command"])


@pytest.fixture(scope="module")
def herd(podman: Podman, image: str) -> Podman:
    """All services of compose.yml, running."""
    assert SERVICES["clark"]["image"] == image
    # Its owner is the user of the image.
    podman.inside("sh", "-euc", "umask 077; head -c 32 /dev/urandom >/mnt/secret; chown 10001 /mnt/secret")
    hosts = "".join(f"{address} {name}\n" for name, address in ADDRESSES.items())
    podman.inside("sh", "-euc", f"printf '{hosts}' >/mnt/hosts")
    first, *others = SERVICES
    start(podman, first, "none")
    for name in others:
        start(podman, name, f"container:{first}")
    done = podman.execute(first, "proxyherd", "status", "--wait", "60")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}{podman.log('clark')}"
    return podman


def is_healthy(podman: Podman, name: str) -> bool:
    kind, *command = SERVICES[name]["healthcheck"]["test"]
    assert kind == "CMD"
    return podman.execute(name, *command).returncode == 0


def test_five_containers_are_a_herd_whose_health_checks_succeed(herd: Podman) -> None:
    assert all(is_healthy(herd, name) for name in SERVICES)
    told = herd.execute("clark", "proxyherd", "iamat", "kiwi", "+34.068930-118.445127", "--server", "Clark")
    assert told.stdout.startswith("AT Clark "), told

    def is_known() -> bool:
        asked = herd.execute("bailey", "proxyherd", "whatsat", "kiwi", "10", "5", "--server", "Bailey")
        return asked.stdout.startswith(told.stdout.strip())

    wait_until(is_known, "Bailey knows what Clark has heard")


def test_logs_go_to_standard_output(herd: Podman) -> None:
    lines = herd.log("clark").splitlines()
    assert [line for line in lines if '"event":"started"' in line]
    assert all(line.startswith('{"timestamp":') for line in lines)


def test_a_server_is_no_root_and_writes_only_its_state(herd: Podman) -> None:
    assert herd.execute("clark", "id", "-u").stdout == "10001\n"
    tried = "for folder in / /etc /usr /var/lib /var/lib/proxyherd; do touch $folder/x && rm $folder/x && echo $folder; done"
    assert herd.execute("clark", "sh", "-c", tried).stdout == "/var/lib/proxyherd\n"


def test_a_stopped_server_drains_and_comes_back_with_its_state(herd: Podman) -> None:
    herd("stop", "clark")
    assert herd.inspect("clark", "State.ExitCode") == "0"
    assert '"event":"stopped"' in herd.log("clark").splitlines()[-1]
    assert '"event":"ready"' in herd.log("clark")
    herd("start", "clark")
    wait_until(lambda: is_healthy(herd, "clark"), "Clark is healthy again")
    asked = herd.execute("clark", "proxyherd", "whatsat", "kiwi", "10", "5", "--server", "Clark")
    assert asked.stdout.startswith("AT Clark "), asked
