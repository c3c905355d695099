"""Reads once what a cluster holds: every location, and how many tombstones. It is one pass of the bridge, and writes nothing
but the seals.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Final

from msgspec import Struct

from proxyherd.bridge.masters import Masters, TagWrites
from proxyherd.bridge.passes import Passes, Unfit
from proxyherd.config.herd_file import Herd
from proxyherd.core.messages import At
from proxyherd.engines.redis.opening import Opener
from proxyherd.net.resolving import new_event_loop
from proxyherd.server.process import open_log
from proxyherd.telemetry.logs import make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

_LOOK_SECONDS: Final = 0.05


class Inventory(Struct, frozen=True):
    """The AT line of each client, and the number of tombstones."""

    lines: dict[bytes, bytes]
    tombstones: int


def read_cluster(herd: Herd, patience: float) -> Inventory:
    """Read the cluster of this herd. Raises Unfit if it cannot be read within `patience` seconds."""
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_read(herd, patience))


async def _read(herd: Herd, patience: float) -> Inventory:
    assert herd.redis is not None
    file = open_log(Path(os.devnull), max_bytes=0)
    log = make_logger(file, server="forget", level="error", max_field_bytes=herd.log.max_field_bytes)
    observer = Observer(log, file, Metrics(), ())
    opener = Opener(herd.redis, herd.file, os.environ, observer)
    masters = Masters(herd, opener, observer, lambda _: TagWrites([], [], [], []))
    lines: dict[bytes, bytes] = {}

    def learn(ats: list[At]) -> None:
        lines.update((at.client, at.entry.line) for at in ats)

    passes = Passes(masters, learn, _go_on, herd.limits.clock_lead)
    deadline = asyncio.get_running_loop().time() + patience
    try:
        while True:
            try:
                await passes.read_all()
                return Inventory(lines, len(passes.tombstones))
            except Unfit as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise Unfit(masters.trouble or str(error)) from error
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        await masters.close()
        file.close()


async def _go_on() -> None:
    """Let others have their turn: what is read waits for nobody."""
    await asyncio.sleep(0)
