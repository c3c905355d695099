"""The versions that are named: lower bounds, lock files, Pythons. What is named in two places is the same in both."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from lowest import FILE, lowest, lowest_version
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {
    "requirements.txt": PROJECT["project"]["dependencies"],
    "requirements-build.txt": PROJECT["build-system"]["requires"],
    "requirements-gazetteer.txt": PROJECT["project"]["optional-dependencies"]["gazetteer"],
}
"""The lock files, and what each is made from."""

lock_files = pytest.mark.parametrize("name", LOCKS)
LOCKED = re.compile(r"([\w.-]+)==(\S+)(?: ; [^\\]+)? \\((?:\n    --hash=sha256:[0-9a-f]{64}(?: \\)?)+)\n")


def locked(name: str) -> dict[str, Version]:
    """Return the versions of a lock file, which has nothing but them, their hashes and the comment on its top."""
    comment, _, text = (ROOT / "deploy" / name).read_text().partition("\n")
    assert comment.startswith("# ")
    assert LOCKED.sub("", text) == ""
    return {one[1]: Version(one[2]) for one in LOCKED.finditer(text)}


@lock_files
def test_lock_file_has_what_is_needed_within_its_bounds(name: str) -> None:
    versions = locked(name)
    for line in LOCKS[name]:
        requirement = Requirement(line)
        assert versions[canonicalize_name(requirement.name)] in requirement.specifier, line


def needed(lines: list[str]) -> set[str]:
    """Return the names of what is needed, and of what that needs, as far as it is installed here."""
    names: set[str] = set()
    left = [Requirement(line) for line in lines]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        extras = [f"extra == '{extra}'" for extra in requirement.extras]
        wanted = {f"{name}[{extra}]" for extra in ("", *requirement.extras)}
        if wanted <= names:
            continue
        names |= wanted
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        more = [Requirement(line) for line in lines]
        left += [
            one
            for one in more
            if "extra" not in str(one.marker)
            or any(extra in str(one.marker).replace('"', "'") for extra in extras)
        ]
    return {name.removesuffix("[]") for name in names if name.endswith("[]")}


@lock_files
def test_lock_file_has_nothing_that_is_not_needed(name: str) -> None:
    assert set(locked(name)) <= needed(LOCKS[name])


def test_lowest_versions_are_those_of_the_bounds() -> None:
    assert FILE.read_text() == lowest(PROJECT), "type: .venv/bin/python tests/support/lowest.py --write"


@pytest.mark.parametrize("line", ["library", "library<2", "library>=1,>=2"])
def test_dependency_without_one_lower_bound_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="must have one lower bound"):
        lowest_version(Requirement(line))


def test_pythons_are_the_same_wherever_they_are_named() -> None:
    classifiers = "\n".join(PROJECT["project"]["classifiers"])
    pythons = re.findall(r"^Programming Language :: Python :: (3\.\d+)$", classifiers, re.MULTILINE)
    assert PROJECT["project"]["requires-python"] == f">={pythons[0]}"
    assert PROJECT["tool"]["ruff"]["target-version"] == f"py{pythons[0].replace('.', '')}"
    [tested] = re.findall(r"^PYTHONS \?= (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [one for one in tested.split() if one[0].isdigit()] == pythons


def test_pythons_that_are_not_there_are_skipped_and_a_run_without_any_fails() -> None:
    script = [str(ROOT / "tests/support/pythons.sh"), "2.0", "/nowhere/python3"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == [
        "2.0: skipped, neither the path nor pyenv has python2.0",
        "/nowhere/python3: skipped, there is no such interpreter",
    ]
    assert done.returncode == 1


PRETENDED = r"""#!/bin/sh
[ "$1" = -m ] || exit 0
mkdir -p .venv/bin
printf '#!/bin/sh\n' >.venv/bin/pip
printf '#!/bin/sh\nprintf "%%s\\n" "$@"\n' >.venv/bin/pytest
chmod +x .venv/bin/*
"""
"""An interpreter whose environments have a pytest that prints its arguments."""


def test_arguments_are_quoted_on_several_pythons_as_on_one(tmp_path: Path) -> None:
    support = tmp_path / "tests/support"
    support.mkdir(parents=True)
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "tests/support/pythons.sh", support)
    for file, script in (
        (support / "install-debian-packages.sh", "#!/bin/sh\n"),
        (tmp_path / "python", PRETENDED),
    ):
        file.write_text(script)
        file.chmod(0o755)
    arguments = """PYTEST_ARGS=tests/core -k 'one and two' -m "not long" ''"""
    told = ["tests/core", "-k", "one and two", "-m", "not long", ""]
    for target, end in (("test-pythons", [f"{tmp_path}/python: passed"]), ("test", [])):
        done = subprocess.run(
            [
                "make",
                "--no-print-directory",
                target,
                f"PYTHONS={tmp_path}/python",
                f"PYTHON={tmp_path}/python",
                arguments,
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stdout.splitlines()[-len(told + end) :] == told + end, done
