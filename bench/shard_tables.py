"""What `shards` measured, and what the model says of it, as Markdown for the report and as text for a terminal."""

from __future__ import annotations

from typing import Any, Final

from capacity import ALONE, Assumed, Deployment, Fitted, Model, deploy, fit, predicted
from tables import markdown, short

Shards = dict[str, Any]

ROLES: Final = {"fronts": "servers", "masters": "masters", "replicas": "replicas"}
"""As they are called on the page."""

CLIENTS: Final = (1_000_000, 10_000_000, 100_000_000)
MOST_NODES: Final = 1_000
"""That Redis advises to have in a cluster."""

GATHERED_MS: Final = 20.0
"""What a pause between batches is reckoned with."""

_LOADS: Final = {
    "50x32": "50 connections, 32 outstanding on each",
    "50x1": "50 connections, 1 outstanding on each",
}
_ROUNDS: Final = 3
_LEAST_TOLD: Final = 0.01
_LATE_MS: Final = 250.0
_OTHER_WORK: Final = 1.0
"""Load average before, from which on others had a part in what was measured."""


def beside(shards: Shards) -> str:
    """One server on three masters beside a herd's server, and at the rate of a million clients."""
    head = ["", "herd's server, µs", "server, µs", "times", "least to most", "masters, µs", "replicas, µs"]
    table = [[*head, "reports a batch"]]
    for load, figures in shards["beside"]["figures"].items():
        ratio = figures["ratio"]
        table.append(
            [
                *(_LOADS[load], *_medians(figures, "herd_us", "fronts_us", "ratio")),
                f"{short(ratio['least'])} to {short(ratio['most'])}",
                *_medians(figures, "masters_us", "replicas_us", "batch"),
            ]
        )
    parts = [markdown(table)]
    if million := shards["beside"].get("million"):
        parts += _at_rate(million, "", fit(shards["points"]))
    if gathering := shards["beside"].get("gathering"):
        parts += _at_rate(gathering, f", where they gather for {GATHERED_MS:g} ms", None)
    return "\n\n".join([*_trial(shards), *parts, *_faults(shards["beside"])])


def _at_rate(figures: dict[str, Any], how: str, fitted: Model | None) -> list[str]:
    """What the reports of a million clients cost."""
    table = [["", "servers", "masters", "replicas"]]
    table.append(["µs a report", *_medians(figures, *(f"{role}_us" for role in ROLES))])
    if fitted:
        one = {"load": ALONE, "figures": figures}
        told = (short(predicted(getattr(fitted, role).part, one)) for role in ROLES)
        table.append(["µs by the model", *told])
    cores = (figures[f"{role}_us"]["median"] / 60 for role in ROLES)
    table.append(["cores busy, all together", *map(short, cores)])
    batch, batch_ms, half, most = _medians(figures, "batch", "batch_ms", "p50_ms", "p99_ms")
    late = figures["p50_ms"]["median"] > _LATE_MS
    return [
        (
            "**A million clients' reports, 16,667 a second over 50 connections, one server on three masters"
            f"{how}**"
        ),
        markdown(table),
        (
            f"Batches had {batch} reports and took {batch_ms} ms; answers took {half} ms at the median, {most} ms at the "
            "99th percentile."
        ),
        *(["**The machine was too busy to take that rate as it came.**"] if late else []),
    ]


def costs(shards: Shards) -> str:
    """What a report costs each role, over masters and servers."""
    parts = []
    for load, title in _LOADS.items():
        points = [one for one in shards["points"] if one["load"] == load]
        head = [
            "masters",
            "servers",
            "reports a batch",
            "a turn",
            *(f"{name}, µs" for name in ROLES.values()),
        ]
        table = [[*head, "busiest master", "busiest server"]]
        for one in points:
            if one["faults"]:
                continue
            figures = one["figures"]
            keys = ("batch", "turn", *(f"{role}_us" for role in ROLES), "masters_most", "fronts_most")
            table.append([str(one["masters"]), str(one["fronts"]), *_medians(figures, *keys)])
        faults = list(dict.fromkeys(fault for one in points for fault in _faults(one)))
        parts += [f"**{title}**", markdown(table), *faults]
    return "\n\n".join(parts)


def shares(shards: Shards) -> str:
    """How evenly shards share, and bytes a report, over the number of masters."""
    head = [
        "masters",
        "keys of the fullest",
        "CPU of the busiest",
        "with a master, bytes",
        "with a replica, bytes",
    ]
    table = [[*head, "idle node, % of a core", "idle server, %"]]
    for masters in sorted({one["masters"] for one in shards["points"]}):
        points = [one for one in shards["points"] if one["masters"] == masters and not one["faults"]]
        if not points:
            continue
        idle = [
            sum(one["idle"][role] for one in points) / len(points) * 100 for role in ("masters", "fronts")
        ]
        table.append(
            [
                *(str(masters), f"{max(one['keys_most'] for one in points):.3f}"),
                f"{_mean(points, 'masters_most'):.3f}",
                *(_range(points, "master_bytes"), _range(points, "replica_bytes", 1 / 2)),
                *map(short, idle),
            ]
        )
    return markdown(table)


