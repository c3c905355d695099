"""The herd's secret and the key for Places: changed without downtime, and written down nowhere, whatever fails."""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_google import FakeGoogle, Reply
from herd_process import (
    ROOT,
    Connection,
    Meanwhile,
    RunningHerd,
    ServerProcess,
    free_port,
    herd_of,
    now,
    running_herd,
    wait_until,
    write_secret,
)
from page_commands import carry_out, stand_in

from proxyherd import cli
from proxyherd.base.escapes import escaped_for_json
from proxyherd.config import secrets as secret
from proxyherd.core.handshake import NONCE_BYTES, State, Terms
from proxyherd.core.link import Link

PAGE = (ROOT / "docs/security.md").read_text()
*STEPS, NEW_TABLE_KEY = (
    block for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if "secret" in block
)
SOON = "[timing]\nheartbeat_seconds = 2\nbackoff_seconds = 0.1\ncompare_seconds = 0.5\n"
"""Servers compare often, but a busy machine's may be silent for six seconds."""


# Changing the secret. -----------------------------------------------------------------------------------------


def hang_up(server: ServerProcess, event: str = "reloaded") -> None:
    before = len(server.events(event))
    server.signal(signal.SIGHUP)
    wait_until(lambda: len(server.events(event)) > before, f"{server.name} logs {event}")


class Reporting(Meanwhile):
    """Lets a client report to one server again and again, and wants each report at every other one."""

    def __init__(self, herd: RunningHerd, *names: str) -> None:
        self.first, *self.others = (herd[name] for name in names)
        self.reports = 0
        super().__init__()

    def __exit__(self, *about: object) -> None:
        super().__exit__(*about)
        assert self.reports

    def work(self) -> None:
        while not self.stopping.wait(0.05):
            line = self.first.hears(b"moving")
            for server in self.others:
                server.wait_until_knows(line)
            self.reports += 1


def restart(server: ServerProcess) -> None:
    server.kill()
    server.start()
    server.wait_until_ready()
    server.wait_until_linked()


def compared_lines(server: ServerProcess) -> list[int]:
    """Kill and start a server; return the lines that crossed when it compared its table with its neighbours' again."""
    since = len(server.events("caught_up"))
    restart(server)
    wait_until(partial(has_compared, server, since), "compared")
    return [one["lines"] for one in server.events("caught_up")[since:]]


def has_compared(server: ServerProcess, since: int) -> bool:
    """Return whether it has compared its table with each neighbour's since so many times in all."""
    return {one["neighbour"] for one in server.events("caught_up")[since:]} == {*server.neighbours}


def test_the_documented_steps_change_the_secret_while_reports_arrive_and_links_stay() -> None:
    """In the middle of each step, when no other has heard of it yet, Clark is killed and must find its way back."""
    assert len(STEPS) == 3
    edges = [("Bailey", "Bona"), ("Bona", "Clark"), ("Bailey", "Clark")]
    with running_herd(edges, more=SOON) as herd:
        stand_in(herd.folder)
        clark, others = herd["Clark"], (herd["Bailey"], herd["Bona"])
        file = clark.secret_file
        first = file.read_bytes()
        for number in range(50):
            clark.hears(b"client-%d" % number)
        with Reporting(herd, "Bailey", "Bona") as reporting:
            for step in STEPS:
                carry_out(step, herd.folder)
                assert max(compared_lines(clark)) < 50, (
                    "the digests are keyed alike, so hardly anything crosses"
                )
                for server in (*others, clark):
                    hang_up(server)
                before = reporting.reports
                wait_until(lambda known=before: reporting.reports > known, "reports arrive")  # type: ignore[misc]
        assert file.read_bytes() != first
        assert not file.with_name("secret.old").exists()
        assert not file.with_name("secret.next").exists()
        for one, other in (others, others[::-1]):
            assert not one.events("peer_closed", neighbour=other.name)
            assert len(one.events("peer_opened", neighbour=other.name)) == 1
        assert {one["secrets"] for one in others[0].events("reloaded")} == {1, 2}
        assert not [one for server in herd.values() for one in server.events("table_key_differs")]
        carry_out(NEW_TABLE_KEY, herd.folder)
        hang_up(others[0])
        others[0].wait_for_reason("table_key_differs", "secret.table: the next start would use another key")
        assert max(compared_lines(clark)) >= 50, "whole tables cross until all are restarted"
        for server in others:
            assert server.events("peer_key_differs", neighbour="Clark")
            assert clark.events("peer_key_differs", neighbour=server.name)
        status = CliRunner().invoke(cli.main, ["--config", str(herd.file), "status"])
        assert "Clark: the key of its table is not that of Bailey, Bona: " in status.stderr
        for server in others:
            restart(server)
        since = len(clark.events("caught_up"))
        wait_until(lambda: len(clark.events("caught_up")) > since + 3, "compared again")
        assert max(one["lines"] for one in clark.events("caught_up")[since + 2 :]) < 50
        # The old one is worth nothing any more.
        stale = herd.folder / "var/stale"
        stale.touch(0o600)
        stale.write_bytes(first)
        herd["Bailey"].secret_file = stale
        herd["Bailey"].kill()
        herd["Bailey"].start()
        wait_until(
            lambda: "does not prove" in str(clark.events("peer_refused")), "Clark refuses the old secret"
        )


