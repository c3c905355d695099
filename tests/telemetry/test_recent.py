"""What is kept of the last moments while somebody looks: which commands, in which words, and how many."""

from __future__ import annotations

import time

import pytest

from proxyherd.core.area_queries import AreaQuery, AreaReply
from proxyherd.core.framing import Overlong
from proxyherd.core.messages import Entry
from proxyherd.core.reply import Reply
from proxyherd.core.spatial.search import FoundClient, SearchResult
from proxyherd.telemetry.recent import MOST_KEPT, SHOWN_BYTES, Command, Recent

AT = b"AT Ann +1.000000000 kiwi +1+1 1"


@pytest.fixture
def recent(monkeypatch: pytest.MonkeyPatch) -> Recent:
    monkeypatch.setattr(time, "time", lambda: 1_600_000_000.123456)
    return Recent()


def numbers(recent: Recent, after: int, most: int) -> list[int]:
    return [one.number for one in recent.commands(after, most)]


def test_each_command_is_kept_with_its_number_its_time_to_the_millisecond_and_what_the_log_says(
    recent: Recent,
) -> None:
    at = 1_600_000_000.123
    recent.command(b"FOO \x1b", Reply("other", "invalid", b"? FOO \x1b"))
    recent.reports([b"IAMAT kiwi +1+1 1"], [AT])
    recent.command(b"WHATSAT kiwi 1 1", Reply("whatsat", "left"))
    recent.command(Overlong(b"start"), Reply("other", "overlong", b"? start"))
    found = Reply("whatsat", "answered", AT + b"\n{}\n", None, Entry(AT, 10**9), "OK", 7)
    recent.command(b"WHATSAT kiwi 1 9", found)
    near = SearchResult([FoundClient(b"fig", Entry(AT, 10**9), 1.0)], None)
    query = AreaQuery("near", 9, around=b"kiwi", metres=5.0)
    recent.command(query, AreaReply("near", "answered", b"", result=near))
    assert recent.commands(0, MOST_KEPT) == [
        Command(1, at, "other", "invalid", r"FOO \x1b", r"? FOO \x1b"),
        Command(2, at, "iamat", "stored", "IAMAT kiwi +1+1 1", AT.decode()),
        Command(3, at, "whatsat", "left", "WHATSAT kiwi 1 1", ""),
        Command(4, at, "other", "overlong", "start", "? start"),
        Command(5, at, "whatsat", "answered", "WHATSAT kiwi 1 9", f"{AT.decode()} + 7 places, OK"),
        Command(6, at, "near", "answered", "near kiwi 5 9", "1 clients"),
    ]
    assert recent.number == len(recent) == 6


def test_whoever_asks_for_what_is_new_has_the_last_of_it_the_oldest_first(recent: Recent) -> None:
    for _ in range(5):
        recent.command(b"FOO", Reply("other", "invalid", b"? FOO"))
    assert numbers(recent, 0, 99) == [1, 2, 3, 4, 5]
    assert numbers(recent, 2, 99) == [3, 4, 5]
    assert numbers(recent, 2, 2) == [4, 5]
    assert numbers(recent, 5, 2) == []


@pytest.mark.parametrize("count", [MOST_KEPT - 1, MOST_KEPT, MOST_KEPT + 1, 3 * MOST_KEPT])
def test_of_a_long_run_of_reports_the_last_are_kept_under_their_own_numbers(
    recent: Recent, count: int
) -> None:
    recent.command(b"FOO", Reply("other", "invalid", b"? FOO"))
    answers = [b"AT Ann +1.000000000 kiwi%d +1+1 1" % number for number in range(count)]
    recent.reports([b"IAMAT kiwi%d +1+1 1" % number for number in range(count)], answers)
    assert recent.number == 1 + count
    kept = recent.commands(0, MOST_KEPT)
    assert [one.number for one in kept] == [*range(1, count + 2)][-MOST_KEPT:]
    assert kept[-1].answer.split()[3] == f"kiwi{count - 1}"
    assert recent.take_clients() == [b"kiwi%d" % number for number in range(count)][-MOST_KEPT:]


