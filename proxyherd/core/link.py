"""One link to a neighbour as a state machine: first the handshake, then messages. It has no socket and no clock; time is
an argument.

A link is one connection between two neighbours. The server whose name sorts first dials.

    dialler                                            listener
    PROXYHERD 1 Bailey Bona <nonce>           ----->
                                              <-----   PROXYHERD 1 Bona Bailey <nonce>
    PROOF <hmac>                              ----->   (or REFUSED and why)
                                              <-----   PROOF <hmac>

HELLO --(the other's PROXYHERD line)--> PROVING --(its correct PROOF)--> LIVE --> CLOSED

Nothing that arrives before LIVE is believed, and LIVE must be reached before a deadline. A proof is an HMAC-SHA256
with the herd's secret over a label, the role, the versions offered, the version chosen, both names and both nonces. No
nonce is used twice, so a proof cannot be replayed. The roles differ, so it cannot be reflected.

When LIVE, both sides send lines: `AT ...` (an update), `BEAT` (a heartbeat), and the messages of catching up. Any
other line closes the link, except a malformed AT line, which is skipped: one bad line must not divide the herd. The
link is dead when the other side has been silent for three heartbeats.
"""

from __future__ import annotations

import enum
import hmac
from typing import Final

from proxyherd.core.framing import LineFramer, Overlong
from proxyherd.core.messages import CACHED_BYTES, At, Malformed, parse_at, recent_parser
from proxyherd.core.peer_messages import (
    BatchHeader,
    Changed,
    Digests,
    Done,
    LinkEvent,
    Misspoken,
    Proved,
    Request,
    Updates,
    is_hex,
    parse_message,
    plain,
    write_message,
)
from proxyherd.core.sizes import SIZES
from proxyherd.core.value import Value

VERSIONS: Final = (b"1",)
"""Versions of the peer protocol that this program supports, the best first."""

BEAT: Final = b"BEAT\n"
"""A heartbeat."""

REVOKED: Final = "shows a certificate that has been revoked; sign a new one"
"""Why a link does not come up, or ends."""

NONCE_BYTES: Final = 32
SILENT_HEARTBEATS: Final = 3
_HANDSHAKE_LINE_BYTES: Final = 512


_FEW_BYTES: Final = SIZES.few_bytes
_BEAT: Final = BEAT[:-1]  # as a line


class State(enum.Enum):
    """The state of a link; it only moves down this list."""

    HELLO = "waiting for the other's first line"
    PROVING = "waiting for the other's proof"
    LIVE = "proved by both"
    CLOSED = "over"


LIVE: Final = State.LIVE
CLOSED: Final = State.CLOSED
"""For frequent steps: before Python 3.12, it takes ten times as long to read them from their class."""


class Terms(Value):
    """The parameters that are the same for all links of a server."""

    name: str
    neighbours: frozenset[str]
    secrets: tuple[bytes, ...]  # the first one is used for proofs; each one is accepted
    line_bytes: int
    heartbeat: float  # seconds
    handshake: float  # seconds
    lead: int  # nanoseconds by which clients' clocks may be ahead
    depth: int = SIZES.depth  # of the digest trees

    def __repr__(self) -> str:
        return f"<terms of {self.name}>"  # without the secrets, for tracebacks


