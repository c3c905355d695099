"""What becomes of lines as soon as they come: judged by the rules, then decided by a node or an engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from proxyherd.core.engine import Engine, Said
from proxyherd.core.framing import Line
from proxyherd.core.node import Node
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Judged


def decide(node: Node, line: Line, at: int) -> Reply:
    """Let a client say a line that is received `at` nanoseconds of POSIX time; return what becomes of it."""
    reports, others = node.rules.judge([line], at)
    judged: Judged = [*reports, *others][0]
    return node.decide(cast("bytes", line), judged)  # of an overlong one nothing is asked


def said(engine: Engine, client: Any, lines: Sequence[Line], at: int) -> Sequence[Reply]:
    """Let a client of an engine say these lines in one turn, as received then; return what becomes of them so far."""
    one = Said(client, list(lines), *engine.rules.judge(lines, at))
    engine.decide([one])
    if one.error is not None:
        raise one.error
    return [*(Reply("iamat", "stored", report.line) for report in one.reports[: one.stored]), *one.replies]
