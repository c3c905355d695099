"""The judge: what becomes of a line, whatever the engine, and what is decided by what an engine holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.config.schema import Limits
from proxyherd.core.framing import Line, Overlong
from proxyherd.core.messages import Entry, Forget, Report, Whatsat, parse_question
from proxyherd.core.reply import Reply
from proxyherd.core.rules import Rules, find, not_stored, refuse
from proxyherd.places.answers import no_results

SECOND = 10**9


def iamat(client: str = "kiwi", time: str = "5") -> bytes:
    return f"IAMAT {client} +1+1 {time}".encode()


def taken(client: str = "kiwi", time: str = "5", after: int = 0) -> Report:
    """The report of `iamat`, as Clark has received it in second 5, or so many nanoseconds later."""
    nanoseconds = int(float(time) * SECOND)
    difference = f"{(5 * SECOND + after - nanoseconds) / SECOND:+.9f}"
    return Report(client.encode(), f"AT Clark {difference} {client} +1+1 {time}".encode(), nanoseconds)


def rules(**limits: float) -> Rules:
    return Rules("Clark", Limits(**limits))  # type: ignore[arg-type] # numbers all


def test_a_report_has_the_line_that_it_is_answered_with_and_stored_as() -> None:
    assert rules().judge([iamat(), b" IAMAT\tfig +1+1 6\r"], 5 * SECOND) == (
        [taken(), taken("fig", "6", 1)],
        [],
    )


@pytest.mark.parametrize(
    ("line", "judged"),
    [
        (b"WHATSAT kiwi 10 5", Whatsat(b"kiwi", b"10", 5)),
        (b"WHATSAT kiwi 51 5", Reply("whatsat", "invalid", b"? WHATSAT kiwi 51 5")),
        (b"", Reply("other", "invalid", b"? ")),
        (b"IAMAT kiwi +91+1 5", Reply("iamat", "invalid", b"? IAMAT kiwi +91+1 5")),
        (Overlong(b"IAMAT kiwi +1+1 5"), Reply("other", "overlong", b"? IAMAT kiwi +1+1 5")),
    ],
)
def test_what_is_behind_the_first_line_that_is_no_report_stands_in_its_order(
    line: bytes | Overlong, judged: Whatsat | Reply
) -> None:
    judge = rules(max_clock_lead_seconds=60).judge
    assert judge([line], 5 * SECOND) == ([], [judged])
    assert judge([iamat(), iamat("fig"), line, iamat("plum")], 5 * SECOND) == (
        [taken(), taken("fig", after=1)],
        [judged, taken("plum", after=3)],
    )


def test_a_command_whose_id_is_too_long_is_refused_for_that_if_all_else_is_right() -> None:
    judge, long = rules(max_client_bytes=64).judge, "k" * 65
    fits = "k" * 64
    assert judge([iamat(fits)], 5 * SECOND) == ([taken(fits)], [])
    for kind, line, is_right in (
        ("iamat", iamat(long), True),
        ("whatsat", b"WHATSAT %b 0 0" % long.encode(), True),
        ("iamat", iamat(long, "5x"), False),
        ("whatsat", b"WHATSAT %b 51 0" % long.encode(), False),
        ("iamat", b"IAMAT kiwi +1.%b+1 5x" % (b"1" * 65), False),
        ("other", b"FOO " + long.encode(), False),
    ):
        outcome, refusal = ("refused", "long_id") if is_right else ("invalid", "")
        reply = Reply(kind, outcome, b"? " + line, refusal=refusal)  # type: ignore[arg-type] # a word above
        assert judge([line, iamat()], 5 * SECOND) == ([], [reply, taken(after=1)])


LINES = st.sampled_from(
    [iamat(), iamat("fig", "9"), b"WHATSAT kiwi 10 5", b"FOO", Overlong(b"IAMAT"), Forget(b"kiwi")]
)


@given(
    taken=st.lists(st.lists(LINES, max_size=3), max_size=4)
    | st.lists(LINES.map(lambda line: [line]), max_size=4),
    takes_reports=st.booleans(),
)
def test_the_lines_of_several_clients_are_judged_as_those_of_each(
    taken: list[list[Line]], takes_reports: bool
) -> None:
    it = rules()
    it.begin(5 * SECOND, takes_reports=takes_reports)
    reports, others = it.judge_each(taken, 5 * SECOND)
    judged = [([*own], [*rest]) for own, rest in zip(reports, others, strict=False)]
    assert judged == [it.judge(own, 5 * SECOND) for own in taken]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_each_line_is_parsed_once(monkeypatch: pytest.MonkeyPatch, one_by_one: bool) -> None:
    parsed: list[tuple[str, bytes]] = []
    for name in ("parse_report", "parse_question"):
        parse = getattr(__import__("proxyherd.core.rules", fromlist=[name]), name)

        def counting(line: bytes, *more: object, name: str = name, parse: object = parse) -> object:
            parsed.append((name, line))
            return parse(line, *more)  # type: ignore[operator] # it is what it replaces

        monkeypatch.setattr(f"proxyherd.core.rules.{name}", counting)
    lines = [iamat(), b"WHATSAT kiwi 10 5", b"FOO", iamat(time="1")]
    if one_by_one:
        rules().judge_each([[line] for line in lines], 5 * SECOND)
    else:
        rules().judge(lines, 5 * SECOND)
    assert [line for name, line in parsed if name == "parse_report"] == lines
    assert [line for name, line in parsed if name == "parse_question"] == lines[1:3]


def test_a_time_counts_up_to_the_lead_and_no_report_is_refused_for_its_time() -> None:
    lines = [iamat(time=time) for time in ("65", "65.000000001", "999999999999.999999999")]
    for lead, counts in ((60, [65, 65, 65]), (0, [5, 5, 5]), (0.5, [5.5, 5.5, 5.5])):
        reports, others = rules(max_clock_lead_seconds=lead).judge(lines, 5 * SECOND)
        expected = [
            one * SECOND + after for after, one in enumerate(counts)
        ]  # each received after the last one
        assert ([report.nanoseconds for report in reports], others) == (expected, [])


def test_while_no_reports_are_taken_each_is_refused_and_questions_are_judged_as_ever() -> None:
    judge = rules()
    judge.begin(5 * SECOND, takes_reports=False)
    lines = [iamat(time="0"), b"WHATSAT kiwi 10 5"]
    expected = [
        Reply("iamat", "refused", b"? IAMAT kiwi +1+1 0", refusal="journal"),
        Whatsat(b"kiwi", b"10", 5),
    ]
    assert judge.judge(lines, 5 * SECOND) == ([], expected)
    judge.begin(6 * SECOND, takes_reports=True)
    assert len(judge.judge(lines, 5 * SECOND)[0]) == 1
    judge.refuse_reports()
    assert judge.judge(lines, 5 * SECOND) == ([], expected)


@pytest.mark.parametrize(("held", "outcome"), [("4", "refused"), ("5", "stale"), ("6", "stale")])
def test_a_report_that_was_not_stored_is_stale_if_what_is_held_is_as_late(held: str, outcome: str) -> None:
    one = taken(time=held)
    reply = not_stored(taken(), iamat(), Entry(one.line, one.nanoseconds))
    answer = taken().line if outcome == "stale" else b"? " + iamat()
    assert (reply.kind, reply.outcome, reply.answer) == ("iamat", outcome, answer)
    assert reply.refusal == ("full" if outcome == "refused" else "")
    assert not_stored(taken(), iamat(), None) == Reply("iamat", "refused", b"? " + iamat(), refusal="full")


def test_what_is_held_and_too_old_is_as_good_as_not_held() -> None:
    judge, entry = rules(max_age_seconds=10), Entry(taken().line, 5 * SECOND)
    for clock, remembered in ((15 * SECOND, entry), (15 * SECOND + 1, None)):
        judge.clock = clock
        assert judge.remembered(entry) == remembered
        assert judge.is_forgotten(entry) == judge.is_too_old(5 * SECOND) == (remembered is None)
    assert judge.remembered(None) is None
    for_ever = rules()
    for_ever.clock = 10**21
    assert for_ever.remembered(entry) is entry
    assert not for_ever.is_too_old(0)


def query(line: bytes) -> Reply:
    return Reply("whatsat", "waiting", None, parse_question(line))


def test_a_question_knows_what_was_found_and_one_without_room_is_refused() -> None:
    line, entry = b"WHATSAT kiwi 10 5", Entry(taken().line, 5 * SECOND)
    found, unknown, refused = (query(line) for _ in range(3))
    find(found, line, entry)
    find(unknown, line, None)
    refuse(refused, line)
    assert (found.outcome, found.answer, found.entry) == ("found", None, entry)
    assert (unknown.outcome, unknown.answer, unknown.entry) == ("unknown", b"? " + line, None)
    assert (refused.outcome, refused.answer, refused.refusal) == ("refused", b"? " + line, "full")
    refuse(refused, line, "journal")
    assert refused.refusal == "journal"


@pytest.mark.parametrize("wanted", [b"0 5", b"0.000 5", b"00 5", b"10 0", b"0 0"])
def test_a_question_that_asks_for_no_places_has_its_answer_at_once(wanted: bytes) -> None:
    line, entry = b"WHATSAT kiwi " + wanted, Entry(taken().line, 5 * SECOND)
    reply = query(line)
    find(reply, line, entry)
    assert (reply.outcome, reply.status, reply.results) == ("answered", "ZERO_RESULTS", 0)
    assert reply.answer == entry.line + b"\n" + no_results("ZERO_RESULTS").body + b"\n"
    assert reply.entry == entry, "the log has its AT line alone"


@pytest.mark.parametrize("wanted", [b"0.001 1", b"50 20", b"010 1"])
def test_a_question_that_asks_for_places_waits_for_them(wanted: bytes) -> None:
    line = b"WHATSAT kiwi " + wanted
    reply = query(line)
    find(reply, line, Entry(taken().line, 5 * SECOND))
    assert (reply.outcome, reply.answer) == ("found", None)
