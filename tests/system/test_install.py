"""`make install` and `make uninstall` into a folder, as packages are made. On a booted system: test_systemd.py.

One install builds the program, which takes many seconds of CPU. The others take what that one has built.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from booted import copy_checkout, system_python
from debian import needs
from herd_process import short_folder

pytestmark = pytest.mark.xdist_group("install")

ROOT = Path(__file__).parents[2]
PREFIX = "/opt/a.herd"
PROGRAM = "opt/a.herd/lib/proxyherd"
LAUNCHER = "opt/a.herd/bin/proxyherd"
CONFIGURATION = {"etc/proxyherd/herd.toml", "etc/logrotate.d/proxyherd"}
FILES = CONFIGURATION | {
    LAUNCHER,
    "opt/a.herd/share/proxyherd/herd.toml",
    "opt/a.herd/share/proxyherd/logrotate",
    "opt/a.herd/share/proxyherd/gazetteer.dat",
    "etc/systemd/system/proxyherd@.service",
    "etc/systemd/system/proxyherd.target",
    "etc/systemd/system/proxyherd-gazetteer.service",
    "etc/sysusers.d/proxyherd.conf",
    "etc/tmpfiles.d/proxyherd.conf",
}
OUTSIDE = [
    Path(PREFIX),
    Path("/etc/proxyherd"),
    Path("/etc/logrotate.d/proxyherd"),
    Path("/usr/local/bin/proxyherd"),
]

MAKES_VENV = '"$interpreter" -m venv "$work/venv"'
"""What deploy/install.sh makes to build with."""

NO_INDEX = "--no-index"
"""The first line of a lock file by which a test has the real pip install from a folder."""

TAKES_WHAT_WAS_BUILT = """\
case " $* " in *" gazetteer "*) for file; do :; done; [ -e "$file" ] || : >"$file"; exit ;; esac
# In place of: python -m pip install ... --target FOLDER ...
[ "$(head -n 1 deploy/requirements.txt)" != {no_index} ] || exec {pip_has} "$@"
for argument; do
    [ "$before" != --target ] || target=$argument
    before=$argument
