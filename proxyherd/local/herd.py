"""Starts and stops the herd of this folder, under supervisord."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from proxyherd.local import conf, programs
from proxyherd.local.folder import SECRET
from proxyherd.local.messages import fail, say, to_type, typed
from proxyherd.local.supervision import (
    STANDSTILL_SECONDS,
    shut_down,
    states,
    wait_while_it_changes,
)
from proxyherd.local.witnesses import look, refuse_parts

GAZETTEER: Final = Path("var/gazetteer.dat")


def up() -> None:
    """Start the herd of this folder, which is prepared, and wait until it is whole."""
    try:
        _up()
    except KeyboardInterrupt:  # which supervisord does not get
        left = f"; what has been started goes on in the background: {to_type('down')} ends it"
        fail(f"interrupted{'' if look().nothing else left}", 130)


def _up() -> None:
    file = herd_file(str(conf.CONF))
    is_new = not SECRET.exists()
    following = SECRET.with_name(f"{SECRET.name}.next")
    if is_new and following.exists():
        fail(
            f"{SECRET} is missing: a change of the secret was broken off; go on with: mv {following} {SECRET}"
        )
    programs.run_program("proxyherd", "secret", "new", str(SECRET), "--if-missing")
    if is_new and any(Path("var/lib").iterdir()):
        say(
            f"{SECRET} was missing, and is a new one now; servers of this herd on other machines need the same file"
        )
    start(str(conf.CONF))
    wait(file)


def herd_file(file: str) -> str:
    """Return the herd's file that a supervisord.conf names. Fails where it names none."""
    try:
        text = conf.read_conf(Path(file))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        remedy = (
            "; type proxyherd init in an empty folder, or go to the folder of the herd" if missing else ""
        )
        fail(f"{file}: {error.strerror}{remedy}", 2)
    if not (named := conf.config_in(text)):
        fail(
            f'{file}: [supervisord] has no environment = PROXYHERD_CONFIG="FILE", the herd\'s file; write it there',
            2,
        )
    return named


def is_up() -> None:
    """End with exit code 0 if supervisord runs, else 1."""
    sys.exit(not look().answers)


def check_stopped() -> None:
    """Fails while any part of a herd runs here."""
    found = look()
    if found.answers:
        fail(f"the herd runs, and its state is in var/; type {to_type('down')} first")
    refuse_parts(found)


def down() -> None:
    """Stop supervisord and all that it runs, and wait until they have ended."""
    found = look()
    refuse_parts(found)
    if found.nothing:
        print("No herd of this folder runs.")
        return
    shut_down()
    # The process itself may stay a zombie where nobody reaps it: its pid file and its socket are gone.
    left = wait_while_it_changes(look, lambda one: not one.answers and not one.supervisord)
    if left.answers or left.supervisord:
        fail(f"supervisord has not ended in {STANDSTILL_SECONDS:g} s; see var/log/supervisord.log")
    refuse_parts(left)
    print("The herd has stopped.")


def build_gazetteer(file: str) -> None:
    """Build the offline places unless they are current."""
    if programs.ask("proxyherd", "gazetteer", "build", str(GAZETTEER), "--config", file):
        say(
            f"the herd starts {'with the offline places that it has' if GAZETTEER.exists() else 'without offline places'}"
        )


def start(file: str) -> None:
    """Have supervisord run what a supervisord.conf says, with the offline places; what runs already is left running."""
    redis, runs, config = Path(file) != conf.CONF, look().answers, herd_file(file)
    if not runs:
        programs.run_program(
            "proxyherd", "check-config", "--config", config, "--ports", stdout=subprocess.DEVNULL
        )
    elif any(name.startswith("redis:") for name in states()) != redis:
        fail(f"the herd {'' if redis else 'on Redis '}runs in this folder; type {to_type('down')} first")
    build_gazetteer(config)  # may fetch much, so what else may fail comes first
    if runs:
        for arguments in (["update"], ["start", *(["redis:*"] if redis else []), "herd:*"]):
            programs.ask("supervisorctl", "-c", file, *arguments, stdout=subprocess.DEVNULL)
        return
    os.umask(0o027)  # supervisord opens its log before it takes the umask of its file
    programs.run_program("supervisord", "-c", file)


def wait(file: str) -> None:
    """Wait until all servers are ready and linked, and supervisord has seen each last; print how they are."""
    seen = f"see also: {programs.typed_as('supervisorctl')} status"
    patience = f"{STANDSTILL_SECONDS:g}"
    if programs.ask("proxyherd", "status", "--config", file, "--wait", patience, "--progress"):
        fail(
            f"the herd is not whole, and nothing has changed for {patience} s. On a busy machine its servers may still come: "
            f"{programs.typed_as('proxyherd')} status shows them, and {typed()} may be typed again; {seen}"
        )
    found = wait_while_it_changes(states, lambda now: set(now.values()) == {"RUNNING"})
    if poor := [f"{name} is {state}" for name, state in found.items() if state != "RUNNING"]:
        fail(f"supervisord says that {', '.join(poor)}; {seen}")
