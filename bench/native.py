"""The load's loop in C: load.c, compiled where there is a compiler, into var/bench. Where there is none, `run` is not to be
called, and `load` does the same in Python, which is soon the limit itself.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from wire import WIRES

if TYPE_CHECKING:
    from load import Connection, Job, Schedule

SOURCE: Final = Path(__file__).with_name("load.c")
_FOLDER: Final = SOURCE.parents[1] / "var/bench"
_FLAGS: Final = ("-O2", "-shared", "-fPIC")
_FAILURES: Final = {1: "a server has closed a connection", 2: "there is no memory for what was received"}


class _Side(ctypes.Structure):
    """`struct side` of load.c, a connection."""

    _fields_ = [
        *(
            (name, ctypes.c_void_p)
            for name in ("commands", "ends", "marks", "sent_at", "answered_at", "received")
        ),
        *(
            (name, ctypes.c_int64)
            for name in ("received_bytes", "room", "bytes_sent", "marks_seen", "payload_left")
        ),
        *((name, ctypes.c_int32) for name in ("fd", "share", "sent", "answered", "header_bytes")),
        ("header", ctypes.c_uint8 * 12),
    ]


class _Load(ctypes.Structure):
    """`struct load` of load.c."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("sides", "due", "order", "late")),
        ("patience", ctypes.c_double),
        ("commands", ctypes.c_int64),
        *(
            (name, ctypes.c_int32)
            for name in ("connections", "outstanding", "poll", "mark", "before", "framed")
        ),
    ]


def compiler() -> str:
    """Return the path of a C compiler, nothing where there is none."""
    return shutil.which(os.environ.get("CC", "cc")) or ""


@cache
def library() -> ctypes.CDLL | None:
    """Return load.c compiled, None where that cannot be done."""
    text = SOURCE.read_bytes()
    file = _FOLDER / f"load-{hashlib.sha256(text).hexdigest()[:16]}.so"
    if not file.exists():
        if not compiler():
            return None
        _FOLDER.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_FOLDER) as folder:
            made = Path(folder) / file.name
            done = subprocess.run([compiler(), *_FLAGS, "-o", str(made), str(SOURCE)], check=False)
            if done.returncode:
                return None
            made.replace(file)
    return ctypes.CDLL(str(file))


def missing() -> str:
    """Return what this machine lacks for it, and how to get it; nothing if it can run."""
    if library() is not None:
        return ""
    return (
        f"{compiler()} fails" if compiler() else "no C compiler is installed; apt-get install gcc libc6-dev"
    )


def run(native: ctypes.CDLL, connections: Sequence[Connection], arrivals: Schedule | None, job: Job) -> None:
    """Do what `load.run_here` does. Raises ConnectionError when a server has gone."""
    wire, sides = WIRES[job.wire], (_Side * len(connections))()
    kept: list[Any] = []  # as long as C has pointers to them
    for side, one in zip(sides, connections, strict=True):
        ends, marks = (np.array(numbers, dtype=np.int64) for numbers in (one.ends, one.marks))
        kept += [ends, marks]
        side.commands = ctypes.cast(ctypes.c_char_p(one.commands), ctypes.c_void_p)
        side.ends, side.marks = ends.ctypes.data, marks.ctypes.data
        side.sent_at, side.answered_at = one.sent_at.ctypes.data, one.answered_at.ctypes.data
        side.fd, side.share = one.socket.fileno(), one.share
    load = _Load(
        sides=ctypes.cast(sides, ctypes.c_void_p),
        patience=job.patience,
        commands=job.plan.commands,
        connections=len(connections),
        outstanding=job.outstanding,
        mark=wire.mark[-1],
        before=wire.mark[-2] if len(wire.mark) > 1 else -1,
        framed=wire.carrier is not None and wire.carrier.is_framed,
    )
    if arrivals is not None:
        load.due, load.order, load.late = (array.ctypes.data for array in arrivals)
    failure = native.run(ctypes.byref(load))
    for side, one in zip(sides, connections, strict=True):
        one.sent, one.answered = side.sent, side.answered
        one.received = [ctypes.string_at(side.received, side.received_bytes)] if side.received_bytes else []
    native.release(ctypes.byref(load))
    if failure:
        raise ConnectionError(_FAILURES[failure])
