"""The command line, as a script meets it: what is printed where, and which exit code says what."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import click
import pytest
from asked import ask_once, pair_of_servers, serving
from click.testing import CliRunner, Result
from one_server import enter_folder
from states import a_state

import proxyherd.server
from proxyherd import cli
from proxyherd.admin.status_page.state import write_state
from proxyherd.client import SyncHerdClient, Unreachable
from proxyherd.config import herd_file
from proxyherd.config.address import Address
from proxyherd.config.errors import ConfigError
from proxyherd.remote import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]


def run(*arguments: str | Path, env: dict[str, str | None] | None = None) -> Result:
    return CliRunner().invoke(
        cli.main, [str(a) for a in arguments], env={"PROXYHERD_CONFIG": None, **(env or {})}
    )


@pytest.fixture
def herd(tmp_path: Path) -> herd_file.Herd:
    """Two servers on ports where nobody listens."""
    return pair_of_servers(tmp_path)


@contextlib.contextmanager
def admin(address: Address, pages: dict[str, tuple[int, str]]) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, text = pages.get(self.path, (404, ""))
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((address.host, address.port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def page(server: str, neighbour: str, **figures: Any) -> dict[str, tuple[int, str]]:
    """Return what the admin port of a server has that is linked with a neighbour, but for these figures."""
    usual = {"links": {neighbour: "live"}, "clients": 123_456, "answered": 10, "mended": 5}
    return {"/state?commands=no": (200, write_state(a_state(server, **{**usual, **figures})).decode())}


CATCHING_UP = {"ready": False, "reason": "catching up"}


# --- configuration


def test_config_is_taken_before_and_after_the_command_and_after_wins(
    tmp_path: Path, herd: herd_file.Herd
) -> None:
    nowhere = tmp_path / "nowhere.toml"
    assert run("--config", herd.file, "check-config").exit_code == 0
    assert run("check-config", "--config", herd.file).exit_code == 0
    assert run("--config", nowhere, "check-config", "--config", herd.file).exit_code == 0
    assert run("--config", herd.file, "check-config", "--config", nowhere).exit_code == 2


def test_config_comes_from_the_environment_if_no_option_says_otherwise(
    tmp_path: Path, herd: herd_file.Herd
) -> None:
    env: dict[str, str | None] = {"PROXYHERD_CONFIG": str(tmp_path / "nowhere.toml")}
    assert run("check-config", env=env).exit_code == 2
    assert run("check-config", "--config", herd.file, env=env).exit_code == 0
    assert run("check-config", env={"PROXYHERD_CONFIG": str(herd.file)}).exit_code == 0


def test_default_file_is_the_checkouts_then_the_folders_then_the_installed_one(
    tmp_path: Path, herd: herd_file.Herd, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path /= "folder"
    tmp_path.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.common, "INSTALLED_FILE", tmp_path / "installed.toml")
    result = run("check-config")
    assert result.exit_code == 2
    assert result.stderr.startswith(
        f"Error: deploy/herd.toml, herd.toml, {tmp_path}/installed.toml: No such file; go to the folder of the herd"
    )
    (tmp_path / "installed.toml").write_text(herd.file.read_text())
    assert "installed.toml: 2 servers" in run("check-config").stdout
    (tmp_path / "herd.toml").write_text(herd.file.read_text())
    assert run("check-config").stdout.startswith("herd.toml: 2 servers")
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/herd.toml").write_text(herd.file.read_text())
    assert "deploy/herd.toml: 2 servers" in run("check-config").stdout


def test_check_config_prints_a_summary() -> None:
    result = run("check-config", "--config", ROOT / "deploy/herd.toml")
    assert result.exit_code == 0
    assert result.stderr == ""
    assert "5 servers, 6 edges" in result.stdout
    assert "needs 18 GiB of memory (MemoryMax=18G) and 20576 descriptors" in result.stdout
    assert re.search(
        r"^Clark +127\.0\.0\.1:10003 +127\.0\.0\.1:10103 +127\.0\.0\.1:10203 +127\.0\.0\.1:10303 +Bona, Jaquez$",
        result.stdout,
        re.MULTILINE,
    )


def test_check_config_warns_of_islands_by_name(herd: herd_file.Herd) -> None:
    herd.file.write_text(herd.file.read_text().replace('edges = [["Ann", "Bob"]]', "edges = []"))
    result = run("check-config", "--config", herd.file)
    assert result.exit_code == 0
    assert "2 islands (Ann; Bob)" in result.stderr or "2 islands (Bob; Ann)" in result.stderr


def test_errors_of_configuration_are_one_line_and_exit_2(herd: herd_file.Herd) -> None:
    herd.file.write_text(herd.file.read_text() + "\n[limits]\nmax_lines = 3\n")
    result = run("check-config", "--config", herd.file)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "key limits.max_lines" in result.stderr


def test_check_config_names_ports_that_another_has(herd: herd_file.Herd) -> None:
    assert run("check-config", "--ports", "--config", herd.file).exit_code == 0
    listeners = [(key, one) for key, some in herd.servers["Bob"].addresses.items() for one in some]
    assert len(listeners) >= 3
    for key, address in listeners:
        with socket.create_server((address.host, address.port)):
            result = run("check-config", "--ports", "--config", herd.file)
        assert result.exit_code == 1
        assert f"listens on {address} (servers.Bob.{key}): " in result.stderr
        assert f"(process {os.getpid()}); stop it, or change this address in {herd.file}\n" in result.stderr


def test_check_config_names_a_herd_that_has_the_ports_in_a_line_and_a_short_list(
    herd: herd_file.Herd,
) -> None:
    ann, bob = herd.servers.values()
    clients = ann.clients[0]

    def told(file: str) -> list[str]:
        with (
            socket.create_server((clients.host, clients.port)),
            admin(ann.admin[0], page("Ann", "Bob", file=file)),
            admin(bob.admin[0], page("Bob", "Ann", file=file)),
        ):
            result = run("check-config", "--ports", "--config", herd.file)
        assert (result.exit_code, result.stdout) == (1, "")
        return result.stderr.splitlines()

    head, *lines = told("/home/else/herd.toml")
    assert head == (
        f"Error: the herd of /home/else/herd.toml runs on 3 of the 6 addresses in {herd.file}; stop that first, or change "
        "these addresses"
    )
    assert [line.partition(" (")[0].split(": ")[:2] for line in lines] == [
        ["  Ann", f"{clients.port}, {ann.admin[0].port}"],
        ["  Bob", f"{bob.admin[0].port}"],
    ]
    assert all(line.endswith(f"(process {os.getpid()})") for line in lines)
    assert told(str(herd.file.resolve()))[0].startswith(
        "Error: this herd runs already, on 3 of the 6 addresses"
    )
    assert told("")[0].startswith("Error: other processes listen on 3 of the 6 addresses")


# --- serve


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for the daemon: keep what it is asked to serve, and end with exit code 1."""
    calls: list[Any] = []

    def serve(*arguments: Any) -> int:
        calls.append(arguments)
        return 1

    monkeypatch.setattr(
        proxyherd.server, "daemon", SimpleNamespace(serve=serve, Paths=SimpleNamespace), raising=False
    )
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for variable in ("STATE_DIRECTORY", "LOGS_DIRECTORY", "CREDENTIALS_DIRECTORY", "PROXYHERD_GAZETTEER"):
        monkeypatch.delenv(variable, raising=False)
    return calls


