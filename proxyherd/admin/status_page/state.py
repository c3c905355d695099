"""The state of one server at /state, for the status pages of the whole herd and for `proxyherd status`.

It has totals, not rates: a client that asks twice can compute how fast they grow, and no server must remember
anything. Other servers' answers are untrusted: `read_state` returns None unless form and size are right.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from proxyherd.base.escapes import visible
from proxyherd.net import http
from proxyherd.telemetry.recent import MOST_KEPT, SHOWN_BYTES, Command

MAX_BYTES: Final = 262_144
"""The maximum size of a server's state. With `MOST_COMMANDS` of the longest commands it has about 150 KiB."""

MOST_COMMANDS: Final = 50
"""Commands in one state. If it is asked once a second, these are all of a quiet server's commands, and a sample of a busy
one's."""

MOST_REASON: Final = 200
"""Characters of the reason why a neighbour is refused."""

_LONGEST: Final = 12 * SHOWN_BYTES
"""Characters of a shown command: each byte may be escaped."""

LinkState = Literal["live", "catching up", "cut"]

_Name = Annotated[str, Meta(max_length=63)]
_Protocol = Annotated[str, Meta(max_length=32)]
_Short = Annotated[str, Meta(max_length=MOST_REASON)]
_Text = Annotated[str, Meta(max_length=1_024)]
_Path = Annotated[str, Meta(max_length=4_096)]
_Count = Annotated[int, Meta(ge=0, le=1 << 53)]  # the largest exact number in a page's script
_Seconds = Annotated[float, Meta(ge=0, le=1e12)]
_Ahead = Annotated[float, Meta(ge=-1e12, le=1e12)]
_Counts = Annotated[list[_Count], Meta(max_length=64)]


class AnswerError(Exception):
    """A server's answer cannot be used; the text says why. `silent`: there was no answer at all."""

    def __init__(self, why: str, *, silent: bool = False) -> None:
        super().__init__(why)
        self.silent = silent


class Histogram(Struct, frozen=True):
    """Bounds in seconds, and the number of observations within each; the last bound is infinity and is not listed."""

    bounds: Annotated[list[_Seconds], Meta(max_length=63)]
    counts: _Counts


class ServerState(Struct, frozen=True):
    """The state of one server. `life` changes with each start. `commands` is None if the asker may not see them; `cursor`
    is what to ask with the next time, for later ones. `protocols` has the connections by protocol, and is empty in the
    states of older versions. `over_rate`: clients that wait because they ask too fast. `clocks`: by how many seconds each
    neighbour's clock is ahead. `other_keys`: neighbours whose tables have another key. `refusals`:
    why neighbours that are not linked now were refused, by it or by them. `readiness_seconds`: for how long it
    has been ready, or not; `link_seconds`: for how long each link has been in its state. `log_failing`: whether the last
    lines of its log were lost.
    `file`: the whole path of the herd's file with which it was started; `process`: its ID on its host. The last three are about Redis:
    masters that have a part of the table, those that are available to the server, and reports and queries without an
    outcome yet.
    """

    server: _Name
    life: Annotated[str, Meta(max_length=32)]
    version: Annotated[str, Meta(max_length=64)]
    uptime: _Seconds
    ready: bool
    reason: _Text
    places_by: Annotated[str, Meta(max_length=64)]
    clients: _Count
    connections: _Count
    answered: _Count
    invalid: _Count
    floods_in: _Count
    floods_out: _Count
    mended: _Count
    links: Annotated[dict[_Name, LinkState], Meta(max_length=256)]
    places: Histogram
    lag: Histogram
    protocols: Annotated[dict[_Protocol, _Count], Meta(max_length=16)] = {}
    commands: list[Command] | None = None
    cursor: _Count = 0
    journal_failing: bool = False
    over_rate: _Count = 0
    clocks: Annotated[dict[_Name, _Ahead], Meta(max_length=256)] = {}
    other_keys: Annotated[list[_Name], Meta(max_length=256)] = []
    refusals: Annotated[dict[_Name, _Short], Meta(max_length=256)] = {}
    file: _Path = ""
    process: _Count = 0
    masters: _Count = 0
    masters_up: _Count = 0
    waiting: _Count = 0
    readiness_seconds: _Seconds = 0.0
    link_seconds: Annotated[dict[_Name, _Seconds], Meta(max_length=256)] = {}
    log_failing: bool = False


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(ServerState).decode


def write_state(state: ServerState) -> bytes:
    """Return a state as JSON."""
    return _encode(state)


def read_state(data: bytes) -> ServerState | None:
    """Return the state that another server has sent; None if it is not a state."""
    if len(data) > MAX_BYTES:
        return None
    try:
        state = _decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    fits = all(_is_sane(histogram) for histogram in (state.places, state.lag))
    return _visible(state) if fits and _are_short(state.commands or ()) else None


def state_of(server: str, answer: bytes) -> ServerState:
    """Return the state in a server's whole answer to `GET /state`. Raises AnswerError if it is not a state, or another
    server's.
    """
    if (found := http.parse_answer(answer)) is None:
        raise AnswerError("no answer that is one")
    status, body = found
    if status != 200:
        raise AnswerError(f"answers {status}")
    state = read_state(body)
    if state is None:
        raise AnswerError("what it answers is no server's state")
    if state.server != server:
        raise AnswerError(f"another server answers there: {origin(state)}")
    return state


def origin(state: ServerState) -> str:
    """Return which server has said this, and whose it is; older versions do not say that."""
    return (
        f"{state.server}, started with {state.file} (process {state.process})" if state.file else state.server
    )


def _visible(state: ServerState) -> ServerState:
    """Return a state without invisible characters in its texts; ours never has any."""
    commands = state.commands and [
        Command(
            one.number,
            one.at,
            visible(one.kind),
            visible(one.outcome),
            visible(one.command),
            visible(one.answer),
        )
        for one in state.commands
    ]
    return msgspec.structs.replace(
        state,
        server=visible(state.server),
        version=visible(state.version),
        reason=visible(state.reason),
        places_by=visible(state.places_by),
        links={visible(name): link for name, link in state.links.items()},
        protocols={visible(name): count for name, count in state.protocols.items()},
        clocks={visible(name): ahead for name, ahead in state.clocks.items()},
        other_keys=[visible(name) for name in state.other_keys],
        refusals={visible(name): visible(reason) for name, reason in state.refusals.items()},
        file=visible(state.file),
        link_seconds={visible(name): seconds for name, seconds in state.link_seconds.items()},
        commands=commands,
    )


def _is_sane(histogram: Histogram) -> bool:
    return (
        len(histogram.counts) == len(histogram.bounds) + 1
        and histogram.bounds == sorted(histogram.bounds)
        and histogram.counts == sorted(histogram.counts)
    )


def _are_short(commands: Iterable[Command]) -> bool:
    commands = list(commands)
    return len(commands) <= MOST_KEPT and all(
        0 <= one.number < 1 << 53
        and 0 <= one.at < 1e12
        and max(map(len, (one.kind, one.outcome))) <= 32
        and max(map(len, (one.command, one.answer))) <= _LONGEST
        for one in commands
    )
