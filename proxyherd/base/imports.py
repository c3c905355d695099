"""Imports for a process that is waited for: a server must listen soon after its start, also on a busy machine.

Importing is nearly all that a start costs. Two things make it cost less than what is imported needs: no garbage is
collected meanwhile, as nearly everything stays; and libraries that others import only where they happen to be installed
stay out.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Final

UNWANTED: Final = ("twisted", "rich", "better_exceptions", "greenlet")
"""What structlog imports where it can, for uses of it that are not ours; twisted alone takes a quarter of a start."""


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Import with as little work as possible. Later imports find everything."""
    hidden = [name for name in UNWANTED if name not in sys.modules]
    collects = gc.isenabled()
    gc.disable()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None: it cannot be imported
    try:
        yield
    finally:
        for name in hidden:
            sys.modules.pop(name, None)
        if collects:
            gc.enable()
