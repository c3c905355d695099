"""`grade --batch`: judge a class at once, each submission in a sandbox."""

from __future__ import annotations

import asyncio
import hashlib
import os
import site
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from proxyherd import __version__
from proxyherd.base.escapes import visible
from proxyherd.base.files import make_folder
from proxyherd.cli.common import Failure, Misconfigured, default_gazetteer
from proxyherd.cli.gazetteer import check_gazetteer
from proxyherd.cli.grade_herd import herd_of_file
from proxyherd.cli.grade_run import BrokenOff, cancel_when_told, exit_as
from proxyherd.cli.grade_usage import BATCH_OPTIONS
from proxyherd.cli.pipes import while_read
from proxyherd.grading import batch, google, guard, records, sandbox, submissions, table
from proxyherd.grading.batch import Plan
from proxyherd.grading.records import Record
from proxyherd.grading.sandbox import Bounds, Layout
from proxyherd.grading.submissions import Submission

F = TypeVar("F", bound=Callable[..., Any])

MEBIBYTE = 1 << 20
SPARE_SECONDS = 90.0
"""What a grading may take besides its checks: to start the servers, to meet them and to end them."""

_WORDS = "proxyherd.grade.words"
_SET_HERE = (
    "start",
    "within",
    "google_is_here",
    "directory",
    "env",
    "json_file",
    "junit_file",
    "lose",
    "regain",
)

UNSANDBOXED = (
    "without a sandbox, these are not bounded: the network, memory and files of all processes together, what servers "
    "may read, and who else uses their ports, so that one submission is judged at a time"
)


