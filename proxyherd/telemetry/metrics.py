"""The metrics of one server: one registry, to which each subject adds its own metrics.

Names begin with `proxyherd_`, and units are base units. A label has only a few values, such as commands, outcomes,
neighbours and reasons, and never a client ID. Each metric is described where it is made. Operators read these texts:
Prometheus and Grafana show them, and docs/make_metrics.py makes docs/metrics.md of them and of the labels' values.

Frequent events are counted in plain numbers, and `settle` updates the metrics when somebody asks for them. Otherwise
metrics would be a fifth of the steps of a turn with one report.
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
"""The values of a label, with explanations of those that need one."""

_Metric = TypeVar("_Metric", bound=MetricWrapperBase)


class Tally(dict[tuple[str, ...], int]):
    """Plain numbers by the labels' values, which are not yet in the counter."""

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
    """A counter of something that is counted elsewhere."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._reached = 0

    def reach(self, total: int) -> None:
        """Raise the counter to a total; it never falls."""
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
        """In the order of the registry."""
        self.labels: list[tuple[str, str, LabelValues]] = []
        """Each metric's name, its label, and the label's values."""
        self._tallies: list[Tally] = []

    def gauge(self, name: str, meaning: str, **labels: LabelValues | None) -> Gauge:
        """Return a new metric that rises and falls."""
        return self._add(Gauge(name, meaning, labels, registry=self.registry), name, labels)

    def counter(self, name: str, meaning: str, **labels: LabelValues | None) -> Counter:
        """Return a new metric that only rises."""
        return self._add(Counter(name, meaning, labels, registry=self.registry), name, labels)

    def histogram(
        self, name: str, meaning: str, buckets: Sequence[float], **labels: LabelValues | None
    ) -> Histogram:
        """Return a new metric that counts values up to each of these bounds."""
        if not labels:
            return self._add(PlainHistogram(name, meaning, self.registry, buckets), name, labels)
        return self._add(
            Histogram(name, meaning, labels, registry=self.registry, buckets=buckets), name, labels
        )

    def tally(self, name: str, meaning: str, **labels: LabelValues | None) -> Tally:
        """Return a new counter of a frequent event."""
        tally = Tally(self.counter(name, meaning, **labels))
        self._tallies.append(tally)
        return tally

    def total(self, name: str, meaning: str) -> Total:
        """Return a new counter of something that is counted elsewhere."""
        return Total(self.counter(name, meaning))

    def settle(self) -> None:
        """Update the counters to the tallies."""
        for tally in self._tallies:
            tally.settle()

    def _add(self, metric: _Metric, name: str, labels: Mapping[str, LabelValues | None]) -> _Metric:
        self.all.append(metric)
        self.labels += [(name, label, values) for label, values in labels.items() if values is not None]
        return metric
