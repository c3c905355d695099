"""Times: the difference in an AT line, and which of two reports of one client counts.

Each check uses one server, so that a herd with bad floods has no faults here. The times are long ago. Nothing depends
on the herd having this machine's clock, except if both are on this machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

from proxyherd.grading.answers import AtLine, is_from_a_float, parse_at_line
from proxyherd.grading.checks import Check
from proxyherd.grading.faults import Fault, shown
from proxyherd.grading.forms import Form
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.servers import GradedServer, new_client, spelled, spot

_Reports: TypeAlias = list[tuple[bytes, bool]]
"""Times of one client's reports, in this order, and whether each counts."""

SAMPLES: Final = 12
"""Differences that are checked for each server. One in 200 exact differences of this size looks as if it came from a
float."""

LONG_AGO: Final = 1_000_000_000_000_000_001
"""A client's time in nanoseconds, in 2001; a float cannot hold its difference from today to the nanosecond."""

SAME_CLOCK_NANOSECONDS: Final = 20_000_000
OTHER_CLOCK_NANOSECONDS: Final = 300_000_000_000
"""By how much a time of receipt may be outside the exchange, on this machine and on another."""


_ORDERS: Final[tuple[tuple[str, str, str, _Reports], ...]] = (
    (
        "times.later-report-counts",
        "A later report of a client replaces an earlier one",
        "A report is stored if its time is later than the stored one's.",
        [(b"1000000000.5", True), (b"1000000001.5", True)],
    ),
    (
        "times.earlier-report-does-not-count",
        "An earlier report is answered and changes nothing",
        "A report whose time is not later than the stored one's is answered with its own AT line, and stored nowhere.",
        [(b"1000000001.5", True), (b"1000000000.5", False)],
    ),
    (
        "times.equal-time-does-not-count",
        "A report of the same time changes nothing, however it is spelled",
        "Times are compared as numbers: 5.5 and 5.500000000 are equal, and an equal time is not later.",
        [(b"5.5", True), (b"5.500000000", False), (b"5.5", False)],
    ),
    (
        "times.a-nanosecond-counts",
        "A report later by one nanosecond counts",
        "Times are compared exactly; a float cannot tell such two apart.",
        [
            (b"1621464827.959498503", True),
            (b"1621464827.959498504", True),
            (b"1621464827.959498503", False),
        ],
    ),
    (
        "times.compared-as-numbers",
        "Times are compared as numbers, not as text",
        "1000000000 is later than 999999999.5, though as text it comes first.",
        [(b"999999999.5", True), (b"1000000000", True), (b"99999999.9", False)],
    ),
)
"""Identifier, title and rule of a check, and the reports in it."""

_LATER, _EARLIER = "times.later-report-counts", "times.earlier-report-does-not-count"
_FOLLOWS: Final = {
    "times.equal-time-does-not-count": (_EARLIER, "times.compared-as-numbers"),
    "times.a-nanosecond-counts": (_LATER, _EARLIER),
    "times.compared-as-numbers": (_LATER, _EARLIER),
}
"""A server that keeps the first report, or the last, or compares texts, fails those too."""


def checks(herd: GradedHerd) -> list[Check]:
    return [
        Check(
            "times.difference-is-received-less-sent",
            "The difference in AT is when the server received the report less the client's time",
            "The number in an AT line is the server's receiving time less the client's, in seconds: positive where "
            "the client's is earlier, negative where it is later.",
            lambda: _everywhere(herd, _received_less_sent),
        ),
        Check(
            "times.difference-is-exact",
            "The difference in AT has nine true decimals",
            "The difference is computed on integers of nanoseconds and never through a float, which at today's times "
            "loses what is smaller than some 100 nanoseconds.",
            lambda: _everywhere(herd, _exact),
            about=Form.DECIMALS,
        ),
        *(_order_check(herd, *order) for order in _ORDERS),
    ]


def _order_check(herd: GradedHerd, name: str, title: str, rule: str, reports: _Reports) -> Check:
    return Check(
        name,
        title,
        rule,
        lambda: _everywhere(herd, lambda server: _order(server, reports)),
        follows=frozenset(_FOLLOWS.get(name, ())),
    )


async def _everywhere(herd: GradedHerd, check: Callable[[GradedServer], Awaitable[None]]) -> None:
    await asyncio.gather(*(check(server) for server in herd.servers))


async def _order(server: GradedServer, reports: _Reports) -> None:
    """Report one client at these times; after each report, check that the server has the last one that counts."""
    client, held, sent = new_client(), b"", []
    for number, (when, counts) in enumerate(reports):
        answer = await server.report(client, when, spot(number + 1))
        sent.append(_command(answer))
        held = answer if counts else held
        if (got := await server.held(client)) != held:
            raise Fault(
                server.name,
                b"\n".join(sent),
                f"after {when.decode()}: {shown(held)}",
                shown(got) if got else f"that {server.name} does not know the client",
            )


async def _received_less_sent(server: GradedServer) -> None:
    slack = SAME_CLOCK_NANOSECONDS if server.is_here else OTHER_CLOCK_NANOSECONDS
    for when in (LONG_AGO, time.time_ns(), 99_999_999_999_500_000_000):
        client, before = new_client(), time.time_ns()
        answer = await server.report(client, spelled(when))
        after = time.time_ns()
        at = _parsed(answer)
        if not before - slack <= at.received <= after + slack:
            low, high = (f"{(moment - when) / 1e9:+.6f}" for moment in (before, after))
            raise Fault(
                server.name,
                _command(answer),
                f"a difference from {low} to {high}",
                shown(answer),
            )


async def _exact(server: GradedServer) -> None:
    lines = [await server.report(new_client(), spelled(LONG_AGO + 7 * number)) for number in range(SAMPLES)]
    samples = [_parsed(line) for line in lines]
    for what, numbers in (
        ("differences", [at.difference for at in samples]),
        ("receiving times (client's time and difference)", [at.received for at in samples]),
    ):
        if all(map(is_from_a_float, numbers)):
            raise Fault(
                server.name,
                b"%d reports at times about %b" % (SAMPLES, spelled(LONG_AGO)),
                "differences exact to the nanosecond",
                f"only {what} that a float of seconds can hold, such as {shown(lines[-1])}",
            )


def _command(answer: bytes) -> bytes:
    """Return the report that was answered so."""
    return b"IAMAT " + _parsed(answer).operands


def _parsed(answer: bytes) -> AtLine:
    at = parse_at_line(answer)
    assert at is not None  # `report` has looked
    return at
