"""What may befall a herd of real processes, at the hands of a test, while a load keeps every answer it was given.

    with chaotic_herd(seed) as chaos:
        chaos.run(schedule(seed, 60, chaos.targets))
        chaos.settle()
        chaos.check()

Everything that is done to the herd comes from a seed. What the machine makes of it does not: the same seed is the
same schedule, and mostly the same trouble.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import random
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import pytest
from chaos_load import RESTART, ChaosLoad, missing, resurrected, table_of
from fake_google import FakeGoogle, Reply, nearby_answer
from herd_process import RunningHerd, ServerProcess, herd_of, wait_until
from link_proxy import Links, proxied

AGREE_SECONDS: Final = 5.0
"""Within which all servers agree once the graph is connected and reports have stopped."""

RECENT_SECONDS: Final = 60.0
"""What was answered within this time before a backup is put back, perhaps only that server knows: its links were held."""

GROWTH_BYTES: Final = 48 << 20
"""Memory that a server may have grown by since it was ready first: Places, TLS and the table come in later."""

# Disks. ------------------------------------------------------------------------------------------------------


class SmallDisk:
    """A file system of its own, which can be filled and emptied again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Leave no room but what files have in the last block that is theirs already."""
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4_096))

    def make_room(self) -> None:
        self._ballast.unlink(missing_ok=True)


@contextlib.contextmanager
def small_disk(folder: Path, size: int = 1 << 20) -> Iterator[SmallDisk]:
    """Mount a small disk at a folder, and unmount it whatever happens. Where that is not allowed, the test is skipped;
    in CI, where it must be, it fails.
    """
    if unable := _mount(folder, size):
        if os.environ.get("CI") == "true":
            pytest.fail(unable)
        pytest.skip(unable)
    try:
        yield SmallDisk(folder)
    finally:
        # Lazily: a process that is being ended may still have files open there.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Quota:
    """What stands in for a full disk where none can be mounted: the process may write no file on, its log neither."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server

    def fill(self) -> None:
        self._allow(0)

    def make_room(self) -> None:
        self._allow(resource.RLIM_INFINITY)

    def _allow(self, most: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # killed; the next process may write again
            resource.prlimit(self._server.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))


