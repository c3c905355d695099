"""The status page as people use it, in a real Chromium: at three widths, light and dark, with a keyboard alone, and
with much to show. At the end, the table of a graded class, which needs the same browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from browser import chromium, inaccessible, live, opened, visited
from debian import needs
from herd_process import RunningHerd, herd_of, running_herd, wait_until
from large_herd import large_herd, ring
from playwright.sync_api import Browser, Page, expect

from proxyherd.grading import table
from proxyherd.grading.records import Record

pytestmark = [needs("chromium"), pytest.mark.xdist_group("browser")]

TRIANGLE = [("Ann", "Bob"), ("Bob", "Cid"), ("Ann", "Cid")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def herd() -> Iterator[RunningHerd]:
    with running_herd(TRIANGLE) as herd:
        yield herd


def text(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_at_any_width_and_accessible_by_day_and_night(
    browser: Browser, herd: RunningHerd, scheme: Literal["light", "dark"]
) -> None:
    with opened(browser, herd["Ann"], width=390, scheme=scheme) as page:
        with herd["Ann"].connect() as client:
            for _ in range(60):
                client.ask(b"FOO " + b"x" * 300)  # without a place to break it
        herd["Ann"].hears(b"reader")
        page.wait_for_selector("#commands tbody tr >> text=reader")
        page.fill("#circle", "34.07, -118.45, 1500")
        page.click("#watch-it")
        page.wait_for_selector("#closeup:visible")
        for width in (390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function(f"() => innerWidth === {width}")
            readable(page, width, scheme)


HIGHEST = {390: 4_000, 768: 4_200, 1280: 3_300}
"""Pixels of the page at each width, with a circle that is followed."""


def readable(page: Page, width: int, scheme: str) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.scrollHeight") < HIGHEST[width]
    assert page.locator("h2:visible").count() == 7  # of which one is for screen readers
    box = page.locator("#commands-box")
    assert box.evaluate("(one) => one.scrollHeight > one.clientHeight && one.scrollWidth <= one.clientWidth")
    expect(page.locator("#map-legend")).to_contain_text("1 client in a cell")
    sizes = page.evaluate(
        "[...document.querySelectorAll('#graph, #map, #closeup')].map((one) => one.clientWidth)"
    )
    assert min(sizes) > 250
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(map(int, re.findall(r"\d+", back)[:3]))
    assert lightness < 150 if scheme == "dark" else lightness > 600
    assert inaccessible(page) == []


def test_a_report_becomes_a_row_a_ping_and_a_count(browser: Browser, herd: RunningHerd) -> None:
    with opened(browser, herd["Cid"]) as page:
        page.wait_for_timeout(1_100)  # so that the others have been asked once
        clients = int(text(page, "#sum-clients"))
        pings = int(page.locator("#map").get_attribute("data-pings") or 0)
        line = herd["Ann"].hears(b"mango.example", b"-33.9+151.2").decode().strip()
        row = page.locator("#commands tbody tr", has_text="IAMAT mango.example")
        expect(row.locator("td").nth(1)).to_have_text("Ann")
        expect(row.locator("td").nth(5)).to_have_text(line)
        expect(page.locator("#sum-clients")).to_have_text(str(clients + 1))
        expect(page.locator("#servers tbody tr").first.locator("td").nth(4)).to_have_text(str(clients + 1))
        page.wait_for_function(f"() => Number(document.getElementById('map').dataset.pings || 0) > {pings}")
        expect(page.locator("#map-note")).to_contain_text(f"{clients + 1} clients")


def test_what_strangers_send_is_text(browser: Browser, herd: RunningHerd) -> None:
    with opened(browser, herd["Ann"]) as page:
        herd["Ann"].hears(b"<img/src=x/onerror=alert(1)>")
        row = page.locator("#commands tbody tr", has_text="<img/src=x/onerror=alert(1)>")
        expect(row).to_have_count(1)
        assert page.locator("img").count() == 0


def colour_of_dot(page: Page) -> str:
    """Return the colour of the sign before the word Live."""
    colour: str = page.evaluate("getComputedStyle(document.getElementById('connection'), '::before').color")
    return colour


def test_a_killed_server_is_told_where_it_cannot_be_overlooked_and_back_again_it_is_not(
    browser: Browser, herd: RunningHerd
) -> None:
    with opened(browser, herd["Ann"]) as page:
        node, banner = page.locator(".node", has_text="Cid"), page.locator("#banner")
        expect(banner).to_be_hidden()
        expect(page).to_have_title("herd – Ann")
        herd["Cid"].kill()
        expect(node).to_have_class(re.compile("unknown"))
        expect(node.locator(".figure")).to_have_text("unknown")
        expect(page.locator("#servers tbody tr").first).to_contain_text("Cid")
        expect(page.locator("#servers tr.wrong td").first).to_have_text("unknown")
        expect(page.locator("#servers tr.reason.wrong")).to_contain_text("Connection refused")
        expect(banner.locator("li")).to_have_text(
            re.compile(r"^Cid does not answer, \d+ s; its neighbours say cut$")
        )
        expect(page).to_have_title("(2/3) herd – Ann")
        expect(page.locator("#icon")).to_have_attribute("href", "/icon-trouble.svg")
        expect(page.locator("#sums .bad")).to_contain_text("1 unknown")
        expect(page.locator("#connection")).to_have_text("Live: 1 problem")
        assert colour_of_dot(page) == page.evaluate(
            "getComputedStyle(document.querySelector('.bad #sum-rest')).color"
        )
        expect(page.locator(".edge.cut[x1]").and_(page.locator("#graph line"))).to_have_count(2)
        expect(page.locator(".edge-text", has_text="cut")).to_have_count(2)
        expect(page.locator("#news")).to_contain_text("Cid")  # told to a screen reader
        expect(page.locator("#sum-ready")).to_have_text("2 of 3")
        assert inaccessible(page) == []
        herd["Cid"].start()
        live(page)
        expect(page.locator("#graph line.live")).to_have_count(3)
        expect(banner).to_be_hidden()
        expect(page).to_have_title("herd – Ann")
        expect(page.locator("#icon")).to_have_attribute("href", "/icon.svg")
        expect(page.locator("#sums .good")).to_have_count(1)
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#servers tr.reason")).to_have_count(0)


def course(page: Page, server: str) -> str:
    """Return how a server's commands a second are drawn."""
    row = page.locator("#servers tbody tr", has=page.locator("th", has_text=server))
    return row.locator(".spark path").first.get_attribute("d") or ""


