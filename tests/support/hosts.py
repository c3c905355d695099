"""Several hosts on one machine: network namespaces with addresses of their own, on a switch that is one too.

    with network(folder) as net:
        north = net.add("north", "192.0.2.1/24", "2001:db8::1/64")
        north.run("ping -c 1 192.0.2.2")
        net.unplug(north)

A host has a network, and an /etc and a /var, that nobody else sees; the machine's own stay as they are. The rule:
nothing has a name on the machine. Namespaces, cables and file systems live as long as a process that holds them, and
that one ends with the test, also when the test is killed; so there is nothing that a later run would have to find.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, TypeVar

from debian import PATH
from herd_process import PATIENCE_SECONDS, ROOT, Connection, ServerProcess, wait_until

from proxyherd.config import herd_file

T = TypeVar("T")

ENVIRON: Final = {"PATH": f"{ROOT}/.venv/bin:{PATH}", "LANG": "C.UTF-8"}
_NEW_NET: Final = 0x40000000  # CLONE_NEWNET of sched.h
_ETHERNET: Final = 0x0003  # ETH_P_ALL of if_ether.h: what comes, of whatever protocol
_ESTABLISHED: Final = "01"  # TCP_ESTABLISHED of tcp_states.h
_OWN_FILES: Final = """
mount -t tmpfs -o mode=755 tmpfs {folder}
for top in etc var; do
    mkdir {folder}/$top {folder}/$top.work
    mount -t overlay -o lowerdir=/$top,upperdir={folder}/$top,workdir={folder}/$top.work overlay /$top
done
for own in /etc/proxyherd /var/lib/proxyherd /var/log/proxyherd; do
    mkdir -p $own
    mount -t tmpfs -o mode=755 tmpfs $own
done
"""
"""Over an installed herd's folders lie empty ones; nothing is ever deleted."""
_GATEWAY: Final = ("192.0.2.254", 9)  # nobody is there