def terms(name: str, secrets: secret.Secrets) -> Terms:
    neighbours = frozenset({"Ann", "Bob"} - {name})
    return Terms(name, neighbours, secrets.accepted, 8_448, 0.5, 1.0, lead=10**9, fingerprint=b"0" * 16)


def links(one: secret.Secrets, other: secret.Secrets) -> bool:
    dialler = Link(terms("Ann", one), dial="Bob", nonce=b"1" * NONCE_BYTES, now=0)
    listener = Link(terms("Bob", other), dial=None, nonce=b"2" * NONCE_BYTES, now=0)
    for _ in range(4):
        for left, right in ((dialler, listener), (listener, dialler)):
            if data := left.data_to_send(0):
                right.receive_data(data, 0)
                right.events(100)
    return dialler.state is listener.state is State.LIVE


def test_servers_a_step_apart_link_whoever_dials_and_key_their_digests_alike(tmp_path: Path) -> None:
    """States: before, and after each of the three steps."""
    file = tmp_path / "var/secret"
    file.parent.mkdir()
    (tmp_path / "var/run").mkdir()
    write_secret(file)
    stand_in(tmp_path)
    states = [secret.read_all(file)]
    for step in STEPS:
        carry_out(step, tmp_path)
        states.append(secret.read_all(file))
    for earlier, later in pairwise(states):
        assert links(earlier, later)
        assert links(later, earlier)
    assert not links(states[2], states[0]), "so every server must have heard of a step before the next"
    assert not links(states[0], states[3])
    assert states[3].proves == states[2].proves != states[0].proves
    for step in STEPS:  # once more
        carry_out(step, tmp_path)
        states.append(secret.read_all(file))
    assert {one.table for one in states} == {states[0].proves}
    assert len(states[-1].accepted) == 1
    carry_out(NEW_TABLE_KEY, tmp_path)
    assert secret.read_all(file).table not in {*states[-1].accepted, states[0].table}


# Written down nowhere. ----------------------------------------------------------------------------------------

KEY = "AIzaSy-Th1s+is/the=key%for&these~tests"


def spellings(hidden: bytes) -> set[bytes]:
    """How a secret may stand somewhere."""
    text = hidden.decode("latin-1")
    plain = {
        hidden,
        hidden.hex().encode(),
        hidden.hex().upper().encode(),
        base64.b64encode(hidden),
        base64.urlsafe_b64encode(hidden),
        repr(hidden)[2:-1].encode(),
        ascii(text)[1:-1].encode(),
        urllib.parse.quote(hidden).encode(),
        urllib.parse.quote(hidden, safe="").encode(),
        urllib.parse.quote_plus(hidden).encode(),
        text.encode(),
    }
    as_json = {
        json.dumps(one.decode("latin-1"))[1:-1].encode() for one in plain
    }  # in a log, on a line of JSON
    as_logged = escaped_for_json(hidden)
    logged = {as_logged.encode(), json.dumps(as_logged)[1:-1].encode()}
    return plain | as_json | logged


def secrets_of(herd: RunningHerd) -> set[bytes]:
    files = [file for file in (herd.folder / "var").iterdir() if file.name.startswith("secret")]
    return {KEY.encode(), *(file.read_bytes() for file in files if len(file.read_bytes()) == 32)}