def memory(shards: Shards) -> str:
    """A lone master's memory, over clients."""
    table = [["clients", "used_memory", "used_memory_dataset", "of the process", "server, MiB"]]
    for one in shards["memory"]:
        if "clients" in one:
            keys = ("used_memory", "used_memory_dataset", "used_memory_rss", "front_mib")
            table.append([f"{one['clients']:,}", *(short(one[key]) for key in keys)])
    return "\n\n".join([markdown(table), *(fault for one in shards["memory"] for fault in _faults(one))])


def model(shards: Shards) -> str:
    """The model, and by how much it is wrong."""
    fitted = fit(shards["points"])
    if fitted is None:
        return "Too few points."
    head = ["", "a report", "where it comes alone", "a batch", "a turn", "wrong by, mean", "at most"]
    table = [head]
    for role, name in ROLES.items():
        one: Fitted = getattr(fitted, role)
        cells = (short(value) if value >= _LEAST_TOLD else "" for value in one.part)
        errors = (f"{error:.0%}" for error in (one.mean_error, one.worst_error))
        table.append([name, *cells, *errors])
    return markdown(table)


def deployments(shards: Shards, assumed: Assumed | None = None) -> str:
    """What so many clients take, as batches gather by themselves and with a pause."""
    fitted = fit(shards["points"])
    if fitted is None:
        return "Too few points."
    assumed = assumed or Assumed()
    ways = {
        "as it is": assumed,
        f"gathering {GATHERED_MS:g} ms": assumed._replace(round_trip_ms=GATHERED_MS),
    }
    made = [
        (f"{clients:,}, {way}", _deploy(fitted, clients, how))
        for clients in CLIENTS
        for way, how in ways.items()
    ]
    names = [
        *("clients", "reports a second", "servers", "masters", "replicas", "nodes together"),
        "reports a batch",
        *("cores busy: servers", "cores busy: masters", "cores busy: replicas", "memory, GiB"),
        *("MB/s between clients and servers", "MB/s between servers and masters", "MB/s to replicas"),
        *("$ an hour, machines", "$ an hour, between zones"),
    ]
    columns = [names, *([way, *_cells(one)] for way, one in made)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return markdown(rows)


def _deploy(fitted: Model, clients: int, assumed: Assumed) -> Deployment | None:
    try:
        return deploy(fitted, clients, assumed)
    except ValueError:
        return None


def _cells(one: Deployment | None) -> list[str]:
    if one is None:
        return ["more than there are tags", *[""] * 14]
    return [
        *(f"{one.rate:,.0f}", str(one.fronts), str(one.masters), str(one.replicas)),
        _nodes(one.masters + one.replicas),
        short(one.batch),
        *(short(one.cores(cost)) for cost in (one.front_us, one.master_us, one.replica_us)),
        short(one.memory_gib),
        *(short(value) for value in (one.client_mb, one.master_mb, one.replica_mb)),
        *(f"{value:,.2f}" for value in (one.machine_dollars, one.zone_dollars)),
    ]


def _nodes(count: int) -> str:
    return f"**{count:,}**, too many" if count > MOST_NODES else f"{count:,}"


def text(shards: Shards) -> str:
    """Return all of it for a terminal, where Markdown reads well enough."""
    return "\n\n".join(part(shards) for part in PARTS.values())


PARTS: Final = {
    "shards-beside": beside,
    "shards-costs": costs,
    "shards-shares": shares,
    "shards-memory": memory,
    "shards-model": model,
    "shards-deployments": deployments,
}
"""By the marker on the page."""


def _medians(figures: dict[str, Any], *keys: str) -> list[str]:
    return [short(figures[key]["median"]) for key in keys]


def _mean(points: list[Any], key: str) -> float:
    return float(sum(one["figures"][key]["median"] for one in points) / len(points))


def _range(points: list[Any], key: str, factor: float = 1.0) -> str:
    values = [one["figures"][key]["median"] * factor for one in points]
    return f"{short(min(values))} to {short(max(values))}"


def _trial(shards: Shards) -> list[str]:
    rounds, load = shards["options"]["rounds"], shards["machine"]["load_before"]
    notes = []
    if rounds < _ROUNDS:
        notes.append(f"**A trial: {rounds} of {_ROUNDS} rounds.**")
    if load > _OTHER_WORK:
        notes.append(f"**The machine had other work: its load average before was {load:g}.**")
    return notes


def _faults(part: dict[str, Any]) -> list[str]:
    return [f"Does not count: {fault}." for fault in part.get("faults", ())]
