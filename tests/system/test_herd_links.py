"""Links between real processes: who is refused, what is lost and opened again, how floods cross them."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from herd_process import (
    PATIENCE_SECONDS,
    ROOT,
    ServerProcess,
    herd_of,
    running_herd,
    wait_until,
    write_secret,
)

from proxyherd.cli import main
from proxyherd.config import herd_file

HEARTBEAT_SECONDS = 0.5


def test_server_with_another_secret_is_refused_and_both_log_it() -> None:
    with herd_of([("Ann", "Bob"), ("Bob", "Cid")]) as herd:
        stranger = herd["Cid"]
        stranger.secret_file = herd.folder / "var/other-secret"
        write_secret(stranger.secret_file)
        herd.start()
        for server in herd.values():
            server.wait_until_ready()
        herd["Ann"].wait_until_linked("Bob")
        stranger.wait_for_event(
            "peer_refused",
            neighbour="Bob",
            level="warning",
            reason="Bob does not prove the herd's secret; has it another secret file?",
        )
        told = "refused by the other: Bob does not prove the herd's secret; has it another secret file?"
        herd["Bob"].wait_for_event("peer_unreachable", neighbour="Cid", level="warning", reason=told)
        said = CliRunner().invoke(main, ["status", "--config", str(herd.file)]).stderr
        assert f"Bob has no link with Cid ({told})" in said
        assert "Cid has no link with Bob (refused: Bob does not prove the herd's secret; " in said
        # What either side says stays on its side, and both serve.
        ours, theirs = herd["Ann"].hears(b"ours"), stranger.hears(b"theirs")
        herd["Bob"].wait_until_knows(ours)
        assert stranger.knows(b"ours") == b""
        assert herd["Bob"].knows(b"theirs") == b""
        assert stranger.knows(b"theirs") == theirs
        for server in herd.values():
            for secret in (herd.folder / "var/secret", stranger.secret_file):
                assert secret.read_bytes().hex() not in server.log_file.read_text()


def test_stranger_who_dials_with_another_secret_is_refused() -> None:
    """The other way round: the one with the wrong secret is the dialler, who proves first."""
    with herd_of([("Ann", "Bob")]) as herd:
        stranger = herd["Ann"]
        stranger.secret_file = herd.folder / "var/other-secret"
        write_secret(stranger.secret_file)
        herd.start()
        refused = herd["Bob"].wait_for_event("peer_refused", neighbour="Ann")
        assert "Ann does not prove the herd's secret" in refused["reason"]
        assert refused["address"] == "127.0.0.1"
        told = "refused by the other: Ann does not prove the herd's secret; has it another secret file?"
        stranger.wait_for_event("peer_unreachable", neighbour="Bob", reason=told)


def test_peer_port_believes_no_client() -> None:
    with running_herd([("Ann", "Bob")]) as herd:
        line = b"AT Ann +0.100000000 thief +1+1 5\n"
        with socket.create_connection(("127.0.0.1", herd["Bob"].peer_port), PATIENCE_SECONDS) as sock:
            sock.sendall(line + b"PROXYHERD 1 Ann Bob " + b"0" * 64 + b"\n" + line)
            with contextlib.suppress(ConnectionError):
                while sock.recv(4_096):
                    pass
        assert herd["Bob"].knows(b"thief") == b""
        assert herd["Bob"].links() == {"Ann"}
        herd["Bob"].wait_for_event("peer_refused")


def test_unproved_connection_displaces_no_link() -> None:
    with running_herd([("Ann", "Bob")]) as herd:
        with socket.create_connection(("127.0.0.1", herd["Bob"].peer_port), PATIENCE_SECONDS) as sock:
            sock.sendall(b"PROXYHERD 1 Ann Bob %b\n" % (b"ab" * 32))
            assert sock.recv(4_096).startswith(b"PROXYHERD 1 Bob Ann ")
            at = herd["Ann"].hears(b"kiwi")
            assert herd["Bob"].knows(b"kiwi") == at
            sock.sendall(b"PROOF %b\n" % (b"ab" * 32))
            assert sock.recv(4_096).startswith(b"REFUSED ")
        assert not herd["Bob"].events("peer_closed")
        assert len(herd["Bob"].events("peer_opened")) == 1


def test_silent_neighbour_is_dropped_in_three_heartbeats_and_linked_again_when_it_wakes() -> None:
    with running_herd([("Ann", "Bob"), ("Bob", "Cid"), ("Ann", "Cid")]) as herd:
        ann, bob, cid = herd.values()
        bob.freeze()
        frozen_at = time.time()
        for other in (ann, cid):
            closed = other.wait_for_event("peer_closed", neighbour="Bob")
            assert closed["reason"] == "silent for 1.5 s"
            silence = datetime.fromisoformat(closed["timestamp"]).timestamp() - frozen_at
            assert (
                silence > 2 * HEARTBEAT_SECONDS
            )  # and how much at most: test_link.py, where clocks are virtual
            assert other.links() == {"Ann", "Cid"} - {other.name}
        missed = ann.hears(b"missed")
        cid.wait_until_knows(missed)
        bob.thaw()
        herd.wait_until_whole()
        bob.wait_until_knows(missed)


def test_link_of_a_dialler_that_starts_anew_is_opened_again_and_all_is_logged() -> None:
    with running_herd([("Ann", "Bob")]) as herd:
        ann, bob = herd.values()
        ann.kill()
        bob.wait_for_event("peer_closed", neighbour="Ann", level="warning")
        ann.start()
        herd.wait_until_whole()
        opened = bob.events("peer_opened", neighbour="Ann")
        assert [one["dialled"] for one in opened] == [False, False]
        assert [one["dialled"] for one in ann.events("peer_opened", neighbour="Bob")] == [True, True]
        bob.stop()
        closed = ann.wait_for_event("peer_closed", neighbour="Bob")
        assert closed["reason"] == "closed by the neighbour"


def test_flood_crosses_each_link_at_most_twice_and_ends() -> None:
    edges = [("Ann", "Bob"), ("Bob", "Cid"), ("Ann", "Cid"), ("Cid", "Dot"), ("Ann", "Dot")]
    with running_herd(edges) as herd:
        observed = 0.0
        for number in range(20):
            began = time.monotonic()
            herd.wait_until_all_know(herd["Ann"].hears(b"client%d" % number))
            observed += time.monotonic() - began

        def crossed(direction: str) -> Counter[tuple[str, str]]:
            """How many updates each server sent to each neighbour, or heard from it: sender, and receiver."""
            counts: Counter[tuple[str, str]] = Counter()
            for server in herd.values():
                for name, value in server.metrics("proxyherd_flood_updates_total").items():
                    if f'direction="{direction}"' in name:
                        wire = server.name, name.split('neighbour="')[1].split('"')[0]
                        counts[wire if direction == "out" else wire[::-1]] += int(value)
            return counts

        wait_until(
            lambda: crossed("in") == crossed("out"), "all copies have arrived"
        )  # some wait for company
        first = crossed("in")
        herd["Bob"].ask(b"FOO")
        assert crossed("out") == crossed("in") == first
        for server in herd.values():
            figures = server.metrics("proxyherd_propagation_seconds")
            assert figures["proxyherd_propagation_seconds_count"] == (0 if server.name == "Ann" else 20)
            assert (
                figures["proxyherd_propagation_seconds_sum"] < observed
            )  # each flood ended while it was observed
        for one, other in edges:
            assert 20 <= first.get((one, other), 0) + first.get((other, one), 0) <= 40


@pytest.mark.parametrize("year", ["2015", "2017"])
def test_herd_of_another_year_comes_up_linked_and_floods(year: str) -> None:
    source = (ROOT / f"deploy/topologies/{year}.toml").read_text()
    graph = herd_file.parse(source, Path(f"{year}.toml"))
    with herd_of(graph.edges) as herd:
        moved = re.sub(
            r"(\w+) = \{ clients = .* \}",
            lambda match: addresses(herd[match[1]]),
            source,
        )
        herd.file.write_text(moved)
        herd.start()
        herd.wait_until_whole()
        at = herd[min(herd)].hears(b"kiwi")
        herd.wait_until_all_know(at)


def addresses(server: ServerProcess) -> str:
    ports = (server.client_port, server.peer_port, server.admin_port)
    clients, peers, admin = (f'"127.0.0.1:{port}"' for port in ports)
    return f"{server.name} = {{ clients = {clients}, peers = {peers}, admin = {admin} }}"
