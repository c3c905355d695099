"""The contenders and the load that they are measured by: figures count only where all that was sent is there."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import click.testing
import numpy as np
import pytest
from gazetteer_file import gazetteer_file

BENCH = Path(__file__).parents[2] / "bench"
sys.path.insert(0, str(BENCH))

import native
from compare import Entrant, Options, main
from contender import Contender, Sent
from driving import Figures, drive, fill, hold, propagate
from graphs import FIVE, GRAPHS, Edges
from lineup import CONTENDERS, Proxyherd, ProxyherdWebSocket, Streams
from load import Generator, Job, Result, run, schedule, turns
from plan import Plan
from wire import WIRES, frame, instant, is_web_answer
from workloads import WORKLOADS

import proxyherd

PAIR = [("Ann", "Bob")]
OURS_OVER_THE_WEB = [name for name, one in CONTENDERS.items() if issubclass(one, ProxyherdWebSocket)]


class HereAndNow:
    """A load generator in this process: one of its own takes longer to start than to send what these tests send."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def start(self) -> None:
        self._result = run(self._job)

    def wait(self) -> None:
        pass

    def result(self) -> Result:
        return self._result


@pytest.fixture
def generates_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("driving.Generator", HereAndNow)


@pytest.fixture(params=["C", "Python"])
def loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the load be sent by either loop."""
    if request.param == "Python":
        monkeypatch.setattr("native.library", lambda: None)
    elif not native.compiler():
        pytest.skip(native.missing())
    else:
        assert native.missing() == ""


def test_without_a_compiler_the_load_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("native._FOLDER", tmp_path)
    monkeypatch.setattr("native.library", native.library.__wrapped__)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no C compiler is installed; apt-get install" in native.missing()
    monkeypatch.setenv("CC", "false")
    assert native.missing().endswith("false fails")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("generates_here")
def test_what_ours_was_sent_over_the_web_is_in_its_answers_its_log_and_its_tables() -> None:
    sent = Sent()
    with ProxyherdWebSocket() as contender:
        for name in OURS_OVER_THE_WEB:
            drive(contender, sent, 500, 100, connections=10, outstanding=4, wire=CONTENDERS[name].wire)
        assert contender.check(sent) == []


WRONG = """
import asyncio, sys
sys.path.insert(0, {bench!r})
from contenders.asyncio_streams_herd import Server
from contenders.rules import Outcome, read_arguments

def instead(result, number, prefix, function):
    calls = 0
    def wrong(*arguments):
        nonlocal calls
        calls += any(isinstance(one, bytes) and one.startswith(prefix) for one in arguments)
        if calls != number:
            return function(*arguments)
        calls += 1
        return result
    return wrong if herd.name == "Ann" else function

class Forgetful(dict):
    def __setitem__(self, client, entry):
        if client != b"client000042.example.com":
            super().__setitem__(client, entry)

