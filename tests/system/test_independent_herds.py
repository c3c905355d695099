"""Small herds of many hands, written from how public ones behave: each has what the assignment promises it, and is marked
once for the one thing in which it differs from the protocol.

They are the files of tests/grading/herds/, and share nothing but the names of their servers. All are graded at once, some
at a time, because a grading mostly waits.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import pytest
from debian import needs
from gazetteer_file import gazetteer_file
from herd_process import ROOT, free_port

from proxyherd.grading import formal, judging
from proxyherd.grading.cases import load_cases
from proxyherd.grading.rubric import profile

pytestmark = pytest.mark.xdist_group("independent herds")

HERDS: Final = ROOT / "tests/grading/herds"
NAMES: Final = ("Alford", "Hamilton", "Parker")
EDGES: Final = [["Alford", "Parker"], ["Hamilton", "Parker"], ["Alford", "Hamilton"]]
AT_ONCE: Final = 4

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
"""By a herd's file, the checks that mark it by the protocol."""

GOOGLE: Final = "google.py"
"""The herd that asks Google; only in a sandbox does it reach one."""

STRICT: Final = ("at_on_client_ports.mjs", "cr_lf.py", "no_lf.py")
"""Those that are judged by the protocol too. What marks the others is judged by the assignment as well, if only to
explain faults, and reported."""

ASSIGNMENT: Final = profile("assignment", judging.all_checks())
KEPT: Final = {
    *ASSIGNMENT.shares,
    *(form.check for form in formal.RULES),
    *(f"case.{case.slug}" for case in load_cases() if case.about is None),
    *("case.fractional-radius", "case.radius-50-0001"),
    *("times.difference-is-received-less-sent", "times.later-report-counts"),
    *("times.earlier-report-does-not-count", "times.compared-as-numbers"),
    *("floods.reach-every-server", "floods.newest-wins-everywhere", "floods.stale-reports-stay"),
    *("at.answered-as-invalid", "at.teaches-nobody", "at.replaces-nothing"),
    *("places.form", "places.nothing-asked", "hard.no-server-has-ended"),
}
"""What each of them keeps of the protocol, but for what it is planted with."""

Checks: TypeAlias = dict[str, dict[str, Any]]


class Graded(NamedTuple):
    """The report of a grading, as JSON, and its exit code."""

    report: dict[str, Any]
    code: int

    def of(self, outcome: str) -> Checks:
        return {one["id"]: one for one in self.report["checks"] if one["outcome"] == outcome}

    @property
    def permitted(self) -> set[str]:
        return {one["id"] for one in self.report["permitted"]}


def missing(herd: str) -> str:
    """Return why a herd cannot be started here; empty if it can."""
    if herd.endswith(".mjs"):
        return "" if shutil.which("node") else "Node.js is not installed"
    if "twisted" in (HERDS / herd).read_text() and importlib.util.find_spec("twisted") is None:
        return "Twisted is not installed; it is in the extra bench"
    return ""


def grade(herd: str, rubric: list[str], folder: Path) -> Graded:
    folder.mkdir()
    ports = {name: free_port() for name in NAMES}
    (folder / "ports.json").write_text(json.dumps(ports))
    lines = [f"edges = {json.dumps(EDGES)}", "[servers]"]
    for number, name in enumerate(NAMES):
        at = [f'"127.0.0.1:{3 * number + place}"' for place in (1, 2, 3)]
        lines.append(f"{name} = {{ clients = {at[0]}, peers = {at[1]}, admin = {at[2]} }}")
    (folder / "graph.toml").write_text("\n".join(lines))
    program = "node" if herd.endswith(".mjs") else sys.executable
    done = subprocess.run(
        [
            *(sys.executable, "-m", "proxyherd", "grade", "--start", f"{program} {HERDS / herd} {{name}}"),
            *("--topology", "graph.toml", *(f"{name}=127.0.0.1:{port}" for name, port in ports.items())),
            *(*rubric, "--json", "-", "--patience", "15"),
        ],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PROXYHERD_")},
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert done.stdout, done.stderr
    return Graded(json.loads(done.stdout), done.returncode)


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[str, str], Graded]:
    """What came of each herd that can be started here, by herd and rubric."""
    folder = tmp_path_factory.mktemp("herds")
    kept = folder / "kept.toml"
    checks = ", ".join(f'"{check}" = 1' for check in sorted(KEPT))
    kept.write_text(f'title = "Kept"\ngroups.kept = {{ title = "Kept", checks = {{ {checks} }} }}\n')
    wanted = [(herd, "assignment") for herd in PLANTED] + [(herd, "kept") for herd in STRICT]
    words = {"assignment": ["--profile", "assignment"], "kept": ["--rubric", str(kept)]}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {
            (herd, rubric): pool.submit(grade, herd, words[rubric], folder / f"{herd}-{rubric}")
            for herd, rubric in wanted
            if not missing(herd)
        }
    return {key: one.result() for key, one in running.items()}


