"""The client library with real servers: one is killed while a client pipelines, and nothing is lost."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import aclosing
from decimal import Decimal
from itertools import pairwise
from random import Random

import pytest
from debian import needs
from herd_process import PATIENCE_SECONDS, ROOT, RunningHerd, free_port, running_herd
from node_packages import node_modules
from page_examples import blocks

import proxyherd.client
from proxyherd.client import (
    AreaRefused,
    FollowRefused,
    HerdClient,
    NearbyPlaces,
    SyncHerdClient,
    TakenReport,
    UnknownClient,
)
from proxyherd.client.rules.choice import ServerChoice

EDGES = [("Ann", "Bob"), ("Bob", "Cid"), ("Ann", "Cid")]
LONG = 100.0
PAGE = ROOT / "docs/clients.md"


@pytest.fixture(scope="module")
def herd() -> Iterator[RunningHerd]:
    with running_herd(EDGES, more="[web]\n") as running:
        for server in running.values():
            server.wait_for_web()
        yield running


@pytest.mark.parametrize("websocket", [False, True], ids=["lines", "websocket"])
def test_calls_are_answered_by_the_servers_of_a_herds_file(herd: RunningHerd, *, websocket: bool) -> None:
    async def body() -> tuple[TakenReport, NearbyPlaces, TakenReport]:
        async with HerdClient.of_herd_file(herd.file, websocket=websocket, timeout=LONG) as client:
            taken = await client.report("kiwi", "34.0689300", "-118.445127")
            nearby = await client.ask("kiwi", radius_km=10, limit=3)
            with pytest.raises(UnknownClient):
                await client.locate("nobody")
            return taken, nearby, await client.locate("kiwi")

    taken, nearby, located = asyncio.run(body())
    assert taken == nearby.report == located
    assert (str(taken.lat), taken.server in herd) == ("34.0689300", True)
    assert nearby.status in {"OK", "UNKNOWN_ERROR", "REQUEST_DENIED"}


def test_a_script_finds_what_was_reported_elsewhere(herd: RunningHerd) -> None:
    line = herd["Cid"].hears(b"script")
    for server in herd.values():
        server.wait_until_knows(line)
    with SyncHerdClient.of_herd_file(herd.file, timeout=LONG) as client:
        assert client.locate("script").line + b"\n" == line


@pytest.mark.parametrize("websocket", [False, True], ids=["lines", "websocket"])
def test_a_kill_in_the_middle_of_many_reports_loses_none_and_keeps_their_order(
    herd: RunningHerd, *, websocket: bool
) -> None:
    """Each report is answered as what it was, and the last of a client is the herd's last."""
    reports = 2_000
    killed: list[str] = []

    async def body() -> list[TakenReport]:
        async with HerdClient.of_herd_file(herd.file, websocket=websocket, timeout=LONG) as client:

            async def report(number: int) -> TakenReport:
                lat = Decimal(number) / 1_000
                taken = await client.report(f"moving{number % 7}{websocket}", lat, 0)
                assert taken.lat == lat
                if number == reports // 4:
                    herd[taken.server].kill()
                    killed.append(taken.server)
                return taken

            return await asyncio.gather(*map(report, range(reports)))

    taken = asyncio.run(body())
    try:
        servers = [one.server for one in taken]
        [name] = killed
        assert servers[0] == name
        assert servers[-1] != name
        assert servers == sorted(servers, key=lambda server: server != name), "one after the other"
        with SyncHerdClient(f"127.0.0.1:{herd[servers[-1]].client_port}", timeout=LONG) as client:
            for last in taken[-7:]:
                assert client.locate(last.client).line == last.line
    finally:
        herd[name].start()
        herd.wait_until_whole()
        herd[name].wait_for_web()


def test_who_follows_is_told_at_another_server_when_one_is_killed(herd: RunningHerd) -> None:
    """Each client comes once, and then moves."""
    urls = [f"ws://127.0.0.1:{server.web_port}" for server in herd.values()]
    first = list(herd)[ServerChoice(len(urls), Random(5)).next(0.0)[0]]

    async def body() -> list[tuple[str, str]]:
        told: list[tuple[str, str]] = []
        async with (
            HerdClient(*urls, timeout=LONG, rng=Random(5)) as client,
            HerdClient.of_herd_file(herd.file, timeout=LONG) as reporter,
            aclosing(client.follow(near=(48.2, "16.37", 2), buffer_m=20)) as changes,
        ):
            await reporter.report("tram", 48.2, 16.37)
            async for change in changes:
                told.append((change.event, change.client))
                if told[-1] == ("enter", "tram"):
                    herd[first].kill()
                    await reporter.report("tram", 48.201, 16.37)
                    await reporter.report("bus", 48.2, 16.371)
                if {("move", "tram"), ("enter", "bus")} <= {*told}:
                    break
        return [one for one in told if one[1]]

    try:
        told = asyncio.run(body())
        assert sorted(told) == [("enter", "bus"), ("enter", "tram"), ("move", "tram")]
    finally:
        herd[first].start()
        herd.wait_until_whole()
        herd[first].wait_for_web()