class Link:
    """One connection to a neighbour, from its first byte to its last.

    `dial` is the name of the dialled neighbour, or None if the other side has dialled. `nonce` is NONCE_BYTES of
    randomness, used only for this link. All times are seconds of one monotonic clock.
    """

    def __init__(self, terms: Terms, *, dial: str | None, nonce: bytes, now: float) -> None:
        self.terms = terms
        self.dialled = dial is not None
        self.peer = dial
        self.state = State.HELLO
        self.reason = ""
        self.noted = False  # whether its end has been noted
        self.certified: frozenset[str] | None = None  # names in the other's certificate; None without TLS
        self.revoked = False  # whether that certificate has been revoked
        self.proved = False  # whether it has ever been live
        self.serves = False  # whether a walk of the other side is under way over it
        self.more = False  # whether lines may wait that the last `events` did not handle
        self._recent = recent_parser(terms.lead)
        self._nonce = nonce.hex().encode()
        self._versions = b",".join(VERSIONS)
        self._transcript: bytes  # what both have agreed on
        self._framer = LineFramer(_HANDSHAKE_LINE_BYTES)
        self.out: list[bytes] = []  # what waits to be sent
        self._batch: BatchHeader | None = None
        self._batch_left: int  # lines of the batch that have not arrived yet
        self.opened = self._heard = self._spoke = now
        if dial is not None:
            self._say(b"PROXYHERD %b %b %b %b" % (self._versions, _b(terms.name), _b(dial), self._nonce))

    # What arrives. -------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Bytes received but not yet returned as events."""
        return self._framer.waiting if self.state is not State.CLOSED else 0

    def receive_data(self, data: bytes, now: float) -> None:
        """Accept bytes that arrived."""
        self._heard = now
        if self.state is not CLOSED:
            self._framer.receive(data)

    def lines_in(self, data: bytes) -> list[bytes] | None:
        """Return the lines in bytes that arrived, without heartbeats. Return None if the bytes must go to `receive_data`:
        because they are many, a line is long or not whole, a batch is arriving, or earlier bytes wait. A caller that
        handles the lines calls `hear`.
        """
        if (
            self.state is not LIVE
            or self._batch is not None
            or len(data) > _FEW_BYTES
            or not self._framer.between_lines
        ):
            return None
        *lines, rest = data.split(b"\n")
        if rest or (len(data) > CACHED_BYTES and max(map(len, lines)) > CACHED_BYTES):
            return None
        return lines if _BEAT not in lines else [line for line in lines if line != _BEAT]

    def hear(self, then: float) -> None:
        """Note when the other side was last heard."""
        self._heard = then

    def events(self, most: int) -> list[LinkEvent]:
        """Return the events of up to `most` received lines. Closes the link if they break the protocol."""
        events: list[LinkEvent] = []
        self.more = False
        try:
            while self.state in (State.HELLO, State.PROVING) and most > 0:
                lines = self._framer.lines(1)
                if not lines:
                    return events
                most -= 1
                events += self._handshake(lines[0])
            if self.state is State.LIVE:
                lines = self._framer.lines(most)
                self.more = len(lines) >= most
                self._live(lines, events)
            elif self.state is not State.CLOSED:
                self.more = True  # the handshake continues in bytes that are already here
        except Misspoken as error:
            self.close(str(error))
        return events

    def receive_eof(self) -> None:
        """Note that the other side has closed the connection."""
        if self.state is State.LIVE:
            self.close("closed by the neighbour")
        else:
            self.close(f"closed by the other while {self.state.value}")

    # What leaves. --------------------------------------------------------------------------------------------

    def data_to_send(self, now: float) -> bytes:
        """Return the bytes to send, and forget them."""
        if self.state is CLOSED and self.proved:
            self.out.clear()
        if not self.out:
            return b""
        self._spoke = now
        data = b"".join(self.out)
        self.out.clear()
        return data

    def send_updates(self, lines: bytes) -> None:
        """Send live updates: AT lines, each with its LF."""
        self.out.append(lines)

    def send(self, message: Request | Digests | Done | Changed) -> None:
        """Send a message about catching up."""
        self.out.append(write_message(message))

    def send_batch(self, first: int, following: int, lines: list[bytes]) -> None:
        """Answer AskLeaf or AskRange with all requested lines of the leaves from `first` up to, but not including,
        `following`.
        """
        self.out.append(write_message(BatchHeader(first, following, len(lines))))
        self.out.extend(line + b"\n" for line in lines)

    # The clock, and the end. ---------------------------------------------------------------------------------

    def tick(self, now: float, ahead: float = 0.0) -> None:
        """Let time pass: send a heartbeat, or close the link if the other side is slow or silent. Call a few times per
        heartbeat. The heartbeat may be sent up to `ahead` seconds before it is due.
        """
        terms = self.terms
        if self.state is State.LIVE:
            silence = SILENT_HEARTBEATS * terms.heartbeat
            if self.more:  # its lines are handled in portions, and more may wait in the socket
                self._heard = now
            if now - self._heard > silence:
                self.close(f"silent for {silence:g} s")
            elif now - self._spoke >= terms.heartbeat - ahead:
                self.out.append(BEAT)
        elif self.state is not State.CLOSED and now - self.opened > terms.handshake:
            self.close(f"handshake not done within {terms.handshake:g} s; was {self.state.value}")

    @property
    def tick_at(self) -> float:
        """When `tick` has something to do at the earliest; later if bytes are sent or received in the meantime."""
        if self.state is State.LIVE:
            return min(
                self._spoke + self.terms.heartbeat, self._heard + SILENT_HEARTBEATS * self.terms.heartbeat
            )
        return self.opened + self.terms.handshake if self.state is not State.CLOSED else self.opened

    def revoke(self) -> None:
        """Note that the other's certificate has been revoked. The link does not come up, or ends."""
        self.revoked = True
        if self.state is not State.HELLO:
            self.close(f"{self.peer} {REVOKED}")

    def close(self, reason: str) -> None:
        """Close the link. If it was never live, what it has to send is still sent: this may be a refusal."""
        if self.state is not State.CLOSED:
            self.state = State.CLOSED
            self.reason = reason

    # The handshake. ------------------------------------------------------------------------------------------

    def _handshake(self, line: bytes | Overlong) -> list[LinkEvent]:
        if isinstance(line, Overlong):
            raise Misspoken("no handshake, but a line without end")
        if line.startswith(b"REFUSED "):
            raise Misspoken(f"refused by the other: {plain(line[8:])}")
        words = line.split(b" ")
        if self.state is State.HELLO:
            self._greeted(words)
            return []
        return self._proved(words)

    def _greeted(self, words: list[bytes]) -> None:
        if len(words) != 5 or words[0] != b"PROXYHERD":
            raise Misspoken("no handshake; does a client use the peer port, or does one side speak TLS?")
        _, versions, them, us, nonce = words
        if us != _b(self.terms.name):
            self._refuse(
                f"it looks for {plain(us)}, this is {self.terms.name}; do both read the same herd's file?"
            )
        if not is_hex(nonce, len(nonce)) or len(nonce) != 2 * NONCE_BYTES or nonce == self._nonce:
            self._refuse("its nonce is not of the form")
        if self.dialled:
            assert self.peer is not None
            if them != _b(self.peer):
                self._refuse(f"{plain(them)} answers at the address of {self.peer}")
            if versions not in VERSIONS:
                self._refuse(f"it chose version {plain(versions)}, which was not offered")
            self._check_revoked(self.peer)
            self._agree(self._versions, versions, _b(self.terms.name), them, self._nonce, nonce)
            self._say(b"PROOF " + self._proof(b"dialler", self.terms.secrets[0]))
        else:
            self._dialled_by(plain(them), versions, nonce)
        self.state = State.PROVING

    def _dialled_by(self, them: str, versions: bytes, nonce: bytes) -> None:
        if them not in self.terms.neighbours or them > self.terms.name:
            self._refuse(f"{them} is no neighbour that dials {self.terms.name}; see edges in the herd's file")
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
        self._say(b"PROXYHERD %b %b %b %b" % (version, _b(self.terms.name), _b(them), self._nonce))
        self._agree(versions, version, _b(them), _b(self.terms.name), nonce, self._nonce)

    def _check_revoked(self, them: str) -> None:
        if self.revoked:
            self._refuse(f"{them} {REVOKED}")

    def _agree(self, *parts: bytes) -> None:
        # No part contains LF, so different transcripts are different bytes.
        self._transcript = b"\n".join((b"proxyherd peer link", *parts))

    def _proof(self, role: bytes, secret: bytes) -> bytes:
        return hmac.new(secret, role + b"\n" + self._transcript, "sha256").hexdigest().encode()

    def _proved(self, words: list[bytes]) -> list[LinkEvent]:
        if len(words) != 2 or words[0] != b"PROOF":
            raise Misspoken("no proof where one was due")
        role = b"listener" if self.dialled else b"dialler"
        right = [hmac.compare_digest(words[1], self._proof(role, secret)) for secret in self.terms.secrets]
        if not any(right):
            self._refuse(f"{self.peer} does not prove the herd's secret; has it another secret file?")
        if not self.dialled:
            self._say(b"PROOF " + self._proof(b"listener", self.terms.secrets[right.index(True)]))
        self.state = State.LIVE
        self.proved = True
        self._framer.limit = self.terms.line_bytes
        return [Proved()]

    def _refuse(self, why: str) -> None:
        self._say(b"REFUSED " + why.encode())
        raise Misspoken(why)

    # A live link. --------------------------------------------------------------------------------------------

    def _live(self, lines: list[bytes | Overlong], events: list[LinkEvent]) -> None:
        ats: list[At] = []
        lead, recent = self.terms.lead, self._recent

        def flush() -> None:
            if ats:
                events.append(Updates(ats.copy(), self._batch is not None))
                ats.clear()

        try:
            for line in lines:
                if isinstance(line, Overlong):
                    events.append(Malformed(line.start))
                elif (at := recent(line) if len(line) <= CACHED_BYTES else parse_at(line, lead)) is not None:
                    ats.append(at)
                elif line[:3] == b"AT ":
                    events.append(Malformed(line))
                elif line == _BEAT:
                    continue
                else:
                    flush()
                    self._message(line, events)
                    continue
                if self._batch is not None:
                    self._batch_left -= 1
                    if not self._batch_left:
                        flush()
                        events.append(self._batch)
                        self._batch = None
        finally:
            flush()

    def _message(self, line: bytes, events: list[LinkEvent]) -> None:
        message = parse_message(line, self.terms.depth)
        if self._batch is not None:
            raise Misspoken(f"broke off a batch with {plain(line)}")
        if isinstance(message, BatchHeader) and message.lines:
            self._batch, self._batch_left = message, message.lines
        else:
            events.append(message)

    def _say(self, line: bytes) -> None:
        self.out.append(line + b"\n")


def _b(text: str) -> bytes:
    return text.encode()
