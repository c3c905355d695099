"""`[web]`: what could never match what browsers and proxies send is refused, with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd, parse

ANN = """
[servers.Ann]
clients = "127.0.0.1:1"
peers = "127.0.0.1:2"
admin = "127.0.0.1:3"
"""


def ann(*lines: str, web: str = "127.0.0.1:7") -> Herd:
    """Return the herd of one server whose file has these lines in [web]."""
    return parse("\n".join([ANN, f'web = "{web}"' if web else "", "[web]", *lines]), Path("herd.toml"))


def refused(*lines: str, web: str = "127.0.0.1:7") -> str:
    """Return why such a file is refused, without the file's name."""
    with pytest.raises(ConfigError) as refusal:
        ann(*lines, web=web)
    file, _, why = str(refusal.value).partition(": ")
    assert file == "herd.toml"
    return why


@pytest.mark.parametrize(
    "host",
    ["phones.example", "Phones.Example", "raspberry", "my_host", "10.1.2.3", "[2001:db8::1]", "xn--e1a"],
)
def test_a_host_is_a_name_or_an_address(host: str) -> None:
    assert ann(f'hosts = ["a.example", "{host}"]').web.hosts == ("a.example", host)


@pytest.mark.parametrize(
    ("host", "remedy"),
    [
        *(
            (host, 'write it without scheme, port and path, like "phones.example" or "10.1.2.3"')
            for host in (
                *("", "*", "*.example", "https://phones.example", "phones.example:10300", "10.1.2.3:80"),
                *("phones.example/", "phones.example.", "a b", "me@phones.example", "[::1]:80", "a;b"),
            )
        ),
        ("2001:db8::1", 'write "[2001:db8::1]"'),
        ("[2001:DB8:0::1]", "write [2001:db8::1]"),
        ("[phones.example]", "correct it"),
        ("[fe80::1%eth0]", "correct it"),
        ("m\u00fcller.example", 'write the name as browsers send it, with "xn--"'),
    ],
)
def test_a_host_that_no_request_has_is_refused(host: str, remedy: str) -> None:
    why = refused(f'hosts = ["a.example", "{host}"]')
    assert why.startswith(f"key web.hosts: {host!r} ")
    assert why.endswith(f"; {remedy}")


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "https://map.example",
            "http://map.example:80",
            "HTTPS://Map.Example:8443",
            "http://10.1.2.3:65535",
        ),
        *("https://[2001:db8::1]", "http://[2001:db8::1]:8080", "http://localhost:3000"),
        *("capacitor://localhost", "chrome-extension://aapocclcgogkmnckokdopfmhonfmgoek"),
    ],
)
def test_an_allowed_origin_is_one_of_pages_or_of_apps_with_pages(origin: str) -> None:
    assert ann(f'allowed_origins = ["{origin}"]').web.allowed_origins == (origin,)


@pytest.mark.parametrize(
    ("origin", "remedy"),
    [
        *((origin, "name the origins that you trust") for origin in ("*", "null")),
        *(
            (origin, 'nothing behind them, like "https://map.example"')
            for origin in (
                *("", "map.example", "map.example:443", "//map.example", "https:map.example", "https://"),
                *("https://map.example/", "https://map.example/page", "https://map.example?a", "NULL"),
                *("https://*.example", "https://*", "https://me@map.example", "https://map.example:"),
                *("https://map.example:x", "https://map.example, https://b.example", " https://map.example"),
                *("file://", "file://host", "https://map.example.", "https://2001:db8::1"),
            )
        ),
        ("https://map.example:0", "correct it"),
        ("https://map.example:65536", "correct it"),
        ("https://[2001:db8:0::1]", "write [2001:db8::1]"),
        ("https://[map.example]", "correct it"),
        ("https://m\u00fcller.example", 'write the name as browsers send it, with "xn--"'),
    ],
)
def test_an_origin_that_no_browser_sends_or_every_page_has_is_refused(origin: str, remedy: str) -> None:
    why = refused(f'allowed_origins = ["https://map.example", "{origin}"]')
    assert why.startswith(f"key web.allowed_origins: {origin!r} ")
    assert why.endswith(remedy)


def test_a_trusted_proxy_is_an_address_or_a_network() -> None:
    for network in ("10.0.0.0/8", "10.0.0.1", "2001:db8::/32", "::1"):
        assert ann(f'trusted_proxies = ["{network}"]').web.trusted_proxies == (network,)


@pytest.mark.parametrize(
    ("network", "remedy"),
    [
        *(
            (network, 'write it like "10.0.0.0/8"')
            for network in ("", "*", "proxy.example", "10.0.0.0/33", "10.0.0.0:80", "[::1]")
        ),
        ("10.0.0.1/8", 'write "10.0.0.0/8"'),
        ("fe80::1%eth0", "drop it"),
    ],
)
def test_a_proxy_that_no_connection_comes_from_is_refused(network: str, remedy: str) -> None:
    why = refused(f'trusted_proxies = ["{network}"]')
    assert why.startswith(f"key web.trusted_proxies: {network!r} ")
    assert why.endswith(f"; {remedy}")


@pytest.mark.parametrize("host", ["ops.example", "10.1.2.3", "[2001:db8::1]", "ops.example:10200", "[::1]:1"])
def test_a_host_of_the_admin_port_may_have_a_port(host: str) -> None:
    assert parse(f'{ANN}[admin]\nhosts = ["{host}"]', Path("herd.toml")).admin.hosts == (host,)


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "http://ops.example",
        "ops.example/",
        "10.0.0.0/8",
        "::1",
        "ops.example.",
        "ops.example:99999",
        ":1",
    ],
)
def test_a_host_of_the_admin_port_that_no_request_has_is_refused(host: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(f'{ANN}[admin]\nhosts = ["a.example", "{host}"]', Path("herd.toml"))
    assert str(refusal.value).startswith(f"herd.toml: key admin.hosts: {host!r} ")
