"""A class of submissions for graders of many: honest herds, and those that harm the machine or their neighbours.

Each is a folder with `server.py NAME`: a herd of two, all at the same ports. The harmful ones do their harm first, or
beside, and are honest otherwise: so full points show that a sandbox bounds them, and that nothing else suffers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

SUPPORT: Final = Path(__file__).parent
PORTS: Final = {"Ann": 12_001, "Bob": 12_002}
MARK: Final = "proxyherd-class-mark"
"""What harmful processes have in their arguments."""

SERVE: Final = """
import runpy
sys.argv[1:] = [sys.argv[1] if word == "NAME" else word for word in WORDS]
runpy.run_path("broken_herd.py", run_name="__main__")
"""

FORK: Final = """
import os, socket, time
if not os.fork():
    os.setsid()
    if not os.fork():
        for port in (12001, 12002):
            while socket.socket().connect_ex(("127.0.0.1", port)):
                time.sleep(0.1)
        while True:
            try:
                os.fork()
            except OSError:
                time.sleep(0.1)
    os._exit(0)
"""

FILL: Final = """
import os
for folder in (".", "/tmp", "/dev/shm"):
    try:
        with open(folder + "/proxyherd-class-mark", "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError as error:
        sys.stderr.write(f"{error}\\n")
os.truncate("proxyherd-class-mark", 0)
"""

SQUAT: Final = """
import socket, time
if sys.argv[1] == "Ann":
    squatter = socket.create_server(("127.0.0.1", 12002))
else:
    time.sleep(1)
"""

FLOOD: Final = """
import os
if not os.fork():
    while True:
        os.write(1, b"proxyherd-class-mark " * 3000)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the server prints itself would fail
"""

HANG: Final = """
import socket, time
held = socket.create_server(("127.0.0.1", {"Ann": 12001, "Bob": 12002}[sys.argv[1]]))
time.sleep(10_000)
"""

MUTE: Final = """
import time
time.sleep(10_000)
"""

PRY: Final = """
import os, signal, socket
found = []
for file in os.environ["CLASS_FILES"].split(":"):
    if os.path.exists(file):
        found.append(file)
for folder in ("/etc", "/var", "/dev", "/home", "/run", "/"):
    file = folder + "/proxyherd-class-mark"
    try:
        open(file, "w")
    except OSError:
        continue
    found.append(file)
try:
    os.kill(-1, signal.SIGKILL)
except OSError:
    pass
with socket.socket() as client:
    client.settimeout(1)
    if not client.connect_ex(("192.0.2.1", 80)):
        found.append("a network")
if [entry for entry in os.listdir("/proc") if entry.isdigit() and int(entry) > 9]:
    found.append("processes")
if found:
    sys.exit(f"not in a sandbox: {found}")
"""

GREEDY: Final = """
kept = []
try:
    while True:
        kept.append(b"x" * (1 << 26))
except MemoryError:
    kept.clear()
"""


class Kind(NamedTuple):
    """One kind of submission: what it does before it serves, and what comes of it."""

    before: str = ""
    problem: str = ""
    """A part of the reason why it cannot be graded; empty: it has marks."""

    fault: str = ""
    """How it is broken: one of broken_ways.py."""

    serves: bool = True


KINDS: Final = {
    "honest": Kind(),
    "forks": Kind(FORK),
    "fills-disks": Kind(FILL),
    "squats-a-port": Kind(SQUAT, "port 12002 is held by python3 server.py Ann (process "),
    "floods-its-log": Kind(FLOOD),
    "hangs": Kind(HANG, "answers no IAMAT", serves=False),
    "pries": Kind(PRY),
    "wrong": Kind(fault="float"),
    "no-python": Kind("for", "SyntaxError", serves=False),
    "greedy": Kind(GREEDY),
    "mute": Kind(MUTE, "has not listened", serves=False),
    "floods-for-ever": Kind(fault="saturates"),
}


def make(folder: Path, kind: Kind, ports: Mapping[str, int] = PORTS) -> None:
    """Write one submission; only honest ones may have other ports."""
    folder.mkdir(parents=True)
    for file in ("broken_herd.py", "broken_ways.py"):
        shutil.copy(SUPPORT / file, folder)
    (folder / "herd.json").write_text(json.dumps({"ports": ports, "edges": [list(PORTS)]}))
    words = ["herd.json", "NAME", *([kind.fault] if kind.fault else [])]
    serve = SERVE.replace("WORDS", repr(words)) if kind.serves else ""
    (folder / "server.py").write_text(f"import sys\n{kind.before}\n{serve}")
