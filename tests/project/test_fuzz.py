"""Hostile bytes on both ports, judged by the oracle and by laws; and every fuzz target in a short, seeded run.

What a connection may bring is drawn here by Hypothesis from the grammar and from beside it; `tests/fuzz/` has the
same laws for the coverage-guided fuzzer (`make fuzz`), whose finds are run here as regression cases.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import client_stream
import oracle
import peer_link
import pytest
from cuts import cut
from gazetteer_file import gazetteer_file
from herd_process import PATIENCE_SECONDS, Connection, ServerProcess, herd_of, running_server
from hypothesis import given, settings
from hypothesis import strategies as st
from mutate import mutated
from quick_table import QuickTable
from redis_cluster import Cluster
from targets import TARGETS, Target

from proxyherd.core import news, node, rules, walks
from proxyherd.core.framing import LineFramer
from proxyherd.core.handshake import NONCE_BYTES, State, Terms
from proxyherd.core.link import Link
from proxyherd.core.messages import At, Entry, Report, parse_at, parse_report
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Table
from proxyherd.web import locations as web_locations
from proxyherd.web.problems import Kind, Problem

LIMIT = client_stream.LINE_BYTES
LEAVES = SIZES.leaves
SEED = 20_210_519
MUTATED = {"client": 2_000, "peer": 1_500, "journal": 750, "config": 5_000, "places": 5_000, "web": 5_000}
"""Inputs of each target in a run of the tests: half a second's worth."""

# What a client may send. -------------------------------------------------------------------------------------

space = st.sampled_from([b" ", b" ", b"  ", b"\t", b"\r", b"\f", b"\v", b" \t \v"])
edge = st.sampled_from([b"", b"", b"", b" ", b"\r", b"\t\f"])
clients = st.sampled_from(
    [b"@", b"@", b"@k", b"@kiwi.cs.ucla.edu", b"\xff\x00@\x1c", b"@\xc2\xa0x", b"IAMAT@", b"@" * 300]
)
digits = st.text("0123456789", min_size=1, max_size=4).map(str.encode)
decimals = st.builds(
    lambda whole, fraction: whole + fraction, digits, st.just(b"") | digits.map(lambda d: b"." + d)
)
signs = st.sampled_from([b"+", b"-", b"+", b"-", b""])
degrees = decimals | st.sampled_from(
    [
        b"90",
        b"90.",
        b".5",
        b"90.0",
        b"90.00000000000000000001",
        b"89.99999999999999999999",
        b"180",
        b"180.000",
        b"180.00000000000000000001",
        b"179.9",
        b"1e1",
        b"nan",
        b"5_0",
        b"0" * 90,
        b"1." + b"0" * 400,
    ]
)
locations = st.builds(lambda *parts: b"".join(parts), signs, degrees, signs, degrees) | st.just(b"+5.5-6")
times = decimals | st.sampled_from(
    [
        b"5.5",
        b"5.500000000",
        b"5.500000001",
        b"999999999999.999999999",
        b"1000000000000",
        b"1.0000000001",
        b"1.",
        b"inf",
        b"+1",
        b"-1",
        b"1e3",
        b"0",
        b"000000000007",
        b"1621464827.959498503",
        b"\xd9\xa1",
    ]
)
radii = decimals | st.sampled_from(
    [b"0", b"0.0", b"50", b"50.000", b"50.00000000000000001", b"51", b"+1", b"0" * 21, b"1e1"]
)
bounds = digits | st.sampled_from(
    [b"0", b"20", b"21", b"020", b"00000000000000000020", b"000000000000000000020", b"5.0", b"-1"]
)


