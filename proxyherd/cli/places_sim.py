"""`places-sim`: a stand-in for Google Places, to try a herd against."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from proxyherd.cli.common import Misconfigured, default_gazetteer, examples, load_if_any
from proxyherd.cli.gazetteer import check_gazetteer
from proxyherd.config.ports import local_address
from proxyherd.places.gazetteer.provider import Gazetteer
from proxyherd.places.key import KEY_VARIABLE, checked, read_key
from proxyherd.server.supervision import raise_descriptor_limit
from proxyherd.standin.app import Faults, Served, Simulator

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})")


_DEFAULT_ADDRESS = ("127.0.0.1", 10_500)


def _address(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    if value is None:
        return None
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match[3]) > 65_535:
        raise click.BadParameter(f'{value!r} is no address; write "host:port" or "[IPv6]:port"')
    return match[1] or match[2], int(match[3])


def _seconds(name: str, what: str) -> Callable[[Any], Any]:
    kind = click.FloatRange(min=0, max=86_400)
    return click.option(name, type=kind, default=0.0, metavar="SECONDS", help=what)


def _percent(name: str, what: str) -> Callable[[Any], Any]:
    kind = click.FloatRange(min=0, max=100)
    return click.option(name, type=kind, default=0.0, metavar="PERCENT", help=what)


@click.command(
    "places-sim",
    short_help="Stand in for Google in tests.",
    epilog=examples(
        "proxyherd places-sim",
        "proxyherd places-sim --latency 0.2 --jitter 0.1 --errors 5 --drop 1",
        "proxyherd places-sim --disable old --quota 600 --key-file var/key",
        "proxyherd places-sim --address 127.0.0.1:0 --hang 100 --quiet",
        "curl 'http://127.0.0.1:10500/maps/api/place/nearbysearch/json?location=34.07,-118.44&radius=9000&key=any'",
        "curl http://127.0.0.1:10500/stats",
    ),
)
@click.option(
    "--address",
    metavar="HOST:PORT",
    callback=_address,
    help="Where to listen; port 0: at a free one.  [default: as places.base_url of the herd's file, if that is on this "
    f"machine, else {_DEFAULT_ADDRESS[0]}:{_DEFAULT_ADDRESS[1]}]",
)
@_seconds("--latency", "Wait so long before each answer.")
@_seconds("--jitter", "Wait longer by up to so much, uniformly drawn.")
@_percent("--errors", "Answer so many requests with HTTP 500.")
@_percent("--unavailable", "Answer so many with HTTP 503.")
@_percent("--too-many", "Answer so many with HTTP 429.")
@click.option(
    "--retry-after",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="Say in HTTP 429 when to come again.",
)
@_percent("--drop", "Close the connection of so many without an answer.")
@_percent("--hang", "Never answer so many.")
@_percent("--nonsense", "Answer so many with half a JSON document.")
@click.option(
    "--quota",
    type=click.IntRange(min=0),
    metavar="CALLS",
    help="Calls a minute that each API answers; those past it are over the quota.",
)
@click.option("--disable", type=click.Choice(["old", "new"]), help="The API that the key is not enabled for.")
@click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The key to accept.  [default: that of ${KEY_VARIABLE}, else any]",
)
@click.option("--seed", type=int, help="Draw faults as the last time with this number.")
@click.option(
    "--gazetteer",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The offline places.  [default: $PROXYHERD_GAZETTEER, else var/gazetteer.dat]",
)
@click.option(
    "--tls-certificate",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Serve HTTPS with this certificate (PEM, with its chain).  [default: HTTP]",
)
@click.option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="Its key (PEM).")
@click.option("--quiet", is_flag=True, help="Print the URL only, no line for each request.")
@click.pass_context
def places_sim(
    ctx: click.Context,
    /,
    *,
    address: tuple[str, int] | None,
    key_file: Path | None,
    seed: int | None,
    gazetteer: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    quiet: bool,
    **wanted: Any,
) -> None:
    """Stand in for Google: serve the old Places API and the new one from the offline gazetteer.

    The first line on stdout is the URL, for places.base_url in the herd's file. SIGTERM and Ctrl-C end it at
    once. GET /stats counts requests by API and outcome. The six kinds of fault may add up to 100 percent.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # until those of the loop stand
        signal.signal(number, lambda *_: sys.exit(0))
    key = _key(key_file)

    faults = _faults(wanted)
    tls = _tls(tls_certificate, tls_key)
    file = gazetteer or default_gazetteer()
    check_gazetteer(file)
    raise_descriptor_limit()
    simulator = Simulator(
        Gazetteer(file), key=key, faults=faults, seed=seed, on_served=None if quiet else _Printer()
    )
    _run(simulator, address or _expected_address(ctx, "http" if tls is None else "https"), tls)


def _expected_address(ctx: click.Context, scheme: str) -> tuple[str, int]:
    """Return where the herd's file says that Google is, if this command can be there. Raises ConfigError."""
    herd = load_if_any(ctx)
    url = herd.places.base_url if herd is not None else None
    if url is not None and url.startswith(f"{scheme}:") and (here := local_address(url)) is not None:
        return here.host, here.port
    return _DEFAULT_ADDRESS


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-certificate and --tls-key go together")
    if certificate is None or key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        why = error.strerror or str(error)
        raise Misconfigured(
            f"{certificate}, {key}: no certificate with its key can be read: {why}"
        ) from error
    return context


def _faults(wanted: dict[str, Any]) -> Faults:
    for kind in ("errors", "unavailable", "too_many", "drop", "hang", "nonsense"):
        wanted[kind] /= 100
    try:
        return Faults(**wanted)
    except ValueError as error:
        raise click.UsageError(f"{error}; let them add up to 100 percent at most") from error


def _run(simulator: Simulator, address: tuple[str, int], tls: ssl.SSLContext | None) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told.set)
        try:
            _say(await _start(simulator, address, tls))
            await told.wait()
        finally:
            await simulator.close()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve())


async def _start(simulator: Simulator, address: tuple[str, int], tls: ssl.SSLContext | None) -> str:
    host, port = address
    try:
        return await simulator.start(host, port, tls)
    except OSError as error:
        remedy = "name another with --address"
        if error.errno == errno.EADDRINUSE:
            remedy = f"find who listens there with: ss -ltnp 'sport = :{port}', or {remedy}"
        why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
        raise Misconfigured(f"{host}:{port}: {why}; {remedy}") from error


def _loop_factory() -> Callable[[], Any] | None:
    try:
        import uvloop  # noqa: PLC0415 - where it is missing, asyncio's own loop serves
    except ImportError:
        return None
    return uvloop.new_event_loop


def _key(file: Path | None) -> str | None:
    """Return the key to accept, None for any. No error contains it."""
    if file is None:
        return checked(os.fsencode(os.environ.get(KEY_VARIABLE, "")), f"the variable {KEY_VARIABLE}")
    key = checked(read_key(file, "--key-file"), str(file))
    if key is None:
        raise Misconfigured(f"{file}: holds no key; write the key alone into it")
    return key


class _Printer:
    """Prints a line for each request, until its reader has closed the pipe."""

    def __init__(self) -> None:
        self._reads = True

    def __call__(self, served: Served) -> None:
        if self._reads:
            status = served.status or "---"
            line = (
                f"{time.strftime('%H:%M:%S')} {served.api} {status} {served.outcome} {served.seconds:.3f} s"
            )
            if search := served.search:
                where = f"{search.latitude:.6f},{search.longitude:.6f}"
                line += f" {served.results} results within {search.metres:g} m of {where}"
            try:
                _say(line)
            except OSError:
                self._reads = False


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
