"""The report: pictures of the results, and tables between markers in docs/report.md. What stands outside the markers is
written by hand and stays.

    .venv/bin/python bench/report.py [RESULTS.json]

Pictures go beside the results, and are of what `shards` has measured too where its file is there; the page is written
only from those in docs/bench.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import shard_tables
from tables import curve, goals, markdown, on, ratios, section, short, sound

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = ROOT / "docs/report.md"
RESULTS: Final = ROOT / "docs/bench/results.json"
SHARDS: Final = "shards.json"
"""Beside the results."""

Results = dict[str, Any]

_PROGRAMS: Final = {
    "Twisted": ("twisted_herd.py", "rules.py"),
    "Node.js": ("node_herd.js",),
    "asyncio streams": ("asyncio_streams_herd.py", "rules.py"),
    "echo": ("echo.py",),
}
"""The files that each contender's program is."""

_TELLING_ROUNDS: Final = 3
"""Fewer are no measurement, and the page says so."""

_OPEN: Final = {"cpu_us": "CPU µs a report", "p50_ms": "Median, ms", "p99_ms": "99th percentile, ms"}

_WEB: Final = ("websocket 50x1", "websocket 50x32", "put 50x1", "batch 50x100")

_ONE_SERVER: Final = ("one 50x1", "one 50x32", "whatsat 50x32", "mixed 50x32")


def draw(results: Results, folder: Path) -> list[str]:
    """Draw all pictures there are figures for; return their names, none where matplotlib is not installed."""
    try:
        import plots  # noqa: PLC0415 - what tests import must not need matplotlib
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        sys.stderr.write("left out: pictures: matplotlib is not installed; pip install -e '.[bench]'\n")
        return []
    return plots.draw_all(results, folder)


