"""`proxyherd tail`: the logs of all servers as one, filtered, in order, safe for a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from debian import needs
from herd_process import Herd, Server, herd_of, running_server, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st

import proxyherd.cli.tail
from proxyherd import cli
from proxyherd.base.escapes import escaped_for_json
from proxyherd.remote import tailing
from proxyherd.remote.tailing import Event, Filter, Reader, Reading, Sorter

STAMP = "2026-11-24T06:28:50.%06dZ"


def line(at: int, event: str = "ready", level: str = "info", server: str = "Ann", **fields: Any) -> bytes:
    head = {"timestamp": STAMP % at, "level": level, "server": server, "event": event}
    return json.dumps({**head, **fields}).encode()


def made(*lines: bytes, server: str = "Ann") -> list[Event]:
    return list(map(Reading(server), lines))


def shown(*lines: bytes) -> list[str]:
    return list(map(Reader(["Ann", "Bob"]), made(*lines)))


# How events read. --------------------------------------------------------------------------------------------


def test_an_event_reads_as_one_line() -> None:
    [text] = shown(
        line(1, "command", "warning", command="IAMAT a b", kind="iamat", n=1, yes=True, clients=["a", "b"])
    )
    assert text == (
        "2026-11-24 06:28:50.000001 Ann command        [warning] "
        'command="IAMAT a b" kind=iamat n=1 yes=true clients=["a", "b"]'
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=30)
@given(
    fields=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), JSON, max_size=4)
)
def test_nothing_that_a_terminal_acts_on_is_ever_shown(fields: dict[str, Any]) -> None:
    head = {"timestamp": STAMP % 1, "level": "\x1b", "server": "\x9b", "event": "\u202e"}
    [text] = shown(json.dumps({**fields, **head}).encode())
    assert text.isprintable()


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        ("a\x1b[31mb", "a\\x1b[31mb"),
        ("\x07\x9b\x7f", "\\x07\\u009b\\x7f"),
        ("a\n\r\tb", "a\\n\\r\\tb"),
        ("\u202e", "\\u202e"),
        ("\U000e0001", "\\U000e0001"),
        ("größe", "größe"),
        ("", ""),
        ('a "b"', 'a \\"b\\"'),
    ],
)
def test_control_characters_are_escaped_visibly(value: str, spelled: str) -> None:
    assert tailing.spell(value) in (spelled, f'"{spelled}"')


@pytest.mark.parametrize(
    "torn",
    [
        b'{"timestamp":"2026-11-2',
        b"\x00\x1b[2J\xff",
        b"[]",
        b"1",
        b'{"event":"ready"}',
        b'{"timestamp":1,"level":"info","server":"Ann","event":"x"}',
        b'{"timestamp":"soon","level":"info","server":"Ann","event":"x"}',
        b'{"a":"\\ud800"}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_event_is_shown_as_such_at_its_place(torn: bytes) -> None:
    events = made(line(1), torn, line(2))
    assert [event.key for event in events] == [STAMP % 1, STAMP % 1, STAMP % 2]
    text = Reader(["Ann"])(events[1])
    assert text.startswith("2026-11-24 06:28:50.000001 Ann malformed      [error] line=")
    assert text.isprintable()
    told = json.loads(tailing.raw(events[1]))
    assert told["event"] == "malformed"
    assert told["line"] == escaped_for_json(torn)
    assert tailing.raw(events[0]) == line(1).decode()


# Which events are wanted. ------------------------------------------------------------------------------------


def takes(wanted: Filter, one: bytes) -> bool:
    return wanted.takes(made(one)[0])


@pytest.mark.parametrize(
    ("fields", "is_hers"),
    [
        ({"command": "IAMAT kiwi +1+1 5"}, True),
        ({"command": "FOO\tkiwi\r"}, True),
        ({"command": "IAMAT kiwi.a +1+1 5"}, False),
        ({"command": "IAMAT xkiwi +1+1 5"}, False),
        ({"command": "IAMAT KIWI +1+1 5"}, False),
        ({"command": "IAMAT kiwi\u00a0 +1+1 5"}, False),  # no white space: it belongs to the ID
        ({"answer": "AT Ann +0.1 kiwi +1+1 5"}, True),
        ({"clients": ["a", "kiwi"]}, True),
        ({"clients": ["a kiwi", 5, None]}, False),
        ({"clients": 7, "command": None}, False),
        ({"reason": "kiwi", "neighbour": "kiwi"}, False),
    ],
)
def test_a_client_is_a_whole_word_of_what_clients_say(fields: dict[str, Any], is_hers: bool) -> None:
    assert takes(Filter(clients=frozenset({"kiwi", "other"})), line(1, "any", **fields)) is is_hers


def test_events_are_taken_by_name_and_pattern() -> None:
    wanted = Filter(events=("peer_*", "ready"))
    names = ["peer_opened", "peer_closed", "ready", "Ready", "already", "flood_sent"]
    assert [takes(wanted, line(1, name)) for name in names] == [True, True, True, False, False, False]


def test_a_level_takes_itself_and_what_is_above() -> None:
    levels = ["debug", "info", "warning", "error", "critical", "new one"]
    for at, level in enumerate(levels[:4]):
        taken = [takes(Filter(level=level), line(1, level=one)) for one in levels]
        assert taken == [False] * at + [True] * (6 - at)


def test_a_torn_line_is_an_error_and_nobodys() -> None:
    assert takes(Filter(level="error"), b"torn")
    assert not takes(Filter(clients=frozenset({"torn"})), b"torn")


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ("30s", "1970-01-01T23:59:30.000000Z"),
        ("10m", "1970-01-01T23:50:00.000000Z"),
        ("1.5h", "1970-01-01T22:30:00.000000Z"),
        ("1d", "1970-01-01T00:00:00.000000Z"),
        ("2026-11-24", "2026-11-24T00:00:00.000000Z"),
        ("2026-11-24T06:28:50.5Z", "2026-11-24T06:28:50.500000Z"),
        ("2026-11-24 06:28:50", "2026-11-24T06:28:50.000000Z"),
        ("2026-11-24T06:28:50+02:00", "2026-11-24T04:28:50.000000Z"),
    ],
)
def test_since_is_a_duration_or_a_time_of_utc(text: str, stamp: str) -> None:
    assert tailing.parse_since(text, 86_400.0) == stamp


@pytest.mark.parametrize("text", ["", "soon", "10", "-5m", "10 m", "1e999d", "9" * 400 + "d", "99999999d"])
def test_since_that_is_no_time_is_an_error_that_shows_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"neither a time such as .* nor one ago such as 10m"):
        tailing.parse_since(text, 86_400.0)
    result = CliRunner().invoke(cli.main, ["tail", "--since", text])
    assert result.exit_code == 2
    assert "10m" in result.output


# Order. ------------------------------------------------------------------------------------------------------

TIMES = st.lists(st.integers(0, 9), max_size=12)


@settings(deadline=None)
@given(ann=TIMES, bob=TIMES)
def test_merging_orders_by_time_and_keeps_the_order_of_each_log(ann: list[int], bob: list[int]) -> None:
    """Also where a clock was set back."""
    lines = [
        [line(at, server=name, n=n) for n, at in enumerate(times)]
        for name, times in (("Ann", ann), ("Bob", bob))
    ]
    merged = list(tailing.merge([made(*lines[0]), made(*lines[1], server="Bob")]))
    keys = [event.key for event in merged]
    assert keys == sorted(keys)
    for name, own in zip(("Ann", "Bob"), lines, strict=True):
        assert [event.line for event in merged if event.fields["server"] == name] == own


@settings(deadline=None)
@given(
    arrivals=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 4), st.sampled_from(["Ann", "Bob"])), max_size=20
    )
)
def test_events_that_are_read_a_little_late_still_come_in_order(
    arrivals: list[tuple[int, int, str]],
) -> None:
    """Each happens at a time and is read up to 4 later; held for 5, all come in order, and each once."""
    reads = {"Ann": Reading("Ann"), "Bob": Reading("Bob")}
    sorter, told = Sorter(5), list[Event]()
    arrivals = sorted(arrivals)  # a log is written in order
    latest = {"Ann": 0, "Bob": 0}
    due: dict[int, list[Event]] = {}
    for at, late, server in arrivals:
        latest[server] = max(latest[server], at + late)
        due.setdefault(latest[server], []).append(reads[server](line(at, server=server)))
    for now in range(50):
        for event in due.get(now, []):
            sorter.put(event, now)
        told += sorter.due(now)
    keys = [event.key for event in told]
    assert keys == sorted(keys)
    assert len(told) == len(arrivals)
    assert len(sorter) == 0


# The command, on files. --------------------------------------------------------------------------------------

HERD = """
edges = [["Ann", "Bob"]]
[servers]
Ann = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3" }
Bob = { clients = "127.0.0.1:4", peers = "127.0.0.1:5", admin = "127.0.0.1:6" }
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A herd's folder with logs of both servers, whose events alternate."""
    monkeypatch.chdir(tmp_path)
    for variable in ("PROXYHERD_CONFIG", "LOGS_DIRECTORY", "NO_COLOR"):
        monkeypatch.delenv(variable, raising=False)
    for below in ("deploy", "var/log"):
        (tmp_path / below).mkdir(parents=True)
    (tmp_path / "deploy/herd.toml").write_text(HERD)
    for server, odd in (("Ann", 0), ("Bob", 1)):
        lines = (line(2 * n + odd, server=server, n=2 * n + odd) for n in range(20))
        (tmp_path / f"var/log/{server}.log").write_bytes(b"".join(one + b"\n" for one in lines))
    return tmp_path


