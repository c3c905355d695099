"""docs/tutorial.md and the sessions of README.md, followed word for word with a real herd: what they show is what comes.

Each page gets a folder that is laid out as a checkout after its installation (this one's `.venv` and a gazetteer that is
built already save the minute), and a network and process ids of its own: the ports of the default herd clash with
nothing, and whatever a page has started ends with the process that holds them, also when the tests are killed.

One thing is not the real one: in Google's place stands `proxyherd places-sim`, which takes any key and has the old API
switched off, as it is for new projects. The page's own lines are appended to the herd's file, and then its `base_url`.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from debian import needs
from herd_process import ROOT, wait_until
from newcomer import HERD, MOST_SECONDS, Machine, _children, machine
from page_examples import Block, PageStep, blocks, difference, masked, pattern, shows, steps

TUTORIAL = ROOT / "docs/tutorial.md"
README = ROOT / "README.md"
KEY = "AIzaSyTheKeyOfATestWhichNobodyHasEverHad0"

pytestmark = [
    needs("curl", "ip", "make", "nc", "nsenter", "setpriv", "unshare", root=True),
    pytest.mark.xdist_group("tutorial"),
]


def is_typed(line: str) -> bool:
    """Return whether a line of a session of `nc` is what the reader types, and not an answer or a part of one."""
    return re.match(r"AT |\? |[ {}]|\.\.\.|$", line) is None


class Reader:
    """Follows a page to its end."""

    def __init__(self, where: Machine) -> None:
        self._machine = where
        self._others: list[tuple[PageStep, subprocess.Popen[str], Path]] = []

    def follow(self, page: Path) -> int:
        """Do what a page says, and return the number of commands in it."""
        done = 0
        for block in blocks(page):
            if block.kind == "console":
                for step in steps(block.text):
                    self._do(step)
                    done += 1
            elif block.kind == "toml":
                self._write(block)
            elif block.kind == "text":
                self._look_at_the_other_terminal(block.text)
            self._open_addresses(block.prose)
        return done

    def _do(self, step: PageStep) -> None:
        if step.command.startswith("nc "):
            self._converse(step)
        elif "--watch" in step.command:
            self._watch(step)
        elif "--follow" in step.command:
            self._follow_logs(step)
        else:
            typed = f"{KEY}\n" if "cat > " in step.command else ""
            makes = step.command == "make run"
            came = self._machine.make_run() if makes else self._machine.run(step.command, typed)
            assert shows(step, came), difference(step, came)

    def _other_terminal(self, command: str) -> tuple[subprocess.Popen[str], Path]:
        return self._machine.start(f'PATH="$PWD/.venv/bin:$PATH"; exec {command}')

    def _follow_logs(self, step: PageStep) -> None:
        process, printed = self._other_terminal(step.command)
        self._others.append((step, process, printed))
        logs = {f"{name}.log" for name in HERD.servers if name in step.command.split()}
        wait_until(lambda: logs <= _open_files(process), "the logs are open")

    def _converse(self, step: PageStep) -> None:
        """Type a line once the one before has been answered; Ctrl-C at the end."""
        process, printed = self._machine.start(f"exec {step.command}", stdin=subprocess.PIPE)
        assert process.stdin is not None
        spoken = ""
        heard = 0
        for line in filter(is_typed, step.shown.splitlines()):
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            end = "\n\n" if line.startswith("WHATSAT") else "\n"

            def answer(end: str = end, heard: int = heard) -> str:
                came = printed.read_text()[heard:]
                return came if came.endswith("\n" if came.startswith("? ") else end) else ""

            came = wait_until(answer, f"{line} is answered")
            spoken += f"{line}\n{came}"
            heard += len(came)
        _interrupt(process)
        assert shows(step, spoken), difference(step, spoken)

    def _watch(self, step: PageStep) -> None:
        """Look on until what the page shows has been there."""
        process, printed = self._other_terminal(step.command)
        try:
            wanted = re.compile(r"(?:^|\n)" + pattern(step.shown))
            wait_until(lambda: wanted.search(masked(printed.read_text())), "the table is there")
        except AssertionError:
            raise AssertionError(difference(step, printed.read_text())) from None
        finally:
            _interrupt(process)

    def _look_at_the_other_terminal(self, shown: str) -> None:
        started, process, printed = self._others.pop()
        step = PageStep(started.command, shown)
        try:
            wait_until(lambda: shows(step, printed.read_text()), "the other terminal shows it")
        except AssertionError:
            raise AssertionError(difference(step, printed.read_text())) from None
        finally:
            _interrupt(process)

    def _write(self, block: Block) -> None:
        """Write a file that the prose names last; append, if it is there."""
        name = re.findall(r"`([\w/.-]+\.toml)`", block.prose)[-1]
        text = block.text
        if "[places]" in text:
            text += f'base_url = "{self._stand_in_for_google()}"\n'
        with (self._machine.folder / name).open("a") as file:
            file.write(f"\n{text}")

    def _stand_in_for_google(self) -> str:
        _, printed = self._machine.start("exec .venv/bin/proxyherd places-sim --disable old --quiet")
        return str(wait_until(lambda: printed.read_text().strip(), "the stand-in has said where it is"))

    def _open_addresses(self, prose: str) -> None:
        """See that where the prose sends a browser, a server of the herd answers."""
        ports = "|".join(
            str(one.port) for server in HERD.servers.values() for one in (*server.admin, *server.web)
        )
        for url in re.findall(rf"<(http://127\.0\.0\.1:(?:{ports})/[^>]*)>", prose):
            fetch = f"import urllib.request as r; print(r.urlopen('{url}').status)"
            assert self._machine.run(f'.venv/bin/python -c "{fetch}"') == "200\n"


def _open_files(process: subprocess.Popen[str]) -> set[str]:
    names = set()
    for one in _children(process):
        for file in Path(f"/proc/{one}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                names.add(file.readlink().name)
    return names


def _interrupt(process: subprocess.Popen[str]) -> None:
    """End what runs in a terminal as Ctrl-C does."""
    for one in _children(process):
        os.kill(one, signal.SIGINT)
    process.communicate(timeout=MOST_SECONDS)


def test_the_tutorial_shows_what_happens() -> None:
    with machine() as where:
        assert Reader(where).follow(TUTORIAL) > 20
        assert not (where.folder / "var/run/supervisord.pid").exists(), "the page stops what it has started"


def test_the_sessions_of_the_readme_show_what_happens() -> None:
    with machine() as where:
        where.make_run()
        assert Reader(where).follow(README) >= 4


# --- pictures


def test_the_picture_of_the_herd_is_that_of_the_default_herd() -> None:
    """Its lines are the edges, and go from the one server to the other."""
    tree = ET.parse(ROOT / "docs/herd.svg")
    found = [element.attrib for element in tree.iter() if "id" in element.attrib]
    middles = {one["id"]: (one["cx"], one["cy"]) for one in found if "cx" in one}
    lines = {one["id"]: ((one["x1"], one["y1"]), (one["x2"], one["y2"])) for one in found if "x1" in one}
    assert set(middles) == set(HERD.servers)
    assert {frozenset(name.split("-")) for name in lines} == set(map(frozenset, HERD.edges))
    for name, ends in lines.items():
        assert ends == tuple(middles[server] for server in name.split("-"))


@pytest.mark.parametrize("page", [README, TUTORIAL], ids=["README", "tutorial"])
def test_every_picture_is_there(page: Path) -> None:
    for name in re.findall(r'(?:src|srcset)="([^"]+)"', page.read_text()):
        assert (page.parent / name).exists(), name
