"""Commands whose reader has left (`| head`): they end silently, with the exit code that they would have had."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from one_server import enter_folder

from proxyherd import cli
from proxyherd.cli.pipes import PipeWatch, while_read


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A herd's folder, with a journal and a log of its one server that are longer than what a stream keeps."""
    line = b"AT Ann +0.263873386 kiwi%d +34.068930-118.445127 1621464827.959498503"
    folder = enter_folder(tmp_path, monkeypatch, [line % number for number in range(1_000)])
    (folder / "var/log").mkdir(parents=True)
    event = '{"timestamp":"2026-11-24T06:28:50.836745Z","level":"info","server":"Ann","event":"ready"}\n'
    (folder / "var/log/Ann.log").write_text(event * 1_000)
    return folder


def exit_code_unread(command: str) -> object:
    """Run a command whose stdout is a pipe without a reader, and return its exit code."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        assert PipeWatch().is_alone
        with pytest.raises(SystemExit) as ended:
            cli.main(command.split(), prog_name="proxyherd")
    return ended.value.code


COMMANDS = [
    "journal dump Ann",
    "journal dump Ann --raw",
    "journal verify Ann",
    "export",
    "export --format csv",
    "export --output /dev/stdout",
    "tail -n 1000",
    "tail --json",
    "tail --follow",
    "status",
    "status --json",
    "status --watch",
    "check-config",
    "prometheus-targets",
    "grade --print-rubric",
    "--help",
    "export --help",
]
ENDLESS = {"tail --follow": 0, "status --watch": 1}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_ends_silently_and_as_usual(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    usual = ENDLESS.get(command)
    if usual is None:
        usual = CliRunner().invoke(cli.main, command.split()).exit_code
    assert exit_code_unread(command) == usual
    told = capsys.readouterr().err
    assert "pipe" not in told.lower()
    assert told == "" or command.startswith(("export", "status"))  # their counts and reasons


def test_what_is_damaged_still_decides_the_exit_code(folder: Path) -> None:
    [segment] = (folder / "var/lib/Ann/journal").iterdir()
    data = bytearray(segment.read_bytes())
    data[40] ^= 1
    segment.write_bytes(data)
    assert exit_code_unread("journal verify Ann") == 1
    assert exit_code_unread("export") == 1


def test_another_pipe_that_breaks_is_an_error_as_ever() -> None:
    one, other = socket.socketpair()
    other.close()
    with one, pytest.raises(BrokenPipeError), while_read():
        one.sendall(b"x")


@pytest.mark.parametrize("command", [one for one in COMMANDS if one != "export --output /dev/stdout"])
def test_a_full_disk_behind_stdout_is_told_in_one_line(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Path("/dev/full").open("w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended:
            cli.main(command.split(), prog_name="proxyherd")
    *_, told = capsys.readouterr().err.splitlines()
    assert told.startswith("Error: stdout: No space left on device")
    assert ended.value.code == 2


@pytest.mark.parametrize("command", [one for one in COMMANDS if one not in ENDLESS])
def test_a_closed_stdout_takes_nothing(command: str) -> None:
    usual = CliRunner().invoke(cli.main, command.split()).exit_code
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        with pytest.raises(SystemExit) as ended:
            cli.main(command.split(), prog_name="proxyherd")
        sys.stdout.close()
    assert ended.value.code == usual
