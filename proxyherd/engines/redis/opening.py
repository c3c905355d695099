"""Connections to Redis by redis-py: they are opened, and checked before they are used.

Only the library's connections are used, which handle TLS, users and the protocol. Its cluster clients would cost more
than the rest of a report (bench/redis_clients.py), and would decide themselves what to repeat and when.

A master is refused if it would lose answered reports, or order them wrongly; the text says what to do.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import hiredis
from redis._parsers.hiredis import _AsyncHiredisParser
from redis.asyncio import SSLConnection
from redis.asyncio.connection import Connection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    MovedError,
    OutOfMemoryError,
    RedisError,
    TryAgainError,
)

from proxyherd.base.files import is_there, read_regular
from proxyherd.config.address import Address
from proxyherd.config.errors import ConfigError
from proxyherd.config.schema import RedisSettings
from proxyherd.engines.redis.commands import LIBRARY, LIBRARY_PATTERN, code
from proxyherd.engines.redis.shard import Library
from proxyherd.engines.redis.views import View, parse_view
from proxyherd.net import tls
from proxyherd.telemetry.observer import Observer

CREDENTIAL: Final = "redis-password"
"""The systemd credential with the password."""

VARIABLE: Final = "PROXYHERD_REDIS_PASSWORD"
"""The environment variable with the password."""

_MORE: Final = object()
_READ_BYTES: Final = 262_144

_MOST_PASSWORD_BYTES: Final = 4_096

_PAUSE_SHARE: Final = 0.25
"""A multiple of a batch's time. A master that took longer to answer was silent. Then its replicas get as long to learn
that other nodes consider it dead."""

_REPLICAS_SHARE: Final = 0.5
"""The part of a batch's time in which a master's replicas must say whether they consider it dead."""


class UnusableError(Exception):
    """A node of the cluster must not be used as it is; the text says why, and what to do."""


class _Parser(_AsyncHiredisParser):
    """The library's parser, but its errors keep their first word, such as MOVED or WRONGPASS."""

    @classmethod
    def parse_error(cls, response: str) -> Exception:
        error: Exception = super().parse_error(response)  # type: ignore[no-untyped-call]
        error.args = (response,)
        return error


class _Exchange:
    """An additional method of connections: send many commands at once, and read all their replies."""

    _reader: Any
    _writer: Any

    async def exchange(self, commands: bytes, count: int) -> list[object]:
        """Send bytes as they are; return the replies to so many commands, including errors of Redis.

        The library's own way awaits each reply separately, which costs a third more in large batches
        (bench/redis_clients.py). If this is cancelled, the connection must be closed, because replies are still on
        their way.
        """
        parser = hiredis.Reader(replyError=_Parser.parse_error, notEnoughData=_MORE)
        reader, replies = self._reader, list[object]()
        self._writer.write(commands)
        while True:
            data = await reader.read(_READ_BYTES)
            if not data:
                raise ConnectionError("closed by Redis")
            parser.feed(data)
            while (reply := parser.gets()) is not _MORE:
                replies.append(reply)
            if len(replies) >= count:
                return replies


class _Plain(_Exchange, Connection):
    """A connection without TLS."""


class _Tls(_Exchange, SSLConnection):
    """A connection with TLS."""


