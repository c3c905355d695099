"""Figures as tables: of text for a terminal, of Markdown for the report. Ratios are to ours: 2 is twice as much."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any

from lineup import CONTENDERS, Proxyherd
from workloads import UNITS, WORKLOADS

Rows = list[list[str]]
Work = dict[str, Any]
"""One workload's report, as JSON has it."""


def short(value: float) -> str:
    """Return a figure with three digits that count."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def sound(work: Work) -> dict[str, Any]:
    """Return the figures of those whose figures count, by contender."""
    return {name: one["figures"] for name, one in work["contenders"].items() if not one["faults"]}


def faults(work: Work) -> list[str]:
    """Return why the figures of the others do not."""
    return [fault for one in work["contenders"].values() for fault in one["faults"]]


def rows(work: Work) -> Rows:
    """Return a workload's table: medians, the spread of the main figure, and its ratio to ours."""
    main, figures = work["main"], sound(work)
    keys = [key for key in UNITS if any(key in one for one in figures.values())]
    ours = figures.get(work.get("ours", Proxyherd.name), {}).get(main, {}).get("median")
    table = [["", *(UNITS[key] for key in keys), "least to most", "to ours", "limit"]]
    for name, one in figures.items():
        spread = f"{short(one[main]['least'])} to {short(one[main]['most'])}"
        ratio = f"{one[main]['median'] / ours:.2f}" if ours else ""
        medians = [short(one[key]["median"]) if key in one else "" for key in keys]
        table.append([name, *medians, spread, ratio, work["contenders"][name].get("limit", "")])
    return _without_empty_columns(table)


def _without_empty_columns(table: Rows) -> Rows:
    kept = [at for at in range(len(table[0])) if any(row[at] for row in table[1:])]
    return [[row[at] for at in kept] for row in table]


def text(work: Work) -> str:
    """Return a workload's table as text."""
    return "\n".join(
        [work["title"], aligned(rows(work)), *(f"  does not count: {fault}" for fault in faults(work))]
    )


def aligned(table: Rows) -> str:
    """Return rows as text, their columns below one another."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  " + "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in table
    )


def goals(works: dict[str, Work]) -> Rows:
    """Return ours as a multiple of each workload's rivals and of other checkouts, with what it is to reach. Each round makes
    a pair, and a pair a ratio: the median of these, and how far they are apart. Nothing where there are no pairs.
    """
    table = [["workload", "against", "ratio", "least to most", "to reach", "limit"]]
    for name, work in works.items():
        workload, figures = WORKLOADS[name], sound(work)
        ours = figures.pop(workload.ours, {})
        for key, other in product(workload.judged, figures):
            if not ours or (other in CONTENDERS and other not in workload.rivals):
                continue
            pairs = zip(ours[key]["rounds"], figures[other][key]["rounds"], strict=True)
            ratios = [own / theirs for own, theirs in pairs]
            title = f"{name}, {UNITS[key]}" if len(workload.judged) > 1 else name
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            goal = workload.rivals.get(other)
            table.append(
                [
                    *(title, other, f"{statistics.median(ratios):.2f}", spread),
                    f"{goal:.2f}" if goal else "",
                    _limits(work, workload.ours, other),
                ]
            )
    return _without_empty_columns(table) if len(table) > 1 else []


def _limits(work: Work, *names: str) -> str:
    """Return what else than the servers decided about figures."""
    limits = {work["contenders"][name].get("limit", "") for name in names}
    return ", ".join(sorted(limits - {"", "none", "server"}))


def markdown(table: Rows) -> str:
    """Return rows as Markdown."""
    head, *body = table
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *body])


def section(work: Work) -> str:
    """Return a workload's table as Markdown, with its title and what does not count."""
    parts = [f"**{work['title'][0].upper()}{work['title'][1:]}**", markdown(rows(work))]
    return "\n\n".join(parts + [f"Does not count: {fault}." for fault in faults(work)])


def ratios(works: dict[str, Work]) -> str:
    """Return, for workloads by name, each contender's main figure as a multiple of ours."""
    measured = {name: sound(work) for name, work in works.items() if sound(work).get(Proxyherd.name)}
    contenders = list(dict.fromkeys(one for figures in measured.values() for one in figures))
    table = [["", *measured]]
    for contender in contenders:
        row = [contender]
        for name, figures in measured.items():
            main = works[name]["main"]
            ours = figures[Proxyherd.name][main]["median"]
            row.append(f"{figures[contender][main]['median'] / ours:.2f}" if contender in figures else "")
        table.append(row)
    return markdown(table)


def curve(works: Iterable[Work], key: str, over: str, spell: Callable[[float], str] = short) -> str:
    """Return one figure of the workloads of a curve: a row for each point, a column for each contender."""
    points = {work["at"]: sound(work) for work in works}
    names = list(dict.fromkeys(name for figures in points.values() for name in figures))
    names = [name for name in names if any(key in figures.get(name, {}) for figures in points.values())]
    table = [[over, *names]]
    for at, figures in points.items():
        cells = [figures.get(name, {}).get(key) for name in names]
        table.append([f"{at:,}", *(spell(cell["median"]) if cell else "" for cell in cells)])
    return markdown(table)


def on(works: dict[str, Work], name: str) -> list[Work]:
    """Return the workloads of a curve, in order."""
    return sorted((work for work in works.values() if work["curve"] == name), key=lambda work: work["at"])


def series(works: Sequence[Work], key: str) -> dict[str, list[tuple[float, dict[str, float]]]]:
    """Return, by contender, the points of a curve: where, and the figure there."""
    found: dict[str, list[tuple[float, dict[str, float]]]] = {}
    for work in works:
        for name, figures in sound(work).items():
            if key in figures:
                found.setdefault(name, []).append((work["at"], figures[key]))
    return found
