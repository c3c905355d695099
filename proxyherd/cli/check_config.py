"""`check-config`: what the herd's file says, and whether its ports are free."""

from __future__ import annotations

import errno
import socket

import click

from proxyherd.base.holders import holders
from proxyherd.cli.common import Failure, config_option, examples, load_herd, print_table, spelled_addresses
from proxyherd.config.address import Address
from proxyherd.config.herd_file import Herd
from proxyherd.config.needs import needs_of_server


@click.command(
    epilog=examples(
        "proxyherd check-config",
        "proxyherd check-config --config deploy/topologies/2021.toml",
        "proxyherd check-config --ports",
    ),
)
@click.option("--ports", is_flag=True, help="Also check that nothing on this machine listens there yet.")
@config_option()
@click.pass_context
def check_config(ctx: click.Context, *, ports: bool) -> None:
    """Check the herd's file, and print what it says."""
    herd = load_herd(ctx)
    if ports:
        _check_ports(herd)
    rows = [
        {"server": server.name, **spelled_addresses(server), "neighbours": ", ".join(server.neighbours)}
        for server in herd.servers.values()
    ]
    click.echo(f"{herd.file}: {len(herd.servers)} servers, {len(herd.edges)} edges")
    used = [key for key in rows[0] if any(row[key] for row in rows)]  # not all herds have all ports
    print_table([tuple(used), *(tuple(row[key] for key in used) for row in rows)])
    _print_needs(herd)
    if herd.redis is None and len(islands := herd.islands()) > 1:
        groups = "; ".join(", ".join(island) for island in islands)
        click.echo(
            f"Warning: {herd.file}: key edges: the herd is in {len(islands)} islands ({groups}); what one "
            "learns the others never do; add an edge between them",
            err=True,
        )


def _print_needs(herd: Herd) -> None:
    """Print what a server needs with everything at its limit at once."""
    neighbours = max(len(server.neighbours) for server in herd.servers.values())
    needs = needs_of_server(herd.limits, herd.rates, herd.places, neighbours)
    click.echo(
        f"A server whose limits are all reached at once needs {needs.memory_gib} GiB of memory "
        f"(MemoryMax={needs.memory_gib}G) and {needs.descriptors} descriptors (LimitNOFILE={needs.descriptors})."
    )


def _check_ports(herd: Herd) -> None:
    """Raise Failure if another process already uses an address of the herd."""
    taken = {
        address: f"{address} (servers.{server.name}.{key})"
        for server in herd.servers.values()
        for key, addresses in server.addresses.items()
        for address in addresses
        if _is_taken(address)
    }
    if taken:
        ports = [address.port for address in taken]
        known = dict.fromkeys(holders(ports).values())
        found = f"it is {', '.join(known)};" if known else f"find it with: ss -ltnp 'sport = :{ports[0]}' and"
        raise Failure(
            f"another process listens on {', '.join(taken.values())}; {found} "
            f"stop it, or change the addresses in {herd.file}"
        )


def _is_taken(address: Address) -> bool:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError:
        return False  # a name this machine does not know is not taken on it
    for family, kind, protocol, _, where in found:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(where)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    return True
    return False