@pytest.mark.parametrize("herd", PLANTED)
def test_an_independent_herd_has_all_points_of_the_assignment_but_for_what_that_forbids(
    herd: str, graded: Mapping[tuple[str, str], Graded]
) -> None:
    if reason := missing(herd):
        pytest.skip(reason)
    one = graded[herd, "assignment"]
    forbidden = PLANTED[herd] & {*ASSIGNMENT.shares}
    assert one.of("fault").keys() == forbidden, json.dumps(one.of("fault"), indent=1)
    assert one.code == bool(forbidden)
    lost = round(sum(ASSIGNMENT.points(check) for check in forbidden), 2)
    report = one.report
    assert (report["points"], report["lost"], report["open"]) == (100 - lost, lost, 0), one
    # What it does otherwise is reported all the same, and nothing else.
    assert one.permitted == {check for check in PLANTED[herd] if check.startswith("form.")}
    # And what could not be judged because of that cost nothing.
    assert not one.of("not seen")
    assert {left["cause"] for left in one.of("not judged").values()} <= PLANTED[herd]


@pytest.mark.parametrize("herd", STRICT)
def test_an_independent_herd_is_marked_once_for_what_it_does_otherwise(
    herd: str, graded: Mapping[tuple[str, str], Graded]
) -> None:
    if reason := missing(herd):
        pytest.skip(reason)
    one = graded[herd, "kept"]
    assert one.of("fault").keys() == PLANTED[herd], json.dumps(one.of("fault"), indent=1)
    left_out = {left["cause"] for left in one.of("not judged").values()}
    assert left_out <= PLANTED[herd]
    assert one.of("passed").keys() | one.of("not judged").keys() | PLANTED[herd] == KEPT


@needs("bwrap", "openssl", root=True)
def test_a_herd_that_asks_google_has_all_points_in_a_sandbox(tmp_path: Path) -> None:
    """Its URL is Google's: it reaches the stand-in, and without an answer it would have none for its client."""
    submission = tmp_path / "submissions/google"
    submission.mkdir(parents=True)
    shutil.copy(HERDS / GOOGLE, submission / "server.py")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "proxyherd", "grade", "--batch", "submissions", "--output", "grades"),
            *(f"{name}=127.0.0.1:{port}" for port, name in enumerate(NAMES, 12_001)),
            *("--start", f"{sys.executable} server.py {{name}}", "--show", sys.prefix, "--show", str(ROOT)),
            *("--profile", "assignment", "--patience", "15"),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PROXYHERD_GAZETTEER": str(gazetteer_file())},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "grades/google/result.json").read_text())["report"]
    assert (report["points"], report["lost"], report["open"]) == (100, 0, 0), report
    assert {one["outcome"] for one in report["checks"]} == {"passed"}


def test_the_herds_are_small_and_each_is_tried() -> None:
    files = {file.name: file.read_text() for file in HERDS.iterdir() if file.is_file()}
    assert files.keys() == {*PLANTED, GOOGLE}
    assert all(text.count("\n") < 120 for text in files.values())
