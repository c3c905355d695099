"""What `export` and `forget` share: the last locations in the journal of a server of this machine."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from proxyherd.cli.common import Misconfigured, default_secret_file
from proxyherd.config import secrets
from proxyherd.config.herd_file import Herd
from proxyherd.core.messages import At
from proxyherd.remote import exporting
from proxyherd.remote.exporting import Found

_NANOSECONDS = 1_000_000_000


def read_journal(folder: Path, herd: Herd, secret_file: Path | None) -> Found:
    """Read the journal in a folder, without what the herd has forgotten and what was erased. Only the herd's secret tells
    whose the tombstones there are. Raises Misconfigured, ConfigError.
    """
    lead = herd.limits.clock_lead
    try:
        with progress_bar("Reading", exporting.size(folder)) as bar:
            found = exporting.read(folder, lead, bar.update)
        if found.gone:
            from proxyherd.engines.herd.backend import make_table  # noqa: PLC0415 - it takes long, for a rare case

            table = make_table(secrets.read_all(secret_file or default_secret_file()))
            for tombstone in found.gone:
                table.erase(tombstone)

            def is_erased(at: At) -> bool:
                return table.is_erased(at.client, at.entry.line, table.leaf(at.client))

            with progress_bar("Reading again", exporting.size(folder)) as bar:
                found = exporting.read(folder, lead, bar.update, is_erased)
    except OSError as error:
        raise Misconfigured(
            f"{error.filename or folder}: {error.strerror}; name the journal's folder with --folder, as who may read it"
        ) from error
    if herd.limits.max_age_seconds:
        exporting.forget(found, time.time_ns() - int(herd.limits.max_age_seconds * _NANOSECONDS))
    return found


def progress_bar(label: str, length: int) -> Any:
    """Return a bar on stderr, if that is a terminal."""
    return click.progressbar(
        length=length,
        label=label,
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
        update_min_steps=length // 100,
    )
