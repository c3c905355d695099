"""The handshake of a link: both sides prove that they know the herd's secret, and agree on the version and the terms.

    dialler                                            listener
    PROXYHERD 2,1 Bailey Bona <nonce>         ----->
                                              <-----   PROXYHERD 2 Bona Bailey <nonce>
    PROOF <hmac>                              ----->   (or REFUSED and why)
                                              <-----   PROOF <hmac>
                                              <-----   TERMS <lead> <clock> <fingerprint> <key=value>...
    TERMS <lead> <clock> <fingerprint> <key=value>...  ----->

A side sends its TERMS when the other has proved the secret. They are refused if `max_clock_lead_seconds` differs: it
decides which of two reports is the later one, so the tables would never be equal. The fingerprint is that of the table's
key. `began=...` says since when a server has had the table (`contact`). The other keys are settings that must be the same
on all servers. Servers with different keys or settings link, so
that these can be changed server by server; both sides know it then. Only what both tell is compared, so that later
releases can tell more. Version 1 has no TERMS, and no tombstones. It is refused while this server holds any.
"""

from __future__ import annotations

import enum
import hmac
from typing import Final

from proxyherd.core.contact import Contact
from proxyherd.core.framing import Overlong
from proxyherd.core.messages import NANOSECONDS
from proxyherd.core.notes import OUTDATED
from proxyherd.core.peer_messages import Clock, LinkEvent, Misspoken, Proved, is_hex, parse_time, plain
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import FINGERPRINT_BYTES
from proxyherd.core.value import Value

OLD_VERSION: Final = b"1"
"""The version that knows neither TERMS nor tombstones."""

VERSIONS: Final = (b"2", OLD_VERSION)
"""Versions of the peer protocol that this program supports, the best first."""

NONCE_BYTES: Final = 32
_FINGERPRINT_DIGITS: Final = 2 * FINGERPRINT_BYTES

REVOKED: Final = "shows a certificate that has been revoked; sign a new one"
"""Why a link does not come up, or ends."""


class State(enum.Enum):
    """The state of a link; it only moves down this list."""

    HELLO = "waiting for the other's first line"
    PROVING = "waiting for the other's proof"
    AGREEING = "waiting for the other's terms"
    LIVE = "proved by both"
    CLOSED = "over"


class Terms(Value):
    """The parameters that are the same for all links of a server."""

    name: str
    neighbours: frozenset[str]
    secrets: tuple[bytes, ...]  # the first one is used for proofs; each one is accepted
    line_bytes: int
    heartbeat: float  # seconds
    handshake: float  # seconds
    lead: int  # nanoseconds by which clients' clocks may be ahead
    fingerprint: bytes  # of the key of the server's table, see `Table.fingerprint`
    contact: Contact | None = None  # of the server
    settings: tuple[tuple[str, str], ...] = ()  # keys and values that are to be the same for the whole herd
    depth: int = SIZES.depth  # of the digest trees

    def __repr__(self) -> str:
        return f"<terms of {self.name}>"  # without the secrets, for tracebacks