def command(word: bytes, *operands: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """A line of these operands; sometimes one is missing, or there is one too many."""
    parts = st.tuples(st.just(word), *operands).flatmap(
        lambda found: st.sampled_from([found, found, found, found, found, found[:-1], (*found, b"x")])
    )
    return st.builds(lambda head, found, gap, tail: head + gap.join(found) + tail, edge, parts, space, edge)


client_lines = st.one_of(
    command(b"IAMAT", clients, locations, times),
    command(b"IAMAT", clients, st.just(b"+34.068930-118.445127"), times),
    command(b"WHATSAT", clients, radii, bounds),
    command(b"WHATSAT", clients, st.just(b"10"), st.just(b"5")),
    command(b"AT", st.just(b"Bona"), st.just(b"+0.000000000"), clients, locations, times),
    st.builds(
        lambda *parts: b"%b%b%b%b%b%b" % parts,
        st.sampled_from([b"POST", b"GET", b"get", b"IAMAT", b"M" * 32, b"M" * 33, b"M\x7f", b"", b"\xe9"]),
        space,
        st.sampled_from([b"/", b"*", b"/" + b"x" * LIMIT, b"/" + b"x" * 3 * LIMIT, b"@", b"/ /", b""]),
        space,
        st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.10", b"HTTP/1.", b"http/1.1"]),
        edge,
    ),
    st.sampled_from([b"", b" ", b"\r", b"iamat @ +1+1 1", b"? x", b"IAMAT", b"WHATSAT\x00@ 1 1", b"BEAT"]),
    st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"")),
    st.builds(
        lambda size, tail: b"x" * size + tail,
        st.sampled_from([LIMIT - 1, LIMIT, LIMIT + 1, 3 * LIMIT]),
        st.sampled_from([b"", b" IAMAT @ +1+1 9"]),
    ),
)
client_streams = st.builds(
    lambda lines, last: b"".join(line + b"\n" for line in lines) + last,
    st.lists(client_lines, max_size=8),
    st.just(b"") | client_lines,
)
cuts = st.lists(st.integers(0, 6 * LIMIT), max_size=8) | st.lists(st.integers(0, 90), max_size=30)


def cut_at(stream: bytes, places: list[int]) -> list[bytes]:
    at = [0, *sorted(min(one, len(stream)) for one in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(at)]


@settings(deadline=None, max_examples=150)
@given(
    client_streams,
    cuts,
    st.booleans(),
    st.sampled_from(client_stream.MOST),
    st.sampled_from([2, 3, 4, 9_999]),
)
def test_a_client_gets_what_the_oracle_says(
    stream: bytes, places: list[int], half_close: bool, most: int, max_clients: int
) -> None:
    stream = stream.replace(b"@", b"k")  # which is one of those that the server knows
    client_stream.judge(cut_at(stream, places), half_close=half_close, most=most, max_clients=max_clients)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 7), st.booleans())
def test_a_client_that_sends_any_bytes_gets_what_the_oracle_says(
    stream: bytes, size: int, half_close: bool
) -> None:
    client_stream.judge(cut(stream, size), half_close=half_close)


@pytest.fixture(scope="module")
def clark(shared_cluster: Cluster | None) -> Iterator[ServerProcess]:
    limits = f"[limits]\nmax_line_bytes = {LIMIT}\n"
    if shared_cluster is not None:
        shared_cluster.flush()
    with running_server(more=limits, gazetteer=gazetteer_file(), cluster=shared_cluster) as server:
        yield server
        assert server.stop() == 0
        assert server.stderr() == ""


_numbers = itertools.count()


@settings(deadline=None, max_examples=60)
@given(stream=client_streams, places=cuts)
def test_a_real_server_answers_what_the_oracle_says(
    clark: ServerProcess, stream: bytes, places: list[int]
) -> None:
    stream = stream.replace(b"@", b"k%d-" % next(_numbers))
    early = oracle.expect(stream, {}, half_close=False, limit=LIMIT)
    with clark.connect() as connection:
        sent = time.time_ns()
        for piece in cut_at(stream, places):
            connection.send_raw(piece)
        answered = b"".join(_read_answer(connection, one) for one in early.answers)
        if not oracle.ends_at_request(stream):  # else the server closes, and nothing more comes of the stream
            assert connection.has_nothing_to_read()
            connection.half_close()
        answered += connection.rest()
        received = sent, time.time_ns()
    whole = oracle.expect(stream, {}, half_close=True, limit=LIMIT)
    oracle.check(whole, answered, server=b"Clark", received=received)


def _read_answer(connection: Connection, expected: oracle.Expected) -> bytes:
    return connection.places() if isinstance(expected, oracle.Near) else connection.line()


# What a peer may send. ---------------------------------------------------------------------------------------

