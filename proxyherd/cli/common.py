"""What the commands share: the herd's file, failures and exit codes, examples, tables.

`serve` must accept its first connection half a second after exec, so this module imports little.

Exit codes, for scripts: 0 done; 1 the answer is no (an invalid command, a herd that is not whole, a state directory in
use); 2 wrong usage or configuration; 3 the server cannot be reached.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
from click.exceptions import Exit

from proxyherd.base.escapes import visible
from proxyherd.base.files import is_there
from proxyherd.cli.pipes import open_closed, silence, while_read
from proxyherd.config import herd_file
from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd, Server

F = TypeVar("F", bound=Callable[..., Any])

INSTALLED_FILE = Path("/etc/proxyherd/herd.toml")
"""The installed herd's file, which is used if the working directory has none."""

_CONFIG_KEY = "proxyherd.config"


class Failure(click.ClickException):
    """An error: one line on stderr, and exit code 1."""

    exit_code = 1

    def format_message(self) -> str:
        return visible(self.message)


class Misconfigured(Failure):
    """The same with exit code 2: a file or the usage must be corrected first."""

    exit_code = 2


class NotReached(Failure):
    """The same with exit code 3: a server gave no answer."""

    exit_code = 3


class Group(click.Group):
    """A group whose commands may raise ConfigError: it becomes one line on stderr and exit code 2, as does output that cannot be
    written. A command whose output nobody reads any more ends silently.
    """

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the arguments, and print `--help`."""
        open_closed()
        with _written(), while_read():
            return super().make_context(info_name, args, parent, **extra)
        raise Exit(0)

    def invoke(self, ctx: click.Context) -> Any:
        with _written():
            try:
                with while_read():
                    return super().invoke(ctx)
            except ConfigError as error:
                raise Misconfigured(str(error)) from error
            except OSError as error:
                if why := _explain(error):
                    raise Failure(why) from error
                raise
            finally:
                with while_read():
                    sys.stdout.flush()  # at the end of the process it would be a complaint


@contextlib.contextmanager
def _written() -> Iterator[None]:
    """Run what prints. Raises Misconfigured if stdout cannot be written, on a full disk say; then nothing more is printed."""
    try:
        yield
    except OSError:
        try:
            sys.stdout.flush()  # it fails again if it was this
        except OSError as error:
            silence([sys.stdout])
            raise Misconfigured(f"stdout: {error.strerror}") from error
        raise


def _explain(error: OSError) -> str:
    """Return what to do about an error that any command may meet; empty if that is not known."""
    if isinstance(error, PermissionError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}; see who may use it"
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the working directory was deleted; go to another one"
    return ""


def config_option(envvar: str | None = None) -> Callable[[F], F]:
    """Return `--config`, which may come before or after the command; after it is preferred, and the environment comes
    last.
    """

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
        help=f"The herd's file.  [default: {', else '.join(map(str, _default_files()))}]",
    )


def load_herd(ctx: click.Context) -> Herd:
    if file := ctx.meta.get(_CONFIG_KEY) or _found_file():
        return herd_file.load(file)
    raise ConfigError(
        f"{', '.join(map(str, _default_files()))}: No such file; go to the folder of the herd, make one with "
        "proxyherd init, or name the herd's file with --config or PROXYHERD_CONFIG"
    )


def load_if_any(ctx: click.Context) -> Herd | None:
    """Load the herd's file, or return None if none is named and none is found."""
    return load_herd(ctx) if ctx.meta.get(_CONFIG_KEY) or _found_file() else None


def _found_file() -> Path | None:
    """Return the herd's file that is used if none is named; None if there is none."""
    return next((file for file in _default_files() if is_there(file)), None)


def _default_files() -> tuple[Path, ...]:
    return herd_file.DEFAULT_FILE, herd_file.FOLDERS_FILE, INSTALLED_FILE


def server_names(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a server, for a shell; without a readable file there are none."""
    try:
        herd = load_if_any(ctx)
    except ConfigError:
        return []
    return [name for name in (herd.servers if herd else ()) if name.startswith(incomplete)]


@contextlib.contextmanager
def until_stopped() -> Iterator[None]:
    """Run something that has no end of its own: Ctrl-C, SIGTERM and a closed pipe (`| head`) end it with exit
    code 0.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        with while_read():
            yield
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)


def examples(*lines: str) -> str:
    # \b keeps click from filling the lines.
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))


def default_gazetteer() -> Path:
    return Path(os.environ.get("PROXYHERD_GAZETTEER") or "var/gazetteer.dat")


def log_file_option(name: str) -> Callable[[F], F]:
    """Return the option of a command that writes a log; `name` is the log's default name."""
    return click.option(
        "--log-file",
        type=click.Path(path_type=Path),
        help=f"[default: $LOGS_DIRECTORY/{name}, else var/log/{name}]",
    )


def raw_option() -> Callable[[F], F]:
    """Return the option of a command that prints strangers' text."""
    return click.option(
        "--raw",
        is_flag=True,
        help="Print bytes as they are, for programs; a terminal would obey some of them.",
    )


def secret_file_option() -> Callable[[F], F]:
    """Return the option of a command that uses the herd's secret."""
    return click.option(
        "--secret-file",
        type=click.Path(path_type=Path),
        help="The herd's secret.  [default: $CREDENTIALS_DIRECTORY/secret, else var/secret]",
    )


def from_systemd(variable: str) -> Path | None:
    """Return the directory that systemd has made for the unit; if there are several, none."""
    value = os.environ.get(variable, "")
    return Path(value) if value and ":" not in value else None


def default_log_file(name: str) -> Path:
    """Return the default path of a log with that name."""
    return (from_systemd("LOGS_DIRECTORY") or Path("var/log")) / name


def default_secret_file() -> Path:
    """Return the default path of the herd's secret."""
    credentials = from_systemd("CREDENTIALS_DIRECTORY")
    credential = credentials / "secret" if credentials else None
    return credential if credential and is_there(credential) else Path("var/secret")


def spelled_addresses(server: Server) -> dict[str, str]:
    """Return the addresses of a server for a table, by their keys in the herd's file."""
    return {key: ",".join(map(str, addresses)) for key, addresses in server.addresses.items()}


def shown_path(path: str) -> str:
    """Return the path of a file as one would type it here."""
    here = f"{Path.cwd()}/"
    return path.removeprefix(here)


def print_table(rows: Iterable[tuple[str, ...]]) -> None:
    for line in table_lines(rows):
        click.echo(line)


def table_lines(rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    rows = list(rows)
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)
        )
        yield "  ".join(cells).rstrip()