def test_serve_hands_on_the_exit_code_and_defaults_below_the_folder(
    served: list[Any], herd: herd_file.Herd
) -> None:
    assert run("serve", "Ann", "--config", herd.file).exit_code == 1
    [(given, name, paths)] = served
    assert (given, name) == (herd, "Ann")
    assert vars(paths) == {
        "state": Path("var/lib/Ann"),
        "log": Path("var/log/Ann.log"),
        "secret": Path("var/secret"),
        "gazetteer": Path("var/gazetteer.dat"),
        "log_max_bytes": 0,
        "log_backups": 4,
    }


@pytest.mark.parametrize(
    "url",
    [
        "",
        "places.example",
        "ftp://h",
        "http://",
        "http://h:0",
        "http://h:99999",
        "http://[::1",
        "http://h/?x=1",
    ],
)
def test_a_base_url_that_nothing_can_stand_behind_is_an_error(herd: herd_file.Herd, url: str) -> None:
    herd.file.write_text(herd.file.read_text() + f'[places]\nbase_url = "{url}"\n')
    result = run("check-config", "--config", herd.file)
    assert result.exit_code == 2
    assert f"key places.base_url: {url!r}" in result.output


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("calls_per_day = 1", "less than one for each of 2 servers; give at least 2, or 0 for none"),
        ("calls_per_minute = 1", "less than one for each"),
        ('field_mask = ""', "key places.field_mask"),
        ('field_mask = "a\\nb"', "key places.field_mask"),
        ('language = ""', "key places.language"),
    ],
)
def test_keys_of_places_that_could_never_work_are_errors(herd: herd_file.Herd, line: str, words: str) -> None:
    herd.file.write_text(herd.file.read_text() + f"[places]\n{line}\n")
    result = run("check-config", "--config", herd.file)
    assert result.exit_code == 2
    assert words in result.output


