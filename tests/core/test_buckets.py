"""RateSettings: against a model that counts tokens one by one; who shares a bucket; and what is remembered, in bytes."""

from __future__ import annotations

import random
import sys
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.config.rates import RateSettings
from proxyherd.core.buckets import (
    CONNECT_WAIT_SECONDS,
    MOST_WAIT_SECONDS,
    PAY_COMMANDS,
    Allowances,
    Usage,
    Usages,
    rate_of,
)

ADDRESS = b"\x0a\0\0\1"
OTHER = b"\x0a\0\0\2"
LINES = 64
"""Lines that one turn takes of a client at most."""


class Tokens:
    """The naive model: a number of tokens, which grows with time up to what the bucket holds, and may fall below zero."""

    def __init__(self, a_second: float, burst_seconds: float) -> None:
        self.a_second = a_second
        self.holds = self.tokens = a_second * burst_seconds
        self.now = 0.0

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.tokens = min(self.holds, self.tokens + seconds * self.a_second)

    def take(self, tokens: int) -> None:
        self.tokens = max(self.tokens - tokens, -MOST_WAIT_SECONDS * self.a_second)

    @property
    def wait(self) -> float:
        return max(-self.tokens / self.a_second, 0.0)


STEPS = st.lists(st.tuples(st.floats(0, 30), st.integers(0, 500)), max_size=40)


@given(STEPS, st.sampled_from([0.1, 1.0, 7.0, 100.0]), st.sampled_from([0.5, 10.0]))
def test_a_bucket_does_what_a_number_of_tokens_does(
    steps: list[tuple[float, int]], a_second: float, burst: float
) -> None:
    rate, model, full_at = rate_of(a_second, burst), Tokens(a_second, burst), 0.0
    for seconds, tokens in steps:
        model.pass_time(seconds)
        if not model.wait:
            full_at = rate.spend(full_at, tokens, model.now)
            model.take(tokens)
        assert max(rate.wait(full_at, model.now), 0.0) == pytest.approx(model.wait, abs=1e-6)


@given(STEPS, st.floats(0, 1e6))
def test_where_there_is_no_limit_nobody_waits(steps: list[tuple[float, int]], now: float) -> None:
    rate, full_at = rate_of(0, 60), 0.0
    for seconds, tokens in steps:
        full_at = rate.spend(full_at, tokens, now)
        assert rate.wait(full_at, now) <= 0
        now = max(now - seconds, 0.0)


@given(st.lists(st.tuples(st.floats(-1e5, 1e5), st.integers(0, 10_000)), max_size=30))
def test_however_the_clock_jumps_nobody_waits_for_longer_than_a_minute(
    steps: list[tuple[float, int]],
) -> None:
    rate, full_at, now = rate_of(5, 10), 0.0, 1e6
    for jump, tokens in steps:
        now += jump
        full_at = rate.spend(full_at, tokens, now)
        assert rate.wait(full_at, now) <= MOST_WAIT_SECONDS
        assert full_at - now <= 10 + MOST_WAIT_SECONDS


# Clients. ------------------------------------------------------------------------------------------------------


class Sender:
    """A client that sends as it may: it takes lines as a connection does, and says when it may again."""

    def __init__(self, allowances: Allowances, address: bytes, subject: bytes | None = None) -> None:
        self.allowance = allowances.enter(address, 0.0, subject)
        self.may_at = 0.0
        self.sent = 0
        self.longest = 0.0

    def send(self, lines: int, now: float) -> None:
        if now < self.may_at:
            return
        allowance = self.allowance
        if allowance.used >= PAY_COMMANDS and (wait := allowance.pay(now)) > 0:
            self.may_at = now + wait
            self.longest = max(self.longest, wait)
            return
        allowance.used += lines
        self.sent += lines


def play(senders: list[Sender], lines: int, seconds: float, step: float = 0.02) -> None:
    for at in range(round(seconds / step)):
        for sender in senders:
            sender.send(lines, at * step)


def few(**others: float) -> RateSettings:
    """Return rates of which each is so high that none is met, less these."""
    rates = {
        "commands_per_connection": 1e6,
        "commands_per_address": 1e6,
        "commands_per_subject": 1e6,
        "burst_seconds": 1.0,
    }
    return RateSettings(**{**rates, **others})  # type: ignore[arg-type] # all are numbers


