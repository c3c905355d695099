"""Small herds of many hands, written from how public ones behave: each is judged on its substance, and marked once for the
one thing in which it differs.

They are the files of tests/grading/herds/, and share nothing but the names of their servers.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
from herd_process import ROOT, free_port

from proxyherd.grading import formal, judging
from proxyherd.grading.cases import load_cases
from proxyherd.grading.faults import Fault
from proxyherd.grading.report import GradingReport, Result
from proxyherd.grading.rubric import profile

HERDS: Final = ROOT / "tests/grading/herds"
NAMES: Final = ("Alford", "Hamilton", "Parker")
EDGES: Final = [["Alford", "Parker"], ["Hamilton", "Parker"], ["Alford", "Hamilton"]]

PLANTED: Final[dict[str, set[str]]] = {
    "half_close.py": {"form.half-close"},
    "packets.py": {"form.packets"},
    "cr_lf.py": {"form.line-end"},
    "no_lf.py": {"form.final-lf", "form.closing"},
    "floats.py": {"form.decimals"},
    "decimal_point.py": {"form.whole-degrees"},
    "at_on_client_ports.mjs": {"at.teaches-nobody"},
    "crash.mjs": {"case.fractional-radius"},
    "silent.mjs": {"form.blank-lines"},
    "flood_connections.py": set(),
}
"""By a herd's file, the checks that mark it."""

ASSIGNMENT: Final = {*profile("assignment", judging.all_checks()).shares}
KEPT: Final = ASSIGNMENT | {
    *(form.check for form in formal.RULES),
    *(f"case.{case.slug}" for case in load_cases() if case.about is None),
    *("case.fractional-radius", "case.radius-50-0001"),
    *("times.difference-is-received-less-sent", "times.later-report-counts"),
    *("times.earlier-report-does-not-count", "times.compared-as-numbers"),
    *("floods.reach-every-server", "floods.newest-wins-everywhere", "floods.stale-reports-stay"),
    *("at.answered-as-invalid", "at.teaches-nobody", "at.replaces-nothing"),
    *("places.form", "places.nothing-asked", "hard.no-server-has-ended"),
}
"""What each of them keeps, but for what it is planted with: the assignment, the forms, and some more."""


def by_the_assignment(checks: dict[str, Any]) -> GradingReport:
    """Mark the checks of a report in JSON by the profile `assignment`, but for what only logs show."""
    results = [
        Result(
            name,
            one["title"],
            "",
            0.0,
            fault=Fault("", b"", "", "") if one["outcome"] == "fault" else None,
            not_seen=one.get("not_seen", ""),
            not_judged=one.get("not_judged", ""),
            cause=one.get("cause", ""),
        )
        for name, one in checks.items()
    ]
    return GradingReport(
        {}, profile("assignment", judging.all_checks()).only(checks.keys() - {"floods.end"}), results, 0.0
    )


def command(herd: str) -> str:
    """Return how a server of it is started; skip the test where that is impossible."""
    if herd.endswith(".mjs"):
        if (node := shutil.which("node")) is None:
            pytest.skip("Node.js is not installed")
        return f"{node} {HERDS / herd} {{name}}"
    if "twisted" in (HERDS / herd).read_text() and importlib.util.find_spec("twisted") is None:
        pytest.skip("Twisted is not installed; it is in the extra bench")
    return f"{sys.executable} {HERDS / herd} {{name}}"


@pytest.mark.parametrize("herd", PLANTED)
def test_an_independent_herd_is_marked_once_for_what_it_does_otherwise(herd: str, tmp_path: Path) -> None:
    start = command(herd)
    ports = {name: free_port() for name in NAMES}
    (tmp_path / "ports.json").write_text(json.dumps(ports))
    lines = [f"edges = {json.dumps(EDGES)}", "[servers]"]
    for number, name in enumerate(NAMES):
        at = [f'"127.0.0.1:{3 * number + place}"' for place in (1, 2, 3)]
        lines.append(f"{name} = {{ clients = {at[0]}, peers = {at[1]}, admin = {at[2]} }}")
    (tmp_path / "graph.toml").write_text("\n".join(lines))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "proxyherd", "grade", "--start", start, "--topology", "graph.toml"),
            *(f"{name}=127.0.0.1:{port}" for name, port in ports.items()),
            *("--profile", "strict", "--json", "-", "--patience", "15"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("PROXYHERD_")},
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    checks = {one["id"]: one for one in json.loads(done.stdout)["checks"]}
    assert checks.keys() >= KEPT
    kept = {name: one for name, one in checks.items() if name in KEPT}
    marked = {name for name, one in kept.items() if one["outcome"] == "fault"}
    assert marked == PLANTED[herd], {name: kept[name] for name in marked ^ PLANTED[herd]}
    left_out = {name: one for name, one in kept.items() if one["outcome"] not in ("passed", "fault")}
    assert {one.get("cause") for one in left_out.values()} <= marked, left_out
    # By the assignment, it loses the points of what that demands, and no others; and none is left open.
    report = by_the_assignment(checks)
    demanded = PLANTED[herd] & {*report.rubric.shares}
    lost = sum(report.rubric.points(one) for one in demanded)
    marks = report.marks()
    assert marks.lost == pytest.approx(lost)
    assert (marks.open, marks.possible) == (0, report.rubric.possible)


def test_the_herds_are_small_and_each_is_tried() -> None:
    files = {file.name: file.read_text() for file in HERDS.iterdir() if file.is_file()}
    assert files.keys() == PLANTED.keys()
    assert all(text.count("\n") < 120 for text in files.values())
