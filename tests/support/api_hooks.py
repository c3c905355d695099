"""What schemathesis makes up, so that a server can use more of it: a schema says what a number is, and not how it is spelled;
and not that a circle has one centre, or that a ring ends where it begins. `schemathesis.toml` names this file.
"""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    """Let times have few decimals and no exponent, and degrees no exponent below that of any rounding error."""
    if isinstance(body, list):
        return [_plain(one) for one in body]
    if isinstance(body, dict) and isinstance(body.get("coordinates"), list):
        return body | {"coordinates": _closed(body["coordinates"])}
    return _plain(body)


@schemathesis.hook
def map_query(_: schemathesis.HookContext, query: Any) -> Any:
    """Let a circle be around a client, or around a place."""
    if not isinstance(query, dict) or not {"client", "lat", "lon"} & query.keys():
        return query
    kept = {key: value for key, value in query.items() if key != "after"}
    if "client" in kept:
        return {key: value for key, value in kept.items() if key not in ("lat", "lon")}
    return {"lat": "0", "lon": "0"} | kept


def _closed(rings: list[Any]) -> list[Any]:
    """Return rings that end where they begin, of positions on the Earth."""
    if all(isinstance(one, int | float) for one in rings):
        return [one if abs(one) <= 90 else 90.0 for one in rings]
    inner = [_closed(one) if isinstance(one, list) else one for one in rings]
    is_ring = inner and isinstance(inner[0], list) and inner[0] and isinstance(inner[0][0], int | float)
    return [*inner[:-1], inner[0]] if is_ring else inner


def _plain(report: Any) -> Any:
    if not isinstance(report, dict):
        return report
    found = dict(report)
    if isinstance(time := found.get("time"), float):
        found["time"] = round(time, 3)
    for key in ("lat", "lon"):
        if isinstance(degrees := found.get(key), float) and abs(degrees) < 1e-20:
            found[key] = 0.0
    return found
