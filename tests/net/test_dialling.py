"""Several addresses one after another: how the time is shared among them, and how they are told."""

from __future__ import annotations

import asyncio
import socket

import pytest

from proxyherd.config.address import Address
from proxyherd.net.dialling import address_and_host, hosts_of, shares


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_where_all_are_silent_each_has_the_same_time_and_the_last_ends_with_the_deadline() -> None:
    clock, ends = Clock(), list[float]()
    for _, until in shares("abcd", 108.0, clock):
        ends.append(until)
        clock.now = until
    assert ends == [102.0, 104.0, 106.0, 108.0]


def test_what_one_does_not_need_is_the_others() -> None:
    clock, ends = Clock(), list[float]()
    for place, until in shares("abc", 109.0, clock):
        ends.append(until)
        clock.now += 0.0 if place == "a" else 1.0
    assert ends == [103.0, 104.5, 109.0]


def test_after_the_deadline_nobody_has_time() -> None:
    assert [until <= 100.0 for _, until in shares("ab", 90.0, Clock())] == [True, True]


@pytest.mark.parametrize(
    ("host", "where", "told"),
    [
        ("192.0.2.1", "192.0.2.1", "192.0.2.1:5"),
        ("there.example", "192.0.2.1", "there.example:5 (192.0.2.1)"),
        ("::1", "::1", "[::1]:5"),
    ],
)
def test_an_address_is_told_with_what_its_name_has_stood_for(host: str, where: str, told: str) -> None:
    assert address_and_host(Address(host, 5), where) == told


def test_a_name_stands_for_each_numeric_address_once_in_the_order_of_the_look_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def look_up(host: str, port: int, **kind: int) -> list[object]:
        assert (host, port, kind) == ("there.example", 5, {"type": socket.SOCK_STREAM})
        return [(0, 0, 0, "", (one, port)) for one in ("192.0.2.2", "::1", "192.0.2.2", "192.0.2.1")]

    async def play() -> list[str]:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", look_up)
        return await hosts_of(loop, "there.example", 5)

    assert asyncio.run(play()) == ["192.0.2.2", "::1", "192.0.2.1"]
