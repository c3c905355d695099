"""From figures to the report: graphs, messages, tables, pictures, and the page that they are written into."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "bench"))

import flame
import report
import shard_tables
from graphs import GRAPHS, farthest
from lineup import CONTENDERS
from messages import count_messages
from tables import curve, goals, on, ratios, rows, text
from wire import WIRES
from workloads import QUICK, SERVERS, WORKLOADS

MARKED = "Before.\n<!-- bench:{} -->\nold\n<!-- end -->\nAfter.\n"


def figure(median: float) -> dict[str, Any]:
    return {"median": median, "least": median * 0.9, "most": median * 1.2, "rounds": [median]}


def work(name: str, scale: float = 1.0, **contenders: float) -> dict[str, Any]:
    """A workload's report, all figures of a contender the same."""
    one = WORKLOADS[name]
    keys = ("cpu_us", "per_second", "p50_ms", "p99_ms", "idle_bytes", "client_bytes", "rss_mib")
    return {
        "title": one.title,
        "main": one.main,
        "curve": one.curve,
        "at": one.at,
        "contenders": {
            contender.replace("_", "-"): {
                "figures": {key: figure(value * scale) for key in keys},
                "faults": [],
                "limit": "server",
            }
            for contender, value in contenders.items()
        },
    }


def sharded() -> dict[str, Any]:
    """As of a whole run of shards."""
    keys = [
        *("fronts_us", "masters_us", "replicas_us", "batch_ms", "p50_ms", "p99_ms", "herd_us", "ratio"),
        *("masters_most", "fronts_most", "master_bytes", "replica_bytes"),
    ]

    def figures(batch: float, turn: float) -> dict[str, Any]:
        return {
            **{key: figure(5.0 + 80.0 / batch + 20.0 / turn) for key in keys},
            "batch": figure(batch),
            "turn": figure(turn),
        }

    points: list[dict[str, Any]] = [
        {
            "masters": masters,
            "fronts": fronts,
            "load": load,
            "keys_most": 1.0,
            "idle": {"fronts": 0.002, "masters": 0.001},
            "figures": figures(1 + outstanding / fronts / masters, 1 + outstanding / fronts),
            "faults": [],
        }
        for masters in (1, 2, 3, 6)
        for fronts in (1, 2, 4, 8)
        for load, outstanding in (("50x32", 1_600), ("50x1", 50))
    ]
    return {
        "machine": {"load_before": 0.5},
        "options": {"rounds": 3},
        "beside": {
            "figures": {load: figures(9, 20) for load in ("50x32", "50x1")},
            "million": figures(6, 30),
            "faults": [],
        },
        "points": points,
        "memory": [
            {
                "clients": 100_000,
                "used_memory": 220.0,
                "used_memory_dataset": 168.0,
                "used_memory_rss": 250.0,
                "front_mib": 60.0,
            }
        ],
    }


def results() -> dict[str, Any]:
    """As of a whole run."""
    several = {"proxyherd": 10.0, "node_equal": 15.0, "twisted_bare": 5.0, "redis": 2.0}
    works = {name: work(name, 1 + WORKLOADS[name].at / 100, **several) for name in WORKLOADS}
    lines = {
        graph: [{"servers": servers, "edges": servers, "lines": servers + 1.0} for servers in SERVERS]
        for graph in GRAPHS
    }
    return {
        "when": "2026-01-01T00:00+00:00",
        "machine": {
            "cpus": 2,
            "processor": "P",
            "memory_gib": 8.0,
            "system": "S",
            "python": "3",
            "load_before": 0.0,
            "generator": "in C",
            "versions": {"uvloop": "1"},
        },
        "options": {"rounds": 1, "commands": 1_000, "clients": 1_000},
        "left_out": {"redis-equal": "not here"},
        "workloads": works,
        "messages": lines,
        "shards": sharded(),
    }


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("servers", SERVERS)
def test_graphs_are_connected_and_as_large_as_asked_for(graph: str, servers: int) -> None:
    edges = GRAPHS[graph](servers)
    assert GRAPHS[graph](servers) == edges
    assert all(left < right for left, right in edges)
    assert len(set(edges)) == len(edges)
    reached = {edges[0][0]}
    for _ in range(servers):
        reached |= {name for edge in edges if reached & set(edge) for name in edge}
    assert len(reached) == len({name for edge in edges for name in edge}) == servers


