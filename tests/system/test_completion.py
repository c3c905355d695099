"""`proxyherd completion`: what a shell completes, in a real bash."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxyherd import cli

ROOT = Path(__file__).parents[2]

# As bash does on TAB: what was typed up to the cursor as words, then the function that `complete` was told.
PRESS_TAB = """
set -eu
eval "$({proxyherd} completion bash)"
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
complete -p proxyherd | grep -q -- '-F _proxyherd_completion '
_proxyherd_completion {proxyherd}
printf '%s\\n' "${{COMPREPLY[@]+"${{COMPREPLY[@]}}"}}"
"""


PROXYHERD = Path(sys.executable).with_name("proxyherd")
"""As installed: the completion asks the program, by its name."""


def press_tab(*words: str, folder: Path = ROOT) -> list[str]:
    """Return what bash would complete the last word to."""
    script = PRESS_TAB.format(proxyherd=PROXYHERD, words=shlex.join(["proxyherd", *words]))
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, timeout=600, check=False, cwd=folder
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["serve", "Cl"], ["Clark"]),
        (["serve", "B"], ["Bailey", "Bona"]),
        (["serve", "cl"], []),
        (["iamat", "--server", "Ja"], ["Jaquez"]),
        (["tail", "Clark", "Ba"], ["Bailey"]),
        (["tail", "--server", "Ba"], ["Bailey"]),
        (["export", "--server", "Cam"], ["Campbell"]),
        (["journal", "verify", "Cl"], ["Clark"]),
        (["serve", "--config", "deploy/topologies/2021.toml", "Ri"], ["Riley"]),
        (["--config", "deploy/topologies/2021.toml", "serve", "Ri"], ["Riley"]),
        (["--config", "deploy/herd.toml", "serve", "Ri"], []),
        (["sta"], ["status"]),
        (["completion", "f"], ["fish"]),
        (["status", "--wa"], ["--wait", "--watch"]),
    ],
)
def test_a_tab_completes_commands_options_and_servers(words: list[str], completed: list[str]) -> None:
    assert press_tab(*words) == completed


@pytest.mark.parametrize("file", [None, "no toml"])
def test_without_a_herds_file_that_can_be_read_a_tab_says_nothing(tmp_path: Path, file: str | None) -> None:
    if file is not None:
        (tmp_path / "deploy").mkdir()
        (tmp_path / "deploy/herd.toml").write_text(file)
    assert press_tab("serve", "Cl", folder=tmp_path) == []
    assert press_tab("--config", "nowhere.toml", "serve", "Cl", folder=tmp_path) == []


def test_each_shell_gets_its_own() -> None:
    told = {shell: CliRunner().invoke(cli.main, ["completion", shell]) for shell in ("bash", "zsh", "fish")}
    assert {one.exit_code for one in told.values()} == {0}
    assert told["zsh"].stdout.startswith("#compdef proxyherd")
    assert "complete --no-files --command proxyherd" in told["fish"].stdout
    assert CliRunner().invoke(cli.main, ["completion", "tcsh"]).exit_code == 2
