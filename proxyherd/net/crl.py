"""Lists of revoked certificates (CRLs): the herd's authorities have signed them, and neighbours' certificates may be on
them.

OpenSSL can check such lists too, but refuses every certificate once a list has expired. Here a list holds until a newer
one takes its place: with time it misses more, but what it says stays true. A herd that is cut apart because a list is
late loses more than one that trusts whom it trusted the day before.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from msgspec import Struct

from proxyherd.base.files import read_regular
from proxyherd.config.errors import ConfigError

if TYPE_CHECKING:
    from cryptography import x509

PAGE: Final = "docs/security.md"
_LIST: Final = re.compile(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----")
_WHOLE: Final = re.compile(rb"-----BEGIN ([^-\n]+)-----[^-]*-----END \1-----")
_PART: Final = re.compile(rb"-----(BEGIN|END) |^-[-A-Z0-9 ]*\s*\Z", re.MULTILINE)
"""What stands beside all that is whole only if the file was cut off, be it in the first characters of a line."""


class RevokedCertificates(Struct, frozen=True):
    """What the lists in one file say."""

    file: Path
    expires: float  # when the first of the lists does, in POSIX seconds; infinity if none does
    certificates: frozenset[tuple[bytes, int]]  # the issuer's name (DER) and the serial number of each

    def __repr__(self) -> str:
        return f"<{len(self.certificates)} revoked certificates>"

    def has(self, certificate: bytes | None) -> bool:
        """Return whether a certificate (DER) is revoked. None counts as revoked."""
        from cryptography import x509  # noqa: PLC0415 - it takes a twentieth of a second, and few herds have a list

        if certificate is None:
            return True
        found = x509.load_der_x509_certificate(certificate)
        return (found.issuer.public_bytes(), found.serial_number) in self.certificates


def read_lists(file: Path, authorities: Path) -> RevokedCertificates:
    """Read the lists in a file in PEM. Each must be signed by an authority in the file `authorities`.

    Raises ConfigError. That a list has expired is no error.
    """
    from cryptography import x509  # noqa: PLC0415 - as above

    try:
        content, trusted = read_regular(file), x509.load_pem_x509_certificates(read_regular(authorities))
    except OSError as error:
        raise ConfigError(
            f"{error.filename}: {error.strerror}; it is named in [tls] of the herd's file"
        ) from error
    except (ValueError, x509.InvalidVersion) as error:
        raise ConfigError(f"{authorities}: no certificate in PEM; see {PAGE}") from error
    certificates, expires = set[tuple[bytes, int]](), math.inf
    for crl in _parse(file, content):
        if not any(_signed(one, crl) for one in trusted):
            raise ConfigError(
                f"{file}: has a list of {crl.issuer.rfc4514_string()} that no authority in {authorities} has signed; "
                f"remove it, or make it anew: see {PAGE}"
            )
        certificates |= {(crl.issuer.public_bytes(), one.serial_number) for one in crl}
        if crl.next_update_utc is not None:
            expires = min(expires, crl.next_update_utc.timestamp())
    return RevokedCertificates(file, expires, frozenset(certificates))


def _parse(file: Path, content: bytes) -> Iterator[x509.CertificateRevocationList]:
    from cryptography import x509  # noqa: PLC0415 - as above

    found = _LIST.findall(content)
    if _PART.search(_WHOLE.sub(b"", content)):  # whoever is on what is missing would go on with its links
        raise ConfigError(
            f"{file}: a list of revoked certificates is cut off: copy the file again; see {PAGE}"
        )
    if not found:
        raise ConfigError(f"{file}: no list of revoked certificates (X509 CRL) in PEM; see {PAGE}")
    for one in found:
        try:
            yield x509.load_pem_x509_crl(one)
        except (ValueError, x509.InvalidVersion) as error:
            raise ConfigError(f"{file}: a list of revoked certificates is broken; see {PAGE}") from error


def _signed(authority: x509.Certificate, crl: x509.CertificateRevocationList) -> bool:
    if authority.subject != crl.issuer:
        return False
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # some keys sign nothing
    except TypeError:
        return False
