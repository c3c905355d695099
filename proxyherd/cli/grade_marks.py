"""How `grade` marks a herd: by which rubric, and where the report goes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import click

from proxyherd.cli.common import Misconfigured
from proxyherd.grading import judging, rubric
from proxyherd.grading.report import GradingReport
from proxyherd.grading.report_files import as_json, as_junit
from proxyherd.grading.report_text import FAULTS_SHOWN, as_text
from proxyherd.grading.rubric import Rubric

F = TypeVar("F", bound=Callable[..., Any])


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


def find_rubric(options: dict[str, Any], sections: Collection[str]) -> Rubric:
    """Return the rubric that the options name, for these sections. Raises Misconfigured."""
    checks = judging.all_checks()
    try:
        if options["rubric_file"]:
            found = rubric.load(options["rubric_file"], checks)
        else:
            found = rubric.profile(options["profile"], checks)
    except rubric.RubricError as error:
        raise Misconfigured(str(error)) from error
    part = found.only(judging.checks_of(sections))
    if not part.shares:
        raise Misconfigured(
            f"the rubric {found.title!r} counts no check of {', '.join(sections) or 'no section'}"
        )
    return part


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
    click.echo(text, nl=False)
