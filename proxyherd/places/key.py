"""Finds the key for Google; errors never contain any part of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from proxyherd.base.files import read_regular
from proxyherd.config import schema
from proxyherd.config.errors import ConfigError

KEY_CREDENTIAL = "google-places-api-key"
"""The systemd credential with the key."""

KEY_VARIABLE = "GOOGLE_PLACES_API_KEY"
"""The environment variable with the key."""

MAX_KEY_BYTES = 4_096
"""Bytes that are read of a key's file: a key has about 40, and the file may be named by mistake."""


def find_key(places: schema.PlacesSettings, herd_file: Path, environ: Mapping[str, str]) -> str | None:
    """Find the key for Google: in `places.key_file`, else in the systemd credential, else in the environment.

    White space at its ends is removed; an empty key counts as none. Raises ConfigError if a file cannot be read or has
    no key. The error names source and remedy, but never the key; callers then continue without a key.
    """
    if places.key_file is not None:
        file = herd_file.parent / places.key_file
        if key := checked(read_key(file, f"{herd_file}: key places.key_file"), str(file)):
            return key
    if directory := environ.get("CREDENTIALS_DIRECTORY"):
        file = Path(directory, KEY_CREDENTIAL)
        if key := checked(read_key(file, "the systemd credential", optional=True), str(file)):
            return key
    return checked(os.fsencode(environ.get(KEY_VARIABLE, "")), f"the variable {KEY_VARIABLE}")


def read_key(file: Path, what: str, *, optional: bool = False) -> bytes:
    """Read a file with a key; `what` names it in the ConfigError that is raised if this fails."""
    try:
        return read_regular(file, MAX_KEY_BYTES + 1)
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError):
            return b""
        raise ConfigError(
            f"{what}: {file}: {error.strerror}; write the key into it, readable by the server"
        ) from error


def checked(raw: bytes, where: str) -> str | None:
    """Return the key, or None if it is empty. Raises ConfigError, without quoting it, if it is not a key."""
    if len(raw) > MAX_KEY_BYTES:
        raise ConfigError(
            f"{where}: longer than {MAX_KEY_BYTES} bytes, so no key; write the key alone into it"
        )
    key = raw.strip()
    if any(not 0x21 <= byte <= 0x7E for byte in key):
        raise ConfigError(
            f"{where}: holds white space or bytes that are not ASCII, so no key; write the key alone into it"
        )
    return key.decode() or None
