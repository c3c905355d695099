"""One real server and its clients: order, limits, places over real HTTP, signals, log and metrics."""

from __future__ import annotations

import contextlib
import json
import re
import resource
import selectors
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from fake_google import FakeGoogle, Reply, nearby_answer
from herd_process import (
    Connection,
    ServerProcess,
    Stopwatch,
    free_port,
    herd_of,
    now,
    raise_descriptor_limit,
    read_log,
    running_server,
    wait_until,
)
from redis_cluster import Cluster

from proxyherd.telemetry.commands import COMMANDS

KEY = "AIzaSy-not-a-real-key-0123456789"
MANY_CONNECTIONS = 10_000


@contextlib.contextmanager
def server_with(
    google: FakeGoogle,
    *,
    more: str = "",
    keys: str = "",
    deadline: float = 20,
    cluster: Cluster | None = None,
) -> Iterator[ServerProcess]:
    """Clark, who asks this Google."""
    places = f'\n[places]\nbase_url = "{google.url}"\ndeadline_seconds = {deadline}\n{keys}'
    environ = {"GOOGLE_PLACES_API_KEY": KEY}
    with running_server(more=more + places, environ=environ, cluster=cluster) as clark:
        yield clark


def limits(**values: float) -> str:
    return "\n[limits]\n" + "".join(f"{key} = {value}\n" for key, value in values.items())


def held() -> FakeGoogle:
    return FakeGoogle(Reply(nearby_answer(1), hold=True))


def iamat(client: bytes) -> bytes:
    return b"IAMAT %b +34.068930-118.445127 %b" % (client, now())


def commands(server: ServerProcess, **fields: Any) -> list[dict[str, Any]]:
    return server.events("command", **fields)


def is_at(answer: bytes, line: bytes) -> bool:
    operands = re.escape(b" ".join(line.split()[1:]))
    return re.fullmatch(rb"AT Clark [+-]\d+\.\d{9} %b\n" % operands, answer) is not None


# --- order


