"""The lowest versions of libraries that pyproject.toml allows, for the program and for its tests.

.venv/bin/python tests/support/lowest.py --write    make lowest.txt anew, which `make test-lowest` installs
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parents[2]
FILE: Final = Path(__file__).with_suffix(".txt")
HEAD: Final = "# Made by tests/support/lowest.py --write from pyproject.toml: do not edit.\n"


def requirements(project: dict[str, dict[str, object]]) -> list[Requirement]:
    """Return what the program and its tests need, from the text of pyproject.toml."""
    table = project["project"]
    needed, extras = table["dependencies"], table["optional-dependencies"]
    assert isinstance(needed, list)
    assert isinstance(extras, dict)
    found = [Requirement(one) for one in (*needed, *extras["gazetteer"], *extras["test"])]
    return [one for one in found if one.name != table["name"]]


def lowest_version(requirement: Requirement) -> str:
    """Return the version of its lower bound. Raises ValueError if it does not have exactly one."""
    bounds = [one.version for one in requirement.specifier if one.operator == ">="]
    if len(bounds) != 1:
        raise ValueError(f"pyproject.toml: {requirement} must have one lower bound")
    return bounds[0]


def lowest(project: dict[str, dict[str, object]]) -> str:
    """Return the text of lowest.txt, a file of constraints for pip."""
    return HEAD + "".join(f"{one.name}=={lowest_version(one)}\n" for one in requirements(project))


def main() -> None:
    parser = argparse.ArgumentParser(description="The lowest versions that pyproject.toml allows.")
    parser.add_argument("--write", action="store_true", help=f"write them into {FILE.relative_to(ROOT)}")
    text = lowest(tomllib.loads((ROOT / "pyproject.toml").read_text()))
    if parser.parse_args().write:
        FILE.write_text(text)
    else:
        sys.stdout.write(text)


if __name__ == "__main__":
    main()
