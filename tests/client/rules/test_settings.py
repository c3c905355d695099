"""A setting that cannot be meant is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest

from proxyherd.client.rules.settings import count_setting, seconds_setting


@pytest.mark.parametrize("seconds", [0.001, 1, 1_000_000_000])
def test_seconds_are_those_that_a_timer_can_wait(seconds: float) -> None:
    assert seconds_setting("timeout", seconds) == seconds


@pytest.mark.parametrize("seconds", [0, -1, -0.0, float("inf"), float("nan"), 1e10])
def test_seconds_that_cannot_be_waited_are_a_wrong_value(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"^patience is {seconds!r}: "):
        seconds_setting("patience", seconds)


@pytest.mark.parametrize("value", ["5", None, True, b"1"])
def test_what_is_no_number_is_a_wrong_type(value: Any) -> None:
    with pytest.raises(TypeError, match=f"^patience is {value!r}: "):
        seconds_setting("patience", value)
    with pytest.raises(TypeError, match=f"^outstanding is {value!r}: "):
        count_setting("outstanding", value)


def test_a_count_begins_at_one() -> None:
    assert count_setting("outstanding", 1) == 1
    with pytest.raises(ValueError, match=r"^outstanding is 0: "):
        count_setting("outstanding", 0)
    with pytest.raises(TypeError, match=r"^outstanding is 1\.5: "):
        count_setting("outstanding", 1.5)  # type: ignore[arg-type]
