"""`grade`: judge any herd."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from proxyherd.cli import grade_batch
from proxyherd.cli.common import Failure, Misconfigured, NotReached, config_option, examples, load_herd
from proxyherd.cli.grade_marks import find_rubric, rubric_options, write_report
from proxyherd.config import herd_file
from proxyherd.grading import guard, herds, judging, keeping
from proxyherd.grading.checks import Section
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.keeping import Restarter, Started
from proxyherd.grading.report import GradingReport, nothing_judged
from proxyherd.grading.rubric import Rubric, profile_text
from proxyherd.grading.servers import GradedServer, until
from proxyherd.server.supervision import raise_descriptor_limit

SECTION_NAMES = ("forms", "times", "floods", "places", "logs", "cases", "hardness", "regained")
SIGNALS = ("SIGKILL", "SIGTERM", "SIGINT")
ENDING_SECONDS = 1.0
"""How long to wait for the end of a program that takes no connection any more."""

LOGS = ("var/log/{name}.log", "/var/log/proxyherd/{name}.log")
"""The default paths of logs for a herd's file."""

_ADDRESS = re.compile(r"(?:([^=\s]+)=)?(?:\[([0-9A-Fa-f:.]+)\]|([^\s:=\[\]]+)):([0-9]{1,5})")


def _addresses(
    _ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> list[tuple[str, str, int]]:
    found = []
    for value in values:
        match = _ADDRESS.fullmatch(value)
        if match is None or not 0 < int(match[4]) < 65_536:
            raise click.BadParameter(
                f"{value!r} is no [NAME=]HOST:PORT, such as 127.0.0.1:10003 or Clark=[::1]:10003"
            )
        host = match[2] or match[3]
        found.append((match[1] or f"{host}:{match[4]}", host, int(match[4])))
    for index, what in ((0, "name"), (slice(1, 3), "address")):
        keys = [one[index] for one in found]
        if len(set(keys)) < len(keys):
            raise click.BadParameter(f"the same {what} stands there twice; each server is named once")
    return found


def _logs(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, Path]:
    found = {}
    for value in values:
        name, equals, file = value.partition("=")
        if not (name and equals and file):
            raise click.BadParameter(f"{value!r} is no NAME=FILE, such as Clark=var/log/Clark.log")
        found[name] = Path(file)
    return found


def _variables(_ctx: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in values:
        name, equals, value = one.partition("=")
        if not name or (not equals and name not in os.environ):
            raise click.BadParameter(f"{one!r} is no NAME=VALUE, nor a variable that is set here")
        found[name] = value if equals else os.environ[name]
    return found


def _seconds(default: float, text: str) -> Any:
    return {
        "type": click.FloatRange(min=0, min_open=True),
        "default": default,
        "show_default": True,
        "metavar": "SECONDS",
        "help": text,
    }


@click.command(
    cls=grade_batch.GradeCommand,
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
@click.argument("servers", nargs=-1, metavar="[[NAME=]HOST:PORT]...", callback=_addresses)
@click.option(
    "--topology",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A herd's file that says who is linked with whom, where servers are named by NAME=HOST:PORT.",
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
    callback=_logs,
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
    callback=_variables,
    help="Give this variable to --start, --lose and --regain, which get few others. Without a value: as it is here.",
)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(SECTION_NAMES),
    help="Judge this section only; may be given again.",
)
@click.option(
    "--skip", multiple=True, type=click.Choice(SECTION_NAMES), help="Leave this section out; likewise."
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
@click.option("--patience", **_seconds(5.0, "For one answer, and for a report to reach another server."))
@click.option(
    "--deadline", **_seconds(300.0, "For all checks together; what is not judged by then is at fault.")
)
@rubric_options
@grade_batch.batch_options
@config_option()
@click.pass_context
def grade(ctx: click.Context, /, **options: Any) -> None:
    """Judge a herd, by default that of the herd's file, or any other by the addresses for its clients: conformance
    with the client protocol, floods, logs, bad input, a server lost and regained. Clients are invented for it, and
    stay in the herd. Some of its questions may cost a call to Google; `--skip places --skip cases` asks none.

    Exit codes: 0 no fault found; 1 faults, or nothing could be seen; 2 bad usage; 3 a server cannot be reached or started.
    """
    if options["print_rubric"]:
        click.echo(profile_text(options["profile"]), nl=False)
        return
    _check_usage(options)
    sections = _sections(options)
    rubric = find_rubric(options, [section.name for section in sections])
    if options["batch"]:
        grade_batch.grade_class(ctx, options)
        return
    if options["start"] and (code := guard.split()) is not None:
        if code < 0:
            name = signal.Signals(-code).name
            raise Failure(f"the grading was ended by {name}; all that it had started has been ended too")
        ctx.exit(code)
    with _prepared(ctx, **options) as (herd, start):
        try:
            report = asyncio.run(_graded(herd, start, rubric, sections, options))
        except NotReached as error:
            write_report(
                nothing_judged(rubric, judging.all_checks(), judging.addresses(herd), error.message), options
            )
            raise
        except KeyboardInterrupt:
            raise click.Abort from None
    write_report(report, options)
    if not report.of("passed") and not report.of("fault"):
        raise Failure("no check could be seen to pass or fail; the report says of each what it needs")
    ctx.exit(0 if report.is_full else Failure.exit_code)


@contextmanager
def _prepared(ctx: click.Context, **options: Any) -> Iterator[tuple[GradedHerd, Started | None]]:
    """Lend the herd that the options describe, and its starter."""
    _check_usage(options)
    described = _described(ctx, options["servers"], options["topology"])
    servers = _servers(described, options["servers"], options["patience"])
    edges, most = (described.edges, described.limits.max_line_bytes) if described else (None, 8_192)
    with tempfile.TemporaryDirectory(prefix="proxyherd-grade-") as outputs:
        keeper, started = _keeper(options, Path(outputs))
        _name_logs(servers, options, of_file=not options["servers"], started=started)
        one_table = described is not None and described.redis is not None
        yield GradedHerd(servers, edges, keeper, most, one_table=one_table), started


def _check_usage(options: dict[str, Any]) -> None:
    if options["start"] and (options["lose"] or options["regain"]):
        raise click.UsageError("--start starts and stops the servers itself; leave out --lose and --regain")
    if bool(options["lose"]) != bool(options["regain"]):
        raise click.UsageError("--lose and --regain go together")
    for command in filter(None, (options["start"], options["lose"], options["regain"])):
        try:
            shlex.split(command)
        except ValueError as error:
            raise click.UsageError(f"a command cannot be read: {command}: {error}") from error
    if options["topology"] and not options["servers"]:
        raise click.UsageError("--topology goes with NAME=HOST:PORT; a herd of ours is named by --config")
    without = [host for name, host, port in options["servers"] if name == f"{host}:{port}"]
    if without and any(options[one] for one in ("start", "lose", "topology", "pattern", "logs")):
        raise click.UsageError(
            "servers must be named, as NAME=HOST:PORT, for --start, --lose, --logs, --log and --topology"
        )


def _described(
    ctx: click.Context, addresses: list[tuple[str, str, int]], topology: Path | None
) -> herd_file.Herd | None:
    """Return the herd's file that describes this herd, if there is one. Raises ConfigError."""
    if not addresses:
        herd = load_herd(ctx)
        if herd.tls.clients_certificate is not None:
            raise Misconfigured(
                f"{herd.file}: key tls.clients_certificate: its servers speak TLS with clients, and grade does not; "
                "grade the herd with a copy of its file that leaves it out"
            )
        return herd
    if topology is None:
        return None
    herd = herd_file.load(topology)
    for name, _, _ in addresses:
        herd.server(name)
    if missing := set(herd.servers) - {name for name, _, _ in addresses}:
        raise Misconfigured(
            f"{topology}: has {', '.join(sorted(missing))} too; name the address of each server"
        )
    return herd


def _servers(
    described: herd_file.Herd | None, addresses: list[tuple[str, str, int]], patience: float
) -> list[GradedServer]:
    if not addresses:
        assert described is not None
        addresses = [
            (server.name, server.clients[0].host, server.clients[0].port)
            for server in described.servers.values()
        ]
    return [GradedServer(name, host, port, seconds=patience) for name, host, port in addresses]


def _keeper(options: dict[str, Any], outputs: Path) -> tuple[Restarter | None, Started | None]:
    environ = keeping.environment(options["env"])
    if options["start"]:
        how = signal.Signals[options["stop"]]
        started = keeping.Started(options["start"], options["directory"], outputs, how, environ)
        return started, started
    if options["lose"]:
        return keeping.Commanded(options["lose"], options["regain"], environ), None
    return None, None


def _name_logs(
    servers: list[GradedServer], options: dict[str, Any], *, of_file: bool, started: Started | None
) -> None:
    """Give each server its log, if this machine can read one."""
    logs: dict[str, Path] = options["logs"]
    if unknown := set(logs) - {server.name for server in servers}:
        raise click.UsageError(f"--log: there is no server {', '.join(sorted(unknown))}")
    for server in servers:
        server.log_is_named = server.name in logs or bool(options["pattern"])
        if server.log_is_named:
            pattern = Path((options["pattern"] or "").replace("{name}", server.name))
            server.log = logs.get(server.name, pattern)
            if started is None and not server.log.is_file():
                raise Misconfigured(
                    f"{server.log}: there is no such log of {server.name}, or it is no regular file; mend --logs or --log"
                )
        elif started is not None:
            server.log = started.output(server)
        elif of_file:
            files = (Path(pattern.replace("{name}", server.name)) for pattern in LOGS)
            server.log = next((file for file in files if file.exists()), None)


def _sections(options: dict[str, Any]) -> list[Section]:
    return [
        one
        for one in judging.SECTIONS
        if one.name not in options["skip"] and (not options["only"] or one.name in options["only"])
    ]


async def _graded(
    herd: GradedHerd,
    started: Started | None,
    rubric: Rubric,
    sections: Sequence[Section],
    options: dict[str, Any],
) -> GradingReport:
    """Start the herd if requested, judge it, and end everything that was started, whatever happens."""
    raise_descriptor_limit()
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    # SIGINT as well: twice, it would break off the ending of what was started.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        if started is not None:
            await started.start(herd.servers)
        with _progress(judging.count_checks(herd, rubric, sections)) as passed:
            report = await judging.judge(
                herd,
                rubric=rubric,
                sections=sections,
                seconds=options["deadline"],
                settle_seconds=(2 if started else 1) * options["patience"],
                passed=passed,
            )
        return msgspec.structs.replace(report, starts=_starts(herd, started))
    except herds.UnreachableError as error:
        raise NotReached(f"{error}{await _remedy(error, started)}") from error
    except keeping.StartError as error:
        raise NotReached(str(error)) from error
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        if started is not None:
            started.end()


def _starts(herd: GradedHerd, started: Started | None) -> dict[str, float]:
    """Return how long each server took to start, in the herd's order."""
    starts = {} if started is None else started.starts
    return {server.name: starts[server] for server in herd.servers if server in starts}


async def _remedy(error: herds.UnreachableError, started: Started | None) -> str:
    """Return what else is known of a herd that does not answer, or what to do."""
    if started is not None:
        # A program that crashes closes its port a moment before it ends.
        if error.is_down:
            await until(lambda: bool(started.ended()), ENDING_SECONDS)
        return "".join(f"; {sentence}" for sentence in started.ended())
    return "; is the herd up? --start starts it" if error.is_down else ""


@contextmanager
def _progress(length: int) -> Iterator[Callable[[], None]]:
    hidden = not sys.stderr.isatty()
    with click.progressbar(length=length, label="Grading", file=sys.stderr, hidden=hidden) as bar:
        yield lambda: bar.update(1)
