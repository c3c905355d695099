"""One run under Python's own eyes: asyncio's debug mode, every warning an error. Nothing may be said."""

from __future__ import annotations

import re

from cases import BYTE_BY_BYTE, CASES, play
from fake_google import FakeGoogle, Reply, nearby_answer
from herd_process import herd_of
from redis_cluster import Cluster

STRICT = {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "error", "GOOGLE_PLACES_API_KEY": "not-a-real-key"}

SLOW = re.compile(r"^Executing <.*> took \d+\.\d* seconds\n", re.MULTILINE)
"""What asyncio says when a step has taken more than a tenth of a second, by the clock of the wall: on a busy machine that
is the machine's. What steps cost is judged elsewhere.
"""


def test_conformance_in_debug_mode_leaves_stderr_empty(cluster: Cluster | None) -> None:
    with FakeGoogle(Reply(nearby_answer(20))) as google:
        more = f'\n[places]\nbase_url = "{google.url}"\n'
        with herd_of([("Bona", "Clark")], more=more, environ=STRICT, cluster=cluster) as herd:
            herd.start()
            herd.wait_until_whole()
            clark = herd["Clark"]
            for case in CASES:
                play(case, clark, case.chunk)
                play(case, clark, BYTE_BY_BYTE)
            for server in herd.values():
                assert server.stop() == 0
                assert SLOW.sub("", server.stderr()) == ""
                assert not server.events("internal_error")
