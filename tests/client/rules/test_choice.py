"""Laws of which server is asked: by chance at first, kept while it answers, left alone for longer each time it fails."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from proxyherd.client.rules.choice import LONGEST_PAUSE_SECONDS, SHORTEST_PAUSE_SECONDS, ServerChoice

RANDOMS = st.integers(0, 2**32).map(Random)


def test_clients_begin_at_servers_by_chance() -> None:
    first = Counter(ServerChoice(5, Random(seed)).next(0.0)[0] for seed in range(1_000))
    assert all(150 < first[server] < 250 for server in range(5))


@given(RANDOMS)
def test_a_server_that_answers_is_kept_until_it_fails(rng: Random) -> None:
    choice = ServerChoice(5, rng)
    server, pause = choice.next(0.0)
    choice.answered(server)
    assert pause == 0.0
    assert {choice.next(float(now))[0] for now in range(20)} == {server}
    choice.failed(server, 20.0, "reset")
    assert choice.next(20.0)[0] != server
    assert choice.next(20.0)[1] == 0.0
    assert choice.reasons == ["reset"]


@given(RANDOMS)
def test_each_server_is_tried_before_one_is_tried_again(rng: Random) -> None:
    choice, tried = ServerChoice(4, rng), list[int]()
    for _ in range(4):
        server, pause = choice.next(0.0)
        assert pause == 0.0
        choice.failed(server, 0.0, "refused")
        tried.append(server)
    assert sorted(tried) == [0, 1, 2, 3]
    assert choice.next(0.0)[1] > 0.0
    assert choice.next(LONGEST_PAUSE_SECONDS)[1] == 0.0


@given(RANDOMS)
def test_the_pauses_of_one_server_grow_with_jitter_up_to_the_longest(rng: Random) -> None:
    choice, now, most = ServerChoice(1, rng), 0.0, SHORTEST_PAUSE_SECONDS
    for _ in range(12):
        choice.failed(0, now, "refused")
        _, pause = choice.next(now)
        assert most / 2 <= pause <= most
        now, most = now + pause, min(2 * most, LONGEST_PAUSE_SECONDS)
    choice.answered(0)
    choice.failed(0, now, "refused")
    assert choice.next(now)[1] <= SHORTEST_PAUSE_SECONDS


@given(RANDOMS)
def test_those_that_were_tried_are_left_out_while_there_are_others(rng: Random) -> None:
    choice = ServerChoice(3, rng)
    assert choice.next(0.0, {0, 2})[0] == 1
    assert choice.next(0.0, {0, 1, 2})[0] in {0, 1, 2}


def test_a_server_that_answers_again_has_no_reason_any_more() -> None:
    choice = ServerChoice(2, Random(1))
    choice.failed(0, 0.0, "refused")
    choice.failed(1, 0.0, "reset")
    choice.answered(0)
    assert choice.reasons == ["reset"]