class GradeCommand(click.Command):
    """Keeps the words that it was given, for the gradings that it starts."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_WORDS] = list(args)
        return super().parse_args(ctx, args)


def batch_options(command: F) -> F:
    """Add the options of a batch."""
    number = click.IntRange(min=1)
    folder = click.Path(path_type=Path, file_okay=False)
    for option in reversed(
        (
            click.option(
                "--batch",
                type=click.Path(path_type=Path, file_okay=False, exists=True),
                metavar="FOLDER",
                help="Judge each submission in FOLDER, in a sandbox; --start says how a server is started there.",
            ),
            click.option(
                "--output",
                type=folder,
                default=Path("grades"),
                metavar="FOLDER",
                help="Where the results of --batch go; what is there already is not judged again.  [default: grades]",
            ),
            click.option(
                "--jobs",
                type=number,
                default=os.cpu_count() or 1,
                metavar="N",
                help="Submissions that are judged at once.  [default: one a processor]",
            ),
            click.option(
                "--unsandboxed", is_flag=True, help="Judge --batch without a sandbox, where none can be had."
            ),
            click.option(
                "--show",
                multiple=True,
                type=click.Path(path_type=Path, exists=True),
                metavar="PATH",
                help="Let submissions read this, such as a program in your home, which they don't see.",
            ),
            _bound("--memory", 1024, "MIB", "For a submission's processes."),
            _bound("--processes", 256, "N", "For a submission, with their threads."),
            _bound("--disk", 256, "MIB", "For a submission's files."),
        )
    ):
        command = option(command)
    return command


def _bound(name: str, default: int, unit: str, text: str) -> Callable[[F], F]:
    number = click.IntRange(min=1)
    return click.option(name, type=number, default=default, show_default=True, metavar=unit, help=text)


def grade_class(ctx: click.Context, options: dict[str, Any]) -> None:
    """Judge all submissions, and write the results. Raises UsageError and Failure."""
    folder: Path = options["batch"].resolve()
    output: Path = options["output"].resolve()
    _check(options, folder, output)
    found, others = submissions.find_submissions(folder, options["start"])
    for note in _passed_over(others):
        click.echo(note, err=True)
    if not found:
        raise Misconfigured(f"{folder}: there is no submission in it: neither a folder nor an archive")
    _claim(output, folder)
    plan = _plan(ctx, options, folder, output)
    if (code := guard.split()) is not None:
        batch.clean(output)
        exit_as(ctx, code)
    made: dict[Submission, Record] = {}
    try:
        with batch.own_folder(output):
            plan = _with_google(plan)
            is_whole = _judge(plan, found, options["jobs"] if plan.has_sandbox else 1, made)
            rows = [made.get(one, Record(one.name, "")) for one in found]
            _write(rows, plan, folder, others)
    except (batch.UsageError, records.FolderError) as error:
        raise Misconfigured(str(error)) from error
    except OSError as error:
        raise Misconfigured(f"{error.filename}: {error.strerror}; the results cannot be written") from error
    _say(rows, output)
    if not is_whole:
        raise BrokenOff(
            f"the grading was broken off, with {len(made)} of {len(found)} submissions graded; the same command goes on "
            "where it was"
        )
    if any(one.code or one.problem for one in rows):
        ctx.exit(Failure.exit_code)


def _plan(ctx: click.Context, options: dict[str, Any], folder: Path, output: Path) -> Plan:
    """Return what is the same for all submissions. Raises Misconfigured if there can be no sandbox."""
    bounds = Bounds(options["memory"] * MEBIBYTE, options["processes"], options["disk"] * MEBIBYTE)
    has_sandbox = not options["unsandboxed"]
    shown = [*sandbox.shown_paths(), *(path.resolve() for path in options["show"])]
    if has_sandbox and (problem := _problem(bounds, shown)):
        raise Misconfigured(
            f"there can be no sandbox here: {problem}; it needs bubblewrap (apt install bubblewrap) and leave to make "
            f"namespaces; --unsandboxed does without, but {UNSANDBOXED}"
        )
    words, stamp = _words(ctx, options["env"])
    return Plan(
        words,
        options["start"],
        output,
        stamp,
        options["deadline"] + SPARE_SECONDS,
        bounds=bounds,
        has_sandbox=has_sandbox,
        hidden=[folder, Path.home()],
        shown=shown,
        environ=options["env"],
    )


def _check(options: dict[str, Any], folder: Path, output: Path) -> None:
    if not options["start"]:
        raise click.UsageError("--batch needs --start, such as --start 'python3 server.py {name}'")
    for option in ("json_file", "junit_file"):
        if options[option]:
            raise click.UsageError("--batch writes reports of its own; leave out --json and --junit")
    if options["directory"] != Path():
        raise click.UsageError("--batch starts servers in each submission's folder; leave out --directory")
    if output == folder or output.is_relative_to(folder):
        raise click.UsageError("--output lies in the folder of the submissions; name another one")


def _claim(output: Path, folder: Path) -> None:
    """Make the folder of the results, for this class. Raises Misconfigured if it cannot be."""
    try:
        make_folder(output)
        with records.alone(output):
            records.claim(output, folder)
    except records.FolderError as error:
        raise Misconfigured(str(error)) from error
    except OSError as error:
        raise Misconfigured(f"{output}: {error.strerror}") from error


def _problem(bounds: Bounds, shown: Sequence[Path]) -> str:
    """Try the sandbox; return why there can be none."""
    user = sandbox.FIRST_USER if sandbox.is_root() else None
    with tempfile.TemporaryDirectory(prefix="proxyherd-grade-") as stage:
        layout = Layout(Path(stage), user, shown=shown)
        layout.files.mkdir()
        layout.output.mkdir()
        return sandbox.problem(layout, bounds)


def _with_google(plan: Plan) -> Plan:
    """Return the plan with a stand-in for Google in each sandbox, if that can be."""
    gazetteer = default_gazetteer().resolve()
    if not plan.has_sandbox:
        return plan
    if not os.access(gazetteer, os.R_OK):
        click.echo(
            f"Google's URLs lead nowhere: {gazetteer} cannot be read; proxyherd gazetteer build makes it",
            err=True,
        )
        return plan
    check_gazetteer(gazetteer)
    try:
        made = google.make_google(plan.output / batch.GOOGLE)
    except google.OpensslError as error:
        raise Misconfigured(str(error)) from error
    return msgspec.structs.replace(
        plan,
        places=_places(made, gazetteer),
        over=made.over(_bundles()),
        shown=[*plan.shown, made.authority],
        environ={**made.environ, **plan.environ},
    )


def _places(made: google.FakeGoogle, gazetteer: Path) -> list[str]:
    return [
        *(sys.executable, "-P", "-m", "proxyherd", "places-sim", "--quiet", "--address", google.ADDRESS),
        *("--tls-certificate", str(made.certificate), "--tls-key", str(made.key)),
        *("--gazetteer", str(gazetteer)),
    ]


def _bundles() -> list[Path]:
    """Return the trusted certificates that libraries of Python bring."""
    folders = [*site.getsitepackages(), "/usr/lib/python3/dist-packages"]
    return [Path(folder) / "certifi/cacert.pem" for folder in folders]


def _words(ctx: click.Context, environ: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the words of each grading, and a digest of the files that they name. Paths are made absolute."""
    given, _, _ = ctx.command.make_parser(ctx).parse_args(list(ctx.meta[_WORDS]))
    words, digest = ["grade"], hashlib.sha256(f"{__version__} {sorted(environ.items())}".encode())
    files = []
    for parameter in ctx.command.params:
        name = str(parameter.name)
        if name in ("batch", *BATCH_OPTIONS, *_SET_HERE, "config") or given.get(name) is None:
            continue
        values = given[name] if isinstance(given[name], list | tuple) else [given[name]]
        if isinstance(parameter, click.Argument):
            words += [value for value in values if isinstance(value, str)]  # click has a value for none
            continue
        for value in values:
            word = value
            if isinstance(parameter.type, click.Path):
                word = str(Path(value).resolve())
                files.append(Path(word))
            words += (
                [parameter.opts[0]] if getattr(parameter, "is_flag", False) else [parameter.opts[0], word]
            )
    if not ctx.params["servers"]:
        herd = herd_of_file(ctx)
        files.append(herd.file.resolve())
        words += ["--config", str(herd.file.resolve())]
    # The grader itself, with its checks and rubrics.
    files += sorted(file for file in Path(batch.__file__).parent.rglob("*.*") if file.suffix != ".pyc")
    for file in files:
        digest.update(file.read_bytes() if file.is_file() else b"")
    return words, digest.hexdigest()


