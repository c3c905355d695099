"""TLS to the nodes of a cluster: which certificates are accepted, and what is shown. Nodes are of this process, and
certificates openssl's.
"""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from debian import needs
from redis_node import connect, play, view

pytestmark = needs("openssl")

SIGNED = [b"OK", b"OK"]


def make(folder: Path, name: str, subject: str, signer: str = "") -> None:
    """Make a certificate and its key, signed by itself or by another one."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    by = ["-CA", f"{signer}.pem", "-CAkey", f"{signer}.key", "-addext", f"subjectAltName={subject}"]
    subprocess.run(
        ["openssl", "req", "-x509", *key, *files, "-subj", f"/CN={name}", *(by if signer else ())],
        cwd=folder,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hold two authorities, ours and the world's, and what they have signed."""
    folder = tmp_path_factory.mktemp("tls")
    for authority in ("ours", "world"):
        make(folder, authority, "")
        make(folder, f"node-of-{authority}", "IP:127.0.0.1", authority)
    make(folder, "elsewhere", "IP:127.0.0.2", "ours")
    make(folder, "server", "DNS:server", "ours")
    return folder


def node(folder: Path, name: str, *, asks: bool = False) -> ssl.SSLContext:
    """Return how a node speaks TLS that has this certificate, and `asks` for one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    if asks:
        context.load_verify_locations(folder / "ours.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def use(folder: Path, name: str, *, asks: bool = False, **settings: Any) -> Any:
    found, _, _ = play(
        connect, folder=folder, context=node(folder, name, asks=asks), tls_authority="ours.pem", **settings
    )
    return found


def test_a_node_that_our_authority_has_signed_is_used(folder: Path) -> None:
    assert use(folder, "node-of-ours") == SIGNED


@pytest.mark.parametrize("name", ["node-of-world", "elsewhere", "ours"])
def test_another_authority_and_another_address_are_not_believed_though_the_system_trusts_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "world.pem"))
    assert "certificate verify failed" in str(use(folder, name))


def test_servers_show_their_certificate_to_a_node_that_asks_for_one(folder: Path) -> None:
    chain = {"tls_certificate": "server.pem", "tls_key": "server.key"}
    assert use(folder, "node-of-ours", asks=True, **chain) == SIGNED
    assert use(folder, "node-of-ours", asks=True) != SIGNED


def test_certificates_are_read_for_each_connection(folder: Path, tmp_path: Path) -> None:
    authority = tmp_path / "ours.pem"

    async def twice(node: Any, opener: Any, address: Any) -> list[object]:
        authority.write_bytes((folder / "world.pem").read_bytes())
        with pytest.raises(opener.library.errors):
            await connect(node, opener, address)
        authority.write_bytes((folder / "ours.pem").read_bytes())
        return [await connect(node, opener, address), await view(node, opener, address)]

    found, _, _ = play(twice, folder=tmp_path, context=node(folder, "node-of-ours"), tls_authority="ours.pem")
    assert found[0] == SIGNED
