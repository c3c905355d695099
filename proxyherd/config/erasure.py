"""Checks `[erasure]` of the herd's file."""

from __future__ import annotations

from pathlib import Path

from proxyherd.config.errors import ConfigError
from proxyherd.config.schema import ErasureSettings


def check_erasure(erasure: ErasureSettings, file: Path) -> None:
    """Check that an erased line leaves the disk before its tombstone ends. Raises ConfigError."""
    keep, rewrite = erasure.tombstone_seconds, erasure.rewrite_seconds
    if keep < rewrite:
        raise ConfigError(
            f"{file}: key erasure.tombstone_seconds: {keep:g} is less than rewrite_seconds, {rewrite:g}, so a journal "
            "could still have an erased client when nobody knows of the erasure any more; raise tombstone_seconds, or "
            "lower rewrite_seconds"
        )
