"""The files of web pages: package data, read once, so that they fit the running version.

Each page has a folder of its own. What pages share is in the folder `page` beside this module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

PACKAGE: Final = Path(__file__).parents[1]
SHARED: Final = Path(__file__).parent / "page"

_MEDIA_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


class PageFile(NamedTuple):
    """A file of a page, in UTF-8."""

    body: bytes
    media_type: str


def page_files(folder: str) -> dict[str, PageFile]:
    """Return the files of a page by name, with those that pages share; `folder`: from the package on."""
    return {
        file.name: PageFile(file.read_bytes(), _MEDIA_TYPES[file.suffix])
        for place in (SHARED, PACKAGE / folder)
        for file in sorted(place.iterdir())
        if file.suffix in _MEDIA_TYPES
    }
