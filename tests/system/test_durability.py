"""What an answer promises, kept by real processes: kills, restarts, full disks; and the order of what must be so."""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from chaos import SmallDisk, small_disk
from herd_process import RunningHerd, ServerProcess, herd_of, now, running_herd, running_server, wait_until

from proxyherd.engines.herd.journal import files, read, record, verify
from proxyherd.engines.herd.rewrite import spell_records

NO_ROOM = "No space left on device"


def report(client: bytes) -> bytes:
    return b"IAMAT %b +34.068930-118.445127 %b" % (client, now())


def write_journal(server: ServerProcess, lines: int) -> list[bytes]:
    """Lay a journal of so many clients where this server finds it at its start; return its first and last line."""
    folder = server.state / "journal"
    folder.mkdir(parents=True)
    ats = [b"AT Clark +0.100000000 client%d +34.068930-118.445127 %d.5" % (at, at) for at in range(lines)]
    (folder / "000000000001.segment").write_bytes(spell_records(ats))
    return [ats[0], ats[-1]]


def journaled(server: ServerProcess) -> set[bytes]:
    """Return the lines on this server's disk, with LF as in an answer."""
    return {
        line + b"\n" for path in files(server.state / "journal") for lines in read(path) for line in lines
    }


# --- kills


def test_answered_report_survives_the_kill_of_a_lone_server() -> None:
    with running_server() as clark:
        for life in range(3):
            with clark.connect() as connection:
                connection.send(*(report(b"life%d-%d" % (life, number)) for number in range(100)))
                ats = [connection.line() for _ in range(100)]
                clark.kill()
            assert all(at.startswith(b"AT Clark ") for at in ats)
            assert set(ats) <= journaled(clark)
            clark.start()
            clark.wait_until_ready()
            assert [clark.knows(at.split()[3]) for at in ats] == ats
        assert [one["clients"] for one in clark.events("replayed")] == [0, 100, 200, 300]
        assert clark.stderr() == ""


def test_answered_report_survives_the_kill_of_the_whole_herd() -> None:
    with running_herd([("Ann", "Bob")]) as herd:
        ats = [
            server.hears(b"%b-%d" % (name.encode(), n)) for n in range(30) for name, server in herd.items()
        ]
        for server in herd.values():
            server.kill()
        herd.start()
        herd.wait_until_whole()
        for at in ats:
            herd.wait_until_all_know(at)


def test_answer_that_was_read_just_before_the_kill_is_on_disk() -> None:
    with running_server() as clark:
        for _ in range(5):
            with clark.connect() as connection:
                at = connection.ask(report(b"kiwi"))
                clark.kill()
            assert at in journaled(clark)
            clark.start()
            clark.wait_until_ready()


def test_told_to_stop_it_exits_0_and_keeps_everything() -> None:
    with running_server() as clark:
        ats = [clark.hears(b"client%d" % number) for number in range(20)]
        assert clark.stop() == 0
        assert set(ats) <= journaled(clark)
        clark.start()
        clark.wait_until_ready()
        assert [clark.knows(at.split()[3]) for at in ats] == ats


# --- replay


def wait_until_replayed(server: ServerProcess) -> None:
    """Wait until it is ready, as long as a busy machine takes for a journal of some size."""
    wait_until(lambda: server.readiness()[0] == 200, f"{server.name} is ready", 300)


@contextlib.contextmanager
def replaying(lines: int = 250_000, *, ends: bool = True) -> Iterator[tuple[ServerProcess, list[bytes]]]:
    """Run Clark with a journal that takes a while; it listens and replays when the body begins. `ends`: see that it ends."""
    with herd_of([], "Clark") as herd:
        clark = herd["Clark"]
        known = write_journal(clark, lines)
        clark.start()
        wait_until(lambda: clark.events("started"), "Clark listens")
        yield clark, known
        if ends:
            wait_until_replayed(clark)
            clark.wait_for_event("replayed", lines=lines)
        assert clark.stderr() == ""


