"""TLS on the client port and between peers, with certificates made by the commands that docs/security.md gives."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import MAKE_AUTHORITY, MAKE_CERTIFICATES, PAGE, issue, run
from click.testing import CliRunner, Result
from herd_process import (
    Connection,
    RunningHerd,
    ServerProcess,
    herd_of,
    now,
    raise_descriptor_limit,
    wait_until,
)
from redis_cluster import Cluster

from proxyherd import cli
from proxyherd.client import HerdClient, SyncHerdClient, Unreachable

[TLS] = re.findall(r"^```toml\n(\[tls\].*?)^```", PAGE, re.DOTALL | re.MULTILINE)
CLIENTS = "".join(line + "\n" for line in TLS.splitlines() if not line.startswith("peers"))
PEERS = "".join(line + "\n" for line in TLS.splitlines() if not line.startswith("clients"))
SOON = "[timing]\nheartbeat_seconds = 0.2\nbackoff_seconds = 0.1\nready_seconds = 0.1\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the documented commands were run."""
    folder = tmp_path_factory.mktemp("authority")
    run(MAKE_AUTHORITY, folder)
    run(MAKE_CERTIFICATES, folder)
    return folder


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another authority's."""
    folder = tmp_path_factory.mktemp("stranger")
    run(MAKE_AUTHORITY, folder)
    run(MAKE_CERTIFICATES, folder)
    return folder


def tls_files(herd: RunningHerd) -> Path:
    return herd.folder / "var/tls"


@contextlib.contextmanager
def tls_herd(
    made: Path, edges: list[tuple[str, str]], *alone: str, more: str, cluster: Cluster | None = None
) -> Iterator[RunningHerd]:
    with herd_of(edges, *alone, more=more, cluster=cluster) as herd:
        shutil.copytree(made / "var/tls", tls_files(herd))
        yield herd


@contextlib.contextmanager
def tls_server(made: Path, limits: str = "", *, cluster: Cluster | None) -> Iterator[ServerProcess]:
    """Run Clark with TLS on its client port."""
    with tls_herd(made, [], "Clark", more=CLIENTS + limits, cluster=cluster) as herd:
        herd["Clark"].start()
        herd["Clark"].wait_until_ready()
        yield herd["Clark"]


@pytest.fixture(scope="module")
def clark(made: Path, shared_cluster: Cluster | None) -> Iterator[ServerProcess]:
    """A server with TLS on its client port; the tests share it."""
    with tls_server(made, cluster=shared_cluster) as clark:
        yield clark


@pytest.fixture
def pair(made: Path) -> Iterator[RunningHerd]:
    """Two neighbours with TLS between them, not started. Bailey dials."""
    with tls_herd(made, [("Bailey", "Bona")], more=PEERS + SOON) as herd:
        yield herd


class TlsConnection(Connection):
    """A client's connection inside TLS, which checks whom it speaks to."""

    def __init__(
        self, server: ServerProcess, version: ssl.TLSVersion | None = None, *, receive_buffer: int = 0
    ) -> None:
        super().__init__(server.client_port, receive_buffer=receive_buffer)
        self.tls = self.context(server, version).wrap_socket(self.socket, server_hostname="localhost")
        self.socket = self.tls
        self._answers = self.socket.makefile("rb")

    @staticmethod
    def context(server: ServerProcess, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=tls_files(server.herd) / "authority.pem")
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context

    @property
    def serial(self) -> int:
        certificate: Any = self.tls.getpeercert()
        return int(certificate["serialNumber"], 16)


def iamat(client: bytes) -> bytes:
    return b"IAMAT %b +34.068930-118.445127 %b" % (client, now())


def told(server: ServerProcess, *events: str) -> str:
    """All reasons that the log has for these events."""
    return "\n".join(one["reason"] for one in server.log() if one["event"] in events)


def errors(server: ServerProcess) -> list[dict[str, Any]]:
    return [one for one in server.log() if one["level"] == "error" and one["event"] != "reload_failed"]


def hang_up(server: ServerProcess, event: str = "reloaded") -> None:
    """Send SIGHUP and wait until the server tells what came of it."""
    before = len(server.events(event))
    server.signal(signal.SIGHUP)
    wait_until(lambda: len(server.events(event)) > before, f"{server.name} logs {event}")


