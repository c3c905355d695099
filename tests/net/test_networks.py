"""Which addresses are counted as one, and which are not counted."""

from __future__ import annotations

import pytest

from proxyherd.config.rates import RateSettings
from proxyherd.net.networks import Counted, Networks, is_loopback, parse_ip


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("0a00:0001::", "10.0.0.1", False),
    ],
)
def test_an_ipv4_address_counts_alone_and_one_of_ipv6_with_its_64(one: str, other: str, same: bool) -> None:
    key = Counted([]).key
    assert key(one) is not None
    assert (key(one) == key(other)) is same


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.255.0.9", "::1", "::ffff:127.0.0.1", "", "unknown", "a.example"]
)
def test_by_default_loopback_is_not_counted_nor_is_what_has_no_address(host: str) -> None:
    assert Counted(RateSettings().exempt).key(host) is None


def test_loopback_is_counted_where_nobody_is_exempt_and_a_gateway_is_not_where_it_is_named() -> None:
    assert Counted([]).key("127.0.0.1") == b"\x7f\0\0\1"
    key = Counted(["10.1.0.0/16", "2001:db8::/32"]).key
    assert key("10.1.2.3") is None
    assert key("2001:db8:9::1") is None
    assert key("10.2.0.1") is not None


def test_what_a_header_names_is_counted_even_if_it_is_exempt() -> None:
    key = Counted(RateSettings().exempt).key
    assert key("127.0.0.1", True) == b"\x7f\0\0\1"
    assert key("127.0.0.1") is None


def test_networks_of_one_version_have_no_address_of_the_other() -> None:
    networks, address = Networks(["0.0.0.0/0"]), parse_ip("::1")
    assert address is not None
    assert address not in networks
    assert not Networks()


@pytest.mark.parametrize(
    ("host", "is_it"),
    [
        *((host, True) for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "::1%lo")),
        *(
            (host, False)
            for host in ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "128.0.0.1", "", "localhost")
        ),
    ],
)
def test_only_addresses_of_this_machine_alone_are_loopback(host: str, is_it: bool) -> None:
    assert is_loopback(host) is is_it
