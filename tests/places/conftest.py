"""What the tests of Places share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fake_google import FakeGoogle


@pytest.fixture
def google() -> Iterator[FakeGoogle]:
    """Stand in for Google, with twenty results for all who ask."""
    with FakeGoogle() as fake:
        yield fake
