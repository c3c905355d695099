"""`[places]`: a budget that is too small, and addresses that would give the key away, are refused, with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd, parse

TWO = """
edges = [["Ann", "Bob"]]
[servers.Ann]
clients = "127.0.0.1:1"
peers = "127.0.0.1:2"
admin = "127.0.0.1:3"
[servers.Bob]
clients = "127.0.0.1:4"
peers = "127.0.0.1:5"
admin = "127.0.0.1:6"
"""


def two(places: str) -> Herd:
    """Return the herd of two servers whose file has this in [places]."""
    return parse(f"{TWO}[places]\n{places}", Path("herd.toml"))


def refused(places: str) -> str:
    """Return why such a file is refused, without the file's name."""
    with pytest.raises(ConfigError) as refusal:
        two(places)
    file, _, why = str(refusal.value).partition(": ")
    assert file == "herd.toml"
    return why


@pytest.mark.parametrize(
    "url",
    [
        *("http://h", "https://h/", "http://h:1/a/b", "http://[::1]:1", "http://10.0.0.1:65535"),
        *("http://places_sim:10500", "https://places.example./"),
    ],
)
def test_what_may_stand_before_a_path(url: str) -> None:
    assert two(f'base_url = "{url}"').places.base_url == url


@pytest.mark.parametrize(
    "url",
    [
        *(
            "h",
            "ftp://h",
            "http://",
            "http://h:0",
            "http://h:65536",
            "http://[::1",
            "http://h?x",
            "http://h#x",
        ),
        *("http://u@h", "http://h/a b", "http://h/\xe9", "http://:1", "http://h:x", "http://h:"),
        *("http://h:1/?", "http://h:1#", "http://a..b", "http://a^b", "http://<h>", "http://[v1.x]:80"),
    ],
)
def test_what_may_not(url: str) -> None:
    assert refused(f'base_url = "{url}"') == (
        f'key places.base_url: {url!r} is not what stands before a path; write it like "http://127.0.0.1:10500"'
    )


@pytest.mark.parametrize("base", ["", 'base_url = "https://h"\n'])
@pytest.mark.parametrize("url", ["http://proxy.example:3128", "http://h", "http://h/"])
def test_a_proxy_is_taken_where_it_cannot_see_the_key(base: str, url: str) -> None:
    assert two(f'{base}proxy = "{url}"').places.proxy == url


@pytest.mark.parametrize(
    "url",
    [
        "https://h:1",
        "http://h/a",
        "http://u@h",
        "h:1",
        "http://h:0",
        "http://h?x",
        "http://h:1?",
        "http://a^b",
    ],
)
def test_what_is_no_proxy(url: str) -> None:
    assert refused(f'proxy = "{url}"') == (
        f'key places.proxy: {url!r} is no HTTP proxy; write it like "http://proxy.example:3128"'
    )


def test_a_proxy_that_would_see_the_key_is_refused() -> None:
    assert refused('base_url = "http://h"\nproxy = "http://p:1"') == (
        "key places.proxy: places.base_url is no https:, and so the proxy would see the key; drop one of the two"
    )


@pytest.mark.parametrize("key", ["calls_per_minute", "calls_per_day"])
def test_a_budget_has_a_call_for_each_server_or_none(key: str) -> None:
    for calls in (0, 2):
        assert getattr(two(f"{key} = {calls}").places, key) == calls
    assert refused(f"{key} = 1") == (
        f"key places.{key}: 1 is less than one for each of 2 servers; give at least 2, or 0 for none"
    )
