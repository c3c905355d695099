"""Herds of real processes for tests: on ports and in folders of their own, ended by id whatever happens.

    with running_herd([("Ann", "Bob")]) as herd:
        assert herd["Ann"].ask(b"FOO") == b"? FOO\n"
        herd["Bob"].kill()

With a `cluster` they keep their table in Redis, and have no links and nothing of their own.
Everything waits for a condition, with a deadline, and says what it saw when that passes.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import warm_start

if TYPE_CHECKING:
    from redis_cluster import Cluster

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 120.0
"""After this long a wait is given up as a hang. It guards no promise: a busy machine may need most of it for what takes
milliseconds on an idle one. How long something takes is judged on virtual clocks, by processor time, or by make bench.
"""

_MOST_PAUSE_SECONDS = 0.05
"""Between two looks at what is waited for."""

_OURS = re.compile(r"PROXYHERD_|GOOGLE_PLACES_|CREDENTIALS_DIRECTORY|STATE_DIRECTORY|LOGS_DIRECTORY|NOTIFY_")
_LOWEST_PORT = 20_000  # far above the default herd's
_reserved: deque[socket.socket] = deque()
_MOST_RESERVED = 400  # each takes a descriptor of this process, and select() knows 1,024 only


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Return the first true value of `condition`; fail when `seconds` pass without one. What has taken long already is
    looked at less often, since looking takes a core that the tests beside need.
    """
    began = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(min(_MOST_PAUSE_SECONDS, 0.005 + waited / 20))
    return value


def free_port() -> int:
    """Return a port that nobody has, and that no other test process gets until this one has asked for many more.

    It lies below the ports that the system gives to outgoing connections: one of those could be taken between
    this call and the server's own.
    """
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    end = (
        ephemeral if ephemeral > _LOWEST_PORT + 1_000 else 65_536
    )  # where nearly all are, one of them must do
    while True:
        port = random.randrange(_LOWEST_PORT, end)
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0proxyherd test port {port}")  # abstract: gone with this process
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
        else:
            _reserved.append(claim)
            if len(_reserved) > _MOST_RESERVED:
                _reserved.popleft().close()
            return port


def listens(port: int) -> bool:
    """Return whether somebody listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def raise_descriptor_limit(wanted: int) -> None:
    """Let this process have so many file descriptors, and the servers that it starts too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard >= wanted, f"the system allows {hard} file descriptors, this test needs {wanted}"
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Lend a folder with a path so short that a UNIX socket fits under it. Its name has what supervisord and others
    might take for something of theirs.
    """
    folder = Path(tempfile.mkdtemp(prefix="herd%s-", dir="/tmp"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def now() -> bytes:
    """Return the time as a client spells it."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    return b"%d.%09d" % (seconds, rest)