# The client port. ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_is_answered_inside_tls_in_order_however_much_it_pipelines(
    clark: ServerProcess, version: ssl.TLSVersion
) -> None:
    with TlsConnection(clark, version) as client:
        assert client.tls.version() == version.name.replace("v1_", "v1.")
        assert client.ask(iamat(b"kiwi")).startswith(b"AT Clark ")
        lines = [b"FOO %d" % number for number in range(2_000)]
        client.send(*lines)
        assert [client.line() for _ in lines] == [b"? %b\n" % line for line in lines]
        client.send(b"x" * 70_000, b"BAR")
        assert client.line() == b"? %b\n" % (b"x" * 1_024)
        assert client.line() == b"? BAR\n"
        name = client.name
    clark.wait_for_event("client_closed", client=name, reason="closed by client")
    assert not errors(clark)


def test_the_client_library_is_answered_inside_tls_and_tells_whom_it_does_not_trust(
    clark: ServerProcess, stranger: Path
) -> None:
    address = f"localhost:{clark.client_port}"
    options: dict[str, Any] = {"retry": False, "timeout": 100, "patience": 100}
    trusted = TlsConnection.context(clark)
    other = ssl.create_default_context(cafile=stranger / "var/tls/authority.pem")

    async def ask(tls: ssl.SSLContext) -> str:
        async with HerdClient(address, tls=tls, **options) as client:
            return (await client.report("kiwi", 1, 2)).server

    with SyncHerdClient(address, tls=trusted, **options) as client:
        assert [client.report("kiwi", 1, 2).server for _ in range(2)] == ["Clark"] * 2
    with (
        SyncHerdClient(address, tls=other, **options) as client,
        pytest.raises(Unreachable, match="certificate"),
    ):
        client.locate("kiwi")
    assert asyncio.run(ask(trusted)) == "Clark"
    with pytest.raises(Unreachable, match="certificate"):
        asyncio.run(ask(other))


def test_the_client_library_says_of_a_port_that_wants_tls_what_it_may_want(clark: ServerProcess) -> None:
    address = f"127.0.0.1:{clark.client_port}"
    told = f"^{address}: closed the connection without a word, as a port does that speaks TLS, or is full$"
    options: dict[str, Any] = {"retry": False, "timeout": 100, "patience": 100}

    async def ask() -> None:
        async with HerdClient(address, **options) as client:
            await client.report("kiwi", 1, 2)

    with SyncHerdClient(address, **options) as client, pytest.raises(Unreachable, match=told):
        client.report("kiwi", 1, 2)
    with pytest.raises(Unreachable, match=told):
        asyncio.run(ask())


def test_commands_are_answered_inside_tls_and_tell_whom_they_do_not_trust(
    clark: ServerProcess, stranger: Path
) -> None:
    """The file names 127.0.0.1, and so does the certificate."""

    def run(*typed: str) -> Result:
        return CliRunner().invoke(cli.main, [*typed, "--config", str(clark.herd.file)])

    trusted, other = (folder / "authority.pem" for folder in (tls_files(clark.herd), stranger / "var/tls"))
    for authority in (["--ca", str(other)], []):
        done = run("iamat", "fig", "1,2", *authority)
        assert done.exit_code == 3
        assert re.fullmatch(
            rf"Error: cannot reach Clark at 127.0.0.1:{clark.client_port}: \[SSL: CERTIFICATE_VERIFY_FAILED\] certificate verify failed: .*; "
            r"if its certificate is good, name who has signed it with --ca FILE\n",
            done.stderr,
        ), done.stderr
    done = run("whatsat", "fig", "0", "0", "--ca", str(trusted))
    assert (done.exit_code, done.stdout) == (1, "? WHATSAT fig 0 0\n"), "it was told nothing before"
    done = run("iamat", "fig", "3,4", "--ca", str(trusted))
    assert (done.exit_code, done.stdout.startswith("AT Clark ")) == (0, True), done.stderr
    done = run("whatsat", "fig", "0", "0", "--ca", str(trusted))
    assert (done.exit_code, " fig +3+4 " in done.stdout) == (0, True), done.stderr


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_an_old_version_of_tls_and_a_plain_client_are_refused_and_told(clark: ServerProcess) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        TlsConnection(clark, ssl.TLSVersion.TLSv1_1)
    with clark.connect() as client:
        client.send(b"IAMAT kiwi +1+1 5")
        wait_until(client.is_ended, "a plain client is let go")
        clark.wait_for_reason("client_refused", r"does the other speak plain\?")
        assert not clark.events("client_opened", client=client.name)
    with TlsConnection(clark) as other:
        assert other.ask(b"FOO") == b"? FOO\n"
    assert not errors(clark)


