"""Writes docs/status-page-*.png, docs/phone-page.png and docs/fence-page.png: a herd of the default graph under some load, a
phone that walks, and the fifty of the example, photographed in Chromium.

.venv/bin/python docs/make_screenshots.py     needs what the tests need: pip install -e '.[test]', Debian's chromium
"""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Literal

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))

from browser import chromium, live  # noqa: E402 - found only now
from herd_process import RunningHerd, herd_of, now  # noqa: E402 - likewise
from playwright.sync_api import Browser, expect  # noqa: E402 - likewise

from proxyherd.config import herd_file  # noqa: E402 - likewise
from proxyherd.places.gazetteer.build import build  # noqa: E402 - likewise

DOCS = ROOT / "docs"
HOUR_SECONDS = 100.0
"""After these, the charts of the last hour have something to show."""

LOAD_SECONDS = 8.0
CLIENTS = 2_000
FENCE_SECONDS = 30.0
"""After these, each of the fifty draws its way behind it, and some have crossed the fence."""

CITIES = (
    *((34.05, -118.24), (40.71, -74.01), (19.43, -99.13), (-23.55, -46.63), (-34.6, -58.38), (51.51, -0.13)),
    *((48.86, 2.35), (52.52, 13.41), (55.76, 37.62), (30.04, 31.24), (6.52, 3.38), (-26.2, 28.05)),
    *((28.61, 77.21), (19.08, 72.88), (13.76, 100.5), (39.9, 116.4), (35.68, 139.69), (-33.87, 151.21)),
)
"""Clients live around these: latitude and longitude."""


def report(rng: random.Random) -> bytes:
    """Return what a client somewhere says."""
    latitude, longitude = rng.choice(CITIES)
    latitude += rng.gauss(0, 3)
    longitude += rng.gauss(0, 4)
    return b"IAMAT client%d.example %+.6f%+.6f %b" % (rng.randrange(CLIENTS), latitude, longitude, now())


def load(herd: RunningHerd, ended: threading.Event) -> None:
    """Let clients talk to all servers."""
    rng = random.Random(8)  # noqa: S311 - the same people each time
    connections = [server.connect() for server in herd.values()]
    while not ended.is_set():
        connection = rng.choice(connections)
        for _ in range(rng.randrange(1, 12)):
            connection.ask(report(rng))
        connection.ask(b"WHATSAT client%d.example 10 5" % rng.randrange(CLIENTS))
        if rng.random() < 0.05:
            connection.ask(b"WHEREIS client%d.example" % rng.randrange(CLIENTS))
        ended.wait(0.02)
    for connection in connections:
        connection.close()


WALK = (
    *((34.07190, -118.43610), (34.07130, -118.43720), (34.07020, -118.43800), (34.06910, -118.43890)),
    *((34.06850, -118.44030), (34.06760, -118.44140), (34.06690, -118.44270), (34.06740, -118.44400)),
    *((34.06830, -118.44460), (34.06893, -118.44513)),
)
"""Where the phone walks: latitude and longitude, from Westwood's village into the university."""


def photograph(
    browser: Browser, port: int, name: str, width: int, height: int, scheme: Literal["light", "dark"]
) -> None:
    """Write one picture."""
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{port}/")
    live(page)
    page.wait_for_timeout(1_000 * LOAD_SECONDS)
    page.screenshot(path=DOCS / f"status-page-{name}.png")
    context.close()


def photograph_trouble(browser: Browser, herd: RunningHerd) -> None:
    """Write the picture of a herd of which a server has been killed; start that server again."""
    page = browser.new_page(viewport={"width": 1100, "height": 560})
    page.goto(f"http://127.0.0.1:{herd['Bailey'].admin_port}/")
    live(page)
    page.wait_for_timeout(1_000 * LOAD_SECONDS)
    herd["Clark"].kill()
    page.locator("#banner").wait_for()
    page.wait_for_timeout(1_000 * LOAD_SECONDS)
    page.screenshot(path=DOCS / "status-page-trouble.png")
    page.context.close()
    herd["Clark"].start()
    herd.wait_until_whole()


def photograph_circle(browser: Browser, port: int) -> None:
    """Write the picture of who is in a circle."""
    page = browser.new_page(viewport={"width": 900, "height": 900})
    page.goto(f"http://127.0.0.1:{port}/")
    live(page)
    page.fill("#circle", "34.05, -118.24, 400")
    page.click("#watch-it")
    page.wait_for_timeout(1_000 * LOAD_SECONDS)
    page.locator("#follow").screenshot(path=DOCS / "status-page-follow.png")
    page.context.close()


def photograph_phone(browser: Browser, port: int) -> None:
    """Write the picture of the page that reports where its browser is."""
    page = browser.new_page(
        viewport={"width": 900, "height": 920},
        geolocation={"latitude": WALK[0][0], "longitude": WALK[0][1], "accuracy": 14},
        permissions=["geolocation"],
    )
    page.goto(f"http://127.0.0.1:{port}/")
    page.fill("#name", "kiwi")
    page.click("#report")
    for at, (latitude, longitude) in enumerate(WALK, 1):
        page.context.set_geolocation({"latitude": latitude, "longitude": longitude, "accuracy": 14})
        expect(page.locator("#count")).to_have_text(str(at))
    page.wait_for_timeout(2_500)  # the ring around the phone has faded
    page.screenshot(path=DOCS / "phone-page.png")
    page.context.close()


def photograph_fence(browser: Browser, port: int) -> None:
    """Write the picture of the page with the fence, to which the phones of the example come."""
    command = [sys.executable, str(ROOT / "examples/fence.py"), "--servers", f"127.0.0.1:{port}"]
    phones = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - fixed words
    page = browser.new_page(viewport={"width": 1100, "height": 960})
    try:
        page.goto(f"http://127.0.0.1:{port}/fence")
        page.locator("#inside li").first.wait_for()
        page.wait_for_timeout(1_000 * FENCE_SECONDS)
        page.locator("#phones .news text").first.wait_for()  # somebody has just crossed the fence
        page.screenshot(path=DOCS / "fence-page.png")
    finally:
        phones.terminate()
        phones.wait()
        page.context.close()


def main() -> None:
    """Write all pictures."""
    edges = herd_file.load(ROOT / "deploy/herd.toml").edges
    with herd_of(edges, more="[web]\n") as herd, chromium() as browser:
        build(herd.gazetteer)
        herd.start()
        herd.wait_until_whole()
        ended = threading.Event()
        clients = threading.Thread(target=load, args=(herd, ended))
        clients.start()
        try:
            time.sleep(HOUR_SECONDS)
            port = herd["Clark"].admin_port
            photograph(browser, port, "light", 1100, 1000, "light")
            photograph(browser, port, "dark", 1100, 1000, "dark")
            photograph(browser, port, "phone", 390, 1000, "light")
            photograph_circle(browser, port)
            photograph_phone(browser, herd["Clark"].web_port)
            photograph_fence(browser, herd["Clark"].web_port)
            ended.set()
            clients.join()  # they talk to the server that is killed now
            photograph_trouble(browser, herd)
        finally:
            ended.set()
            clients.join()


if __name__ == "__main__":
    main()
