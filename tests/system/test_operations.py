"""What docs/operations.md says about upgrading, changing and saving a herd, done to real herds under load.

The documented steps are carried out word for word. The load is of clients as they are: each has a connection to one
server, dials again when that ends, and sends again what was not answered. What was answered may not be lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Self

import earlier
import pytest
from herd_process import (
    ROOT,
    ServerProcess,
    free_port,
    now,
    running_herd,
    running_server,
    wait_until,
    withheld,
)
from supervised import Supervised, supervised_herd

from proxyherd.engines.herd import journal

MOST_SECONDS = 1.0
STOP_SECONDS = 0.8  # half a second, and what ending takes
MOST_COPIES = 10
PAUSE_SECONDS = 0.02
UNIQUE = 1 << 40
REWRITES = "\n[durability]\nrewrite_bytes = 4096\n"


def steps(section: str, language: str = "sh") -> list[str]:
    """Return the code of a section of the page, a block each."""
    [text] = re.findall(
        rf"^## {section}\n(.*?)(?=^## |\Z)",
        (ROOT / "docs/operations.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def carry_out(step: str, folder: Path) -> str:
    """Carry a step out in a folder that has the program at hand; return what it prints."""
    programs = folder / ".venv/bin"
    if not programs.exists():
        programs.parent.mkdir()
        programs.symlink_to(Path(sys.executable).parent)
    done = subprocess.run(
        ["sh", "-e", "-c", step], cwd=folder, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Outage:
    """Measures for how long a client is out: from the end of its connection to its next answer, less what a busy machine
    withheld from those that it waits for: its server's old process and new one, supervisord, and at last itself.
    """

    def __init__(self, processes: Callable[[], Iterable[int]]) -> None:
        self._processes = processes
        self._began = time.monotonic()
        self._before = {process: withheld(process) for process in processes()}
        self._seen = dict(self._before)
        self.look()

    def look(self) -> None:
        """Note how it stands; called at every attempt, since a process that has ended tells nothing."""
        for process in self._processes():
            self._seen[process] = max(self._seen.get(process, 0.0), withheld(process))
        self._own = withheld()

    def end(self) -> float:
        """Return the seconds."""
        took, own = time.monotonic() - self._began, withheld() - self._own
        self.look()
        return took - own - sum(self._seen.values()) + sum(self._before.values())


class OutageLoad:
    """Clients that report until the body ends. Each client's `ids` take turns, so that each report is one more client
    of the herd's where they are many, and few have many reports where they are few.
    """

    def __init__(
        self, servers: Iterable[ServerProcess], *, clients: int = 2, ids: int = UNIQUE, supervisor: int = 0
    ) -> None:
        self.answered: dict[bytes, bytes] = {}
        """By ID: the operands of the last report that was answered."""
        self.out: defaultdict[str, list[float]] = defaultdict(list)
        """By server: the seconds for which each of its clients was out, each time."""
        self._ids = ids
        self._supervisor = supervisor
        self._locks = {server.name: server.state / "lock" for server in servers}
        servers = list(servers)
        self._ports = {server.name: server.client_port for server in servers}
        self._clients = clients
        self._done = False
        self._failures: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        self._thread.join()
        assert not self._failures, self._failures

    def wait_for(self, reports: int) -> None:
        """Wait for so many more reports, of as many clients, to be answered."""
        wanted = len(self.answered) + reports
        wait_until(lambda: len(self.answered) >= wanted or self._failures, "reports are answered")

    def move(self, name: str, other: ServerProcess) -> None:
        """Let a server's clients dial another from now on."""
        self._ports[name] = other.client_port

    def _run(self) -> None:
        asyncio.run(self._report())

    async def _report(self) -> None:
        clients = [(name, number) for name in self._ports for number in range(self._clients)]
        await asyncio.gather(*(self._live(name, number) for name, number in clients))

    async def _live(self, name: str, number: int) -> None:
        waiting: deque[bytes] = deque()
        reports = self._operands(name, number)
        outage: Outage | None = None
        while waiting or not self._done:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._ports[name])
                try:
                    # In Python 3.12.1, writelines fails without a line.
                    writer.write(b"".join(b"IAMAT " + one + b"\n" for one in waiting))
                    while waiting or not self._done:
                        while not self._done and len(waiting) <= number:  # as many at once as its number
                            waiting.append(next(reports))
                            writer.write(b"IAMAT " + waiting[-1] + b"\n")
                        answer = await reader.readline()
                        if not answer.endswith(b"\n"):
                            break
                        self._answered(waiting.popleft(), answer)
                        if outage is not None:
                            self.out[name].append(outage.end())
                            outage = None
                        await asyncio.sleep(PAUSE_SECONDS)
                finally:
                    writer.close()
            if outage is None:
                outage = Outage(partial(self._waited_for, name))
            outage.look()
            await asyncio.sleep(PAUSE_SECONDS)

    def _waited_for(self, name: str) -> list[int]:
        """Return the processes on which it depends when a server's clients are answered again."""
        holder = "0"
        with contextlib.suppress(FileNotFoundError):  # while a backup is put in the place of the state
            holder = self._locks[name].read_text().strip() or "0"  # empty while a new process writes its id
        return [self._supervisor, int(holder)]

    def _operands(self, name: str, number: int) -> Iterator[bytes]:
        count = 0
        while True:
            count += 1
            yield b"%b-%d-%d +34.068930-118.445127 %b" % (name.encode(), number, count % self._ids, now())

    def _answered(self, operands: bytes, answer: bytes) -> None:
        # One that is sent again has an answer of its own, with another difference.
        if not answer.startswith(b"AT ") or operands_of(answer) != operands:
            self._failures.append(f"{operands!r} is answered with {answer!r}")
        self.answered[operands.split()[0]] = operands


