"""The client library with real servers: one is killed while a client pipelines, and nothing is lost."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal

import pytest
from herd_process import RunningHerd, running_herd

from proxyherd.client import HerdClient, NearbyPlaces, SyncHerdClient, TakenReport, UnknownClient

EDGES = [("Ann", "Bob"), ("Bob", "Cid"), ("Ann", "Cid")]
LONG = 100.0


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
