"""What is wrong with a herd, in words, and since when."""

from __future__ import annotations

from states import a_state

from proxyherd.admin.status_page.state import ServerState
from proxyherd.admin.status_page.troubles import Silence, Trouble, Troubles

EDGES = [("Bona", "Clark"), ("Clark", "Jaquez"), ("Bona", "Jaquez")]
CLARK = {"Clark": Silence(silent=True)}


def linked(server: str, **links: tuple[str, float]) -> ServerState:
    """Return the state of a server whose links have been in these states for so many seconds."""
    return a_state(
        server,
        links={name: link for name, (link, _) in links.items()},
        link_seconds={name: seconds for name, (_, seconds) in links.items()},
    )


def test_a_herd_without_troubles_has_none() -> None:
    states = {name: a_state(name) for name in ("Bona", "Clark", "Jaquez")}
    assert Troubles().now(EDGES, states, {}, 1.0) == []
    assert Troubles().now(EDGES, {}, {}, 1.0) == [], "nobody has been asked yet"


def test_a_silent_server_is_told_with_its_neighbours_words_since_they_lost_it() -> None:
    states = {
        "Bona": linked("Bona", Clark=("cut", 40.0), Jaquez=("live", 90.0)),
        "Jaquez": linked("Jaquez", Clark=("cut", 39.0), Bona=("live", 90.0)),
    }
    found = Troubles().now(EDGES, states, CLARK, 1.0)
    assert found == [Trouble("Clark", "Clark does not answer", 40.0, "its neighbours say cut")]


def test_a_server_whose_admin_port_alone_is_silent_is_told_as_that() -> None:
    troubles = Troubles()
    states = {
        "Bona": linked("Bona", Clark=("live", 400.0)),
        "Jaquez": linked("Jaquez", Clark=("live", 400.0)),
    }
    assert troubles.now(EDGES, states, CLARK, 10.0)[0].more == "its neighbours say live"
    [later] = troubles.now(EDGES, states, CLARK, 15.0)
    assert later.seconds == 5.0, "since it was first seen"
    states["Jaquez"] = linked("Jaquez", Clark=("cut", 2.0))
    assert troubles.now(EDGES, states, CLARK, 16.0)[0].more == "Bona says live, Jaquez says cut"
    del states["Bona"]
    assert troubles.now(EDGES, states, CLARK, 17.0)[0].more == "its neighbour Jaquez says cut"
    assert troubles.now([], {}, {"Clark": Silence(silent=False)}, 18.0) == [
        Trouble("Clark", "Clark gives no state that can be used", 8.0)
    ]
    assert troubles.now(EDGES, states, {}, 19.0) == []
    assert troubles.now([], {}, CLARK, 20.0)[0].seconds == 0.0, "it is a new one"


def test_a_cut_link_between_servers_that_answer_is_told_once() -> None:
    states = {
        "Bona": linked("Bona", Clark=("cut", 7.0), Jaquez=("catching up", 1.0)),
        "Clark": linked("Clark", Bona=("catching up", 3.0), Jaquez=("live", 9.0)),
        "Jaquez": linked("Jaquez"),
    }
    assert Troubles().now(EDGES, states, {}, 1.0) == [
        Trouble("Bona", "The link between Bona and Clark is cut", 7.0)
    ]


def test_what_servers_say_of_themselves_is_told() -> None:
    state = a_state(
        ready=False,
        reason="the journal cannot be written",
        readiness_seconds=12.0,
        masters=6,
        masters_up=4,
        other_keys=["Bob", "Cid"],
        log_failing=True,
        clocks={"Bob": -2.5, "Cid": 0.9, "Dan": 3.0, "Eve": 3_456_000.2},
    )
    found = Troubles().now([], {"Ann": state}, {}, 1.0)
    assert [(one.words, one.seconds) for one in found] == [
        ("Ann is not ready: the journal cannot be written", 12.0),
        ("Ann reaches 4 of 6 masters of Redis", 0.0),
        ("The key of Ann's table is not that of Bob, Cid", 0.0),
        ("Ann cannot write its log: lines are lost", 0.0),
        ("Bob's clock is 2.5 s behind Ann's", 0.0),
        ("Dan's clock is 3 s ahead of Ann's", 0.0),
        ("Eve's clock is 40 d ahead of Ann's", 0.0),
    ]
