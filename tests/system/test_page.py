"""The status page's server: what it tells of whom, whom it asks, and that nobody who looks or is asked harms it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from herd_process import PATIENCE_SECONDS, RunningHerd, ServerProcess, herd_of, now, running_herd, wait_until
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from states import a_state
from steps import measured_steps
from viewing import Page, edges_in, get_events, server_in, viewing

import proxyherd
from proxyherd.admin.app import make_app
from proxyherd.admin.listener import AdminListener
from proxyherd.admin.status_page import state
from proxyherd.admin.status_page.density import MOST_CELLS, Density
from proxyherd.admin.status_page.herd import MAX_VIEWERS, HerdWatch, Viewer
from proxyherd.admin.status_page.others import Others
from proxyherd.admin.status_page.rates import History, added, quantile
from proxyherd.admin.status_page.state import Histogram, ServerState
from proxyherd.config.herd_file import parse
from proxyherd.core.messages import Entry
from proxyherd.core.reply import Reply
from proxyherd.core.table import Table
from proxyherd.net.resolving import new_event_loop
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer
from proxyherd.telemetry.recent import MOST_KEPT, SHOWN_BYTES, Command

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
    files = sorted(PAGE.iterdir())
    assert sum(file.stat().st_size for file in files) < 200 << 10
    assert (PAGE / "coast.json").stat().st_size < 40 << 10
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
    for name in ("light", "dark", "phone"):
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


class Listener:
    """Takes connections in another server's place, and hands each to a function in a thread of its own."""

    def __init__(self, port: int, serve: Callable[[socket.socket], None]) -> None:
        self._serve = serve
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._socket.settimeout(0.05)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        self.requests = 0

    def _run(self) -> None:
        threads = []
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._socket.accept()
                connection.settimeout(2)
                threads.append(threading.Thread(target=self._talk, args=(connection,)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if connection.recv(8_192):
                self.requests += 1
                self._serve(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._socket.close()


def http(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    lines = [
        b"HTTP/1.1 " + status,
        b"Content-Length: %d" % len(body),
        b"Connection: close",
        *headers,
        b"",
        body,
    ]
    return b"\r\n".join(lines)


def test_viewers_share_one_poller_and_nobody_is_asked_when_nobody_looks() -> None:
    with herd_of([], "Ann", "Bob") as herd:
        ann = herd["Ann"]
        ann.start()
        ann.wait_until_ready()

        def serve(connection: socket.socket) -> None:
            connection.sendall(http(b"{}"))

        with Listener(herd["Bob"].admin_port, serve) as bob:
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


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 40_000


def _answering(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)


HOSTILE: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "Chunked": (_answering(CHUNKED), "no server's state"),
    "Closes": (lambda _: None, "no answer that is one"),
    "Deep": (_deep, "no server's state"),
    "Drips": (_dripping, "no answer within 1.2 s"),
    "Endless": (_endless, "more than"),
    "Forbids": (_answering(http(b"", status=b"403 Forbidden")), "answers 403"),
    "Headers": (
        _answering(b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"x" * 100_000)),
        "no answer that is one",
    ),
    "Nonsense": (_answering(b"\x00\xff\r\n\r\n" * 100), "no answer that is one"),
    "Other": (_answering(http(state.write_state(a_state("Ann")))), "another server answers"),
    "Redirects": (
        _answering(http(b"", b"Location: http://127.0.0.1:1/", status=b"302 Found")),
        "answers 302",
    ),
    "Wrong": (_answering(http(b'{"server":"Wrong","clients":-1}')), "no server's state"),
    "Zipped": (_answering(http(b"\x1f\x8b" * 500, b"Content-Encoding: gzip")), "no server's state"),
}


def all_told(herd: Any) -> bool:
    return all(reason in server_in(herd, name)["reason"] for name, (_, reason) in HOSTILE.items())


def test_whatever_another_answers_it_is_unknown_and_the_page_goes_on() -> None:
    with herd_of([], "Ann", *HOSTILE) as herd, contextlib.ExitStack() as stack:
        ann = herd["Ann"]
        ann.start()
        ann.wait_until_ready()
        for name, (serve, _) in HOSTILE.items():
            stack.enter_context(Listener(herd[name].admin_port, serve))
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


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda it: json.dumps(it).encode())
)
def test_what_is_no_state_is_none(data: bytes) -> None:
    assert state.read_state(data) is None