peer_ats = st.builds(
    lambda name, difference, client, location, at: (
        b"AT %b %b %b %b %b" % (name, difference, client, location, at)
    ),
    st.sampled_from([b"Ann", b"Bona", b"gone-1", b"x" * 63, b"x" * 64, b"1x", b""]),
    st.sampled_from(
        [b"+0.000000000"] * 6 + [b"-0.000000000", b"+00.000000000", b"-7.5", b"+999999999999.000000001"]
    ),
    st.sampled_from([b"k", b"kiwi", b"x", b"new", b"\xff\x00", b"a b", b"\x1c", b"c" * 1_200]),
    st.sampled_from([b"+1+1", b"-0+0"]) | locations,
    times,
)
nodes = st.sampled_from([b"-", b"0", b"f", b"fff", b"ffff", b"g", b"F", b""])
numbers = st.sampled_from([b"0", b"1", b"2", b"ffff", b"10000", b"10001", b"0x1", b"-1", b"", b"f" * 17])
hashes = st.sampled_from(
    [b"-", b"0" * 16, b"0123456789abcdef" * 16, b"0" * 256, b"f" * 15, b"1" * 800, b"\xff" * 16]
)
peer_lines = st.one_of(
    peer_ats,
    peer_ats,
    st.sampled_from(
        [b"BEAT", b"DONE", b"CHANGED", b"AT ", b"AT", b"IAMAT k +1+1 1", b"REFUSED x", b"", b"\r"]
    ),
    nodes.map(lambda name: b"DIGESTS " + name),
    st.builds(lambda name, found: b"DIGEST %b %b" % (name, found), nodes, hashes),
    st.builds(lambda leaf, known: b"LEAF %b %b" % (leaf, known), numbers, hashes),
    st.builds(lambda first, last: b"RANGE %b %b" % (first, last), numbers, numbers),
    st.builds(lambda *found: b"BATCH %b %b %b" % found, numbers, numbers, numbers),
    st.just(b"y" * (peer_link.LINE_BYTES + 1)),
    st.binary(max_size=40),
)
mostly_harmless = st.lists(
    st.one_of(*[peer_ats] * 6, st.sampled_from([b"BEAT", b"y" * 2_000]), peer_lines), max_size=12
)
hellos = st.builds(
    lambda *parts: b"PROXYHERD " + b" ".join(parts),
    st.sampled_from([b"1", b"1", b"2,1", b"2", b""]),
    st.sampled_from([b"Bailey", b"Clark", b"Ann", b"Eve", b"Bona", b"", b"\xff'\""]),
    st.sampled_from([b"Bona", b"Bona", b"Clark", b"bona"]),
    st.sampled_from([b"22" * 32, b"11" * 32, b"22" * 31, b"", b"G" * 64]),
)
strangers = st.builds(
    lambda hello, lines: b"\n".join([hello, *lines]),
    hellos | st.binary(max_size=600),
    st.lists(
        st.sampled_from([b"PROOF " + b"0" * 64, b"PROOF", b"PROOF \xff", b"REFUSED \xff" * 3]) | peer_lines,
        max_size=4,
    ),
)
flags = st.integers(0, 0x7F).map(lambda all_flags: all_flags & ~peer_link.PROVED & ~peer_link.STRETCH)


@settings(deadline=None, max_examples=150)
@given(
    mostly_harmless | st.lists(peer_lines, max_size=20),
    st.binary(max_size=9),
    cuts,
    flags,
    st.sampled_from(peer_link.MOST),
)
def test_a_proved_neighbour_can_do_what_is_documented_and_no_more(
    lines: list[bytes], tail: bytes, places: list[int], some: int, most: int
) -> None:
    some |= peer_link.PROVED
    stream = peer_link.handshake(some) + b"".join(line + b"\n" for line in lines) + tail
    peer_link.judge(cut_at(stream, places), flags=some, most=most)


@settings(deadline=None, max_examples=150)
@given(strangers | st.binary(max_size=1_500), cuts, flags, st.sampled_from(peer_link.MOST))
def test_a_stranger_changes_nothing(stream: bytes, places: list[int], some: int, most: int) -> None:
    peer_link.judge(cut_at(stream, places), flags=some, most=most)


@settings(deadline=None, max_examples=100)
@given(st.data(), flags)
def test_a_handshake_with_one_byte_changed_proves_nothing(data: st.DataObject, some: int) -> None:
    right = peer_link.handshake(some | peer_link.PROVED)
    at = data.draw(st.integers(0, len(right) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda one: one != right[at]))
    wrong = right[:at] + bytes([byte]) + right[at + 1 :]
    peer_link.judge([wrong, peer_link._AT % (b"new", b"9")], flags=some)


