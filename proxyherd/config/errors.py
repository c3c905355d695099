"""The error of all that an operator sets."""

from __future__ import annotations


class ConfigError(Exception):
    """The herd's file, or a file that it names, cannot be used; the text says which file, where, and the remedy."""