def operands_of(at_line: bytes) -> bytes:
    return b" ".join(at_line.split()[3:])


def table(server: ServerProcess, ids: Iterable[bytes]) -> dict[bytes, bytes]:
    """Return what a server knows of these clients, as operands."""
    known, waiting = {}, list(ids)
    with server.connect() as connection:
        while waiting:
            some, waiting = waiting[:100], waiting[100:]  # whose answers wait in no buffer that is too small
            connection.send(*(b"WHATSAT %b 0 0" % client for client in some))
            for client in some:
                known[client] = operands_of(connection.places().partition(b"\n")[0])
    return known


def lost(servers: Iterable[ServerProcess], answered: Mapping[bytes, bytes]) -> dict[str, int]:
    """Return of how many clients each server does not know what was answered last, once floods have arrived."""

    def of(server: ServerProcess) -> int:
        return len(answered.items() - table(server, answered).items())

    left = {}
    for server in servers:
        with contextlib.suppress(AssertionError):
            wait_until(lambda one=server: of(one) == 0, "it knows all", seconds=60)  # type: ignore[misc]
            continue
        left[server.name] = of(server)
    return left


def time_of(operands: bytes) -> tuple[int, int]:
    seconds, _, rest = operands.rpartition(b" ")[2].partition(b".")
    return int(seconds), int(rest)


def older(known: Mapping[bytes, bytes], answered: Mapping[bytes, bytes]) -> list[bytes]:
    """Return the clients of whom what is known is older than what was answered, or nothing."""
    return [
        client
        for client, operands in answered.items()
        if not known.get(client) or time_of(known[client]) < time_of(operands)
    ]


def errors(servers: Iterable[ServerProcess]) -> list[object]:
    return [one for server in servers for one in server.log() if one["level"] not in ("info", "warning")]


def restart(server: ServerProcess) -> None:
    assert server.stop() == 0
    server.start()
    server.wait_until_ready()
    server.wait_until_linked()


# Upgrade. -----------------------------------------------------------------------------------------------------


QUICK = {"startsecs = 2": "startsecs = 0"}
"""`restart` then does not wait for seconds whether the server lasts; `status --wait` waits anyway."""


@pytest.fixture(scope="module")
def version_1(tmp_path_factory: pytest.TempPathFactory) -> Path | None:
    """The folder with the program of version 1; None if the history lacks it."""
    folder = tmp_path_factory.mktemp("earlier") / "program"
    return folder if earlier.install(folder) else None


@pytest.fixture(scope="module")
def supervised(version_1: Path | None) -> Iterator[Supervised]:
    """A herd that runs version 1, where our program is installed but runs nowhere yet."""
    with supervised_herd(QUICK, earlier.script(version_1) if version_1 else "") as herd:
        herd.install()
        yield herd