def tail(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["tail", *arguments])


def numbers(result: Result) -> list[int]:
    assert result.exit_code == 0, result.output
    return [json.loads(one)["n"] for one in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], range(20, 40)),
        (["-n", "2"], range(36, 40)),
        (["--lines", "0"], []),
        (["--lines", "100"], range(40)),
        (["Ann"], range(20, 40, 2)),
        (["--server", "Bob", "-n1"], [39]),
        (["Ann", "--server", "Bob", "-n1"], [38, 39]),
        (["--since", STAMP % 30], range(30, 40)),
        (["--since", STAMP % 30, "-n", "1"], [38, 39]),
        (["--since", STAMP % 40], []),
        (["--since", "2000-01-01"], range(40)),
        (["--level", "warning"], []),
        (["--event", "re*", "-n", "1"], [38, 39]),
    ],
)
def test_the_last_lines_of_each_log_are_merged(folder: Path, arguments: list[str], wanted: list[int]) -> None:
    assert numbers(tail("--json", *arguments)) == list(wanted)


def test_the_last_lines_are_the_last_of_those_that_are_wanted(folder: Path) -> None:
    with (folder / "var/log/Ann.log").open("ab") as log:
        for n in range(100, 104):
            log.write(line(n, "peer_opened", n=n) + b"\n")
        for n in range(200, 300):
            log.write(line(n, n=n) + b"\n")
    assert numbers(tail("--json", "--event", "peer_opened", "-n", "3")) == [101, 102, 103]


