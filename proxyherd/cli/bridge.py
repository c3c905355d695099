"""`bridge`: the herd's table and a cluster's kept equal, to move from one to the other."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from pathlib import Path

import click

from proxyherd.bridge import bridge as bridging
from proxyherd.cli.common import (
    Failure,
    config_option,
    default_log_file,
    default_secret_file,
    examples,
    load_herd,
    log_file_option,
    secret_file_option,
    server_names,
)
from proxyherd.cli.pipes import while_read
from proxyherd.config import herd_file

_BAR = 10
_LINE_SECONDS = 10.0
"""The interval of lines if the output is not a terminal."""


@click.command(
    short_help="Move a herd's table to Redis, or back.",
    epilog=examples(
        "proxyherd bridge Clark --to redis.toml",
        "proxyherd bridge Clark --config herd.toml --to redis.toml --once",
    ),
)
@click.argument("name", shell_complete=server_names)
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The file of the servers in front of the cluster.",
)
@click.option("--once", is_flag=True, help="End as soon as both have all that either had.")
@click.option(
    "--patience",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long it may get no further, with --once and at the end, before it gives up.",
)
@log_file_option("NAME-bridge.log")
@secret_file_option()
@config_option()
@click.pass_context
def bridge(
    ctx: click.Context,
    *,
    name: str,
    to: Path,
    once: bool,
    patience: float,
    log_file: Path | None,
    secret_file: Path | None,
) -> None:
    """Keep the table of a herd and that of a cluster equal while both take reports, in the place of the herd's server
    NAME, which is to be stopped first.

    It runs until SIGTERM or Ctrl-C, and then finishes what it holds; a second one breaks that off. It may be killed and
    started again at any time.

    Exit codes: 0 all that it held is on both sides; 1 it is not, and the text says why.
    """
    display = _Display(os.isatty(sys.stdout.fileno()))
    outcome = bridging.run(
        load_herd(ctx),
        name,
        herd_file.load(to),
        secret_file=secret_file or default_secret_file(),
        log=log_file or default_log_file(f"{name}-bridge.log"),
        once=once,
        patience=patience,
        show=display.show,
    )
    display.end()
    if not outcome.whole:
        raise Failure(outcome.text)
    click.echo(outcome.text)


class _Display:
    """Shows the progress: a line whenever something important has changed. A terminal also has a line with a bar below,
    which is drawn again; other output has a line from time to time.
    """

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._at = 0.0
        self._state = ""
        self._drawn = False

    def show(self, figures: bridging.Figures) -> None:
        """Show figures, or leave them out."""
        state = _state(figures)
        if self._terminal:
            if state != self._state:
                self._line(_line(figures, state))
            width = shutil.get_terminal_size().columns - 1
            self._write("\r\x1b[K" + f"{_bar(figures)} {_short(figures, state)}"[:width])
            self._drawn = True
        elif state != self._state or time.monotonic() - self._at >= _LINE_SECONDS:
            self._line(_line(figures, state))
        self._state = state

    def end(self) -> None:
        """End the terminal's line."""
        if self._drawn:
            self._write("\n")

    def _line(self, line: str) -> None:
        self._at = time.monotonic()
        self._write(("\r\x1b[K" if self._drawn else "") + line + "\n")

    def _write(self, text: str) -> None:
        with (
            contextlib.suppress(OSError),
            while_read(),
        ):  # without a reader or room, the tables must still be kept equal
            sys.stdout.write(text)
            sys.stdout.flush()


def _state(figures: bridging.Figures) -> str:
    if figures.ending:
        return f"ending; {figures.trouble}" if figures.trouble else "ending"
    if figures.trouble:
        return figures.trouble
    return "in step" if figures.in_step else "not in step yet"


def _line(figures: bridging.Figures, state: str) -> str:
    return (
        f"read from the herd {figures.heard:,}, written to the cluster {figures.written:,}, wait {figures.waiting:,}; "
        f"pass {figures.passes + 1} over the cluster has read {figures.read:,} of {figures.held:,}, news {figures.news:,}; "
        f"lag {figures.lag:.1f} s; {state}"
    )


def _short(figures: bridging.Figures, state: str) -> str:
    """Return the same in a form short enough for a terminal; the bar shows the rest."""
    return f"herd {figures.heard:,}, written {figures.written:,}, news {figures.news:,}, lag {figures.lag:.1f} s; {state}"


def _bar(figures: bridging.Figures) -> str:
    """Draw how much of the cluster this pass has read."""
    share = min(1.0, figures.read / figures.held) if figures.held else 0.0
    filled = int(share * _BAR)
    return f"[{'#' * filled}{'-' * (_BAR - filled)}]"