def test_clients_that_neighbours_tell_of_are_kept_too_each_once_and_told_once(recent: Recent) -> None:
    recent.reports([b"IAMAT kiwi +1+1 1"], [AT])
    recent.heard([b"plum", b"kiwi", b"fig"])
    assert recent.take_clients() == [b"kiwi", b"plum", b"fig"]
    assert recent.take_clients() == []
    assert numbers(recent, 0, 9) == [1], "what neighbours tell is no command"
    recent.heard([b"%d" % number for number in range(3 * MOST_KEPT)])
    assert recent.take_clients() == [b"%d" % number for number in range(2 * MOST_KEPT, 3 * MOST_KEPT)]


def test_nobody_looks_at_first_and_what_is_forgotten_is_gone_but_for_the_count(recent: Recent) -> None:
    assert not recent.wanted
    recent.wanted = True
    recent.reports([b"IAMAT kiwi +1+1 1"], [AT])
    recent.forget()
    assert not recent.wanted
    assert len(recent) == 0
    assert recent.take_clients() == []
    assert recent.commands(0, 9) == []
    recent.reports([b"IAMAT kiwi +1+1 1"], [AT])
    assert numbers(recent, 0, 9) == [2]


def test_no_more_is_kept_than_the_page_says(recent: Recent) -> None:
    lines = [b"IAMAT a%d +1+1 1" % number for number in range(3 * MOST_KEPT)]
    recent.reports(lines, [b"AT Ann +1.000000000 a%d +1+1 1" % number for number in range(3 * MOST_KEPT)])
    assert len(recent) == MOST_KEPT == 200
    assert recent.number == 3 * MOST_KEPT
    assert numbers(recent, 0, MOST_KEPT) == [*range(2 * MOST_KEPT + 1, 3 * MOST_KEPT + 1)]
    assert recent.commands(3 * MOST_KEPT - 2, MOST_KEPT)[0].command == lines[-2].decode()
    assert len(recent.take_clients()) == MOST_KEPT


def test_what_was_cut_looks_cut_and_nothing_else_does(recent: Recent) -> None:
    for size in (SHOWN_BYTES, SHOWN_BYTES + 1):
        line = b"x" * size
        recent.command(line, Reply("other", "invalid", line))
        recent.reports([line], [b"AT A 1 client".ljust(size, b"x")])
    whole, cut = recent.commands(0, MOST_KEPT)[:2], recent.commands(0, MOST_KEPT)[2:]
    assert all(len(text) == SHOWN_BYTES == 256 for one in whole for text in (one.command, one.answer))
    assert len(cut) == 2
    assert all(text.endswith("x …") for one in cut for text in (one.command, one.answer))


def test_commands_and_positions_of_an_erased_client_are_forgotten_and_those_of_others_are_not(
    recent: Recent,
) -> None:
    long = b"x" * 500
    recent.reports([b"IAMAT kiwi +1+1 1", b"IAMAT plum +1+1 1"], [AT, AT.replace(b"kiwi", b"plum")])
    recent.command(b"WHATSAT kiwi 1 1", Reply("whatsat", "unknown", b"? WHATSAT kiwi 1 1"))
    recent.command(b"WHATSAT " + long + b" 1 1", Reply("whatsat", "unknown", b"? WHATSAT " + long))
    others = (
        b"WHATSAT kiwis 1 1",
        b"WHATSAT ki 1 1",
        b"WHATSAT a.kiwi 1 1",
        b"FOO".ljust(500),
        b"WHATSAT " + b"y" * 500,
    )
    for line in others:
        recent.command(line, Reply("whatsat", "unknown", b"? " + line))
    recent.command(b"\tWHATSAT\vkiwi 1 1", Reply("whatsat", "left"))
    recent.heard([b"kiwi", b"fig", b"kiwi"])
    recent.erase({b"kiwi", b"unknown"})
    assert [one.number for one in recent.commands(0, MOST_KEPT)] == [2, 4, 5, 6, 7, 8, 9]
    recent.erase({long})
    assert [one.number for one in recent.commands(0, MOST_KEPT)] == [2, 5, 6, 7, 8, 9]
    assert recent.take_clients() == [b"plum", b"fig"]
    recent.reports([b"IAMAT kiwi +1+1 1"], [AT])
    assert recent.commands(0, MOST_KEPT)[-1].number == 11, "who reports again is shown again"