HOSTILE_CONNECTIONS = 120
BREATH_BYTES = 30_000_000


def test_a_real_server_survives_hostile_neighbours() -> None:
    target = TARGETS["peer"]
    inputs = mutated(target.seeds(), target.words(), count=HOSTILE_CONNECTIONS, seed=SEED)
    with herd_of([("Bona", "Clark")], more="[timing]\nready_seconds = 0.1\n") as herd:
        clark = herd["Clark"]
        clark.start()
        clark.wait_until_ready()
        known = clark.hears(b"kiwi")
        before = clark.memory()
        for number, data in enumerate(inputs):
            with socket.create_connection(("127.0.0.1", clark.peer_port), PATIENCE_SECONDS) as attacker:
                if number % 3:
                    _prove(attacker, clark.secret_file.read_bytes())
                with contextlib.suppress(ConnectionError):  # it may have had enough already
                    attacker.sendall(data[3:].replace(b"kiwi", b"plum"))
                    attacker.shutdown(socket.SHUT_WR)
                    while attacker.recv(1 << 16):
                        pass
        assert clark.knows(b"kiwi") == known
        assert clark.memory() < before + BREATH_BYTES
        assert len(clark.events("peer_opened")) >= HOSTILE_CONNECTIONS // 2
        assert clark.metrics("proxyherd_links_up") == {'proxyherd_links_up{neighbour="Bona"}': 0.0}
        assert clark.stop() == 0
        assert clark.stderr() == ""


def _prove(attacker: socket.socket, secret: bytes) -> None:
    """Say what a neighbour that knows the secret says."""
    terms = Terms(
        name="Bona",
        neighbours=frozenset({"Clark"}),
        secrets=(secret,),
        line_bytes=8_448,
        heartbeat=0.5,
        handshake=1.0,
        lead=10**9,
        fingerprint=b"0" * 16,
    )
    link = Link(terms, dial="Clark", nonce=os.urandom(NONCE_BYTES), now=0)
    while link.state is not State.LIVE:
        attacker.sendall(link.data_to_send(0))
        heard = attacker.recv(1)
        assert heard, "closed during the handshake"
        link.receive_data(heard, 0)
        link.events(1)
        assert not link.reason


# The fuzz targets. -------------------------------------------------------------------------------------------

targets = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
regressions = [
    pytest.param(target, data, id=f"{target.name}-{name}")
    for target in TARGETS.values()
    for name, data in target.regressions()
]


@pytest.mark.parametrize(("target", "data"), regressions)
def test_what_was_once_found_is_mended(target: Target, data: bytes) -> None:
    target.one_input()(data)


@targets
def test_a_target_stands_a_seeded_run(target: Target) -> None:
    one_input, seeds = target.one_input(), target.seeds()
    inputs = [*seeds, *(data for _, data in target.regressions())]
    for data in seeds:
        one_input(data)
        for end in range(min(len(data), 60)):
            one_input(data[:end])
    for data in mutated(inputs, target.words(), count=MUTATED[target.name], seed=SEED):
        one_input(data)


def test_the_same_seed_makes_the_same_inputs() -> None:
    inputs, words = [b"abc", b"defgh"], [b"word"]
    first, second = (list(mutated(inputs, words, count=50, seed=1)) for _ in range(2))
    assert first == second != list(mutated(inputs, words, count=50, seed=2))


# The judges are judged: planted faults must be found. ---------------------------------------------------------


def found_by(name: str) -> bool:
    target = TARGETS[name]
    one_input = target.one_input()
    try:
        for data in [*target.seeds(), *mutated(target.seeds(), target.words(), count=1_500, seed=SEED)]:
            one_input(data)
    except AssertionError:
        return True
    return False


def test_nothing_is_found_where_nothing_is_planted() -> None:
    assert not found_by("client")
    assert not found_by("peer")


def test_a_line_limit_off_by_one_is_found() -> None:
    with patch.object(client_stream, "LineFramer", lambda limit, **more: LineFramer(limit + 1, **more)):
        assert found_by("client")


