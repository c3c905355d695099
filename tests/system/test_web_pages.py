"""docs/web.md and docs/phones.md, followed from top to bottom with a real server: each example shows what happens.

Commands run in a shell, Python with the tests' Python, JavaScript with Node.js if it imports something, and otherwise in
a page in Chromium whose origin is an allowed one. What a script prints is in the block behind it. The only thing that is
not as it is printed is the port.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import chromium
from debian import needs
from gazetteer_file import gazetteer_file
from herd_process import PATIENCE_SECONDS, ROOT, ServerProcess, free_port, wait_until
from node_packages import node_modules
from page_examples import Block, PageStep, blocks, difference, shows, steps
from playwright.sync_api import Browser, Page
from web_wire import running_web_server

pytestmark = [needs("bash", "chromium", "curl", "node", "npm"), pytest.mark.xdist_group("web pages")]

WEB, PHONES = ROOT / "docs/web.md", ROOT / "docs/phones.md"
PRINTED = "127.0.0.1:10303"
"""Clark's web port, on the pages."""


class BlankPages(BaseHTTPRequestHandler):
    """Answers everything with a page that does nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b'<!doctype html><link rel="icon" href="data:,"><title>An app</title>')

    def log_message(self, *_: object) -> None:  # it would stand on stderr
        pass


@contextlib.contextmanager
def serving(handler: type[BaseHTTPRequestHandler], port: int = 0) -> Iterator[int]:
    """Serve on a port of loopback, and tell which."""
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    with serving(BlankPages, free_port()) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def clark(origin: str) -> Iterator[ServerProcess]:
    more = f'[web]\nallowed_origins = ["https://app.example", "{origin}"]\n'
    with running_web_server(more, gazetteer=gazetteer_file()) as server:
        yield server


@contextlib.contextmanager
def app_page(browser: Browser, origin: str) -> Iterator[tuple[Page, list[str]]]:
    """Open a page of this origin on a phone in Vienna; also give what is said on its console."""
    context = browser.new_context(
        geolocation={"latitude": 48.2185, "longitude": 16.3925}, permissions=["geolocation"]
    )
    try:
        page, said = context.new_page(), list[str]()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(origin)
        yield page, said
    finally:
        context.close()


class Examples:
    """Follows a page."""

    def __init__(self, server: ServerProcess, browser: Browser, origin: str) -> None:
        self._server, self._browser, self._origin = server, browser, origin
        self._here = f"127.0.0.1:{server.web_port}"
        self._wrong: list[str] = []

    def follow(self, page: Path) -> tuple[int, str]:
        """Do what the page shows; return the number of examples, and where something else came."""
        found, done = blocks(page), 0
        for block, behind in zip(found, [*found[1:], None], strict=True):
            if block.kind == "console":
                for step in steps(block.text):
                    self._compare(step, self._run("bash", "-c", step.command))
                    done += 1
            elif block.kind in {"js", "python"}:
                assert behind is not None
                assert behind.kind == "text", block.text
                self._compare(PageStep(block.text, behind.text), self._script(block, behind.text))
                done += 1
        return done, "\n".join(self._wrong)

    def _compare(self, step: PageStep, came: str) -> None:
        if not shows(step, came):
            self._wrong.append(difference(step, came))

    def _script(self, block: Block, shown: str) -> str:
        """Return what a script prints."""
        if block.kind == "js" and "import " not in block.text:
            return self._in_a_page(block.text, shown)
        name, program = ("example.py", sys.executable) if block.kind == "python" else ("example.mjs", "node")
        folder = self._server.herd.folder
        (folder / name).write_text(self._moved(block.text))
        if program == "node" and not (folder / "node_modules").exists():
            (folder / "node_modules").symlink_to(node_modules())
        return self._run(program, name)

    def _in_a_page(self, script: str, shown: str) -> str:
        with app_page(self._browser, self._origin) as (page, said):
            page.add_script_tag(content=self._moved(script), type="module")
            lines = shown.count("\n")

            def has_said_all() -> bool:
                page.wait_for_timeout(5)  # so that the page's events come
                return len(said) >= lines

            wait_until(has_said_all, f"the page has said {lines} lines: {script}")
            return "\n".join(said)

    def _run(self, *command: str) -> str:
        moved = [self._moved(word) for word in command]
        ended = subprocess.run(
            moved,
            cwd=self._server.herd.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert ended.returncode == 0, (command, ended.stderr)
        return ended.stdout.replace("\r\n", "\n")

    def _moved(self, text: str) -> str:
        return text.replace(PRINTED, self._here)


@pytest.mark.parametrize(("page", "least"), [(WEB, 17), (PHONES, 7)], ids=["web", "phones"])
def test_every_example_shows_what_happens(
    clark: ServerProcess, browser: Browser, origin: str, page: Path, least: int
) -> None:
    done, wrong = Examples(clark, browser, origin).follow(page)
    assert done >= least
    assert not wrong, wrong


def example(page: Path, word: str) -> str:
    """Return the one example with this word."""
    [found] = [block.text for block in blocks(page) if word in block.text and block.kind != "text"]
    return found


def test_the_websocket_and_the_stream_come_back_after_a_restart(
    clark: ServerProcess, browser: Browser, origin: str
) -> None:
    """The one reports again. The other gets a snapshot, and does not ask before the pause that it was told."""
    scripts = [example(WEB, word) for word in ("socket.onclose", "new EventSource")]
    with app_page(browser, origin) as (page, said):
        for script in scripts:
            moved = script.replace(PRINTED, f"127.0.0.1:{clark.web_port}").replace("bus%207", "kiwi")
            page.add_script_tag(content=moved, type="module")

        def have_come(times: int) -> bool:
            page.wait_for_timeout(5)
            return said.count("stored") == said.count("that is how it is now") == times

        wait_until(lambda: have_come(1), "both have come")
        assert clark.stop() == 0
        clark.start()
        wait_until(lambda: have_come(2), f"both have come again: {said}")
        assert "enter kiwi 34.06893 -118.445127" in said


def test_the_report_that_is_tried_again_waits_as_it_is_told_and_keeps_its_time() -> None:
    bodies: list[bytes] = []

    class Hesitating(BaseHTTPRequestHandler):
        answers = iter([(503, b""), (429, b""), (200, b'{"outcome":"stored"}')])

        def do_PUT(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = next(self.answers)
            self.send_response(status)
            self.send_header("Retry-After", "0.01")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:  # it would stand on stderr
            pass

    with serving(Hesitating) as port:
        script = example(WEB, "def report(").replace(PRINTED, f"127.0.0.1:{port}")
        ended = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            timeout=PATIENCE_SECONDS,
        )
    assert ended.stdout == "stored\n"
    assert len(bodies) == 3
    assert len(set(bodies)) == 1


def test_the_six_lines_are_six_lines() -> None:
    assert example(WEB, "watchPosition").count("\n") == 6


def test_the_configuration_of_the_pages_is_that_of_a_herd() -> None:
    """What stands in the pages' TOML is what a server starts with."""
    for page in (WEB, PHONES):
        [block] = [block for block in blocks(page) if block.kind == "toml"]
        with running_web_server(block.text) as server:
            assert json.loads(server.get("/state")[1])


def test_the_secret_in_the_paths_is_the_same_everywhere() -> None:
    """The section about tokens has none: its paths begin with what the app or the token needs."""
    before, tokens, behind = re.split(
        r"^(?=## A token|## What to type)", PHONES.read_text(), flags=re.MULTILINE
    )
    assert _first_parts(before) == _first_parts(behind) == {"3f9c0d5e"}
    assert _first_parts(tokens) == {"owntracks", "overland", "t"}


def _first_parts(text: str) -> set[str]:
    """Return the first part of each path of the pages' server."""
    return set(re.findall(r"herd\.example(?:/|%2F)(\w+)", text))
