"""What `status --json` prints; docs/tools.md has its fields."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

from proxyherd.config.herd_file import Herd
from proxyherd.remote.ask import Status
from proxyherd.remote.polling import Rates, Seen


def status_json(herd: Herd, seen: Iterable[Seen]) -> str:
    """Return the result as one JSON object; docs/tools.md has its fields."""
    seen = list(seen)
    whole = all(one.status.whole for one in seen)
    servers = [_object(one.status, one.rates) for one in seen]
    return json.dumps({"herd": str(herd.file), "whole": whole, "servers": servers}, allow_nan=False)


def _object(one: Status, rates: Rates | None) -> dict[str, Any]:
    told = one.told
    return {
        "server": one.server.name,
        "state": one.state,
        "reason": one.problem,
        "addresses": {key: list(map(str, some)) for key, some in one.server.addresses.items()},
        "neighbours": list(one.server.neighbours),
        "unlinked": told and one.missing,
        "clients": told and told.clients,
        "connections": told and told.protocols,
        "commands": told and told.answered,
        "floods_in": told and told.floods_in,
        "floods_out": told and told.floods_out,
        "mended": told and told.mended,
        "journal_failing": told and told.journal_failing,
        "log_failing": told and told.log_failing,
        "masters": told and told.masters,
        "masters_up": told and told.masters_up,
        "waiting": told and told.waiting,
        "over_rate": told and told.over_rate,
        "clocks": told and told.clocks,
        "other_keys": told and told.other_keys,
        "refusals": told and told.refusals,
        "file": told and told.file,
        "process": told and told.process,
        "rates": None if rates is None else _rates_object(rates),
    }


def _rates_object(rates: Rates) -> dict[str, Any]:
    lag = rates.lag_p99
    return {
        "seconds": round(rates.seconds, 3),
        "commands": round(rates.commands, 3),
        "floods_in": round(rates.floods_in, 3),
        "floods_out": round(rates.floods_out, 3),
        "lag_p99_seconds": None if lag is None or math.isinf(lag) else lag,
    }