def test_since_reads_no_further_back_than_it_must(folder: Path) -> None:
    lines = (folder / "var/log/Ann.log").read_bytes()
    with (folder / "var/log/Ann.log").open("wb") as log:
        log.truncate(1 << 40)  # a hole, which takes no room, and hours to read
        log.seek(0, os.SEEK_END)
        log.write(b"\n" + lines)
    assert numbers(tail("Ann", "--json", "--since", STAMP % 30)) == list(range(30, 40, 2))


def test_a_torn_line_stops_nothing(folder: Path) -> None:
    with (folder / "var/log/Ann.log").open("ab") as log:
        log.write(b'{"torn\x1b[2J\n' + line(50, n=50) + b"\n" + b'{"torn at the end')
    shown = tail("Ann", "-n", "3").stdout.splitlines()
    assert [one[27:].split()[1] for one in shown] == ["malformed", "ready", "malformed"]
    assert shown[0].startswith("?")  # nothing before it says when
    assert "\x1b" not in "".join(shown)


def test_client_ids_of_any_bytes_are_found_as_the_log_spells_them(folder: Path) -> None:
    (folder / "var/log/Bob.log").write_bytes(line(1, "flood_sent", clients=["a\\xff"], n=1) + b"\n")
    done = run_real("--json", "--client", b"a\xff")
    assert [json.loads(one)["n"] for one in done.stdout.splitlines()] == [1]