def written(herd: RunningHerd) -> Iterator[tuple[str, bytes]]:
    """All that the herd's processes have written or show, but the secrets' own files."""
    for file in herd.folder.rglob("*"):
        if file.is_file() and not file.name.startswith(("secret", "key")) and ".venv" not in file.parts:
            yield str(file), file.read_bytes()
    for server in herd.values():
        if server.process is None or server.process.poll() is not None:
            continue
        yield f"cmdline of {server.name}", Path(f"/proc/{server.pid}/cmdline").read_bytes()
        for path in ("/", "/metrics", "/healthz", "/readyz"):
            yield f"{path} of {server.name}", server.get(path)[1].encode()
        for child in children(server.pid):
            for what in ("cmdline", "environ"):
                yield f"{what} of a child", Path(f"/proc/{child}/{what}").read_bytes()


def children(pid: int) -> list[str]:
    return [
        child
        for task in Path(f"/proc/{pid}/task").iterdir()
        for child in (task / "children").read_text().split()
    ]


def assert_kept(herd: RunningHerd, *answers: bytes, also: set[bytes] = frozenset()) -> None:  # type: ignore[assignment]
    hidden = {spelling for one in secrets_of(herd) | also for spelling in spellings(one)}
    everything = [*written(herd), *((f"answer {answer[:40]!r}", answer) for answer in answers)]
    assert len(everything) > 3
    for where, content in everything:
        for spelling in hidden:
            assert spelling not in content, f"{spelling!r} stands in {where}"


def google_herd(
    google: FakeGoogle, source: str, herd: RunningHerd, provider: str = "google", more: str = ""
) -> None:
    """Give all servers the key, by a file or by the environment."""
    text = herd.file.read_text()
    places = f'[places]\nprovider = "{provider}"\nbase_url = "{google.url}"\n{more}'
    places += "deadline_seconds = 2\nmax_answer_bytes = 4096\n"  # on a machine with much work too, only what is held is late
    if source == "file":
        (herd.folder / "key").write_text(KEY + "\n")
        (herd.folder / "key").chmod(0o600)
        places += 'key_file = "../key"\n'
    else:
        for server in herd.values():
            server.environ["GOOGLE_PLACES_API_KEY"] = KEY
    herd.file.write_text(text + places)


FAILURES = {
    "answers": Reply(),
    "echoes the key": Reply(body=KEY.encode() * 3),
    "echoes it in JSON": Reply(
        body=b'{"results": [], "status": "%b", "error": "%b"}' % ((KEY.encode(),) * 2)
    ),
    "echoes it encoded": Reply(
        body=b'{"results": [], "status": "' + urllib.parse.quote(KEY).encode() + b'"}'
    ),
    "echoes it in a header": Reply(status=302, headers={"Location": f"http://127.0.0.1:1/?key={KEY}"}),
    "denies": Reply(status=403, body=KEY.encode()),
    "forbids": Reply(status=401, body=KEY.encode()),
    "limits": Reply(status=429, body=KEY.encode()),
    "fails": Reply(status=500, body=KEY.encode()),
    "is no HTTP": Reply(status=999),
    "is cut": Reply(headers={"Content-Length": "999999"}),
    "is too long": Reply(body=KEY.encode() * 1_000),
    "is badly packed": Reply(headers={"Content-Encoding": "gzip"}),
    "is oddly packed": Reply(headers={"Content-Encoding": KEY}),
    "is slow": Reply(hold=True),
}


@pytest.mark.parametrize(
    ("source", "provider"), [("file", "google"), ("environment", "google-new"), ("environment", "auto")]
)
def test_no_failure_of_places_shows_the_key(source: str, provider: str) -> None:
    with FakeGoogle() as google, herd_of([], "Clark", more="") as herd:
        google_herd(google, source, herd, provider)
        clark = herd["Clark"]
        clark.start()
        clark.wait_until_ready()
        clark.wait_for_event("places_opened")
        clark.hears(b"kiwi")
        answers = []
        for reply in FAILURES.values():
            google.reply = reply
            answers.append(clark.ask(b"WHATSAT kiwi 10 5"))
        google.release()
        assert len({one["status"] for one in clark.events("command", kind="whatsat")}) >= 4
        sent = [one.query.get("key") or one.headers.get("X-Goog-Api-Key") for one in google.requests]
        assert KEY in sent, "it was sent at all"
        assert_kept(herd, *answers)
        assert children(clark.pid) == []
        assert clark.stop() == 0
        assert_kept(herd)


