"""`serve` and `check-config`."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import click

from proxyherd.cli.common import (
    Failure,
    addresses,
    config_option,
    default_gazetteer,
    default_log_file,
    default_secret_file,
    examples,
    from_systemd,
    load,
    log_file_option,
    print_table,
    secret_file_option,
    server_names,
)
from proxyherd.config.herd_file import Address, Herd


@click.command(
    epilog=examples(
        "proxyherd serve Clark",
        "proxyherd serve Riley --config deploy/topologies/2021.toml",
        "proxyherd serve Clark --log-max-bytes 67108864 --log-backups 4",
    ),
)
@click.argument("name", shell_complete=server_names)
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="[default: $STATE_DIRECTORY, else var/lib/NAME]"
)
@log_file_option("NAME.log")
@secret_file_option()
@click.option(
    "--gazetteer-file",
    type=click.Path(path_type=Path),
    help="The offline places.  [default: $PROXYHERD_GAZETTEER, else var/gazetteer.sqlite]",
)
@click.option(
    "--log-max-bytes",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Rotate the log at this size; 0: never. Another program may rotate it too, and then sends SIGHUP.",
)
@click.option(
    "--log-backups",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Rotated logs to keep.",
)
@config_option()
@click.pass_context
def serve(
    ctx: click.Context,
    name: str,
    *,
    state_dir: Path | None,
    log_file: Path | None,
    secret_file: Path | None,
    gazetteer_file: Path | None,
    log_max_bytes: int,
    log_backups: int,
) -> None:
    """Serve as NAME until SIGTERM, which drains and exits 0. SIGHUP reopens the log, and reads
    certificates and secrets again.
    """
    # What arrives before the server's own handlers stand: nothing has begun yet, so nothing is drained. An
    # exception would be lost where it happens to be raised in a callback, such as importlib's own.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    # The log is open before there is a loop that could reopen it, so a rotation in between has to wait, not pass.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    herd = load(ctx)
    herd.server(name)
    from proxyherd.server import daemon  # noqa: PLC0415 - most of the time to listening

    paths = daemon.Paths(
        state=state_dir or from_systemd("STATE_DIRECTORY") or Path("var/lib") / name,
        log=log_file or default_log_file(f"{name}.log"),
        secret=secret_file or default_secret_file(),
        gazetteer=gazetteer_file or default_gazetteer(),
        log_max_bytes=log_max_bytes,
        log_backups=log_backups,
    )
    ctx.exit(daemon.serve(herd, name, paths))


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
    herd = load(ctx)
    if ports:
        _check_ports(herd)
    rows = [(*addresses(server), ", ".join(server.neighbours)) for server in herd.servers.values()]
    click.echo(f"{herd.file}: {len(herd.servers)} servers, {len(herd.edges)} edges")
    print_table([("server", "clients", "peers", "admin", "neighbours"), *rows])
    if herd.redis is None and len(islands := herd.islands()) > 1:
        groups = "; ".join(", ".join(island) for island in islands)
        click.echo(
            f"Warning: {herd.file}: key edges: the herd is in {len(islands)} islands ({groups}); what one "
            "learns the others never do; add an edge between them",
            err=True,
        )


def _check_ports(herd: Herd) -> None:
    """Raise Failure when another process already has an address of the herd."""
    taken = [
        f"{address} ({key} of {server.name})"
        for server in herd.servers.values()
        for key, addresses in (("clients", server.clients), ("peers", server.peers), ("admin", server.admin))
        for address in addresses
        if _is_taken(address)
    ]
    if taken:
        port = taken[0].partition(" ")[0].rpartition(":")[2]
        raise Failure(
            f"another process listens on {', '.join(taken)}; find it with: ss -ltnp 'sport = :{port}' and "
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
