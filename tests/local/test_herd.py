"""What `up` does not do by itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.local import herd, programs


def test_a_change_of_the_secret_that_was_broken_off_gets_no_third_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Servers on other machines would refuse it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(programs, "ask", lambda *_, **__: 9)
    Path("supervisord.conf").write_text('[supervisord]\nenvironment = PROXYHERD_CONFIG="herd.toml"\n')
    Path("var").mkdir()
    for end in (".old", ".next"):
        Path(f"var/secret{end}").touch()
    with pytest.raises(SystemExit):
        herd.up()
    assert "; go on with: mv var/secret.next var/secret\n" in capsys.readouterr().err
