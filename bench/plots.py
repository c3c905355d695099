"""The pictures of the report. A contender has one colour everywhere, and a hatch or a marker that says the same in black
and white. Bars and lines stand for medians, whiskers reach from the least to the most of the rounds.
"""

# matplotlib need not be installed where this is linted.
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import matplotlib as mpl
from capacity import fit
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from shard_tables import ROLES
from tables import on, series, short, sound

mpl.use("Agg")
mpl.rcParams.update(
    {
        "svg.hashsalt": "bench",  # the same figures make the same file
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "hatch.linewidth": 0.6,
    }
)

Work = dict[str, Any]
Results = dict[str, Any]


class Style(NamedTuple):
    """How a contender looks."""

    colour: str
    hatch: str
    marker: str
    line: str


STYLES: Final = {
    "proxyherd": Style("#0072B2", "", "o", "-"),
    "proxyherd-redis": Style("#56B4E9", "", "P", "-"),
    "twisted": Style("#D55E00", "", "s", "--"),
    "twisted-equal": Style("#E69F00", "///", "s", "--"),
    "twisted-bare": Style("#F5CE7B", "|||", "s", ":"),
    "node": Style("#006B4E", "", "^", "-."),
    "node-equal": Style("#009E73", "///", "^", "-."),
    "node-bare": Style("#8FD6BF", "|||", "^", ":"),
    "streams": Style("#8C4A77", "", "D", "--"),
    "streams-equal": Style("#CC79A7", "///", "D", "--"),
    "streams-equal-uvloop": Style("#E3B5CE", "xxx", "D", "--"),
    "redis-geoadd": Style("#5B1A18", "|||", "v", ":"),
    "redis": Style("#A52A2A", "", "v", "-"),
    "redis-equal": Style("#D98880", "///", "v", "--"),
    "echo": Style("#999999", "", "x", ":"),
}
"""By contender; colours from the palette of Okabe and Ito, which those who see few colours can tell apart."""

LABELS: Final = {
    "cpu_us": "server CPU, µs a command",
    "per_second": "commands a second",
    "p50_ms": "median, ms",
    "p99_ms": "99th percentile, ms",
    "idle_bytes": "server memory, bytes an idle connection",
    "client_bytes": "server memory, bytes a client",
    "rss_mib": "server memory, MiB",
}

_LOG_SCALED: Final = ("rss_mib", "p99_ms")

_LONGEST: Final = 4
"""How many times as long as the second a bar may be."""

_PLAIN: Final = FuncFormatter(lambda value, _: f"{value:,.10g}")
_MILLISECONDS: Final = tuple(mark * 10**power for power in range(-3, 5) for mark in (1, 2, 5))

SINGLE: Final = ("one 50x1", "one 50x32")
LATENCIES: Final = ("one open 5000", "one 50x32")
QUESTIONS: Final = ("whatsat 50x32", "mixed 50x32")
HERDS: Final = ("five 10x1", "five 50x32")


def draw_all(results: Results, folder: Path) -> list[str]:
    """Draw what was measured as SVG and PNG; return the names of the pictures."""
    works = results["workloads"]
    drawn = []
    shards = results.get("shards", {})
    for name, figure in _pictures(works, results.get("messages", {}), shards):
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # once is enough
        for kind, more in (("svg", {"metadata": {"Date": None}}), ("png", {"dpi": 130})):
            figure.savefig(folder / f"{name}.{kind}", **more)
        drawn.append(name)
    return drawn


def _pictures(
    works: dict[str, Work], messages: dict[str, Any], shards: dict[str, Any]
) -> list[tuple[str, Figure]]:
    made: list[tuple[str, Figure | None]] = [
        ("one-server", _bars(works, SINGLE, "cpu_us")),
        ("throughput", _bars(works, SINGLE, "per_second")),
        ("latency", _latencies(works, LATENCIES)),
        ("questions", _bars(works, QUESTIONS, "cpu_us")),
        ("herd", _bars(works, HERDS, "cpu_us")),
        ("propagation", _latencies(works, ("propagation 2000",))),
        ("connections", _curves(on(works, "connections"), ("cpu_us", "idle_bytes"), "connections")),
        ("clients", _curves(on(works, "clients"), ("cpu_us", "rss_mib"), "clients in the table")),
        ("open-one", _curves(on(works, "one open"), ("cpu_us", "p99_ms"), "reports a second")),
        ("open-five", _curves(on(works, "five open"), ("cpu_us", "p99_ms"), "reports a second")),
        ("servers", _herds(works, messages)),
        ("shards", _shards(shards.get("points", []))),
    ]
    return [(name, figure) for name, figure in made if figure is not None]


def _whiskers(one: dict[str, float]) -> tuple[float, float]:
    return one["median"] - one["least"], one["most"] - one["median"]


