"""The command line: a file a command, named as the command.

- `common`: what commands share: the herd's file, failures and exit codes, examples, tables
- `asking`: what `iamat` and `whatsat` share; `refusals`: why a server has answered `? `; `contents`: what `export` and `forget` share
- `grade_usage`, `grade_herd`, `grade_run`, `grade_marks`, `grade_batch`: of `grade`, how it is called; the herd; how it is
  judged; by which rubric it is marked, and the report; a class at once
- `signing`: what commands share that make tokens; `web_port`: what `follow`, `forget`, `near` and `token revoke` share
- `output`: where output goes; `pipes`: output whose reader may leave; `status_json`: what `status --json` prints

Commands: `bridge`, `check_config`, `completion`, `down`, `export`, `follow`, `forget`, `gazetteer`, `grade`, `iamat`, `init`,
`journal`, `near`, `places`, `places_sim`, `prometheus_targets`, `secret`, `serve`, `status`, `tail`, `token`, `up`, `whatsat`. A
command's file is imported when the command is called, so that none waits for what others need.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Final

import click

from proxyherd import __version__
from proxyherd.base.words import suggest
from proxyherd.cli.common import Group, config_option, examples

COMMAND_NAMES: Final = (
    *(
        "bridge",
        "check-config",
        "completion",
        "down",
        "export",
        "follow",
        "forget",
        "gazetteer",
        "grade",
        "iamat",
    ),
    *(
        "init",
        "journal",
        "near",
        "places",
        "places-sim",
        "prometheus-targets",
        "secret",
        "serve",
        "status",
        "tail",
    ),
    *("token", "up", "whatsat"),
)


class Commands(Group):
    """All commands, each read from its file."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(COMMAND_NAMES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:  # noqa: ARG002 - click's
        if name not in COMMAND_NAMES:
            return None
        attribute = name.replace("-", "_")
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{attribute}"), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises UsageError, which names the one that may be meant: click knows none by name here."""
        if not args[0].startswith("-") and args[0] not in COMMAND_NAMES and not ctx.resilient_parsing:
            ctx.fail(f"there is no command {args[0]!r}{suggest(args[0], COMMAND_NAMES)}")
        return super().resolve_command(ctx, args)


def _build() -> str:
    """Return whether the modules that run for each command were compiled (`docs/operations.md`)."""
    turn = find_spec("proxyherd.core.turn")
    assert turn is not None
    return "pure Python" if str(turn.origin).endswith(".py") else "compiled"


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["--help", "-h"]},
    epilog=examples(
        "proxyherd init && proxyherd up",
        "proxyherd iamat kiwi.cs.ucla.edu +34.068930-118.445127",
        "proxyherd whatsat kiwi.cs.ucla.edu 10 5 --server Bailey",
        "proxyherd status",
    ),
)
@config_option(envvar="PROXYHERD_CONFIG")
@click.version_option(__version__, message=f"%(prog)s, version %(version)s ({_build()})")
def main() -> None:
    """An application server herd: equal servers that know where clients are, and what is near them.

    Exit codes: 0 done; 1 the answer is no; 2 bad usage or configuration; 3 no server was reached.
    """