@pytest.mark.parametrize("provider", ["google", "google-new"])
def test_neither_an_open_breaker_nor_a_budget_at_its_end_shows_the_key(provider: str) -> None:
    more = "breaker_failures = 2\nattempts = 1\nbreaker_seconds = 0.01\ncalls_per_minute = 9\n"
    with FakeGoogle(Reply(status=500, body=KEY.encode())) as google, herd_of([], "Clark", more="") as herd:
        google_herd(google, "environment", herd, provider, more)
        clark = herd["Clark"]
        clark.start()
        clark.wait_until_ready()
        clark.hears(b"kiwi")
        answers: list[bytes] = []
        wait_until(
            lambda: answers.append(clark.ask(b"WHATSAT kiwi 10 5")) or clark.events("places_spared"),  # type: ignore[func-returns-value]
            "the budget is spent",
        )
        assert clark.events("places_breaker", state="open")
        assert len(google.requests) == 9
        assert_kept(herd, *answers)


def asked_by_hand(herd: RunningHerd) -> bytes:
    """Return all that `proxyherd places` prints; what nobody caught would be a traceback."""
    command = ["--config", str(herd.file), "places", "1,1", "1", "--json"]
    result = CliRunner().invoke(cli.main, command, env={"GOOGLE_PLACES_API_KEY": None})
    assert result.exit_code in {0, 1}
    assert isinstance(result.exception, SystemExit | None), result.exc_info
    return result.output_bytes


@pytest.mark.parametrize("provider", ["google", "google-new", "auto"])
def test_asking_by_hand_shows_no_key(provider: str) -> None:
    with FakeGoogle() as google, herd_of([], "Clark", more="") as herd:
        google_herd(google, "file", herd, provider)
        printed = []
        for reply in FAILURES.values():
            google.reply = reply
            printed.append(asked_by_hand(herd))
        google.release()
        assert len(set(printed)) > 4
        assert_kept(herd, *printed)


def test_an_upstream_that_is_not_there_shows_no_key() -> None:
    with FakeGoogle() as google, herd_of([], "Clark", more="") as herd:
        google_herd(google, "environment", herd)
        herd.file.write_text(herd.file.read_text().replace(google.url, f"http://127.0.0.1:{free_port()}"))
        clark = herd["Clark"]
        clark.start()
        clark.wait_until_ready()
        clark.hears(b"kiwi")
        assert_kept(herd, clark.ask(b"WHATSAT kiwi 10 5"))


def test_no_bad_handshake_and_no_spoilt_file_at_sighup_shows_the_secret() -> None:
    tls = '[tls]\nclients_certificate = "c.pem"\nclients_key = "c.key"\n'
    with herd_of([("Ann", "Bob")], more=SOON + tls) as herd:
        commands = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -keyout c.key -out c.pem"
        subprocess.run(commands.split(), cwd=herd.file.parent, capture_output=True, check=True)
        bob, file = herd["Bob"], herd["Bob"].secret_file
        good = file.read_bytes()
        private = (herd.file.parent / "c.key").read_bytes()
        herd.start()
        herd.wait_until_whole()
        with socket.create_connection(("127.0.0.1", bob.peer_port)) as peer:
            peer.sendall(b"PROXYHERD 1 Ann Bob " + good.hex().encode() + b"\nPROOF " + b"5" * 64 + b"\n")
            heard = peer.makefile("rb").read()
        assert b"REFUSED" in heard
        for content in (good + b"\n", good[:31], b"", good.hex().encode(), KEY.encode()):
            file.write_bytes(content)
            hang_up(bob, "reload_failed")
        file.write_bytes(good)
        file.chmod(0o644)
        hang_up(bob, "reload_failed")
        file.unlink()
        hang_up(bob, "reload_failed")
        file.touch(0o600)
        file.write_bytes(good)
        shutil.copy(herd.file.parent / "c.key", herd.file.parent / "c.pem")
        hang_up(bob, "reload_failed")
        (herd.file.parent / "c.key").write_bytes(good)
        hang_up(bob, "reload_failed")
        (herd.file.parent / "c.key").unlink()
        (herd.file.parent / "c.pem").unlink()
        hang_up(bob, "reload_failed")
        bob_stays_linked = bob.links() == {"Ann"}
        assert bob_stays_linked
        body = b"".join(private.splitlines()[1:-1])
        assert_kept(herd, heard, also={good[:31], body[:40]})


