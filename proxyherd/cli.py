"""The command line: serve one server, check the herd's file, ask a running herd, prepare its files.

The rule: `serve` has half a second from exec to its first connection, so this module imports nothing at its
top but click, the configuration and the standard library; each command imports the rest itself.

Exit codes, for scripts: 0 done; 1 the answer is no (an invalid command, a herd that is not whole, a state
directory in use); 2 bad usage or configuration; 3 the server cannot be reached.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import stat
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from proxyherd import __version__, config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxyherd.ask import Status
    from proxyherd.config import Address, Herd, Server

F = TypeVar("F", bound="Callable[..., Any]")

INSTALLED_FILE = Path("/etc/proxyherd/herd.toml")
"""Where an installed herd's file is, for when the working directory has none."""

SECRET_BYTES = 32

_CONFIG_KEY = "proxyherd.config"


class Failure(click.ClickException):
    """One line on stderr, and the exit code that says no."""

    exit_code = 1


class Misconfigured(Failure):
    """Likewise, where a file or the usage is to be mended first."""

    exit_code = 2


class NotReached(Failure):
    """Likewise, where a server gave no answer."""

    exit_code = 3


class Group(click.Group):
    """A group whose commands may let a ConfigError out: it is one line on stderr and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except config.ConfigError as error:
            raise Misconfigured(str(error)) from error


def _config_option(envvar: str | None = None) -> Callable[[F], F]:
    """`--config`, before the command or after it; after it wins, and the environment comes last."""

    def keep(ctx: click.Context, _: click.Parameter, value: Path | None) -> None:
        if value is not None:
            ctx.meta[_CONFIG_KEY] = value

    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar=envvar,
        show_envvar=True,
        expose_value=False,
        callback=keep,
        help=f"The herd's file.  [default: {config.DEFAULT_FILE}, else {INSTALLED_FILE}]",
    )


def _load(ctx: click.Context) -> Herd:
    file: Path | None = ctx.meta.get(_CONFIG_KEY)
    if file is None:
        installed = not config.DEFAULT_FILE.exists() and INSTALLED_FILE.exists()
        file = INSTALLED_FILE if installed else config.DEFAULT_FILE
    return config.load(file)


def _examples(*lines: str) -> str:
    # \b keeps click from filling the lines.
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


@click.group(
    cls=Group,
    epilog=_examples(
        "proxyherd serve Clark",
        "proxyherd iamat kiwi.cs.ucla.edu +34.068930-118.445127",
        "proxyherd whatsat kiwi.cs.ucla.edu 10 5 --server Bailey",
        "proxyherd status",
    ),
)
@_config_option(envvar="PROXYHERD_CONFIG")
@click.version_option(__version__)
def main() -> None:
    """An application server herd: equal servers that know where clients are, and what is near them.

    Exit codes: 0 done; 1 the answer is no; 2 bad usage or configuration; 3 no server was reached.
    """


@main.command(
    epilog=_examples(
        "proxyherd serve Clark",
        "proxyherd serve Riley --config deploy/topologies/2021.toml",
        "proxyherd serve Clark --log-max-bytes 67108864 --log-backups 4",
    ),
)
@click.argument("name")
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="[default: $STATE_DIRECTORY, else var/lib/NAME]"
)
@click.option(
    "--log-file",
    type=click.Path(path_type=Path),
    help="[default: $LOGS_DIRECTORY/NAME.log, else var/log/NAME.log]",
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path),
    help="The herd's secret.  [default: $CREDENTIALS_DIRECTORY/secret, else var/secret]",
)
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
    help="Rotate the log at this size; 0: another program rotates it, and then sends SIGHUP.",
)
@click.option(
    "--log-backups",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Rotated logs to keep.",
)
@_config_option()
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
    """Serve as NAME until SIGTERM, which drains and exits 0. SIGHUP reopens the log."""
    # What arrives before the server's own handlers stand: nothing has begun yet, so nothing is drained.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    herd = _load(ctx)
    herd.server(name)
    from proxyherd import daemon  # noqa: PLC0415 - most of the time to listening

    paths = daemon.Paths(
        state=state_dir or _from_systemd("STATE_DIRECTORY") or Path("var/lib") / name,
        log=log_file or (_from_systemd("LOGS_DIRECTORY") or Path("var/log")) / f"{name}.log",
        secret=secret_file or _secret_file(),
        gazetteer=gazetteer_file or _gazetteer_file(),
        log_max_bytes=log_max_bytes,
        log_backups=log_backups,
    )
    ctx.exit(daemon.serve(herd, name, paths))


def _from_systemd(variable: str) -> Path | None:
    """Return the directory that systemd made for the unit; with several, none is ours to choose."""
    value = os.environ.get(variable, "")
    return Path(value) if value and ":" not in value else None


def _secret_file() -> Path:
    credentials = _from_systemd("CREDENTIALS_DIRECTORY")
    credential = credentials / "secret" if credentials else None
    return credential if credential and credential.exists() else Path("var/secret")


def _gazetteer_file() -> Path:
    return Path(os.environ.get("PROXYHERD_GAZETTEER") or "var/gazetteer.sqlite")


@main.command(
    epilog=_examples(
        "proxyherd check-config",
        "proxyherd check-config --config deploy/topologies/2021.toml",
        "proxyherd check-config --ports",
    ),
)
@click.option("--ports", is_flag=True, help="Also check that nothing on this machine listens there yet.")
@_config_option()
@click.pass_context
def check_config(ctx: click.Context, *, ports: bool) -> None:
    """Check the herd's file, and print what it says."""
    herd = _load(ctx)
    if ports:
        _check_ports(herd)
    rows = [(*_addresses(server), ", ".join(server.neighbours)) for server in herd.servers.values()]
    click.echo(f"{herd.file}: {len(herd.servers)} servers, {len(herd.edges)} edges")
    _print_table([("server", "clients", "peers", "admin", "neighbours"), *rows])
    if len(islands := herd.islands()) > 1:
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