class Handshake:
    """The handshake of one connection. `out` has the lines to send.

    `dial` is the name of the dialled neighbour, or None if the other side has dialled. `takes_old`: whether version 1 is
    accepted.
    """

    def __init__(
        self, terms: Terms, *, dial: str | None, nonce: bytes, takes_old: bool, out: list[bytes]
    ) -> None:
        self.state = State.HELLO
        self.peer = dial
        self.version = b""  # known from the other's first line on
        self.certified: frozenset[str] | None = None  # names in the other's certificate; None without TLS
        self.revoked = False  # whether that certificate has been revoked
        self.other_key = False  # whether the other's table has another key; known when the link is live
        self.differing = ""  # settings of the other that differ, and this server's; likewise
        self.began = 0  # since when the other has had the table; 0: always, as far as known; likewise
        self._terms = terms
        self._dialled = dial is not None
        self._nonce = nonce.hex().encode()
        self._takes_old = takes_old
        self._offer = b",".join(VERSIONS)
        self._transcript: bytes  # what both have agreed on
        self._out = out
        if dial is not None:
            self._say(b"PROXYHERD %b %b %b %b" % (self._offer, _b(terms.name), _b(dial), self._nonce))

    def hear(self, line: bytes | Overlong, clock: int) -> list[LinkEvent]:
        """Handle a line. `clock`: nanoseconds of POSIX time. Return events when the link is live. Raises Misspoken if the
        link must end.
        """
        if isinstance(line, Overlong):
            raise Misspoken("no handshake, but a line without end")
        if line.startswith(b"REFUSED "):
            raise Misspoken(f"refused by the other: {plain(line[8:])}")
        words = line.split(b" ")
        if self.state is State.HELLO:
            self._greeted(words)
            return []
        return self._proved(words, clock) if self.state is State.PROVING else self._agreed(words)

    def _greeted(self, words: list[bytes]) -> None:
        if len(words) != 5 or words[0] != b"PROXYHERD":
            raise Misspoken("no handshake; does a client use the peer port, or does one side speak TLS?")
        _, versions, them, us, nonce = words
        if us != _b(self._terms.name):
            self._refuse(
                f"it looks for {plain(us)}, this is {self._terms.name}; do both read the same herd's file?"
            )
        if not is_hex(nonce, len(nonce)) or len(nonce) != 2 * NONCE_BYTES or nonce == self._nonce:
            self._refuse("its nonce is not of the form")
        if self._dialled:
            assert self.peer is not None
            if them != _b(self.peer):
                self._refuse(f"{plain(them)} answers at the address of {self.peer}")
            if versions not in VERSIONS:
                self._refuse(f"it chose version {plain(versions)}, which was not offered")
            self._check_revoked(self.peer)
            self._choose(versions)
            self._transcribe(self._offer, versions, _b(self._terms.name), them, self._nonce, nonce)
            self._say(b"PROOF " + self._proof(b"dialler", self._terms.secrets[0]))
        else:
            self._dialled_by(plain(them), versions, nonce)
        self.state = State.PROVING

    def _dialled_by(self, them: str, versions: bytes, nonce: bytes) -> None:
        if them not in self._terms.neighbours or them > self._terms.name:
            self._refuse(
                f"{them} is no neighbour that dials {self._terms.name}; see edges in the herd's file"
            )
        if self.certified is not None and them not in self.certified:
            self._refuse(f"{them} shows a certificate of {', '.join(sorted(self.certified)) or 'nobody'}")
        self._check_revoked(them)
        offered = versions.split(b",")
        version = next((version for version in VERSIONS if version in offered), None)
        if version is None:
            ours = b",".join(VERSIONS).decode()
            self._refuse(f"{them} speaks versions {plain(versions)} of the peer protocol, this server {ours}")
        assert version is not None
        self.peer = them
        self._choose(version)
        self._say(b"PROXYHERD %b %b %b %b" % (version, _b(self._terms.name), _b(them), self._nonce))
        self._transcribe(versions, version, _b(them), _b(self._terms.name), nonce, self._nonce)

    def _check_revoked(self, them: str) -> None:
        if self.revoked:
            self._refuse(f"{them} {REVOKED}")

    def _choose(self, version: bytes) -> None:
        if version == OLD_VERSION and not self._takes_old:
            self._refuse(f"{self.peer} {OUTDATED}")
        self.version = version

    def _transcribe(self, *parts: bytes) -> None:
        # No part contains LF, so different transcripts are different bytes.
        self._transcript = b"\n".join((b"proxyherd peer link", *parts))

    def _proof(self, role: bytes, secret: bytes) -> bytes:
        return hmac.new(secret, role + b"\n" + self._transcript, "sha256").hexdigest().encode()

    def _proved(self, words: list[bytes], clock: int) -> list[LinkEvent]:
        if len(words) != 2 or words[0] != b"PROOF":
            raise Misspoken("no proof where one was due")
        role = b"listener" if self._dialled else b"dialler"
        right = [hmac.compare_digest(words[1], self._proof(role, secret)) for secret in self._terms.secrets]
        if not any(right):
            self._refuse(f"{self.peer} does not prove the herd's secret; has it another secret file?")
        if not self._dialled:
            self._say(b"PROOF " + self._proof(b"listener", self._terms.secrets[right.index(True)]))
        if self.version == OLD_VERSION:
            self.state = State.LIVE
            return [Proved()]
        settings = [_b(f"{key}={value}") for key, value in self._terms.settings]
        if self._terms.contact is not None:
            settings.append(b"began=%d" % self._terms.contact.began)
        numbers = b"%d %d" % (self._terms.lead, max(clock, 0))
        self._say(b" ".join([b"TERMS", numbers, self._terms.fingerprint, *settings]))
        self.state = State.AGREEING
        return []

    def _agreed(self, words: list[bytes]) -> list[LinkEvent]:
        if len(words) < 4 or words[0] != b"TERMS" or not all(_is_setting(word) for word in words[4:]):
            raise Misspoken("no terms where they were due")
        _, lead_digits, clock_digits, fingerprint, *settings = words
        lead, clock = parse_time(lead_digits), parse_time(clock_digits)
        if not is_hex(fingerprint, _FINGERPRINT_DIGITS) or len(fingerprint) != _FINGERPRINT_DIGITS:
            raise Misspoken("the fingerprint in its terms is not of the form")
        if lead != self._terms.lead:
            self._refuse(
                f"{self.peer} has max_clock_lead_seconds = {lead / NANOSECONDS:g} in [limits], this server "
                f"{self._terms.lead / NANOSECONDS:g}; give both the same herd's file, and restart them"
            )
        self.other_key = fingerprint != self._terms.fingerprint
        theirs = dict(word.split(b"=", 1) for word in settings)
        self.began = parse_time(theirs.get(b"began", b"0"))
        ours = [(_b(key), _b(value)) for key, value in self._terms.settings]
        self.differing = ", ".join(
            f"{plain(key)} = {plain(theirs[key])}, this server {plain(value)}"
            for key, value in ours
            if theirs.get(key, value) != value
        )
        self.state = State.LIVE
        return [Proved(), Clock(clock)]

    def _refuse(self, why: str) -> None:
        self._say(b"REFUSED " + why.encode())
        raise Misspoken(why)

    def _say(self, line: bytes) -> None:
        self._out.append(line + b"\n")


def _is_setting(word: bytes) -> bool:
    key, separator, value = word.partition(b"=")
    return bool(key and separator and value)


def _b(text: str) -> bytes:
    return text.encode()
