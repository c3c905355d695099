"""The grader's checks of the web port: our herd passes each, and each wrong answer is found by its check. Both engines."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator

import pytest
from gazetteer_file import gazetteer_file
from herd_process import PATIENCE_SECONDS, RunningHerd, free_port, herd_of
from redis_cluster import Cluster

from proxyherd.grading import web
from proxyherd.grading.faults import Fault, NotApplicable
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.servers import GradedServer
from proxyherd.grading.web_client import WebPort

CHECKS = [check.id for check in web.checks(GradedHerd([]))]


@pytest.fixture(scope="module")
def running(shared_cluster: Cluster | None) -> Iterator[RunningHerd]:
    with herd_of([("Ann", "Bob")], more="[web]\n", cluster=shared_cluster) as herd:
        herd.gazetteer = gazetteer_file()
        herd.start()
        herd.wait_until_whole()
        yield herd


class Spoiler:
    """Dials web ports, and replaces bytes in what comes from them by as many others."""

    def __init__(self, was: bytes = b"", becomes: bytes = b"") -> None:
        assert len(was) == len(becomes)
        self._was, self._becomes = was, becomes
        self.count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def dial(self, host: str, port: int) -> tuple[StreamReader, StreamWriter]:
        spoiled = StreamReader()
        reader, writer = await asyncio.open_connection(host, port)

        async def pass_on() -> None:
            while data := await reader.read(1 << 20):
                if self._was:
                    self.count += data.count(self._was)
                    data = data.replace(self._was, self._becomes)
                spoiled.feed_data(data)
            spoiled.feed_eof()

        task = asyncio.create_task(pass_on())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return spoiled, writer


def herd_to_judge(running: RunningHerd, spoiler: Spoiler, *, one_table: bool, port: int = 0) -> GradedHerd:
    """Return the running herd as the grader sees it. `port`: the web port of its first server, if it is another one."""
    servers = []
    for number, one in enumerate(running.values()):
        server = GradedServer(one.name, "127.0.0.1", one.client_port, seconds=PATIENCE_SECONDS)
        there = port if port and not number else one.web_port
        server.web = WebPort(one.name, "127.0.0.1", there, seconds=PATIENCE_SECONDS, dial=spoiler.dial)
        servers.append(server)
    return GradedHerd(servers, None if one_table else [("Ann", "Bob")], one_table=one_table)


async def see(name: str, herd: GradedHerd) -> None:
    [check] = [one for one in web.checks(herd) if one.id == name]
    await check.run()


@pytest.mark.parametrize("name", CHECKS)
def test_our_herd_passes(name: str, running: RunningHerd, shared_cluster: Cluster | None) -> None:
    asyncio.run(see(name, herd_to_judge(running, Spoiler(), one_table=shared_cluster is not None)))


WRONG = [
    ("web.document", b'"openapi"', b'"openapy"'),
    ("web.document", b"HTTP/1.1 200", b"HTTP/1.1 500"),
    ("web.document", b"/v1/reports", b"/v1/resorts"),
    ("web.report", b'"outcome":"stored"', b'"outcome":"Stored"'),
    ("web.report", b'"difference":"+', b'"difference":"-'),
    ("web.report", b"+34.0689300-118.45", b"+34.0689301-118.45"),
    ("web.report", b'"outcome":"stale"', b'"outcome":"Stale"'),
    ("web.location", b'"lat":34.068930', b'"lat":34.068931'),
    ("web.location", b"HTTP/1.1 404", b"HTTP/1.1 200"),
    ("web.batch", b'"status":400', b'"status":401'),
    ("web.batch", b'"outcome":"stored"', b'"outcome":"Stored"'),
    ("web.batch", b"[{", b"({"),
    ("web.places", b"Proxyherd-At: AT", b"Proxyherd-At: At"),
    ("web.places", b'"OK"', b'"Ok"'),
    ("web.lines", b"? HELLO", b"? HELLo"),
    ("web.lines", b"HTTP/1.1 101", b"HTTP/1.1 204"),
    ("web.lines", b"Sec-WebSocket-Accept", b"Sec-WebSocket-Except"),
    ("web.objects", b'"id":"two"', b'"id":"Two"'),
    ("web.objects", b'"problem":', b'"problum":'),
    ("web.apps", b"\r\n\r\n[]", b"\r\n\r\n{}"),
    ("web.apps", b"HTTP/1.1 200", b"HTTP/1.1 400"),
    ("web.problems", b"HTTP/1.1 404", b"HTTP/1.1 400"),
    ("web.problems", b"application/problem+json", b"application/problem+Json"),
    ("web.problems", b'"status":405', b'"status":406'),
    ("web.problems", b"HTTP/1.1 403", b"HTTP/1.1 200"),
]


def test_each_check_is_seen_to_fail() -> None:
    assert {name for name, _, _ in WRONG} == set(CHECKS)


@pytest.mark.parametrize(
    ("name", "was", "becomes"), WRONG, ids=lambda one: one if isinstance(one, str) else ""
)
def test_a_wrong_answer_is_a_fault(
    name: str, was: bytes, becomes: bytes, running: RunningHerd, shared_cluster: Cluster | None
) -> None:
    spoiler = Spoiler(was, becomes)
    with pytest.raises(Fault) as fault:
        asyncio.run(see(name, herd_to_judge(running, spoiler, one_table=shared_cluster is not None)))
    assert spoiler.count > 0
    assert fault.value.sent
    assert fault.value.server in running


@pytest.mark.parametrize("name", CHECKS)
def test_where_nobody_listens_or_no_port_is_known_nothing_is_judged(name: str) -> None:
    server = GradedServer("Ann", "127.0.0.1", 1)
    for port in (None, WebPort("Ann", "127.0.0.1", free_port())):
        server.web = port
        with pytest.raises(NotApplicable):
            asyncio.run(see(name, GradedHerd([server])))


def test_where_only_some_listen_that_is_the_fault_of_the_others(running: RunningHerd) -> None:
    port = free_port()
    with pytest.raises(Fault, match=f"Connection refused at its web port, 127.0.0.1:{port}") as fault:
        asyncio.run(see("web.document", herd_to_judge(running, Spoiler(), one_table=False, port=port)))
    assert fault.value.server == "Ann"
