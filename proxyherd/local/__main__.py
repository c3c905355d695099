"""`python -m proxyherd.local STEP`: the steps of the Makefile and of deploy/redis/run.sh, without the command line's libraries."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final

from proxyherd.local import herd
from proxyherd.local.folder import prepare

STEPS: Final[dict[str, Callable[..., None]]] = {
    "prepare": prepare,
    "start": herd.start,
    "wait": herd.wait,
    "is-up": herd.is_up,
    "down": herd.down,
    "check-stopped": herd.check_stopped,
}

if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    STEPS[sys.argv[1]](*sys.argv[2:])
