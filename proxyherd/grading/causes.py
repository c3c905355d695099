"""One fault, one mark: a fault that another one explains is not judged, because of that one. Pure.

Two things explain a fault: a check that it follows, and the end of its server. Whoever finds a server gone is not to
blame: the input that was sent last while it was there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from proxyherd.grading.report import Result


def because_of(cause: str, title: str) -> str:
    """Return the reason why a check is not judged: the ID and the title of the one that carries the mark."""
    return f"because of {cause}: {title}"


def attribute(results: Iterable[Result]) -> list[Result]:
    """Return the results, in order, with each fault that another fault explains as not judged.

    If that other one is explained too, the one at the end of the chain is the cause. If faults explain one another, the
    first of them is.
    """
    results = list(results)
    faults = {one.id: one for one in results if one.outcome == "fault"}
    return [_attributed(one, faults) for one in results]


def _attributed(result: Result, faults: Mapping[str, Result]) -> Result:
    if result.id not in faults:
        return result
    root = _root(result, faults)
    if root is result:
        return result
    why = because_of(root.id, root.title)
    return msgspec.structs.replace(result, fault=None, not_judged=why, cause=root.id)


def _root(result: Result, faults: Mapping[str, Result]) -> Result:
    """Return the fault at the end of the chain of explanations; of faults that explain one another, the first."""
    chain = [result]
    while (other := _explanation(chain[-1], faults)) is not None:
        if other in chain:
            circle = chain[chain.index(other) :]
            return next(one for one in faults.values() if one in circle)
        chain.append(other)
    return chain[-1]


def _explanation(result: Result, faults: Mapping[str, Result]) -> Result | None:
    """Return the fault that explains this one; None if it carries the mark itself."""
    found = next((one for name, one in faults.items() if name in result.explained_by), None)
    return found or _end_of_server(result, faults)


def _end_of_server(result: Result, faults: Mapping[str, Result]) -> Result | None:
    """Return the fault in which the server of this one ended, if this one only finds it gone."""
    mine = result.fault
    if mine is None or not mine.gone or mine.sent:
        return None
    ends = [
        one for one in faults.values() if one.fault and one.fault.gone and one.fault.server == mine.server
    ]
    # The one that had sent something when the server ended; else the first that found it gone.
    first = next((one for one in ends if one.fault and one.fault.sent), ends[0])
    return None if first is result else first
