"""The budget's laws: never more than allowed, whoever races, restarts, is killed or sets the clock; and a bounded file."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import stat
import tempfile
import threading
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from unittest.mock import patch

import pytest
from fake_google import message
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxyherd.base.files import make_file
from proxyherd.places.failures import FailedError, ShareError, UnrecordedError
from proxyherd.places.limits.budget import MEMORY, Budget, equal_share

MANY = 1_000_000
MINUTE, DAY = 60, 86_400
NOON = 1_800_000_000 - 1_800_000_000 % DAY + DAY // 2
"""A time at which a minute begins."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "places-budget.sqlite"


@pytest.fixture(autouse=True)
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.places.limits.budget.REST_SECONDS", 0.0)


def allows(budget: Budget, now: float) -> bool:
    """Record a call at that time; whether it may be made."""
    return budget._spend(now) is None


def spend_all(budget: Budget, now: float = NOON) -> int:
    """Spend until it refuses; how often it did not."""
    spent = 0
    while allows(budget, now):
        spent += 1
    return spent


def refusal(budget: Budget, now: float = NOON) -> str:
    """Return the words of a refusal."""
    error = budget._spend(now)
    assert error is not None
    assert (error.answer.status, error.again) == ("OVER_QUERY_LIMIT", False)
    return message(error.answer)


@given(st.integers(0, 10**9), st.integers(1, 200))
def test_shares_are_equal_but_for_one_and_add_up_to_the_last_call(of: int, parts: int) -> None:
    shares = [equal_share(of, part, parts) for part in range(parts)]
    assert sum(shares) == of
    assert max(shares) - min(shares) <= 1


# How much. ---------------------------------------------------------------------------------------------------


def test_exactly_as_many_as_allowed_and_the_refusal_names_the_key(file: Path) -> None:
    minute = Budget(file, 3, MANY)
    assert spend_all(minute) == 3
    assert refusal(minute) == "this server's share of places.calls_per_minute is used up"
    minute.close()
    day = Budget(file, MANY, 5)
    assert spend_all(day) == 2, "the same record"
    assert refusal(day) == "this server's share of places.calls_per_day is used up"
    day.close()


