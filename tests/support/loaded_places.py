"""A server whose places are asked for by a crowd."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from crowd import place_crowd
from herd_process import ServerProcess, raise_descriptor_limit, running_server

KEY = {"GOOGLE_PLACES_API_KEY": "AIzaSy-throwaway_0123456789"}


UNBOUNDED = 'provider = "google"\ncalls_per_minute = 1_000_000\ncalls_per_day = 1_000_000\n'


@contextlib.contextmanager
def server_of(url: str, more: str = "", size: int = 2_000) -> Iterator[ServerProcess]:
    """Run a server that asks there, and that knows so many of the crowd."""
    raise_descriptor_limit(8_000)
    with running_server(more=f'[places]\nbase_url = "{url}"\n{UNBOUNDED}{more}', environ=KEY) as server:
        server.wait_for_event("places_opened")
        place_crowd(server, size)
        yield server
