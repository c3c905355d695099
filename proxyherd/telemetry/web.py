"""Requests of the web port."""

from __future__ import annotations

from itertools import product
from typing import Final

from proxyherd.telemetry.metrics import Metrics

ANSWER_STATUSES: Final = dict.fromkeys(
    (
        "101",
        "200",
        "204",
        "304",
        "400",
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
    "too_much": "points before the last 1,000 of a payload; or it is larger than 2 MiB when it is unpacked, or as lines, or its names are larger than 512 KiB",
}
"""Why something that an app has sent was consumed."""


class WebObserver:
    """Counts the requests of the web port. Their commands are logged and counted as those of all clients."""

    def __init__(self, metrics: Metrics) -> None:
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

    def open(self) -> None:
        """Have all series from now on."""
        for status in ANSWER_STATUSES:
            self._answers.counter.labels(status)
        for via, reason in product(APP_NAMES, CONSUMED):
            self._consumed.labels(via, reason)

    def answered(self, status: int) -> None:
        """Note the answer to a request."""
        self._answers[(str(status),)] += 1

    def consumed(self, via: str, reason: str, count: int) -> None:
        """Note what an app has sent and is of no use."""
        self._consumed.labels(via, reason).inc(count)
