"""The status page's server: what it tells of whom, whom it asks, and that nobody who looks or is asked harms it."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from herd_process import RunningHerd, ServerProcess, herd_of, now, running_herd, wait_until
from other_admin_port import CHUNKED, OtherAdminPort, answering, http
from states import a_state
from viewing import Page, edges_in, get_events, server_in, viewing

import proxyherd
from proxyherd.admin.status_page import state
from proxyherd.admin.status_page.herd import MAX_VIEWERS
from proxyherd.admin.status_page.state import ServerState
from proxyherd.base.page_files import SHARED

PAGE = Path(proxyherd.__file__).parent / "admin/status_page/page"
PATH = [("Ann", "Bob"), ("Bob", "Cid")]


@pytest.fixture(scope="module")
def herd() -> Iterator[RunningHerd]:
    with running_herd(PATH) as herd:
        yield herd


def all_known(update: dict[str, list[dict[str, object]]]) -> bool:
    return all(one["known"] for one in update["servers"])


# The files. ------------------------------------------------------------------------------------------------------


def test_the_page_is_small_and_needs_nobody_else() -> None:
    files = [*SHARED.iterdir(), *PAGE.iterdir()]
    assert sum(file.stat().st_size for file in files) < 200 << 10
    assert (SHARED / "coast.json").stat().st_size < 40 << 10
    for file in files:
        text = file.read_text()
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), file.name
        assert "innerHTML" not in text, file.name
    page = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)


def test_no_script_or_style_may_come_from_elsewhere_or_stand_in_a_page(herd: RunningHerd) -> None:
    connection, response = get_events(herd["Ann"].admin_port)
    response.close()
    connection.close()
    policy = dict(
        part.strip().split(" ", 1) for part in response.headers["Content-Security-Policy"].split(";")
    )
    assert policy == {
        "default-src": "'none'",
        **dict.fromkeys(("script-src", "style-src", "connect-src", "img-src"), "'self'"),
        **dict.fromkeys(("base-uri", "form-action", "frame-ancestors"), "'none'"),
    }


DOCS = Path(__file__).parents[2] / "docs"


def test_the_pictures_of_the_page_are_there_small_and_linked() -> None:
    page = (DOCS / "status-page.md").read_text()
    for name in ("light", "dark", "phone", "trouble"):
        picture = DOCS / f"status-page-{name}.png"
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size < 250 << 10
        assert f"({picture.name})" in page


# What it tells. --------------------------------------------------------------------------------------------------


def test_one_server_shows_the_whole_herd(herd: RunningHerd) -> None:
    with viewing(herd["Cid"]) as page:
        update = page.until("herd", all_known)
        assert [one["name"] for one in update["servers"]] == ["Ann", "Bob", "Cid"]
        assert all(one["ready"] for one in update["servers"])
        page.until("herd", lambda herd: set(edges_in(herd).values()) == {"live"})
        assert server_in(update, "Bob")["links"] == {"Ann": "live", "Cid": "live"}


def test_a_report_to_any_server_is_a_command_and_a_ping_on_every_page(herd: RunningHerd) -> None:
    with viewing(herd["Cid"]) as page:
        page.until("herd", all_known)
        page.for_seconds(1.1)  # so that others have been asked once, and keep commands now
        line = b"IAMAT far.away +12.25-98.5 " + now()
        answer = herd["Ann"].ask(line).decode().rstrip()
        told = page.until("commands", lambda data: "far.away" in str(data))
        [(server, values)] = [one for one in told["commands"] if "far.away" in one[1][4]]
        assert (server, *values[2:]) == ("Ann", "iamat", "stored", line.decode(), answer)
        if not any(name == "pings" and [12.25, -98.5] in data for name, data in page.seen):
            page.until("pings", lambda pings: [12.25, -98.5] in pings)
        wanted = [data for name, data in page.seen if name == "cells" and data["clients"]]
        cells = wanted[-1] if wanted else page.until("cells", lambda cells: cells["clients"])
        at = next(at for at in range(0, len(cells["cells"]), 3) if cells["cells"][at : at + 2] == [163, 204])
        assert cells["cells"][at + 2] == 1
        assert cells["degrees"] == 0.5


def test_every_kind_of_command_is_shown_as_it_was_answered(herd: RunningHerd) -> None:
    ann = herd["Ann"]
    with viewing(ann) as page:
        page.until("herd", all_known)
        ann.hears(b"kind")
        ann.ask(b"WHATSAT kind 10 5")
        ann.ask(b"WHATSAT nobody 10 5")
        ann.ask(b"FOO <script>alert(1)</script> \x1b[31m \xff \xe2\x80\xae")
        ann.ask(b"x" * 9_000)
        told: dict[tuple[str, str], list[str]] = {}
        while len(told) < 5:
            for server, (_, _, *values) in page.until("commands", lambda _: True)["commands"]:
                assert server == "Ann"
                told[values[0], values[1]] = values[2:]
    assert told["whatsat", "answered"][1].startswith("AT Ann ")
    assert re.search(r" \+ \d places, [A-Z_]+$", told["whatsat", "answered"][1])
    assert told["whatsat", "unknown"] == ["WHATSAT nobody 10 5", "? WHATSAT nobody 10 5"]
    command, answer = told["other", "invalid"]
    assert command == r"FOO <script>alert(1)</script> \x1b[31m \xff \u202e"
    assert answer == f"? {command}"
    assert max(map(len, told["other", "overlong"])) < 300


def test_rates_are_of_the_last_second(herd: RunningHerd) -> None:
    ann = herd["Ann"]
    with viewing(herd["Bob"]) as page, ann.connect() as client:
        page.until("herd", lambda herd: all_known(herd) and server_in(herd, "Ann")["rates"]["answered"] == 0)
        client.send(*[b"FOO"] * 300)
        page.until("herd", lambda herd: server_in(herd, "Ann")["rates"]["invalid"] >= 100)
        page.until("herd", lambda herd: server_in(herd, "Ann")["rates"]["invalid"] == 0)


def test_state_is_what_the_server_says_of_itself(herd: RunningHerd) -> None:
    ann = herd["Ann"]
    ann.get("/state")  # from now on commands are kept
    ann.ask(b"FOO")

    def says() -> ServerState | None:
        code, text = ann.get("/state")
        assert code == 200
        said = state.read_state(text.encode())
        assert said is not None
        return said if said.answered == sum(ann.metrics("proxyherd_commands_total").values()) else None

    said = wait_until(says, "the state, which is kept for a moment, has the command")
    assert (said.server, said.ready, said.links) == ("Ann", True, {"Bob": "live"})
    assert said.commands is not None
    cursor = said.cursor
    ann.ask(b"BAR")
    again = json.loads(ann.get(f"/state?life={said.life}&after={cursor}")[1])
    assert [one[4] for one in again["commands"]] == ["BAR"]
    anew = json.loads(ann.get(f"/state?life=another&after={cursor}")[1])
    assert "BAR" in [one[4] for one in anew["commands"]]
    assert len(anew["commands"]) > 1, "all that is kept: it is asked after another life of this server"
    for nonsense in ("after=-1", "after=x", "after=" + "9" * 5_000, "life=%00"):
        assert ann.get(f"/state?{nonsense}")[0] == 200


# Unknown, and not down. ------------------------------------------------------------------------------------------


def test_a_server_that_hangs_or_is_killed_is_unknown_and_delays_no_other() -> None:
    with running_herd(PATH) as herd:
        with viewing(herd["Ann"]) as page:
            page.until("herd", all_known)
            herd["Bob"].freeze()
            frozen = page.until("herd", lambda herd: not server_in(herd, "Bob")["known"])
            assert "no answer within 1.2 s" in server_in(frozen, "Bob")["reason"]
            updates = [data for name, data in page.for_seconds(3.0) if name == "herd"]
            assert len(updates) >= 2
            assert all(server_in(one, "Cid")["known"] for one in updates)
            herd["Bob"].thaw()
            page.until("herd", all_known)
            herd["Cid"].kill()
            killed = page.until("herd", lambda herd: not server_in(herd, "Cid")["known"])
            assert "refused" in server_in(killed, "Cid")["reason"].lower()
            told = page.until("herd", lambda herd: edges_in(herd)[frozenset(("Bob", "Cid"))] != "live")
            assert edges_in(told)[frozenset(("Bob", "Cid"))] == "cut"  # as Bob says
            assert edges_in(told)[frozenset(("Ann", "Bob"))] == "live"
            herd["Bob"].kill()
            alone = page.until("herd", lambda herd: not server_in(herd, "Bob")["known"])
            assert edges_in(alone)[frozenset(("Bob", "Cid"))] == "unknown"  # nobody says anything
            herd["Bob"].start()
            herd["Cid"].start()
            page.until("herd", lambda herd: all_known(herd) and set(edges_in(herd).values()) == {"live"})
        assert not herd["Ann"].events("internal_error")
        assert herd["Ann"].stderr() == ""


def test_a_server_stops_in_time_though_somebody_looks() -> None:
    with running_herd([("Ann", "Bob")]) as herd, viewing(herd["Ann"]) as page:
        page.until("herd", all_known)
        began = time.monotonic()
        assert herd["Ann"].stop() == 0
        assert time.monotonic() - began < 5
        with pytest.raises((EOFError, OSError)):
            page.for_seconds(5)
        assert not herd["Ann"].events("internal_error")


# Whom it asks. ---------------------------------------------------------------------------------------------------


def test_viewers_share_one_poller_and_nobody_is_asked_when_nobody_looks() -> None:
    with herd_of([], "Ann", "Bob") as herd:
        ann = herd["Ann"]
        ann.start()
        ann.wait_until_ready()

        def serve(connection: socket.socket) -> None:
            connection.sendall(http(b"{}"))

        with OtherAdminPort(herd["Bob"].admin_port, serve) as bob:
            assert bob.requests == 0
            with contextlib.ExitStack() as stack:
                pages = [stack.enter_context(viewing(ann)) for _ in range(5)]
                wait_until(lambda: bob.requests, "Bob is asked")
                before, began = bob.requests, time.monotonic()
                pages[0].for_seconds(3.0)
                asked = bob.requests - before
                assert 2 <= asked <= time.monotonic() - began + 1

            def is_left_alone() -> bool:
                before = bob.requests
                time.sleep(1.5)  # who asks does so once a second
                return bob.requests == before

            wait_until(is_left_alone, "Bob is asked no more")


def _deep(connection: socket.socket) -> None:
    connection.sendall(http(b"[" * 200_000))


def _endless(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
    while True:
        connection.sendall(b" " * 65_536)


def _dripping(connection: socket.socket) -> None:
    for byte in http(b"{}"):
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


HOSTILE: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "Chunked": (answering(CHUNKED), "no server's state"),
    "Closes": (lambda _: None, "no answer that is one"),
    "Deep": (_deep, "no server's state"),
    "Drips": (_dripping, "no answer within 1.2 s"),
    "Endless": (_endless, "more than"),
    "Forbids": (answering(http(b"", status=b"403 Forbidden")), "answers 403"),
    "Headers": (
        answering(b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"x" * 100_000)),
        "no answer that is one",
    ),
    "Nonsense": (answering(b"\x00\xff\r\n\r\n" * 100), "no answer that is one"),
    "Other": (answering(http(state.write_state(a_state("Ann")))), "another server answers"),
    "Redirects": (
        answering(http(b"", b"Location: http://127.0.0.1:1/", status=b"302 Found")),
        "answers 302",
    ),
    "Wrong": (answering(http(b'{"server":"Wrong","clients":-1}')), "no server's state"),
    "Zipped": (answering(http(b"\x1f\x8b" * 500, b"Content-Encoding: gzip")), "no server's state"),
}


def all_told(herd: Any) -> bool:
    return all(reason in server_in(herd, name)["reason"] for name, (_, reason) in HOSTILE.items())


def test_whatever_another_answers_it_is_unknown_and_the_page_goes_on() -> None:
    with herd_of([], "Ann", *HOSTILE) as herd, contextlib.ExitStack() as stack:
        ann = herd["Ann"]
        ann.start()
        ann.wait_until_ready()
        for name, (serve, _) in HOSTILE.items():
            stack.enter_context(OtherAdminPort(herd[name].admin_port, serve))
        before = ann.memory()
        with viewing(ann) as page, ann.connect() as client:
            said = page.until("herd", all_told)
            assert not any(server_in(said, name)["known"] for name in HOSTILE)
            began = time.perf_counter()
            assert client.ask(b"FOO") == b"? FOO\n"
            assert time.perf_counter() - began < 1
        assert ann.memory() - before < 48 << 20
        assert ann.stderr() == ""
        assert not ann.events("internal_error")


# Who may see commands and places. --------------------------------------------------------------------------------


def _put(herd: RunningHerd, server: str, host: str) -> None:
    """Let a server's admin port be bound to another host."""
    port = herd[server].admin_port
    herd.file.write_text(herd.file.read_text().replace(f"127.0.0.1:{port}", f"{host}:{port}"))