def test_serve_takes_its_places_from_systemd(served: list[Any], herd: herd_file.Herd, tmp_path: Path) -> None:
    env: dict[str, str | None] = {
        "STATE_DIRECTORY": "/var/lib/proxyherd/Ann",
        "LOGS_DIRECTORY": "/var/log/proxyherd",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "PROXYHERD_GAZETTEER": "/g.sqlite",
    }
    run("serve", "Ann", "--config", herd.file, env=env)
    (tmp_path / "secret").write_bytes(bytes(32))
    run("serve", "Ann", "--config", herd.file, env=env)
    without, paths = (call[2] for call in served)
    assert without.secret == Path("var/secret")
    assert paths.secret == tmp_path / "secret"
    assert paths.state == Path("/var/lib/proxyherd/Ann")
    assert paths.log == Path("/var/log/proxyherd/Ann.log")
    assert paths.gazetteer == Path("/g.sqlite")


def test_serve_options_win_over_the_environment(served: list[Any], herd: herd_file.Herd) -> None:
    options = (
        "--state-dir s --log-file l --secret-file k --gazetteer-file g --log-max-bytes 9 --log-backups 2"
    )
    run("serve", "Ann", "--config", herd.file, *options.split(), env={"STATE_DIRECTORY": "/elsewhere"})
    assert vars(served[0][2]) == {
        "state": Path("s"),
        "log": Path("l"),
        "secret": Path("k"),
        "gazetteer": Path("g"),
        "log_max_bytes": 9,
        "log_backups": 2,
    }


def test_serve_as_one_of_several_state_directories_chooses_none(
    served: list[Any], herd: herd_file.Herd
) -> None:
    run("serve", "Ann", "--config", herd.file, env={"STATE_DIRECTORY": "/a:/b"})
    assert served[0][2].state == Path("var/lib/Ann")


def test_serve_turns_the_daemons_config_error_into_exit_2(
    served: list[Any], herd: herd_file.Herd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(*_: Any) -> int:
        raise ConfigError("var/secret: is missing")

    monkeypatch.setattr("proxyherd.server.daemon.serve", serve)
    result = run("serve", "Ann", "--config", herd.file)
    assert (result.exit_code, result.stderr) == (2, "Error: var/secret: is missing\n")


# --- iamat and whatsat


@pytest.mark.parametrize("location", ["+34.068930-118.445127", "-33.86+151.2", "-1-1", "--1"])
@pytest.mark.parametrize("option_first", [True, False])
def test_iamat_sends_the_location_as_it_stands(
    herd: herd_file.Herd, location: str, *, option_first: bool
) -> None:
    options, arguments = ["--time", "5.5", "--server", "Bob"], ["kiwi", location]
    with serving(herd.servers["Bob"].clients[0], lambda _: [b"AT Bob +0.1 kiwi ", b"...\n"]) as told:
        order = options + arguments if option_first else arguments + options
        result = run("iamat", *order, "--config", herd.file)
    assert told == [f"IAMAT kiwi {location} 5.5\n".encode()]
    assert (result.exit_code, result.stdout) == (0, "AT Bob +0.1 kiwi ...\n")


def test_iamat_tells_the_first_server_the_time_of_now_in_nanoseconds(herd: herd_file.Herd) -> None:
    before = time.time_ns()
    with serving(herd.servers["Ann"].clients[0], lambda _: [b"AT \n"]) as told:
        run("iamat", "kiwi", "+1+1", "--config", herd.file)
    match = re.fullmatch(rb"IAMAT kiwi \+1\+1 (\d+)\.(\d{9})\n", told[0])
    assert match is not None
    assert before <= int(match[1] + match[2]) <= time.time_ns()


def test_invalid_command_is_printed_and_exit_1(herd: herd_file.Herd) -> None:
    with serving(herd.servers["Ann"].clients[0], lambda line: [b"? " + line]):
        for arguments in (["iamat", "kiwi", "nowhere", "--time", "1"], ["whatsat", "kiwi", "-5", "5"]):
            result = run(*arguments, "--config", herd.file)
            assert result.exit_code == 1
            assert result.stdout.startswith(f"? {arguments[0].upper()} kiwi ")


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("34.06,-118.4", "+34.06-118.4"),
        ("-33.86,151.2", "-33.86+151.2"),
        ("+1,+2", "+1+2"),
        ("-0,-0", "-0-0"),
        ("1,2,3", "1,2,3"),
        ("1,", "+1+"),
    ],
)
def test_iamat_takes_degrees_with_a_comma_too(herd: herd_file.Herd, typed: str, sent: str) -> None:
    with serving(herd.servers["Ann"].clients[0], lambda _: [b"AT Ann +0.1 kiwi\n"]) as told:
        run("iamat", "kiwi", typed, "--time", "5", "--config", herd.file)
    assert told == [f"IAMAT kiwi {sent} 5\n".encode()]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (["34", "-118"], "write 34,-118"),
        (["+34,", "-118"], "write 34,-118"),
        (["34", "-118", "--tme", "5"], "No such option '--tme'"),
    ],
)
def test_iamat_says_that_a_location_is_one_word(herd: herd_file.Herd, typed: list[str], told: str) -> None:
    result = run("iamat", "kiwi", *typed, "--config", herd.file)
    assert result.exit_code == 2
    assert told in result.stderr


