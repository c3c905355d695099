"""Prometheus on a real herd: targets, rates, alerts and the dashboard's queries; and what can be said of the files alone."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from debian import needs
from gazetteer_file import gazetteer_file
from herd_process import (
    PATIENCE_SECONDS,
    Connection,
    RunningHerd,
    ServerProcess,
    herd_of,
    wait_until,
    write_secret,
)
from places_sim import InThread, simulator_in_thread
from prometheus import (
    SHIPPED,
    TARGETS,
    Prometheus,
    alerts,
    hasten,
    queries,
    running_prometheus,
    seconds,
    section,
    variables,
)

from proxyherd import cli
from proxyherd.config import herd_file
from proxyherd.standin.app import Faults

pytestmark = pytest.mark.xdist_group("prometheus")

ROOT = Path(__file__).parents[2]
EDGES = herd_file.load(ROOT / "deploy/herd.toml").edges

SETTINGS = """
[web]
[timing]
compare_seconds = 5
[places]
provider = "auto"
base_url = "%s"
attempts = 1
breaker_failures = 3
breaker_seconds = 3
"""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(one) for one in arguments], env={"PROXYHERD_CONFIG": None})


def promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["promtool", *map(str, arguments)],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def targets(text: str) -> list[str]:
    return [target for group in json.loads(text) for target in group["targets"]]


# --- configuration and rules


@needs("promtool")
def test_configuration_and_rules_are_what_prometheus_understands(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns(TARGETS))
    (folder / TARGETS).write_text(run("prometheus-targets", "--config", ROOT / "deploy/herd.toml").stdout)
    done = promtool("check", "config", folder / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert done.stdout.count("rules found") == len(list((SHIPPED / "rules").iterdir()))


@needs("promtool")
@pytest.mark.parametrize("file", sorted((SHIPPED / "tests").iterdir()), ids=lambda file: file.stem)
def test_rules_do_what_their_tests_say(file: Path) -> None:
    done = promtool("test", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


"""Those of Grafana's that are used; what is counted has `none` or `short`."""


# --- live


