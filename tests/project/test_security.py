"""Claims of docs/security.md that no other suite holds: what strangers learn, what clients share, what leaves the disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from deciding import decide
from fake_google import FakeGoogle, Reply
from herd_process import Connection, now, running_server, wait_until

from proxyherd.config.schema import Limits, Timing
from proxyherd.core.handshake import NONCE_BYTES, State, Terms
from proxyherd.core.link import Link
from proxyherd.core.messages import parse_at
from proxyherd.core.node import Node
from proxyherd.core.table import Table
from proxyherd.engines.herd.journal import Journal, files, read

SECOND = 10**9
SECRET, NONCE, OTHER_NONCE = b"s" * 32, b"\x01" * NONCE_BYTES, "2" * 2 * NONCE_BYTES
TERMS = Terms(
    "Bob",
    frozenset({"Ann", "Dan"}),
    (SECRET,),
    line_bytes=8_448,
    heartbeat=0.5,
    handshake=1.0,
    lead=SECOND,
    fingerprint=b"0" * 16,
)


def alone(**limits: int) -> Node:
    """Return a server without neighbours."""
    return Node("Clark", Table(b"k" * 32), Limits(**limits), Timing(), alone=True, now=0)  # type: ignore[arg-type] # numbers all


# --- what a stranger learns at the peer port


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("PROXYHERD 1 Ann Bob {nonce}", "PROXYHERD 1 Bob Ann {own}"),  # Ann is a neighbour
        (
            "PROXYHERD 1 Eve Bob {nonce}",
            "REFUSED Eve is no neighbour that dials Bob; see edges in the herd's file",
        ),
        (
            "PROXYHERD 1 Dan Bob {nonce}",
            "REFUSED Dan is no neighbour that dials Bob; see edges in the herd's file",
        ),
        (
            "PROXYHERD 1 Ann Eve {nonce}",
            "REFUSED it looks for Eve, this is Bob; do both read the same herd's file?",
        ),
        (
            "PROXYHERD 9 Ann Bob {nonce}",
            "REFUSED Ann speaks versions 9 of the peer protocol, this server 2,1",
        ),
        ("PROXYHERD 1 Ann Bob 5", "REFUSED its nonce is not of the form"),
        ("AT Ann +0.1 thief +1+1 5", ""),
        ("BEAT", ""),
        ("GET / HTTP/1.1", ""),
    ],
)
def test_a_stranger_learns_the_servers_name_its_dialling_neighbours_and_versions_and_nothing_else(
    said: str, told: str
) -> None:
    link = Link(TERMS, dial=None, nonce=NONCE, now=0)
    assert link.data_to_send(0) == b""  # nothing before it is spoken to
    link.receive_data(said.format(nonce=OTHER_NONCE).encode() + b"\n", 0)
    assert link.events(100) == []
    expected = told.format(own=NONCE.hex())
    assert link.data_to_send(0).decode() == (expected + "\n" if expected else "")


def test_a_stranger_without_the_secret_is_told_that_and_no_more() -> None:
    link = Link(TERMS, dial=None, nonce=NONCE, now=0)
    proof = "0" * 64
    link.receive_data(
        f"PROXYHERD 1 Ann Bob {OTHER_NONCE}\nPROOF {proof}\nAT Ann +0.1 thief +1+1 5\n".encode(), 0
    )
    assert link.events(100) == []
    greeting, refusal, rest = link.data_to_send(0).decode().split("\n")
    assert greeting == f"PROXYHERD 1 Bob Ann {NONCE.hex()}"
    assert refusal == "REFUSED Ann does not prove the herd's secret; has it another secret file?"
    assert rest == ""
    assert link.state is State.CLOSED


# --- what clients share


def test_clients_share_the_table_which_one_of_them_can_fill_and_known_clients_are_served_on() -> None:
    node = alone(max_clients=2)
    outcomes = [decide(node, b"IAMAT c%d +1+1 5" % number, 9 * SECOND).outcome for number in range(3)]
    assert outcomes == ["stored", "stored", "refused"]
    assert decide(node, b"IAMAT c1 +1+1 6", 9 * SECOND).outcome == "stored"


def test_clients_share_names_but_a_report_from_the_future_locks_its_client_out_for_a_second_only() -> None:
    node = alone()
    assert decide(node, b"IAMAT kiwi +0+0 999999999999", 9 * SECOND).outcome == "stored"
    assert decide(node, b"IAMAT kiwi +1+1 9.999999999", 10 * SECOND).outcome == "stale"
    assert decide(node, b"IAMAT kiwi +1+1 10.000000001", 10 * SECOND + 1).outcome == "stored"
    found = decide(node, b"WHATSAT kiwi 0 0", 11 * SECOND)
    assert found.answer is not None
    assert found.answer.startswith(b"AT Clark +0.000000000 kiwi +1+1 10.000000001\n")


# --- what is written down, and for how long


def test_entries_that_expire_leave_the_disk_when_the_journal_is_written_anew(tmp_path: Path) -> None:
    node, folder = alone(max_age_seconds=10), tmp_path / "journal"
    lines = [b"AT Clark +%d.000000000 kiwi%d +1+1 80" % (number, number) for number in (9, 15)]
    journal = Journal(folder, line_bytes=8_448, rewrite_bytes=1 << 20)
    journal.start()
    assert journal.append(lines)
    node.rules.clock = 100 * SECOND  # what was received before second 90 is too old
    node.replay(map(parse_at, lines))
    rewrite = journal.begin_rewrite()
    assert rewrite is not None
    rewrite.write(node.table.lines(0, node.table.leaf_count, 1 << 20)[0])
    rewrite.finish()
    journal.close()
    assert [line for file in files(folder) for found in read(file) for line in found] == lines[1:]
    assert not any(b"kiwi9" in file.read_bytes() for file in folder.iterdir())


def test_what_google_sent_is_neither_logged_nor_kept() -> None:
    sent = b'{"html_attributions": [], "results": [{"name": "A-rare-place"}], "status": "OK"}'
    with FakeGoogle(Reply(sent)) as google:
        settings = f'[places]\nprovider = "google"\nbase_url = "{google.url}"\n'
        with running_server(more=settings, environ={"GOOGLE_PLACES_API_KEY": "a-throwaway-key"}) as server:
            server.ask(b"IAMAT kiwi +1+1 " + now())
            with Connection(server.client_port) as client:
                client.send(b"WHATSAT kiwi 10 5")
                client.line()
                assert b"A-rare-place" in client.line()
            assert server.stop() == 0
            wait_until(lambda: server.events("places"), "the call is logged")
            written = [file for file in server.state.parent.parent.rglob("*") if file.is_file()]
            assert len(written) > 3
            assert not [file for file in written if b"A-rare-place" in file.read_bytes()]
