"""What makes servers in a sandbox take a stand-in for Google: names, a certificate and the trust in it.

The rule: the authority is made for one run, and its key is removed at once. So its certificate, which servers trust,
vouches for nothing but the stand-in.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

HOSTS: Final = ("maps.googleapis.com", "places.googleapis.com")
ADDRESS: Final = "127.0.0.1:443"

TRUSTED: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
)
"""Where systems have the certificates that programs trust; the authority's lies over them."""

VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS")
"""Variables that name a file of trusted certificates: of OpenSSL and so of Python's ssl, of requests, curl and Node.js."""

DAYS: Final = 30

_OPENSSL: Final = f"""\
[req]
distinguished_name = name
prompt = no
[name]
CN = proxyherd grade
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
subjectAltName = {", ".join(f"DNS:{host}" for host in HOSTS)}
"""


class FakeGoogle(Struct, frozen=True):
    """The files of a stand-in, in a folder of their own."""

    folder: Path

    @property
    def authority(self) -> Path:
        return self.folder / "authority.pem"

    @property
    def certificate(self) -> Path:
        return self.folder / "certificate.pem"

    @property
    def key(self) -> Path:
        return self.folder / "key.pem"

    @property
    def hosts(self) -> Path:
        return self.folder / "hosts"

    def over(self, bundles: Sequence[Path]) -> dict[str, Path]:
        """Return what servers see in place of other files; `bundles` are further files of trusted certificates."""
        found = (path.resolve() for path in (*map(Path, TRUSTED), *bundles) if path.is_file())
        return {"/etc/hosts": self.hosts, **{str(path): self.authority for path in found}}

    @property
    def environ(self) -> dict[str, str]:
        return dict.fromkeys(VARIABLES, str(self.authority))


class OpensslError(Exception):
    """openssl cannot make a certificate; the text says why."""


def make_google(folder: Path) -> FakeGoogle:
    """Make all files in a new folder. Raises OpensslError and OSError."""
    folder.mkdir(0o700)
    made = FakeGoogle(folder)
    settings, authority_key = folder / "openssl.cnf", folder / "authority.key"
    settings.write_text(_OPENSSL)
    _certify(settings, "authority", made.authority, authority_key)
    _certify(
        settings,
        "server",
        made.certificate,
        made.key,
        "-CA",
        str(made.authority),
        "-CAkey",
        str(authority_key),
    )
    authority_key.unlink()
    made.authority.chmod(0o644)
    here = Path("/etc/hosts").read_text(encoding="utf-8", errors="replace")
    made.hosts.write_text(f"127.0.0.1 {' '.join(HOSTS)}\n{here}")
    made.hosts.chmod(0o644)
    return made


def _certify(settings: Path, kind: str, certificate: Path, key: Path, *by: str) -> None:
    words = [
        *("openssl", "req", "-x509", "-config", str(settings), "-extensions", kind, "-days", str(DAYS)),
        *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", str(key), "-out", str(certificate), *by),
    ]
    try:
        done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603 - built here
    except OSError as error:
        raise OpensslError(f"openssl: {error.strerror}; install it: apt install openssl") from error
    if done.returncode:
        raise OpensslError(f"openssl req: {done.stderr.decode(errors='replace').strip()[-300:]}")
