"""`--output` of the commands that have one: only a regular file is replaced; a link stays one, a pipe is written into."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from one_server import enter_folder

from proxyherd import cli

COMMANDS = pytest.mark.parametrize(("command", "mode"), [("export", 0o640), ("prometheus-targets", 0o644)])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A herd's folder with a journal of its one server."""
    line = b"AT Ann +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503"
    return enter_folder(tmp_path, monkeypatch, [line])


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments)


def said(command: str) -> str:
    """Return what it writes to stdout."""
    result = run(command)
    assert result.exit_code == 0, result.output
    assert result.stdout
    return result.stdout


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@COMMANDS
def test_a_pipe_is_written_into_and_stays_one(folder: Path, command: str, mode: int) -> None:
    wanted = said(command)
    os.mkfifo("out", mode=0o600)
    reader = os.open("out", os.O_RDONLY | os.O_NONBLOCK)  # the writer would wait for one
    try:
        result = run(command, "--output", "out")
        assert (result.exit_code, result.stdout) == (0, "")
        assert Path("out").is_fifo()
        assert os.read(reader, 65_536).decode() == wanted
    finally:
        os.close(reader)
    assert Path("out").stat().st_mode & 0o777 == 0o600 != mode
    assert names(folder) == ["deploy", "out", "var"]


@COMMANDS
@pytest.mark.parametrize("is_there", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(
    folder: Path, command: str, mode: int, is_there: bool
) -> None:
    wanted = said(command)
    Path("elsewhere").mkdir()
    real = Path("elsewhere/real")
    Path("between").symlink_to("elsewhere/real")
    Path("out").symlink_to("between")
    if is_there:
        real.write_text("before")
        real.chmod(0o600)
        reader = real.open()
    assert run(command, "--output", "out").exit_code == 0
    assert (Path("out").readlink(), Path("between").readlink()) == (Path("between"), real)
    assert real.read_text() == wanted
    assert real.stat().st_mode & 0o777 == mode
    if is_there:
        with reader:
            assert reader.read() == "before"  # all at once
    assert names(Path("elsewhere")) == ["real"]
    assert names(folder) == ["between", "deploy", "elsewhere", "out", "var"]


@COMMANDS
def test_what_cannot_be_written_into_is_an_error_and_left_as_it_is(
    folder: Path, command: str, mode: int
) -> None:
    Path("loop").symlink_to("loop")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("out")
        for name, reason in (
            ("out", "No such device or address"),
            ("loop", "Too many levels of symbolic links"),
        ):
            result = run(command, "--output", name)
            assert (result.exit_code, result.stdout) == (2, "")
            assert f"{name}: {reason}; " in result.stderr
        assert Path("out").is_socket()
    assert Path("loop").is_symlink()
    assert names(folder) == ["deploy", "loop", "out", "var"]
    assert mode
