"""One link to a neighbour as a state machine: first the handshake, then messages. It has no socket and no clock; time is
an argument.

A link is one connection between two neighbours. The server whose name sorts first dials.

HELLO --(the other's PROXYHERD line)--> PROVING --(its correct PROOF)--> AGREEING --(its TERMS)--> LIVE --> CLOSED

Nothing that arrives before LIVE is believed, and LIVE must be reached before a deadline. A proof is an HMAC-SHA256
with the herd's secret over a label, the role, the versions offered, the version chosen, both names and both nonces. No
nonce is used twice, so a proof cannot be replayed. The roles differ, so it cannot be reflected.

When LIVE, both sides send lines: `AT ...` (an update), `GONE ...` (a tombstone), `BEAT` (a heartbeat), `CLOCK ...`, and
the messages of catching up. Any other line closes the link, except a malformed AT or GONE line, which is skipped: one bad
line must not divide the herd. The link is dead when the other side has been silent for three heartbeats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from proxyherd.core.flood_paths import SPARE_COPY_SECONDS
from proxyherd.core.framing import LineFramer, Overlong
from proxyherd.core.handshake import OLD_VERSION, REVOKED, Handshake, State, Terms
from proxyherd.core.messages import CACHED_BYTES, At, Malformed, parse_at, recent_parser
from proxyherd.core.peer_messages import (
    BatchHeader,
    Erased,
    LinkEvent,
    Misspoken,
    PeerMessage,
    Updates,
    parse_message,
    plain,
    write_message,
)
from proxyherd.core.sizes import SIZES
from proxyherd.core.tombstones import parse_gone

BEAT: Final = b"BEAT\n"
"""A heartbeat."""

SILENT_HEARTBEATS: Final = 3

TOMBSTONE_LINES: Final = 16
"""A tombstone is as much work as so many updates: its client is looked for among all of a leaf. Few lines are taken at once
where there are any, so a turn takes at most fifteen tombstones more than it should."""

_GONE: Final = b"GONE "
_HANDSHAKE_LINE_BYTES: Final = 512


_FEW_BYTES: Final = SIZES.few_bytes
_BEAT: Final = BEAT[:-1]  # as a line


LIVE: Final = State.LIVE
CLOSED: Final = State.CLOSED
"""For frequent steps: before Python 3.12, it takes ten times as long to read them from their class."""

_SHAKING: Final = (State.HELLO, State.PROVING, State.AGREEING)


class Link:
    """One connection to a neighbour, from its first byte to its last.

    `dial` is the name of the dialled neighbour, or None if the other side has dialled. `nonce` is NONCE_BYTES of
    randomness, used only for this link. `takes_old`: whether the other side may speak version 1. All times are seconds of
    one monotonic clock.
    """

    def __init__(
        self, terms: Terms, *, dial: str | None, nonce: bytes, now: float, takes_old: bool = True
    ) -> None:
        self.terms = terms
        self.dialled = dial is not None
        self.peer = dial
        self.address = ""  # of the other side, if it has dialled
        self.state = State.HELLO
        self.reason = ""
        self.noted = False  # whether its end has been noted
        self.certified: frozenset[str] | None = None  # names in the other's certificate; None without TLS
        self.revoked = False  # whether that certificate has been revoked
        self.proved = False  # whether it has ever been live
        self.is_old = False  # whether the other side speaks version 1
        self.other_key = False  # whether the other side's table has another key; False with version 1
        self.differing = ""  # its settings that differ, though they should not; "" with version 1
        self.began = 0  # since when the other side has had the table; 0: always, as far as known
        self.serves = False  # whether a walk of the other side is under way over it
        self.more = False  # whether lines may wait that the last `events` did not handle
        self._recent = recent_parser(terms.lead)
        self._framer = LineFramer(_HANDSHAKE_LINE_BYTES)
        self.out: list[bytes] = []  # what waits to be sent
        self.spare: list[bytes] = []  # AT lines that wait for company: see `flood_paths`
        self._batch: BatchHeader | None = None
        self._batch_left: int  # lines of the batch that have not arrived yet
        self.opened = self.heard = self._spoke = now
        self._handshake = Handshake(terms, dial=dial, nonce=nonce, takes_old=takes_old, out=self.out)

    # What arrives. -------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """Bytes received but not yet returned as events."""
        return self._framer.waiting if self.state is not State.CLOSED else 0

    def receive_data(self, data: bytes, now: float) -> None:
        """Accept bytes that arrived."""
        self.heard = now
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
        self.heard = then

    def events(self, most: int, clock: int = 0) -> list[LinkEvent]:
        """Return the events of up to `most` received lines. Closes the link if they break the protocol. `clock`:
        nanoseconds of POSIX time, which the other side gets to know.
        """
        events: list[LinkEvent] = []
        self.more = False
        try:
            while self.state in _SHAKING and most > 0:
                lines = self._framer.lines(1)
                if not lines:
                    return events
                most -= 1
                events += self._shake(lines[0], clock)
            if self.state is State.LIVE:
                self._live(self._take(most), events)
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
        out = self.out
        if self.state is CLOSED and self.proved:
            out.clear()
        if not out:
            return b""
        self._spoke = now
        data = b"".join(out)
        out.clear()
        return data

    def send_updates(self, lines: bytes) -> None:
        """Send live updates: AT lines, each with its LF."""
        self.out.append(lines)

    def send_spare(self) -> None:
        """Send the spare copies, in front of digests that were calculated after they came."""
        self.out.insert(0, b"\n".join([*self.spare, b""]))
        self.spare.clear()

    def is_quiet(self, now: float) -> bool:
        """Whether nothing was sent for so long that spare copies would wait in vain for company."""
        return now - self._spoke >= SPARE_COPY_SECONDS

    def send(self, message: PeerMessage) -> None:
        """Send a message about catching up, or the clock."""
        self.out.append(write_message(message))

    def send_batch(self, first: int, following: int, lines: list[bytes]) -> None:
        """Answer AskLeaf or AskRange with all requested lines of the leaves from `first` up to, but not including,
        `following`.
        """
        self.out.append(write_message(BatchHeader(first, following, len(lines))))
        self.out.extend(line + b"\n" for line in lines)

    # The clock, and the end. ---------------------------------------------------------------------------------

    def tick(self, now: float, ahead: float = 0.0) -> float:
        """Let time pass: send a heartbeat, or close the link if the other side is slow or silent. Call a few times per
        heartbeat. The heartbeat may be sent up to `ahead` seconds before it is due.

        Return when there is something to do at the earliest; later if bytes are sent or received in the meantime.
        """
        terms = self.terms
        if self.state is not LIVE:
            deadline = self.opened + terms.handshake
            if self.state is not CLOSED and now > deadline:
                self.close(f"handshake not done within {terms.handshake:g} s; was {self.state.value}")
            return deadline if self.state is not CLOSED else now
        if self.more:  # its lines are handled in portions, and more may wait in the socket
            self.heard = now
        silence = SILENT_HEARTBEATS * terms.heartbeat
        beat_at, silent_at = self._spoke + terms.heartbeat, self.heard + silence
        if now > silent_at:
            self.close(f"silent for {silence:g} s")
        elif now >= beat_at - ahead:
            self.out.append(BEAT)
            beat_at = now + terms.heartbeat
        return min(beat_at, silent_at)

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

    def _shake(self, line: bytes | Overlong, clock: int) -> list[LinkEvent]:
        handshake = self._handshake
        handshake.certified, handshake.revoked = self.certified, self.revoked
        try:
            events = handshake.hear(line, clock)
        finally:
            self.peer = handshake.peer
        self.state = handshake.state
        if self.state is State.LIVE:
            self.proved, self.is_old = True, handshake.version == OLD_VERSION
            self.other_key, self.differing = handshake.other_key, handshake.differing
            self.began = handshake.began
            self._framer.limit = self.terms.line_bytes
        return events

    # A live link. --------------------------------------------------------------------------------------------

    def _take(self, most: int) -> list[bytes | Overlong]:
        """Return received lines that are as much work as `most` updates. Note whether more may wait."""
        framer = self._framer
        if not framer.holds(_GONE):
            lines = framer.lines(most)
            self.more = len(lines) >= most
            return lines
        taken: list[bytes | Overlong] = []
        while most > 0 and (lines := framer.lines(min(most, TOMBSTONE_LINES))):
            taken += lines
            tombstones = sum(isinstance(line, bytes) and line.startswith(_GONE) for line in lines)
            most -= len(lines) + tombstones * (TOMBSTONE_LINES - 1)
        self.more = most <= 0
        return taken

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
                elif line == _BEAT or not self._other(line, events, flush):
                    continue
                if self._batch is not None:
                    self._batch_left -= 1
                    if not self._batch_left:
                        flush()
                        events.append(self._batch)
                        self._batch = None
        finally:
            flush()

    def _other(self, line: bytes, events: list[LinkEvent], flush: Callable[[], None]) -> bool:
        """Handle a tombstone's line or a message, after the updates before it. Return whether it can be part of a batch."""
        flush()
        if line[:5] != _GONE:
            self._message(line, events)
            return False
        tombstone, caught_up = parse_gone(line), self._batch is not None
        last = events[-1] if events else None
        if tombstone is None or self.is_old:
            events.append(Malformed(line))
        elif isinstance(last, Erased) and last.caught_up == caught_up:
            last.tombstones.append(tombstone)
        else:
            events.append(Erased([tombstone], caught_up))
        return True

    def _message(self, line: bytes, events: list[LinkEvent]) -> None:
        message = parse_message(line, self.terms.depth)
        if self._batch is not None:
            raise Misspoken(f"broke off a batch with {plain(line)}")
        if isinstance(message, BatchHeader) and message.lines:
            self._batch, self._batch_left = message, message.lines
        else:
            events.append(message)
