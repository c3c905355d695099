"""What is measured past one server: no figure of a store that is not what was sent, and a model that says what it was
fitted on. Some 15 seconds, most of them for processes to start.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from debian import needs
from redis_cluster import Cluster, running_cluster

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import capacity
import shards
from capacity import Assumed, Fitted, Model, Part, deploy, evenness, fit
from contender import Sent
from driving import drive
from lineup import ProxyherdRedis

from proxyherd.engines.redis import layout

REAL = Model(
    Fitted(Part(6.0, 10.0, 40.0, 200.0), 0.1, 0.2, 14),
    Fitted(Part(5.0, 0.0, 80.0, 0.0), 0.1, 0.2, 14),
    Fitted(Part(4.0, 0.0, 50.0, 0.0), 0.1, 0.2, 14),
)
"""Roughly what was measured."""

pytestmark = [needs("redis-server"), pytest.mark.xdist_group("bench-shards")]


@pytest.fixture(scope="module")
def shard() -> Iterator[Cluster]:
    with running_cluster(masters=1, replicas=1) as cluster:
        yield cluster


def test_a_store_that_is_not_what_was_sent_is_caught(shard: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lineup.TABLE_SECONDS", 0.2)
    shard.flush()
    sent = Sent()
    with ProxyherdRedis(cluster=shard) as contender:
        drive(contender, sent, 1_000, 500, connections=10, outstanding=4)
        [master] = contender.masters
        [client, other, *_] = sent.latest
        assert contender.check(sent) == []
        right = master.client("GET", layout.key(client))
        faults = [
            (("DEL", layout.key(client)), client),
            (("SET", layout.key(client), b"%021d AT Ann +0.000000000 %b +1+1 0" % (0, client)), client),
            (("SET", layout.key(client), master.client("GET", layout.key(other))), client),
            (("SET", layout.key(b"nobody"), b"anything"), b""),
        ]
        for command, told in faults:
            master.client(*command)
            found = [*contender._check_store(sent)]
            assert len(found) == 2, found  # of the master, and of its replica
            assert all(f"differs about 1 clients, as {told!r}" in one for one in found), found
            master.client("SET", layout.key(client), right)
        master.client("DEL", layout.key(b"nobody"))
        assert [*contender._check_store(sent)] == []


def test_each_role_has_its_cost_and_each_front_its_share(
    shard: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "_IDLE_SECONDS", 0.1)
    options = shards.Options(rounds=1, commands=1_000, clients=500)
    points = [*shards.measure_fronts(shard, 2, options)]
    assert [(one["masters"], one["fronts"], one["load"], one["faults"]) for one in points] == [
        (1, 2, "50x32", []),
        (1, 2, "50x1", []),
    ]
    full, single = ({key: one["median"] for key, one in point["figures"].items()} for point in points)
    for role in Model._fields:
        assert full[f"{role}_us"] > 0
        assert full[f"{role}_most"] >= 1
    assert 1 <= single["batch"] <= single["turn"] * 1.2 <= 30  # 25 connections have one outstanding each
    assert full["batch"] > 2 * single["batch"]
    assert full["retried"] == 0
    line, value = 80, 106
    assert full["client_bytes"] == pytest.approx(2 * line, abs=20)
    assert full["master_bytes"] > value
    assert full["replica_bytes"] > value


# The model. --------------------------------------------------------------------------------------------------


def point(masters: int, fronts: int, load: str, model: Model, wrong: float = 1.0) -> dict[str, Any]:
    """A point as measured, where the model is true, or wrong by a factor."""
    outstanding = {"50x32": 1_600, "50x1": 50}[load]
    turn, batch = outstanding / fronts, max(1.0, outstanding / fronts / masters / 2)
    figures = {"batch": batch, "turn": turn}
    for role, one in model._asdict().items():
        figures[f"{role}_us"] = wrong * one.part.cost(alone=load == "50x1", batch=batch, turn=turn)
    medians = {key: {"median": value} for key, value in figures.items()}
    return {"masters": masters, "fronts": fronts, "load": load, "faults": [], "figures": medians}


def points(held_out: float = 1.0) -> list[dict[str, Any]]:
    return [
        point(masters, fronts, load, REAL, held_out if masters == 2 or fronts == 4 else 1.0)
        for masters in (1, 2, 3, 6)
        for fronts in (1, 2, 4, 8)
        for load in shards.LOADS
    ]


def test_the_model_is_what_made_the_points() -> None:
    fitted = fit(points())
    assert fitted is not None
    for found, made in zip(fitted, REAL, strict=True):
        assert found.part == pytest.approx(made.part, abs=1e-6)
        assert found.worst_error == pytest.approx(0, abs=1e-6)
        assert found.held_out == 14


def test_points_held_out_tell_the_error_and_change_nothing() -> None:
    fitted = fit(points(held_out=2.0))
    assert fitted is not None
    for found, made in zip(fitted, REAL, strict=True):
        assert found.part == pytest.approx(made.part, abs=1e-6)
        assert found.mean_error == pytest.approx(0.5)


def test_what_does_not_count_is_not_fitted() -> None:
    wrong = [point(1, 1, "50x32", REAL, wrong=9.0) | {"faults": ["lost"]}]
    assert fit([*points(), *wrong]) == fit(points())
    assert fit(points()[:3]) is None


def test_no_part_of_a_cost_is_negative() -> None:
    falling = REAL._replace(masters=Fitted(Part(50.0, 0.0, -20.0, 0.0), 0.0, 0.0, 0))
    made = [point(masters, fronts, "50x32", falling) for masters in (1, 2, 3, 6) for fronts in (1, 2, 4, 8)]
    fitted = fit(made)
    assert fitted is not None
    assert min(fitted.masters.part) >= 0
    assert fitted.masters.part.batch == 0


# What it says. -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clients", [1_000_000, 10_000_000, 100_000_000])
@pytest.mark.parametrize("milliseconds", [2.0, 20.0])
def test_nobody_is_busier_or_fuller_than_assumed(clients: int, milliseconds: float) -> None:
    assumed = Assumed(round_trip_ms=milliseconds)
    one = deploy(REAL, clients, assumed)
    assert one.rate == clients / 60
    assert one.cores(one.front_us) <= one.fronts * assumed.front_busy
    assert one.cores(one.master_us) * evenness(one.masters) <= one.masters * assumed.master_busy
    table = clients * assumed.client_bytes * assumed.memory_factor / 2**30
    assert table * evenness(one.masters) <= one.masters * assumed.node_gib
    assert one.memory_gib >= 3 * table


def test_with_shards_and_servers_batches_fall_to_single_reports_and_gathering_makes_them_longer() -> None:
    million, hundred = (deploy(REAL, clients, Assumed()) for clients in (1_000_000, 100_000_000))
    assert million.batch > 1 == hundred.batch
    assert hundred.master_us > million.master_us
    gathered = deploy(REAL, 100_000_000, Assumed(round_trip_ms=20.0))
    assert gathered.batch > 10
    assert gathered.masters < hundred.masters
    assert gathered.machine_dollars < hundred.machine_dollars / 2
    assert gathered.zone_dollars < hundred.zone_dollars
    assert gathered.client_mb == hundred.client_mb


def test_memory_alone_can_ask_for_masters() -> None:
    gathering = Assumed(round_trip_ms=20.0)
    few, many = (deploy(REAL, 1_000_000, gathering._replace(client_bytes=size)) for size in (220.0, 50_000.0))
    assert many.masters > few.masters


def test_more_clients_than_tags_can_bear_are_refused() -> None:
    with pytest.raises(ValueError, match="too many for 512 masters"):
        deploy(REAL, 10_000_000_000, Assumed())


def test_the_fullest_of_masters_has_whole_tags() -> None:
    assert evenness(1) == evenness(512) == 1
    assert evenness(3) == pytest.approx(171 * 3 / 512)
    assert evenness(300) == pytest.approx(2 * 300 / 512)
    assert capacity.COPIES == 1 + shards.REPLICAS
