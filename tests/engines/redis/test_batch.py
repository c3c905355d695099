"""How a batch is spelled, what its end proves, what of it is done again, and what comes of the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast
from unittest.mock import Mock

import pytest
from fake_redis import words

from proxyherd.config.address import Address
from proxyherd.config.schema import Limits, RedisSettings
from proxyherd.core.engine import Client, Settled
from proxyherd.core.messages import Whatsat, invalid
from proxyherd.core.rules import Rules
from proxyherd.engines.redis import layout
from proxyherd.engines.redis.batch import Asked, Batch, Failed, Wish
from proxyherd.engines.redis.commands import (
    ADMIT,
    ADVANCE,
    _function,
    code,
    spell_key,
    spell_questions,
    spell_reports,
    spell_word,
)
from proxyherd.engines.redis.outcomes import AGAIN, Outcomes
from proxyherd.engines.redis.sealing import Sealing

TAG = layout.tag_of(b"kiwi")
LEAD = spell_word(b"1000")
MASTER = Address("127.0.0.1", 7_001)


def test_a_call_of_a_function_is_a_command_with_the_name_of_this_version() -> None:
    for size in range(3):
        values = [b"%d" % number for number in range(size)]
        call = _function(b"see") % (3 + size, 1, size) + b"".join(map(spell_word, values))
        assert [*words(call)] == [[b"FCALL", b"proxyherd_2_see", b"%d" % size, *values]]


def people(count: int) -> list[Client]:
    """Return clients that are nothing but themselves, and there."""
    return [cast("Client", Mock(gone=False)) for _ in range(count)]


def report(client: bytes, line: bytes = b"r", expires: bytes = b"", asker: Client | None = None) -> Wish:
    key, value = spell_key(layout.tag_of(client), client), spell_word(b"value of " + client)
    asked = Asked("iamat", "waiting", key=key, value=value, at=b"AT " + client)
    asked.expires = spell_word(expires) if expires else b""
    return cast("Client", asker), asked, line


def question(client: bytes, line: bytes = b"q", asker: Client | None = None) -> Wish:
    key = spell_key(layout.tag_of(client), client)
    asked = Asked("whatsat", "waiting", None, Whatsat(client, b"10", 5), key=key)
    return cast("Client", asker), asked, line


def sent(batch: Batch) -> tuple[list[list[bytes]], int]:
    """Return the commands of a batch, and how many replies it says that they have; its end is a PING of one."""
    data, replies = batch.end(b"*1\r\n$4\r\nPING\r\n", 1)
    commands = list(words(data))
    assert commands.pop() == [b"PING"]
    return commands, replies - 1


KEYS = {name: layout.key(name) for name in (b"kiwi", b"a", b"plum")}


# Spelling. -----------------------------------------------------------------------------------------------------


def test_the_library_is_the_functions_that_are_called() -> None:
    assert code().startswith(b"#!lua name=proxyherd_2\n")
    for function in (b"advance", b"admit", b"seal", b"probe"):
        assert b"proxyherd_2_" + function in code()


@pytest.mark.parametrize("expires", [b"", b"1600000000000"])
def test_reports_of_a_tag_are_one_call_of_keys_values_and_expiries(expires: bytes) -> None:
    for clients in ([b"kiwi"], [b"kiwi", b"a"], [b"kiwi"] * 12):
        batch = Batch(LEAD)
        batch.add_reports(TAG, [report(client, b"12345", expires) for client in clients])
        commands, replies = sent(batch)
        values = [b"value of " + client for client in clients]
        expiries = [expires] * len(clients) if expires else []
        assert commands == [
            [
                b"FCALL",
                b"proxyherd_2_advance",
                b"%d" % len(clients),
                *(layout.key(client) for client in clients),
                *values,
                *expiries,
                b"1000",
            ]
        ]
        assert replies == 1
        assert (batch.wishes, batch.size, batch.tags) == (len(clients), 5 * len(clients), [TAG])


def test_a_tag_goes_in_runs_of_reports_and_of_questions_in_its_order() -> None:
    wishes = [report(b"kiwi"), report(b"a"), question(b"a", b"long"), question(b"kiwi"), report(b"a")]
    batch = Batch(LEAD)
    batch.add(TAG, wishes)
    commands, replies = sent(batch)
    assert [command[0] for command in commands] == [b"FCALL", b"MGET", b"FCALL"]
    assert commands[1][1:] == [KEYS[b"a"], KEYS[b"kiwi"]]
    assert replies == 3
    assert [wish for _, run in batch.calls for wish in run] == wishes
    assert (batch.wishes, batch.size, batch.tags) == (5, 8, [TAG])


@pytest.mark.parametrize("asking", [False, True])
def test_while_its_keys_move_each_of_a_tag_goes_alone_and_asks_where_they_move_to(asking: bool) -> None:
    wishes = [report(b"kiwi"), report(b"a"), question(b"a"), question(b"kiwi")]
    batch = Batch(LEAD)
    batch.add_reports(1, [report(b"plum")])
    batch.add(TAG, wishes, singly=True, asking=asking)
    commands, replies = sent(batch)
    names = [command[0] for command in commands]
    before = [b"ASKING"] if asking else []
    alone = [*before, b"FCALL", *before, b"FCALL", *before, b"MGET", *before, b"MGET"]
    assert names == [b"FCALL", *alone]
    assert replies == len(names)
    assert [run for _, run in batch.calls[1:]] == [[wish] for wish in wishes]
    answers = batch.answers([b"OK" if name == b"ASKING" else at for at, name in enumerate(names)] + [b"seal"])
    assert answers == [at for at, name in enumerate(names) if name != b"ASKING"]


@pytest.mark.parametrize(("function", "name"), [(ADVANCE, b"advance"), (ADMIT, b"admit")])
def test_what_the_bridge_writes_and_reads_is_spelled_alike(function: bytes, name: bytes) -> None:
    keys = [layout.PREFIXES[9] + client for client in (b"x", b"yy")]
    call = [b"FCALL", b"proxyherd_2_" + name, b"2", *keys, b"one", b"two"]
    assert list(words(spell_reports(function, 9, [b"x", b"yy"], [b"one", b"two"], lead=7))) == [[*call, b"7"]]
    expiring = spell_reports(function, 9, [b"x", b"yy"], [b"one", b"two"], [b"5", b"66"], lead=7)
    assert list(words(expiring)) == [[*call, b"5", b"66", b"7"]]
    assert list(words(spell_questions(9, [b"x", b"yy"]))) == [[b"MGET", *keys]]


def test_what_is_asked_has_no_value_and_never_expires_unless_it_is_said() -> None:
    asked = Asked("whatsat", "waiting")
    assert (asked.key, asked.value, asked.at, asked.since, asked.expires) == (b"", b"", b"", 0.0, b"")


# The end. ------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealing() -> Sealing:
    return Sealing(RedisSettings(nodes=("127.0.0.1:7001",), replicas=2, timeout_seconds=1.5))


SEAL = [b"FCALL", b"proxyherd_2_seal", b"1", layout.PREFIXES[7] + b" seal 127.0.0.1:7001"]
WAIT = [b"WAIT", b"2", b"1200"]
"""Redis gives up waiting while there is still a fifth of the time for its reply."""


def test_a_batch_ends_with_a_seal_and_the_wait_for_its_replicas(sealing: Sealing) -> None:
    end, replies = sealing.spell(7, MASTER)
    assert list(words(end)) == [SEAL, WAIT]
    assert replies == 2


def test_a_probe_stands_before_and_asks_for_no_change(sealing: Sealing) -> None:
    end, replies = sealing.spell(7, MASTER, probe=True)
    assert list(words(end)) == [[b"FCALL", b"proxyherd_2_advance", b"1", SEAL[3], b"", b"0"], SEAL, WAIT]
    assert replies == 3


def test_a_seal_in_a_tag_on_its_way_asks_first(sealing: Sealing) -> None:
    end, replies = sealing.spell(7, MASTER, asking=True)
    assert list(words(end)) == [[b"ASKING"], SEAL, WAIT]
    assert replies == 3


def test_only_the_seal_and_as_many_replicas_as_must_prove_a_batch(sealing: Sealing) -> None:
    assert sealing.doubt(b"OK", 2) == sealing.doubt(b"OK", 3) == ""
    assert sealing.doubt(b"OK", 1) == "1 replicas have acknowledged, of 2 that must"
    for replies in ((ValueError("OOM"), 2), (b"OK", ValueError("OOM"))):
        assert sealing.doubt(*replies) == "the end of a batch was refused: OOM"


# What is done again. -------------------------------------------------------------------------------------------


def batch_of(*calls: tuple[int, Wish]) -> Batch:
    batch = Batch(LEAD)
    for tag, wish in calls:
        batch.add(tag, [wish])
    return batch


FIRST, SECOND, THIRD, OTHER = report(b"kiwi"), question(b"kiwi"), report(b"a"), report(b"plum")
FOUR = ((1, FIRST), (1, SECOND), (2, OTHER), (1, THIRD))


def test_where_nothing_fails_nothing_is_done_again() -> None:
    assert batch_of(*FOUR).failed([b"1", [None], b"0", b"-"]) == {}


def test_what_stands_behind_a_failure_of_its_tag_is_done_again_and_other_tags_are_not() -> None:
    error = ValueError("no")
    failed = batch_of(*FOUR).failed([b"1", error, b"1", b"1"])
    assert failed == {1: Failed([SECOND, THIRD], 1, error)}


def test_the_first_so_many_that_failed_alike_were_not_done() -> None:
    error, like, another = ValueError("1"), ValueError("2"), KeyError()
    for answers, first in [
        ([error, like, b"1", like], 3),
        ([error, like, b"1", b"1"], 2),
        ([error, [None], b"1", like], 1),
        ([error, another, b"1", like], 1),
        ([error, like, b"1", another], 2),
    ]:
        assert batch_of(*FOUR).failed(answers) == {1: Failed([FIRST, SECOND, THIRD], first, error)}


def test_a_reply_too_few_is_a_fault_and_no_outcome() -> None:
    batch = batch_of(*FOUR)
    with pytest.raises(ValueError, match="shorter"):
        batch.failed([ValueError("1"), b"1", b"1"])
    with pytest.raises(ValueError, match="shorter"):
        Outcomes(Rules("Clark", Limits())).give(batch, [b"1", [None], b"1"], some_failed=False)
    with pytest.raises(ValueError, match="shorter"):
        Outcomes(Rules("Clark", Limits())).give(batch, [b"1", [], b"1", b"1"], some_failed=False)
    with pytest.raises(ValueError, match="shorter"):
        Outcomes(Rules("Clark", Limits())).give(batch, [b"", [None], b"1", b"1"], some_failed=False)


def test_what_is_done_again_leaves_the_batch_as_it_was() -> None:
    batch = batch_of(*FOUR)
    before = [list(wishes) for _, wishes in batch.calls]
    batch.failed([ValueError(), b"1", b"1", b"1"])
    assert [wishes for _, wishes in batch.calls] == before


# What comes of it. ---------------------------------------------------------------------------------------------


def at_line(received: int, time: int) -> bytes:
    return b"AT Clark %+d.000000000 kiwi +1+1 %d" % (received - time, time)


def stored(received: int, time: int = 5) -> bytes:
    return layout.VALUE % (time * 10**9, at_line(received, time))


def outcomes_of(
    wishes: Sequence[Wish], outcomes: Outcomes, *answers: object, failed: bool = False
) -> list[str]:
    outcomes.give(batch_of(*((1, wish) for wish in wishes)), list(answers), some_failed=failed)
    return [asked.outcome for _, asked, _ in wishes]


def test_a_report_is_held_or_not_later_or_refused() -> None:
    outcomes, (person,) = Outcomes(Rules("Clark", Limits())), people(1)
    wishes = [report(client, b"line", asker=person) for client in (b"kiwi", b"a", b"plum")]
    batch = Batch(LEAD)
    batch.add(1, wishes)
    outcomes.give(batch, [b"10-"], some_failed=False)
    assert [(asked.outcome, asked.answer) for _, asked, _ in wishes] == [
        ("stored", b"AT kiwi"),
        ("stale", b"AT a"),
        ("refused", invalid(b"line")),
    ]
    assert [asked.refusal for _, asked, _ in wishes] == ["", "", "key"]
    settled = outcomes.take()
    assert (list(settled.clients), list(settled.found), list(settled.given_up)) == ([person], [], [])
    assert outcomes.take() == Settled({}, [], {}.items(), [])


def test_a_question_finds_an_entry_that_is_one_and_not_too_old() -> None:
    rules = Rules("Clark", Limits(max_age_seconds=10))
    outcomes, persons = Outcomes(rules), people(5)
    rules.clock = 100 * 10**9
    wishes = [question(b"kiwi", b"line", asker=person) for person in persons]
    values = [None, b"strange", stored(89), stored(90), stored(91)]
    assert outcomes_of(wishes, outcomes, *([value] for value in values)) == ["unknown"] * 3 + ["found"] * 2
    assert [asked.answer for _, asked, _ in wishes] == [invalid(b"line")] * 3 + [None] * 2
    assert [asked.entry is not None for _, asked, _ in wishes] == [False] * 3 + [True] * 2
    settled = outcomes.take()
    assert list(settled.clients) == persons
    assert list(settled.found) == [(wish[0], wish[1]) for wish in wishes[3:]]


def test_what_has_failed_and_what_stands_behind_it_comes_to_nothing_yet() -> None:
    outcomes, persons = Outcomes(Rules("Clark", Limits())), people(4)
    wishes = [report(b"kiwi", asker=person) for person in persons]
    batch = batch_of((1, wishes[0]), (1, wishes[1]), (1, wishes[2]), (2, wishes[3]))
    outcomes.give(batch, [b"1", ValueError(), b"1", b"1"], some_failed=True)
    assert [asked.outcome for _, asked, _ in wishes] == ["stored", "waiting", "waiting", "stored"]
    settled = outcomes.take()
    assert list(settled.clients) == [persons[0], persons[3]]


def test_what_may_have_been_stored_is_not_refused() -> None:
    outcomes, persons = Outcomes(Rules("Clark", Limits())), people(2)
    wishes = [report(b"kiwi", b"line", asker=person) for person in persons]
    wishes[1][1].outcome = AGAIN
    assert outcomes.refuse(wishes) == [wishes[1]]
    assert (wishes[0][1].outcome, wishes[0][1].answer) == ("refused", invalid(b"line"))
    assert [asked.refusal for _, asked, _ in wishes] == ["full", ""]
    assert (wishes[1][1].outcome, wishes[1][1].answer) == (AGAIN, None)
    settled = outcomes.take()
    assert list(settled.clients) == [persons[0]]


def test_who_is_given_up_is_told_once_with_the_reason() -> None:
    outcomes, (person,) = Outcomes(Rules("Clark", Limits())), people(1)
    outcomes.give_up(person)
    outcomes.give_up(person)
    settled = outcomes.take()
    assert list(settled.clients) == []
    assert list(settled.given_up) == [(person, "no answer from the cluster")]
    assert outcomes.take() == Settled({}, [], {}.items(), [])
