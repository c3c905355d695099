"""The herd that `grade` judges: where its servers and their logs are, and who starts and stops them."""

from __future__ import annotations

import shlex
import signal
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click

from proxyherd.cli.common import Misconfigured, load_if_any
from proxyherd.config import herd_file
from proxyherd.config.herd_file import Herd, Server
from proxyherd.grading import keeping, topology
from proxyherd.grading.commanded import Commanded
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.keeping import Restarter, Started
from proxyherd.grading.outside import GoogleReach, names_google
from proxyherd.grading.servers import GradedServer
from proxyherd.grading.topology import Topology, TopologyError
from proxyherd.grading.web_client import WebPort

LOGS: Final = ("var/log/{name}.log", "/var/log/proxyherd/{name}.log")
"""The default paths of logs for a herd's file."""


_HERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what such an address is reached at


@contextmanager
def lent_herd(ctx: click.Context, options: Mapping[str, Any]) -> Iterator[tuple[GradedHerd, Started | None]]:
    """Lend the herd that the options describe, and its starter. Raises Misconfigured, ConfigError and UsageError."""
    described = None if options["servers"] else _of_file(ctx)
    servers = _servers(described, options["servers"], options["patience"])
    named = _topology(options["topology"], servers)
    graph = described or named
    edges, most = (graph.edges, graph.limits.max_line_bytes) if graph else (None, 8_192)
    with tempfile.TemporaryDirectory(prefix="proxyherd-grade-") as outputs:
        keeper, started = _keeper(options, Path(outputs))
        _name_logs(servers, options, of_file=not options["servers"], started=started)
        one_table = described.redis is not None if described else named is not None and named.one_table
        google = GoogleReach(may_be_asked=_may_ask_google(options, servers))
        yield GradedHerd(servers, edges, keeper, most, one_table=one_table, google=google), started


def _may_ask_google(options: Mapping[str, Any], servers: Sequence[GradedServer]) -> bool:
    """Whether the herd may be one that asks Google from this machine."""
    if options["google_is_here"]:
        return False
    if options["start"]:
        return names_google(options["directory"], options["start"])
    return all(server.is_here for server in servers)  # its code is not known


def has_web_ports(ctx: click.Context, options: Mapping[str, Any]) -> bool:
    """Return whether the herd's file describes the servers, and names their web ports. Raises ConfigError."""
    herd = None if options["servers"] else load_if_any(ctx)
    return herd is not None and any(server.web for server in herd.servers.values())


def herd_of_file(ctx: click.Context) -> Herd:
    """Load the herd's file. Raises Misconfigured if none is named and none is there, and ConfigError."""
    herd = load_if_any(ctx)
    if herd is None:
        raise Misconfigured(
            f"{herd_file.DEFAULT_FILE}: No such file; name each server, and where it takes clients, as NAME=HOST:PORT, "
            "such as Clark=127.0.0.1:10003; or name a herd's file with --config"
        )
    return herd


def _of_file(ctx: click.Context) -> Herd:
    """Return the herd of the herd's file, if it can be graded. Raises Misconfigured and ConfigError."""
    herd = herd_of_file(ctx)
    if herd.tls.clients_certificate is not None:
        raise Misconfigured(
            f"{herd.file}: key tls.clients_certificate: its servers speak TLS with clients, and grade does not; "
            "grade the herd with a copy of its file that leaves it out"
        )
    return herd


def _topology(file: Path | None, servers: Sequence[GradedServer]) -> Topology | None:
    """Return the topology of a file, if one is named. Raises Misconfigured."""
    try:
        return None if file is None else topology.load(file, [server.name for server in servers])
    except TopologyError as error:
        raise Misconfigured(str(error)) from error


def _servers(
    described: Herd | None, addresses: Sequence[tuple[str, str, int]], patience: float
) -> list[GradedServer]:
    if described is None:
        return [GradedServer(name, host, port, seconds=patience) for name, host, port in addresses]
    return [_server(server, patience) for server in described.servers.values()]


def _server(server: Server, patience: float) -> GradedServer:
    clients = server.clients[0]
    graded = GradedServer(server.name, clients.host, clients.port, seconds=patience)
    for web in server.web[:1]:
        graded.web = WebPort(server.name, _HERE.get(web.host, web.host), web.port, seconds=patience)
    return graded


def _keeper(options: Mapping[str, Any], outputs: Path) -> tuple[Restarter | None, Started | None]:
    environ = keeping.environment(options["env"])
    if options["start"]:
        how, within = signal.Signals[options["stop"]], shlex.split(options["within"])
        started = Started(options["start"], options["directory"], outputs, how, environ, within)
        return started, started
    if options["lose"]:
        return Commanded(options["lose"], options["regain"], environ), None
    return None, None


def _name_logs(
    servers: Sequence[GradedServer], options: Mapping[str, Any], *, of_file: bool, started: Started | None
) -> None:
    """Give each server its log, if this machine can read one."""
    logs: dict[str, Path] = options["logs"]
    if unknown := set(logs) - {server.name for server in servers}:
        raise click.UsageError(f"--log: there is no server {', '.join(sorted(unknown))}")
    for server in servers:
        server.log_is_named = server.name in logs or bool(options["pattern"])
        if server.log_is_named:
            pattern = Path((options["pattern"] or "").replace("{name}", server.name))
            server.chosen_log = logs.get(server.name, pattern)
            if started is not None:
                server.output = started.output(server)
            elif not server.chosen_log.is_file():
                raise Misconfigured(
                    f"{server.chosen_log}: there is no such log of {server.name}, or it is no regular file; mend --logs or --log"
                )
        elif started is not None:
            server.chosen_log = started.output(server)
        elif of_file:
            files = (Path(pattern.replace("{name}", server.name)) for pattern in LOGS)
            server.chosen_log = next((file for file in files if file.exists()), None)