# Handshakes are over, or have failed, before an engine hears of a client: what is about them runs on one of the two.


def test_a_tls_client_at_a_plain_port_gets_no_tls(made: Path) -> None:
    with tls_herd(made, [], "Clark", more="") as herd:
        herd["Clark"].start()
        herd["Clark"].wait_until_ready()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            TlsConnection(herd["Clark"])


def test_close_notify_ends_both_directions_and_is_no_error(clark: ServerProcess) -> None:
    with TlsConnection(clark) as client:
        client.send(iamat(b"kiwi"))
        assert client.line().startswith(b"AT ")
        client.send(iamat(b"mango"))
        with contextlib.suppress(ssl.SSLError):  # the second answer may be on its way
            client.tls.unwrap()  # sends close_notify, and waits for the server's
        clark.wait_for_event("client_closed", client=client.name, reason="closed by client")
        stored = partial(clark.events, "command", client=client.name, outcome="stored")
        wait_until(lambda: len(stored()) == 2, "both reports are taken")
    assert not errors(clark)
    assert clark.stderr() == ""


def test_a_client_that_breaks_its_connection_is_no_error(clark: ServerProcess) -> None:
    with TlsConnection(clark) as client:
        client.send(b"FOO")
        client.line()
        name = client.name
        client.reset()
    clark.wait_for_event("client_closed", client=name)
    assert not errors(clark)
    assert clark.stderr() == ""


def test_a_slow_reader_inside_tls_is_let_go_and_its_answers_are_bounded(
    made: Path, cluster: Cluster | None
) -> None:
    limits = "[limits]\nwrite_buffer_bytes = 4096\nslow_reader_seconds = 0.3\n"
    with tls_server(made, limits, cluster=cluster) as clark, TlsConnection(clark) as client:
        client.socket.settimeout(0.1)
        with contextlib.suppress(OSError):
            while True:
                client.send_raw((b"x" * 1_000 + b"\n") * 100)
        clark.wait_for_event("client_closed", reason="slow reader")
        assert not errors(clark)


def test_a_server_that_stops_lets_its_tls_clients_have_their_answers(
    made: Path, cluster: Cluster | None
) -> None:
    with (
        tls_server(made, cluster=cluster) as clark,
        TlsConnection(clark) as client,
        TlsConnection(clark) as quiet,
    ):
        client.send(*[b"FOO %d" % number for number in range(100)])
        assert client.line() == b"? FOO 0\n"
        clark.signal(signal.SIGTERM)
        assert client.rest().count(b"\n") == 99
        assert quiet.rest() == b""
        client.tls.unwrap()
        quiet.tls.unwrap()
        assert clark.wait() == 0
        assert not errors(clark)
        assert clark.stderr() == ""


