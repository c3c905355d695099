"""Connections to a stranger's server."""

from __future__ import annotations

import asyncio
import errno
from typing import cast

import pytest

from proxyherd.grading import connections
from proxyherd.grading.connections import Connection
from proxyherd.grading.faults import Fault
from proxyherd.grading.servers import GradedServer


def test_an_answer_without_an_end_is_a_fault_and_a_long_one_none() -> None:
    async def read(data: bytes, *, places: bool) -> bytes:
        reader = asyncio.StreamReader(limit=connections.BUFFERED_BYTES)
        reader.feed_data(data)
        connection = Connection("Ann", reader, cast("asyncio.StreamWriter", None), 0.2)
        return await (connection.places() if places else connection.line())

    long = b"x" * connections.MOST_ANSWER_BYTES
    assert asyncio.run(read(long[:-1] + b"\n", places=False)) == long[:-1]
    assert asyncio.run(read(2 * long + b"\n\n", places=True)) == 2 * long
    with pytest.raises(Fault, match="more than 2,097,152 bytes without an end"):
        asyncio.run(read(2 * long, places=False))


def fault_of(error: Exception | None) -> Fault:
    """Return the fault of a server whose connection ends so: with an error, or at its end."""

    async def dial(*_: object, **__: object) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if error is not None:
            raise error
        reader = asyncio.StreamReader()
        reader.feed_eof()
        return reader, cast("asyncio.StreamWriter", Sink())

    async def asked() -> Fault:
        with pytest.raises(Fault) as raised:
            await GradedServer("Ann", "h", 1, dial=dial).ask(b"HELLO")
        return raised.value

    return asyncio.run(asked())


class Sink:
    """A writer into nothing."""

    def write(self, data: bytes) -> None: ...

    def close(self) -> None: ...

    async def drain(self) -> None: ...

    async def wait_closed(self) -> None: ...


def test_a_server_has_ended_only_where_nobody_listens_and_hung_up_only_where_it_had_taken_a_connection() -> (
    None
):
    refused = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    of_a_name = OSError(
        f"Multiple exceptions: [Errno {errno.ECONNREFUSED}] Connect call failed ('::1', 1, 0, 0)"
    )
    found = [
        (one.cut, one.down)
        for one in map(
            fault_of, (refused, of_a_name, TimeoutError(), OSError(errno.EHOSTUNREACH, "away"), None)
        )
    ]
    assert found == [(False, True), (False, True), (False, False), (False, False), (True, False)]
