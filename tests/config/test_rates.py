"""What `[rates]` of the herd's file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.config.errors import ConfigError
from proxyherd.config.rates import RateSettings, check_rates, rates_of_fewer


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


@pytest.mark.parametrize(
    ("per_address", "now", "lowered"), [(2_000, 700, 70), (2_000, 20_000, 2_000), (0, 700, 0), (3, 10, 1)]
)
def test_where_there_is_room_for_fewer_connections_an_address_has_the_same_part_of_them(
    per_address: int, now: int, lowered: int
) -> None:
    rates = RateSettings(connections_per_address=per_address)
    assert rates_of_fewer(rates, now, 20_000).connections_per_address == lowered
