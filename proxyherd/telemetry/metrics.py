"""The metrics of one server: one registry, to which each subject adds its own.

Names begin with `proxyherd_`, units are base units, and a label only ever takes a few values: commands, outcomes,
neighbours, reasons. Never a client ID. Each metric is described where it is made. Operators read that: Prometheus and
Grafana show the help texts, and docs/make_metrics.py makes docs/metrics.md of them and of the values of labels.

What happens often is counted in plain numbers, and `settle` brings the metrics up to date when somebody asks for them:
else they would be a fifth of the steps of a turn that holds one report.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TypeAlias, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from proxyherd import __version__

LabelValues: TypeAlias = Mapping[str, str]
"""The values of a label, with what is not plain of them."""

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)


class Tally(dict[tuple[str, ...], int]):
    """Plain numbers by the values of labels, which a counter does not know of yet."""

    def __init__(self, counter: Counter) -> None:
        super().__init__()
        self.counter = counter

    def __missing__(self, values: tuple[str, ...]) -> int:
        return 0

    def settle(self) -> None:
        """Add these numbers to the counter."""
        for values, number in self.items():
            self.counter.labels(*values).inc(number)
        self.clear()


class PlainHistogram(Histogram):
    """A histogram without labels, in plain numbers without locks: an observation costs a fifth."""

    def __init__(
        self, name: str, meaning: str, registry: CollectorRegistry, buckets: Sequence[float]
    ) -> None:
        super().__init__(name, meaning, registry=registry, buckets=buckets)
        self._bounds = (*buckets, math.inf)
        self._numbers = [0] * len(self._bounds)
        self._total = 0.0

    def observe(self, amount: float, exemplar: object = None) -> None:  # noqa: ARG002 - the library's has it
        """Count what was within its bound."""
        self._numbers[bisect_left(self._bounds, amount)] += 1
        self._total += amount

    def collect(self) -> list[Metric]:
        """Return what the library's histogram does."""
        buckets = [*zip(map(floatToGoString, self._bounds), accumulate(self._numbers), strict=True)]
        return [HistogramMetricFamily(self._name, self._documentation, buckets, self._total)]


class Total:
    """A counter of what is counted elsewhere."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._reached = 0

    def reach(self, total: int) -> None:
        """Bring the counter up to a total; it never goes back."""
        if total > self._reached:
            self._counter.inc(total - self._reached)
            self._reached = total


class Metrics:
    """Makes the metrics of one server. `labels`: the values of each label, None where they are listed elsewhere."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series more for each counter, which nobody asks for
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        Info("proxyherd_build", "Always 1; the version that runs", registry=registry).info(
            {"version": __version__}
        )
        self.all: list[MetricWrapperBase] = []
        """In the order in which the registry has them."""
        self.labels: list[tuple[str, str, LabelValues]] = []
        """Name of a metric, label, values."""
        self._tallies: list[Tally] = []

    def gauge(self, name: str, meaning: str, **labels: LabelValues | None) -> Gauge:
        """Return a new figure that goes up and down."""
        return self._add(Gauge(name, meaning, labels, registry=self.registry), name, labels)

    def counter(self, name: str, meaning: str, **labels: LabelValues | None) -> Counter:
        """Return a new figure that only goes up."""
        return self._add(Counter(name, meaning, labels, registry=self.registry), name, labels)

    def histogram(
        self, name: str, meaning: str, buckets: Sequence[float], **labels: LabelValues | None
    ) -> Histogram:
        """Return new figures of how often something was within each of these bounds."""
        if not labels:
            return self._add(PlainHistogram(name, meaning, self.registry, buckets), name, labels)
        return self._add(
            Histogram(name, meaning, labels, registry=self.registry, buckets=buckets), name, labels
        )

    def tally(self, name: str, meaning: str, **labels: LabelValues | None) -> Tally:
        """Return a new counter of what happens often."""
        tally = Tally(self.counter(name, meaning, **labels))
        self._tallies.append(tally)
        return tally

    def total(self, name: str, meaning: str) -> Total:
        """Return a new counter of what is counted elsewhere."""
        return Total(self.counter(name, meaning))

    def settle(self) -> None:
        """Bring the counters up to what the tallies hold."""
        for tally in self._tallies:
            tally.settle()

    def _add(self, metric: _Metric, name: str, labels: Mapping[str, LabelValues | None]) -> _Metric:
        self.all.append(metric)
        self.labels += [(name, label, values) for label, values in labels.items() if values is not None]
        return metric
