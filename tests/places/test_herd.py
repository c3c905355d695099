"""Places as a herd uses it, put together as the daemon does it: one budget for all, and nobody at others' expense."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import threading
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import fake_redis
import pytest
from fake_google import KEY, FakeGoogle, Ledger, Reply, nearby_answer, opened

from proxyherd.config import herd_file, schema
from proxyherd.core.messages import Entry, Whatsat
from proxyherd.core.reply import Reply as ClientsReply
from proxyherd.places import Answer, Places, Query, no_results
from proxyherd.places.answers import NonsenseError
from proxyherd.places.failures import FailedError, LateError, UnrecordedError
from proxyherd.places.google import new, old
from proxyherd.places.google.calling import THREAD_BYTES, Caller
from proxyherd.places.limits.gate import IN_ONE_GO
from proxyherd.places.limits.resilience import Resilient
from proxyherd.server.credentials import read_credentials
from proxyherd.server.daemon import Paths, _Daemon
from proxyherd.server.places_queries import AsyncPlacesQueries
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

NAMES = ("Ann", "Bea", "Cyd", "Dot", "Eve")


# The budget of a herd. ---------------------------------------------------------------------------------------


def write_herd_file(folder: Path, places: str) -> Path:
    edges = [[earlier, later] for earlier, later in pairwise(NAMES)]
    servers = "".join(
        f'{name} = {{ clients = "127.0.0.1:{number}1", peers = "127.0.0.1:{number}2", admin = "127.0.0.1:{number}3" }}\n'
        for number, name in enumerate(NAMES, 1)
    )
    file = folder / "herd.toml"
    file.write_text(f"edges = {json.dumps(edges)}\n[servers]\n{servers}[places]\n{places}")
    (folder / "secret").touch(0o600)
    (folder / "secret").write_bytes(bytes(32))
    return file


def daemon(file: Path, name: str) -> _Daemon:
    """Put a server together, less its sockets."""
    folder, herd = file.parent, herd_file.load(file)
    (folder / name).mkdir()
    paths = Paths(folder / name, folder / f"{name}.log", folder / "secret", folder / "gazetteer")
    credentials = read_credentials(herd, name, folder / "secret")
    return _Daemon(herd, herd.server(name), credentials, paths, LogFile(paths.log))


@pytest.mark.parametrize(
    ("per_minute", "per_day", "allowed"), [(13, 1_000, 13), (1_000, 13, 13), (5, 7, 5), (0, 100, 0)]
)
def test_all_servers_together_make_exactly_the_calls_that_their_herd_may_make(
    per_minute: int,
    per_day: int,
    allowed: int,
    google: FakeGoogle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOOGLE_PLACES_API_KEY", KEY)
    monkeypatch.setattr("proxyherd.places.limits.budget.time.time", lambda: 1_600_000_000.0)
    file = write_herd_file(
        tmp_path,
        f'provider = "google"\nbase_url = "{google.url}"\nattempt_seconds = 60.0\ndeadline_seconds = 60.0\n'
        f"calls_per_minute = {per_minute}\ncalls_per_day = {per_day}\n",
    )

    async def statuses(name: str) -> list[str]:
        server = daemon(file, name)
        server._loop = asyncio.get_running_loop()
        asked = server._open_places()
        queries = [Query("+1", "+1", Decimal(metres), 5) for metres in range(1, 15)]
        answers = [await asked.nearby(query) for query in queries]
        await asked.close()
        server._log_file.close()
        return [answer.status for answer in answers]

    found = [asyncio.run(statuses(name)) for name in NAMES]
    assert len(google.requests) == sum(one.count("OK") for one in found) == allowed
    assert {status for one in found for status in one} <= {"OK", "OVER_QUERY_LIMIT"}
    shares = [one.count("OK") for one in found]
    assert max(shares) - min(shares) <= 1, "and they share it evenly"


# Who is asked. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "key", "name"),
    [
        ("gazetteer", None, "gazetteer"),
        ("gazetteer", KEY, "gazetteer"),
        ("auto", None, "gazetteer"),
        ("auto", KEY, "google"),
        ("google", KEY, "google"),
        ("google", None, "google"),
        ("google-new", KEY, "google-new"),
        ("google-new", None, "google-new"),
    ],
)
def test_the_provider_is_the_one_of_the_herds_file_and_auto_needs_a_key(
    provider: str, key: str | None, name: str
) -> None:
    async def run() -> str:
        async with opened("http://127.0.0.1:1", key=key, provider=provider) as places:
            return places.name

    assert asyncio.run(run()) == name


# What is counted where no call is made. ----------------------------------------------------------------------


class Unrecorded(Ledger):
    """A budget whose disk is full."""

    def spend(self, asker: str | None = None) -> int:
        raise UnrecordedError(no_results("OVER_QUERY_LIMIT", "this server cannot record its calls"))


@pytest.mark.parametrize("provider", ["google", "google-new"])
@pytest.mark.parametrize(("ledger", "label"), [(Unrecorded(), "unrecorded"), (Ledger(calls=0), "budget")])
def test_a_budget_that_is_used_up_and_one_that_cannot_be_recorded_are_told_apart(
    ledger: Ledger, label: str, provider: str, google: FakeGoogle
) -> None:
    ledger.spared.clear()

    async def run() -> Answer:
        async with opened(google.host, ledger, provider=provider) as places:
            return await places.nearby(Query("+1", "+1", Decimal(1), 1))

    assert asyncio.run(run()).status == "OVER_QUERY_LIMIT"
    assert (ledger.spared, ledger.called, google.requests) == ([label], [], [])


# What large and hostile answers cost others. -----------------------------------------------------------------


@pytest.mark.parametrize("surplus", [0, 1])
def test_a_body_is_read_on_the_loop_up_to_a_length_and_past_it_in_a_thread(surplus: int) -> None:
    async def run() -> tuple[int, int]:
        caller = Caller(schema.PlacesSettings(), KEY, Ledger(), Ledger())
        return await caller.read(lambda body: (threading.get_ident(), len(body)), bytes(65_536 + surplus))

    where, size = asyncio.run(run())
    assert size == 65_536 + surplus
    assert (where == threading.get_ident()) == (not surplus)


def test_nonsense_is_a_failure_that_may_pass_wherever_it_is_read() -> None:
    def parse(_: bytes) -> None:
        raise NonsenseError("no JSON")

    for size in (1, THREAD_BYTES + 1):
        with pytest.raises(FailedError, match="UNKNOWN_ERROR") as told:
            asyncio.run(Caller(schema.PlacesSettings(), KEY, Ledger(), Ledger()).read(parse, bytes(size)))
        assert told.value.again
        assert b"Google Places answered nonsense: no JSON" in told.value.answer.body


def large(provider: str) -> bytes:
    if provider == "google":
        return nearby_answer(400)
    return b'{"places":[' + b",".join([b'{"id":"x%s"}' % (b"x" * 5_000)] * 20) + b"]}"


@pytest.mark.parametrize(
    ("provider", "module", "name"), [("google", old, "read_answer"), ("google-new", new, "translate")]
)
def test_each_api_has_large_answers_read_in_a_thread(
    provider: str, module: Any, name: str, google: FakeGoogle, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse: Callable[..., Answer] = getattr(module, name)
    threads: list[bool] = []

    def watched(*args: Any, **keys: Any) -> Answer:
        threads.append(threading.current_thread() is threading.main_thread())
        return parse(*args, **keys)

    monkeypatch.setattr(module, name, watched)
    google.reply = Reply(large(provider))
    assert len(google.reply.body) > THREAD_BYTES

    async def run() -> Answer:
        async with opened(google.host, provider=provider, max_answer_bytes=1 << 20) as places:
            return await places.nearby(Query("+1", "+1", Decimal(1), 20))

    assert asyncio.run(run()).status == "OK"
    assert threads == [False]


def test_a_gzip_bomb_takes_no_more_memory_than_an_answer_may_have(google: FakeGoogle) -> None:
    most = 65_536

    async def run() -> int:
        async with opened(google.url, max_answer_bytes=most) as places:
            assert (await places.nearby(Query("+1", "+1", Decimal(1), 20))).status == "OK"
            bomb = gzip.compress(b" " * (1 << 24))
            assert len(bomb) <= most + 1_000, "it is none on the wire"
            google.reply = Reply(bomb, headers={"Content-Encoding": "gzip"})
            tracemalloc.start()
            try:
                answer = await places.nearby(Query("+2", "+1", Decimal(1), 20))
                return tracemalloc.get_traced_memory()[1] * (answer.status == "UNKNOWN_ERROR")
            finally:
                tracemalloc.stop()

    assert most < asyncio.run(run()) < 10 * most


# Askers beside each other, from their questions to the upstream. ---------------------------------------------


class Client:
    """One with an address of its own."""

    gone = False

    def __init__(self) -> None:
        self.payer = f"10.0.0.{next(_numbers)}"

    def may_ask_places(self, now: float) -> bool:
        return True


_numbers = itertools.count(1)


class ByHand:
    """An upstream whose answers come when the test says so."""

    name = "by hand"

    def __init__(self) -> None:
        self.calls: dict[Query, asyncio.Future[Answer]] = {}
        self.asked: list[Query] = []

    def widened(self, query: Query) -> Query:
        return query

    async def nearby(self, query: Query, seconds: float, asker: str | None = None) -> Answer:
        self.asked.append(query)
        waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.calls[query] = waiting
        try:
            return await waiting
        finally:
            del self.calls[query]

    async def answer_one(self) -> None:
        next(iter(self.calls.values())).set_result(no_results("OK"))
        await settle()

    async def close(self) -> None:
        pass


class Asked:
    """The questions of one server, all that is behind them, and an upstream that answers by hand."""

    def __init__(self, folder: Path, *, at_once: int, in_flight: int = 4_096) -> None:
        self.upstream, self.ledger = ByHand(), Ledger()
        settings = schema.PlacesSettings(max_connections=at_once, deadline_seconds=60.0, attempt_seconds=60.0)
        resilient = Resilient(cast("Any", self.upstream), settings, self.ledger)
        self.places = Places(
            resilient, self.ledger, deadline_seconds=60.0, max_in_flight=in_flight, kept=None
        )
        self._file = LogFile(folder / "log")
        log = make_logger(self._file, server="Bob", level="info", max_field_bytes=1_024)
        loop = asyncio.get_running_loop()
        opened: asyncio.Future[Any] = loop.create_future()
        opened.set_result(self.places)
        self.answered: list[Client] = []
        self.queries = AsyncPlacesQueries[Client](opened, Observer(log, self._file, Metrics(), []), loop)

    def add(self, client: Client, *radii: int) -> list[ClientsReply]:
        entry = Entry(b"AT Bob +0.000000000 kiwi +34.068930-118.445127 5", 5 * 10**9)
        replies = [
            ClientsReply("whatsat", "found", None, Whatsat(b"kiwi", b"%d" % radius, 5), entry)
            for radius in radii
        ]
        for reply in replies:
            self.queries.add(client, reply)
        return replies

    async def turns(self) -> None:
        """Let turns begin all that they have to."""
        while self.queries:
            self.queries.ask_some(self.answered.append)
            await asyncio.sleep(0)
        await settle()

    async def close(self) -> None:
        await self.places.close()
        self._file.close()


async def settle() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


Scene = Callable[[Asked], Any]


def play(folder: Path, scene: Scene, **bounds: int) -> None:
    async def run() -> None:
        asked = Asked(folder, **bounds)
        try:
            await scene(asked)
        finally:
            await asked.close()

    asyncio.run(run())


def test_whoever_asks_for_much_delays_another_by_one_answer(tmp_path: Path) -> None:
    async def scene(asked: Asked) -> None:
        hoarder, other = Client(), Client()
        asked.add(hoarder, *range(1, 41))
        await asked.turns()
        (reply,) = asked.add(other, 50)
        await asked.turns()
        assert len(asked.upstream.calls) == 2
        for _ in range(4):  # two are under way, one more turn of the hoarder's, and the other's own
            await asked.upstream.answer_one()
        assert reply.outcome == "answered"
        assert asked.answered.count(hoarder) == 3
        while asked.upstream.calls:
            await asked.upstream.answer_one()
        assert (asked.answered.count(hoarder), asked.answered.count(other)) == (40, 1)

    play(tmp_path, scene, at_once=2)


def test_whoever_asks_for_more_than_there_is_room_for_loses_its_own_and_nobody_elses(tmp_path: Path) -> None:
    async def scene(asked: Asked) -> None:
        hoarder, others = Client(), [Client() for _ in range(5)]
        hoarded = asked.add(hoarder, *range(1, 11))
        await asked.turns()
        kept = [asked.add(other, 20 + number)[0] for number, other in enumerate(others)]
        await asked.turns()
        assert asked.ledger.spared == ["shed"] * 5
        assert [one.status for one in hoarded[5:]] == ["UNKNOWN_ERROR"] * 5
        while asked.upstream.calls:
            await asked.upstream.answer_one()
        assert [one.status for one in [*hoarded[:5], *kept]] == ["OK"] * 10

    play(tmp_path, scene, at_once=2, in_flight=10)


def test_who_leaves_costs_no_call_any_more_and_takes_nobody_along(tmp_path: Path) -> None:
    async def scene(asked: Asked) -> None:
        leaver, stayer = Client(), Client()
        asked.add(leaver, 1, 2, 3)
        await asked.turns()
        stayed = asked.add(stayer, 1, 4)  # one of them is under way already
        await asked.turns()
        assert asked.ledger.spared == ["shared"]
        leaver.gone = True
        asked.queries.cancel(leaver)
        await settle()
        while asked.upstream.calls:
            await asked.upstream.answer_one()
        assert [one.outcome for one in stayed] == ["answered", "answered"]
        assert [one.status for one in stayed] == ["OK", "OK"]
        assert [int(query.metres / 1_000) for query in asked.upstream.asked] == [1, 4], (
            "2 and 3 are not asked"
        )
        assert asked.places.in_flight == 0

    play(tmp_path, scene, at_once=1)


def test_hundreds_of_queries_at_once_begin_a_few_calls_each_time_the_loop_goes_round(tmp_path: Path) -> None:
    """And all are answered. What a call costs others is then bounded, however many there are."""

    async def scene(asked: Asked) -> None:
        clients = [Client() for _ in range(60)]
        for number, client in enumerate(clients):
            asked.add(client, *range(10 * number + 1, 10 * number + 11))
        begun = [0]
        while len(asked.answered) < 600:
            asked.queries.ask_some(asked.answered.append)
            await asyncio.sleep(0)
            begun.append(len(asked.upstream.asked))
            for waiting in list(asked.upstream.calls.values())[:8]:
                if not waiting.done():
                    waiting.set_result(no_results("OK"))
        assert max(later - earlier for earlier, later in pairwise(begun)) == IN_ONE_GO
        assert len(set(asked.upstream.asked)) == len(asked.upstream.asked) == 600
        assert asked.ledger.spared == []

    play(tmp_path, scene, at_once=64)


class Slow:
    """An upstream that takes half a second, and no longer than it is given."""

    name = "slow"

    def __init__(self) -> None:
        self.calls = self.answers = 0

    def widened(self, query: Query) -> Query:
        return query

    async def nearby(self, query: Query, seconds: float, asker: str | None = None) -> Answer:
        self.calls += 1
        try:
            async with asyncio.timeout(seconds):
                await asyncio.sleep(0.5)
        except TimeoutError:
            raise LateError(no_results("UNKNOWN_ERROR", "late"), again=True) from None
        self.answers += 1
        return no_results("OK")

    async def close(self) -> None:
        pass


def test_more_queries_than_a_slow_upstream_can_bear_open_no_breaker_and_waste_no_calls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 25 queries a second eight can be answered: those are, and the rest cost nothing. On a clock that jumps."""
    clock = SimpleNamespace(monotonic=lambda: asyncio.get_running_loop().time())
    monkeypatch.setattr("proxyherd.places.limits.resilience.time", clock)

    async def scene() -> None:
        upstream, ledger = Slow(), Ledger()
        settings = schema.PlacesSettings(
            max_connections=4, deadline_seconds=2.0, attempt_seconds=1.0, breaker_failures=5
        )
        places = Places(
            Resilient(upstream, settings, ledger),
            ledger,
            deadline_seconds=2.0,
            max_in_flight=4_096,
            kept=None,
        )

        async def ask(number: int) -> str:
            await asyncio.sleep(number / 25)
            return (await places.nearby(Query("+1", "+1", Decimal(number + 1), 5), str(number % 50))).status

        found = await asyncio.gather(*map(ask, range(500)))
        assert ledger.states == []
        assert upstream.answers == found.count("OK") >= 8 * 20 - 4
        assert upstream.calls - upstream.answers <= 8, "before it knew how long answers take"
        assert ledger.spared.count("late") >= 300

    fake_redis.run(scene())