def write(results: Results, page: Path = PAGE) -> None:
    """Write the tables into the page, each between its markers. Raises ValueError for a marker that is unknown."""
    text = page.read_text()
    results = {**shards(RESULTS.parent), **results}

    def fill(found: re.Match[str]) -> str:
        name = found[1]
        if name not in _PARTS:
            raise ValueError(f"{page}: the marker bench:{name} is unknown; there are {', '.join(_PARTS)}")
        body = _PARTS[name](results) or "Not measured."
        return f"<!-- bench:{name} -->\n\n{body}\n\n<!-- end -->"

    page.write_text(re.sub(r"<!-- bench:([\w-]+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL))


def shards(folder: Path) -> Results:
    """Return what `shards` has measured, as a part of the results; nothing if it has not."""
    file = folder / SHARDS
    return {"shards": json.loads(file.read_text())} if file.exists() else {}


def _machine(results: Results) -> str:
    one, options = results["machine"], results["options"]
    versions = {"CPython": one["python"], **one["versions"]}
    rows = [
        ["", "what"],
        ["machine", f"{one['cpus']} cores, {one['processor']}, {one['memory_gib']:g} GiB"],
        ["system", one["system"]],
        ["programs", ", ".join(f"{name} {version}" for name, version in versions.items() if version)],
        ["load average before", str(one["load_before"])],
        ["commands in a run", f"{options['commands']:,}, times the workload's share"],
        ["distinct clients", f"{options['clients']:,}, where nothing else is said"],
        ["rounds", f"{options['rounds']} at most"],
        ["load generator", one["generator"]],
        ["when", results["when"]],
    ]
    left_out = [f"Left out: {name}: {why}." for name, why in results["left_out"].items()]
    notes = [f"**{note}**" for note in results.get("notes", [])]
    if options["rounds"] < _TELLING_ROUNDS:
        notes.append(
            f"**A trial: with {options['rounds']} of {_TELLING_ROUNDS} rounds, spread is not told.**"
        )
    return "\n\n".join([*notes, _left(rows), *left_out])


def _left(rows: list[list[str]]) -> str:
    return markdown(rows).replace("---:", "---")


def _sections(*names: str) -> Callable[[Results], str]:
    def made(results: Results) -> str:
        works = results["workloads"]
        return "\n\n".join(section(works[name]) for name in names if name in works)

    return made


def _ratios(results: Results) -> str:
    works = results["workloads"]
    return ratios({name: works[name] for name in (*_ONE_SERVER, "five 10x1", "five 50x32") if name in works})


def _goals(results: Results) -> str:
    pairs = goals(results["workloads"])
    return markdown(pairs) if pairs else ""


def _scale(name: str, over: str, **figures: str) -> Callable[[Results], str]:
    """Return what spells the figures of a curve, each under its own title."""

    def made(results: Results) -> str:
        works = on(results["workloads"], name)
        return "\n\n".join(
            f"**{title}**\n\n{curve(works, key, over)}" for key, title in figures.items() if works
        )

    return made


def _herds(results: Results) -> str:
    """A row for each size: lines, CPU of all servers and of one, for both graphs."""
    counted = results.get("messages", {})
    parts = []
    for graph, title in (("ring", "Rings"), ("random", "Random graphs, two edges a server")):
        measured = {work["at"]: sound(work) for work in on(results["workloads"], graph)}
        names = list(dict.fromkeys(name for figures in measured.values() for name in figures))
        head = ["servers", "edges", "AT lines an update", *(f"{name}, µs an update" for name in names)]
        table = [[*head, *(f"{name}, µs a server" for name in names)]]
        for row in counted.get(graph, []):
            at = row["servers"]
            costs = [measured.get(at, {}).get(name, {}).get("cpu_us", {}).get("median") for name in names]
            table.append(
                [
                    *(str(at), str(row["edges"]), short(row["lines"])),
                    *(short(cost) if cost else "" for cost in costs),
                    *(short(cost / at) if cost else "" for cost in costs),
                ]
            )
        parts.append(f"**{title}**\n\n{markdown(table)}")
    return "\n\n".join(parts) if counted else ""


def _code(_: Results) -> str:
    rows = [["program", "lines of code", "files"]]
    for name, files in _PROGRAMS.items():
        counts = sum(code_lines(ROOT / "bench/contenders" / file) for file in files)
        rows.append([name, str(counts), ", ".join(f"`{file}`" for file in files)])
    ours = sum(map(code_lines, (ROOT / "proxyherd").rglob("*.py")))
    rows.append(["proxyherd, whole", f"{ours:,}", "`proxyherd/`"])
    return markdown(rows)


def code_lines(file: Path) -> int:
    """Return how many lines of a Python or JavaScript file are neither blank nor comment nor docstring."""
    text = file.read_text()
    if file.suffix == ".py":
        text = re.sub(r'^ *[rR]?"""(?:.|\n)*?"""', "", text, flags=re.MULTILINE)
    return sum(bool(line.strip()) and not line.lstrip().startswith(("#", "//")) for line in text.splitlines())


def _sharded(part: Callable[[Results], str]) -> Callable[[Results], str]:
    return lambda results: part(results["shards"]) if "shards" in results else ""


_PARTS: Final[dict[str, Callable[[Results], str]]] = {
    "machine": _machine,
    "ratios": _ratios,
    "one-server": _sections("one 50x1", "one 50x32"),
    "goals": _goals,
    "open-one": _scale("one open", "reports a second", **_OPEN),
    "open-five": _scale("five open", "reports a second", **_OPEN),
    "questions": _sections("whatsat 50x32", "mixed 50x32", "invalid 50x32", "gazetteer 10 km"),
    "web": _sections(*_WEB),
    "herd": _sections("five 10x1", "five 50x32"),
    "propagation": _sections("propagation 2000"),
    "connections": _scale(
        "connections",
        "connections",
        cpu_us="CPU µs a command",
        idle_bytes="Bytes of server memory for each idle connection",
        used_bytes="The same after one command on each",
    ),
    "clients": _scale(
        "clients",
        "clients",
        cpu_us="CPU µs a command",
        client_bytes="Bytes of server memory for each client",
        rss_mib="Server memory, MiB",
    ),
    "servers": _herds,
    "code": _code,
    **{name: _sharded(part) for name, part in shard_tables.PARTS.items()},
}


def main() -> None:
    """Draw and write from results that are there."""
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    results = {**json.loads(file.read_text()), **shards(file.parent)}
    draw(results, file.parent)
    if file.resolve() == RESULTS:
        write(results)


if __name__ == "__main__":
    main()
