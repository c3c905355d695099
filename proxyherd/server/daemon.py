"""Puts one server together: starts it, lets it serve, and drains it.

It listens first; slow imports come later. Other failures, such as an address in use, the gazetteer or the admin port,
are logged and tried again: a running server does not exit until it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from proxyherd import __version__
from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import Herd, Server
from proxyherd.config.needs import other_descriptors
from proxyherd.config.rates import rates_of_fewer
from proxyherd.config.schema import Limits
from proxyherd.core.engine import Client
from proxyherd.core.ticks import seconds_to_tick
from proxyherd.core.turn import Turn
from proxyherd.engines.herd.backend import HerdBackend
from proxyherd.net.binding import Binder
from proxyherd.net.resolving import new_event_loop
from proxyherd.places import Places, Spend, find_key, open_places
from proxyherd.server.backend import Backend
from proxyherd.server.clients.clients import ClientListener, Clients
from proxyherd.server.clients.tcp import TcpListener
from proxyherd.server.credentials import Credentials, read_again, read_credentials, read_keys
from proxyherd.server.driver import Driver
from proxyherd.server.places_queries import AsyncPlacesQueries
from proxyherd.server.process import Background, SlowImports, forbid_core_dumps, open_log
from proxyherd.server.supervision import Notifier, StateDirectory, StateTaken, raise_descriptor_limit
from proxyherd.telemetry.logs import LogFile, make_logger
from proxyherd.telemetry.metrics import Metrics
from proxyherd.telemetry.observer import Observer

_OTHER_KEY: Final = (
    "the next start would use another key for the table than this server does, and tombstones of the old key cover "
    "nobody; put the old key there, unless you are changing it: see docs/security.md"
)


_LOOK_SECONDS: Final = 5.0
"""How often it is looked for what can wait to be logged, such as an expired certificate."""


class Paths(Struct, frozen=True):
    """The files of one server. With a `log_max_bytes` of 0, the server does not rotate its log."""

    state: Path
    log: Path
    secret: Path
    gazetteer: Path
    log_max_bytes: int = 0
    log_backups: int = 4


def serve(herd: Herd, name: str, paths: Paths) -> int:
    """Run a server until it is told to stop; return its exit code.

    Raises ConfigError if the operator has to mend something before it can start.
    """
    server = herd.server(name)
    forbid_core_dumps()
    credentials = read_credentials(herd, name, paths.secret)
    try:
        state = StateDirectory(paths.state)
    except StateTaken as error:
        sys.stderr.write(f"proxyherd: {error}\n")
        return 1
    except OSError as error:
        where = error.filename or paths.state
        raise ConfigError(
            f"{where}: {error.strerror}; move it away, or name another directory with --state-dir"
        ) from error
    log_file = open_log(paths.log, max_bytes=paths.log_max_bytes, backups=paths.log_backups)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_Daemon(herd, server, credentials, paths, log_file).run())
    log_file.close()
    state.close()
    return 0


class _Daemon:
    """One running server."""

    def __init__(
        self,
        herd: Herd,
        server: Server,
        credentials: Credentials,
        paths: Paths,
        log_file: LogFile,
    ) -> None:
        self._herd = herd
        self._server = server
        self._credentials = credentials
        self._secret_file = paths.secret
        self._first_secrets = credentials.secrets  # whose key the table has for as long as the process lives
        self._gazetteer = paths.gazetteer
        self._state = paths.state
        self._log_file = log_file
        self._log = make_logger(
            log_file, server=server.name, level=herd.log.level, max_field_bytes=herd.log.max_field_bytes
        )
        self._observer = Observer(self._log, log_file, Metrics(), server.neighbours)
        self._notifier = Notifier(os.environ)
        self._stop = asyncio.Event()
        self._listens = asyncio.Event()
        self._imports = SlowImports()
        self._background = Background(partial(self._observer.fault, "a background task failed"))
        self._told_ready = False
        self._look_at = 0.0
        self._reloading = asyncio.Lock()

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        loop = self._loop = asyncio.get_running_loop()
        self._log_file.gather(loop.call_soon)
        loop.set_exception_handler(self._unexpected)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        # Not the loop's handler: when the loop closes, it would restore the default, which is to end the process.
        signal.signal(signal.SIGHUP, lambda *_: loop.call_soon_threadsafe(self._reopen))
        signal.siginterrupt(signal.SIGHUP, False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # it was blocked when the start began
        self._places = loop.create_task(self._places_later())
        self._assemble()
        for listener in self._listeners:
            await self._binder.listen(listener.key, self._server.addresses[listener.key], listener.listen)
        self._note_expiries()
        self._log.info("started", version=__version__, pid=os.getpid())
        self._expected = time.monotonic()
        self._tick()
        self._background.spawn(self._open_late_ports())
        self._listens.set()
        self._backend.start(self._background.spawn)
        await self._stop.wait()
        await self._drain()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _assemble(self) -> None:
        self._binder = Binder(self._log, self._background.spawn)
        limits = self._limits()
        driver = Driver(self._loop)
        self._backend = self._make_backend(limits, driver.wake)
        queries = AsyncPlacesQueries[Client](self._places, self._observer, self._loop, self._backend.table)
        self._turn = Turn(self._backend.engine, queries, self._observer, driver.wake)
        driver.start(self._turn)
        rates = rates_of_fewer(self._herd.rates, limits.max_connections, self._herd.limits.max_connections)
        self._clients = Clients(limits, self._turn, self._observer, rates)
        lines = TcpListener(
            self._clients,
            self._credentials.contexts.clients,
            drain_seconds=self._herd.timing.drain_seconds,
            loopback_only=self._herd.auth.lines == "loopback",
        )
        self._listeners: list[ClientListener] = [lines] if self._herd.auth.lines != "off" else []

    def _make_backend(self, limits: Limits, wake: Callable[[], None]) -> Backend:
        """Return the engine that the herd's file names."""
        if self._herd.redis is not None:
            # The import of redis-py takes a tenth of a second.
            from proxyherd.engines.redis.backend import RedisBackend  # noqa: PLC0415

            return RedisBackend(self._herd, self._server, limits, self._observer, wake)
        assert self._credentials.secrets is not None
        return HerdBackend(
            self._herd,
            self._server,
            self._credentials.secrets,
            self._credentials.contexts,
            self._state,
            limits,
            self._observer,
            self._binder,
            wake,
        )

    def _limits(self) -> Limits:
        """Return the limits; fewer connections if the system does not allow so many."""
        limits, allowed = self._herd.limits, raise_descriptor_limit()
        room = allowed - other_descriptors(limits, self._herd.places)
        if room >= limits.max_connections:
            return limits
        most = max(room, 1)
        self._log.warning(
            "limit_lowered",
            limit="max_connections",
            wanted=limits.max_connections,
            now=most,
            reason=f"the system allows {allowed} file descriptors; raise it with LimitNOFILE= or ulimit -n",
        )
        return Limits(
            **{**{name: getattr(limits, name) for name in limits.__struct_fields__}, "max_connections": most}
        )

    # Slow imports. --------------------------------------------------------------------------------------------

    async def _places_later(self) -> Places:
        await self._listens.wait()
        return await self._imports.run(self._open_places)

    def _open_places(self) -> Places:
        # A key that cannot be read must not stop a start: there are answers without a key.
        key = None
        try:
            key = find_key(self._herd.places, self._herd.file, os.environ)
        except ConfigError as error:
            self._loop.call_soon_threadsafe(
                partial(self._log.error, "places_key_unusable", reason=str(error))
            )
        places = open_places(
            self._herd.places,
            self._herd.limits,
            self._observer.places,
            key=key,
            gazetteer=self._gazetteer,
            budget=self._budget(),
        )
        self._loop.call_soon_threadsafe(partial(self._log.info, "places_opened", provider=places.name))
        return places

    def _budget(self) -> Spend:
        """Return this server's part of what the herd may spend."""
        from proxyherd.places.limits.budget import Budget, equal_share  # noqa: PLC0415 - sqlite3, as above

        places, names = self._herd.places, list(self._herd.servers)
        part, parts = names.index(self._server.name), len(names)
        return Budget(
            self._state / "places-budget.sqlite",
            equal_share(places.calls_per_minute, part, parts),
            equal_share(places.calls_per_day, part, parts),
            places.asker_share,
        )

    async def _open_late_ports(self) -> None:
        if self._server.web:
            self._observer.open_web()
            web = await self._imports.module("proxyherd.server.clients.web")
            listener: ClientListener = web.WebListener(
                self._clients, self._herd, self._backend.erased_until, self._server.name
            )
            await self._let_in_by_tokens(listener)
            self._listeners.append(listener)
            await self._binder.listen(listener.key, self._server.web, listener.listen)
        app = await self._imports.module("proxyherd.admin.app")
        self._admin = app.open_admin(self._herd, self._server.name, self, self._observer, self._backend)
        await self._binder.listen("admin", self._server.admin, self._admin.listen)
        gc.collect()
        gc.freeze()  # the present objects stay: no collection needs to visit them again

    async def _let_in_by_tokens(self, listener: ClientListener) -> None:
        """Use the keys of tokens, if the web port needs them. One that cannot be read must not stop a start."""
        if self._herd.auth.web == "jwt":
            await self._imports.module("proxyherd.web.tokens")
            try:
                listener.renew(self._credentials.contexts, keys := read_keys(self._herd))
            except ConfigError as error:
                self._log.error("token_keys_unusable", reason=str(error))
            else:
                self._credentials = replace(self._credentials, token_keys=keys)
                self._log.info("token_keys_read", keys=len(keys))

    # While it serves. ----------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Let time pass, up to four times a heartbeat: for links, readiness, the watchdog, and the lag of the event loop."""
        self._observer.loop.lag.observe(max(0.0, time.monotonic() - self._expected))
        now, due = self._loop.time(), -math.inf
        try:
            started = self._backend.tick()
            if now >= self._look_at:
                self._look_at = now + _LOOK_SECONDS
                self._backend.figures()
                self._observer.tick()
            if self._notifier.watchdog:
                self._notifier.tell("WATCHDOG=1")
            if not self._told_ready:
                self._tell_ready(started=started)
            due = self._backend.tick_at
        finally:
            seconds = seconds_to_tick(now, due, self._herd.timing.heartbeat_seconds)
            self._expected = time.monotonic() + seconds
            self._ticker = self._loop.call_later(seconds, self._tick)

    def _tell_ready(self, *, started: bool) -> None:
        """Tell the log and the supervisor once that the start is over. Only /readyz tells of a port or a disk that
        fails: if the supervisor restarted the server for it, that would only make things worse.
        """
        if not started:
            self._notifier.tell("EXTEND_TIMEOUT_USEC=10000000")
            return
        self._told_ready = True
        figures = self._backend.figures()
        self._log.info("ready", **figures)
        told = ", ".join(f"{number} {what}" for what, number in figures.items())
        self._notifier.tell("READY=1", f"STATUS={self.ready()[1]}, {told}")

    def _reopen(self) -> None:
        if self._stop.is_set():  # nothing needs to be read again, and "stopped" is the last line
            self._log_file.reopen()
            return
        self._notifier.tell("RELOADING=1")
        self._log_file.reopen()
        self._log.info("log_reopened")
        self._background.spawn(self._reload())

    async def _reload(self) -> None:
        """Read certificates, revoked ones, secrets and keys again. Of what cannot be read, the earlier ones stay."""
        try:
            async with self._reloading:  # the last one that was begun is the last one to count
                found, failures = await asyncio.to_thread(
                    read_again, self._herd, self._server.name, self._secret_file, self._credentials
                )  # a long list of revoked certificates takes a while
            self._credentials = found
            for listener in self._listeners:
                listener.renew(found.contexts, found.token_keys)
            if found.secrets is not None:
                self._backend.renew(found.secrets, found.contexts)
                if self._first_secrets is not None and found.secrets.table != self._first_secrets.table:
                    self._log.warning("table_key_differs", reason=f"{self._secret_file}.table: {_OTHER_KEY}")
            self._note_expiries()
            for failure in failures:
                self._log.error("reload_failed", reason=failure)
            if not failures:
                self._log.info("reloaded", **found.counts)
        finally:
            if self._told_ready:
                self._notifier.tell("READY=1")

    def _note_expiries(self) -> None:
        contexts = self._credentials.contexts
        self._observer.expiry.hold_certificates(contexts.expiries)
        if contexts.revoked is not None:
            self._observer.expiry.hold_list(contexts.revoked.file, contexts.revoked.expires)

    async def _drain(self) -> None:
        """Take no more commands, answer those that were taken, and stop."""
        self._notifier.tell("STOPPING=1")
        self._log.info("stopping", connections=len(self._clients.connections))
        for listener in self._listeners:
            listener.close()
        self._clients.drain()
        deadline = self._loop.time() + self._herd.timing.drain_seconds
        await self._backend.stop(self._clients_gone(deadline), deadline)
        self._ticker.cancel()
        await self._background.end()
        if hasattr(self, "_admin"):
            await self._admin.close()
        with contextlib.suppress(Exception):
            await (await self._places).close()
        await asyncio.sleep(0)  # let the last turn write its log
        self._backend.figures()
        self._observer.end()
        self._log.info("stopped")

    async def _clients_gone(self, deadline: float) -> None:
        """Wait until the clients have their answers; end the connections that are left at the deadline."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._clients.gone.wait()
        self._clients.abort()

    def _unexpected(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an exception that no code has caught: a fault of ours, which must not end the server."""
        self._observer.fault(str(context.get("message")), context.get("exception"))

    # Calls from the admin port. ------------------------------------------------------------------------------

    def ready(self) -> tuple[bool, str]:
        """Return whether the server is ready, and why not if it is not."""
        if self._binder.unbound:
            return False, f"cannot listen at: {', '.join(sorted(self._binder.unbound))}"
        if trouble := self._backend.trouble:
            return False, trouble
        return True, "ready"

    def refresh(self) -> None:
        """Update the metrics that no event updates."""
        self._observer.settle()
        self._observer.process.ready.set(self.ready()[0])
        self._backend.figures()
        if (places := self._opened_places()) is not None:
            self._observer.places.in_flight.set(places.in_flight)

    def _opened_places(self) -> Places | None:
        """Return Places, or None if they are not open yet or could not be opened."""
        opened = self._places
        failed = not opened.done() or opened.cancelled() or opened.exception() is not None
        return None if failed else opened.result()

    def places_by(self) -> str:
        """Return the name of the provider of places, or "nobody yet"."""
        return places.name if (places := self._opened_places()) is not None else "nobody yet"