def _mount(folder: Path, size: int) -> str:
    """Return why that cannot be done; empty when it is."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        return f"no small disk can be mounted, which needs root: {mounted.stderr.strip()}"
    return ""


# The schedule. -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Step:
    """One trouble: seconds from the start, what, to whom, for how long, and with what in particular."""

    at: float
    what: str
    target: str
    lasts: float
    how: str = ""

    def __str__(self) -> str:
        return f"{self.at:7.2f} s  {self.what} {self.target} {self.how} for {self.lasts:.2f} s"


TROUBLES: Final = {
    "kill": (4, 0.0, 4.0),
    "restart": (1, 1.0, 4.0),
    "stop": (3, 0.3, 4.0),
    "hold": (4, 0.5, 6.0),
    "slow": (3, 0.5, 5.0),
    "cut": (2, 0.0, 0.1),
    "fill": (2, 1.0, 5.0),
    "hang": (1, 1.0, 6.0),
    "restore": (1, 0.5, 4.0),
}
"""How often each comes, in proportion, and how many seconds it lasts, at least and at most."""


def schedule(
    seed: int, seconds: float, servers: Sequence[str], links: Sequence[str], disk: str
) -> list[Step]:
    """Return what happens in so many seconds: a trouble or two a second, no two to one target at once."""
    rng = random.Random(seed)
    targets = {
        **dict.fromkeys(("kill", "restart", "stop"), servers),
        **dict.fromkeys(("hold", "slow", "cut"), links),
        "fill": [f"{disk}'s disk"],
        "hang": ["Places"],
        "restore": [name for name in servers if name != disk],
    }
    busy: dict[str, float] = {}
    steps: list[Step] = []
    at = 2.0
    while at < seconds:
        what = rng.choices(list(TROUBLES), [weight for weight, _, _ in TROUBLES.values()])[0]
        lasts = min(rng.uniform(*TROUBLES[what][1:]), seconds - at)
        how = {"hold": rng.choice(("both", "there", "back")), "slow": f"{rng.uniform(0.02, 0.4):.2f}"}.get(
            what, ""
        )
        if free := [target for target in targets[what] if busy.get(target, 0.0) <= at]:
            target = rng.choice(free)
            busy[target] = at + lasts + 0.5
            steps.append(Step(at, what, target, lasts, how))
        at += rng.expovariate(1.5)
    return steps


# The herd. ---------------------------------------------------------------------------------------------------


class Chaos:
    """A herd, the proxies of its links, a small disk under one of its servers, Places, and the load on them."""

    def __init__(
        self,
        herd: RunningHerd,
        links: Links,
        disk: SmallDisk | Quota,
        disk_of: str,
        google: FakeGoogle,
        seed: int,
    ) -> None:
        self.herd = herd
        self.links = links
        self.disk = disk
        self.disk_of = disk_of
        self.google = google
        self.load = ChaosLoad(herd, seed)
        self.agreed_after = 0.0
        self._is_full = self._was_full = False  # the small disk: now, and since its server was started
        self._lives: dict[str, bool] = dict.fromkeys(herd, True)
        self._memory = {name: server.memory() for name, server in herd.items()}

    def run(self, steps: Sequence[Step]) -> None:
        """Do all that is scheduled, and undo it, in time; meanwhile see that no server ends by itself."""
        began = time.monotonic()
        due: list[tuple[float, int, Callable[[], None]]] = []
        for number, step in enumerate(steps):
            begin, end = self._trouble(step)
            due += [(step.at, 2 * number, begin), (step.at + step.lasts, 2 * number + 1, end)]
        heapq.heapify(due)
        while due:
            at, _, act = heapq.heappop(due)
            while (left := began + at - time.monotonic()) > 0:
                self.check_lives()
                time.sleep(min(left, 0.1))
            act()

    def check_lives(self) -> None:
        for name, lives in self._lives.items():
            process = self.herd[name].process
            assert process is not None
            assert not lives or process.poll() is None, f"{name} ended by itself: {self.herd[name].stderr()}"

    def kill(self, name: str) -> None:
        self.check_lives()
        self._lives[name] = False
        self.herd[name].kill()
        if name != self.disk_of:
            self._backup(name)
        self._forget_what_was_not_written(name)

    def restore(self, name: str) -> None:
        """Kill a server, and put a backup of its state back: what it had when it was last killed with none."""
        self.kill(name)
        state, backup = self.herd[name].state, self._backup(name)
        self.load.forget_recent(self.herd[name], time.time() - RECENT_SECONDS)
        shutil.rmtree(state)
        backup.rename(state)
        self.load.counts["restores"] += 1

    def _backup(self, name: str) -> Path:
        """Return a copy of what a killed server has on disk, an earlier one if there is one."""
        backup = self.herd.folder / f"backup-{name}"
        if not backup.exists():
            shutil.copytree(self.herd[name].state, backup)
        return backup

    def start(self, name: str) -> None:
        self.herd[name].start()
        self._lives[name] = True

    def tell_to_stop(self, name: str) -> None:
        """Begin a planned restart."""
        self.check_lives()
        self._lives[name] = False
        self.herd[name].signal(signal.SIGTERM)

    def start_again(self, name: str) -> None:
        assert self.herd[name].wait() == 0
        self._forget_what_was_not_written(name)
        self.start(name)

    def _forget_what_was_not_written(self, name: str) -> None:
        """Judge a server less by what it has answered, if its journal could not be written in the life that has ended."""
        if name == self.disk_of and self._was_full:
            # What it learned while it could not write went from memory; a neighbour that it catches up from first may
            # not have it yet.
            self.load.forget(self.herd[name])
            self._was_full = self._is_full

    def settle(self) -> None:
        """Wait for the graph to be connected again, stop the load, and wait for agreement."""
        self.herd.wait_until_whole()
        self.load.stop()
        began = time.monotonic()
        wait_until(self._agree, "all tables are equal", AGREE_SECONDS)
        self.agreed_after = time.monotonic() - began

    def tables(self) -> dict[str, dict[bytes, bytes]]:
        clients = sorted({*self.load.answered, *self.load.gone})
        return {name: table_of(server, clients) for name, server in self.herd.items()}

    def _agree(self) -> bool:
        first, *others = self.tables().values()
        return all(table == first for table in others)

    def check(self) -> None:
        """Hold the herd to its promises."""
        self.check_lives()
        assert self.load.faults == []
        for name, table in self.tables().items():
            lost = missing(self.load.answered, table)
            assert not lost, f"{name} lacks {len(lost)} answered reports, such as {lost[0]}"
            back = resurrected(self.load.gone, table)
            assert not back, f"{name} has brought {len(back)} clients back, such as {back[0]}"
        assert set(self.load.codes) <= {RESTART}, f"WebSockets were closed: {self.load.codes}"
        assert set(self.load.refused) <= {self.disk_of}, f"reports were refused: {self.load.refused}"
        for name, server in self.herd.items():
            assert server.stderr() == ""
            with server.log_file.open("rb") as log:  # large: not parsed
                for line in log:
                    assert b'"event":"internal_error"' not in line, f"{name} logged {line!r}"
            grown = server.memory() - self._memory[name]
            assert grown < GROWTH_BYTES, f"{name} has grown by {grown >> 20} MiB"

    def _trouble(self, step: Step) -> tuple[Callable[[], None], Callable[[], None]]:
        """Return what begins a step and what ends it."""
        target, links = step.target, self.links
        match step.what:
            case "kill":
                return partial(self.kill, target), partial(self.start, target)
            case "restart":
                return partial(self.tell_to_stop, target), partial(self.start_again, target)
            case "stop":
                return self.herd[target].freeze, self.herd[target].thaw
            case "hold":
                hold = partial(links[target].hold, step.how)  # type: ignore[arg-type]
                return partial(links.call, hold), partial(links.call, links[target].heal)
            case "slow":
                slow = partial(links[target].slow, float(step.how))
                return partial(links.call, slow), partial(links.call, links[target].heal)
            case "cut":
                return partial(links.call, links[target].cut), lambda: None
            case "fill":
                return self._fill, self._make_room
            case "restore":
                return partial(self.restore, target), partial(self.start, target)
            case "hang":
                return self._hang, self._answer_again
        raise AssertionError(step)

    def _fill(self) -> None:
        self._was_full = self._is_full = True
        self.disk.fill()

    def _make_room(self) -> None:
        self._is_full = False
        self.disk.make_room()

    def _hang(self) -> None:
        self.google._released.clear()
        self.google.reply = Reply(nearby_answer(5), hold=True)

    def _answer_again(self) -> None:
        self.google.reply = Reply(nearby_answer(5))
        self.google.release()


@contextlib.contextmanager
def chaotic_herd(edges: Sequence[tuple[str, str]], seed: int, *, disk_of: str) -> Iterator[Chaos]:
    """Run a herd under load, its links through proxies, one server's state on a small disk or, where none can be
    mounted, under a quota; it is whole when the body begins.
    """
    with contextlib.ExitStack() as stack:
        google = stack.enter_context(FakeGoogle(Reply(nearby_answer(5))))
        more = f'[web]\n[durability]\nrewrite_bytes = 262144\n[places]\nbase_url = "{google.url}"\n'
        herd = stack.enter_context(herd_of(edges, more=more, environ={"GOOGLE_PLACES_API_KEY": "throw-away"}))
        disk: SmallDisk | Quota = Quota(herd[disk_of])
        if _can_mount() or os.environ.get("CI") == "true":
            disk = stack.enter_context(small_disk(herd[disk_of].state, 8 << 20))
        links = stack.enter_context(proxied(herd))
        stack.callback(herd.end)  # before the proxies
        herd.start()
        herd.wait_until_whole()
        chaos = Chaos(herd, links, disk, disk_of, google, seed)
        chaos.load.start()
        try:
            yield chaos
        finally:
            chaos.load.stop()


def _can_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        if _mount(Path(folder), 4_096):
            return False
        subprocess.run(["umount", folder], check=True)
        return True
