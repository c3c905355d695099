"""What a server reads again at SIGHUP: each kind on its own."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from msgspec.structs import replace

from proxyherd.config import herd_file
from proxyherd.config import secrets as secret
from proxyherd.config.errors import ConfigError
from proxyherd.config.secrets import Secrets
from proxyherd.config.token_keys import TokenKey
from proxyherd.net import tls
from proxyherd.net.certificates import CertificateExpiry, CertificateUse
from proxyherd.net.crl import RevokedCertificates
from proxyherd.net.tls import Contexts
from proxyherd.server import credentials
from proxyherd.server.credentials import Credentials, read_again

KINDS = ("certificates for clients", "certificates for peers", "revoked", "secrets", "token keys")
HERD = """
[servers.Bob]
clients = "127.0.0.1:1"
peers = "127.0.0.1:2"
admin = "127.0.0.1:3"
"""


def made(number: int) -> Credentials:
    lists = RevokedCertificates(Path("crl"), float(number), frozenset())
    data = bytes([number])
    return Credentials(Secrets(data, (data,), data), Contexts(revoked=lists), [TokenKey("HS256", data)])


@pytest.mark.parametrize("broken", [(), *((kind,) for kind in KINDS), KINDS])
def test_what_cannot_be_read_keeps_the_earlier_one_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: tuple[str, ...]
) -> None:
    old, new = made(1), made(2)

    def reads(kind: str, found: object) -> object:
        def read(*_: object, **__: object) -> object:
            if kind in broken:
                raise ConfigError(f"the {kind} are broken")
            return found

        return read

    for whom in ("clients", "peers"):
        monkeypatch.setattr(tls, f"load_{whom}", reads(f"certificates for {whom}", new.contexts))
    monkeypatch.setattr(tls, "load_revoked", reads("revoked", new.contexts.revoked))
    monkeypatch.setattr(secret, "read_all", reads("secrets", new.secrets))
    monkeypatch.setattr(credentials, "read_keys", reads("token keys", new.token_keys))
    (tmp_path / "herd.toml").write_text(HERD)
    found, failures = read_again(herd_file.load(tmp_path / "herd.toml"), "Bob", tmp_path, old)
    assert failures == [f"the {kind} are broken" for kind in broken]
    assert found.contexts.revoked == (old if "revoked" in broken else new).contexts.revoked
    assert found.secrets == (old if "secrets" in broken else new).secrets
    assert found.token_keys == (old if "token keys" in broken else new).token_keys


def test_an_authority_that_is_half_written_keeps_no_secret_from_being_renewed(tmp_path: Path) -> None:
    for name in ("authority.pem", "revoked.pem", "bob.pem", "bob.key"):
        (tmp_path / name).write_text("-----BEGIN CERTIFICATE-----\nMII")
    (tmp_path / "herd.toml").write_text(
        f'{HERD}[tls]\npeers_authority = "authority.pem"\npeers_crl = "revoked.pem"\n'
        'peers_certificate = "bob.pem"\npeers_key = "bob.key"\n'
    )
    secret.create(tmp_path / "secret")
    old = made(1)
    found, failures = read_again(
        herd_file.load(tmp_path / "herd.toml"), "Bob", tmp_path / "secret", replace(old, token_keys=[])
    )
    assert len(failures) == 2
    assert found.contexts.revoked == old.contexts.revoked
    assert found.secrets == secret.read_all(tmp_path / "secret")


@pytest.mark.parametrize("broken", ["clients", "peers"])
def test_a_certificate_for_clients_and_one_for_neighbours_are_read_each_on_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def load_chain(_: object, certificate: Path, *__: object) -> None:
        if certificate.name == f"{broken}.pem":
            raise ConfigError(f"{certificate} is broken")

    monkeypatch.setattr(tls, "_load_chain", load_chain)
    monkeypatch.setattr(tls, "_load_authority", lambda *_: None)
    monkeypatch.setattr(tls, "expiries_of", lambda use, file: [CertificateExpiry(use, file, 2.0)])
    (tmp_path / "herd.toml").write_text(
        f'{HERD}[tls]\nclients_certificate = "clients.pem"\nclients_key = "clients.key"\n'
        'peers_authority = "authority.pem"\npeers_certificate = "peers.pem"\npeers_key = "peers.key"\n'
    )
    secret.create(tmp_path / "secret")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    uses: tuple[CertificateUse, ...] = ("clients", "peers", "authority")
    before = Contexts(
        context, context, context, None, [CertificateExpiry(use, tmp_path / use, 1.0) for use in uses]
    )
    found, failures = read_again(
        herd_file.load(tmp_path / "herd.toml"), "Bob", tmp_path / "secret", replace(made(1), contexts=before)
    )
    assert failures == [f"{tmp_path / broken}.pem is broken"]
    after = found.contexts
    assert [after.clients is context, after.peers is context, after.dialling is context] == (
        [True, False, False] if broken == "clients" else [False, True, True]
    )
    assert [one.use for one in after.expiries] == list(uses)
    assert [one.expires for one in after.expiries] == ([1, 2, 2] if broken == "clients" else [2, 1, 1])
