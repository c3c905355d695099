"""Results of checks, marked by a rubric in which each has four points."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from proxyherd.grading.report import GradingReport, Result
from proxyherd.grading.rubric import Rubric, Share

POINTS = 4.0


def rubric_of(ids: Collection[str], **keys: Any) -> Rubric:
    return Rubric("R", {"g": "G"}, {one: Share("g", POINTS) for one in ids}, **keys)


def report_of(results: Sequence[Result], rubric: Rubric | None = None, server: str = "Ann") -> GradingReport:
    rubric = rubric or rubric_of([one.id for one in results])
    return GradingReport({server: "h:1"}, rubric, results, 1.0)