def test_the_farthest_is_as_many_hops_away_as_can_be() -> None:
    chain = list(pairwise("ABCDE"))
    assert farthest(chain) == ("A", "E", 4)
    assert farthest([*chain, ("A", "E")]) == ("A", "C", 2)


def test_an_update_crosses_links_as_often_as_the_rule_says() -> None:
    for counted in count_messages((2, 5, 8)).values():
        for row in counted:
            assert row["lines"] == row["rule"] == 2 * row["edges"] - row["servers"] + 1


def test_workloads_that_run_exist_and_name_contenders_that_can() -> None:
    for name in (*WORKLOADS, *QUICK):
        workload = WORKLOADS[name]
        assert all(workload.fits(CONTENDERS[one]) for one in workload.usual), name


def test_ratios_are_to_ours_and_who_has_a_fault_is_not_in_the_table() -> None:
    one = work("one 50x1", proxyherd=10, node=25, echo=1)
    one["contenders"]["echo"]["faults"] = ["echo: it lies"]
    head, *body = rows(one)
    assert [(row[0], row[head.index("to ours")]) for row in body] == [("proxyherd", "1.00"), ("node", "2.50")]
    assert "does not count: echo: it lies" in text(one)
    assert "| node | 2.50 |" in ratios({"one 50x1": one})


def test_the_table_at_the_end_has_what_each_round_says_of_two() -> None:
    one = work("one 50x1", proxyherd=1, twisted_bare=1, redis=1, before=1)
    rounds = {"proxyherd": [2.0, 9.0, 5.0], "twisted-bare": [4.0, 10.0, 20.0], "before": [2.0, 3.0, 5.0]}
    for name, figures in rounds.items():
        one["contenders"][name]["figures"]["cpu_us"]["rounds"] = figures
    both = work("propagation 2000", proxyherd=3, node_equal=2)
    both["contenders"]["node-equal"]["limit"] = "sent late"
    assert goals({"one 50x1": one, "propagation 2000": both})[1:] == [
        ["one 50x1", "twisted-bare", "0.50", "0.25 to 0.90", "0.40", ""],
        ["one 50x1", "before", "1.00", "1.00 to 3.00", "", ""],
        ["propagation 2000, p50 ms", "node-equal", "1.50", "1.50 to 1.50", "1.00", "sent late"],
        ["propagation 2000, p99 ms", "node-equal", "1.50", "1.50 to 1.50", "1.00", "sent late"],
    ]


def test_a_curve_is_in_the_order_of_its_points_and_shows_gaps() -> None:
    works = {
        "connections 1000": work("connections 1000", proxyherd=3),
        "connections 100": work("connections 100", proxyherd=1, node=2),
        "one 50x1": work("one 50x1", proxyherd=9),
    }
    lines = curve(on(works, "connections"), "cpu_us", "connections").splitlines()
    assert lines[0] == "| connections | proxyherd | node |"
    assert lines[2:] == ["| 100 | 1 | 2 |", "| 1,000 | 3 |  |"]


def test_only_what_stands_between_markers_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(MARKED.format("ratios") + MARKED.format("code"))
    report.write(results(), page)
    once = page.read_text()
    assert once.count("Before.\n<!-- bench:") == once.count("<!-- end -->\nAfter.\n") == 2
    assert "old" not in once
    assert "| node-equal | 1.50 |" in once
    report.write(results(), page)
    assert page.read_text() == once


