"""`prometheus-targets`: where Prometheus finds the servers of a herd.

The rule: all servers or none. A list that leaves one out would leave out the alert about it too, and a target that
is certain to answer 403 is no better.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable
from pathlib import Path

import click

from proxyherd.cli.common import Misconfigured, config_option, examples, load_herd
from proxyherd.cli.output import open_output
from proxyherd.config.address import Address
from proxyherd.config.herd_file import Herd, Server
from proxyherd.net import http

_MODE = 0o644  # Prometheus runs as a user of its own

_HOST = re.compile(r"\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)")


class _NoTargetError(Exception):
    """Prometheus could not scrape this server; the text says why, and what to do."""


def _hosts(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    hosts = {}
    for value in values:
        name, _, host = value.partition("=")
        match = _HOST.fullmatch(host)
        if match is None:
            raise click.BadParameter(
                f"{value!r} is no NAME=HOST, such as Clark=clark.example.com or Clark=[fd00::3]"
            )
        hosts[name] = match[1] or match[2]
    return hosts


@click.command(
    "prometheus-targets",
    short_help="Print the admin addresses for Prometheus.",
    epilog=examples(
        "proxyherd prometheus-targets",
        "proxyherd prometheus-targets --output deploy/prometheus/proxyherd-targets.json",
        "proxyherd prometheus-targets --host Clark=clark.example.com --host Bona=bona.example.com",
    ),
)
@click.option(
    "--host",
    "hosts",
    multiple=True,
    metavar="NAME=HOST",
    callback=_hosts,
    help="Scrape the server NAME at this host, at the port of its admin address. May be given for each server.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to FILE, in place of stdout and all at once: Prometheus may read it at any time.",
)
@config_option()
@click.pass_context
def prometheus_targets(ctx: click.Context, *, hosts: dict[str, str], output: Path | None) -> None:
    """Print the admin addresses of the herd's servers as Prometheus' file_sd_configs wants them, each with its name
    as the label `server`.

    A server that listens at every IPv4 or IPv6 address of its host (0.0.0.0, [::]) needs a --host; and each host but loopback's
    must stand in hosts of [admin], or the server answers 403. Where a server cannot be scraped, nothing is written.
    """
    herd = load_herd(ctx)
    for name in hosts:
        herd.server(name)
    targets = _targets(herd, hosts)
    _warn_of_loopback(herd, targets)
    groups = (json.dumps({"targets": [str(at)], "labels": {"server": name}}) for name, at in targets.items())
    text = "[\n  {}\n]\n".format(",\n  ".join(groups))
    with open_output(output, _MODE) as file:
        file.write(text.encode())


def _targets(herd: Herd, hosts: dict[str, str]) -> dict[str, Address]:
    targets, problems = {}, []
    for server in herd.servers.values():
        try:
            targets[server.name] = target(server, hosts.get(server.name), herd.admin.hosts)
        except _NoTargetError as error:
            problems.append(f"{herd.file}: key servers.{server.name}.admin: {error}")
    if problems:
        raise Misconfigured("\n".join(problems))
    return targets


def target(server: Server, host: str | None, served: Iterable[str]) -> Address:
    """Return where to scrape a server: at `host`, if it is given, otherwise at the address with the widest reach.

    `served` are the Hosts that its admin port accepts. Raises _NoTargetError.
    """
    wildcards = [address for address in server.admin if _is_wildcard(address)]
    if host is not None:
        there = [Address(host, (wildcards or server.admin)[0].port)]
    else:
        there = [address for address in server.admin if address not in wildcards]
    if not there:
        raise _NoTargetError(
            f"{wildcards[0]} is every address of its host, and none to ask: say which with "
            f"--host {server.name}=HOST, and put HOST into hosts of [admin]"
        )
    allowed = [address for address in there if http.accepts(str(address), served)]
    if not allowed:
        raise _NoTargetError(
            f"at {there[0]} Prometheus would be answered with 403: add {json.dumps(_host(there[0]))} to hosts of "
            f"[admin], and restart {server.name}"
        )
    return min(allowed, key=lambda address: address.is_loopback)


def _host(address: Address) -> str:
    """Return the host in the form of a Host header."""
    return str(address).rpartition(":")[0]


def _is_wildcard(address: Address) -> bool:
    try:
        return ipaddress.ip_address(address.host).is_unspecified
    except ValueError:
        return False


def _warn_of_loopback(herd: Herd, targets: dict[str, Address]) -> None:
    """Warn if servers on several hosts have loopback addresses: each host reaches only its own servers there."""
    near = [name for name, address in targets.items() if address.is_loopback]
    spread = any(not address.is_loopback for server in herd.servers.values() for address in server.peers)
    if near and spread:
        click.echo(
            f"Warning: {herd.file}: only a Prometheus on the same host reaches {', '.join(near)}: the admin address is "
            "loopback's; for one elsewhere give another, and put its host into hosts of [admin]",
            err=True,
        )
