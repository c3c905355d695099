"""What is said to somebody whose server does not erase."""

from __future__ import annotations

import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any

import pytest

from proxyherd.config.herd_file import load
from proxyherd.remote import erasures

HERD = """
[servers.Ann]
clients = "127.0.0.1:10001"
peers = "127.0.0.1:10002"
admin = "127.0.0.1:10004"
web = "127.0.0.1:10003"
"""


class Answer:
    """An answer of a web port."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self._body = body

    def read(self, _: int) -> bytes:
        return self._body

    def getheader(self, _: str) -> None:
        return None


@pytest.fixture
def eraser(tmp_path: Path) -> erasures.Eraser:
    file = tmp_path / "herd.toml"
    file.write_text(HERD)
    return erasures.Eraser(load(file).servers["Ann"], lambda: "", 1.0)


def play(monkeypatch: pytest.MonkeyPatch, *answers: Answer) -> list[str]:
    """Let a server give these answers; return what it is asked, and when there is a pause, which takes no time here."""
    asked: list[str] = []
    left = [*answers]
    now = 0.0

    def request(_: HTTPConnection, method: str, target: str, **__: Any) -> None:
        asked.append(f"{method} {target}")

    def respond(_: HTTPConnection) -> HTTPResponse:
        return left.pop(0) if len(left) > 1 else left[0]  # type: ignore[return-value]

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds
        asked.append("waits")

    monkeypatch.setattr(HTTPConnection, "request", request)
    monkeypatch.setattr(HTTPConnection, "getresponse", respond)
    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    return asked


REFUSED = Answer(
    400, b'{"detail":"A moment since 1970 that has passed on the server\'s clock belongs here."}'
)


def test_a_moment_that_is_in_the_future_on_the_servers_clock_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, eraser: erasures.Eraser
) -> None:
    asked = play(monkeypatch, REFUSED, Answer(202, b'{"erased_at":"5"}'))
    assert eraser.erase(b"kiwi", 5_000_000_000)
    assert asked == [
        "DELETE /v1/clients/kiwi?before=5.000000000",
        "waits",
        "DELETE /v1/clients/kiwi?before=5.000000000",
    ]


def test_who_has_a_clock_that_is_far_ahead_is_told_of_clocks(
    monkeypatch: pytest.MonkeyPatch, eraser: erasures.Eraser
) -> None:
    play(monkeypatch, REFUSED)
    with pytest.raises(erasures.NotErased, match=r"its clock is behind this host.s.*set both clocks"):
        eraser.erase(b"kiwi", 5_000_000_000)


def test_a_request_without_a_moment_is_not_about_clocks(
    monkeypatch: pytest.MonkeyPatch, eraser: erasures.Eraser
) -> None:
    asked = play(monkeypatch, REFUSED)
    with pytest.raises(erasures.NotErased, match="does not erase now"):
        eraser.erase(b"kiwi", None)
    assert len(asked) == 1
