"""From what reports cost to what a deployment takes: a model of the figures of `shards`, and what it says of more clients
than any one machine can show.

A report costs a front server a part of each batch that goes to a master and a part of each turn of its loop, whatever is
in them; masters and replicas a part of each batch. So cost falls with what is gathered, and what is gathered falls as
shards and servers grow. The rule: the model is fitted on some of the points, and its error is told of the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

Point = dict[str, Any]
"""One of `shards`: masters, fronts, load, and the median of each of its figures."""

HELD_OUT_MASTERS: Final = 2
HELD_OUT_FRONTS: Final = 4
"""Points with so many of either are kept from the fit."""

ALONE: Final = "50x1"
"""The load in which each report is a packet of its own."""

COPIES: Final = 3
"""Of each client: a master's and its replicas'."""

_TAGS: Final = 512


class Part(NamedTuple):
    """What one report costs one role, in microseconds: `fixed`; more where it comes `alone` in its packet; and what a
    `batch` and a `turn` cost, shared by all in it.
    """

    fixed: float
    alone: float
    batch: float
    turn: float

    def cost(self, *, alone: bool, batch: float, turn: float) -> float:
        """Return microseconds a report."""
        return self.fixed + self.alone * alone + self.batch / batch + self.turn / turn


class Fitted(NamedTuple):
    """A part, and by how much of what was measured it is wrong where it was not fitted: on average, and at most."""

    part: Part
    mean_error: float
    worst_error: float
    held_out: int


class Model(NamedTuple):
    """All roles."""

    fronts: Fitted
    masters: Fitted
    replicas: Fitted


_TERMS: Final[dict[str, tuple[int, ...]]] = {"fronts": (0, 1, 2, 3), "masters": (0, 2), "replicas": (0, 2)}
"""Of the parts of a cost, those that a role has."""


def fit(points: Iterable[Point]) -> Model | None:
    """Fit all roles; None if the points are too few to tell."""
    chosen = [one for one in points if not one["faults"]]
    fitted = [one for one in chosen if not _is_held_out(one)]
    others = [one for one in chosen if _is_held_out(one)]
    if len(fitted) < len(Part._fields) or not others:
        return None
    return Model(*(_fit(role, fitted, others) for role in Model._fields))


def _is_held_out(point: Point) -> bool:
    return bool(point["masters"] == HELD_OUT_MASTERS or point["fronts"] == HELD_OUT_FRONTS)


def _median(point: Point, key: str) -> float:
    return float(point["figures"][key]["median"])


def _terms(point: Point) -> list[float]:
    return [1.0, float(point["load"] == ALONE), 1 / _median(point, "batch"), 1 / _median(point, "turn")]


def predicted(part: Part, point: Point) -> float:
    """Return what the model has for a measured point."""
    batch, turn = (_median(point, key) for key in ("batch", "turn"))
    return part.cost(alone=point["load"] == ALONE, batch=batch, turn=turn)


def _fit(role: str, fitted: Sequence[Point], others: Sequence[Point]) -> Fitted:
    """Least squares of relative errors; a term that would come out negative is none."""
    key = f"{role}_us"
    terms = list(_TERMS[role])
    measured = np.array([_median(one, key) for one in fitted])
    rows = np.array([_terms(one) for one in fitted]) / measured[:, None]
    while True:
        found, *_ = np.linalg.lstsq(rows[:, terms], np.ones(len(fitted)), rcond=None)
        if found.min() >= 0:
            break
        del terms[int(found.argmin())]
    values = [0.0] * len(Part._fields)
    for term, value in zip(terms, found, strict=True):
        values[term] = float(value)
    part = Part(*values)
    errors = [abs(predicted(part, one) / _median(one, key) - 1) for one in others]
    return Fitted(part, sum(errors) / len(errors), max(errors), len(others))


# What it says. -----------------------------------------------------------------------------------------------


class Assumed(NamedTuple):
    """What a deployment is taken to be; prices in dollars."""

    round_trip_ms: float = 2.0
    """From sending a batch until its answer, a replica's included: what comes meanwhile is the next batch."""
    front_busy: float = 0.6
    """Of a core, at most."""
    master_busy: float = 0.5
    client_bytes: float = 220.0
    memory_factor: float = 2.0
    """Of what clients take: room to grow, and for a table that is sent or written anew."""
    front_gib: float = 0.5
    node_gib: float = 16.0
    """The largest node: a table that must be sent again in minutes."""
    core_hour: float = 0.035
    gib_hour: float = 0.004
    zones_gb: float = 0.02
    """For each GB that goes to a replica in another zone, both ends together."""
    client_wire: float = 165.0
    master_wire: tuple[float, float] = (180.0, 220.0)
    replica_wire: tuple[float, float] = (177.0, 100.0)
    """Bytes between clients and servers, servers and masters, a master and one replica: a report, and a batch."""


