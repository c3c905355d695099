"""Bad lines, long lines, many lines and many clients: none of them stops a server or changes its answers.

These checks run one after another, so that the one that ends a server is known.
"""

from __future__ import annotations

import contextlib
from functools import partial
from typing import Final

from proxyherd.grading.checks import Check
from proxyherd.grading.faults import Fault
from proxyherd.grading.forms import SENDING_AHEAD, Form
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.servers import LOCATION, GradedServer, new_client, now

BAD: Final[dict[str, tuple[str, bytes]]] = {
    "words-missing": (
        "commands with words missing",
        b"IAMAT\nIAMAT x\nIAMAT x y\nWHATSAT\nWHATSAT x\nWHATSAT x 1\nAT\n",
    ),
    "words-too-many": (
        "commands with too many words",
        b"IAMAT a +1+1 5 6 7\nWHATSAT a 1 1 1 1\n" + b"x " * 2_000 + b"\n",
    ),
    "numbers-that-are-none": (
        "numbers that are none",
        b"IAMAT x +x+y z\nIAMAT x ++++ ....\nIAMAT x +1+1 1e999\nIAMAT x +1+1 --\nWHATSAT x nan inf\nWHATSAT x 1e9 x\n",
    ),
    "numbers-of-thousands-of-digits": (
        "numbers of thousands of digits",
        b"IAMAT x +%b+1 5\nIAMAT x +1+1 %b\nWHATSAT x %b 1\nWHATSAT x 1 %b\n" % ((b"9" * 6_000,) * 4),
    ),
    "not-utf8": ("bytes that are not UTF-8", b"\xff\xfe\x80 \xc3\x28\nIAMAT \xff\xff +1+1 x\n\xed\xa0\x80\n"),
    "control-characters": (
        "control characters",
        bytes(range(1, 10)) + bytes(range(11, 32)) + b"\x7f\x1b[2J\n\0\0\0\n",
    ),
    "empty-lines": ("a thousand empty lines", b"\n" * 1_000),
    "braces-and-percents": (
        "braces, percents, quotes and backslashes",
        b"{} {0} %s %n %d \\N{x} ' \" `id` $(id)\n" * 3,
    ),
    "http": ("a request of HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "tls": ("the first bytes of TLS", bytes.fromhex("16030100c5010000c10303") + bytes(range(200))),
    "cut-off": ("a command without its end", b"IAMAT kiwi +34.0"),
}
"""Very different lines that must not end a server."""

PIPELINED: Final = 300
CONNECTIONS: Final = 100
UNCLOSED_SECONDS: Final = 0.5
"""How long to wait for a server that does not close its connections."""

LONG_LINE_NEEDS: Final = SENDING_AHEAD | {Form.LINE_END, Form.FINAL_LF, Form.ECHO}

ECHOED_BYTES: Final = 1_024
"""Bytes of an overlong line that its answer copies."""


def checks(herd: GradedHerd) -> list[Check]:
    found = [
        Check(
            f"hard.survives-{name}",
            f"A server goes on after {what}",
            "No input makes a server end or stop to answer; what is no command is answered with `? ` and the line.",
            partial(_survives, herd, number, data),
        )
        for number, (name, (what, data)) in enumerate(BAD.items())
    ]
    return [
        *found,
        Check(
            "hard.survives-resets",
            "A server goes on after connections that break off",
            "No input makes a server end or stop to answer.",
            lambda: _resets(herd, herd.turn(0)),
        ),
        Check(
            "hard.pipelined",
            "Lines sent ahead are answered one by one, in order",
            "Every line gets exactly one answer, in the order of the lines on that connection, however many arrive in "
            "one packet.",
            lambda: _pipelined(herd.turn(1)),
            needs=SENDING_AHEAD | {Form.ECHO},
        ),
        Check(
            "hard.cut-anywhere",
            "A line may come in any pieces, with other clients' lines between",
            "However a line is cut over packets, it is one line; no client waits for another's.",
            lambda: _many_connections(herd, herd.turn(2)),
            needs=frozenset((Form.PACKETS, Form.HALF_CLOSE, Form.ECHO)),
        ),
        Check(
            "hard.long-line",
            "A line past the limit is answered as soon as it is, and the connection goes on",
            "A line longer than the limit is answered with `? ` and its first 1,024 bytes as soon as the limit is "
            "passed; the rest of it is dropped, and the connection stays open.",
            lambda: _long_line(herd.turn(3), herd.max_line_bytes),
            about=Form.LONG_LINES,
            needs=LONG_LINE_NEEDS,
        ),
        Check(
            "hard.longest-line",
            "A line of exactly the limit is a line like any other",
            "Only a line longer than the limit is overlong, its LF not counted.",
            lambda: _longest_line(herd.turn(4), herd.max_line_bytes),
            about=Form.LONG_LINES,
            needs=frozenset((Form.PACKETS, Form.ECHO)),
        ),
        Check(
            "hard.no-command-in-a-long-line",
            "No part of an overlong line is taken for a command",
            "A line longer than the limit is never read as a command, nor is any part of it.",
            lambda: _smuggled(herd, herd.turn(5), herd.max_line_bytes),
            about=Form.LONG_LINES,
            needs=LONG_LINE_NEEDS,
        ),
        Check(
            "hard.no-server-has-ended",
            "Every server still answers, and none has ended by itself",
            "A server does not exit before it is told to.",
            lambda: _none_has_ended(herd),
        ),
    ]


async def _survives(herd: GradedHerd, number: int, data: bytes) -> None:
    server = herd.turn(number)
    for piece in _pieces(data, server):
        with contextlib.suppress(Fault):  # what is answered is for others to judge
            async with server.connect() as connection:
                await connection.send(piece.replace(b"\n", server.dialect.line_end))
                connection.half_close()
                await (connection.rest() if server.dialect.ends else connection.whatever(UNCLOSED_SECONDS))
    try:
        await _expect_service(herd, server, data)
    finally:
        await herd.until_serves(server)


def _pieces(data: bytes, server: GradedServer) -> list[bytes]:
    """Return what to send on a connection each: each different line, where a server takes one at a time."""
    return [data] if server.dialect.takes_many else list(dict.fromkeys(data.splitlines(keepends=True)))


async def _expect_service(herd: GradedHerd, server: GradedServer, after: bytes) -> None:
    try:
        await server.report(new_client())
    except Fault as fault:
        fault = await herd.explained(fault, server)
        raise Fault(
            server.name,
            after,
            "that the server goes on: that a report after it is answered",
            fault.got,
            cut=fault.cut,
            down=fault.down,
        ) from fault


async def _resets(herd: GradedHerd, server: GradedServer) -> None:
    with contextlib.suppress(Fault):  # as above
        for piece in (b"", b"IAM", b"FOO\n" * 100, b"WHATSAT") * 5:
            async with server.connect() as connection:
                await connection.send(piece)
                connection.reset()
    try:
        await _expect_service(herd, server, b"pieces of lines, each connection broken off after them")
    finally:
        await herd.until_serves(server)


async def _pipelined(server: GradedServer) -> None:
    client = new_client()
    lines = [
        (b"HELLO %d", b"IAMAT %b.%%d %b x" % (client, LOCATION), b"  \t%d")[n % 3] % n
        for n in range(PIPELINED)
    ]
    async with server.connect() as connection:
        await connection.say(*lines)
        for line in lines:
            await connection.expect_rejection(line)
        connection.half_close()
        await connection.expect_end()


async def _many_connections(herd: GradedHerd, server: GradedServer) -> None:
    async with contextlib.AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(server.connect()) for _ in range(CONNECTIONS)]
        for number, connection in enumerate(connections):
            await connection.send(b"HEL")
            if number % 10 == 0:
                await connection.send(b"LO %d" % number)
        await _expect_service(herd, server, b"the beginnings of %d lines, on a connection each" % CONNECTIONS)
        for number, connection in reversed(list(enumerate(connections))):
            await connection.send((b"" if number % 10 == 0 else b"LO %d" % number) + server.dialect.line_end)
            connection.sent = b"%d lines at once, each in two pieces" % CONNECTIONS
            await connection.expect_rejection(b"HELLO %d" % number)


