"""Tokens, on real servers: who is let in, what strangers reach, how keys change, and that nothing writes a token down."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import engines
import httpx
import pytest
from attackers import MOST_P99_SECONDS, Reporter, attack
from click.testing import CliRunner
from herd_process import (
    ROOT,
    RunningHerd,
    ServerProcess,
    Stopwatch,
    herd_of,
    listens,
    wait_until,
    write_secret,
)
from page_commands import carry_out, stand_in
from page_examples import blocks
from redis_cluster import Cluster
from tokens import PRIVATE, PUBLIC_PEM, basic, parts_of, spelled
from web_wire import JSON, LINES, frame, websocket

from proxyherd import cli
from proxyherd.config.token_keys import TokenKey
from proxyherd.web.access import LEEWAY_SECONDS
from proxyherd.web.tokens import make_token

MORE = """
[web]
[auth]
web = "jwt"
keys = ["../var/token-key", "issuer.pem"]
"""
HOUR = 3_600
ANSWERS = 150
"""Reports of a client that behaves while an attack goes on."""

REPORT = {"lat": 1, "lon": 2}


@contextmanager
def started(more: str = MORE) -> Iterator[RunningHerd]:
    """Run Clark with these keys, until the body ends."""
    with herd_of([], "Clark", more=more) as herd:
        write_secret(herd.folder / "var/token-key")
        (herd.folder / "deploy/issuer.pem").write_bytes(PUBLIC_PEM)
        herd.start()
        herd["Clark"].wait_until_ready()
        herd["Clark"].wait_for_web()
        assert herd["Clark"].events("token_keys_read", keys=2)
        yield herd
        assert herd["Clark"].stop() == 0
        assert herd["Clark"].stderr() == ""


@pytest.fixture(scope="module")
def herd() -> Iterator[RunningHerd]:
    with started() as found:
        yield found


@pytest.fixture
def clark(herd: RunningHerd) -> ServerProcess:
    return herd["Clark"]


def run(herd: RunningHerd, *arguments: str) -> str:
    result = CliRunner().invoke(cli.main, ["--config", str(herd.file), "token", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def token(herd: RunningHerd, subject: str, may: str = "report,see", *more: str) -> str:
    return run(herd, "new", "--sub", subject, "--may", may, *more)


def later_token(herd: RunningHerd, subject: str) -> str:
    """Return a token that no revocation of up to now touches. It is good in a second: its maker's clock is ahead."""
    issued = int(time.time()) + LEEWAY_SECONDS + 1
    key = TokenKey("HS256", (herd.folder / "var/token-key").read_bytes())
    return make_token(key, subject, ["report", "see"], None, issued, issued + HOUR)