def test_the_time_when_a_server_was_unknown_is_a_gap_in_its_course(
    browser: Browser, herd: RunningHerd
) -> None:
    with opened(browser, herd["Ann"]) as page:
        page.wait_for_timeout(2_200)  # two updates: a line
        assert re.fullmatch(r"M[\d.,]+(L[\d.,]+)+", course(page, "Bob"))
        herd["Bob"].kill()
        expect(page.locator(".node", has_text="Bob")).to_have_class(re.compile("unknown"))
        herd["Bob"].start()
        live(page)
        assert course(page, "Bob").count("M") == 2
        assert course(page, "Ann").count("M") == 1


def test_what_a_server_is_called_does_not_change_with_its_figures(
    browser: Browser, herd: RunningHerd
) -> None:
    with opened(browser, herd["Ann"]) as page, herd["Ann"].connect() as client:
        node = page.locator(".node", has_text="Ann")
        page.evaluate(
            "() => { window.said = 0; new MutationObserver((all) => { window.said += all.length; }).observe("
            "document.querySelector('.node.own'), { attributes: true, attributeFilter: ['aria-label'] }); }"
        )
        before = node.locator(".figure").text_content() or ""
        client.send(*[b"FOO"] * 500)
        expect(node.locator(".figure")).not_to_have_text(before)
        assert node.get_attribute("aria-label") == "Ann: ready"
        assert page.evaluate("window.said") == 0
        node.click()
        expect(page.locator("#details")).to_contain_text(
            re.compile(r"2 of 2 links live, .* clients, .* a second")
        )