def run_real(*arguments: str | bytes, **environ: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "proxyherd", "tail", *arguments]
    return subprocess.run(
        command, capture_output=True, timeout=600, check=False, env={**os.environ, **environ}
    )


def test_logs_are_looked_for_as_servers_put_them(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "var/log").rename(folder / "elsewhere")
    monkeypatch.setattr(proxyherd.cli.tail, "INSTALLED_LOGS", folder / "none")  # this machine may have some
    assert tail().exit_code == 2
    assert numbers(tail("--logs", "elsewhere", "--json", "-n1")) == [38, 39]
    done = run_real("--json", "-n1", LOGS_DIRECTORY="elsewhere")
    assert done.stdout.count(b"\n") == 2


def test_a_log_that_is_missing_is_told_and_the_others_are_shown(folder: Path) -> None:
    (folder / "var/log/Bob.log").unlink()
    result = tail("--json", "-n1")
    assert numbers(result) == [38]
    assert result.stderr == "No log of Bob in var/log\n"
    result = tail("Bob")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "no log of Bob; say with --logs where the logs are" in result.stderr


def test_an_unknown_server_is_an_error_that_lists_the_known(folder: Path) -> None:
    result = tail("Cid")
    assert result.exit_code == 2
    assert "no server 'Cid'; it has Ann, Bob" in result.stderr


def test_a_log_that_may_not_be_read_is_an_error_that_names_it(folder: Path) -> None:
    (folder / "var/log/Bob.log").unlink()
    (folder / "var/log/Bob.log").symlink_to("Bob.log")  # root may read all but this
    result = tail()
    assert result.exit_code == 2
    assert "var/log/Bob.log: Too many levels of symbolic links; " in result.stderr


def test_colours_are_for_terminals_unless_told_otherwise(folder: Path) -> None:
    assert "\x1b[" not in tail().stdout
    assert "\x1b[" in CliRunner().invoke(cli.main, ["tail", "--color", "always"], color=True).stdout
    assert b"\x1b[" in on_terminal()
    assert b"\x1b[" not in on_terminal("--color", "never")
    assert b"\x1b[" not in on_terminal(NO_COLOR="1")
    assert b"\x1b[" not in on_terminal(TERM="dumb")
    assert "\x1b[" not in tail("--color", "always", "--json").stdout


def on_terminal(*arguments: str, **environ: str) -> bytes:
    """Return what it shows on a terminal."""
    mine, its = pty.openpty()
    command = [sys.executable, "-m", "proxyherd", "tail", *arguments]
    with subprocess.Popen(command, stdout=its, env={**os.environ, "TERM": "xterm", **environ}) as process:
        os.close(its)
        shown = b""
        with contextlib.suppress(OSError):  # so a terminal ends
            while some := os.read(mine, 65_536):
                shown += some
        assert process.wait(20) == 0
    os.close(mine)
    return shown


