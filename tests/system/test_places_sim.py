"""The stand-in for Google as a process of its own."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from gazetteer_file import gazetteer_file
from herd_process import wait_until
from places_client import OLD, WESTWOOD, ask, circle, new, old
from places_sim import command, environment, places_sim


def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_it_prints_its_url_then_a_line_for_each_request_and_never_a_key(tmp_path: Path) -> None:
    key = "AIzaSy-secret"
    (tmp_path / "key").write_text(f"{key}\n")
    with places_sim("--key-file", tmp_path / "key") as sim:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", sim.url)
        assert old(sim.url, key=key).json["status"] == "OK"
        assert new(sim.url, key=key).status == 200
        assert new(sim.url, key="wrong").status == 400
        assert old(sim.url, key=key, location=key).json["status"] == "INVALID_REQUEST"
        assert new(sim.url, circle(latitude=key), key=key, mask=key).status == 400
        assert ask(sim.url, "GET", f"/{key}?key={key}").status == 404
        with socket.create_connection(("127.0.0.1", urlsplit(sim.url).port or 0)) as client:
            client.sendall(f"GET {OLD}?key={key} nonsense\r\n\r\n".encode())
            assert client.recv(1)
        lines = sim.wait_for_lines(6)
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d old 200 OK \d+\.\d{3} s \d+ results within 9000 m of 34\.068900,-118\.445100",
            lines[0],
        )
        assert [" ".join(line.split()[1:4]) for line in lines] == [
            "old 200 OK",
            "new 200 OK",
            "new 400 INVALID_ARGUMENT",
            "old 200 INVALID_REQUEST",
            "new 400 INVALID_ARGUMENT",
            "other 404 HTTP_404",
        ]
        assert sim.end() == 0
        assert sim.lines == lines
        assert key not in "\n".join(sim.lines) + sim.stderr
        assert sim.stderr == ""


def test_quiet_prints_the_url_alone() -> None:
    with places_sim("--quiet") as sim:
        assert old(sim.url).status == 200
        assert sim.end() == 0
        assert sim.lines == []


def test_the_key_of_the_environment_is_the_one_that_is_accepted() -> None:
    with places_sim("--quiet", env={"GOOGLE_PLACES_API_KEY": " right\n"}) as sim:
        assert old(sim.url, key="right").json["status"] == "OK"
        assert old(sim.url, key="wrong").json["status"] == "REQUEST_DENIED"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_at_once_whoever_waits(number: signal.Signals) -> None:
    with places_sim("--hang", "100", "--quiet") as sim:
        with socket.create_connection(("127.0.0.1", urlsplit(sim.url).port or 0)) as client:
            client.sendall(f"GET {OLD}?key=k HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            wait_until(lambda: sim.stats()["in_flight"] == 1, "the request hangs")
            start = time.monotonic()
            assert sim.end(number) == 0
            assert time.monotonic() - start < 5
        assert sim.stderr == ""


def test_switches_reach_the_faults() -> None:
    with places_sim("--too-many", "100", "--retry-after", "3", "--latency", "0.05", "--quiet") as sim:
        start = time.monotonic()
        response = new(sim.url)
        assert (response.status, response.headers["Retry-After"]) == (429, "3")
        assert time.monotonic() - start >= 0.05
    with places_sim("--disable", "old", "--quota", "1", "--quiet") as sim:
        assert "legacy API" in old(sim.url).json["error_message"]
        assert [new(sim.url).status for _ in range(2)] == [200, 429]
        assert sim.stats()["requests"]["new"] == {"OK": 1, "RESOURCE_EXHAUSTED": 1}


def test_a_seed_on_the_command_line_repeats_its_faults() -> None:
    found = []
    for _ in range(2):
        with places_sim("--errors", "50", "--seed", "5", "--quiet") as sim:
            found.append([old(sim.url).status for _ in range(30)])
    assert found[0] == found[1]
    assert set(found[0]) == {200, 500}


def test_a_port_that_is_taken_is_exit_2_and_says_who_to_look_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--address", f"127.0.0.1:{port}", "--gazetteer", gazetteer_file())
    assert (done.returncode, done.stdout) == (2, "")
    assert f"127.0.0.1:{port}: Address already in use; find who listens" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_herd_of_clients_may_connect_at_once() -> None:
    """More at once than the usual backlog of 128 holds, or the soft limit of the shell."""

    async def main(url: str) -> int:
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:

            async def one() -> int:
                async with session.get(url + OLD, params={"key": "any", **WESTWOOD}) as response:
                    return response.status

            return Counter(await asyncio.gather(*(one() for _ in range(500))))[200]

    with places_sim("--latency", "0.5", "--quiet", soft_limit=256) as sim:
        assert asyncio.run(main(sim.url)) == 500
