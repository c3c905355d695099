"""The page with the fence in a real Chromium, at a real server: clients move on the map, and whoever crosses the fence is
named; the fence is moved and drawn by hand. And the phones of the example report to a real server.
"""

from __future__ import annotations

import itertools
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import pytest
from browser import chromium, inaccessible, visited
from debian import needs
from herd_process import PATIENCE_SECONDS, ROOT, ServerProcess, running_server, wait_until
from playwright.sync_api import Browser, Page, expect
from web_wire import WebWire, request

pytestmark = [needs("chromium"), pytest.mark.xdist_group("browser")]

INSIDE, OUTSIDE = b"+34.0655-118.4465", b"+34.0200-118.4000"
"""Of the fence as it is at first; both are on the map."""


@pytest.fixture(scope="module")
def clark() -> Iterator[ServerProcess]:
    with running_server(more="[web]\n") as server:
        server.wait_for_web()
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def map_of(
    browser: Browser, clark: ServerProcess, place: str = "", **more: Any
) -> AbstractContextManager[Page]:
    """Open the page; the browser complains where a server is gone."""
    return visited(
        browser,
        f"http://127.0.0.1:{clark.web_port}/fence{place}",
        **{"expected": "WebSocket connection|net::ERR_", **more},
    )


def live(page: Page) -> None:
    expect(page.locator("#state")).to_have_text("Live, from Clark.")
    page.wait_for_selector("#ground .freeway")


def erase(clark: ServerProcess, name: str) -> None:
    with WebWire(clark) as wire:
        wire.send(request("DELETE", f"/v1/clients/{name}"))
        assert wire.answer()[0] == 202


def is_inside(page: Page, name: str) -> None:
    expect(page.locator("#inside b", has_text=name)).to_have_count(1)


def is_outside(page: Page, name: str) -> None:
    expect(page.locator("#inside b", has_text=name)).to_have_count(0)


def dot(page: Page, name: str) -> tuple[float, float]:
    """Return the pixel of a client on the page."""
    box = page.locator("#phones .phone", has_text=name).locator("circle").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def middle(page: Page) -> tuple[float, float]:
    """Return the pixel in the middle of the fence."""
    box = page.locator("#fence .outline").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def draw(page: Page, points: list[tuple[float, float]]) -> None:
    """Draw with the pointer."""
    page.click("#draw")
    page.mouse.move(*points[0])
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*point)
    page.mouse.up()
    expect(page.locator("#draw")).to_have_attribute("aria-pressed", "false")