def everything(page: Page) -> str:
    """Return what a page says until a report must have been told."""
    page.until("herd", all_known)
    page.for_seconds(2.5)
    return json.dumps(page.seen)


@pytest.mark.parametrize(
    ("host", "positions", "shown"),
    [
        ("127.0.0.1", None, True),
        ("127.0.0.1", "never", False),
        ("0.0.0.0", None, False),
        ("0.0.0.0", "loopback", False),
        ("0.0.0.0", "always", True),
    ],
)
def test_commands_and_places_are_shown_at_loopback_or_where_configured(
    host: str, positions: str | None, shown: bool
) -> None:
    more = f'[admin]\npositions = "{positions}"\n' if positions else ""
    with herd_of([], "Ann", more=more) as herd:
        ann = herd["Ann"]
        _put(herd, "Ann", host)
        ann.start()
        ann.wait_until_ready()
        with viewing(ann) as page:
            _, hello = page.next()
            ann.hears(b"secretive", b"+12.25-98.5")
            said = everything(page) + ann.get("/state")[1]
        assert ("secretive" in said) == ("pings" in said) == ("cells" in said) == shown
        assert (hello["withheld"] == "") == shown
        assert shown or "[admin]" in hello["withheld"]
        assert (json.loads(ann.get("/state")[1])["commands"] is not None) == shown


