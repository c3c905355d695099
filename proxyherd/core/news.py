"""Stored lines that a server passes on to its neighbours, and which of them concern which neighbour."""

from __future__ import annotations

from operator import attrgetter

from proxyherd.core.messages import Entry
from proxyherd.core.value import Value
from proxyherd.core.walks import Neighbour

its_client = attrgetter("client")
its_line = attrgetter("line")


class News(Value):
    """A stored line. `source`: the neighbour that it came from, None for a client. `caught_up`: whether it came by
    catching up. `held`: the entry that it replaced, if the line may have to be removed again.
    """

    client: bytes
    line: bytes
    source: str | None = None
    caught_up: bool = False
    held: Entry | None = None


def concerning(neighbour: Neighbour, news: list[News]) -> list[News]:
    """Return the news that are for this neighbour. Note if it has to be asked to walk again for the others."""
    if len(news) == 1 and not news[0].caught_up:  # the usual case, if clients report now and then
        return news if news[0].source != neighbour.name else []
    others = [one for one in news if one.source != neighbour.name]
    if neighbour.in_step:
        return others
    live = [one for one in others if not one.caught_up]
    if len(live) < len(others):
        neighbour.owed = neighbour.owed or neighbour.asked
    return live


def spell_news(news: list[News]) -> tuple[bytes, list[bytes]]:
    """Return news as they are sent over a link, and their clients."""
    return b"\n".join([*map(its_line, news), b""]), [*map(its_client, news)]
