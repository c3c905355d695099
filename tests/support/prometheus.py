"""A real Prometheus for tests, with the configuration and the rules that the project ships, and time that runs faster.

    with running_prometheus(folder) as prometheus:
        wait_until(lambda: prometheus.query("sum(up)") == [({}, 5.0)], "all are up")

What is changed in a copy of `deploy/prometheus` are durations, and nothing else: `scrape_interval`,
`evaluation_interval`, every `for` and every range in brackets is a thirtieth of itself, so that a scrape comes every
half second, what an alert waits a minute for takes two seconds, and a rate of five minutes is one of ten seconds.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from herd_process import PATIENCE_SECONDS, ROOT, free_port, wait_until

SHIPPED = ROOT / "deploy/prometheus"
OPERATIONS = ROOT / "docs/operations.md"
DASHBOARD = ROOT / "deploy/grafana/proxyherd.json"
TARGETS = "proxyherd-targets.json"
FASTER = 30

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DURATION = re.compile(r"(?<=_interval: )(\d+)([smh])\b|(?<= for: )(\d+)([smh])\b|(?<=\[)(\d+)([smh])(?=\])")

Labels = Mapping[str, str]
Sample = tuple[Labels, float]


def seconds(duration: str) -> float:
    """Return how long such a duration is here, such as the `5m` of a rule that ships."""
    return int(duration[:-1]) * _SECONDS[duration[-1]] / FASTER


def hastened(text: str) -> str:
    """Return a configuration, rules or a query with every duration a thirtieth of itself."""

    def shorter(match: re.Match[str]) -> str:
        return f"{round(seconds(match[0]) * 1000)}ms"

    return _DURATION.sub(shorter, text)


def hasten(folder: Path) -> None:
    """Put what ships into a folder, hastened."""
    shutil.copytree(SHIPPED, folder)
    for file in [folder / "prometheus.yml", *(folder / "rules").iterdir()]:
        file.write_text(hastened(file.read_text()))


class Prometheus:
    """A Prometheus that runs, and what it answers."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
        self._process = process
        self._port = port
        self._output = output
        self.since = time.time()

    def wait_until_ready(self) -> None:
        wait_until(self._is_ready, "Prometheus is ready")

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, f"Prometheus has ended: {self._output.read_text()}"
        try:
            return self._get("/-/ready")[0] == 200
        except OSError:
            return False

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its HTTP API."""
        status, body = self._get(f"/api/v1/{path}?{urlencode(parameters)}")
        answer = json.loads(body)
        assert answer["status"] == "success", f"{status} for {path} {parameters}: {answer}"
        assert not answer.get("warnings"), f"{path} {parameters}: {answer['warnings']}"
        return answer["data"]

    def query(self, expression: str) -> list[Sample]:
        """Return what a query yields now."""
        found = self.ask("query", query=expression)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]

    def value(self, expression: str) -> float | None:
        """Return the only sample that a query yields now; None if there is none."""
        found = self.query(expression)
        assert len(found) < 2, f"{expression}: {found}"
        return found[0][1] if found else None

    def history(self, expression: str) -> list[Sample]:
        """Return what a query yields at any time since the start, up to this instant."""
        end, step = time.time(), 0.25  # twice as often as there are samples
        start = end - math.ceil((end - self.since) / step) * step
        found = self.ask("query_range", query=expression, start=f"{start}", end=f"{end}", step=f"{step}")
        return [(one["metric"], float(value)) for one in found["result"] for _, value in one["values"]]

    def firing(self, alert: str) -> list[Labels]:
        """Return the labels of this alert where it fires now."""
        alerts = self.ask("alerts")["alerts"]
        return [
            one["labels"]
            for one in alerts
            if one["labels"]["alertname"] == alert and one["state"] == "firing"
        ]

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def running_prometheus(folder: Path) -> Iterator[Prometheus]:
    """Run Prometheus on the configuration in a folder; its data go there too."""
    port, output = free_port(), folder / "prometheus.log"
    with output.open("wb") as out:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd="/",  # so that a path relative to anything but the configuration is found out
        )
    prometheus = Prometheus(process, port, output)
    try:
        prometheus.wait_until_ready()
        yield prometheus
    finally:
        prometheus.end()


# The files that are shipped. -------------------------------------------------------------------------------------


def rules() -> str:
    return "".join(file.read_text() for file in sorted((SHIPPED / "rules").iterdir()))


def alerts() -> dict[str, str]:
    """Return the text of each alert."""
    parts = re.split(r"^ +- (?:alert: (\w+)|record: .*|name: .*)$", rules(), flags=re.MULTILINE)
    return {name: text for name, text in zip(parts[1::2], parts[2::2], strict=True) if name}


def section(heading: str) -> str:
    match = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", OPERATIONS.read_text(), re.DOTALL | re.MULTILINE)
    assert match, heading
    return match[1]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Return every query of the dashboard, with the title of its panel."""
    asked = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    marks = [(mark["name"], mark["target"]["expr"]) for mark in dashboard()["annotations"]["list"]]
    return asked + marks


def variables() -> dict[str, dict[str, Any]]:
    return {variable["name"]: variable for variable in dashboard()["templating"]["list"]}