@pytest.mark.parametrize("limit", ["connection", "address", "subject"])
def test_whose_bucket_it_is_decides_who_shares_it(limit: str) -> None:
    allowances = Allowances(few(**{f"commands_per_{limit}": 100.0}))
    senders = [
        Sender(allowances, address, subject)
        for address, subject in ((ADDRESS, b"Ann"), (ADDRESS, b"Bob"), (OTHER, b"Ann"), (OTHER, b"Bob"))
    ]
    play(senders, LINES, 60)
    groups = {"connection": 4, "address": 2, "subject": 2}[limit]
    assert sum(sender.sent for sender in senders) == pytest.approx(groups * 100 * 61, rel=0.1)
    assert {sender.allowance.limit for sender in senders} == {limit}
    for sender in senders:  # those that share one share it evenly
        assert sender.sent == pytest.approx(groups * 100 * 61 / 4, rel=0.2)


def test_a_quiet_client_beside_a_flooder_of_its_address_loses_little_and_one_of_another_address_nothing() -> (
    None
):
    allowances = Allowances(few(commands_per_address=1_000.0))
    flooders = [Sender(allowances, ADDRESS) for _ in range(20)]
    quiet, other = Sender(allowances, ADDRESS), Sender(allowances, OTHER)
    for at in range(6_000):
        now = at * 0.02
        for flooder in flooders:
            flooder.send(LINES, now)
        if at % 50 == 0:
            quiet.send(1, now)
            other.send(1, now)
    assert other.sent == 120
    assert other.longest == 0
    assert quiet.sent >= 110
    assert quiet.longest < 4, (
        "as long as the others' lines take: 20 connections, 128 lines each, 1,000 a second"
    )
    assert sum(one.sent for one in flooders) == pytest.approx(1_000 * 121, rel=0.1)


def test_what_was_not_paid_is_paid_at_the_end_so_that_connecting_again_and_again_helps_nobody() -> None:
    allowances = Allowances(few(commands_per_address=10.0))
    for _ in range(100):
        sender = Sender(allowances, ADDRESS)
        sender.send(PAY_COMMANDS - 1, 0.0)
        sender.allowance.leave(0.0)
    assert Sender(allowances, ADDRESS).allowance.wait(0.0) == MOST_WAIT_SECONDS


def test_a_connection_pays_for_some_commands_together_and_a_request_of_a_proxy_at_once() -> None:
    allowances = Allowances(few(commands_per_address=100.0))
    connection = allowances.enter(ADDRESS, 0.0)
    for _ in range(PAY_COMMANDS - 1):
        connection.use(1, 0.0)
    assert (connection.used, connection.address.commands_at) == (PAY_COMMANDS - 1, 0.0)
    connection.use(2, 0.0)
    assert connection.used == 0
    assert connection.address.commands_at == pytest.approx((PAY_COMMANDS + 1) / 100)
    connection.use(5, 0.0)
    connection.pay(0.0)
    assert connection.used == 0
    assert connection.address.commands_at == pytest.approx((PAY_COMMANDS + 6) / 100)
    request = allowances.ask(connection.own, OTHER, 0.0)
    request.use(3, 0.0)
    assert request.used == 0
    assert request.address.commands_at == pytest.approx(0.03)


def test_who_pays_is_the_subject_or_else_the_address() -> None:
    allowances = Allowances(RateSettings())
    assert allowances.enter(ADDRESS, 0.0).payer == "address 0a000001"
    assert allowances.enter(ADDRESS, 0.0, b"jane").payer == allowances.enter(OTHER, 0.0, b"jane").payer
    assert allowances.enter(ADDRESS, 0.0, ADDRESS).payer == "subject 0a000001", (
        "not to be taken for the address"
    )


def test_at_an_exempt_address_only_the_subject_counts_and_everywhere_it_is_the_same() -> None:
    allowances = Allowances(RateSettings())
    exempt = allowances.of_subjects().enter(b"", 0.0, b"jane")
    elsewhere = allowances.enter(ADDRESS, 0.0, b"jane")
    exempt.spend(10**5, 0.0)
    assert exempt.wait(0.0) > 0
    assert exempt.limit == elsewhere.limit or elsewhere.wait(0.0) > 0
    assert (exempt.address.commands_at, exempt.own.commands_at) == (0.0, 0.0)
    exempt.leave(0.0)
    elsewhere.leave(0.0)
    assert not allowances.subjects._connected