def _word(_: click.Context, parameter: click.Parameter, value: str) -> bytes:
    """One field of a command line, byte for byte; white space would make it two, or two commands."""
    word = os.fsencode(value)
    if word.split() != [word]:
        raise click.BadParameter("is one word, without white space", param=parameter)
    return word


# A location or a radius may begin with a sign; without this click takes it for an option.
_SIGNED: dict[str, Any] = {"ignore_unknown_options": True}


@main.command(
    context_settings=_SIGNED,
    epilog=_examples(
        "proxyherd iamat kiwi.cs.ucla.edu +34.068930-118.445127",
        "proxyherd iamat opera.house -33.856784+151.215297 --server Clark",
        "proxyherd iamat kiwi.cs.ucla.edu +34.068930-118.445127 --time 1621464827.959498503",
    ),
)
@click.argument("client", callback=_word)
@click.argument("location", callback=_word)
@click.option("--server", "name", metavar="NAME", help="Which server to tell.  [default: the file's first]")
@click.option(
    "--time",
    "when",
    metavar="T",
    callback=lambda c, p, v: v and _word(c, p, v),
    help="POSIX seconds.  [default: now]",
)
@_config_option()
@click.pass_context
def iamat(ctx: click.Context, client: bytes, location: bytes, name: str | None, when: bytes | None) -> None:
    """Report that CLIENT is at LOCATION (ISO 6709), and print the answer.

    Exit codes: 0 taken; 1 an invalid command; 3 the server cannot be reached.
    """
    if when is None:
        seconds, rest = divmod(time.time_ns(), 1_000_000_000)
        when = b"%d.%09d" % (seconds, rest)
    _ask(ctx, name, b"IAMAT", client, location, when)


@main.command(
    context_settings=_SIGNED,
    epilog=_examples(
        "proxyherd whatsat kiwi.cs.ucla.edu 10 5",
        "proxyherd whatsat kiwi.cs.ucla.edu 0.5 20 --server Bailey",
    ),
)
@click.argument("client", callback=_word)
@click.argument("radius", callback=_word)
@click.argument("bound", callback=_word)
@click.option("--server", "name", metavar="NAME", help="Which server to ask.  [default: the file's first]")
@_config_option()
@click.pass_context
def whatsat(ctx: click.Context, client: bytes, radius: bytes, bound: bytes, name: str | None) -> None:
    """Ask what is within RADIUS km of CLIENT, BOUND results at most, and print the answer.

    Exit codes: 0 answered; 1 an invalid command, or an unknown client; 3 the server cannot be reached.
    """
    _ask(ctx, name, b"WHATSAT", client, radius, bound)


def _ask(ctx: click.Context, name: str | None, *fields: bytes) -> None:
    from proxyherd import ask  # noqa: PLC0415 - not for `serve`

    herd = _load(ctx)
    server = herd.server(name) if name is not None else next(iter(herd.servers.values()))
    # Longer than the server itself may take: it answers for Places that do not.
    seconds = 5 + herd.timing.ready_seconds + herd.places.deadline_seconds
    try:
        answer = ask.command(server, b" ".join(fields), seconds)
    except ask.Unreachable as error:
        others = [other for other in herd.servers if other != server.name]
        raise NotReached(
            f"cannot reach {server.name} at {error}; see `proxyherd status`"
            + (f", or ask another: --server {others[0]}" if others else "")
        ) from error
    click.echo(answer, nl=False)
    ctx.exit(0 if answer.startswith(b"AT ") else Failure.exit_code)


