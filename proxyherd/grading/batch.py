"""Grades the submissions of a class, some at a time, each by a `proxyherd grade` of its own in a sandbox.

The rules: a submission's record is written when its grading has ended, and never before, so that a run that was broken
off goes on where it was. A record counts as long as its key is the same: the key is made of the submission and of
everything else that the marks depend on. Each grading ends within a bounded time, and nothing of it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from proxyherd.base.escapes import visible
from proxyherd.base.files import make_folder, read_regular
from proxyherd.grading import cgroups, records, sandbox, submissions
from proxyherd.grading.inside import Errand
from proxyherd.grading.records import RECORD, REPORT, Record, new_file, write_result
from proxyherd.grading.sandbox import Bounds, Layout
from proxyherd.grading.submissions import Submission

CANNOT_START: Final = 3
"""The exit code of `grade` if a server cannot be started or reached."""

WRONG_USAGE: Final = 2

BREAK_OFF_SECONDS: Final = 15.0
"""How long a grading without a sandbox may take to end its processes."""

SAID_BYTES: Final = 4_096
"""Bytes of a grader's error messages that are kept."""

STAGE, GOOGLE = ".stage-", ".google"
"""Names of folders in that of the results, while a class is graded: for each sandbox, and for the stand-in for Google."""


class UsageError(Exception):
    """The grader does not understand what it was told, so no submission can be graded; the text is its own."""


class Plan(Struct, frozen=True):
    """What is the same for all submissions."""

    grader: Sequence[str]
    """The words of `grade` without those that each submission gets: servers and options."""

    start: str
    """The command of one server."""

    output: Path
    """Where results go: a folder for each submission."""

    stamp: str
    """What else the marks depend on, such as a digest of the rubric."""

    seconds: float
    """How long one attempt may take."""

    attempts: int = 2
    """How often a submission is tried that cannot be started: the machine may have been busy."""

    bounds: Bounds = Bounds()
    has_sandbox: bool = True
    hidden: Sequence[Path] = ()
    shown: Sequence[Path] = ()
    places: Sequence[str] = ()
    """The command of the stand-in for Google; none if empty."""

    over: dict[str, Path] = {}
    """Files that servers see at other paths."""

    environ: dict[str, str] = {}
    """Variables for servers."""


@contextlib.contextmanager
def own_folder(output: Path) -> Iterator[None]:
    """Keep the folder of the results for this run alone, and leave nothing there but results. Raises FolderError and
    OSError.
    """
    with records.alone(output):
        _sweep(output)
        try:
            yield
        finally:
            _sweep(output)


def clean(output: Path) -> None:
    """Remove what a run has left that was killed, unless another run is there, which has done so."""
    with contextlib.suppress(records.FolderError, OSError), records.alone(output):
        _sweep(output)


async def grade_all(
    plan: Plan, found: Sequence[Submission], jobs: int, done: Callable[[Submission, Record], None]
) -> None:
    """Grade all submissions that have no valid record, so many at a time. Call `done` with each record, first with those
    that are there. When this is cancelled, it ends what it has started.

    Raises UsageError, and OSError if results cannot be written.
    """
    waiting: asyncio.Queue[tuple[Submission, Record]] = asyncio.Queue()
    for submission in found:
        record = await asyncio.to_thread(_look, plan, submission)
        if record.is_final:
            done(submission, record)
        else:
            waiting.put_nowait((submission, record))

    async def work(slot: int) -> None:
        while not waiting.empty():
            submission, record = waiting.get_nowait()
            done(submission, await _graded(plan, submission, slot, record))

    try:
        async with asyncio.TaskGroup() as tasks:
            for slot in range(jobs):
                tasks.create_task(work(slot))
    except* UsageError as errors:
        raise errors.exceptions[0] from None
    except* OSError as errors:
        raise errors.exceptions[0] from None


def _look(plan: Plan, submission: Submission) -> Record:
    """Return the valid record of a submission, or why it cannot be graded, or a record to begin with."""
    try:
        str(submission.path).encode()
        content = submissions.digest(submission)
    except UnicodeEncodeError:
        return Record(submission.name, "", "its name is not UTF-8; rename it")
    except submissions.SubmissionError as error:
        return Record(submission.name, "", visible(str(error)))
    parts = [content, plan.stamp, plan.start, *plan.grader, repr(plan.bounds)]
    parts += [repr(plan.has_sandbox), repr(bool(plan.places))]
    key = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
    record = records.kept(plan.output / submission.name / RECORD)
    return record if record and record.key == key else Record(submission.name, key)


async def _graded(plan: Plan, submission: Submission, slot: int, record: Record) -> Record:
    folder = plan.output / submission.name
    make_folder(folder)
    while record.attempts < plan.attempts:
        record = await _attempt(plan, submission, folder, slot, record)
        if not record.problem.startswith(_NOT_STARTED):
            break
    write_result(folder / RECORD, msgspec.json.encode(record))
    return record


_NOT_STARTED: Final = "not started: "


