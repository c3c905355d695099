"""The dashboard as Grafana reads it: its own types of dashboards and panels, and queries that Prometheus understands."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
from debian import needs
from node_packages import node_modules
from prometheus import dashboard, queries

RAW: Final = "./node_modules/@grafana/schema/dist/types/raw"

KINDS: Final = {
    "stat": "stat",
    "timeseries": "timeseries",
    "heatmap": "heatmap",
    "state-timeline": "statetimeline",
}
"""Where the types of our kinds of panels are."""

TYPES: Final = f"""
import type {{ AnnotationQuery, Dashboard, Panel, RowPanel }} from "{RAW}/dashboard/x/types.gen";
type Json<T> = T extends string ? `${{T}}` : T extends number | boolean | null | undefined ? T
  : T extends (infer E)[] ? Json<E>[] : T extends object ? {{ [K in keyof T]: Json<T[K]> }} : T;
type Defaults = NonNullable<Panel["fieldConfig"]>["defaults"];
type Overrides = NonNullable<Panel["fieldConfig"]>["overrides"];
type Of<F, O> = Omit<Json<Panel>, "fieldConfig" | "options"> & {{
  fieldConfig: {{ defaults: Omit<Json<Defaults>, "custom"> & {{ custom?: Partial<Json<F>> }}; overrides: Json<Overrides> }};
  options: Partial<Json<O>>;
}};
type OfPrometheus = Omit<Json<AnnotationQuery>, "target"> & {{
  target: {{ refId: string; expr: string; interval: string }};
  titleFormat: string;
  textFormat: string;
}};
type Board = Omit<Json<Dashboard>, "panels" | "annotations"> & {{ uid: string; annotations: {{ list: OfPrometheus[] }} }};
"""
"""Types of JSON: there, a member of an enumeration is its text. What Prometheus adds to annotations is not in Grafana's."""


def as_typescript(board: dict[str, Any]) -> str:
    """Return a program whose types are right if the dashboard is. Grafana knows no other members than its types have."""
    panels = board.pop("panels")
    lines = [
        f'import type * as {kind} from "{RAW}/composable/{kind}/panelcfg/x/types.gen";'
        for kind in KINDS.values()
    ]
    lines += [TYPES, f"export const board: Board = {json.dumps(board)};"]
    for panel in panels:
        lines.append(f"export const panel{panel['id']}: {_type(panel['type'])} = {json.dumps(panel)};")
    return "\n".join(lines)


def _type(kind: str) -> str:
    if kind == "row":
        return "Json<RowPanel>"
    kind = KINDS[kind]
    return f"Of<{'{}' if kind == 'stat' else f'{kind}.FieldConfig'}, {kind}.Options>"


def mistakes(board: dict[str, Any], folder: Path) -> str:
    """Return what the compiler says."""
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(node_modules())
    (folder / "dashboard.ts").write_text(as_typescript(board))
    options = "--noEmit --strict --skipLibCheck --target es2022 --module esnext --moduleResolution bundler"
    compiler = modules / "typescript/bin/tsc"
    done = subprocess.run(
        ["node", compiler, *options.split(), "dashboard.ts"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 or done.stdout, done.stderr
    return done.stdout


@needs("node", "npm")
def test_the_dashboard_is_what_todays_grafana_knows(tmp_path: Path) -> None:
    assert mistakes(dashboard(), tmp_path) == ""
    source = (node_modules() / "@grafana/schema/dist/esm/raw/dashboard/x/types.gen.mjs").read_text()
    assert f"schemaVersion: {dashboard()['schemaVersion']}," in source


@needs("node", "npm")
@pytest.mark.parametrize("path", ["", "options", "fieldConfig/defaults", "fieldConfig/defaults/custom"])
def test_a_member_that_grafana_does_not_know_would_be_found(path: str, tmp_path: Path) -> None:
    board = dashboard()
    panel = next(one for one in board["panels"] if one["type"] == "timeseries")
    for name in filter(None, path.split("/")):
        panel = panel[name]
    panel["nosuch"] = 1
    assert "nosuch" in mistakes(board, tmp_path)


@needs("promtool")
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    rules = []
    for number, (_, query) in enumerate(queries()):
        for name, value in {"$__rate_interval": "1m", "$job": "proxyherd", "$server": ".*"}.items():
            query = query.replace(name, value)  # noqa: PLW2901 - the same query
        rules.append({"record": f"query:{number}", "expr": query})
    file = tmp_path / "queries.yml"
    file.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout
