"""What a report costs past one server: front servers, masters and replicas, each on its own, as their numbers grow.

    .venv/bin/python bench/shards.py [--quick] [--folder FOLDER]

Clusters of 1, 2, 3 and 6 masters with two replicas each have 1, 2, 4 and 8 servers in front. All together get the same
load, so that the batch a server has for a master shrinks as either number grows: 50 connections, spread over servers, with
32 reports outstanding on each, and with one. CPU is each process' own, less what it uses with nothing to do, since that is
no report's; network is what Redis counts. Beside it one server on three masters takes turns with a herd's server.
Nothing counts before each answer was the right one, and servers, masters and replicas had the last report of every client.

How many reports a second all take is not told: every process has its share of the same few cores, so it says nothing of
as many machines. Processes that wait for a core gather longer batches, which are told.

Into FOLDER go shards.json and pictures: docs/bench, where docs/report.md is written anew too, or with --quick var/bench.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import report
import shard_tables
from compare import machine
from contender import Sent
from cpu import memory, settle, usage
from lineup import NODE_TIMEOUT_MS, Proxyherd, ProxyherdRedis
from load import Generator, Job
from plan import Plan
from redis_cluster import Cluster, RedisNode, running_cluster
from wire import spell_iamat

REPLICAS: Final = 2
_CONNECTIONS: Final = 50
_IDLE_SECONDS: Final = 1.0
_SETTLED_SECONDS: Final = 0.3
"""At most, after the last answer: a replica may still be busy then, and is never idle."""

_STAMP_BYTES: Final = len('{"timestamp":"2026-01-01T00:00:00.000000Z"')

Figures = dict[str, float]


class Load(NamedTuple):
    """Reports outstanding on each connection, or how many come a second; `share`: of the reports of a run."""

    outstanding: int = 1
    rate: float = 0.0
    share: float = 1.0


LOADS: Final = {"50x32": Load(32), "50x1": Load(1, share=0.5)}
MILLION: Final = Load(rate=1_000_000 / 60, share=1.5)
"""A million clients that report once a minute."""


class Options(NamedTuple):
    """How much is measured; `commands` of a run, times the load's share."""

    masters: Sequence[int] = (1, 2, 3, 6)
    fronts: Sequence[int] = (1, 2, 4, 8)
    rounds: int = 3
    beside_rounds: int = 5
    commands: int = 20_000
    clients: int = 20_000
    filled: Sequence[int] = (100_000, 1_000_000)


FULL: Final = Options()
QUICK: Final = Options((1, 3), (1, 4), 1, 1, 6_000, 5_000, (10_000, 30_000))


class Processes:
    """What the processes of servers and cluster have used and done so far, by role."""

    def __init__(self, contender: ProxyherdRedis) -> None:
        self._contender = contender
        self.pids = {
            "fronts": contender.pids,
            "masters": [node.pid for node in contender.masters],
            "replicas": [node.pid for node in contender.replicas],
        }
        self.idle = self._idle()

    @property
    def all(self) -> list[int]:
        """All their ids."""
        return [pid for pids in self.pids.values() for pid in pids]

    def cpu(self) -> dict[int, float]:
        """Return the seconds of each process."""
        return {pid: usage([pid]).cpu for pid in self.all}

    def _idle(self) -> dict[int, float]:
        """Return the share of a core that each uses with nothing to do."""
        settle(self.all, patience=_SETTLED_SECONDS)
        began, before = time.perf_counter(), self.cpu()
        time.sleep(_IDLE_SECONDS)
        after, seconds = self.cpu(), time.perf_counter() - began
        return {pid: (after[pid] - before[pid]) / seconds for pid in self.all}

    def counted(self) -> Figures:
        """Return what servers and nodes count."""
        contender = self._contender
        counts: Figures = {}

        def add(key: str, value: float) -> None:
            counts[key] = counts.get(key, 0.0) + value

        for name in contender.names:
            figures = contender.metrics(name, "proxyherd_")
            for key in ("commands_sum", "commands_count", "seconds_sum"):
                add(f"batch_{key}", figures[f"proxyherd_batch_{key}"])
            add(
                "retried",
                sum(value for key, value in figures.items() if key.startswith("proxyherd_retried_total")),
            )
        for node in contender.masters:
            stats = node.info("stats")
            for way in ("input", "output"):
                of_replicas = int(stats[f"total_net_repl_{way}_bytes"])
                add(f"repl_{way}", of_replicas)
                add(f"net_{way}", int(stats[f"total_net_{way}_bytes"]) - of_replicas)
            add("calls", _calls(node))
        return counts

    def turns(self, since: dict[int, int]) -> int:
        """Return how many turns of their loops servers have answered reports in, since their logs were so long: what a
        turn logs bears one time stamp.
        """
        turns = 0
        for file in self._logs():
            with file.open("rb") as log:
                log.seek(since.get(file.stat().st_ino, 0))
                turns += len({line[:_STAMP_BYTES] for line in log if b'"kind":"iamat"' in line})
        return turns

    def logged(self) -> dict[int, int]:
        """Return how long each file of the servers' logs is, by its inode: a log that is full gets another name."""
        stats = [file.stat() for file in self._logs()]
        return {stat.st_ino: stat.st_size for stat in stats}

    def _logs(self) -> list[Path]:
        return [file for name in self._contender.names for file in self._contender.log_files(name)]


