"""What schemathesis makes of numbers: a schema says what a number is, and not how it is spelled. `schemathesis.toml` names
this file.
"""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(_: schemathesis.HookContext, body: Any) -> Any:
    """Let times have few decimals and no exponent, and degrees no exponent below that of any rounding error."""
    if isinstance(body, list):
        return [_plain(one) for one in body]
    return _plain(body)


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