@pytest.mark.parametrize("where", ["herd", "places.key_file", "secret", "unknown key"])
def test_no_mistake_in_configuration_shows_a_secret(where: str) -> None:
    with herd_of([], "Clark", more="") as herd:
        clark, text = herd["Clark"], herd.file.read_text()
        clark.environ["GOOGLE_PLACES_API_KEY"] = KEY + " \t" + KEY if where == "herd" else KEY
        if where == "places.key_file":
            (herd.folder / "key").write_text(f"{KEY} and {KEY}\n")
            herd.file.write_text(text + '[places]\nkey_file = "../key"\n')
        elif where == "secret":
            clark.secret_file.write_bytes(clark.secret_file.read_bytes().hex().encode())
        elif where == "unknown key":
            herd.file.write_text(text + '[places]\nkei = "x"\n')
        clark.start()
        if where in {"secret", "unknown key"}:
            assert clark.wait() == 2
        else:
            clark.wait_until_ready()
            clark.wait_for_event("places_key_unusable")
        also = {bytes.fromhex(clark.secret_file.read_text())} if where == "secret" else set()
        assert_kept(herd, clark.stderr().encode() + b".", b"", b"", b"", b"", b"", also=also)


FAULT = """
import sys
from proxyherd import cli
from proxyherd.config import secrets
from proxyherd.core import handshake
from proxyherd.engines.herd import peers
from proxyherd.places.google.calling import Caller
{fault}
sys.argv[0] = "proxyherd"
cli.main()
"""
FAULTS = {
    "a proof": "handshake.Handshake._proof = lambda self, role, secret: 1 / 0",
    "a query": "Caller.call = lambda self, *_, **__: self.key[1_000]",
    "a reload": "read, n = secrets.read_all, []\ndef again(path):\n n.append(1)\n if len(n) > 1: raise KeyError(read(path))\n return read(path)\nsecrets.read_all = again",
    "the start": "def read_all(path):\n raise RuntimeError('no reading')\nsecrets.read_all = read_all",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_of_the_program_shows_a_secret_in_its_traceback(fault: str) -> None:
    with FakeGoogle() as google, herd_of([("Ann", "Bob")], more=SOON) as herd:
        google_herd(google, "environment", herd)
        bob = herd["Bob"]
        bob.program = [sys.executable, "-c", FAULT.format(fault=FAULTS[fault])]
        herd["Ann"].start()
        herd["Ann"].wait_until_ready()
        bob.start()
        answers = []
        if fault == "the start":
            assert bob.wait() != 0
            assert "Traceback" in bob.stderr()
        else:
            bob.wait_until_ready()
            bob.hears(b"kiwi")
            answers.append(bob.ask(b"WHATSAT kiwi 10 5"))
            if fault == "a proof":
                wait_until(lambda: bob.events("internal_error"), "the fault is told")
            elif fault == "a reload":
                hang_up(bob, "internal_error")
            else:
                assert b"IndexError" in answers[0] or b"UNKNOWN_ERROR" in answers[0]
        assert_kept(herd, *answers, b"", b"", b"", b"", b"")


def test_a_server_leaves_no_core_dump() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    with herd_of([], "Clark", more="") as herd:
        clark = herd["Clark"]
        clark.program = [
            "sh",
            "-c",
            f'ulimit -S -c {"unlimited" if hard < 0 else hard}; exec "$@"',
            "sh",
            *clark.program,
        ]
        clark.start()
        clark.wait_until_ready()
        limits = Path(f"/proc/{clark.pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE), limits
        clark.signal(signal.SIGABRT)
        assert clark.wait() == -signal.SIGABRT
        assert not list(herd.folder.rglob("core*"))


def test_the_clients_of_a_server_never_see_its_secret_or_key() -> None:
    with FakeGoogle() as google, herd_of([], "Clark", more="") as herd:
        google_herd(google, "file", herd)
        clark = herd["Clark"]
        clark.start()
        clark.wait_until_ready()
        hostile = [
            b"",
            b"\0",
            os.urandom(64).replace(b"\n", b""),
            b"AT x",
            b"WHATSAT",
            b"key",
            b"secret",
            b"x" * 9_000,
        ]
        with Connection(clark.client_port) as client:
            answers = [client.ask(line) for line in hostile]
            answers.append(client.ask(b"IAMAT kiwi +1+1 " + now()))
            answers.append(client.ask(b"WHATSAT kiwi 10 5"))
        assert_kept(herd, *answers)
