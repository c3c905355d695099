"""TLS for client ports, between peers and to Redis: the standard library's, version 1.2 or newer, with checked names.

Peers both show a certificate of the herd's own authority. The dialling server checks it against the name that it
dialled. The listening server learns the other's name only from the handshake inside, and then compares.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from proxyherd.base.files import open_regular
from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd
from proxyherd.net.certificates import CertificateExpiry, expiries_of
from proxyherd.net.crl import RevokedCertificates, read_lists

_PLAIN: Final = frozenset(
    {"wrong version number", "http request", "record layer failure", "unknown protocol"}
)
"""OpenSSL's errors for bytes that are not TLS."""

_OUT_OF_TIME: Final = (9, 10)
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED of OpenSSL's x509_vfy.h."""


class _Named(Struct, frozen=True):
    """Where files are named: the section of the herd's file, and the page that says how to make them."""

    table: str
    page: str


_TLS: Final = _Named("[tls]", "docs/security.md")
_REDIS: Final = _Named("[redis]", "docs/redis.md")


class Contexts(Struct, frozen=True):
    """The TLS contexts of one server; None for a plain port. `expiries`: of the certificates in them."""

    clients: ssl.SSLContext | None = None
    peers: ssl.SSLContext | None = None
    dialling: ssl.SSLContext | None = None
    revoked: RevokedCertificates | None = None  # of peers; None without a list
    expiries: Sequence[CertificateExpiry] = ()

    def shows_revoked(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether the other side of a connection has shown a certificate that is revoked."""
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        return self.revoked is not None and tls is not None and self.revoked.has(tls.getpeercert(True))


def load(herd: Herd, name: str) -> Contexts:
    """Read a server's files as named in the herd's file. Raises ConfigError."""
    return joined(load_clients(herd, name), load_peers(herd, name), load_revoked(herd, name))


def load_clients(herd: Herd, name: str) -> Contexts:
    """Read the files for clients. Raises ConfigError."""
    tls = herd.tls
    if tls.clients_certificate is None or tls.clients_key is None:
        return Contexts()
    context, shown = _context(ssl.PROTOCOL_TLS_SERVER), _path(herd, name, tls.clients_certificate)
    _load_chain(context, shown, _path(herd, name, tls.clients_key))
    return Contexts(clients=context, expiries=[*expiries_of("clients", shown)])


def load_peers(herd: Herd, name: str) -> Contexts:
    """Read the files for neighbours, except the lists of revoked certificates. Raises ConfigError."""
    tls = herd.tls
    if tls.peers_authority is None or tls.peers_certificate is None or tls.peers_key is None:
        return Contexts()
    authority = _path(herd, name, tls.peers_authority)
    chain = (_path(herd, name, tls.peers_certificate), _path(herd, name, tls.peers_key))
    peers, dialling = _context(ssl.PROTOCOL_TLS_SERVER), _context(ssl.PROTOCOL_TLS_CLIENT)
    for context in (peers, dialling):
        _load_chain(context, *chain)
        _load_authority(context, authority)
        context.verify_mode = ssl.CERT_REQUIRED
    expiries = [*expiries_of("peers", chain[0]), *expiries_of("authority", authority)]
    return Contexts(peers=peers, dialling=dialling, expiries=expiries)


def joined(clients: Contexts, peers: Contexts, revoked: RevokedCertificates | None) -> Contexts:
    """Return what the first ones have for clients, and the second ones for neighbours."""
    expiries = [one for one in clients.expiries if one.use == "clients"]
    expiries += [one for one in peers.expiries if one.use != "clients"]
    return Contexts(clients.clients, peers.peers, peers.dialling, revoked, expiries)


def load_revoked(herd: Herd, name: str) -> RevokedCertificates | None:
    """Read the lists of revoked certificates; None if the herd's file names none. Raises ConfigError."""
    tls = herd.tls
    if tls.peers_crl is None or tls.peers_authority is None:
        return None
    return read_lists(_path(herd, name, tls.peers_crl), _path(herd, name, tls.peers_authority))


def dialling_options(context: ssl.SSLContext | None, name: str, seconds: float) -> dict[str, Any]:
    """Return the arguments of `create_connection` for TLS with the server of this name; none without a context. The
    handshake may take so many seconds, and the end as many.
    """
    if context is None:
        return {}
    return {
        "ssl": context,
        "server_hostname": name,
        "ssl_handshake_timeout": seconds,
        "ssl_shutdown_timeout": seconds,
    }


def load_for_redis(authority: Path, chain: tuple[Path, Path] | None) -> ssl.SSLContext:
    """Read the files for connections to Redis. `authority` has signed the nodes' certificates; no other authority is
    accepted. `chain`: a certificate and its private key, if Redis requires one. Raises ConfigError.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT)
    if chain is not None:
        _load_chain(context, *chain, of=_REDIS)
    _load_authority(context, authority, of=_REDIS)
    return context


def explain(error: BaseException) -> str:
    """Return in plain words why a connection, perhaps with TLS, failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "; compare its dates with this host's clock" if error.verify_code in _OUT_OF_TIME else ""
        return f"the other's certificate is not accepted: {error.verify_message}{remedy}"
    if isinstance(error, ssl.SSLError) and error.reason:
        reason = error.reason.lower().replace("_", " ")
        return f"{reason}; does the other speak plain?" if reason in _PLAIN else reason
    if isinstance(error, ConnectionResetError) and not error.strerror:
        return "broken off by the other; see its log"  # it closes without sending an alert
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def dns_names(certificate: object) -> frozenset[str]:
    """Return the DNS names in a certificate as `getpeercert` returns it."""
    found = certificate.get("subjectAltName", ()) if isinstance(certificate, dict) else ()
    return frozenset(value for kind, value in found if kind == "DNS")


def _context(protocol: ssl._SSLMethod) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.hostname_checks_common_name = False
    return context


def _path(herd: Herd, name: str, spelled: str) -> Path:
    return herd.file.parent / spelled.replace("{name}", name)


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path, of: _Named = _TLS) -> None:
    for path in (certificate, key):
        _readable(path, of)
    try:
        # Otherwise the password is asked for on a terminal, which a server does not have.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{certificate}, {key}: no certificate and its unencrypted private key in PEM "
            f"({getattr(error, 'reason', None) or type(error).__name__}); see {of.page}"
        ) from None


def _load_authority(context: ssl.SSLContext, authority: Path, of: _Named = _TLS) -> None:
    _readable(authority, of)
    try:
        context.load_verify_locations(authority)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        raise ConfigError(f"{authority}: no certificate in PEM ({reason}); see {of.page}") from None


def _readable(path: Path, of: _Named) -> None:
    try:
        os.close(open_regular(path, os.O_RDONLY))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; it is named in {of.table} of the herd's file"
        ) from error
