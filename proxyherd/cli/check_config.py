"""`check-config`: what the herd's file says, and whether its ports are free."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import IO, Any, Final

import click

from proxyherd.base.escapes import visible
from proxyherd.base.holders import holders
from proxyherd.cli.common import (
    Failure,
    config_option,
    examples,
    load_herd,
    print_table,
    shown_path,
    spelled_addresses,
)
from proxyherd.config.address import Address
from proxyherd.config.herd_file import Herd, Server
from proxyherd.config.needs import needs_of_server
from proxyherd.remote import ask
from proxyherd.remote.ask import Status

_MOST_LINES: Final = 6

_ANSWER_SECONDS: Final = 1.0
"""How long who listens at an admin port may take to say whose it is."""


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


class PortsTaken(Failure):
    """Addresses of the herd are in use: one line, and a short list of who has them."""

    def __init__(self, message: str, holders_told: list[str]) -> None:
        super().__init__(message)
        self.holders_told = holders_told

    def show(self, file: IO[Any] | None = None) -> None:
        super().show(file)
        for line in self.holders_told[:_MOST_LINES]:
            click.echo(f"  {visible(line)}", file=file, err=file is None)
        if len(self.holders_told) > _MOST_LINES:
            click.echo(f"  and {len(self.holders_told) - _MOST_LINES} more", file=file, err=file is None)


def _check_ports(herd: Herd) -> None:
    """Raise PortsTaken if another process already uses an address of the herd."""
    every = [
        (server, key, address)
        for server in herd.servers.values()
        for key, addresses in server.addresses.items()
        for address in addresses
    ]
    taken = [one for one in every if _is_taken(one[2])]
    if not taken:
        return
    known = holders([address.port for _, _, address in taken])
    if len(taken) == 1:
        [(server, key, address)] = taken
        found = known.get(address.port) or f"find it with: ss -ltnp 'sport = :{address.port}'"
        raise PortsTaken(
            f"another process listens on {address} (servers.{server.name}.{key}): {found}; stop it, or change this address in "
            f"{herd.file}",
            [],
        )
    asked = ask.statuses(herd, _ANSWER_SECONDS, [server for server, key, _ in taken if key == "admin"])
    message = f"{_whose(asked)} on {len(taken)} of the {len(every)} addresses in {herd.file}"
    raise PortsTaken(f"{message}; stop that first, or change these addresses", list(_lines(taken, known)))


def _whose(found: list[Status]) -> str:
    """Return who listens, as far as servers of a herd say it."""
    files = {one.told.file for one in found if one.told is not None}
    if len(files) != 1 or files == {""}:
        return "other processes listen"
    [file] = files
    is_this = all(not one.other_file for one in found)
    return "this herd runs already," if is_this else f"the herd of {shown_path(file)} runs"


def _lines(taken: list[tuple[Server, str, Address]], known: dict[int, str]) -> Iterator[str]:
    """Yield a line for each process: which addresses it has, and what it is."""
    named = dict[tuple[str, str], list[str]]()
    for server, _, address in taken:
        named.setdefault((server.name, known.get(address.port, "")), []).append(str(address.port))
    for (name, holder), ports in named.items():
        yield f"{name}: {', '.join(ports)}" + (f": {holder}" if holder else "")


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
