"""The load: a process of its own that sends what was spelled before, counts answers, and looks at them afterwards.

    python bench/load.py JOB        where JOB is JSON, see `Job`; prints a line of JSON, see `Result`

While the clock runs, it does as little as Python can: one epoll, raw sockets, slices of bytes spelled beforehand, line
feeds counted. What was received is kept, and every answer is checked against its command when the clock has stopped.

- Closed loop (`rate` 0): each connection keeps `outstanding` commands unanswered. For throughput. Latency is from
  sending to the answer.
- Open loop: commands are due at a fixed rate, whatever the answers do, and latency counts from when a command was due,
  so a server that stalls is charged for every command that it has kept from leaving (no coordinated omission).

`busy` is the share of a core that the generator used, `wanted` what it would have used if none had been taken by others.
Where that is near 1, it was the limit and not the server.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import socket
import subprocess
import sys
import time
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from cpu import Usage, usage
from numpy.typing import NDArray
from plan import Plan
from wire import WIRES, Wire

LIMIT: Final = 0.9
"""The share of the time from which on a process that runs, or is ready to, is called the limit."""

_RECEIVE_BYTES: Final = 262_144


class Job(msgspec.Struct, kw_only=True):
    """What to send where: connection n goes to port n, counted round. `rate`: commands a second, 0 for a closed loop.

    `patience`: seconds without any answer after which the rest is given up.
    """

    plan: Plan
    ports: list[int]
    wire: str = "lines"
    outstanding: int = 1
    rate: float = 0.0
    patience: float = 30.0
    waits: bool = False  # when all connections are there, say so, and wait for a line on stdin


class Result(msgspec.Struct, kw_only=True):
    """What came of it. Latencies in milliseconds; `late_p99_ms`: how late the open loop's own sending was."""

    sent: int
    answered: int
    wrong: int  # answers that are not those of their commands, and what came unasked
    first_wrong: str
    seconds: float
    per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    busy: float
    wanted: float
    is_limit: bool
    late_p99_ms: float


