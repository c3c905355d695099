"""A herd on three hosts, set up by the steps of docs/operations.md word for word, and what networks do to it.

The hosts are network namespaces (hosts.py). What stands in for something else: `scp` is `cp` from host to host; of
the installation, which test_systemd.py follows, only the folders and the user are made; and what `systemctl enable`
names is started by the command of the unit, as root, since the tests' Python may lie where no other user can read.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path

import msgspec
import pytest
from asked import ask_once
from certificates import MAKE_AUTHORITY, MAKE_CERTIFICATES, issue
from debian import needs
from herd_process import ROOT, now, short_folder, wait_until
from hosts import (
    Host,
    HostNetwork,
    HostServer,
    environ_of_a_desk,
    families,
    get,
    network,
    send_again_to,
    send_nothing_to,
)

from proxyherd.config import herd_file
from proxyherd.config.errors import ConfigError

pytestmark = [
    needs("ip", "nft", "nsenter", "openssl", "systemctl", root=True),
    pytest.mark.xdist_group("several hosts"),
]

EXAMPLE = ROOT / "deploy/examples/three-hosts.toml"
[SECTION] = re.findall(
    r"^## Several hosts\n(.*?)^## ", (ROOT / "docs/operations.md").read_text(), re.DOTALL | re.MULTILINE
)
MAKE_FOLDER, PREPARE, CHECK, SEND, ADMIT, START, SEE = re.findall(
    r"^```sh\n(.*?)^```", SECTION, re.DOTALL | re.MULTILINE
)
ADDRESSES = {
    name: (v4, v6)
    for name, v4, v6 in re.findall(r"^\| (\w+) \| ([\d.]+), ([\w:]+) \|", SECTION, re.MULTILINE)
}
STARTED = {
    host: re.findall(r"proxyherd@(\w+)", command)
    for host, command in re.findall(r"^# (\w+)\nsystemctl enable --now (.*)$", START, re.MULTILINE)
}
[COMMAND] = re.findall(
    r"^ExecStart=\S+ (serve %i .*)$", (ROOT / "systemd/proxyherd@.service").read_text(), re.MULTILINE
)
PROMETHEUS, ANYBODY = "192.0.2.9", "192.0.2.200"
BOTH_WAYS_SECONDS, ONE_WAY_SECONDS, AGREED_SECONDS = 2.0, 3.0, 5.0
"""What the page says: until both ends know that a link is dead, by how it fails, and until all agree again."""

GRACE_SECONDS = 5.0
"""For a busy machine, and for the test's own asking. TCP alone would notice after a quarter of an hour."""