done
[ -z "$target" ] || cp -a '{built}/.' "$target"
"""


def make(checkout: Path, target: str, **variables: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", target, *(f"{name}={value}" for name, value in variables.items())],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        umask=0o077,
    )


def tree(folder: Path) -> dict[str, int]:
    """Return all files below a folder, with when they were written."""
    return {
        file.relative_to(folder).as_posix(): file.stat().st_mtime_ns
        for file in folder.rglob("*")
        if file.is_file()
    }


class Installed:
    """A checkout, and the folder that it was installed into."""

    def __init__(self, folder: Path) -> None:
        self.checkout = copy_checkout(folder / "checkout")
        self.destination = folder / "destination"
        self.python = system_python()
        self.before = tree(self.checkout)
        self.outside = [path.exists() for path in OUTSIDE]
        done = self.make("install")
        assert done.returncode == 0, done.stderr
        self.quick = self._make_quick(folder)

    def _make_quick(self, folder: Path) -> Path:
        """Return a checkout whose `pip install` copies what was built."""
        built, venv = folder / "built", folder / "venv"
        shutil.copytree(self.destination / PROGRAM / self.named(), built)
        (venv / "bin").mkdir(parents=True)
        takes = TAKES_WHAT_WAS_BUILT.format(built=built, no_index=NO_INDEX, pip_has=sys.executable)
        python(venv / "bin", takes)
        quick = copy_checkout(folder / "quick")
        script = quick / "deploy/install.sh"
        text = script.read_text()
        assert text.count(MAKES_VENV) == 1
        script.write_text(text.replace(MAKES_VENV, f"cp -R '{venv}' \"$work/venv\""))
        return quick

    def make(self, target: str, checkout: Path | None = None) -> subprocess.CompletedProcess[str]:
        variables = {"DESTDIR": self.destination, "PREFIX": PREFIX, "PYTHON": self.python}
        return make(checkout or self.checkout, target, **variables)

    def files(self) -> set[str]:
        return set(tree(self.destination))

    def versions(self) -> list[str]:
        return sorted(folder.name for folder in (self.destination / PROGRAM).iterdir())

    def named(self) -> str:
        """Return the version that the launcher starts."""
        [version] = re.findall(rf'"/{PROGRAM}/(.*)"', (self.destination / LAUNCHER).read_text())
        return str(version)


@pytest.fixture(scope="module")
def installed() -> Iterator[Installed]:
    with short_folder() as folder:
        yield Installed(folder)


def test_install_writes_into_its_folder_only(installed: Installed) -> None:
    assert {file for file in installed.files() if not file.startswith(f"{PROGRAM}/")} == FILES
    assert tree(installed.checkout) == installed.before
    assert [path.exists() for path in OUTSIDE] == installed.outside


def test_nothing_installed_names_the_folder_it_was_built_in(installed: Installed) -> None:
    names = [bytes(folder) for folder in (installed.destination, installed.checkout)]
    for file in installed.destination.rglob("*"):
        if file.is_file():
            text = file.read_bytes()
            assert not any(name in text for name in names), file


def test_every_module_is_compiled(installed: Installed) -> None:
    program = installed.destination / PROGRAM / installed.named()
    sources = list(program.rglob("*.py"))
    assert len(sources) > 200
    for source in sources:
        assert list((source.parent / "__pycache__").glob(f"{source.stem}.*.pyc")), source


@needs("strip")
def test_the_program_takes_no_more_of_the_disk_than_operations_say(installed: Installed) -> None:
    """Bytecode counts: without symbols it is a third of the program."""
    page = (ROOT / "docs/operations.md").read_text()
    [most] = re.findall(r"the program takes at most (\d+) MB of disk", page)
    files = (installed.destination / PROGRAM / installed.named()).rglob("*")
    size = sum(file.stat().st_size for file in files if file.is_file())
    assert int(most) - 8 < size / 1e6 < int(most)


def test_everyone_can_read_and_only_the_owner_can_write_whatever_the_umask(installed: Installed) -> None:
    for path in installed.destination.rglob("*"):
        mode = path.stat().st_mode
        assert mode & 0o022 == 0, path
        assert mode & 0o044 == 0o044, path


def test_units_start_what_was_installed(installed: Installed) -> None:
    units = installed.destination / "etc/systemd/system"
    for unit in ("proxyherd@.service", "proxyherd-gazetteer.service"):
        [command] = re.findall(r"^ExecStart=(\S+)", (units / unit).read_text(), re.MULTILINE)
        assert command == f"{PREFIX}/bin/proxyherd"


def test_launcher_is_isolated_and_starts_the_program(installed: Installed) -> None:
    launcher = installed.destination / LAUNCHER
    shebang, rest = launcher.read_text().split("\n", 1)
    interpreter, options = shebang.removeprefix("#!").split(" ")
    assert Path(interpreter) == Path(installed.python).resolve()
    assert options == "-IS"
    here = rest.replace(f"/{PROGRAM}", str(installed.destination / PROGRAM))
    environ = {**os.environ, "PYTHONPATH": str(ROOT / "nowhere"), "PYTHONHOME": "/nowhere"}
    done = subprocess.run(
        [interpreter, options, "-c", here, "--version"],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r".* version \d+\.\d+\.\d+ \(pure Python\)\n", done.stdout)


def test_install_of_a_file_without_its_hash_fails_and_leaves_the_version_before(
    installed: Installed, tmp_path: Path
) -> None:
    before = tree(installed.destination)
    name = "library-1.0.dist-info"
    with ZipFile(tmp_path / "library-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/METADATA", "Metadata-Version: 2.1\nName: library\nVersion: 1.0\n")
        wheel.writestr(f"{name}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}/RECORD", "")
    lock = installed.quick / "deploy/requirements.txt"
    good = lock.read_text()
    lock.write_text(f"{NO_INDEX}\n--find-links {tmp_path}\nlibrary==1.0 --hash=sha256:{'0' * 64}\n")
    try:
        done = installed.make("install", installed.quick)
    finally:
        lock.write_text(good)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    after = tree(installed.destination)
    assert {file: when for file, when in after.items() if f"{PROGRAM}/.new/" not in file} == before


def test_install_over_another_keeps_the_version_before_those_that_run_and_what_is_the_operators(
    installed: Installed,
) -> None:
    first, old, runs = installed.named(), "0.0.1-20200101000000", "0.0.2-20200102000000"
    for version in (old, runs):
        (installed.destination / PROGRAM / version).mkdir()
    module = installed.destination / PROGRAM / runs / "module.so"
    module.write_bytes(b"x")
    changed = {file: f"# changed\n{(installed.destination / file).read_text()}" for file in CONFIGURATION}
    for file, text in changed.items():
        (installed.destination / file).write_text(text)
    with module.open("rb") as code, mmap.mmap(code.fileno(), 0, access=mmap.ACCESS_READ):
        done = installed.make("install", installed.quick)
    assert done.returncode == 0, done.stderr
    assert installed.versions() == sorted([runs, first, installed.named()])
    assert installed.named() > first
    for file, text in changed.items():
        assert (installed.destination / file).read_text() == text
        assert f"Kept {installed.destination}/{file}; " in done.stdout


def test_uninstall_leaves_configuration_and_data_and_says_so(installed: Installed) -> None:
    data = {"var/lib/proxyherd/Clark/journal/x", "var/log/proxyherd/Clark.log", "etc/proxyherd/secret"}
    for file in data:
        (installed.destination / file).parent.mkdir(parents=True, exist_ok=True)
        (installed.destination / file).touch()
    logrotate = installed.destination / "etc/logrotate.d/proxyherd"
    logrotate.write_text(logrotate.read_text() + "# changed\n")
    done = installed.make("uninstall")
    assert done.returncode == 0, done.stderr
    assert installed.files() == data | CONFIGURATION
    for left in ("etc/proxyherd", "var/lib/proxyherd", "var/log/proxyherd", "etc/logrotate.d/proxyherd"):
        assert f"Left: {installed.destination}/{left}\n" in done.stdout
    shutil.copy(ROOT / "deploy/logrotate/proxyherd", logrotate)
    assert installed.make("uninstall").returncode == 0  # again: nothing is there, which is no failure


WITHOUT_SYSTEMD = """
set -eu
folder=$1
shift
mount -t tmpfs tmpfs "$folder"
for name in etc usr; do
    mkdir "$folder/$name" "$folder/$name.work"
    mount -t overlay overlay -o "lowerdir=/$name,upperdir=$folder/$name,workdir=$folder/$name.work" "/$name"
