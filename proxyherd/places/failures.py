"""The failure of an upstream as one exception: what the client gets, and whether to call again.

The rule: no text of other exceptions gets in here. An error of aiohttp may contain the URL, and so the key.

Pure.
"""

from __future__ import annotations

from proxyherd.places.answers import Answer, no_results


class FailedError(Exception):
    """A call without a useful answer.

    The client gets `answer` if there is no later one. `again`: the same call may succeed later, at the earliest
    `after` seconds from now, if the upstream said so. Such a failure is the upstream's, and counts for the circuit
    breaker. Other failures show that the upstream works but refuses the call.
    """

    def __init__(self, answer: Answer, *, again: bool = False, after: float = 0.0) -> None:
        super().__init__(answer.status)
        self.answer = answer
        self.again = again
        self.after = after


class UnrecordedError(FailedError):
    """A call could not be recorded in the budget, so it is not made."""


class ShareError(FailedError):
    """Whoever asked has had its share of the budget, so no call is made. For another asker it might be."""


class LateError(FailedError):
    """A call had no answer in its time; with more time it might have."""


def failed(status: str, message: str, *, again: bool = False, after: float = 0.0) -> FailedError:
    """Make a failure from a status and words without the key."""
    return FailedError(no_results(status, message), again=again, after=after)
