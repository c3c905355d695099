"""Strangers and liars at the peer port of a real server: the connection ends at most, nothing else suffers, and the
log says what happened.

`Peer` speaks the protocol anew, from docs/peer-protocol.md and none of the program: it does what that page says
until a test makes it lie. Bob is attacked, as Ann, who dials him; Cid is his honest neighbour.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Self

import pytest
import simulation
from herd_process import PATIENCE_SECONDS, RunningHerd, ServerProcess, Stopwatch, herd_of, now, wait_until

from proxyherd.core.handshake import State

TIMING = """
[timing]
heartbeat_seconds = 0.3
handshake_seconds = 0.6
catch_up_seconds = 0.8
ready_seconds = 0.2
"""
PATIENT = TIMING.replace("handshake_seconds = 0.6", "handshake_seconds = 60")
LIMITS = """
[limits]
peer_queue_bytes = 65536
max_peer_connections = 8
"""
GROWTH = 64 << 20
"""Bytes that an attacked server may grow by: what it holds of the liar's, and the allocator's slack."""


MOST_P99_SECONDS = 0.1
"""What the design promises: no peer stalls others' answers for longer."""


class Peer:
    """One connection with a peer port, or from one, spoken by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.socket.settimeout(PATIENCE_SECONDS)
        self.sent = b""
        self._lines = sock.makefile("rb")

    @classmethod
    def dials(cls, server: ServerProcess, *, receive_buffer: int = 0, source: str = "") -> Self:
        sock = socket.socket()
        if source:
            sock.bind((source, 0))
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            sock.connect(("127.0.0.1", server.peer_port))
        except OSError:
            sock.close()
            raise
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(sock)

    def prove(
        self,
        server: ServerProcess,
        *,
        name: bytes = b"Ann",
        to: bytes = b"",
        versions: bytes = b"1",
        secret: bytes = b"",
        nonce: bytes = b"",
    ) -> bytes:
        """Shake hands as the dialler; return the listener's last word, b"" where it said nothing."""
        secret = secret or server.secret_file.read_bytes()
        to, nonce = to or server.name.encode(), nonce or os.urandom(32).hex().encode()
        self.say(b"PROXYHERD %b %b %b %b" % (versions, name, to, nonce))
        line = self.line()
        if not line.startswith(b"PROXYHERD "):
            return line
        _, version, listener, _, other = line.split()
        parts = (b"proxyherd peer link", versions, version, name, listener, nonce, other)
        self.say(b"PROOF " + proof(secret, b"dialler", *parts))
        answer = self.line()
        if answer.startswith(b"PROOF "):
            assert answer.split()[1] == proof(secret, b"listener", *parts), "the server must prove itself too"
        return answer

    def take_proof(self, server: ServerProcess) -> None:
        """Shake hands as the listener, whoever dialled."""
        secret, nonce = server.secret_file.read_bytes(), os.urandom(32).hex().encode()
        _, versions, dialler, listener, other = self.line().split()
        self.say(b"PROXYHERD 1 %b %b %b" % (listener, dialler, nonce))
        self.line()
        parts = (b"proxyherd peer link", versions, b"1", dialler, listener, other, nonce)
        self.say(b"PROOF " + proof(secret, b"listener", *parts))

    def say(self, *lines: bytes) -> None:
        self.send(b"".join(line + b"\n" for line in lines))

    def send(self, data: bytes) -> None:
        self.sent += data[:4_096]
        self.socket.sendall(data)

    def line(self) -> bytes:
        """Return what comes next, less its LF; b"" at the end."""
        try:
            return self._lines.readline().removesuffix(b"\n")
        except ConnectionError:
            return b""

    def next(self, word: bytes) -> list[bytes]:
        """Return the operands of the next line with that word; others are passed over."""
        while line := self.line():
            first, *operands = line.split(b" ")
            if first == word:
                return operands
        raise ConnectionResetError

    def has_ended(self) -> bool:
        """Return whether the other side has ended it by now."""
        self.socket.setblocking(False)
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_SECONDS)

    def wait_for_end(self) -> None:
        while self.line():
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self.socket.close()


