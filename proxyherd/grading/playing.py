"""Plays one example of the client protocol with a server, and checks every answer."""

from __future__ import annotations

from proxyherd.grading.answers import form_of_at, parse_at_line, places_complaint
from proxyherd.grading.cases import Case
from proxyherd.grading.faults import shown
from proxyherd.grading.servers import Connection, GradedServer, new_client, now


async def play(case: Case, server: GradedServer, chunk: int | None = None) -> None:
    """Play a case on its own connection: exactly the expected answers must come, in order. Raises Fault."""
    known = new_client()
    known_at = await server.report(known) if "{known}" in case.send else b""
    sent = case.filled(new_client(), known, now())
    async with server.connect() as connection:
        await connection.send(sent, chunk)
        if case.half_close:
            connection.half_close()
        # Where the server closes, it leaves the lines behind that unanswered.
        lines = sent.removesuffix(b"\n").split(b"\n")
        for line, what in zip(lines, case.expected, strict=not case.closes):
            await _expect(what, line, known_at, connection, server)
        if not case.half_close and not case.closes:
            await _expect_that_it_goes_on(connection, sent)
        await connection.expect_end()


async def _expect_that_it_goes_on(connection: Connection, sent: bytes) -> None:
    await connection.send(b"and now?\n")
    connection.half_close()
    answer = await connection.line("`? and now?` to the next line")
    connection.sent = sent + b"and now?\n"
    if answer != b"? and now?\n":
        raise connection.fault("one answer to each line, and `? and now?` to the next", shown(answer))


async def _expect(
    what: str, line: bytes, known_at: bytes, connection: Connection, server: GradedServer
) -> None:
    match what:
        case "at":
            name, operands = server.name.encode(), b" ".join(line.split()[1:])
            expected = form_of_at(name, operands)
            answer = await connection.line(expected)
            at = parse_at_line(answer)
            if at is None or (at.server, at.operands) != (name, operands):
                raise connection.fault(expected, shown(answer))
        case "at+json":
            await connection.expect(known_at)
            await expect_places(connection, int(line.split()[-1]))
        case "invalid":
            await connection.expect(b"? " + line + b"\n")
        case _:
            await connection.expect(what.encode("latin-1") + b"\n")


async def expect_places(connection: Connection, most: int) -> bytes:
    """Read and return the places of a WHATSAT answer, at most this many. Raises Fault."""
    body = await connection.places()
    complaint = places_complaint(body, most)
    if complaint is not None:
        raise connection.fault(
            f"a Nearby Search answer of at most {most} results without an empty line, and two LFs", complaint
        )
    return body
