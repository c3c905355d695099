"""Tests of the web are named after what was sent, of which the first characters are enough."""

from __future__ import annotations

import pytest

_MOST = 40


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Return the name of a value that is too long to be one."""
    return f"{val[:_MOST]!r}..." if isinstance(val, str | bytes) and len(val) > _MOST else None
