"""The client protocol by example: every case of proxyherd/grading/cases.jsonl against a real server over TCP.

The player is that of `proxyherd grade`, so what a herd is graded by is what this one is tested by.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cases import BYTE_BY_BYTE, CASES, play
from gazetteer_file import gazetteer_file
from herd_process import ServerProcess, running_server
from redis_cluster import Cluster

from proxyherd.grading.cases import Case


@pytest.fixture(scope="module")
def clark(shared_cluster: Cluster | None) -> Iterator[ServerProcess]:
    with running_server(gazetteer=gazetteer_file(), cluster=shared_cluster) as server:
        yield server
        assert server.stop() == 0
        assert server.stderr() == ""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case, clark: ServerProcess) -> None:
    play(case, clark, case.chunk)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case_byte_by_byte(case: Case, clark: ServerProcess) -> None:
    play(case, clark, BYTE_BY_BYTE)


def test_there_are_cases() -> None:
    assert len({case.slug for case in CASES}) == len(CASES) == 75
