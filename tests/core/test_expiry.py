"""How old entries leave a table."""

from __future__ import annotations

import pytest

from proxyherd.core.expiry import Expiry
from proxyherd.core.messages import Entry
from proxyherd.core.table import Table

LEAVES = 256


class WatchedTable(Table):
    """A table whose leaves are those of the clients' numbers, and that notes how many are visited at once."""

    def __init__(self) -> None:
        super().__init__(b"k" * 32, depth=2)
        self.visited: list[int] = []

    def _hash(self, client: bytes) -> int:
        return int(client) % LEAVES

    def entries(self, first: int, last: int) -> list[tuple[bytes, Entry]]:
        self.visited.append(last - first)
        return super().entries(first, last)


@pytest.mark.parametrize("ticks", [40.0, 800.0, 7.3, 1.0, 1 / 15])
def test_what_ages_in_a_later_round_goes_too_a_part_of_the_table_each_tick(ticks: float) -> None:
    """Three rounds: what is too old goes within one round, and nothing younger does."""
    table, now = WatchedTable(), 0
    expiry = Expiry(table, lambda entry: entry.nanoseconds < now, ticks)
    round_ = max(int(ticks), 1)
    ends = {b"%d" % number: 3 * round_ * number // 150 for number in range(150)}
    for client, end in ends.items():
        table.put(client, Entry(b"AT A +0.1 %b +1+1 0" % client, end), table.leaf(client))
    for now in range(4 * round_ + 2):
        expiry.tick()
        held = {client for client, _ in table}
        assert held >= {client for client, end in ends.items() if end >= now}
        assert not {client for client in held if now - ends[client] > round_}, now
    assert len(table) == 0
    assert max(table.visited) <= LEAVES / ticks + 1
