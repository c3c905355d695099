"""What `[rates]` of the herd's file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.config.errors import ConfigError
from proxyherd.config.rates import RateSettings, check_rates


@pytest.mark.parametrize(
    ("network", "error"),
    [
        ("10.0.0.1/8", 'write "10.0.0.0/8"'),
        ("gateway.example", "no address and no network"),
        ("fe80::1%eth0", "scope"),
    ],
)
def test_an_exempt_network_that_would_match_nobody_is_refused(network: str, error: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check_rates(RateSettings(exempt=("10.0.0.0/8", network)), Path("herd.toml"))
    assert str(refused.value).startswith("herd.toml: key rates.exempt: ")
    assert error in str(refused.value)


def test_the_default_takes_loopback_out_and_no_entry_counts_it_too() -> None:
    check_rates(RateSettings(), Path("herd.toml"))
    check_rates(RateSettings(exempt=()), Path("herd.toml"))
