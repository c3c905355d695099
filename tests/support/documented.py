"""What docs/logs.md says of events, and which of them are frequent."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import proxyherd.telemetry.observer  # noqa: F401 - and so all subjects, with their events
from proxyherd.telemetry.frequent import FrequentEvent

DOCS = Path(__file__).parents[2] / "docs"

LIFE = ("started", "replayed", "ready", "places_opened", "log_reopened", "reloaded", "stopping", "stopped")
"""Events of any life of a server: tests/system/test_logs.py."""


def examples() -> dict[str, list[dict[str, Any]]]:
    """Return the examples of each event in docs/logs.md."""
    parts = re.split(r"^### `(\w+)`$", (DOCS / "logs.md").read_text(), flags=re.MULTILINE)
    return {
        name: list(map(json.loads, re.findall(r"^```json\n(.*)\n```$", text, re.MULTILINE)))
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def kinds() -> list[type[FrequentEvent]]:
    """Return the frequent events."""
    found, kinds = [FrequentEvent], list[type[FrequentEvent]]()
    while found:
        found = [kind for one in found for kind in one.__subclasses__()]
        kinds += found
    return kinds
