"""How the user is spoken to: each line begins with what was typed."""

from __future__ import annotations

import os
import sys
from typing import Final, NoReturn

_MADE: Final = os.environ.pop("PROXYHERD_TYPED", "")
"""What was typed to `make`, which says it in this variable. The herd's processes are not to have it."""

_COMMANDS: Final = {"init": "run", "up": "run", "down": "stop"}
"""The commands, and what is typed to `make` instead."""


def made() -> bool:
    """Whether `make` was typed."""
    return bool(_MADE)


def typed() -> str:
    """Return what the user has typed, such as `make run`."""
    return _MADE or f"proxyherd {next((word for word in sys.argv[1:] if word in _COMMANDS), 'up')}"


def to_type(command: str) -> str:
    """Return what the user types for a command."""
    return f"make {_COMMANDS[command]}" if made() else f"proxyherd {command}"


def fail(message: str, code: int = 1) -> NoReturn:
    """End with one line on stderr."""
    say(message)
    sys.exit(code)


def say(message: str) -> None:
    """Tell on stderr what was done besides."""
    print(f"{typed()}: {message}", file=sys.stderr)