class Deployment(NamedTuple):
    """What so many clients take that report once a minute. Cores are those in use; bytes are a second."""

    clients: int
    rate: float
    fronts: int
    masters: int
    batch: float
    front_us: float
    master_us: float
    replica_us: float
    memory_gib: float
    client_mb: float
    master_mb: float
    replica_mb: float
    machine_dollars: float
    zone_dollars: float

    @property
    def replicas(self) -> int:
        """Two of each master."""
        return (COPIES - 1) * self.masters

    def cores(self, cost: float) -> float:
        """Return how many are busy with a cost of each report."""
        return self.rate * cost / 1e6


def evenness(masters: int) -> float:
    """Return how much more than its share of the tags the fullest of so many masters has: 1 is none more."""
    return math.ceil(_TAGS / masters) * masters / _TAGS


def deploy(model: Model, clients: int, assumed: Assumed) -> Deployment:
    """Return the fewest masters that so many clients take, and the servers in front of them.

    Raises ValueError if even a master for each tag is not enough.
    """
    rate = clients / 60
    table_gib = clients * assumed.client_bytes * assumed.memory_factor / 2**30
    for masters in range(COPIES, _TAGS + 1):
        fronts, batch, front_us = _fronts(model, rate, masters, assumed)
        costs = [
            one.part.cost(alone=True, batch=batch, turn=batch) for one in (model.masters, model.replicas)
        ]
        busiest = rate / masters * evenness(masters) * costs[0] / 1e6
        if busiest <= assumed.master_busy and table_gib / masters * evenness(masters) <= assumed.node_gib:
            memory = COPIES * table_gib + fronts * assumed.front_gib
            master_mb, replica_mb = (
                rate * (report + once / batch) / 1e6
                for report, once in (assumed.master_wire, assumed.replica_wire)
            )
            replica_mb *= COPIES - 1
            machines = (fronts + COPIES * masters) * assumed.core_hour + memory * assumed.gib_hour
            return Deployment(
                clients=clients,
                rate=rate,
                fronts=fronts,
                masters=masters,
                batch=batch,
                front_us=front_us,
                master_us=costs[0],
                replica_us=costs[1],
                memory_gib=memory,
                client_mb=rate * assumed.client_wire / 1e6,
                master_mb=master_mb,
                replica_mb=replica_mb,
                machine_dollars=machines,
                zone_dollars=replica_mb * 3_600 / 1e3 * assumed.zones_gb,
            )
    raise ValueError(f"{clients} clients are too many for {_TAGS} masters")


def _fronts(model: Model, rate: float, masters: int, assumed: Assumed) -> tuple[int, float, float]:
    """Return the fewest servers that are not busier than they may be, their batch, and their cost of a report."""
    enough = _fixed_point(lambda fronts: _needed(model, rate, masters, fronts, assumed)[0])
    _, batch, cost = _needed(model, rate, masters, enough, assumed)
    return enough, batch, cost


def _needed(
    model: Model, rate: float, masters: int, fronts: int, assumed: Assumed
) -> tuple[int, float, float]:
    turn = max(1.0, rate / fronts * assumed.round_trip_ms / 1e3)
    batch = max(1.0, turn / masters)
    cost = model.fronts.part.cost(alone=True, batch=batch, turn=turn)
    return math.ceil(rate * cost / 1e6 / assumed.front_busy), batch, cost


def _fixed_point(needed: Callable[[int], int]) -> int:
    """Return the fewest that are as many as they need: the more there are, the less each gathers, so need only rises."""
    fronts = 2  # one may always be away
    while (more := needed(fronts)) > fronts:
        fronts = more
    return fronts
