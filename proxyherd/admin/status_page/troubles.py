"""What is wrong with a herd, in words, and since when.

Pure. A server that cannot be asked is told together with what its neighbours say of it, so its links are no troubles of
their own. Since when: by what servers remember of themselves and of their links; of what nobody remembers, since it was
first seen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from msgspec import Struct

from proxyherd.admin.status_page.state import ServerState
from proxyherd.base.words import spell_seconds

_MOST_CLOCK_SECONDS: Final = 1.0
"""By which neighbours' clocks may differ."""


class Silence(Struct, frozen=True):
    """A server that cannot be asked. `silent`: it gives no answer at all, rather than a wrong one."""

    silent: bool


class Trouble(Struct, frozen=True):
    """Something that is wrong with a server, for so many seconds; `more`: what else is known about it, or ""."""

    server: str
    words: str
    seconds: float = 0.0
    more: str = ""


class Troubles:
    """Remembers when each trouble was first seen."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], float] = {}

    def now(
        self,
        edges: Iterable[tuple[str, str]],
        states: Mapping[str, ServerState],
        silences: Mapping[str, Silence],
        now: float,
    ) -> list[Trouble]:
        """Return what is wrong. `states`: of all servers that are known; `silences`: those that cannot be asked. A server
        in neither has not been asked yet. `now`: seconds of any clock.
        """
        edges = list(edges)
        found: dict[tuple[str, str], Trouble] = {}
        for name, silence in silences.items():
            found[name, "silent"] = _of_silence(name, silence, edges, states)
        for name, state in states.items():
            found |= {(name, kind): trouble for kind, trouble in _of_state(name, state)}
        for one, other in edges:
            seconds = [
                states[name].link_seconds.get(neighbour, 0.0)
                for name, neighbour in ((one, other), (other, one))
                if name in states and states[name].links.get(neighbour) == "cut"
            ]
            if seconds and one in states and other in states:
                words = f"The link between {one} and {other} is cut"
                found[one, f"cut {other}"] = Trouble(one, words, max(seconds))
        self._since = {key: self._since.get(key, now) for key in found}
        return [
            Trouble(one.server, one.words, round(max(one.seconds, now - self._since[key]), 1), one.more)
            for key, one in found.items()
        ]


def _of_silence(
    name: str, silence: Silence, edges: Iterable[tuple[str, str]], states: Mapping[str, ServerState]
) -> Trouble:
    neighbours = [one if other == name else other for one, other in edges if name in (one, other)]
    said = {one: states[one].links[name] for one in neighbours if one in states and name in states[one].links}
    cut = [states[one].link_seconds.get(name, 0.0) for one, link in said.items() if link == "cut"]
    words = "does not answer" if silence.silent else "gives no state that can be used"
    return Trouble(name, f"{name} {words}", max(cut, default=0.0), _said(said))


def _said(said: Mapping[str, str]) -> str:
    """Return what neighbours say of their links with a server."""
    links = [*dict.fromkeys(said.values())]
    if not links:
        return ""
    if len(links) == 1:
        return (
            f"its neighbours say {links[0]}"
            if len(said) > 1
            else f"its neighbour {next(iter(said))} says {links[0]}"
        )
    return ", ".join(f"{name} says {link}" for name, link in said.items())


def _of_state(name: str, state: ServerState) -> Iterator[tuple[str, Trouble]]:
    """Return what is wrong by a server's own words, each with a word of its own."""
    if not state.ready:
        yield "not ready", Trouble(name, f"{name} is not ready: {state.reason}", state.readiness_seconds)
    if state.masters_up < state.masters:
        words = f"{name} reaches {state.masters_up} of {state.masters} masters of Redis"
        yield "masters", Trouble(name, words)
    if state.other_keys:
        yield "key", Trouble(name, f"The key of {name}'s table is not that of {', '.join(state.other_keys)}")
    if state.log_failing:
        yield "log", Trouble(name, f"{name} cannot write its log: lines are lost")
    for neighbour, ahead in sorted(state.clocks.items()):
        if abs(ahead) > _MOST_CLOCK_SECONDS:
            way = "ahead of" if ahead > 0 else "behind"
            yield (
                f"clock {neighbour}",
                Trouble(name, f"{neighbour}'s clock is {spell_seconds(abs(ahead))} {way} {name}'s"),
            )