@pytest.mark.xdist_group("operations")
@pytest.mark.timeout(300)
def test_the_documented_upgrade_loses_no_report_and_keeps_no_client_out_for_a_second(
    supervised: Supervised, version_1: Path | None
) -> None:
    _, step, check = steps("Upgrade")
    names = " ".join(supervised)
    assert names in step
    before = {name: supervised.holder(name) for name in supervised}
    with OutageLoad(supervised.values(), supervisor=supervised.supervisord()) as load:
        assert supervised.run(check).returncode == 0
        done = supervised.run(step)
        load.wait_for(20)
    assert done.returncode == 0, done.stderr
    assert all(supervised.holder(name) != pid for name, pid in before.items())
    assert load.out.keys() == set(supervised)
    assert not lost(supervised.values(), load.answered)
    longest = {name: max(seconds) for name, seconds in load.out.items()}
    print("out for", {name: round(seconds, 3) for name, seconds in longest.items()})
    assert max(longest.values()) < MOST_SECONDS, longest
    assert not errors(supervised.values())
    if version_1 is None:
        pytest.skip(f"{earlier.LACKING}; the upgrade was one from this program to itself")


def test_a_client_that_does_not_notice_the_end_holds_up_a_server_that_stops_for_half_a_second() -> None:
    """As a phone that has just reported, and then lost its network: its end of the connection stays open. A server
    listens again half a second after its start, so others are kept out for a second.
    """
    with running_server() as clark, clark.connect() as deaf:
        assert deaf.ask(b"IAMAT kiwi +1+1 %b" % now()).startswith(b"AT ")
        assert clark.process is not None
        began, own, its = time.monotonic(), withheld(), [withheld(clark.pid)]
        clark.signal(signal.SIGTERM)
        while clark.process.poll() is None:  # its figures are gone with it
            its.append(withheld(clark.pid))
            time.sleep(0.002)
        seconds, kept = time.monotonic() - began, withheld() - own + max(its) - its[0]
        assert clark.wait() == 0
    print(f"ended in {seconds:.3f} s")
    assert 0.4 < seconds < STOP_SECONDS + kept


# Add and remove a server. -------------------------------------------------------------------------------------

CONF = ROOT / "supervisord.conf"
PORTS = ("10005", "10105", "10205")


@pytest.mark.xdist_group("operations")
def test_the_documented_steps_add_a_server_and_remove_it_again_and_nothing_is_lost(
    supervised: Supervised,
) -> None:
    """Until it is told to stop, the server that is to be removed takes reports."""
    section = "Add and remove a server"
    keep, roll, start, stop, roll_again, forget = steps(section)
    [toml], [ini] = steps(section, "toml"), steps(section, "ini")
    herd, file, conf = supervised.herd, supervised.herd.file, supervised.folder / "supervisord.conf"
    before, conf_before = file.read_text(), conf.read_text()
    dora = ServerProcess(herd, "Dora", (free_port(), free_port(), free_port()), ["Clark", "Jaquez"])
    everyone = [*supervised.values(), dora]

    def do(step: str) -> None:
        done = supervised.run(step)
        assert done.returncode == 0, done.stdout + done.stderr

    with OutageLoad(supervised.values(), clients=1) as load:
        do(keep)
        file.write_text(with_dora(before, toml, dora))
        do(roll)
        assert "[group" not in ini
        conf.write_text(conf_before + "\n" + ini.replace("startsecs = 2", "startsecs = 0"))
        do(start)
        assert dora.links() == {"Clark", "Jaquez"}
        assert not lost([dora], dict(list(load.answered.items())[:-100]))
        before_removal = {name: supervised.holder(name) for name in supervised}
        with OutageLoad([dora]) as its_load:
            its_load.wait_for(200)
            do(stop)
            its_load.move("Dora", supervised["Clark"])
            its_load.wait_for(20)
        file.write_text(before)
        do(roll_again)
        conf.write_text(conf_before)
        do(forget)
        assert set(supervised.states()) == set(supervised)
        load.wait_for(20)
    assert all(supervised.holder(name) != pid for name, pid in before_removal.items())
    assert not lost(supervised.values(), load.answered | its_load.answered)
    assert not errors(everyone)
    refused = [one for server in everyone for one in server.events("peer_refused")]
    assert [(one["server"], one["neighbour"], one["reason"]) for one in refused] == []
    assert all(server.links() == set(server.neighbours) for server in supervised.values())


