"""Plays one example of the client protocol with a server, and checks every answer."""

from __future__ import annotations

from functools import partial

from proxyherd.grading.answers import (
    DECIMALS,
    bound_complaint,
    fields_complaint,
    form_of_at,
    json_complaint,
    looks_whole,
    parse_at_line,
)
from proxyherd.grading.cases import Case
from proxyherd.grading.connections import Connection
from proxyherd.grading.faults import shown
from proxyherd.grading.forms import Form
from proxyherd.grading.servers import GradedServer, new_client, now


async def play(case: Case, server: GradedServer, chunk: int | None = None) -> None:
    """Play a case on its own connection: exactly the expected answers must come, in order. Raises Fault."""
    known = new_client()
    known_at = await server.report(known) if "{known}" in case.send else b""
    sent = case.filled(new_client(), known, now())
    dialect = server.dialect
    async with server.connect() as connection:
        await connection.send(sent.replace(b"\n", dialect.line_end), None if dialect.packets else chunk)
        if case.half_close or dialect.half_close:
            connection.half_close()
        # Where the server closes, it leaves the lines behind that unanswered.
        lines = sent.removesuffix(b"\n").split(b"\n")
        for line, what in zip(lines, case.expected, strict=not case.closes):
            await _expect(what, line, known_at, connection, server)
        if not (case.half_close or case.closes or dialect.half_close or dialect.closes):
            await _expect_that_it_goes_on(connection, sent, server.harmless)
        await connection.expect_end()


async def _expect_that_it_goes_on(connection: Connection, sent: bytes, line: bytes) -> None:
    if line:
        await connection.say(line)
        connection.sent = sent + line + b"\n"
        expected = f"one answer to each line, and `? {line.decode()}` to the next"
        await connection.expect_rejection(line, expected)
    connection.half_close()


async def _expect(
    what: str, line: bytes, known_at: bytes, connection: Connection, server: GradedServer
) -> None:
    match what:
        case "at":
            await _expect_at(line, connection, server)
        case "at+json":
            await connection.expect(known_at)
            await expect_places(connection, int(line.split()[-1]))
        case "invalid":
            await connection.expect_rejection(line)
        case _:
            await connection.expect(what.encode("latin-1"))


async def _expect_at(line: bytes, connection: Connection, server: GradedServer) -> None:
    name, operands = server.name.encode(), b" ".join(line.split()[1:])
    expected = form_of_at(name, operands)
    answer = await connection.line(expected, partial(looks_whole, line))
    at = parse_at_line(answer)
    if at is None or at.server != name or not server.dialect.repeats(operands, at.operands):
        raise connection.fault(expected, shown(answer))
    # A server that departs from these always has been marked for it.
    if not at.has_one_sign and Form.SIGN not in server.findings:
        raise connection.fault("one sign before the difference", shown(answer))
    if at.decimals != DECIMALS and Form.DECIMALS not in server.findings:
        raise connection.fault("nine decimals of the difference", shown(answer))


async def expect_places(connection: Connection, most: int) -> bytes:
    """Read and return the places of a WHATSAT answer, which must be right in all. Raises Fault."""
    body = await expect_json(connection)
    complaint = fields_complaint(body) or bound_complaint(body, most)
    if complaint is not None:
        raise connection.fault(f"a Nearby Search answer of at most {most} results", complaint)
    return body


async def expect_json(connection: Connection) -> bytes:
    """Read and return the places of a WHATSAT answer: a JSON object, whatever is in it. Raises Fault."""
    body = await connection.places()
    complaint = json_complaint(body, squeezed=connection.dialect.json_end)
    if complaint is not None:
        raise connection.fault("a JSON object without an empty line, and two LFs", complaint)
    return body
