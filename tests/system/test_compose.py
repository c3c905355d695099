"""compose.yml, word for word as docs/operations.md says, by docker itself.

docker is that of Debian 13, whose plugin compose is today's, in a root of its own; so is the bare Debian from which the
Containerfile builds. Both have what they need before docker starts, which has a network of its own, without packages.
Its first process is docker's, in namespaces of its own: all that it has started ends with it, and that with the test
process.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from bare_root import BRING, FILES, MAKE_ROOT, block, named, needs_debian
from booted import copy_checkout
from debian import PATH, SYSTEM_PATH, environ_to_fetch, needs
from herd_process import now, wait_until

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text()
SERVICES = yaml.safe_load((ROOT / "deploy/container/compose.yml").read_text())["services"]

MOST_SECONDS = 1000.0
"""For roots that are fetched by a busy machine."""

pytestmark = [
    needs("mmdebstrap", "unshare", "nsenter", "setpriv", "ip", root=True),
    needs_debian,
    pytest.mark.skipif(
        "CI" not in os.environ, reason="it takes a minute of processor time: make test-packages runs it too"
    ),
    pytest.mark.xdist_group("bare machine"),
]

BEGIN = rf"""
{MAKE_ROOT}{BRING}
checkout=$1
shift
mount -t tmpfs tmpfs /mnt
cd /mnt
make_root trixie /mnt/bare python3,python3-venv,binutils
make_root trixie /mnt/root docker.io,docker-cli,docker-compose,docker-buildx,iptables,sudo
rm -f */etc/apt/sources.list */etc/apt/sources.list.d/*
cp -R "$checkout" root/herd
cp /etc/hosts root/etc/hosts
bring /mnt/bare "$@"
mount --rbind /dev bare/dev
cp -R "$checkout/deploy" bare/deploy
chroot bare sh -euc '
    python3 -m venv /packages
    for file in deploy/requirements*.txt; do
        /packages/bin/pip download --quiet --dest /packages/wheels --require-hashes -r $file
    done'
rm -r bare/deploy
printf '[global]\nno-index = true\nfind-links = /packages/wheels\n' >bare/etc/pip.conf
for file in /dev "$@"; do
    ! mountpoint --quiet "bare$file" || umount --lazy "bare$file"
done
tar -C bare -cf root/bare.tar .
cd root
mount --bind . .
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /dev dev
mount --rbind /sys/fs/cgroup sys/fs/cgroup
for folder in run tmp var/lib/docker; do mkdir -p $folder; mount -t tmpfs tmpfs $folder; done
exec unshare --net sh -euc 'ip link set lo up; mkdir old; pivot_root . old; umount -l old; exec dockerd'
"""

IMPORT = f"docker import --change 'ENV PATH={SYSTEM_PATH}' /bare.tar debian:trixie-slim"
"""The official image, as far as a Containerfile sees it."""


class Docker:
    """docker, in the namespaces of its first process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def __call__(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a script of bash in the folder of compose.yml."""
        done = subprocess.run(
            [
                "nsenter",
                "-t",
                str(self._pid),
                "-m",
                "-p",
                "-n",
                "bash",
                "-euc",
                f"cd /herd/deploy/container; {script}",
            ],
            env={"PATH": SYSTEM_PATH, "HOME": "/root"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}: {done.stdout[-2000:]}{done.stderr[-8000:]}"
        return done

    def containers(self) -> dict[str, str]:
        """Return the container of each service that runs."""
        lines = self("docker compose ps --format json").stdout.splitlines()
        return {one["Service"]: one["ID"] for one in map(json.loads, lines)}

    def log(self, service: str) -> list[str]:
        said = self(f"docker compose logs --no-color --no-log-prefix {service}").stdout
        return said.replace("\x1b[2K", "").splitlines()  # which it prints wherever it prints

    def ask(self, port: int, line: str) -> str:
        """Return the first line of an answer, which a client of this host gets."""
        return self(f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo '{line}' >&3; head -n 1 <&3").stdout

    def health(self, service: str) -> str:
        [said] = re.findall(
            r"\((\w+)\)", self(f"docker compose ps --format '{{{{.Status}}}}' {service}").stdout
        )
        return str(said)


def _first(process: subprocess.Popen[bytes]) -> int:
    """Return the first process of the namespaces, once docker answers there."""

    def found() -> int:
        assert process.poll() is None, "it has ended"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if not children or Path(f"/proc/{children[0]}/comm").read_text() != "dockerd\n":
            return 0
        answers = Docker(int(children[0]))("docker info", check=False).returncode == 0
        return int(children[0]) if answers else 0

    return int(wait_until(found, "docker answers", MOST_SECONDS))


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    checkout = copy_checkout(tmp_path_factory.mktemp("compose") / "checkout")
    shutil.copy(ROOT / ".dockerignore", checkout)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    less = {name: {"ulimits": {"nofile": limit}} for name in SERVICES}
    if limit < SERVICES["clark"]["ulimits"]["nofile"]:  # there are machines on which root may not raise it
        (checkout / "deploy/container/compose.override.yml").write_text(yaml.safe_dump({"services": less}))
    fetch = environ_to_fetch()
    away = ("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child", "--mount-proc")
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [
                "setpriv",
                "--pdeathsig=KILL",
                *away,
                "sh",
                "-euc",
                BEGIN,
                "sh",
                checkout,
                *FILES,
                *named(fetch),
            ],
            env={**fetch, "HOME": "/root", "PATH": PATH},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            docker = Docker(_first(process))
            docker(IMPORT)
            yield docker
        except AssertionError as error:
            output.seek(0)
            raise AssertionError(output.read().decode(errors="replace")[-8000:]) from error
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def status(docker: Docker) -> str:
    """What the last command of the page prints, when the others have started the herd."""
    return docker("\n".join(["cd /herd", *block(OPERATIONS, "cd deploy/container")])).stdout


def test_commands_of_the_page_start_a_herd_whose_containers_are_healthy(docker: Docker, status: str) -> None:
    assert re.findall(r"^(\w+) .* ready  (\d)/\2 ", status, re.MULTILINE) == [
        ("Bailey", "2"), ("Bona", "3"), ("Campbell", "3"), ("Clark", "2"), ("Jaquez", "2"),
    ]  # fmt: skip
    assert {name: docker.health(name) for name in SERVICES} == dict.fromkeys(SERVICES, "healthy")


@pytest.mark.usefixtures("status")
def test_clients_of_the_host_reach_each_server(docker: Docker) -> None:
    told = docker.ask(10003, f"IAMAT kiwi +34.068930-118.445127 {now().decode()}")
    assert told.startswith("AT Clark "), told
    ports = [int(service["ports"][0].split(":")[1]) for service in SERVICES.values()]
    wait_until(lambda: {docker.ask(port, "WHATSAT kiwi 10 0") for port in ports} == {told}, "all know kiwi")
    assert (
        '"Bel Air"' in docker("docker compose exec bailey proxyherd whatsat kiwi 10 5 --server Bailey").stdout
    )


@pytest.mark.usefixtures("status")
def test_logs_go_to_standard_output(docker: Docker) -> None:
    lines = docker.log("clark")
    assert [line for line in lines if '"event":"started"' in line]
    assert all(line.startswith('{"timestamp":') for line in lines)


@pytest.mark.usefixtures("status")
def test_a_server_is_no_root_and_writes_only_its_state(docker: Docker) -> None:
    tried = "for folder in / /etc /usr /var/lib /var/lib/proxyherd; do touch $folder/x && rm $folder/x && echo $folder; done"
    assert docker(f"docker compose exec clark sh -c '{tried}'").stdout == "/var/lib/proxyherd\n"
    assert docker("docker compose exec clark id -u").stdout == "10001\n"


@pytest.mark.usefixtures("status")
def test_one_image_is_built_for_all(docker: Docker) -> None:
    """Of several, one would have the name, and the next `up` would restart whoever has another one."""
    assert docker("docker images --all --quiet --filter dangling=true").stdout == ""


@pytest.mark.usefixtures("status")
def test_the_same_command_again_restarts_nothing(docker: Docker) -> None:
    before = docker.containers()
    [command] = (one for one in block(OPERATIONS, "cd deploy/container") if " up " in one)
    docker(command)
    assert docker.containers() == before


@pytest.mark.usefixtures("status")
def test_a_stopped_server_drains_and_comes_back_with_its_state(docker: Docker) -> None:
    docker.ask(10003, f"IAMAT plum +34.068930-118.445127 {now().decode()}")
    docker("docker compose stop clark")
    assert docker("docker compose ps --all --format '{{.ExitCode}}' clark").stdout == "0\n"
    assert '"event":"stopped"' in docker.log("clark")[-1]
    docker("docker compose up --detach --wait clark")
    assert docker.ask(10003, "WHATSAT plum 10 0").startswith("AT Clark ")


@pytest.mark.usefixtures("status")
def test_an_upgrade_takes_one_server_after_the_other(docker: Docker) -> None:
    """As the page says it of Clark."""
    [row] = re.findall(r"^\| upgrade \| (.*) \|$", OPERATIONS, re.MULTILINE)
    build, up = re.findall(r"`(docker compose [^`]*)`", row)
    before = docker.containers()
    docker("echo >>herd.toml")  # a part of the image
    docker(build)
    assert docker.containers() == before
    docker(up)
    after = docker.containers()
    assert {name for name in before if after[name] != before[name]} == {"clark"}
    assert docker.ask(10003, "WHATSAT plum 10 0").startswith("AT Clark ")
