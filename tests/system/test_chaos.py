"""Five real servers in trouble, under load over lines, HTTP and WebSockets: no answered report is lost, and all agree in
the end.

PROXYHERD_CHAOS_SECONDS, PROXYHERD_CHAOS_SEED and PROXYHERD_KILLS make it longer, or the same again:

    PROXYHERD_CHAOS_SECONDS=600 PROXYHERD_CHAOS_SEED=7 pytest -s tests/system/test_chaos.py
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from chaos import AGREE_SECONDS, Chaos, Step, chaotic_herd, schedule
from chaos_load import ChaosLoad, Report, Visit, missing, resurrected, table_of
from herd_process import ROOT, RunningHerd, ServerProcess, running_herd

from proxyherd.config import herd_file
from proxyherd.engines.herd.journal import files, record

EDGES = herd_file.load(ROOT / "deploy/herd.toml").edges
DISK_OF = "Campbell"
SECONDS = float(os.environ.get("PROXYHERD_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("PROXYHERD_CHAOS_SEED", random.randrange(1 << 32)))
LONGER = 30_000
KILLS = int(os.environ.get("PROXYHERD_KILLS", "2"))
"""The second kill is of servers that have replayed already, so that more of them is the same again."""


@contextlib.contextmanager
def told_when_it_fails(chaos: Chaos, steps: Sequence[Step]) -> Iterator[None]:
    """Print what was done to the herd if the body fails."""
    try:
        yield
    except BaseException:
        print(f"PROXYHERD_CHAOS_SEED={SEED} PROXYHERD_CHAOS_SECONDS={SECONDS:g}", *steps, sep="\n")
        print(f"the load: {dict(chaos.load.counts)}, refused: {dict(chaos.load.refused)}")
        raise


@pytest.mark.timeout(SECONDS + 600)
def test_nothing_answered_is_lost_and_all_agree_whatever_befalls_the_herd() -> None:
    with chaotic_herd(EDGES, SEED, disk_of=DISK_OF) as chaos:
        steps = schedule(SEED, SECONDS, sorted(chaos.herd), sorted(chaos.links), DISK_OF)
        with told_when_it_fails(chaos, steps):
            chaos.run(steps)
            chaos.settle()
            chaos.check()
            assert chaos.load.counts["reports"] > 20 * SECONDS
            assert chaos.load.counts["queries"] > 5 * SECONDS
            assert chaos.load.counts["erasures"] > SECONDS
            assert chaos.load.counts["went on over websocket"] > 0
        print(
            f"seed {SEED}: {len(steps)} troubles, {dict(chaos.load.counts)}, refused {dict(chaos.load.refused)}, "
            f"agreed after {chaos.agreed_after:.2f} s"
        )


def lengthen(server: ServerProcess, kill: int) -> None:
    """Let the next replay take longer: append to the journal of a killed server what it might have heard of one client."""
    journal = server.state / "journal"
    times = range(LONGER * kill, LONGER * (kill + 1))
    with files(journal)[-1].open("ab") as segment:
        segment.writelines(record(b"AT Clark +0.100000000 wanderer +1+1 %d" % time_) for time_ in times)


@pytest.mark.timeout(600 + 20 * KILLS)
def test_all_five_killed_at_once_lose_no_answered_report_and_take_nothing_back() -> None:
    rng = random.Random(SEED)
    with running_herd(EDGES, more="[web]\n") as herd:
        answered: dict[bytes, bytes] = {}
        for kill in range(KILLS):
            load = ChaosLoad(herd, SEED + kill)
            load.start()
            try:
                time.sleep(rng.uniform(0.1, 1.5))  # the instant is to be any
                for server in rng.sample(list(herd.values()), len(herd)):
                    server.kill()
                    lengthen(server, kill)
                herd.start()  # they are asked while they replay
                herd.wait_until_whole()
            finally:
                load.stop()
            assert load.faults == []
            assert load.refused == {}
            answered = {
                client: answered[client] for client in answered.keys() - load.to_erase
            } | load.answered
            deadline = time.monotonic() + AGREE_SECONDS
            for name, server in herd.items():
                while lost := missing(answered, table_of(server, sorted(answered))):
                    why = f"seed {SEED}, kill {kill}: {name} lacks {len(lost)}, such as {lost[0]}"
                    assert time.monotonic() < deadline, why
        for server in herd.values():
            assert server.stderr() == ""
            assert not server.events("internal_error")
        print(f"seed {SEED}: {KILLS} kills of all five, {len(answered)} clients")


def test_what_is_lost_or_taken_back_is_noticed() -> None:
    ann = cast("ServerProcess", SimpleNamespace(name="Ann"))
    load = ChaosLoad(cast("RunningHerd", {"Ann": ann}), SEED)
    visit, report = Visit(load, ann), Report(b"a", b"+1", b"-2", b"5")
    line, older, later = (b"AT Ann +0.000000001 a %b" % rest for rest in (b"+1-2 5", b"+1-2 4", b"+3-4 6"))
    visit.taken(report, line)
    visit.found(b"a", line)
    visit.taken_unseen(report._replace(client=b"phone"))
    assert load.faults == []
    unseen = b"AT Bob -0.000000001 phone +1-2 5"
    assert missing(load.answered, {b"a": line, b"phone": unseen}) == []
    assert missing(load.answered, {b"a": later, b"phone": unseen.replace(b"5", b"6")}) == []
    for held in (b"", older, line.replace(b"+1", b"+9"), line.replace(b"Ann", b"Bob")):
        assert len(missing(load.answered, {b"a": held, b"phone": unseen})) == 1
    for held in (b"", unseen.replace(b"5", b"4"), unseen.replace(b"+1", b"+9")):
        assert len(missing(load.answered, {b"a": line, b"phone": held})) == 1
    visit.found(b"a", older)
    visit.unknown(b"a")
    visit.found(b"a", line.replace(b" a ", b" b "))
    visit.taken(report, line.replace(b"Ann", b"Bob"))
    visit.taken(report, line.replace(b"+1", b"+9"))
    visit.unknown(b"phone")
    assert len(load.faults) == 6


def test_what_comes_back_after_its_erasure_is_noticed() -> None:
    ann, bob = (cast("ServerProcess", SimpleNamespace(name=name)) for name in ("Ann", "Bob"))
    load = ChaosLoad(cast("RunningHerd", {"Ann": ann, "Bob": bob}), SEED)
    at_ann, at_bob = Visit(load, ann), Visit(load, bob)
    line, later = b"AT Ann +0.000000001 a +1-2 5", b"AT Bob +0.000000003 a +1-2 5"
    at_ann.taken(Report(b"a", b"+1", b"-2", b"5"), line)
    at_ann.erases(b"a")
    at_ann.erased(b"a", "5.000000002")
    at_ann.unknown(b"a")
    at_bob.found(b"a", line)  # it has not heard of it
    at_bob.unknown(b"a")
    at_bob.found(b"a", later)
    assert (load.faults, load.answered) == ([], {})
    at_ann.found(b"a", line)
    at_bob.unknown(b"a")
    assert len(load.faults) == 2
    assert resurrected(load.gone, {b"a": later}) == resurrected(load.gone, {b"a": b""}) == []
    assert len(resurrected(load.gone, {b"a": line})) == 1


def test_the_same_seed_is_the_same_schedule() -> None:
    one, same, other = (
        schedule(seed, 60, ["Ann", "Bob"], ["Ann-Bob"], "Ann") for seed in (SEED, SEED, SEED + 1)
    )
    assert one == same != other
    assert {step.what for step in schedule(1, 600, ["Ann", "Bob"], ["Ann-Bob"], "Ann")} == {
        *("kill", "restart", "stop", "hold", "slow", "cut", "fill", "hang", "restore")
    }