def test_what_clients_speak_is_said_by_the_herds_file(herd: herd_file.Herd, tmp_path: Path) -> None:
    result = run("iamat", "kiwi", "1,1", "--ca", tmp_path / "ca.pem", "--config", herd.file)
    assert (result.exit_code, "has no clients_certificate" in result.stderr) == (2, True)
    with herd.file.open("a") as file:
        file.write('[tls]\nclients_certificate = "clients.pem"\nclients_key = "clients.key"\n')
    result = run("whatsat", "kiwi", "1", "1", "--ca", tmp_path / "ca.pem", "--config", herd.file)
    assert result.exit_code == 2
    assert f"{tmp_path}/ca.pem: No such file or directory; name a file with the authority" in result.stderr


TLS = """[tls]
clients_certificate = "clients.pem"
clients_key = "clients.key"
peers_certificate = "peers.pem"
peers_key = "peers.key"
peers_authority = "authority.pem"
"""


@pytest.mark.parametrize(
    ("reason", "is_signer"),
    [
        ("unable to get local issuer certificate", True),
        ("self-signed certificate in certificate chain", True),
        ("self signed certificate", True),
        ("unable to verify the first certificate", True),
        ("certificate has expired", False),
        ("IP address mismatch, certificate is not valid for '127.0.0.1'.", False),
    ],
)
def test_of_a_certificate_that_is_not_trusted_the_option_is_told_if_it_helps(
    herd: herd_file.Herd, monkeypatch: pytest.MonkeyPatch, reason: str, is_signer: bool
) -> None:
    """Another server has the same certificate, or one of the same authority."""

    def refuse(*_: object) -> NoReturn:
        raise Unreachable(
            f"127.0.0.1:1: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {reason} (_ssl.c:1006)"
        )

    monkeypatch.setattr(SyncHerdClient, "command", refuse)
    result = run("iamat", "kiwi", "1,1", "--config", herd.file)
    assert result.exit_code == 3
    told = "; if its certificate is good, name who has signed it with --ca FILE"
    assert result.stderr.endswith(f"{told}\n") == is_signer
    with herd.file.open("a") as file:
        file.write(TLS)
    result = run("iamat", "kiwi", "1,1", "--config", herd.file)
    assert result.exit_code == 3
    why = f"(peers_authority cannot be used: {herd.file.parent}/authority.pem: No such file or directory)"
    assert result.stderr.endswith(f"{told} {why}\n") == is_signer


def test_an_authority_that_cannot_be_read_is_not_missed_where_the_machine_trusts_the_certificate(
    herd: herd_file.Herd, monkeypatch: pytest.MonkeyPatch
) -> None:
    with herd.file.open("a") as file:
        file.write(TLS)
    monkeypatch.setattr(SyncHerdClient, "command", lambda *_: b"AT Ann +0.1 kiwi +1+1 5\n")
    result = run("iamat", "kiwi", "1,1", "--config", herd.file)
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "field", "told"),
    [
        (["iamat", "kiwi", "91,0"], "location", '"+91+0" is no location'),
        (["iamat", "kiwi", "+1+1", "--time", "now"], "time", '"now" is no time'),
        (["whatsat", "kiwi", "60", "5"], "radius_km", '"60" is no radius'),
        (["whatsat", "kiwi", "5", "5"], "client", 'no server has heard of a client "kiwi"'),
    ],
)
def test_why_a_command_is_refused_is_told(
    herd: herd_file.Herd, arguments: list[str], field: str, told: str
) -> None:
    with serving(herd.servers["Ann"].clients[0], lambda line: [b"? " + line]):
        result = run(*arguments, "--config", herd.file)
        as_json = run(*arguments, "--json", "--config", herd.file)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert told in result.stderr
    assert (as_json.exit_code, as_json.stderr) == (1, "")
    said = json.loads(as_json.stdout)
    assert (said["field"], f"{said['detail']}\n") == (field, result.stderr)


