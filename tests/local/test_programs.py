"""Where the programs are, and how they are typed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from proxyherd.local import programs


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with programs, and the working directory, in which it is. The Python that runs has none beside it."""
    folder = tmp_path / "venv/bin"
    folder.mkdir(parents=True)
    for name in ("proxyherd", "supervisord"):
        (folder / name).touch(mode=0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(folder / "proxyherd"), "up"])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python3"))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    return folder


def test_they_are_beside_the_one_that_runs_and_typed_by_their_path(bin_folder: Path) -> None:
    assert programs.locate("supervisord") == bin_folder / "supervisord"
    assert programs.typed_as("supervisord") == "venv/bin/supervisord"


def test_those_on_the_path_are_typed_by_name(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bin_folder))
    assert programs.typed_as("supervisord") == "supervisord"


def test_another_program_of_that_name_on_the_path_is_not_meant(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/supervisord").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "other"))
    assert programs.typed_as("supervisord") == "venv/bin/supervisord"


def test_a_link_leads_to_those_that_were_installed_with_it(
    bin_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pipx makes them."""
    (tmp_path / "link").mkdir()
    (tmp_path / "link/proxyherd").symlink_to(bin_folder / "proxyherd")
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "link/proxyherd"), "up"])
    assert programs.locate("supervisord") == bin_folder / "supervisord"
    assert programs.locate("proxyherd") == tmp_path / "link/proxyherd"


def test_what_is_not_installed_is_told_with_the_remedy(
    bin_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        programs.locate("supervisorctl")
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("proxyherd up: there is no supervisorctl beside ")
