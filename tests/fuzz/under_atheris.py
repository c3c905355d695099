"""Fuzz one target in this process: the target's name, then libFuzzer's own options. `run.py` starts it."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> None:
    atheris: Any = importlib.import_module("atheris")  # not there for who only tests
    name, *options = sys.argv[1:]
    with atheris.instrument_imports(include=["proxyherd", "tomllib"]):
        targets = importlib.import_module("targets")
        one_input = targets.TARGETS[name].one_input()
    atheris.Setup([sys.argv[0], *options], one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
