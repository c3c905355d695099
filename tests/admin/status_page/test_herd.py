"""Viewers of the page: what they get, how many they are, and what is kept for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket

import pytest
from admin_port import until, watching
from herd_process import PATIENCE_SECONDS

from proxyherd.admin.status_page.herd import Viewer
from proxyherd.core.reply import Reply


def test_nothing_is_kept_of_commands_unless_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.admin.status_page.herd._WANTED_SECONDS", 0.05)

    async def scenario() -> None:
        async with watching() as (_, watch, observer):
            recent = observer.recent

            def one_command() -> int:
                observer.commands.alike(b"1", [b"FOO"], [Reply("other", "invalid", b"? FOO")])
                observer.commands.reports([b"1"], [b"IAMAT a +1+1 1"], [b"AT Ann +1.000000000 a +1+1 1"])
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


def test_viewers_see_how_many_connections_speak_what() -> None:
    async def scenario() -> None:
        async with watching() as (_, watch, observer):
            for number, via in enumerate(("lines", "lines", "websocket"), 1):
                observer.connections.opened("1", via, number)
            viewer = await watch.open(personal=False)
            assert viewer is not None
            data, _ = [line for line in (await viewer.next()).split(b"\n") if line.startswith(b"data: ")]
            server, *_ = json.loads(data.removeprefix(b"data: "))["servers"]
            assert server["connections"] == 3
            assert server["protocols"] == {"lines": 2, "http": 0, "websocket": 1, "stream": 0}

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
