"""Connections of clients: their beginnings and ends."""

from __future__ import annotations

from typing import Final

from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.metrics import Metrics

PROTOCOLS: Final = {
    "lines": "the line protocol, over TCP or TLS",
    "http": "requests of the web port, also those of apps",
    "websocket": "WebSockets of the web port",
    "stream": "streams of events of the web port",
}
"""What a connection speaks."""

REASONS: Final = {
    "closed by client": "",
    "broken by client": "",
    "idle": "no complete line for idle_seconds",
    "slow reader": "read nothing for slow_reader_seconds, or too much waited for it of what it follows",
    "HTTP request": "sent an HTTP request",
    "bad request": "what was sent is no request that HTTP knows, or too large",
    "slow request": "its body did not come in time",
    "no answer in time": "the server was not ready, or others did not answer",
    "bad WebSocket": "a frame or a message broke the rules of WebSockets",
    "bad token": "the token of a WebSocket or a stream was not good, or is not good any more",
    "no pong": "a WebSocket's client did not answer a ping",
    "became a WebSocket": "the connection went on as one, which is counted as another",
    "became a stream": "likewise, as a stream of events",
    "server stops": "",
    "no answer from the cluster": "within deadline_seconds of [redis]",
    "internal error": "a bug; the event internal_error has the traceback",
    "over its rate": "a WebSocket was over its rate for longer than grace_seconds of [rates]",
    "refused": "too many connections, or a failed TLS handshake",
}
"""Why a connection ended."""

REFUSED: Final = {
    "max_connections": "of [limits]: there were as many as that",
    "connections_per_address": "of [rates]: its address had as many as that",
    "new_connections_per_address": "of [rates]: its address opened connections faster",
    "lines": "of [auth]: it is not of this machine",
    "tls": "the TLS handshake failed, or was the oldest of too many",
    "system": "the system had no descriptor, or has reported an error",
}
"""Why a connection was refused."""

BUCKETS: Final = {
    "connection": "commands_per_connection",
    "address": "commands_per_address, or new_connections_per_address",
    "subject": "commands_per_subject",
}
"""Which bucket was overdrawn: the keys of [rates]."""


class ConnectionObserver:
    """The connections of clients to one server."""

    def __init__(self, events: Events, metrics: Metrics) -> None:
        self._events = events
        self.open = metrics.gauge("proxyherd_client_connections", "Client connections open now")
        self.by_protocol = metrics.gauge(
            "proxyherd_client_connections_by_protocol",
            "Client connections open now, by protocol",
            via=PROTOCOLS,
        )
        for via in PROTOCOLS:
            self.by_protocol.labels(via).set(0)
        self._opened = metrics.counter(
            "proxyherd_client_connections_opened_total", "Client connections taken"
        )
        self._closed = metrics.counter(
            "proxyherd_client_connections_closed_total",
            "Client connections ended; also those refused, which were not opened",
            reason=REASONS,
        )
        for reason in REASONS:  # to Prometheus, a counter's first appearance is no increase
            self._closed.labels(reason)

        self._refused = metrics.counter(
            "proxyherd_client_connections_refused_total",
            "Client connections refused, by reason",
            reason=REFUSED,
        )
        for reason in REFUSED:
            self._refused.labels(reason)
        self.waiting = metrics.gauge(
            "proxyherd_clients_over_rate",
            "Clients whose next commands are not read yet, because they or their address have sent more than [rates] "
            "allows",
        )
        self._waits = metrics.counter(
            "proxyherd_client_waits_total",
            "How often a client was over a rate, and had to wait",
            limit=BUCKETS,
        )
        for limit in BUCKETS:
            self._waits.labels(limit)

    def opened(self, client: str, via: str, connections: int) -> None:
        """Note a new connection of a client; `connections` are open now."""
        self._opened.inc()
        self.open.set(connections)
        self.by_protocol.labels(via).inc()
        self._events.often("client_opened", client=client, via=via)

    def line_unfinished(self, client: str, size: int, seconds: float) -> None:
        """Note that a client has sent this many bytes without LF, and has not ended the line for this long."""
        self._events.often(
            "line_unfinished",
            client=client,
            bytes=size,
            seconds=round(seconds, 3),
            remedy="end each line with LF, or close the sending half behind the last one",
        )

    def closed(self, client: str, via: str, reason: str, connections: int) -> None:
        """Note the end of a client's connection."""
        self._closed.labels(reason).inc()
        self.open.set(connections)
        self.by_protocol.labels(via).dec()
        self._events.often("client_closed", client=client, via=via, reason=reason)

    def refused(self, client: str, reason: str, text: str) -> None:
        """Note that a client's connection was closed before it could send anything. `reason`: one of `REFUSED`; `text`: the
        same for people.
        """
        self._closed.labels("refused").inc()
        self._refused.labels(reason).inc()
        self._events.limited(None, "client_refused", text, client=client)

    def waits(self, client: str, via: str, limit: str, seconds: float) -> None:
        """Note that a client is over its rate, and that its next commands are read in so many seconds. `limit`: one of
        `BUCKETS`.
        """
        self.waiting.inc()
        self._waits.labels(limit).inc()
        self._events.limited(
            None,
            "client_over_rate",
            f"{client} asks faster than [rates] allows: {BUCKETS[limit]}",
            client=client,
            via=via,
            limit=limit,
            seconds=round(seconds, 3),
            remedy="none, if this is one client; if it speaks for many, add its address to exempt of [rates]",
        )

    def goes_on(self) -> None:
        """Note that a client no longer waits."""
        self.waiting.dec()
