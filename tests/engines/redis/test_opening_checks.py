"""What is asked of a node before it is used, and what its answers are taken for: a node of this process says what it is
told to. tests/system/test_redis_opening.py asks real ones.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest
from redis.exceptions import RedisError
from redis_node import INFO, OURS, connect, play, view

from proxyherd.config.address import Address
from proxyherd.config.errors import ConfigError
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis.opening import Opener, UnusableError, find_password
from proxyherd.engines.redis.views import Claim
from proxyherd.telemetry.observer import Observer

OPENED = (b"AUTH", b"INFO", b"FUNCTION", b"FCALL")
"""What is said before a master is used, where there is a password."""

Says = dict[bytes, object]


# Before a master is used. --------------------------------------------------------------------------------------


def test_a_master_is_asked_four_things_and_then_what_it_is_there_for() -> None:
    replies, node, _ = play(connect, {b"MGET": [b"found"], b"PING": b"PONG"}, user="herd", password="secret")
    assert replies == [b"PONG", [b"found"]]
    assert node.words == (*OPENED, b"PING", b"MGET")
    assert node.heard[0] == [b"AUTH", b"herd", b"secret"]
    assert {*node.heard[1]} >= {b"INFO", b"replication", b"memory", b"persistence"}
    assert node.heard[2:4] == [
        [b"FUNCTION", b"LIST", b"LIBRARYNAME", b"proxyherd_*", b"WITHCODE"],
        [b"FCALL", b"proxyherd_2_probe", b"0"],
    ]
    assert node.unsafe == []


def test_without_a_password_nobody_logs_in() -> None:
    _, node, _ = play(connect)
    assert node.words == (*OPENED[1:], b"PING", b"MGET")


def test_a_user_without_a_password_is_told_where_to_put_it_and_nothing_is_dialled() -> None:
    error, node, _ = play(connect, user="herd")
    assert isinstance(error, ConfigError)
    assert str(error) == (
        "herd.toml: key redis.user: there is no password for herd; name its file with password_file, or set "
        "PROXYHERD_REDIS_PASSWORD"
    )
    assert node.heard == []


def changed(was: bytes, now: bytes) -> Says:
    assert was in INFO
    return {b"INFO": INFO.replace(was, now)}


@pytest.mark.parametrize(
    ("says", "refused"),
    [
        (changed(b"role:master", b"role:slave"), "{} is no master now"),
        (changed(b"role:master\r\n", b""), "{} is no master now"),
        (
            changed(b"noeviction", b"allkeys-lru"),
            "{} would drop reports when its memory is full: set maxmemory-policy noeviction there, it is allkeys-lru",
        ),
        (
            {b"FCALL": 0},
            "{} compares strings by its locale, and would take old reports for new ones: start redis-server with LC_ALL=C",
        ),
        ({b"FUNCTION": []}, "{} has no function proxyherd_2: an operator loads it"),
        (
            {b"FUNCTION": [[b"library_name", b"proxyherd_4", b""], [b"library_name", b"proxyherd_3", b""]]},
            "{} has the function proxyherd_3, proxyherd_4, and this server's version of proxyherd needs proxyherd_2: an",
        ),
        (
            {b"FUNCTION": [[*OURS[:-1], b"#!lua"], [b"library_name", b"proxyherd_3", b""]]},
            "{} has another function proxyherd_2 than this server's version of proxyherd: an operator loads it",
        ),
    ],
    ids=["replica", "no role", "evicts", "locale", "no function", "others' functions", "another function"],
)
def test_a_master_that_would_lose_or_misorder_reports_is_refused_with_the_remedy(
    says: Says, refused: str
) -> None:
    error, node, address = play(connect, says)
    assert isinstance(error, UnusableError)
    assert str(error).startswith(refused.replace("{}", address))
    if b"FUNCTION" in says:
        assert str(error).endswith(f", with deploy/redis/load-function.sh {address} of this version")
    assert b"PING" not in node.words


@pytest.mark.parametrize("word", OPENED[1:])
def test_an_error_of_redis_meanwhile_is_told_as_it_is_and_the_connection_closed(word: bytes) -> None:
    error, node, _ = play(connect, {word: "NOPERM this user has no permissions"})
    assert "NOPERM this user" in str(error)
    assert node.words[-1] == word


def test_a_node_that_closes_at_the_login_is_dialled_once_by_the_library() -> None:
    """When and how often it is dialled again is for the engine to say."""
    error, node, _ = play(connect, {b"AUTH": None}, user="herd", password="secret")
    assert isinstance(error, OSError | RedisError)
    assert node.words == (b"AUTH",)


@pytest.mark.parametrize(
    "says", [{}, changed(b"maxmemory_policy:noeviction\r\n", b""), changed(b"aof_enabled:1\r\n", b"")]
)
def test_a_service_that_does_not_tell_its_settings_is_used(says: Says) -> None:
    replies, node, _ = play(connect, says)
    assert replies == [b"OK", b"OK"]
    assert node.unsafe == []


def test_a_master_without_an_append_only_file_is_used_and_told_of() -> None:
    replies, node, address = play(connect, changed(b"aof_enabled:1", b"aof_enabled:0"))
    assert replies == [b"OK", b"OK"]
    ((master, reason),) = node.unsafe
    assert master == address
    assert "set appendonly yes" in reason


# An exchange. --------------------------------------------------------------------------------------------------


def test_errors_are_replies_like_others_and_keep_their_first_word() -> None:
    (error, reply), _, _ = play(connect, {b"PING": "OOM command not allowed", b"MGET": [b"a", b"b"]})
    assert type(error) is play_library().full
    assert str(error) == "OOM command not allowed"
    assert reply == [b"a", b"b"]


def test_a_redirection_names_its_node() -> None:
    library = play_library()
    (moved, asked), _, _ = play(connect, {b"PING": "MOVED 5 10.0.0.1:7009", b"MGET": "ASK 5 10.0.0.2:7010"})
    assert (type(moved), type(asked)) == (library.moved, library.asked)
    assert (moved.node_addr, asked.node_addr) == (("10.0.0.1", 7_009), ("10.0.0.2", 7_010))
    (later, _), _, _ = play(connect, {b"PING": "TRYAGAIN Multiple keys"})
    assert type(later) is library.later


def play_library() -> Any:
    return Opener(RedisSettings(nodes=("a:1",)), Path("herd.toml"), {}, cast("Observer", None)).library


def test_a_node_that_closes_in_the_middle_is_an_error_and_waits_for_nothing() -> None:
    error, _, _ = play(connect, {b"MGET": None})
    assert str(error) == "closed by Redis"


def test_a_reply_larger_than_a_read_is_whole() -> None:
    (_, reply), _, _ = play(connect, {b"MGET": [bytes(1_000_000), b"x"]})
    assert reply == [bytes(1_000_000), b"x"]


# Who is master. ------------------------------------------------------------------------------------------------


def test_a_view_is_asked_for_without_the_checks_of_a_master() -> None:
    found, node, _ = play(view)
    master = Address("127.0.0.1", 7_001)
    assert (found.nodes, found.claims) == ((master,), (Claim(7, master, ((0, 16_383),)),))
    assert node.heard == [[b"CLUSTER", b"NODES"]]


@pytest.mark.parametrize("reply", [b"a b c\n", b"\xff", 5, b"a 127.0.0.1:x@1 master - 0 0 7 connected\n"])
def test_what_is_no_view_is_told_with_the_node(reply: object) -> None:
    error, _, address = play(view, {b"CLUSTER": reply})
    assert isinstance(error, UnusableError)
    assert str(error).startswith(f"{address}: its CLUSTER NODES cannot be read: ")


def test_a_node_that_does_not_tell_is_an_error() -> None:
    error, _, _ = play(view, {b"CLUSTER": "ERR This instance has cluster support disabled"})
    assert str(error) == "ERR This instance has cluster support disabled"


# TLS. ----------------------------------------------------------------------------------------------------------


def test_a_file_for_tls_that_cannot_be_used_is_named_with_the_remedy_and_nothing_is_said_in_plain(
    tmp_path: Path,
) -> None:
    (tmp_path / "blank.pem").write_bytes(b"\n")
    cases: list[tuple[dict[str, Any], str]] = [
        (
            {"tls_authority": "none.pem"},
            "none.pem: No such file or directory; it is named in [redis] of the herd's file",
        ),
        ({"tls_authority": "blank.pem"}, "blank.pem: no certificate in PEM ("),
        (
            {"tls_authority": "blank.pem", "tls_certificate": "none.pem", "tls_key": "blank.pem"},
            "none.pem: No such file or directory; it is named in [redis] of the herd's file",
        ),
        (
            {"tls_authority": "blank.pem", "tls_certificate": "blank.pem", "tls_key": "blank.pem"},
            f"blank.pem, {tmp_path}/blank.pem: no certificate and its unencrypted private key in PEM (",
        ),
    ]
    for settings, said in cases:
        for ask in (connect, view):
            error, node, _ = play(ask, folder=tmp_path, **settings)
            assert isinstance(error, ConfigError)
            assert str(error).startswith(f"{tmp_path}/{said}")
            assert "see docs/redis.md" in str(error) or "it is named in [redis]" in str(error)
            assert node.heard == []


# The password. -------------------------------------------------------------------------------------------------


def passwords(
    folder: Path,
    files: Mapping[str, bytes],
    environ: Mapping[str, str] = {},
    password_file: str | None = None,
) -> str | None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    settings = RedisSettings(nodes=("a:1",), password_file=password_file)
    return find_password(settings, folder / "herd.toml", environ)


def test_the_password_is_in_its_file_else_the_credential_else_the_environment(tmp_path: Path) -> None:
    files = {"own": b" in file\n", "systemd/redis-password": b"in credential\n"}
    environ = {
        "CREDENTIALS_DIRECTORY": str(tmp_path / "systemd"),
        "PROXYHERD_REDIS_PASSWORD": "in environment",
    }
    assert passwords(tmp_path, files, environ, password_file="own") == "in file"
    assert passwords(tmp_path, files, environ) == "in credential"
    (tmp_path / "systemd/redis-password").unlink()
    assert passwords(tmp_path, {}, environ) == "in environment"
    assert passwords(tmp_path, {}, {"PROXYHERD_REDIS_PASSWORD": ""}) is None
    assert passwords(tmp_path, {}) is None


@pytest.mark.parametrize(("size", "taken"), [(4_095, True), (4_096, True), (4_097, False)])
def test_a_password_has_at_most_4096_bytes_with_its_line_end(tmp_path: Path, size: int, taken: bool) -> None:
    content = b"x" * (size - 1) + b"\n"
    if taken:
        assert passwords(tmp_path, {"own": content}, password_file="own") == "x" * (size - 1)
    else:
        with pytest.raises(ConfigError, match="holds no password; write the password alone into it"):
            passwords(tmp_path, {"own": content}, password_file="own")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b" \n", "holds no password; write the password alone into it"),
        (b"", "holds no password; write the password alone into it"),
        (b"secret\xff", "not UTF-8; write the password into it, readable by the server"),
        (
            None,
            f"{os.strerror(errno.ENOENT)}; write the password into it, readable by the server",
        ),
    ],
    ids=["blank", "empty", "not UTF-8", "missing"],
)
def test_a_file_without_a_password_is_named_with_its_key_and_nothing_of_it(
    tmp_path: Path, content: bytes | None, why: str
) -> None:
    files = {} if content is None else {"own": content}
    with pytest.raises(ConfigError) as raised:
        passwords(tmp_path, files, password_file="own")
    assert str(raised.value) == f"{tmp_path}/herd.toml: key redis.password_file: {tmp_path}/own: {why}"


def test_a_credential_without_a_password_is_named_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^the systemd credential: {tmp_path}/redis-password: holds no"):
        passwords(tmp_path, {"redis-password": b"\n"}, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