def test_a_follow_that_is_refused_says_why_and_lines_cannot_follow(herd: RunningHerd) -> None:
    async def body() -> None:
        async with HerdClient(f"ws://127.0.0.1:{herd['Ann'].web_port}", timeout=LONG) as client:
            with pytest.raises(FollowRefused, match="south is greater than north"):
                await anext(client.follow(within=(1, 3, 2, 2)))
            with pytest.raises(AreaRefused, match="south is greater than north"):
                await client.within(1, 3, 2, 2)
        async with HerdClient(f"127.0.0.1:{herd['Ann'].client_port}") as client:
            with pytest.raises(ValueError, match="needs WebSockets"):
                await anext(client.follow("kiwi"))

    asyncio.run(body())


def test_who_is_near_and_who_is_inside_is_told_page_by_page(herd: RunningHerd) -> None:
    async def body() -> None:
        async with HerdClient(f"ws://127.0.0.1:{herd['Bob'].web_port}", timeout=LONG) as client:
            for number in range(3):
                await client.report(f"near{number}", f"-60.00{number}0", 5)
            first = await client.near((-60, 5), 1, limit=2)
            rest = await client.near((-60, 5), 1, limit=2, after=first.next)
            names = [one.client for one in first.clients + rest.clients]
            assert names == ["near0", "near1", "near2"]
            assert (str(first.clients[1].lat), first.complete, rest.next) == ("-60.0010", True, "")
            around = await client.near("near2", 0.05)
            box = await client.within(4.9, -60.0015, 5.1, "-60.0005", max_age_s=1_000)
            assert [one.client for one in around.clients] == ["near2"]
            assert [one.client for one in box.clients] == ["near1"]
            with pytest.raises(UnknownClient):
                await client.near("nobody")

    asyncio.run(body())


def test_a_program_that_imports_the_library_loads_no_server() -> None:
    code = """
import sys
import proxyherd.client
from proxyherd.client import SyncHerdClient, Unreachable
print(sorted({"aiohttp", "asyncio", "structlog", "click", "prometheus_client"} & set(sys.modules)))
from proxyherd.client import HerdClient
print(sorted({"aiohttp", "structlog", "click", "prometheus_client"} & set(sys.modules)))
print(*sorted({name.split(".")[1] for name in sys.modules if name.startswith("proxyherd.")}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]", "base client config net"]


# docs/clients.md. ---------------------------------------------------------------------------------------------


def examples(kind: str) -> list[tuple[str, str]]:
    """Return the examples in this language, each with what it prints."""
    found = blocks(PAGE)
    return [
        (block.text, behind.text)
        for block, behind in pairwise(found)
        if block.kind == kind and behind.kind == "text"
    ]


def moved(text: str, herd: RunningHerd) -> str:
    """Replace the ports of the page, which are those of Bailey, Bona and Campbell."""
    for number, server in enumerate(herd.values()):
        text = text.replace(f":{10_000 + number}", f":{server.client_port}")
        text = text.replace(f":{10_300 + number}", f":{server.web_port}")
    return text


def printed(herd: RunningHerd, program: str, name: str, text: str) -> str:
    """Return what a script prints."""
    (herd.folder / name).write_text(text)
    ended = subprocess.run(
        [program, name],
        cwd=herd.folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


@pytest.mark.parametrize(("text", "shown"), examples("python"), ids=["calls", "many", "script", "follow"])
def test_the_page_in_python_shows_what_happens(herd: RunningHerd, text: str, shown: str) -> None:
    assert printed(herd, sys.executable, "example.py", moved(text, herd)) == shown


@needs("node", "npm")
@pytest.mark.parametrize("broken", [False, True], ids=["as printed", "with two servers away"])
def test_the_page_in_javascript_shows_what_happens(herd: RunningHerd, *, broken: bool) -> None:
    [(text, shown)] = examples("js")
    if broken:
        text = text.replace(":10300/", f":{free_port()}/").replace(":10301/", f":{free_port()}/")
    if not (herd.folder / "node_modules").exists():
        (herd.folder / "node_modules").symlink_to(node_modules())
    came = printed(herd, "node", "example.mjs", moved(text, herd))
    assert came == shown


def test_the_page_names_every_error_and_call_of_the_library() -> None:
    text = PAGE.read_text()
    names = [*proxyherd.client.__all__, *(name for name in vars(HerdClient) if not name.startswith("_"))]
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
