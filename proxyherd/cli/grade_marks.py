"""How `grade` marks a herd: by which rubric, and where the report goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from proxyherd.cli.common import Misconfigured
from proxyherd.cli.pipes import while_read
from proxyherd.grading import judging, rubric
from proxyherd.grading.checks import Section
from proxyherd.grading.report import GradingReport
from proxyherd.grading.report_files import as_json, as_junit
from proxyherd.grading.report_text import FAULTS_SHOWN, as_text
from proxyherd.grading.rubric import Rubric

F = TypeVar("F", bound=Callable[..., Any])

SECTION_NAMES = tuple(one.name for one in judging.SECTIONS)


def rubric_options(command: F) -> F:
    """Add the options that say how a herd is marked."""
    for option in reversed(
        (
            click.option(
                "--profile",
                type=click.Choice(rubric.PROFILES),
                default="strict",
                show_default=True,
                help="Mark by what the course's text demands, or by the whole client protocol.",
            ),
            click.option(
                "--rubric",
                "rubric_file",
                type=click.Path(path_type=Path, dir_okay=False),
                metavar="FILE",
                help="Mark by a rubric of your own, in place of --profile.",
            ),
            click.option(
                "--print-rubric",
                is_flag=True,
                help="Print the rubric of --profile, to begin one of your own, and judge nothing.",
            ),
            click.option(
                "--faults",
                type=click.IntRange(min=0),
                default=FAULTS_SHOWN,
                show_default=True,
                metavar="N",
                help="Faults that the text shows in full; --json has all.",
            ),
        )
    ):
        command = option(command)
    return command


def find_rubric(options: Mapping[str, Any], *, has_web: bool) -> Rubric:
    """Return the part that the options name of their rubric, for a herd that has web ports or none. Raises Misconfigured
    and BadParameter.
    """
    checks = judging.all_checks()
    try:
        if options["rubric_file"]:
            found = rubric.load(options["rubric_file"], checks)
        else:
            found = judging.profile_of(options["profile"], has_web=has_web)
    except rubric.RubricError as error:
        raise Misconfigured(str(error)) from error
    only, skip = (_checks_of(found, option, options[option]) for option in ("only", "skip"))
    part = found.only((only if options["only"] else found.shares.keys()) - skip)
    if not part.shares:
        raise Misconfigured(f"the rubric {found.title!r} counts no check of what --only and --skip leave")
    return part


def _checks_of(whole: Rubric, option: str, names: Collection[str]) -> set[str]:
    """Return the IDs of the checks in groups of the rubric, or else in sections."""
    found = set()
    for name in names:
        if name in whole.groups:
            found |= {check for check, share in whole.shares.items() if share.group == name}
        elif name in SECTION_NAMES:
            found |= judging.checks_of([name])
        else:
            known = ", ".join(dict.fromkeys([*whole.groups, *SECTION_NAMES]))
            raise click.BadParameter(
                f"{name!r} is neither a group of the rubric nor a section; there are {known}",
                param_hint=f"'--{option}'",
            )
    return found


def sections_of(part: Rubric, options: Mapping[str, Any]) -> Sequence[Section]:
    """Return the sections that have to be judged for a part of a rubric."""
    if not options["only"] and not options["skip"]:
        return judging.SECTIONS
    return [one for one in judging.SECTIONS if judging.checks_of([one.name]) & part.shares.keys()]


def complete_parts(_ctx: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """Complete the name of a section, for a shell."""
    return [name for name in SECTION_NAMES if name.startswith(incomplete)]


def write_report(report: GradingReport, options: dict[str, Any]) -> None:
    """Write the report as the options say. Raises Misconfigured."""
    json_file, junit_file = options["json_file"], options["junit_file"]
    try:
        if junit_file is not None:
            junit_file.write_text(as_junit(report), encoding="utf-8")
        if json_file is not None and str(json_file) != "-":
            json_file.write_bytes(as_json(report))
    except OSError as error:
        raise Misconfigured(f"{error.filename}: {error.strerror}; the report cannot be written") from error
    text = as_json(report) if str(json_file) == "-" else as_text(report, options["faults"])
    with while_read():
        click.echo(text, nl=False)
