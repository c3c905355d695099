"""One fault, one mark: a fault that another one explains is not judged, because of that one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from proxyherd.grading.report import Result


def carrier(explained_by: Iterable[str], faults: Mapping[str, Result]) -> Result | None:
    """Return the first of these faults that explains a check; None if none does."""
    found = {*explained_by}
    return next((fault for name, fault in faults.items() if name in found), None)


def because_of(carrier: Result) -> str:
    """Return the reason why a check is not judged."""
    return f"because of {carrier.id}: {carrier.title}"


def attribute(results: Iterable[Result]) -> list[Result]:
    """Return the results, in order, with each fault that another fault explains as not judged.

    If that other one is explained too, the one at the end of the chain is the cause.
    """
    results = list(results)
    faults = {one.id: one for one in results if one.outcome == "fault"}
    return [_attributed(one, faults) for one in results]


def _attributed(result: Result, faults: Mapping[str, Result]) -> Result:
    if result.id not in faults:
        return result
    root = result
    while (other := carrier(root.explained_by, faults)) is not None:
        root = other
    if root is result:
        return result
    return msgspec.structs.replace(result, fault=None, not_judged=because_of(root), cause=root.id)
