"""`up`: starts the herd of a folder."""

from __future__ import annotations

from pathlib import Path

import click

from proxyherd.cli.common import examples
from proxyherd.config import herd_file
from proxyherd.config.herd_file import Herd
from proxyherd.local import conf
from proxyherd.local import herd as local_herd
from proxyherd.local.folder import prepare
from proxyherd.local.messages import made, say, to_type
from proxyherd.local.programs import typed_as


@click.command(short_help="Start the herd of this folder.", epilog=examples("proxyherd up"))
def up() -> None:
    """Start the herd of this folder under supervisord, in the background.

    The folder needs what proxyherd init writes. What else is missing is made in var/: the herd's secret, and the offline
    places. Returns when all servers are ready, linked, and RUNNING; what runs already is left running.

    Exit codes: 0 the herd is whole; 1 it is not, or not within 30 s without progress; 2 a file must be corrected first.
    """
    file = local_herd.herd_file(str(conf.CONF))
    prepare()  # a folder in which no herd can run is told before what its files say
    herd = herd_file.load(Path(file))
    if others := sorted({*herd.servers} - {*conf.names_in(conf.read_conf())}):
        say(
            f"{conf.CONF} does not run {', '.join(others)}; unless they run elsewhere, delete it and type proxyherd init"
        )
    local_herd.up()
    click.echo(next_steps(herd))


def next_steps(herd: Herd) -> str:
    """Return what a newcomer may type next, as it is typed here."""
    names = list(herd.servers)
    one, another = herd.servers["Clark" if "Clark" in names else names[-1]], herd.servers[names[0]]
    proxyherd, supervisorctl = typed_as("proxyherd"), typed_as("supervisorctl")
    clients, admin = one.clients[0], one.admin[0]
    is_plain = herd.tls.clients_certificate is None
    talk = f"nc {clients.host} {clients.port}" if is_plain else f"openssl s_client -quiet -connect {clients}"
    return "\n".join(
        (
            "\nThe herd is up. Next, for example:",
            f"  {talk}      and type there:",
            "    IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503",
            "    WHATSAT kiwi.cs.ucla.edu 10 5",
            *(
                f"  http://{address}/ in a browser: report where it is, and see what is around"
                for address in another.web[:1]
            ),
            f"  http://{admin}/ in a browser: the state of the whole herd",
            *(
                ["  make example            fifty phones move on a map, with a fence that lights up"]
                if made()
                else []
            ),
            f"  {proxyherd} whatsat kiwi.cs.ucla.edu 10 5 --server {another.name}",
            *([f"  {proxyherd} near 34.06893,-118.445127 5"] if another.web else []),
            f"  {proxyherd} status",
            f"  {supervisorctl} tail -f herd:{one.name}",
            f"  {supervisorctl} restart herd:{one.name}",
            f"  {to_type('down') if made() else f'{proxyherd} down'}",
        )
    )
