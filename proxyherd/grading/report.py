"""The results of judging a herd, and its points by a rubric. Pure.

The rule: the possible points are those of the rubric, whatever could be judged. Each of them is made, lost or open:

    passed          made
    fault           lost
    not applicable  made: the herd has nothing that could break the rule
    not judged      made, if the rubric permits the cause; otherwise as its key `not_judged` says
    not seen        as its key `not_seen` says
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec import Struct

from proxyherd.grading.checks import Check
from proxyherd.grading.faults import Fault
from proxyherd.grading.forms import Form
from proxyherd.grading.last_words import LastWords
from proxyherd.grading.rubric import Rubric, Verdict

_OVER_LINKS: Final = ("floods.", "lost.", "regained.")
"""What the IDs of checks begin with that see what goes from server to server."""


class Result(Struct, frozen=True):
    """The result of one check: it passed, unless there is a fault, it was not judged or seen, or it does not apply."""

    id: str
    title: str
    rule: str
    seconds: float
    fault: Fault | None = None
    not_seen: str = ""
    not_applicable: str = ""
    not_judged: str = ""
    cause: str = ""
    """The ID of the check because of which it was not judged."""
    about: Form | None = None
    explained_by: frozenset[str] = frozenset()
    """As in the check."""
    by_hand: tuple[str, ...] = ()
    """Commands of a shell that show the fault."""

    @property
    def outcome(self) -> str:
        if self.fault:
            return "fault"
        left_out = {
            "not judged": self.not_judged,
            "not seen": self.not_seen,
            "not applicable": self.not_applicable,
        }
        return next((outcome for outcome, why in left_out.items() if why), "passed")

    @property
    def left_out(self) -> str:
        """Why it was neither passed nor failed; empty if it was."""
        return self.not_judged or self.not_seen or self.not_applicable


class Marks(NamedTuple):
    """Points: made, lost and open; together they are the possible ones."""

    made: float
    lost: float
    open: float

    @property
    def possible(self) -> float:
        return self.made + self.lost + self.open


class GradingReport(Struct, frozen=True):
    """The results of one grading by a rubric, with the servers' addresses. `results` may have checks that the rubric does
    not name: it permits their faults.
    """

    servers: Mapping[str, str]
    rubric: Rubric
    results: Sequence[Result]
    seconds: float
    problem: str = ""
    """Why nothing could be judged; empty if something could."""

    last_words: LastWords | None = None
    """What the server printed last that is to blame for that, if it is known."""

    starts: Mapping[str, float] = {}
    """How many seconds each server took to accept a connection; empty if they were not started."""

    knows_links: bool = True
    """Whether it was known who is to be linked with whom."""

    @property
    def links_not_judged(self) -> str:
        """Why the links between servers were not judged, where checks count that would show them; otherwise empty."""
        if self.knows_links or not any(check.startswith(_OVER_LINKS) for check in self.rubric.shares):
            return ""
        return "who is linked with whom is not known: --topology"

    def counted(self, group: str | None = None) -> list[Result]:
        """Return the results of checks that count, of one group or of all, in the rubric's order."""
        found = {one.id: one for one in self.results}
        return [
            found[check]
            for check, share in self.rubric.shares.items()
            if check in found and (group is None or share.group == group)
        ]

    def of(self, outcome: str, group: str | None = None) -> list[Result]:
        """Return the results with this outcome that count, of one group or of all."""
        return [one for one in self.counted(group) if one.outcome == outcome]

    def permitted(self) -> list[Result]:
        """Return the faults that the rubric permits."""
        return [one for one in self.results if one.fault and one.id not in self.rubric.shares]

    def departures(self) -> list[Result]:
        """Return the faults of forms that were found out before anything was judged, whether they count or not."""
        return [one for one in self.results if one.fault and one.about and one.id == one.about.check]

    def points(self, one: Result) -> float | None:
        """Return the points that the herd makes by a check; None if they are open."""
        verdict: Verdict = "excused"
        if one.outcome == "fault":
            verdict = "lost"
        elif one.outcome == "not seen":
            verdict = self.rubric.not_seen
        elif one.outcome == "not judged" and (not one.cause or one.cause in self.rubric.shares):
            verdict = self.rubric.not_judged
        return {"excused": self.rubric.points(one.id), "lost": 0.0, "by hand": None}[verdict]

    def marks(self, group: str | None = None) -> Marks:
        """Return the points of one group or of all."""
        return self._marks(self.counted(group))

    def _marks(self, results: Iterable[Result]) -> Marks:
        made, lost, still_open = 0.0, 0.0, 0.0
        for one in results:
            possible, points = self.rubric.points(one.id), self.points(one)
            if points is None:
                still_open += possible
            else:
                made += points
                lost += possible - points
        return Marks(made, lost, still_open)

    @property
    def is_full(self) -> bool:
        """Whether there are no faults that count."""
        return not self.of("fault")

    def sharing(self, cause: str) -> list[Result]:
        """Return the results of checks that count and were not judged because of this one."""
        return [one for one in self.counted() if one.cause == cause]

    def costliest(self) -> list[Result]:
        """Return the faults that count, with those first that cost most, together with what shares their causes."""

        def cost(one: Result) -> float:
            return self.rubric.points(one.id) + sum(
                self.rubric.points(other.id) for other in self.sharing(one.id)
            )

        return sorted(self.of("fault"), key=cost, reverse=True)


def nothing_judged(
    rubric: Rubric,
    checks: Mapping[str, Check],
    servers: Mapping[str, str],
    problem: str,
    last_words: LastWords | None = None,
) -> GradingReport:
    """Return the report of a herd of which nothing could be judged, and why. `checks` are all by ID."""
    unjudged = [checks[check] for check in rubric.shares]
    results = [Result(one.id, one.title, one.rule, 0.0, not_judged=problem) for one in unjudged]
    return GradingReport(servers, rubric, results, 0.0, problem, last_words)