# The command, following. -------------------------------------------------------------------------------------


@contextlib.contextmanager
def following(*arguments: str, cwd: Path | None = None) -> Iterator[Following]:
    """Run `tail --follow --json`, and read along."""
    command = [sys.executable, "-m", "proxyherd", "tail", "--follow", "--json", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd) as process:
        try:
            yield Following(process)
        finally:
            process.kill()


class Following:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.events: list[dict[str, Any]] = []
        self.commands: list[str] = []  # what clients of `load` have sent
        self.errors = b""
        self._threads = [
            threading.Thread(target=read, daemon=True) for read in (self._read, self._read_errors)
        ]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for one in self.process.stdout:
            self.events.append(json.loads(one))
            command = self.events[-1].get("command", "")
            if command.startswith("IAMAT line"):
                self.commands.append(command)

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for one in self.process.stderr:
            self.errors += one

    def end(self, number: signal.Signals) -> int:
        self.process.send_signal(number)
        code = self.process.wait(20)
        for thread in self._threads:
            thread.join(20)
        return code


def test_following_goes_on_until_ctrl_c_which_is_a_good_end(folder: Path) -> None:
    with following("-n", "1") as tail:
        wait_until(lambda: len(tail.events) == 2, "the last lines")
        for server, n in (("Bob", 50), ("Ann", 51)):
            with (folder / f"var/log/{server}.log").open("ab") as log:
                log.write(line(n, server=server, n=n) + b"\n")
        wait_until(lambda: len(tail.events) == 4, "new lines")
        assert tail.end(signal.SIGINT) == 0
    assert [event["n"] for event in tail.events] == [38, 39, 50, 51]
    assert tail.errors == b""


def test_following_waits_for_logs_that_are_not_there_yet(folder: Path) -> None:
    (folder / "var/log").rename(folder / "elsewhere")
    (folder / "var/log").mkdir()
    with following() as tail:
        wait_until(lambda: tail.errors == b"No log of Ann, Bob in var/log\n", "it has looked for them")
        for log in (folder / "elsewhere").iterdir():
            log.rename(folder / "var/log" / log.name)
        wait_until(lambda: len(tail.events) >= 40, "all their lines")
        assert tail.end(signal.SIGTERM) == 0
    assert sorted(event["n"] for event in tail.events) == list(range(40))


@pytest.mark.parametrize("follow", ["", "--follow"])
def test_a_pipe_that_is_closed_is_a_good_end_at_once(folder: Path, follow: str) -> None:
    """While there is more than a pipe holds; and with --follow, where nothing more comes that could be written."""
    if not follow:
        with (folder / "var/log/Ann.log").open("ab") as log:
            log.writelines(line(n) + b"\n" for n in range(3_000))
    script = f"set -o pipefail; {sys.executable} -m proxyherd tail {follow or '-n 9999'} | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1


class Talk:
    """Clients that talk to a server while its log is followed and rotated. They report: each report is logged."""

    def __init__(self, server: Server, tail: Following) -> None:
        self.server = server
        self.tail = tail
        self.sent: list[str] = []

    def talk(self, goes_on: Callable[[], bool]) -> None:
        """Send batches of commands; return when all were shown."""
        with self.server.connect() as connection:
            while goes_on():
                batch = [f"IAMAT line{len(self.sent) + n} +1+1 5" for n in range(25)]
                connection.send(*(one.encode() for one in batch))
                for _ in batch:
                    connection.line()
                self.sent += batch
                self._wait_for(len(self.sent) - 500)
        self._wait_for(len(self.sent))

    def _wait_for(self, count: int) -> None:
        wait_until(lambda: len(self.tail.commands) >= count, f"{count} of {len(self.sent)} lines are shown")