def proof(secret: bytes, role: bytes, *parts: bytes) -> bytes:
    return hmac.new(secret, b"\n".join((role, *parts)), hashlib.sha256).hexdigest().encode()


def at(client: bytes, time: bytes = b"5") -> bytes:
    return b"AT Ann +0.000000000 %b +1+1 %b" % (client, time)


@contextlib.contextmanager
def attacked(more: str = TIMING + LIMITS) -> Iterator[RunningHerd]:
    """Run Bob and Cid; Ann is the tests'."""
    with herd_of([("Ann", "Bob"), ("Bob", "Cid")], more=more) as herd:
        for name in ("Bob", "Cid"):
            herd[name].start()
        for name in ("Bob", "Cid"):
            herd[name].wait_until_ready()
        herd["Bob"].wait_until_linked("Cid")
        herd["Bob"].hears(b"somebody")  # with an empty table, he would ask Ann for all of hers first
        yield herd


@pytest.fixture(scope="module")
def herd() -> Iterator[RunningHerd]:
    with attacked() as herd:
        yield herd


@pytest.fixture
def bob(herd: RunningHerd) -> ServerProcess:
    return herd["Bob"]


@contextlib.contextmanager
def ann(bob: ServerProcess, *, receive_buffer: int = 0) -> Iterator[Peer]:
    """A proved link of Ann's."""
    with Peer.dials(bob, receive_buffer=receive_buffer) as peer:
        assert peer.prove(bob).startswith(b"PROOF ")
        yield peer