def test_clients_at_the_edge_of_the_world_are_on_the_map(browser: Browser) -> None:
    with herd_of([], "Ann") as herd:
        herd.start()
        herd["Ann"].wait_until_ready()
        herd["Ann"].hears(b"edge", b"+90+180")
        with opened(browser, herd["Ann"]) as page:
            expect(page.locator("#map-note")).to_contain_text("most of them, 1, near 89.8° N, 179.8° E.")


def test_a_lost_connection_is_told_and_made_again(browser: Browser, herd: RunningHerd) -> None:
    with opened(browser, herd["Bob"]) as page:
        green = colour_of_dot(page)
        herd["Bob"].kill()
        expect(page.locator("#connection")).to_have_text("Connection lost; trying again …")
        expect(page.locator("#banner li")).to_contain_text("Bob does not answer this page")
        expect(page).to_have_title("(?) herd – Bob")
        assert colour_of_dot(page) != green
        herd["Bob"].start()
        live(page)
        expect(page.locator("#connection")).to_have_text("Live")
        expect(page.locator("#banner")).to_be_hidden()


def focused(page: Page) -> str:
    """Return what has the focus: its id, or the beginning of what it says."""
    found: str = page.evaluate(
        "() => { const one = document.activeElement;"
        " return one.id || (one.getAttribute('aria-label') || one.textContent).split(/[: ]/)[0]; }"
    )
    return found


def test_a_keyboard_reaches_everything_and_can_choose_filter_and_pause(
    browser: Browser, herd: RunningHerd
) -> None:
    ann = herd["Ann"]
    with opened(browser, ann) as page:
        ann.ask(b"APPLE one")
        ann.ask(b"PEAR two")
        page.wait_for_selector("#commands >> text=PEAR")
        order = []
        for _ in range(25):
            page.keyboard.press("Tab")
            order.append(focused(page))
            ring = page.evaluate(
                "() => { const one = document.activeElement; const drawn = one.querySelector('circle') || one;"
                " const style = getComputedStyle(drawn);"
                " return style.outlineStyle !== 'none' || style.strokeWidth === '6px'; }"
            )
            assert ring, order
        links = ["metrics", "health", "readiness", "state"]
        charts = ["Commands/s,", "Floods/s,", "Latency,", "Clients,"]
        of_map = ["closer", "wider", "world", "draw", "map"]
        tools = ["client", "follow-it", "circle", "watch-it", "servers-box"]
        nodes = ["Ann", "Bob", "Cid"]
        last = ["filter", "pause", "commands-box"]
        assert order == ["Skip", *links, *charts, *nodes, *of_map, *tools, *last]
        page.locator("#filter").focus()
        page.keyboard.type("APPLE")
        expect(page.locator("#commands tbody tr")).to_have_count(1)
        expect(page.locator("#commands tbody")).to_contain_text("APPLE one")
        page.keyboard.press("Control+a")
        page.keyboard.press("Delete")
        expect(page.locator("#commands tbody")).to_contain_text("PEAR two")
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        ann.ask(b"CHERRY three")
        expect(page.locator("#command-count")).to_contain_text("1 new since the pause")
        assert "CHERRY" not in text(page, "#commands")
        page.keyboard.press("Space")
        expect(page.locator("#commands tbody tr").first).to_contain_text("CHERRY three")
        page.locator(".node", has_text="Cid").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#details")).to_contain_text("Cid: ready, version")
        expect(page.locator("#servers tr.chosen")).to_contain_text("Cid")
        page.reload()
        live(page)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert focused(page) == "main"


SAMPLES = [[1e9 + 10 * at, at, 2.0, 3.0, None if at < 5 else 0.002, 0.004, 0.001, 100] for at in range(1, 41)]
"""Of 400 seconds, with 1 to 40 commands a second; no place was asked for at first."""