async def _long_line(server: GradedServer, limit: int) -> None:
    line = b"IAMAT " + b"long" * (limit // 4)
    async with server.connect() as connection:
        await connection.send(line[: limit + 1])
        await connection.expect(b"? " + line[:ECHOED_BYTES])
        await connection.say(b"and so on" * 10_000, b"HELLO")
        connection.sent = b"the rest of the line, then HELLO\n"
        await connection.expect_rejection(b"HELLO")


async def _longest_line(server: GradedServer, limit: int) -> None:
    line = b"HELLO ".ljust(limit, b"x")
    async with server.connect() as connection:
        await connection.say(line)
        await connection.expect_rejection(line)


async def _smuggled(herd: GradedHerd, server: GradedServer, limit: int) -> None:
    client = new_client()
    command = b"IAMAT %b %b %b" % (client, LOCATION, now())
    for gap in (1, 1_000, limit, 3 * limit):
        line = b"x" * limit + b" " * gap + command
        async with server.connect() as connection:
            await connection.say(line, b"HELLO")
            await connection.expect(b"? " + line[:ECHOED_BYTES])
            await connection.expect_rejection(b"HELLO")
    await herd.expect_nobody_knows(server, client, b"x" * 20 + b"... " + command)


async def _none_has_ended(herd: GradedHerd) -> None:
    await herd.revive()
    deaths = herd.deaths()
    if deaths:
        more = f" ({len(deaths) - 1} times more one has)" if len(deaths) > 1 else ""
        raise Fault(
            deaths[0].partition(" ")[0],
            b"",
            "that no server ends before it is told to",
            deaths[0] + more,
            down=True,
        )
    for server in herd.servers:
        await _expect_service(herd, server, b"all that went before")