done
rm -rf /usr/bin/systemd-sysusers /etc/logrotate.d/proxyherd /etc/proxyherd /usr/local/bin/proxyherd
rm -f /etc/systemd/system/proxyherd* /usr/local/lib/systemd/system/proxyherd* /usr/lib/systemd/system/proxyherd*
make --no-print-directory install "$@"
[ ! -e /etc/logrotate.d/proxyherd ] || echo "There are rules for logrotate"
proxyherd check-config --config /etc/proxyherd/herd.toml
"""
"""In a mount namespace, with which all of it goes."""


@needs("unshare", root=True)
def test_system_without_systemd_gets_no_rules_for_logrotate_whose_user_it_lacks(
    installed: Installed, tmp_path: Path
) -> None:
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", WITHOUT_SYSTEMD, "sh", tmp_path, f"PYTHON={installed.python}"],
        cwd=installed.quick,
        env={**os.environ, "PATH": f"/usr/local/bin:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "There is no systemd here" in done.stdout
    assert "There are rules for logrotate" not in done.stdout
    assert "proxyherd status --config /etc/proxyherd/herd.toml" in done.stdout  # typed in this checkout


# --- what is refused


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of what decides whether to begin at all."""
    (tmp_path / "deploy").mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "deploy/install.sh", tmp_path / "deploy")
    return tmp_path


def refusal(checkout: Path, **variables: object) -> str:
    done = make(checkout, "install", **{"DESTDIR": checkout / "destination", **variables})
    assert done.returncode != 0
    assert not (checkout / "destination").exists()
    return done.stderr


def python(folder: Path, script: str) -> Path:
    """Return an interpreter that answers as another would."""
    file = folder / "python"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("home", ["/root", "/home/ann"])
