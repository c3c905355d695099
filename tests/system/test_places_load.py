"""Places under load and in trouble, for real: a server, the stand-in for Google, and a crowd, each a process.

How long anything takes is measured by bench/places.py. What others are spared of it is counted in test_places_herd.py.
On the herd's engine alone: it takes long, and an answer of Places waits for no engine any more.
"""

from __future__ import annotations

import contextlib

import pytest
from crowd import run_crowd
from herd_process import free_port, wait_until
from loaded_places import server_of
from places_sim import places_sim

PATIENT = "deadline_seconds = 100.0\nattempt_seconds = 100.0\n"
"""However busy the machine is, no call is late."""


def test_two_thousand_queries_at_once_are_all_answered_by_one_call_each() -> None:
    with places_sim("--quiet") as sim, server_of(sim.url, PATIENT) as server:
        crowd = run_crowd("burst", server.client_port, 2_000)
        assert set(crowd["statuses"]) <= {"OK", "ZERO_RESULTS"}, crowd
        assert sum(crowd["statuses"].values()) == 2_000
        calls = server.metrics("proxyherd_places_calls_total")
        answered = server.metrics('proxyherd_places_calls_total{outcome="answered"')
        assert sum(answered.values()) == sum(calls.values()) == 2_000


def test_calls_lost_in_a_hundred_are_seen_by_no_client() -> None:
    faults = ("--drop", "1", "--errors", "1", "--nonsense", "1")
    with (
        places_sim(*faults, "--seed", "5", "--quiet") as sim,
        server_of(sim.url, f"{PATIENT}attempts = 5\n", 200) as server,
    ):
        crowd = run_crowd("burst", server.client_port, 200)
        assert set(crowd["statuses"]) <= {"OK", "ZERO_RESULTS"}, crowd
        calls = server.metrics("proxyherd_places_calls_total")
        assert sum(calls.values()) > 200, "some were lost"


@pytest.mark.parametrize("death", ["refuses", "hangs"])
def test_a_dead_upstream_soon_costs_no_calls_any_more(death: str) -> None:
    more = "deadline_seconds = 2.0\nattempt_seconds = 0.5\nbreaker_failures = 10\nbreaker_seconds = 600.0\n"
    with contextlib.ExitStack() as stack:
        url = f"http://127.0.0.1:{free_port()}"
        if death == "hangs":
            url = stack.enter_context(places_sim("--hang", "100", "--quiet")).url
        server = stack.enter_context(server_of(url, more, 300))
        crowd = run_crowd("burst", server.client_port, 300)
        assert crowd["statuses"] == {"UNKNOWN_ERROR": 300}
        server.wait_for_event("places_breaker", state="open")
        before = server.metrics("proxyherd_places_calls_total")
        with server.connect() as client:
            for number in range(100):
                assert b"keeps failing" in client.ask(b"WHATSAT crowd-%d 5 5" % number)
        assert server.metrics("proxyherd_places_calls_total") == before


def test_an_upstream_that_comes_back_is_asked_again() -> None:
    more = f"{PATIENT}breaker_failures = 3\nattempts = 1\nbreaker_seconds = 0.2\n"
    port = free_port()
    with server_of(f"http://127.0.0.1:{port}", more, 10) as server, server.connect() as client:
        wait_until(
            lambda: (
                b"UNKNOWN_ERROR" in client.ask(b"WHATSAT crowd-1 5 5") and server.events("places_breaker")
            ),
            "the breaker is open",
        )
        server.wait_for_event("places_breaker", state="open")
        with places_sim("--address", f"127.0.0.1:{port}", "--quiet"):
            wait_until(
                lambda: b"UNKNOWN_ERROR" not in client.ask(b"WHATSAT crowd-1 5 5"), "it is asked again"
            )
        server.wait_for_event("places_breaker", state="half_open")
        server.wait_for_event("places_breaker", state="closed")
