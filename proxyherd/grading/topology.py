"""Who is linked with whom, in a file of the user's: of all its keys, only those that matter to a grader are read.

    edges = [["Clark", "Jaquez"], ["Clark", "Bona"]]

A herd's file of ours is one too: then its `limits.max_line_bytes` and `table.engine` count as well.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field


class TopologyError(Exception):
    """The file cannot be used; the text names it, and says why and what to do."""


class _Limits(Struct):
    max_line_bytes: int = 8_192


class _Table(Struct):
    engine: str = "herd"


class Topology(Struct):
    """The links of a herd."""

    edges: list[tuple[str, str]] = field(default_factory=list)
    servers: dict[str, Any] = field(default_factory=dict)
    limits: _Limits = field(default_factory=_Limits)
    table: _Table = field(default_factory=_Table)

    @property
    def names(self) -> list[str]:
        """The names of its servers."""
        return list(dict.fromkeys([*self.servers, *(name for edge in self.edges for name in edge)]))

    @property
    def one_table(self) -> bool:
        """Whether its servers share one table, and have no links."""
        return self.table.engine == "redis"


def load(file: Path, servers: Iterable[str]) -> Topology:
    """Read the topology of these servers, by their names. Raises TopologyError."""
    try:
        found = msgspec.convert(tomllib.loads(file.read_bytes().decode("utf-8-sig")), Topology)
    except OSError as error:
        raise TopologyError(f"{file}: {error.strerror}; name a file with --topology") from error
    except msgspec.ValidationError as error:
        raise TopologyError(
            f'{file}: {error}; the key edges has pairs of names, such as [["Clark", "Jaquez"]]'
        ) from error
    except (ValueError, RecursionError) as error:
        raise TopologyError(f"{file}: not TOML in UTF-8: {error}") from error
    named, known = list(servers), found.names
    if not known:
        raise TopologyError(f'{file}: key edges: is missing; add it, such as edges = [["Clark", "Jaquez"]]')
    if unknown := [name for name in named if name not in known]:
        raise TopologyError(f"{file}: there is no server {unknown[0]!r}; it has {', '.join(known)}")
    if missing := [name for name in known if name not in named]:
        raise TopologyError(f"{file}: has {', '.join(missing)} too; name the address of each server")
    return found
