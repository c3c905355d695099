"""What goes wrong at an upstream, as one exception: what the client gets for it, and whether to call again.

The rule: the text of nothing that was raised elsewhere gets in here. An error of aiohttp may hold the URL, and
with it the key.

Pure.
"""

from __future__ import annotations

from proxyherd.places.answers import Answer, no_results


class FailedError(Exception):
    """A call that brought no answer worth having.

    `answer` is what the client gets if it stays the last word. `again` says that the same call may go well later,
    `after` seconds from now at the earliest where the upstream named them. Such a failure is the upstream's, and
    counts for the circuit breaker; others say that the upstream works and does not want this.
    """

    def __init__(self, answer: Answer, *, again: bool = False, after: float = 0.0) -> None:
        super().__init__(answer.status)
        self.answer = answer
        self.again = again
        self.after = after


class UnrecordedError(FailedError):
    """A call could not be recorded in the budget, and so is not made."""


class LateError(FailedError):
    """A call brought no answer in the seconds it had; with more it might have."""


def failed(status: str, message: str, *, again: bool = False, after: float = 0.0) -> FailedError:
    """Make a failure of a status and of words that hold no key."""
    return FailedError(no_results(status, message), again=again, after=after)
