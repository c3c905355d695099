"""What `proxyherd up` tells to type next fits the herd and the way that it was started."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxyherd.cli import main, up
from proxyherd.config import herd_file
from proxyherd.local import conf, messages
from proxyherd.local import herd as local_herd

ROOT = Path(__file__).parents[2]


TRIO = """edges = [["Ann", "Bob"], ["Bob", "Cat"]]
[servers]
Ann = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
Bob = { clients = "127.0.0.1:4", peers = "127.0.0.1:5", admin = "127.0.0.1:6" }
Cat = { clients = "127.0.0.1:7", peers = "127.0.0.1:8", admin = "127.0.0.1:9" }
"""


def test_a_folder_without_a_herd_is_told_how_it_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["up"])
    assert done.exit_code == 2
    assert done.stderr.startswith(
        "proxyherd up: supervisord.conf: No such file or directory; type proxyherd init"
    )


def test_servers_that_supervisord_does_not_know_are_told_before_they_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may run on another host."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(local_herd, "up", lambda: None)
    (tmp_path / "herd.toml").write_text(TRIO)
    words = {"up": "", "supervisorctl": "", "docs": ""}
    (tmp_path / "supervisord.conf").write_text(
        conf.spell_conf(["Ann", "Bob"], "herd.toml", "/bin/true", words)
    )
    done = CliRunner().invoke(main, ["up"])
    assert done.exit_code == 0
    assert done.stderr.startswith("proxyherd up: supervisord.conf does not run Cat; ")


def steps(file: Path) -> list[str]:
    return [" ".join(line.split()) for line in up.next_steps(herd_file.load(file)).splitlines()]


def test_addresses_are_the_herds(tmp_path: Path) -> None:
    default = steps(ROOT / "deploy/herd.toml")
    assert "nc 127.0.0.1 10003 and type there:" in default
    assert "http://127.0.0.1:10300/ in a browser: report where it is, and see what is around" in default
    assert "http://127.0.0.1:10203/ in a browser: the state of the whole herd" in default
    assert [line for line in default if line.endswith("tail -f herd:Clark")]
    one = '[servers]\nAnn = { clients = "127.0.0.1:7", peers = "127.0.0.1:8", admin = "127.0.0.1:9" }\n'
    (tmp_path / "one.toml").write_text(one)
    alone = steps(tmp_path / "one.toml")
    assert "nc 127.0.0.1 7 and type there:" in alone
    assert not [line for line in alone if re.search("Clark|report where it is| near ", line)]


def test_where_client_ports_speak_tls_nothing_is_typed_in_plain(tmp_path: Path) -> None:
    for name in ("clients.pem", "clients.key"):
        (tmp_path / name).touch()
    tls = '[tls]\nclients_certificate = "clients.pem"\nclients_key = "clients.key"\n'
    (tmp_path / "herd.toml").write_text(TRIO + tls)
    told = steps(tmp_path / "herd.toml")
    assert "openssl s_client -quiet -connect 127.0.0.1:7 and type there:" in told
    assert not [line for line in told if line.startswith("nc ")]


def test_who_typed_make_is_told_to_type_make(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps(ROOT / "deploy/herd.toml")[-1].endswith("proxyherd down")
    monkeypatch.setattr(messages, "_MADE", "make run")
    made = steps(ROOT / "deploy/herd.toml")
    assert made[-1] == "make stop"
    assert "make example fifty phones move on a map, with a fence that lights up" in made