class Live:
    """A herd, what stands in for Google, and the Prometheus that watches."""

    def __init__(self, herd: RunningHerd, google: InThread, prometheus: Prometheus, folder: Path) -> None:
        self.herd = herd
        self.google = google
        self.prometheus = prometheus
        self.list = folder / TARGETS

    def write_targets(self) -> None:
        subprocess.run(
            [
                sys.executable,
                "-m",
                "proxyherd",
                "prometheus-targets",
                "--config",
                self.herd.file,
                "--output",
                self.list,
            ],
            check=True,
            timeout=600,
        )

    def commands(self, server: str) -> dict[str, float]:
        """Return the commands that Prometheus knows of a server, by kind and outcome."""
        found = self.prometheus.query(f'proxyherd_commands_total{{server="{server}"}}')
        return {f"{labels['command']} {labels['outcome']}": value for labels, value in found}

    def wait_until_scraped(self, server: str) -> None:
        """Wait until Prometheus knows what this server has counted by now."""
        figures = self.herd[server].metrics("proxyherd_commands_total")
        wait_until(
            lambda: sum(self.commands(server).values()) >= sum(figures.values()), f"{server} is scraped again"
        )

    def wait_until_firing(self, alert: str, **labels: str) -> None:
        wait_until(lambda: self.fires(alert, **labels), f"{alert} {labels} fires")

    def wait_until_over(self, alert: str, **labels: str) -> None:
        wait_until(lambda: not self.fires(alert, **labels), f"{alert} {labels} is over")

    def fires(self, alert: str, **labels: str) -> bool:
        return any(labels.items() <= one.items() for one in self.prometheus.firing(alert))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The default herd: Bailey answers from the gazetteer, the others ask a Google that answers from it too."""
    folder = tmp_path_factory.mktemp("prometheus") / "prometheus"
    hasten(folder)
    with contextlib.ExitStack() as stack:
        google = stack.enter_context(simulator_in_thread())
        environ = {"GOOGLE_PLACES_API_KEY": "a-key-for-tests"}
        herd = stack.enter_context(herd_of(EDGES, more=SETTINGS % google.url, environ=environ))
        herd.gazetteer = gazetteer_file()
        del herd["Bailey"].environ["GOOGLE_PLACES_API_KEY"]
        herd.start()
        herd.wait_until_whole()
        prometheus = stack.enter_context(running_prometheus(folder))
        assert prometheus.query("up") == []
        found = Live(herd, google, prometheus, folder)
        found.write_targets()  # which Prometheus notices while it runs
        wait_until(lambda: prometheus.value("sum(up)") == len(herd), "all targets are up")
        yield found


live_only = needs("prometheus", "promtool")


@live_only
def test_all_five_targets_are_up_with_their_names(live: Live) -> None:
    active = live.prometheus.ask("targets", state="active")["activeTargets"]
    assert {one["labels"]["server"]: (one["labels"]["instance"], one["health"]) for one in active} == {
        server.name: (f"127.0.0.1:{server.admin_port}", "up") for server in live.herd.values()
    }
    assert {one["labels"]["job"] for one in active} == {"proxyherd"}


@live_only
def test_every_rule_is_evaluated_without_an_error(live: Live) -> None:
    def evaluated() -> list[dict[str, Any]]:
        groups = live.prometheus.ask("rules")["groups"]
        every = [rule for group in groups for rule in group["rules"]]
        return every if all(rule["health"] != "unknown" for rule in every) else []

    found = wait_until(evaluated, "every rule has been evaluated")
    assert {rule["name"]: rule.get("lastError") for rule in found if rule["health"] != "ok"} == {}
    assert {rule["name"] for rule in found if rule["type"] == "alerting"} == alerts().keys()


@live_only
def test_counters_grow_by_exactly_what_was_sent_and_rates_match(live: Live) -> None:
    load = {"iamat stored": 300, "whatsat answered": 40, "iamat stale": 30, "other invalid": 20}
    clark = live.herd["Clark"]
    with clark.connect() as client:
        send_load(
            client, dict.fromkeys(load, 1), clock=0
        )  # so that every series is there, and its rise is seen
        live.wait_until_scraped("Clark")
        before = live.commands("Clark")
        send_load(client, load, clock=200)
    live.wait_until_scraped("Clark")
    assert live.commands("Clark") == {kind: count + load.get(kind, 0) for kind, count in before.items()}

    window = seconds("5m")
    for command in ("iamat", "whatsat", "other"):
        sent = sum(count for kind, count in load.items() if kind.startswith(command))
        rate = f'instance_command:proxyherd_commands:rate5m{{server="Clark", command="{command}"}} * {window}'

        # A rate of 10 s is made of samples that lie 9.5 s apart, and extrapolated.
        def matches(rate: str = rate, sent: int = sent) -> bool:
            return sent * 0.98 <= (live.prometheus.value(rate) or 0) <= sent * 1.12

        wait_until(matches, f"{sent} {command} show in {rate}")


def send_load(client: Connection, load: dict[str, int], clock: int) -> None:
    """Send so many commands of each kind, and wait for all answers."""
    for number in range(load["iamat stored"]):
        assert client.ask(b"IAMAT load +1+1 %d" % (clock + number)).startswith(b"AT Clark")
    for _ in range(load["iamat stale"]):
        assert client.ask(b"IAMAT load +1+1 %d" % clock).startswith(b"AT Clark")
    for _ in range(load["whatsat answered"]):
        assert client.ask(b"WHATSAT load 0 0").startswith(b"AT Clark")
    for _ in range(load["other invalid"]):
        assert client.ask(b"FOO") == b"? FOO\n"


@live_only
def test_alert_fires_when_a_server_is_killed_and_ends_when_it_is_back(live: Live) -> None:
    jaquez = live.herd["Jaquez"]
    assert not live.fires("ProxyherdServerDown")
    jaquez.kill()
    try:
        live.wait_until_firing("ProxyherdServerDown", server="Jaquez", severity="critical")
        assert [one["server"] for one in live.prometheus.firing("ProxyherdServerDown")] == ["Jaquez"]
    finally:
        jaquez.start()
        live.herd.wait_until_whole()
    live.wait_until_over("ProxyherdServerDown")


@live_only
def test_alert_fires_when_two_servers_run_and_have_no_link_and_ends_with_the_link(
    live: Live, tmp_path: Path
) -> None:
    jaquez = live.herd["Jaquez"]
    right = jaquez.secret_file
    jaquez.kill()
    try:
        jaquez.secret_file = tmp_path / "secret"
        write_secret(jaquez.secret_file)
        jaquez.start()
        for server, neighbour in (("Jaquez", "Clark"), ("Clark", "Jaquez")):
            live.wait_until_firing("ProxyherdLinkDown", server=server, neighbour=neighbour)
        assert not live.fires("ProxyherdServerDown")
    finally:
        jaquez.secret_file = right
        jaquez.kill()
        jaquez.start()
        live.herd.wait_until_whole()
    live.wait_until_over("ProxyherdLinkDown")


@live_only
def test_alert_fires_while_a_server_has_given_google_up_and_ends_when_google_is_back(live: Live) -> None:
    bona = live.herd["Bona"]
    bona.hears(b"breaker")

    def ask() -> bool:
        with bona.connect() as client:
            client.ask(b"WHATSAT breaker 5 5")
        return live.fires("ProxyherdPlacesBreakerOpen", server="Bona")

    live.google.faults = Faults(errors=1.0)
    try:
        wait_until(ask, "ProxyherdPlacesBreakerOpen fires")
    finally:
        live.google.faults = Faults()
    wait_until(lambda: not ask(), "ProxyherdPlacesBreakerOpen is over")


ZERO = {
    "Neighbours' lines skipped": "no neighbour sends a line that is not to be learned",
    "Journal failing": "the disk works",
    "Failures to write": "likewise",
    "Log lines lost": "likewise",
    "Clients over a rate": "loopback has no rates",
    "Waits for a rate": "likewise",
    "Connections refused": "there is room",
    "Clients known, by server": "servers agree; of its two queries one is of the difference",
}
"""Panels that may show nothing but zero here, and why."""


def shown(query: str) -> str:
    """Return a query as Grafana sends it, all servers chosen, `$__rate_interval` being what rates of rules are here."""
    for name, value in {
        "$__rate_interval": f"{seconds('5m'):.0f}s",
        "$job": "proxyherd",
        "$server": ".*",
    }.items():
        query = query.replace(name, value)
    return query


@live_only
def test_every_query_of_the_dashboard_finds_data(live: Live) -> None:
    make_all_happen(live)
    assert ZERO.keys() <= {title for title, _ in queries()}
    missing = {title: query for title, query in queries() if not has_data(live, title, query)}
    assert missing == {}


def has_data(live: Live, title: str, query: str) -> bool:
    found = [value for _, value in live.prometheus.history(shown(query))]
    return any(value > 0 for value in found) or (title in ZERO and found != [])


def make_all_happen(live: Live) -> None:
    """Let everything happen that a panel counts, twice: the first of its kind is no rise that a rate could see."""
    for number in range(2):
        for server in live.herd.values():
            with server.connect() as client:
                client.ask(b"IAMAT %b +34.07-118.44 %d" % (server.name.encode(), number + 100))
                client.ask(b"IAMAT old +34.07-118.44 1")
                client.ask(b"IAMAT %b +1+1 5" % (b"long" * 200))
                client.ask(b"IAMAT %b nowhere 1" % server.name.encode())
                assert b'"OK"' in client.ask(b"WHATSAT %b 10 5" % server.name.encode())
                client.ask(b"x" * 9_000)
            ask_web_port(server)
        for name in live.herd:
            live.wait_until_scraped(name)
    hang(live)
    fail(live)
    kill(live)


def ask_web_port(server: ServerProcess) -> None:
    """Let a page report, and an app send what is of no use."""
    connection = HTTPConnection("127.0.0.1", server.web_port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        for method, path, body in (
            ("PUT", f"/v1/clients/{server.name}", b'{"lat":34.07,"lon":-118.44}'),
            ("POST", "/owntracks", b'{"_type":"lwt"}'),
        ):
            connection.request(method, path, body, {"Content-Type": "application/json"})
            with connection.getresponse() as response:
                assert response.status == 200
                response.read()


def hang(live: Live) -> None:
    """Let a query wait for Google until Prometheus has seen it."""
    live.google.faults = Faults(latency=1.5)
    try:
        with live.herd["Campbell"].connect() as client:
            client.send(b"WHATSAT Campbell 20 5")
            wait_until(
                lambda: live.prometheus.value("max(proxyherd_places_in_flight)"), "a query in flight is seen"
            )
            client.places()
    finally:
        live.google.faults = Faults()


def fail(live: Live) -> None:
    """Let Google fail until a server gives it up, and be back until it asks again."""
    clark = live.herd["Clark"]
    live.google.faults = Faults(errors=1.0)
    try:
        for _ in range(4):
            clark.ask(b"WHATSAT Clark 10 5")
        wait_until(
            lambda: live.prometheus.value('proxyherd_places_breaker_state{server="Clark", state="open"}'),
            "an open breaker is seen",
        )
    finally:
        live.google.faults = Faults()
    wait_until(lambda: b'"OK"' in clark.ask(b"WHATSAT Clark 10 5"), "the breaker is closed again")


def kill(live: Live) -> None:
    """Let a server be down until an alert says so, and miss something meanwhile."""
    jaquez = live.herd["Jaquez"]
    jaquez.kill()
    try:
        live.wait_until_firing("ProxyherdServerDown", server="Jaquez")
        live.herd["Campbell"].hears(b"missed")
    finally:
        jaquez.start()
        live.herd.wait_until_whole()
    mended = 'max_over_time(proxyherd_mended_entries{server="Jaquez"}[1m]) > 0'
    wait_until(lambda: live.prometheus.query(mended), "what was mended is seen")
    live.wait_until_over("ProxyherdServerDown")


@live_only
@pytest.mark.parametrize("name", ["job", "server"])
def test_variables_of_the_dashboard_have_values(live: Live, name: str) -> None:
    match = re.fullmatch(r"label_values\((.*), (\w+)\)", variables()[name]["query"]["query"])
    assert match is not None
    found = live.prometheus.ask(f"label/{match[2]}/values", **{"match[]": shown(match[1])})
    assert found == {"job": ["proxyherd"], "server": sorted(live.herd)}[name]


# --- the docs' steps


def steps(text: str) -> str:
    [block] = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return str(block)


def run_apart(script: str, cwd: Path) -> str:
    """Run a script with mounts, processes and a network of its own, all of which end with it."""
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-euc",
            script,
        ],
        cwd=cwd,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs("promtool", root=True)
@pytest.mark.parametrize("times", [1, 3])
def test_steps_in_operations_install_a_whole_configuration_and_lose_none_that_was_there(
    tmp_path: Path, times: int
) -> None:
    apart = f"""
        mount -t tmpfs tmpfs {tmp_path}
        mkdir {tmp_path}/upper {tmp_path}/work
        mount -t overlay overlay -o lowerdir=/etc,upperdir={tmp_path}/upper,workdir={tmp_path}/work /etc
        rm -rf /etc/prometheus
        mkdir -p /etc/proxyherd /etc/prometheus
        cp deploy/herd.toml /etc/proxyherd/herd.toml
        echo "# the operator's" >/etc/prometheus/prometheus.yml
        """
    kept = 'echo "kept $(grep -rl "^# the operator" /etc/prometheus)"; ls /etc/prometheus/*prometheus.yml*'
    said = run_apart(apart + steps(section("Prometheus and Grafana")) * times + kept, ROOT)
    assert "WARNING" not in said
    assert said.count("rules found") == 2 * times
    file = "/etc/prometheus/prometheus.yml"
    assert said.partition("kept ")[2].splitlines() == [f"{file}.~1~", file, f"{file}.~1~"]
    assert not (tmp_path / "upper").exists()


WAIT_FOR_TARGETS = """
import json, time, urllib.request
targets = []
while not targets:
    time.sleep(0.1)
    try:
        with urllib.request.urlopen("http://127.0.0.1:10400/api/v1/targets") as answer:
            targets = json.load(answer)["data"]["activeTargets"]
    except OSError:
        pass
print(*(target["labels"]["server"] for target in targets))
"""


@needs("prometheus", "ip", root=True)
def test_commands_in_the_readme_start_prometheus_on_the_herd(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy", ignore=shutil.ignore_patterns(TARGETS))
    (tmp_path / "var").mkdir()
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parent.parent)
    [part] = re.findall(
        r"^\*\*Prometheus and Grafana\*\*.*?(?=^##)",
        (ROOT / "README.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    wait = f"{shlex.quote(sys.executable)} -c {shlex.quote(WAIT_FOR_TARGETS)}"
    said = run_apart(
        f"ip link set lo up\n{steps(part).rstrip()} 2>/dev/null &\n{wait}; kill $!; wait $!", tmp_path
    )
    assert sorted(said.split()) == list(herd_file.load(ROOT / "deploy/herd.toml").servers)