def test_a_server_gives_to_others_what_it_would_show_where_they_ask() -> None:
    with herd_of([], "Ann", "Bob") as herd:
        _put(herd, "Bob", "0.0.0.0")
        herd.start()
        for server in herd.values():
            server.wait_until_ready()
        with viewing(herd["Ann"]) as page:
            page.until("herd", all_known)
            for name in (b"Ann", b"Bob"):
                herd[name.decode()].ask(b"HELLO " + name)
            said = everything(page)
        assert "HELLO Ann" in said
        assert "HELLO Bob" not in said


def test_who_shows_no_commands_asks_nobody_for_any() -> None:
    with herd_of([], "Ann", "Bob") as herd:
        _put(herd, "Ann", "0.0.0.0")
        herd.start()
        for server in herd.values():
            server.wait_until_ready()
        with viewing(herd["Ann"]) as page:
            page.until("herd", all_known)
            page.for_seconds(1.1)
            herd["Bob"].ask(b"HELLO")
            assert json.loads(herd["Bob"].get("/state")[1])["commands"] == [], "Bob has kept none"


def test_a_page_of_another_site_gets_nothing(herd: RunningHerd) -> None:
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        connection, response = get_events(herd["Ann"].admin_port, **{"Sec-Fetch-Site": site})
        response.close()
        connection.close()
        assert response.status == status