def test_what_a_subject_has_used_is_kept_while_it_is_connected_and_counted_down_at_the_end() -> None:
    allowances = Allowances(few(max_addresses=1))
    connections = [allowances.enter(ADDRESS, 0.0, b"jane") for _ in range(2)]
    allowances.subjects.find(b"bob", 0.0)
    assert allowances.subjects.find(b"jane", 0.0) is connections[0].subject is connections[1].subject
    for number, connection in enumerate(connections):
        assert connection.subject is not None
        assert connection.subject.connections == 2 - number
        connection.leave(0.0)
    assert not allowances.subjects._connected
    assert not allowances.addresses._connected


def test_a_client_is_over_its_own_rate_only_while_it_sends_and_never_for_its_address() -> None:
    allowances = Allowances(few(commands_per_connection=10.0, grace_seconds=30.0))
    allowance = allowances.enter(ADDRESS, 0.0)
    began = now = 1_000.0
    while now < began + 29.9:
        assert not allowance.is_over(now)
        allowance.used = PAY_COMMANDS
        now += allowance.pay(now)
    assert not allowance.is_over(began + 29.9)
    assert allowance.is_over(began + 30.0)
    allowance.pay(now + 60)
    assert not allowance.is_over(now + 60), "it has sent nothing for a while"
    shared = Allowances(few(commands_per_address=10.0, grace_seconds=0.0))
    ann, bob = shared.enter(ADDRESS, 0.0), shared.enter(ADDRESS, 0.0)
    ann.used = 1_000
    assert ann.pay(0.0) > 0
    assert bob.pay(0.0) > 0
    assert (ann.limit, bob.limit) == ("address", "address")
    assert not ann.is_over(100.0)
    assert not bob.is_over(100.0)


# Connections. --------------------------------------------------------------------------------------------------


def test_connections_of_an_address_have_a_limit_and_each_end_makes_room() -> None:
    allowances = Allowances(few(connections_per_address=3))
    held = []
    for _ in range(3):
        assert allowances.connect(ADDRESS, 0.0) == ""
        held.append(allowances.enter(ADDRESS, 0.0))
    assert allowances.connect(ADDRESS, 0.0) == "connections_per_address"
    assert allowances.connect(OTHER, 0.0) == ""
    held.pop().leave(1.0)
    assert allowances.connect(ADDRESS, 1.0) == ""
    one = Allowances(few(connections_per_address=1))
    one.enter(ADDRESS, 0.0)
    assert one.connect(ADDRESS, 0.0) == "connections_per_address"
    unlimited = Allowances(few(connections_per_address=0))
    for _ in range(100):
        assert unlimited.connect(ADDRESS, 0.0) == ""
        unlimited.enter(ADDRESS, 0.0)


def test_new_connections_of_an_address_wait_for_up_to_five_seconds_and_then_they_are_refused() -> None:
    allowances = Allowances(few(new_connections_per_address=10.0, connections_per_address=0))
    waits = list[float]()
    while not allowances.connect(ADDRESS, 0.0):
        waits.append(allowances.enter(ADDRESS, 0.0).wait(0.0))
    assert waits[:10] == [0.0] * 10, "the burst"
    assert waits[10:] == pytest.approx([0.1 * late for late in range(1, 52)])
    assert waits[-1] == pytest.approx(CONNECT_WAIT_SECONDS + 0.1)
    assert allowances.connect(ADDRESS, 0.0) == "new_connections_per_address"
    assert allowances.connect(OTHER, 0.0) == ""
    assert allowances.connect(ADDRESS, 0.2) == ""


# Honest clients meet nothing. ----------------------------------------------------------------------------------


def test_a_site_of_five_hundred_phones_behind_one_address_meets_nothing() -> None:
    """Each phone has two connections, and reports once a second on each. In between all connect again at once, each with
    what five minutes have gathered."""
    allowances = Allowances(RateSettings())
    rng = random.Random(19)
    phones = [rng.random() for _ in range(500)]
    for start in (0.0, 60.0):
        senders = []
        for _ in range(2 * len(phones)):
            assert allowances.connect(ADDRESS, start) == ""
            senders.append(Sender(allowances, ADDRESS))
        for sender in senders[::2]:
            for _ in range(5):
                sender.send(60, start)
        for second in range(60):
            for sender, offset in zip(senders, phones * 2, strict=True):
                sender.send(1, start + second + offset)
        assert {sender.longest for sender in senders} == {0.0}
        assert {sender.sent for sender in senders} == {360, 60}
        for sender in senders:
            sender.allowance.leave(start + 60)


def test_two_thousand_apps_that_connect_for_each_report_every_ten_seconds_meet_nothing() -> None:
    allowances, rng = Allowances(RateSettings()), random.Random(19)
    moments = sorted(rng.uniform(0, 120) for _ in range(2_000 * 12))
    for now in moments:
        assert allowances.connect(ADDRESS, now) == ""
        allowance = allowances.enter(ADDRESS, now)
        assert allowance.wait(now) == 0
        allowance.used = 1
        allowance.leave(now)


