"""[table] and [redis] of the herd's file: what is missing and what contradicts is told with file, key and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.config.address import Address
from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import parse

FILE = Path("herd.toml")
SERVER = 'Clark = { clients = "127.0.0.1:1", admin = "127.0.0.1:2" }'
LINKED = 'Clark = { clients = "127.0.0.1:1", peers = "127.0.0.1:3", admin = "127.0.0.1:2" }'
ENGINE = '[table]\nengine = "redis"'
NODES = '[redis]\nnodes = ["10.0.0.1:6379", "[::1]:7001", "node.example.com:7002"]'


def text(*tables: str, server: str = SERVER, top: str = "") -> str:
    return "\n".join((top, "[servers]", server, *tables))


def test_a_table_in_redis_needs_neither_peers_nor_edges() -> None:
    herd = parse(text(ENGINE, NODES), FILE)
    assert herd.redis is not None
    assert herd.redis_nodes == (
        Address("10.0.0.1", 6_379),
        Address("::1", 7_001),
        Address("node.example.com", 7_002),
    )
    assert herd.servers["Clark"].peers == ()


@pytest.mark.parametrize("table", ["", "[table]", '[table]\nengine = "herd"'])
def test_the_herds_own_table_is_what_a_file_has_that_says_nothing(table: str) -> None:
    herd = parse(text(table, server=LINKED), FILE)
    assert herd.redis is None
    assert herd.redis_nodes == ()


@pytest.mark.parametrize(
    ("document", "key", "remedy"),
    [
        (text('[table]\nengine = "mysql"'), "table.engine", "mysql"),
        (text('[table]\nengines = "redis"'), "table.engines", "the keys here are engine"),
        (text(NODES, server=LINKED), "redis", 'set engine = "redis" in [table], or drop [redis]'),
        (text(ENGINE), "redis.nodes", "is missing; add it"),
        (text(ENGINE, "[redis]"), "redis.nodes", "is missing; add it"),
        (text(ENGINE, "[redis]\nnodes = []"), "redis.nodes", "length >= 1"),
        (text(ENGINE, '[redis]\nnodes = ["10.0.0.1"]'), "redis.nodes", 'write "host:port" or "[IPv6]:port"'),
        (text(ENGINE, NODES, 'password = "x"'), "redis.password", "the keys here are nodes"),
        (text(ENGINE, NODES, "replicas = 0"), "redis.replicas", ">= 1"),
        (text(ENGINE, NODES, "timeout_seconds = 0"), "redis.timeout_seconds", ">= 0.05"),
        (text(ENGINE, NODES, "deadline_seconds = 0"), "redis.deadline_seconds", "> 0"),
        (
            text(ENGINE, NODES, "timeout_seconds = 6"),
            "redis.timeout_seconds",
            "more than deadline_seconds, 5; nobody would be let go in time: lower them",
        ),
        (text(ENGINE, NODES, "[timing]\ncompare_seconds = 5"), "timing.compare_seconds", "no links; drop it"),
        (text(ENGINE, NODES, server=LINKED), "servers.Clark.peers", "servers have no links; drop it"),
        (text(ENGINE, NODES, top='edges = [["Clark", "Bona"]]'), "edges", "no links and no journal; drop it"),
        (text(ENGINE, NODES, '[durability]\nfsync = "always"'), "durability", "no journal; drop it"),
        (
            text(ENGINE, NODES, "[limits]\nmax_clients = 5"),
            "limits.max_clients",
            "no table and no links; drop it",
        ),
        (text(ENGINE, NODES, '[limits]\non_full = "evict"'), "limits.on_full", "raise maxmemory in Redis"),
        (text(ENGINE, NODES, '[tls]\npeers_key = "k"'), "tls.peers_key", "no table and no links; drop it"),
        (text(ENGINE, NODES, 'tls_certificate = "c"'), "redis.tls_key", "go together"),
        (text(ENGINE, NODES, 'tls_key = "k"'), "redis.tls_certificate", "go together"),
        (
            text(ENGINE, NODES, 'tls_certificate = "c"\ntls_key = "k"'),
            "redis.tls_authority",
            "without it servers speak no TLS to Redis",
        ),
        (text(server=SERVER), "servers.Clark.peers", "is missing; add it"),
    ],
)
def test_what_does_not_fit_is_told_with_its_key_and_what_to_do(document: str, key: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(document, FILE)
    assert str(refusal.value).startswith(f"herd.toml: key {key}: ")
    assert remedy in str(refusal.value)
