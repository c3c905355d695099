"""Addresses: what is one, how each is spelled, and which ones only this machine can reach."""

from __future__ import annotations

import pytest

from proxyherd.config.address import Address, parse_address

LABEL = "a" * 63


@pytest.mark.parametrize(
    ("host", "spelled", "is_loopback"),
    [
        ("127.0.0.1", "127.0.0.1:7", True),
        ("127.9.9.9", "127.9.9.9:7", True),
        ("localhost", "localhost:7", True),
        ("::1", "[::1]:7", True),
        ("10.0.0.1", "10.0.0.1:7", False),
        ("2001:db8::1", "[2001:db8::1]:7", False),
        ("0.0.0.0", "0.0.0.0:7", False),
        ("localhost.example", "localhost.example:7", False),
    ],
)
def test_an_address_is_spelled_as_in_the_file_and_knows_whether_it_leaves_the_machine(
    host: str, spelled: str, *, is_loopback: bool
) -> None:
    address = Address(host, 7)
    assert str(address) == spelled
    assert parse_address(spelled) == address
    assert address.is_loopback == is_loopback


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("h:1", Address("h", 1)),
        ("h:65535", Address("h", 65_535)),
        (f"{LABEL}.{LABEL}:1", Address(f"{LABEL}.{LABEL}", 1)),
        ("10.0.0.1:007", Address("10.0.0.1", 7)),
        ("[::1]:1", Address("::1", 1)),
        ("[2001:DB8:0:0::1]:5", Address("2001:db8::1", 5)),
    ],
)
def test_what_is_an_address_has_one_spelling(text: str, address: Address) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "h",
            "h:",
            ":1",
            "h:0",
            "h:65536",
            "h:123456",
            "h:-1",
            "h:1 ",
            " h:1",
            "h:1\n",
            "h_:1",
            "::1:1",
        ),
        *(f"{LABEL}a:1", f"x.{LABEL}a.y:1", ".h:1", "h.:1", "a..b:1", "[h]:1", "[]:1", "[::1]", "h:1:2"),
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError) as refusal:
        parse_address(text)
    assert str(refusal.value) == f'{text!r} is no address; write "host:port" or "[IPv6]:port"'


def test_what_is_no_ipv6_address_is_told() -> None:
    with pytest.raises(ValueError, match=r"^'\[1:2\]:5': ."):
        parse_address("[1:2]:5")
