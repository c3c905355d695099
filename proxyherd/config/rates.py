"""How much one client may ask of a server: the table `[rates]` of the herd's file, and its check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct
from msgspec.structs import replace

from proxyherd.config.errors import ConfigError
from proxyherd.config.web import network_error


class RateSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How much one client may ask of one server, over all protocols together. Each rate is a token bucket. A client that
    has emptied one is not refused at first: the server reads its next lines later. 0 turns a limit off. An IPv6 address
    counts with its whole /64, because one machine may use all of it. Behind `trusted_proxies` of `[web]`, the address is
    the one that the proxy names.
    """

    exempt: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Addresses and networks without these limits. Add machines that speak for many clients: a gateway, or a load
    balancer before the client port, behind which all clients have one address. `[]`: nobody, not even loopback. An
    address that a trusted proxy names is never exempt, nor is the subject of a token. If the proxy names none that can be
    read, its own address counts."""

    connections_per_address: Annotated[int, Meta(ge=0, le=1_000_000)] = 2_000
    """Connections of one address at once; more are refused. Without this limit, one address can keep all of
    `max_connections` open, with a byte each quarter of an hour. The default is a tenth of `max_connections`, and room
    for all phones behind one address of a carrier's NAT."""

    new_connections_per_address: Annotated[float, Meta(ge=0, le=1_000_000)] = 200.0
    """New connections of one address, a second. Beyond it, they wait for up to 5 seconds, and then they are refused. Apps
    that open a connection for each report need one every few seconds: the default is enough for 2,000 phones that
    report every ten seconds. And all of them may connect six times in a minute, after a restart."""

    commands_per_connection: Annotated[float, Meta(ge=0, le=1_000_000)] = 500.0
    """Commands of one connection, a second. A phone reports once a second at most. One that was offline for a day sends
    its 86,400 reports in two minutes."""

    commands_per_address: Annotated[float, Meta(ge=0, le=10_000_000)] = 5_000.0
    """Commands of one address, a second, over all its connections. The default is twice what 2,000 phones behind one
    address report at most, and a part of what a server can take. A request that holds no command counts as one."""

    commands_per_subject: Annotated[float, Meta(ge=0, le=1_000_000)] = 500.0
    """Commands of one subject of tokens, a second, over all its connections and addresses: as for one connection."""

    places_per_connection: Annotated[float, Meta(ge=0, le=1_000_000)] = 5.0
    """Queries of places of one connection, a second. Beyond any of these three rates, the answer is OVER_QUERY_LIMIT, at
    once. Queries that ask for no places, with a radius or a bound of 0, don't count. A map that somebody moves asks a few
    times a second at most."""

    places_per_address: Annotated[float, Meta(ge=0, le=1_000_000)] = 200.0
    """The same for one address, over all its connections. The default is enough for 2,000 phones that ask every ten
    seconds. A query of the gazetteer takes up to a millisecond of a server, so an address takes a fifth of it at most.
    What Google costs is limited besides: see `asker_share` in `[places]`."""

    places_per_subject: Annotated[float, Meta(ge=0, le=1_000_000)] = 5.0
    """The same for one subject of tokens: as for one connection."""

    burst_seconds: Annotated[float, Meta(ge=0.1, le=86_400)] = 60.0
    """How many seconds of each of these rates may be used at once, by a client that has asked for little before. The
    default lets a phone catch up, and a whole site connect again, without a pause."""

    grace_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 30.0
    """How long a WebSocket may be over the rate of its connection or its subject before it is closed (4429). Browsers
    tell pages nothing of a server that reads slowly, so a page that goes on sending would only fill its memory."""

    max_addresses: Annotated[int, Meta(ge=1, le=10_000_000)] = 65_536
    """Addresses without a connection that a server remembers, and as many subjects. Each takes about 400 bytes. Beyond
    it, those that were not seen for longest are forgotten, and may ask as if they were new. An address that has used
    nothing lately is forgotten anyway."""


def rates_of_fewer(rates: RateSettings, now: int, wanted: int) -> RateSettings:
    """Return the rates of a server that may have so many connections now instead of the wanted number: an address has the
    same part of them.
    """
    per_address = rates.connections_per_address
    if not per_address or now >= wanted:
        return rates
    return replace(rates, connections_per_address=max(per_address * now // wanted, 1))


def of_subjects_alone(rates: RateSettings) -> RateSettings:
    """Return the rates of clients whose addresses are exempt: only their subjects have limits."""
    return replace(
        rates,
        commands_per_connection=0,
        commands_per_address=0,
        new_connections_per_address=0,
        places_per_connection=0,
        places_per_address=0,
    )


def check_rates(rates: RateSettings, file: Path) -> None:
    """Check `[rates]`. Raises ConfigError."""
    for network in rates.exempt:
        if error := network_error(network):
            raise ConfigError(f"{file}: key rates.exempt: {network!r} {error}")