class Connection:
    """One connection: what it is to send, how far it is, and when what went and came."""

    def __init__(self, number: int, job: Job, poll: select.epoll) -> None:
        wire = WIRES[job.wire]
        plan = job.plan
        numbers = range(plan.share(number))
        asks = [plan.asks(at) for at in numbers]
        spelled = [
            (wire.question if ask else wire.report)(plan.report(number, at))
            for at, ask in zip(numbers, asks, strict=True)
        ]
        self.number = number
        self.commands = memoryview(b"".join(spelled))
        self.ends = [0, *accumulate(map(len, spelled))]
        """The bytes up to the end of so many commands."""
        self.lines = [
            0,
            *accumulate(wire.question_lines if ask else wire.report_lines for ask in asks),
        ]
        """The line feeds up to the end of so many answers."""
        self.share = len(spelled)
        self.sent = self.answered = self.line_feeds = self.bytes_sent = 0
        self.received: list[bytes] = []
        self.sendings: list[tuple[float, int]] = []  # when, and how many had been sent by then
        self.answers: list[tuple[float, int]] = []
        self._poll = poll
        self.socket = socket.create_connection(("127.0.0.1", job.ports[number % len(job.ports)]))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        poll.register(self.socket, select.EPOLLIN)

    def send(self, upto: int) -> None:
        """Send the commands up to a number."""
        self.sent = upto
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes; ask to be woken for what it does not."""
        end = self.ends[self.sent]
        try:  # noqa: SIM105 - suppress() would cost on every command
            self.bytes_sent += self.socket.send(self.commands[self.bytes_sent : end])
        except BlockingIOError:
            pass
        if self.bytes_sent < end:
            self._poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def wake(self, flags: int, now: float) -> int:
        """Do what the socket allows; return how many answers came. Raises ConnectionError when the server has gone."""
        if flags & select.EPOLLOUT:
            self._poll.modify(self.socket, select.EPOLLIN)
            self.flush()
        if not flags & ~select.EPOLLOUT:
            return 0
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError(f"the server has closed connection {self.number}")
        self.received.append(data)
        self.line_feeds += data.count(b"\n")
        before = self.answered
        self.answered = bisect_right(self.lines, self.line_feeds, before, self.sent + 1) - 1
        if self.answered > before:
            self.answers.append((now, self.answered))
        return self.answered - before

    def wrong(self, wire: Wire) -> Iterator[tuple[bytes, bytes]]:
        """Yield commands with the answers that are not theirs, and what came unasked with an empty command."""
        lines = b"".join(self.received).split(b"\n")
        for number in range(self.answered):
            command = bytes(self.commands[self.ends[number] : self.ends[number + 1]])
            answer = b"\n".join(lines[self.lines[number] : self.lines[number + 1]]) + b"\n"
            if not wire.is_right(command, answer):
                yield command, answer
        rest = b"\n".join(lines[self.lines[self.answered] :])
        if rest:
            yield b"", rest

    def latencies(self) -> NDArray[np.float64]:
        """Return the seconds that each answered command took, from its recorded sending."""
        return _moments(self.answers) - _moments(self.sendings)[: self.answered]


def _moments(trace: list[tuple[float, int]]) -> NDArray[np.float64]:
    """Return the time of each command, from a trace of times and of how many there were by then."""
    times = np.array([moment for moment, _ in trace], dtype=np.float64)
    return np.repeat(times, np.diff([0, *(count for _, count in trace)]))


def closed_loop(connections: dict[int, Connection], poll: select.epoll, job: Job) -> list[float]:
    """Keep as many commands outstanding on each connection until all are answered, or nothing comes any more.

    Returns nothing: here no command can be late.
    """
    clock = time.perf_counter
    for connection in connections.values():
        first = min(job.outstanding, connection.share)
        connection.sendings.append((clock(), first))
        connection.send(first)
    missing = job.plan.commands
    while missing and (events := poll.poll(job.patience)):
        for fd, flags in events:
            connection = connections[fd]
            now = clock()
            came = connection.wake(flags, now)
            missing -= came
            upto = min(connection.sent + came, connection.share)
            if upto > connection.sent:
                connection.sendings.append((now, upto))
                connection.send(upto)
    return []


def open_loop(connections: dict[int, Connection], poll: select.epoll, job: Job) -> list[float]:
    """Send each command when it is due; return by how many seconds each was late.

    Waits with select: it counts in microseconds where epoll of Python 3.11 counts in milliseconds.
    """
    Path("/proc/self/timerslack_ns").write_text("1000")
    clock = time.perf_counter
    turns = list(connections.values())
    commands, gap = job.plan.commands, 1 / job.rate
    late: list[float] = []
    missing, due = commands, 0
    start = heard = clock()
    while missing:
        now = clock()
        while due < commands and start + due * gap <= now:
            connection = turns[due % len(turns)]
            upto = connection.sent + 1
            connection.sendings.append((start + due * gap, upto))
            connection.send(upto)
            late.append(now - start - due * gap)
            due += 1
        wait = start + due * gap - clock() if due < commands else job.patience
        select.select([poll], [], [], max(0.0, wait))
        for fd, flags in poll.poll(0):
            heard = clock()
            missing -= connections[fd].wake(flags, heard)
        if due == commands and clock() - heard > job.patience:
            break
    return late


def run(job: Job) -> Result:
    """Do a job in this process."""
    poll = select.epoll()
    _allow_descriptors(job.plan.connections + 64)
    made = [Connection(number, job, poll) for number in range(job.plan.connections)]
    connections = {connection.socket.fileno(): connection for connection in made}
    if job.waits:
        print("connected", flush=True)
        sys.stdin.readline()
    with _without_collector():
        before, began = usage([os.getpid()]), time.perf_counter()
        late = (open_loop if job.rate else closed_loop)(connections, poll, job)
        used = usage([os.getpid()]).since(before)
    if job.waits:
        print("ended", flush=True)
    for connection in made:
        connection.socket.close()
    ended = max((connection.answers[-1][0] for connection in made if connection.answers), default=began)
    return summary(job, made, ended - began, used, late or [0.0])


def summary(job: Job, made: list[Connection], seconds: float, used: Usage, late: list[float]) -> Result:
    """Check every answer, and count."""
    wrong = [one for connection in made for one in connection.wrong(WIRES[job.wire])]
    answered = sum(connection.answered for connection in made)
    milliseconds = np.concatenate([connection.latencies() for connection in made]) * 1e3
    if not answered:
        milliseconds, seconds = np.array([np.nan]), max(seconds, 1e-9)
    wanted = sum(used) / seconds
    median, tail, most = (round(float(one), 4) for one in np.percentile(milliseconds, [50, 99, 100]))
    return Result(
        sent=sum(connection.sent for connection in made),
        answered=answered,
        wrong=len(wrong),
        first_wrong=repr(wrong[0]) if wrong else "",
        seconds=round(seconds, 6),
        per_second=round(answered / seconds, 1),
        p50_ms=median,
        p99_ms=tail,
        max_ms=most,
        busy=round(used.cpu / seconds, 3),
        wanted=round(wanted, 3),
        is_limit=wanted > LIMIT,
        late_p99_ms=round(float(np.percentile(late, 99)) * 1e3, 4),
    )


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        if hard < wanted:
            raise SystemExit(
                f"load.py: {wanted} file descriptors are needed, the system allows {hard}; raise ulimit -n"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep Python's collector of cycles from pausing the clock's time: nothing here makes cycles."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Generator:
    """A generator's process, seen from the one that measures: `start` when connected, then `wait` for all answers."""

    def __init__(self, job: Job) -> None:
        job.waits = True
        self._process = subprocess.Popen(
            [sys.executable, __file__, msgspec.json.encode(job).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._expect(b"connected\n")

    def start(self) -> None:
        """Let it send; return at once."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Return when the last answer has come."""
        self._expect(b"ended\n")

    def result(self) -> Result:
        """Return what came of it, once answers are checked."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._process.stdin, self._process.stdout as output:
            said = (
                output.read()
            )  # not communicate(), which leaves out what was read ahead with an earlier line
        self._process.wait()
        return msgspec.json.decode(said, type=Result)

    def end(self) -> None:
        """End it, whatever it has still to do."""
        self._process.kill()
        self._process.communicate()

    def _expect(self, line: bytes) -> None:
        assert self._process.stdout is not None
        seen = self._process.stdout.readline()
        if seen != line:
            self._process.kill()
            self._process.wait()
            raise RuntimeError(f"the load generator said {seen!r} instead of {line!r}; see above for why")


def main() -> None:
    """Do the job on the command line."""
    try:
        job = msgspec.json.decode(sys.argv[1], type=Job)
    except (IndexError, msgspec.MsgspecError) as error:
        raise SystemExit(f"usage: load.py JOB, see the opening of load.py; {error}") from None
    sys.stdout.buffer.write(msgspec.json.encode(run(job)) + b"\n")


if __name__ == "__main__":
    main()