def withheld(process: int | str = "thread-self") -> float:
    """Return the seconds for which the main thread of a process, or this thread, was ready to run and the machine had no
    processor for it; 0 if it has ended and was waited for.

    The kernel counts them. What a program takes is the time less these, on a busy machine too: work and sleep count.
    """
    try:
        return int(Path(f"/proc/{process}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


class Meanwhile:
    """Does `work` in a thread while a block runs, until `stopping`; what fails there fails the block at its end."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def work(self) -> None:
        raise NotImplementedError

    def _run(self) -> None:
        try:
            self.work()
        except (AssertionError, OSError) as error:
            self._failures.append(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        self._thread.join()
        assert not self._failures, self._failures


class Connection:
    """One client's connection. Reading waits, and fails after a deadline."""

    def __init__(self, port: int, *, receive_buffer: int = 0) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_SECONDS)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        try:
            self.socket.connect(("127.0.0.1", port))
        except OSError:
            self.socket.close()
            raise
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self.socket.makefile("rb")

    @property
    def name(self) -> str:
        """How the server's log calls this connection."""
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def send(self, *lines: bytes) -> None:
        """Send lines, the LF added, in one packet where one can hold them."""
        self.send_raw(b"".join(line + b"\n" for line in lines))

    def send_raw(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_bytes_one_by_one(self, data: bytes, chunk: int = 1) -> None:
        for at in range(0, len(data), chunk):
            self.socket.sendall(data[at : at + chunk])
            time.sleep(0.0001)  # so that they come in packets of their own, mostly

    def half_close(self) -> None:
        self.socket.shutdown(socket.SHUT_WR)

    def line(self) -> bytes:
        """Return one line of an answer, with its LF."""
        return self._answers.readline()

    def places_body(self) -> bytes:
        """Return what follows the AT line in the answer to a WHATSAT, less the two LFs that end it."""
        body = bytearray()
        while not body.endswith(b"\n\n"):
            line = self.line()
            assert line, f"the server closed after {bytes(body)!r}"
            body += line
        return bytes(body[:-2])

    def places(self) -> bytes:
        """Return the whole answer to a WHATSAT."""
        first = self.line()
        return first + self.places_body() + b"\n\n" if first.startswith(b"AT ") else first

    def ask(self, line: bytes) -> bytes:
        """Send one line and return its answer."""
        self.send(line)
        return self.places() if line.split()[:1] == [b"WHATSAT"] else self.line()

    def rest(self) -> bytes:
        """Return all that comes before the server closes."""
        return self._answers.read()

    def has_nothing_to_read(self) -> bool:
        """Return whether no byte has come that was not read."""
        self.socket.settimeout(0)
        try:
            return not self._answers.peek(1)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_SECONDS)

    def is_ended(self) -> bool:
        """Return whether the server has ended this connection; what came before is dropped."""
        self.socket.settimeout(0)
        try:
            while self.socket.recv(1 << 16):
                pass
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        finally:
            self.socket.settimeout(PATIENCE_SECONDS)
        return True

    def reset(self) -> None:
        """Break the connection, as a client does that crashes."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def close(self) -> None:
        self._answers.close()
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stopwatch:
    """Times answers, less what those who take part were ready to run and had no core: on a busy machine that is the
    machine's time. What a server spends on others before it answers stays in, and so does what it waits for.

    `behind`: the nodes of a cluster, of which an answer waits for two, a master and its replica.
    """

    def __init__(self, server: int, behind: Sequence[int] = ()) -> None:
        self._server, self._behind = server, behind
        self.seconds: list[float] = []

    def ask(self, connection: Connection, line: bytes) -> bytes:
        """Return the answer to a line; its time is kept in `seconds`."""
        before, began = self._waited(), time.perf_counter()
        answer = connection.ask(line)
        took = time.perf_counter() - began
        asker, main, server, *behind = (now - then for now, then in zip(self._waited(), before, strict=True))
        # Where a thread asks, the main one may have held the interpreter while it had no core.
        machine = max(asker, main) + server + sum(sorted(behind)[-2:])
        self.seconds.append(max(0.0, took - machine))
        return answer

    def _waited(self) -> list[float]:
        behind = map(withheld, self._behind)
        return [withheld(), withheld("self"), withheld(self._server), *behind]

    @property
    def p50(self) -> float:
        return sorted(self.seconds)[len(self.seconds) // 2]

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[len(self.seconds) * 99 // 100]


class ServerProcess:
    """One server of a herd: its ports, files and process."""

    def __init__(
        self, herd: RunningHerd, name: str, ports: tuple[int, int, int], neighbours: Sequence[str]
    ) -> None:
        self.herd = herd
        self.name = name
        self.client_port, self.peer_port, self.admin_port = ports
        self.web_port = 0  # none
        self.neighbours = neighbours
        self.log_file = herd.folder / f"var/log/{name}.log"
        self.stderr_file = herd.folder / f"var/log/{name}.stderr.log"
        self.state = herd.folder / f"var/lib/{name}"
        self.secret_file = herd.folder / "var/secret"
        self.program = warm_start.PROGRAM
        self.options: list[str] = []
        self.environ: dict[str, str] = {}
        self.process: subprocess.Popen[bytes] | warm_start.ForkedProcess | None = None

    # The process. --------------------------------------------------------------------------------------------

    def command(self) -> list[str]:
        """Return the command line by which it is served."""
        return [
            *(*self.program, "serve", self.name, "--config", str(self.herd.file)),
            *("--state-dir", str(self.state), "--log-file", str(self.log_file)),
            *("--secret-file", str(self.secret_file), "--gazetteer-file", str(self.herd.gazetteer)),
            *self.options,
        ]

    def start(self) -> None:
        """Start it, and return at once."""
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        environ = {name: value for name, value in os.environ.items() if not _OURS.match(name)}
        self.stderr_file.parent.mkdir(parents=True, exist_ok=True)
        environ |= self.environ
        with self.stderr_file.open("ab") as stderr:
            if warm_start.can_start(self.program, self.environ):
                arguments = self.command()[len(self.program) :]
                self.process = warm_start.start(
                    arguments, environ, self.herd.folder, stdout=stderr, stderr=stderr
                )
            else:
                self.process = subprocess.Popen(
                    self.command(),
                    stdin=subprocess.DEVNULL,
                    stdout=stderr,
                    stderr=stderr,
                    cwd=self.herd.folder,
                    env=environ,
                )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        assert self.process.poll() is None, f"{self.name} has ended: {self.stderr()}"
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as `kill -9` does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Tell it to stop; return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; return its exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE_SECONDS)

    def freeze(self) -> None:
        """Let it hang: connections stay, nothing answers."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def stderr(self) -> str:
        return self.stderr_file.read_text() if self.stderr_file.exists() else ""

    def memory(self) -> int:
        """Return the bytes of memory that it has taken. What it has read of files, such as the code of libraries, is not its
        own: how much of that is there depends on other processes.
        """
        resident, of_files = map(int, Path(f"/proc/{self.pid}/statm").read_text().split()[1:3])
        return (resident - of_files) * resource.getpagesize()

    # Its clients. --------------------------------------------------------------------------------------------

    def connect(self, *, receive_buffer: int = 0) -> Connection:
        return Connection(self.client_port, receive_buffer=receive_buffer)

    def ask(self, line: bytes) -> bytes:
        """Return the answer to one line on a connection of its own."""
        with self.connect() as connection:
            return connection.ask(line)

    def hears(self, client: bytes, location: bytes = b"+34.068930-118.445127") -> bytes:
        """Let a client report here; return the AT line that every server is to know, with its LF."""
        answer = self.ask(b"IAMAT %b %b %b" % (client, location, now()))
        assert answer.startswith(b"AT %b " % self.name.encode()), answer
        return answer

    def knows(self, client: bytes) -> bytes:
        """Return what it holds of a client, an AT line with LF; b"" if nothing."""
        answer = self.ask(b"WHATSAT %b 0 0" % client)
        return answer[: answer.index(b"\n") + 1] if answer.startswith(b"AT ") else b""

    def wait_until_knows(self, at_line: bytes) -> None:
        client = at_line.split()[3]
        wait_until(lambda: self.knows(client) == at_line, f"{self.name} knows {at_line!r}")

    # Its operator. -------------------------------------------------------------------------------------------

    def get(self, path: str) -> tuple[int, str]:
        """Ask the admin port."""
        connection = HTTPConnection("127.0.0.1", self.admin_port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def readiness(self) -> tuple[int, str]:
        """Return what /readyz says; 0 where nobody answers."""
        try:
            return self.get("/readyz")
        except OSError as error:
            return 0, str(error)

    def wait_until_ready(self) -> None:
        wait_until(lambda: self._lives() and self.readiness()[0] == 200, f"{self.name} is ready")

    def wait_for_web(self) -> None:
        """Wait until its web port listens, which is after the line port."""
        wait_until(lambda: self._lives() and listens(self.web_port), f"the web port of {self.name} listens")

    def wait_until_linked(self, *neighbours: str) -> None:
        """Wait for the links with these neighbours, or with all it has."""
        wanted = set(neighbours or self.neighbours)
        wait_until(lambda: wanted <= self.links(), f"{self.name} is linked with {wanted}")

    def wait_until_not_linked(self, neighbour: str) -> None:
        wait_until(lambda: neighbour not in self.links(), f"{self.name} has lost {neighbour}")

    def links(self) -> set[str]:
        """Return the neighbours with which it has a link."""
        figures = self.metrics("proxyherd_links_up")
        return {label.split('"')[1] for label, value in figures.items() if value == 1.0}

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Return the figures, as `name{label="value"}`, whose names begin so."""
        status, text = self.get("/metrics")
        assert status == 200
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines if name.startswith(prefix)}

    def log(self) -> list[dict[str, Any]]:
        """Return the events in the log that is there now."""
        return read_log(self.log_file)

    def events(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Return the events of that name with these fields."""
        wanted = {"event": event, **fields}
        return [one for one in self.log() if wanted.items() <= {**one, "clients": None}.items()]

    def wait_for_event(self, event: str, **fields: Any) -> dict[str, Any]:
        """Wait for an event; return the first."""
        found = wait_until(lambda: self.events(event, **fields), f"{self.name} logs {event} {fields}")
        first: dict[str, Any] = found[0]
        return first

    def reasons(self, event: str) -> str:
        """Return the reasons that the log has for these events, a line each."""
        return "\n".join(str(one["reason"]) for one in self.events(event))

    def wait_for_reason(self, event: str, pattern: str) -> None:
        """Wait for an event with such a reason."""
        wait_until(
            lambda: re.search(pattern, self.reasons(event)),
            f"{self.name} logs {event}: {pattern}; {self.log()}",
        )

    def _lives(self) -> bool:
        """Fail at once when it has ended, with what it said at last."""
        assert self.process is None or self.process.poll() is None, f"{self.name} has ended: {self.stderr()}"
        return True


class RunningHerd(Mapping[str, ServerProcess]):
    """A herd's servers by name, with the folder and the file that they share."""

    def __init__(
        self,
        folder: Path,
        edges: Sequence[tuple[str, str]],
        alone: Sequence[str],
        more: str,
        cluster: Cluster | None = None,
    ) -> None:
        self.folder = folder
        self.file = folder / "deploy/herd.toml"
        self.gazetteer = folder / "var/gazetteer.dat"  # not there unless a test says where
        names = sorted({*alone, *(name for edge in edges for name in edge)})
        links = edges if cluster is None else []
        neighbours = {name: [b if a == name else a for a, b in links if name in (a, b)] for name in names}
        self._servers = {
            name: ServerProcess(self, name, (free_port(), free_port(), free_port()), neighbours[name])
            for name in names
        }
        for below in ("deploy", "var/lib", "var/log", "var/run"):
            (folder / below).mkdir(parents=True, exist_ok=True)
        if "[web]" in more:
            for server in self._servers.values():
                server.web_port = free_port()
        self.file.write_text(self._toml(edges, cluster) + more)
        if cluster is None:
            write_secret(folder / "var/secret")

    def _toml(self, edges: Sequence[tuple[str, str]], cluster: Cluster | None) -> str:
        lines = [f"edges = {json.dumps(edges)}"] if cluster is None else []
        lines.append("[servers]")
        for server in self.values():
            ports = {"clients": server.client_port, "admin": server.admin_port}
            if cluster is None:
                ports["peers"] = server.peer_port
            if server.web_port:
                ports["web"] = server.web_port
            addresses = ", ".join(f'{key} = "127.0.0.1:{port}"' for key, port in ports.items())
            lines.append(f"{server.name} = {{ {addresses} }}")
        if cluster is not None:
            lines += ['[table]\nengine = "redis"', f"[redis]\nnodes = {json.dumps(cluster.addresses)}"]
            lines.append(
                f"deadline_seconds = {PATIENCE_SECONDS}"
            )  # a busy machine's nodes are slow, not lost
        return "\n".join(lines) + "\n"

    def __getitem__(self, name: str) -> ServerProcess:
        return self._servers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    def start(self) -> None:
        for server in self.values():
            server.start()

    def wait_until_whole(self) -> None:
        """Wait until all are ready and linked with all their neighbours."""
        for server in self.values():
            server.wait_until_ready()
            server.wait_until_linked()

    def wait_until_all_know(self, at_line: bytes) -> None:
        for server in self.values():
            server.wait_until_knows(at_line)

    def end(self) -> None:
        """End every process that still runs."""
        running = [one.process for one in self.values() if one.process and one.process.poll() is None]
        for process in running:
            process.kill()  # a frozen one too
        for process in running:
            process.wait()


@contextlib.contextmanager
def herd_of(
    edges: Sequence[tuple[str, str]],
    *alone: str,
    more: str = "",
    environ: Mapping[str, str] | None = None,
    cluster: Cluster | None = None,
) -> Iterator[RunningHerd]:
    """Prepare a herd of this graph, not started: files, ports, secret. `more` stands in the herd's file."""
    with short_folder() as folder:
        herd = RunningHerd(folder, edges, alone, more, cluster)
        for server in herd.values():
            server.environ.update(environ or {})
        try:
            yield herd
        finally:
            herd.end()


@contextlib.contextmanager
def running_herd(
    edges: Sequence[tuple[str, str]],
    *,
    more: str = "",
    environ: Mapping[str, str] | None = None,
    cluster: Cluster | None = None,
) -> Iterator[RunningHerd]:
    """Run a herd of this graph; it is whole when the body begins."""
    with herd_of(edges, more=more, environ=environ, cluster=cluster) as herd:
        herd.start()
        herd.wait_until_whole()
        yield herd


@contextlib.contextmanager
def running_server(
    *options: str,
    more: str = "",
    environ: Mapping[str, str] | None = None,
    gazetteer: Path | None = None,
    cluster: Cluster | None = None,
) -> Iterator[ServerProcess]:
    """Run Clark alone; it is ready when the body begins."""
    with herd_of([], "Clark", more=more, environ=environ, cluster=cluster) as herd:
        clark = herd["Clark"]
        clark.options.extend(options)
        herd.gazetteer = gazetteer or herd.gazetteer
        clark.start()
        clark.wait_until_ready()
        yield clark


def write_secret(file: Path) -> None:
    file.touch(0o600)
    file.write_bytes(os.urandom(32))


def read_log(file: Path) -> list[dict[str, Any]]:
    """Return the events of a log; a last line that is being written is left out, and what kills have cut."""
    if not file.exists():
        return []
    *lines, _ = file.read_bytes().split(b"\n")
    events, cut = [], 0
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:
            cut += 1
    assert cut <= sum(one["event"] == "started" for one in events), f"{file}: lines that are no JSON"
    return events


def read_rotated(log_file: Path) -> list[dict[str, Any]]:
    """Return the events in all files of a log, the rotated and compressed ones too, as they were at one moment: its
    server may still rotate it.
    """

    def files() -> dict[Path, int]:
        return {path: path.stat().st_ino for path in log_file.parent.glob(f"{log_file.name}*")}

    def read() -> list[bytes] | None:
        try:
            before = files()
            whole = [
                gzip.decompress(one.read_bytes()) if one.suffix == ".gz" else one.read_bytes()
                for one in before
            ]
            return whole if files() == before else None
        except FileNotFoundError:
            return None

    found = wait_until(read, "no rotation while its files are read")
    return [json.loads(line) for data in found for line in data.split(b"\n")[:-1]]
