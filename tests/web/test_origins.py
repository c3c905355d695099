"""Which pages may ask, and whose address counts."""

from __future__ import annotations

import ipaddress
from functools import cache

import pytest

from proxyherd.web.origins import EXPOSED, Origins, Proxies
from proxyherd.web.problems import HOST, ORIGIN, Problem


@cache
def rules() -> Origins:
    return Origins(
        ["Phones.example", "10.1.2.3"],
        ["https://map.example", "http://maps.example:80", "HTTPS://Other.example:8443"],
    )


@pytest.mark.parametrize(
    "host",
    [
        "localhost:10300",
        "127.0.0.1:10300",
        "[::1]:10300",
        "localhost",
        "phones.example",
        "PHONES.example:443",
        "phones.example.",
        "localhost.:10300",
        "10.1.2.3:80",
    ],
)
def test_a_host_is_one_of_loopback_or_configured(host: str) -> None:
    assert rules().check_host([host]) == host


@pytest.mark.parametrize(
    "hosts",
    [
        *(
            [],
            [""],
            ["evil.example"],
            ["evil.example:10300"],
            ["localhost.evil.example"],
            ["localhost", "localhost"],
        ),
        *(
            ["phones.example.."],
            ["phones.example@evil.example"],
            ["127.0.0.1.evil.example:10300"],
            ["0.0.0.0:10300"],
        ),
        *(["localhost:x"], ["[::2]"], ["localhost, phones.example"]),
    ],
)
def test_a_page_that_leads_its_own_name_here_is_refused(hosts: list[str]) -> None:
    with pytest.raises(Problem) as raised:
        rules().check_host(hosts)
    assert raised.value.kind is HOST


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        *(("localhost:10300", "http://localhost:10300"), ("LOCALHOST:10300", "http://localhost:10300")),
        *(("phones.example", "http://phones.example"), ("phones.example:80", "http://phones.example")),
        *(("phones.example", "https://phones.example"), ("phones.example:443", "https://phones.example")),
        ("[::1]:10300", "http://[::1]:10300"),
    ],
)
def test_the_ports_own_pages_may_ask(host: str, origin: str) -> None:
    assert rules().check_origin(host, [origin], "same-origin") == ""
    assert rules().headers("").keys() == {"Vary"}


@pytest.mark.parametrize(
    "origin",
    ["https://map.example", "https://map.example:443", "http://maps.example", "https://other.example:8443"],
)
def test_pages_of_allowed_origins_may_ask_and_are_told_so(origin: str) -> None:
    assert rules().check_origin("localhost:10300", [origin], "cross-site") == origin
    headers = rules().headers(origin)
    assert headers["Access-Control-Allow-Origin"] == origin
    assert headers["Access-Control-Expose-Headers"] == EXPOSED
    assert headers["Vary"] == "Origin"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    assert rules().preflight(origin, ["PUT", "GET"]) == {
        "Access-Control-Allow-Methods": "PUT, GET",
        "Access-Control-Allow-Headers": "Content-Type, Content-Encoding, Authorization",
        "Access-Control-Max-Age": "600",
    }


STRANGERS = [
    *(
        "null",
        "",
        "https://evil.example",
        "http://localhost:10301",
        "http://localhost",
        "http://127.0.0.1:10300",
    ),
    *("https://map.example.evil.example", "http://map.example", "https://map.example:8443", "file://", "*"),
    *("https://map.example, https://evil.example", "map.example", "https://evil.example:443"),
]


@pytest.mark.parametrize("origin", STRANGERS)
@pytest.mark.parametrize("page", [True, False])
def test_a_strangers_page_is_refused(origin: str, page: bool) -> None:
    for origins in ([origin], [origin, "http://localhost:10300"], ["https://map.example", origin]):
        with pytest.raises(Problem) as raised:
            rules().check_origin("localhost:10300", origins, page=page)
        assert raised.value.kind is ORIGIN


@pytest.mark.parametrize("fetch_site", ["", "none", "same-origin"])
def test_who_has_no_origin_is_no_browser_or_the_ports_own_page(fetch_site: str) -> None:
    assert rules().check_origin("localhost:10300", [], fetch_site) == ""


@pytest.mark.parametrize(
    "referer",
    [
        *("http://localhost:10300/v1/", "http://localhost:10300", "https://localhost:10300/a?b#c"),
        *("https://map.example/", "https://map.example:443/a//b", "HTTP://MAPS.example/"),
    ],
)
def test_what_a_page_that_may_ask_leads_to_is_served(referer: str) -> None:
    assert rules().check_origin("localhost:10300", [], "", referer) == ""


