"""What an IAMAT costs a server: CPU microseconds a command, everything on, beside an echo that does nothing.

    .venv/bin/python bench/iamat.py [--connections 50] [--outstanding 1] [--commands 100000] [--rounds 5]

Starts one server (its neighbours down) and an echo of lines on the same event loop, each a process of its own,
and drives them in turns, so that a noisy machine disturbs both alike. CPU is user and system time of the server's
process, as the operating system counts it. Every report is news: times increase.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import cast

import psutil
import uvloop

ECHO = """
import asyncio, sys, uvloop
class Echo(asyncio.Protocol):
    def connection_made(self, transport): self.transport = transport
    def data_received(self, data): self.transport.write(data)
async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
uvloop.run(main())
"""


class Load(asyncio.Protocol):
    """One connection that keeps so many commands outstanding until it has sent its share."""

    def __init__(self, number: int, share: int, outstanding: int, done: asyncio.Future[None]) -> None:
        self.number = number
        self.left = share
        self.missing = share
        self.outstanding = outstanding
        self.done = done
        self.clients = cycle(range(number * 2_000, number * 2_000 + 2_000))
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.send(self.outstanding)

    def data_received(self, data: bytes) -> None:
        answers = data.count(b"\n")
        self.missing -= answers
        if self.missing <= 0:
            assert self.transport is not None
            self.transport.close()
            self.done.set_result(None)
        else:
            self.send(answers)

    def send(self, lines: int) -> None:
        assert self.transport is not None
        lines = min(lines, self.left)
        self.left -= lines
        now = time.time_ns()
        self.transport.write(
            b"".join(
                b"IAMAT client%06d.example.com +34.068930-118.445127 %d.%09d\n"
                % (next(self.clients), (now + line) // 10**9, (now + line) % 10**9)
                for line in range(lines)
            )
        )


def _same(load: Load) -> Load:
    return load


async def drive(port: int, connections: int, outstanding: int, commands: int) -> float:
    """Return the seconds that the commands took."""
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    waiting = []
    for number in range(connections):
        done = loop.create_future()
        waiting.append(done)
        load = Load(number, commands // connections, outstanding, done)
        await loop.create_connection(partial(_same, load), "127.0.0.1", port)
    await asyncio.gather(*waiting)
    return time.perf_counter() - began


def free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [cast("int", sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def start_server(folder: Path, ports: list[int]) -> subprocess.Popen[bytes]:
    """Start one server of a herd of two; the other stays down."""
    names = ("Clark", "Jaquez")
    servers = "\n".join(
        f'{name} = {{ clients = "127.0.0.1:{ports[3 * at]}", peers = "127.0.0.1:{ports[3 * at + 1]}",'
        f' admin = "127.0.0.1:{ports[3 * at + 2]}" }}'
        for at, name in enumerate(names)
    )
    (folder / "herd.toml").write_text(f'edges = [["Clark", "Jaquez"]]\n[servers]\n{servers}\n')
    (folder / "secret").write_bytes(bytes(32))
    (folder / "secret").chmod(0o600)
    program = [sys.executable, "-m", "proxyherd", "--config", str(folder / "herd.toml"), "serve", "Clark"]
    files = [f"--state-dir={folder}/state", f"--log-file={folder}/log", f"--secret-file={folder}/secret"]
    return subprocess.Popen([*program, *files, "--log-max-bytes=67108864"])


def wait_for(port: int) -> None:
    """Wait until something listens."""
    for _ in range(1_000):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.01)
        else:
            return
    raise SystemExit(f"nothing listens on port {port}")


def measure(process: subprocess.Popen[bytes], port: int, options: argparse.Namespace) -> tuple[float, float]:
    """Return CPU microseconds a command, and commands a second."""
    watched = psutil.Process(process.pid)
    before = watched.cpu_times()
    seconds = uvloop.run(drive(port, options.connections, options.outstanding, options.commands))
    after = watched.cpu_times()
    used = after.user + after.system - before.user - before.system
    return used / options.commands * 1e6, options.commands / seconds


def main() -> None:
    """Measure, in turns, and print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--outstanding", type=int, default=1)
    parser.add_argument("--commands", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ports = free_ports(7)
    with tempfile.TemporaryDirectory() as folder:
        server = start_server(Path(folder), ports)
        echo = subprocess.Popen([sys.executable, "-c", ECHO, str(ports[6])])
        try:
            wait_for(ports[0])
            wait_for(ports[6])
            time.sleep(3)  # imports that come after listening are not a command's cost
            idle = psutil.Process(server.pid).memory_info().rss
            runs: dict[str, list[tuple[float, float]]] = {"herd": [], "echo": []}
            for _ in range(options.rounds):
                runs["herd"].append(measure(server, ports[0], options))
                runs["echo"].append(measure(echo, ports[6], options))
            report = {
                name: {
                    "cpu_us": round(statistics.median(cpu for cpu, _ in measured), 2),
                    "cpu_us_spread": [round(min(measured)[0], 2), round(max(measured)[0], 2)],
                    "commands_per_second": round(statistics.median(rate for _, rate in measured)),
                }
                for name, measured in runs.items()
            }
            memory = {"idle_rss_mib": round(idle / 2**20, 1)}
            print(json.dumps({"options": vars(options), **report, **memory}, indent=2))
        finally:
            for process in (server, echo):
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
