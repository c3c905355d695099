"""When the certificates in a file expire, and files that only OpenSSL reads."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from proxyherd.net.certificates import CertificateExpiry, CertificateUse, expiries_of

NOW = datetime(2026, 11, 29, tzinfo=UTC)
KEY = ec.generate_private_key(ec.SECP256R1())
VERSION_3 = b"\xa0\x03\x02\x01\x02"


def certificate(days: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Ann")])
    begun = x509.CertificateBuilder(name, name, KEY.public_key(), 1)
    return begun.not_valid_before(NOW).not_valid_after(NOW + timedelta(days)).sign(KEY, SHA256())


def of_version_2() -> bytes:
    der = certificate(1).public_bytes(Encoding.DER).replace(VERSION_3, VERSION_3[:-1] + b"\x01")
    return ssl.DER_cert_to_PEM_cert(der).encode()


@pytest.mark.parametrize(("use", "days"), [("clients", 10), ("peers", 10), ("authority", 30)])
def test_of_several_certificates_the_first_that_expires_counts_and_of_authorities_the_last(
    tmp_path: Path, use: CertificateUse, days: int
) -> None:
    file = tmp_path / "several.pem"
    file.write_bytes(b"".join(certificate(days).public_bytes(Encoding.PEM) for days in (20, 10, 30, 15)))
    [found] = expiries_of(use, file)
    assert found == CertificateExpiry(use, file, (NOW + timedelta(days)).timestamp())


@pytest.mark.parametrize(
    "content", [b"", b"-----BEGIN CERTIFICATE-----\nno\n", of_version_2()], ids=["none", "torn", "version 2"]
)
def test_of_a_file_that_only_openssl_reads_nothing_is_known(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.pem").write_bytes(content)
    assert [*expiries_of("clients", tmp_path / "odd.pem")] == []


def test_openssl_reads_certificates_of_version_2(tmp_path: Path) -> None:
    """So a server with one starts."""
    (tmp_path / "odd.pem").write_bytes(of_version_2())
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(tmp_path / "odd.pem")
