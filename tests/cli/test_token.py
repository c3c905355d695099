"""`token`: what is made is what servers accept, and nothing prints a key."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from tokens import MOST_SECONDS, OTHER_KEY, PRIVATE, PUBLIC, PUBLIC_PEM, token

from proxyherd import cli
from proxyherd.config.token_keys import TokenKey, read_token_key
from proxyherd.web.rights import Grant
from proxyherd.web.tokens import TokenVerifier

HERD = """
[servers]
Ann = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3", web = "127.0.0.1:4" }
[auth]
web = "jwt"
keys = ["key", "issuer.pem"]
"""
PEM = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
LOCKED = PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hunter2"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "herd.toml").write_text(HERD)
    (tmp_path / "issuer.pem").write_bytes(PUBLIC_PEM)
    assert call(tmp_path, "key", tmp_path / "key").exit_code == 0
    return tmp_path


def call(folder: Path, *arguments: str | Path, stdin: str | None = None) -> Result:
    words = ["--config", str(folder / "herd.toml"), "token", *map(str, arguments)]
    return CliRunner().invoke(cli.main, words, input=stdin)


def made(folder: Path, *arguments: str | Path) -> str:
    result = call(folder, "new", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.removesuffix("\n")


def key_of(folder: Path) -> TokenKey:
    return read_token_key(folder / "key", {})


def granted(folder: Path, spelling: str) -> Grant:
    return TokenVerifier([key_of(folder), PUBLIC], MOST_SECONDS).verify(spelling)


def test_a_key_is_its_owner_s_alone_and_is_never_overwritten(folder: Path) -> None:
    file = folder / "key"
    before = file.read_bytes()
    assert (len(before), file.stat().st_mode & 0o777) == (32, 0o600)
    again = call(folder, "key", file)
    assert (again.exit_code, file.read_bytes()) == (1, before)
    assert "exists already" in again.stderr
    assert call(folder, "key", folder / "nowhere/key").exit_code == 2


def test_a_token_says_what_was_asked_for_and_by_default_lives_as_long_as_it_may(folder: Path) -> None:
    began = int(time.time())
    found = granted(folder, made(folder, "--sub", "jane/*", "--may", "see,report", "--may", "erase"))
    assert (found.subject, found.see, {*found.may}) == ("jane/*", ("jane/*",), {"report", "see", "erase"})
    assert found.issued // 10**9 - began in range(60)
    assert found.ends - found.issued == MOST_SECONDS * 10**9
    short = granted(
        folder, made(folder, "--sub", "a", "--may", "see", "--see", "b", "--see", "c*", "--days", "0.5")
    )
    assert (short.see, short.ends - short.issued) == (("b", "c*"), 43_200 * 10**9)


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--sub", "a", "--may", "fly"), "'fly' is none of report, see, erase, operate"),
        (("--sub", "a", "--may", ""), "is none of"),
        (("--sub", "", "--may", "see"), "has 1 to 512 characters"),
        (("--sub", "a" * 513, "--may", "see"), "has 1 to 512 characters"),
        (("--sub", "a", "--may", "see", "--see", ""), "has 1 to 512 characters"),
        (("--sub", "a", "--may", "see", "--days", "31"), "31 is more than the 30"),
        (("--sub", "a", "--may", "see", "--days", "0"), "0"),
        (("--sub", "a" * 500, "--may", "see", *(("--see", "b" * 500) * 4)), "servers read 2,048"),
        (("--sub", "a"), "Missing option '--may'"),
        (("--may", "see"), "Missing option '--sub'"),
    ],
)
def test_a_token_that_no_server_would_accept_is_not_made(
    folder: Path, arguments: tuple[str, ...], why: str
) -> None:
    result = call(folder, "new", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr


def write(folder: Path, name: str, data: bytes) -> Path:
    file = folder / name
    file.touch(0o600)
    file.write_bytes(data)
    return file


def test_another_key_can_sign_too(folder: Path) -> None:
    arguments = ("--sub", "a", "--may", "see", "--key")
    assert granted(folder, made(folder, *arguments, write(folder, "private", PEM))).key == PUBLIC.id
    other = made(folder, *arguments, write(folder, "other", OTHER_KEY.data))
    assert TokenVerifier([OTHER_KEY], MOST_SECONDS).verify(other).key == OTHER_KEY.id


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (PUBLIC_PEM, "is a public key, which signs nothing"),
        (LOCKED, "has a password"),
        (b"hunter2-----BEGIN PRIVATE KEY-----", "is no private key of Ed25519"),
        (b"hunter2", "is neither 32 random bytes nor"),
    ],
    ids=["a public key", "one with a password", "a broken one", "a password"],
)
def test_what_cannot_sign_is_refused_and_never_quoted(folder: Path, data: bytes, why: str) -> None:
    result = call(folder, "new", "--sub", "a", "--may", "see", "--key", write(folder, "other", data))
    assert result.exit_code == 2
    assert why in result.stderr
    assert "hunter2" not in result.output


def test_the_first_key_must_be_able_to_sign(folder: Path) -> None:
    (folder / "herd.toml").write_text(HERD.replace('["key", "issuer.pem"]', '["issuer.pem", "key"]'))
    result = call(folder, "new", "--sub", "a", "--may", "see")
    assert "key auth.keys: is a public key" in result.stderr


def test_a_good_token_is_told_in_words(folder: Path) -> None:
    spelling = made(folder, "--sub", "my phone", "--may", "see,report", "--see", "*")
    said = call(folder, "verify", stdin=f"{spelling}\n")
    assert said.exit_code == 0
    rows = dict(line.split(None, 1) for line in said.stdout.splitlines())
    assert {name: rows[name] for name in ("sub", "may", "see", "key")} == {
        "sub": "my phone",
        "may": "report, see",
        "see": "*",
        "key": key_of(folder).id,
    }
    date = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ").fullmatch
    assert date(rows["issued"])
    assert date(rows["expires"])
    write(folder, "phone.token", spelling.encode())
    assert call(folder, "verify", folder / "phone.token").stdout == said.stdout


def test_a_bad_token_is_told_why_and_is_not_repeated(folder: Path) -> None:
    key = key_of(folder)
    for spelling, why in (
        (token(key), "has expired"),
        (token(OTHER_KEY), "No key of this server"),
        (token(key, may=None), "lacks a claim"),
        (made(folder, "--sub", "a", "--may", "see") * 9, "is not a token"),
        ("", "is not a token"),
        ("ü", "is not a token"),
    ):
        result = call(folder, "verify", stdin=spelling)
        assert result.exit_code == 1
        assert why in result.stderr
        assert not spelling or spelling not in result.output


def test_without_tokens_nothing_is_verified(folder: Path) -> None:
    (folder / "herd.toml").write_text(HERD.split("[auth]", maxsplit=1)[0])
    result = call(folder, "verify", stdin=token())
    assert result.exit_code == 2
    assert "key auth.keys: is missing" in result.stderr


# Revocation, over a port where nobody listens; tests/system/test_tokens.py does it. ----------------------------


def test_a_subject_is_revoked_over_a_web_port_that_listens(folder: Path) -> None:
    result = call(folder, "revoke", "jane/*")
    assert result.exit_code == 3
    assert "cannot reach Ann at" in result.stderr
    (folder / "herd.toml").write_text(HERD.replace(', web = "127.0.0.1:4"', ""))
    result = call(folder, "revoke", "jane/*")
    assert (result.exit_code, "key servers.Ann.web: is missing" in result.stderr) == (2, True)


def test_where_nobody_needs_a_token_none_is_revoked(folder: Path) -> None:
    (folder / "herd.toml").write_text(HERD.split("[auth]", maxsplit=1)[0])
    result = call(folder, "revoke", "jane/*")
    assert (result.exit_code, 'key auth.web: is not "jwt"' in result.stderr) == (2, True)
    assert call(folder, "revoke", "").exit_code == 2
