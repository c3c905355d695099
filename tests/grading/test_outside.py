"""Whether Google can be reached, for herds that ask it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import fake_redis

from proxyherd.grading import outside
from proxyherd.grading.outside import GoogleReach, names_google


class Writer:
    def close(self) -> None:
        """Nothing is open."""


class Net:
    """A network in which connections end as told, and are counted."""

    def __init__(self, end: BaseException | float | None) -> None:
        self.end = end
        self.asked: list[tuple[str, int]] = []

    async def reach(self, host: str, port: int) -> tuple[Any, Any]:
        self.asked.append((host, port))
        if isinstance(self.end, BaseException):
            raise self.end
        await asyncio.sleep(self.end or 0)
        return None, Writer()


def problem(net: Net, *, may_be_asked: bool = True) -> str:
    async def twice() -> str:
        google = GoogleReach(may_be_asked=may_be_asked, reach=net.reach)
        first, second = await asyncio.gather(google.problem(), google.problem())
        assert first == second
        return first

    found: str = fake_redis.run(twice())
    return found


def test_a_herd_that_asks_nobody_or_can_reach_google_has_no_problem() -> None:
    nobody, there = Net(OSError(1, "no")), Net(None)
    assert problem(nobody, may_be_asked=False) == problem(there) == ""
    assert (nobody.asked, there.asked) == ([], [("maps.googleapis.com", 443)])


def test_google_that_cannot_be_reached_is_looked_for_once_and_the_reason_and_the_remedy_are_told() -> None:
    refused, slow = Net(OSError(111, "Connection refused")), Net(60.0)
    for net, why in (
        (refused, "Connection refused"),
        (slow, f"no connection within {outside.REACH_SECONDS:g} s"),
    ):
        told = problem(net)
        assert f"Google cannot be reached from here (maps.googleapis.com: {why})" in told
        assert "--batch has a stand-in" in told
        assert len(net.asked) == 1


def test_a_herd_asks_google_if_its_files_or_its_command_name_it(tmp_path: Path) -> None:
    herd, other = tmp_path / "herd", tmp_path / "other"
    (herd / "src").mkdir(parents=True)
    (herd / "node_modules").mkdir()
    other.mkdir()
    code = "URL = 'https://maps.googleapis.com/maps/api/place'\n"
    os.mkfifo(herd / "pipe")
    (herd / "node_modules/client.js").write_text(code)
    (herd / "server.py").write_text("print('hello')\n")
    assert not names_google(herd, "python3 server.py {name}")
    (other / "main.py").write_text(code)
    assert names_google(herd, f"python3 {other}/main.py {{name}}")
    (herd / "src/places.py").write_text(code)
    assert names_google(herd, "python3 server.py {name}")