class Unharmed:
    """While it holds, an honest client's answers, Bob's link with Cid and Bob's memory stay as they were."""

    def __init__(self, herd: RunningHerd, *, growth: int = GROWTH, full: bool = False) -> None:
        self._client = b"somebody" if full else b"after-%d" % time.monotonic_ns()
        self.bob, self.cid = herd["Bob"], herd["Cid"]
        self._growth = growth
        self._watch = Stopwatch(self.bob.pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Self:
        self._before = self._times(50).p99
        self._links = len(self.bob.events("peer_closed", neighbour="Cid"))
        self._errors = len(self.bob.events("internal_error"))
        self._memory = self.bob.memory()
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if kind is not None:
            return
        grown = self.bob.memory() - self._memory
        p99 = self._watch.p99
        print(
            f"p99 {self._before * 1e3:.1f} ms before, {p99 * 1e3:.1f} ms during, memory "
            f"{self._memory >> 20} MiB before, {grown >> 10} KiB more during"
        )
        assert grown < self._growth, f"grown by {grown >> 20} MiB"
        assert p99 < MOST_P99_SECONDS
        assert len(self.bob.events("peer_closed", neighbour="Cid")) == self._links
        assert len(self.bob.events("internal_error")) == self._errors, self.bob.events("internal_error")
        self.cid.wait_until_knows(self.bob.hears(self._client))
        assert self.bob.stderr() == ""

    def _times(self, number: int) -> Stopwatch:
        watch = Stopwatch(self.bob.pid)
        with self.bob.connect() as client:
            for _ in range(number):
                assert watch.ask(client, b"FOO") == b"? FOO\n"
        return watch

    def _ask(self) -> None:
        with self.bob.connect() as client:
            while not self._stop.wait(0.001) or len(self._watch.seconds) < 10:
                assert self._watch.ask(client, b"FOO") == b"? FOO\n"


def count(server: ServerProcess, event: str, **fields: Any) -> int:
    return len(server.events(event, **fields))


# Who has not proved anything. ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh() -> Iterator[RunningHerd]:
    """A herd whose log has limited nothing yet, and where a handshake may take long."""
    with attacked(PATIENT + LIMITS) as herd:
        yield herd


STRANGERS: dict[str, tuple[dict[str, bytes], str]] = {
    "wrong secret": ({"secret": b"x" * 32}, "Ann does not prove the herd's secret"),
    "unknown name": ({"name": b"Eve"}, "Eve is no neighbour that dials Bob"),
    "name that does not dial": ({"name": b"Cid"}, "Cid is no neighbour that dials Bob"),
    "its own name": ({"name": b"Bob"}, "Bob is no neighbour that dials Bob"),
    "another herd's server": ({"to": b"Dan"}, "it looks for Dan, this is Bob"),
    "old version": ({"versions": b"0"}, "Ann speaks versions 0 of the peer protocol, this server 2,1"),
    "unknown version": ({"versions": b"9,8"}, "Ann speaks versions 9,8"),
    "short nonce": ({"nonce": b"5" * 63}, "its nonce is not of the form"),
}


def test_a_stranger_is_refused_in_words_and_the_log_has_them_too(fresh: RunningHerd) -> None:
    bob = fresh["Bob"]
    with Unharmed(fresh):
        for wrong, why in STRANGERS.values():
            with Peer.dials(bob) as peer:
                answer = peer.prove(bob, **wrong)
                assert answer.startswith(b"REFUSED ")
                assert why in answer.decode()
                peer.wait_for_end()
            bob.wait_for_reason("peer_refused", re.escape(why))
    assert not bob.events("peer_opened", neighbour="Ann")


def test_a_recorded_handshake_replayed_is_refused(herd: RunningHerd, bob: ServerProcess) -> None:
    with ann(bob) as peer:
        recorded = peer.sent
    greeting, shown = recorded.splitlines()
    with Unharmed(herd), Peer.dials(bob) as peer:
        peer.say(greeting)
        assert peer.line().startswith(b"PROXYHERD 1 Bob Ann ")
        peer.say(shown, at(b"replayed"))
        assert b"does not prove" in peer.line()
        peer.wait_for_end()
    assert bob.knows(b"replayed") == b""


def test_words_of_the_listener_reflected_to_it_prove_nothing(herd: RunningHerd, bob: ServerProcess) -> None:
    """Also those that it says to a genuine Ann, of a handshake at the same time with the same nonce."""
    nonce = os.urandom(32).hex().encode()
    with Unharmed(herd), Peer.dials(bob) as genuine, Peer.dials(bob) as reflecting:
        shown = genuine.prove(bob, nonce=nonce)
        reflecting.say(b"PROXYHERD 1 Ann Bob " + nonce)
        own = reflecting.line()
        reflecting.say(shown, at(b"reflected"))
        assert b"does not prove" in reflecting.line()
        with Peer.dials(bob) as third:
            third.say(own, at(b"reflected"))
            third.wait_for_end()
    assert bob.knows(b"reflected") == b""


def test_a_handshake_cut_anywhere_is_forgotten(herd: RunningHerd, bob: ServerProcess) -> None:
    with ann(bob) as peer:
        bob.wait_until_linked("Ann")
        whole = peer.sent
    before = count(bob, "peer_opened", neighbour="Ann")
    with Unharmed(herd):
        for end in range(0, len(whole), 3):
            with Peer.dials(bob) as peer:
                peer.send(whole[:end])
    assert count(bob, "peer_opened", neighbour="Ann") == before


def test_a_slow_handshake_is_given_up_though_bytes_keep_coming() -> None:
    with attacked() as herd, Unharmed(herd), Peer.dials(herd["Bob"]) as peer:
        for byte in b"PROXYHERD 1 Ann Bob " + b"5" * 400:  # a line may have 512
            with contextlib.suppress(ConnectionError):
                peer.send(bytes([byte]))
            if peer.has_ended():
                break
            time.sleep(0.02)  # the pace of a peer that is slow, and not silent
        else:
            pytest.fail("each byte gave it more time")
        herd["Bob"].wait_for_reason("peer_refused", r"handshake not done within 0\.6 s")


def test_gigabytes_without_a_line_end_before_any_proof_take_no_memory(
    herd: RunningHerd, bob: ServerProcess
) -> None:
    with Unharmed(herd, growth=16 << 20), Peer.dials(bob) as peer, contextlib.suppress(ConnectionError):
        for _ in range(4_096):
            peer.send(b"x" * 65_536)
        pytest.fail("a stranger was read on and on")


def test_strangers_past_the_limit_push_out_the_oldest(fresh: RunningHerd) -> None:
    """No clock ends any of them here: see PATIENT."""
    bob = fresh["Bob"]
    with Unharmed(fresh), contextlib.ExitStack() as stack:
        old = [stack.enter_context(Peer.dials(bob)) for _ in range(8)]
        for one in old:
            one.say(b"PROXYHERD 1 Ann Bob " + b"5" * 64)
            assert one.line().startswith(b"PROXYHERD ")
        time.sleep(0.01)  # Bob's clock counts milliseconds
        new = [stack.enter_context(Peer.dials(bob)) for _ in range(8)]
        for one in old:
            one.wait_for_end()
        bob.wait_for_reason("peer_refused", "it was the oldest of more strangers than max_peer_connections")
        assert not any(one.has_ended() for one in new)


@pytest.mark.parametrize("come", ["before", "behind"])
def test_strangers_from_elsewhere_keep_out_no_neighbour_however_slow_its_handshake(
    fresh: RunningHerd, come: str
) -> None:
    """Ann's address is 127.0.0.1: she may be the oldest of all, and 200 others push one another out."""
    bob = fresh["Bob"]
    with Unharmed(fresh), contextlib.ExitStack() as stack:

        def strangers_come(number: int) -> None:
            strangers = [stack.enter_context(Peer.dials(bob, source="127.0.0.2")) for _ in range(number)]
            wait_until(lambda: sum(one.has_ended() for one in strangers) >= number - 8, "all but 8 end")

        if come == "before":
            strangers_come(100)
        with Peer.dials(bob) as slow:
            strangers_come(100)
            assert slow.prove(bob).startswith(b"PROOF ")
            bob.wait_until_linked("Ann")


def test_two_servers_of_one_name_take_turns_at_growing_intervals_and_the_log_says_so() -> None:
    with attacked() as herd:
        bob = herd["Bob"]
        twin = ServerProcess(herd, "Ann", (0, 0, 0), ["Bob"])
        twin.state = herd.folder / "var/lib/Twin"
        twin.log_file = herd.folder / "var/log/Twin.log"
        twin.options += ["--config", str(twin_file(herd))]
        try:
            with Unharmed(herd):
                herd["Ann"].start()
                twin.start()
                bob.wait_for_reason("peer_closed", "replaced by a newer link")
                seconds, before = 1.0, count(bob, "peer_opened", neighbour="Ann")
                time.sleep(seconds)  # nothing to wait for: what must not happen is counted
                opened = count(bob, "peer_opened", neighbour="Ann") - before
                print(f"{opened / seconds:.1f} links a second of two servers of one name")
                assert opened < 12, f"{opened} links in {seconds} s"
        finally:
            assert twin.process is not None
            twin.process.kill()
            twin.process.wait()


def twin_file(herd: RunningHerd) -> Any:
    """The herd's file as Ann's twin reads it: with other ports of her own."""
    ann = herd["Ann"]
    text = herd.file.read_text()
    other = RunningHerd(herd.folder / "twin", [], ["Ann"], "")["Ann"]
    for attribute in ("client_port", "peer_port", "admin_port"):
        text = text.replace(f":{getattr(ann, attribute)}", f":{getattr(other, attribute)}")
    file = herd.file.with_name("twin.toml")
    file.write_text(text)
    return file


# A proved peer that lies. -------------------------------------------------------------------------------------


def test_malformed_at_lines_are_skipped_counted_and_told_and_the_link_stays(
    herd: RunningHerd, bob: ServerProcess
) -> None:
    poison = [
        b"AT",
        b"AT Ann",
        b"AT Ann +0.1 kiwi +1+1 5",
        b"AT Ann +0.000000000 kiwi +91+1 5",
        b"AT \xff\xfe +0.000000000 kiwi +1+1 5",
        b"AT Ann +0.000000000  kiwi +1+1 5",
        b"AT Ann +0.000000000 kiwi +1+1 5 6",
        b"AT Ann +0.000000000 kiwi +1+1 5\r",
        b"AT Ann +0.000000000 kiwi +1+1 1e9",
        at(b"x" * 9_000),
    ]
    poison = [line for line in poison if line != b"AT"]  # no AT line at all, but a word: that ends the link
    with Unharmed(herd), ann(bob) as peer:
        peer.say(*poison * 500, at(b"good"))
        bob.wait_until_knows(at(b"good") + b"\n")
        skipped = bob.metrics("proxyherd_peer_lines_skipped_total")
        assert skipped['proxyherd_peer_lines_skipped_total{neighbour="Ann"}'] >= 500 * len(poison)
        assert "Ann" in bob.links()
    assert bob.events("peer_line_skipped", neighbour="Ann", reason="no AT line")
    assert count(bob, "peer_line_skipped") < 20, "a limited event"


def test_a_line_without_end_takes_no_memory_and_the_link_stays(herd: RunningHerd, bob: ServerProcess) -> None:
    with Unharmed(herd, growth=24 << 20), ann(bob) as peer:
        peer.send(b"AT Ann +0.000000000 ")
        for _ in range(1_024):
            peer.send(b"x" * 65_536)
        peer.say(b"", at(b"behind"))
        bob.wait_until_knows(at(b"behind") + b"\n")


LIES = {
    "another protocol": ([b"GET / HTTP/1.1"], "broke the protocol with GET / HTTP/1.1"),
    "a client's command": ([b"IAMAT kiwi +1+1 5"], "broke the protocol with IAMAT"),
    "bytes": ([bytes(range(11, 256))], "broke the protocol"),
    "answers never asked for": ([b"DIGEST - " + b"5" * 256], "answered what was not asked for|not asked for"),
    "a batch never asked for": ([b"BATCH 7 8 0"], "not asked for"),
    "a batch broken off": ([b"BATCH 0 10000 5", at(b"a"), b"DONE"], "broke off a batch with DONE"),
    "a number too large": ([b"RANGE 0 10001"], "broke the protocol with the number 10001"),
    "a negative number": ([b"RANGE -1 5"], "broke the protocol with the number -1"),
    "hashes out of form": ([b"LEAF 0 123"], "hashes out of form"),
    "a node too deep": ([b"DIGESTS 00000"], "broke the protocol with the node 00000"),
    "more requests than sixteen": ([b"RANGE 0 10000"] * 17, "asks for more than 16 answers at once"),
    "a second handshake": ([b"PROOF " + b"5" * 64], "broke the protocol with PROOF"),
}


def test_each_lie_ends_the_liars_link_and_no_more(herd: RunningHerd, bob: ServerProcess) -> None:
    with Unharmed(herd):
        for lie, (lines, why) in LIES.items():
            told = bob.reasons("peer_closed")
            with ann(bob) as peer:
                with contextlib.suppress(ConnectionError):
                    peer.say(*lines)
                peer.wait_for_end()
            wait_until(
                lambda why=why, told=told: re.search(why, bob.reasons("peer_closed")[len(told) :]),  # type: ignore[misc]
                f"{lie}: {bob.reasons('peer_closed')[len(told) :]}",
            )


def test_silence_ends_the_link_in_three_heartbeats(herd: RunningHerd, bob: ServerProcess) -> None:
    with Unharmed(herd), ann(bob) as peer:
        peer.wait_for_end()
    bob.wait_for_reason("peer_closed", r"silent for 0\.9 s")


def test_a_peer_that_never_reads_is_dropped_at_the_queues_bound(
    herd: RunningHerd, bob: ServerProcess
) -> None:
    stop = threading.Event()
    with Unharmed(herd), ann(bob, receive_buffer=4_096) as peer, bob.connect() as client:
        beating = threading.Thread(target=beat, args=(peer, stop))
        beating.start()
        try:
            closed = count(bob, "peer_closed", neighbour="Ann")
            while count(bob, "peer_closed", neighbour="Ann") == closed:
                client.send(*[b"IAMAT x +1.%b+1 %b" % (b"1" * 8_000, now()) for _ in range(50)])
                for _ in range(50):
                    client.line()
        finally:
            stop.set()
            beating.join()
    bob.wait_for_reason("peer_closed", r"\d+ bytes wait for it, more than peer_queue_bytes")


def beat(peer: Peer, stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while not stop.wait(0.05):
            peer.say(b"BEAT")


def test_a_batch_without_end_is_given_up(herd: RunningHerd, bob: ServerProcess) -> None:
    """It was asked for, and its lines are right; but it never ends."""
    with Unharmed(herd), ann(bob) as peer:
        peer.say(b"DIGESTS -", b"DONE")  # now it is Bob who asks
        [node] = peer.next(b"DIGESTS")
        peer.say(b"DIGEST %b %b" % (node, b"5" * 256))
        peer.next(b"DIGESTS")
        peer.say(b"BATCH 0 10000 ffffffff")
        with contextlib.suppress(ConnectionError):
            while True:
                peer.say(*[at(b"endless", b"%d" % number) for number in range(100)])
                time.sleep(0.01)
    bob.wait_for_reason("peer_closed", r"did not answer a catch-up request for 0\.8 s")


def test_digests_that_never_agree_cost_little_and_the_link_may_stay(
    herd: RunningHerd, bob: ServerProcess
) -> None:
    asked = 0

    def answer(peer: Peer) -> None:
        nonlocal asked
        peer.say(b"DIGESTS -", b"DONE")
        while asked < 300 and (line := peer.line()):
            match line.split(b" "):
                case [b"DIGESTS", node]:
                    peer.say(b"DIGEST %b %b" % (node, os.urandom(128).hex().encode()))
                case [b"LEAF", leaf, _]:
                    peer.say(b"BATCH %b %x 0" % (leaf, int(leaf, 16) + 1))
                case [b"RANGE", first, last]:
                    peer.say(b"BATCH %b %b 0" % (first, last))
                case [b"DONE"]:
                    peer.say(b"CHANGED")
                case _:
                    continue
            asked += 1

    with Unharmed(herd), ann(bob) as peer:
        answer(peer)
        assert "Ann" in bob.links()
    assert asked == 300


def test_requests_without_end_within_the_window_cost_others_little(
    herd: RunningHerd, bob: ServerProcess
) -> None:
    for number in range(20):
        bob.hears(b"entry-%d" % number)
    with Unharmed(herd), ann(bob) as peer:
        peer.say(*[b"RANGE 0 10000"] * 16)
        for _ in range(300):  # whole ranges
            peer.next(b"BATCH")
            peer.say(b"RANGE 0 10000")


def test_entries_without_end_fill_the_table_to_its_limit_and_no_further() -> None:
    limits = LIMITS + "max_clients = 2000\n"
    with attacked(TIMING + limits) as herd, Unharmed(herd, full=True), ann(herd["Bob"]) as peer:
        bob = herd["Bob"]
        for block in range(0, 40_000, 1_000):
            peer.say(*[at(b"client-%d" % number) for number in range(block, block + 1_000)])
        last = at(b"client-7", b"6")
        peer.say(last)
        stop = threading.Event()
        beating = threading.Thread(target=beat, args=(peer, stop))
        beating.start()
        try:
            bob.wait_until_knows(last + b"\n")
        finally:
            stop.set()
            beating.join()
        assert bob.metrics("proxyherd_clients")["proxyherd_clients"] == 2_500
        skipped = bob.metrics("proxyherd_peer_lines_skipped_total")
        assert skipped['proxyherd_peer_lines_skipped_total{neighbour="Ann"}'] > 37_000
        assert bob.events("peer_line_skipped", reason="the table is at its limit")
        assert bob.ask(b"IAMAT new +1+1 5") == b"? IAMAT new +1+1 5\n"


@contextlib.contextmanager
def listening_liar(herd: RunningHerd, behave: Callable[[Peer], None]) -> Iterator[list[float]]:
    """Stand at Dan's peer port; every connection that comes is behaved to so. Lends the times they came at."""
    came: list[float] = []
    with socket.create_server(("127.0.0.1", herd["Dan"].peer_port)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    sock, _ = server.accept()
                    came.append(time.monotonic())
                    with Peer(sock) as peer, contextlib.suppress(OSError, ValueError):
                        behave(peer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_a_listener_that_proves_itself_and_then_lies_is_dialled_at_growing_intervals() -> None:
    def lie(peer: Peer) -> None:
        peer.take_proof(dan)
        peer.say(b"LIES")
        peer.wait_for_end()

    edges = [("Bob", "Cid"), ("Bob", "Dan")]
    with herd_of(edges, more=TIMING) as herd:
        dan = herd["Dan"]
        with listening_liar(herd, lie) as came:
            for name in ("Bob", "Cid"):
                herd[name].start()
            herd["Bob"].wait_until_ready()
            herd["Bob"].wait_until_linked("Cid")
            with Unharmed(herd):
                wait_until(lambda: len(came) > 1, "the liar is dialled again")
                seconds, before = 1.0, len(came)
                time.sleep(seconds)  # nothing to wait for: what must not happen is counted
                dialled = len(came) - before
                print(f"a liar is dialled {dialled / seconds:.1f} times a second")
                assert dialled < 8, f"dialled {dialled} times in {seconds} s"
            herd["Bob"].wait_for_reason("peer_closed", "broke the protocol with LIES")


def test_a_walk_that_a_liar_draws_out_keeps_nobody_from_being_ready_or_caught_up() -> None:
    """It answers in time, and each answer moves on by one leaf of 65,536."""

    def draw_out(peer: Peer, stop: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                first, _ = peer.next(b"RANGE")
                stop.wait(0.1)
                peer.say(b"BATCH %b %x 0" % (first, int(first, 16) + 1))

    with herd_of([("Ann", "Bob"), ("Bob", "Cid")], more=TIMING) as herd:
        bob, cid = herd["Bob"], herd["Cid"]
        cid.start()
        cid.wait_until_ready()
        line = cid.hears(b"early")
        cid.freeze()  # until the liar's turn has begun
        bob.start()
        stop = threading.Event()
        peer = wait_until(partial(dial_when_up, bob), "Bob's peer port is there")
        with peer:
            assert peer.prove(bob).startswith(b"PROOF ")
            cid.thaw()
            lying = threading.Thread(target=draw_out, args=(peer, stop))
            beating = threading.Thread(target=beat, args=(peer, stop))
            lying.start()
            beating.start()
            try:
                wait_until(lambda: bob.readiness()[0] == 200, "Bob is ready")
                wait_until(lambda: bob.knows(b"early") == line, "Bob has caught up from Cid")
            finally:
                stop.set()
                lying.join()
                beating.join()


def dial_when_up(server: ServerProcess) -> Peer | None:
    try:
        return Peer.dials(server)
    except OSError:
        return None


# All at once, in simulation. ----------------------------------------------------------------------------------


def test_a_thousand_times_all_servers_start_at_once_and_each_pair_links_once() -> None:
    for seed in range(1_000):
        herd = simulation.Herd(
            seed,
            servers=5,
            extra_edges=1.0,
            troubles=0,
            reports=0,
            preloaded=0,
            journal="none",
            depth=2,
            apart=0.0,
        )
        went_live = Counter[frozenset[str]]()

        def count_it(
            end: Any, told: Any = herd.laws.went_live, lives: Counter[frozenset[str]] = went_live
        ) -> None:
            lives[frozenset(end.wire)] += 1
            told(end)

        herd.laws.went_live = count_it  # type: ignore[method-assign]
        for server in herd.servers.values():
            server.start()
        herd.world.run_until(2.0)
        pairs = {frozenset((name, other)) for name, one in herd.servers.items() for other in one.neighbours}
        live = Counter(frozenset(end.wire) for end in herd.network.all_ends() if end.link.state is State.LIVE)
        assert live == dict.fromkeys(pairs, 2), f"seed {seed}: both ends of one link a pair"
        assert went_live == live, f"seed {seed}: each is the first, and none was replaced"
