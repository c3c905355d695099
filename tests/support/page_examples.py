"""Examples on pages, and what they show: tests type the commands of a page, and compare what comes.

What differs from time to time is masked on both sides: times and dates, ports of clients, how long something took,
which of its neighbours was first to tell a server something. A line that is only `...` stands for lines left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from newcomer import HERD


class Block(NamedTuple):
    """A block of code of a page, and the prose between it and the one before."""

    kind: str
    text: str
    prose: str


class PageStep(NamedTuple):
    """A command, and what the page shows of what it prints, or of what is typed to it and comes back."""

    command: str
    shown: str


def blocks(page: Path) -> list[Block]:
    parts = re.split(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [Block(parts[at + 1], parts[at + 2], prose=parts[at]) for at in range(0, len(parts) - 1, 3)]


def steps(session: str) -> list[PageStep]:
    """Take a session apart; a command goes on in lines that begin with `> `."""
    assert session.startswith("$ ")
    parts = re.findall(r"^\$ (.*\n(?:> .*\n)*)((?:(?!\$ ).*\n)*)", session, re.MULTILINE)
    return [PageStep(command.replace("\n> ", "\n").rstrip("\n"), shown) for command, shown in parts]


MASKS = [
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?", "TIME"),
    (r"(AT \w+) [+-]\d+\.\d{9} ", r"\1 +# "),
    (r"\b1[7-9]\d{8}\.\d{9}\b", "NOW"),  # a server's clock in an AT line or in JSON
    (r'"(difference|received)":"[^"]+"', r'"\1":"#"'),
    (r'"age_s":[\d.]+', '"age_s":#'),
    (r"client=127\.0\.0\.1:\d+", "client=#"),
    (r"seconds=[\d.e-]+", "seconds=#"),
    (r"\b\d+\.\d+ s\b", "# s"),
    (r"< [\d.]+ m?s", "< #"),  # the lag of the event loop
    (
        r"(ready +\d/\d +\d+ +\d+ +\d+) +\d+$",
        r"\1 #",
    ),  # what the last check with neighbours mended, each half a minute
    # A killed process ends its connections either way: with unread bytes it resets them.
    (r'reason="(closed by the neighbour|[^"]*Connection reset by peer)"', "reason=#"),
    (r"^retry: \d+$", "retry: #"),  # the pause of a stream, chosen at random
    (r" +", " "),
]
FIRST_TO_TELL = re.compile(r"TIME (\w+) (?:flood_received|caught_up) neighbour=(\w+)")


def masked(text: str) -> str:
    """Return a text without what differs from time to time."""
    for pattern, mask in MASKS:
        text = re.sub(pattern, mask, text, flags=re.MULTILINE)
    return FIRST_TO_TELL.sub(_without_the_neighbour, text)


def _without_the_neighbour(match: re.Match[str]) -> str:
    server, neighbour = match[1], match[2]
    assert neighbour in HERD.servers[server].neighbours, match[0]
    return match[0].removesuffix(neighbour) + "#"


def in_order(command: str, text: str) -> str:
    """Bring lines whose order is chance into one: that of servers, and of what one of them did in the same instant."""
    lines = text.splitlines(keepends=True)
    if command.startswith("proxyherd tail"):
        lines.sort(key=lambda line: (line.split()[2], line))
    elif command.startswith("supervisorctl"):
        lines.sort()
    return "".join(lines)


def pattern(shown: str) -> str:
    """Return what matches what a page shows."""
    lines = masked(shown).splitlines()
    return "".join(
        r"(?:.*\n)*?" if line.strip() == "..." else re.escape(line.rstrip()) + r" *\n" for line in lines
    )


def shows(step: PageStep, came: str) -> bool:
    """Return whether the page shows what came."""
    shown, came = (in_order(step.command, f"{text.rstrip()}\n") for text in (step.shown, came))
    return re.fullmatch(pattern(shown), masked(came)) is not None


def difference(step: PageStep, came: str) -> str:
    return f"$ {step.command}\n--- the page shows\n{step.shown}\n--- what came\n{came}"
