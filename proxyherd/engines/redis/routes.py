"""The master that gets the commands of a tag: its own, or for a short time another one, to which its keys are being
moved.

A tag without a master waits here until there is one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from proxyherd.config.address import Address
from proxyherd.engines.redis.layout import TAGS
from proxyherd.engines.redis.shard import Shard


class Routes:
    """The masters of one cluster; `make` connects to one."""

    def __init__(self, make: Callable[[Address], Shard]) -> None:
        self.owners: list[Shard | None] = [None] * TAGS
        self.shards: dict[Address, Shard] = {}
        self.detours: dict[int, tuple[Shard, int]] = {}
        """Where the first wishes of a tag must go, and how many."""
        self.homeless: set[int] = set()
        """Tags without a master, which wait for one."""
        self._make = make

    def shard(self, address: Address) -> Shard:
        """Return the master at an address; connect to it if it is new."""
        shard = self.shards.get(address)
        if shard is None:
            shard = self.shards[address] = self._make(address)
        return shard

    def route(self, tag: int) -> None:
        """Queue a tag at its master."""
        home = self.detours[tag][0] if tag in self.detours else self.owners[tag]
        if home is None:
            self.homeless.add(tag)
        else:
            home.want(tag)

    def choose_seal(self, shard: Shard, moving: Collection[int]) -> None:
        """Put the seal into a tag of the master whose keys are not being moved, if there is one."""
        if shard.seal is None or self.owners[shard.seal] is not shard or shard.seal in moving:
            own = [tag for tag, owner in enumerate(self.owners) if owner is shard]
            shard.seal = next((tag for tag in own if tag not in moving), own[0] if own else None)

    def learn(self, masters: Sequence[Address | None]) -> None:
        """Note the master of each tag, None if there is none."""
        self.owners = [None if address is None else self.shard(address) for address in masters]
        self.detours.clear()  # the node of a detour may be gone for good: let the tag's master name it again
        homeless, self.homeless = self.homeless, set()
        for tag in homeless:
            self.route(tag)
        used = set(self.owners)
        for address, shard in list(self.shards.items()):
            wanted = tuple(shard.wanted)
            shard.wanted.clear()
            if shard not in used:
                del self.shards[address]
                shard.part()
            for tag in wanted:
                self.route(tag)

    def owner(self, tag: int) -> Address | None:
        """Return the address of a tag's master, None if there is none."""
        owner = self.owners[tag]
        return None if owner is None else owner.address

    def is_served(self, tag: int) -> bool:
        """Whether a tag's master is available."""
        owner = self.owners[tag]
        return owner is not None and not owner.trouble

    @property
    def masters(self) -> set[Shard]:
        """The masters that have a part of the table."""
        return {owner for owner in self.owners if owner is not None}

    def spread(self) -> dict[str, int]:
        """Return how many tags each master has."""
        return dict(Counter(str(owner.address) for owner in self.owners if owner is not None))

    def trouble(self) -> str:
        """Return which masters are not available, and why; empty if all are."""
        lost = Counter(
            "no master is known" if owner is None else f"{owner.address}: {owner.trouble}"
            for owner in self.owners
            if owner is None or owner.trouble
        )
        return "; ".join(
            f"{number} of {TAGS} parts of the table wait ({why})" for why, number in lost.items()
        )

    def full(self) -> str:
        """Return which masters take no reports, and what to do; empty if all take them."""
        full = Counter(owner.address for owner in self.owners if owner is not None and owner.full)
        return "; ".join(
            f"{number} of {TAGS} parts of the table take no reports ({address}: its memory is full, raise maxmemory "
            "or add a shard)"
            for address, number in full.items()
        )

    async def close(self) -> None:
        """Close all connections, each after its batch."""
        for shard in self.shards.values():
            shard.part()
        await asyncio.gather(*(shard.task for shard in self.shards.values()), return_exceptions=True)


def named(error: Any, shard: Shard) -> Address:
    """Return the node that a redirection names; without a host, or with an unknown one, it is on the same host."""
    host, port = error.node_addr
    return Address(shard.address.host if host in {"", "?"} else host, port)
