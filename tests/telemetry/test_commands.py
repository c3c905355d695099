"""What the log and the metrics say of commands."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from observed import read
from scenarios import CLIENT, LABEL, VIA, Scenario, Watched, assert_exactly, line

from proxyherd.core.area_queries import AreaKind, AreaQuery, AreaReply
from proxyherd.core.framing import Overlong
from proxyherd.core.messages import Entry
from proxyherd.core.reply import Refusal, Reply
from proxyherd.core.spatial.areas import Circle
from proxyherd.core.spatial.search import FoundClient, SearchResult
from proxyherd.telemetry.commands import COMMANDS, REFUSALS, WAYS
from proxyherd.telemetry.frequent import label

BY_PROTOCOL = "proxyherd_commands_by_protocol_total"
AT = b"AT Bob +0.1 kiwi +1+1 5"
SECOND = 10**9


REASONS: list[Refusal] = ["full", "journal", "not_ready", "no_index", "key", "long_id"]
AREAS: tuple[AreaKind, ...] = ("near", "within")


def test_each_reason_of_a_refusal_is_a_value_of_its_label() -> None:
    others = {"overlong", "limit"}
    assert {*get_args(Refusal), *others} - {""} == REFUSALS.keys() == {*REASONS, *others}


def command(reply: Reply, said: bytes | Overlong = b"said", **more: Any) -> Scenario:
    answer = None if reply.answer is None else reply.answer.decode()
    fields = {
        "client": CLIENT,
        "via": VIA,
        "kind": reply.kind,
        "outcome": reply.outcome,
        "command": "said",
        "answer": answer,
    }
    reason = reply.refusal or (reply.outcome if reply.outcome == "overlong" else "")
    refused = {f"proxyherd_commands_refused_total {reason}": 1} if reason else {}
    return Scenario(
        lambda it: it.observer.commands.alike(LABEL, [said], [reply]),
        [line("command", **fields | more | ({"reason": reason} if reason else {}))],
        {
            f"proxyherd_commands_total {reply.kind} {reply.outcome}": 1,
            f"{BY_PROTOCOL} {VIA} {reply.outcome}": 1,
            **refused,
        },
    )


def replies() -> Iterator[tuple[str, Scenario]]:
    for kind, outcome, _ in COMMANDS:
        if kind in AREAS and outcome == "answered":
            continue
        answer = {"unanswered": None, "left": b""}.get(outcome, b"? said")
        if outcome == "answered":
            places = Reply(kind, outcome, AT + b"\n{}\n", entry=Entry(AT, 5 * SECOND), status="OK", results=3)
            more: dict[str, Any] = {"answer": AT.decode(), "status": "OK", "results": 3, "bytes": len(AT) + 5}
            yield f"{kind} {outcome}", command(places, **more)
        elif outcome != "stored":
            said = Overlong(b"said") if outcome == "overlong" else b"said"
            refusals: list[Refusal] = REASONS if outcome == "refused" else [""]
            for refusal in refusals:
                reply = Reply(kind, outcome, answer, refusal=refusal)
                yield f"{kind} {outcome} {refusal}".strip(), command(reply, said)


def alike(kind: str, outcome: str) -> Scenario:
    """Three commands in a row with the same result, each with its own words."""
    said: list[bytes | Overlong] = [b"said %d" % n for n in range(3)]
    if outcome == "overlong":
        said[1] = Overlong(b"said 1")
    answers = [{"unanswered": None, "left": b""}.get(outcome, b"? %d" % n) for n in range(3)]
    told: list[dict[str, Any]] = [
        {
            "client": CLIENT,
            "via": VIA,
            "kind": kind,
            "outcome": outcome,
            "command": f"said {n}",
            "answer": None if answer is None else answer.decode(),
        }
        for n, answer in enumerate(answers)
    ]
    found = [Reply(kind, outcome, answer) for answer in answers]
    reasons = {"overlong": ["overlong"] * 3, "refused": ["full", "journal", "full"]}.get(outcome, [])
    if outcome == "refused":
        found[0].refusal, found[1].refusal, found[2].refusal = "full", "journal", "full"
    for one, reason in zip(told, reasons, strict=False):
        one["reason"] = reason
    if outcome == "answered":
        for n, reply in enumerate(found):
            reply.entry, reply.status, reply.results = Entry(b"AT %d" % n, n), "OK" * (n + 1), n
            reply.answer = b"AT %d\n" % n + n * b"{}"
            told[n] |= {"answer": f"AT {n}", "status": reply.status, "results": n, "bytes": 2 * n + 6}
    return Scenario(
        lambda it: it.observer.commands.alike(LABEL, said, found),
        [line("command", **fields) for fields in told],
        {
            f"proxyherd_commands_total {kind} {outcome}": 3,
            f"{BY_PROTOCOL} {VIA} {outcome}": 3,
            **{f"proxyherd_commands_refused_total {reason}": n for reason, n in Counter(reasons).items()},
        },
    )


def searched(kind: AreaKind) -> Scenario:
    """An answered query of places, and queries of areas, in a row."""
    entry = Entry(AT, 5 * SECOND)
    found = [FoundClient(b"kiwi", entry, 1.0)] * 3
    areas = [AreaReply(kind, "answered", b"", result=SearchResult(found[:n], None)) for n in (3, 0)]
    places = Reply("whatsat", "answered", AT + b"\n{}\n", entry=entry, status="OK")
    queries = [AreaQuery(kind, n, Circle(1.0, 2.0, 5.0)) for n in (3, 4)]
    about = {"client": CLIENT, "via": VIA}
    return Scenario(
        lambda it: it.observer.commands.alike(LABEL, [b"said", *queries], [places, *areas]),
        [
            line(
                "command",
                **about,
                kind="whatsat",
                outcome="answered",
                command="said",
                answer=AT.decode(),
                status="OK",
                results=0,
                bytes=len(AT) + 5,
            ),
            line("command", **about, kind=kind, outcome="answered", command=f"{kind} +1+2 5 3", results=3),
            line("command", **about, kind=kind, outcome="answered", command=f"{kind} +1+2 5 4", results=0),
        ],
        {
            "proxyherd_commands_total whatsat answered": 1,
            f"proxyherd_commands_total {kind} answered": 2,
            f"{BY_PROTOCOL} {VIA} answered": 3,
        },
    )


def reports(count: int, via: str = VIA) -> Scenario:
    said, answers = [b"IAMAT %d" % n for n in range(count)], [b"AT %d" % n for n in range(count)]
    return Scenario(
        lambda it: it.observer.commands.reports([label(CLIENT, via)] * count, said, answers),
        [
            line(
                "command",
                client=CLIENT,
                via=via,
                kind="iamat",
                outcome="stored",
                command=f"IAMAT {n}",
                answer=f"AT {n}",
            )
            for n in range(count)
        ],
        {"proxyherd_commands_total iamat stored": count, f"{BY_PROTOCOL} {via} stored": count},
    )


def many_commands(it: Watched) -> None:
    for _ in range(1_003):
        it.observer.commands.alike(LABEL, [b""], [Reply("other", "invalid", b"? ")])
    it.observer.tick()
    it.clock.now += 10.0
    it.observer.tick()


SCENARIOS: dict[str, Scenario] = {
    **dict(replies()),
    "a request that came too fast": Scenario(
        lambda it: it.observer.commands.came_too_fast(), [], {"proxyherd_commands_refused_total limit": 1}
    ),
    **{
        f"three times {kind} {outcome}": alike(kind, outcome)
        for kind, outcome, _ in COMMANDS
        if outcome != "stored" and not (kind in AREAS and outcome == "answered")
    },
    **{f"{kind} answered": searched(kind) for kind in AREAS},
    "a report": reports(1),
    "reports": reports(3),
    "a client that has said no whole line": Scenario(
        lambda it: it.observer.commands.reports([], [], []), [], {}
    ),
    "reports of several clients": Scenario(
        lambda it: [reports(count, via).act(it) for count, via in ((1, VIA), (2, "http"), (1, VIA))],
        [*reports(1).events, *reports(2, "http").events, *reports(1).events],
        {
            "proxyherd_commands_total iamat stored": 4,
            f"{BY_PROTOCOL} {VIA} stored": 2,
            f"{BY_PROTOCOL} http stored": 2,
        },
    ),
    **{f"reports that came so: {via}": reports(2, via) for via in WAYS},
    "commands in numbers": Scenario(
        many_commands,
        [line("command", client=CLIENT, via=VIA, kind="other", outcome="invalid", command="", answer="? ")]
        * 1_000
        + [
            line(
                "commands_left_out",
                "warning",
                commands=3,
                outcomes={"other invalid": 3},
                addresses={"10.0.0.1": 3},
            )
        ],
        {"proxyherd_commands_total other invalid": 1_003, f"{BY_PROTOCOL} {VIA} invalid": 1_003},
    ),
}


def test_commands_are_counted_by_how_they_came_those_of_the_line_protocol_too(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    commands = watched.observer.commands
    for number, via in enumerate(WAYS, 1):
        client = label(CLIENT, via)
        commands.reports([client] * number, [b"IAMAT"] * number, [b"AT"] * number)
        commands.alike(client, [b"FOO"] * 2, [Reply("other", "invalid", b"? FOO")] * 2)
    commands.alike(label(CLIENT, "lines"), [b"IAMAT"], [Reply("iamat", "stale", b"AT")])
    _, figures = watched.end()
    assert {name: value for name, value in figures.items() if name.startswith(BY_PROTOCOL)} == {
        **{f"{BY_PROTOCOL} {via} stored": number for number, via in enumerate(WAYS, 1)},
        **{f"{BY_PROTOCOL} {via} invalid": 2 for via in WAYS},
        f"{BY_PROTOCOL} lines stale": 1,
    }


def test_commands_in_a_row_may_be_of_several_kinds(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    kinds = ["iamat", "other", "iamat", "whatsat"]
    lines = [b"%d" % number for number in range(4)]
    replies = [Reply(kind, "invalid", b"? " + one) for kind, one in zip(kinds, lines, strict=True)]
    watched.observer.commands.alike(LABEL, lines, replies)
    events, figures = watched.end()
    assert [(event["kind"], event["command"], event["answer"]) for event in events] == [
        (kind, one.decode(), f"? {one.decode()}") for kind, one in zip(kinds, lines, strict=True)
    ]
    assert {name: value for name, value in figures.items() if "commands_total" in name and value} == {
        "proxyherd_commands_total iamat invalid": 2,
        "proxyherd_commands_total other invalid": 1,
        "proxyherd_commands_total whatsat invalid": 1,
    }


@pytest.mark.parametrize("rows", [1, 2])
def test_a_token_in_a_request_that_was_meant_for_the_web_port_is_not_told(tmp_path: Path, rows: int) -> None:
    watched = Watched(tmp_path)
    watched.observer.commands._recent.wanted = True
    said = b"GET /t/eyJ.secret-token/v1/clients/jane?x=1 HTTP/1.1\r", b"FOO /t/eyJ.no-request"
    for one in said:
        replies = [Reply("other", "invalid", b"? " + one) for _ in range(rows)]
        watched.observer.commands.alike(LABEL, [one] * rows, replies)
        assert [reply.answer for reply in replies] == [b"? " + one] * rows, "the client is answered as always"
    recent = watched.observer.commands._recent.commands(0, 9)
    events, _ = watched.end()
    for told in (
        *((event["command"], event["answer"]) for event in events),
        *((o.command, o.answer) for o in recent),
    ):
        assert "secret-token" not in "".join(told)
    assert len(events) == len(recent) == 2 * rows
    assert events[0]["command"].startswith("GET /t/.../v1/clients/jane?x=1 HTTP/1.1")
    assert events[-1]["command"] == said[1].decode()


def test_of_commands_in_a_row_as_many_are_logged_as_are_left_of_the_limit(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for count in (997, 5, 5):
        lines = [b"%d" % number for number in range(count)]
        watched.observer.commands.alike(
            LABEL, lines, [Reply("other", "invalid", b"? " + one) for one in lines]
        )
    watched.observer.commands.tell_left_out()
    events, _ = watched.end()
    assert [event["command"] for event in events[997:-1]] == ["0", "1", "2"]
    assert [event["answer"] for event in events[997:-1]] == ["? 0", "? 1", "? 2"]
    assert events[-1]["commands"] == 7


@pytest.mark.parametrize("name", SCENARIOS)
def test_exactly_this_is_logged_and_counted(tmp_path: Path, name: str) -> None:
    assert_exactly(SCENARIOS[name], tmp_path)


def test_where_nothing_was_left_out_nothing_is_told_of_it(tmp_path: Path) -> None:
    watched = Watched(tmp_path)
    for _ in range(100):
        watched.clock.now += 1.0
        watched.observer.commands.tick()
    watched.observer.commands.tell_left_out()
    events, _ = watched.end()
    assert events == []


@pytest.mark.parametrize("seconds", [9.9, 10.0])
def test_what_was_left_out_is_told_every_ten_seconds(tmp_path: Path, seconds: float) -> None:
    watched = Watched(tmp_path)
    counts = []
    for _ in range(3):
        for _ in range(5_000):
            watched.observer.commands.alike(LABEL, [b""], [Reply("other", "invalid", b"? ")])
        watched.clock.now += seconds
        watched.observer.commands.tick()
        watched.observer.end_turn()
        counts.append(sum(event["event"] == "commands_left_out" for event in read(watched.path)))
    assert counts == ([1, 2, 3] if seconds == 10.0 else [0, 1, 1])
    watched.end()