def test_a_marker_that_nobody_fills_is_an_error(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(MARKED.format("nothing"))
    with pytest.raises(ValueError, match="bench:nothing is unknown"):
        report.write(results(), page)


def test_the_page_has_a_place_for_every_part(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(report.PAGE.read_text())
    report.write(results(), page)
    written = page.read_text()
    assert "Not measured." not in written
    assert {f"<!-- bench:{name} -->" for name in report._PARTS} == {
        line for line in written.splitlines() if line.startswith("<!-- bench:")
    }
    assert "Left out: redis-equal: not here." in written


def test_a_profile_tells_nothing_of_the_machine_that_it_was_made_on() -> None:
    frames = (
        "/opt/python/lib/python3.11/asyncio/runners.py",
        "/home/me/.venv/lib/python3.11/site-packages/click/core.py",
        f"{ROOT}/proxyherd/core/node.py",
        "proxyherd/core/turn.py",
    )
    svg = '<text id="title" x="1">py-spy record -o /tmp/x.svg</text>' + "".join(
        f"<title>f ({frame}:7) (9 samples, 1%)</title>" for frame in frames
    )
    cleaned = flame.clean(svg)
    assert "(/" not in cleaned
    assert "/tmp" not in cleaned
    for frame in (
        "asyncio/runners.py",
        "click/core.py",
        "proxyherd/core/node.py",
        "proxyherd/core/turn.py",
    ):
        assert f"f ({frame}:7)" in cleaned


def test_lines_of_code_are_neither_blank_nor_comment_nor_docstring(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text('"""Says\n\nmuch.\n"""\n\n# why\nx = 1\n\n\ndef f():\n    """One."""\n    return x\n')
    assert report.code_lines(program) == 3
    script = tmp_path / "script.js"
    script.write_text("// why\n\nconst x = 1;\n")
    assert report.code_lines(script) == 1


def test_what_does_not_count_past_one_server_is_told_and_not_in_the_table() -> None:
    measured = sharded()
    measured["points"][0]["faults"] = ["a report was lost"]
    written = shard_tables.costs(measured)
    assert "Does not count: a report was lost." in written
    assert "| 1 | 1 | 1,601 |" not in written
    assert "| 1 | 2 | 801 |" in written


def test_what_was_measured_too_shortly_or_beside_other_work_says_so() -> None:
    measured = sharded()
    assert "**A trial" not in shard_tables.beside(measured)
    assert "other work" not in shard_tables.beside(measured)
    assert "too busy" not in shard_tables.beside(measured)
    measured["options"]["rounds"] = 1
    measured["machine"]["load_before"] = 4.5
    measured["beside"]["million"]["p50_ms"] = figure(900.0)
    written = shard_tables.beside(measured)
    assert "A trial: 1 of 3 rounds" in written
    assert "load average before was 4.5" in written
    assert "too busy" in written


def test_what_was_measured_past_one_server_is_read_where_it_is(tmp_path: Path) -> None:
    assert report.shards(tmp_path) == {}
    (tmp_path / report.SHARDS).write_text(json.dumps(sharded()))
    assert report.shards(tmp_path) == {"shards": json.loads(json.dumps(sharded()))}


def write_latencies_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all pictures be laid out, and one written: that takes as long, and is the same for all."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # may not be installed

    write = Figure.savefig

    def savefig(figure: Figure, file: Path, **options: Any) -> None:
        if file.stem == "latency":
            write(figure, file, **options)
        else:
            file.touch()

    monkeypatch.setattr(Figure, "savefig", savefig)


def test_every_picture_is_drawn_and_the_same_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="pictures need pip install -e '.[bench]'")
    write_latencies_only(monkeypatch)
    drawn = report.draw(results(), tmp_path)
    pictures = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert set(pictures) == {f"{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    shown = {f"bench/{name}" for name in pictures}
    wanted = {part.partition(")")[0] for part in report.PAGE.read_text().split("](")[1:]}
    assert {one for one in wanted if one.endswith(".png")} <= shown
    again = results()
    del again["shards"], again["messages"]
    again["workloads"] = {name: again["workloads"][name] for name in ("one open 5000", "one 50x32")}
    report.draw(json.loads(json.dumps(again)), tmp_path)
    for name in ("latency.svg", "latency.png"):
        assert (tmp_path / name).read_bytes() == pictures[name] != b""


def test_contenders_can_be_told_apart_without_colours() -> None:
    pytest.importorskip("matplotlib", reason="pictures need pip install -e '.[bench]'")
    import plots  # noqa: PLC0415  # needs matplotlib

    in_tables_alone = {name for name, one in CONTENDERS.items() if WIRES[one.wire].carrier is not None}
    assert plots.STYLES.keys() == CONTENDERS.keys() - in_tables_alone
    for workload in WORKLOADS.values():
        if workload.curve:
            looks = [(plots.STYLES[one].marker, plots.STYLES[one].line) for one in workload.usual]
            assert len(set(looks)) == len(looks)