def test_while_it_replays_reports_are_taken_and_queries_wait() -> None:
    with (
        replaying() as (clark, (first, last)),
        clark.connect() as asks,
        clark.connect() as early,
        clark.connect() as strangers,
    ):
        asks.send(b"WHATSAT %b 0 0" % last.split()[3])
        early.send(b"WHATSAT %b 0 0" % first.split()[3])
        early.send(b"WHATSAT fresh 0 0")
        strangers.send(b"WHATSAT nobody 0 0")
        fresh = clark.hears(b"fresh")
        answered_early = not clark.events("replayed")
        held_back = all(one.has_nothing_to_read() for one in (asks, early, strangers))
        assert answered_early
        assert held_back
        assert early.places().startswith(first + b"\n")
        assert early.places().startswith(fresh)
        assert asks.places().startswith(last + b"\n")
        assert strangers.line() == b"? WHATSAT nobody 0 0\n"
        assert clark.events("replayed")
        assert clark.knows(b"fresh") == fresh
        clark.kill()
        assert fresh in journaled(clark)
        clark.start()
        wait_until_replayed(clark)
        assert clark.knows(b"fresh") == fresh


def test_report_taken_while_replaying_yields_to_a_later_one_in_the_journal() -> None:
    with replaying() as (clark, (_, last)):
        client = last.split()[3]
        answer = clark.ask(b"IAMAT %b +1+1 5" % client)
        assert answer.startswith(b"AT Clark ")
        wait_until_replayed(clark)
        assert clark.knows(client) == last + b"\n"


def test_not_ready_while_replaying_and_the_reason_says_so() -> None:
    # Its admin port comes up a moment after its start: the replay has to take longer.
    with replaying(lines=1_000_000, ends=False) as (clark, _):
        parts: set[int] = set()

        def grows() -> bool:
            status, text = clark.readiness()
            parts.update(int(part) for part in re.findall(r"^replaying the journal: (\d+)%\n$", text))
            return status == 503 and len(parts) > 1

        wait_until(grows, "it says what it does, and how far it is")
        assert max(parts) <= 100


def test_told_to_stop_while_replaying_it_exits_0_and_loses_nothing() -> None:
    with herd_of([], "Clark", more="[timing]\ndrain_seconds = 3600\n") as herd:
        clark = herd["Clark"]
        known = write_journal(clark, 250_000)
        clark.start()
        wait_until(lambda: clark.events("started"), "Clark listens")
        with clark.connect() as asks:
            asks.send(b"WHATSAT %b 0 0" % known[0].split()[3])
            fresh = clark.hears(b"fresh")
            assert clark.stop() == 0
            assert asks.rest() == b""  # closed without an answer
        assert not clark.events("replayed")
        clark.start()
        wait_until_replayed(clark)
        for line in (*(line + b"\n" for line in known), fresh):
            assert clark.knows(line.split()[3]) == line
        assert clark.stderr() == ""


def test_told_to_stop_while_rewriting_it_exits_0_and_loses_nothing() -> None:
    with herd_of([], "Clark", more="[durability]\nrewrite_bytes = 4096\n") as herd:
        clark = herd["Clark"]
        known = write_journal(clark, 60_000)
        journal = clark.state / "journal"
        for pause in (0.0, 0.01, 0.03):
            clark.start()
            clark.wait_until_ready()
            fresh = clark.hears(b"fresh")
            wait_until(
                lambda: list(journal.glob("*.unfinished")) or clark.events("journal_rewritten"), "it rewrites"
            )
            time.sleep(pause)  # not a wait for anything: another place to be stopped at
            assert clark.stop() == 0
            for line in (*(line + b"\n" for line in known), fresh):
                assert line in journaled(clark)
            for path in files(journal):
                assert verify(path).damaged == 0
            (journal / f"9999{int(pause * 100):08}.segment").write_bytes(record(known[0]) * 100)
        assert not [one for one in clark.log() if one["event"] in ("internal_error", "journal_failing")]
        assert clark.stderr() == ""


