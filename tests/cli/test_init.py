"""`proxyherd init` in folders that are empty, or have a herd, or cannot be written."""

from __future__ import annotations

import os
import re
import resource
import stat
import sys
from collections.abc import Iterator
from email.message import Message
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from herd_process import short_folder

from proxyherd.cli import main
from proxyherd.config import herd_file
from proxyherd.local import conf

TRIO = """edges = [["Ann", "Bob"]]
[servers]
Ann = { clients = "127.0.0.1:11000", peers = "127.0.0.1:11100", admin = "127.0.0.1:11200" }
Bob = { clients = "127.0.0.1:11001", peers = "127.0.0.1:11101", admin = "127.0.0.1:11201" }
"""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory whose path has room for a socket."""
    with short_folder() as folder:
        monkeypatch.chdir(folder)
        yield folder


URL = "https://example.org/pages"


def init(*words: str) -> Result:
    return CliRunner().invoke(main, ["init", *words])


def test_an_empty_folder_gets_the_default_herd_with_pages_that_can_be_found(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Message()
    told["Project-URL"] = f"Documentation, {URL}"
    monkeypatch.setattr(metadata, "metadata", lambda _: told)
    done = init()
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.output.splitlines()] == ["Wrote", "Wrote", "Next:"]
    assert set(herd_file.load(here / "herd.toml").servers) == {
        "Bailey",
        "Bona",
        "Campbell",
        "Clark",
        "Jaquez",
    }
    for file in ("herd.toml", "supervisord.conf"):
        assert " docs/" not in (here / file).read_text()
    assert f" {URL}/configuration.md" in (here / "herd.toml").read_text()
    assert f" {URL}/operations.md" in (here / "supervisord.conf").read_text()


def test_a_herd_of_your_own_gets_what_runs_its_servers(here: Path) -> None:
    (here / "three").mkdir()
    (here / "three/herd.toml").write_text(TRIO)
    done = init("three")
    assert done.output.startswith("Kept herd.toml\nWrote supervisord.conf: Ann, Bob\nNext: cd three && ")
    assert (here / "three/herd.toml").read_text() == TRIO
    assert conf.names_in((here / "three/supervisord.conf").read_text()) == ["Ann", "Bob"]


def test_a_folder_with_a_space_can_be_typed_as_it_is_told(here: Path) -> None:
    assert "\nNext: cd 'my herd' && " in init("my herd").output


def test_what_is_there_is_kept_and_told_if_it_does_not_fit(here: Path) -> None:
    assert init().exit_code == 0
    before = (here / "supervisord.conf").read_text()
    done = init()
    assert done.output.splitlines()[:2] == ["Kept herd.toml", "Kept supervisord.conf"]
    (here / "herd.toml").write_text(TRIO)
    done = init()
    assert (
        "which has Bailey, Bona, Campbell, Clark, Jaquez; the herd's file has Ann, Bob\nNext: rm supervisord.conf && "
        in done.output
    )
    assert re.search(r"Next: rm supervisord\.conf && \S+ init && \S+ up\n$", done.output)
    assert (done.exit_code, (here / "supervisord.conf").read_text()) == (0, before)


def test_a_checkout_has_its_herd_elsewhere(here: Path) -> None:
    (here / "deploy").mkdir()
    (here / "deploy/herd.toml").write_text(TRIO)
    assert init().exit_code == 0
    assert not (here / "herd.toml").exists()
    assert conf.config_in((here / "supervisord.conf").read_text()) == "deploy/herd.toml"


def test_a_mistake_in_the_herds_file_is_told_and_nothing_is_written(here: Path) -> None:
    (here / "herd.toml").write_text("edges = 3\n")
    done = init()
    assert done.exit_code == 2
    assert "Error: herd.toml: key edges: " in done.output
    assert not (here / "supervisord.conf").exists()


def test_a_folder_that_cannot_be_is_named(here: Path) -> None:
    (here / "file").touch()
    assert init("file/below").exit_code == 1
    assert init("x" * 120).exit_code == 1  # too long for supervisord's socket


def test_what_is_written_can_be_read_by_its_owner_whatever_is_in_it(here: Path) -> None:
    assert init().exit_code == 0
    assert stat.S_IMODE((here / "herd.toml").stat().st_mode) & 0o600 == 0o600


def test_a_file_that_cannot_be_written_whole_is_not_there(here: Path) -> None:
    """What is there is kept next time: half a file would be, too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (2_000, before[1])
    )  # as a full disk; the herd's file is shorter
    try:
        done = init()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.exit_code == 1
    assert "Error: supervisord.conf: File too large\n" in done.output
    assert [file.name for file in here.iterdir()] == ["herd.toml"]
    assert "Wrote supervisord.conf" in init().output


def test_both_files_are_written_though_nobody_reads_what_is_told(here: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as ended:
            main(["init"], prog_name="proxyherd")
    assert ended.value.code == 0
    assert {file.name for file in here.iterdir()} == {"herd.toml", "supervisord.conf"}


def test_a_file_of_supervisord_that_is_no_text_is_named(here: Path) -> None:
    (here / "supervisord.conf").write_bytes(b"; f\xfcr uns\n")
    for command in ("init", "up"):
        done = CliRunner().invoke(main, [command])
        assert done.exit_code == (1 if command == "init" else 2)
        assert "supervisord.conf: is not UTF-8 at byte 3\n" in done.output
