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
    """What was in its queue when it ended is reset while the connection is being made, or as soon as it is."""

    def of_a_name(number: int) -> OSError:
        return OSError(f"Multiple exceptions: [Errno {number}] Connect call failed ('::1', 1, 0, 0)")

    kinds = {
        "refused": ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        "refused at all addresses": of_a_name(errno.ECONNREFUSED),
        "reset": ConnectionResetError(errno.ECONNRESET, "reset"),
        "reset at all addresses": of_a_name(errno.ECONNRESET),
        "late": TimeoutError(),
        "away": OSError(errno.EHOSTUNREACH, "away"),
        "ended": None,
    }
    found = {kind: fault_of(error) for kind, error in kinds.items()}
    assert {kind for kind, one in found.items() if one.down} == {"refused", "refused at all addresses"}
    assert {kind for kind, one in found.items() if one.cut} == {"reset", "reset at all addresses", "ended"}
