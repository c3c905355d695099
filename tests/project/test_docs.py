"""The documentation tells the truth: what can be compared with the program is."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import get_args

import click
import pytest
from _pytest.mark.expression import Expression
from documented import kinds
from floors import modules
from observed import metrics_of_a_server
from prometheus_client import Metric

from proxyherd import __version__
from proxyherd.cli import main
from proxyherd.config import herd_file
from proxyherd.core.area_searches import SHARE
from proxyherd.core.spatial.polygons import MOST_POSITIONS
from proxyherd.core.spatial.search import MOST_FOUND
from proxyherd.core.spatial.searches import MOST_SEARCHES
from proxyherd.places import STATES, CallOutcome, Spared
from proxyherd.telemetry.commands import COMMANDS
from proxyherd.telemetry.event_names import EVENT_NAMES
from proxyherd.web import areas, bodies, documents, frames, ids, ops, reports
from proxyherd.web.problems import KINDS
from proxyherd.web.trackers.apps import APPS
from proxyherd.web.trackers.points import Reason

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
METRICS = metrics_of_a_server()
WEB_PAGE = (DOCS / "web.md").read_text()
METRICS_PAGE = (DOCS / "metrics.md").read_text()
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
NO_COMMANDS = {" peer link", " table"}
"""What begins with `proxyherd` and is no command: labels in hashes."""

LEVELS = {"debug", "info", "warning", "error", "critical", "exception"}


def code(text: str) -> str:
    """What stands in code, inline or fenced: prose may say `make` and `proxyherd` as words."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return "\n".join([*fenced, *inline])


