"""The base class of values: structs that never change, and that the garbage collector does not visit.

Modules that can be compiled (`docs/operations.md`) derive their structs from it, because the compiler ignores the keywords
of a class.
"""

from __future__ import annotations

from typing import dataclass_transform

from msgspec import Struct


@dataclass_transform(frozen_default=True)
class Value(Struct, frozen=True, gc=False):
    """A value. Its fields must not hold an object that refers to it."""
