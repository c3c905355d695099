"""A server lost and regained: the others work without it, and afterwards it learns what it missed.

The steps run in this order, each as a check; if one cannot be carried out, later ones are not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Final

from proxyherd.grading import by_hand
from proxyherd.grading.checks import Check
from proxyherd.grading.faults import Fault, NotJudged, NotSeen, Step
from proxyherd.grading.herds import GradedHerd, Log
from proxyherd.grading.keeping import StartError
from proxyherd.grading.servers import PREFIX, GradedServer, clock, new_client, together

PATIENCE_FACTOR: Final = 2
"""A multiple of the patience for an answer: the time for a restarted server and its neighbours to connect and
catch up."""

RETURN_SECONDS: Final = 300.0
"""How long a restart may take: there are two tries, of three times the first start (keeping.py)."""

QUIET_SECONDS: Final = 2.0
"""How long no commands are sent after a server is lost or regained, so that lines logged then are about that."""

LOST: Final = re.compile(
    rb"(?<![a-z])(?:clos(?!est)|lost|drop|disconnect|unreach|refus|down(?![a-z])|fail|reset|brok|cannot|could ?n.t|"
    rb"unable|error|gone|ended|away|dead(?![a-z])|timed? ?out)",
    re.IGNORECASE,
)
FOUND: Final = re.compile(
    rb"(?<![a-z])(?:open|(?:re-?)?connect|link|join|restor|accept|establish|peer|neighbou?r)", re.IGNORECASE
)
"""Words of a log line about a lost neighbour, and about one that has returned."""

NOTHING: Final = re.compile(
    rb"""(?<![\w.-])["']?[\w.-]{1,64}["']?[ ]?[=:][ ]?(?:none|null|nil|false|no|off|-|0+(?:\.0+)?|""|''|["'](?:none|null|0)["'])"""
    rb"""(?![^\s,;}\])"'])""",
    re.IGNORECASE,
)
"""An empty field, such as `error=None`: its name does not count as a word."""


def checks(herd: GradedHerd) -> list[Check]:
    loss = _Loss(herd)
    return [
        Check(
            "lost.others-answer",
            "With one server lost, every other goes on answering",
            "A server never stops answering because a neighbour is away.",
            loss.others_answer,
        ),
        Check(
            "lost.others-flood",
            "With one server lost, reports reach all that are still linked",
            "What a server learns it passes on to every live neighbour; one that is away holds up nothing.",
            loss.others_flood,
            follows=frozenset(("floods.reach-every-server", "lost.others-answer")),
        ),
        Check(
            "lost.is-logged",
            "That a neighbour was lost is in the logs",
            "Each server logs when a connection with another is dropped. Seen by a new line that names the lost server "
            "or its port, or tells of a loss.",
            loss.is_logged,
        ),
        Check(
            "regained.answers",
            "The server is started again, and answers",
            "A server never fails to start, whatever it left behind.",
            loss.returns,
            seconds=RETURN_SECONDS,
        ),
        Check(
            "regained.floods",
            "Reports at it reach the others again, and theirs reach it",
            "A neighbour that is away is redialled for ever.",
            loss.floods_again,
            follows=frozenset(("floods.reach-every-server", "lost.others-answer")),
        ),
        Check(
            "regained.is-logged",
            "That the neighbour is back is in the logs",
            "Each server logs when a connection with another is opened. Seen by a new line that names the server, its "
            "port, or tells of a connection.",
            loss.return_is_logged,
            follows=frozenset(("lost.others-answer", "regained.floods")),
        ),
        Check(
            "regained.catches-up",
            "It then knows what was reported while it was away, and before",
            "When a link comes up, both sides end with the same table.",
            loss.catches_up,
            follows=frozenset(("floods.reach-every-server", "lost.others-answer", "regained.floods")),
        ),
    ]


