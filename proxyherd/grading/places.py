"""Places: the form of the answers to WHATSAT. The results, and whether Google was asked, cannot be seen from outside.

Each query may cost the herd a call to Google, except those with radius or bound 0; there are four here.
"""

from __future__ import annotations

import json
from typing import Final

from proxyherd.grading.checks import Check
from proxyherd.grading.faults import shown
from proxyherd.grading.forms import SENDING_AHEAD, Form
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.playing import expect_places
from proxyherd.grading.servers import LOCATION, new_client, now

PLACES_QUESTIONS: Final = ((b"10", 5), (b"50", 20), (b"25", 1))


def checks(herd: GradedHerd) -> list[Check]:
    return [
        Check(
            "places.form",
            "The answer is the AT line, JSON in the format of Nearby Search, and two LFs",
            "WHATSAT is answered with the AT line of the client, an LF, JSON with html_attributions, results (as many "
            "as asked for at most) and one of Google's statuses, without an empty line, and two LFs; also where Places "
            "fails, or there is no key.",
            lambda: _form(herd),
        ),
        Check(
            "places.nothing-asked",
            "A radius or a bound of 0 has no results",
            "Where the radius or the bound is 0 no call is made; there are no results, and the status is ZERO_RESULTS.",
            lambda: _nothing(herd),
            follows=frozenset(("places.form",)),
        ),
        Check(
            "places.in-order",
            "What was asked after a WHATSAT is answered after it",
            "Answers come in the order of the lines on a connection; a WHATSAT that waits for Places holds back those "
            "behind it.",
            lambda: _in_order(herd),
            needs=SENDING_AHEAD | {Form.ECHO},
            follows=frozenset(("places.form",)),
        ),
    ]


async def _form(herd: GradedHerd) -> None:
    for number, (radius, most) in enumerate(PLACES_QUESTIONS):
        server = herd.turn(number)
        client = new_client()
        at = await server.report(client)
        async with server.connect() as connection:
            await connection.say(b"WHATSAT %b %b %d" % (client, radius, most))
            await connection.expect(at)
            await expect_places(connection, most)
            connection.half_close()
            await connection.expect_end()


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
