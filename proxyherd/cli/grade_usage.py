"""How `grade` is called: the values of its options, and which of them do not go together."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from click.core import ParameterSource

BATCH_OPTIONS: Final = ("output", "jobs", "unsandboxed", "show", "memory", "processes", "disk")
"""Options of `--batch`."""

_NEEDED: Final = {"batch": BATCH_OPTIONS, "start": ("directory", "stop")}
"""Options by the one without which they would do nothing."""

_ADDRESS = re.compile(r"(?:([^=\s]+)=)?(?:\[([0-9A-Fa-f:.]+)\]|([^\s:=\[\]]+)):([0-9]{1,5})")


def read_addresses(
    _ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str, int]]:
    """Return name, host and port of each server."""
    found = []
    for value in values:
        match = _ADDRESS.fullmatch(value)
        if match is None or not 0 < int(match[4]) < 65_536:
            raise click.BadParameter(
                f"{value!r} is no [NAME=]HOST:PORT, such as 127.0.0.1:10003 or Clark=[::1]:10003"
            )
        host = match[2] or match[3]
        found.append((match[1] or f"{host}:{match[4]}", host, int(match[4])))
    for index, what in ((0, "name"), (slice(1, 3), "address")):
        keys = [one[index] for one in found]
        if len(set(keys)) < len(keys):
            raise click.BadParameter(f"the same {what} stands there twice; each server is named once")
    return found


def read_logs(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    """Return the log of each server by its name."""
    found = {}
    for value in values:
        name, equals, file = value.partition("=")
        if not (name and equals and file):
            raise click.BadParameter(f"{value!r} is no NAME=FILE, such as Clark=var/log/Clark.log")
        found[name] = Path(file)
    return found


def read_variables(
    _ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Return variables of the environment by name."""
    found = {}
    for one in values:
        name, equals, value = one.partition("=")
        if not name or (not equals and name not in os.environ):
            raise click.BadParameter(f"{one!r} is no NAME=VALUE, nor a variable that is set here")
        found[name] = value if equals else os.environ[name]
    return found


def seconds_option(default: float, text: str) -> Any:
    """Return the arguments of an option for seconds."""
    return {
        "type": click.FloatRange(min=0, min_open=True),
        "default": default,
        "show_default": True,
        "metavar": "SECONDS",
        "help": text,
    }


def check_usage(ctx: click.Context, options: Mapping[str, Any]) -> None:
    """Raise UsageError if options contradict one another, or would be ignored."""
    _check_needed(ctx, options)
    if options["rubric_file"] and options["print_rubric"]:
        raise click.UsageError("--print-rubric prints that of --profile; leave out --rubric")
    if options["rubric_file"] and _is_given(ctx, "profile"):
        raise click.UsageError("--rubric takes the place of --profile; leave one of them out")
    if options["start"] and (options["lose"] or options["regain"]):
        raise click.UsageError("--start starts and stops the servers itself; leave out --lose and --regain")
    if bool(options["lose"]) != bool(options["regain"]):
        raise click.UsageError("--lose and --regain go together")
    for command in filter(None, (options["start"], options["lose"], options["regain"])):
        try:
            shlex.split(command)
        except ValueError as error:
            raise click.UsageError(f"a command cannot be read: {command}: {error}") from error
    if options["topology"] and not options["servers"]:
        raise click.UsageError("--topology goes with NAME=HOST:PORT; a herd of ours is named by --config")
    without = [host for name, host, port in options["servers"] if name == f"{host}:{port}"]
    if without and any(options[one] for one in ("start", "lose", "topology", "pattern", "logs")):
        raise click.UsageError(
            "servers must be named, as NAME=HOST:PORT, for --start, --lose, --logs, --log and --topology"
        )


def _check_needed(ctx: click.Context, options: Mapping[str, Any]) -> None:
    spelled = {parameter.name: parameter.opts[0] for parameter in ctx.command.params}
    for needed, names in _NEEDED.items():
        for name in names:
            if not options[needed] and _is_given(ctx, name):
                raise click.UsageError(
                    f"{spelled[name]} does nothing without {spelled[needed]}; give both or neither"
                )


def _is_given(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