def test_the_last_hour_can_be_read_with_pointer_and_keys_and_who_wants_no_motion_sees_none(
    browser: Browser, herd: RunningHerd
) -> None:
    with opened(browser, herd["Ann"], still=True) as page:
        page.evaluate(
            "async (samples) => { const { Hour } = await import('/hour.js'); const [place, note] = "
            "['charts', 'hour-note'].map((id) => document.getElementById(id)); const hour = new Hour(place, note); "
            "hour.add(samples.slice(0, -1)); hour.add(samples.slice(-1)); }",
            SAMPLES,
        )
        charts = page.locator(".chart")
        assert charts.locator("figcaption b").all_inner_texts() == [
            "Commands/s",
            "Floods/s",
            "Latency",
            "Clients",
        ]
        expect(charts.nth(0).locator(".value")).to_have_text("40")
        expect(charts.nth(2).locator(".value")).to_have_text(["2 ms", "4 ms", "1 ms"])
        slider = charts.nth(0).locator("svg[role=slider]")
        expect(slider).to_have_attribute("aria-valuetext", re.compile("40; the most is 40$"))
        slider.press("ArrowLeft")
        expect(slider).to_have_attribute("aria-valuetext", re.compile("39; the most is 40$"))
        expect(charts.nth(0).locator(".value")).to_have_text("39")
        slider.press("Home")
        expect(charts.nth(0).locator(".value")).to_have_text("1")
        box = charts.nth(2).locator("svg[role=slider]").bounding_box()
        assert box is not None
        page.mouse.move(box["x"] + 2, box["y"] + 10)
        expect(charts.nth(2).locator(".value")).to_have_text(["–", "4 ms", "1 ms"])
        assert charts.nth(2).locator(".curve-0").last.get_attribute("d") is not None
        assert inaccessible(page) == []
        motionless(page, herd)


def motionless(page: Page, herd: RunningHerd) -> None:
    assert page.evaluate("getComputedStyle(document.querySelector('.edge')).transitionDuration") == "0s"
    herd["Ann"].hears(b"still")
    page.wait_for_function("() => Number(document.getElementById('map').dataset.pings) > 0")


def test_where_commands_and_places_are_not_shown_the_page_says_why(browser: Browser) -> None:
    with herd_of([], "Ann", more='[admin]\npositions = "never"\n') as herd:
        herd.start()
        herd["Ann"].wait_until_ready()
        with opened(browser, herd["Ann"]) as page:
            herd["Ann"].hears(b"secretive")
            expect(page.locator("#sum-clients")).to_have_text("1")
            for note in ("#withheld", "#map-note"):
                expect(page.locator(note)).to_contain_text('positions = "never"')
            expect(page.locator("#commands")).to_be_hidden()
            expect(page.locator("#filter")).to_be_hidden()
            for hidden in ("#follow", "#draw", "#map-legend"):
                expect(page.locator(hidden)).to_be_hidden()
            assert "secretive" not in page.content()
            assert inaccessible(page) == []


# Clients that are followed. --------------------------------------------------------------------------------------


def on_map(page: Page, latitude: float, longitude: float) -> tuple[float, float]:
    """Return where a place of the map is on the page that is shown."""
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    assert box is not None
    left, top, zoom = map(float, (page.locator("#map").get_attribute("data-view") or "").split())
    return (
        box["x"] + (longitude + 180 - left) / 360 * zoom * box["width"],
        box["y"] + (90 - latitude - top) / 180 * zoom * box["height"],
    )


def test_a_client_is_followed_by_its_id_and_by_a_click_in_the_map(
    browser: Browser, herd: RunningHerd
) -> None:
    herd["Ann"].hears(b"walker", b"-48.5-120.25")
    with opened(browser, herd["Bob"]) as page:
        note = page.locator("#follow-note")
        page.fill("#client", "walker")
        page.keyboard.press("Enter")
        expect(note).to_have_text("walker is at -48.5, -120.25.")
        expect(page.locator("#closeup")).to_have_attribute("data-clients", "1")
        expect(page.locator("#map")).to_have_attribute("data-marked", "-48.50 -120.25")
        herd["Cid"].hears(b"walker", b"-48.75-120.5")
        expect(note).to_have_text("walker is at -48.75, -120.5.")
        expect(page.locator("#closeup")).to_have_attribute("aria-label", re.compile(r"Close-up, .* km wide"))
        page.click("#unfollow")
        expect(page.locator("#closeup")).to_be_hidden()
        page.fill("#client", "my%20walker")
        page.keyboard.press("Enter")
        expect(note).to_have_text("my%20walker is not known. In a name, a space is a space, not %20.")
        page.fill("#client", "")
        page.mouse.click(*on_map(page, -48.75, -120.5))
        expect(page.locator("#client")).to_have_value("walker")
        expect(note).to_have_text("walker is at -48.75, -120.5.")
        page.mouse.click(*on_map(page, -80, 0))
        expect(note).to_contain_text("Nobody is within")
        zoom_in_on(page, -48.75, -120.5)
        page.mouse.click(*on_map(page, -48.75, -120.5))
        expect(note).to_have_text("walker is at -48.75, -120.5.")
        page.mouse.click(*on_map(page, -48, -119))
        expect(note).to_contain_text("Nobody is within")
        page.click("#world")
        expect(page.locator("#map")).to_have_attribute("data-view", "0 0 1")


