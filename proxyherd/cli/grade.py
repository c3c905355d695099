"""`grade`: judge any herd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from proxyherd.cli import grade_batch
from proxyherd.cli.common import Failure, config_option, examples
from proxyherd.cli.grade_herd import LOGS, has_web_ports, lent_herd
from proxyherd.cli.grade_marks import (
    SECTION_NAMES,
    complete_parts,
    find_rubric,
    rubric_options,
    sections_of,
    write_report,
)
from proxyherd.cli.grade_run import NothingJudged, exit_as, judged
from proxyherd.cli.grade_usage import check_usage, read_addresses, read_logs, read_variables, seconds_option
from proxyherd.grading import guard, judging
from proxyherd.grading.report import nothing_judged
from proxyherd.grading.rubric import profile_text

SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")


@click.command(
    cls=grade_batch.GradeCommand,
    short_help="Test a herd, this one or somebody else's.",
    epilog=examples(
        "proxyherd grade",
        "proxyherd grade 127.0.0.1:10003 127.0.0.1:10004 --json -",
        "proxyherd grade --start 'python3 server.py {name}' --directory submission --junit result.xml",
        "proxyherd grade --lose '.venv/bin/supervisorctl stop herd:{name}' "
        "--regain '.venv/bin/supervisorctl start herd:{name}'",
        "proxyherd grade --profile assignment --print-rubric >rubric.toml",
        "proxyherd grade --batch submissions --start 'python3 server.py {name}' --jobs 2 --output grades",
    ),
)
@click.argument("servers", nargs=-1, metavar="[[NAME=]HOST:PORT]...", callback=read_addresses)
@click.option(
    "--topology",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file that says who is linked with whom, where servers are named by NAME=HOST:PORT: TOML with the key "
    'edges, such as edges = [["Clark", "Jaquez"]].',
)
@click.option(
    "--logs",
    "pattern",
    metavar="PATTERN",
    help="Where the servers' logs are, with {name} in it.  [default for a herd's file: "
    + ", else ".join(LOGS)
    + "; for --start: what they print]",
)
@click.option(
    "--log",
    "logs",
    multiple=True,
    metavar="NAME=FILE",
    callback=read_logs,
    help="Where the log of one server is.",
)
@click.option(
    "--start",
    metavar="COMMAND",
    help="Start each server by this command, with {name} (and {host}, {port}) in it; all end with the grading.",
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    default=Path(),
    metavar="FOLDER",
    help="Where --start starts them.  [default: here]",
)
@click.option("--within", default="", hidden=True)  # the words of a sandbox, before those of --start
@click.option("--google-is-here", is_flag=True, hidden=True)  # servers there reach a stand-in for Google
@click.option(
    "--stop",
    type=click.Choice(SIGNALS),
    default=SIGNALS[0],
    show_default=True,
    help="How a server that was started by --start is lost.",
)
@click.option(
    "--lose", metavar="COMMAND", help="How a server of a running herd is stopped, with {name} in it."
)
@click.option("--regain", metavar="COMMAND", help="How it is started again.")
@click.option(
    "--env",
    multiple=True,
    metavar="NAME[=VALUE]",
    callback=read_variables,
    help="Give this variable to --start, --lose and --regain, which get few others. Without a value: as it is here.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_parts,
    help=f"Judge this group of the rubric only, or this section: {', '.join(SECTION_NAMES)}. May be given again.",
)
@click.option(
    "--skip",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_parts,
    help="Leave this group or section out; likewise.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="Write the report as JSON too; -: on stdout, in place of the text.",
)
@click.option(
    "--junit",
    "junit_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the report as JUnit XML too.",
)
@click.option(
    "--patience", **seconds_option(5.0, "For one answer, and for a report to reach another server.")
)
@click.option(
    "--deadline", **seconds_option(300.0, "For all checks together; what is not judged by then is not seen.")
)
@rubric_options
@grade_batch.batch_options
@config_option()
@click.pass_context
def grade(ctx: click.Context, /, **options: Any) -> None:
    """Judge a herd, by default that of the herd's file, or any other by the addresses for its clients: conformance
    with the client protocol, floods, logs, bad input, a server lost and regained. Clients are invented for it, and
    stay in the herd. Some of its questions may cost a call to Google; `--skip places --skip cases` asks none.

    Exit codes: 0 no fault found; 1 faults, or nothing could be seen; 2 bad usage; 3 a server cannot be reached or
    started; 4 broken off. With --batch: 1 if one submission has faults or could not be graded.
    """
    check_usage(ctx, options)
    if options["print_rubric"]:
        click.echo(profile_text(options["profile"]), nl=False)
        return
    rubric = find_rubric(options, has_web=has_web_ports(ctx, options))
    if options["batch"]:
        grade_batch.grade_class(ctx, options)
        return
    if options["start"] and (code := guard.split()) is not None:
        exit_as(ctx, code)
    with lent_herd(ctx, options) as (herd, started):
        try:
            report = judged(herd, started, rubric, sections_of(rubric, options), options)
        except NothingJudged as error:
            checks, where = judging.all_checks(), judging.addresses(herd)
            write_report(nothing_judged(rubric, checks, where, error.message, error.last_words), options)
            raise
    write_report(report, options)
    if not report.of("passed") and not report.of("fault"):
        raise Failure("no check could be seen to pass or fail; the report says of each what it needs")
    ctx.exit(0 if report.is_full else Failure.exit_code)
