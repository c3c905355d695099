"""`init`: writes what a herd needs in a folder."""

from __future__ import annotations

import os
import shlex
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import click

from proxyherd.cli.common import Failure, examples
from proxyherd.cli.pipes import while_read
from proxyherd.config import herd_file
from proxyherd.local import conf
from proxyherd.local.folder import refuse_folder
from proxyherd.local.messages import to_type
from proxyherd.local.programs import locate, typed_as


@click.command(
    short_help="Write what a herd needs into a folder.",
    epilog=examples("proxyherd init", "proxyherd init three && cd three && proxyherd up"),
)
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
def init(folder: Path) -> None:
    """Write herd.toml, the default herd, and a supervisord.conf for its servers into FOLDER, by default this one.
    A new FOLDER is made.

    What is there stays. So to run a herd of your own, write its herd.toml first. After you have added or removed
    servers, delete supervisord.conf, and type this again.

    Exit codes: 0 both files are there; 1 one could not be written; 2 herd.toml must be corrected first.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        refuse_folder()
        fits = _write_files()
    except OSError as error:
        if error.filename is None:  # stdout's
            raise
        raise Failure(f"{error.filename}: {error.strerror}") from error
    there = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    again = "" if fits else f"rm {conf.CONF} && {typed_as('proxyherd')} init && "
    click.echo(f"Next: {there}{again}{typed_as('proxyherd')} up")


def _write_files() -> bool:
    """Write the two files into the working directory. Return whether they fit each other. Raises ConfigError and OSError."""
    file = herd_file.DEFAULT_FILE if herd_file.DEFAULT_FILE.exists() else herd_file.FOLDERS_FILE
    docs = pages()
    if file.exists():
        _say(f"Kept {file}")
    else:
        _write(file, default_herd().replace("docs/", docs))
        _say(f"Wrote {file}: five servers on this machine")
    names = sorted(herd_file.load(file).servers)
    if conf.CONF.exists():
        difference = _difference(names, conf.read_conf())
        _say(f"Kept {conf.CONF}{difference}")
        return not difference
    words = {"up": to_type("up"), "supervisorctl": typed_as("supervisorctl"), "docs": docs}
    program = conf.spell_path(locate("proxyherd"), Path.cwd())
    _write(conf.CONF, conf.spell_conf(names, str(file), program, words))
    _say(f"Wrote {conf.CONF}: {', '.join(names)}")
    return True


def _write(file: Path, text: str) -> None:
    """Write a new file, all of it or nothing: what is there is kept next time. Raises OSError."""
    half = file.with_name(f".{file.name}.unfinished")
    try:
        half.write_text(text, "utf-8")
        half.rename(file)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(file)) from error


def _say(text: str) -> None:
    """Tell what was done; if nobody reads it, go on."""
    with while_read():
        click.echo(text)


def _difference(names: list[str], text: str) -> str:
    """Return in what a supervisord.conf differs from the herd's file, if it does."""
    there = conf.names_in(text)
    if there == names:
        return ""
    return f", which has {', '.join(there)}; the herd's file has {', '.join(names)}"


def default_herd() -> str:
    """Return the file of the default herd."""
    return files("proxyherd.local").joinpath("herd.toml").read_text("utf-8")


def pages() -> str:
    """Return where the pages are, as a prefix of their names."""
    urls = dict(line.split(", ", 1) for line in metadata.metadata("proxyherd").get_all("Project-URL") or ())
    return f"{urls['Documentation']}/" if "Documentation" in urls else "docs/"
