"""Judges one herd for `grade`: starts it if it must, and ends all that was started, whatever happens."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import click
import msgspec

from proxyherd.cli.common import Failure, NotReached
from proxyherd.grading import herds, judging, keeping
from proxyherd.grading.checks import Section
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.keeping import Started
from proxyherd.grading.last_words import LastWords
from proxyherd.grading.report import GradingReport
from proxyherd.grading.rubric import Rubric
from proxyherd.grading.servers import until
from proxyherd.server.supervision import raise_descriptor_limit

ENDING_SECONDS: Final = 1.0
"""How long to wait for the end of a program that takes no connection any more."""


class BrokenOff(Failure):
    """A failure with exit code 4: the grading was ended before its end, by a signal."""

    exit_code = 4


class NothingJudged(NotReached):
    """A server cannot be reached or started. `last_words` are those of a server that was started, if they are known."""

    def __init__(self, message: str, last_words: LastWords | None = None) -> None:
        super().__init__(message)
        self.last_words = last_words


def exit_as(ctx: click.Context, code: int) -> NoReturn:
    """Exit as the process that has graded, after guard.split. Raises BrokenOff."""
    if code < 0:
        name = signal.Signals(-code).name
        raise BrokenOff(f"the grading was ended by {name}; all that it had started has been ended too")
    ctx.exit(code)


def judged(
    herd: GradedHerd,
    started: Started | None,
    rubric: Rubric,
    sections: Sequence[Section],
    options: Mapping[str, Any],
) -> GradingReport:
    """Judge a herd. Raises NothingJudged and BrokenOff."""
    try:
        return asyncio.run(_judged(herd, started, rubric, sections, options))
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise BrokenOff("the grading was broken off; all that it had started has been ended") from None


def cancel_when_told() -> None:
    """Cancel this task at a signal to end."""
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None
    # SIGINT as well: twice, it would break off the ending of what was started.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)


async def _judged(
    herd: GradedHerd,
    started: Started | None,
    rubric: Rubric,
    sections: Sequence[Section],
    options: Mapping[str, Any],
) -> GradingReport:
    raise_descriptor_limit()
    cancel_when_told()
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
        remedy = await _remedy(error, started)
        raise NothingJudged(f"{error}{remedy}", started.last_words() if started else None) from error
    except keeping.StartError as error:
        raise NothingJudged(str(error), started.last_words() if started else None) from error
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