def _panels(titles: Sequence[str], height: float, *, width: float = 4.6) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(width * len(titles), height), layout="constrained")
    axes = figure.subplots(1, len(titles), squeeze=False)[0]
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9, loc="left", wrap=True)
    return figure, list(axes)


def _measured(works: dict[str, Work], names: Sequence[str]) -> list[Work]:
    return [works[name] for name in names if name in works and sound(works[name])]


def _rows(works: Sequence[Work]) -> int:
    return max(len(sound(work)) for work in works)


def _bars(works: dict[str, Work], names: Sequence[str], key: str) -> Figure | None:
    """Draw a panel for each workload, a bar for each contender."""
    measured = _measured(works, names)
    if not measured:
        return None
    figure, axes = _panels([_title(work) for work in measured], 1.1 + 0.27 * _rows(measured))
    for axis, work in zip(axes, measured, strict=True):
        figures = sound(work)
        most, cut = _width([one[key]["most"] for one in figures.values()])
        for at, (name, one) in enumerate(figures.items()):
            style, value = STYLES[name], one[key]
            axis.barh(
                at, value["median"], color=style.colour, hatch=style.hatch, edgecolor="black", linewidth=0.6
            )
            axis.errorbar(
                value["median"],
                at,
                xerr=[[side] for side in _whiskers(value)],
                color="black",
                capsize=2,
                lw=0.8,
            )
            if cut and value["most"] > most:
                outside = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
                axis.text(
                    *(most * 1.12, at, f"\N{RIGHTWARDS ARROW} {short(value['median'])}"),
                    va="center",
                    ha="right",
                    fontsize=8,
                    bbox=outside,
                )
            else:
                axis.text(value["most"] + most * 0.015, at, short(value["median"]), va="center", fontsize=8)
        axis.set_yticks(range(len(figures)), list(figures))
        axis.invert_yaxis()
        axis.set_xlim(0, most * 1.14)
        axis.set_xlabel(LABELS[key])
        axis.xaxis.grid(visible=True, color="#dddddd")
    return figure


def _width(values: Sequence[float]) -> tuple[float, bool]:
    """Return how far bars reach, and whether the longest is cut: else one that is many times as long hides the rest."""
    *_, second, most = sorted([0.0, *values])
    return (second * 1.3, True) if most > _LONGEST * second > 0 else (most, False)


def _title(work: Work) -> str:
    """Return a title that fits above a panel."""
    title: str = work["title"]
    for rest in (", CPU of all of them", ", one server", " without places", ", over five servers"):
        title = title.replace(rest, "")
    return title


def _latencies(works: dict[str, Work], names: Sequence[str]) -> Figure | None:
    """Draw from the median, a full mark, to the 99th percentile, an empty one."""
    measured = _measured(works, names)
    if not measured:
        return None
    width = 4.6 if len(measured) > 1 else 7.5
    figure, axes = _panels([_title(work) for work in measured], 1.2 + 0.27 * _rows(measured), width=width)
    for axis, work in zip(axes, measured, strict=True):
        figures = sound(work)
        for at, (name, one) in enumerate(figures.items()):
            style, ends = STYLES[name], [one["p50_ms"], one["p99_ms"]]
            axis.plot([end["median"] for end in ends], [at, at], color=style.colour, lw=3, alpha=0.5)
            for end, face in zip(ends, (style.colour, "white"), strict=True):
                axis.errorbar(
                    end["median"],
                    at,
                    xerr=[[side] for side in _whiskers(end)],
                    fmt=style.marker if style.marker != "x" else "o",
                    color="black",
                    markerfacecolor=face,
                    capsize=2,
                    lw=0.8,
                )
        axis.set_yticks(range(len(figures)), list(figures))
        axis.set_ylim(len(figures) - 0.5, -0.5)
        axis.set_xscale("log")
        axis.set_xticks(_MILLISECONDS, minor=False)
        axis.minorticks_off()
        axis.set_xlim(*_around([one[key] for one in figures.values() for key in ("p50_ms", "p99_ms")]))
        axis.xaxis.set_major_formatter(_PLAIN)
        axis.set_xlabel("ms, log scale; full: median, empty: 99th percentile")
        axis.xaxis.grid(visible=True, which="both", color="#dddddd")
    return figure


def _around(figures: Sequence[dict[str, float]]) -> tuple[float, float]:
    """Return where an axis with a log scale begins and ends, so that two numbers or more stand below it."""
    least, most = min(one["least"] for one in figures), max(one["most"] for one in figures)
    below = [mark for mark in _MILLISECONDS if mark < least]
    above = [mark for mark in _MILLISECONDS if mark > most]
    return (below or [least])[-1], (above or [most])[0]


def _lines(
    axis: Any, points: dict[str, list[tuple[float, dict[str, float]]]], label: Callable[[str], str] = str
) -> None:
    for name, line in points.items():
        style = STYLES[name]
        axis.errorbar(
            [at for at, _ in line],
            [one["median"] for _, one in line],
            yerr=list(zip(*(_whiskers(one) for _, one in line), strict=True)),
            color=style.colour,
            marker=style.marker,
            linestyle=style.line,
            markeredgecolor="black" if style.marker != "x" else None,
            markersize=5,
            capsize=2,
            label=label(name),
        )


