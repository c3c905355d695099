"""The documentation as a site: every page is on it, no link is dead, its search finds, and it asks nobody else."""

from __future__ import annotations

import functools
import http.server
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import chromium, visited
from debian import needs
from playwright.sync_api import expect

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import make_site

pytestmark = pytest.mark.xdist_group("site")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site.build(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=site)
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def named(entries: Any) -> Iterator[str]:
    """Yield the pages of a menu."""
    if isinstance(entries, str):
        yield entries
    else:
        for entry in entries.values() if isinstance(entries, dict) else entries:
            yield from named(entry)


def test_every_page_is_in_the_menu_once() -> None:
    menu = tomllib.loads((make_site.DOCS / "zensical.toml").read_text())["project"]["nav"]
    assert sorted(named(menu)) == sorted(make_site.pages().values())


def test_no_link_of_the_site_is_dead(site: Path) -> None:
    assert {page.name for page in site.glob("*.html")} > {
        name.replace(".md", ".html") for name in make_site.pages().values()
    }
    assert list(make_site.dead_links(site)) == []


@pytest.mark.parametrize(
    ("link", "is_dead"),
    [
        ("b.html", False),
        ("b.html#here", False),
        ("#top", False),
        ("https://example.org/nowhere", False),
        ("c.html", True),
        ("b.html#there", True),
        ("#here", True),
        ("../b.html", True),
        ("/b.html", True),
    ],
)
def test_a_dead_link_is_told(tmp_path: Path, link: str, is_dead: bool) -> None:
    (tmp_path / "a.html").write_text(f'<h1 id="top"></h1><a href="{link}">x</a>')
    (tmp_path / "b.html").write_text('<h1 id="here"></h1>')
    assert list(make_site.dead_links(tmp_path)) == [f"a.html: {link}"] * is_dead


def test_a_page_whose_link_leads_nowhere_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-page"):
        make_site.on_the_site("no-such-page.md", make_site.DOCS / "tools.md")
    (tmp_path / "zensical.toml").write_text("[project]\nsite_name = 'x'\nnav = ['gone.md']\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("[x](gone.md)\n")
    zensical = Path(sys.executable).with_name("zensical")
    assert subprocess.run([zensical, "build", "--strict"], cwd=tmp_path, check=False).returncode


@pytest.mark.parametrize(
    ("link", "there"),
    [
        ("../README.md#a-session", "index.md#a-session"),
        ("tools.md", "tools.md"),
        ("#near", "tools.md#near"),
        ("herd.svg", "herd.svg"),
        ("bench/servers.svg", "bench/servers.svg"),
        ("../deploy/herd.toml", "https://github.com/proxyherd/proxyherd/blob/main/deploy/herd.toml"),
        ("../proxyherd/core", "https://github.com/proxyherd/proxyherd/tree/main/proxyherd/core"),
    ],
)
def test_links_lead_to_pages_of_the_site_or_to_the_repository(link: str, there: str) -> None:
    assert make_site.on_the_site(link, make_site.DOCS / "tools.md") == there


def test_what_belongs_to_an_item_of_a_list_is_written_as_the_site_needs_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "1. one\n   - below\n     more\n\n   ```sh\n     code\n   ```\n- two\n  more\n\nend\n```\n  kept\n```\n"
    )
    assert make_site.as_on_the_site(page) == (
        "1. one\n    - below\n      more\n\n    ```sh\n      code\n    ```\n- two\n    more\n\nend\n```\n  kept\n```\n"
    )


@needs("chromium")
def test_the_search_finds_and_nobody_else_is_asked(address: str) -> None:
    with chromium() as browser, visited(browser, f"{address}/index.html") as page:
        page.get_by_role("button", name="Search").click()
        page.get_by_role("combobox", name="Search").fill("doubtful_dropped")
        expect(page.get_by_role("option", name="doubtful_dropped").first).to_be_visible()
