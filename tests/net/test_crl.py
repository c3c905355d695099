"""Lists of revoked certificates: which are taken, and who is on them."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from proxyherd.config.errors import ConfigError
from proxyherd.net.crl import RevokedCertificates, read_lists

NOW: Final = datetime(2026, 11, 29, tzinfo=UTC)


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


class Authority:
    """Signs certificates and lists."""

    def __init__(self, name: str = "Authority of the herd") -> None:
        self.name = named(name)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.pem = self.sign(self.name, 1).public_bytes(Encoding.PEM)

    def sign(
        self,
        name: x509.Name,
        serial: int,
        key: ec.EllipticCurvePublicKey | x25519.X25519PublicKey | None = None,
    ) -> x509.Certificate:
        begun = x509.CertificateBuilder(self.name, name, key or self.key.public_key(), serial)
        return begun.not_valid_before(NOW).not_valid_after(NOW + timedelta(365)).sign(self.key, SHA256())

    def revoke(self, *serials: int, days: float = 30) -> bytes:
        """Return a list in PEM that expires in so many days."""
        begun = x509.CertificateRevocationListBuilder(self.name, NOW - timedelta(99), NOW + timedelta(days))
        for serial in serials:
            begun = begun.add_revoked_certificate(
                x509.RevokedCertificateBuilder(serial, NOW - timedelta(1)).build()
            )
        return begun.sign(self.key, SHA256()).public_bytes(Encoding.PEM)


AUTHORITY, NEWER, STRANGER = Authority(), Authority(), Authority("Stranger")
"""The first two have the same name, as when the commands of docs/security.md make a new one."""


def read(folder: Path, content: bytes, authorities: bytes = AUTHORITY.pem) -> RevokedCertificates:
    (folder / "revoked.pem").write_bytes(content)
    (folder / "authority.pem").write_bytes(authorities)
    return read_lists(folder / "revoked.pem", folder / "authority.pem")


def certificate(authority: Authority, serial: int) -> bytes:
    return authority.sign(named("Clark"), serial).public_bytes(Encoding.DER)


def test_who_is_on_a_list_is_revoked_and_nobody_else(tmp_path: Path) -> None:
    lists = b"of the old authority\n" + AUTHORITY.revoke(5, 6) + b"and of the new\n" + NEWER.revoke(7)
    found = read(tmp_path, lists, AUTHORITY.pem + NEWER.pem)
    assert [serial for serial in range(1, 10) if found.has(certificate(AUTHORITY, serial))] == [5, 6, 7]
    assert not found.has(certificate(STRANGER, 5)), "each issuer has serial numbers of its own"
    assert found.has(None)
    assert repr(found) == "<3 revoked certificates>"


def test_an_empty_list_revokes_nobody(tmp_path: Path) -> None:
    assert not read(tmp_path, AUTHORITY.revoke()).has(certificate(AUTHORITY, 5))


def test_a_list_that_has_expired_holds_and_the_first_of_several_to_expire_counts(tmp_path: Path) -> None:
    found = read(tmp_path, AUTHORITY.revoke(5, days=-1) + NEWER.revoke(6), AUTHORITY.pem + NEWER.pem)
    assert found.has(certificate(AUTHORITY, 5))
    assert found.expires == (NOW - timedelta(1)).timestamp()


def test_a_list_without_an_end_never_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older authorities make such lists; the library that the tests make lists with does not."""

    class Endless:
        issuer, next_update_utc = AUTHORITY.name, None

        def __iter__(self) -> object:
            return iter(())

        def is_signature_valid(self, _: object) -> bool:
            return True

    monkeypatch.setattr(x509, "load_pem_x509_crl", lambda _: Endless())
    assert read(tmp_path, AUTHORITY.revoke()).expires == math.inf


def test_who_cannot_sign_has_signed_nothing(tmp_path: Path) -> None:
    key = x25519.X25519PrivateKey.generate().public_key()
    dumb = AUTHORITY.sign(AUTHORITY.name, 1, key).public_bytes(Encoding.PEM)
    with pytest.raises(ConfigError, match="no authority in"):
        read(tmp_path, AUTHORITY.revoke(5), dumb)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", r"revoked\.pem: no list of revoked certificates \(X509 CRL\) in PEM; see docs/security\.md"),
        (AUTHORITY.pem, r"revoked\.pem: no list of revoked certificates"),
        (AUTHORITY.revoke(5)[:100], r"revoked\.pem: a list of revoked certificates is cut off: copy"),
        (
            AUTHORITY.revoke(5).replace(b"\nM", b"\nN"),
            r"revoked\.pem: a list of revoked certificates is broken",
        ),
        (
            STRANGER.revoke(5),
            r"has a list of CN=Stranger that no authority in .*authority\.pem has signed; remove",
        ),
        (NEWER.revoke(5), r"has a list of CN=Authority of the herd that no authority in"),
        (AUTHORITY.revoke(5) + STRANGER.revoke(5), "has a list of CN=Stranger"),
    ],
    ids=[
        "nothing",
        "a certificate",
        "half a list",
        "broken",
        "a stranger's",
        "another key's",
        "one too many",
    ],
)
def test_what_is_no_list_of_an_authority_is_an_error_that_says_what_to_do(
    tmp_path: Path, content: bytes, why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        read(tmp_path, content)


def test_wherever_a_second_list_is_cut_off_the_file_is_refused_and_not_half_of_it_taken(
    tmp_path: Path,
) -> None:
    first, second = AUTHORITY.revoke(5), AUTHORITY.revoke(6)
    for end in range(1, len(second) - 1):  # without the last LF, it is whole
        with pytest.raises(ConfigError, match=r"is cut off|is broken"):
            read(tmp_path, first + second[:end])
    for start in range(1, second.index(b"CRL-----\n") + 8):
        with pytest.raises(ConfigError, match="is cut off"):
            read(tmp_path, first + b"\n" + second[start + 10 :])
    with pytest.raises(ConfigError, match="is cut off"):
        read(tmp_path, first[:200] + second)
    text = b"- the old one -\n" + first + b"-- the new one --\n" + second[:-1]
    assert len(read(tmp_path, text).certificates) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.pem: No such file or directory; it is named in \[tls\]"):
        read_lists(tmp_path / "gone.pem", tmp_path / "authority.pem")


@pytest.mark.parametrize(
    "authorities",
    [b"", AUTHORITY.pem[:100], AUTHORITY.revoke(5)],
    ids=["nothing", "half a certificate", "a list"],
)
def test_a_file_without_an_authority_is_an_error_that_names_it(tmp_path: Path, authorities: bytes) -> None:
    with pytest.raises(ConfigError, match=r"authority\.pem: no certificate in PEM; see docs/security\.md"):
        read(tmp_path, AUTHORITY.revoke(5), authorities)
