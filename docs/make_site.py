"""The documentation as a site, with a search: copies the pages, points their links at one another, runs zensical, and checks
every link of what it has made.

.venv/bin/python docs/make_site.py     what `make docs` does; needs what the tests need: pip install -e '.[test]'

The pages are written to be read as files: README.md at the top, the others here. Links to what is no page, such as a source,
lead to the project's repository.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
BUILD: Final = ROOT / "var/docs"

REPOSITORY: Final = tomllib.loads((DOCS / "zensical.toml").read_text())["project"]["extra"]["repository"]

OUTSIDE: Final = {"README.md": "index.md", "CHANGELOG.md": "changes.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages that are not in this folder, and what they are called on the site."""

_links = re.compile(r'(\]\(|src="|srcset=")(?!https?://)([^)\s"]+)')
_fences = re.compile(r"^(```.*?^```)", re.DOTALL | re.MULTILINE)
_item = re.compile(r"(?:-|\d+\.) +")


def pages() -> dict[Path, str]:
    """Return the pages, and their names on the site."""
    return {ROOT / path: name for path, name in OUTSIDE.items()} | {
        path: path.name for path in sorted(DOCS.glob("*.md"))
    }


def on_the_site(link: str, page: Path) -> str:
    """Return where a link of a page leads on the site. Raises FileNotFoundError if it leads nowhere."""
    path, mark, anchor = link.partition("#")
    target = (page.parent / path).resolve(strict=True) if path else page
    if name := pages().get(target):
        return f"{name}{mark}{anchor}"
    if target.is_relative_to(DOCS) and target.is_file():
        return target.relative_to(DOCS).as_posix()
    kind = "tree" if target.is_dir() else "blob"
    return f"{REPOSITORY}/{kind}/main/{target.relative_to(ROOT).as_posix()}{mark}{anchor}"


def as_on_the_site(page: Path) -> str:
    """Return the text of a page with links that lead to other pages of the site, or to the repository."""
    parts = _fences.split(page.read_text())
    for place in range(0, len(parts), 2):
        parts[place] = _links.sub(lambda found: found[1] + on_the_site(found[2], page), parts[place])
        parts[place] = "".join(_wider(parts[place].splitlines(keepends=True)))
    return "".join(parts)


def _wider(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines with what belongs to a list's items behind four spaces: zensical needs so many, files are read better
    with two or three.
    """
    inside = 0
    for line in lines:
        if item := _item.match(line):
            inside = item.end()
        elif line.strip() and not line.startswith(" " * inside):
            inside = 0
        yield " " * 4 + line[inside:] if inside and not item and line.strip() else line


def write_sources(folder: Path) -> None:
    """Write what zensical reads into an empty folder."""
    shutil.copyfile(DOCS / "zensical.toml", folder / "zensical.toml")
    images = shutil.ignore_patterns("*.md", "*.py", "*.toml", "*.json", "__pycache__")
    shutil.copytree(DOCS, folder / "pages", ignore=images)
    for page, name in pages().items():
        (folder / "pages" / name).write_text(as_on_the_site(page))


class _Page(HTMLParser):
    """The links of a page, and what they may lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors = {""}
        self.feed(text)

    def handle_starttag(self, _: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if values.get("rel") != "canonical":
            self.links += [values[name] for name in ("href", "src") if name in values]


def dead_links(site: Path) -> Iterator[str]:
    """Yield the links of a site's pages that lead to no file or anchor of it. Links to others are not followed."""
    found = {page: _Page(page.read_text()) for page in sorted(site.rglob("*.html"))}
    for page, it in found.items():
        for link in it.links:
            where = urlsplit(link)
            if where.scheme or where.netloc or page.name == "404.html":
                continue
            target = Path(os.path.normpath(page.parent / unquote(where.path))) if where.path else page
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                target in found and unquote(where.fragment) not in found[target].anchors
            ):
                yield f"{page.relative_to(site)}: {link}"


def build(folder: Path) -> Path:
    """Make the site below an empty folder, and return where it is. Raises CalledProcessError."""
    write_sources(folder)
    zensical = Path(sys.executable).with_name("zensical")
    subprocess.run([zensical, "build", "--strict"], cwd=folder, check=True)  # noqa: S603 - of this environment
    return folder / "site"


def main() -> None:
    """Make the site in var/docs. Exit code 1 if a page cannot be made, or a link is dead."""
    shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(parents=True)
    site = build(BUILD)
    if dead := sorted(set(dead_links(site))):
        sys.exit("These links lead nowhere:\n  " + "\n  ".join(dead))
    print(f"The site is in {site.relative_to(ROOT)}; its search needs a web server, such as")
    print(f"  {sys.executable} -m http.server --bind 127.0.0.1 --directory {site.relative_to(ROOT)} 8000")


if __name__ == "__main__":
    main()