class Hosts:
    """Three hosts, the desk from which they are administered, and the servers that run on them."""

    def __init__(self, net: HostNetwork, desk: Path) -> None:
        self.net = net
        self.desk = desk
        self.herd = herd_file.load(EXAMPLE)
        self.servers: dict[str, HostServer] = {}
        net.switch.run(f"ip address add {PROMETHEUS}/24 dev lan; ip address add {ANYBODY}/24 dev lan")

    def __getitem__(self, name: str) -> HostServer:
        return self.servers[name]

    # The steps. -----------------------------------------------------------------------------------------------

    def install(self, name: str) -> None:
        """Add a host with what an installation makes, up to the step that sends it its files."""
        v4, v6 = ADDRESSES[name]
        host = self.net.add(name, f"{v4}/24", f"{v6}/64")
        host.run(f"systemd-sysusers {ROOT}/deploy/systemd/sysusers.conf")
        host.run(MAKE_FOLDER)

    def prepare(self) -> None:
        for folder in ("deploy", ".venv"):
            (self.desk / folder).symlink_to(ROOT / folder)
        for step in (PREPARE, CHECK, MAKE_AUTHORITY, MAKE_CERTIFICATES):
            self.at_desk(step)

    def send(self, *hosts: str) -> None:
        """Send these hosts their files, and let them take them into use."""
        function = SEND[: SEND.index("send 1")]
        for host in hosts:
            [line] = re.findall(rf"^send {re.escape(ADDRESSES[host][0])} .*$", SEND, re.MULTILINE)
            self.at_desk(f"{function}{line}\n")
            self.net.machines[host].run(ADMIT)

    def start(self, *hosts: str) -> None:
        for host in hosts:
            for name in STARTED[host]:
                words = COMMAND.replace("%i", name).split()
                command = ["proxyherd", *words, "--secret-file", "/etc/proxyherd/secret"]
                self.servers[name] = HostServer(self.net.machines[host], self.herd.servers[name], command)
                self.servers[name].start()

    def at_desk(self, commands: str) -> None:
        machines = {ADDRESSES[name][0]: machine for name, machine in self.net.machines.items()}
        done = subprocess.run(
            ["sh", "-e", "-c", commands],
            cwd=self.desk,
            env=environ_of_a_desk(self.desk, machines),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    # What all see. --------------------------------------------------------------------------------------------

    def wait_until_whole(self) -> None:
        for server in self.servers.values():
            server.wait_until_ready()
            server.wait_until_linked()

    def wait_until_all_know(self, *at_lines: bytes) -> None:
        deadline = time.monotonic() + AGREED_SECONDS + GRACE_SECONDS
        for at_line in at_lines:
            for name, server in self.servers.items():
                knows = partial(self._knows, server, at_line)
                wait_until(knows, f"{name} knows {at_line!r}", deadline - time.monotonic())

    @staticmethod
    def _knows(server: HostServer, at_line: bytes) -> bool:
        return server.knows(at_line.split()[3]) == at_line

    def kill(self, host: str) -> None:
        for name in STARTED[host]:
            self.servers.pop(name).kill()

    def end(self) -> None:
        for server in self.servers.values():
            if server.process is not None and server.process.poll() is None:
                server.kill()


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """All steps of the page, done."""
    with short_folder() as folder, short_folder() as desk, network(folder) as net:
        hosts = Hosts(net, desk)
        try:
            for name in ADDRESSES:
                hosts.install(name)
            hosts.prepare()
            hosts.send(*ADDRESSES)
            hosts.start(*ADDRESSES)
            yield hosts
        finally:
            hosts.end()


@pytest.fixture
def whole(hosts: Hosts) -> Hosts:
    """The herd, whole; each test leaves the network as it was."""
    hosts.wait_until_whole()
    return hosts


def events_since(server: HostServer, moment: float, event: str, **fields: str) -> list[tuple[float, str]]:
    """Return when, in seconds after `moment`, such events were logged, and their reasons."""
    found = []
    for one in server.events(event, **fields):
        after = datetime.fromisoformat(one["timestamp"]).timestamp() - moment
        if after >= 0:
            found.append((after, one.get("reason", "")))
    return found


def cut_off(hosts: Hosts, *names: str) -> list[tuple[str, str]]:
    """Return both directions of each link from one of these servers to another."""
    links = [(name, other) for name in names for other in hosts[name].neighbours if other not in names]
    return links + [(other, name) for name, other in links]


# The steps. ----------------------------------------------------------------------------------------------------


def test_after_the_steps_every_host_sees_the_whole_herd_up_ready_and_linked(whole: Hosts) -> None:
    for name in ADDRESSES:
        table = whole.net.machines[name].run(SEE)
        assert [row.split()[0] for row in table.splitlines()[1:]] == list(whole.herd.servers)
        assert table.count("ready") == len(whole.herd.servers)


def test_the_page_and_its_example_have_the_same_hosts_and_servers() -> None:
    herd = herd_file.load(EXAMPLE)
    told = {
        server: (v4, v6)
        for v4, v6, servers in re.findall(
            r"^\| \w+ \| ([\d.]+), ([\w:]+) \| ([\w, ]+) \|", SECTION, re.MULTILINE
        )
        for server in servers.split(", ")
    }
    assert (
        sorted(told) == sorted(herd.servers) == sorted(name for names in STARTED.values() for name in names)
    )
    for server in herd.servers.values():
        for address in (*server.clients, *server.peers, *server.admin[1:]):
            assert address.host in told[server.name]
        assert server.admin[0].is_loopback
    for host, servers in STARTED.items():
        assert {told[server] for server in servers} == {ADDRESSES[host]}


@pytest.mark.parametrize("lost", [*STARTED, *herd_file.load(EXAMPLE).servers])
def test_the_example_stays_in_one_piece_without_any_one_host_or_server(lost: str) -> None:
    gone = STARTED.get(lost, [lost])
    herd = herd_file.load(EXAMPLE)
    left = {
        name: msgspec.structs.replace(one, neighbours=tuple(n for n in one.neighbours if n not in gone))
        for name, one in herd.servers.items()
        if name not in gone
    }
    assert len(msgspec.structs.replace(herd, servers=left).islands()) == 1


def test_a_host_has_only_its_own_keys_and_only_its_servers_user_may_read_them(whole: Hosts) -> None:
    for name, servers in STARTED.items():
        host = whole.net.machines[name]
        keys = [path.name for path in host.path("/etc/proxyherd/tls").iterdir()]
        pairs = [f"{server}.{kind}" for server in servers for kind in ("key", "pem")]
        assert sorted(keys) == sorted(["authority.pem", *pairs])

        def readable(user: str, file: str, host: Host = host) -> bool:
            words = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
            return host.tries(*words, "cat", f"/etc/proxyherd/{file}").returncode == 0

        for file in ("herd.toml", *(f"tls/{key}" for key in keys)):
            assert readable("proxyherd", file), file
            assert not readable("nobody", file), file
        assert not readable("proxyherd", "secret")  # a credential of the unit's


def test_the_firewall_leaves_peer_and_admin_ports_to_those_who_need_them(whole: Hosts) -> None:
    outside = whole.net.switch

    for source in (ANYBODY, PROMETHEUS):
        outside.connect("192.0.2.1", 10000, source=source).close()
    for source, port in ((ANYBODY, 10100), (ANYBODY, 10200), (PROMETHEUS, 10100)):
        with pytest.raises(TimeoutError):
            outside.connect("192.0.2.1", port, source=source, seconds=0.5)
    assert get(outside, ("192.0.2.1", 10200), "/metrics", PROMETHEUS) == 200
    assert get(whole.net.machines["west"], ("192.0.2.1", 10200), "/readyz", "192.0.2.3") == 200


def other_secret(desk: Path) -> None:
    (desk / "var/secret").write_bytes(os.urandom(32))


def from_tomorrow_on(desk: Path) -> None:
    """Sign a certificate that a host whose clock is a day behind sees as Jaquez's."""
    days = (time.strftime("%Y%m%d", time.gmtime(time.time() + days * 86_400)) for days in (1.5, 30))
    begin, end = days
    issue(desk, "Jaquez", validity=(begin, end))


def says(server: HostServer, moment: float, why: str) -> bool:
    told = [
        reason
        for event in ("peer_refused", "peer_unreachable")
        for _, reason in events_since(server, moment, event)
    ]
    return any(re.search(why, reason) for reason in told)


@pytest.mark.parametrize(
    ("spoil", "theirs", "own"),
    [
        (
            other_secret,
            r"refused by the other: \w+ does not prove the herd's secret; has it another secret file\?",
            r"(Bona|Campbell|Clark) does not prove the herd's secret; has it another secret file\?",
        ),
        (
            from_tomorrow_on,
            r"certificate is not accepted: certificate is not yet valid; compare its dates with this host's clock",
            "refused by the other: bad certificate|see its log",
        ),
    ],
)
def test_a_host_that_was_set_up_wrongly_and_its_neighbours_say_who_why_and_what_to_look_at(
    whole: Hosts, spoil: Callable[[Path], None], theirs: str, own: str
) -> None:
    good = whole.desk / "good"
    shutil.copytree(whole.desk / "var", good)
    jaquez = whole["Jaquez"]
    try:
        spoil(whole.desk)
        whole.send("west")
        jaquez.stop()
        moment = time.time()
        jaquez.start()

        for name, why in (*((neighbour, theirs) for neighbour in jaquez.neighbours), ("Jaquez", own)):
            wait_until(partial(says, whole[name], moment, why), f"{name} says why there is no link")
    finally:
        shutil.copytree(good, whole.desk / "var", dirs_exist_ok=True)
        shutil.rmtree(good)
        whole.send("west")
        jaquez.kill()
        jaquez.start()
    whole.wait_until_whole()


# The wire. ------------------------------------------------------------------------------------------------------


def tcp_ports(frame: bytes) -> tuple[int, int] | None:
    """Return the ports of a TCP segment in an Ethernet frame."""
    kind = frame[12:14]
    if kind == b"\x08\x00" and frame[23] == socket.IPPROTO_TCP:
        at = 14 + 4 * (frame[14] & 15)
    elif kind == b"\x86\xdd" and frame[20] == socket.IPPROTO_TCP:
        at = 54
    else:
        return None
    source, target = struct.unpack_from("!HH", frame, at)
    return source, target


def test_locations_cross_the_network_between_hosts_only_in_cipher(whole: Hosts) -> None:
    client = b"whale.in.the.river"
    seen: list[bytes] = []
    with whole.net.listen_in() as tap, whole.net.switch.connect("192.0.2.1", 10000, source=ANYBODY) as phone:
        tap.setblocking(False)
        at_line = phone.ask(b"IAMAT %b +51.5-0.1 %b" % (client, now()))
        whole.wait_until_all_know(at_line)
        with contextlib.suppress(BlockingIOError):
            while True:
                seen.append(tap.recv(1 << 17))
    peers = {one.peers[0].port for one in whole.herd.servers.values()}
    by_port = [(ports, client in frame) for frame in seen if (ports := tcp_ports(frame))]
    assert any(clear for ports, clear in by_port if 10000 in ports), "the phone's own words are seen"
    between = [(ports, clear) for ports, clear in by_port if peers.intersection(ports)]
    assert {10102, 10103, 10104} <= {port for ports, _ in between for port in ports}
    assert not [ports for ports, clear in between if clear]


def test_a_neighbour_with_addresses_of_both_kinds_is_dialled_at_its_first_and_where_that_fails_at_the_next(
    whole: Hosts,
) -> None:
    south = whole.net.machines["south"]
    for name in STARTED["south"]:  # its links may come from when Jaquez was starting
        whole[name].stop()
        whole[name].start()
    whole.wait_until_whole()
    assert families(south, 10104) == {"tcp6"}
    moment = time.time()
    send_nothing_to(south, "2001:db8::3")
    try:
        for name in STARTED["south"]:
            linked = partial(events_since, whole[name], moment, "peer_opened", neighbour="Jaquez")
            wait_until(linked, f"{name} is linked again")
        assert families(south, 10104) == {"tcp"}
        whole.wait_until_all_know(whole["Campbell"].hears(b"kiwi"))
    finally:
        send_again_to(south, "2001:db8::3")


# The network fails. ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def unplugged(net: HostNetwork, host: Host) -> Iterator[None]:
    net.unplug(host)
    try:
        yield
    finally:
        net.plug(host)


@contextlib.contextmanager
def dropped(net: HostNetwork, host: Host) -> Iterator[None]:
    net.drop(host)
    try:
        yield
    finally:
        net.carry(host)


@contextlib.contextmanager
def deaf(net: HostNetwork, host: Host) -> Iterator[None]:
    """The others' packets to it are lost; they hear it."""
    ways = [
        (other, address)
        for other in net.machines.values()
        if other is not host
        for address in ADDRESSES[host.name]
    ]
    for other, address in ways:
        send_nothing_to(other, address)
    try:
        yield
    finally:
        for other, address in ways:
            send_again_to(other, address)


@contextlib.contextmanager
def mute(net: HostNetwork, host: Host) -> Iterator[None]:
    """What it sends is lost; it hears the others."""
    others = [address for name in net.machines if name != host.name for address in ADDRESSES[name]]
    for address in others:
        send_nothing_to(host, address)
    try:
        yield
    finally:
        for address in others:
            send_again_to(host, address)


@pytest.mark.parametrize(
    ("failing", "seconds"),
    [
        (unplugged, BOTH_WAYS_SECONDS),
        (dropped, BOTH_WAYS_SECONDS),
        (deaf, ONE_WAY_SECONDS),
        (mute, ONE_WAY_SECONDS),
    ],
)
def test_a_host_that_is_cut_off_is_noticed_on_both_sides_which_serve_on_and_agree_when_it_is_back(
    whole: Hosts,
    failing: Callable[[HostNetwork, Host], contextlib.AbstractContextManager[None]],
    seconds: float,
) -> None:
    links = cut_off(whole, "Jaquez")
    assert len(links) == 6
    before = whole["Jaquez"].hears(b"before.%b" % failing.__name__.encode())
    whole.wait_until_all_know(before)
    moment = time.time()
    with failing(whole.net, whole.net.machines["west"]):
        for one, other in links:
            closed = wait_until(
                partial(events_since, whole[one], moment, "peer_closed", neighbour=other),
                f"{one} has lost {other}",
            )
            assert closed[0][0] < seconds + GRACE_SECONDS, (one, other, closed)
        assert not whole["Jaquez"].links()
        apart = [whole[name].hears(b"apart.%b" % name.encode()) for name in ("Jaquez", "Bailey", "Clark")]
        for name in whole.servers:
            assert whole[name].knows(before.split()[3]) == before
        assert whole["Jaquez"].knows(b"apart.Bailey") != apart[1]
        assert whole["Clark"].knows(b"apart.Jaquez") != apart[0]
    whole.wait_until_all_know(*apart)
    whole.wait_until_whole()


def test_with_every_tenth_packet_lost_the_herd_serves_on_and_agrees_afterwards(whole: Hosts) -> None:
    lossy = """nft -f - <<'END'
    table inet lossy {
        chain input {
            type filter hook input priority -1;
            iif lo accept
            numgen random mod 10 == 0 counter drop
        }
    }
END"""
    west = whole.net.machines["west"]
    last: dict[bytes, bytes] = {}

    def lost() -> int:
        [packets] = re.findall(r"counter packets (\d+)", west.run("nft list table inet lossy"))
        return int(packets)

    def report_until_enough_is_lost() -> bool:
        for name in ("Jaquez", "Bona", "Clark"):
            for number in range(10):
                last[b"lossy.%d" % number] = whole[name].hears(b"lossy.%d" % number)
        return lost() > 100

    west.run(lossy)
    try:
        wait_until(report_until_enough_is_lost, "packets are lost")
    finally:
        west.run("nft delete table inet lossy")
    whole.wait_until_all_know(*last.values())
    whole.wait_until_whole()


# A host fails. --------------------------------------------------------------------------------------------------


def test_a_lost_host_is_replaced_by_one_with_an_empty_disk_which_catches_up_before_it_is_ready(
    whole: Hosts,
) -> None:
    lines = [whole["Clark"].hears(b"kept.%d" % number) for number in range(20)]
    whole.wait_until_all_know(*lines)
    whole.net.unplug(whole.net.machines["south"])  # so that nobody hears a last word
    whole.kill("south")
    whole.net.destroy(whole.net.machines["south"])
    lines.append(whole["Bailey"].hears(b"kept.0"))
    whole.install("south")
    whole.send("south")
    whole.start("south")
    for name in STARTED["south"]:
        whole[name].wait_until_ready()
        for line in lines[1:]:
            assert whole[name].knows(line.split()[3]) == line
    whole.wait_until_whole()
    whole.wait_until_all_know(whole["Clark"].hears(b"kiwi"))


# Names. ---------------------------------------------------------------------------------------------------------


def test_a_neighbour_whose_first_addresses_are_anothers_or_swallow_packets_is_dialled_at_its_others(
    whole: Hosts,
) -> None:
    north, south = whole.net.machines["north"], whole.net.machines["south"]
    pair = """
edges = [["Ann", "Bob"]]
[servers]
Ann = { clients = "192.0.2.1:11000", peers = "192.0.2.1:10180", admin = "127.0.0.1:11200" }
Bob = { clients = "192.0.2.2:11001", peers = "south.example:10181", admin = "127.0.0.1:11201" }
"""
    outdated = pair.replace('"south.example:10181"', '["192.0.2.3:10104", "south.example:10181"]')
    for host, text in ((north, outdated), (south, pair)):
        host.path("/etc/proxyherd/pair.toml").write_text(text)
        with host.path("/etc/hosts").open("a") as names:
            names.write("2001:db8::99 south.example\n192.0.2.2 south.example\n")
    send_nothing_to(north, "2001:db8::99")
    herd = herd_file.parse(pair, Path("pair.toml"))
    command = [
        "proxyherd",
        "serve",
        "--config=/etc/proxyherd/pair.toml",
        "--secret-file=/etc/proxyherd/secret",
    ]
    with contextlib.ExitStack() as stack:
        servers = [
            HostServer(host, herd.servers[name], [*command, name])
            for host, name in ((north, "Ann"), (south, "Bob"))
        ]
        for server in servers:
            server.start()
            stack.callback(server.kill)
        for server in servers:
            server.wait_until_ready()
            server.wait_until_linked()
        servers[1].wait_until_knows(servers[0].hears(b"kiwi"))
        assert families(north, 10181) == {"tcp"}


def test_a_client_is_told_of_by_the_next_address_where_the_first_swallows_packets(whole: Hosts) -> None:
    north, jaquez = whole.net.machines["north"], whole.herd.servers["Jaquez"]
    line = whole["Jaquez"].hears(b"kiwi")
    first, _ = (address.host for address in jaquez.clients)
    send_nothing_to(north, first)
    try:
        answer = north.inside(partial(ask_once, jaquez, b"WHATSAT kiwi 0 0", 2.0))
    finally:
        send_again_to(north, first)
    assert answer.startswith(line)


def test_an_ipv6_address_is_the_same_however_it_is_spelled() -> None:
    text = EXAMPLE.read_text()
    shouted = text.replace('"[2001:db8::3]:10104"', '"[2001:DB8:0::0003]:10104"')
    assert shouted != text
    assert herd_file.parse(shouted, EXAMPLE).servers == herd_file.parse(text, EXAMPLE).servers
    twice = shouted.replace('"[2001:db8::3]:10004"', '"[2001:db8::3]:10104"')
    with pytest.raises(ConfigError, match=r"both have \[2001:db8::3\]:10104"):
        herd_file.parse(twice, EXAMPLE)


# The hosts themselves. ------------------------------------------------------------------------------------------


def test_hosts_of_a_killed_test_are_gone_with_all_that_runs_there() -> None:
    script = """if True:
        import subprocess, sys, time
        from pathlib import Path
        from herd_process import wait_until
        from hosts import network
        with network(Path(sys.argv[1])) as net:
            host = net.add("north", "192.0.2.1/24")
            server = subprocess.Popen(host.command("sleep", "infinity"))
            comm = Path(f"/proc/{server.pid}/comm")
            wait_until(lambda: comm.read_text() == "sleep\\n", "it runs, and knows with whom it ends")
            print(net.switch.pid, host.pid, server.pid, flush=True)
            time.sleep(60)
    """
    with short_folder() as folder:
        killed = subprocess.Popen(
            [sys.executable, "-c", script, folder],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": f"{ROOT}/tests/support"},
        )
        with killed:
            assert killed.stdout is not None
            try:
                left = [Path("/proc", pid) for pid in killed.stdout.readline().decode().split()]
            finally:
                killed.kill()
        assert len(left) == 3
        wait_until(lambda: not any(map(is_running, left)), "nothing runs any more")
        assert str(folder) not in Path("/proc/self/mounts").read_text()


def is_running(process: Path) -> bool:
    """Return whether a process is there and no zombie, for which somebody else is to care."""
    try:
        return " Z " not in (process / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
