"""The documentation tells the truth: what can be compared with the program is."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from proxyherd import config
from proxyherd.cli import main
from proxyherd.metrics import Metrics

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
LABELS = {" peer link", " table"}
"""What begins with `proxyherd` and is no command: labels in hashes."""

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def code(text: str) -> str:
    """What stands in code, inline or fenced: prose may say `make` and `proxyherd` as words."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return "\n".join([*fenced, *inline])


def page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- metrics


def sample_name(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def documented_metrics() -> dict[str, tuple[str, list[str]]]:
    rows = re.findall(
        r"^\| `(proxyherd_\w+)` \| (\w+) \|([^|]*)\|", (DOCS / "metrics.md").read_text(), re.MULTILINE
    )
    return {name: (kind, re.findall(r"`(\w+)`", labels)) for name, kind, labels in rows}


def test_every_metric_is_documented_and_no_other() -> None:
    there = {sample_name(family): family for family in Metrics().registry.collect()}
    ours = {
        name: {"info": "gauge"}.get(family.type, family.type)
        for name, family in there.items()
        if name.startswith("proxyherd_")
    }
    assert {name: kind for name, (kind, _) in documented_metrics().items()} == ours


def test_every_metric_is_documented_with_its_labels() -> None:
    documented = documented_metrics()
    checked = 0
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            [family] = metric.describe()
            assert documented[sample_name(family)][1] == list(metric._labelnames)
            checked += 1
    assert checked > 20


def test_queries_name_metrics_that_exist() -> None:
    queries = re.findall(r"```promql\n(.*?)```", (DOCS / "metrics.md").read_text(), re.DOTALL)
    named = {
        re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"proxyherd_\w+", "".join(queries))
    }
    assert named
    assert named <= documented_metrics().keys()


# --- log events


class Events(ast.NodeVisitor):
    """Finds the names of log events in a module: first arguments of a logger's methods, and arguments for
    parameters that are called `event`.
    """

    def __init__(self, takers: dict[str, int]) -> None:
        self.takers = takers
        self.found: set[str] = set()
        self.unclear: list[str] = []
        self.functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        called = last_name(node.func)
        if is_log_method(node.func):
            self._event(node.args[0])
        elif called == "partial" and is_log_method(node.args[0]):
            self._event(node.args[1])
        elif called in self.takers:
            self._event(node.args[self.takers[called]])

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.functions.append(node)
        self.generic_visit(node)
        self.functions.pop()

    def _event(self, value: ast.expr) -> None:
        match value:
            case ast.Constant(value=str(name)):
                self.found.add(name)
            case ast.IfExp(body=body, orelse=orelse):
                self._event(body)
                self._event(orelse)
            case ast.Name(id="event") if "event" in parameters(self.functions[-1]):
                pass  # told by whoever calls it
            case ast.Name(id=name) if assigned := assignments(self.functions[-1], name):
                for one in assigned:
                    self._event(one)
            case _:
                self.unclear.append(ast.unparse(value))


def last_name(function: ast.expr | None) -> str:
    match function:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
    return ""


def is_log_method(function: ast.expr) -> bool:
    """Whether this is `log.info`, `self._log.error` and the like, or `self._info`, which is one of them bound."""
    match function:
        case ast.Attribute(value=owner, attr=method) if method in LEVELS:
            return last_name(owner) in {"log", "_log"}
    return last_name(function) == "_info"


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [argument.arg for argument in (*function.args.posonlyargs, *function.args.args)]


def assignments(function: ast.AST, name: str) -> list[ast.expr]:
    return [
        node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and [last_name(target) for target in node.targets] == [name]
    ]


def takers_of(module: ast.Module) -> dict[str, int]:
    """The functions that are handed an event's name, and as which argument. `event: Event` is something else."""
    return {
        node.name: number - (node.args.args[0].arg == "self")
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef)
        for number, argument in enumerate(node.args.args)
        if argument.arg == "event" and last_name(argument.annotation) == "str"
    }


def events() -> set[str]:
    modules = [ast.parse(file.read_text()) for file in sorted((ROOT / "proxyherd").rglob("*.py"))]
    takers = {name: number for module in modules for name, number in takers_of(module).items()}
    found: set[str] = set()
    for module in modules:
        visitor = Events(takers)
        visitor.visit(module)
        assert not visitor.unclear, "this test cannot tell which events these are"
        found |= visitor.found
    return found


def sections() -> list[tuple[str, str]]:
    parts = re.split(r"^### `(\w+)`$", (DOCS / "logs.md").read_text(), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_every_log_event_is_documented_and_no_other() -> None:
    assert {name for name, _ in sections()} == events()


@pytest.mark.parametrize(("event", "section"), sections(), ids=[name for name, _ in sections()])
def test_every_log_event_has_an_example_of_whose_fields_it_tells(event: str, section: str) -> None:
    examples = [json.loads(line) for line in re.findall(r"^```json\n(.*)\n```$", section, re.MULTILINE)]
    assert examples
    for example in examples:
        assert list(example)[:4] == ["timestamp", "level", "server", "event"]
        assert example["event"] == event
        assert example["level"] in LEVELS
    told = re.sub(r"^```.*?^```", "", section, flags=re.DOTALL | re.MULTILINE)
    if "As above" not in told:
        assert {name for example in examples for name in list(example)[4:]} <= set(
            re.findall(r"`(\w+)`", told)
        )


# --- configuration, links, commands


def test_configuration_is_current() -> None:
    subprocess.run([sys.executable, DOCS / "make_configuration.py", "--check"], check=True, cwd=ROOT)


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_every_link_points_to_something_that_exists(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert target.resolve().is_relative_to(ROOT), link
        assert not anchor or anchor in headings(target), link


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_every_page_is_reached_from_the_readme(path: Path) -> None:
    assert path.name == "README.md" or f"({page(path)})" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_every_make_target_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?<![\w/.-])make ([a-z-]+)", code(path.read_text()))) <= targets


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_every_command_exists(path: Path) -> None:
    for words in re.findall(r"(?<![\w@])proxyherd((?: [a-z][a-z-]*)+)", code(path.read_text())):
        if words in LABELS:
            continue
        command: click.Command = main
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            assert word in command.commands, f"proxyherd{words}"
            command = command.commands[word]
        assert not isinstance(command, click.Group), f"proxyherd{words} is a group"


def test_the_readme_has_the_ports_and_neighbours_of_the_default_herd() -> None:
    rows = re.findall(
        r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| ([\w, ]+) \|$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    herd = config.load(ROOT / "deploy/herd.toml")
    assert [(name, *map(int, ports), set(neighbours.split(", "))) for name, *ports, neighbours in rows] == [
        (one.name, one.clients[0].port, one.peers[0].port, one.admin[0].port, set(one.neighbours))
        for one in herd.servers.values()
    ]
