"""Connections to a stranger's server."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from proxyherd.grading import connections
from proxyherd.grading.connections import Connection
from proxyherd.grading.faults import Fault


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
