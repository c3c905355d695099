"""`proxyherd forget`: who is erased, what is asked of the web port, and what is told when it cannot be."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import jwt
import pytest
from asked import free_ports
from click.testing import CliRunner, Result
from one_server import enter_folder, write_journal

from proxyherd import cli
from proxyherd.cli import forget as command
from proxyherd.cli import signing
from proxyherd.config import secrets
from proxyherd.engines.herd.backend import make_table
from proxyherd.remote import erasures

LINES = [
    b"AT Ann +0.000000000 kiwi +34.068930-118.445127 1000000000",
    b"AT Ann +0.000000000 plum +05.50+000 1500000000",
    b"AT Bob +5.000000000 tour/1 -0.10+180.000 1500000000",
    b"AT Bob +0.000000000 tour/\xff -0.10+180.000 1400000000",
]


class Port:
    """The web port of a server: what it was asked, and what it answers."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self.answers: Callable[[str], tuple[int, dict[str, Any], dict[str, str]]] = lambda _: (
            202,
            {"erased_at": "1.000000000"},
            {},
        )

    @property
    def erased(self) -> list[bytes]:
        """The names that were erased, sorted."""
        return sorted(unquote_to_bytes(one.partition("?")[0].rpartition("/")[2]) for one in self.asked)


@contextlib.contextmanager
def listening(number: int) -> Iterator[Port]:
    port, lock = Port(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 65_536  # or the body waits for the client to acknowledge the head

        def do_DELETE(self) -> None:
            with lock:
                port.asked.append(self.path)
                port.tokens.add(self.headers["Authorization"])
            assert self.headers["Host"] == "localhost"
            status, content, headers = port.answers(self.path)
            if not status:
                self.close_connection = True
                return
            body = json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", number), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield port
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A herd's folder with a journal of its one server, which has a web port."""
    monkeypatch.delenv("PROXYHERD_TOKEN", raising=False)
    monkeypatch.setattr(command, "_PATIENCE_SECONDS", 0.3)
    enter_folder(tmp_path, monkeypatch, LINES)
    return tmp_path


@pytest.fixture
def web_port(folder: Path) -> int:
    (number,) = free_ports(1)
    file = folder / "deploy/herd.toml"
    file.write_text(
        file.read_text().replace(
            'admin = "127.0.0.1:3"', f'admin = "127.0.0.1:3", web = "127.0.0.1:{number}"'
        )
    )
    return number


@pytest.fixture
def port(web_port: int) -> Iterator[Port]:
    with listening(web_port) as port:
        yield port


def forget(*arguments: str | bytes, **keys: Any) -> Result:
    return CliRunner().invoke(cli.main, ["forget", *map(os.fsdecode, arguments)], **keys)


# Who is erased. --------------------------------------------------------------------------------------------------


def test_the_clients_that_are_named_are_erased_by_their_names_on_the_web(port: Port) -> None:
    result = forget("kiwi", b"a\xff/%", "my%20phone")
    assert (result.exit_code, result.stdout) == (0, "3 clients erased herd-wide\n")
    assert sorted(port.asked) == [
        "/v1/clients/a%25FF%2F%25",
        "/v1/clients/kiwi",
        "/v1/clients/my%20phone",
    ]
    assert port.tokens == {None}


def test_a_file_has_one_client_a_line_and_each_is_erased_once(port: Port, folder: Path) -> None:
    (folder / "gone").write_bytes(b"kiwi\n\n plum \nkiwi\r\n")
    assert forget("--file", "gone").exit_code == 0
    assert port.erased == [b"kiwi", b"plum"]
    assert forget("--file", "-", input="fig\n").exit_code == 0
    (folder / "gone").write_bytes(b"kiwi\nplum fig\n")
    result = forget("--file", "gone")
    assert result.exit_code == 2
    assert "gone: line 2 has several words" in result.stderr
    assert port.erased == [b"fig", b"kiwi", b"plum"]


@pytest.mark.parametrize(
    ("options", "clients"),
    [
        (["--prefix", "tour/"], [b"tour/%FF", b"tour/1"]),
        (["--prefix", "x"], []),
        (["--all-before", "2005-01-01"], [b"kiwi"]),
        (["--all-before", "2017-07-14T02:40:00Z"], [b"kiwi", b"plum", b"tour/%FF"]),
        (["--all-before", "2017-07-14T02:40:05Z"], [b"kiwi", b"plum", b"tour/%FF", b"tour/1"]),
        (["--all-before", "2015-01-01", "--prefix", "tour/"], [b"tour/%FF"]),
    ],
)
def test_who_is_listed_in_a_journal_is_erased_unless_it_has_reported_since(
    port: Port, options: list[str], clients: list[bytes]
) -> None:
    assert forget(*options).exit_code == 0
    assert port.erased == clients
    assert all("?before=" in one for one in port.asked)
    if "2005-01-01" in options:
        assert port.asked == ["/v1/clients/kiwi?before=1104537600.000000000"]


def test_who_stays_because_it_was_seen_since_is_counted_apart(port: Port) -> None:
    port.answers = lambda path: (
        202,
        {"erased_at": "1.000000000", **({"stayed": True} if "%25FF" in path else {})},
        {},
    )
    result = forget("--all-before", "2017-07-14T02:40:05Z")
    assert result.exit_code == 0
    assert result.stdout == "3 clients erased herd-wide; 1 client stayed, having been seen since\n"


def test_many_are_erased_over_several_connections_and_each_once(port: Port, folder: Path) -> None:
    clients = [b"c%d" % number for number in range(1_000)]
    (folder / "gone").write_bytes(b"\n".join(clients))
    result = forget("--file", "gone")
    assert (result.exit_code, result.stdout) == (0, "1,000 clients erased herd-wide\n")
    assert port.erased == sorted(clients)


def test_a_dry_run_prints_who_would_be_erased_and_asks_nobody(folder: Path) -> None:
    result = forget("--prefix", "tour/", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "tour/1\ntour/\\xff\n")
    assert result.stderr == "2 clients would be erased\n"


def test_who_was_erased_is_listed_no_more_and_who_came_back_is(folder: Path) -> None:
    secrets.create(folder / "var/secret")
    table = make_table(secrets.read_all(folder / "var/secret"))
    gone = [table.tombstone(client, 1_500_000_000 * 10**9).line for client in (b"kiwi", b"plum", b"tour/1")]
    write_journal(gone, 2)
    result = forget("--all-before", "1d", "--dry-run")
    assert (result.exit_code, result.stdout) == (0, "tour/1\ntour/\\xff\n")
    (folder / "var/secret").unlink()
    result = forget("--all-before", "1d", "--dry-run")
    assert result.exit_code == 2
    assert "var/secret: No such file" in result.stderr


# Confirmation. -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "code", "erased"), [("y\n", 0, [b"kiwi"]), ("n\n", 1, []), ("\n", 1, [])])
def test_on_a_terminal_it_asks_first(
    port: Port, monkeypatch: pytest.MonkeyPatch, said: str, code: int, erased: list[bytes]
) -> None:
    monkeypatch.setattr(command, "_is_terminal", lambda: True)
    result = forget("kiwi", input=said)
    assert (result.exit_code, port.erased) == (code, erased)
    assert "kiwi\nErase 1 client herd-wide?" in result.stderr
    assert forget("plum", "--yes").exit_code == 0
    assert port.erased == [*erased, b"plum"]


# What goes wrong. ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [[], ["kiwi", "--prefix", "a"], ["--list", "kiwi"], ["a b"], ["--all-before", "soon"]]
)
def test_one_way_to_say_who_is_wanted(port: Port, arguments: list[str]) -> None:
    result = forget(*arguments)
    assert (result.exit_code, port.asked) == (2, [])


