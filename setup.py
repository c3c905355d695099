"""What pyproject.toml cannot say: how modules are compiled, and how README reads outside of the repository.

It compiles the modules that run for each command, if PROXYHERD_COMPILED is 1 while a wheel is built.

`docs/operations.md` says how, and `pyproject.toml` has the list of these modules and everything else. Without the
variable, and in an editable installation, all modules stay Python, and no compiler is needed.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

from setuptools import setup  # type: ignore[import-untyped]
from setuptools.command.sdist import sdist  # type: ignore[import-untyped]

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())
COMPILES = os.environ.get("PROXYHERD_COMPILED") == "1"


class Source(sdist):  # type: ignore[misc]
    """A source distribution without what was made of the sources. MANIFEST.in would warn where there is none of it."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy the files into the folder that is packed."""
        super().make_release_tree(base_dir, [file for file in files if not file.endswith((".pyc", ".so"))])


def readme() -> str:
    """Return README with links and pictures that hold everywhere: those of the repository."""
    home = PROJECT["project"]["urls"]["Homepage"]

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found[2].endswith((".svg", ".png")) else "blob"
        return f"{found[1]}{home}/{kind}/main/{found[2]}"

    link = r"""(\]\(|src="|srcset=")(?![a-z]+:|#)([^)"\s]+)"""
    return re.sub(link, absolute, Path("README.md").read_text(encoding="utf-8"))


def extensions() -> list[Any]:
    """Return the compiled modules."""
    from mypyc.build import mypycify  # noqa: PLC0415 - pip installs it only for this

    modules = [f"proxyherd/{module}.py" for module in PROJECT["tool"]["proxyherd"]["compiled"]]
    # Without debug information, which would name the folder of the build.
    return mypycify(["--follow-imports=silent", *modules], group_name="proxyherd", debug_level="0")


setup(
    cmdclass={"sdist": Source},
    long_description=readme(),
    long_description_content_type="text/markdown",
    ext_modules=extensions() if COMPILES and "bdist_wheel" in sys.argv else [],
    # The compiler reads the types of the libraries too.
    setup_requires=[*PROJECT["tool"]["proxyherd"]["compiler"], *PROJECT["project"]["dependencies"]]
    if COMPILES
    else [],
)
