"""The engines that tests of clients run on: `herd`, where servers keep the table themselves, and `redis`.

A test that asks for the fixture `cluster` (conftest.py) runs on both; `on` chooses, for a test of several cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from debian import needs

HERD = "herd"
REDIS = "redis"

_MARKS = [needs("redis-server"), pytest.mark.xdist_group("redis-clients")]
"""In one group they share a cluster, which takes two seconds to start."""

ENGINES = [HERD, pytest.param(REDIS, marks=_MARKS)]


ON_REDIS = pytest.mark.parametrize("shared_cluster", ENGINES[1:], indirect=True)
"""For a test of `cluster` that makes no sense on the herd's own engine."""


def on(name: str, herd: Iterable[Any], redis: Iterable[Any]) -> pytest.MarkDecorator:
    """Return a mark that runs a test with these values of an argument on the one engine, and those on the other."""
    return pytest.mark.parametrize(
        (name, "shared_cluster"),
        [
            *(pytest.param(value, HERD, id=f"{HERD}-{value}") for value in herd),
            *(pytest.param(value, REDIS, marks=_MARKS, id=f"{REDIS}-{value}") for value in redis),
        ],
        indirect=["shared_cluster"],
    )
