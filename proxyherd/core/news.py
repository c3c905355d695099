"""Stored lines that a server passes on to its neighbours, and which of them concern which neighbour."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import TypeAlias

from proxyherd.core.flood_paths import SpareCopies, spared
from proxyherd.core.link import Link
from proxyherd.core.messages import Entry
from proxyherd.core.notes import Flooded
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Erasure, Evicted, Table
from proxyherd.core.tombstones import parse_gone
from proxyherd.core.value import Value
from proxyherd.core.walks import Neighbour, Walks

its_client = attrgetter("client")
its_line = attrgetter("line")


def raise_it(_: Link, error: Exception) -> None:
    """Raise the exception: nobody else handles it."""
    raise error


class News(Value):
    """A stored line: an AT line, or a tombstone's. `source`: the neighbour that it came from, None for a
    client's. `caught_up`: whether it came by catching up. `held`: what it replaced, and who has left for it,
    if the line may have to be removed again.
    """

    client: bytes
    line: bytes
    source: str | None = None
    caught_up: bool = False
    held: Entry | Erasure | Evicted | None = None


LinkErrorHandler: TypeAlias = Callable[[Link, Exception], None]
"""Called with a link, and the exception that work for this neighbour has raised."""


def take_back(news: list[News], table: Table) -> list[News]:
    """Remove from the table what came from clients, with the latest first. Return the news that came from
    neighbours.
    """
    for one in reversed(news):
        if one.source is not None:
            continue
        if isinstance(one.held, Erasure):
            tombstone = parse_gone(one.line)
            if tombstone is not None and table.held_until(tombstone.digest) == tombstone.until:
                table.restore(tombstone, one.held)
            continue
        leaf = table.leaf(one.client)
        entry = table.get(one.client, leaf)
        if entry is None or entry.line is not one.line:
            continue  # replaced by a neighbour's update: that stays
        held = one.held
        if isinstance(held, Evicted):
            for client, evicted in held.clients:
                table.put(client, evicted, table.leaf(client))
            table.evicted -= len(held.clients)
            held = held.held
        if held is None:
            table.remove(one.client, leaf)
        else:
            table.put(one.client, held, leaf)
    return [one for one in news if one.source is not None]


def concerning(neighbour: Neighbour, news: list[News]) -> list[News]:
    """Return the news that are for this neighbour: if that is all of them, the same list. Note if it has to
    be asked to walk again for the others.
    """
    own = [one for one in news if one.source != neighbour.name]
    if not neighbour.in_step:
        live = [one for one in own if not one.caught_up]
        if len(live) < len(own):
            neighbour.owed = neighbour.owed or neighbour.asked
        own = live
    return own if len(own) < len(news) else news


def spare_news(news: list[News], spare_copies: SpareCopies) -> dict[str, list[bytes]]:
    """Return the lines that may wait, by neighbour. Of many news at once, none may: waiting would save nothing."""
    spare: dict[str, list[bytes]] = {}
    if spare_copies and len(news) <= SIZES.few_updates:
        for one in news:
            for name in spared(spare_copies, one.source, one.line) if not one.caught_up else ():
                spare.setdefault(name, []).append(one.line)
    return spare


def spell_news(news: list[News]) -> tuple[bytes, list[bytes]]:
    """Return news as they are sent over a link, and their clients."""
    return b"\n".join([*map(its_line, news), b""]), [*map(its_client, news)]


def pass_on(
    news: list[News],
    neighbours: Iterable[Neighbour],
    walks: Walks,
    failed: LinkErrorHandler,
    learned: bool,
    spare_copies: SpareCopies,
) -> list[Flooded]:
    """Send the news to these neighbours, each what concerns it; return what was sent. `learned`: whether any
    of the news came from a neighbour. If no walk of this server is due, ask neighbours that may have missed
    something to walk again. Before that, it is not known which news was not sent to them.

    `spare_copies`: which copies leave later, if there are few, and if nothing leaves now with which they can go: it may be
    the end of a handshake, which must leave first. `failed` gets a link whose work has raised an exception.
    """
    whole = b""
    clients: list[bytes] = []
    told: list[str] = []  # the neighbours that all the news concern
    sent: list[Flooded] = []
    spare = spare_news(news, spare_copies)
    for neighbour in neighbours:
        try:
            own = concerning(neighbour, news) if learned else news
            if spare and (waiting := spare.get(neighbour.name)) and not neighbour.link.out:
                neighbour.link.spare += waiting
                if soon := [one for one in own if one.line not in waiting]:
                    neighbour.link.send_updates(spell_news(soon)[0])
                sent.append(Flooded((neighbour.name,), [*map(its_client, own)]))
            elif own is news and news:
                if not whole:
                    whole, clients = spell_news(news)
                neighbour.link.send_updates(whole)
                told.append(neighbour.name)
            elif own:
                data, some = spell_news(own)
                neighbour.link.send_updates(data)
                sent.append(Flooded((neighbour.name,), some))
            if neighbour.owed:
                walks.ask_again(neighbour)
        except Exception as error:  # noqa: BLE001 - the other neighbours are told
            failed(neighbour.link, error)
    if told:
        sent.append(Flooded((*told,), clients))
    return sent
