"""The files of the keys of tokens: what they are decides the algorithm, and no error quotes them."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from tokens import KEY, OTHER_KEY, PUBLIC, PUBLIC_PEM

from proxyherd.config.auth import AuthSettings
from proxyherd.config.errors import ConfigError
from proxyherd.config.token_keys import TokenKey, read_token_keys

RSA = b"-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD9\n-----END PUBLIC KEY-----\n"


def write(folder: Path, name: str, data: bytes, mode: int = 0o600) -> Path:
    file = folder / name
    file.touch(mode)
    file.write_bytes(data)
    file.chmod(mode)
    return file


def read(folder: Path, *names: str, environ: Mapping[str, str] | None = None) -> list[TokenKey]:
    return read_token_keys(AuthSettings("jwt", names), folder / "herd.toml", environ or {})


def refused(folder: Path, *names: str, environ: Mapping[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as refusal:
        read(folder, *names, environ=environ)
    return str(refusal.value)


def test_a_file_says_by_what_is_in_it_which_algorithm_it_is_for(tmp_path: Path) -> None:
    write(tmp_path, "hs", KEY.data)
    write(tmp_path, "ed.pem", PUBLIC_PEM, 0o644)  # everybody may read it
    assert read(tmp_path, "hs", "ed.pem") == [KEY, PUBLIC]
    assert len({KEY.id, OTHER_KEY.id, PUBLIC.id}) == 3


def test_the_next_key_and_the_old_one_are_accepted_behind_the_first(tmp_path: Path) -> None:
    write(tmp_path, "key", KEY.data)
    write(tmp_path, "key.old", OTHER_KEY.data)
    write(tmp_path, "key.next", PUBLIC_PEM)
    assert read(tmp_path, "key") == [KEY, PUBLIC, OTHER_KEY]
    write(tmp_path, "key.old", KEY.data)
    assert read(tmp_path, "key") == [KEY, PUBLIC]


def test_without_files_the_key_is_systemd_s_credential(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    write(tmp_path, "token-key", b"\n", 0o440)  # what our unit puts there if there is none
    assert "key auth.keys: is missing" in refused(tmp_path, environ=environ)
    assert "key auth.keys: is missing" in refused(tmp_path)
    write(tmp_path, "token-key", KEY.data, 0o440)  # an access list shows as the group's bits
    write(tmp_path, "token-key.old", b"\n", 0o440)
    assert read(tmp_path, environ=environ) == [KEY]
    assert "others than its owner" in refused(tmp_path, "token-key")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is neither 32 random bytes nor"),
        (b"hunter2" * 3, "is neither 32 random bytes nor"),
        (KEY.data + b"\n", "is neither 32 random bytes nor"),
        (b"hunter2" * 5_000, "is neither 32 random bytes nor"),
        (RSA, "is no public key of Ed25519"),
        (PUBLIC_PEM.replace(b"PUBLIC", b"PRIVATE"), "is a private key"),
        (PUBLIC_PEM + PUBLIC_PEM, "is no public key of Ed25519"),
        (b"hunter2 " + PUBLIC_PEM, "is no public key of Ed25519"),
        (PUBLIC_PEM.replace(b"MC", b"M!"), "is no public key of Ed25519"),
    ],
)
def test_what_is_no_key_is_refused_and_never_quoted(tmp_path: Path, data: bytes, why: str) -> None:
    file = write(tmp_path, "key", data)
    refusal = refused(tmp_path, "key")
    assert refusal.startswith(f"{file}: {why}")
    assert "hunter2" not in refusal


def test_a_key_that_others_can_read_or_that_is_not_there_is_refused_with_a_remedy(tmp_path: Path) -> None:
    file = write(tmp_path, "key", KEY.data, 0o640)
    assert refused(tmp_path, "key").endswith(f"run: chmod 600 {file}")
    assert "No such file" in refused(tmp_path, "nowhere")
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe" in refused(tmp_path, "pipe")


def test_a_key_is_not_shown_in_a_traceback() -> None:
    assert repr(KEY) == f"<key {KEY.id} for HS256>"
    assert KEY.data.hex() not in f"{KEY!r} {KEY.id}"


def test_a_key_whose_name_is_as_long_as_names_may_be_has_none_beside_it(tmp_path: Path) -> None:
    name = "k" * 255
    write(tmp_path, name, KEY.data)
    assert read(tmp_path, name) == [KEY]


def test_a_key_that_may_not_be_looked_at_is_an_error_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its folder is closed to the server, so that nobody knows of the keys beside it."""

    def closed(path: object, *_: object, **__: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", closed)
        patched.setattr(Path, "stat", closed)
        why = refused(tmp_path, "key")
    assert why.startswith(f"{tmp_path / 'key'}: Permission denied; ")
    (tmp_path / "token-key").mkdir()
    why = refused(tmp_path, environ={"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert why.startswith(f"{tmp_path / 'token-key'}: Is a directory; ")


def test_a_name_that_no_file_can_have_is_an_error(tmp_path: Path) -> None:
    assert "the name has a NUL, and no file's can; write one" in refused(tmp_path, "a\0b")
