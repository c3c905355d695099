"""Rights: what a token allows to say, decided by what the rules would make of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxyherd.core.area_queries import AreaQuery
from proxyherd.core.framing import Denied, Line, Overlong
from proxyherd.core.messages import Forget, parse_question, parse_report
from proxyherd.core.spatial.areas import Box, Circle
from proxyherd.web.ids import id_of
from proxyherd.web.rights import RIGHTS, Grant, Right, covers, permitted, revocation

REPORT, QUESTION, ERASURE = b"IAMAT %b +1+2 3", b"WHATSAT %b 10 5", Forget(b"kiwi")
COMMANDS: dict[Right, Line] = {
    "report": REPORT % b"kiwi",
    "see": QUESTION % b"kiwi",
    "erase": ERASURE,
    "operate": Forget(revocation("kiwi")),
}


def grant(subject: str = "kiwi", *may: Right, see: tuple[str, ...] | None = None) -> Grant:
    return Grant(subject, frozenset(may), (subject,) if see is None else see, 0, 0, 0, "")


def allows(allowed: Grant, line: Line) -> bool:
    [said] = permitted([line], allowed)
    assert said == line or said == Denied(line)  # type: ignore[arg-type]
    return said == line


@pytest.mark.parametrize("right", RIGHTS)
def test_each_command_needs_its_own_right_and_no_other(right: Right) -> None:
    assert allows(grant("kiwi", right), COMMANDS[right])
    others = grant("kiwi", *{*RIGHTS} - {right})
    assert not allows(others, COMMANDS[right])
    assert [allows(others, line) for one, line in COMMANDS.items() if one != right] == [True] * 3


@pytest.mark.parametrize("line", [REPORT % b"bob", QUESTION % b"bob", Forget(b"bob")])
def test_a_right_is_about_the_subject_alone(line: Line) -> None:
    assert not allows(grant("kiwi", *RIGHTS), line)
    assert allows(grant("*", *RIGHTS), line)


def test_who_may_see_others_may_not_report_or_erase_them() -> None:
    allowed = grant("kiwi", *RIGHTS, see=("bob", "jane/*"))
    assert [allows(allowed, QUESTION % client) for client in (b"bob", b"jane/1", b"kiwi", b"jane")] == [
        *(True, True, False, False)
    ]
    assert not allows(allowed, REPORT % b"bob")
    assert not allows(allowed, Forget(b"jane/1"))


@pytest.mark.parametrize(
    ("name", "client", "is_covered"),
    [
        ("jane/*", b"jane/phone", True),
        ("jane/*", b"jane/", True),
        ("jane/*", b"jane", False),
        ("jane/*", b"Jane/phone", False),
        ("*", b"\xff", True),
        ("kiwi", b"kiwi2", False),
        ("kiwi*", b"kiwi*", True),
        ("my phone", b"my%20phone", True),
        ("my *", b"my%20phone", True),
        # Names are compared, not IDs: the ID of "a " begins with "a%2", and its name does not.
        ("a%2*", b"a%20", False),
        ("a%2*", b"a%2520", True),
        ("%FF", b"\xff", True),
        ("", b"kiwi", False),
    ],
)
def test_names_are_compared_as_they_are_spelled_in_json(name: str, client: bytes, is_covered: bool) -> None:
    assert covers([name], client) is is_covered


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_name_covers_one_client(one: str, other: str) -> None:
    try:
        client, subject = id_of(one), other.rstrip("*")
    except Exception:  # noqa: BLE001 - no ID has this name
        return
    assert covers([subject], client) is (subject == one)
    assert covers([f"{subject}*"], client) is one.startswith(subject)


SPACES = st.text(" \t\n\v\f\r\0x", max_size=3).map(str.encode)


@given(st.sampled_from([b"IAMAT", b"WHATSAT", b"iamat", b"AT"]), SPACES, SPACES, st.binary(max_size=8))
def test_no_spelling_of_a_command_gets_past(
    word: bytes, before: bytes, between: bytes, client: bytes
) -> None:
    """Whatever the rules take for a command about another client is denied."""
    nobody = grant("\0nobody", *RIGHTS)
    for rest in (b" +1+2 3", b" 10 5", b"", b" x"):
        line = before + word + between + client + rest
        if not allows(nobody, line):
            continue
        assert parse_report(line, b"Clark", 0) is None
        assert parse_question(line) is None


def test_what_is_no_command_is_left_to_the_rules() -> None:
    nobody = grant("nobody")
    lines: list[Line] = [b"", b"FOO", b"IAMAT", b"AT x", Overlong(b"IAMAT kiwi")]
    assert permitted(lines, nobody) == lines


def test_what_was_denied_stays_so_and_the_order_too() -> None:
    allowed = grant("kiwi", "see")
    lines: list[Line] = [b"FOO", QUESTION % b"kiwi", QUESTION % b"bob", Denied(b"x")]
    assert permitted(lines, allowed) == [*lines[:2], Denied(QUESTION % b"bob"), Denied(b"x")]


def test_only_the_subject_of_one_client_is_a_client() -> None:
    assert (grant("kiwi").client, grant("jane/*").client) == ("kiwi", "")


def test_no_client_has_the_id_by_which_a_subject_is_revoked() -> None:
    assert revocation("kiwi").split() != [revocation("kiwi")]
    assert revocation("kiwi") != revocation("kiwi*")


AREAS = [
    AreaQuery("near", 5, Circle(0.0, 0.0, 1.0)),
    AreaQuery("near", 5, around=b"kiwi", metres=1.0),
    AreaQuery("within", 5, Box(0.0, 0.0, 1.0, 1.0)),
]


@pytest.mark.parametrize("query", AREAS, ids=["near", "around", "within"])
def test_a_query_of_an_area_is_told_whom_its_token_sees(query: AreaQuery) -> None:
    [said] = permitted([query], grant("*", "see", see=("kiwi", "jane/*")))
    assert isinstance(said, AreaQuery)
    assert said.sees is not None
    assert [*map(said.sees, (b"kiwi", b"jane/1", b"bob"))] == [True, True, False]
    assert permitted([query], grant("*", "see", see=("kiwi", "*"))) == [query]  # nobody need be looked at
    assert permitted([query], grant("*", "report", "erase", "operate")) == [Denied(query)]


def test_nobody_is_near_a_client_that_the_token_does_not_see() -> None:
    around = AreaQuery("near", 5, around=b"bob", metres=1.0)
    assert permitted([around], grant("kiwi", "see")) == [Denied(around)]
