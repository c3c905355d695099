"""What the herd is deployed with: herd's files, supervisord's, systemd's and the Makefile's, held together."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from debian import needs
from supervisor.datatypes import RestartWhenExitUnexpected  # type: ignore[import-untyped]
from supervisor.options import ServerOptions  # type: ignore[import-untyped]

from proxyherd.config import herd_file

ROOT = Path(__file__).parents[2]
UNITS = ["proxyherd@.service", "proxyherd.target", "proxyherd-gazetteer.service"]

TOPOLOGIES = {
    "2022": "Clark-Jaquez Clark-Juzang Bernard-Juzang Bernard-Jaquez Bernard-Johnson Juzang-Johnson",
    "2021": "Riley-Jaquez Riley-Juzang Bernard-Jaquez Bernard-Juzang Bernard-Campbell Juzang-Campbell",
    "2020": "Hill-Jaquez Hill-Smith Singleton-Jaquez Singleton-Smith Singleton-Campbell Smith-Campbell",
    "2018": "Goloman-Hands Goloman-Holiday Goloman-Wilkes Hands-Wilkes Holiday-Welsh Holiday-Wilkes",
    "2017": "Alford-Hamilton Hamilton-Holiday Holiday-Ball Ball-Welsh Welsh-Alford",
    "2016": "Alford-Parker Alford-Welsh Bolden-Parker Bolden-Welsh Hamilton-Parker",
    "2015": "Alford-Parker Alford-Powell Bolden-Parker Bolden-Powell Hamilton-Parker",
}
HERDS = {
    "herd.toml": "Bailey-Campbell Bailey-Bona Bona-Clark Bona-Campbell Campbell-Jaquez Clark-Jaquez",
    **{f"topologies/{year}.toml": edges for year, edges in TOPOLOGIES.items()},
}


# --- the herds' files


def test_there_is_no_topology_but_those_tested() -> None:
    assert {file.stem for file in (ROOT / "deploy/topologies").iterdir()} == TOPOLOGIES.keys()


@pytest.mark.parametrize("file", HERDS)
def test_herds_file_has_its_graph_and_ports(file: str) -> None:
    herd = herd_file.load(ROOT / "deploy" / file)
    assert {frozenset(edge) for edge in herd.edges} == {
        frozenset(edge.split("-")) for edge in HERDS[file].split()
    }
    assert len(herd.edges) == len(HERDS[file].split())
    assert len(herd.islands()) == 1
    assert list(herd.servers) == sorted(herd.servers)
    for number, server in enumerate(herd.servers.values()):
        ports = [address.port for addresses in server.addresses.values() for address in addresses]
        web = [10300 + number] if file == "herd.toml" else []  # the other graphs are for grading
        assert ports == [10000 + number, 10100 + number, 10200 + number, *web]
        assert all(address.is_loopback for addresses in server.addresses.values() for address in addresses)


# --- containers


def test_an_image_is_built_from_what_it_needs_and_the_containers_secret_goes_nowhere() -> None:
    folder = ROOT / "deploy/container"
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    text = (folder / "Containerfile").read_text()
    copied = {
        name for line in re.findall(r"^COPY ([^-].*) \S+$", text, re.MULTILINE) for name in line.split()
    }
    assert copied <= {line.removeprefix("!/") for line in ignored} | {"deploy/container/herd.toml"}
    assert "*" in ignored
    secret = yaml.safe_load((folder / "compose.yml").read_text())["secrets"]["proxyherd"]["file"]
    assert ignored.index(f"/deploy/container/{secret}") > ignored.index("!/deploy")
    git = ROOT / ".gitignore"
    assert not git.exists() or f"/deploy/container/{secret}" in git.read_text().splitlines()


def test_compose_has_a_service_for_each_server_with_its_port_and_its_health() -> None:
    folder = ROOT / "deploy/container"
    herd, default = herd_file.load(folder / "herd.toml"), herd_file.load(ROOT / "deploy/herd.toml")
    assert herd.edges == default.edges
    services = yaml.safe_load((folder / "compose.yml").read_text())["services"]
    assert [services[name.lower()]["command"] for name in herd.servers] == [[name] for name in herd.servers]
    assert len(services) == len(herd.servers)
    for name, server in herd.servers.items():
        service = services[name.lower()]
        [clients], (own, _) = server.clients, server.admin
        assert clients.host == name.lower()
        assert service["ports"] == [f"127.0.0.1:{clients.port}:{clients.port}"]
        assert f"http://{own}/readyz" in service["healthcheck"]["test"][-1]
        assert service["volumes"] == [f"{name.lower()}:/var/lib/proxyherd"]
        assert service["stop_grace_period"] == "15s"
        assert herd.timing.drain_seconds < 15


# --- supervisord


@pytest.fixture
def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServerOptions:
    """supervisord.conf as supervisord itself reads it, in a folder with a space and % in its name."""
    here = tmp_path / "a 100% herd %(x)s"
    (here / "var/log").mkdir(parents=True)
    (here / "var/run").mkdir()
    shutil.copy(ROOT / "supervisord.conf", here)
    monkeypatch.chdir(here)
    options = ServerOptions()
    options.realize(["-c", str(here / "supervisord.conf")])
    assert options.parse_warnings == []
    assert options.parse_infos == []
    return options


def test_supervisord_runs_the_default_herd_in_one_group(supervised: ServerOptions) -> None:
    [group] = supervised.process_group_configs
    assert group.name == "herd"
    names = [program.name for program in group.process_configs]
    assert sorted(names) == list(herd_file.load(ROOT / "deploy/herd.toml").servers)


def test_supervisord_leaves_the_log_to_the_server_and_restarts_for_ever(supervised: ServerOptions) -> None:
    here = Path(supervised.here)
    [group] = supervised.process_group_configs
    assert {program.name for program in group.process_configs} == set(
        herd_file.load(ROOT / "deploy/herd.toml").servers
    )
    for program in group.process_configs:
        assert program.command == (
            f'"{here}/.venv/bin/proxyherd" serve {program.name} --log-max-bytes 67108864 --log-backups 4'
        )
        assert program.directory == str(here)
        assert program.stdout_logfile == f"var/log/{program.name}.log"
        assert program.stdout_logfile_maxbytes == 0
        assert program.stderr_logfile == f"var/log/{program.name}.stderr.log"
        assert program.autorestart is RestartWhenExitUnexpected
        assert program.exitcodes == [2]
        assert (program.startsecs, program.stopwaitsecs) == (2, 10)
        assert program.startretries > 10**6
        assert program.autostart


def test_supervisord_keeps_to_its_folder_and_to_its_owner(supervised: ServerOptions) -> None:
    here = Path(supervised.here)
    assert supervised.logfile == f"{here}/var/log/supervisord.log"
    assert supervised.pidfile == f"{here}/var/run/supervisord.pid"
    [server] = supervised.server_configs
    assert (server["file"], server["chmod"]) == (f"{here}/var/run/supervisor.sock", 0o700)
    [section] = [supervised.configroot.supervisord]
    assert section.environment == {"PROXYHERD_CONFIG": "deploy/herd.toml"}


# --- systemd


def verify(tmp_path: Path, *units: str) -> subprocess.CompletedProcess[str]:
    for unit in UNITS:
        text = (ROOT / "systemd" / unit).read_text()
        (tmp_path / unit).write_text(text.replace("/usr/local/bin/proxyherd", "/bin/true"))
        (tmp_path / unit).chmod(0o644)
    return subprocess.run(
        ["systemd-analyze", *units], cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False
    )


needs_systemd = needs("systemctl")  # and so systemd-analyze


@needs_systemd
def test_units_are_what_systemd_understands(tmp_path: Path) -> None:
    done = verify(
        tmp_path, "verify", "./proxyherd@Clark.service", "./proxyherd.target", "./proxyherd-gazetteer.service"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
@pytest.mark.parametrize("unit", ["proxyherd@.service", "proxyherd-gazetteer.service"])
def test_units_are_hardened(tmp_path: Path, unit: str) -> None:
    done = verify(tmp_path, "security", "--offline=true", "--no-pager", "--threshold=15", f"./{unit}")
    assert done.returncode == 0, done.stdout


def settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (ROOT / "systemd" / unit).read_text().splitlines():
        if match := re.fullmatch(r"(\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def test_unit_of_a_server_restarts_for_ever_but_not_on_bad_configuration() -> None:
    unit = settings("proxyherd@.service")
    expected = {
        "Type": "notify",
        "NotifyAccess": "main",
        "Restart": "always",
        "RestartPreventExitStatus": "2",
        "StartLimitIntervalSec": "0",
        "WatchdogSec": "10",
        "PartOf": "proxyherd.target",
        "WantedBy": "proxyherd.target",
        "User": "proxyherd",
        "StateDirectory": "proxyherd/%i",
        "LogsDirectory": "proxyherd",
        "LimitNOFILE": "65536",
    }
    assert {key: unit[key] for key in expected} == {key: [value] for key, value in expected.items()}


def test_the_secret_is_required_and_the_other_credentials_are_not() -> None:
    unit = settings("proxyherd@.service")
    optional = [
        *("secret.next", "secret.old", "secret.table"),
        *("token-key", "token-key.next", "token-key.old"),
    ]
    optional.append("google-places-api-key")
    assert unit["SetCredential"] == [rf"{name}:\n" for name in optional]
    assert unit["LoadCredential"] == [f"{name}:/etc/proxyherd/{name}" for name in ("secret", *optional)]


def test_units_start_commands_that_there_are() -> None:
    from click.testing import CliRunner  # noqa: PLC0415 - only here

    from proxyherd.cli import main  # noqa: PLC0415 - only here

    for unit in ("proxyherd@.service", "proxyherd-gazetteer.service"):
        [command] = settings(unit)["ExecStart"]
        program, *arguments = command.replace("%i", "Clark").split()
        assert program == "/usr/local/bin/proxyherd"
        assert CliRunner().invoke(main, [*arguments, "--help"]).exit_code == 0


def test_continuous_integration_lints_then_tests_also_with_the_lowest_versions_then_samples_mutants() -> None:
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    made = [line.split()[1] for line in script.read_text().splitlines() if line.startswith("make ")]
    assert made == ["lint", "test", "test-lowest", "mutants"]
