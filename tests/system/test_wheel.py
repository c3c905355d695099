"""What is built of this repository: a source distribution, the wheel that is built of that one, and an installation of that
wheel in an environment of its own, from which a herd is started in an empty folder.

All of it is done once, since it takes some twenty seconds of processor time.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from booted import copy_whole_checkout
from debian import environ_to_fetch
from gazetteer_file import gazetteer_file
from herd_process import ROOT, free_port, short_folder
from supervised import processes_in

import proxyherd

pytestmark = pytest.mark.xdist_group("wheel")

NAME = f"proxyherd-{proxyherd.__version__}"
MOST_BYTES = 60_000_000
"""Of what pip installs, before it is compiled: this program and all that it needs. What `make install` makes of it is smaller."""

BUILD = "import sys; from setuptools import build_meta as b; print(getattr(b, f'build_{sys.argv[1]}')(sys.argv[2]))"
GENERATED = {"PKG-INFO", "setup.cfg"}
NOT_BUILT_FROM = {".gitignore"}


class Built:
    """What was built and installed, each in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "venv/bin"
        self.checkout, self.unpacked = folder / "checkout", folder / NAME
        self.files = copy_whole_checkout(self.checkout)
        (self.checkout / "tests/__pycache__").mkdir()
        (self.checkout / "tests/__pycache__/made.cpython-311.pyc").touch()  # of a checkout that was used
        self.run(sys.executable, "-m", "venv", folder / "venv")
        self.pip("setuptools>=77", "wheel")
        self.told = self.run(self.bin / "python", "-c", BUILD, "sdist", folder, cwd=self.checkout)
        self.sdist = folder / f"{NAME}.tar.gz"
        with tarfile.open(self.sdist) as archive:
            archive.extractall(folder, filter="data")
        self.told += self.run(self.bin / "python", "-c", BUILD, "wheel", folder, cwd=self.unpacked)
        [self.wheel] = folder.glob("*.whl")
        self.run(self.bin / "pip", "uninstall", "--quiet", "--yes", "setuptools", "wheel")
        self.pip(str(self.wheel))

    def run(self, *words: str | Path, cwd: Path | None = None, **more: str) -> str:
        """Run a program, with these in its environment too; return what it has printed."""
        environ = {**environ_to_fetch(), "HOME": str(self.folder), "PATH": os.environ["PATH"], **more}
        done = subprocess.run(
            words,
            cwd=cwd or self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def pip(self, *what: str) -> None:
        """Install without compiling, which takes as long again."""
        self.run(self.bin / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", *what)


@pytest.fixture(scope="module")
def built() -> Iterator[Built]:
    with short_folder() as folder:
        yield Built(folder)


def test_the_source_distribution_has_every_file_of_the_repository(built: Built) -> None:
    unpacked = {
        file.relative_to(built.unpacked).as_posix() for file in built.unpacked.rglob("*") if file.is_file()
    }
    assert built.files - unpacked <= NOT_BUILT_FROM
    more = {name for name in unpacked - built.files if not name.startswith(("proxyherd.egg-info/", "build/"))}
    assert more == GENERATED


def test_nothing_is_warned_of_while_it_is_built(built: Built) -> None:
    """setuptools says so of a file that a pattern of MANIFEST.in should find, and of what it will not take any more."""
    assert [
        line for line in built.told.splitlines() if re.search("warning|deprecat", line, re.IGNORECASE)
    ] == []


def test_what_the_package_says_of_itself_has_no_relative_link(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as wheel:
        told = email.message_from_bytes(wheel.read(f"{NAME}.dist-info/METADATA"))
    text = str(told.get_payload())
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"""(?:src|srcset|href)="([^"]+)""", text)
    assert len(targets) > 40
    assert [one for one in targets if not one.startswith(("http://", "https://", "#"))] == []
    urls = dict(one.split(", ", 1) for one in told.get_all("Project-URL") or ())
    assert {"Homepage", "Documentation", "Changelog", "Issues"} <= set(urls)
    home = urls["Homepage"]
    for target in targets:  # each is a file of the repository
        if found := re.match(rf"{home}/(?:blob|raw)/main/([^#]*)", target):
            assert (ROOT / found[1]).exists(), target
    assert told["Description-Content-Type"] == "text/markdown"


def test_a_server_takes_less_than_sixty_megabytes(built: Built) -> None:
    [packages] = (built.folder / "venv/lib").glob("python3*/site-packages")
    ours = (file for file in packages.rglob("*") if not re.match("pip", str(file.relative_to(packages))))
    assert sum(file.stat().st_size for file in ours if file.is_file()) < MOST_BYTES


def test_a_herd_is_started_in_an_empty_folder_and_stopped(built: Built) -> None:
    """What README says of the wheel, `proxyherd init && proxyherd up`, on other ports, and without a network: places come later."""
    herd, program = built.folder / "herd", built.bin / "proxyherd"
    said = built.run(program, "init", "herd")
    assert said.endswith(f"Next: cd herd && {program} up\n")
    file = herd / "herd.toml"
    file.write_text(re.sub(r"127\.0\.0\.1:\d+", lambda _: f"127.0.0.1:{free_port()}", file.read_text()))
    try:
        said = built.run(program, "up", cwd=herd, PIP_NO_INDEX="1", PIP_FIND_LINKS="")
        assert re.search(
            r"^Error: var/gazetteer.dat: pip could not get .* PIP_FIND_LINKS=FOLDER", said, re.MULTILINE
        )
        assert "\nproxyherd up: the herd starts without offline places\n" in said
        assert said.count(" ready ") == 5
        [steps] = re.findall(r"Next, for example:\n(.*)", said, re.DOTALL)
        assert f"  {program} down\n" in steps
        assert f"  {built.bin}/supervisorctl restart herd:Clark\n" in steps
        report = ("kiwi", "+34.068930-118.445127")
        assert built.run(program, "iamat", *report, cwd=herd).startswith("AT ")
        shutil.copy(gazetteer_file(), herd / "var/gazetteer.dat")
        assert '"Bel Air"' in built.run(program, "whatsat", "kiwi", "10", "5", "--server", "Bailey", cwd=herd)
        assert "herd:Clark" in built.run(built.bin / "supervisorctl", "status", cwd=herd)
        assert built.run(program, "down", cwd=herd) == "The herd has stopped.\n"
        assert built.run(program, "down", cwd=herd) == "No herd of this folder runs.\n"
    finally:
        for process in processes_in(herd):
            os.kill(process, 9)