@pytest.mark.parametrize(
    "referer",
    [
        *(
            "https://evil.example/",
            "http://localhost:10301/",
            "http://127.0.0.1:10300/",
            "http://map.example/",
        ),
        *("https://evil.example/https://map.example/", "https://map.example.evil.example/", "about:blank"),
        *(
            "https://evil.example/?http://localhost:10300/",
            "https://map.example@evil.example/",
            "localhost:10300",
        ),
    ],
)
def test_an_image_of_another_site_is_known_by_its_page_where_browsers_say_no_more(referer: str) -> None:
    """They send Sec-Fetch-Site only over TLS and to loopback."""
    with pytest.raises(Problem) as raised:
        rules().check_origin("localhost:10300", [], "", referer)
    assert raised.value.kind is ORIGIN
    assert rules().check_origin("localhost:10300", [], "", referer, page=True) == ""
    for fetch_site in ("none", "same-origin"):
        assert rules().check_origin("localhost:10300", [], fetch_site, referer) == "", "it knows better"
    for fetch_site in ("cross-site", "same-site"):
        with pytest.raises(Problem):
            rules().check_origin("localhost:10300", [], fetch_site, "http://localhost:10300/")


@pytest.mark.parametrize("fetch_site", ["cross-site", "same-site", "anything"])
def test_an_image_of_another_site_reports_nothing_but_a_link_leads_to_a_page(fetch_site: str) -> None:
    assert rules().check_origin("localhost:10300", [], fetch_site, page=True) == ""
    with pytest.raises(Problem):
        rules().check_origin("localhost:10300", [], fetch_site)


def test_a_port_with_tls_has_no_pages_without() -> None:
    strict = Origins(tls=True)
    assert strict.check_origin("localhost:10300", ["https://localhost:10300"]) == ""
    with pytest.raises(Problem):
        strict.check_origin("localhost:10300", ["http://localhost:10300"])


def test_where_no_other_origin_is_allowed_nothing_is_said_about_it() -> None:
    assert Origins().headers("") == Origins().preflight("", ["GET"]) == {}


@cache
def proxies() -> Proxies:
    return Proxies(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        *(
            ("203.0.113.9", [], "203.0.113.9"),
            ("203.0.113.9", ["1.2.3.4"], "203.0.113.9"),
            ("10.1.1.1", [], "10.1.1.1"),
        ),
        *(("10.1.1.1", ["1.2.3.4"], "1.2.3.4"), ("10.1.1.1", ["9.9.9.9, 1.2.3.4"], "1.2.3.4")),
        *(
            ("10.1.1.1", ["9.9.9.9", "1.2.3.4,192.0.2.7"], "1.2.3.4"),
            ("10.1.1.1", ["10.2.2.2, 10.3.3.3"], "10.2.2.2"),
        ),
        *(("10.1.1.1", ["1.2.3.4:5678"], "1.2.3.4"), ("10.1.1.1", ["[2001:DB9::1]:5678"], "2001:db9::1")),
        *(("10.1.1.1", ["2001:db9::0:1"], "2001:db9::1"), ("2001:db8::5", ["1.2.3.4"], "1.2.3.4")),
        *(("::ffff:10.1.1.1", ["1.2.3.4"], "1.2.3.4"), ("10.1.1.1", ["::ffff:1.2.3.4"], "1.2.3.4")),
        *(
            ("10.1.1.1", ["1.2.3.4, unknown"], "10.1.1.1"),
            ("10.1.1.1", [""], "10.1.1.1"),
            ("10.1.1.1", ["1.2.3.4,"], "10.1.1.1"),
        ),
        *(
            ("10.1.1.1", ["bad, 192.0.2.7"], "192.0.2.7"),
            ("10.1.1.1", ["1.2.3.4 " + "x" * 9_000], "10.1.1.1"),
        ),
        *(
            ("10.1.1.1", ["fe80::1%eth0"], "10.1.1.1"),
            ("10.1.1.1", ["[fe80::1%eth0]:80"], "10.1.1.1"),
            ("10.1.1.1", ["9.9.9.9, ::1%<script>, 10.2.2.2"], "10.2.2.2"),
            ("fe80::1%eth0", ["1.2.3.4"], "fe80::1%eth0"),
            ("2001:db8::5%eth0", ["1.2.3.4"], "1.2.3.4"),
            ("::ffff:203.0.113.9", ["1.2.3.4"], "::ffff:203.0.113.9"),
        ),
        ("a socket", ["1.2.3.4"], "a socket"),
    ],
)
def test_a_forwarded_address_counts_as_far_as_trusted_proxies_say_it(
    peer: str, forwarded: list[str], client: str
) -> None:
    assert proxies().client_address(peer, forwarded) == client


def test_of_very_many_forwarded_addresses_the_last_ones_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As many as fit into headers took a tenth of a second."""
    seen: list[str] = []
    address = ipaddress.ip_address

    def counting(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
        seen.append(text)
        return address(text)

    trusted = proxies()
    monkeypatch.setattr(ipaddress, "ip_address", counting)
    forwarded = [",".join(f"10.{at // 250}.{at % 250}.1" for at in range(1_000))] * 15
    assert trusted.client_address("10.1.1.1", forwarded) == "10.3.218.1"
    assert len(seen) == 33


@pytest.mark.parametrize("count", [30, 31, 32])
def test_a_client_behind_many_proxies_has_its_address(count: int) -> None:
    found = proxies().client_address("10.1.1.1", ["1.2.3.4", *["10.2.2.2"] * count])
    assert found == ("1.2.3.4" if count < 32 else "10.2.2.2")


def test_without_trusted_proxies_nobody_speaks_for_another() -> None:
    assert Proxies().client_address("127.0.0.1", ["1.2.3.4"]) == "127.0.0.1"
