"""The masters, merged from the views of several nodes: the claim to a slot with the greatest epoch counts.

A single node may have been cut off, and still consider itself a master.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from proxyherd.config.address import Address
from proxyherd.engines.redis.layout import TAGS, owned


class Claim(NamedTuple):
    """A node's claim to slots, from the first to the last of each pair."""

    epoch: int
    address: Address
    slots: tuple[tuple[int, int], ...]


class View(NamedTuple):
    """One node's view: other nodes to ask, the claims to slots, the node's own ID, and its replicas. `serving`: IDs of
    masters with slots that it does not consider dead; a replica is elected only in place of one that it considers
    dead.
    """

    nodes: tuple[Address, ...]
    claims: tuple[Claim, ...]
    myself: str = ""
    replicas: tuple[Address, ...] = ()
    serving: frozenset[str] = frozenset()


def parse_view(text: str, asked: Address, *, by_name: bool) -> View:
    """Parse a node's answer to CLUSTER NODES. `by_name`: prefer host names, which are in certificates, to addresses.
    Raises ValueError if it is not such an answer.
    """
    nodes: list[Address] = []
    claims: list[Claim] = []
    replicas: list[Address] = []
    serving: set[str] = set()
    lines = [line.split(" ") for line in text.splitlines()]
    myself = next((fields[0] for fields in lines if "myself" in fields[2].split(",")), "")
    for fields in lines:
        address, flags, epoch = fields[1], fields[2].split(","), int(fields[6])
        found = _address(address, asked, by_name=by_name)
        if found is None or {"noaddr", "handshake"} & {*flags}:
            continue
        if not {"fail", "fail?"} & {*flags}:
            nodes.append(found)
        if "master" in flags:
            slots = tuple(map(_range, _stable(fields[8:])))
            claims.append(Claim(epoch, found, slots))
            if slots and "fail" not in flags:
                serving.add(fields[0])
        elif fields[3] == myself and "fail" not in flags:
            replicas.append(found)
    return View(tuple(nodes), tuple(claims), myself, tuple(replicas), frozenset(serving))


def merge_views(views: Iterable[View]) -> list[Address | None]:
    """Return the master of each tag, None if no node claims it."""
    greatest: list[Claim | None] = [None] * TAGS
    for claim in (claim for view in views for claim in view.claims):
        for first, last in claim.slots:
            for tag in owned(first, last):
                other = greatest[tag]
                if other is None or claim.epoch > other.epoch:
                    greatest[tag] = claim
    return [None if claim is None else claim.address for claim in greatest]


def _address(spelled: str, asked: Address, *, by_name: bool) -> Address | None:
    """Parse `host:port@bus,name`; a node that does not know its own host leaves it out."""
    where, _, named = spelled.partition("@")
    host, _, port = where.rpartition(":")
    name = named.split(",")[1] if by_name and "," in named else ""
    return Address(name or host or asked.host, int(port)) if int(port) else None


def _stable(slots: Iterable[str]) -> Iterable[str]:
    return (one for one in slots if not one.startswith("["))  # slots that are being moved


def _range(slots: str) -> tuple[int, int]:
    first, _, last = slots.partition("-")
    return int(first), int(last or first)