def zoom_in_on(page: Page, latitude: float, longitude: float) -> None:
    """Zoom with buttons, the wheel and keys; the place stays where it is under the wheel, and a drag moves it."""
    page.click("#closer")
    expect(page.locator("#map")).to_have_attribute("data-view", "60 30 1.5")
    page.click("#wider")
    before = on_map(page, latitude, longitude)
    page.mouse.move(*before)
    page.keyboard.down("Control")
    for _ in range(5):
        view = page.locator("#map").get_attribute("data-view") or ""
        page.mouse.wheel(0, -150)
        expect(page.locator("#map")).not_to_have_attribute("data-view", view)
    page.keyboard.up("Control")
    # A pointer is told in whole pixels, and these become six.
    assert on_map(page, latitude, longitude) == pytest.approx(before, abs=6)
    x, y = on_map(page, latitude, longitude)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 20, y - 8, steps=3)
    page.mouse.up()
    assert on_map(page, latitude, longitude) == pytest.approx((x + 20, y - 8), abs=2)
    page.locator("#map").focus()
    for key in ("ArrowRight", "+", "-", "ArrowLeft"):
        page.keyboard.press(key)
    assert on_map(page, latitude, longitude) == pytest.approx((x + 20, y - 8), abs=2)


def test_a_circle_that_is_drawn_tells_who_comes_and_who_leaves(browser: Browser, herd: RunningHerd) -> None:
    herd["Ann"].hears(b"islander", b"-48.5+90.5")
    with opened(browser, herd["Ann"]) as page:
        note, news = page.locator("#follow-note"), page.locator("#fence-news")
        page.click("#draw")
        page.mouse.move(*on_map(page, -48, 90))
        page.mouse.down()
        page.mouse.move(*on_map(page, -48, 97))
        page.mouse.move(*on_map(page, -48, 98))
        page.mouse.up()
        expect(note).to_have_text("1 client is in the circle.")
        expect(page.locator("#draw")).to_have_attribute("aria-pressed", "false")
        herd["Cid"].hears(b"visitor", b"-49+91")
        expect(news).to_contain_text("visitor has come")
        expect(note).to_have_text("2 clients are in the circle.")
        assert inaccessible(page) == []
        herd["Cid"].hears(b"islander", b"-10+10")
        expect(news.locator("li").first).to_contain_text("islander has left")
        page.fill("#circle", "nowhere")
        page.click("#watch-it")
        expect(note).to_have_text("A circle is a latitude, a longitude and at most 2,000 kilometres.")


def touch(page: Page, *steps: list[tuple[float, float]]) -> None:
    """Put fingers on the page, move them from step to step, and take them off: what Chromium makes of a real screen."""
    session = page.context.new_cdp_session(page)
    for at, fingers in enumerate([*steps, []]):
        kind = "touchMove" if at and fingers else "touchStart" if fingers else "touchEnd"
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(fingers)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    session.detach()


def view_of(page: Page) -> list[float]:
    """Return what the map shows: its left and upper edge, in degrees, and its zoom."""
    return [*map(float, (page.locator("#map").get_attribute("data-view") or "").split())]


