"""Our pages in Debian's Chromium, headless, driven by Playwright; what a page does wrong is kept.

with chromium() as browser, opened(browser, server) as page:
    page.wait_for_selector("#connection[data-state=live]")
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from debian import PATH
from herd_process import PATIENCE_SECONDS, ServerProcess
from playwright.sync_api import Browser, Page, expect, sync_playwright

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

_LONG_TASKS = """
window.longTasks = [];
new PerformanceObserver((list) => {
  for (const task of list.getEntries()) window.longTasks.push(task.duration);
}).observe({ type: "longtask", buffered: true });
"""

expect.set_options(timeout=1_000 * PATIENCE_SECONDS)  # its own 5 s are too few on a busy machine


@contextlib.contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Run a browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium", path=PATH),
            args=[*FLAGS, *flags],
            timeout=1_000 * PATIENCE_SECONDS,
        )
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visited(
    browser: Browser,
    here: str,
    *,
    width: int = 1280,
    scheme: Literal["light", "dark"] = "light",
    still: bool = False,
    expected: str = "net::ERR_",
    **more: Any,
) -> Iterator[Page]:
    """Open a page; `more`: what else a visitor has, as Playwright calls it. Fail if the page complains, or asks anybody but
    its server for anything; complaints that match `expected` are the browser's own.
    """
    context = browser.new_context(
        viewport={"width": width, "height": 800},
        color_scheme=scheme,
        reduced_motion="reduce" if still else "no-preference",
        **more,
    )
    try:
        page = context.new_page()
        page.set_default_timeout(1_000 * PATIENCE_SECONDS)
        wrong: list[str] = []
        server = re.match(r"\w+://[^/]+/", here)
        assert server is not None
        page.on(
            "console",
            lambda message: wrong.append(f"{message.type}: {message.text} {message.location['url']}"),
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "request",
            lambda request: None if request.url.startswith(server[0]) else wrong.append(request.url),
        )
        page.add_init_script(_LONG_TASKS)
        page.goto(here)
        yield page
        # An answer that does not come, or is no success, is told by the browser, whatever a page does.
        complaints = [one for one in wrong if not re.search(expected, one)]
        assert not complaints, complaints
    finally:
        context.close()


@contextlib.contextmanager
def opened(
    browser: Browser,
    server: ServerProcess,
    *,
    width: int = 1280,
    scheme: Literal["light", "dark"] = "light",
    still: bool = False,
    ready: int | None = None,
) -> Iterator[Page]:
    """Visit a server's status page, and wait until so many servers are ready, by default all."""
    here = f"http://127.0.0.1:{server.admin_port}/"
    with visited(browser, here, width=width, scheme=scheme, still=still) as page:
        live(page, ready)
        yield page


def live(page: Page, ready: int | None = None) -> None:
    """Wait until the page is connected, and so many servers are known and ready, by default all."""
    page.wait_for_selector("#connection[data-state=live]")
    page.wait_for_function(
        "(ready) => { const nodes = document.querySelectorAll('.node'); return nodes.length && "
        "(ready ?? nodes.length) === document.querySelectorAll('.node.ready').length }",
        arg=ready,
    )


def inaccessible(page: Page) -> list[tuple[str, str, str]]:
    """Return what axe finds that is serious or critical: the rule, the help, and where."""
    found = importlib.util.find_spec("axe_playwright_python")
    assert found is not None
    assert found.origin is not None
    page.evaluate(Path(found.origin).with_name("axe.min.js").read_text())
    violations: list[dict[str, Any]] = page.evaluate("async () => (await axe.run()).violations")
    return [
        (one["id"], one["help"], node["html"][:200])
        for one in violations
        if one["impact"] in {"serious", "critical"}
        for node in one["nodes"]
    ]
