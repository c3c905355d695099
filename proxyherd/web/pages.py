"""The pages for people: at `/`, the page that reports where its browser is; at `/fence`, a map of clients that move, with a
fence; at `/v1/`, what this port understands.

A page loads its files from `/page/`, and nothing from elsewhere: its policy forbids it. Browsers keep files, and ask
each time whether they have changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from proxyherd.base.page_files import PageFile
from proxyherd.web.answers import WebAnswer
from proxyherd.web.problems import KINDS, Kind

_PAGES: Final = {"index.html": ("",), "fence.html": ("fence",), "help.html": ("v1", "")}
"""Where the pages are; all other files are in `/page/`."""

_HEADERS: Final = (
    ("Cache-Control", "no-cache"),
    (
        "Content-Security-Policy",
        (
            "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        ),
    ),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "geolocation=(self)"),
    ("Referrer-Policy", "no-referrer"),
)

_PROBLEMS: Final = b"<!-- the kinds of problems -->"
"""The place in `help.html` for a row of each kind."""


class Pages:
    """The pages and their files, by the segments of their paths. `files`: by name."""

    def __init__(self, files: Mapping[str, PageFile]) -> None:
        self._files = {_PAGES.get(name, ("page", name)): _File(file) for name, file in files.items()}
        self._paths = {f"/{'/'.join(path)}" for name, path in _PAGES.items() if name in files}

    def has(self, names: Sequence[str]) -> bool:
        """Whether a page or one of its files has this path."""
        return tuple(names) in self._files

    def is_page(self, path: str) -> bool:
        """Whether a page has this path: links of other sites may lead to it."""
        return path in self._paths

    def answer(self, names: Sequence[str], none_match: str) -> WebAnswer:
        """Return the answer to a request for this path, which is there. `none_match`: the header If-None-Match."""
        return self._files[tuple(names)].answer(none_match)


class _File:
    """A file, and the answers to requests for it."""

    def __init__(self, file: PageFile) -> None:
        body = file.body.replace(_PROBLEMS, b"\n".join(map(_row, KINDS)))
        self._etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        headers = (("ETag", self._etag), *_HEADERS)
        kind = f"{file.media_type}; charset=utf-8"
        self._whole = WebAnswer(200, body, kind, headers)
        self._unchanged = WebAnswer(304, b"", kind, headers)

    def answer(self, none_match: str) -> WebAnswer:
        """Return the file, or only that it is one of those that the browser has (RFC 9110, section 13.1.2)."""
        tags = {tag.strip().removeprefix("W/") for tag in none_match.split(",")}
        return self._whole if tags.isdisjoint({self._etag, "*"}) else self._unchanged


def _row(kind: Kind) -> bytes:
    """Return the row of a table that says what a kind of problem is."""
    again = (
        f"Yes, after the seconds in <code>Retry-After</code> ({kind.retry_seconds})"
        if kind.retry_seconds
        else "No"
    )
    return (
        f'<tr id="{kind.name}"><th scope="row"><code>{kind.type}</code></th>'
        f"<td>{kind.status}</td><td>{kind.title}</td><td>{again}</td></tr>"
    ).encode()
