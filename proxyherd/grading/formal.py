"""Forms: how a server wants to be spoken to, and how it spells its answers. Found out when it was met (meeting.py).

A departure is marked here, once. All other checks talk in the server's dialect, or are not judged because of it.
"""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from proxyherd.grading.checks import Check
from proxyherd.grading.dialect import Echo
from proxyherd.grading.faults import Fault, NotJudged
from proxyherd.grading.forms import FOUND_OUT, Form
from proxyherd.grading.herds import GradedHerd
from proxyherd.grading.servers import GradedServer


class FormRule(NamedTuple):
    """What is demanded of a form."""

    title: str
    protocol: str
    """By the protocol page."""
    assignment: str
    """By the course's text."""


RULES: Final = {
    Form.LINE_END: FormRule(
        "A command may end in LF",
        "A line ends at LF; a CR before it is white space.",
        "shows commands as lines; clients such as nc end them in LF.",
    ),
    Form.HALF_CLOSE: FormRule(
        "A command is answered as soon as its line has come",
        "Every line gets its answer; the client need not close its sending half.",
        "does not say when a server must answer.",
    ),
    Form.PACKETS: FormRule(
        "Lines are commands, and packets are not",
        "Every line gets exactly one answer, however many lines arrive in one packet and however a line is cut.",
        "says that clients use TCP, which is a stream of bytes.",
    ),
    Form.CLOSING: FormRule(
        "The connection stays open behind an answer",
        "Many lines may come on one connection; the server closes after its client has.",
        "does not forbid to close.",
    ),
    Form.END_OF_STREAM: FormRule(
        "After a half-close all is answered, and the server closes",
        "What stands before the end of the stream is a line too; a client that half-closes gets all its answers, and "
        "then the server closes.",
        "says nothing about it.",
    ),
    Form.FINAL_LF: FormRule(
        "An answer ends in one LF",
        "Every AT and `? ` answer ends with exactly one LF, also when the line had none.",
        "calls an answer to an invalid command a line.",
    ),
    Form.SIGN: FormRule(
        "The difference in AT has one sign",
        "The difference has a sign, + or -, also where it is positive.",
        "shows it with its sign: +0.263873386.",
    ),
    Form.DECIMALS: FormRule(
        "The difference in AT has nine decimals",
        "The difference is written in seconds with exactly nine decimals.",
        "shows nine, and does not demand them.",
    ),
    Form.OPERANDS: FormRule(
        "The operands in AT come back as they were sent",
        "The last three fields of AT are the operands of the report, byte for byte.",
        "demands a copy of the IAMAT data.",
    ),
    Form.WHOLE_DEGREES: FormRule(
        "Coordinates need no decimal point",
        "A fraction is optional: +34-118 is a location.",
        "demands decimal degrees in ISO 6709 notation, in which the fraction is optional.",
    ),
    Form.ECHO: FormRule(
        "An invalid line comes back as it was sent",
        "Whatever is no command is answered with `? ` and a copy of the line, byte for byte, less its LF.",
        "demands a question mark, a space, and a copy of the invalid command.",
    ),
    Form.BLANK_LINES: FormRule(
        "A blank line is answered",
        "A blank line is an invalid command like any other.",
        "says nothing about blank lines.",
    ),
    Form.JSON_END: FormRule(
        "Two LFs stand behind the JSON, and none together in it",
        "Any run of LFs in the JSON is squeezed to one, those at its end are dropped, and two LFs follow.",
        "demands the same.",
    ),
}
"""By the form, in the order of the checks."""

assert tuple(RULES) == FOUND_OUT


ENDING: Final = frozenset(("hard.survives-words-missing",))
"""What carries the mark if an invalid line ends a server."""


def checks(herd: GradedHerd) -> list[Check]:
    return [
        Check(
            form.check,
            rule.title,
            f"{rule.protocol} (The assignment {rule.assignment})",
            partial(_keeps, herd, form),
            about=form,
            follows=_followed(herd, form),
        )
        for form, rule in RULES.items()
    ]


def _followed(herd: GradedHerd, form: Form) -> frozenset[str]:
    """Return the checks of which a fault explains a departure: those of bad lines, where a server has ended."""
    found = (server.findings.get(form) for server in herd.servers)
    return (
        ENDING
        if form in (Form.ECHO, Form.BLANK_LINES) and any(one and one.down for one in found)
        else frozenset()
    )


async def _keeps(herd: GradedHerd, form: Form) -> None:
    departing = [server for server in herd.servers if form in server.findings]
    if not departing:
        for server in herd.servers:
            await _needs_what_shows(form, server)
        return
    seen = departing[0].findings[form]
    names = ", ".join(server.name for server in departing)
    raise Fault(names, seen.sent, seen.expected, seen.got, steps=seen.steps)


async def _needs_what_shows(form: Form, server: GradedServer) -> None:
    """Raise NotJudged if another fault of this server keeps the form from being seen."""
    dialect = server.dialect
    if not dialect.takes_reports:
        if form not in (Form.LINE_END, Form.HALF_CLOSE):
            raise NotJudged(
                "case.plain-report", f"because of case.plain-report: {server.name} answers IAMAT otherwise"
            )
    elif form is Form.JSON_END:
        await server.needs_questions()
    elif form is Form.BLANK_LINES and dialect.echo is Echo.SILENCE:
        raise NotJudged(
            Form.ECHO.check, f"because of {Form.ECHO.check}: {server.name} answers no invalid line"
        )
    elif form is Form.END_OF_STREAM and dialect.half_close:
        raise NotJudged(
            Form.HALF_CLOSE.check,
            f"because of {Form.HALF_CLOSE.check}: {server.name} waits for the half-close",
        )
