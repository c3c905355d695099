"""The files of the herd's secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from herd_process import (
    write_secret,
)

from proxyherd.config import secrets as secret
from proxyherd.config.errors import ConfigError


@pytest.mark.parametrize(
    ("files", "accepted", "table"),
    [
        ("", ["secret"], "secret"),
        (".next", ["secret", ".next"], "secret"),
        (".old", ["secret", ".old"], ".old"),
        (".next .old", ["secret", ".next", ".old"], ".old"),
        (".table", ["secret"], ".table"),
        (".next .table", ["secret", ".next"], ".table"),
        (".old .table", ["secret", ".old"], ".table"),
    ],
)
def test_the_tables_key_is_the_herds_first_secret_and_opens_no_link(
    tmp_path: Path, files: str, accepted: list[str], table: str
) -> None:
    written = {"secret": tmp_path / "secret"}
    written |= {end: tmp_path / f"secret{end}" for end in files.split()}
    for file in written.values():
        write_secret(file)
    known = secret.read_all(written["secret"])
    assert known.accepted == tuple(written[one].read_bytes() for one in accepted)
    assert known.proves == known.accepted[0]
    assert known.table == written[table].read_bytes()


def test_a_blank_credential_stands_for_no_file_and_a_blank_file_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our unit gives systemd a blank line for a credential that is not there."""
    file = tmp_path / "secret"
    write_secret(file)
    for end in (".next", ".old", ".table"):
        file.with_name(f"secret{end}").write_bytes(b"\n")
        file.with_name(f"secret{end}").chmod(0o600)
    with pytest.raises(ConfigError, match=r"secret\.next: has 1 bytes"):
        secret.read_all(file)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    known = secret.read_all(file)
    assert known.accepted == (known.table,) == (file.read_bytes(),)
    file.write_bytes(b"\n")
    with pytest.raises(ConfigError, match="has 1 bytes"):
        secret.read_all(file)


@pytest.mark.parametrize("end", [".next", ".old", ".table"])
@pytest.mark.parametrize(("spoil", "why"), [("short", "has 5 bytes"), ("open", "others than its owner")])
def test_a_second_secret_is_checked_as_the_first(tmp_path: Path, end: str, spoil: str, why: str) -> None:
    file, other = tmp_path / "secret", tmp_path / f"secret{end}"
    write_secret(file)
    write_secret(other)
    if spoil == "short":
        other.write_bytes(b"hello")
    else:
        other.chmod(0o640)
    with pytest.raises(ConfigError, match=why) as caught:
        secret.read_all(file)
    assert str(other) in str(caught.value)


def test_who_has_lost_the_secret_is_told_to_put_it_back_before_making_a_new_one(tmp_path: Path) -> None:
    """With a new one for this server alone, no neighbour links with it."""
    with pytest.raises(ConfigError) as caught:
        secret.read(tmp_path / "secret")
    assert str(caught.value) == (
        f"{tmp_path}/secret: No such file or directory; copy the herd's secret there, from another host or a backup; only if there "
        "is none, make one for the whole herd with `proxyherd secret new FILE`, and name it with --secret-file"
    )


def test_what_a_killed_process_of_the_same_id_has_left_does_not_stand_for_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In containers the same ID comes again at each start."""
    file = tmp_path / "secret"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda _: None)  # it is killed before it tidies up
        patch.setattr(os, "link", lambda *_: None)
        secret.create(file)
    assert not file.exists()
    assert len([*tmp_path.iterdir()]) == 1
    secret.create(file)
    assert len(secret.read(file)) == secret.SECRET_BYTES


def test_a_new_secret_is_on_disk_by_its_name_or_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(secret, "sync_folder", fail)
    with pytest.raises(OSError, match="Input/output"):
        secret.create(tmp_path / "secret")
    assert [*tmp_path.iterdir()] == []