def test_without_a_web_port_it_is_told_which_key_to_add(folder: Path) -> None:
    result = forget("kiwi")
    assert result.exit_code == 2
    assert "key servers.Ann.web: is missing" in result.stderr
    assert 'web = "127.0.0.1:10300"' in result.stderr


def test_a_server_that_does_not_listen_is_told_with_its_address(web_port: int) -> None:
    result = forget("kiwi")
    assert result.exit_code == 3
    assert (
        f"cannot reach Ann at 127.0.0.1:{web_port}: Connection refused; see `proxyherd status`"
        in result.stderr
    )


def problem(status: int, **headers: str) -> Callable[[str], tuple[int, dict[str, Any], dict[str, str]]]:
    return lambda _: (status, {"detail": "Why it is so."}, headers)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (401, "may not erase (Why it is so.); name a token that may with --token-file"),
        (403, "may not erase (Why it is so.); name a token that may with --token-file"),
        (404, "knows no erasure; upgrade it"),
        (405, "knows no erasure; upgrade it"),
        (503, "does not erase now (Why it is so.); see `proxyherd status`"),
        (500, "does not erase now (Why it is so.)"),
    ],
)
def test_an_answer_that_is_no_erasure_is_told_with_the_remedy(port: Port, status: int, told: str) -> None:
    port.answers = problem(status)
    result = forget("kiwi")
    assert (result.exit_code, result.stdout) == (1, "")
    assert told in result.stderr
    assert "The client is not erased" in result.stderr
    result = forget("kiwi", "plum")
    assert "0 of 2 clients are erased; run the same again" in result.stderr


