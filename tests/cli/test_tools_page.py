"""The page of the tools tells the truth: its examples are run, on logs and a journal made of what they show."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxyherd import cli
from proxyherd.engines.herd import journal

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/tools.md").read_text()

_FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\[.*?\]|\S+)')


def blocks() -> list[tuple[str, str]]:
    """The commands of the page's sessions, each with what it printed."""
    sessions = re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    parts = [part for session in sessions for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def logged(line: str) -> tuple[str, str]:
    """Return whose log a shown line comes from, and the line that stands there."""
    day, time, server, event, *_ = line.split()
    level = re.search(r"\[(warning|error)\] ", line)
    fields: dict[str, object] = {}
    for name, value in _FIELD.findall(line):
        plain = re.fullmatch(r"[A-Za-z].*|[0-9.]+:[0-9]+", value)
        fields[name] = value if plain else json.loads(value)
    if event == "malformed":
        return server, str(fields["line"])
    head = {
        "timestamp": f"{day}T{time}Z",
        "level": level[1] if level else "info",
        "server": server,
        "event": event,
    }
    return server, json.dumps({**head, **fields}, separators=(",", ":"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The default herd's folder, with the logs and the journal that the page shows."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PROXYHERD_CONFIG", "LOGS_DIRECTORY"):
        monkeypatch.delenv(variable, raising=False)
    for below in ("deploy", "var/log", "var/lib/Clark/journal"):
        (tmp_path / below).mkdir(parents=True)
    (tmp_path / "deploy/herd.toml").write_text((ROOT / "deploy/herd.toml").read_text())
    for name in ("Bailey", "Bona", "Campbell", "Clark", "Jaquez"):
        (tmp_path / f"var/log/{name}.log").touch()
    for command, printed in blocks():
        if command.startswith("proxyherd tail") and "--json" not in command:
            for server, line in map(logged, printed.splitlines()):
                with (tmp_path / f"var/log/{server}.log").open("a") as log:
                    log.write(f"{line}\n")
    answer = re.search(r'answer="(AT [^"]+)"', PAGE)
    assert answer is not None
    record = journal.record(answer[1].encode())
    (tmp_path / "var/lib/Clark/journal/000000000001.segment").write_bytes(record)
    return tmp_path


def test_every_session_prints_what_the_page_shows(folder: Path) -> None:
    assert len(blocks()) == 5
    for command, printed in blocks():
        program, *arguments = shlex.split(command)
        assert program == "proxyherd"
        result = CliRunner().invoke(cli.main, arguments)
        assert (result.exit_code, result.stdout) == (0, printed), command


def test_the_columns_of_the_live_table_are_on_the_page() -> None:
    from proxyherd.cli.status import _WATCHED  # noqa: PLC0415 - what the table is made of

    rows = re.findall(r"^\| (`[^|]+) \| ", PAGE.partition("| column |")[2].partition("\n\n")[0], re.MULTILINE)
    told = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert ["server", *told] == [name.strip() for name in _WATCHED]


def test_every_option_of_these_commands_is_on_the_page() -> None:
    for name in ("iamat", "whatsat", "status", "tail", "export", "follow", "forget", "near"):
        heading = "iamat and whatsat" if name in ("iamat", "whatsat") else name
        section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        for parameter in importlib.import_module(f"proxyherd.cli.{name}").__dict__[name].params:
            long = [option for option in parameter.opts if option.startswith("--")]
            assert all(option in section or option == "--config" for option in long), (name, long)
