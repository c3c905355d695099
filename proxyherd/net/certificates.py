"""When certificates expire."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

from proxyherd.base.files import read_regular

CertificateUse: TypeAlias = Literal["clients", "peers", "authority"]
"""Whom a server shows a certificate; or that of the authority that has signed its neighbours' ones."""


class CertificateExpiry(Struct, frozen=True):
    """When the certificates in a file expire, in POSIX seconds: the first of them; of authorities the last, because an old one
    stays beside the new one while certificates are renewed.
    """

    use: CertificateUse
    file: Path
    expires: float


def expiries_of(use: CertificateUse, file: Path) -> Iterator[CertificateExpiry]:
    """Yield when the certificates in a file (PEM) expire. Nothing, if that cannot be read: who has loaded them for TLS has
    the errors, and OpenSSL reads what others refuse.
    """
    from cryptography import x509  # noqa: PLC0415 - it takes a twentieth of a second, where there is TLS

    try:
        found = x509.load_pem_x509_certificates(read_regular(file))
    except (OSError, ValueError, x509.InvalidVersion):
        return
    counts = max if use == "authority" else min
    yield CertificateExpiry(use, file, counts(one.not_valid_after_utc.timestamp() for one in found))