@contextlib.contextmanager
def load(server: Server) -> Iterator[Talk]:
    """Follow the log of a server; in the end, all that was sent is to have been shown once, and in order."""
    with following(
        "--config", str(server.herd.file), "--logs", str(server.log_file.parent), "-n", "0"
    ) as tail:
        # Its first line shows that it follows; how soon, nobody knows.
        wait_until(lambda: server.ask(b"HELLO") and tail.events, "the tail follows")
        talk = Talk(server, tail)
        yield talk
        assert tail.end(signal.SIGINT) == 0
        assert tail.errors == b""
        assert tail.commands == talk.sent


def test_nothing_is_lost_or_doubled_while_a_busy_server_rotates_its_log() -> None:
    """Dozens of rotations; so many files are kept that a tail which is held up finds them all."""
    with running_server("--log-max-bytes", "10000", "--log-backups", "1000") as clark, load(clark) as clients:
        clients.talk(lambda: len(clients.sent) < 4_500)
        assert len(list(clark.log_file.parent.glob("Clark.log.*"))) > 50


@needs("logrotate")
def test_nothing_is_lost_or_doubled_while_logrotate_rotates_the_log() -> None:
    """It makes the new file at once, and the server writes on into the old one until SIGHUP. As long as a tail takes
    to look there is between two rotations.
    """
    with running_server() as clark, load(clark) as clients:
        folder = clark.herd.folder
        (folder / "rotate.conf").write_text(
            f"{clark.log_file} {{\n  rotate 100\n  create 0640\n  dateext\n  dateformat -%s-{clark.pid}\n"
            f"  postrotate\n    kill -HUP {clark.pid}\n  endscript\n}}\n"
        )
        # Or logrotate says that anybody may write there.
        (folder / "rotate.conf").chmod(0o644)
        clark.log_file.parent.chmod(0o755)
        command = ["logrotate", "--force", "--state", str(folder / "state"), str(folder / "rotate.conf")]
        environ = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin"}
        rotations = 0

        def rotate() -> None:
            nonlocal rotations
            for _ in range(2):
                seen = len(clients.sent)
                wait_until(lambda seen=seen: len(clients.tail.commands) > seen, "what was just sent is shown")  # type: ignore[misc]
                # The name of a rotated file has no finer, and logrotate's clock is a few milliseconds late.
                next_second = int(time.time()) + 1.1
                wait_until(lambda then=next_second: time.time() > then, "the next second")  # type: ignore[misc]
                subprocess.run(command, check=True, env=environ)
                rotations += 1

        thread = threading.Thread(target=rotate)
        thread.start()
        clients.talk(thread.is_alive)
        thread.join()
        assert rotations == 2
        assert len(list(clark.log_file.parent.glob("Clark.log-*"))) == 2


def test_logs_of_real_servers_are_shown_with_what_strangers_sent() -> None:
    with herd_of([("Ann", "Bob")]) as herd:
        herd.start()
        herd.wait_until_whole()
        herd["Ann"].ask(b"FOO \x1b]0;title\x07 \xff \xe2\x80\xae kiwi")
        herd["Bob"].wait_until_knows(herd["Ann"].hears(b"kiwi"))
        shown = real_tail(herd, "--client", "kiwi", "--color", "never")
    told = shown.splitlines()
    assert shown.replace("\n", "").isprintable()
    commands = [one.split()[2] for one in told if " command " in one]
    assert sorted(commands) == ["Ann", "Ann", *["Bob"] * shown.count("WHATSAT")]
    assert r'command="FOO \x1b]0;title\x07 \xff \u202e kiwi"' in shown
    # Either may be first: it is written down when it is done, and microseconds apart.
    assert {one.split()[3] for one in told if "flood" in one} == {"flood_sent", "flood_received"}


def real_tail(herd: Herd, *arguments: str) -> str:
    command = [sys.executable, "-m", "proxyherd", "tail", "--config", str(herd.file), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=True, cwd=herd.folder
    ).stdout