@pytest.mark.parametrize("upright", [False, True], ids=["side by side", "one above the other"])
def test_two_fingers_zoom_the_map_and_one_moves_it_and_the_page_stays(
    browser: Browser, herd: RunningHerd, *, upright: bool
) -> None:
    here = f"http://127.0.0.1:{herd['Ann'].admin_port}/"
    with visited(browser, here, width=390, has_touch=True) as page:
        live(page)
        x, y = on_map(page, 0, 0)
        # Not scrollY: the browser changes that too if what is above takes more room, so that what is seen stays.
        top_of_map = "document.querySelector('#map').getBoundingClientRect().top"
        before = page.evaluate(top_of_map)

        def pair(apart: float) -> list[tuple[float, float]]:
            return [(x, y - apart), (x, y + apart)] if upright else [(x - apart, y), (x + apart, y)]

        touch(page, *map(pair, range(20, 61, 4)))
        left, top, zoom = view_of(page)
        assert zoom == pytest.approx(3, rel=0.15)
        assert on_map(page, 0, 0) == pytest.approx((x, y), abs=8)
        touch(page, *[[(x + step, y + step / 2)] for step in range(0, 41, 4)])
        moved_left, moved_top, same = view_of(page)
        assert same == zoom
        assert moved_left < left
        assert moved_top < top
        touch(page, *map(pair, range(60, 10, -5)))
        assert view_of(page)[2] == pytest.approx(1, abs=0.01)
        assert page.evaluate(top_of_map) == pytest.approx(before, abs=1)


def test_a_finger_that_goes_up_over_the_whole_map_scrolls_the_page_and_a_tap_is_a_place(
    browser: Browser, herd: RunningHerd
) -> None:
    herd["Ann"].hears(b"tapped", b"-40-100")
    here = f"http://127.0.0.1:{herd['Bob'].admin_port}/"
    with visited(browser, here, width=390, has_touch=True) as page:
        live(page)
        page.touchscreen.tap(*on_map(page, -40, -100))
        expect(page.locator("#client")).to_have_value("tapped")
        x, y = on_map(page, 0, 0)
        scrolled = page.evaluate("scrollY")
        touch(page, *[[(x, y - step)] for step in range(0, 61, 6)])
        page.wait_for_function(f"() => scrollY > {scrolled} + 20")
        assert view_of(page)[2] == 1


