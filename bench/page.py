"""What the status page costs in a large herd: its server, clients beside it, and the browser.

    .venv/bin/python bench/page.py [--servers 30] [--clients 100000] [--viewers 10]

Starts real servers and Debian's Chromium, and prints JSON. Exit code 1 where a figure is past its bound.

- viewers_ms: processor time a second of the server for its viewers, above what it takes when nobody looks.
- slowest_answer_ms: of a client that reports all the time while the page is open.
- longest_task_ms: of the page's main thread, while it opens and later. What is longer holds up a reader.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parent.parent / "tests/support"))

from browser import chromium, opened
from herd_process import ServerProcess, now
from large_herd import large_herd
from playwright.sync_api import Page
from viewing import all_events

BOUNDS = {"viewers_ms": 50, "slowest_answer_ms": 100, "longest_task_opening_ms": 500, "longest_task_ms": 200}
"""Milliseconds. A page that opens may take longer; after that nothing may hold a reader up."""

_MEASURED_SECONDS = 5.0


def processor_ms(process: psutil.Process) -> float:
    """Return the processor time that a process takes in a second, in milliseconds."""
    before, began = process.cpu_times(), time.monotonic()
    time.sleep(_MEASURED_SECONDS)
    after = process.cpu_times()
    return 1e3 * (after.user + after.system - before.user - before.system) / (time.monotonic() - began)


def slowest_answer_ms(server: ServerProcess, page: Page) -> float:
    """Return the longest time that a report's answer took while the page was shown."""
    slowest, end = 0.0, time.monotonic() + _MEASURED_SECONDS
    with server.connect() as client:
        while time.monotonic() < end:
            began = time.perf_counter()
            client.ask(b"IAMAT client000001.example +1.25+2.5 " + now())
            slowest = max(slowest, time.perf_counter() - began)
            page.wait_for_timeout(5)
        client.send(*[b"FOO %d" % number for number in range(300)])
        for _ in range(300):
            client.line()
    return 1e3 * slowest


def measure(servers: int, clients: int, viewers: int) -> dict[str, float]:
    """Return every figure of BOUNDS."""
    names = [f"S{number:02}" for number in range(servers)]
    with large_herd(names, clients=clients) as herd, contextlib.ExitStack() as stack:
        first = herd[names[0]]
        first.wait_until_linked()
        process = psutil.Process(first.pid)
        idle = processor_ms(process)
        for _ in range(viewers):
            stack.enter_context(all_events(first))
        time.sleep(1)
        viewed = processor_ms(process)
        page = stack.enter_context(opened(stack.enter_context(chromium()), first))
        opening = page.evaluate("window.longTasks.splice(0)")
        page.wait_for_function(
            f"() => document.getElementById('map-note').innerText.includes('{clients:,} clients, in')"
        )
        slowest = slowest_answer_ms(first, page)
        page.fill("#filter", "nothing")
        page.fill("#filter", "")
        page.wait_for_timeout(100)
        later = page.evaluate("window.longTasks")
    return {
        "viewers_ms": round(viewed - idle, 1),
        "slowest_answer_ms": round(slowest, 1),
        "longest_task_opening_ms": round(max(opening, default=0.0), 1),
        "longest_task_ms": round(max(later, default=0.0), 1),
    }


def main() -> int:
    """Measure, print, and judge."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--servers", type=int, default=30)
    parser.add_argument("--clients", type=int, default=100_000)
    parser.add_argument("--viewers", type=int, default=10)
    arguments = parser.parse_args()
    figures = measure(arguments.servers, arguments.clients, arguments.viewers)
    print(json.dumps(figures, indent=2))
    past = [name for name, most in BOUNDS.items() if figures[name] > most]
    for name in past:
        print(f"{name} is past its bound of {BOUNDS[name]}", file=sys.stderr)
    return 1 if past else 0


if __name__ == "__main__":
    sys.exit(main())