def test_answers_for_programs_have_the_names_of_the_web_port(herd: herd_file.Herd) -> None:
    places = '{\r\n  "results": [{"name": "a\u202e"}],\n  "status": "OK"\n}\n\n'
    answers = {b"IAMAT": "AT Ann +0.1 kiwi +1+1 5\n", b"WHATSAT": f"AT Bob -0.1 kiwi +1+1 5\n{places}"}
    with serving(herd.servers["Ann"].clients[0], lambda line: [answers[line.split()[0]].encode()]):
        iamat = run("iamat", "kiwi", "1,1", "--json", "--config", herd.file)
        whatsat = run("whatsat", "kiwi", "5", "5", "--json", "--config", herd.file)
        both = run("whatsat", "kiwi", "5", "5", "--json", "--raw", "--config", herd.file)
    assert json.loads(iamat.stdout) == {
        "at": "AT Ann +0.1 kiwi +1+1 5",
        "server": "Ann",
        "difference": "+0.1",
    }
    assert json.loads(whatsat.stdout) == {"at": "AT Bob -0.1 kiwi +1+1 5", "places": json.loads(places)}
    assert (iamat.exit_code, whatsat.exit_code, both.exit_code) == (0, 0, 2)
    with serving(herd.servers["Ann"].clients[0], lambda _: [b"AT \n"]):  # a stranger's
        assert json.loads(run("iamat", "kiwi", "1,1", "--json", "--config", herd.file).stdout)["at"] == "AT "
    assert all(len(one.stdout.splitlines()) == 1 and one.stdout.isascii() for one in (iamat, whatsat))


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_whatsat_prints_the_whole_answer_however_it_is_cut(herd: herd_file.Herd, size: int) -> None:
    whole = b'AT Ann +0.1 kiwi +1+1 5\n{\n   "results" : [],\n   "status" : "ZERO_RESULTS"\n}\n\n'
    pieces = [whole[i : i + size] for i in range(0, len(whole), size)]
    with serving(herd.servers["Ann"].clients[0], lambda _: pieces) as told:
        result = run("whatsat", "kiwi", "10.5", "5", "--config", herd.file)
    assert told == [b"WHATSAT kiwi 10.5 5\n"]
    assert (result.exit_code, result.stdout_bytes) == (0, whole)


def test_places_are_shown_as_the_same_json_with_nothing_hidden(herd: herd_file.Herd) -> None:
    places = '{\n\t"results" : [{"name": "a\\\\x \u202eb\u200e"}],\n   "status" : "OK"\n}\n\n'
    answer = "AT Ann +0.1 ki\u202ewi +1+1 5\n" + places
    with serving(herd.servers["Ann"].clients[0], lambda _: [answer.encode()]):
        result = run("whatsat", "kiwi", "10", "5", "--config", herd.file)
        raw = run("whatsat", "kiwi", "10", "5", "--config", herd.file, "--raw")
    first, _, rest = result.stdout.partition("\n")
    assert first == "AT Ann +0.1 ki\\u202ewi +1+1 5"
    assert rest == places.replace("\u202e", "\\u202e").replace("\u200e", "\\u200e")
    assert json.loads(rest) == json.loads(places)
    assert raw.stdout_bytes == answer.encode()


def test_what_a_stranger_at_an_admin_port_says_is_shown_escaped(herd: herd_file.Herd) -> None:
    said = "\u202e\x1b[2J \\x1b \x9b\u200e"
    with admin(herd.servers["Ann"].admin[0], page("Ann", "Bob", ready=False, reason=said + "\nmore")):
        result = run("status", "--config", herd.file)
    assert "Ann is not ready: \\u202e\\x1b[2J \\x1b \\u009b\\u200e\\nmore" in result.stderr
    assert result.output.replace("\n", "").isprintable()


@pytest.mark.parametrize("client", ["", "two words", "kiwi\nIAMAT other", "kiwi\t"])
def test_arguments_that_are_not_one_word_are_never_sent(herd: herd_file.Herd, client: str) -> None:
    assert run("iamat", client, "+1+1", "--config", herd.file).exit_code == 2
    assert run("whatsat", client, "1", "1", "--config", herd.file).exit_code == 2


def test_unreachable_server_is_exit_3_and_a_message_that_helps(herd: herd_file.Herd) -> None:
    for arguments in (["iamat", "kiwi", "+1+1"], ["whatsat", "kiwi", "1", "1"]):
        result = run(*arguments, "--config", herd.file)
        assert result.exit_code == 3
        assert result.stdout == ""
        address = herd.servers["Ann"].clients[0]
        assert f"cannot reach Ann at {address}: Connection refused; see `proxyherd status`" in result.stderr
        assert "--server Bob" in result.stderr


def test_unknown_server_is_exit_2_and_lists_the_known(herd: herd_file.Herd) -> None:
    result = run("iamat", "kiwi", "+1+1", "--server", "Cid", "--config", herd.file)
    assert result.exit_code == 2
    assert "no server 'Cid'; it has Ann, Bob" in result.stderr


def test_one_deadline_covers_a_server_that_drips(herd: herd_file.Herd) -> None:
    def drip(_: bytes) -> list[bytes]:
        time.sleep(0.3)
        return [b"AT"]

    server = herd.servers["Ann"]
    with (
        serving(server.clients[0], drip),
        pytest.raises(Unreachable, match=r"timed out \(\d bytes read\)"),
    ):
        ask_once(server, b"IAMAT kiwi +1+1 5", 0.5)


