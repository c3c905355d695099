"""supervisord's file: the repository's is what `proxyherd init` writes for the default herd, and what is written is read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from supervisor.options import ServerOptions  # type: ignore[import-untyped]

from proxyherd.cli.init import default_herd
from proxyherd.config import herd_file
from proxyherd.local import conf

ROOT = Path(__file__).parents[2]
HERE = {"up": "make run", "supervisorctl": ".venv/bin/supervisorctl", "docs": "docs/"}
NAMES = sorted(herd_file.load(ROOT / "deploy/herd.toml").servers)


def test_the_repositorys_file_is_what_is_written_for_the_default_herd_here() -> None:
    program = conf.spell_path(ROOT / ".venv/bin/proxyherd", ROOT)
    assert (
        conf.spell_conf(NAMES, "deploy/herd.toml", program, HERE) == (ROOT / "supervisord.conf").read_text()
    )


def test_the_repositorys_default_herd_is_the_packages() -> None:
    assert default_herd() == (ROOT / "deploy/herd.toml").read_text()


def test_what_is_written_is_read_again() -> None:
    for names in (["Ann"], NAMES):
        text = conf.spell_conf(names, "herd.toml", "/usr/bin/proxyherd", HERE)
        assert (conf.names_in(text), conf.config_in(text)) == (names, "herd.toml")
    redis = (ROOT / "deploy/redis/supervisord.conf").read_text()
    assert (conf.names_in(redis), conf.config_in(redis)) == (NAMES, "deploy/redis/herd.toml")
    assert (conf.names_in("[supervisord]\n"), conf.config_in("[supervisord]\n")) == ([], "")


@pytest.mark.parametrize("program", ["100% ours/bin/proxyherd", "/opt/100% %(x)s/bin/proxyherd"])
def test_supervisord_starts_the_program_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    """It expands what has a % in it."""
    here = tmp_path / "a herd"
    (here / "var/log").mkdir(parents=True)
    (here / "var/run").mkdir()
    monkeypatch.chdir(here)
    (here / "supervisord.conf").write_text(
        conf.spell_conf(["Ann", "Bob"], "herd.toml", conf.spell_path(here / program, here), HERE)
    )
    options = ServerOptions()
    options.realize(["-c", str(here / "supervisord.conf")])
    [group] = options.process_group_configs
    assert [one.name for one in group.process_configs] == ["Ann", "Bob"]
    for one in group.process_configs:
        assert one.command.startswith(f'"{here / program}" serve {one.name} ')


def test_no_word_is_left_to_be_put_in() -> None:
    assert not re.search(r"\$\w", conf.spell_conf(NAMES, "herd.toml", "/usr/bin/proxyherd", HERE))