def test_the_documented_program_is_like_the_others() -> None:
    [ini] = steps("Add and remove a server", "ini")
    [clark] = re.findall(r"^\[program:Clark\].*?(?=\n\[)", CONF.read_text(), re.DOTALL | re.MULTILINE)
    assert ini.rstrip() == clark.rstrip().replace("Clark", "Dora")


def with_dora(file: str, toml: str, dora: ServerProcess) -> str:
    """Return the herd's file with what the documentation adds to it, at ports that are free."""
    edges, table = toml.split("\n\n", 1)
    more = ", ".join(re.findall(r'\["\w+", "\w+"\]', edges))
    assert more == '["Clark", "Dora"], ["Dora", "Jaquez"]'
    for documented, port in zip(PORTS, (dora.client_port, dora.peer_port, dora.admin_port), strict=True):
        assert documented in table
        table = table.replace(documented, str(port))
    first, rest = file.split("\n", 1)
    return f"{first.removesuffix(']')}, {more}]\n{rest}\n{table}"


@pytest.mark.parametrize("stops", ["Ann", "Bob"])  # who dialled, and who was dialled
def test_neighbours_have_all_that_a_server_answered_before_it_stopped_though_they_read_slowly(
    stops: str,
) -> None:
    """They have it from its last words: nobody asks a server that is gone."""
    # However long the reports take here, the neighbour does not pass for one that hangs.
    with running_herd([("Ann", "Bob")], more="\n[timing]\nheartbeat_seconds = 30\n") as herd:
        [neighbour] = set(herd) - {stops}
        answered: dict[bytes, bytes] = {}
        herd[neighbour].freeze()
        with herd[stops].connect() as client:
            for number in range(0, 20_000, 500):
                reports = [b"client%d +1+1 %b" % (one, now()) for one in range(number, number + 500)]
                client.send(*(b"IAMAT " + report for report in reports))
                assert all(client.line().startswith(b"AT ") for _ in reports)
                answered.update((report.split()[0], report) for report in reports)
        herd[stops].signal(signal.SIGTERM)
        herd[stops].wait_for_event("stopping")
        herd[neighbour].thaw()
        assert herd[stops].wait() == 0
        assert not lost([herd[neighbour]], answered)
        assert herd[neighbour].events("peer_closed")[-1]["reason"] == "closed by the neighbour"


def test_a_neighbour_that_hangs_holds_up_the_end_of_a_server_for_three_heartbeats() -> None:
    with running_herd([("Ann", "Bob")], more="\n[timing]\nheartbeat_seconds = 0.1\n") as herd:
        herd["Bob"].freeze()
        herd["Ann"].hears(b"kiwi")
        began = time.monotonic()
        assert herd["Ann"].stop() == 0
        assert time.monotonic() - began < 2, "drain_seconds is 5"


# Change the secret. -------------------------------------------------------------------------------------------


*SECRET_STEPS, _ = (
    "".join(line for line in block.splitlines(keepends=True) if "HUP" not in line)
    for block in re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "docs/security.md").read_text(), re.DOTALL | re.MULTILINE
    )
    if "var/secret" in block
)
"""Without the signal: each server is restarted instead."""


def test_a_secret_that_is_read_at_starts_only_is_changed_by_restarts_and_nothing_is_lost() -> None:
    """As under systemd, which hands a credential over when it starts a unit. Who is restarted first dials one
    that is a step behind, and is dialled by the other.
    """
    with running_herd([("Ann", "Bob"), ("Bob", "Cid")]) as herd:
        for server in herd.values():
            server.secret_file = herd.folder / "credentials" / server.name / "secret"
        with OutageLoad(herd.values()) as load:
            for step in SECRET_STEPS:
                carry_out(step, herd.folder)
                for server in (herd["Bob"], herd["Ann"], herd["Cid"]):
                    load_credentials(herd.folder / "var", server)
                    restart(server)
            load.wait_for(20)
        assert not lost(herd.values(), load.answered)
        assert not [one for server in herd.values() for one in server.events("peer_refused")]
        assert not errors(herd.values())


def load_credentials(folder: Path, server: ServerProcess) -> None:
    shutil.rmtree(server.secret_file.parent, ignore_errors=True)
    server.secret_file.parent.mkdir(parents=True)
    for name in ("secret", "secret.next", "secret.old", "secret.table"):
        file = server.secret_file.with_name(name)
        file.write_bytes((folder / name).read_bytes() if (folder / name).exists() else b"\n")
        file.chmod(0o440)
    server.environ["CREDENTIALS_DIRECTORY"] = str(server.secret_file.parent)


