"""The command prometheus-targets: by which addresses servers are scraped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxyherd import cli
from proxyherd.config import herd_file

ROOT = Path(__file__).parents[2]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(one) for one in arguments], env={"PROXYHERD_CONFIG": None})


def herds_file(folder: Path, admin: str, hosts: str = "", peers: str = "127.0.0.1:10100") -> Path:
    file = folder / "herd.toml"
    file.write_text(
        f'[servers]\nAnn = {{ clients = "127.0.0.1:10000", peers = "{peers}", admin = {admin} }}\n'
        f"[admin]\nhosts = [{hosts}]\n"
    )
    return file


def targets(text: str) -> list[str]:
    return [target for group in json.loads(text) for target in group["targets"]]


@pytest.mark.parametrize("file", sorted((ROOT / "deploy").rglob("*.toml")), ids=lambda file: file.stem)
def test_every_server_of_a_herd_is_one_target_with_its_name(file: Path) -> None:
    result = run("prometheus-targets", "--config", file)
    assert (result.exit_code, result.stderr) == (0, "")
    groups = json.loads(result.stdout)
    herd = herd_file.load(file)
    assert [group["labels"] for group in groups] == [{"server": name} for name in herd.servers]
    for group, server in zip(groups, herd.servers.values(), strict=True):
        assert len(group["targets"]) == 1
        assert group["targets"][0] in map(str, server.admin)


@pytest.mark.parametrize(
    ("address", "hosts", "expected"),
    [
        ('"127.0.0.1:10200"', "", "127.0.0.1:10200"),
        ('"[::1]:10200"', "", "[::1]:10200"),
        ('["127.0.0.1:10200", "10.0.0.3:10201"]', '"10.0.0.3"', "10.0.0.3:10201"),
        ('["127.0.0.1:10200", "10.0.0.3:10201"]', "", "127.0.0.1:10200"),
        ('["10.0.0.2:10200", "10.0.0.3:10201"]', '"10.0.0.3"', "10.0.0.3:10201"),
        ('["0.0.0.0:10200", "127.0.0.1:10201"]', "", "127.0.0.1:10201"),
        ('"[fd00::3]:10200"', '"[fd00::3]"', "[fd00::3]:10200"),
        ('"ann.example.com:10200"', '"Ann.Example.com"', "ann.example.com:10200"),
    ],
)
def test_target_is_the_address_that_reaches_furthest_of_those_that_are_served(
    tmp_path: Path, address: str, hosts: str, expected: str
) -> None:
    result = run("prometheus-targets", "--config", herds_file(tmp_path, address, hosts))
    assert (result.exit_code, targets(result.stdout)) == (0, [expected])


@pytest.mark.parametrize(
    ("address", "option", "hosts", "expected"),
    [
        ('"0.0.0.0:10200"', "Ann=ann.example.com", '"ann.example.com"', "ann.example.com:10200"),
        ('"[::]:10200"', "Ann=[fd00::3]", '"[fd00::3]"', "[fd00::3]:10200"),
        ('["127.0.0.1:10200", "[::]:10201"]', "Ann=10.0.0.3", '"10.0.0.3"', "10.0.0.3:10201"),
        ('"10.0.0.3:10200"', "Ann=ann.example.com", '"ann.example.com:10200"', "ann.example.com:10200"),
    ],
)
def test_host_by_which_a_server_is_scraped_can_be_said(
    tmp_path: Path, address: str, option: str, hosts: str, expected: str
) -> None:
    file = herds_file(tmp_path, address, hosts)
    result = run("prometheus-targets", "--config", file, "--host", option)
    assert (result.exit_code, targets(result.stdout)) == (0, [expected])


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        ('"0.0.0.0:10200"', [], "0.0.0.0:10200 is every address of its host, and none to ask: say which with --host"),
        ('"[0::0]:10200"', [], "--host Ann=HOST, and put HOST into hosts of [admin]"),
        ('"10.0.0.3:10200"', [], 'with 403: add "10.0.0.3" to hosts of [admin], and restart Ann'),
        ('"0.0.0.0:10200"', ["--host", "Ann=ann.example.com"], 'add "ann.example.com" to hosts of [admin]'),
        ('"127.0.0.2:10200"', [], 'add "127.0.0.2" to hosts'),
        ('"127.0.0.1:10200"', ["--host", "Bob=bob.example.com"], "there is no server 'Bob'; it has Ann"),
        ('"127.0.0.1:10200"', ["--host", "Ann"], "'Ann' is no NAME=HOST, such as"),
        ('"127.0.0.1:10200"', ["--host", "Ann=a:1"], "'Ann=a:1' is no NAME=HOST"),
    ],
)  # fmt: skip
def test_server_that_cannot_be_scraped_is_an_error_with_its_remedy_and_nothing_is_written(
    tmp_path: Path, address: str, options: list[str], message: str
) -> None:
    output = tmp_path / "targets.json"
    output.write_text("as before")
    file = herds_file(tmp_path, address)
    result = run("prometheus-targets", "--config", file, "--output", output, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert output.read_text() == "as before"


def test_loopback_in_a_herd_of_several_hosts_is_a_warning(tmp_path: Path) -> None:
    result = run(
        "prometheus-targets", "--config", herds_file(tmp_path, '"127.0.0.1:10200"', peers="10.0.0.3:10100")
    )
    assert (result.exit_code, targets(result.stdout)) == (0, ["127.0.0.1:10200"])
    assert "only a Prometheus on the same host reaches Ann" in result.stderr


def test_who_reads_the_old_list_reads_it_whole_while_a_new_one_is_written(tmp_path: Path) -> None:
    output = tmp_path / "targets.json"
    output.write_text("the old list")
    with output.open() as reader:
        assert (
            run("prometheus-targets", "--config", ROOT / "deploy/herd.toml", "--output", output).exit_code
            == 0
        )
        assert reader.read() == "the old list"
    assert len(targets(output.read_text())) == 5
    assert output.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir()] == ["targets.json"]


@pytest.mark.parametrize("output", ["no/targets.json", "folder"])
def test_list_that_cannot_be_written_is_an_error(tmp_path: Path, output: str) -> None:
    (tmp_path / "folder").mkdir()
    file = herds_file(tmp_path, '"127.0.0.1:10200"')
    result = run("prometheus-targets", "--config", file, "--output", tmp_path / output)
    assert result.exit_code == 2
    assert str(tmp_path / output) in result.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["folder", "herd.toml"]