def test_in_front_of_redis_what_a_server_cannot_know_is_left_out_at_any_width(
    browser: Browser, herd: RunningHerd
) -> None:
    """A hello without a map says that there is no table."""
    with opened(browser, herd["Ann"]) as page:
        graph = page.get_by_role("heading", name="Graph")
        expect(graph).to_be_visible()
        page.evaluate("document.body.classList.add('tableless')")
        expect(graph).not_to_be_visible()
        expect(page.locator("#details")).not_to_be_visible()
        heads = page.locator("#servers thead th:visible").all_inner_texts()
        assert not {"Links", "Clients", "Floods in/s", "Floods out/s"} & {*heads}
        assert {"Server", "State", "Connections", "Commands/s"} < {*heads}
        for width in (390, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function(f"() => innerWidth === {width}")
            cells = page.locator("#servers tbody tr").first.locator("[data-label]:visible")
            assert cells.count() == len(heads)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            tops = page.evaluate(
                "[...document.querySelectorAll('#sums > div')].filter((one) => one.offsetHeight).map((one) => one.offsetTop)"
            )
            assert len({*tops}) == (2 if width == 390 else 1), "four figures in full rows"


def test_on_a_narrow_page_the_servers_flow_with_it_and_commands_keep_their_box(
    browser: Browser, herd: RunningHerd
) -> None:
    with opened(browser, herd["Ann"], width=390) as page:
        for _ in range(60):
            herd["Ann"].ask(b"FOO")
        page.wait_for_function("() => document.querySelectorAll('#commands tbody tr').length > 50")
        for box, flows in (("#servers-box", True), ("#commands-box", False)):
            fits = page.locator(box).evaluate("(one) => one.scrollHeight <= one.clientHeight")
            assert fits == flows, box


def test_what_is_typed_with_spaces_around_it_is_the_same_circle(browser: Browser, herd: RunningHerd) -> None:
    with opened(browser, herd["Ann"]) as page:
        page.fill("#circle", " 48.25, 16.5, 5 ")
        page.click("#watch-it")
        expect(page.locator("#map")).to_have_attribute("data-marked", "48.25 16.50")


def test_a_click_while_the_server_does_not_answer_is_told_and_is_no_error(
    browser: Browser, herd: RunningHerd
) -> None:
    with opened(browser, herd["Ann"]) as page:
        page.route("**/near?*", lambda route: route.abort())
        page.mouse.click(*on_map(page, -80, 0))
        expect(page.locator("#follow-note")).to_have_text(
            "The server does not say now who is near that place."
        )


# Much of everything. ---------------------------------------------------------------------------------------------


def test_twenty_thousand_clients_and_a_stream_of_commands_are_shown_and_bounded(browser: Browser) -> None:
    """How long the page and its server are busy with that is measured by bench/page.py."""
    with large_herd(["Ann", "Bob"], clients=20_000) as herd, opened(browser, herd["Ann"]) as page:
        ann = herd["Ann"]
        expect(page.locator("#sum-clients")).to_have_text("20,000")
        expect(page.locator("#map-note")).to_contain_text("20,000 clients, in")
        with ann.connect() as client:
            client.send(*[b"FOO %d" % number for number in range(300)])
            for number in range(300):
                assert client.line() == b"? FOO %d\n" % number
        expect(page.locator("#commands tbody tr")).to_have_count(200)
        page.fill("#filter", "nothing")
        expect(page.locator("#commands tbody tr:visible")).to_have_count(0)
        page.fill("#filter", "")
        expect(page.locator("#commands tbody tr:visible")).to_have_count(200)
        assert not ann.events("internal_error")


def test_a_graph_of_thirty_servers_fits_and_is_accessible(browser: Browser) -> None:
    names = [f"S{number:02}" for number in range(30)]
    with herd_of(ring(names)) as herd:
        herd["S00"].start()
        wait_until(lambda: herd["S00"].readiness()[0] == 200, "S00 is ready")
        with opened(browser, herd["S00"], ready=1) as page:
            expect(page.locator(".node")).to_have_count(30)
            expect(page.locator(".node.unknown")).to_have_count(29)
            expect(page.locator("#troubles li")).to_have_count(7)
            expect(page.locator("#troubles li").last).to_have_text("and 23 more: see the servers below.")
            expect(page).to_have_title("(1/30) herd – S00")
            page.set_viewport_size({"width": 390, "height": 844})
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            # All of them flow with the page.
            assert page.evaluate("document.documentElement.scrollHeight") < 5_500
            page.set_viewport_size({"width": 1280, "height": 800})
            expect(page.locator("#graph line")).to_have_count(len(ring(names)))
            assert page.evaluate("document.documentElement.scrollWidth") <= 1280
            assert inaccessible(page) == []


def test_the_table_of_a_class_is_sorted_by_any_column_up_and_down(browser: Browser, tmp_path: Path) -> None:
    points = {"cid": 9, "ann": 100, "bob": None, "dan": 28.5}
    reports = {name: {"points": made, "open": 0, "possible": 100} for name, made in points.items()}
    rows = [Record(name, "k", "", 1, 1.0, reports[name] if made else None) for name, made in points.items()]
    (tmp_path / "results.html").write_text(table.as_html(rows, "Grades"))
    page = browser.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto((tmp_path / "results.html").as_uri())

    def names_by(column: str) -> list[str]:
        page.get_by_role("button", name=column).click()
        return page.locator("tbody th").all_inner_texts()

    assert page.locator("tbody th").all_inner_texts() == [*points]
    assert names_by("Points") == ["bob", "cid", "dan", "ann"]
    assert names_by("Points") == ["ann", "dan", "cid", "bob"]
    assert names_by("Submission") == ["ann", "bob", "cid", "dan"]
    assert page.locator("[aria-sort]").all_inner_texts() == ["Submission"]
    page.keyboard.press("Enter")  # the button has the focus
    assert page.locator("tbody th").all_inner_texts() == ["dan", "cid", "bob", "ann"]
    assert inaccessible(page) == []
    assert wrong == []
    page.close()
