"""Which processes listen at a port, from Linux' /proc, as far as this process may see them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator
from glob import iglob
from pathlib import Path
from typing import Final

from proxyherd.base.escapes import escaped

_COMMAND_BYTES: Final = 100
_LISTEN: Final = "0A"


def listeners(ports: Collection[int]) -> dict[int, set[int]]:
    """Return the processes that listen at each of these ports of TCP; those of other users may be missing. On a full
    machine it takes long.
    """
    inodes = {
        f"socket:[{fields[9]}]": _port(fields[1])
        for fields in _sockets()
        if fields[3] == _LISTEN and _port(fields[1]) in ports
    }
    found: dict[int, set[int]] = {port: set() for port in ports}
    # Unlike that of pathlib, this glob passes over processes that end meanwhile.
    for path in iglob("/proc/[0-9]*/fd/*") if inodes else ():  # noqa: PTH207
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if (port := inodes.get(os.readlink(path))) is not None:  # noqa: PTH115 - of a text
                found[port].add(int(path.split("/")[2]))
    return found


def holders(ports: Collection[int]) -> dict[int, str]:
    """Describe the process that listens at each of these ports; those of which it is not known are left out."""
    return {port: described(min(pids)) for port, pids in listeners(ports).items() if pids}


def described(pid: int) -> str:
    """Return a process's command and ID."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        words = []
    return f"{escaped(b' '.join(words)[:_COMMAND_BYTES])} (process {pid})".strip()


def _sockets() -> Iterator[list[str]]:
    """Yield the fields of each socket of TCP: proc(5), /proc/net/tcp."""
    for file in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            yield from (line.split() for line in Path(file).read_text(encoding="ascii").splitlines()[1:])


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
