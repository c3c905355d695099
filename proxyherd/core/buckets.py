"""Token buckets: how much a client may ask, and for how long it waits if that was too much.

A bucket is one number, the moment at which it is full again. To take tokens moves this moment on. A bucket may be
overdrawn: a client asks first, and pays afterwards, for all that was taken of it since it has paid last. Then it waits
until the bucket is no longer overdrawn. So those who share a bucket wait one behind the other, each for as long as
what was taken before it takes.

What no longer counts is forgotten: an address whose buckets are full is as good as one that was never seen. All times are
seconds of one monotonic clock, which is an argument. If it jumps back, nobody waits for longer than `MOST_WAIT_SECONDS`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from proxyherd.config.rates import RateSettings, of_subjects_alone
from proxyherd.core.value import Value

MOST_WAIT_SECONDS: Final = 60.0
"""Nobody waits for longer, whatever was taken: a client that has done nothing may share an address with a flooder."""

CONNECT_WAIT_SECONDS: Final = 5.0
"""How long a new connection may have to wait. It is refused if that would be longer."""

PAY_COMMANDS: Final = 64
"""Commands for which a connection pays together: to pay for each alone would cost too much. So what a bucket allows may be
exceeded by these, and by what one turn takes, for each connection that shares it."""

_LOOKED_AT: Final = 2
"""Of the oldest entries, when one is added: so those that no longer count leave faster than new ones come."""

Limit: TypeAlias = Literal["", "connection", "address", "subject"]
"""Whose bucket is overdrawn."""

ConnectionLimit: TypeAlias = Literal["", "connections_per_address", "new_connections_per_address"]
"""Why a connection is refused, by the keys of `[rates]`."""


class Rate(Value):
    """How fast the buckets of one kind fill. `token_seconds`: in what time by one token; 0: there is no limit.
    `full_seconds`: in what time from empty to full.
    """

    token_seconds: float
    full_seconds: float

    def spend(self, full_at: float, tokens: int, now: float) -> float:
        """Return when a bucket is full again, from which so many tokens are taken now. It may be overdrawn then."""
        if not self.token_seconds:
            return 0.0
        latest = now + self.full_seconds + MOST_WAIT_SECONDS
        return min(max(full_at, now) + tokens * self.token_seconds, latest)

    def wait(self, full_at: float, now: float) -> float:
        """Return the seconds until a bucket is no longer overdrawn; 0.0 or less: it is not."""
        return min(full_at - now - self.full_seconds, MOST_WAIT_SECONDS)


def rate_of(a_second: float, burst_seconds: float) -> Rate:
    """Return the rate of buckets that fill with so many tokens a second, and hold what comes in in `burst_seconds`."""
    return Rate(1 / a_second, burst_seconds) if a_second else Rate(0.0, burst_seconds)


class Usage(Struct, eq=False, gc=False):
    """What one address, or one subject of tokens, has used: when its buckets are full again."""

    key: bytes
    connections: int = 0
    commands_at: float = 0.0
    connects_at: float = 0.0
    places_at: float = 0.0


class Usages:
    """All addresses, or all subjects, that a server remembers: those that have connections, and `most` others at most. Of
    these, the ones that were not seen for longest are forgotten first.
    """

    __slots__ = ("_connected", "_most", "_others")

    def __init__(self, most: int) -> None:
        self._most = most
        self._connected: dict[bytes, Usage] = {}
        self._others = OrderedDict[bytes, Usage]()  # the oldest first

    def __len__(self) -> int:
        return len(self._connected) + len(self._others)

    def find(self, key: bytes, now: float) -> Usage:
        """Return the entry of an address or a subject, which may be a new one."""
        usage = self._connected.get(key)
        if usage is None:
            usage = self._others.get(key)
            if usage is None:
                usage = Usage(key)
                self._add(usage, now)
            else:
                self._others.move_to_end(key)
        return usage

    def enter(self, usage: Usage) -> None:
        """Count a connection."""
        usage.connections += 1
        if usage.connections == 1:
            self._others.pop(usage.key, None)
            self._connected[usage.key] = usage

    def leave(self, usage: Usage, now: float) -> None:
        """Count the end of a connection."""
        usage.connections -= 1
        if not usage.connections:
            del self._connected[usage.key]
            self._add(usage, now)

    def _add(self, usage: Usage, now: float) -> None:
        others = self._others
        others[usage.key] = usage
        if len(others) > self._most:
            others.popitem(last=False)
        for _ in range(_LOOKED_AT):
            oldest = others[next(iter(others))]
            if oldest is usage or max(oldest.commands_at, oldest.connects_at, oldest.places_at) > now:
                break
            del others[oldest.key]


class Allowance:
    """What one connection may ask: its own bucket, those of its address, and that of its subject if it has one. `used`:
    commands that were taken, and are not paid for. `credit`: how many these may be. `limit`: which bucket was overdrawn
    most when there was something to wait for last.
    """

    __slots__ = ("_allowances", "_over_since", "address", "credit", "limit", "own", "subject", "used")

    def __init__(
        self, allowances: Allowances, own: Usage, address: Usage, subject: Usage | None, *, credit: int
    ) -> None:
        self.credit = credit
        self.own = own
        self.address = address
        self.subject = subject
        self.used = 0
        self.limit: Limit = ""
        self._allowances = allowances
        self._over_since: float | None = None  # its own bucket, or its subject's

    @property
    def payer(self) -> str:
        """Who asks, whatever connection it uses: the subject of its token, or its address."""
        if self.subject is not None:
            return f"subject {self.subject.key.hex()}"
        return f"address {self.address.key.hex()}"

    def use(self, commands: int, now: float) -> None:
        """Note that so many commands were taken."""
        self.used += commands
        if self.used >= self.credit:
            self.spend(self.used, now)
            self.used = 0

    def spend(self, commands: int, now: float) -> None:
        """Take so many tokens of each bucket."""
        rates, own, address, subject = self._allowances, self.own, self.address, self.subject
        own.commands_at = rates.of_connection.spend(own.commands_at, commands, now)
        address.commands_at = rates.of_address.spend(address.commands_at, commands, now)
        if subject is not None:
            subject.commands_at = rates.of_subject.spend(subject.commands_at, commands, now)

    def wait(self, now: float) -> float:
        """Return for how many seconds nothing more may be taken; 0.0: not at all."""
        rates, address, subject = self._allowances, self.address, self.subject
        full_at = max(self.own.commands_at, address.commands_at, address.connects_at)
        if full_at <= now + rates.burst and (subject is None or subject.commands_at <= now + rates.burst):
            self._over_since = None
            return 0.0
        self.limit, most = "", 0.0
        buckets: list[tuple[Limit, float, Rate]] = [
            ("connection", self.own.commands_at, rates.of_connection),
            ("address", address.commands_at, rates.of_address),
            ("address", address.connects_at, rates.of_connects),
        ]
        if subject is not None:
            buckets.append(("subject", subject.commands_at, rates.of_subject))
        over = False
        for limit, full_at, rate in buckets:
            seconds = rate.wait(full_at, now)
            if seconds > 0.0:
                over = over or limit != "address"
                if seconds > most:
                    self.limit, most = limit, seconds
        if not over:
            self._over_since = None
        elif self._over_since is None:
            self._over_since = now
        return most

    def may_ask_places(self, now: float) -> bool:
        """Return whether a query of places may begin. If so, it takes a token of each bucket for these."""
        rates = self._allowances
        buckets = [(self.own, rates.places_of_connection), (self.address, rates.places_of_address)]
        if self.subject is not None:
            buckets.append((self.subject, rates.places_of_subject))
        if any(rate.wait(usage.places_at, now) > 0.0 for usage, rate in buckets):
            return False
        for usage, rate in buckets:
            usage.places_at = rate.spend(usage.places_at, 1, now)
        return True

    def leave(self, now: float) -> None:
        """End what `Allowances.enter` has begun: the rest is paid for."""
        self.pay(now)
        self._allowances.addresses.leave(self.address, now)
        if self.subject is not None:
            self._allowances.subjects.leave(self.subject, now)

    def pay(self, now: float) -> float:
        """Pay for what is used. Return for how many seconds the client must wait then; 0.0: not at all."""
        self.spend(self.used, now)
        self.used = 0
        return self.wait(now)

    def is_over(self, now: float) -> bool:
        """Return whether the client has been over its own rate for longer than the grace. Call after `wait`."""
        return self._over_since is not None and now - self._over_since >= self._allowances.rates.grace_seconds


class Allowances:
    """What the clients of one server may ask, and have used."""

    def __init__(self, rates: RateSettings, subjects: Usages | None = None) -> None:
        self.rates: Final = rates
        self.addresses = Usages(rates.max_addresses)
        self.subjects = Usages(rates.max_addresses) if subjects is None else subjects
        burst = self.burst = rates.burst_seconds
        self.of_connection: Final = rate_of(rates.commands_per_connection, burst)
        self.of_address: Final = rate_of(rates.commands_per_address, burst)
        self.of_subject: Final = rate_of(rates.commands_per_subject, burst)
        self.places_of_connection: Final = rate_of(rates.places_per_connection, burst)
        self.places_of_address: Final = rate_of(rates.places_per_address, burst)
        self.places_of_subject: Final = rate_of(rates.places_per_subject, burst)
        self.of_connects: Final = rate_of(rates.new_connections_per_address, burst)

    def of_subjects(self) -> Allowances:
        """Return the same for clients whose addresses are not counted: only their subjects are."""
        return Allowances(of_subjects_alone(self.rates), self.subjects)

    def connect(self, address: bytes, now: float) -> ConnectionLimit:
        """Count a new connection of an address, which is accepted or refused. Return the limit that refuses it, or ""."""
        usage = self.addresses.find(address, now)
        if limit := self.full(usage):
            return limit
        if self.of_connects.wait(usage.connects_at, now) > CONNECT_WAIT_SECONDS:
            return "new_connections_per_address"
        usage.connects_at = self.of_connects.spend(usage.connects_at, 1, now)
        return ""

    def full(self, usage: Usage) -> ConnectionLimit:
        """Return the limit that one more connection of an address would exceed, or ""."""
        most = self.rates.connections_per_address
        return "connections_per_address" if 0 < most <= usage.connections else ""

    def enter(self, address: bytes, now: float, subject: bytes | None = None) -> Allowance:
        """Return what a connection of an address, and perhaps of a subject, may ask from its beginning on;
        `Allowance.leave` ends it.
        """
        allowance = self._allowance(Usage(b""), address, now, subject, PAY_COMMANDS)
        self.addresses.enter(allowance.address)
        if allowance.subject is not None:
            self.subjects.enter(allowance.subject)
        return allowance

    def ask(self, own: Usage, address: bytes, now: float, subject: bytes | None = None) -> Allowance:
        """Return what one request may ask now. `own`: what its connection has used; one of a proxy counts for nobody. It is
        paid for at once, since nothing is called at its end.
        """
        return self._allowance(own, address, now, subject, 0)

    def _allowance(
        self, own: Usage, address: bytes, now: float, subject: bytes | None, credit: int
    ) -> Allowance:
        of_subject = None if subject is None else self.subjects.find(subject, now)
        return Allowance(self, own, self.addresses.find(address, now), of_subject, credit=credit)
