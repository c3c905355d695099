"""What a server says of itself at /state, for tests that need one that says so."""

from __future__ import annotations

from typing import Any

from proxyherd.admin.status_page.state import Histogram, ServerState

NOTHING = Histogram([], [0])


def a_state(server: str = "Ann", **figures: Any) -> ServerState:
    """Return what a server says that is ready and has done nothing, but for these figures."""
    totals = ("clients", "connections", "answered", "invalid", "floods_in", "floods_out", "mended")
    said: dict[str, Any] = {
        "server": server,
        "life": "1",
        "version": "1",
        "uptime": 1.0,
        "ready": True,
        "reason": "ready",
        "places_by": "nobody",
        "links": {},
        "places": NOTHING,
        "lag": NOTHING,
        **dict.fromkeys(totals, 0),
    }
    return ServerState(**{**said, **figures})
