"""Which addresses of a herd cannot all be listened at, and which can."""

from __future__ import annotations

import pytest

from proxyherd.config.address import Address, parse_address
from proxyherd.config.ports import Port, find_conflict, local_address, overlap


def ann(**listeners: str) -> list[Port]:
    return [Port(parse_address(text), "Ann", key) for key, text in listeners.items()]


def test_two_listeners_of_any_servers_have_no_address_in_common() -> None:
    bob = Port(parse_address("127.0.0.1:10300"), "Bob", "web")
    assert find_conflict([*ann(clients="127.0.0.1:10300"), bob], None) == (
        "keys servers.Ann.clients and servers.Bob.web: both have 127.0.0.1:10300; give each its own port"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.0.0.0:1", "127.0.0.1:1"),
        ("0.0.0.0:1", "192.0.2.1:1"),
        ("[::]:1", "[2001:db8::1]:1"),
        ("0.0.0.0:1", "localhost:1"),
        ("[::]:1", "localhost:1"),
        ("127.0.0.1:1", "localhost:1"),
        ("[::1]:1", "localhost:1"),
    ],
)
def test_addresses_overlap_where_one_stands_for_the_other_too(one: str, other: str) -> None:
    assert overlap(parse_address(one), parse_address(other))
    assert overlap(parse_address(other), parse_address(one))
    assert find_conflict(ann(admin=one, web=other), None) == (
        f"keys servers.Ann.{'admin' if one < other else 'web'} and servers.Ann.{'web' if one < other else 'admin'}: "
        f"{min(one, other)} and {max(one, other)} overlap; give each its own port"
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.0.0.0:1", "127.0.0.1:2"),
        ("0.0.0.0:1", "[::]:1"),
        ("0.0.0.0:1", "[::1]:1"),
        ("[::]:1", "127.0.0.1:1"),
        ("127.0.0.1:1", "127.0.0.2:1"),
        ("127.0.0.2:1", "localhost:1"),
        ("0.0.0.0:1", "ann.example:1"),
        ("localhost:1", "ann.example:1"),
    ],
)
def test_others_do_not(one: str, other: str) -> None:
    assert not overlap(parse_address(one), parse_address(other))
    assert find_conflict(ann(admin=one, web=other), None) == ""


def test_servers_may_be_on_machines_of_their_own() -> None:
    bob = Port(parse_address("192.0.2.2:1"), "Bob", "clients")
    assert find_conflict([*ann(clients="0.0.0.0:1"), bob], None) == ""


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:10300", "http://localhost:10300/x", "https://127.0.0.1:10300"]
)
@pytest.mark.parametrize("web", ["127.0.0.1:10300", "localhost:10300", "0.0.0.0:10300"])
def test_what_stands_in_for_google_needs_a_port_of_its_own(url: str, web: str) -> None:
    """The port of its first versions was 10300."""
    assert find_conflict(ann(web=web), url) == (
        "keys places.base_url and servers.Ann.web: both have port 10300 of this machine; give what stands in for Google "
        "another one (`proxyherd places-sim --address`)"
    )


@pytest.mark.parametrize(
    "url", [None, "http://127.0.0.1:10500", "http://google.example:10300", "http://[::1]:10300"]
)
def test_what_stands_elsewhere_is_no_conflict(url: str | None) -> None:
    assert find_conflict(ann(web="127.0.0.1:10300"), url) == ""


def test_a_url_without_a_port_has_that_of_its_scheme() -> None:
    assert local_address("http://localhost") == Address("localhost", 80)
    assert local_address("https://[::1]/x") == Address("::1", 443)
    assert local_address("https://maps.example") is None
