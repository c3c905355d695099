"""Target `config`: the text of a herd's file.

The laws: nothing but ConfigError is raised, and it begins with the file; what is accepted is in bounds, its
edges go both ways between servers that there are, and no two listeners have one address.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd, parse

FILE = Path("herd.toml")
MAY_BE_0 = {
    *("ready_seconds", "max_age_seconds", "max_clock_lead_seconds", "max_clock_skew_seconds"),
    *("calls_per_minute", "calls_per_day", "dollars_per_call"),
    *("cache_seconds", "google_cache_seconds", "cache_bytes"),
}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}", re.ASCII)
_A = b'[servers.A]\nclients = "127.0.0.1:1"\npeers = ["[::1]:2", "h.example:3"]\nadmin = "localhost:65535"\n'
_B = b'[servers]\nB = { clients = "h:1", peers = "h:2", admin = "h:3" }\n'

SEEDS = (
    _A,
    b"edges = [['A', 'A']]\n" + _A,
    b"edges = [['A', 'B'], ['B', 'A']]\n" + _A + b'[servers.B]\nclients="h:1"\npeers="h:2"\nadmin="h:3"\n',
    b"edges = [['A', 'B']]\n" + _A + b'[servers.B]\nclients="h:1"\npeers="h:2"\nadmin="h:3"\n',
    _B
    + b"[limits]\nmax_line_bytes = 1024\nidle_seconds = 1e3\nmax_clients = 1_000_000\npeer_queue_bytes=0x10000\n",
    _B
    + b"[timing]\nheartbeat_seconds = 0.5\nready_seconds = 0\nbackoff_seconds = inf\ncompare_seconds=nan\n",
    _B + b"[durability]\nfsync = 'always'\non_failure = 'accept'\n[log]\nlevel='debug'\nmax_field_bytes=64\n",
    _B + b"[places]\nprovider='google'\nbase_url='http://127.0.0.1:9/'\nkey_file='k'\ndeadline_seconds=1\n",
    _B + b"[tls]\nclients_certificate='c'\nclients_key='k'\n[admin]\nhosts=['a', \"b\\u00e9\"]\n",
    _B + b"[limits]\nx = [[{a = 1979-05-27T07:32:00-08:00}]]\n'''\n\"\"\"\n[[servers]]\n",
    _B + b'[limits]\nmax_clients = 0o17\na.b.c = 1\n"quo\\nted" = 07:32:00.999999\n',
)


def one_input(data: bytes) -> None:
    text = data.decode("utf-8", "ignore")
    herd, refusal = None, ""
    try:
        herd = parse(text, FILE)
    except ConfigError as error:
        refusal = str(error)
    if herd is None:
        assert refusal.startswith("herd.toml: "), refusal
        assert len(refusal) > len("herd.toml: ") + 5, refusal
    else:
        _check(herd)


def _check(herd: Herd) -> None:
    assert herd.servers
    addresses: list[str] = []
    for name, server in herd.servers.items():
        assert name == server.name
        assert _NAME.fullmatch(name)
        for listeners in (server.clients, server.peers, server.admin):
            assert listeners
            assert all(0 < one.port < 65_536 and one.host for one in listeners)
            assert all(isinstance(one.is_loopback, bool) for one in listeners)
            addresses += map(str, listeners)
        for neighbour in server.neighbours:
            assert neighbour != name
            assert name in herd.servers[neighbour].neighbours
            assert ((name, neighbour) in herd.edges) != ((neighbour, name) in herd.edges)
        assert len(set(server.neighbours)) == len(server.neighbours)
    assert len(set(addresses)) == len(addresses)
    assert sum(map(len, herd.islands())) == len(herd.servers)
    for table in (herd.limits, herd.timing, herd.durability, herd.places, herd.tls, herd.admin, herd.log):
        for key in table.__struct_fields__:
            value = getattr(table, key)
            if isinstance(value, int | float):
                assert math.isfinite(value)
                assert 0 <= value <= 1 << 40
                assert value > 0 or key in MAY_BE_0
            else:
                assert value is None or isinstance(value, str | tuple)
    assert herd.durability.fsync in {"always", "everysecond", "off"}