KEYS = list(ServerState.__struct_fields__)


@given(
    st.sampled_from(KEYS),
    st.none()
    | st.integers(max_value=-1)
    | st.just(1 << 60)
    | st.just({"a": "broken"})
    | st.just("x" * 2_000)
    | st.just({"bounds": [2, 1], "counts": [0, 0, 0]})
    | st.just({"bounds": [1], "counts": [2, 1]})
    | st.just([[1, 1, "iamat", "stored", "x" * 10_000, ""]])
    | st.just([[1, 1, "iamat", "stored", "", ""]] * 300),
)
def test_a_state_with_one_wrong_value_is_none(key: str, value: object) -> None:
    good = json.loads(state.write_state(a_state("Ann")))
    assert state.read_state(json.dumps(good).encode()) == a_state("Ann")
    if key == "commands" and value is None:
        return
    assert state.read_state(json.dumps({**good, key: value}).encode()) is None


def test_a_state_of_the_most_and_longest_commands_may_be_read() -> None:
    longest = Command(1 << 52, 1e11, "x" * 32, "x" * 32, "\\xff" * 256 + " …", "\\xff" * 256 + " …")
    said = msgspec.structs.replace(a_state("Ann"), commands=[longest] * state.MOST_COMMANDS)
    assert state.read_state(state.write_state(said)) == said


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


def test_nothing_is_kept_of_commands_unless_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.herd._WANTED_SECONDS", 0.05)

    async def scenario() -> None:
        async with watching() as (_, watch, observer):
            recent = observer.recent

            def one_command() -> int:
                observer.commands.command("1", b"FOO", Reply("other", "invalid", b"? FOO"))
                observer.commands.reports(b"1", [b"IAMAT a +1+1 1"], [b"AT Ann +1.000000000 a +1+1 1"])
                observer.end_turn()
                return len(recent)

            assert one_command() == 0
            figures = await watch.open(personal=False)
            assert figures is not None
            assert one_command() == 0
            await watch.close(figures)
            viewer = await watch.open(personal=True)
            assert viewer is not None
            assert one_command() == 2
            assert recent.take_clients() == [b"a"]
            await watch.close(viewer)
            await asyncio.sleep(0.1)  # twice the time
            assert not recent.wanted
            assert len(recent) == one_command() == 0

    asyncio.run(scenario())


def test_no_more_is_kept_than_may_be() -> None:
    observer = make_observer()
    recent = observer.recent
    recent.wanted = True
    lines = [b"IAMAT a%d +1+1 1" % number for number in range(3 * MOST_KEPT)]
    answers = [b"AT Ann +1.000000000 a%d +1+1 1" % number for number in range(3 * MOST_KEPT)]
    observer.commands.reports(b"1", lines, answers)
    observer.end_turn()
    assert len(recent) == MOST_KEPT == 200, "as the page of the status page says"
    assert recent.number == 3 * MOST_KEPT
    assert [one.number for one in recent.commands(0, MOST_KEPT)] == list(
        range(2 * MOST_KEPT + 1, 3 * MOST_KEPT + 1)
    )
    assert recent.commands(3 * MOST_KEPT - 2, MOST_KEPT)[0].command == lines[-2].decode()
    assert len(recent.take_clients()) == MOST_KEPT