async def _attempt(plan: Plan, submission: Submission, folder: Path, slot: int, before: Record) -> Record:
    report = folder / _UNFINISHED[0]
    report.unlink(missing_ok=True)
    began = time.monotonic()
    with (
        _layout(plan, slot) as layout,
        new_file(folder / f".{REPORT}.new") as text,
        new_file(folder / ".errors") as errors,
    ):
        process = await asyncio.create_subprocess_exec(
            *_words(plan, layout, submission, report),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=text,
            stderr=errors,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(layout.output), "PYTHONPATH": _python_path()},
        )
        code = await _end(process, plan)
        errors.seek(0)
        said = visible(errors.read(SAID_BYTES).decode(errors="replace").strip().removeprefix("Error: "))
    (folder / ".errors").unlink()
    (folder / f".{REPORT}.new").replace(folder / REPORT)
    found = _found(report)
    report.unlink(missing_ok=True)
    if code == WRONG_USAGE:
        raise UsageError(said)
    problem = ""
    if code == CANNOT_START:
        problem = f"{_NOT_STARTED}{said}"
    elif code is None:
        problem = f"the grading has not ended within {plan.seconds:g} s, and was ended"
    elif found is None:
        problem = said or f"the grading has ended with exit code {code} and no report"
    if problem and not (folder / REPORT).stat().st_size:
        write_result(folder / REPORT, f"Not graded: {problem}\n".encode())
    return Record(
        submission.name,
        before.key,
        problem,
        before.attempts + 1,
        round(time.monotonic() - began, 3),
        found,
        code,
    )


def _found(report: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = msgspec.json.decode(read_regular(report))
    except (OSError, msgspec.DecodeError):
        return None
    return found


async def _end(process: asyncio.subprocess.Process, plan: Plan) -> int | None:
    """Wait for a grading's end, and end it when it is late or this is cancelled; return its exit code, None if late."""
    try:
        async with asyncio.timeout(plan.seconds):
            return await process.wait()
    except TimeoutError:
        return None
    finally:
        if process.returncode is None:
            if not plan.has_sandbox:  # which would end all that it has started
                process.terminate()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BREAK_OFF_SECONDS):
                        await process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _words(plan: Plan, layout: Layout, submission: Submission, report: Path) -> list[str]:
    """Return the command that grades one submission."""
    within = sandbox.inner(layout, plan.bounds) if plan.has_sandbox else _bounded(layout, plan.bounds)
    given = [word for name, value in plan.environ.items() for word in ("--env", f"{name}={value}")]
    grader = [
        *(sys.executable, "-P", "-m", "proxyherd", *plan.grader),
        *("--start", plan.start, "--within", shlex.join(within), "--directory", str(layout.copy)),
        *(["--google-is-here"] if plan.places else []),
        *given,
        *("--json", str(report)),
    ]
    errand = Errand(
        str(submission.path), str(layout.copy), plan.start, layout.user, list(plan.places), grader
    )
    words = [
        "nice",
        sys.executable,
        "-P",
        "-m",
        "proxyherd.grading.inside",
        msgspec.json.encode(errand).decode(),
    ]
    return sandbox.outer(layout, plan.bounds, words) if plan.has_sandbox else words


def _bounded(layout: Layout, bounds: Bounds) -> list[str]:
    return ["env", f"HOME={layout.copy}", *sandbox.bounded(layout.user, bounds)]


@contextlib.contextmanager
def _layout(plan: Plan, slot: int) -> Iterator[Layout]:
    """Lend the places of one sandbox on this machine, and leave nothing of it."""
    if plan.has_sandbox:
        stage = plan.output / f"{STAGE}{slot}"
        stage.mkdir()
    else:  # its user may not see the folder of the results
        stage = Path(tempfile.mkdtemp(prefix=f"{_BARE_STAGE}{os.getpid()}-"))
        stage.chmod(0o711)
    user = sandbox.FIRST_USER + slot if sandbox.is_root() else None
    layout = Layout(stage, user, [*plan.hidden, plan.output], plan.shown, plan.over)
    bounds = plan.bounds
    group = cgroups.make(f"{_GROUP}{os.getpid()}-{slot}", bounds.all_memory, bounds.processes)
    try:
        layout.files.mkdir()
        layout.output.mkdir()
        if user is not None:
            layout = msgspec.structs.replace(layout, over={**plan.over, "/etc/passwd": _passwd(stage, user)})
        yield msgspec.structs.replace(layout, doors=group.doors) if group else layout
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if group:
            group.remove()


_GROUP: Final = "proxyherd-grade-"
_BARE_STAGE: Final = "proxyherd-class-"
"""How names begin of control groups, and of folders where there is no sandbox. The ID of their maker follows."""

_UNFINISHED: Final = (".report.json", ".errors", f".{REPORT}.new", f".{RECORD}.new")


def _python_path() -> str:
    """Return where Python finds this package: -P keeps it from looking in the working directory, which is a stranger's."""
    here = str(Path(__file__).parents[2])
    return os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))


def _passwd(stage: Path, user: int) -> Path:
    """Write the list of users with that of the submission, whom programs may look up."""
    file = stage / "passwd"
    line = f"submission:x:{user}:{user}::{sandbox.SUBMISSION}:/bin/sh\n"
    file.write_bytes(Path("/etc/passwd").read_bytes() + line.encode())
    file.chmod(0o644)
    return file


def _sweep(output: Path) -> None:
    """Remove all that is not a result."""
    bare = Path(tempfile.gettempdir()).glob(f"{_BARE_STAGE}*")
    left = [folder for folder in bare if cgroups.is_left(folder, _BARE_STAGE)]
    for folder in (*output.glob(f"{STAGE}*"), output / GOOGLE, *left):
        shutil.rmtree(folder, ignore_errors=True)
    for folder in filter(Path.is_dir, output.iterdir()):
        for name in _UNFINISHED:
            (folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not empty
            folder.rmdir()
    cgroups.sweep(_GROUP)
