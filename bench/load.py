"""The load: a process of its own that sends what was spelled before, counts answers, and looks at them afterwards.

    python bench/load.py JOB        where JOB is JSON, see `Job`; prints a line of JSON, see `Result`

While the clock runs, it does as little as it can: one epoll, raw sockets, slices of bytes spelled beforehand, line feeds
counted. That loop is in C, `native`, and here in Python for where there is no compiler. What was received is kept, and
every answer is checked against its command when the clock has stopped.

- Closed loop (`rate` 0): each connection keeps `outstanding` commands unanswered. For throughput. Latency is from
  sending to the answer.
- Open loop: clients send when they like, independent of one another and of the answers: gaps between commands are
  exponential, and the next one may be anybody's. Latency counts from when a command was due, so a server that stalls is
  charged for every command that it has kept from leaving (no coordinated omission). All contenders get the same gaps.

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import native
import numpy as np
from cpu import Usage, usage
from numpy.typing import NDArray
from plan import Plan
from wire import LINE_FEED, WIRES, Unframer, instant

LIMIT: Final = 0.9
"""The share of the time from which on a process that runs, or is ready to, is called the limit."""

_RECEIVE_BYTES: Final = 262_144

_TURN_NANOSECONDS: Final = 1_000
"""Reports that a server takes further apart than this come in different turns."""


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
    """What came of it. Latencies in milliseconds; `late_p99_ms`: how late the open loop's own sending was; `turn`: how many
    reports had the same receiving time, on average.
    """

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
    late_p99_ms: float
    turn: float


class Schedule(NamedTuple):
    """Of each command of an open loop: when it is due, in seconds from the start, on which connection, and by how many
    seconds it was sent late, which is filled in.
    """

    due: NDArray[np.float64]
    order: NDArray[np.int32]
    late: NDArray[np.float64]


def schedule(plan: Plan, rate: float) -> Schedule:
    """Return the same arrivals each time, so many a second on average."""
    chance = np.random.default_rng(1)
    due = np.cumsum(chance.exponential(1 / rate, plan.commands))
    order = chance.permutation(np.arange(plan.commands, dtype=np.int32) % plan.connections)
    return Schedule(due, order.astype(np.int32), np.zeros(plan.commands))


class Connection:
    """One connection: what it is to send, how far it is, and when what went and came."""

    def __init__(self, number: int, job: Job) -> None:
        wire = WIRES[job.wire]
        plan, carrier = job.plan, wire.carrier
        numbers = range(plan.share(number))
        asks = [plan.asks(at) for at in numbers]
        spelled = [
            (wire.question if ask else wire.report)(plan.report(number, at))
            for at, ask in zip(numbers, asks, strict=True)
        ]
        self.number = number
        carried = (
            spelled
            if carrier is None
            else carrier.carried([plan.report(number, at) for at in numbers], job.outstanding)
        )
        self.lines = carried if carrier is None else spelled
        """What answers are checked against."""
        self.commands = b"".join(carried)
        self.ends = [0, *accumulate(map(len, carried))]
        """The bytes up to the end of so many commands."""
        self.marks = [0, *accumulate(wire.question_marks if ask else wire.report_marks for ask in asks)]
        """The marks up to the end of so many answers."""
        self.share = len(spelled)
        self.sent = self.answered = 0
        self.sent_at, self.answered_at = np.zeros(self.share), np.zeros(self.share)
        self.received: list[bytes] = []
        self.socket = socket.create_connection(("127.0.0.1", job.ports[number % len(job.ports)]))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if carrier is not None and carrier.handshake:
            self._shake_hands(carrier.handshake)
        self.socket.setblocking(False)
        self._unframer = Unframer() if carrier is not None and carrier.is_framed else None
        self._mark = wire.mark
        self._marks_seen = self._bytes_sent = 0

    def _shake_hands(self, request: bytes) -> None:
        """Change to another protocol than HTTP. Raises ConnectionError if the server refuses."""
        self.socket.sendall(request)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.socket.recv(1) or b"\r\n\r\n"
        if b" 101 " not in answer:
            raise ConnectionError(f"the server refuses connection {self.number}: {answer!r}")

    def send(self, upto: int, moment: float, poll: select.epoll) -> None:
        """Send the commands up to a number, as at a moment."""
        self.sent_at[self.sent : upto] = moment
        self.sent = upto
        self._flush(poll)

    def _flush(self, poll: select.epoll) -> None:
        """Send what the socket takes; ask to be woken for what it does not."""
        end = self.ends[self.sent]
        try:  # noqa: SIM105 - suppress() would cost on every command
            self._bytes_sent += self.socket.send(memoryview(self.commands)[self._bytes_sent : end])
        except BlockingIOError:
            pass
        if self._bytes_sent < end:
            poll.modify(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def wake(self, flags: int, now: float, poll: select.epoll) -> int:
        """Do what the socket allows; return how many answers came. Raises ConnectionError when the server has gone."""
        if flags & select.EPOLLOUT:
            poll.modify(self.socket, select.EPOLLIN)
            self._flush(poll)
        if not flags & ~select.EPOLLOUT:
            return 0
        data = self.socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError(f"the server has closed connection {self.number}")
        if self._unframer is not None:
            data = self._unframer.payload(data)
        cut = len(self._mark) > 1 and self.received and self.received[-1][-2:-1] != LINE_FEED
        before = self.received[-1][-1:] if cut else b""  # half a mark, perhaps
        self.received.append(data)
        self._marks_seen += (before + data).count(self._mark)
        answered = bisect_right(self.marks, self._marks_seen, self.answered, self.sent + 1) - 1
        self.answered_at[self.answered : answered] = now
        came, self.answered = answered - self.answered, answered
        return came

    def answers(self, mark: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield each answered command with its answer, and what came unasked with an empty command."""
        parts = b"".join(self.received).split(mark)
        for number in range(self.answered):
            yield self.lines[number], mark.join(parts[self.marks[number] : self.marks[number + 1]]) + mark
        rest = mark.join(parts[self.marks[self.answered] :])
        if rest:
            yield b"", rest

    def latencies(self) -> NDArray[np.float64]:
        """Return the seconds that each answered command took, from its recorded sending."""
        return (self.answered_at - self.sent_at)[: self.answered]


