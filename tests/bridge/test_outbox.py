"""The outbox: each client waits once, whoever has waited longest goes first, and nothing is lost."""

from __future__ import annotations

from proxyherd.bridge.outbox import Outbox
from proxyherd.engines.redis import layout


def test_a_client_waits_once_until_a_load_with_it_has_arrived() -> None:
    woken: list[int] = []
    box = Outbox(woken.append)
    box.add(b"kiwi", 1.0)
    box.add(b"kiwi", 2.0)
    tag = layout.tag_of(b"kiwi")
    assert (woken, box.count, box.oldest) == ([tag], 1, 1.0)
    load = box.take(range(layout.TAGS), 10)
    assert load is not None
    assert load.clients == {tag: [b"kiwi"]}
    assert (box.take(range(layout.TAGS), 10), box.count, box.oldest) == (None, 1, 1.0)
    box.add(b"kiwi", 3.0)  # news, while it is on its way
    box.done(load)
    assert (box.count, box.oldest) == (1, 3.0)
    again = box.take([tag], 10)
    assert again is not None
    box.lost(again)
    assert (box.count, box.oldest) == (1, 3.0)
    last = box.take([tag], 10)
    assert last is not None
    box.done(last)
    assert (box.count, box.oldest) == (0, float("inf"))


def test_a_load_that_is_lost_waits_as_long_as_it_has() -> None:
    box = Outbox(lambda _: None)
    box.add(b"kiwi", 1.0)
    load = box.take(range(layout.TAGS), 10)
    assert load is not None
    box.add(b"kiwi", 5.0)
    box.lost(load)
    assert (box.count, box.oldest) == (1, 1.0)


def test_who_has_waited_longest_goes_first_and_loads_are_bounded() -> None:
    box = Outbox(lambda _: None)
    since = {client: float(number) for number, client in enumerate(b"box-%d" % one for one in range(20_000))}
    for client, now in since.items():
        box.add(client, now)
    taken = set[bytes]()
    while load := box.take(range(layout.TAGS), 1_000):
        assert load.since == min(since[one] for several in load.clients.values() for one in several)
        size = sum(map(len, load.clients.values()))
        assert size < 1_000 + 500
        taken |= {one for several in load.clients.values() for one in several}
        box.done(load)
    assert taken == {*since}
    assert box.count == 0
