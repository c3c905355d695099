"""The Debian package: built by `make deb`, then installed, upgraded and purged on a booted system, in this order."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from booted import BootedMachine, booted, copy_checkout, system_python
from debian import PATH, environ_to_fetch, needs
from herd_process import now, wait_until

from proxyherd import __version__
from proxyherd.config import herd_file

pytestmark = [
    needs("systemd-nspawn", "systemctl", "nsenter", "dpkg-deb", "lintian", "python3:ensurepip", root=True),
    pytest.mark.skipif(
        "CI" not in os.environ, reason="it takes a minute of processor time: make test-packages runs it too"
    ),
    pytest.mark.xdist_group("systemd"),
]

ROOT = Path(__file__).parents[2]
SERVERS = herd_file.load(ROOT / "deploy/herd.toml").servers
NEXT = "99.0.1"
PROGRAM = "/usr/lib/proxyherd"


def run(*command: object, cwd: Path | None = None) -> str:
    environ = {**os.environ, **environ_to_fetch(), "PATH": PATH}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of this checkout."""
    system_python()
    checkout = copy_checkout(tmp_path_factory.mktemp("deb") / "checkout")
    shutil.copy(ROOT / "CHANGELOG.md", checkout)
    run("make", "deb", cwd=checkout)
    [built] = (checkout / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def following(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of a release after it, in which only versions are other ones."""
    folder = tmp_path_factory.mktemp("next") / "root"
    run("dpkg-deb", "-R", package, folder)
    [program] = (folder / PROGRAM.lstrip("/")).iterdir()
    program.rename(program.with_name(f"{NEXT}-1"))
    changes = {
        "usr/bin/proxyherd": (program.name, f"{NEXT}-1"),
        "DEBIAN/md5sums": (program.name, f"{NEXT}-1"),
        "DEBIAN/control": (f"Version: {__version__}", f"Version: {NEXT}"),
        f"{PROGRAM.lstrip('/')}/{NEXT}-1/proxyherd/__init__.py": (f'"{__version__}"', f'"{NEXT}"'),
    }
    for name, (old, new) in changes.items():
        file = folder / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
    run("dpkg-deb", "--root-owner-group", "-Znone", "--build", folder, built := folder.with_name("next.deb"))
    return built


@pytest.fixture(scope="module")
def machine() -> Iterator[BootedMachine]:
    with booted() as machine:
        yield machine


@pytest.fixture(scope="module")
def before(machine: BootedMachine) -> set[str]:
    """The files that the machine had before anything was installed."""
    return files(machine)


def files(machine: BootedMachine) -> set[str]:
    """Return the files that were changed or made, but for what the running system and dpkg write."""
    own = ("/var/log/journal/", "/var/lib/systemd/", "/run/", "/tmp/", "/root/")
    dpkg = (
        "/var/lib/dpkg/",
        "/var/lib/apt/",
        "/var/lib/PackageKit/",
        "/var/cache/",
        "/var/log/",
        "/usr/share/doc/",
    )
    accounts = ("/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow")
    return {file for file in machine.changed() if not file.startswith((*own, *dpkg, *accounts))}


def apt(machine: BootedMachine, package: Path) -> str:
    """Install a package as docs/operations.md says; return what it prints."""
    name = package.name
    machine.path(f"/root/{name}").write_bytes(package.read_bytes())
    return machine.run(
        f"DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ./{name}"
    ).stdout


def wait_until_whole(machine: BootedMachine) -> None:
    machine.run("proxyherd status --wait 60")


def shown(machine: BootedMachine, what: str) -> list[str]:
    """Return a property of all servers' units."""
    units = " ".join(f"proxyherd@{name}.service" for name in SERVERS)
    return machine.run(f"systemctl show --value --property={what} {units}").stdout.split()


def ask(machine: BootedMachine, name: str, line: bytes) -> bytes:
    with machine.connect(SERVERS[name].clients[0].port) as connection:
        return connection.ask(line)


def folders(machine: BootedMachine) -> int:
    return int(machine.run(f"ls {PROGRAM} | wc -l").stdout)


# --- the package


def test_lintian_finds_no_error(package: Path) -> None:
    assert "E: " not in run("lintian", "--allow-root", "--fail-on", "error", package)


def test_package_depends_on_the_python_for_which_it_was_built(package: Path) -> None:
    depends = run("dpkg-deb", "-f", package, "Depends")
    python = Path(system_python()).resolve().name
    assert re.match(rf"{re.escape(python)}, libc6 \(>= [0-9.]+\)", depends)


def test_man_page_and_copyright_come_along(package: Path) -> None:
    root = package.parent / "extracted"
    run("dpkg-deb", "-x", package, root)
    man = run("zcat", root / "usr/share/man/man1/proxyherd.1.gz")
    assert ".B proxyherd serve\n" in man
    text = (root / "usr/share/doc/proxyherd/copyright").read_text()
    assert text.startswith(f"{(ROOT / 'LICENSE').read_text()}\nThe offline places")
    assert " aiohttp " in text
    assert "GeoNames" in text
    shutil.rmtree(root)


# --- on a system


@pytest.mark.usefixtures("before")
def test_installed_package_starts_the_herd_by_the_commands_of_its_readme(
    machine: BootedMachine, package: Path
) -> None:
    apt(machine, package)
    readme = machine.run("cat /usr/share/doc/proxyherd/README.Debian").stdout
    start, status = re.findall(r"^    (systemctl enable.*|proxyherd status.*)\n", readme, re.MULTILINE)[:2]
    assert set(shown(machine, "ActiveState")) == {"inactive"}
    machine.run(start)
    machine.run(status)
    assert machine.run("stat -c '%U %a' /etc/proxyherd/secret").stdout == "root 600\n"
    assert ask(machine, "Clark", b"IAMAT kiwi +34.068930-118.445127 %b" % now()).startswith(b"AT Clark ")


def test_upgrade_restarts_no_server_and_takes_nothing_from_those_that_run(
    machine: BootedMachine, following: Path
) -> None:
    file = machine.path("/etc/proxyherd/herd.toml")
    file.write_text(file.read_text() + "# of the operator\n")
    pids = shown(machine, "MainPID")
    told = apt(machine, following)
    assert "Servers that run go on with the version before" in told
    assert shown(machine, "MainPID") == pids
    assert file.read_text().endswith("# of the operator\n")
    assert machine.run("proxyherd --version").stdout.split()[-1] != __version__
    assert folders(machine) == 2
    for pid in pids:  # the files from which it was loaded
        maps = machine.run(f"grep -o '{PROGRAM}/[^ ]*' /proc/{pid}/maps | sort -u").stdout.split()
        assert [file for file in maps if not machine.path(file).exists()] == []
    wait_until_whole(machine)


def test_after_the_upgrade_servers_are_restarted_one_after_another(machine: BootedMachine) -> None:
    readme = machine.run("cat /usr/share/doc/proxyherd/README.Debian").stdout
    _, _, text = readme.partition("Upgrade\n")
    [loop] = re.findall(r"^    for .*?^    done$", text, re.MULTILINE | re.DOTALL)
    machine.run(loop)
    for pid in shown(machine, "MainPID"):
        machine.run(f"grep -qF {PROGRAM}/{NEXT}-1/ /proc/{pid}/maps")
    assert ask(machine, "Bona", b"WHATSAT kiwi 0 0").startswith(b"AT ")


def test_removed_package_leaves_data_and_a_purged_one_nothing(
    machine: BootedMachine, before: set[str], following: Path
) -> None:
    secret = machine.path("/etc/proxyherd/secret").read_bytes()
    machine.run("DEBIAN_FRONTEND=noninteractive apt-get remove -y proxyherd")
    assert machine.run("pgrep -f 'proxyherd serve'", check=False).stdout == ""
    assert not machine.path(PROGRAM).exists()
    assert machine.path("/var/lib/proxyherd/Clark/journal").exists()
    apt(machine, following)
    assert machine.path("/etc/proxyherd/secret").read_bytes() == secret
    assert folders(machine) == 1
    machine.run("systemctl start proxyherd.target")  # its servers are still enabled
    wait_until(lambda: set(shown(machine, "ActiveState")) == {"active"}, "all are up")
    wait_until_whole(machine)
    machine.run("DEBIAN_FRONTEND=noninteractive apt-get purge -y proxyherd")
    assert files(machine) - before == set()
    assert machine.run("ls -d /usr/share/doc/proxyherd /var/log/proxyherd", check=False).stdout == ""
    assert "proxyherd" in machine.run("getent passwd proxyherd").stdout
    assert "proxyherd" not in machine.run("systemctl list-unit-files --no-pager").stdout
