"""Neighbours whose certificates have been revoked, and servers that have left the herd's file: real servers with real
certificates, made and revoked by the commands that docs/security.md gives.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
from collections.abc import Iterator

import pytest
from certificates import MAKE_AUTHORITY, MAKE_LIST, PAGE, issue, revoke, run
from herd_process import RunningHerd, ServerProcess, herd_of, wait_until

[TLS] = re.findall(r"^```toml\n(\[tls\].*?)^```", PAGE, re.DOTALL | re.MULTILINE)
[CRL] = re.findall(r"^```toml\n(peers_crl.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
PEERS = "".join(line + "\n" for line in TLS.splitlines() if not line.startswith("clients"))
SOON = "[timing]\nheartbeat_seconds = 0.5\nbackoff_seconds = 0.1\nready_seconds = 0.1\n"
EDGES = [("Ann", "Mid"), ("Bob", "Mid"), ("Mid", "Zed")]  # Ann and Bob dial Mid, Mid dials Zed
REVOKED = "shows a certificate that has been revoked"
ON_ASYNCIO = """
import runpy, sys

sys.modules["uvloop"] = None
sys.argv[0] = "proxyherd"
runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)
"""
LATE = (
    "openssl ca -config var/tls/crl.conf -gencrl -out var/tls/revoked.pem"
    " -crl_lastupdate 20190101000000Z -crl_nextupdate 20200101000000Z"
)


@pytest.fixture
def herd() -> Iterator[RunningHerd]:
    """Mid and its neighbours, linked by TLS, with an empty list."""
    with herd_of(EDGES, more=PEERS + CRL + SOON) as herd:
        run(MAKE_AUTHORITY, herd.folder)
        run(MAKE_LIST, herd.folder)
        for name in herd:
            issue(herd.folder, name)
        herd.start()
        herd.wait_until_whole()
        yield herd


def hang_up(server: ServerProcess, event: str = "reloaded") -> None:
    before = len(server.events(event))
    server.signal(signal.SIGHUP)
    wait_until(lambda: len(server.events(event)) > before, f"{server.name} logs {event}")


def restart(server: ServerProcess) -> None:
    server.kill()
    server.start()
    server.wait_until_ready()


def test_a_revoked_certificate_ends_its_link_and_opens_none_whoever_dials_and_a_new_one_does(
    herd: RunningHerd,
) -> None:
    mid, bob = herd["Mid"], herd["Bob"]
    for name, refuses in (("Ann", "peer_refused"), ("Zed", "peer_unreachable")):
        revoke(herd.folder, name)
        assert mid.links() == {"Ann", "Bob", "Zed"}, "until it is told"
        hang_up(mid)
        mid.wait_for_reason("peer_closed", f"{name} {REVOKED}")
        mid.wait_for_reason(refuses, f"{name} {REVOKED}")
        theirs = "peer_unreachable" if name == "Ann" else "peer_refused"
        herd[name].wait_for_reason(theirs, f"refused by the other: {name} {REVOKED}")
        assert mid.links() == {"Ann", "Bob", "Zed"} - {name}
        mid.program = [sys.executable, "-c", ON_ASYNCIO]  # Ann by uvloop, and Zed without
        restart(mid)
        mid.wait_until_linked("Bob")
        mid.wait_for_reason(refuses, f"{name} {REVOKED}")
        assert name not in mid.links()
        issue(herd.folder, name)
        hang_up(herd[name])
        herd.wait_until_whole()
    herd.wait_until_all_know(herd["Ann"].hears(b"kiwi"))
    assert len(bob.events("peer_closed")) == 2, "only when Mid was killed"


def test_a_list_that_is_late_holds_and_cuts_nobody_neither_at_sighup_nor_at_a_start(
    herd: RunningHerd,
) -> None:
    mid, ann = herd["Mid"], herd["Ann"]
    revoke(herd.folder, "Ann")
    run(LATE, herd.folder)
    hang_up(mid)
    told = mid.wait_for_event("crl_expired")
    assert told["level"] == "error"
    assert re.match(
        r"\S+/revoked\.pem: expired at 2020-01-01T00:00:00\+00:00; it holds until", told["reason"]
    )
    mid.wait_for_reason("peer_closed", f"Ann {REVOKED}")
    assert mid.metrics("proxyherd_crl")["proxyherd_crl_expires_timestamp_seconds"] == 1_577_836_800
    restart(mid)
    mid.wait_until_linked("Bob", "Zed")
    assert len(mid.events("crl_expired")) == 2
    ann.wait_for_reason("peer_unreachable", REVOKED)
    assert mid.links() == {"Bob", "Zed"}
    assert len(herd["Zed"].events("peer_closed")) == 1, "only when Mid was killed"


def test_a_list_that_is_broken_is_an_error_at_a_start_and_at_sighup_the_one_before_stays(
    herd: RunningHerd,
) -> None:
    mid, crl = herd["Mid"], herd.folder / "var/tls/revoked.pem"
    revoke(herd.folder, "Ann")
    hang_up(mid)
    mid.wait_for_reason("peer_closed", REVOKED)
    (herd.folder / "var/tls/spoilt.pem").write_bytes(crl.read_bytes()[:-30])
    with crl.open("ab") as file:
        file.write((herd.folder / "var/tls/spoilt.pem").read_bytes())
    hang_up(mid, "reload_failed")
    assert re.search(r"revoked\.pem: a list of revoked certificates is cut off", mid.reasons("reload_failed"))
    shutil.copy(herd.folder / "var/tls/authority.pem", crl)
    hang_up(mid, "reload_failed")
    assert re.search(r"revoked\.pem: no list of revoked certificates", mid.reasons("reload_failed"))
    mid.wait_for_reason("peer_refused", f"Ann {REVOKED}")
    mid.kill()
    mid.start()
    assert mid.wait() == 2
    assert "revoked.pem: no list of revoked certificates" in mid.stderr()
    assert "Traceback" not in mid.stderr()


def test_a_server_that_was_removed_from_the_file_gets_no_link_once_the_others_have_been_restarted(
    herd: RunningHerd,
) -> None:
    """Whatever its certificate is: not as itself, and not under the name of a server that has stayed."""
    mid, ann, bob = herd["Mid"], herd["Ann"], herd["Bob"]
    text = herd.file.read_text().replace('["Ann", "Mid"], ', "")
    herd.file.write_text(re.sub(r"^Ann = .*\n", "", text, flags=re.MULTILINE))
    assert "Ann" not in herd.file.read_text()
    hang_up(mid)
    assert "Ann" in mid.links(), "the herd's file is read at a start"
    restart(mid)
    mid.wait_for_reason("peer_refused", "Ann is no neighbour that dials Mid")
    ann.wait_for_reason("peer_unreachable", "refused by the other: Ann is no neighbour")
    assert bob.stop() == 0
    for kind in ("pem", "key"):
        shutil.copy(herd.folder / f"var/tls/Ann.{kind}", herd.folder / f"var/tls/Bob.{kind}")
    bob.start()
    mid.wait_for_reason("peer_refused", "Bob shows a certificate of Ann")
    assert mid.links() == {"Zed"}
