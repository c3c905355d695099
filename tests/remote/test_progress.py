"""What counts as progress of a herd's start, and how it is told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from herd_process import ROOT
from states import a_state

from proxyherd.cli import main, status
from proxyherd.config import herd_file
from proxyherd.config.address import Address
from proxyherd.remote import ask
from proxyherd.remote.ask import Status
from proxyherd.remote.progress import Progress, describe

ADDRESSES = {**dict.fromkeys(("clients", "peers", "admin"), (Address("127.0.0.1", 1),)), "web": ()}
CLARK = herd_file.Server("Clark", ADDRESSES, ("Bona", "Jaquez"))
BONA = herd_file.Server("Bona", ADDRESSES, ("Clark",))

DOWN = Status(CLARK, problem="127.0.0.1:1: Connection refused")


def up(server: herd_file.Server = CLARK, problem: str = "", *linked: str, clients: int = 0) -> Status:
    links = dict.fromkeys(linked, "live")
    told = a_state(server.name, ready=not problem, reason=problem or "ready", links=links, clients=clients)
    return Status(server, told=told, problem=problem)


STEPS = [
    up(CLARK, "replaying the journal: 0%"),
    up(CLARK, "replaying the journal: 9%", clients=70),
    up(CLARK, "replaying the journal: 45%", clients=50),
    up(CLARK, "catching up", clients=60),
    up(CLARK, "catching up", clients=61),
    up(),
    up(CLARK, "", "Bona"),
    up(CLARK, "", "Bona", "Jaquez"),
]


def test_every_step_of_a_start_is_progress_once() -> None:
    progress = Progress()
    assert not progress.is_more([DOWN])
    for step in STEPS:
        assert progress.is_more([step]), step
        assert not progress.is_more([step])
    for step in (DOWN, *STEPS):  # a server that begins again and again comes no further
        assert not progress.is_more([step])


def test_servers_are_counted_each_for_itself() -> None:
    progress = Progress()
    assert progress.is_more([STEPS[-1], Status(BONA)])
    assert progress.is_more([DOWN, up(BONA, "replaying the journal: 1%")])


@pytest.mark.parametrize("problem", ["", "the journal cannot be written: full", "cannot listen at: [::1]:1"])
def test_what_a_herd_learns_while_it_serves_is_no_progress_of_its_start(problem: str) -> None:
    progress = Progress()
    progress.is_more([up(CLARK, problem, clients=1)])
    assert not progress.is_more([up(CLARK, problem, clients=2)])


def test_it_is_told_in_one_line() -> None:
    bona = up(BONA, "replaying the journal: 45%")
    assert describe([STEPS[1], bona, up(CLARK, "", "Bona")]) == (
        "replaying 2 of 3 (9%), ready 1 of 3, links 0 of 2"
    )
    assert describe([STEPS[-1]]) == "ready 1 of 1, links 1 of 1"


class Clock:
    """A clock that goes on only while somebody sleeps, and what a herd is found to be by it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, script: Callable[[float], list[Status]]) -> None:
        self.now = 0.0
        self._script = script
        monkeypatch.setattr(status, "time", self)
        monkeypatch.setattr(ask, "statuses", self.statuses)

    def monotonic(self) -> float:
        return 1_000.0 + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def statuses(self, herd: object, seconds: float) -> list[Status]:
        return self._script(self.now)


def wait(*options: str) -> int:
    with pytest.raises(SystemExit) as end:
        main(["status", "--config", str(ROOT / "deploy/herd.toml"), "--wait", "30", *options])
    assert isinstance(end.value.code, int)
    return end.value.code


def replaying(now: float) -> list[Status]:
    """A journal of 40 minutes: a hundredth each 24 s; then it is linked."""
    if now < 2_400:
        return [up(CLARK, f"replaying the journal: {int(now / 24)}%")]
    return [STEPS[-1]]


def test_waiting_goes_on_past_its_seconds_while_there_is_progress(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    clock = Clock(monkeypatch, replaying)
    assert wait("--progress") == 0
    assert clock.now == pytest.approx(2_400, abs=1)
    told = capfd.readouterr().err.splitlines()
    assert told == [f"replaying 1 of 1 ({part}%), ready 0 of 1, links 0 of 1" for part in range(100)]


def test_without_progress_waiting_ends_when_its_seconds_are_over(monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = Clock(monkeypatch, replaying)
    assert wait() == 1
    assert hasty.now == pytest.approx(30, abs=1)

    def stuck(now: float) -> list[Status]:
        return replaying(now) if now < 100 else [DOWN if int(now) % 2 else STEPS[2]]

    patient = Clock(monkeypatch, stuck)
    assert wait("--progress") == 1
    assert patient.now == pytest.approx(130, abs=1)  # it crashes and starts again, and comes no further


def test_progress_needs_a_wait(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["status", "--progress"])
    assert refused.value.code == 2
    assert "--progress goes with --wait" in capfd.readouterr().err
