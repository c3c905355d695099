"""What is told of a folder in which a herd cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from proxyherd.local import folder
from proxyherd.local.witnesses import look


@pytest.mark.parametrize(
    ("there", "remedy"), [(False, "must be a folder that you can write"), (True, "sudo chown -R ")]
)
def test_a_folder_of_another_user_is_told_with_a_remedy_that_can_be_typed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    there: bool,
    remedy: str,
) -> None:
    if there:
        (tmp_path / "var").mkdir()
    monkeypatch.chdir(tmp_path)

    def refuse(path: Path, **_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(SystemExit):
        folder.make_folders()
    assert f"var: Permission denied; {'' if there else tmp_path}" in (said := capsys.readouterr().err)
    assert remedy in said


def test_a_file_of_somebodys_among_the_servers_state_is_nobodys_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "var/lib").mkdir(parents=True)
    (tmp_path / "var/lib/backup.tar").touch()
    monkeypatch.chdir(tmp_path)
    assert look().nothing


def test_a_secret_of_another_user_that_others_can_read_is_told_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / folder.SECRET).write_bytes(bytes(32))
    (tmp_path / folder.SECRET).chmod(0o660)
    monkeypatch.chdir(tmp_path)

    def refuse(path: Path, _: int) -> NoReturn:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "chmod", refuse)
    with pytest.raises(SystemExit):
        folder.mend_secret()
    said = capsys.readouterr().err
    assert "var/secret: others than its owner, " in said
    assert "; give var/ to the user that runs the herd: sudo chown -R " in said


@pytest.mark.parametrize("taken", ["var", "var/lib"])
def test_a_file_in_the_place_of_a_folder_is_told_to_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(taken).parent.mkdir(exist_ok=True)
    Path(taken).touch()
    with pytest.raises(SystemExit):
        folder.make_folders()
    assert capsys.readouterr().err.endswith(
        f": {taken}: File exists; it must be a folder; move what is there elsewhere\n"
    )
