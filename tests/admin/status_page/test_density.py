"""The map: each client is in one cell, and a sweep takes short slices."""

from __future__ import annotations

import random
import time
from collections import Counter

from proxyherd.admin.status_page.density import MOST_CELLS, Density
from proxyherd.core.messages import Entry
from proxyherd.core.table import Table


def filled(places: list[tuple[float, float]]) -> Table:
    table = Table(bytes(32))
    for number, (latitude, longitude) in enumerate(places):
        client = b"client%d" % number
        line = b"AT Ann +0.000000001 %b %+.6f%+.6f 1" % (client, latitude, longitude)
        table.put(client, Entry(line, 1), table.leaf(client))
    return table


def sweep(density: Density) -> int:
    """Count all; return in how many slices."""
    slices = 1
    while not density.slice():
        slices += 1
    return slices


def test_every_client_is_in_one_cell() -> None:
    places = [(34.06, -118.44), (34.07, -118.45), (-90, -180), (90, 180), (0, 0), (-0.1, -0.1)]
    density = Density(filled(places))
    sweep(density)
    cells = density.cells()
    assert (cells.degrees, cells.clients, cells.whole) == (0.5, 6, True)
    rows = Counter({(c, r): n for c, r, n in zip(*[iter(cells.cells)] * 3, strict=True)})
    assert rows == {(123, 248): 2, (0, 0): 1, (719, 359): 1, (360, 180): 1, (359, 179): 1}


def test_no_cell_is_beyond_the_edges_of_the_world() -> None:
    rng = random.Random(8)
    edges = [(90.0, rng.uniform(-180, 180)) for _ in range(1_000)]
    edges += [(rng.uniform(-90, 90), 180.0) for _ in range(1_000)]
    density = Density(filled(edges + [(rng.uniform(-90, 90), rng.uniform(-180, 180)) for _ in range(20_000)]))
    sweep(density)
    cells = density.cells()
    assert cells.degrees > 0.5
    assert max(cells.cells[::3]) * cells.degrees < 360
    assert max(cells.cells[1::3]) * cells.degrees < 180


def test_cells_grow_until_there_are_few_and_no_slice_is_long() -> None:
    rng = random.Random(8)
    places = [(rng.uniform(-90, 90), rng.uniform(-180, 180)) for _ in range(20_000)]
    density = Density(filled(places))
    assert not density.cells().whole
    slices, took = 0, []
    while not density.counted:
        began = time.thread_time()
        density.slice()
        took.append(time.thread_time() - began)
        slices += 1
    cells = density.cells()
    assert slices > 2
    assert sorted(took)[len(took) // 2] < 0.02
    assert len(cells.cells) // 3 <= MOST_CELLS
    assert cells.clients == sum(cells.cells[2::3]) == 20_000
    sweep(density)
    assert density.cells() == cells