@main.command(
    epilog=_examples(
        "proxyherd status",
        "proxyherd status --wait 30 && echo the herd is whole",
    ),
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="First wait, this long at most, until all servers are ready and linked.",
)
@_config_option()
@click.pass_context
def status(ctx: click.Context, wait: float) -> None:
    """Print a table of the servers: state, links, clients known, commands so far.

    Exit codes: 0 all are up, ready and linked; 1 otherwise.
    """
    from proxyherd import ask  # noqa: PLC0415 - not for `serve`

    herd = _load(ctx)
    deadline = time.monotonic() + wait
    found = ask.statuses(herd, 1.0)
    while not all(one.whole for one in found) and time.monotonic() < deadline:
        time.sleep(0.1)
        found = ask.statuses(herd, 1.0)
    head = ("server", "clients", "peers", "admin", "state", "links", "known", "commands")
    _print_table([head, *map(_status_row, found)])
    for one in found:
        if not one.whole:
            click.echo(_remark(one), err=True)
    ctx.exit(0 if all(one.whole for one in found) else Failure.exit_code)


def _status_row(one: Status) -> tuple[str, ...]:
    if not one.up:
        return (*_addresses(one.server), click.style("down", fg="red"), "-", "-", "-")
    state = click.style("ready", fg="green") if one.ready else click.style("not ready", fg="yellow")
    links = f"{len(one.server.neighbours) - len(one.missing)}/{len(one.server.neighbours)}"
    links = click.style(links, fg="yellow") if one.missing else links
    return (*_addresses(one.server), state, links, str(one.clients), str(one.commands))


def _remark(one: Status) -> str:
    """Say what is wrong with a server, and where to look."""
    name = one.server.name
    if not one.up:
        text = f"{name} is down: {one.problem}"
    elif not one.ready:
        text = f"{name} is not ready: {one.problem or 'it gives no reason'}"
    else:
        text = f"{name} has no link with {', '.join(one.missing)}"
    logs = [f"{folder}/{name}.log" for folder in ("var/log", "/var/log/proxyherd")]
    logs += [f"var/log/{name}.stderr.log"]
    there = [log for log in logs if _has_text(Path(log))]
    return text + (f"; see {' and '.join(there)}" if there else "")


def _has_text(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except OSError:
        return False


def _addresses(server: Server) -> tuple[str, str, str, str]:
    clients, peers, admin = (",".join(map(str, a)) for a in (server.clients, server.peers, server.admin))
    return server.name, clients, peers, admin


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    rows = list(rows)
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


@main.group()
def secret() -> None:
    """The secret by which servers know one another."""


@secret.command(
    "new",
    epilog=_examples(
        "proxyherd secret new var/secret",
        "proxyherd secret new /etc/proxyherd/secret --if-missing",
    ),
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--if-missing", is_flag=True, help="Do nothing if FILE is there and fit for use.")
def secret_new(file: Path, *, if_missing: bool) -> None:
    """Write 32 random bytes to FILE, readable by its owner only. An existing file is never overwritten."""
    # Written whole under another name, then linked: nobody ever reads half a secret, nor loses one.
    try:
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        try:
            os.write(descriptor, os.urandom(SECRET_BYTES))
            os.fsync(descriptor)
            os.link(temporary, file)
        finally:
            os.close(descriptor)
            temporary.unlink()
    except FileExistsError:
        if not if_missing:
            raise Failure(
                f"{file}: exists already, and was left as it is; a new secret parts the herd until every "
                "server has it: move the file away first"
            ) from None
        _check_secret(file)
    except OSError as error:
        raise Misconfigured(f"{file}: {error.strerror}; it is written into an existing directory") from error


def _check_secret(file: Path) -> None:
    try:
        found = file.stat()
    except OSError as error:
        raise config.ConfigError(f"{file}: {error.strerror}; move it away for a new secret") from error
    if not stat.S_ISREG(found.st_mode):
        raise config.ConfigError(f"{file}: is no regular file; move it away for a new secret")
    if found.st_size < SECRET_BYTES:
        raise config.ConfigError(
            f"{file}: has {found.st_size} bytes, a secret has {SECRET_BYTES}; move it away for a new one"
        )
    if found.st_mode & 0o077:
        raise config.ConfigError(
            f"{file}: others than its owner can use it (mode {stat.S_IMODE(found.st_mode):04o}); run: chmod 600 {file}"
        )


@main.group()
def gazetteer() -> None:
    """The offline places, for a herd without a key of Google's."""


@gazetteer.command(
    "build",
    epilog=_examples(
        "proxyherd gazetteer build",
        "proxyherd gazetteer build /var/lib/proxyherd/gazetteer.sqlite",
    ),
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
def gazetteer_build(file: Path | None) -> None:
    """Build the gazetteer in FILE; nothing is done when it is there and current.

    FILE is by default $PROXYHERD_GAZETTEER, else var/gazetteer.sqlite.
    """
    import sqlite3  # noqa: PLC0415 - not for `serve`

    from proxyherd.places import gazetteer as room  # noqa: PLC0415 - likewise

    file = file or _gazetteer_file()
    if room.is_current(file):
        return
    try:
        with click.progressbar(length=100, label=f"Building {file}") as bar:
            room.build(file, lambda done, total: bar.update(done * 100 // total - bar.pos))
    except (OSError, sqlite3.Error) as error:
        raise Failure(f"{file}: {error}; see that it can be written, and that the disk has room") from error