class Opener:
    """Opens connections to the nodes of one cluster. It reads password and certificates each time, so new ones are used
    from the next connection on.
    """

    def __init__(
        self, settings: RedisSettings, herd_file: Path, environ: Mapping[str, str], observer: Observer
    ) -> None:
        self._settings = settings
        self._file = herd_file
        self._environ = environ
        self._observer = observer
        self._silent: set[Address] = set()
        """Masters that did not answer in time when they were last dialled."""

    @property
    def library(self) -> Library:
        """Return what the engine needs of redis-py."""
        return Library(
            connect=self.connect,
            errors=(RedisError, OSError, UnusableError, ConfigError),
            moved=MovedError,
            asked=AskError,
            later=TryAgainError,
            full=OutOfMemoryError,
        )

    async def connect(self, address: Address) -> _Plain | _Tls:
        """Open and check a connection to a master. Raises one of `library.errors`."""
        began = asyncio.get_running_loop().time()
        try:
            connection = await self._open(address)
            try:
                await self._check(connection, address, began)
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        except asyncio.CancelledError:  # it is late
            self._silent.add(address)
            raise
        self._silent.discard(address)
        return connection

    async def ask_view(self, address: Address) -> View:
        """Return one node's view of the cluster. Raises one of `library.errors`."""
        connection = await self._open(address)
        try:
            return await self._read_view(connection, address)
        finally:
            await connection.disconnect(nowait=True)

    async def _read_view(self, connection: Connection, address: Address) -> View:
        text = await _ask(connection, "CLUSTER", "NODES")
        try:
            return parse_view(text.decode(), address, by_name=self._settings.tls_authority is not None)
        except (ValueError, IndexError, AttributeError) as error:
            raise UnusableError(f"{address}: its CLUSTER NODES cannot be read: {error}") from error

    async def _open(self, address: Address) -> _Plain | _Tls:
        settings = self._settings
        password = find_password(settings, self._file, self._environ)
        if password is None and settings.user != "default":
            raise ConfigError(
                f"{self._file}: key redis.user: there is no password for {settings.user}; name its file with "
                f"password_file, or set {VARIABLE}"
            )
        arguments: dict[str, Any] = {
            "host": address.host,
            "port": address.port,
            "username": settings.user if password is not None else None,
            "password": password,
            "socket_timeout": None,  # a batch has its own
            "socket_connect_timeout": settings.timeout_seconds,
            "retry": Retry(NoBackoff(), 0),
            "parser_class": _Parser,
            "driver_info": None,
            "protocol": 2,
        }
        if settings.tls_authority is None:
            connection: _Plain | _Tls = _Plain(**arguments)
        else:
            connection = _Tls(**arguments)
            # A context made by the library would also trust the system's authorities, and its errors name no file.
            connection.ssl_context.context = self._tls_context(settings.tls_authority)
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    def _tls_context(self, authority: str) -> ssl.SSLContext:
        settings, folder = self._settings, self._file.parent
        chain = None
        if settings.tls_certificate is not None and settings.tls_key is not None:
            chain = folder / settings.tls_certificate, folder / settings.tls_key
        return tls.load_for_redis(folder / authority, chain)

    async def _check(self, connection: Connection, address: Address, began: float) -> None:
        """Check that a node is a master that keeps reports in the right order, has the function, and is not about to be
        replaced. It was dialled when the loop's clock showed `began`.
        """
        facts = _facts(await _ask(connection, "INFO", "replication", "memory", "persistence", "cluster"))
        if facts.get("role") != "master":
            raise UnusableError(f"{address} is no master now")
        if (policy := facts.get("maxmemory_policy", "noeviction")) != "noeviction":
            raise UnusableError(
                f"{address} would drop reports when its memory is full: set maxmemory-policy noeviction there, "
                f"it is {policy}"
            )
        if facts.get("aof_enabled") == "0":
            self._observer.cluster.master_unsafe(
                str(address),
                "it keeps no append-only file: set appendonly yes, or a restart of a shard loses it",
            )
        await _check_function(connection, address)
        if await _ask(connection, "FCALL", LIBRARY + b"_probe", 0) != 1:
            raise UnusableError(
                f"{address} compares strings by its locale, and would take old reports for new ones: start "
                "redis-server with LC_ALL=C"
            )
        if facts.get("cluster_enabled") == "1":  # otherwise nobody takes its place
            await self._ask_replicas(connection, address, began)

    async def _ask_replicas(self, connection: Connection, address: Address, began: float) -> None:
        """Check that no replica of a master considers it dead.

        Such a replica is about to be elected, even if the master has resumed meanwhile. Until the master learns of
        that, another replica may acknowledge reports that the elected one lacks.
        """
        pause = self._settings.timeout_seconds * _PAUSE_SHARE
        if address in self._silent or asyncio.get_running_loop().time() - began > pause:
            await asyncio.sleep(pause)
        view = await self._read_view(connection, address)
        if view.myself not in view.serving:
            return  # it has no slots yet, so nobody replaces it
        views = await asyncio.gather(*map(self._ask_replica, view.replicas))
        for replica, seen in zip(view.replicas, views, strict=True):
            if seen is not None and view.myself not in seen.serving:
                raise UnusableError(f"{address} is being replaced: its replica {replica} takes it for dead")

    async def _ask_replica(self, address: Address) -> View | None:
        """Return a replica's view of the cluster, or None if it does not answer: then it does not count."""
        try:
            async with asyncio.timeout(self._settings.timeout_seconds * _REPLICAS_SHARE):
                return await self.ask_view(address)
        except self.library.errors:
            return None


async def _check_function(connection: Connection, address: Address) -> None:
    """Check that a master has this server's version of the function; servers may not load it themselves."""
    found = await _ask(connection, "FUNCTION", "LIST", "LIBRARYNAME", LIBRARY_PATTERN, "WITHCODE")
    libraries = {library[1]: library[-1] for library in found}
    if libraries.get(LIBRARY) == code():
        return
    ours = LIBRARY.decode()
    if LIBRARY in libraries:
        has = f"has another function {ours} than this server's version of proxyherd"
    elif libraries:
        others = ", ".join(sorted(name.decode() for name in libraries))
        has = f"has the function {others}, and this server's version of proxyherd needs {ours}"
    else:
        has = f"has no function {ours}"
    raise UnusableError(
        f"{address} {has}: an operator loads it, with deploy/redis/load-function.sh {address} of this version"
    )


def find_password(settings: RedisSettings, herd_file: Path, environ: Mapping[str, str]) -> str | None:
    """Find the password for Redis: in `redis.password_file`, else in the systemd credential, else in the environment.
    None if none is set. Raises ConfigError, without the password, if a file cannot be read.
    """
    if settings.password_file is not None:
        return _read(herd_file.parent / settings.password_file, f"{herd_file}: key redis.password_file")
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        file = Path(directory, CREDENTIAL)
        if is_there(file):
            return _read(file, "the systemd credential")
    return environ.get(VARIABLE) or None


def _read(file: Path, what: str) -> str:
    try:
        raw = read_regular(file, _MOST_PASSWORD_BYTES + 1)
        found = raw.strip().decode()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(
            f"{what}: {file}: {why}; write the password into it, readable by the server"
        ) from None
    if not found or len(raw) > _MOST_PASSWORD_BYTES:
        raise ConfigError(f"{what}: {file}: holds no password; write the password alone into it")
    return found


async def _ask(connection: Connection, *words: Any) -> Any:
    await connection.send_command(*words)
    return await connection.read_response()


def _facts(info: bytes) -> dict[str, str]:
    """Return the values of INFO by name."""
    lines = (line.partition(":") for line in info.decode("utf-8", "replace").split("\r\n"))
    return {name: value for name, _, value in lines}
