"""What is told of a folder in which a herd cannot run."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from proxyherd.local import folder


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