def _judge(plan: Plan, found: Sequence[Submission], jobs: int, made: dict[Submission, Record]) -> bool:
    """Judge all submissions, and put their records into `made`; return whether it came to its end."""
    hidden = not sys.stderr.isatty()

    async def run() -> None:
        cancel_when_told()
        with click.progressbar(length=len(found), label="Grading", file=sys.stderr, hidden=hidden) as bar:

            def done(submission: Submission, record: Record) -> None:
                made[submission] = record
                bar.update(1)
                if hidden:
                    click.echo(
                        f"{len(made)} of {len(found)}: {visible(record.name)}: {_result(record)}", err=True
                    )

            await batch.grade_all(plan, found, jobs, done)

    try:
        asyncio.run(run())
    except (asyncio.CancelledError, KeyboardInterrupt):
        return False
    return True


def _write(rows: Sequence[Record], plan: Plan, folder: Path, others: Sequence[str]) -> None:
    notes = [f"Started by: {plan.start}", *_passed_over(others)]
    if not plan.has_sandbox:
        notes.append(f"{UNSANDBOXED.capitalize()}.")
    page = table.as_html(rows, f"Grades of {folder.name}", notes)
    for name, text in (("results.csv", table.as_csv(rows)), ("results.html", page)):
        records.write_result(plan.output / name, text.encode())


def _passed_over(others: Sequence[str]) -> list[str]:
    """Return the notes about what is no submission."""
    known = ", ".join(submissions.ARCHIVES)
    names = ", ".join(map(visible, others))
    return (
        [f"Passed over, as neither a folder nor an archive of a known kind ({known}): {names}"]
        if others
        else []
    )


def _say(rows: Sequence[Record], output: Path) -> None:
    with while_read():
        for line in _lines(rows):
            click.echo(line)
        click.echo(f"{output / 'results.csv'}, {output / 'results.html'}")


def _lines(rows: Sequence[Record]) -> Iterator[str]:
    width = max(len(visible(one.name)) for one in rows)
    for one in rows:
        yield f"{visible(one.name):{width}}  {_result(one)}"


def _result(one: Record) -> str:
    return one.reason or (f"{table.in_words(one.report)} points" if one.report else "")