herd = read_arguments("--uvloop")
server = Server(herd)
rules, log = server.rules, server.log
{fault}
asyncio.run(server.run())
"""
"""A herd in which Ann makes one mistake."""

LOSES_A_LOG_LINE = "log.command = instead(None, 70, b'IAMAT', log.command)"
LOSES_AN_ANSWER = "rules.handle = instead(Outcome('iamat', None), 70, b'IAMAT', rules.handle)"
ANSWERS_WRONG = "rules.handle = instead(Outcome('iamat', b'AT Ann +1 2 3 4'), 70, b'IAMAT', rules.handle)"
FORGETS_A_CLIENT = "rules._table = Forgetful() if herd.name == 'Ann' else {}"
LOSES_A_FLOOD = "server.flood = instead(asyncio.sleep(0), 99, b'AT Ann', server.flood)"


@pytest.mark.usefixtures("generates_here")
@pytest.mark.parametrize("name", [name for name in CONTENDERS if name not in OURS_OVER_THE_WEB])
def test_what_a_contender_was_sent_is_in_its_answers_its_log_and_its_tables(name: str) -> None:
    kind = CONTENDERS[name]
    if why := kind.missing():
        pytest.skip(why)
    sent = Sent()
    with kind(PAIR if kind.is_herd else ()) as contender:
        figures = drive(contender, sent, 500, 100, connections=10, outstanding=4)
        assert contender.check(sent) == []
    assert figures["cpu_us"] > 0


@pytest.mark.usefixtures("generates_here")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (LOSES_A_LOG_LINE, "Ann was sent 100 reports, and its log has 99"),
        (LOSES_AN_ANSWER, r"200 commands, 1\d\d sent, 1\d\d answered"),
        (ANSWERS_WRONG, "1 wrong answers"),
        (FORGETS_A_CLIENT, "Ann differs about 1 of 50 clients"),
        (LOSES_A_FLOOD, "Bob differs about 1 of 50 clients"),
    ],
    ids=["log", "answer", "wrong answer", "table", "flood"],
)
def test_a_contender_that_leaves_something_out_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, said: str
) -> None:
    program = tmp_path / "wrong.py"
    program.write_text(WRONG.format(bench=str(BENCH), fault=fault))
    monkeypatch.setattr(Streams, "command", lambda _: [sys.executable, str(program)])
    monkeypatch.setattr("contender.LOG_SECONDS", 0.3)
    monkeypatch.setattr("contender.TABLE_SECONDS", 0.3)
    sent = Sent()
    with Streams(PAIR) as contender:
        drive(contender, sent, 200, 50, connections=10, patience=0.5)
        found = contender.check(sent)
    assert any(re.search(said, one) for one in found), found


def test_an_update_is_followed_while_others_come_at_a_fixed_rate() -> None:
    sent = Sent()
    with Streams(PAIR) as contender:
        figures = propagate(contender, sent, 300, 100, rate=1_000)
        assert contender.check(sent) == []
    assert sent.reports.total() > 300  # those that were followed too
    assert figures["per_second"] < 1_100
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]


def test_memory_is_told_by_what_it_is_used_for() -> None:
    sent = Sent()
    with Streams() as contender:
        table = fill(contender, sent, 0, 0, clients=5_000)
        idle = hold(contender, sent, 0, 0, connections=500)
        assert contender.check(sent) == []
    assert 1_000 < idle["idle_bytes"] < 100_000  # a reader, a writer and a coroutine
    assert 200 < table["client_bytes"] < 2_000  # a key, a line of a hundred bytes and what holds them
    assert idle["used_bytes"] >= idle["idle_bytes"]


def test_a_result_is_read_also_when_it_was_there_before_anybody_waited() -> None:
    with listener(lambda connection: connection.sendall(receive(connection, 5))) as port:
        plan = Plan(commands=5, connections=1, clients=5)
        generator = Generator(Job(plan=plan, ports=[port], wire="echo", outstanding=5))
        generator.start()
        assert generator._process.wait(20) == 0
        generator.wait()
        assert generator.result().answered == 5


@contextmanager
def listener(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Serve one connection on a thread; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def receive(connection: socket.socket, lines: int) -> bytes:
    """Receive so many lines, or what there is before the end."""
    data = b""
    while data.count(b"\n") < lines and (more := connection.recv(1 << 16)):
        data += more
    return data


@pytest.mark.usefixtures("loop")
def test_in_an_open_loop_a_command_has_waited_since_it_was_due() -> None:
    """A server that answers nothing before all is there keeps a load waiting that waits for answers, this one not."""
    with listener(lambda connection: connection.sendall(receive(connection, 200))) as port:
        plan = Plan(commands=200, connections=1, clients=200)
        result = run(Job(plan=plan, ports=[port], wire="echo", rate=1_000, patience=10))
    due = 1e3 * schedule(plan, 1_000).due
    assert (result.answered, result.wrong) == (200, 0)
    assert result.max_ms >= due[-1] - due[0]  # what was due first waited for what was due last
    assert result.p50_ms >= due[-1] - due[100]


def test_clients_of_an_open_loop_send_independently_of_one_another() -> None:
    plan = Plan(commands=20_000, connections=30, clients=30)
    arrivals = schedule(plan, 500)
    gaps = np.diff(arrivals.due)
    assert gaps.mean() == pytest.approx(1 / 500, rel=0.05)
    assert gaps.std() == pytest.approx(
        1 / 500, rel=0.05
    )  # as of exponential ones, and of no others likely here
    assert np.mean(gaps > 2 / 500) == pytest.approx(np.exp(-2), rel=0.1)
    assert np.bincount(arrivals.order).tolist() == [plan.share(one) for one in range(30)]
    assert np.mean(np.diff(arrivals.order) == 1) < 0.1  # in no order
    assert schedule(plan, 500).due.tolist() == arrivals.due.tolist()


@pytest.mark.usefixtures("loop")
def test_in_a_closed_loop_no_more_is_outstanding_than_was_asked_for() -> None:
    most = 0

    def answer(connection: socket.socket) -> None:
        nonlocal most
        for _ in range(100 // 4):
            data = receive(connection, 4)
            most = max(most, data.count(b"\n"))
            connection.sendall(data)

    with listener(answer) as port:
        plan = Plan(commands=100, connections=1, clients=100)
        result = run(Job(plan=plan, ports=[port], wire="echo", outstanding=4, patience=10))
    assert (result.answered, result.wrong, most) == (100, 0, 4)


@pytest.mark.usefixtures("loop")
def test_what_a_socket_does_not_take_is_sent_when_it_does() -> None:
    def answer(connection: socket.socket) -> None:
        time.sleep(0.2)
        connection.sendall(receive(connection, 100_000))

    with listener(answer) as port:
        plan = Plan(commands=100_000, connections=1, clients=1)
        result = run(Job(plan=plan, ports=[port], wire="echo", outstanding=100_000, patience=10))
    assert (result.answered, result.wrong) == (100_000, 0)


@pytest.mark.usefixtures("loop")
def test_an_answer_that_nobody_asked_for_is_wrong() -> None:
    with listener(lambda connection: connection.sendall(2 * receive(connection, 5))) as port:
        plan = Plan(commands=5, connections=1, clients=5)
        result = run(Job(plan=plan, ports=[port], wire="echo", outstanding=5, patience=10))
    assert (result.answered, result.wrong) == (5, 1)


@pytest.mark.usefixtures("loop")
def test_a_server_that_goes_is_an_error() -> None:
    with listener(lambda connection: connection.sendall(receive(connection, 3))) as port:
        plan = Plan(commands=5, connections=1, clients=5)
        with pytest.raises(ConnectionError, match=r"closed|reset"):
            run(Job(plan=plan, ports=[port], wire="echo", outstanding=3, patience=10))


@pytest.mark.usefixtures("loop")
def test_a_server_that_answers_no_more_is_given_up() -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(receive(connection, 3))
        connection.recv(1 << 16)
        connection.recv(1 << 16)

    with listener(answer) as port:
        plan = Plan(commands=5, connections=1, clients=5)
        result = run(Job(plan=plan, ports=[port], wire="echo", outstanding=3, patience=0.2))
    assert (result.sent, result.answered) == (5, 3)


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("cut", [1, 7, 1_000])
def test_answers_of_any_length_are_told_apart_however_they_are_cut(cut: int) -> None:
    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked = receive(connection, 3).split(b"\n")[:3]
        answers = b"".join(
            b"AT Ann +0.000000001 %b +1+1 5\n%b\n\n"
            % (line.split()[1], json.dumps({"results": [{}] * 5}, indent=number).encode())
            for number, line in enumerate(asked)
        )
        for at in range(0, len(answers), cut):
            connection.sendall(answers[at : at + cut])
            time.sleep(0.0002)

    with listener(answer) as port:
        plan = Plan(commands=3, connections=1, clients=3, asks_every=1)
        result = run(Job(plan=plan, ports=[port], wire="places", outstanding=3, patience=10))
    assert (result.answered, result.wrong, result.first_wrong) == (3, 0, "")


def framed(data: bytes) -> bytes:
    size = len(data)
    return b"\x81%b%b" % (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big"), data)


@pytest.mark.usefixtures("loop")
@pytest.mark.parametrize("cut", [1, 7, 1_000])
def test_answers_in_frames_are_told_apart_however_they_are_cut(cut: int) -> None:
    plan = Plan(commands=33, connections=1, clients=33)
    lines = [b"AT Ann +0.000000001 %b\n" % plan.report(0, number).operands for number in range(33)]
    answers = framed(lines[0]) + framed(b"") + framed(b"".join(lines[1:30])) + framed(b"".join(lines[30:]))
    sent = sum(len(frame([plan.report(0, number)])) for number in range(33))

    def answer(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert receive_until(connection, lambda data: data.endswith(b"\r\n\r\n")).startswith(b"GET /v1/ws ")
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        receive_until(connection, lambda data: len(data) == sent)
        for at in range(0, len(answers), cut):
            connection.sendall(answers[at : at + cut])

    with listener(answer) as port:
        result = run(Job(plan=plan, ports=[port], wire="websocket", outstanding=33, patience=10))
    assert (result.answered, result.wrong, result.first_wrong) == (33, 0, "")


def receive_until(connection: socket.socket, is_all: Callable[[bytes], bool]) -> bytes:
    data = b""
    while not is_all(data) and (more := connection.recv(1 << 16)):
        data += more
    return data


def test_a_batch_travels_when_all_of_its_reports_are_there() -> None:
    plan = Plan(commands=5, connections=1, clients=5)
    reports = [plan.report(0, number) for number in range(5)]
    carrier = WIRES["batch"].carrier
    assert carrier is not None
    carried = carrier.carried(reports, 2)
    assert [bool(one) for one in carried] == [False, True, False, True, True]
    assert [one.count(b'"client"') for one in carried] == [0, 2, 0, 2, 1]


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (b'HTTP/1.1 200 OK\r\n\r\n[{"outcome":"stored","at":"AT Ann +0.000000001 %b"}', True),
        (b']HTTP/1.1 200 OK\r\n\r\n{"outcome":"stored","at":"AT Ann +0.000000001 %b"}', True),
        (b',\n{"outcome":"stored","at":"AT Ann +0.000000001 %b"}', True),
        (b'HTTP/1.1 503 No\r\n\r\n{"outcome":"stored","at":"AT Ann +0.000000001 %b"}', False),
        (b',\n{"outcome":"stale","at":"AT Ann +0.000000001 %b"}', False),
        (b',\n{"outcome":"stored","at":"AT Ann +0.000000001 %b1"}', False),
        (b'x{"outcome":"stored","at":"AT Ann +0.000000001 %b"}', False),
    ],
)
def test_an_answer_over_http_is_right_if_it_is_that_of_its_report(answer: bytes, is_right: bool) -> None:
    report = Plan(commands=1, connections=1, clients=1).report(0, 0)
    assert is_web_answer(b"IAMAT %b\n" % report.operands, answer % report.operands) is is_right


def test_reports_of_one_turn_have_one_receiving_time() -> None:
    same = [
        b"AT Ann +0.500000000 a +1+1 1700000000.000000000\n",
        b"AT Ann -0.250000000 b +1+1 1700000000.750000000\n",
    ]
    assert len({instant(answer) for answer in same}) == 1
    assert instant(same[0]) != instant(same[0].replace(b"Ann", b"Bob"))
    assert instant(same[0]) != instant(same[0].replace(b"+0.500000000", b"+0.500000001"))


def test_reports_of_a_client_in_a_turn_are_a_nanosecond_apart_and_count_as_one_turn() -> None:
    assert turns([]) == 0
    many = {(b"Ann", 10**18 + line) for line in range(64)}
    assert turns(many) == 1
    assert turns(many | {(b"Bob", 10**18)}) == 2
    assert turns(many | {(b"Ann", 10**18 + 20_000 + line) for line in range(64)}) == 2


@pytest.mark.parametrize("stride", [1, 7_919])
@pytest.mark.parametrize("connections", [1, 7, 50])
def test_every_report_is_news_and_a_client_stays_on_its_connection(connections: int, stride: int) -> None:
    plan = Plan(commands=1_000, connections=connections, clients=100, asks_every=10, stride=stride)
    times: dict[bytes, list[bytes]] = defaultdict(list)
    homes: dict[bytes, set[int]] = defaultdict(set)
    for connection in range(connections):
        for report in plan.made(connection):
            times[report.client].append(report.time)
            homes[report.client].add(connection)
    assert all(earlier < later for one in times.values() for earlier, later in pairwise(one))
    assert all(len(one) == 1 for one in homes.values())
    assert (
        sum(map(len, times.values()))
        + sum(plan.asks(number) for one in range(connections) for number in range(plan.share(one)))
        == sum(map(plan.share, range(connections)))
        == 1_000
    )


def test_a_stride_takes_all_clients_in_another_order() -> None:
    straight, strewn = (
        [report.client for report in Plan(commands=1_000, connections=1, clients=1_000, stride=one).made(0)]
        for one in (1, 7_919)
    )
    assert sorted(strewn) == sorted(straight)
    assert sum(a < b for a, b in pairwise(strewn)) < 990


def compare(workload: str, folder: Path, *options: str) -> click.testing.Result:
    """Run one workload for a moment."""
    few = ("--commands", "1000", "--clients", "1000")
    return click.testing.CliRunner().invoke(
        main, ["--only", workload, "--folder", str(folder), *few, *options]
    )


@pytest.mark.usefixtures("generates_here")
def test_the_comparison_writes_medians_and_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CONTENDERS["redis"], "missing", lambda: "no redis here")
    result = compare("one 50x32", tmp_path, "--contender", "echo", "--contender", "redis", "--rounds", "3")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "results.json").read_text())
    in_c = {"the generator in C"} if native.missing() else set()
    assert written["left_out"].keys() == {"redis", *in_c}
    assert written["left_out"]["redis"] == "no redis here"
    echo = written["workloads"]["one 50x32"]["contenders"]["echo"]
    assert echo["faults"] == []
    figure = echo["figures"]["cpu_us"]
    assert sorted(figure["rounds"])[1] == figure["median"]
    assert [figure["least"], figure["most"]] == [min(figure["rounds"]), max(figure["rounds"])]


@pytest.mark.usefixtures("generates_here")
def test_two_checkouts_take_turns(tmp_path: Path) -> None:
    package = Path(proxyherd.__file__).parent
    before = tmp_path / "before"
    shutil.copytree(package, before / "proxyherd")
    program = before / "proxyherd/__main__.py"
    tells = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
    program.write_text(tells + program.read_text())
    result = compare("one 50x32", tmp_path, "--against", str(before), "--rounds", "2")
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "results.json").read_text())["workloads"]["one 50x32"]["contenders"]
    assert {name: len(one["figures"]["cpu_us"]["rounds"]) for name, one in written.items()} == {
        "proxyherd": 2,
        "before": 2,
    }
    assert (before / "proxyherd/ran").exists()
    assert re.search(r"one 50x32 +before +[0-9.]+ +[0-9.]+ to [0-9.]+", result.output)


def test_what_is_no_checkout_is_refused(tmp_path: Path) -> None:
    result = compare("one 50x32", tmp_path, "--against", str(tmp_path))
    assert result.exit_code == 1
    assert "is no checkout of proxyherd" in result.output


MOMENT = Options(rounds=1, commands=400, clients=200)


def run_for_a_moment(contender: Contender, names: Iterable[str]) -> dict[str, Figures]:
    """Run workloads one after another; return the figures of each. Fails where something is not as it was sent."""
    made, sent = {}, Sent()
    for name in names:
        entrant = Entrant(contender, WORKLOADS[name], MOMENT)
        entrant.sent = sent
        entrant.prepare()
        entrant.measure()
        assert entrant.faults == [], name
        [made[name]] = entrant.rounds
    assert contender.check(sent) == []
    return made


@pytest.mark.usefixtures("generates_here")
@pytest.mark.parametrize("edges", [(), FIVE], ids=["one", "five"])
def test_workloads_run_for_a_moment(edges: Edges) -> None:
    kind, drawn_before = CONTENDERS["streams-equal-uvloop"], ("connections", "clients", *GRAPHS)
    names = [
        name
        for name, one in WORKLOADS.items()
        if one.edges == edges and one.curve not in drawn_before and one.fits(kind)
    ]
    with kind(edges) as contender:
        figures = run_for_a_moment(contender, names)
    for name, one in figures.items():
        assert all(one[key] > 0 for key in WORKLOADS[name].judged), name
        assert ("late_p99_ms" in one) == ("open" in name or "propagation" in name)


@pytest.mark.usefixtures("generates_here")
def test_ours_tells_of_turns_and_of_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Proxyherd, "gazetteer", gazetteer_file())
    with Proxyherd() as contender:
        figures = run_for_a_moment(contender, ("one 50x32", "invalid 50x32", "gazetteer 10 km"))
    assert 1 < figures["one 50x32"]["turn"] <= 512
    assert figures["gazetteer 10 km"]["cpu_us"] > 0


def test_the_stopwatch_times_each_command_of_a_server_once() -> None:
    command = [sys.executable, str(BENCH / "stopwatch.py"), "--turns=1"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = dict(re.findall(r"^\| (.*) \| ([\d.]+) \|$", printed, re.MULTILINE))
    assert {"a report alone", "a report of 32 in a turn", "one that comes back"} <= rows.keys()
    assert 0 < float(rows["a report of 32 in a turn"]) < float(rows["a report alone"])
