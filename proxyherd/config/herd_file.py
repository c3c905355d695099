"""The herd's file, read into checked, frozen structs.

One file describes the whole herd, and every server reads the same file. Unknown keys, values out of bounds, and
contradictions are errors that name file, key and remedy. A herd that starts with a misread file is worse than one that
does not start.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from proxyherd.base.files import is_there
from proxyherd.base.words import suggest
from proxyherd.config.address import Address, parse_address
from proxyherd.config.auth import AuthSettings, check_auth
from proxyherd.config.erasure import check_erasure
from proxyherd.config.errors import ConfigError
from proxyherd.config.places import check_places
from proxyherd.config.ports import Port, find_conflict
from proxyherd.config.rates import RateSettings, check_rates
from proxyherd.config.schema import (
    AdminSettings,
    DurabilitySettings,
    ErasureSettings,
    Limits,
    LogSettings,
    PlacesSettings,
    RedisSettings,
    TableSettings,
    Timing,
    TlsSettings,
    WebSettings,
)
from proxyherd.config.web import check_admin, check_web

T = TypeVar("T", bound=Struct)

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")
"""A server's name. It is used in AT lines, file names, unit names and metrics, so it has only plain characters."""

DEFAULT_FILE = Path("deploy/herd.toml")
"""The default path of the herd's file, relative to the working directory: a checkout has it."""

FOLDERS_FILE = Path("herd.toml")
"""Its path in a folder that `proxyherd init` has made. It is used if the first is not there."""

PEER_LINE_SLACK = 256
"""Bytes by which an AT line may be longer than the client's line it was made from."""

_LISTENERS = ("clients", "peers", "admin", "web")
"""The keys of a server's addresses, in the order of tables on the terminal."""

_OWN_TABLE = ("max_clients", "max_table_bytes", "max_tombstones", "peer_queue_bytes", "max_peer_connections")
_OWN_LINKS = ("peers_authority", "peers_certificate", "peers_key", "peers_crl")
_OWN_CLOCKS = (
    "heartbeat_seconds",
    "handshake_seconds",
    "backoff_seconds",
    "compare_seconds",
    "catch_up_seconds",
)
"""Keys that only matter to a server with its own table and links."""


class Server(Struct, frozen=True):
    """One server of the herd."""

    name: str
    addresses: Mapping[str, tuple[Address, ...]]
    """Where it listens, by the keys of the file. A key that the file leaves out has no addresses."""
    neighbours: tuple[str, ...]

    @property
    def clients(self) -> tuple[Address, ...]:
        """Where clients reach it."""
        return self.addresses["clients"]

    @property
    def peers(self) -> tuple[Address, ...]:
        """Where its neighbours reach it."""
        return self.addresses["peers"]

    @property
    def admin(self) -> tuple[Address, ...]:
        """Where operators reach it."""
        return self.addresses["admin"]

    @property
    def web(self) -> tuple[Address, ...]:
        """Where web pages and apps reach it; empty if they do not."""
        return self.addresses["web"]


class Herd(Struct, frozen=True):
    """A whole, checked herd as described by its file."""

    file: Path
    servers: dict[str, Server]
    edges: tuple[tuple[str, str], ...]
    limits: Limits
    rates: RateSettings
    timing: Timing
    durability: DurabilitySettings
    erasure: ErasureSettings
    places: PlacesSettings
    tls: TlsSettings
    admin: AdminSettings
    auth: AuthSettings
    web: WebSettings
    log: LogSettings
    redis: RedisSettings | None = None
    """The cluster that has the table; None if every server has it."""
    redis_nodes: tuple[Address, ...] = ()

    @property
    def graph(self) -> dict[str, tuple[str, ...]]:
        """The neighbours of each server."""
        return {name: server.neighbours for name, server in self.servers.items()}

    def server(self, name: str) -> Server:
        """Return the server with this name. Raises ConfigError, which lists the existing names."""
        try:
            return self.servers[name]
        except KeyError:
            raise ConfigError(
                f"{self.file}: there is no server {name!r}{suggest(name, self.servers)}; it has {', '.join(self.servers)}"
            ) from None

    def islands(self) -> list[list[str]]:
        """Return the groups of connected servers, the largest first; there is one if all are connected."""
        rest, groups = set(self.servers), []
        while rest:
            group, frontier = set[str](), {min(rest)}
            while frontier:
                group |= frontier
                frontier = {n for name in frontier for n in self.servers[name].neighbours} - group
            groups.append(sorted(group))
            rest -= group
        return sorted(groups, key=len, reverse=True)


class _ServerTable(Struct, forbid_unknown_fields=True):
    clients: str | list[str]
    admin: str | list[str]
    peers: str | list[str] | None = None
    web: str | list[str] | None = None