def test_damage_is_logged_set_aside_and_healed_from_the_neighbours() -> None:
    with running_herd([("Ann", "Bob")]) as herd:
        ann = herd["Ann"]
        ats = [ann.hears(b"client%d" % number) for number in range(10)]
        for at in ats:
            herd["Bob"].wait_until_knows(at)
        ann.kill()
        [segment] = [path for path in files(ann.state / "journal") if path.stat().st_size]
        data = segment.read_bytes().replace(b"client4 ", b"client5 ", 1)
        segment.write_bytes(data)
        ann.start()
        event = ann.wait_for_event("journal_damaged", file=segment.name, damaged=1, records=9, level="error")
        assert f"{segment.name}.damaged" in event["remedy"]
        herd.wait_until_whole()
        for at in ats:
            ann.wait_until_knows(at)
        ann.wait_for_event("journal_rewritten")
        assert segment.with_name(f"{segment.name}.damaged").read_bytes() == data
        herd["Bob"].kill()
        ann.kill()
        assert set(ats) <= journaled(ann)


def test_torn_tail_is_logged_and_cut() -> None:
    with running_server() as clark:
        at = clark.hears(b"kiwi")
        clark.kill()
        [segment] = files(clark.state / "journal")
        with segment.open("ab") as file:
            file.write(b"0badc0de AT Clark +0.1000")
        clark.start()
        clark.wait_until_ready()
        clark.wait_for_event("journal_torn", file=segment.name, records=1, cut_bytes=25, level="warning")
        assert clark.knows(b"kiwi") == at
        assert verify(segment).torn == 0


# --- fsync = "always"


def test_with_fsync_always_every_answer_comes_in_order_and_survives() -> None:
    with running_server(more='[durability]\nfsync = "always"\n') as clark, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(clark.connect()) for _ in range(20)]
        for number, connection in enumerate(connections):
            connection.send(
                *(report(b"c%d-%d" % (number, at)) for at in range(600)), b"WHATSAT c0-0 0 0", b"FOO"
            )
        ats: list[bytes] = []
        for number, connection in enumerate(connections):
            mine = [connection.line() for _ in range(600)]
            assert [at.split()[3] for at in mine] == [b"c%d-%d" % (number, at) for at in range(600)]
            assert connection.places().startswith(ats[0] if ats else mine[0])
            assert connection.line() == b"? FOO\n"
            ats += mine
        clark.kill()
        assert set(ats) <= journaled(clark)


# --- files that are deleted


def test_deleted_under_a_running_server_and_killed_it_has_what_it_answered() -> None:
    with running_server() as clark:
        ats = [clark.hears(b"client%d" % number) for number in range(5)]
        shutil.rmtree(clark.state / "journal")
        clark.wait_for_event("journal_whole")
        assert "deleted" in clark.wait_for_event("journal_failing", level="error")["reason"]
        ats.append(clark.hears(b"later"))
        clark.kill()
        assert set(ats) <= journaled(clark)
        clark.start()
        clark.wait_until_ready()
        assert [clark.knows(at.split()[3]) for at in ats] == ats


# --- a full disk


@contextlib.contextmanager
def herd_with_small_disk(more: str = "") -> Iterator[tuple[RunningHerd, SmallDisk]]:
    """Run Ann between Bob and Cid, her state on a disk of its own."""
    with herd_of([("Ann", "Bob"), ("Ann", "Cid")], more=more) as herd, small_disk(herd["Ann"].state) as disk:
        herd.start()
        herd.wait_until_whole()
        yield herd, disk


def report_until_refused(server: ServerProcess, client: bytes) -> bytes:
    """Report, and ask about it in the same packet, until a report is refused; return what is held then.

    Each of the two answers must stand to the other, also in the turn in which the disk has become full.
    """
    held = server.knows(client)
    with server.connect() as connection:
        for _ in range(1_000):
            line = report(client)
            fresh = report(b"%b-fresh" % client)
            connection.send(line, b"WHATSAT %b 0 0" % client, fresh, b"WHATSAT %b-fresh 0 0" % client, b"FOO")
            answers = [connection.line(), connection.places(), connection.line(), connection.places()]
            assert connection.line() == b"? FOO\n"
            if answers[0] == b"? " + line + b"\n":
                assert answers[1].startswith(held)
                assert answers[2] == b"? " + fresh + b"\n"
                return held
            assert answers[0].startswith(b"AT ")
            assert answers[1].startswith(answers[0])
            assert answers[2].startswith(b"AT ")
            assert answers[3].startswith(answers[2])
            held = answers[0]
    raise AssertionError("the disk is full, and every report was taken")


