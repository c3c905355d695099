"""How servers are spelled, and what a herd's file says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxyherd.client.endpoints import Endpoint, endpoints_of_file, parse_endpoint, parse_endpoints
from proxyherd.config.address import Address

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:10000", Endpoint((Address("127.0.0.1", 10_000),))),
        ("herd.example:1", Endpoint((Address("herd.example", 1),))),
        ("[2001:DB8::1]:65535", Endpoint((Address("2001:db8::1", 65_535),))),
        ("ws://127.0.0.1:10300", Endpoint(url="ws://127.0.0.1:10300/v1/ws")),
        ("ws://127.0.0.1:10300/", Endpoint(url="ws://127.0.0.1:10300/v1/ws")),
        ("wss://herd.example/clark/v1/ws", Endpoint(url="wss://herd.example/clark/v1/ws")),
    ],
)
def test_a_server_is_an_address_or_the_url_of_a_websocket(text: str, endpoint: Endpoint) -> None:
    assert parse_endpoint(text) == endpoint == parse_endpoint(endpoint)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "herd.example",
        "::1:10000",
        "http://127.0.0.1:10300",
        "ws://",
        "ws://x/v1/ws?token=1",
        "ws://x:70000",
        "ws://[::1",
        "x:70000",
    ],
)
def test_what_is_no_server_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"write .*host:port"):
        parse_endpoint(text)


def test_a_client_needs_a_server() -> None:
    with pytest.raises(ValueError, match="at least one server"):
        parse_endpoints(())


def test_the_servers_of_a_herds_file_are_its_client_ports_or_web_ports() -> None:
    file = ROOT / "deploy/herd.toml"
    lines, sockets = (endpoints_of_file(file, websocket=web, has_tls=False) for web in (False, True))
    assert [str(one.addresses[0]) for one in lines] == [f"127.0.0.1:{port}" for port in range(10_000, 10_005)]
    assert [one.url for one in sockets] == [f"ws://127.0.0.1:{port}/v1/ws" for port in range(10_300, 10_305)]


@pytest.mark.parametrize(
    ("more", "websocket", "why"),
    [
        ("", True, "no server has a web port; add web ="),
        ('[tls]\nclients_certificate = "c"\nclients_key = "k"\n', False, "client ports speak TLS; give tls="),
        ("nonsense = 1\n", False, "nonsense"),
    ],
)
def test_a_file_that_does_not_do_says_why(tmp_path: Path, more: str, *, websocket: bool, why: str) -> None:
    file = tmp_path / "herd.toml"
    file.write_text(
        f'{more}[servers]\nAnn = {{ clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }}\n'
    )
    with pytest.raises(ValueError, match=re.escape(str(file)) + ".*" + re.escape(why)):
        endpoints_of_file(file, websocket=websocket, has_tls=False)