def run_here(connections: Sequence[Connection], arrivals: Schedule | None, job: Job) -> None:
    """Send all commands and take their answers, until nothing comes any more. Without arrivals, it is a closed loop.

    Waits with select: it counts in microseconds where epoll of Python 3.11 counts in milliseconds.
    """
    Path("/proc/self/timerslack_ns").write_text("1000")
    clock = time.perf_counter
    poll = select.epoll()
    for connection in connections:
        poll.register(connection.socket, select.EPOLLIN)
        if arrivals is None:
            connection.send(min(job.outstanding, connection.share), clock(), poll)
    of_fd = {connection.socket.fileno(): connection for connection in connections}
    due = arrivals.due.tolist() if arrivals else []
    missing, following, commands = job.plan.commands, 0, len(due)
    start = heard = clock()
    while missing:
        wait = job.patience
        if arrivals is not None:
            at = clock() - start
            while following < commands and due[following] <= at:
                connection = connections[arrivals.order[following]]
                connection.send(connection.sent + 1, start + due[following], poll)
                arrivals.late[following] = at - due[following]
                following += 1
            if following < commands:
                wait = max(0.0, start + due[following] - clock())
        select.select([poll], [], [], wait)
        for fd, flags in poll.poll(0):
            heard = clock()
            connection = of_fd[fd]
            came = connection.wake(flags, heard, poll)
            missing -= came
            more = min(came, connection.share - connection.sent)
            if more and arrivals is None:
                connection.send(connection.sent + more, heard, poll)
        if following == commands and clock() - heard > job.patience:
            break
    poll.close()


def run(job: Job) -> Result:
    """Do a job in this process."""
    _allow_descriptors(job.plan.connections + 64)
    made = [Connection(number, job) for number in range(job.plan.connections)]
    arrivals = schedule(job.plan, job.rate) if job.rate else None
    in_c = native.library()
    if job.waits:
        print("connected", flush=True)
        sys.stdin.readline()
    with ExitStack() as stack:
        for connection in made:
            stack.callback(connection.socket.close)
        stack.enter_context(_without_collector())
        before, began = usage([os.getpid()]), time.perf_counter()
        if in_c is None:
            run_here(made, arrivals, job)
        else:
            native.run(in_c, made, arrivals, job)
        used = usage([os.getpid()]).since(before)
        if job.waits:
            print("ended", flush=True)
    ended = max(float(connection.answered_at.max(initial=began)) for connection in made)
    late = arrivals.late if arrivals else np.zeros(1)
    return summary(job, made, ended - began, used, late)


def summary(
    job: Job, made: list[Connection], seconds: float, used: Usage, late: NDArray[np.float64]
) -> Result:
    """Check every answer, and count."""
    wire = WIRES[job.wire]
    wrong, instants, reports = list[tuple[bytes, bytes]](), set[tuple[bytes, int]](), 0
    for connection in made:
        for command, answer in connection.answers(wire.mark):
            if not wire.is_right(command, answer):
                wrong.append((command, answer))
            elif command.startswith(b"IAMAT ") and answer.startswith(b"AT "):
                instants.add(instant(answer))
                reports += 1
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
        late_p99_ms=round(float(np.percentile(late, 99)) * 1e3, 4),
        turn=round(reports / max(1, turns(instants)), 2),
    )


def turns(instants: Iterable[tuple[bytes, int]]) -> int:
    """Return how many turns took reports at these instants, each of a server and in nanoseconds. The reports of a client in a
    turn are a nanosecond apart, and no two turns are as close as a turn's reports.
    """
    times = sorted(instants)
    return bool(times) + sum(
        server != other or then - before > _TURN_NANOSECONDS
        for (other, before), (server, then) in pairwise(times)
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
