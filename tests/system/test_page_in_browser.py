"""The status page as people use it, in a real Chromium: at three widths, light and dark, with a keyboard alone, and
with much to show. At the end, the table of a graded class, which needs the same browser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from browser import chromium, inaccessible, live, opened
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
    with opened(browser, herd["Ann"], width=360, scheme=scheme) as page:
        herd["Ann"].ask(b"FOO " + b"x" * 300)  # without a place to break it
        herd["Ann"].hears(b"reader")
        page.wait_for_selector("#commands tbody tr >> text=reader")
        page.fill("#circle", "34.07, -118.45, 1500")
        page.click("#watch-it")
        page.wait_for_selector("#closeup:visible")
        for width in (360, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function(f"() => innerWidth === {width}")
            readable(page, width, scheme)


def readable(page: Page, width: int, scheme: str) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h2:visible").count() == 6  # of which one is for screen readers
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
        expect(page.locator("#servers tbody tr").first.locator("td").nth(2)).to_have_text(str(clients + 1))
        page.wait_for_function(f"() => Number(document.getElementById('map').dataset.pings || 0) > {pings}")
        expect(page.locator("#map-note")).to_contain_text(f"{clients + 1} clients")


def test_what_strangers_send_is_text(browser: Browser, herd: RunningHerd) -> None:
    with opened(browser, herd["Ann"]) as page:
        herd["Ann"].hears(b"<img/src=x/onerror=alert(1)>")
        row = page.locator("#commands tbody tr", has_text="<img/src=x/onerror=alert(1)>")
        expect(row).to_have_count(1)
        assert page.locator("img").count() == 0


def test_a_killed_server_is_unknown_its_links_are_cut_and_both_come_back(
    browser: Browser, herd: RunningHerd
) -> None:
    with opened(browser, herd["Ann"]) as page:
        node = page.locator(".node", has_text="Cid")
        herd["Cid"].kill()
        expect(node).to_have_class(re.compile("unknown"))
        expect(node.locator(".figure")).to_have_text("unknown")
        expect(page.locator("#servers tbody tr", has_text="Cid").last.locator("td").first).to_contain_text(
            "unknown:"
        )
        expect(page.locator(".edge.cut[x1]").and_(page.locator("#graph line"))).to_have_count(2)
        expect(page.locator(".edge-text", has_text="cut")).to_have_count(2)
        expect(page.locator("#news")).to_contain_text("Cid")  # told to a screen reader
        expect(page.locator("#sum-ready")).to_have_text("2 of 3")
        assert inaccessible(page) == []
        herd["Cid"].start()
        live(page)
        expect(page.locator("#graph line.live")).to_have_count(3)


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
        herd["Bob"].kill()
        expect(page.locator("#connection")).to_have_text("Connection lost; trying again …")
        herd["Bob"].start()
        live(page)
        expect(page.locator("#connection")).to_have_text("Live")


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
        for _ in range(14):
            page.keyboard.press("Tab")
            order.append(focused(page))
            ring = page.evaluate(
                "() => { const one = document.activeElement; const drawn = one.querySelector('circle') || one;"
                " const style = getComputedStyle(drawn);"
                " return style.outlineStyle !== 'none' || style.strokeWidth === '6px'; }"
            )
            assert ring, order
        links = ["metrics", "health", "readiness", "state"]
        tools = ["client", "follow-it", "circle", "watch-it"]
        assert order == ["Skip", *links, "Ann", "Bob", "Cid", *tools, "filter", "pause"]
        page.keyboard.press("Shift+Tab")
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
        for _ in ("filter", *tools, "Cid"):
            page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#details")).to_contain_text("Cid: ready, version")
        expect(page.locator("#servers tr.chosen")).to_contain_text("Cid")
        page.reload()
        live(page)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert focused(page) == "main"


def test_who_wants_no_motion_sees_none_and_still_sees_reports(browser: Browser, herd: RunningHerd) -> None:
    with opened(browser, herd["Ann"], still=True) as page:
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
            expect(page.locator("#follow")).to_be_hidden()
            assert "secretive" not in page.content()
            assert inaccessible(page) == []


# Clients that are followed. --------------------------------------------------------------------------------------


def on_map(page: Page, latitude: float, longitude: float) -> tuple[float, float]:
    """Return where a place of the map is on the page that is shown."""
    page.locator("#map").scroll_into_view_if_needed()
    box = page.locator("#map").bounding_box()
    assert box is not None
    return (
        box["x"] + (longitude + 180) / 360 * box["width"],
        box["y"] + (90 - latitude) / 180 * box["height"],
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


def test_a_circle_that_is_drawn_tells_who_comes_and_who_leaves(browser: Browser, herd: RunningHerd) -> None:
    herd["Ann"].hears(b"islander", b"-48.5+90.5")
    with opened(browser, herd["Ann"]) as page:
        note, news = page.locator("#follow-note"), page.locator("#fence-news")
        page.mouse.move(*on_map(page, -48, 90))
        page.mouse.down()
        page.mouse.move(*on_map(page, -48, 97))
        page.mouse.move(*on_map(page, -48, 98))
        page.mouse.up()
        expect(note).to_have_text("1 client is in the circle.")
        herd["Cid"].hears(b"visitor", b"-49+91")
        expect(news).to_contain_text("visitor has come")
        expect(note).to_have_text("2 clients are in the circle.")
        assert inaccessible(page) == []
        herd["Cid"].hears(b"islander", b"-10+10")
        expect(news.locator("li").first).to_contain_text("islander has left")
        page.fill("#circle", "nowhere")
        page.click("#watch-it")
        expect(note).to_have_text("A circle is a latitude, a longitude and at most 2,000 kilometres.")


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