def test_interpreter_that_units_cannot_see_is_refused(checkout: Path, home: str) -> None:
    interpreter = f"{home}/versions/3.12/bin/python3.12"
    said = refusal(checkout, PYTHON=python(checkout, f"echo {interpreter}"))
    assert interpreter in said
    assert "make install PYTHON=/usr/bin/python3" in said


def test_interpreter_that_is_too_old_is_refused(checkout: Path) -> None:
    old = f"{sys.executable} -c 'import sys; sys.version_info = (3, 10, 0); exec(sys.argv[1])' \"$2\""
    said = refusal(checkout, PYTHON=python(checkout, old))
    assert said.startswith("Python 3.10 at ")
    assert "must be Python 3.11 or newer; name one that is: make install PYTHON=" in said


@pytest.mark.parametrize(
    "prefix",
    [
        *(
            "herd",
            "/opt/a herd",
            "/opt/herd/",
            "/opt/50%",
            "/",
            "/opt/../herd",
            "/usr/..",
            "/./home/ann",
            "/opt/.",
        ),
        *("/home/ann", "/tmp/herd", "/root", "/home", "/run/user", "/tmp", "/var/tmp"),
    ],
)
def test_place_where_units_cannot_be_is_refused(checkout: Path, prefix: str) -> None:
    assert f"PREFIX={prefix}" in refusal(checkout, PREFIX=prefix).replace("'", "")


def test_folder_that_depends_on_where_one_stands_is_refused(checkout: Path) -> None:
    assert "DESTDIR='there' must be an absolute path" in refusal(checkout, DESTDIR="there")


def put_unit(destination: Path, folder: str, prefix: str) -> Path:
    unit = destination / folder / "systemd/system/proxyherd@.service"
    unit.parent.mkdir(parents=True)
    text = (ROOT / "systemd/proxyherd@.service").read_text()
    unit.write_text(text.replace("/usr/local/bin/proxyherd", f"{prefix}/bin/proxyherd"))
    return unit


@pytest.mark.parametrize(
    ("folder", "there", "prefix"),
    [
        ("etc", "/opt/herd", "/usr/local"),  # systemd would go on with the old ones
        ("etc", "/opt/herd", "/usr"),
        ("usr/local/lib", "/usr/local", "/usr"),
        ("usr/local/lib", "/usr/local", "/opt/herd"),
        ("usr/lib", "/usr", "/usr/local"),
        ("etc", "/opt/herd", "/opt/other"),  # one file for both
    ],
)
def test_units_of_another_prefix_are_refused_with_the_remedy(
    checkout: Path, folder: str, there: str, prefix: str
) -> None:
    destination = checkout / "destination"
    unit = put_unit(destination, folder, there)
    before = tree(destination)
    done = make(checkout, "install", DESTDIR=destination, PREFIX=prefix)
    assert done.returncode != 0
    assert f"{unit} is of PREFIX={there}" in done.stderr
    assert f"make uninstall PREFIX={there}" in done.stderr
    assert tree(destination) == before


def test_uninstall_takes_no_units_of_another_prefix(checkout: Path) -> None:
    unit = put_unit(checkout / "destination", "etc", "/opt/herd")
    for prefix, kept in {"/opt/other": True, "/usr/local": True, "/opt/herd": False}.items():
        make(checkout, "uninstall", DESTDIR=checkout / "destination", PREFIX=prefix)
        assert unit.exists() == kept, prefix


def test_unit_that_the_operator_changed_or_masked_is_no_other_prefixes(checkout: Path) -> None:
    destination = checkout / "destination"
    put_unit(destination, "etc", "/usr/local")  # by systemctl edit --full
    masked = destination / "usr/lib/systemd/system/proxyherd@.service"
    masked.parent.mkdir(parents=True)
    masked.symlink_to("/dev/null")
    nowhere = python(checkout, "exit 1")
    done = make(checkout, "install", DESTDIR=destination, PREFIX="/usr/local", PYTHON=nowhere)
    assert f"PYTHON={nowhere} must be Python" in done.stderr  # the next thing that is looked at