def test_full_disk_refuses_reports_and_nothing_else_and_is_mended_when_there_is_room() -> None:
    with herd_with_small_disk() as (herd, disk):
        ann, bob, cid = herd.values()
        before = ann.hears(b"before")
        disk.fill()
        held = report_until_refused(ann, b"kiwi")
        # Reports are refused, and the table is as it was.
        line = report(b"kiwi")
        assert ann.ask(line) == b"? " + line + b"\n"
        assert ann.ask(report(b"stranger")).startswith(b"? IAMAT stranger ")
        assert ann.knows(b"stranger") == b""
        assert ann.knows(b"before") == before
        for server in herd.values():
            server.wait_until_knows(held)
            assert server.knows(b"kiwi") == held
        # What others take is learned here, and passed on.
        learned = [bob.hears(b"from-bob-%d" % number) for number in range(200)]
        for at in learned:
            ann.wait_until_knows(at)
            cid.wait_until_knows(at)
        # The operator is told.
        status, reason = ann.readiness()
        assert status == 503
        assert reason.startswith("the journal cannot be written: ")
        assert NO_ROOM in reason
        assert ann.metrics("proxyherd_journal_failing") == {"proxyherd_journal_failing": 1.0}
        told = ann.wait_for_event("journal_failing", level="error", effect="reports are refused")
        assert NO_ROOM in told["reason"]
        assert ann.metrics("proxyherd_commands_total")[
            'proxyherd_commands_total{command="iamat",outcome="refused"}'
        ]
        # Room again: ready means that all of it is on disk.
        disk.make_room()
        ann.wait_until_ready()
        ann.wait_for_event("journal_whole")
        assert ann.metrics("proxyherd_journal_failing") == {"proxyherd_journal_failing": 0.0}
        after = ann.hears(b"kiwi")
        for server in herd.values():
            server.kill()
        assert {before, after, *learned} <= journaled(ann)
        ann.start()
        ann.wait_until_ready()
        for at in (before, after, *learned):
            assert ann.knows(at.split()[3]) == at
        assert "internal_error" not in {one["event"] for one in ann.log()}
        assert ann.stderr() == ""


def test_disk_that_stays_full_is_logged_once_and_costs_nothing_more() -> None:
    with herd_with_small_disk() as (herd, disk):
        ann, bob = herd["Ann"], herd["Bob"]
        disk.fill()
        report_until_refused(ann, b"kiwi")
        failures = failures_of(ann)
        descriptors = len(list(Path(f"/proc/{ann.pid}/fd").iterdir()))
        for number in range(5):
            bob.hears(b"client%d" % number)
            failures += 1
            wait_until(partial(has_failed, ann, failures), "it is tried again")
        assert len(ann.events("journal_failing")) <= 2
        assert len(list(Path(f"/proc/{ann.pid}/fd").iterdir())) <= descriptors + 3
        assert len(list((ann.state / "journal").iterdir())) <= 6


def failures_of(server: ServerProcess) -> float:
    return server.metrics("proxyherd_journal_failures_total")["proxyherd_journal_failures_total"]


def has_failed(server: ServerProcess, times: float) -> bool:
    return failures_of(server) >= times


def test_on_failure_accept_takes_reports_without_a_promise() -> None:
    with herd_with_small_disk('[durability]\non_failure = "accept"\n') as (herd, disk):
        ann = herd["Ann"]
        disk.fill()
        for number in range(200):
            ann.hears(b"client%d" % number)
        ann.wait_for_event("journal_failing", effect="reports are taken without a promise")
        assert ann.readiness()[0] == 503
        herd.wait_until_all_know(ann.hears(b"kiwi"))
        disk.make_room()
        ann.wait_until_ready()
        ann.kill()
        assert len({line.split()[3] for line in journaled(ann)}) == 201