def _calls(node: RedisNode) -> int:
    """Return how many calls of the function that stores reports a master has carried out."""
    stats = node.info("commandstats").get("cmdstat_fcall", "calls=0,")
    return int(stats.partition("calls=")[2].partition(",")[0])


def drive(
    contender: ProxyherdRedis, processes: Processes, sent: Sent, load: Load, options: Options
) -> Figures:
    """Send reports; return what each cost, by role, and how they were gathered."""
    plan, generator = _generator(contender, load, options)
    counted, logged = processes.counted(), processes.logged()
    settle(processes.all, patience=_SETTLED_SECONDS)
    began, before = time.perf_counter(), processes.cpu()
    generator.start()
    generator.wait()
    settle(processes.all, patience=_SETTLED_SECONDS)
    after, seconds = processes.cpu(), time.perf_counter() - began
    done = {key: value - counted[key] for key, value in processes.counted().items()}
    result = generator.result()
    sent.add(plan, result, contender.names)
    used = {pid: max(0.0, after[pid] - before[pid] - processes.idle[pid] * seconds) for pid in before}
    figures = {
        f"{role}_us": sum(used[pid] for pid in pids) / plan.commands * 1e6
        for role, pids in processes.pids.items()
    }
    figures |= {
        f"{role}_most": max(used[pid] for pid in pids) * len(pids) / max(1e-9, sum(used[pid] for pid in pids))
        for role, pids in processes.pids.items()
    }
    line = len(spell_iamat(plan.report(0, 0)))
    return figures | {
        "batch": done["batch_commands_sum"] / done["batch_commands_count"],
        "batch_ms": done["batch_seconds_sum"] / done["batch_commands_count"] * 1e3,
        "retried": done["retried"],
        "turn": plan.commands / processes.turns(logged),
        "call": plan.commands / (done["calls"] - done["batch_commands_count"]),  # one a batch is its seal
        "client_bytes": 2 * line + len(f"AT {contender.names[0]} +0.000000000 ") - len("IAMAT "),
        "master_bytes": (done["net_input"] + done["net_output"]) / plan.commands,
        "replica_bytes": done["repl_output"] / plan.commands,
        "seconds": result.seconds,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
    }


def _generator(contender: Proxyherd, load: Load, options: Options) -> tuple[Plan, Generator]:
    commands = round(options.commands * load.share)
    plan = Plan(commands=commands, connections=_CONNECTIONS, clients=options.clients)
    ports = list(contender.ports.values())
    return plan, Generator(Job(plan=plan, ports=ports, outstanding=load.outstanding, rate=load.rate))


def _summary(rounds: Sequence[Figures]) -> dict[str, dict[str, Any]]:
    return {
        key: {
            "median": statistics.median(one[key] for one in rounds),
            "least": min(one[key] for one in rounds),
            "most": max(one[key] for one in rounds),
            "rounds": [round(one[key], 4) for one in rounds],
        }
        for key in rounds[0]
    }


def _names(fronts: int) -> list[str]:
    return [f"Front{letter}" for letter in "ABCDEFGH"[:fronts]]


def measure_fronts(cluster: Cluster, fronts: int, options: Options) -> Iterator[dict[str, Any]]:
    """Yield what reports cost with so many servers in front of a cluster, for each load."""
    cluster.flush()
    sent = Sent()
    with ProxyherdRedis(fronts=_names(fronts), cluster=cluster) as contender:
        processes = Processes(contender)
        warming = options._replace(commands=max(2_000, options.clients))  # every client is there then
        drive(contender, processes, sent, LOADS["50x32"], warming)
        rounds: dict[str, list[Figures]] = {load: [] for load in LOADS}
        for _ in range(options.rounds):
            for load, figures in rounds.items():
                figures.append(drive(contender, processes, sent, LOADS[load], options))
        faults = contender.check(sent)
        keys = [node.keys() for node in contender.masters]
    idle = {
        role: statistics.mean(processes.idle[pid] for pid in pids) for role, pids in processes.pids.items()
    }
    for load, figures in rounds.items():
        yield {
            "masters": len(keys),
            "fronts": fronts,
            "load": load,
            "keys_most": max(keys) * len(keys) / sum(keys),
            "idle": idle,
            "figures": _summary(figures),
            "faults": faults,
        }


def measure_memory(cluster: Cluster, options: Options) -> list[dict[str, Any]]:
    """Return the memory of a lone master and of its server, with so many clients."""
    cluster.flush()
    sent = Sent()
    points: list[dict[str, Any]] = []
    with ProxyherdRedis(cluster=cluster) as contender:
        [master] = contender.masters
        before = _memory(master)
        for clients in options.filled:
            filling = options._replace(commands=clients, clients=clients)
            plan, generator = _generator(contender, LOADS["50x32"], filling)
            generator.start()
            generator.wait()
            sent.add(plan, generator.result(), contender.names)
            settle(contender.pids)
            now, keys = _memory(master), master.keys()
            each = {key: (now[key] - before[key]) / keys for key in now}
            points.append({"clients": clients, **each, "front_mib": memory(contender.pids) / 2**20})
        if faults := contender.check(sent):
            points.append({"faults": faults})
    return points