def test_server_that_hangs_up_early_is_no_answer(herd: herd_file.Herd) -> None:
    server = herd.servers["Ann"]
    with socket.create_server((server.clients[0].host, server.clients[0].port)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"AT Ann\n{")

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(Unreachable, match="closed before its answer was whole"):
            ask_once(server, b"WHATSAT kiwi 1 1", 10)
        thread.join()


# --- status


def test_status_of_a_whole_herd(herd: herd_file.Herd) -> None:
    ann, bob = herd.servers.values()
    spoken = {"lines": 2, "http": 0, "websocket": 7}
    with (
        admin(ann.admin[0], page("Ann", "Bob", connections=9, protocols=spoken)),
        admin(bob.admin[0], page("Bob", "Ann", connections=4, protocols={"lines": 4})),
    ):
        result = run("status", "--config", herd.file)
    assert (result.exit_code, result.stderr) == (0, "")
    head, first, second = result.stdout.splitlines()
    assert head.split() == [
        "server",
        "clients",
        "peers",
        "admin",
        "state",
        "links",
        "known",
        "connections",
        "commands",
        "mended",
    ]
    addresses = [str(a[0]) for a in (ann.clients, ann.peers, ann.admin)]
    assert first.split() == ["Ann", *addresses, "ready", "1/1", "123456", "9", "(7", "websocket)", "10", "5"]
    assert second.split()[::7] == ["Bob", "4"]


@pytest.mark.parametrize(
    ("bobs", "state", "remark"),
    [
        (page("Bob", "Ann", **CATCHING_UP), "not ready  1/1", "Bob is not ready: catching up"),
        (
            page("Bob", "Ann", ready=False, reason=""),
            "not ready  1/1",
            "Bob is not ready: it gives no reason",
        ),
        (page("Bob", "Ann", links={"Ann": "catching up"}, ready=False), "not ready  1/1", "Bob is not ready"),
        (page("Bob", "Ann", links={"Ann": "cut"}), "ready  0/1", "Bob has no link with Ann"),
        (page("Bob", "Stranger"), "ready  0/1", "Bob has no link with Ann"),
        (
            page("Bob", "Ann", links={"Ann": "cut"}, refusals={"Ann": "refused: no proof\x1b"}),
            "ready  0/1",
            "Bob has no link with Ann (refused: no proof\\x1b)",
        ),
        (page("Ann", "Bob"), "unknown  -", "another server answers there"),
        ({}, "unknown  -", ": answers 404"),
        ({"/state?commands=no": (200, "<html>\x1b[2J</html>")}, "unknown  -", "no server's state"),
        ({"/state?commands=no": (503, "{}")}, "unknown  -", ": answers 503"),
    ],
)
def test_status_says_what_is_wrong_and_is_exit_1(
    herd: herd_file.Herd, bobs: dict[str, tuple[int, str]], state: str, remark: str
) -> None:
    ann, bob = herd.servers.values()
    with admin(ann.admin[0], page("Ann", "Bob")), admin(bob.admin[0], bobs):
        result = run("status", "--config", herd.file)
    assert result.exit_code == 1
    assert state in result.stdout.splitlines()[2].replace("ready      ", "ready  ")
    assert remark in result.stderr
    assert "\x1b" not in result.output


def test_status_says_that_the_herd_is_on_redis_and_how_to_ask_for_that(herd: herd_file.Herd) -> None:
    ann, bob = herd.servers.values()
    of_redis = {"links": {}, "masters": 3, "masters_up": 3, "file": f"{Path.cwd()}/deploy/redis/herd.toml"}
    with (
        admin(ann.admin[0], page("Ann", "Bob", process=4711, **of_redis)),
        admin(bob.admin[0], page("Bob", "Ann", process=4712, **of_redis)),
    ):
        result = run("status", "--config", herd.file)
    told = "of a herd with its table in Redis; use --config deploy/redis/herd.toml"
    assert (result.exit_code, result.stderr) == (
        1,
        f"Ann (process 4711), Bob (process 4712): {told}, not {herd.file}\n",
    )


def test_status_names_a_second_herd_that_has_the_ports(herd: herd_file.Herd) -> None:
    """All looks well, but it is not the herd that was asked for."""
    ann, bob = herd.servers.values()
    with (
        admin(ann.admin[0], page("Ann", "Bob", process=4711, file="/home/else/herd.toml")),
        admin(bob.admin[0], page("Bob", "Ann", file=str(herd.file.resolve()))),
    ):
        result = run("status", "--config", herd.file)
    assert (result.exit_code, result.stderr) == (
        0,
        f"Ann (process 4711): of another herd; use --config /home/else/herd.toml, not {herd.file}\n",
    )
    with admin(bob.admin[0], page("Riley", "Ann", process=5, file="/home/else/herd.toml")):
        result = run("status", "--config", herd.file)
    assert (
        "another server answers there: Riley, started with /home/else/herd.toml (process 5)" in result.stderr
    )