def test_server_killed_while_its_disk_is_full_starts_and_answers() -> None:
    with herd_with_small_disk() as (herd, disk):
        ann, bob = herd["Ann"], herd["Bob"]
        ann.hears(b"kiwi")
        disk.fill()
        held = report_until_refused(ann, b"kiwi")
        ann.kill()
        disk.fill()
        ann.start()
        wait_until(lambda: ann.readiness()[0], "Ann's admin port answers")
        ann.wait_until_linked()
        ann.wait_until_knows(held)
        ann.wait_until_knows(bob.hears(b"learned"))
        report_until_refused(ann, b"melon")
        disk.make_room()
        ann.wait_until_ready()
        ann.hears(b"kiwi")


def test_server_whose_disk_is_full_at_its_very_first_start_starts_and_answers() -> None:
    with herd_of([("Ann", "Bob")]) as herd, small_disk(herd["Ann"].state) as disk:
        ann, bob = herd.values()
        disk.fill()
        herd.start()
        bob.wait_until_ready()
        wait_until(lambda: ann._lives() and ann.readiness()[0], "Ann's admin port answers")
        ann.wait_until_linked()
        ann.wait_until_knows(bob.hears(b"learned"))
        report_until_refused(ann, b"melon")
        disk.make_room()
        ann.wait_until_ready()
        ann.hears(b"melon")


# --- for operators


def proxyherd_journal(herd: RunningHerd, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "proxyherd", "journal", *arguments],
        cwd=herd.folder,
        capture_output=True,
        timeout=600,
        check=False,
    )


def test_journal_dump_prints_every_at_line_and_verify_counts_them_while_the_server_runs() -> None:
    with running_server() as clark:
        ats = [clark.hears(b"client%d" % number) for number in range(5)]
        for where in (["Clark"], ["--folder", str(clark.state / "journal")]):
            dumped = proxyherd_journal(clark.herd, "dump", *where)
            assert (dumped.returncode, dumped.stdout, dumped.stderr) == (0, b"".join(ats), b"")
            verified = proxyherd_journal(clark.herd, "verify", *where)
            assert verified.returncode == 0
            assert verified.stdout.endswith(b"000000000001.segment: 5 records, 0 damaged, 0 bytes torn\n")


def test_journal_verify_tells_damage_by_its_exit_code_and_leaves_the_files_alone() -> None:
    with herd_of([], "Clark") as herd:
        clark = herd["Clark"]
        write_journal(clark, 5)
        [path] = files(clark.state / "journal")
        torn = path.read_bytes()[:-9]
        path.write_bytes(torn)
        assert proxyherd_journal(herd, "verify", "Clark").returncode == 0
        path.write_bytes(torn.replace(b"client2", b"client7"))
        verified = proxyherd_journal(herd, "verify", "Clark")
        assert verified.returncode == 1
        assert b"3 records, 1 damaged" in verified.stdout
        assert len(proxyherd_journal(herd, "dump", "Clark").stdout.splitlines()) == 3
        assert path.read_bytes() == torn.replace(b"client2", b"client7")


@pytest.mark.parametrize("command", ["verify", "dump"])
def test_journal_that_is_not_there_is_exit_2_and_says_where_it_was_looked_for(command: str) -> None:
    with herd_of([], "Clark") as herd:
        done = proxyherd_journal(herd, command, "Clark")
        assert done.returncode == 2
        assert b"var/lib/Clark/journal" in done.stderr
        assert b"Traceback" not in done.stderr
        assert proxyherd_journal(herd, command).returncode == 2


def test_only_sigkill_ends_it_without_a_word() -> None:
    with running_server() as clark:
        clark.signal(signal.SIGINT)
        assert clark.wait() == 0
        assert clark.events("stopped")
