"""Catching up: the requests of a server to one neighbour, until it has everything that this neighbour has.

It walks down the digest trees of both tables, into the nodes that differ. There it requests the lines of whole leaves
if it has none itself, and otherwise the lines with unknown hashes. So the cost grows with the number of missing lines.
The walk ends whatever the neighbour answers: every node is visited at most once, and each batch must make progress.
The neighbour keeps no state of the walk.
"""

from __future__ import annotations

from collections import deque

from proxyherd.core.peer_messages import (
    AskDigests,
    AskLeaf,
    AskRange,
    BatchHeader,
    Digests,
    Misspoken,
    Request,
)
from proxyherd.core.sizes import SIZES
from proxyherd.core.table import Table


class Pull:
    """One walk. Sweep the table before it starts, pass it the neighbour's answers, and send its `requests`.

    `line_bytes` limits the size of a request, and `window` the number of outstanding requests. Raises Misspoken for an
    answer that was not requested.
    """

    def __init__(self, table: Table, line_bytes: int, window: int = SIZES.window) -> None:
        self._table = table
        self._window = window
        self._most_known = (line_bytes - 32) // 16
        self._todo: deque[Request] = deque([AskDigests("") if len(table) else AskRange(0, table.leaf_count)])
        self._nodes: set[str] = set()
        self._ranges: dict[int, int] = {}

    @property
    def done(self) -> bool:
        """Whether all answers have arrived."""
        return not (self._todo or self._nodes or self._ranges)

    def requests(self) -> list[Request]:
        """Return the next requests to send."""
        asked: list[Request] = []
        while self._todo and len(self._nodes) + len(self._ranges) < self._window:
            request = self._todo.popleft()
            match request:
                case AskDigests(node):
                    self._nodes.add(node)
                case AskLeaf(leaf, _):
                    self._ranges[leaf] = leaf + 1
                case AskRange(first, last):
                    self._ranges[first] = last
            asked.append(request)
        return asked

    def digests(self, answer: Digests) -> None:
        """Compare a node's children, and visit those that differ."""
        if answer.node not in self._nodes:
            raise Misspoken(f"sent digests of {answer.node or '-'}, which were not asked for")
        self._nodes.remove(answer.node)
        ours = self._table.children(answer.node)
        below: list[Request] = []
        for digit, (own, theirs) in enumerate(zip(ours, answer.digests, strict=True)):
            if theirs not in (own, 0):  # 0: the neighbour has nothing there
                self._differs(f"{answer.node}{digit:x}", own, below)
        self._todo.extendleft(reversed(below))  # depth first, so that few nodes wait

    def batch(self, answer: BatchHeader) -> None:
        """Note that these leaves have arrived."""
        last = self._ranges.pop(answer.first, answer.first)
        if not answer.first < answer.next <= last:
            raise Misspoken(f"sent leaves {answer.first:x} to {answer.next:x}, which were not asked for")
        if answer.next < last:
            self._todo.appendleft(AskRange(answer.next, last))

    def _differs(self, node: str, own: int, below: list[Request]) -> None:
        first, last = self._table.span(node)
        if own == 0:
            if below and isinstance(behind := below[-1], AskRange) and behind.last == first:
                first = behind.first
                below.pop()
            below.append(AskRange(first, last))
        elif len(node) < self._table.depth:
            below.append(AskDigests(node))
        else:
            known = frozenset(self._table.hashes(first))
            fits = len(known) <= self._most_known
            below.append(AskLeaf(first, known) if fits else AskRange(first, last))
