"""The pages of the web port in a real Chromium, which believes to be where a test puts it: reports arrive, moves are
drawn, and each trouble is told. And what a page of this port can do with fetch and WebSocket.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Literal

import pytest
from browser import chromium, inaccessible, visited
from debian import needs
from gazetteer_file import gazetteer_file
from herd_process import PATIENCE_SECONDS, ServerProcess, now, running_server
from playwright.sync_api import Browser, Geolocation, Page, expect

pytestmark = [needs("chromium", "curl"), pytest.mark.xdist_group("browser")]

UCLA = Geolocation(latitude=34.06893, longitude=-118.445127, accuracy=12)
STEPS = [
    Geolocation(latitude=34.0705, longitude=-118.4442, accuracy=9),
    Geolocation(latitude=34.0722, longitude=-118.4431, accuracy=9),
]
ELSEWHERE = "phones.example"
"""A name of the server under which its pages are no secure context."""

REPORTING = "Reporting. Keep this page in sight."

UNKNOWN = r"status of 404 .*/v1/clients/[^/]*$"
"""What the browser complains about where a page asks for a phone that has not reported yet."""


@pytest.fixture(scope="module")
def clark() -> Iterator[ServerProcess]:
    web = f'[web]\nhosts = ["{ELSEWHERE}"]\n'
    limits = "[limits]\nmax_clock_lead_seconds = 3600\n"  # so a test can be ahead of a page
    with running_server(more=web + limits, gazetteer=gazetteer_file()) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium(f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1") as browser:
        yield browser


def phone(
    browser: Browser, clark: ServerProcess, path: str = "", host: str = "127.0.0.1", **more: Any
) -> AbstractContextManager[Page]:
    """Open a page with a phone that is at UCLA and allows everything, unless told otherwise."""
    usual = {"width": 360, "geolocation": UCLA, "permissions": ["geolocation"], "has_touch": True}
    return visited(
        browser, f"http://{host}:{clark.web_port}/{path}", **{**usual, "expected": UNKNOWN, **more}
    )


def begin(page: Page, name: str) -> None:
    page.fill("#name", name)
    page.click("#report")


def report_from(page: Page, name: str) -> None:
    begin(page, name)
    expect(page.locator("#state")).to_have_text(REPORTING)


def move(page: Page, *steps: Geolocation) -> None:
    """Move, and wait until that is reported."""
    for step in steps:
        before = int(page.locator("#count").inner_text())
        page.context.set_geolocation(step)
        expect(page.locator("#count")).to_have_text(str(before + 1))


def drawn(page: Page) -> int:
    """Return of how many locations the drawn trail is."""
    return len((page.locator("#map .trail").get_attribute("points") or "").split())


# --- Reports


def test_reports_arrive_moves_are_drawn_and_places_are_shown(browser: Browser, clark: ServerProcess) -> None:
    with phone(browser, clark) as page:
        report_from(page, "my phone")
        assert b" my%20phone +34.0689300-118.4451270 " in clark.knows(b"my%20phone")
        expect(page.locator("#server")).to_have_text("Clark")
        expect(page.locator("#accuracy")).to_have_text("12 m")
        move(page, *STEPS)
        assert b" my%20phone +34.0722000-118.4431000 " in clark.knows(b"my%20phone")
        assert drawn(page) == 3
        expect(page.locator("#caption")).to_contain_text(
            "3 locations over 409 m; the last at 34.07220° N, 118.44310° W"
        )
        page.click("#ask")
        expect(page.locator("#places li").first).to_contain_text(
            re.compile(r"\d+(\.\d)? (m|km) (north|south|east|west)")
        )
        expect(page.locator("#places")).to_contain_text("Bel Air")
        assert page.locator("#map .place").count() == page.locator("#places li").count() > 3
        expect(page.locator("#attribution a").first).to_have_attribute("href", "https://www.geonames.org/")
        page.click("#report")
        expect(page.locator("#state")).to_have_text("Not reporting from here.")
        page.reload()
        expect(page.locator("#name")).to_have_value("my phone")
        assert drawn(page) == 3
        page.click("#forget")
        expect(page.locator("#caption")).to_have_text("No location yet.")
        assert page.evaluate("localStorage.length") == 0


def test_a_phone_that_reports_with_an_app_is_watched(browser: Browser, clark: ServerProcess) -> None:
    with phone(browser, clark) as page:
        page.fill("#name", "<img src=x onerror=alert(1)>")
        page.keyboard.press("Tab")
        expect(page.locator("#state")).to_contain_text("The herd has not heard of this name yet.")
        for location in (b"+34.0689-118.4451", b"+34.0701-118.4440"):
            clark.hears(b"<img%20src=x%20onerror=alert(1)>", location)
            page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # looks at once
            expect(page.locator("#caption")).to_contain_text(location[1:7].decode())
        assert drawn(page) == 2
        expect(page.locator("#state")).to_have_text("Not reporting from here.")


def test_a_later_report_of_another_phone_is_told(browser: Browser, clark: ServerProcess) -> None:
    later = b"%d" % (int(now().split(b".")[0]) + 3_600)
    clark.ask(b"IAMAT twice +1+2 " + later)
    with phone(browser, clark) as page:
        begin(page, "twice")
        expect(page.locator("#trouble")).to_contain_text("Does another phone use it?")


def test_it_works_behind_a_proxy_that_puts_a_path_before_all_others(
    browser: Browser, clark: ServerProcess
) -> None:
    with phone(browser, clark) as page:
        page.route(
            "**/3f9c0d5e/**", lambda route: route.continue_(url=route.request.url.replace("/3f9c0d5e", ""))
        )
        page.goto(f"{page.url}3f9c0d5e/")
        report_from(page, "proxied")
        assert clark.knows(b"proxied")
        page.click("footer >> text=an app")
        expect(page.locator("h1")).to_have_text("What this server understands")


# --- Troubles


def test_who_does_not_permit_it_reads_what_to_do(browser: Browser, clark: ServerProcess) -> None:
    with phone(browser, clark, permissions=["notifications"]) as page:
        begin(page, "denied")
        expect(page.locator("#trouble")).to_contain_text("location is blocked")
        expect(page.locator("#state")).to_contain_text("Not reporting from here.")
        page.context.grant_permissions(["geolocation"])
        report_from(page, "denied")
        expect(page.locator("#trouble")).to_be_hidden()


def test_a_device_that_does_not_know_where_it_is_goes_on_trying(
    browser: Browser, clark: ServerProcess
) -> None:
    with phone(browser, clark, geolocation=None) as page:
        devices = page.context.new_cdp_session(page)
        devices.send("Emulation.setGeolocationOverride")
        begin(page, "lost")
        expect(page.locator("#trouble")).to_contain_text("The device cannot find out where it is.")
        expect(page.locator("#state")).to_contain_text("Waiting for this device's location")
        devices.send("Emulation.setGeolocationOverride", dict(UCLA))
        expect(page.locator("#state")).to_have_text(REPORTING)
        expect(page.locator("#trouble")).to_be_hidden()


def test_a_page_that_came_over_plain_http_says_why_it_cannot_report(
    browser: Browser, clark: ServerProcess
) -> None:
    with phone(browser, clark, host=ELSEWHERE, permissions=[]) as page:
        begin(page, "insecure")
        expect(page.locator("#trouble")).to_contain_text("only over HTTPS")


def test_what_the_server_cannot_take_now_is_reported_later(browser: Browser, clark: ServerProcess) -> None:
    with phone(browser, clark, expected=f"{UNKNOWN}|status of 503|net::ERR_") as page:
        wait = {"status": 503, "headers": {"Retry-After": "1"}, "body": "{}"}
        page.route("**/v1/clients/later", lambda route: route.fulfill(**wait))
        begin(page, "later")
        expect(page.locator("#trouble")).to_contain_text("The server is not ready. Trying again in 1 s")
        page.unroute("**/v1/clients/later")
        expect(page.locator("#state")).to_have_text(REPORTING)
        expect(page.locator("#trouble")).to_be_hidden()
        page.context.set_offline(True)
        page.context.set_geolocation(STEPS[0])
        expect(page.locator("#trouble")).to_contain_text("The server cannot be reached.")
        page.context.set_offline(False)
        expect(page.locator("#count")).to_have_text("2")
        assert b"+34.0705000-118.4442000" in clark.knows(b"later")


def test_a_name_that_cannot_be_is_told_and_marked(browser: Browser, clark: ServerProcess) -> None:
    with phone(browser, clark) as page:
        page.click("#report")
        expect(page.locator("#trouble")).to_have_text("Give the phone a name first.")
        expect(page.locator("#name")).to_be_focused()
        for name in ("..", "\ud800"):
            begin(page, "a")
            page.click("#report")
            page.evaluate("name => { document.querySelector('#name').value = name }", name)
            page.click("#report")
            expect(page.locator("#trouble")).to_contain_text("This name cannot be used.")
            expect(page.locator("#name")).to_have_attribute("aria-invalid", "true")


ATTRIBUTIONS = """
async () => {
  const { attributions } = await import("/page/places.js");
  const html = '<a href="https://a.example/">A</a> <a href="javascript:1">B</a>'
    + '<form>C<input name="href"></form><form>D<input name="textContent"></form>';
  return attributions({ html_attributions: [html] }).map((one) => one.outerHTML ?? one);
}
"""


def test_of_attributions_only_text_and_secure_links_are_taken_over(
    browser: Browser, clark: ServerProcess
) -> None:
    """What a form has for a property may be one of its fields."""
    with phone(browser, clark) as page:
        link = '<a href="https://a.example/" rel="noopener noreferrer">A</a>'
        assert page.evaluate(ATTRIBUTIONS) == [link, " ", "B", "C", "[object HTMLInputElement]"]


# --- For whom


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_at_any_width_and_accessible_by_day_and_night(
    browser: Browser, clark: ServerProcess, scheme: Literal["light", "dark"]
) -> None:
    with phone(browser, clark, scheme=scheme) as page:
        report_from(page, "reader")
        page.click("#ask")
        expect(page.locator("#places li").first).to_be_visible()
        page.evaluate("document.getElementById('trouble').hidden = false")
        for width in (320, 768, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function(f"() => innerWidth === {width}")
            fits(page, width)
        page.goto(f"{page.url}v1/")
        for width in (320, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            fits(page, width)


def fits(page: Page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    heights = "[...document.querySelectorAll('button, input, select')].map((one) => one.offsetHeight)"
    assert all(height >= 44 for height in page.evaluate(heights))
    assert inaccessible(page) == []


def test_a_keyboard_reaches_everything_in_order(browser: Browser, clark: ServerProcess) -> None:
    with phone(browser, clark, width=1280) as page:
        page.keyboard.press("Tab")
        page.keyboard.type("keys")
        page.keyboard.press("Enter")
        expect(page.locator("#state")).to_have_text(REPORTING)
        order = []
        for _ in range(7):
            page.keyboard.press("Tab")
            order.append(page.evaluate("document.activeElement.id"))
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", order
        assert order == ["report", "forget", "closer", "wider", "fit", "radius", "ask"]
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        before = page.locator("#map text").first.text_content()
        page.keyboard.press("Enter")
        assert page.locator("#map text").first.text_content() != before


# --- What else pages can do


ASKS = """
async (name) => {
  const path = `/v1/clients/${encodeURIComponent(name)}`;
  const put = await fetch(path, { method: "PUT", body: '{"lat": 1.50, "lon": "2"}', headers: { "Content-Type": "application/json" } });
  const got = await (await fetch(path)).json();
  return [put.status, (await put.json()).outcome, got.client, got.lat];
}
"""
CONVERSES = """
([protocol, sent, most]) => new Promise((done, failed) => {
  const socket = new WebSocket(`ws://${location.host}/v1/ws`, protocol);
  let heard = "";
  socket.onopen = () => sent.forEach((one) => socket.send(one));
  socket.onerror = failed;
  socket.onmessage = ({ data }) => {
    heard += `${data.trimEnd()}\\n`;
    if (heard.trimEnd().split("\\n").length === most) socket.close(1000);
  };
  socket.onclose = ({ code }) => done([code, socket.protocol, heard]);
})
"""


def test_pages_fetch_and_converse_over_websockets(browser: Browser, clark: ServerProcess) -> None:
    with phone(browser, clark) as page:
        for name in ("a/b c", "📱", "100%25"):
            assert page.evaluate(ASKS, name) == [200, "stored", name, 1.5]
        report = '{"op": "report", "id": 1, "client": "web", "lat": 1, "lon": 2, "time": 3}'
        heard = page.evaluate(CONVERSES, ["proxyherd.json.v1", [report, '{"op": "fly", "id": 2}'], 2])
        assert heard[:2] == [1000, "proxyherd.json.v1"]
        assert re.fullmatch(r'\{"id":1,"outcome":"stored".*\n\{"id":2,"problem":.*\n', heard[2])
        lines = ["IAMAT web +1+2 4\nFOO", "BAR\n"]
        heard = page.evaluate(CONVERSES, ["proxyherd.lines.v1", lines, 3])
        assert heard[:2] == [1000, "proxyherd.lines.v1"]
        assert re.fullmatch(r"AT Clark \S+ web \+1\+2 4\n\? FOO\n\? BAR\n", heard[2])


def test_the_examples_of_the_page_about_the_port_work(browser: Browser, clark: ServerProcess) -> None:
    with phone(browser, clark, "v1/#not-taken") as page:
        assert page.evaluate("document.querySelector(':target').id") == "not-taken"
        examples = page.locator("pre").all_inner_texts()
        stream, script = [one for one in examples if not one.startswith("curl ")]
        commands = [one for text in examples for one in re.split(r"\n(?=curl )", text)]
        for one in commands:
            if one.startswith("curl ") and not one.startswith("curl -N "):  # that has no end
                run(one, clark.web_port)
        collect = f"const all = []; const console = {{ log(one) {{ if (all.push(one) === 2) done(all); }} }}; {script}"
        reported, located = page.evaluate(f"() => new Promise((done) => {{ {collect} }})")
        assert (reported["id"], located["id"], located["client"]) == (1, 2, "kiwi")
        first = f"() => new Promise((done) => {{ const console = {{ log: done }}; {stream} }})"
        assert page.evaluate(first)


def run(example: str, port: int) -> None:
    """Run an example with curl: all are answered, one erases, and only one is about a client that is not there."""
    command = example.replace("127.0.0.1:10300", f"127.0.0.1:{port}") + " -sS -o /dev/null -w '%{http_code}'"
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS
    )
    expected = "404" if "nobody" in example else "202" if "DELETE" in example else "200"
    assert done.stdout == expected, (example, done)


EARTH = """
async () => {
  const { ago, distance, metres, plane, spelled, wind } = await import("/page/earth.js");
  const fiji = { lat: -17, lon: 179.9 };
  const samoa = { lat: -17, lon: -179.9 };
  return [
    Math.round(metres(fiji, samoa)), Math.round(plane(fiji, samoa).east), wind(fiji, samoa), wind(samoa, fiji),
    Math.round(metres({ lat: 90, lon: 0 }, { lat: 89, lon: 77 })), wind({ lat: 0, lon: 0 }, { lat: 1, lon: -1 }),
    distance(999.4), distance(1500), distance(12345), spelled({ lat: -1.5, lon: 180 }),
    ago(-5), ago(90), ago(600), ago(7200), ago(864000),
  ];
}
"""


def test_distances_and_directions_hold_over_the_date_line_and_at_the_poles(
    browser: Browser, clark: ServerProcess
) -> None:
    with phone(browser, clark) as page:
        assert page.evaluate(EARTH) == [
            *(21267, 21267, "east", "west", 111195, "north-west"),
            *("999 m", "1.5 km", "12 km", "1.50000° S, 180.00000° E"),
            *("just now", "90 s ago", "10 min ago", "2 h ago", "10 days ago"),
        ]
