"""The command line: serve one server, check the herd's file, ask a running herd, prepare and check its files."""

from __future__ import annotations

import click

from proxyherd import __version__
from proxyherd.cli.asking import iamat, whatsat
from proxyherd.cli.bridge import bridge
from proxyherd.cli.common import Group, config_option, examples
from proxyherd.cli.completion import completion
from proxyherd.cli.export import export
from proxyherd.cli.grade import grade
from proxyherd.cli.journal import gazetteer, journal, secret
from proxyherd.cli.places import places
from proxyherd.cli.places_sim import places_sim
from proxyherd.cli.prometheus_targets import prometheus_targets
from proxyherd.cli.serve import check_config, serve
from proxyherd.cli.status import status
from proxyherd.cli.tail import tail


@click.group(
    cls=Group,
    epilog=examples(
        "proxyherd serve Clark",
        "proxyherd iamat kiwi.cs.ucla.edu +34.068930-118.445127",
        "proxyherd whatsat kiwi.cs.ucla.edu 10 5 --server Bailey",
        "proxyherd status",
    ),
)
@config_option(envvar="PROXYHERD_CONFIG")
@click.version_option(__version__)
def main() -> None:
    """An application server herd: equal servers that know where clients are, and what is near them.

    Exit codes: 0 done; 1 the answer is no; 2 bad usage or configuration; 3 no server was reached.
    """


for _command in (
    serve,
    check_config,
    iamat,
    whatsat,
    status,
    tail,
    secret,
    places,
    gazetteer,
    journal,
    places_sim,
    prometheus_targets,
    bridge,
    export,
    completion,
    grade,
):
    main.add_command(_command)
