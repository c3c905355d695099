"""The outcomes of wishes, until the next turn sends the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from proxyherd.core.engine import Client, Settled
from proxyherd.core.notes import Note, Removed
from proxyherd.core.reply import Reply, leave
from proxyherd.core.rules import Rules, find, refuse
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.batch import Batch, Wish

AGAIN: Final = "again"
"""The outcome of a command that may have been executed already, and is repeated."""

_HELD: Final = ord("1")
_NOT_LATER: Final = ord("0")
_GIVEN_UP: Final = "no answer from the cluster"


class Outcomes:
    """Gathers outcomes."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._settled: dict[Client, None] = {}
        self._found: list[tuple[Client, Reply]] = []
        self._given_up: dict[Client, str] = {}
        self._notes: list[Note] = []

    def take(self) -> Settled:
        """Return what was gathered since the last time."""
        settled = Settled(self._settled, self._found, self._given_up.items(), self._notes)
        self._settled, self._found, self._given_up, self._notes = {}, [], {}, []
        return settled

    def give(self, batch: Batch, answers: Sequence[object], *, some_failed: bool) -> None:
        """Give wishes their outcomes, except those that have failed, and later ones of the same tag."""
        settled = self._settled
        behind: set[int] = set()
        for (tag, wishes), answer in zip(batch.calls, answers, strict=True):
            if some_failed and (tag in behind or isinstance(answer, Exception)):
                behind.add(tag)
                continue
            if type(answer) is not bytes:
                self._give_found(wishes, cast("list[bytes | None]", answer))
                continue
            for (client, asked, line), outcome in zip(wishes, answer, strict=True):
                settled[client] = None
                if outcome == _HELD:
                    asked.outcome, asked.answer = "stored", asked.at
                elif outcome == _NOT_LATER:
                    asked.outcome, asked.answer = "stale", asked.at
                else:  # the key is none of ours
                    refuse(asked, line, "key")

    def _give_found(self, wishes: list[Wish], values: list[bytes | None]) -> None:
        """Give queries what was found, or an erasure its tombstone."""
        if wishes[0][1].kind == "forget":
            client, asked, _ = wishes[0]
            stayed = asked.may_stay and len(values) > 1
            asked.outcome, asked.answer = "stayed" if stayed else "erased", values[0]
            self._settled[client] = None
            if not stayed:
                self._notes.append(Removed(asked.at))
            return
        for (client, asked, line), value in zip(wishes, values, strict=True):
            held = layout.entry(value, self._rules.lead) if value is not None else None
            find(asked, line, self._rules.remembered(held))
            if asked.entry is not None and client.gone:
                leave(asked)
            elif asked.answer is None:
                self._found.append((client, asked))
            self._settled[client] = None

    def refuse(self, wishes: Sequence[Wish]) -> list[Wish]:
        """Refuse reports, because Redis has no memory for them. Return those that may have been stored before: they must
        wait.
        """
        for client, asked, line in wishes:
            if asked.outcome != AGAIN:
                refuse(asked, line)
                self._settled[client] = None
        return [wish for wish in wishes if wish[1].outcome == AGAIN]

    def give_up(self, client: Client) -> None:
        """Close a client's connection without the answers that it is owed."""
        self._given_up[client] = _GIVEN_UP
