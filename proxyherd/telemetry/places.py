"""Places: queries, calls to Google, and their costs. `PlacesObserver` is the `Watch` of proxyherd.places."""

from __future__ import annotations

from typing import Final

from prometheus_client import Histogram

from proxyherd.places import PROVIDER_NAMES, STATES, BreakerState, CallOutcome, Spared
from proxyherd.telemetry.event_limits import Events
from proxyherd.telemetry.frequent import FrequentEvent
from proxyherd.telemetry.metrics import Metrics

_BUCKETS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    4.5,
    5.0,
    5.5,
)
"""Seconds: offline answers take one or two milliseconds, Google a tenth, and 5 s is the deadline."""

OUTCOMES: Final = {
    "answered": "",
    "denied": "",
    "limited": "",
    "failed": "",
    "unreachable": "",
    "broken": "",
    "late": "",
    "nonsense": "",
    "abandoned": "",
}
"""The outcomes of calls; docs/logs.md explains them."""

SPARED: Final = {
    "shared": "used the answer of a call that was under way",
    "kept": "answered from the cache",
    "shed": "too many queries wait",
    "rate": "the client asks faster than [rates] allows",
    "late": "too little time was left for an answer",
    "breaker": "the circuit breaker is open",
    "share": "the asker has had its share of the budget",
    "budget": "the budget is used up",
    "unrecorded": "calls cannot be recorded in the budget",
}
"""Why a query, or another attempt at it, needed no call."""

_WORTH_A_LINE: Final = {"shed", "rate", "late", "share", "budget", "unrecorded"}


class PlacesEvent(FrequentEvent):
    """A query for places has ended."""

    name = "places"
    provider: str
    status: str
    seconds: float


class PlacesObserver:
    """The queries of one server's clients, and its calls to Google."""

    def __init__(self, events: Events, metrics: Metrics) -> None:
        self._events = events
        self._children: dict[tuple[str, str], Histogram] = {}
        self.seconds = metrics.histogram(
            "proxyherd_places_seconds",
            "Seconds that a query of places took, by Google's status; also queries that are answered at once",
            _BUCKETS,
            provider=dict.fromkeys(PROVIDER_NAMES, ""),
            outcome={
                "OK": "",
                "ZERO_RESULTS": "",
                "INVALID_REQUEST": "",
                "OVER_QUERY_LIMIT": "",
                "REQUEST_DENIED": "",
                "UNKNOWN_ERROR": "",
                "OTHER": "a status that Google has not documented",
            },
        )
        self.in_flight = metrics.gauge(
            "proxyherd_places_in_flight", "Queries of places that wait for an answer"
        )
        self._calls = metrics.counter(
            "proxyherd_places_calls_total",
            "Calls to Google, retries included, by what became of them",
            provider=None,
            outcome=OUTCOMES,
        )
        self._cost = metrics.counter(
            "proxyherd_places_cost_dollars_total",
            "What calls to Google may have cost, at dollars_per_call each, in US dollars",
            provider=None,
        )
        self._spared = metrics.counter(
            "proxyherd_places_spared_total",
            "Queries of places, and further attempts at them, that cost no call, by why",
            why=SPARED,
        )
        for why in SPARED:  # to Prometheus, a counter's first appearance is no increase
            self._spared.labels(why)
        self._breaker = metrics.gauge(
            "proxyherd_places_breaker_state",
            "1 for the state that the circuit breaker of places is in",
            state={"closed": "", "open": "", "half_open": ""},
        )
        self._set_breaker("closed")

    def asked(self, provider: str, status: str, outcome: str, seconds: float) -> None:
        """Note one query; `outcome` is one of few words. The log has it at the end of the turn."""
        child = self._children.get((provider, outcome))
        if child is None:
            child = self._children[provider, outcome] = self.seconds.labels(provider, outcome)
        child.observe(seconds)
        self._events.frequent(PlacesEvent(provider, status, round(seconds, 6)))

    def count_call(self, provider: str, outcome: CallOutcome, seconds: float, dollars: float) -> None:
        """Note one call to Google, and its estimated cost."""
        self._calls.labels(provider, outcome).inc()
        self._cost.labels(provider).inc(dollars)
        self._events.log.info("places_call", provider=provider, outcome=outcome, seconds=round(seconds, 6))

    def count_spared(self, why: Spared) -> None:
        """Note a query, or another attempt at it, that needed no call."""
        self._spared.labels(why).inc()
        if why in _WORTH_A_LINE:
            self._events.limited(None, "places_spared", why)

    def note_breaker(self, state: BreakerState) -> None:
        """Note that the circuit breaker has changed."""
        self._set_breaker(state)
        if state == "open":
            self._events.log.warning("places_breaker", state=state)
        else:
            self._events.log.info("places_breaker", state=state)

    def _set_breaker(self, state: BreakerState) -> None:
        for one in STATES:
            self._breaker.labels(one).set(one == state)