class Host:
    """A network namespace and a mount namespace, and the process that holds both."""

    def __init__(self, name: str) -> None:
        self.name = name
        alone = ["unshare", "--net", "--mount", "--propagation", "private", "--"]
        self._holder = subprocess.Popen(
            [*_ENDS_WITH_US, *alone, "sleep", "infinity"], stdin=subprocess.DEVNULL, env=ENVIRON
        )
        self.pid = self._holder.pid
        self._threads = ThreadPoolExecutor(1, initializer=self._enter)
        try:
            wait_until(lambda: Path(f"/proc/{self.pid}/comm").read_text() == "sleep\n", f"{name} is there")
            self.run("ip link set lo up")
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Let it go, with all that only it has."""
        self._threads.shutdown()
        self._holder.kill()
        self._holder.wait()

    def command(self, *words: str) -> list[str]:
        """Return the command line that runs this one here, and ends it when the test's process ends."""
        return [*_ENDS_WITH_US, "nsenter", "--target", str(self.pid), "--mount", "--net", "--", *words]

    def run(self, commands: str) -> str:
        """Run commands of a shell here, as root; return what they print. Fails when one fails."""
        done = self.tries("sh", "-e", "-c", commands)
        assert done.returncode == 0, f"{self.name}: {commands}: {done.stdout}{done.stderr}"
        return done.stdout

    def tries(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command here that may fail."""
        return subprocess.run(
            self.command(*words), env=ENVIRON, capture_output=True, text=True, timeout=600, check=False
        )

    def path(self, absolute: str) -> Path:
        """Return where the test finds a file of this machine's."""
        return Path(f"/proc/{self.pid}/root{absolute}")

    def inside(self, work: Callable[[], T]) -> T:
        """Do something on this machine's network; a socket that is made so stays there."""
        return self._threads.submit(work).result(PATIENCE_SECONDS * 2)

    def connect(
        self, host: str, port: int, *, source: str = "", seconds: float = PATIENCE_SECONDS
    ) -> FarConnection:
        """Connect from here. Raises OSError."""
        where = partial(socket.create_connection, (host, port), seconds, (source, 0) if source else None)
        return FarConnection(self.inside(where))

    def _enter(self) -> None:
        """Move this thread, and none but it, to the machine's network."""
        with Path(f"/proc/{self.pid}/ns/net").open("rb") as net:
            if _libc.setns(net.fileno(), _NEW_NET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter the network of {self.name}")


_ENDS_WITH_US: Final = ["setpriv", "--pdeathsig", "KILL", "--"]
_libc: Final = ctypes.CDLL(None, use_errno=True)


class HostNetwork:
    """A switch, and the machines on it. The switch itself has addresses: it stands for all others on the network."""

    def __init__(self, folder: Path) -> None:
        self.machines: dict[str, Host] = {}
        self._folder = folder
        self._ports: dict[str, str] = {}
        self._made = 0
        self.switch = Host("switch")

    def begin(self) -> None:
        # Without STP a port carries from its first moment on; snooping would keep IPv6 from finding its neighbours.
        self.switch.run("ip link add lan type bridge stp_state 0 mcast_snooping 0 && ip link set lan up")

    def add(self, name: str, *addresses: str) -> Host:
        """Put a new machine, with these addresses and an empty disk, on the switch."""
        machine = Host(name)
        self.machines[name] = machine
        self._made += 1
        port = self._ports[name] = f"port{self._made}"
        disk = self._folder / port
        disk.mkdir()
        machine.run(_OWN_FILES.format(folder=disk))
        self.switch.run(
            f"ip link add {port} type veth peer name eth0 netns {machine.pid} && ip link set {port} master lan up"
        )
        machine.run("".join(f"ip address add {one} dev eth0{_nodad(one)}\n" for one in addresses))
        machine.run("ip link set eth0 up")
        wait_until(lambda: "forwarding" in self.switch.run(f"bridge link show dev {port}"), f"{name} is on")
        machine.inside(_look_for_gateway)
        return machine

    def end(self) -> None:
        for machine in (*self.machines.values(), self.switch):
            machine.end()

    def destroy(self, machine: Host) -> None:
        """Let a machine and its disk be gone."""
        del self.machines[machine.name]
        self.unplug(machine)
        machine.end()

    # What can happen to a cable. -----------------------------------------------------------------------------

    def unplug(self, machine: Host) -> None:
        """Pull its cable: it sees no carrier any more."""
        self.switch.run(f"ip link set {self._ports[machine.name]} down")

    def plug(self, machine: Host) -> None:
        self.switch.run(f"ip link set {self._ports[machine.name]} up")

    def drop(self, machine: Host) -> None:
        """Let the switch lose all that comes from it or goes to it, and say nothing."""
        self.switch.run(f"bridge link set dev {self._ports[machine.name]} state 0")

    def carry(self, machine: Host) -> None:
        """Undo `drop`."""
        self.switch.run(f"bridge link set dev {self._ports[machine.name]} state 3")

    def listen_in(self) -> socket.socket:
        """Return a socket that gets a copy of every frame that comes to the switch."""
        return self.switch.inside(self._tap)

    @staticmethod
    def _tap() -> socket.socket:
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETHERNET))
        tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        return tap


def _look_for_gateway() -> None:
    """Do what any host does that installs something. Who asks by ARP tells all others its own MAC address, which they
    would otherwise believe to be that of its predecessor, for up to a minute.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.sendto(b"", _GATEWAY)


def _nodad(address: str) -> str:
    """IPv6 asks around for a second whether an address is taken, before it may be used."""
    return " nodad" if ":" in address else ""


def send_nothing_to(machine: Host, other: str) -> None:
    """Let what the machine sends to an address be lost, while it still hears from there: nobody has that MAC address."""
    machine.run(f"ip neigh replace {other} lladdr 02:00:00:00:00:99 nud permanent dev eth0")


def send_again_to(machine: Host, other: str) -> None:
    """Undo `send_nothing_to`."""
    machine.run(f"ip neigh del {other} dev eth0")


@contextlib.contextmanager
def network(folder: Path) -> Iterator[HostNetwork]:
    """Lend a network, whose machines have their disks on mounts below `folder`."""
    net = HostNetwork(folder)
    try:
        net.begin()
        yield net
    finally:
        net.end()


class FarConnection(Connection):
    """A client's connection from one machine of the network to another."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answers = self.socket.makefile("rb")


