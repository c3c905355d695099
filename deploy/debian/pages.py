"""Prints a page of the Debian package, made from the program and its libraries in a folder: `licences` or `man`."""

from __future__ import annotations

import sys
from importlib.metadata import Distribution, distributions


def licence(found: Distribution) -> str:
    """Return what a library says about its licence: in one line, since its text is beside it."""
    about = found.metadata
    classifiers = [
        text.rpartition(" :: ")[2] for text in about.get_all("Classifier") or [] if "License" in text
    ]
    expression: str | None = about["License-Expression"]
    return expression or ", ".join(classifiers) or (about["License"] or "see there").splitlines()[0]


def print_licences(folder: str) -> None:
    """Print the libraries, for the copyright file."""
    for found in sorted(distributions(path=[folder]), key=lambda one: one.metadata["Name"].lower()):
        if found.metadata["Name"] != "proxyherd":
            print(f" {found.metadata['Name']} {found.version}: {licence(found)}")


def roff(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-")


def print_man(folder: str) -> None:
    """Print the page proxyherd(1), with all commands."""
    sys.path.append(folder)
    import click  # noqa: PLC0415 - both are in the folder

    from proxyherd import __version__, cli  # noqa: PLC0415

    context = click.Context(cli.main, info_name="proxyherd")
    print(f'.TH PROXYHERD 1 "" "proxyherd {__version__}"')
    print(".SH NAME\nproxyherd \\- herd of servers that know where mobile clients are")
    print(".SH SYNOPSIS\n.B proxyherd\n[OPTIONS] COMMAND [ARGS]...")
    print(".SH DESCRIPTION\nThe servers of a herd, and what asks and looks after them.")
    print("Each command has options and examples in its \\-\\-help.\n.SH COMMANDS")
    for name in cli.COMMAND_NAMES:
        command = cli.main.get_command(context, name)
        assert command is not None
        print(f".TP\n.B proxyherd {roff(name)}\n{roff(command.get_short_help_str(limit=1000))}")
    print(".SH FILES\n.TP\n.I /etc/proxyherd/herd.toml\nThe herd's file.")
    print(".TP\n.I /etc/proxyherd/secret\nThe herd's secret, the same on all hosts.")
    print(".SH SEE ALSO\n.I /usr/share/doc/proxyherd/README.Debian")


if __name__ == "__main__":
    {"licences": print_licences, "man": print_man}[sys.argv[1]](sys.argv[2])