WITH_SMALL_SEND_BUFFERS = """
import runpy, socket, sys

def listen(sock, backlog, really=socket.socket.listen):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # those of its connections likewise
    really(sock, backlog)

socket.socket.listen = listen
sys.argv[0] = "proxyherd"
runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(60, id="what waits below TLS"),  # 64 KiB may
        pytest.param(300, id="what waits above it too"),
    ],
)
def test_a_server_that_stops_waits_for_tls_clients_that_read_slowly_and_not_for_those_that_are_deaf(
    made: Path, lines: int, cluster: Cluster | None
) -> None:
    with tls_herd(made, [], "Clark", more=CLIENTS, cluster=cluster) as herd:
        clark = herd["Clark"]
        clark.program = [sys.executable, "-c", WITH_SMALL_SEND_BUFFERS]
        clark.start()
        clark.wait_until_ready()
        with TlsConnection(clark, receive_buffer=4_096) as slow, TlsConnection(clark) as deaf:
            sent = [b"%d " % number + b"x" * 900 for number in range(lines)]
            slow.send(*sent)
            wait_until(
                lambda: len(clark.events("command", client=slow.name)) == lines, "all lines are answered"
            )
            deaf.ask(iamat(b"kiwi"))
            clark.signal(signal.SIGTERM)
            clark.wait_for_event("client_closed", client=deaf.name, reason="server stops")
            assert slow.rest() == b"".join(b"? %b\n" % line for line in sent)
            slow.tls.unwrap()
            assert clark.wait() == 0
        assert not errors(clark)
        assert clark.stderr() == ""


def test_half_done_handshakes_are_bounded_and_the_oldest_makes_room_for_the_honest(made: Path) -> None:
    with tls_herd(made, [], "Clark", more=CLIENTS) as herd:
        raise_descriptor_limit(4_096)
        clark = herd["Clark"]
        clark.start()
        clark.wait_until_ready()
        with contextlib.ExitStack() as stack, TlsConnection(clark) as early:
            before = clark.memory()
            stalled = [stack.enter_context(clark.connect()) for _ in range(1_500)]
            for one in stalled:
                with contextlib.suppress(OSError):
                    one.send_raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a ClientHello's start
            wait_until(lambda: sum(map(Connection.is_ended, stalled)) >= 900, "the oldest are let go")
            with TlsConnection(clark) as honest:
                assert honest.ask(b"FOO") == b"? FOO\n"
            assert early.ask(b"FOO") == b"? FOO\n"
            assert sum(not one.is_ended() for one in stalled) <= 512
            grown = clark.memory() - before
            assert grown < 64 << 20, f"{grown >> 20} MiB for half-done handshakes"
            assert clark.metrics("proxyherd_client_connections")["proxyherd_client_connections"] == 1
        clark.wait_for_reason("client_refused", "the oldest of too many")
        assert not errors(clark)


def test_half_done_handshakes_count_among_the_connections_that_may_be_open(made: Path) -> None:
    with tls_herd(made, [], "Clark", more=CLIENTS + "[limits]\nmax_connections = 3\n") as herd:
        clark = herd["Clark"]
        clark.start()
        clark.wait_until_ready()
        with contextlib.ExitStack() as stack:
            open_ones = [stack.enter_context(TlsConnection(clark)) for _ in range(2)]
            assert open_ones[-1].ask(b"FOO") == b"? FOO\n"  # the server is done with its handshake too
            stalled = [stack.enter_context(clark.connect()) for _ in range(4)]
            wait_until(lambda: sum(map(Connection.is_ended, stalled)) == 3, "one handshake is under way")
            open_ones.append(stack.enter_context(TlsConnection(clark)))
            assert open_ones[-1].ask(b"FOO") == b"? FOO\n"
            with pytest.raises((ssl.SSLError, ConnectionError)):
                TlsConnection(clark)
            for one in open_ones:
                assert one.ask(b"FOO") == b"? FOO\n"
        clark.wait_for_reason("client_refused", "as many")


# Between peers. -----------------------------------------------------------------------------------------------


def test_neighbours_with_the_authoritys_certificates_link_and_flood(made: Path) -> None:
    edges = [("Bailey", "Bona"), ("Bona", "Clark"), ("Bailey", "Clark")]
    with tls_herd(made, edges, more=PEERS) as herd:
        herd.start()
        herd.wait_until_whole()
        herd.wait_until_all_know(herd["Bailey"].hears(b"kiwi"))
        herd.wait_until_all_know(herd["Clark"].hears(b"mango"))
        for server in herd.values():
            assert not errors(server)
            assert server.stderr() == ""


def refused(herd: RunningHerd) -> tuple[ServerProcess, ServerProcess]:
    """Start both, and return them when each has tried: dialler, listener."""
    herd.start()
    bailey, bona = herd["Bailey"], herd["Bona"]

    def says_why() -> bool:
        # The first dial may come before the other listens, which tells nothing.
        lines = told(bailey, "peer_unreachable", "peer_closed").splitlines()
        return any("Connection refused" not in line for line in lines)

    wait_until(says_why, "Bailey says why")
    wait_until(lambda: told(bona, "peer_refused"), f"Bona says why: {bona.log()}")
    return bailey, bona


def give(herd: RunningHerd, name: str, made: Path, owner: str) -> None:
    """Let a server show another certificate."""
    for kind in ("pem", "key"):
        shutil.copy(made / f"var/tls/{owner}.{kind}", tls_files(herd) / f"{name}.{kind}")


def no_link(herd: RunningHerd) -> None:
    assert not herd["Bailey"].events("peer_opened")
    assert not herd["Bona"].events("peer_opened")
    assert not errors(herd["Bailey"])
    assert not errors(herd["Bona"])


def finds(pattern: str, text: Callable[[], str]) -> bool:
    return re.search(pattern, text()) is not None


def told_all(server: ServerProcess) -> str:
    return told(server, "peer_unreachable", "peer_refused", "peer_closed")


BAD = {
    "Stranger": "certificate is not accepted: (unable to get local issuer|self.signed)",
    "Expired": "certificate is not accepted: certificate has expired",
    "Misnamed": "shows a certificate of Somebody|certificate is not accepted: Hostname mismatch",
}


@pytest.fixture
def star(made: Path, stranger: Path) -> Iterator[RunningHerd]:
    """Mid, whose neighbours dial it (their names begin with A) or are dialled (Z), with bad certificates and good."""
    names = [f"{end}{kind}" for end in "AZ" for kind in (*BAD, "Good")]
    with tls_herd(made, [("Mid", name) for name in names], more=PEERS + SOON) as herd:
        for name in ("Mid", *names, "Somebody"):
            issue(herd.folder, name)
        for end in "AZ":
            issue(stranger, f"{end}Stranger")
            give(herd, f"{end}Stranger", stranger, f"{end}Stranger")
            give(herd, f"{end}Misnamed", herd.folder, "Somebody")
            issue(herd.folder, f"{end}Expired", validity=("20200101", "20200102"))
        herd.start()
        yield herd


def test_bad_certificates_are_refused_and_both_logs_say_why_and_good_ones_link(star: RunningHerd) -> None:
    mid = star["Mid"]
    for kind, why in BAD.items():
        for dials, bad in ((True, star[f"A{kind}"]), (False, star[f"Z{kind}"])):
            refusals = partial(told, mid, "peer_refused" if dials else "peer_unreachable")
            wait_until(partial(finds, why, refusals), f"Mid says why {bad.name} is refused")
            theirs = partial(told_all, bad)
            wait_until(partial(finds, "see its log|refused by the other", theirs), f"{bad.name} says why")
            assert not bad.events("peer_opened")
            assert [one["event"] for one in errors(bad)] == ["certificate_expired"] * (kind == "Expired")
    star["Mid"].wait_until_ready()
    star["Mid"].wait_until_linked("AGood", "ZGood")
    line = star["AGood"].hears(b"kiwi")
    star["ZGood"].wait_until_knows(line)
    assert star["Mid"].links() == {"AGood", "ZGood"}
    assert not errors(star["Mid"])
    assert star["Mid"].stderr() == ""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_shows_no_certificate_is_refused_before_the_handshake_inside(
    pair: RunningHerd, version: ssl.TLSVersion
) -> None:
    bona = pair["Bona"]
    bona.start()
    bona.wait_until_ready()
    context = ssl.create_default_context(cafile=tls_files(pair) / "authority.pem")
    context.minimum_version = context.maximum_version = version
    heard = b""
    with (
        contextlib.suppress(ssl.SSLError, ConnectionError),
        Connection(bona.peer_port) as plain,
        context.wrap_socket(plain.socket, server_hostname="Bona") as peer,
    ):
        peer.sendall(b"PROXYHERD 1 Bailey Bona " + b"5" * 64 + b"\n")
        heard = peer.recv(1_024)
    assert heard == b""
    bona.wait_for_reason("peer_refused", "peer did not return a certificate")
    assert not errors(bona)


@pytest.mark.parametrize("plain", ["Bailey", "Bona"])
def test_a_plain_server_and_one_with_tls_refuse_each_other_and_say_so(pair: RunningHerd, plain: str) -> None:
    text = pair.file.read_text()
    other = pair.file.with_name("plain.toml")
    other.write_text(text.replace(PEERS, ""))
    pair[plain].options += ["--config", str(other)]
    bailey, bona = refused(pair)
    if plain == "Bailey":
        wait_until(partial(finds, r"does the other speak plain\?", partial(told_all, bona)), "Bona says why")
        theirs = partial(told_all, bailey)
        wait_until(partial(finds, "connection broke|closed by the other", theirs), "Bailey says so")
    else:
        wait_until(partial(finds, r"does one side speak TLS\?", partial(told_all, bona)), "Bona says why")
        assert told_all(bailey)
    no_link(pair)


def test_the_secret_is_needed_inside_tls_too(pair: RunningHerd) -> None:
    other = pair.folder / "var/other"
    other.touch(0o600)
    other.write_bytes(b"x" * 32)
    pair["Bailey"].secret_file = other
    bailey, bona = refused(pair)
    # The first dial may come before the other listens, and says only that.
    bona.wait_for_reason("peer_refused", "does not prove the herd's secret")
    bailey.wait_for_reason("peer_unreachable", "refused by the other: Bailey does not prove")
    no_link(pair)


def test_a_slow_tls_handshake_at_the_peer_port_is_given_up_and_strangers_are_few(made: Path) -> None:
    limits = "[limits]\nmax_peer_connections = 4\n"
    with tls_herd(made, [("Bailey", "Bona")], more=PEERS + SOON + limits) as herd:
        herd.start()
        herd.wait_until_whole()
        bona = herd["Bona"]
        with contextlib.ExitStack() as stack:
            strangers = [stack.enter_context(Connection(bona.peer_port)) for _ in range(8)]
            wait_until(lambda: sum(map(Connection.is_ended, strangers)) >= 4, "the oldest are let go")
            wait_until(lambda: all(map(Connection.is_ended, strangers)), "the others after a second")
        bona.wait_for_reason("peer_refused", "the oldest of too many")
        bona.wait_for_reason("peer_refused", "handshake is taking longer than 1")
        assert not bona.events("peer_closed")
        bona.wait_until_knows(herd["Bailey"].hears(b"kiwi"))
        assert not errors(bona)


# Renewing. ----------------------------------------------------------------------------------------------------


def test_a_renewed_certificate_is_shown_after_sighup_and_nobody_is_dropped_or_refused(
    clark: ServerProcess,
) -> None:
    stop, serials, failures = threading.Event(), set[int](), list[str]()

    def keep_connecting() -> None:
        while not stop.is_set():
            try:
                with TlsConnection(clark) as one:
                    assert one.ask(b"FOO") == b"? FOO\n"
                    serials.add(one.serial)
            except (OSError, AssertionError) as error:
                failures.append(repr(error))

    def has(found: set[int], number: int) -> bool:
        return len(found) >= number

    with TlsConnection(clark) as early:
        old = early.serial
        threads = [threading.Thread(target=keep_connecting) for _ in range(2)]
        for thread in threads:
            thread.start()
        try:
            for renewal in range(2, 7):
                run(MAKE_CERTIFICATES, clark.herd.folder)
                hang_up(clark)
                wait_until(partial(has, serials, renewal), "new connections get the new one")
                assert early.ask(b"FOO") == b"? FOO\n"
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert not failures
        assert early.ask(iamat(b"kiwi")).startswith(b"AT ")
        with TlsConnection(clark) as late:
            assert late.serial != old
    assert not errors(clark)


def _cut(folder: Path) -> None:
    (folder / "clients.pem").write_text((folder / "clients.pem").read_text()[:200])


def _gone(folder: Path) -> None:
    (folder / "clients.key").unlink()


def _of_another_key(folder: Path) -> None:
    shutil.copy(folder / "Clark.key", folder / "clients.key")


def _encrypted(folder: Path) -> None:
    run("openssl ec -in clients.key -aes256 -passout pass:word -out k && mv k clients.key", folder)


def test_when_certificates_expire_is_known_and_an_expired_one_is_told_and_no_reason_to_stop(
    star: RunningHerd,
) -> None:
    mid, bad = star["Mid"], star["AExpired"]
    name = "proxyherd_certificate_expires_timestamp_seconds"
    told = bad.wait_for_event("certificate_expired")
    for server in (mid, bad):
        server.wait_until_ready()
    assert re.match(
        r"\S+/AExpired\.pem: expired at 2020-01-02T00:00:00\+00:00; others refuse it", told["reason"]
    )
    ends = bad.metrics(name)
    assert ends.pop(f'{name}{{certificate="peers"}}') == 1_577_923_200
    assert [*ends] == [f'{name}{{certificate="authority"}}']
    assert mid.metrics(name)[f'{name}{{certificate="peers"}}'] > time.time() + 86_400
    issue(star.folder, "AExpired")
    hang_up(bad)
    mid.wait_until_linked("AExpired")
    assert bad.metrics(name)[f'{name}{{certificate="peers"}}'] > time.time() + 86_400
    assert len(bad.events("certificate_expired")) == 1


@pytest.mark.parametrize("spoil", [_cut, _gone, _of_another_key, _encrypted])
def test_a_broken_file_at_sighup_is_told_and_the_old_ones_stay(
    clark: ServerProcess, spoil: Callable[[Path], None]
) -> None:
    folder = tls_files(clark.herd)
    good = {file: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    with TlsConnection(clark) as early:
        spoil(folder)
        hang_up(clark, "reload_failed")
        assert re.search(r"var/tls/clients\.(pem|key)", told(clark, "reload_failed"))
        with TlsConnection(clark) as late:
            assert late.serial == early.serial
        for file, content in good.items():
            file.write_bytes(content)
        hang_up(clark)
        with TlsConnection(clark) as late:
            assert late.ask(b"FOO") == b"? FOO\n"
    assert clark.stderr() == ""


def test_peers_certificates_and_then_their_authority_are_renewed_under_live_links(
    made: Path, stranger: Path
) -> None:
    edges = [("Bailey", "Bona"), ("Bona", "Clark")]
    with tls_herd(made, edges, more=PEERS + SOON) as herd:
        herd.start()
        herd.wait_until_whole()
        folder = tls_files(herd)
        old, new = ((one / "var/tls/authority.pem").read_text() for one in (made, stranger))

        def step() -> None:
            """All hear of it, one after another; who is restarted before it has heard links with the others."""
            herd["Bona"].kill()
            herd["Bona"].start()
            herd.wait_until_whole()
            for server in herd.values():
                hang_up(server)

        (folder / "authority.pem").write_text(old + new)
        step()
        for name in herd:
            give(herd, name, stranger, name)
        step()
        (folder / "authority.pem").write_text(new)
        step()
        herd.wait_until_all_know(herd["Bailey"].hears(b"kiwi"))
        give(herd, "Bona", made, "Bona")
        herd["Bona"].kill()
        herd["Bona"].start()
        herd["Clark"].wait_for_reason("peer_refused", "certificate is not accepted")


def test_sighup_leaves_live_links_alone(pair: RunningHerd) -> None:
    pair.start()
    pair.wait_until_whole()
    for _ in range(3):
        run(MAKE_CERTIFICATES, pair.folder)
        for server in pair.values():
            hang_up(server)
        pair["Bona"].wait_until_knows(pair["Bailey"].hears(b"kiwi"))
    for server in pair.values():
        assert not server.events("peer_closed")
        assert len(server.events("peer_opened")) == 1


def test_a_broken_file_at_the_start_is_exit_2_and_names_it(pair: RunningHerd) -> None:
    bona = pair["Bona"]
    (tls_files(pair) / "authority.pem").write_text("nothing\n")
    bona.start()
    assert bona.wait() == 2
    assert "authority.pem" in bona.stderr()
    assert "docs/security.md" in bona.stderr()
    assert "Traceback" not in bona.stderr()