class _Loss:
    """One server's loss and return, step by step."""

    def __init__(self, herd: GradedHerd) -> None:
        self._herd = herd
        self._lost: GradedServer | None = None
        self._problem = "lost.others-answer, which loses a server, has not come so far"
        """Why no server is lost, as long as none is."""
        self._back = False
        self._logs: list[Log] = []
        self._noted: list[Log] = []
        self._before = b""
        """What was reported to the lost server before; empty if that cannot be seen."""
        self._missed: list[tuple[GradedServer, bytes]] = []
        names = b"|".join(re.escape(server.name.encode()) for server in herd.servers)
        self._all_names = re.compile(rb"\b(?:%b)\b" % names)

    async def others_answer(self) -> None:
        lost = await self._lose()
        await together(*(other.report(new_client()) for other in self._herd.others(lost)))

    async def others_flood(self) -> None:
        lost = self._needs_lost()
        others = self._herd.others(lost)

        async def from_one(server: GradedServer) -> None:
            at = await server.report(new_client())
            self._missed.append((server, at))
            try:
                await together(
                    *(
                        one.until_holds(at, self._herd.wait(server, one, one.seconds))
                        for one in self._herd.reach(server, lost)
                    )
                )
            except Fault as fault:
                if self._herd.edges is None:
                    raise NotSeen(f"{fault}; whether they are linked is not known: --topology") from fault
                raise

        await together(*map(from_one, others))
        if not any(self._herd.reach(other, lost) for other in others):
            raise NotSeen(f"without {lost.name} no two servers are linked")

    async def is_logged(self) -> None:
        self._herd.needs_links()
        lost = self._needs_lost()
        named = _names(lost)
        await self._look_in_logs(
            lost,
            lambda line: named(line) and (self._tells_loss(line) or not _is_about_a_report(line)),
            "that tells that it is gone",
        )

    async def returns(self) -> None:
        lost = self._needs_lost()
        assert self._herd.keeper is not None
        self._mark_logs(lost)
        try:
            by_hand.note(Step(lost.name, deed=f"start {lost.name} again"))
            await self._herd.keeper.regain(lost)
        except StartError as error:
            raise Fault(lost.name, b"", "that it starts again", str(error)) from error
        self._back = True
        named = _names(lost)
        await self._watch(
            lambda line: (
                not _is_about_a_report(line)
                and not self._tells_loss(line)
                and (named(line) or FOUND.search(self._bare(line)))
            )
        )
        await lost.report(new_client())

    async def catches_up(self) -> None:
        lost, near = self._needs_back()
        began = clock()
        told = [
            (server, at) for server, at in ((near[0], self._before), *self._missed) if at and server in near
        ]
        if not told:
            raise NotSeen("nobody could report while it was away, nor before")
        for server, at in told:
            deadline = began + self._herd.wait(server, lost, PATIENCE_FACTOR * lost.seconds)
            await lost.until_holds(at, max(0.0, deadline - clock()))

    async def floods_again(self) -> None:
        lost, near = self._needs_back()
        began = clock()
        # A report of the first moment may find no link yet, and a herd may be without catch-up.
        for server, others in ((lost, near), *((one, [lost]) for one in near)):
            while not await self._floods(server, others):
                wait = min(self._herd.wait(server, other, PATIENCE_FACTOR * lost.seconds) for other in others)
                if clock() > began + wait:
                    at = await server.report(new_client())
                    await together(*(other.until_holds(at, 0.5) for other in others))

    async def return_is_logged(self) -> None:
        self._herd.needs_links()
        lost, _ = self._needs_back()
        named = _names(lost)
        await self._look_in_logs(
            lost,
            lambda line: named(line) and not self._tells_loss(line) and not _is_about_a_report(line),
            "that tells that it is back",
        )

    async def _lose(self) -> GradedServer:
        herd = self._herd
        if herd.keeper is None:
            raise self._not_lost(
                "servers cannot be stopped and started from here: --start, or --lose and --regain"
            )
        if len(herd.servers) < 2:
            raise self._not_lost("there is one server only")
        lost = max(herd.servers, key=self._loss_shows)
        # A herd whose floods cannot be seen is judged by what it does without a server all the same.
        with contextlib.suppress(Fault, NotJudged):
            self._before = await lost.report(new_client())
            await self._floods(lost, herd.reach(lost), self._before)
        await asyncio.sleep(0.1)  # for the log of what was asked before
        self._mark_logs(lost)
        try:
            await herd.keeper.lose(lost)
        except NotSeen as problem:
            raise self._not_lost(str(problem)) from problem
        by_hand.note(Step(lost.name, deed=f"end {lost.name} now"))
        self._lost = lost
        named = _names(lost)
        await self._watch(
            lambda line: self._tells_loss(line) or (named(line) and not _is_about_a_report(line))
        )
        return lost

    def _not_lost(self, problem: str) -> NotSeen:
        """Return why no server is lost, and keep it for the steps that follow."""
        self._problem = problem
        return NotSeen(problem)

    def _loss_shows(self, server: GradedServer) -> tuple[bool, int]:
        """Return how much the loss of a server shows: most if others are still linked, then by its neighbours."""
        herd = self._herd
        linked = any(herd.reach(other, server) for other in herd.others(server))
        return linked, len(herd.neighbours(server))

    def _tells_loss(self, line: bytes) -> bool:
        return LOST.search(self._bare(line)) is not None

    def _bare(self, line: bytes) -> bytes:
        """Return a line without parts that only look like words of loss: names, and empty fields."""
        return NOTHING.sub(b" ", self._all_names.sub(b" ", line))

    async def _floods(self, server: GradedServer, others: list[GradedServer], at: bytes = b"") -> bool:
        """Whether a report at one server reaches others at once, or nearly."""
        at = at or await server.report(new_client())
        try:
            await together(*(other.until_holds(at, 0.5) for other in others))
        except Fault:
            return False
        return True

    def _mark_logs(self, lost: GradedServer) -> None:
        linked = [] if self._herd.one_table else self._herd.neighbours(lost)
        self._logs = [Log(server) for server in linked if server.log is not None]

    async def _watch(self, tells: Callable[[bytes], object]) -> None:
        """Find the logs that report it while no commands are sent."""
        found = await asyncio.gather(*(log.until_found(tells, QUIET_SECONDS) for log in self._logs))
        self._noted = [log for log, is_found in zip(self._logs, found, strict=True) if is_found]

    def _needs_lost(self) -> GradedServer:
        if self._lost is None:
            raise NotSeen(self._problem)
        return self._lost

    def _needs_back(self) -> tuple[GradedServer, list[GradedServer]]:
        lost = self._needs_lost()
        if not self._back:
            raise NotSeen(f"{lost.name} did not come back")
        near = self._herd.reach(lost)
        if not near:
            raise NotSeen(f"{lost.name} has no neighbours")
        return lost, near

    async def _look_in_logs(self, lost: GradedServer, tells: Callable[[bytes], object], what: str) -> None:
        neighbours = self._herd.neighbours(lost)
        if not neighbours or len(self._logs) < len(neighbours):
            raise NotSeen(f"not every neighbour's log is named: --logs, --log ({len(neighbours)} neighbours)")
        late = [log for log in self._logs if log not in self._noted]
        # A herd without lasting links notes a loss when it next has something to pass on.
        await together(*(log.server.report(new_client()) for log in late))
        found = await asyncio.gather(*(log.until_found(tells, log.server.seconds) for log in late))
        silent = [log.server for log, is_found in zip(late, found, strict=True) if not is_found]
        # Where nobody said who is linked with it, one that was is enough.
        if not silent or (self._herd.edges is None and len(silent) < len(self._logs)):
            return
        raise self._herd.unlogged(
            Fault(
                silent[0].name,
                b"(%b was stopped and started)" % lost.name.encode(),
                f"a new line in {silent[0].log} {what}, such as one that names {lost.name}",
                "no such line",
            )
        )


def _is_about_a_report(line: bytes) -> bool:
    """Whether a line mentions a client of ours: it is about an update, not about a connection."""
    return PREFIX in line


def _names(server: GradedServer) -> Callable[[bytes], object]:
    """Return a pattern that finds a server's name or port, except where it names who took a report."""
    name = re.escape(server.name.encode())
    return re.compile(rb"(?<!AT )\b%b\b|(?<!\d)%d\b" % (name, server.port)).search