class HostServer(ServerProcess):
    """A server on a host, whose files lie where an installed one's do. Its clients and its operator are on that host."""

    def __init__(self, host: Host, server: herd_file.Server, command: Sequence[str]) -> None:
        self.host = host
        self.name = server.name
        self.neighbours = server.neighbours
        self.address = server.clients[0]
        self.client_port, self.admin_port = server.clients[0].port, server.admin[0].port
        self.log_file = host.path(f"/var/log/proxyherd/{self.name}.log")
        self.stderr_file = host.path(f"/var/log/proxyherd/{self.name}.stderr.log")
        self.process: subprocess.Popen[bytes] | None = None
        self._command = command

    def start(self) -> None:
        assert self.process is None or self.process.poll() is not None, f"{self.name} runs already"
        with self.stderr_file.open("ab") as stderr:
            self.process = subprocess.Popen(
                self.host.command(*self._command),
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                env={**ENVIRON, **self._folders()},
            )

    def _folders(self) -> dict[str, str]:
        """Return what systemd tells a service of StateDirectory= and LogsDirectory=."""
        return {"STATE_DIRECTORY": f"/var/lib/proxyherd/{self.name}", "LOGS_DIRECTORY": "/var/log/proxyherd"}

    def connect(self, *, receive_buffer: int = 0) -> Connection:
        return self.host.connect(self.address.host, self.address.port)

    def get(self, path: str) -> tuple[int, str]:
        return self.host.inside(partial(super().get, path))


def get(machine: Host, url: tuple[str, int], path: str, source: str) -> int:
    """Ask an admin port from elsewhere, by its address; return the status. Raises OSError."""

    def ask() -> Any:
        connection = HTTPConnection(*url, timeout=1, source_address=(source, 0))
        with contextlib.closing(connection):
            connection.request("GET", path)
            return connection.getresponse().status

    status: int = machine.inside(ask)
    return status


def families(host: Host, port: int) -> set[str]:
    """Return whether it is IPv4 (tcp) or IPv6 (tcp6) by which a host is connected with this port elsewhere."""
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{host.pid}/net/{family}").read_text().splitlines()[1:]:
            _, _, remote, state, *_ = line.split()
            if state == _ESTABLISHED and int(remote.rpartition(":")[2], 16) == port:
                found.add(family)
    return found


def environ_of_a_desk(folder: Path, hosts: dict[str, Host]) -> dict[str, str]:
    """Return the environment of somebody who administers the hosts from a folder.

    `scp` copies as cp does, since nobody needs an SSH server to know that: `root@ADDRESS:PATH` is a path of that
    host's own files.
    """
    cases = "\n".join(
        f"root@{address}:*) to=/proc/{host.pid}/root${{to#*:}} ;;" for address, host in hosts.items()
    )
    scp = folder / "bin/scp"
    scp.parent.mkdir(exist_ok=True)
    scp.write_text(f"""#!/bin/sh
for to; do :; done
case $to in
{cases}
*) echo "scp: no such host: $to" >&2; exit 1 ;;
esac
while [ $# -gt 1 ]; do
    case $1 in -*) ;; *) cp -p "$1" "$to" ;; esac || exit 1
    shift
done
""")
    scp.chmod(0o755)
    return {**os.environ, **ENVIRON, "PATH": f"{scp.parent}:{ENVIRON['PATH']}"}
