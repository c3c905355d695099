"""One fault, one mark: a fault that another one explains is not judged, because of that one. Pure.

Three things explain a fault: a check that it follows; what kept that check from being judged, such as Google that cannot
be reached; and the end of its server. A server has ended only where nobody listens any more. Whoever finds that is not
to blame: the input that was sent last while it was there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from proxyherd.grading.faults import Fault
from proxyherd.grading.report import Result

ENDS: Final = "hard.no-server-has-ended"
"""The check that reports the ends of servers that their keeper has seen."""


def because_of(cause: str, title: str) -> str:
    """Return the reason why a check is not judged: the ID and the title of the one that carries the mark."""
    return f"because of {cause}: {title}"


def attribute(results: Iterable[Result]) -> list[Result]:
    """Return the results, in order, with each fault that another result explains as not judged.

    If that other one is explained too, the one at the end of the chain is the cause. If faults explain one another, the
    first of them is.
    """
    results = list(results)
    causes = {one.id: one for one in results if one.outcome == "fault" or _is_kept_from_outside(one)}
    return [_attributed(one, causes) for one in results]


def _is_kept_from_outside(result: Result) -> bool:
    """Whether it was not judged for a reason that is no fault of the herd."""
    return result.outcome == "not judged" and not result.cause


def _attributed(result: Result, causes: Mapping[str, Result]) -> Result:
    if result.outcome == "fault":
        root = _chain(result, causes)[-1]
    elif result.cause in causes:
        root = _chain(causes[result.cause], causes)[-1]
    else:
        return result
    if root is result or (root.fault and root.id == result.cause):
        return result
    if root.fault is None:
        return msgspec.structs.replace(result, fault=None, not_judged=root.not_judged, cause="")
    why = because_of(root.id, root.title)
    return msgspec.structs.replace(result, fault=None, not_judged=why, cause=root.id)


def _chain(result: Result, causes: Mapping[str, Result]) -> list[Result]:
    """Return a result, the one that explains it, and so on. Of faults that explain one another, the first is the last."""
    chain = [result]
    while (other := _explanation(chain[-1], causes)) is not None:
        if other in chain:
            circle = chain[chain.index(other) :]
            return [*chain, next(one for one in causes.values() if one in circle)]
        chain.append(other)
    return chain


def _explanation(result: Result, causes: Mapping[str, Result]) -> Result | None:
    """Return what explains this fault; None if it carries the mark itself."""
    found = next((one for name, one in causes.items() if name in result.explained_by), None)
    return found or _end_of_server(result, causes)


def _end_of_server(result: Result, causes: Mapping[str, Result]) -> Result | None:
    """Return the fault in which the server of this one ended, if this one only finds that it has."""
    mine = result.fault
    if mine is None or not mine.down or mine.sent:
        return None
    ends = {
        one.id: _rank(one.id, one.fault)
        for one in causes.values()
        if one.fault
        and one.fault.server == mine.server
        and (one.fault.down or (one.fault.cut and one.fault.sent))
    }
    first = causes[min(ends, key=lambda name: ends[name])]
    return None if first is result else first


def _rank(name: str, fault: Fault) -> int:
    """Return how well a fault tells why a server has ended; the best is 0."""
    if fault.sent:
        return (
            0 if fault.down else 1
        )  # behind this input nobody listened; or its connection ended, as others do
    return (
        2 if name == ENDS else 3
    )  # its keeper has seen it end; or this check was the first that found it gone