def test_a_phone_that_was_offline_for_a_day_sends_what_it_has_within_two_minutes() -> None:
    sender = Sender(Allowances(RateSettings()), ADDRESS)
    at = 0
    while sender.sent < 86_400:
        sender.send(LINES, at * 0.02)
        at += 1
    assert at * 0.02 < 120


# Queries of places. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("connections", "subject", "most"),
    [(1, None, 5), (10, None, 50), (100, None, 200), (10, b"jane", 5)],
    ids=["a connection", "ten of an address", "a hundred of an address", "ten of a subject"],
)
def test_places_are_asked_no_faster_than_each_rate_and_a_refused_query_costs_no_token(
    connections: int, subject: bytes | None, most: int
) -> None:
    rates = RateSettings(burst_seconds=1)
    allowances = Allowances(rates)
    opened = [allowances.enter(ADDRESS, 0, subject) for _ in range(connections)]
    asked = sum(
        one.may_ask_places(10 + moment / 10) for moment in range(100) for one in opened for _ in range(3)
    )
    assert most * 10 <= asked <= most * 11 + len(opened)


def test_places_and_commands_have_buckets_of_their_own() -> None:
    allowance = Allowances(RateSettings()).enter(ADDRESS, 0)
    while allowance.may_ask_places(0):
        pass
    assert allowance.wait(0) == 0
    unlimited = Allowances(RateSettings(places_per_connection=0, places_per_address=0)).enter(ADDRESS, 0)
    assert all(unlimited.may_ask_places(0) for _ in range(100_000))


def test_an_address_that_has_asked_for_places_lately_is_remembered() -> None:
    allowances = Allowances(RateSettings())
    for now in (0, 1):
        allowance = allowances.enter(ADDRESS, now)
        while allowance.may_ask_places(now):
            pass
        allowance.leave(now)
    for number in range(100):
        allowances.addresses.find(number.to_bytes(4, "big"), 1.0)
    assert allowances.addresses.find(ADDRESS, 1.0).places_at > 1


# Memory. -------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_million_addresses_take_no_more_memory_than_the_limit_says() -> None:
    """Each uses so much that it still counts when the last one comes. What an entry takes is in the description of
    `max_addresses`: the description is tested, too."""
    most = 65_536
    allowances = Allowances(RateSettings())
    assert allowances.rates.max_addresses == most
    usages = allowances.addresses
    for number in range(1_000_000):
        usage = usages.find(number.to_bytes(8, "big"), 0.0)
        usage.commands_at = usage.connects_at = usage.places_at = 50.0
    assert len(usages) == most
    size = sys.getsizeof(usages._others) + sum(
        sys.getsizeof(key) + sys.getsizeof(usage) + 3 * sys.getsizeof(usage.commands_at)
        for key, usage in usages._others.items()
    )
    assert size < 400 * most, size / most
    assert next(iter(usages._others)) == (1_000_000 - most).to_bytes(8, "big"), "the latest ones are kept"


def test_who_has_used_nothing_lately_is_forgotten_and_who_has_a_connection_never() -> None:
    usages = Usages(100)
    connected = [usages.find(b"c%d" % number, 0.0) for number in range(200)]
    for usage in connected:
        usages.enter(usage)
    assert len(usages) == 200, "beyond the limit: max_connections bounds them"
    for number in count():
        now = number * 0.01
        usages.find(b"o%d" % number, now).commands_at = now + 0.05  # as after one command
        assert len(usages) <= 200 + 10, "no more than still count"
        if number == 500:
            break
    assert [usages.find(b"c%d" % number, 99.0) for number in range(200)] == connected
    for usage in connected:
        usages.leave(usage, 99.0)
    assert len(usages) <= 100


def test_an_entry_that_is_forgotten_counts_again_from_the_beginning_and_one_that_is_kept_does_not() -> None:
    usages = Usages(2)
    first = usages.find(b"1", 0.0)
    first.commands_at = 100.0
    usages.find(b"2", 0.0).commands_at = 100.0
    assert usages.find(b"1", 0.0) is first  # seen again, it is the latest
    usages.find(b"3", 0.0).commands_at = 100.0
    assert usages.find(b"1", 0.0) is first
    assert usages.find(b"2", 0.0).commands_at == 0.0
    assert isinstance(first, Usage)
