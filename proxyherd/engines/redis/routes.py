"""Which master a tag's wishes go to: its own, or for a moment another, where its keys are moving to.

A tag that nobody is master of waits here, and goes on when somebody is.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from proxyherd.config.herd_file import Address
from proxyherd.engines.redis.layout import TAGS
from proxyherd.engines.redis.shard import Shard


class Routes:
    """The masters of one cluster; `make` connects to one."""

    def __init__(self, make: Callable[[Address], Shard]) -> None:
        self.owners: list[Shard | None] = [None] * TAGS
        self.shards: dict[Address, Shard] = {}
        self.detours: dict[int, tuple[Shard, int]] = {}
        """Where the first so many wishes of a tag are to go."""
        self.homeless: set[int] = set()
        """Tags that wait for somebody to be their master."""
        self._make = make

    def shard(self, address: Address) -> Shard:
        """Return the master at an address, connecting to it if that is new."""
        shard = self.shards.get(address)
        if shard is None:
            shard = self.shards[address] = self._make(address)
        return shard

    def route(self, tag: int) -> None:
        """Put a tag among what its master wants to do."""
        home = self.detours[tag][0] if tag in self.detours else self.owners[tag]
        if home is None:
            self.homeless.add(tag)
        else:
            home.want(tag)

    def choose_seal(self, shard: Shard, moving: Collection[int]) -> None:
        """Let the seal be in a tag of the master's whose keys are not on their way, if there is one."""
        if shard.seal is None or self.owners[shard.seal] is not shard or shard.seal in moving:
            own = [tag for tag, owner in enumerate(self.owners) if owner is shard]
            shard.seal = next((tag for tag in own if tag not in moving), own[0] if own else None)

    def learn(self, masters: Sequence[Address | None]) -> None:
        """Take note of who is master of each tag, None where nobody is."""
        self.owners = [None if address is None else self.shard(address) for address in masters]
        self.detours.clear()  # where one led may be gone for good: let the owner say once more where to
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

    def is_served(self, tag: int) -> bool:
        """Whether a tag's master can be had."""
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
        """Return which masters cannot be had, and why; empty when all can."""
        lost = Counter(
            "no master is known" if owner is None else f"{owner.address}: {owner.trouble}"
            for owner in self.owners
            if owner is None or owner.trouble
        )
        return "; ".join(
            f"{number} of {TAGS} parts of the table wait ({why})" for why, number in lost.items()
        )

    def full(self) -> str:
        """Return which masters take no reports, and what to do; empty when all take them."""
        full = Counter(owner.address for owner in self.owners if owner is not None and owner.full)
        return "; ".join(
            f"{number} of {TAGS} parts of the table take no reports ({address}: its memory is full, raise maxmemory "
            "or add a shard)"
            for address, number in full.items()
        )

    async def close(self) -> None:
        """End all connections, each when no batch is in flight."""
        for shard in self.shards.values():
            shard.part()
        await asyncio.gather(*(shard.task for shard in self.shards.values()), return_exceptions=True)


def named(error: Any, shard: Shard) -> Address:
    """Return the node that a redirection names; without a host, or with an unknown one, it is on the same one."""
    host, port = error.node_addr
    return Address(shard.address.host if host in {"", "?"} else host, port)