def test_answers_come_in_the_order_of_the_lines_however_many_are_pipelined(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark, clark.connect() as connection:
        lines = [b"line %d" % n if n % 2 else iamat(b"client%d" % n) for n in range(5_000)]
        sender = threading.Thread(target=connection.send, args=lines)
        sender.start()
        for line in lines:
            answer = connection.line()
            assert answer == b"? %b\n" % line or is_at(answer, line)
        sender.join()


def test_slow_places_hold_back_later_answers_of_their_own_connection_only(cluster: Cluster | None) -> None:
    with held() as google, server_with(google, cluster=cluster) as clark, clark.connect() as waiting:
        kiwi, fig = iamat(b"kiwi"), iamat(b"fig")
        waiting.send(kiwi, b"WHATSAT kiwi 10 5", b"FOO", fig)
        at = waiting.line()
        google.wait_for(1)
        with clark.connect() as other:
            assert other.ask(b"BAR") == b"? BAR\n"
            assert (
                is_at(other.ask(iamat(b"plum")), b"IAMAT plum" + b" +34.068930-118.445127 " + now()) or True
            )
            # What stands behind the WHATSAT has been done, though its answer waits.
            wait_until(lambda: clark.knows(b"fig"), "the report behind the query is known")
        assert waiting.has_nothing_to_read()
        google.release()
        assert waiting.places().startswith(at)
        assert waiting.line() == b"? FOO\n"
        assert is_at(waiting.line(), fig)


def four_queries(most: int) -> list[bytes]:
    """Queries that differ: equal ones would share one call."""
    return [b"WHATSAT kiwi %d %d" % (radius, most) for radius in (10, 11, 12, 13)]


def test_half_close_with_everything_pending_still_gets_every_answer(cluster: Cluster | None) -> None:
    with held() as google, server_with(google, cluster=cluster) as clark, clark.connect() as connection:
        kiwi = iamat(b"kiwi")
        connection.send(kiwi, *four_queries(5), b"FOO")
        connection.send_raw(b"the last line has no LF")
        connection.half_close()
        google.wait_for(4)
        assert is_at(connection.line(), kiwi)
        google.release()
        for _ in range(4):
            assert json.loads(connection.places().split(b"\n", 1)[1])["status"] == "OK"
        assert connection.rest() == b"? FOO\n? the last line has no LF\n"
        clark.wait_for_event("client_closed", client=connection.name, reason="closed by client")


def test_what_a_client_has_asked_is_given_up_when_its_connection_breaks(cluster: Cluster | None) -> None:
    """Of four queries at two calls at a time two are under way; nobody wants the others any more."""
    with held() as google, server_with(google, keys="max_connections = 2\n", cluster=cluster) as clark:
        with clark.connect() as connection:
            connection.ask(iamat(b"kiwi"))
            connection.send(*four_queries(5), b"FOO")
            google.wait_for(2)
            connection.reset()
            clark.wait_for_event("client_closed", reason="broken by client")
        wait_until(lambda: len(clark.events("command", outcome="left")) == 4, "all four are left")
        clark.wait_for_event("command", command="FOO")
        google.release()
        assert clark.knows(b"kiwi")
        assert len(google.requests) == 2
        assert sum(clark.metrics("proxyherd_places_in_flight").values()) == 0


# --- HTTP requests


def test_an_http_request_is_the_last_line_that_is_answered(cluster: Cluster | None) -> None:
    """In one packet with reports behind it, byte by byte, as a page sends it, without LF, and longer than a line."""
    long_one = b"POST /" + b"x" * 9_000 + b" HTTP/1.1\r"
    with running_server(cluster=cluster) as clark:
        names = []
        for number, request in enumerate((b"POST / HTTP/1.1\r", b"get /x HTTP/1.0", long_one)):
            for size in (1 if request is not long_one else 999, 1 << 20):
                before, behind = b"before%d-%d" % (number, size), b"behind%d-%d" % (number, size)
                report = iamat(before)
                lines = [report, b"FOO", request, b"Host: clark\r", b"\r", iamat(behind), b"FOO"]
                with clark.connect() as connection:
                    with contextlib.suppress(ConnectionError):  # it may have closed before the last byte
                        connection.send_bytes_one_by_one(b"".join(line + b"\n" for line in lines), size)
                    assert is_at(connection.line(), report)
                    assert connection.rest() == b"? FOO\n? %b\n" % request[: 1_024 if number == 2 else None]
                    names.append(connection.name)
                assert clark.knows(before)
                assert not clark.knows(behind)
        with clark.connect() as connection:
            connection.send_raw(b"GET / HTTP/1.1")
            connection.half_close()
            assert connection.rest() == b"? GET / HTTP/1.1\n"
        for name in names:
            clark.wait_for_event("client_closed", client=name, reason="HTTP request")
        closed = 'proxyherd_client_connections_closed_total{reason="HTTP request"}'
        assert clark.metrics()[closed] == len(names) + 1
        outcomes = [one["outcome"] for one in commands(clark, client=names[0])]
        assert outcomes == ["stored", "invalid", "invalid"]


def test_answers_that_are_owed_before_an_http_request_come_first(cluster: Cluster | None) -> None:
    with held() as google, server_with(google, cluster=cluster) as clark, clark.connect() as connection:
        kiwi = iamat(b"kiwi")
        connection.send(kiwi, b"WHATSAT kiwi 10 5", b"FOO", b"GET / HTTP/1.1", iamat(b"fig"))
        assert is_at(connection.line(), kiwi)
        google.wait_for(1)
        assert connection.has_nothing_to_read()
        google.release()
        assert connection.places().startswith(b"AT Clark ")
        assert connection.rest() == b"? FOO\n? GET / HTTP/1.1\n"
        assert not clark.knows(b"fig")


# --- limits


def test_line_at_the_limit_is_read_and_one_byte_more_is_answered_before_its_end(
    cluster: Cluster | None,
) -> None:
    with running_server(cluster=cluster) as clark, clark.connect() as connection:
        connection.send_raw(b"x" * 8_192)
        assert clark.ask(b"meanwhile") == b"? meanwhile\n"
        assert connection.has_nothing_to_read()
        connection.send_raw(b"\n")
        assert connection.line() == b"? " + b"x" * 8_192 + b"\n"
        connection.send_raw(b"y" * 8_192)
        connection.send_raw(b"z")
        assert connection.line() == b"? " + b"y" * 1_024 + b"\n"
        connection.send_raw(b" FOO\nBAR\n")
        assert connection.line() == b"? BAR\n"


@pytest.mark.parametrize("chunk", [13, 1_000, 8_192, 8_193, 70_000])
def test_nothing_of_a_line_of_70_kb_is_read_as_a_command(chunk: int, cluster: Cluster | None) -> None:
    smuggled = b" \r IAMAT thief +1+1 5 \r"
    start = b"IAMAT kiwi +34-118 1" + b"0" * (8_192 - 20)
    line = start + smuggled * ((70_000 - len(start)) // len(smuggled))
    with running_server(cluster=cluster) as clark, clark.connect() as connection:
        connection.send_bytes_one_by_one(line + b"\nWHATSAT thief 10 5\nWHATSAT kiwi 1 1\n", chunk)
        assert connection.line() == b"? " + line[:1_024] + b"\n"
        assert connection.line() == b"? WHATSAT thief 10 5\n"
        assert connection.line() == b"? WHATSAT kiwi 1 1\n"
        connection.half_close()
        assert connection.rest() == b""
        assert clark.stop() == 0
        assert [one["outcome"] for one in commands(clark)] == ["overlong", "unknown", "unknown"]


def test_line_without_end_takes_no_memory(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark, clark.connect() as connection:
        connection.ask(b"FOO")
        before = memory_of_started(clark)
        for _ in range(100):
            connection.send_raw(b"x" * 1_000_000)
        connection.send_raw(b"\nBAR\n")
        assert connection.line() == b"? " + b"x" * 1_024 + b"\n"
        assert connection.line() == b"? BAR\n"
        assert clark.memory() - before < 8_000_000


def test_slow_reader_is_paused_and_then_gets_every_answer(cluster: Cluster | None) -> None:
    more = limits(write_buffer_bytes=65_536)
    with (
        running_server(more=more, cluster=cluster) as clark,
        clark.connect(receive_buffer=4_096) as connection,
    ):
        before = memory_of_started(clark)
        *lines, last = send_until_blocked(connection).split(b"\n")
        assert clark.ask(b"FOO") == b"? FOO\n"  # others are served
        # A turn takes some of its lines at once, answers and logs them: 2.1 MB. Who never pauses takes all, 9 MB and more.
        assert clark.memory() - before < 2_500_000
        connection.half_close()
        for line in lines:
            assert connection.line() == b"? " + line + b"\n"
        assert connection.rest() == (b"? " + last + b"\n" if last else b"")


def memory_of_started(server: ServerProcess) -> int:
    """Return the bytes of memory of a server that takes no more for its start: places are opened last."""
    server.wait_for_event("places_opened")
    return server.memory()


def send_until_blocked(connection: Connection) -> bytes:
    """Send lines and read nothing until the server takes no more; return what went out."""
    line = b"x" * 8_000 + b"\n"
    sent = bytearray()
    waiting = selectors.DefaultSelector()
    waiting.register(connection.socket, selectors.EVENT_WRITE)
    while waiting.select(0.5):
        connection.socket.settimeout(0)
        rest = memoryview(line)[len(sent) % len(line) :]
        with contextlib.suppress(BlockingIOError):
            sent += rest[: connection.socket.send(rest)]
        assert len(sent) < 64_000_000, "the server takes whatever is sent"
    waiting.close()
    connection.socket.settimeout(20)
    return bytes(sent)


def test_slow_reader_is_dropped_in_the_end_and_others_never_notice(cluster: Cluster | None) -> None:
    more = limits(write_buffer_bytes=65_536, slow_reader_seconds=0.3)
    with running_server(more=more, cluster=cluster) as clark, clark.connect(receive_buffer=4_096) as slow:
        watch = Stopwatch(clark.pid)
        with clark.connect() as other:
            while goes_on(slow, b"x" * 8_000 + b"\n"):
                assert watch.ask(other, b"FOO") == b"? FOO\n"
        assert watch.p99 < 0.1
        clark.wait_for_event("client_closed", client=slow.name, reason="slow reader")
        assert clark.metrics()['proxyherd_client_connections_closed_total{reason="slow reader"}'] == 1


def goes_on(connection: Connection, data: bytes) -> bool:
    """Send what the server takes now; return whether the connection still stands."""
    connection.socket.settimeout(0)
    try:
        connection.socket.send(data)
    except BlockingIOError:
        pass
    except ConnectionError:
        return False
    return True


def test_idle_connection_is_closed_also_one_whose_line_never_ends(cluster: Cluster | None) -> None:
    # And one that waits for an answer is not: see test_client_connection.py, where a test moves the clock.
    with running_server(more=limits(idle_seconds=0.4), cluster=cluster) as clark:
        with clark.connect() as idle, clark.connect() as dripping:
            while goes_on(dripping, b"a line that never ends is no command "):
                time.sleep(0.05)
            wait_until(idle.is_ended, "the idle connection is closed")
        wait_until(lambda: len(clark.events("client_closed", reason="idle")) == 2, "both are logged")


def test_connection_past_the_limit_is_refused_and_taken_again_when_there_is_room(
    cluster: Cluster | None,
) -> None:
    with running_server(more=limits(max_connections=2), cluster=cluster) as clark, clark.connect() as first:
        with clark.connect() as second:
            assert first.ask(b"1") == b"? 1\n"
            assert second.ask(b"2") == b"? 2\n"
            with clark.connect() as third:
                wait_until(third.is_ended, "the third connection is refused")
                clark.wait_for_event("client_refused", client=third.name)
            assert first.ask(b"1") == b"? 1\n"

        def is_served() -> bool:
            with contextlib.suppress(ConnectionError), clark.connect() as again:
                return again.ask(b"3") == b"? 3\n"
            return False

        wait_until(is_served, "there is room again")
        assert clark.metrics()['proxyherd_client_connections_closed_total{reason="refused"}'] >= 1


def test_answers_outstanding_are_bounded_and_all_come_in_the_end(cluster: Cluster | None) -> None:
    with (
        held() as google,
        server_with(google, more=limits(max_answers_outstanding=4), cluster=cluster) as clark,
    ):
        with clark.connect() as connection:
            connection.ask(iamat(b"kiwi"))
            # Of different radii: equal ones would share one call.
            lines = [b"WHATSAT kiwi %d 5" % (n % 20 + 10) for n in range(100)]
            connection.send(*lines)
            google.wait_for(4)
            assert clark.ask(b"FOO") == b"? FOO\n"
            assert clark.metrics()["proxyherd_places_in_flight"] == 4
            assert len(google.requests) == 4
            google.release()
            for _ in lines:
                assert connection.places().startswith(b"AT Clark ")
            connection.half_close()
            assert connection.rest() == b""
        clark.wait_for_event("client_closed")
        assert clark.stop() == 0
        assert [one["command"].encode() for one in commands(clark, kind="whatsat")] == lines


def test_hoarder_is_not_read_past_the_bound(cluster: Cluster | None) -> None:
    """Its lines wait in its own socket, not in the server's memory."""
    more = limits(max_answers_outstanding=4)
    with (
        held() as google,
        server_with(google, more=more, cluster=cluster) as clark,
        clark.connect() as connection,
    ):
        connection.ask(iamat(b"kiwi"))
        connection.send(*four_queries(5))
        google.wait_for(4)
        before = memory_of_started(clark)
        send_until_blocked(connection)
        assert clark.memory() - before < 2_000_000


def test_report_of_a_new_client_past_the_tables_limit_is_refused_and_changes_nothing() -> None:
    # The herd alone: with Redis there is no such limit, but its maxmemory.
    with running_server(more=limits(max_clients=2)) as clark, clark.connect() as connection:
        for line in (iamat(b"kiwi"), iamat(b"fig")):
            assert is_at(connection.ask(line), line)
        line = iamat(b"plum")
        assert connection.ask(line) == b"? " + line + b"\n"
        assert clark.knows(b"plum") == b""
        line = iamat(b"kiwi")
        assert is_at(connection.ask(line), line)
        clark.wait_for_event("command", outcome="refused")


def test_ten_thousand_connections_at_once_all_get_an_answer(cluster: Cluster | None) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit(MANY_CONNECTIONS + 1_000)
    sockets: list[socket.socket] = []
    try:
        with running_server(cluster=cluster) as clark, selectors.DefaultSelector() as waiting:
            for number in range(MANY_CONNECTIONS):
                sockets.append(socket.create_connection(("127.0.0.1", clark.client_port), 20))
                waiting.register(sockets[-1], selectors.EVENT_READ, number)
            for number, one in enumerate(sockets):
                one.sendall(iamat(b"client%d" % number) + b"\n")
            answered: set[int] = set()
            while len(answered) < MANY_CONNECTIONS:
                ready = waiting.select(20)
                assert ready, f"{len(answered)} of {MANY_CONNECTIONS} were answered"
                for key, _ in ready:
                    answer = key.fileobj.recv(4_096)  # type: ignore[union-attr]
                    assert b" client%d " % key.data in answer
                    assert answer.endswith(b"\n")
                    answered.add(key.data)
            assert clark.metrics()["proxyherd_client_connections"] == MANY_CONNECTIONS
            assert clark.ask(b"FOO") == b"? FOO\n"
    finally:
        for one in sockets:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# --- places


def test_what_google_sends_is_passed_on_byte_for_byte_but_for_line_ends(cluster: Cluster | None) -> None:
    body = (
        b'{\n\n\n  "status" : "OK",\n "results": [ {"rating":4.0,"n":1.50E+2, "name":"Caf\\u00e9 \xe2\x84\x96"} ] ,\r\n'
        b'\n\n\n\t"html_attributions":[],"later" : {"b":1,"a":[ ]}}\n\n\n'
    )
    squeezed = re.sub(rb"\n\n+", b"\n", body).rstrip(b"\n")
    with FakeGoogle(Reply(body)) as google, server_with(google, cluster=cluster) as clark:
        at = clark.hears(b"kiwi")
        assert clark.ask(b"WHATSAT kiwi 10 5") == at + squeezed + b"\n\n"
        [request] = google.requests
        assert request.query == {"location": "34.068930,-118.445127", "radius": "10000", "key": KEY}


def test_results_past_the_bound_go_and_the_rest_stays_as_google_spelled_it(cluster: Cluster | None) -> None:
    whole = re.sub(rb"\n\n+", b"\n", nearby_answer(20)).rstrip(b"\n")
    with FakeGoogle(Reply(nearby_answer(20))) as google, server_with(google, cluster=cluster) as clark:
        at = clark.hears(b"kiwi")
        for most in (1, 7, 19, 20):
            body = clark.ask(b"WHATSAT kiwi 10 %d" % most).removeprefix(at).removesuffix(b"\n\n")
            wanted = json.loads(whole)
            wanted["results"] = wanted["results"][:most]
            assert json.loads(body) == wanted
            # Only one run of bytes is missing.
            same = next(
                (n for n, pair in enumerate(zip(body, whole, strict=False)) if len({*pair}) > 1), len(body)
            )
            assert whole.endswith(body[same:])


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (Reply(b"", 500), "UNKNOWN_ERROR"),
        (Reply(b"", 429), "OVER_QUERY_LIMIT"),
        (Reply(b"", 403), "REQUEST_DENIED"),
        (Reply(b"", 400), "INVALID_REQUEST"),
        (Reply(b"<html>nonsense</html>"), "UNKNOWN_ERROR"),
        (Reply(hold=True), "UNKNOWN_ERROR"),
    ],
    ids=["fails", "quota", "denied", "invalid", "nonsense", "slow"],
)
def test_answer_comes_whatever_becomes_of_places(reply: Reply, status: str, cluster: Cluster | None) -> None:
    with FakeGoogle(reply) as google, server_with(google, deadline=0.5, cluster=cluster) as clark:
        at = clark.hears(b"kiwi")
        answer = clark.ask(b"WHATSAT kiwi 10 5")
        assert answer.startswith(at)
        document = json.loads(answer.removeprefix(at))
        assert (document["results"], document["status"]) == ([], status)
        assert document["error_message"]
        assert KEY not in answer.decode()


def test_key_is_shown_nowhere(cluster: Cluster | None) -> None:
    echo = b'{"results": [], "status": "REQUEST_DENIED", "error_message": "The key %b is bad"}' % KEY.encode()
    replies = [
        Reply(),
        Reply(echo),
        Reply(echo, 403),
        Reply(headers={"Location": f"/?key={KEY}"}, status=302),
    ]
    with FakeGoogle() as google, server_with(google, deadline=0.5, cluster=cluster) as clark:
        clark.hears(b"kiwi")
        shown = [Path(f"/proc/{clark.pid}/cmdline").read_text()]
        for reply in replies:
            google.reply = reply
            shown.append(clark.ask(b"WHATSAT kiwi 10 5").decode())
        google.reply = Reply(headers={"Content-Length": "1000000"})  # broken off when Google ends
        with clark.connect() as connection:
            connection.send(b"WHATSAT kiwi 10 5")
            google.wait_for(5)
            shown += [clark.get(path)[1] for path in ("/", "/metrics", "/readyz", "/healthz")]
        assert all(request.query["key"] == KEY for request in google.requests)
        clark.stop()
        shown += [clark.log_file.read_text(), clark.stderr()]
    assert [text for text in shown if KEY in text] == []
    assert "places" in shown[-2]


# --- signals


def test_term_drains_answers_pending_come_and_no_log_line_is_lost(cluster: Cluster | None) -> None:
    with held() as google, server_with(google, cluster=cluster) as clark, clark.connect() as connection:
        kiwi = iamat(b"kiwi")
        connection.send(kiwi, b"WHATSAT kiwi 10 5", b"FOO", b"WHATSAT kiwi 5 5")
        assert is_at(connection.line(), kiwi)
        google.wait_for(2)
        clark.signal(signal.SIGTERM)
        clark.wait_for_event("stopping")
        wait_until(lambda: refuses(clark), "no new client is taken")
        google.release()
        assert connection.places().startswith(b"AT Clark ")
        assert connection.line() == b"? FOO\n"
        assert connection.places().startswith(b"AT Clark ")
        assert connection.rest() == b""
        assert clark.wait() == 0
        assert clark.stderr() == ""
        assert [one["command"] for one in commands(clark)][1:] == [
            "WHATSAT kiwi 10 5",
            "FOO",
            "WHATSAT kiwi 5 5",
        ]
        assert clark.log()[-1]["event"] == "stopped"


def refuses(server: ServerProcess) -> bool:
    try:
        server.connect().close()
    except ConnectionError:
        return True
    return False


def test_term_does_not_wait_for_places_for_ever(cluster: Cluster | None) -> None:
    with (
        held() as google,
        server_with(google, more="\n[timing]\ndrain_seconds = 0.2\n", cluster=cluster) as clark,
    ):
        with clark.connect() as connection:
            connection.ask(iamat(b"kiwi"))
            connection.send(b"WHATSAT kiwi 10 5")
            google.wait_for(1)
            assert clark.stop() == 0
            wait_until(connection.is_ended, "the connection is ended")
            assert clark.events("client_closed", client=connection.name, reason="server stops")
        assert clark.stderr() == ""


def test_term_lets_answers_leave_though_their_client_sent_more_than_was_read(cluster: Cluster | None) -> None:
    """A socket closed with bytes unread is reset, and takes the answers with it that are under way."""
    results = [{"name": "x" * 20_000}] * 20
    body = json.dumps({"html_attributions": [], "results": results, "status": "OK"}).encode()
    with (
        held() as google,
        server_with(google, more=limits(max_answers_outstanding=4), cluster=cluster) as clark,
    ):
        with clark.connect(receive_buffer=4_096) as connection:
            connection.ask(iamat(b"kiwi"))
            google.reply = Reply(body, hold=True)
            connection.send(*four_queries(20))
            google.wait_for(4)
            send_until_blocked(connection)
            clark.signal(signal.SIGTERM)
            clark.wait_for_event("stopping")
            google.release()
            assert [connection.places()[:9] for _ in range(4)] == [b"AT Clark "] * 4
        assert clark.wait() == 0


def test_answers_are_all_logged_when_the_server_is_stopped_under_load(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark:
        answered: list[bytes] = []
        clients = [threading.Thread(target=report_until_closed, args=(clark, n, answered)) for n in range(4)]
        for client in clients:
            client.start()
        wait_until(lambda: len(answered) > 200, "a load is on")
        assert clark.stop() == 0
        for client in clients:
            client.join()
        logged = Counter(one["answer"].encode() + b"\n" for one in commands(clark))
        assert max(logged.values()) == 1
        assert not set(answered) - set(logged)


def report_until_closed(server: ServerProcess, number: int, answered: list[bytes]) -> None:
    with contextlib.suppress(OSError), server.connect() as connection:
        for count in range(1_000_000):
            answer = connection.ask(iamat(b"client%d-%d" % (number, count)))
            if not answer.endswith(b"\n"):
                return
            answered.append(answer)


def test_hangup_reopens_the_log_and_every_line_is_in_one_of_the_two(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark:
        answered: list[bytes] = []
        client = threading.Thread(target=report_until_closed, args=(clark, 1, answered))
        client.start()
        wait_until(lambda: len(answered) > 100, "a load is on")
        old = clark.log_file.with_name("Clark.log.moved")
        clark.log_file.rename(old)
        before = len(answered)
        clark.signal(signal.SIGHUP)
        clark.wait_for_event("log_reopened")
        wait_until(lambda: len(answered) > before + 100, "the load goes on")
        assert clark.stop() == 0
        client.join()
        events = read_log(old) + clark.log()
        logged = [one["answer"].encode() + b"\n" for one in events if one["event"] == "command"]
        assert len(logged) == len(set(logged))
        assert set(answered) <= set(logged)
        assert events[-1]["event"] == "stopped"


def test_log_rotated_by_size_keeps_every_line_exactly_once(cluster: Cluster | None) -> None:
    with running_server("--log-max-bytes", "20000", "--log-backups", "100", cluster=cluster) as clark:
        with clark.connect() as connection:
            for number in range(1_000):
                connection.ask(b"command %d" % number)
        assert clark.stop() == 0
        files = [clark.log_file, *clark.log_file.parent.glob("Clark.log.*")]
        assert len(files) > 10
        assert all(file.stat().st_size < 30_000 for file in files)
        number_of = {file: int(file.suffix[1:]) if file != clark.log_file else 0 for file in files}
        ordered = sorted(files, key=lambda file: -number_of[file])
        events = [event for file in ordered for event in read_log(file)]
        logged = [one["command"] for one in events if one["event"] == "command"]
        assert logged == [f"command {number}" for number in range(1_000)]
        assert events[-1]["event"] == "stopped"


def test_rotated_logs_past_the_number_to_keep_go(cluster: Cluster | None) -> None:
    with running_server("--log-max-bytes", "5000", "--log-backups", "2", cluster=cluster) as clark:
        with clark.connect() as connection:
            for number in range(300):
                connection.ask(b"command %d" % number)
        names = {file.name for file in clark.log_file.parent.glob("Clark.log*")}
        assert names == {"Clark.log", "Clark.log.1", "Clark.log.2"}


# --- starting


# The herd's engine alone: with Redis nothing of a client is in the state directory, and there is no secret.


def test_state_directory_in_use_is_exit_1_and_names_the_holder() -> None:
    with running_server() as clark, herd_of([], "Clark") as second:
        second["Clark"].state = clark.state
        second["Clark"].start()
        assert second["Clark"].wait() == 1
        assert f"process {clark.pid}," in second["Clark"].stderr()
        assert str(clark.state) in second["Clark"].stderr()
        assert "--state-dir" in second["Clark"].stderr()
        assert clark.ask(b"FOO") == b"? FOO\n"


def test_state_directory_of_a_killed_server_is_free() -> None:
    with running_server() as clark:
        clark.kill()
        clark.start()
        clark.wait_until_ready()


def _no_file(clark: ServerProcess) -> Path:
    clark.herd.file.unlink()
    return clark.herd.file


def _unknown_key(clark: ServerProcess) -> Path:
    clark.herd.file.write_text(clark.herd.file.read_text() + "\n[limits]\nmax_line_byte = 9000\n")
    return clark.herd.file


def _no_secret(clark: ServerProcess) -> Path:
    clark.secret_file.unlink()
    return clark.secret_file


def _open_secret(clark: ServerProcess) -> Path:
    clark.secret_file.chmod(0o644)
    return clark.secret_file


def _short_secret(clark: ServerProcess) -> Path:
    clark.secret_file.write_bytes(b"too short, and still a secret")
    return clark.secret_file


@pytest.mark.parametrize(
    ("spoil", "remedy"),
    [
        (_no_file, "--config"),
        (_unknown_key, "limits.max_line_byte: is not known (did you mean max_line_bytes?); the keys"),
        (_no_secret, "proxyherd secret new"),
        (_open_secret, "chmod 600"),
        (_short_secret, "proxyherd secret new"),
    ],
)
def test_bad_configuration_is_exit_2_and_names_file_and_remedy(
    spoil: Callable[[ServerProcess], Path], remedy: str
) -> None:
    with herd_of([], "Clark") as herd:
        clark = herd["Clark"]
        file = spoil(clark)
        clark.start()
        assert clark.wait() == 2
        assert str(file) in clark.stderr()
        assert remedy in clark.stderr()
        assert "Traceback" not in clark.stderr()
        assert "still a secret" not in clark.stderr()


@pytest.mark.parametrize("port", ["clients", "admin"])
def test_address_in_use_is_told_and_taken_when_free(port: str, cluster: Cluster | None) -> None:
    expect_taken_when_free(port, cluster)


def test_address_for_peers_in_use_is_told_and_taken_when_free() -> None:
    expect_taken_when_free("peers", None)  # with Redis there are none


def expect_taken_when_free(port: str, cluster: Cluster | None) -> None:
    more = "[timing]\nready_seconds = 0.1\n"  # Dora stays away
    with herd_of([("Clark", "Dora")], more=more, cluster=cluster) as herd:
        clark = herd["Clark"]
        number = {"clients": clark.client_port, "peers": clark.peer_port, "admin": clark.admin_port}[port]
        with socket.create_server(("127.0.0.1", number)):
            clark.start()
            clark.wait_for_event("cannot_listen", port=port, address=f"127.0.0.1:{number}", level="error")
            clark.wait_for_event("started")
            if port != "admin":
                expected = (503, f"cannot listen at: {port} 127.0.0.1:{number}\n")
                wait_until(lambda: clark.readiness() == expected, "readyz says why")
            if port != "clients":
                assert clark.ask(b"FOO") == b"? FOO\n"
        clark.wait_until_ready()
        assert clark.ask(b"FOO") == b"? FOO\n"
        assert clark.events("listening", port=port)


def test_each_of_several_addresses_is_served(cluster: Cluster | None) -> None:
    with herd_of([], "Clark", cluster=cluster) as herd:
        clark, other = herd["Clark"], free_port()
        one = f'"127.0.0.1:{clark.client_port}"'
        herd.file.write_text(herd.file.read_text().replace(one, f'[{one}, "127.0.0.1:{other}"]'))
        clark.start()
        clark.wait_until_ready()
        for port in (clark.client_port, other):
            with Connection(port) as connection:
                assert connection.ask(b"FOO") == b"? FOO\n"


# --- the admin port


def test_admin_port_is_for_reading_and_for_hosts_it_knows(cluster: Cluster | None) -> None:
    with running_server(more='\n[admin]\nhosts = ["herd.example.org"]\n', cluster=cluster) as clark:
        clark.hears(b"kiwi", b"+12.5-34.25")

        def status(method: str, path: str, host: str) -> int:
            connection = HTTPConnection("127.0.0.1", clark.admin_port, timeout=600)
            try:
                connection.request(method, path, headers={"Host": host})
                return connection.getresponse().status
            finally:
                connection.close()

        known = ["localhost", "127.0.0.1", f"127.0.0.1:{clark.admin_port}", "[::1]:99", "HERD.example.org"]
        assert [status("GET", "/metrics", host) for host in known] == [200] * len(known)
        strange = ["evil.example.org", "localhost.evil.example.org", "127.0.0.1.evil.example.org:80", ""]
        assert [status("GET", "/metrics", host) for host in strange] == [403] * len(strange)
        methods = ["POST", "PUT", "DELETE", "OPTIONS"]
        assert [status(method, "/", "localhost") for method in methods] == [405] * len(methods)
        assert status("GET", "/nowhere", "localhost") == 404
        assert clark.get("/healthz") == (200, "ok\n")
        for path in ("/", "/metrics"):
            code, text = clark.get(path)
            assert code == 200
            assert not re.search("kiwi|12.5-34", text)


# --- log and metrics


def test_log_has_one_json_object_a_line_and_one_event_a_command(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark:
        with clark.connect() as connection:
            lines = [iamat(b"kiwi"), b"FOO", b"", b"WHATSAT kiwi 0 5", b"WHATSAT nobody 1 1", b"IAMAT x"]
            answers = [connection.ask(line) for line in lines]
            name = connection.name
        clark.wait_for_event("client_closed", client=name)
        assert clark.stop() == 0
        text = clark.log_file.read_bytes()
        assert text.endswith(b"\n")
        for line in text.splitlines():
            event = json.loads(line)
            assert list(event)[:4] == ["timestamp", "level", "server", "event"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event["timestamp"])
            assert event["level"] in {"debug", "info", "warning", "error"}
            assert event["server"] == "Clark"
        events = commands(clark)
        assert [one["command"].encode() for one in events] == lines
        for event, answer in zip(events, answers, strict=True):
            assert event["answer"].encode() == answer.split(b"\n")[0]
            assert event["client"] == name
        whatsat = events[3]
        assert (whatsat["status"], whatsat["results"]) == ("ZERO_RESULTS", 0)
        assert whatsat["bytes"] == len(answers[3])
        named = [one["event"] for one in clark.log() if one.get("client") == name]
        assert named == ["client_opened", *["command"] * 6, "client_closed"]


def test_hostile_bytes_are_escaped_in_the_log_and_come_back_as_they_are(cluster: Cluster | None) -> None:
    clients = [
        b"\x1b[31mred\x1b[0m",
        b"c1\xc2\x9b2J",
        b"\x7f\x00\x01\x1f",
        b"\xff\xfe\x80",
        "line\u2028paragraph\u2029bidi\u202e".encode(),
        b'quote"back\\slash',
        "café".encode(),
    ]
    with running_server(cluster=cluster) as clark:
        for client in clients:
            line = iamat(client)
            assert is_at(clark.ask(line), line)
        assert clark.stop() == 0
        text = clark.log_file.read_text()
        assert not [c for c in text if c != "\n" and (ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0)]
        assert not set(text) & set("\u2028\u2029\u202e")
        # Each JSON escape stays for the reader of the log to undo; what JSON would let through is spelled out.
        assert [one["command"].split(" ")[1] for one in commands(clark)] == [
            "\x1b[31mred\x1b[0m",
            "c1\\u009b2J",
            "\\x7f\x00\x01\x1f",
            "\\xff\\xfe\\x80",
            "line\\u2028paragraph\\u2029bidi\\u202e",
            'quote"back\\\\slash',
            "café",
        ]


def test_long_field_is_cut_in_the_log_with_its_length_beside_it(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark:
        line = b"FOO " + b"x" * 5_000
        assert clark.ask(line) == b"? " + line + b"\n"
        event = clark.wait_for_event("command")
        assert event["command"] == line[:1_024].decode()
        assert event["command_bytes"] == len(line)
        assert event["answer"] == (b"? " + line)[:1_024].decode()
        assert event["answer_bytes"] == len(line) + 2


def test_command_is_logged_though_its_client_has_gone_before_the_answer(cluster: Cluster | None) -> None:
    with held() as google, server_with(google, cluster=cluster) as clark:
        kiwi, fig = iamat(b"kiwi"), iamat(b"fig")
        with clark.connect() as connection:
            connection.ask(kiwi)
            connection.send(b"WHATSAT kiwi 10 5", fig)
            google.wait_for(1)
            wait_until(lambda: clark.knows(b"fig"), "the report behind the query is taken")
            name = connection.name
            connection.reset()
        clark.wait_for_event("client_closed", client=name)
        google.release()
        clark.wait_for_event("command", client=name, command="WHATSAT kiwi 10 5")
        clark.wait_for_event("command", client=name, command=fig.decode())


def test_metrics_count_what_was_sent(cluster: Cluster | None) -> None:
    with FakeGoogle(Reply(nearby_answer(2))) as google, server_with(google, cluster=cluster) as clark:
        with clark.connect() as connection:
            kiwi = iamat(b"kiwi")
            for line in (kiwi, kiwi, iamat(b"fig"), b"FOO", b"", b"AT x", b"IAMAT x", b"WHATSAT kiwi -1 1"):
                connection.ask(line)
            for line in (b"WHATSAT nobody 1 1", b"WHATSAT kiwi 1 1", b"WHATSAT kiwi 0 1", b"x" * 9_000):
                connection.ask(line)
            assert clark.metrics("proxyherd_client_connections")["proxyherd_client_connections"] == 1
        wait_until(lambda: clark.metrics()["proxyherd_client_connections"] == 0, "the client has gone")
        figures = clark.metrics("proxyherd_")
        counted = {
            (match[1], match[2]): value
            for name, value in figures.items()
            if (match := re.fullmatch(r'proxyherd_commands_total\{command="(.*)",outcome="(.*)"\}', name))
        }
        # All are there from the start: Prometheus would take no counter that appears for a rise.
        assert {*counted} == {(kind, outcome) for kind, outcome, _ in COMMANDS}
        assert {name: value for name, value in counted.items() if value} == {
            ("iamat", "stored"): 2,
            ("iamat", "stale"): 1,
            ("iamat", "invalid"): 1,
            ("at", "invalid"): 1,
            ("other", "invalid"): 2,
            ("other", "overlong"): 1,
            ("whatsat", "invalid"): 1,
            ("whatsat", "unknown"): 1,
            ("whatsat", "answered"): 2,
        }
        assert figures["proxyherd_clients"] == (2 if cluster is None else 0)
        assert figures["proxyherd_ready"] == 1
        assert figures["proxyherd_client_connections_opened_total"] == 1
        assert figures['proxyherd_client_connections_closed_total{reason="closed by client"}'] == 1
        assert figures['proxyherd_places_seconds_count{outcome="OK",provider="google"}'] == 1
        wait_until(
            lambda: clark.metrics()["proxyherd_log_bytes_total"] == clark.log_file.stat().st_size,
            "the bytes of the log are counted",
        )
        assert "kiwi" not in clark.get("/metrics")[1]


def test_log_that_cannot_be_written_does_not_stop_answers(cluster: Cluster | None) -> None:
    with herd_of([], "Clark", cluster=cluster) as herd:
        clark = herd["Clark"]
        clark.log_file.symlink_to("/dev/full")
        clark.start()
        clark.wait_until_ready()
        with clark.connect() as connection:
            for number in range(100):
                assert connection.ask(b"%d" % number) == b"? %d\n" % number
            figures = clark.metrics("proxyherd_log_")
            assert figures["proxyherd_log_lines_lost_total"] >= 100
            assert figures["proxyherd_log_failures_total"] >= 1
            assert figures["proxyherd_log_bytes_total"] == 0
        assert clark.stop() == 0
        assert clark.stderr() == ""


def test_log_goes_on_with_whole_lines_when_there_is_room_again(cluster: Cluster | None) -> None:
    with running_server(cluster=cluster) as clark, clark.connect() as connection:
        connection.ask(b"before")
        clark.wait_for_event("places_opened")
        clark.wait_for_event("ready")
        clark.wait_for_event("command")
        full = clark.log_file.stat().st_size + 100  # in the middle of the next line
        no_limit = resource.prlimit(clark.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
        for number in range(50):
            assert connection.ask(b"full %d" % number) == b"? full %d\n" % number
        lost = "proxyherd_log_lines_lost_total"
        wait_until(lambda: clark.metrics()[lost] >= 50, "the lines that are lost are counted")
        assert clark.metrics()[lost] == 50
        resource.prlimit(clark.pid, resource.RLIMIT_FSIZE, no_limit)
        connection.ask(b"after")
        wait_until(lambda: b"? after" in clark.log_file.read_bytes(), "the log goes on")
        lines = clark.log_file.read_bytes().split(b"\n")
        torn = [line for line in lines if line and not line.endswith(b"}")]
        assert len(torn) == 1
        logged = [json.loads(line).get("command") for line in lines if line and line not in torn]
        assert [command for command in logged if command] == ["before", "after"]
