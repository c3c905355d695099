"""Grades the submissions of a class, some at a time, each by a `proxyherd grade` of its own in a sandbox.

The rules: a submission's record is written in one step when its grading has ended, and never before, so that a run that
was broken off goes on where it was. A record counts as long as its key is the same: the key is made of the submission
and of everything else that the marks depend on. Each grading ends within a bounded time, and nothing of it stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
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
from typing import IO, Any, Final

import msgspec
from msgspec import Struct

from proxyherd.base.escapes import visible
from proxyherd.base.files import FILE_MODE, make_folder, read_regular
from proxyherd.grading import cgroups, sandbox, submissions
from proxyherd.grading.inside import Errand
from proxyherd.grading.sandbox import Bounds, Layout
from proxyherd.grading.submissions import Submission

CANNOT_START: Final = 3
"""The exit code of `grade` if a server cannot be started or reached."""

WRONG_USAGE: Final = 2

BREAK_OFF_SECONDS: Final = 15.0
"""How long a grading without a sandbox may take to end its processes."""

SAID_BYTES: Final = 4_096
"""Bytes of a grader's error messages that are kept."""

RECORD, REPORT, STAGE = "result.json", "report.txt", ".stage-"
"""Names in the folder of the results: in a submission's own folder, and of folders for sandboxes."""


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


class Record(Struct, frozen=True):
    """The result of one submission."""

    name: str
    key: str
    problem: str
    """Why there are no marks; empty if there are."""

    attempts: int
    seconds: float
    """How long the last attempt took."""

    report: dict[str, Any] | None
    """The JSON report of `grade`, which may be there without marks."""


async def grade_all(
    plan: Plan, found: Sequence[Submission], jobs: int, done: Callable[[Record], None] = lambda _: None
) -> list[Record]:
    """Grade all submissions that have no valid record, so many at a time; return all records in order.

    Raises UsageError, also if another run writes there, and OSError if results cannot be written.
    """
    with _alone(plan.output):
        _sweep(plan.output)
        return await _grade_all(plan, found, jobs, done)


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Keep other runs out of a folder."""
    folder = os.open(output, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UsageError(
            f"{output}: another grading writes there; wait for its end, or name another folder"
        ) from None
    finally:
        os.close(folder)


async def _grade_all(
    plan: Plan, found: Sequence[Submission], jobs: int, done: Callable[[Record], None]
) -> list[Record]:
    slots: asyncio.Queue[int] = asyncio.Queue()
    for slot in range(jobs):
        slots.put_nowait(slot)

    async def one(submission: Submission) -> Record:
        slot = await slots.get()
        try:
            record = await _record(plan, submission, slot)
        finally:
            slots.put_nowait(slot)
        done(record)
        return record

    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(one(submission)) for submission in found]
    except* UsageError as errors:
        raise errors.exceptions[0] from None
    except* OSError as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in started]


async def _record(plan: Plan, submission: Submission, slot: int) -> Record:
    folder = plan.output / submission.name
    try:
        str(submission.path).encode()
        content = await asyncio.to_thread(submissions.digest, submission)
    except UnicodeEncodeError:
        return Record(submission.name, "", "its name is not UTF-8; rename it", 0, 0.0, None)
    except submissions.SubmissionError as error:
        return Record(submission.name, "", visible(str(error)), 0, 0.0, None)
    parts = [content, plan.stamp, plan.start, *plan.grader, repr(plan.bounds)]
    parts += [repr(plan.has_sandbox), repr(bool(plan.places))]
    key = hashlib.sha256(msgspec.json.encode(parts)).hexdigest()
    if (kept := _kept(folder / RECORD)) is not None and kept.key == key:
        return kept
    make_folder(folder)
    record = Record(submission.name, key, "", 0, 0.0, None)
    while record.attempts < plan.attempts:
        record = await _attempt(plan, submission, folder, slot, record)
        if not record.problem.startswith(_NOT_STARTED):
            break
    write_result(folder / RECORD, msgspec.json.encode(record))
    return record


def _kept(file: Path) -> Record | None:
    try:
        return msgspec.json.decode(read_regular(file), type=Record)
    except (OSError, msgspec.MsgspecError):
        return None


def write_result(file: Path, data: bytes) -> None:
    """Write a file in one step. Raises OSError."""
    new = file.with_name(f".{file.name}.new")
    with _opened(new) as opened:
        opened.write(data)
    new.replace(file)


def _opened(file: Path) -> IO[bytes]:
    """Open a new file to write and read, which other users may not read: marks are personal."""
    file.unlink(missing_ok=True)
    return os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, FILE_MODE), "w+b")


_NOT_STARTED: Final = "not started: "


async def _attempt(plan: Plan, submission: Submission, folder: Path, slot: int, before: Record) -> Record:
    report = folder / ".report.json"
    report.unlink(missing_ok=True)
    began = time.monotonic()
    with (
        _layout(plan, slot) as layout,
        _opened(folder / f".{REPORT}.new") as text,
        _opened(folder / ".errors") as errors,
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
    before = sandbox.inner(layout, plan.bounds) if plan.has_sandbox else _bounded(layout, plan.bounds)
    given = [word for name, value in plan.environ.items() for word in ("--env", f"{name}={value}")]
    grader = [
        *(sys.executable, "-P", "-m", "proxyherd", *plan.grader),
        *("--start", f"{shlex.join(before)} {plan.start}", "--directory", str(layout.copy)),
        *given,
        *("--json", str(report)),
    ]
    errand = Errand(str(submission.path), str(layout.copy), layout.user, list(plan.places), grader)
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
        stage = Path(tempfile.mkdtemp(prefix=_GROUP))
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
    """Remove what a run has left that was killed."""
    for stage in output.glob(f"{STAGE}*"):
        shutil.rmtree(stage, ignore_errors=True)
    cgroups.sweep(_GROUP)