def _curves(works: Sequence[Work], keys: Sequence[str], over: str) -> Figure | None:
    """Draw a panel for each figure, a line for each contender."""
    if len(works) < 2:
        return None
    figure, axes = _panels([LABELS[key] for key in keys], 3.2)
    for axis, key in zip(axes, keys, strict=True):
        _lines(axis, series(works, key))
        axis.set_xscale("log")
        if key in _LOG_SCALED:
            axis.set_yscale("log")
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(_PLAIN)
            axis.yaxis.set_minor_formatter(NullFormatter())
        else:
            axis.set_ylim(0, axis.get_ylim()[1] * 1.35)  # room for the legend
        axis.set_xlabel(f"{over}, log scale")
        axis.set_ylabel(LABELS[key].partition(", ")[2] + (", log scale" if key in _LOG_SCALED else ""))
        axis.xaxis.set_major_formatter(_PLAIN)
        axis.grid(visible=True, color="#dddddd")
        axis.legend(fontsize=7, framealpha=0.9)
    return figure


def _herds(works: dict[str, Work], messages: dict[str, Any]) -> Figure | None:
    """Draw CPU and messages an update, over the number of servers."""
    graphs = {graph: on(works, graph) for graph in ("ring", "random")}
    if any(len(points) < 2 for points in graphs.values()):
        return None
    spoken = {"ring": "rings", "random": "random graphs, two edges a server"}
    figure, axes = _panels([*spoken.values(), "lines on all links"][: 3 if messages else 2], 3.2, width=3.6)
    most = 0.0
    for axis, (_, points) in zip(axes, graphs.items(), strict=False):
        _lines(axis, series(points, "cpu_us"))
        axis.set_ylabel("CPU of all servers, µs an update")
        axis.legend(fontsize=7)
        most = max(most, axis.get_ylim()[1])
    for axis in axes[:2]:
        axis.set_ylim(0, most)
    for (graph, rows), line, marker in zip(messages.items(), ("-", "--"), ("o", "s"), strict=False):
        axes[2].plot(
            [row["servers"] for row in rows],
            [row["lines"] for row in rows],
            color="black",
            linestyle=line,
            marker=marker,
            markersize=4,
            label=spoken[graph],
        )
        axes[2].set_ylabel("AT lines an update")
        axes[2].legend(fontsize=7)
    for axis in axes:
        axis.set_ylim(bottom=0)
        axis.set_xlabel("servers")
        axis.set_xlim(left=0)
        axis.grid(visible=True, color="#dddddd")
    return figure


_SHARD_COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
_SHARD_MARKERS: Final = ("o", "s", "^", "D")


def _shards(points: Sequence[dict[str, Any]]) -> Figure | None:
    """Draw CPU a report of each role over the size of batches; a colour and marker for each number of masters, a line
    where the model is that size decides alone.
    """
    measured = [one for one in points if not one["faults"]]
    if not measured:
        return None
    model = fit(measured)
    figure, axes = _panels([f"CPU of all {name}, µs a report" for name in ROLES.values()], 3.4, width=3.6)
    numbers = sorted({one["masters"] for one in measured})
    batches = [one["figures"]["batch"]["median"] for one in measured]
    for axis, role in zip(axes, ROLES, strict=True):
        for masters, colour, marker in zip(numbers, _SHARD_COLOURS, _SHARD_MARKERS, strict=False):
            of_number = [one["figures"] for one in measured if one["masters"] == masters]
            axis.plot(
                [one["batch"]["median"] for one in of_number],
                [one[f"{role}_us"]["median"] for one in of_number],
                color=colour,
                marker=marker,
                linestyle="none",
                markersize=5,
                markeredgecolor="black",
                label=f"{masters} master{'s' * (masters > 1)}",
            )
        if model is not None and role != "fronts":
            part = getattr(model, role).part
            sizes = [min(batches) * (max(batches) / min(batches)) ** (step / 50) for step in range(51)]
            axis.plot(
                sizes,
                [part.cost(alone=False, batch=size, turn=1) for size in sizes],
                color="black",
                lw=0.8,
                label="model",
            )
        axis.set_xscale("log")
        axis.set_yscale("log")
        for one in (axis.xaxis, axis.yaxis):
            one.set_major_locator(LogLocator(subs=(1, 2, 5)))
            one.set_major_formatter(_PLAIN)
            one.set_minor_formatter(NullFormatter())
        axis.tick_params(axis="x", labelrotation=45)
        axis.set_xlabel("reports a batch")
        axis.grid(visible=True, color="#dddddd")
        axis.legend(fontsize=7)
    return figure
