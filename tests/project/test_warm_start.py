"""What is forked from a template is what a new interpreter would be: arguments, environment, folder, files, end."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import warm_start
from herd_process import PATIENCE_SECONDS, running_server


def run(folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Return the exit code of a command, and what it wrote."""
    out, err = folder / "out", folder / "err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = warm_start.start(list(arguments), environ or {}, folder, stdout=stdout, stderr=stderr)
    return process.wait(PATIENCE_SECONDS), out.read_text(), err.read_text()


def test_a_command_has_its_arguments_folder_environment_and_files(tmp_path: Path) -> None:
    code, out, err = run(tmp_path, "check-config", environ={"PROXYHERD_CONFIG": "here.toml"})
    assert (code, out) == (2, "")
    assert "here.toml" in err
    addresses = 'clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3"'
    (tmp_path / "here.toml").write_text(f"edges = []\n[servers]\nAnn = {{ {addresses} }}\n")
    code, out, err = run(tmp_path, "check-config", environ={"PROXYHERD_CONFIG": "here.toml"})
    assert (code, err) == (0, "")
    assert out.startswith("here.toml: 1 servers, 0 edges\n")


def test_a_server_is_a_process_of_its_own_that_ends_as_it_is_told() -> None:
    with running_server() as clark:
        process = clark.process
        assert isinstance(process, warm_start.ForkedProcess)
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert Path(f"/proc/{clark.pid}/cwd").readlink() == clark.herd.folder
        files = {file.readlink() for file in Path(f"/proc/{clark.pid}/fd").iterdir()}
        assert {clark.stderr_file, clark.log_file, Path(os.devnull)} <= files
        clark.signal(signal.SIGINT)
        assert clark.wait() == 0
        clark.start()
        clark.wait_until_ready()
        clark.kill()
        assert process.poll() == 0
        assert clark.process is not None
        assert clark.process.poll() == -signal.SIGKILL