# Viewers. --------------------------------------------------------------------------------------------------------


def test_viewers_are_bounded_and_keep_no_scraper_out() -> None:
    with running_herd([("Ann", "Bob")]) as herd:
        bounded_viewers(herd["Ann"])


def bounded_viewers(ann: ServerProcess) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_VIEWERS):
            stack.enter_context(viewing(ann))
        connection, response = get_events(ann.admin_port)
        with contextlib.closing(connection):
            assert response.status == 503
            assert response.read()
        assert ann.get("/healthz") == (200, "ok\n")
        with contextlib.ExitStack() as scrapers:
            for _ in range(60):
                scrapers.enter_context(
                    contextlib.closing(socket.create_connection(("127.0.0.1", ann.admin_port)))
                )
            assert ann.get("/healthz") == (200, "ok\n")

    def is_room() -> bool:
        connection, response = get_events(ann.admin_port)
        response.close()
        connection.close()
        return response.status == 200

    wait_until(is_room, "there is room for a viewer again")


def test_where_nobody_is_asked_a_server_alone_is_shown() -> None:
    with herd_of([], "Ann") as herd:
        ann: ServerProcess = herd["Ann"]
        ann.start()
        ann.wait_until_ready()
        with viewing(ann) as page:
            update = page.until("herd", all_known)
        assert update["edges"] == []
