"""Who is near a place, as a server says: `GET /v1/near`. Digits stay as they were reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

import msgspec

from proxyherd.client.rules.errors import Unreachable
from proxyherd.remote.web_ports import see

if TYPE_CHECKING:
    from proxyherd.config.herd_file import Server

MOST_NEAR: Final = 1_000
"""Clients of one answer."""


class NearClient(msgspec.Struct):
    """A client; `lat`, `lon`: degrees, as they were reported; `age_s`: seconds since a server has taken the report."""

    client: str
    lat: msgspec.Raw
    lon: msgspec.Raw
    metres: float
    age_s: float


class NearAnswer(msgspec.Struct):
    """The answer of a server, the nearest client first. `complete`: whether the server knows all that the herd knows."""

    clients: list[NearClient]
    server: str
    complete: bool


def ask_near(
    server: Server, token: Callable[[], str], query: dict[str, str], patience: float
) -> tuple[bytes, NearAnswer]:
    """Return the answer to a question, as it came and as it is read. `query`: the parameters of `/v1/near`. A server that is
    not ready is asked again for `patience` seconds. Raises NotAnswered, Unreachable.
    """
    body = see(server, token, f"/v1/near?{urlencode(query)}", patience)
    try:
        return body, msgspec.json.decode(body, type=NearAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unreachable(f"{server.web[0]}: sends what is no answer of a server: {error}") from error
