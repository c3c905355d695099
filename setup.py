"""Compiles the modules that run for each command, if PROXYHERD_COMPILED is 1 while a wheel is built.

`docs/operations.md` says how, and `pyproject.toml` has the list of these modules and everything else. Without the
variable, and in an editable installation, all modules stay Python, and no compiler is needed.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from typing import Any

from setuptools import setup  # type: ignore[import-untyped]

PROJECT = tomllib.loads(Path("pyproject.toml").read_text())
COMPILES = os.environ.get("PROXYHERD_COMPILED") == "1"


def extensions() -> list[Any]:
    """Return the compiled modules."""
    from mypyc.build import mypycify  # noqa: PLC0415 - pip installs it only for this

    modules = [f"proxyherd/{module}.py" for module in PROJECT["tool"]["proxyherd"]["compiled"]]
    # Without debug information, which would name the folder of the build.
    return mypycify(["--follow-imports=silent", *modules], group_name="proxyherd", debug_level="0")


setup(
    ext_modules=extensions() if COMPILES and "bdist_wheel" in sys.argv else [],
    # The compiler reads the types of the libraries too.
    setup_requires=[*PROJECT["tool"]["proxyherd"]["compiler"], *PROJECT["project"]["dependencies"]]
    if COMPILES
    else [],
)