def test_what_is_spent_is_given_back_by_what_spending_returned(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxyherd.places.limits.budget.time.time", lambda: NOON + 0.9)
    budget = Budget(file, MANY, 1)
    spent = budget.spend()
    assert spent == NOON
    budget.give_back(spent)
    assert budget.spend() == NOON
    budget.close()


def test_no_lock_is_waited_for(file: Path) -> None:
    budget = Budget(file, MANY, MANY)
    assert allows(budget, NOON)
    assert budget._connection is not None
    assert budget._connection.execute("PRAGMA busy_timeout").fetchone() == (0,)
    budget.close()


def test_a_device_records_nothing() -> None:
    budget = Budget(Path("/dev/null"), MANY, MANY)
    assert "cannot record its calls" in refusal(budget)
    budget.close()


def test_the_time_is_the_systems_and_a_refusal_is_raised(file: Path) -> None:
    budget = Budget(file, MANY, 2)
    budget.spend()
    budget.spend()
    with pytest.raises(FailedError) as raised:
        budget.spend()
    assert raised.value.answer.status == "OVER_QUERY_LIMIT"
    budget.close()


@pytest.mark.parametrize(("per_minute", "per_day"), [(0, 0), (0, MANY), (MANY, 0)])
def test_a_budget_of_nothing_allows_nothing_ever(per_minute: int, per_day: int) -> None:
    budget = Budget(MEMORY, per_minute, per_day)
    assert not any(allows(budget, NOON + 7_000 * number) for number in range(100))
    budget.close()


def test_what_is_refused_costs_nothing() -> None:
    budget = Budget(MEMORY, 2, 3)
    assert spend_all(budget) == 2
    for _ in range(10):
        assert not allows(budget, NOON)
    assert allows(budget, NOON + 61), "a minute's refusals are not in the day's record"
    assert not allows(budget, NOON + 122)
    budget.close()


@pytest.mark.parametrize(
    ("begin", "later", "allowed"),
    [
        (0.0, 59.999, False),
        (0.999, 60.0, False),
        (0.999, 60.998, False),
        (0.0, 61.0, True),
        (0.999, 61.0, True),
        (30.5, 60.0, False),  # another minute of the clock, and the same window
        (59.999, 60.0, False),
    ],
)
def test_a_minute_slides(begin: float, later: float, allowed: bool) -> None:
    budget = Budget(MEMORY, 2, MANY)
    assert spend_all(budget, NOON + begin) == 2
    assert allows(budget, NOON + later) == allowed
    budget.close()


@pytest.mark.parametrize(
    ("begin", "later", "allowed"),
    [
        (0.0, DAY - 0.001, False),
        (59.999, DAY, False),
        (59.999, DAY + 59.998, False),
        (0.0, DAY + 60, True),
        (59.999, DAY + 60, True),
        (DAY / 2 - 1, DAY / 2, False),  # midnight is between them
        (-0.5, DAY - 1, False),
    ],
)
def test_a_day_slides(begin: float, later: float, allowed: bool) -> None:
    budget = Budget(MEMORY, MANY, 2)
    assert spend_all(budget, NOON + begin) == 2
    assert allows(budget, NOON + later) == allowed
    budget.close()


def most_within(times: list[float], seconds: float) -> int:
    """Return the most of these that lie within any so many seconds; the times ascend."""
    return max(
        (number + 1 - bisect_left(times, time - seconds) for number, time in enumerate(times)), default=0
    )


GAPS = st.one_of(
    st.just(0.0),
    st.floats(0, 1.5),
    st.floats(0, 70),
    st.floats(0, DAY),
    st.sampled_from([0.001, 0.999, 59.0, 59.999, 60.0, 60.001, DAY - 0.001, float(DAY), DAY + 59.0]),
)


@given(st.floats(0, 120), st.lists(GAPS, max_size=60))
@example(0.999, [0.0, 0.0, 59.0, 0.001, 0.0, 0.5, 60.0])
@settings(deadline=None, max_examples=200)
def test_in_no_minute_and_no_day_are_there_more_and_no_call_is_refused_without_need(
    begin: float, gaps: list[float]
) -> None:
    budget = Budget(MEMORY, 3, 7)
    now, made = NOON + begin, list[float]()
    for gap in gaps:
        now += gap
        if allows(budget, now):
            made.append(now)
        else:  # what a slot that reaches out of the window holds counts too
            recent = [sum(time > now - window for time in made) for window in (MINUTE + 1, DAY + 60)]
            assert recent[0] >= 3 or recent[1] >= 7
    budget.close()
    assert most_within(made, MINUTE) <= 3
    assert most_within(made, DAY) <= 7


# A clock that is set. ----------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 30), st.floats(0, 10)), max_size=40))
@settings(deadline=None, max_examples=150)
def test_a_clock_that_is_set_back_makes_no_calls_possible(steps: list[tuple[float, float]]) -> None:
    budget = Budget(MEMORY, 3, MANY)
    passed, back, made = 0.0, 0.0, list[float]()
    for seconds, step in steps:
        passed += seconds
        back += step if back + step < MINUTE - 1 else 0
        if allows(budget, NOON + passed - back):
            made.append(passed)
    budget.close()
    assert most_within(made, MINUTE) <= 3, "in the time that really passed"


@pytest.mark.parametrize(("window", "slot", "allowed"), [(MINUTE, 1, (2, MANY)), (DAY, 60, (MANY, 2))])
@pytest.mark.parametrize("back", [0.1, 0.5, 0.9, 1.0, 1.5, 10.0, 1_000.0])
def test_what_a_clock_that_was_set_back_has_yet_to_reach_is_spent_for_a_window_at_most(
    window: int, slot: int, allowed: tuple[int, int], back: float
) -> None:
    budget = Budget(MEMORY, *allowed)
    assert spend_all(budget) == 2
    now = NOON - back * window
    if back <= 1:
        assert not allows(budget, now)
        assert not allows(budget, NOON + window - slot), "what it reaches counts as ever"
        now = NOON + window + slot
    else:
        now += slot
    assert spend_all(budget, now) == 2
    budget.close()


# Races, restarts, kills. -------------------------------------------------------------------------------------


def run_threads(work: Callable[[], None], number: int = 6) -> None:
    """Let so many threads begin at once."""
    barrier = threading.Barrier(number)

    def run() -> None:
        barrier.wait()
        work()

    threads = [threading.Thread(target=run) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_that_share_it_do_not_stand_in_each_others_way_and_spend_exactly_what_there_is(
    file: Path,
) -> None:
    budget, made = Budget(file, MANY, 600), list[int]()
    run_threads(lambda: made.append(sum(allows(budget, NOON) for _ in range(100))))
    assert sum(made) == 600
    assert "is used up" in refusal(budget)
    budget.close()


def test_nobody_gets_in_between_the_look_at_what_is_left_and_the_record(file: Path) -> None:
    one, other = Budget(file, MANY, 2), Budget(file, MANY, 2)
    assert allows(one, NOON)
    between: list[bool] = []

    def get_in(statement: str) -> None:
        if statement.startswith("INSERT") and not between:
            between.append(allows(other, NOON))

    assert one._connection is not None
    one._connection.set_trace_callback(get_in)
    assert [allows(one, NOON), *between].count(True) == 1
    one.close()
    other.close()


def test_those_who_have_only_the_file_in_common_spend_no_more_than_there_is(file: Path) -> None:
    made: list[int] = []

    def spend() -> None:
        budget = Budget(file, MANY, 200)
        made.append(sum(allows(budget, NOON) for _ in range(60)))
        budget.close()

    run_threads(spend)
    last = Budget(file, MANY, 200)
    assert sum(made) + spend_all(last) == 200, "who found it locked made no call, and recorded none"
    last.close()


def test_a_restart_gives_nothing_back(file: Path) -> None:
    for expected in (1, 1, 1, 0, 0):
        budget = Budget(file, MANY, 3)
        assert allows(budget, NOON) == expected
        budget.close()


# What goes wrong at the disk. --------------------------------------------------------------------------------


def check_refuses_and_says_what_to_do(budget: Budget, file: Path) -> None:
    for _ in range(3):
        words = refusal(budget)
        assert "operator" in words
        assert f"delete {file.name}" in words
        assert str(file.parent) not in words, "a client need not know"


def check_works(budget: Budget, calls: int) -> None:
    assert spend_all(budget) == calls
    assert "is used up" in refusal(budget)
    budget.close()


def garbage(file: Path) -> None:
    file.write_bytes(Random(1).randbytes(20_000))


def few_bytes(file: Path) -> None:
    file.write_bytes(b"not a database")


def spoilt_pages(file: Path) -> None:
    budget = Budget(file, MANY, MANY)
    for number in range(2_000):
        assert allows(budget, NOON - 60 * number)
    budget.close()
    data = file.read_bytes()
    file.write_bytes(data[:4_096] + b"\xff" * (len(data) - 4_096))


def other_tables(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE spent (who TEXT)")
    connection.close()


def a_folder(file: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("damage", [garbage, few_bytes, spoilt_pages, other_tables, a_folder])
def test_a_file_that_is_none_allows_nothing_until_it_is_deleted(
    file: Path, damage: Callable[[Path], None]
) -> None:
    damage(file)
    budget = Budget(file, MANY, 3)
    check_refuses_and_says_what_to_do(budget, file)
    shutil.rmtree(file) if file.is_dir() else file.unlink()
    check_works(budget, 3)


def test_a_log_that_a_deleted_file_leaves_behind_does_no_harm(tmp_path: Path, file: Path) -> None:
    killed = Budget(before := tmp_path / "before", MANY, 20)
    assert sum(allows(killed, NOON) for _ in range(15)) == 15
    shutil.copy(f"{before}-wal", f"{file}-wal")  # as `kill -9` and an operator leave it
    killed.close()
    assert Path(f"{file}-wal").stat().st_size > 0
    budget = Budget(file, MANY, 20)
    assert spend_all(budget) in {5, 20}
    assert "is used up" in refusal(budget)
    budget.close()


def test_a_folder_that_comes_later_is_used_then(tmp_path: Path) -> None:
    file = tmp_path / "state" / "places-budget.sqlite"
    budget = Budget(file, MANY, 3)
    check_refuses_and_says_what_to_do(budget, file)
    assert "cannot record its calls (No such file or directory)" in refusal(budget)
    file.parent.mkdir()
    check_works(budget, 3)


def test_what_is_found_beside_the_file_is_closed_to_others_and_nothing_else_is_made(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def make(path: Path) -> None:
        made.append(path.name)
        make_file(path)

    monkeypatch.setattr("proxyherd.places.limits.budget.make_file", make)
    budget = Budget(file, MANY, 3)
    assert allows(budget, NOON)
    assert made == [file.name], "the others are for SQLite to make, if it wants them"
    beside = [file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm")]
    for path in beside:
        path.chmod(0o666)
    other = Budget(file, MANY, 3)  # as after a kill
    assert allows(other, NOON)
    assert {stat.S_IMODE(path.stat().st_mode) for path in beside} == {0o640}
    other.close()
    budget.close()


def test_a_connection_that_is_of_no_use_is_closed_at_once(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[str] = []

    class Watched(sqlite3.Connection):
        def close(self) -> None:
            closed.append("closed")
            super().close()

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Watched))
    file.write_bytes(b"not a database")
    budget = Budget(file, MANY, 3)
    for attempts in (1, 2):
        refusal(budget)
        assert len(closed) == attempts
    file.unlink()
    assert allows(budget, NOON)
    assert len(closed) == 2
    budget.close()
    assert len(closed) == 3


@contextmanager
def nobodys_rights() -> Iterator[None]:
    """Be no superuser for a while, whom no mode of a folder would stop."""
    if (user := os.geteuid()) != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(user)


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_that_cannot_be_written_allows_nothing_until_it_can(there: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "places-budget.sqlite"
        if there:
            check_works(Budget(file, MANY, 1), 1)
            file.chmod(0o444)
        Path(folder).chmod(0o555)
        budget = Budget(file, MANY, 3)
        with nobodys_rights():
            check_refuses_and_says_what_to_do(budget, file)
        Path(folder).chmod(0o777)
        if there:
            file.chmod(0o666)
        with nobodys_rights():
            check_works(budget, 2 if there else 3)


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow for a while: a limit does what a disk without room does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("before", [0, 2])
def test_a_full_disk_allows_nothing_until_there_is_room_and_then_what_was_left(
    file: Path, before: int
) -> None:
    budget = Budget(file, MANY, 5)
    assert sum(allows(budget, NOON) for _ in range(before)) == before
    with full_disk():
        words = [refusal(budget) for _ in range(3)]
    assert all("operator can see to the disk" in said for said in words)
    check_works(budget, 5 - before)


def test_a_file_that_somebody_holds_allows_nothing_until_it_is_let_go(file: Path) -> None:
    budget = Budget(file, MANY, 3)
    assert allows(budget, NOON)
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert "locked" in refusal(budget)
    holder.execute("ROLLBACK")
    holder.close()
    check_works(budget, 2)


# How large. --------------------------------------------------------------------------------------------------


def rows(file: Path) -> int:
    connection = sqlite3.connect(file)
    (number,) = connection.execute("SELECT count(*) FROM spent").fetchone()
    connection.close()
    return int(number)


def test_weeks_of_calls_with_a_clock_that_is_set_leave_a_file_as_small_as_a_days(file: Path) -> None:
    budget, dice, now, most = Budget(file, MANY, MANY), Random(3), NOON, 0
    for number in range(14_000):
        assert allows(budget, now)
        now += dice.choice([1, 59, 60, 60, 61, 120])
        if number % 2_000 == 1_999:
            most = max(most, rows(file))
            now += dice.choice([-3 * DAY, -DAY, -DAY // 2, 3 * DAY])
    most = max(most, rows(file))
    budget.close()
    assert 1_000 < most <= 1_600
    assert file.stat().st_size < 200_000
    assert [path.name for path in file.parent.iterdir()] == [file.name], (
        "closed, it leaves nothing else behind"
    )


def test_the_log_beside_the_file_stays_small_while_it_is_open(file: Path) -> None:
    budget = Budget(file, MANY, MANY)
    for number in range(10_000):
        assert allows(budget, NOON + number)
    assert sum(path.stat().st_size for path in file.parent.iterdir()) < 6_000_000
    budget.close()


def test_what_failed_is_left_alone_for_a_while(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxyherd.places.limits.budget.REST_SECONDS", 60.0)
    file.mkdir()
    budget = Budget(file, MANY, MANY)
    words = refusal(budget)
    file.rmdir()
    assert refusal(budget) == words
    assert not file.exists()
    monkeypatch.setattr(budget, "_rests_until", 0.0)
    assert allows(budget, NOON)


def test_what_is_given_back_can_be_spent_again_in_its_own_slots(file: Path) -> None:
    budget = Budget(file, 2, 3)
    assert spend_all(budget) == 2
    budget.give_back(NOON)
    assert spend_all(budget) == 1
    budget.give_back(NOON - MINUTE)  # of a minute that holds none
    assert spend_all(budget) == 0
    assert spend_all(budget, NOON + 2 * MINUTE) == 1
    budget.close()


def test_a_record_that_cannot_be_made_is_another_error_than_one_at_its_end(file: Path) -> None:
    file.mkdir()
    with pytest.raises(UnrecordedError):
        Budget(file, MANY, MANY).spend()
    used_up = Budget(file.with_name("other"), 0, 0)
    with pytest.raises(FailedError) as caught:
        used_up.spend()
    assert not isinstance(caught.value, UnrecordedError)


# Shares of askers. ------------------------------------------------------------------------------------------------


def spend_for(budget: Budget, asker: str | None, now: float = NOON) -> int:
    """Spend for an asker until it is refused; return how often it was not."""
    spent = 0
    while budget._spend(now, asker) is None:
        spent += 1
    return spent


@pytest.mark.parametrize(
    ("per_minute", "per_day", "key"), [(120, 10_000, "minute"), (10_000, 120, "day")], ids=["minute", "day"]
)
def test_an_asker_gets_its_share_of_what_others_have_left_of_either_window(
    file: Path, per_minute: int, per_day: int, key: str
) -> None:
    budget = Budget(file, per_minute, per_day, 0.5)
    assert [spend_for(budget, asker) for asker in ("ann", "bob", "cyd", "ann")] == [60, 30, 15, 0]
    error = budget._spend(NOON, "ann")
    assert isinstance(error, ShareError)
    assert error.answer.status == "OVER_QUERY_LIMIT"
    assert f"your share of this server's places.calls_per_{key}" in message(error.answer)
    assert not error.again, "the circuit breaker stays closed"
    assert spend_for(budget, None) == 15, "what is left is left for others"
    assert not isinstance(budget._spend(NOON, "dot"), ShareError), "it is not a share that is used up now"


def test_after_a_restart_shares_begin_anew_and_the_budget_does_not(file: Path) -> None:
    assert spend_for(Budget(file, 120, 10_000, 0.5), "ann") == 60
    assert spend_for(Budget(file, 120, 10_000, 0.5), "ann") == 30


def test_a_call_that_was_not_made_counts_for_nobody(file: Path) -> None:
    budget = Budget(file, 120, 10_000, 0.5)
    for _ in range(500):
        assert budget._spend(NOON, "ann") is None
        budget.give_back(int(NOON), "ann")
    assert spend_for(budget, "ann") == 60


def test_a_call_that_cannot_be_recorded_counts_for_nobody(file: Path) -> None:
    budget = Budget(file, 4, 10_000, 0.5)
    with patch.object(Budget, "_open", side_effect=OSError(28, "No space left on device")):
        for _ in range(5):
            assert isinstance(budget._spend(NOON, "ann"), UnrecordedError)
    assert spend_for(budget, "ann") == 2
