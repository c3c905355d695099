"""`proxyherd near` and `proxyherd follow`, with real servers: who is near, and what happens from then on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result
from followed import Follower
from herd_process import PATIENCE_SECONDS, RunningHerd, running_herd

from proxyherd import cli
from proxyherd.config import secrets
from proxyherd.config.herd_file import Server
from proxyherd.remote import events, web_ports
from proxyherd.remote.events import FollowEvent

pytestmark = pytest.mark.xdist_group("near and follow")

EDGES = [("Ann", "Bob")]

PLACE = "34.0655,-118.4465"
HERE, NEAR, FAR = b"+34.0655-118.4465", b"+34.0695-118.4465", b"+34.5-118.4465"


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHerd]:
    """Two servers, whose web ports want tokens."""
    key = tmp_path_factory.mktemp("keys") / "token-key"
    secrets.create(key)
    with running_herd(EDGES, more=f'[web]\n[auth]\nweb = "jwt"\nkeys = ["{key}"]\n') as herd:
        for server in herd.values():
            server.wait_for_web()
        yield herd


def run(herd: RunningHerd, *arguments: str, **keys: Any) -> Result:
    return CliRunner().invoke(cli.main, [*arguments, "--config", str(herd.file)], **keys)


def erase(herd: RunningHerd, client: str) -> None:
    assert run(herd, "forget", client, "--yes").exit_code == 0


def event(line: str) -> tuple[str, ...]:
    """Return the event of a line, the client, and where it was, if that is said."""
    stamp, kind, client, *where = re.split(r" {2,}", line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}", stamp)
    return kind, client, *where


# --- near


def test_near_prints_who_is_near_with_metres_ages_and_digits_the_nearest_first(herd: RunningHerd) -> None:
    herd.wait_until_all_know(herd["Ann"].hears(b"second", NEAR))
    herd.wait_until_all_know(herd["Bob"].hears(b"my%20\xfffirst", HERE))
    herd.wait_until_all_know(herd["Ann"].hears(b"third", FAR))
    result = run(herd, "near", PLACE, "5")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    head, *rows = [re.split(r" {2,}", line) for line in result.stdout.splitlines()]
    assert head == ["client", "metres", "age", "location"]
    found = {row[0]: row for row in rows}
    assert found["my%20\\xfffirst"][1::2] == ["0", "34.0655,-118.4465"]
    assert found["second"][1::2] == ["445", "34.0695,-118.4465"]
    assert "third" not in found
    distances = [int(row[1]) for row in rows]
    assert distances == sorted(distances)
    assert len(run(herd, "near", PLACE, "5", "--limit", "1").stdout.splitlines()) == 2
    around = run(herd, "near", "--client", "second", "5", "--json")
    [first, *_] = json.loads(around.stdout)["clients"]
    assert (first["client"], first["metres"]) == ("second", 0.0)
    assert run(herd, "near", "--client", "second", "0.1").stdout.splitlines()[1].startswith("second ")
    assert len(run(herd, "near", "-34,+151.2", "50", "--server", "Bob").stdout.splitlines()) == 1
    assert len(run(herd, "near", PLACE, "5", "--max-age", "0").stdout.splitlines()) == 1


def test_near_prints_the_answer_of_the_server_for_programs(herd: RunningHerd) -> None:
    herd.wait_until_all_know(herd["Ann"].hears(b"a\xe2\x80\xaeb", NEAR))
    result = run(herd, "near", PLACE, "1", "--server", "Bob", "--json")
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert (answer["server"], answer["complete"]) == ("Bob", True)
    assert "a\u202eb" in [one["client"] for one in answer["clients"]]
    assert "\u202e" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([PLACE, "500"], "Error: KM: "),
        ([PLACE, "wide"], "Error: KM: "),
        (["91,0", "5"], "latitude"),
        (["34", "-118", "5"], "LAT,LNG is one word: 34,-118"),
        (["34", "5"], "'34' is not a latitude, a comma and a longitude"),
        (["kiwi", "5"], "'kiwi' is no LAT,LNG; around a client: --client CLIENT KM"),
        (["1,2,3", "5"], "'1,2,3' is not a latitude, a comma and a longitude"),
        ([PLACE, "5", "--limit", "1001"], "1<=x<=1000"),
        ([PLACE, "5", "--limt", "10"], "No such option '--limt'"),
        (["5"], "give either LAT,LNG or --client CLIENT, and KM"),
        ([], "give LAT,LNG and KM; or --client CLIENT and KM"),
        ([PLACE, "5", "--client", "second"], "give either LAT,LNG or --client CLIENT, and KM"),
    ],
)
def test_what_cannot_be_asked_is_wrong_usage(herd: RunningHerd, arguments: list[str], told: str) -> None:
    result = run(herd, "near", *arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr


def test_a_token_that_may_not_see_is_told(herd: RunningHerd, tmp_path: Path) -> None:
    token = run(herd, "token", "new", "--sub", "kiwi", "--may", "report")
    (tmp_path / "token").write_text(token.stdout)
    for arguments in (["near", PLACE, "5"], ["follow", "kiwi"]):
        result = run(herd, *arguments, "--token-file", str(tmp_path / "token"))
        assert (result.exit_code, result.stdout) == (1, "")
        assert "may not see this" in result.stderr


# --- follow


def test_follow_prints_where_clients_are_then_each_change_until_ctrl_c(herd: RunningHerd) -> None:
    herd.wait_until_all_know(herd["Bob"].hears(b"kiwi", HERE))
    with Follower(herd, "kiwi", "plum") as follower:
        assert event(follower.line()) == ("enter", "kiwi", "34.0655,-118.4465", "Bob")
        assert follower.note() == "clients known: 1 of 2; waiting for changes"
        herd["Ann"].hears(b"plum", NEAR)
        assert event(follower.line()) == ("enter", "plum", "34.0695,-118.4465", "Ann")
        herd["Bob"].hears(b"kiwi", NEAR)
        assert event(follower.line()) == ("move", "kiwi", "34.0695,-118.4465", "Bob")
        erase(herd, "plum")
        assert event(follower.line()) == ("gone", "plum")
        assert follower.end() == 0


def test_follow_prints_who_enters_a_circle_and_who_leaves_it(herd: RunningHerd) -> None:
    with Follower(herd, "--near", "-10.5,20.25", "1", "--buffer", "200", "--json") as follower:
        assert json.loads(follower.line())["event"] == "snapshot"
        for location, kind in ((b"-10.5+20.25", "enter"), (b"-10.5+20.26", "move"), (b"-10.5+20.3", "leave")):
            herd["Bob"].hears(b"melon", location)
            said = json.loads(follower.line())
            assert (said["event"], said["client"], said["server"]) == (kind, "melon", "Bob")
        assert follower.end() == 0


def test_follow_prints_who_enters_a_box_and_who_leaves_it(herd: RunningHerd) -> None:
    with Follower(herd, "--within", "-20.1,30.2", "-20,30.4", "--json") as follower:
        assert json.loads(follower.line())["event"] == "snapshot"
        for location, kind in (
            (b"-20.05+30.3", "enter"),
            (b"-20.05+30.39", "move"),
            (b"-20.2+30.3", "leave"),
        ):
            herd["Ann"].hears(b"mango", location)
            said = json.loads(follower.line())
            assert (said["event"], said["client"]) == (kind, "mango")
        assert follower.end() == 0


def test_follow_ends_when_nobody_reads_any_more(herd: RunningHerd) -> None:
    herd["Ann"].hears(b"fig", HERE)
    with Follower(herd, "fig") as follower:
        follower.line()
        follower.note()
    program = Path(sys.executable).with_name("proxyherd")
    command = f"{program} follow fig --config {herd.file} | head -1"
    process = subprocess.Popen(["bash", "-c", f"set -o pipefail; {command}"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline().split()[2:4] == [b"enter", b"fig"]
    herd["Ann"].hears(b"fig", NEAR)
    herd["Ann"].hears(b"fig", HERE)
    assert process.wait(PATIENCE_SECONDS) == 0
    process.stdout.close()


def test_follow_goes_on_at_another_server_and_tells_what_changed_meanwhile(herd: RunningHerd) -> None:
    for client in (b"left", b"stays", b"moves"):
        herd.wait_until_all_know(herd["Bob"].hears(client, b"+5+5"))
    with Follower(herd, "--near", "5,5", "1") as follower:
        assert {event(follower.line())[:2] for _ in range(3)} == {
            ("enter", "left"),
            ("enter", "stays"),
            ("enter", "moves"),
        }
        assert follower.note() == "clients in the area: 3; waiting for changes"
        assert herd["Ann"].stop() == 0
        assert "connecting again" in follower.note()
        herd["Bob"].hears(b"moves", b"+5.001+5")
        herd["Bob"].hears(b"left", b"+6+5")
        told = {event(follower.line())[:2] for _ in range(2)}
        assert ("leave", "left") in told
        assert told - {("leave", "left")} <= {("enter", "moves"), ("move", "moves")}
        herd["Bob"].hears(b"stays", b"+5.002+5")
        assert event(follower.line())[:2] == ("move", "stays")
        assert follower.end() == 0
    herd["Ann"].start()
    herd.wait_until_whole()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "either CLIENTs, or --near LAT,LNG KM, or --within LAT,LNG LAT,LNG"),
        (["kiwi", "--near", PLACE, "5"], "either CLIENTs, or --near"),
        (["--within", PLACE, PLACE, "--near", PLACE, "5"], "either CLIENTs, or --near"),
        (["kiwi", "--buffer", "5"], "--buffer is only for an area"),
        (["a b"], "is one word"),
        (["--near", "1", "5"], "'1' is not a latitude"),
    ],
)
def test_either_clients_or_a_circle_are_followed(herd: RunningHerd, arguments: list[str], told: str) -> None:
    result = run(herd, "follow", *arguments)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize(
    ("area", "told"),
    [
        (["--near", "91,0", "5"], "latitude"),
        (["--near", "9,0", "500"], "Error: KM: "),
        (["--within", "2,1", "1,2"], "Error: --within: "),
    ],
)
def test_an_area_that_is_none_is_wrong_usage(herd: RunningHerd, area: list[str], told: str) -> None:
    result = run(herd, "follow", *area)
    assert result.exit_code == 2, result.output
    assert told in result.stderr
    assert "radius_km" not in result.stderr


def test_nobody_who_listens_is_told(tmp_path: Path) -> None:
    (tmp_path / "herd.toml").write_text(
        'edges = []\n[servers]\nAnn = { clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3", '
        'web = "127.0.0.1:4" }\n'
    )
    for arguments in (["near", PLACE, "5"], ["follow", "kiwi"]):
        result = CliRunner().invoke(cli.main, [*arguments, "--config", str(tmp_path / "herd.toml")])
        assert (result.exit_code, result.stdout) == (3, "")
        assert "cannot reach Ann at 127.0.0.1:4: Connection refused; see `proxyherd status`" in result.stderr


def test_the_token_that_follow_makes_does_not_end_while_one_looks(
    herd: RunningHerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection ends with its token: one of a minute was a disconnection a minute."""
    presented: list[str] = []

    def followed(_server: Server, token: str, _query: object) -> Iterator[None]:
        presented.append(token)
        raise web_ports.NotAnswered("enough")

    monkeypatch.setattr(events, "followed", followed)
    assert run(herd, "follow", "kiwi").exit_code == 1
    (token,) = presented
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["sub"], claims["may"], claims["exp"] - claims["iat"]) == ("*", ["see"], 86_400)


def test_a_server_that_is_not_ready_takes_nobody_away_before_it_knows_all(
    herd: RunningHerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(kind: str, client: str = "", **more: Any) -> FollowEvent:
        return FollowEvent(event=kind, client=client, server="Ann", **more)

    lives = [
        [said("enter", "kiwi"), said("enter", "plum"), said("enter", "fig"), said("snapshot")],
        [said("enter", "kiwi"), said("snapshot", complete=False), said("enter", "plum"), said("snapshot")],
    ]

    def followed(*_: object) -> list[FollowEvent]:
        if not lives:
            raise web_ports.NotAnswered("enough")
        return lives.pop(0)

    monkeypatch.setattr(events, "followed", followed)
    monkeypatch.setattr("time.sleep", lambda _: None)
    result = run(herd, "follow", "kiwi", "plum", "fig")
    assert [event(line)[:2] for line in result.stdout.splitlines()] == [
        *(("enter", client) for client in ("kiwi", "plum", "fig")),
        ("gone", "fig"),
    ]
