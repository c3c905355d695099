"""`[auth]`: who may use a server must be written out where others than this machine reach it."""

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


def ann(*lines: str, web: str = "127.0.0.1:7", more: str = "") -> Herd:
    """Return the herd of one server whose file has these lines in [auth]."""
    text = "\n".join([ANN, f'web = "{web}"' if web else "", "[auth]", *lines, more])
    return parse(text, Path("herd.toml"))


def refused(*lines: str, web: str = "127.0.0.1:7", more: str = "") -> str:
    """Return why such a file is refused, without the file's name."""
    with pytest.raises(ConfigError) as refusal:
        ann(*lines, web=web, more=more)
    file, _, why = str(refusal.value).partition(": ")
    assert file == "herd.toml"
    return why


def test_a_web_port_is_loopback_s_unless_it_is_written_out_who_may_use_it() -> None:
    for address in ("127.0.0.1:7", "[::1]:7", "localhost:7"):
        assert str(ann(web=address).servers["Ann"].web[0]) == address
    assert ann(web="").servers["Ann"].web == ()
    assert refused(web="0.0.0.0:7") == (
        "key servers.Ann.web: 0.0.0.0:7 is not loopback, and everybody who reaches it could report any client, and see "
        'where it is; set web = "jwt" in [auth], so that they need a token, or web = "none", if that is meant'
    )
    for way_out in ('web = "none"', 'web = "jwt"'):
        assert ann(way_out, web="0.0.0.0:7").servers["Ann"].web != ()


def test_everybody_may_by_default() -> None:
    auth = ann().auth
    assert (auth.web, auth.keys, auth.lines) == (None, (), "open")


def test_a_server_that_nobody_could_use_is_refused() -> None:
    assert ann('lines = "off"').auth.lines == "off"
    assert ann('lines = "loopback"', web="").auth.lines == "loopback"
    assert refused('lines = "off"', web="").startswith("key servers.Ann.web: is missing; ")


@pytest.mark.parametrize("web", ["", 'web = "none"'])
def test_keys_that_nobody_uses_are_refused(web: str) -> None:
    assert ann('web = "jwt"', 'keys = ["key"]').auth.keys == ("key",)
    assert refused(web, 'keys = ["key"]').startswith("key auth.keys: nobody needs a token; ")


def test_the_earlier_place_of_the_key_is_told_where_it_is_now() -> None:
    assert refused(more='[web]\nauth = "none"') == "key web.auth: is web in [auth] now; move it there"