def ring(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Return a hand's circle, which goes on beyond its beginning."""
    return [
        (x + radius * math.cos(turn / 6), y + (radius + turn / 8) * math.sin(turn / 6)) for turn in range(42)
    ]


def eight(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    """Return a figure that crosses itself in the middle."""
    turns = [0.1 + turn / 6 for turn in range(38)]
    return [(x + radius * math.sin(turn), y + radius * math.sin(2 * turn)) for turn in turns]


# --- The fence


def test_whoever_comes_in_is_named_and_the_fence_lights_up_until_all_have_gone(
    browser: Browser, clark: ServerProcess
) -> None:
    clark.hears(b"Ada%20on%20foot", OUTSIDE)
    with map_of(browser, clark) as page:
        live(page)
        is_outside(page, "Ada on foot")
        expect(page.locator("#phones .phone")).to_have_count(1)
        assert page.locator("#fence.lit").count() == 0
        clark.hears(b"Ada%20on%20foot", INSIDE)
        is_inside(page, "Ada on foot")
        expect(page.locator("#count")).to_have_text("1")
        expect(page.locator("#fence.lit")).to_have_count(1)
        expect(page.locator("#crossings li").first).to_have_text(
            re.compile(r"Ada on footcame in \d\d:\d\d:\d\d")
        )
        expect(page.locator("#phones .phone.inside.news text")).to_have_text("Ada on foot")
        clark.hears(b"Ada%20on%20foot", OUTSIDE)
        is_outside(page, "Ada on foot")
        expect(page.locator("#crossings li").first).to_contain_text("went out")
        expect(page.locator("#fence.lit")).to_have_count(0)
        expect(page.locator("#nobody")).to_be_visible()


def test_who_is_inside_already_is_named_and_who_is_erased_leaves_the_map(
    browser: Browser, clark: ServerProcess
) -> None:
    name = "<img src=x onerror=alert(1)>"
    clark.hears(b"<img%20src=x%20onerror=alert(1)>", INSIDE)
    clark.hears(b"Hal", INSIDE)
    with map_of(browser, clark) as page:
        live(page)
        is_inside(page, name)
        is_inside(page, "Hal")
        expect(page.locator("#crossings li")).to_have_count(0)
        for one in ("Hal", "%3Cimg%20src=x%20onerror=alert(1)%3E"):
            erase(clark, one)
        is_outside(page, name)
        is_outside(page, "Hal")
        expect(page.locator("#phones .phone", has_text="Hal")).to_have_count(0)


def test_names_on_the_map_do_not_lie_on_one_another(browser: Browser, clark: ServerProcess) -> None:
    names = ["Ada by car", "Bob by bike", "Cid on foot", "Dot by car", "Eve by bus"]
    with map_of(browser, clark) as page:
        live(page)
        page.evaluate("const began = performance.now(); performance.now = () => began")  # so names stay
        for name in names:
            clark.hears(name.replace(" ", "%20").encode(), INSIDE)
        for name in names:
            expect(page.locator("#crossings li", has_text=name)).to_have_count(1)
        named = page.locator("#phones .news text")
        assert 2 <= named.count() <= 4, "there is no more room around a dot"
        written = "[...document.querySelectorAll('#ground text, #phones .news text')]"
        boxes = page.evaluate(
            f"{written}.map((one) => one.getBoundingClientRect()).map((one) => [one.left, one.right, one.top, one.bottom])"
        )
        for (left, right, top, bottom), other in itertools.combinations(boxes, 2):
            assert left >= other[1] or right <= other[0] or top >= other[3] or bottom <= other[2], boxes


def test_the_fence_is_dragged_and_made_larger_and_the_server_says_who_is_inside_then(
    browser: Browser, clark: ServerProcess
) -> None:
    clark.hears(b"Ida", OUTSIDE)
    with map_of(browser, clark) as page:
        live(page)
        is_outside(page, "Ida")
        page.mouse.move(*middle(page))
        page.mouse.down()
        page.mouse.move(*dot(page, "Ida"), steps=5)
        page.mouse.up()
        is_inside(page, "Ida")
        page.locator("#fence").focus()
        for _ in range(8):
            page.keyboard.press("ArrowLeft")
        is_outside(page, "Ida")
        for _ in range(4):
            page.click("#larger")
        is_inside(page, "Ida")
        page.click("#smaller")
        page.locator("#fence").press("-")
        page.locator("#fence").press("-")
        is_outside(page, "Ida")
        expect(page.locator("#crossings li")).to_have_count(0)


def test_a_fence_is_drawn_by_hand_and_one_that_crosses_itself_is_refused_with_the_reason(
    browser: Browser, clark: ServerProcess
) -> None:
    clark.hears(b"Joan", OUTSIDE)
    with map_of(browser, clark) as page:
        live(page)
        page.locator("#draw").scroll_into_view_if_needed()
        x, y = dot(page, "Joan")
        draw(page, ring(x, y, 60))
        is_inside(page, "Joan")
        expect(page.locator("#trouble")).to_be_hidden()
        draw(page, eight(x, y, 60))
        expect(page.locator("#trouble")).to_contain_text("cross")
        expect(page.locator("#fence.refused")).to_have_count(1)
        is_outside(page, "Joan")
        page.click("#round")
        is_inside(page, "Joan")
        expect(page.locator("#trouble")).to_be_hidden()
        page.click("#draw")
        page.keyboard.press("Escape")
        expect(page.locator("#draw")).to_have_attribute("aria-pressed", "false")


def test_after_a_restart_of_the_server_it_connects_again_and_knows_who_is_inside(
    browser: Browser, clark: ServerProcess
) -> None:
    clark.hears(b"Ken", INSIDE)
    with map_of(browser, clark) as page:
        live(page)
        is_inside(page, "Ken")
        assert clark.stop() == 0
        expect(page.locator("#state")).to_have_text("Not connected.")
        clark.start()
        clark.wait_until_ready()
        clark.hears(b"Ken", OUTSIDE)
        live(page)
        is_outside(page, "Ken")
        expect(page.locator("#trouble")).to_be_hidden()


def test_whoever_is_inside_stays_when_a_server_says_once_more_that_all_were_told(
    browser: Browser, clark: ServerProcess
) -> None:
    """It does so when it has become ready."""
    with map_of(browser, clark) as page:
        live(page)
        inside = page.evaluate(
            """async () => {
                const { Guard } = await import("./page/guard.js");
                const guard = new Guard({ say() {}, changed() {}, refused() {} });
                guard.follow({});
                const tell = (event) => guard.event({ follow: guard.followed, ...event });
                tell({ event: "enter", client: "Ken", initial: true });
                tell({ event: "snapshot", complete: false });
                tell({ event: "enter", client: "Joan" });
                tell({ event: "snapshot", complete: true });
                return [...guard.inside.keys()];
            }"""
        )
        assert inside == ["Ken", "Joan"]


def test_an_address_with_a_place_shows_that_place(browser: Browser, clark: ServerProcess) -> None:
    clark.hears(b"Lise", b"+48.2185+16.3925")
    with map_of(browser, clark, "#48.2185,16.3925,4") as page:
        expect(page.locator("#map-title")).to_have_text("Map")
        is_inside(page, "Lise")


# --- For whom


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_at_three_widths_and_accessible_by_day_and_night(
    browser: Browser, clark: ServerProcess, scheme: Literal["light", "dark"]
) -> None:
    clark.hears(b"Mary%20on%20foot", INSIDE)
    with map_of(browser, clark, scheme=scheme) as page:
        live(page)
        is_inside(page, "Mary on foot")
        page.evaluate("document.getElementById('trouble').hidden = false")
        page.evaluate("document.getElementById('trouble').textContent = 'Something is wrong.'")
        for width in (320, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function(f"() => document.getElementById('city').viewBox.baseVal.width <= {width}")
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            heights = "[...document.querySelectorAll('button')].map((one) => one.offsetHeight)"
            assert all(height >= 44 for height in page.evaluate(heights))
            assert inaccessible(page) == []
            for name in ("405", "10"):
                expect(page.locator("#ground .shield text", has_text=re.compile(f"^{name}$"))).to_have_count(
                    1
                )


def test_a_keyboard_reaches_everything_and_nothing_glides_for_who_wants_no_motion(
    browser: Browser, clark: ServerProcess
) -> None:
    clark.hears(b"Noam", INSIDE)
    with map_of(browser, clark, still=True) as page:
        live(page)
        order = []
        for _ in range(9):
            page.keyboard.press("Tab")
            order.append(page.evaluate("document.activeElement.id"))
        assert order == ["", "closer", "wider", "fit", "fence", "draw", "round", "smaller", "larger"]
        is_inside(page, "Noam")
        moves = page.locator("#phones .phone").first.evaluate(
            "(one) => getComputedStyle(one).transitionDuration"
        )
        assert moves == "0s"
        page.locator("#closer").press("Enter")
        expect(page.locator("#ground text", has_text="1 km")).to_have_count(1)


# --- The example


def test_the_fifty_phones_report_until_ctrl_c_and_the_page_shows_them(
    browser: Browser, clark: ServerProcess
) -> None:
    command = [sys.executable, str(ROOT / "examples/fence.py"), "--servers", f"127.0.0.1:{clark.web_port}"]
    phones = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        with map_of(browser, clark) as page:
            live(page)
            wait_until(lambda: page.locator("#phones .phone").count() >= 45, "the phones are on the map")
            expect(page.locator("#inside li").nth(5)).to_be_visible()
            expect(page.locator("#crossings li").first).to_be_visible()
        phones.send_signal(signal.SIGINT)
        said, complaints = phones.communicate(timeout=PATIENCE_SECONDS)
    finally:
        phones.kill()
        phones.wait()
    assert (phones.returncode, complaints) == (0, "")
    assert f"http://127.0.0.1:{clark.web_port}/fence" in said