def ask(clark: ServerProcess, method: str, path: str, spelling: str = "", **more: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {spelling}"} if spelling else {}
    url = f"http://127.0.0.1:{clark.web_port}{path}"
    # The certificates of all authorities would take a tenth of a second to read, each time.
    return httpx.request(method, url, headers=headers, verify=False, **more)  # type: ignore[arg-type]


def report(clark: ServerProcess, client: str, spelling: str = "") -> int:
    return ask(clark, "PUT", f"/v1/clients/{client}", spelling, json=REPORT).status_code


def hang_up(server: ServerProcess, event: str = "reloaded") -> dict[str, object]:
    before = len(server.events(event))
    server.signal(signal.SIGHUP)
    wait_until(lambda: len(server.events(event)) > before, f"{server.name} logs {event}")
    found: dict[str, object] = server.events(event)[-1]
    return found


# What strangers reach. ----------------------------------------------------------------------------------------


def test_a_stranger_neither_reports_nor_sees_anybody(herd: RunningHerd, clark: ServerProcess) -> None:
    jane, mallory = token(herd, "jane"), token(herd, "mallory/*")
    assert report(clark, "jane", jane) == 200
    seen = ask(clark, "GET", "/v1/clients/jane", jane).json()
    forged = spelled({"alg": "none"}, {"sub": "*", "may": ["report"], "iat": 0, "exp": 9**9}) + "."
    for stranger, status in (("", 401), (forged, 401), (mallory, 403)):
        assert report(clark, "jane", stranger) == status
    for path in ("/osmand?id=jane&lat=3&lon=4", "/gpslogger?id=jane&lat=3&lon=4&timestamp=1"):
        assert ask(clark, "GET", path).status_code == 401
        assert ask(clark, "GET", f"/t/{mallory}{path}").status_code == 200
    consumed = clark.metrics("proxyherd_web_consumed_total")
    assert sum(count for name, count in consumed.items() if "denied" in name) == 2
    assert ask(clark, "GET", "/v1/clients/jane", jane).json() == seen
    # Known, unknown, and for places, which are not asked: the same answer.
    hidden = [
        ask(clark, "GET", f"/v1/clients/{client}{rest}", mallory)
        for client in ("jane", "nobody", "mallory%2Fnobody")
        for rest in ("", "/places?radius_km=10&limit=5")
    ]
    assert {(one.status_code, one.content) for one in hidden} == {(404, hidden[0].content)}
    assert {*hidden[0].headers} == {*hidden[-1].headers}
    around = [
        ask(clark, "GET", f"/v1/near?client={client}", mallory) for client in ("jane", "mallory%2Fnobody")
    ]
    assert {(one.status_code, one.content) for one in around} == {(404, hidden[0].content)}
    everywhere = "/v1/within?west=-180&south=-90&east=180&north=90"
    assert ask(clark, "GET", everywhere, mallory).json()["clients"] == []
    assert [one["client"] for one in ask(clark, "GET", everywhere, jane).json()["clients"]] == ["jane"]
    assert ask(clark, "GET", everywhere, token(herd, "jane", "report")).status_code == 403
    assert ask(clark, "GET", everywhere).status_code == 401


ATTACKS = {
    "reports_for_jane": 'proxyherd_web_answers_total{status="403"}',
    "forged_tokens": 'proxyherd_web_tokens_refused_total{reason="signature"}',
    "asks_for_jane": 'proxyherd_web_answers_total{status="404"}',
}
"""What a stranger does all the time, and the metric that counts its refusals."""


@pytest.mark.parametrize("name", ATTACKS)
def test_a_stranger_who_tries_it_all_the_time_gets_nowhere_and_delays_nobody(
    name: str, herd: RunningHerd, clark: ServerProcess
) -> None:
    jane, bob = token(herd, "jane"), token(herd, "bob")
    # A signature of Ed25519 costs a server most.
    hers = issued(herd, "jane" if name == "forged_tokens" else "mallory")
    assert report(clark, "jane", jane) == 200
    seen = ask(clark, "GET", "/v1/clients/jane", jane).json()
    refused = ATTACKS[name]
    before, watch = clark.metrics()[refused], Stopwatch(clark.pid)
    with attack(name, clark.web_port, token=hers), Reporter(clark, "bob", bob) as client:
        wait_until(lambda: clark.metrics()[refused] > before + 100, "the attack has begun")
        for _ in range(ANSWERS):
            assert watch.ask(client, b'{"lat":1,"lon":2}') == b"HTTP/1.1 200 OK\r\n"
            time.sleep(0.001)  # leaves the attack its turns
        assert ask(clark, "GET", "/v1/clients/jane", jane).json() == seen
    assert watch.p99 < MOST_P99_SECONDS
    assert not clark.events("internal_error")


def test_a_websocket_of_a_stranger_is_closed_and_that_of_another_is_bounded(
    herd: RunningHerd, clark: ServerProcess
) -> None:
    jane, mallory = token(herd, "jane"), token(herd, "mallory")
    assert report(clark, "jane", jane) == 200
    for headers in ((), ("Authorization: Bearer x.y.z",)):
        with websocket(clark, LINES, *headers) as wire:
            opcode, close = wire.message()
            assert (opcode, close[:2]) == (8, (4401).to_bytes(2, "big"))
    with websocket(clark, LINES, f"Authorization: Bearer {mallory}") as wire:
        lines = b"IAMAT jane +3+4 1\nIAMAT mallory +3+4 1\nWHATSAT jane 10 5\nWHATSAT nobody 10 5\n"
        wire.socket.sendall(frame(lines))
        came = b""
        while came.count(b"\n") < 4:
            came += wire.message()[1]
        assert came.startswith(b"? IAMAT jane +3+4 1\nAT Clark ")
        assert came.endswith(b"\n? WHATSAT jane 10 5\n? WHATSAT nobody 10 5\n")
    with websocket(clark, JSON, f"Authorization: {basic('', mallory)}") as wire:
        wire.socket.sendall(frame(json.dumps({"op": "locate", "client": "jane"}).encode()))
        assert json.loads(wire.message()[1])["problem"]["status"] == 404


def test_the_log_and_the_metrics_say_who_was_let_in_and_who_was_not(
    herd: RunningHerd, clark: ServerProcess
) -> None:
    before = clark.metrics()
    good = token(herd, "audited/phone")
    assert report(clark, "audited%2Fphone", good) == 200
    assert report(clark, "audited%2Fphone", f"{good[:-8]}AAAAAAAA") == 401
    used = clark.wait_for_event("token_used", subject="audited/phone")
    assert (used["via"], used["key"]) == ("http", run_key(herd, good))
    for name, count in {
        'proxyherd_web_tokens_refused_total{reason="signature"}': 1,
        'proxyherd_web_answers_total{status="401"}': 1,
    }.items():
        assert clark.metrics()[name] == before[name] + count
    clark.wait_for_reason("token_refused", "signature")


def run_key(herd: RunningHerd, spelling: str) -> str:
    file = herd.folder / "phone.token"
    file.write_text(f"{spelling}\n")
    try:
        rows = dict(line.split(None, 1) for line in run(herd, "verify", str(file)).splitlines())
    finally:
        file.unlink()
    return rows["key"]


# Keys. --------------------------------------------------------------------------------------------------------


STEPS = [
    block.text
    for block in blocks(ROOT / "docs/security.md")
    if block.kind == "sh" and "token-key" in block.text and "HUP" in block.text
]


def test_the_documented_steps_change_the_key_and_a_websocket_lives_as_long_as_its_key() -> None:
    assert len(STEPS) == 3
    with started() as herd:
        clark, file = herd["Clark"], herd.folder / "var/token-key"
        stand_in(herd.folder)
        old = token(herd, "jane")
        with websocket(clark, LINES, f"Authorization: Bearer {old}") as wire:
            carry_out(STEPS[0], herd.folder)
            assert hang_up(clark)["token_keys"] == 3
            new = token(herd, "jane", "report", "--key", f"{file}.next")
            assert report(clark, "jane", new) == 200
            carry_out(STEPS[1], herd.folder)
            hang_up(clark)
            assert [report(clark, "jane", one) for one in (old, new, token(herd, "jane"))] == [200] * 3
            wire.socket.sendall(frame(b"IAMAT jane +1+2 1"))
            assert wire.message()[1].startswith(b"AT Clark ")
            carry_out(STEPS[2], herd.folder)
            assert hang_up(clark)["token_keys"] == 2
            opcode, close = wire.message()
            assert (opcode, close[:2]) == (8, (4401).to_bytes(2, "big"))
        assert [report(clark, "jane", one) for one in (old, new)] == [401, 200]
        # One that cannot be read changes nothing.
        (herd.folder / "deploy/issuer.pem").write_bytes(b"hunter2")
        assert "hunter2" not in str(hang_up(clark, "reload_failed")["reason"])
        assert report(clark, "jane", new) == 200


def test_a_server_without_its_keys_starts_and_lets_nobody_in_until_it_has_them() -> None:
    """And its line port can be off."""
    with herd_of([], "Clark", more=f'{MORE}lines = "off"\n') as herd:
        clark = herd["Clark"]
        clark.start()
        clark.wait_until_ready()
        clark.wait_for_web()
        assert "token-key" in str(clark.wait_for_event("token_keys_unusable")["reason"])
        assert not listens(clark.client_port)
        assert report(clark, "jane", "x.y.z") == 503
        assert ask(clark, "GET", "/").status_code == 200
        write_secret(herd.folder / "var/token-key")
        (herd.folder / "deploy/issuer.pem").write_bytes(PUBLIC_PEM)
        hang_up(clark)
        assert report(clark, "jane", token(herd, "jane")) == 200
        assert clark.stop() == 0


# Revocation. --------------------------------------------------------------------------------------------------


def test_a_revoked_subject_is_let_in_nowhere_and_a_restart_does_not_bring_it_back() -> None:
    with herd_of([("Bona", "Clark")], more=MORE) as herd:
        write_secret(herd.folder / "var/token-key")
        (herd.folder / "deploy/issuer.pem").write_bytes(PUBLIC_PEM)
        herd.start()
        herd.wait_until_whole()
        bona, clark = herd["Bona"], herd["Clark"]
        bona.wait_for_web()
        clark.wait_for_web()
        old, other, operator = token(herd, "jane"), token(herd, "jane/*"), token(herd, "boss", "operate")
        assert report(bona, "jane", old) == 200
        assert ask(clark, "DELETE", "/v1/tokens/jane", other).status_code == 403
        revoked = ask(clark, "DELETE", "/v1/tokens/nobody", operator)
        assert (revoked.status_code, [*revoked.json()]) == (202, ["revoked_at"])
        with websocket(bona, LINES, f"Authorization: Bearer {old}") as wire:
            assert "revoked herd-wide" in run(herd, "revoke", "jane", "--server", "Clark")
            assert report(clark, "jane", old) == 401
            wait_until(lambda: report(bona, "jane", old) == 401, "Bona knows")
            wire.socket.sendall(frame(b"IAMAT jane +1+2 1"))
            while (message := wire.message())[0] != 8:
                assert message[1] == b"? IAMAT jane +1+2 1\n"
            assert message[1][:2] == (4401).to_bytes(2, "big")
        assert report(bona, "jane%2Fphone", other) == 200
        # A command that may read the key needs no token.
        erased = CliRunner().invoke(cli.main, ["--config", str(herd.file), "forget", "jane/phone", "--yes"])
        assert (erased.exit_code, erased.stdout) == (0, "1 client erased herd-wide\n")
        assert ask(bona, "GET", "/v1/clients/jane%2Fphone", other).status_code == 404
        later = later_token(herd, "jane")
        wait_until(lambda: report(bona, "jane", later) == 200, "a later token is good")
        clark.wait_for_reason("token_refused", "revoked")
        assert "jane" not in str(clark.events("command", kind="forget"))
        for server in (bona, clark):
            server.kill()
        clark.start()
        clark.wait_until_ready()
        clark.wait_for_web()
        assert [report(clark, "jane", one) for one in (old, later)] == [401, 200]


@engines.ON_REDIS
def test_a_server_in_front_of_redis_asks_who_was_revoked(cluster: Cluster) -> None:
    """Also one that has not seen the subject before, and one that was told nothing."""
    with herd_of([], "Bona", "Clark", more=MORE, cluster=cluster) as herd:
        write_secret(herd.folder / "var/token-key")
        (herd.folder / "deploy/issuer.pem").write_bytes(PUBLIC_PEM)
        herd.start()
        for server in herd.values():
            server.wait_until_ready()
            server.wait_for_web()
        bona, clark = herd["Bona"], herd["Clark"]
        subject = f"jane-{clark.pid}"
        old, operator = token(herd, subject), token(herd, "boss", "operate")
        assert [report(server, subject, old) for server in (bona, clark)] == [200, 200]
        assert ask(clark, "DELETE", f"/v1/tokens/{subject}", operator).status_code == 202
        for server in (bona, clark):
            wait_until(lambda it=server: report(it, subject, old) == 401, "it knows")  # type: ignore[misc]
        later = later_token(herd, subject)
        wait_until(lambda: report(bona, subject, later) == 200, "a later token is good")
        assert ask(bona, "GET", f"/v1/clients/{subject}", later).status_code == 200
        assert not bona.events("internal_error")


# Written down nowhere. ----------------------------------------------------------------------------------------


def everything(herd: RunningHerd) -> Iterator[tuple[str, bytes]]:
    """Yield all that Clark has written or shows."""
    for file in herd.folder.rglob("*"):
        if file.is_file():
            yield str(file), file.read_bytes()
    clark = herd["Clark"]
    for path in ("/", "/metrics", "/healthz", "/readyz", "/state"):
        yield path, clark.get(path)[1].encode()
    for what in ("cmdline", "environ"):
        yield what, Path(f"/proc/{clark.pid}/{what}").read_bytes()


def test_no_token_is_written_down_wherever_it_was_sent(herd: RunningHerd, clark: ServerProcess) -> None:
    """Good and bad ones; in each place where one belongs, and in some where none does."""
    good = token(herd, "jane")
    signed = issued(herd, "jane")
    foreign = spelled({"alg": "HS256"}, {"sub": "jane", "may": ["see"], "iat": 1, "exp": 2}, b"x" * 32)
    sent = [good, signed, good[:-2], f"{good}AAAA", foreign, good.replace(".", ".!")]
    answers: list[bytes] = []
    for spelling in sent:
        answers += [
            one.content + repr(one.headers).encode()
            for one in (
                ask(clark, "PUT", "/v1/clients/jane", spelling, json=REPORT),
                ask(clark, "PUT", "/v1/clients/jane", spelling, content=b"{"),
                ask(clark, "GET", f"/t/{spelling}/v1/clients/jane"),
                ask(clark, "GET", f"/t/{spelling}/v1/clients/bob"),
                ask(clark, "GET", f"/t/{spelling}/osmand?lat=1&lon=2"),
                ask(clark, "GET", f"/t/{spelling}/"),
                ask(clark, "GET", f"/t/{spelling}"),
                ask(clark, "GET", f"/v1/t/{spelling}/x"),
                ask(clark, "GET", f"/v1/openapi.json?token={spelling}"),
                ask(clark, "DELETE", f"/t/{spelling}/v1/reports"),
                ask(clark, "POST", "/owntracks", auth=("jane", spelling), content=b"{"),
            )
        ]
        with websocket(clark, LINES, f"Authorization: Bearer {spelling}") as wire:
            wire.socket.sendall(frame(b"IAMAT jane +1+2 1") + frame(b"\xff", 8))
            answers.append(wire.message()[1])
    assert clark.events("token_used", subject="jane")
    wait_until(lambda: len(clark.events("client_closed")) > len(sent), "the log is written")
    hidden = parts_of(sent)
    found = [*everything(herd), *((f"answer {number}", answer) for number, answer in enumerate(answers))]
    assert len(found) > 50
    assert [(where, part) for where, content in found for part in hidden if part in content] == []


def issued(herd: RunningHerd, subject: str) -> str:
    """Return a token by the issuer, who signs with Ed25519."""
    file = herd.folder / "issuer-private.pem"
    file.write_bytes(private_pem())
    try:
        return token(herd, subject, "report", "--key", str(file))
    finally:
        file.unlink()


def private_pem() -> bytes:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
