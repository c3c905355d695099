"""Requests of the web port."""

from __future__ import annotations

from itertools import product
from typing import Final

from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.metrics import Metrics

ANSWER_STATUSES: Final = dict.fromkeys(
    (
        "101",
        "200",
        "204",
        "304",
        "400",
        "401",
        "403",
        "404",
        "405",
        "408",
        "413",
        "415",
        "417",
        "422",
        "429",
        "500",
        "501",
        "503",
        "505",
    ),
    "",
)
"""Statuses of answers, as in HTTP."""

APP_NAMES: Final = {
    "owntracks": "",
    "osmand": "Traccar Client, and others that speak like OsmAnd",
    "gpslogger": "",
    "overland": "",
}
"""Apps on phones."""

CONSUMED: Final = {
    "unreadable": "no JSON, no form, or packed in a way that is not read",
    "encrypted": "only the app's owner can read it",
    "other_kind": "a message about something else than a location",
    "no_client": "nothing says whose location it is, or its name is longer than max_client_bytes",
    "no_location": "no latitude and longitude, out of bounds, or with more digits than a line can have",
    "no_time": "no time, or out of form",
    "no_fix": "the app says that it does not know, or sends 0, 0",
    "inaccurate": "worse than max_accuracy_m",
    "denied": "the token does not allow it to report this client",
    "too_much": "points before the last 1,000 of a payload; or it is larger than 2 MiB when it is unpacked, or as lines, or its names are larger than 512 KiB",
}
"""Why something that an app has sent was consumed."""


TOKEN_REFUSALS: Final = {
    "missing": "there is none",
    "malformed": "not in the form of a token, or too long",
    "signature": "no key of the server has signed it, with the algorithm of the key",
    "claims": "a claim is missing or not as it must be, it is for another audience, or it lives too long",
    "early": "it begins later: the clock of who has made it is ahead",
    "expired": "",
    "revoked": "",
    "renewed": "the server does not accept its key any more",
}
"""Why a token is not good."""


class WebObserver:
    """Counts the requests of the web port. Their commands are logged and counted as those of all clients."""

    def __init__(self, events: Events, metrics: Metrics) -> None:
        self._events = events
        self._answers = metrics.tally(
            "proxyherd_web_answers_total",
            "Requests of the web port answered, by status",
            status=ANSWER_STATUSES,
        )
        self._consumed = metrics.counter(
            "proxyherd_web_consumed_total",
            "What apps on phones have sent and is of no use, and was answered as usual",
            via=APP_NAMES,
            reason=CONSUMED,
        )

        self._tokens_refused = metrics.counter(
            "proxyherd_web_tokens_refused_total",
            "Requests and WebSockets of the web port that had no good token",
            reason=TOKEN_REFUSALS,
        )

    def open(self) -> None:
        """Have all series from now on."""
        for status in ANSWER_STATUSES:
            self._answers.counter.labels(status)
        for via, reason in product(APP_NAMES, CONSUMED):
            self._consumed.labels(via, reason)
        for reason in TOKEN_REFUSALS:
            self._tokens_refused.labels(reason)

    def answered(self, status: int) -> None:
        """Note the answer to a request."""
        self._answers[(str(status),)] += 1

    def consumed(self, via: str, reason: str, count: int) -> None:
        """Note what an app has sent and is of no use."""
        self._consumed.labels(via, reason).inc(count)

    def token_used(self, client: str, via: str, subject: str, key: str, expires: int) -> None:
        """Note the first use of a token by a connection. `key`: which one has signed it; `expires`: POSIX seconds."""
        self._events.often("token_used", client=client, via=via, subject=subject, key=key, expires=expires)

    def token_refused(self, client: str, reason: str) -> None:
        """Note a token that is not good."""
        self._tokens_refused.labels(reason).inc()
        self._events.limited(None, "token_refused", reason, client=client)