class _File(Struct, forbid_unknown_fields=True):
    servers: dict[str, Any]
    edges: list[tuple[str, str]] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, Any] = field(default_factory=dict)
    timing: dict[str, Any] = field(default_factory=dict)
    durability: dict[str, Any] = field(default_factory=dict)
    erasure: dict[str, Any] = field(default_factory=dict)
    table: dict[str, Any] = field(default_factory=dict)
    redis: dict[str, Any] | None = None
    places: dict[str, Any] = field(default_factory=dict)
    tls: dict[str, Any] = field(default_factory=dict)
    admin: dict[str, Any] = field(default_factory=dict)
    auth: dict[str, Any] = field(default_factory=dict)
    web: dict[str, Any] = field(default_factory=dict)
    log: dict[str, Any] = field(default_factory=dict)


def load(file: Path) -> Herd:
    """Read and check the herd's file. Raises ConfigError."""
    try:
        if is_there(file) and not file.is_file() and not file.is_dir():
            raise ConfigError(f"{file}: is a pipe, a socket or a device; name a regular file with --config")
        text = file.read_bytes().decode("utf-8-sig")  # some editors begin a file with a byte order mark
    except OSError as error:
        raise ConfigError(
            f"{file}: {error.strerror}; name the herd's file with --config or PROXYHERD_CONFIG"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    return parse(text, file)


def parse(text: str, file: Path) -> Herd:
    """Check the text of a herd's file; `file` is its name in errors. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{file}: a number has thousands of digits; no key takes so many") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: nested too deeply; no key of a herd's file is") from error
    raw = _convert(document, _File, "", file)
    if not raw.servers:
        raise ConfigError(f"{file}: key servers: is empty; a herd has at least one server")
    redis, nodes = _redis(raw, file)
    neighbours = _neighbours(raw, file)
    servers = {
        name: _server(name, table, neighbours[name], file, linked=redis is None)
        for name, table in raw.servers.items()
    }
    places = _convert(raw.places, PlacesSettings, "places", file)
    check_places(places, len(servers), file)
    if conflict := find_conflict(_ports(servers), places.base_url):
        raise ConfigError(f"{file}: {conflict}")
    auth = _convert(raw.auth, AuthSettings, "auth", file)
    check_auth(auth, {name: server.addresses for name, server in servers.items()}, raw.web, file)
    web = _convert(raw.web, WebSettings, "web", file)
    check_web(web, file)
    admin = _convert(raw.admin, AdminSettings, "admin", file)
    check_admin(admin, file)
    rates = _convert(raw.rates, RateSettings, "rates", file)
    check_rates(rates, file)
    erasure = _convert(raw.erasure, ErasureSettings, "erasure", file)
    if redis is None:
        check_erasure(erasure, file)
    return Herd(
        file=file,
        servers=servers,
        edges=tuple(raw.edges),
        limits=_convert(raw.limits, Limits, "limits", file),
        rates=rates,
        timing=_convert(raw.timing, Timing, "timing", file),
        durability=_convert(raw.durability, DurabilitySettings, "durability", file),
        erasure=erasure,
        places=places,
        tls=_tls(raw.tls, file),
        admin=admin,
        auth=auth,
        web=web,
        log=_convert(raw.log, LogSettings, "log", file),
        redis=redis,
        redis_nodes=nodes,
    )


def _convert(value: object, to: type[T], key: str, file: Path) -> T:
    """Convert one table of the file; errors name the whole key, and the existing keys."""
    try:
        return msgspec.convert(value, to)
    except msgspec.ValidationError as error:
        what, _, below = str(error).partition(" - at `$")
        path = (key + below.rstrip("`")).lstrip(".") or "(top)"
        if unknown := re.search(r"unknown field `(.*)`", what):
            path = f"{key}.{unknown[1]}".lstrip(".")
            what = f"is not known{suggest(unknown[1], to.__struct_fields__)}; the keys here are {', '.join(to.__struct_fields__)}"
        elif missing := re.search(r"missing required field `(.*)`", what):
            path = f"{key}.{missing[1]}".lstrip(".")
            what = "is missing; add it"
        raise ConfigError(f"{file}: key {path}: {what}") from error


def _redis(raw: _File, file: Path) -> tuple[RedisSettings | None, tuple[Address, ...]]:
    """Return the settings of Redis; None and nothing if every server has the table."""
    engine = _convert(raw.table, TableSettings, "table", file).engine
    if engine == "herd":
        if raw.redis is not None:
            raise ConfigError(
                f'{file}: key redis: the table is not there; set engine = "redis" in [table], or drop [redis]'
            )
        return None, ()
    for what, given in (("edges", raw.edges), ("durability", raw.durability)):
        if given:
            raise ConfigError(
                f'{file}: key {what}: with engine = "redis" servers have no links and no journal; drop it'
            )
    if raw.limits.get("on_full") == "evict":
        raise ConfigError(
            f'{file}: key limits.on_full: with engine = "redis", Redis decides what happens when its memory is full, and '
            'it must not drop reports (maxmemory-policy noeviction); write "refuse", and raise maxmemory in Redis, or let '
            "locations expire with max_age_seconds"
        )
    for name, table, keys in (
        ("limits", raw.limits, _OWN_TABLE),
        ("timing", raw.timing, _OWN_CLOCKS),
        ("erasure", raw.erasure, ("rewrite_seconds",)),
        ("tls", raw.tls, _OWN_LINKS),
    ):
        if idle := [key for key in keys if key in table]:
            raise ConfigError(
                f'{file}: key {name}.{idle[0]}: with engine = "redis" servers have no table and no links; drop it'
            )
    redis = _convert(raw.redis or {}, RedisSettings, "redis", file)
    if redis.timeout_seconds + redis.gather_seconds > redis.deadline_seconds:
        raise ConfigError(
            f"{file}: key redis.timeout_seconds: {redis.timeout_seconds:g}, and {redis.gather_seconds:g} of "
            f"gather_seconds, are more than deadline_seconds, {redis.deadline_seconds:g}; nobody would be let go in "
            "time: lower them"
        )
    _together(redis, "redis", ("tls_certificate", "tls_key"), file)
    if redis.tls_certificate is not None and redis.tls_authority is None:
        raise ConfigError(
            f"{file}: key redis.tls_authority: is missing; without it servers speak no TLS to Redis"
        )
    return redis, tuple(_address(text, f"{file}: key redis.nodes") for text in redis.nodes)


def _together(table: Struct, name: str, keys: tuple[str, ...], file: Path) -> None:
    """Check that of keys that belong together all or none are set."""
    missing = [key for key in keys if getattr(table, key) is None]
    if missing and len(missing) < len(keys):
        raise ConfigError(f"{file}: key {name}.{missing[0]}: is missing; {', '.join(keys)} go together")


def _tls(value: object, file: Path) -> TlsSettings:
    tls = _convert(value, TlsSettings, "tls", file)
    for keys in (
        ("clients_certificate", "clients_key"),
        ("peers_authority", "peers_certificate", "peers_key"),
    ):
        _together(tls, "tls", keys, file)
    if tls.peers_crl is not None and tls.peers_authority is None:
        raise ConfigError(f"{file}: key tls.peers_authority: is missing; it has signed the list in peers_crl")
    return tls


def _neighbours(raw: _File, file: Path) -> dict[str, list[str]]:
    neighbours: dict[str, list[str]] = {name: [] for name in raw.servers}
    for number, (left, right) in enumerate(raw.edges, 1):
        where = f"{file}: key edges, pair {number} ({left}, {right})"
        for name in (left, right):
            if name not in neighbours:
                raise ConfigError(
                    f"{where}: there is no server {name!r}; add [servers.{name}] or drop the pair"
                )
        if left == right:
            raise ConfigError(f"{where}: a server is no neighbour of its own; drop the pair")
        if right in neighbours[left]:
            raise ConfigError(f"{where}: stands there twice; an edge goes both ways, drop one")
        neighbours[left].append(right)
        neighbours[right].append(left)
    return neighbours


def _server(name: str, value: object, neighbours: list[str], file: Path, *, linked: bool) -> Server:
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{file}: key servers.{name}: a name is a letter and up to 62 letters, digits, '-' and '_'"
        )

    table = _convert(value, _ServerTable, f"servers.{name}", file)

    def addresses(key: str) -> tuple[Address, ...]:
        value = getattr(table, key)
        texts = [value] if isinstance(value, str) else value
        if texts is None:
            return ()
        where = f"{file}: key servers.{name}.{key}"
        if not texts:
            raise ConfigError(f'{where}: no address; give at least one, such as "127.0.0.1:10000"')
        return tuple(_address(text, where) for text in texts)

    if linked and table.peers is None:
        raise ConfigError(f"{file}: key servers.{name}.peers: is missing; add it")
    if not linked and table.peers is not None:
        raise ConfigError(
            f'{file}: key servers.{name}.peers: with engine = "redis" servers have no links; drop it'
        )
    return Server(
        name=name,
        addresses={key: addresses(key) for key in _LISTENERS},
        neighbours=tuple(neighbours),
    )


def _address(text: str, where: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _ports(servers: dict[str, Server]) -> Iterator[Port]:
    for server in servers.values():
        for listener, addresses in server.addresses.items():
            yield from (Port(address, server.name, listener) for address in addresses)
