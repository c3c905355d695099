"""The commands of a report, pasted into a shell while the herd runs: what comes is what the report says.

Herds of broken_ways.py are graded in this process, without waiting, and then served by it to the shell's nc. All are
tried at once, because a command mostly waits.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

import graded
import pytest
from debian import needs
from herd_process import free_port
from tcp_place import TcpHerd

from proxyherd.base.escapes import quoted
from proxyherd.grading import by_hand
from proxyherd.grading.faults import Fault, Step
from proxyherd.grading.judging import SECTIONS, checks_of
from proxyherd.grading.report import Result
from proxyherd.grading.servers import GradedServer

pytestmark = [needs("nc"), pytest.mark.xdist_group("by hand")]

IAMAT, WHATSAT = r"IAMAT \S+ \S+ \S+", r"WHATSAT \S+ \d+ \d+"
AT = r"AT {} [+-]\d+\.\d{{9}} \S+ \S+ \S+"
JSON = r'{"html_attributions": \[\],\n"results": \[\],\n"status": "ZERO_RESULTS"}\n\n'
ANN, BOB, ANY = (AT.format(name) + "\n" for name in ("Ann", "Bob", r"\w+"))

TRIED: Final[dict[tuple[str, str], list[str]]] = {
    ("wants-cr-lf", "form.line-end"): ["", ANN],
    ("waits-for-the-half-close", "form.half-close"): ["", ANN],
    ("takes-one-line-a-packet", "form.packets"): [ANN],
    ("closes-behind-its-answer", "form.closing"): [ANN],
    ("hangs-up-at-once", "form.end-of-stream"): [""],
    ("waits-for-lf", "form.end-of-stream"): [""],
    ("says-goodbye", "form.end-of-stream"): [ANN + "goodbye\n"],
    ("leaves-out-lf", "form.final-lf"): [ANN[:-1]],
    ("forgets-the-sign", "form.sign"): [ANN.replace("[+-]", "")],
    ("writes-floats", "form.decimals"): [ANN.replace("{9}", "{1,8}")],
    ("keeps-times-as-floats", "form.operands"): [r"AT Ann \S+ \S+ \S+ \d+\.\d{1,8}\n"],
    ("wants-padding", "form.whole-degrees"): [rf"\? {IAMAT}\n"],
    ("strips-its-copy", "form.echo"): [r"\? HELLO   there\n"],
    ("says-error", "form.echo"): ["ERROR\n"],
    ("skips-empty-lines", "form.blank-lines"): [""],
    ("leaves-out-the-last-lf", "form.json-end"): [ANN, ANN + JSON[:-2]],
    ("keeps-the-last", "times.earlier-report-does-not-count"): [ANN, ANN, ANN + JSON],
    ("hears-of-new-clients-only", "floods.newest-wins-everywhere"): [ANY, ANY, ANY + JSON],
    ("no-flood", "floods.reach-every-server"): [ANY, rf"\? {WHATSAT}\n"],
    ("at", "at.teaches-nobody"): ["\n", BOB + JSON],
    ("leaves-out-the-status", "places.fields"): [ANN, ANN + '{"html.*\n\n'],
    ("knows-no-bounds", "case.latitude-90-000001"): [ANY],
    ("ignores-operands", "case.operand-too-many"): [ANY],
    ("crash", "hard.survives-words-missing"): [".*"],
    ("mourns", "lost.others-answer"): [""],
    ("catches-up-with-nobody", "regained.catches-up"): [ANY, rf"\? {WHATSAT}\n"],
    ("dials-once", "regained.floods"): [ANY, rf"\? {WHATSAT}\n"],
}
"""By a way in which a herd is broken and the check that it fails: what the commands of the report print."""


class Tried(NamedTuple):
    """What a report says, and what came when its commands were pasted."""

    result: Result
    outputs: list[str]


async def paste(commands: tuple[str, ...], herd: TcpHerd, ports: dict[str, int]) -> list[str]:
    """Paste commands into a shell, and do with servers what they say; return what each printed."""
    outputs: list[str] = []
    for is_deed, lines in groupby(commands, lambda line: line.startswith("# ")):
        if is_deed:
            for line in lines:
                match line.split():
                    case ["#", "end", name, "now"]:
                        await herd.end(name)
                    case ["#", "start", name, "again"]:
                        await herd.start(name)
                    case _:
                        raise AssertionError(line)
        else:
            outputs += await _printed(list(lines), ports)
    return outputs


async def _printed(lines: list[str], ports: dict[str, int]) -> list[str]:
    at = {str(number): str(ports[name]) for name, number in graded.PORTS.items()}
    moved = [re.sub(r"(?<=127\.0\.0\.1 )\d$", lambda match: at[match[0]], line) for line in lines]
    pasted = "".join(f"{line}\nprintf '\\000'\n" for line in moved)
    shell = await asyncio.create_subprocess_exec(
        "sh", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await shell.communicate(pasted.encode())
    return said.decode("latin-1").split("\0")[:-1]


async def try_by_hand(way: str, result: Result) -> Tried:
    ports = {name: free_port() for name in graded.NAMES}
    herd = TcpHerd(way, {"ports": ports, "edges": graded.EDGES})
    await herd.start(*graded.NAMES)
    try:
        return Tried(result, await paste(result.by_hand, herd, ports))
    finally:
        await herd.end()


def judged(way: str, check: str, folder: Path) -> Result:
    sections = [one for one in SECTIONS if check in checks_of([one.name])]
    report = graded.grade(way, folder, sections)
    return next(one for one in report.results if one.id == check)


def test_a_shell_sends_what_the_grader_sent() -> None:
    data = [
        bytes(range(256)),
        b"-n\r\n",
        b"--\n",
        b"100%s \\n \\101 'x' \"y\" $(z) `z` $z ~ * !\n",
        b"7\x017",
    ]
    server = GradedServer("Ann", "h", 1)
    for one in data:
        [command] = by_hand.commands(
            Fault("Ann", one, "x", "y"), [Step("Ann", [one], half_close=True)], [server]
        )
        printing, _, rest = command.rpartition(" | ")
        assert rest == "nc -N -w 2 h 1"
        for shell in ("sh", "bash"):
            assert subprocess.run([shell, "-c", printing], capture_output=True, check=True).stdout == one


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Tried]:
    results: dict[tuple[str, str], Result] = {}
    with pytest.MonkeyPatch.context() as patch:
        for way, check in TRIED:
            folder = tmp_path_factory.mktemp(way)
            patch.chdir(folder)
            results[way, check] = judged(way, check, folder)

    async def all_at_once() -> list[Tried]:
        return await asyncio.gather(*(try_by_hand(way, result) for (way, _), result in results.items()))

    return dict(zip(results, asyncio.run(all_at_once()), strict=True))


@pytest.mark.parametrize(("way", "check"), TRIED)
def test_what_comes_by_hand_is_what_the_report_says(
    way: str, check: str, tried: dict[tuple[str, str], Tried]
) -> None:
    result, outputs = tried[way, check]
    expected = TRIED[way, check]
    assert len(outputs) == len(expected), (result.by_hand, outputs)
    for command, pattern, output in zip(typed(result), expected, outputs, strict=True):
        assert re.fullmatch(pattern, output, re.DOTALL), (command, output)
    got = result.fault.got if result.fault else ""
    if re.fullmatch(r'".*"', got):
        assert unclocked(got) in set(map(unclocked, quotations(outputs))), (result.by_hand, outputs)


def typed(result: Result) -> list[str]:
    return [command for command in result.by_hand if not command.startswith("# ")]


def quotations(outputs: list[str]) -> Iterator[str]:
    """Yield what was printed, and its first lines, as reports quote it."""
    for output in outputs:
        yield quoted(output.encode("latin-1"))
        yield quoted(output.partition("\n")[0].encode("latin-1"))


def unclocked(text: str) -> str:
    """Return a text without differences, which are others each time."""
    return re.sub(r"[+-]*\d+\.\d+(?= g)", "_", text)