def _memory(node: RedisNode) -> Figures:
    info = node.info("memory")
    return {key: int(info[key]) for key in ("used_memory", "used_memory_dataset", "used_memory_rss")}


def measure_beside_herd(options: Options) -> dict[str, Any]:
    """Return what a report costs a herd's server, and one server on three masters, in turns."""
    herd_sent, sent = Sent(), Sent()
    with Proxyherd() as herd, ProxyherdRedis() as contender:
        processes = Processes(contender)
        rounds: dict[str, list[Figures]] = {load: [] for load in LOADS}
        for number in range(options.beside_rounds + 1):
            for load, figures in rounds.items():
                one = drive(contender, processes, sent, LOADS[load], options)
                alone = _drive_herd(herd, herd_sent, LOADS[load], options)
                one |= {"herd_us": alone, "ratio": one["fronts_us"] / alone}
                if number:  # the first warms up
                    figures.append(one)
        million = [drive(contender, processes, sent, MILLION, options) for _ in range(options.rounds)]
        faults = [*contender.check(sent), *herd.check(herd_sent)]
    figures_by_load = {load: _summary(figures) for load, figures in rounds.items()}
    gathering, more_faults = _measure_gathering(options)
    return {
        "figures": figures_by_load,
        "million": _summary(million),
        "gathering": _summary(gathering),
        "faults": faults + more_faults,
    }


def _measure_gathering(options: Options) -> tuple[list[Figures], list[str]]:
    """Return what a million clients' reports cost where they gather, and what was wrong."""
    sent = Sent()
    with ProxyherdRedis(gather_seconds=shard_tables.GATHERED_MS / 1e3) as contender:
        processes = Processes(contender)
        drive(contender, processes, sent, LOADS["50x32"], options)  # warms up
        figures = [drive(contender, processes, sent, MILLION, options) for _ in range(options.rounds)]
        return figures, contender.check(sent)


def _drive_herd(herd: Proxyherd, sent: Sent, load: Load, options: Options) -> float:
    plan, generator = _generator(herd, load, options)
    before = settle(herd.pids)
    generator.start()
    generator.wait()
    used = settle(herd.pids).since(before)
    sent.add(plan, generator.result(), herd.names)
    return used.cpu / plan.commands * 1e6


def measure(options: Options) -> dict[str, Any]:
    """Run everything, with a bar of progress."""
    points: list[dict[str, Any]] = []
    filled: list[dict[str, Any]] = []
    with click.progressbar(
        length=len(options.masters) * len(options.fronts) + 2,
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        width=24,
    ) as bar:
        bar.label = "beside the herd"
        beside = measure_beside_herd(options)
        bar.update(1)
        for masters in options.masters:
            with running_cluster(masters, REPLICAS, node_timeout_ms=NODE_TIMEOUT_MS) as cluster:
                for fronts in options.fronts:
                    bar.label = f"masters {masters}, servers {fronts}"
                    points += measure_fronts(cluster, fronts, options)
                    bar.update(1)
                if masters == 1:
                    bar.label = "memory"
                    filled = measure_memory(cluster, options)
                    bar.update(1)
    return {"beside": beside, "points": points, "memory": filled}


def faults(results: dict[str, Any]) -> list[str]:
    """Return what was wrong anywhere."""
    parts = [results["beside"], *results["points"], *results["memory"]]
    return [fault for part in parts for fault in part.get("faults", ())]


@click.command(help=(__doc__ or "").split("\n\n", maxsplit=1)[0])
@click.option("--quick", is_flag=True, help="A minute, to see whether all works.")
@click.option("--folder", type=click.Path(file_okay=False, path_type=Path), help="Where results go.")
def main(*, quick: bool, folder: Path | None) -> None:
    """Measure, and print tables."""
    if why := ProxyherdRedis.missing():
        raise click.ClickException(why)
    options = QUICK if quick else FULL
    folder = folder or report.ROOT / ("var/bench" if quick else "docs/bench")
    folder.mkdir(parents=True, exist_ok=True)
    results = {
        "when": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": machine(),
        "options": options._asdict(),
        **measure(options),
    }
    (folder / report.SHARDS).write_text(json.dumps(results, indent=1) + "\n")
    report.draw({"workloads": {}, "shards": results}, folder)
    if folder == report.RESULTS.parent:
        report.write(json.loads(report.RESULTS.read_text()))
    click.echo(shard_tables.text(results))
    click.echo(f"{folder}: {report.SHARDS} and pictures", err=True)
    if wrong := faults(results):
        raise click.ClickException("\n".join(wrong))


if __name__ == "__main__":
    main()
