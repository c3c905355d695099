"""What is first run in the outer layer of a sandbox: makes the copy of the submission, starts the stand-in for Google,
and becomes the grader.

    python -m proxyherd.grading.inside ERRAND

The errand is JSON. Exit code 3 and a line on stderr: the submission cannot be copied, or the stand-in does not start.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
from msgspec import Struct

from proxyherd.grading import submissions


class Errand(Struct, frozen=True):
    """What to do."""

    submission: str
    copy: str
    """The new folder for the copy; the folder above it belongs to the servers as well."""

    start: str
    """The command of a server."""

    user: int | None
    """Whose the copy is; None: whoever runs this."""

    places: list[str]
    """The command of the stand-in for Google, which prints its URL when it listens; none if empty."""

    words: list[str]
    """The grader's command."""


def enter(argument: str) -> None:
    """Do it. Raises SubmissionError and OSError."""
    errand = msgspec.json.decode(argument, type=Errand)
    copy = Path(errand.copy)
    submissions.copy(Path(errand.submission), copy, errand.start)
    if errand.user is not None:
        submissions.give(copy, errand.user)
        os.chown(copy.parent, errand.user, errand.user)
    if errand.places:
        _start(errand.places)
    os.chdir(copy)
    os.execvp(errand.words[0], errand.words)  # noqa: S606 - no shell is wanted


def _start(words: list[str]) -> None:
    # It ends with the sandbox.
    standin = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)  # noqa: S603 - ours
    assert standin.stdout is not None
    if not standin.stdout.readline():
        raise submissions.SubmissionError(f"the stand-in for Google has not started: {' '.join(words)}")
    os.set_inheritable(standin.stdout.fileno(), True)  # it may not lose its reader


if __name__ == "__main__":
    try:
        enter(sys.argv[1])
    except (OSError, submissions.SubmissionError) as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(3) from None