@pytest.mark.parametrize("status", [503, 429, 0])
def test_a_server_that_is_not_ready_or_restarts_is_asked_again(
    port: Port, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(command, "_PATIENCE_SECONDS", 60)
    monkeypatch.setattr(erasures, "_LONGEST_PAUSE_SECONDS", 0.01)
    before = port.answers
    port.answers = lambda path: (
        problem(status, **{"Retry-After": "1"})(path) if len(port.asked) < 3 else before(path)
    )
    assert forget("kiwi").exit_code == 0
    assert len(port.asked) == 3


def test_a_server_that_closes_without_an_answer_is_given_up(port: Port) -> None:
    port.answers = problem(0)
    result = forget("kiwi")
    assert result.exit_code == 3
    assert "Ann is gone: " in result.stderr


@pytest.mark.parametrize("way", ["file", "variable"])
def test_a_token_is_presented_and_stands_in_no_output(
    port: Port, folder: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    (folder / "token").write_text("abc.def\n")
    if way == "variable":
        monkeypatch.setenv("PROXYHERD_TOKEN", "abc.def")
    options = ["--token-file", "token"] if way == "file" else []
    assert forget("kiwi", *options).exit_code == 0
    assert port.tokens == {"Bearer abc.def"}
    port.answers = problem(403)
    assert "abc" not in forget("kiwi", *options).output
    result = forget("kiwi", "--token-file", "nowhere")
    assert result.exit_code == 2
    assert "nowhere: No such file" in result.stderr


@pytest.fixture
def key(folder: Path, web_port: int) -> Path:
    """The key of the tokens that the web port wants."""
    key, file = folder / "var/token-key", folder / "deploy/herd.toml"
    secrets.create(key)
    file.write_text(f'{file.read_text()}[auth]\nweb = "jwt"\nkeys = ["../var/token-key"]\n')
    return key


def test_who_can_read_the_key_needs_no_token(port: Port, key: Path) -> None:
    assert forget("kiwi").exit_code == 0
    (presented,) = port.tokens
    assert presented is not None
    claims = jwt.decode(presented.removeprefix("Bearer "), key.read_bytes(), algorithms=["HS256"])
    assert (claims["sub"], claims["may"], claims["exp"] - claims["iat"]) == ("*", ["erase"], 60)
    assert forget("kiwi", "--token-file", str(key.with_name("none"))).exit_code == 2
    key.unlink()
    result = forget("kiwi")
    assert result.exit_code == 2
    assert "token-key" in result.stderr
    assert "name a token that may erase with --token-file" in result.stderr


def test_a_long_list_outlives_its_first_token(port: Port, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signing, "_MADE_SECONDS", -1.0)
    issued = count(1)
    monkeypatch.setattr(signing, "new_token", lambda *_: f"token-{next(issued)}")
    assert forget("kiwi", "plum").exit_code == 0
    assert port.tokens == {"Bearer token-1", "Bearer token-2"}


# How many tombstones there are. --------------------------------------------------------------------------------


def test_it_says_how_many_tombstones_each_server_holds(folder: Path) -> None:
    file = folder / "deploy/herd.toml"
    (admin,) = free_ports(1)
    file.write_text(file.read_text().replace("127.0.0.1:3", f"127.0.0.1:{admin}"))
    result = forget("--list")
    assert result.exit_code == 3
    assert "no server says how many tombstones it holds" in result.stderr

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/metrics"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"# HELP proxyherd_tombstones x\nproxyherd_tombstones 12345.0\n")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", admin), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            result = forget("--list")
        finally:
            server.shutdown()
            thread.join()
    assert (result.exit_code, result.stdout) == (0, "server  tombstones\nAnn     12,345\n")
