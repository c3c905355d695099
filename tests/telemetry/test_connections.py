"""What the log and the metrics say of clients' connections."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from scenarios import CLIENT, VIA, Scenario, Watched, assert_exactly, line

from proxyherd.telemetry.connections import BUCKETS, PROTOCOLS, REASONS, REFUSED

OPEN = "proxyherd_client_connections_by_protocol"
CLOSED = "proxyherd_client_connections_closed_total"


def connections() -> Iterator[tuple[str, Scenario]]:
    opened = line("client_opened", client=CLIENT, via=VIA)
    taken = {"proxyherd_client_connections_opened_total": 1.0}
    for via in PROTOCOLS:
        yield (
            f"a client comes: {via}",
            Scenario(
                lambda it, via=via: it.observer.connections.opened(CLIENT, via, 1),  # type: ignore[misc]
                [line("client_opened", client=CLIENT, via=via)],
                {**taken, "proxyherd_client_connections": 1, f"{OPEN} {via}": 1},
            ),
        )
    for reason in (one for one in REASONS if one != "refused"):

        def come_and_go(it: Watched, reason: str = reason) -> None:
            it.observer.connections.opened(CLIENT, VIA, 1)
            it.observer.connections.closed(CLIENT, VIA, reason, 0)

        closed = line("client_closed", client=CLIENT, via=VIA, reason=reason)
        yield (
            f"a client goes: {reason}",
            Scenario(come_and_go, [opened, closed], {**taken, f"{CLOSED} {reason}": 1}),
        )
    yield (
        "a line is unfinished",
        Scenario(
            lambda it: it.observer.connections.line_unfinished(CLIENT, 33, 6.0),
            [
                line(
                    "line_unfinished",
                    client=CLIENT,
                    bytes=33,
                    seconds=6.0,
                    remedy="end each line with LF, or close the sending half behind the last one",
                )
            ],
            {},
        ),
    )
    for limit in REFUSED:
        yield (
            f"a client is refused: {limit}",
            Scenario(
                partial(refuse, limit),
                [line("client_refused", "warning", client=CLIENT, reason="full", left_out=0)],
                {f"{CLOSED} refused": 1, f"proxyherd_client_connections_refused_total {limit}": 1},
            ),
        )
    for limit, keys in BUCKETS.items():
        yield (
            f"a client is over its rate: {limit}",
            Scenario(
                partial(exceed, limit),
                [
                    line(
                        "client_over_rate",
                        "warning",
                        client=CLIENT,
                        via=VIA,
                        limit=limit,
                        seconds=1.235,
                        remedy="none, if this is one client; if it speaks for many, add its address to exempt of [rates]",
                        reason=f"{CLIENT} asks faster than [rates] allows: {keys}",
                        left_out=0,
                    )
                ],
                {"proxyherd_clients_over_rate": 1, f"proxyherd_client_waits_total {limit}": 2},
            ),
        )


def refuse(limit: str, it: Watched) -> None:
    it.observer.connections.refused(CLIENT, limit, "full")


def exceed(limit: str, it: Watched) -> None:
    """It is told of once, and the gauge falls when it goes on."""
    it.observer.connections.waits(CLIENT, VIA, limit, 1.2346)
    it.observer.connections.goes_on()
    it.observer.connections.waits(CLIENT, VIA, limit, 2.0)


def many_clients(it: Watched) -> None:
    for _ in range(20_003):
        it.observer.connections.opened(CLIENT, VIA, 1)
    it.clock.now += 0.1
    it.observer.connections.opened(CLIENT, VIA, 1)


SCENARIOS: dict[str, Scenario] = {
    **dict(connections()),
    "clients in numbers": Scenario(
        many_clients,
        [line("client_opened", client=CLIENT, via=VIA)] * 20_000
        + [line("client_opened", client=CLIENT, via=VIA, left_out=3)],
        {
            "proxyherd_client_connections": 1,
            f"{OPEN} {VIA}": 20_004,
            "proxyherd_client_connections_opened_total": 20_004,
        },
    ),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)
