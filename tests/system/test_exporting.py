"""Exports of real processes: into a pipe, into what is open already, and beside a server that writes."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from herd_process import herd_of, wait_until
from one_server import enter_folder, write_journal

from proxyherd import cli

LINE = b"AT Ann +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A herd's folder with a journal of its one server."""
    return enter_folder(tmp_path, monkeypatch, [LINE])


def test_a_server_that_rewrites_its_journal_may_run_meanwhile() -> None:
    """Each export has every client that was answered before it began."""
    with herd_of([], "Ann", more="[durability]\nrewrite_bytes = 4096\n") as herd:
        ann = herd["Ann"]
        ann.start()
        ann.wait_until_ready()
        answered = 0
        ends = threading.Event()

        def report() -> None:
            nonlocal answered
            with ann.connect() as connection:
                while not ends.is_set():
                    connection.send(*(b"IAMAT client%d +1+1 5" % (answered + n) for n in range(20)))
                    for _ in range(20):
                        connection.line()
                    answered += 20

        thread = threading.Thread(target=report)
        thread.start()
        try:
            for _ in range(4):
                before = answered
                arguments = ["export", "--config", str(herd.file), "--folder", str(ann.state / "journal")]
                result = CliRunner().invoke(cli.main, arguments)
                assert result.exit_code == 0, result.output
                names = {one["properties"]["client"] for one in json.loads(result.stdout)["features"]}
                assert {f"client{n}" for n in range(before)} <= names
            wait_until(lambda: ann.events("journal_rewritten"), "a rewrite")
        finally:
            ends.set()
            thread.join()


def test_a_reader_that_goes_away_is_no_traceback(folder: Path) -> None:
    write_journal([b"AT Ann +0.000000000 client%d +1+1 5" % n for n in range(5_000)])
    script = f"{sys.executable} -m proxyherd export --format csv | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stdout) == (0, "client,latitude,longitude,time,received_by,difference\n")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("command", "mode"), [("export", 0o640), ("prometheus-targets", 0o644)])
@pytest.mark.parametrize("descriptor", [1, 2])
def test_what_is_appended_to_already_is_appended_to(
    folder: Path, command: str, mode: int, descriptor: int
) -> None:
    """A link such as /dev/stdout is: as root a wrong program would replace that itself."""
    wanted = CliRunner().invoke(cli.main, [command]).stdout
    assert wanted
    Path("out").symlink_to(f"/proc/self/fd/{descriptor}")
    Path("file").write_text("before\n")
    Path("file").chmod(0o600)
    program = [sys.executable, "-m", "proxyherd", command, "--output", "out"]
    shell = f"{shlex.join(program)} {descriptor}>> file"
    subprocess.run(["sh", "-c", shell], capture_output=True, timeout=600, check=True)
    assert Path("file").read_text().startswith(f"before\n{wanted}")
    assert Path("file").stat().st_mode & 0o777 == 0o600 != mode
    done = subprocess.run(program, capture_output=True, text=True, timeout=600, check=True)
    assert (done.stdout, done.stderr)[descriptor - 1].startswith(wanted)
