"""Places: the form of the answers to WHATSAT. The results, and whether Google was asked, cannot be seen from outside.

Each query may cost the herd a call to Google, except those with radius or bound 0; there are four here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, Final, NamedTuple

from proxyherd.grading.answers import bound_complaint, fields_complaint
from proxyherd.grading.by_hand import note, recording
from proxyherd.grading.checks import Check
from proxyherd.grading.connections import Connection
from proxyherd.grading.faults import Fault, NotJudged, Step, shown
from proxyherd.grading.forms import SENDING_AHEAD, Form
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.playing import expect_json, expect_places
from proxyherd.grading.servers import LOCATION, GradedServer, new_client, now

FORM: Final = frozenset(("places.form",))
PLACES: Final = FORM | {"places.fields", "places.bound"}
"""The checks of which a fault explains a fault in places."""


PLACES_QUESTIONS: Final = ((b"10", 5), (b"50", 20), (b"25", 1))
"""Radius and bound of the queries for places."""


def checks(herd: GradedHerd) -> list[Check]:
    queries = _Queries(herd)
    return [
        Check(
            "places.form",
            "The answer is the AT line, JSON, and two LFs",
            "WHATSAT is answered with the AT line of the client, an LF, a JSON object without an empty line, and two LFs; "
            "also where Places fails, or there is no key.",
            lambda: _unless_google_is_away(herd, queries.form()),
        ),
        Check(
            "places.fields",
            "The JSON is in the format of Nearby Search",
            "The JSON has html_attributions, results and one of Google's statuses, as Nearby Search has them.",
            lambda: _unless_google_is_away(herd, queries.fields()),
            follows=FORM,
        ),
        Check(
            "places.bound",
            "There are no more results than asked for",
            "The third operand of WHATSAT is the most results that the answer may have.",
            lambda: _unless_google_is_away(herd, queries.bound()),
            follows=FORM,
        ),
        Check(
            "places.nothing-asked",
            "A radius or a bound of 0 has no results",
            "Where the radius or the bound is 0 no call is made; there are no results, and the status is ZERO_RESULTS.",
            lambda: _unless_google_is_away(herd, _nothing(herd)),
            follows=PLACES,
        ),
        Check(
            "places.in-order",
            "What was asked after a WHATSAT is answered after it",
            "Answers come in the order of the lines on a connection; a WHATSAT that waits for Places holds back those "
            "behind it.",
            lambda: _unless_google_is_away(herd, _in_order(herd)),
            needs=SENDING_AHEAD | {Form.ECHO},
            follows=PLACES,
        ),
    ]


async def _unless_google_is_away(herd: GradedHerd, check: Coroutine[Any, Any, None]) -> None:
    try:
        await check
    except Fault as fault:
        if why := await herd.google.problem():
            raise NotJudged("", why) from fault
        raise


class _Places(NamedTuple):
    """The places in one answer, and the connection on which they came."""

    body: bytes
    most: int
    connection: Connection


class _Queries:
    """What three checks look at: each query may cost the herd a call to Google, so they are made once."""

    def __init__(self, herd: GradedHerd) -> None:
        self._herd = herd
        self._lock = asyncio.Lock()
        self._found: list[_Places] | Fault | None = None
        self._steps: list[Step] = []

    async def form(self) -> None:
        await self._answers()

    async def fields(self) -> None:
        for body, _, connection in await self._answers():
            if complaint := fields_complaint(body):
                raise connection.fault("a Nearby Search answer", complaint)

    async def bound(self) -> None:
        for body, most, connection in await self._answers():
            if complaint := bound_complaint(body, most):
                raise connection.fault(f"{most} results at most", complaint)

    async def _answers(self) -> list[_Places]:
        async with self._lock:
            if self._found is None:
                with recording(self._steps):
                    self._found = await self._ask()
        for step in self._steps:
            note(step)
        if isinstance(self._found, Fault):
            raise self._found
        return self._found

    async def _ask(self) -> list[_Places] | Fault:
        try:
            return [
                await _places(self._herd.turn(number), radius, most)
                for number, (radius, most) in enumerate(PLACES_QUESTIONS)
            ]
        except Fault as fault:
            return fault


async def _places(server: GradedServer, radius: bytes, most: int) -> _Places:
    """Return the places that a new client is answered with. Raises Fault if they do not have the form."""
    client = new_client()
    at = await server.report(client)
    async with server.connect() as connection:
        await connection.say(b"WHATSAT %b %b %d" % (client, radius, most))
        await connection.expect(at)
        body = await expect_json(connection)
        connection.half_close()
        await connection.expect_end()
    return _Places(body, most, connection)


async def _nothing(herd: GradedHerd) -> None:
    for number, operands in enumerate((b"0 5", b"10 0", b"0 0")):
        server = herd.turn(number)
        client = new_client()
        at = await server.report(client)
        async with server.connect() as connection:
            await connection.say(b"WHATSAT %b %b" % (client, operands))
            await connection.expect(at)
            body = await expect_places(connection, 0)
            if json.loads(body)["status"] != "ZERO_RESULTS":
                raise connection.fault("no results, and the status ZERO_RESULTS", shown(body))


async def _in_order(herd: GradedHerd) -> None:
    server = herd.turn(3)
    client, when = new_client(), now()
    at = await server.report(client, when)
    again = b"IAMAT %b %b %b" % (client, LOCATION, b"5.5")
    async with server.connect() as connection:
        await connection.say(
            b"WHATSAT %b 10 3" % client, again, b"HELLO", b"WHATSAT %b %b" % (client, server.question)
        )
        await connection.expect(at)
        await expect_places(connection, 3)
        answer = await connection.line("the answer to the IAMAT behind it")
        if not (answer.startswith(b"AT ") and answer.endswith(again.removeprefix(b"IAMAT"))):
            raise connection.fault("the answer to the IAMAT behind it", shown(answer))
        await connection.expect_rejection(b"HELLO")
        await connection.expect(at)
        await expect_places(connection, int(server.question.split()[1]))
