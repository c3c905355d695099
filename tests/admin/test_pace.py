"""How often metrics are made."""

from __future__ import annotations

import asyncio
from itertools import pairwise

from admin_port import Working, connected, get, serving, until


def test_metrics_leave_the_server_ten_elevenths_of_its_time_however_greedy_scrapers_are() -> None:
    """By the time that each took: that a busy machine makes it longer makes the pause longer too."""
    times = 6

    async def scenario() -> None:
        metrics = Working(0.002)
        async with serving([], metrics) as port:
            await until(lambda: metrics.refreshed)  # for the last hour of the status page
            metrics.refreshed.clear()
            await scrape(port, metrics)

    async def scrape(port: int, metrics: Working) -> None:
        async with connected(port, 16, get("/metrics") * 20):
            while len(metrics.refreshed) < times:  # noqa: ASYNC110 - likewise
                await asyncio.sleep(0.001)
        for (began, ended), (next_began, _) in pairwise(metrics.refreshed):
            assert next_began - ended >= 10 * (ended - began)

    asyncio.run(scenario())
