"""Herds that begin with many clients: each server finds them in its journal.

with large_herd(["Ann", "Bob"], clients=100_000) as herd:
    ...
"""

from __future__ import annotations

import contextlib
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from herd_process import RunningHerd, herd_of, wait_until

from proxyherd.engines.herd.journal import record

_START_SECONDS = 90.0


def ring(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the edges of a ring, with a chord at every third server of one half; two servers: one edge."""
    if len(names) == 2:
        return [(names[0], names[1])]
    count = len(names)
    edges = [(one, names[(at + 1) % count]) for at, one in enumerate(names)]
    return edges + [(names[at], names[at + count // 2]) for at in range(0, count // 2, 3)]


@contextlib.contextmanager
def large_herd(names: Sequence[str], *, clients: int) -> Iterator[RunningHerd]:
    """Run servers that all know the same clients, all over the world."""
    with herd_of(ring(names)) as herd:
        folder = herd.folder / "journal"
        folder.mkdir()
        _write_journal(folder / f"{1:012}.segment", clients)
        for server in herd.values():
            shutil.copytree(folder, server.state / "journal")
        herd.start()
        for name, server in herd.items():
            wait_until(lambda: server.readiness()[0] == 200, f"{name} is ready", _START_SECONDS)  # noqa: B023 - called at once
        herd.wait_until_whole()
        yield herd


def _write_journal(file: Path, clients: int) -> None:
    rng = random.Random(8)
    # Now: a journal that is older than tombstones are kept is not used.
    form = b"AT S00 +0.263873386 client%06d.example %+.6f%+.6f " + b"%.9f" % time.time()
    with file.open("wb") as out:
        for number in range(clients):
            out.write(record(form % (number, rng.uniform(-60, 75), rng.uniform(-180, 180))))