def test_what_was_cut_looks_cut_and_nothing_else_does() -> None:
    observer = make_observer()
    recent = observer.recent
    recent.wanted = True
    for size in (SHOWN_BYTES, SHOWN_BYTES + 1):
        line = b"x" * size
        observer.commands.command("1", line, Reply("other", "invalid", line))
        observer.commands.reports(b"1", [line], [b"AT A 1 client".ljust(size, b"x")])
    observer.end_turn()
    whole, cut = recent.commands(0, MOST_KEPT)[:2], recent.commands(0, MOST_KEPT)[2:]
    assert all(len(text) == SHOWN_BYTES for one in whole for text in (one.command, one.answer))
    assert len(cut) == 2
    assert SHOWN_BYTES == 256
    assert all(text.endswith("x …") for one in cut for text in (one.command, one.answer))


# What is kept of others. -----------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def telling(*said: ServerState) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Another server's admin port: what it says, the last for ever, and what it was asked."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(state.write_state(said[min(len(asked), len(said)) - 1])))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def others_at(host: str, port: int, wants_commands: Callable[[], bool]) -> Others:
    pair = (
        '[servers]\nAnn = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }\n'
        f'Bob = {{ clients = "127.0.0.1:4", peers = "127.0.0.1:5", admin = "{host}:{port}" }}\n'
    )
    return Others(parse(pair, Path("herd.toml")), "Ann", wants_commands)


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


BUSY = msgspec.structs.replace(
    a_state("Bob"),
    commands=[Command(number, 1.0, "other", "invalid", "FOO", "? FOO") for number in (1, 2)],
    cursor=2,
)


def test_what_others_answer_holds_up_nobodys_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.others._EVERY_SECONDS", 0.01)
    with Listener(0, _answering(CHUNKED)) as bob:

        async def scenario() -> float:
            others = others_at("127.0.0.1", bob.port, lambda: True)
            with measured_steps() as steps:
                others.start()
                try:
                    await until(lambda: bob.requests >= 4)
                    await until(lambda: all(one.problem != "not asked yet" for one in others))
                finally:
                    await others.stop()
            return steps.longest

        longest = asyncio.run(scenario())
        print(f"the longest step took {1e3 * longest:.1f} ms")
        assert longest < 0.005  # a reader that knows all of HTTP takes 13 ms


def test_others_commands_are_kept_while_somebody_looks_who_may_see_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.others._EVERY_SECONDS", 0.02)

    async def scenario() -> None:
        may_see = True
        later = msgspec.structs.replace(BUSY, uptime=2.0)
        async with telling(BUSY, later) as (port, asked):
            others = others_at("127.0.0.1", port, lambda: may_see)
            others.start()
            [bob] = others
            await until(lambda: len(bob.history) == 2)
            assert bob.commands
            assert b"life=1&after=2 " in asked[1]
            assert all(one.commands is None for one in bob.history)
            may_see = False
            before = len(asked)
            await until(lambda: len(asked) > before + 1)
            assert b"commands=no" in asked[-1]
            assert (bob.commands, bob.missed, bob.cursor) == ([], 0, 0)  # though it has told some
            may_see = True
            await until(lambda: bob.commands)
            assert not bob.missed
            await others.stop()
            assert [(len(one.history), one.commands) for one in others] == [(0, [])]

    asyncio.run(scenario())


def test_of_a_name_the_address_that_answers_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(_: object, port: int, *__: object) -> list[Any]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        return [(*kind, (host, port)) for host in ("127.0.0.3", "127.0.0.2", "127.0.0.1")]

    async def scenario() -> None:
        with socket.create_server(("127.0.0.2", 0), backlog=0) as silent, contextlib.ExitStack() as stack:
            port = silent.getsockname()[1]
            for _ in range(4):  # its queue is full: it swallows packets
                queued = stack.enter_context(socket.socket())
                queued.setblocking(False)
                queued.connect_ex(silent.getsockname())
            with Listener(port, _answering(http(state.write_state(BUSY)))):
                others = others_at("bob.example", port, lambda: True)
                others.start()
                [bob] = others
                monkeypatch.setattr(socket, "getaddrinfo", found)
                await until(lambda: bob.at)
                await others.stop()
                monkeypatch.undo()

    asyncio.run(scenario())


