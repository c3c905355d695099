"""What the connections of the web port share."""

from __future__ import annotations

from typing import Final

from proxyherd.config.herd_file import Herd
from proxyherd.server.clients.clients import Clients
from proxyherd.web.lines import LineWriter
from proxyherd.web.origins import Origins, Proxies
from proxyherd.web.routes import WebRoutes

_SPARE_SECONDS: Final = 5.0
"""For an answer, besides what others may take for their part of it."""


class WebClients:
    """What the connections of the web port share."""

    def __init__(self, clients: Clients, herd: Herd) -> None:
        self.clients = clients
        self.writer = LineWriter(clients.limits.max_line_bytes)
        self.routes = WebRoutes(
            self.writer, Origins(herd.web.hosts, herd.web.allowed_origins), herd.web.max_accuracy_m
        )
        self.proxies = Proxies(herd.web.trusted_proxies) if herd.web.trusted_proxies else None
        others = [herd.places.deadline_seconds, herd.redis.deadline_seconds if herd.redis else 0.0]
        self.answer_seconds = max(others) + _SPARE_SECONDS
        """How long a request waits for its answer."""