def test_times_compared_as_floats_are_found() -> None:
    def through_a_float(line: bytes, server: bytes, received: int, *more: Any) -> Report | None:
        return parse_report(line, server, int(float(received)), *more)

    with patch.object(rules, "parse_report", through_a_float):
        assert found_by("client")


def test_reports_stored_though_no_later_are_found() -> None:
    def store_all(self: QuickTable, client: bytes, entry: Entry, *_: object) -> None:
        self.put(client, entry, self.leaf(client))

    with patch.object(QuickTable, "advance", store_all):
        assert found_by("client")


def test_a_number_of_a_web_page_that_loses_a_digit_is_found() -> None:
    plain = web_locations._plain
    with patch.object(web_locations, "_plain", lambda degrees: plain(degrees).replace(b"0.0", b"0.")):
        assert found_by("web")


def test_a_problem_that_quotes_a_client_is_found() -> None:
    def quoting(self: Problem, kind: Kind, detail: str, field: str = "s3cr3t") -> None:
        init(self, kind, detail, field)

    init = Problem.__init__
    with patch.object(Problem, "__init__", quoting):
        assert found_by("web")


def test_updates_learned_though_not_greater_are_found() -> None:
    def learn_all(self: node.Node, update: At) -> bool:
        self.table.put(update.client, update.entry, self.table.leaf(update.client))
        return True

    with patch.object(node.Node, "_admit", learn_all):
        assert found_by("peer")


def test_news_told_back_to_where_it_came_from_is_found() -> None:
    with patch.object(news, "concerning", lambda _neighbour, told: told):
        assert found_by("peer")


def test_a_walk_that_is_not_forgotten_is_found() -> None:
    with patch.object(walks.Walks, "forget", lambda *_: None):
        assert found_by("peer")


def test_the_quick_table_is_the_table() -> None:
    quick, table = QuickTable(b"k"), Table(b"k")
    for number in range(2_000):
        update = parse_at(b"AT Ann +0.000000000 c%d +1+1 %d" % (number % 1_500, number))
        assert update is not None
        for one in (quick, table):
            one.put(update.client, update.entry, one.leaf(update.client))
    for one in (quick, table):
        one.remove(b"c7", one.leaf(b"c7"))
        assert one.sweep(0, LEAVES, 10_000) == LEAVES
    assert len(quick) == len(table) == 1_499
    assert list(quick) == list(table)
    assert [quick.children(name) for name in ("", "0", "f", "a5", "b00")] == [
        table.children(name) for name in ("", "0", "f", "a5", "b00")
    ]
    for first, last, most in ((0, LEAVES, 1), (0, LEAVES, 10_000), (500, 9_000, 10**9), (7, 7, 9)):
        assert quick.lines(first, last, most) == table.lines(first, last, most)
    quick.clear()
    assert list(quick) == []
    assert quick.children("") == [0] * 16


# The oracle by the examples of the specification. -------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "right"),
    [
        *((b"+34.068930-118.445127", True), (b"+5.5-6", True), (b"-90.000+180.0", True), (b"+00-000", True)),
        *((b"+90.00000000000000001+0", False), (b"+0-180.1", False), (b"+5.-6", False), (b"+.5-6", False)),
        *(
            (b"5-6", False),
            (b"+5-6/", False),
            (b"+005-6", False),
            (b"+5-0006", False),
            (b"+5", False),
            (b"+5-6-", False),
        ),
    ],
)
def test_the_oracle_knows_locations(location: bytes, right: bool) -> None:
    assert oracle.is_location(location) is right


def test_the_oracle_knows_the_example_of_the_specification() -> None:
    line = b"IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503"
    at = b"AT Clark +0.263873386 kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503"
    received = 1_621_464_828_223_371_889
    expected = oracle.expect(line + b"\n", {}, half_close=False, limit=8_192)
    oracle.check(expected, at + b"\n", server=b"Clark", received=(received, received))
    for wrong in (at, at.replace(b"386", b"387") + b"\n", at.replace(b"+0.", b"+00.") + b"\n", at + b"\n\n"):
        with pytest.raises(AssertionError):
            oracle.check(expected, wrong, server=b"Clark", received=(received, received))
    assert oracle.peer_at(at) is not None
    assert oracle.expect(line, {}, half_close=False, limit=8_192).answers == []
    assert dataclasses.asdict(oracle.expect(line, {}, half_close=True, limit=20).answers[0]) == {"line": line}