def test_silent_name_servers_hold_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    speak, really = threading.Event(), socket.getaddrinfo

    def silent(host: Any, *arguments: Any, **named: Any) -> Any:
        if not str(host).endswith(".example"):
            return really(host, *arguments, **named)
        if arguments[-1:] != (socket.AI_NUMERICHOST,):
            assert speak.wait(PATIENCE_SECONDS)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", silent)
    monkeypatch.setattr("proxyherd.admin.status_page.others._EVERY_SECONDS", 0.01)
    named = re.sub(r"127\.0\.0\.3:([0-9]+)", r"s\1.example:\1", HERD)

    async def scenario() -> None:
        others = Others(parse(named, Path("herd.toml")), "S1", lambda: False)
        others.start()
        try:
            await until(lambda: sum(one.name == "look-up" for one in threading.enumerate()) == 29)
            async with asyncio.timeout(PATIENCE_SECONDS / 2):
                assert await asyncio.to_thread(lambda: True)
            speak.set()
            await until(lambda: all("not known" in one.problem for one in others))
        finally:
            speak.set()
            await others.stop()

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(scenario())


# Viewers. --------------------------------------------------------------------------------------------------------


def test_a_viewer_that_goes_gives_up_its_place_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for time_of_an_update in ("_EVERY_SECONDS", "_FIRST_SECONDS", "_FIRST_SLICE_SECONDS"):
        monkeypatch.setattr(f"proxyherd.admin.status_page.herd.{time_of_an_update}", 3_600)

    async def scenario() -> None:
        async with watching() as (port, watch, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(EVENTS)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await reader.readuntil(b"event: herd")
            assert len(watch.viewers) == 1
            writer.transport.abort()
            await until(lambda: not watch.viewers)

    asyncio.run(scenario())


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


class Calm:
    """A server with nothing to do."""

    def ready(self) -> tuple[bool, str]:
        return True, "ready"

    def refresh(self) -> None:
        pass

    def places_by(self) -> str:
        return "nobody"


HERD = "[servers]\n" + "".join(
    f'S{number} = {{ clients = "127.0.0.1:{number}", peers = "127.0.0.2:{number}", admin = "127.0.0.3:{number}" }}\n'
    for number in range(1, 31)
)


def make_observer() -> Observer:
    file = LogFile(Path(os.devnull))
    log = make_logger(file, server="S1", level="info", max_field_bytes=1_024)
    return Observer(log, file, Metrics(), ())


@contextlib.asynccontextmanager
async def watching() -> AsyncIterator[tuple[int, HerdWatch, Observer]]:
    """The admin port of one of thirty servers, none of the others there; with times that a test can set."""
    herd, observer = parse(HERD, Path("herd.toml")), make_observer()
    watch = HerdWatch(herd, "S1", Calm(), observer, Table(bytes(32)))
    faults: list[str] = []
    app = make_app(
        Calm(), CollectorRegistry(), herd.admin, watch, lambda what, error: faults.append(f"{what}: {error}")
    )
    admin = AdminListener(app)
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    await admin.listen(sock)
    try:
        yield sock.getsockname()[1], watch, observer
    finally:
        await admin.close()
    assert faults == []


def read_all(connection: socket.socket) -> None:
    while connection.recv(1 << 16):
        pass


EVENTS = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_viewer_that_never_reads_is_cut_and_the_others_are_served_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.herd._EVERY_SECONDS", 0.001)
    monkeypatch.setattr("proxyherd.admin.app._STUCK_SECONDS", 0.2)

    async def scenario() -> None:
        async with watching() as (port, watch, _):
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            deaf.connect(("127.0.0.1", port))
            deaf.sendall(EVENTS)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(EVENTS)
            read = 0
            async with asyncio.timeout(30):
                while not read or len(watch.viewers) != 1:
                    read += len(await reader.read(1 << 16))
                for _ in range(20):
                    assert await reader.read(1 << 16)
            with deaf, contextlib.suppress(ConnectionError):
                deaf.settimeout(5)
                read_all(deaf)
            writer.close()

    asyncio.run(scenario())


def test_a_viewer_that_never_reads_does_not_hold_up_a_server_that_stops(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.herd._EVERY_SECONDS", 0.001)
    monkeypatch.setattr("proxyherd.admin.app._STUCK_SECONDS", 600)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as deaf:
            async with watching() as (port, watch, _):
                deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                deaf.connect(("127.0.0.1", port))
                deaf.sendall(EVENTS)
                async with asyncio.timeout(30):
                    while not any(viewer.cut for viewer in watch.viewers):  # noqa: ASYNC110 - nobody tells
                        await asyncio.sleep(0.01)
                began = loop.time()
            assert loop.time() - began < 3

    asyncio.run(scenario())


def test_what_waits_for_a_viewer_is_bounded() -> None:
    async def scenario() -> None:
        viewer = Viewer(personal=False)
        viewer.send(b"first")
        assert await viewer.next() == b"first"
        for _ in range(5):
            viewer.send(b"x")
        assert not viewer.cut
        viewer.send(b"x")
        assert viewer.cut
        assert await viewer.next() == b""

    asyncio.run(scenario())


def test_a_viewer_stays_beyond_the_time_of_a_scraper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.listener.REQUEST_SECONDS", 0.2)
    monkeypatch.setattr("proxyherd.admin.status_page.herd._EVERY_SECONDS", 0.05)

    async def scenario() -> None:
        async with watching() as (port, _, _), asyncio.timeout(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(EVENTS)
            end = asyncio.get_running_loop().time() + 1.0
            while asyncio.get_running_loop().time() < end:
                assert await reader.read(1 << 16)
            writer.close()

    asyncio.run(scenario())


def test_all_viewers_get_the_same_bytes_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.herd._FIRST_SECONDS", 0.05)

    async def scenario() -> None:
        async with watching() as (_, watch, _):
            viewers = [await watch.open(personal=False) for _ in range(3)]
            assert None not in viewers
            for viewer in viewers:
                assert viewer is not None
                await viewer.next()
            [first, *others] = [await viewer.next() for viewer in viewers if viewer is not None]
            assert first.startswith(b"event: herd\n")
            assert all(one is first for one in others)

    asyncio.run(scenario())


def test_a_fault_ends_what_is_shown_and_whoever_comes_then_sees_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.herd._FIRST_SECONDS", 0.0)

    async def scenario() -> None:
        async with watching() as (_, watch, _):
            viewer = await watch.open(personal=True)
            assert viewer is not None
            with monkeypatch.context() as patch:
                patch.setattr(watch, "_herd_now", lambda: 1 / 0)
                async with asyncio.timeout(5):
                    while await viewer.next():
                        pass
            await watch.close(viewer)
            again = await watch.open(personal=True)
            assert again is not None
            assert b"event: herd" in await again.next()
            await watch.close(again)

    asyncio.run(scenario())


# The map. --------------------------------------------------------------------------------------------------------


def filled(places: list[tuple[float, float]]) -> Table:
    table = Table(bytes(32))
    for number, (latitude, longitude) in enumerate(places):
        client = b"client%d" % number
        line = b"AT Ann +0.000000001 %b %+.6f%+.6f 1" % (client, latitude, longitude)
        table.put(client, Entry(line, 1), table.leaf(client))
    return table


def sweep(density: Density) -> int:
    """Count all; return in how many slices."""
    slices = 1
    while not density.slice():
        slices += 1
    return slices


def test_every_client_is_in_one_cell() -> None:
    places = [(34.06, -118.44), (34.07, -118.45), (-90, -180), (90, 180), (0, 0), (-0.1, -0.1)]
    density = Density(filled(places))
    sweep(density)
    cells = density.cells()
    assert (cells.degrees, cells.clients, cells.whole) == (0.5, 6, True)
    rows = Counter({(c, r): n for c, r, n in zip(*[iter(cells.cells)] * 3, strict=True)})
    assert rows == {(123, 248): 2, (0, 0): 1, (719, 359): 1, (360, 180): 1, (359, 179): 1}


def test_no_cell_is_beyond_the_edges_of_the_world() -> None:
    rng = random.Random(8)
    edges = [(90.0, rng.uniform(-180, 180)) for _ in range(1_000)]
    edges += [(rng.uniform(-90, 90), 180.0) for _ in range(1_000)]
    density = Density(filled(edges + [(rng.uniform(-90, 90), rng.uniform(-180, 180)) for _ in range(20_000)]))
    sweep(density)
    cells = density.cells()
    assert cells.degrees > 0.5
    assert max(cells.cells[::3]) * cells.degrees < 360
    assert max(cells.cells[1::3]) * cells.degrees < 180


def test_cells_grow_until_there_are_few_and_no_slice_is_long() -> None:
    rng = random.Random(8)
    places = [(rng.uniform(-90, 90), rng.uniform(-180, 180)) for _ in range(20_000)]
    density = Density(filled(places))
    assert not density.cells().whole
    slices, took = 0, []
    while not density.counted:
        began = time.perf_counter()
        density.slice()
        took.append(time.perf_counter() - began)
        slices += 1
    cells = density.cells()
    assert slices > 2
    assert sorted(took)[len(took) // 2] < 0.02
    assert len(cells.cells) // 3 <= MOST_CELLS
    assert cells.clients == sum(cells.cells[2::3]) == 20_000
    sweep(density)
    assert density.cells() == cells


# Rates and percentiles. ------------------------------------------------------------------------------------------


def at(uptime: float, *, life: str = "1", answered: int = 0, lag: Histogram | None = None) -> ServerState:
    return a_state(uptime=uptime, life=life, answered=answered, lag=lag or Histogram([], [0]))


def test_a_rate_is_what_a_total_grew_by_a_second() -> None:
    history = History()
    assert history.last is None
    for one in (at(1.0, answered=10), at(1.5, answered=30), at(1.5, answered=99)):
        history.add(one)
    assert history.rate("answered") == 40.0
    history.add(at(0.5, life="2", answered=50))  # started anew
    assert history.rate("answered") == 0.0
    history.add(at(1.5, life="2", answered=51))
    assert history.rate("answered") == 1.0


def test_the_states_of_a_minute_are_bounded_however_slow_a_servers_clock() -> None:
    history = History()
    for number in range(1_000):
        history.add(at(1 + 1e-6 * number, answered=number))
    assert len(history) <= 64
    assert history.last is not None
    assert history.last.answered == 999


def test_percentiles_are_of_the_last_minute_and_never_beyond_the_bounds() -> None:
    def lag(*counts: int) -> Histogram:
        return Histogram([0.1, 0.2, 0.4], list(counts))

    history = History()
    history.add(at(0.0))
    history.add(at(1.0, lag=lag(100, 100, 100, 100)))
    assert quantile(history.grown("lag"), 0.5) == 0.05
    history.add(at(61.5, lag=lag(100, 110, 110, 110)))
    assert quantile(history.grown("lag"), 0.5) == pytest.approx(0.15)
    history.add(at(62.0, lag=lag(100, 110, 110, 210)))
    assert quantile(history.grown("lag"), 0.99) == 0.4
    assert quantile(Histogram([], [0]), 0.5) is None
    assert quantile(lag(0, 0, 0, 0), 0.5) is None


def test_histograms_add_up_and_those_of_another_version_are_left_out() -> None:
    one, two = Histogram([1.0], [1, 2]), Histogram([1.0], [3, 5])
    assert added([Histogram([], [0]), one, two, Histogram([2.0], [9, 9])]) == Histogram([1.0], [4, 7])
    assert added([]) == Histogram([], [0])


def test_where_nobody_is_asked_a_server_alone_is_shown() -> None:
    with herd_of([], "Ann") as herd:
        ann: ServerProcess = herd["Ann"]
        ann.start()
        ann.wait_until_ready()
        with viewing(ann) as page:
            update = page.until("herd", all_known)
        assert update["edges"] == []