def test_reasons_are_not_cut_within_a_word(herd: herd_file.Herd) -> None:
    reason = "waits for neighbours " * 20
    with admin(herd.servers["Ann"].admin[0], page("Ann", "Bob", ready=False, reason=reason)):
        one = ask.status(herd, herd.servers["Ann"], 30)
    assert one.problem.endswith((" waits ...", " for ...", " neighbours ..."))
    assert 180 < len(one.problem) <= 200


def test_status_of_a_port_that_speaks_something_else(herd: herd_file.Herd) -> None:
    with serving(herd.servers["Ann"].admin[0], lambda _: [b"? GET\n"]):
        one = ask.status(herd, herd.servers["Ann"], 0.5)
    assert one.state == "unknown"
    assert "timed out" in one.problem


def test_status_names_the_log_of_a_server_that_is_down(
    herd: herd_file.Herd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var/log").mkdir(parents=True)
    (tmp_path / "var/log/Ann.log").write_text("{}\n")
    result = run("status", "--config", herd.file)
    assert result.exit_code == 1
    assert re.search(
        r"^Ann cannot be asked: 127\.0\.0\.1:\d+: Connection refused; see var/log/Ann\.log(?: and /var/log/\S+)?$",
        result.stderr,
        re.MULTILINE,
    )
    assert re.search(
        r"^Bob cannot be asked: 127\.0\.0\.1:\d+: Connection refused$", result.stderr, re.MULTILINE
    )


@pytest.mark.parametrize(("log", "errors", "named"), [(1, 2, True), (2, 2, True), (2, 1, False)])
def test_status_names_what_kept_a_server_from_starting_unless_it_has_started_since(
    herd: herd_file.Herd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: int, errors: int, named: bool
) -> None:
    """Lines of stderr have no times: those older than the log are of an earlier start."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "var/log").mkdir(parents=True)
    for name, seconds in (("Ann.log", log), ("Ann.stderr.log", errors)):
        (tmp_path / "var/log" / name).write_text("{}\n")
        os.utime(tmp_path / "var/log" / name, (seconds, seconds))
    assert ("var/log/Ann.stderr.log" in run("status", "--config", herd.file).stderr) == named


def test_status_asks_all_servers_at_once(herd: herd_file.Herd) -> None:
    with contextlib.ExitStack() as stack:
        for server in herd.servers.values():
            address = server.admin[0]
            stack.enter_context(socket.create_server((address.host, address.port)))  # accepts, says nothing
        start = time.monotonic()
        found = ask.statuses(herd, 0.5)
    assert time.monotonic() - start < 0.9
    assert [one.state for one in found] == ["unknown"] * 2


def test_status_waits_and_returns_the_moment_the_herd_is_whole(herd: herd_file.Herd) -> None:
    ann, bob = herd.servers.values()
    bobs = page("Bob", "Ann", **CATCHING_UP)
    changed: list[float] = []

    def become_ready() -> None:
        changed.append(time.monotonic())
        bobs.update(page("Bob", "Ann"))

    timer = threading.Timer(0.5, become_ready)
    with admin(ann.admin[0], page("Ann", "Bob")), admin(bob.admin[0], bobs):
        timer.start()
        result = run("status", "--wait", "30", "--config", herd.file)
        ended = time.monotonic()
        timer.join()
    assert result.exit_code == 0, result.output
    assert changed[0] <= ended < changed[0] + 2


def test_status_stops_waiting_after_the_seconds_given(herd: herd_file.Herd) -> None:
    start = time.monotonic()
    assert run("status", "--wait", "0.3", "--config", herd.file).exit_code == 1
    assert 0.3 <= time.monotonic() - start < 3


# --- files


def test_new_secret_is_32_bytes_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    old = os.umask(0)
    try:
        assert run("secret", "new", file).exit_code == 0
    finally:
        os.umask(old)
    assert len(file.read_bytes()) == 32
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_secret_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    run("secret", "new", file)
    before = file.read_bytes()
    result = run("secret", "new", file)
    assert result.exit_code == 1
    assert "exists already" in result.stderr
    result = run("secret", "new", file, "--if-missing")
    assert (result.exit_code, result.output) == (0, "")
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("size", "mode", "message"),
    [(31, 0o600, "has 31 bytes"), (32, 0o644, "chmod 600"), (0, 0o600, "has 0 bytes")],
)
def test_unfit_secret_is_an_error(tmp_path: Path, size: int, mode: int, message: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(bytes(size))
    file.chmod(mode)
    result = run("secret", "new", file, "--if-missing")
    assert result.exit_code == 2
    assert message in result.stderr


def test_secret_into_a_missing_folder_or_onto_a_folder_is_an_error(tmp_path: Path) -> None:
    result = run("secret", "new", tmp_path / "no" / "secret")
    assert result.exit_code == 2
    assert "No such file or directory; it is written into an existing directory" in result.stderr
    assert run("secret", "new", tmp_path, "--if-missing").exit_code == 2


@pytest.mark.parametrize("command", ["secret new", "token key"])
def test_where_only_a_part_of_a_secret_can_be_written_there_is_none(tmp_path: Path, command: str) -> None:
    """As on a disk that is full: the system writes what it has room for, and refuses the rest."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        result = run(*command.split(), tmp_path / "secret")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result.exit_code == 2
    told = "File too large; it is written into an existing directory, with room for it"
    assert result.stderr == f"Error: {tmp_path}/secret: {told}\n"
    assert [*tmp_path.iterdir()] == []


def test_gazetteer_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from proxyherd.places.gazetteer import build as gazetteer_build  # noqa: PLC0415 - as the command does

    built: list[Path] = []

    def build(path: Path, progress: Callable[[int, int], None], own: None, base: None) -> None:
        assert own is base is None
        for done in range(0, 1001, 250):
            progress(done, 1000)
        built.append(path)

    monkeypatch.setattr(gazetteer_build, "build", build)
    monkeypatch.setattr(gazetteer_build, "is_current", lambda path, own, base: path in built)
    file = tmp_path / "g.sqlite"
    assert run("gazetteer", "build", file).exit_code == 0
    assert run("gazetteer", "build", env={"PROXYHERD_GAZETTEER": str(file)}).output == ""
    assert built == [file]


# --- the whole


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


def test_each_command_has_a_line_that_80_columns_show_whole() -> None:
    for path in sorted({command[:-1] for command in commands(cli.main)}):
        help_ = run(*path, "--help", env={"COLUMNS": "80"}).stdout
        shown = help_.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()
        names = [command[len(path)] for command in commands(cli.main) if command[: len(path)] == path]
        assert [line.split()[0] for line in shown] == list(dict.fromkeys(names))
        assert all(line.endswith((".", "?")) and not line.endswith("...") for line in shown), shown


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["statsu"], "there is no command 'statsu' (did you mean status?)"),
        (["graze"], "there is no command 'graze'"),
        (["token", "nwe"], "No such command 'nwe'"),
        (["status", "--wiat", "3"], "No such option '--wiat'"),
        (["near", "--limt", "3", "1,1", "5"], "No such option '--limt'"),
        (["export", "--format", "csw"], "'csw' is not one of 'geojson', 'csv'"),
        (["tail", "clark"], "there is no server 'clark' (did you mean Clark?); it has Bailey, Bona,"),
        (["whatsat", "a", "1", "1", "--server", "Bonn"], "there is no server 'Bonn' (did you mean Bona?)"),
        (["journal", "verify", "Zed"], "there is no server 'Zed'; it has Bailey, Bona, Campbell, Clark,"),
    ],
)
def test_wrong_usage_names_what_may_be_meant(arguments: list[str], told: str) -> None:
    result = run("--config", ROOT / "deploy/herd.toml", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_an_unknown_key_names_the_one_that_may_be_meant(herd: herd_file.Herd) -> None:
    herd.file.write_text(f"{herd.file.read_text()}[limits]\nmax_client = 5\n")
    told = run("check-config", "--config", herd.file).stderr
    assert "key limits.max_client: is not known (did you mean max_clients?); the keys here are" in told


def test_every_command_has_help_with_examples() -> None:
    found = list(commands(cli.main))
    assert {command[0] for command in found} == set(cli.COMMAND_NAMES)
    for command in [(), *found]:
        result = run(*command, "--help")
        assert result.exit_code == 0
        assert "Examples:" in result.stdout, command
        assert f"  proxyherd {' '.join(command)}" in result.stdout, command
        assert run(*command, "-h").stdout == result.stdout


def test_what_may_not_be_read_is_named_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enter_folder(tmp_path, monkeypatch, [])

    def refuse(path: Path, **_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(Path, "is_dir", refuse)
    done = CliRunner().invoke(cli.main, ["forget", "--prefix", "k", "--dry-run"])
    assert done.exit_code == 1
    assert done.stderr == "Error: var/lib/Ann/journal: Permission denied; see who may use it\n"


def test_a_working_directory_that_was_deleted_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    for command in ("init", "down"):
        done = CliRunner().invoke(cli.main, [command])
        assert done.exit_code == 1
        assert done.stderr == "Error: the working directory was deleted; go to another one\n"