# Back up and restore. -----------------------------------------------------------------------------------------


def saved(folder: Path) -> dict[bytes, bytes]:
    """Return what a copy of a journal holds: by ID, the operands of the latest report."""
    latest: dict[bytes, bytes] = {}
    for path in journal.files(folder):
        for lines in journal.read(path):
            for operands in map(operands_of, lines):
                client = operands.split()[0]
                if client not in latest or time_of(operands) >= time_of(latest[client]):
                    latest[client] = operands
    return latest


def test_a_copy_of_a_live_journal_holds_all_that_was_answered_before_unless_cp_says_otherwise() -> None:
    """Copies are halted at different moments while the journal is rewritten, which deletes what they want to read."""
    whole, failed = 0, 0
    with running_server(more=REWRITES) as clark, OutageLoad([clark], clients=4, ids=50) as load:
        for number in range(20):  # so that there is some time from what `cp` lists to what it opens
            (clark.state / f"journal/other-{number}").write_bytes(bytes(1 << 17))
        for attempt in range(MOST_COPIES):
            if whole and failed:
                break
            for answered, target, code, said in halted_copies(clark, load, attempt):
                if code == 0:
                    assert not older(saved(target), answered)
                    whole += 1
                else:
                    assert "No such file" in said
                    failed += 1
    print(f"{whole} copies were whole, {failed} failed and said so")
    assert whole
    assert failed, "no rewrite came in between: the law was not tried"


def halted_copies(
    server: ServerProcess, load: OutageLoad, attempt: int
) -> Iterator[tuple[dict[bytes, bytes], Path, int, str]]:
    """Copy the journal many times, each copy halted for as long as it takes the server to rewrite it."""
    copies = []
    try:
        for number in range(16):
            target, answered = server.herd.folder / f"copy-{attempt}-{number}", dict(load.answered)
            command = ["cp", "-R", str(server.state / "journal"), str(target)]
            copy = subprocess.Popen(command, stderr=subprocess.PIPE, env={"LC_ALL": "C"}, text=True)
            copies.append((answered, target, copy))
            time.sleep(number * 0.000_5)  # in the middle of what it does: that is all there is to wait for
            copy.send_signal(signal.SIGSTOP)
        rewritten = len(server.events("journal_rewritten"))
        wait_until(lambda: len(server.events("journal_rewritten")) > rewritten, "the journal is rewritten")
    finally:
        for _, _, copy in copies:
            copy.send_signal(signal.SIGCONT)
        ended = [(answered, target, copy.communicate()[1], copy) for answered, target, copy in copies]
    for answered, target, said, copy in ended:
        yield answered, target, copy.returncode, said


def test_a_herd_that_is_lost_comes_back_whole_from_the_documented_backup_of_one_server() -> None:
    """And an old backup that is restored into a herd that lives takes nothing back."""
    save, restore = steps("Back up and restore")
    with running_herd([("Bailey", "Bona"), ("Bona", "Clark")], more=REWRITES) as herd:
        with OutageLoad(herd.values(), clients=4, ids=20) as load:
            wait_until(lambda: len(herd["Clark"].events("journal_rewritten")) > 1, "the journal is rewritten")
            answered = dict(load.answered)
            at_clark = {client: line for client, line in answered.items() if client.startswith(b"Clark")}
            carry_out(save, herd.folder)
            load.wait_for(0)
        [backup] = (herd.folder / "backup").glob("Clark-*")
        assert not older(saved(backup), at_clark)

        for server in herd.values():
            server.kill()
            shutil.rmtree(server.state)
        carry_out(f"backup={backup}\n{restore}", herd.folder)
        herd.start()
        herd.wait_until_whole()
        for server in herd.values():
            wait_until(lambda one=server: not older(table(one, at_clark), at_clark), "all is back")  # type: ignore[misc]

        with OutageLoad(herd.values(), ids=20) as load:
            load.wait_for(0)
            assert herd["Clark"].stop() == 0
            shutil.rmtree(herd["Clark"].state)
            carry_out(f"backup={backup}\n{restore}", herd.folder)
            herd["Clark"].start()
            herd.wait_until_whole()
        assert not lost(herd.values(), load.answered)
        assert not errors(herd.values())