def page(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- configuration and metrics


GENERATED = {"make_configuration.py": "configuration.md", "make_metrics.py": "metrics.md"}


@pytest.mark.parametrize("script", GENERATED)
def test_a_generated_page_is_current(script: str) -> None:
    subprocess.run([sys.executable, DOCS / script, "--check"], check=True, cwd=ROOT)


@pytest.mark.parametrize(("script", "name"), GENERATED.items())
def test_a_page_that_is_not_current_is_told_and_written_anew(tmp_path: Path, script: str, name: str) -> None:
    copy, page = shutil.copy(DOCS / script, tmp_path), tmp_path / name
    current = (DOCS / name).read_text()
    page.write_text(current.replace("| ", "|  ", 1))
    stale = subprocess.run([sys.executable, copy, "--check"], capture_output=True, text=True, check=False)
    assert (stale.returncode, stale.stderr) == (1, f"docs/{name} is not current: run docs/{script}\n")
    subprocess.run([sys.executable, copy], check=True)
    assert page.read_text() == current


def sample_name(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def metrics_of_ours() -> set[str]:
    return {name for one in METRICS.registry.collect() if (name := sample_name(one)).startswith("proxyherd_")}


def test_every_metric_is_on_the_page_and_no_other() -> None:
    rows = re.findall(r"^\| `(proxyherd_\w+)` \| (?:counter|gauge|histogram) \|", METRICS_PAGE, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == metrics_of_ours()


def test_queries_name_metrics_that_exist() -> None:
    queries = re.findall(r"```promql\n(.*?)```", METRICS_PAGE, re.DOTALL)
    named = {
        re.sub(r"_(bucket|count|sum)$", "", name) for name in re.findall(r"proxyherd_\w+", "".join(queries))
    }
    assert named
    assert named <= metrics_of_ours()


def values(metric: str, label: str) -> set[str]:
    [found] = [values for one, name, values in METRICS.labels if (one, name) == (metric, label)]
    return set(found)


def test_the_values_of_labels_of_places_are_those_of_the_program() -> None:
    assert values("proxyherd_places_calls_total", "outcome") == set(get_args(CallOutcome))
    assert values("proxyherd_places_spared_total", "why") == set(get_args(Spared))
    assert values("proxyherd_places_breaker_state", "state") == set(STATES)


JUDGES = ("proxyherd/core/rules.py", "proxyherd/core/decider.py")


def test_the_outcomes_of_commands_are_those_of_the_program() -> None:
    """Where the core makes a reply, kind and outcome stand as they are; `left` and `answered` come later."""
    code = [*chain.from_iterable(ast.walk(ast.parse((ROOT / file).read_text())) for file in JUDGES)]
    made = [call.args[:2] for call in code if isinstance(call, ast.Call) and last_name(call.func) == "Reply"]
    pairs = {tuple(arg.value for arg in args if isinstance(arg, ast.Constant)) for args in made}
    told = {(command, outcome) for command, outcome, _ in COMMANDS}
    assert ("whatsat", "waiting") in pairs
    assert {pair for pair in pairs if len(pair) == 2} - {("whatsat", "waiting")} < told
    # What comes of a question, and of what there is no room for, is written into its reply.
    come = {
        assigned.value.elts[0].value
        for assigned in code
        if isinstance(assigned, ast.Assign) and ".outcome" in ast.unparse(assigned.targets[0])
        if isinstance(assigned.value, ast.Tuple) and isinstance(assigned.value.elts[0], ast.Constant)
    }
    assert come == {"answered", "found", "unknown", "refused"}
    assert {("whatsat", "unknown"), ("whatsat", "refused"), ("iamat", "refused")} < told
    assert {("whatsat", "answered"), ("whatsat", "left"), ("whatsat", "refused")} < told


def test_every_label_with_few_values_has_them_on_the_page() -> None:
    """But names of neighbours, which the herd's file has, and those of commands, which have a table of their own."""
    told = {(metric, label) for metric, label, _ in METRICS.labels}
    assert told <= {(sample_name(family), label) for family, labels in labelled() for label in labels}
    without = {label for _, labels in labelled() for label in labels} - {label for _, label in told}
    assert without == {"neighbour", "command"}


def labelled() -> Iterator[tuple[Metric, tuple[str, ...]]]:
    for metric in METRICS.all:
        [family] = metric.describe()
        yield family, tuple(metric._labelnames)


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
    trees = [module.tree for module in modules(ROOT / "proxyherd")]
    takers = {name: number for tree in trees for name, number in takers_of(tree).items()}
    found: set[str] = set()
    for tree in trees:
        visitor = Events(takers)
        visitor.visit(tree)
        assert not visitor.unclear, "this test cannot tell which events these are"
        found |= visitor.found
    return found | {kind.name for kind in kinds()}


def sections() -> list[tuple[str, str]]:
    parts = re.split(r"^### `(\w+)`$", (DOCS / "logs.md").read_text(), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_every_log_event_is_documented_and_no_other() -> None:
    told = events()
    assert {name for name, _ in sections()} == told
    assert {*EVENT_NAMES} == told


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


# --- links, commands


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def headings(path: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_every_link_points_to_something_that_exists(path: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        assert not re.search(r"\s", link), f"a link ends where its line does: {link!r}"
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


def test_the_wheels_that_pages_name_are_of_this_version() -> None:
    wheels = re.findall(r"proxyherd-([\w.]+)-py3-none-any", "".join(path.read_text() for path in PAGES))
    assert {*wheels} == {__version__}


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_every_make_target_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?<![\w/.-])make ([a-z-]+)", code(path.read_text()))) <= targets


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_every_test_that_a_page_names_exists(path: Path) -> None:
    for command in re.findall(r"`[^`]*pytest ([^`]+)`", path.read_text()):
        words = shlex.split(command)
        files = [ROOT / word for word in words if word.startswith("tests/")]
        assert all(file.is_file() for file in files), command
        if "-k" in words:
            chosen = Expression.compile(words[words.index("-k") + 1])
            texts = [f"{file.name} {name}".lower() for file in files for name in _test_names(file)]
            assert any(chosen.evaluate(partial(_is_in, text)) for text in texts), command


def _is_in(text: str, word: str, /, **_: object) -> bool:
    """Judge a word of `-k` as pytest does."""
    return word.lower() in text


@cache
def _test_names(file: Path) -> list[str]:
    """Return the names of a file's tests, each with the texts of its cases, of which pytest makes their names."""
    return [
        " ".join([node.name, *map(ast.unparse, node.decorator_list)])
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
    ]


@pytest.mark.parametrize("path", PAGES, ids=page)
def test_every_command_exists(path: Path) -> None:
    for words in re.findall(r"(?<![\w@])proxyherd((?: [a-z][a-z-]*)+)", code(path.read_text())):
        if words in NO_COMMANDS:
            continue
        command: click.Command = main
        for word in words.split():
            if not isinstance(command, click.Group):
                break
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"proxyherd{words}"
            command = found
        assert not isinstance(command, click.Group), f"proxyherd{words} is a group"


def test_the_readme_has_the_ports_and_neighbours_of_the_default_herd() -> None:
    rows = re.findall(
        r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([\w, ]+) \|$",
        (ROOT / "README.md").read_text(),
        re.MULTILINE,
    )
    herd = herd_file.load(ROOT / "deploy/herd.toml")
    assert [(name, *map(int, ports), set(neighbours.split(", "))) for name, *ports, neighbours in rows] == [
        (one.name, *(some[0].port for some in one.addresses.values()), set(one.neighbours))
        for one in herd.servers.values()
    ]


# --- the web port


def test_the_problems_are_on_the_page_of_the_web_port() -> None:
    rows = re.findall(r"^\| `(/v1/#[\w-]+)` \| (\d+) \|", WEB_PAGE, re.MULTILINE)
    assert [(type_, int(status)) for type_, status in rows] == [(kind.type, kind.status) for kind in KINDS]


def test_the_codes_of_a_websocket_s_end_are_on_the_page() -> None:
    """But 1005, which nobody sends; and with 1006, which a client sees where no close frame came."""
    told = {
        int(code)
        for row in re.findall(r"^\| ([\d, ]+) \|", WEB_PAGE, re.MULTILINE)
        for code in row.split(",")
    }
    assert told == {*map(int, frames.Code)} - {frames.Code.NO_CODE} | {1006}


@pytest.mark.parametrize(
    ("limit", "value"),
    [
        ("body", f"{bodies.BODY_BYTES >> 20} MiB, also when it is unpacked"),
        ("packed body", f"{bodies.PACKED_BYTES >> 10} KiB"),
        ("reports in a batch", f"{reports.MOST_REPORTS:,}"),
        ("lines of an NDJSON body", f"{reports.MOST_LINES:,}, with blank ones"),
        ("values of a batch, together", f"{bodies.VALUES_BYTES >> 10} KiB"),
        ("commas in a batch", f"{reports.MOST_BATCH_COMMAS:,}"),
        ("commas in GeoJSON", f"{areas.MOST_AREA_COMMAS:,}"),
        ("positions of an area", f"{MOST_POSITIONS:,}"),
        ("clients in an answer about an area", f"{MOST_FOUND:,}; `next` brings more"),
        ("questions about areas at once, of one server", f"{MOST_SEARCHES}"),
        ("questions about areas at once, of one address, or of one subject of tokens", f"{SHARE}"),
        ("commas in another document", f"{documents.MOST_COMMAS:,}"),
        ("backslashes and percent signs in a document", f"{documents.MOST_ESCAPES:,}"),
        ("a name", f"{ids.NAME_BYTES:,} bytes"),
        ("message of a WebSocket", f"{ops.MESSAGE_BYTES >> 10} KiB"),
    ],
)
def test_the_limits_of_the_web_port_are_those_of_the_program(limit: str, value: str) -> None:
    assert f"| {limit} | {value} |" in WEB_PAGE


def test_what_is_consumed_is_on_the_page_of_phones_and_every_app_has_a_section() -> None:
    page = (DOCS / "phones.md").read_text()
    assert re.findall(r"^\| `(\w+)` \| [^|]+ \|$", page, re.MULTILINE) == list(get_args(Reason))
    for app in APPS:
        assert f"`/{app.name}`" in page
        assert f"https://herd.example/3f9c0d5e/{app.name}" in page


# --- sessions


def test_what_the_readme_and_the_tutorial_report_does_not_depend_on_the_order() -> None:
    """Of each client there is one report: the herd keeps the latest, so a second one would change later answers."""
    reported = dict[str, set[tuple[str, ...]]]()
    for name in ("README.md", "docs/tutorial.md"):
        for line in re.findall(r"\b(?:IAMAT|proxyherd iamat) ([^`\n|\"]+)", (ROOT / name).read_text()):
            client, location, *more = line.split()[:4]
            time = next((word for word in more if word[0].isdigit()), "now")
            reported.setdefault(client, set()).add((location, time))
    assert {"kiwi.cs.ucla.edu", "opera.house"} <= reported.keys()
    assert {client: found for client, found in reported.items() if len(found) > 1} == {}
