"""The herd under systemd, booted for real: installed as docs/operations.md says, and used as operators do.

One system for all tests, in their order; each leaves the herd whole, but for the last, which takes it away.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from booted import BootedMachine, booted, copy_checkout, remove_leftovers, system_python
from debian import environ_to_fetch, needs
from herd_process import now, read_rotated, wait_until
from reporting import ReportingClient

from proxyherd.config import herd_file

pytestmark = [
    needs(
        *("systemd-nspawn", "systemctl", "nsenter", "logrotate", "ps", "pkill", "python3:ensurepip"),
        root=True,
    ),
    pytest.mark.xdist_group("systemd"),
]

ROOT = Path(__file__).parents[2]
CHECKOUT = "/usr/src/proxyherd"
SERVERS = herd_file.load(ROOT / "deploy/herd.toml").servers
KEY = "AIzaSyTheKeyOfATestWhichNobodyHasEverHad0"
AT_ONCE_SECONDS = 20.0
"""On a busy machine, for what would else be tried for TimeoutStartSec=60; ending what ran takes up to 1.5 s of it."""

FAILURES = 50
ROTATIONS = 3


def documented_steps() -> list[list[str]]:
    """Return the lines of the blocks of steps in the page's section, in their order."""
    page = (ROOT / "docs/operations.md").read_text()
    section = page.partition("## Install on one host\n")[2].partition("\n## ")[0]
    return [
        block.splitlines() for block in re.findall(r"^```bash\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    ]


INSTALL, GIVE_KEY, UNINSTALL = documented_steps()


def follow(machine: BootedMachine, steps: list[str], stdin: str = "") -> None:
    """Run steps as they stand. Only what fetches packages has this system's network."""
    for step in steps:
        fetches = step.startswith("make install")
        machine.run(
            f"cd {CHECKOUT}; {step}",
            stdin=stdin,
            outside_network=fetches,
            environ=environ_to_fetch(),
            seconds=600,
        )


def files(machine: BootedMachine) -> set[str]:
    """Return the files that there are more, or other ones, than before, but for what the running system writes."""
    own = ("/var/log/journal/", "/var/lib/systemd/", "/run/", "/tmp/", "/root/")
    return {file for file in machine.changed() if not file.startswith(own)}


@pytest.fixture(scope="module")
def bare() -> Iterator[tuple[BootedMachine, set[str]]]:
    """A booted system with a checkout, and what files it had before anything was installed."""
    system_python()
    with booted() as machine:
        copy_checkout(machine.path(CHECKOUT))
        yield machine, files(machine)


@pytest.fixture(scope="module")
def machine(bare: tuple[BootedMachine, set[str]]) -> BootedMachine:
    """The same, with the herd installed and started, from a checkout whose own herd's file is another's from then on."""
    install, *rest = INSTALL
    follow(bare[0], [install])
    bare[0].path(f"{CHECKOUT}/deploy/herd.toml").write_text("this is not the herd that was installed\n")
    follow(bare[0], rest)
    return bare[0]


# --- what the tests do with the herd


def unit(name: str) -> str:
    return f"proxyherd@{name}.service"


def shown(machine: BootedMachine, name: str, what: str) -> str:
    return machine.run(f"systemctl show --value --property={what} {unit(name)}").stdout.strip()


def main_pid(machine: BootedMachine, name: str) -> int:
    return int(shown(machine, name, "MainPID"))


def states(machine: BootedMachine) -> dict[str, str]:
    units = " ".join(map(unit, SERVERS))
    done = machine.run(f"systemctl is-active {units}", check=False)
    return dict(zip(SERVERS, done.stdout.split(), strict=True))


def wait_until_whole(machine: BootedMachine) -> None:
    """Wait until the herd is whole; else fail with what systemd and the logs say about the servers."""
    done = machine.run("proxyherd status --wait 20", check=False)
    if done.returncode:
        told = machine.run("systemctl status --no-pager --lines=20 'proxyherd@*.service'", check=False).stdout
        told += machine.run("tail -vn 20 /var/log/proxyherd/*.log", check=False).stdout
        pytest.fail(f"the herd is not whole:\n{done.stdout}{done.stderr}{told}")


def ask(machine: BootedMachine, name: str, line: bytes) -> bytes:
    with machine.connect(SERVERS[name].clients[0].port) as connection:
        return connection.ask(line)


def hears(machine: BootedMachine, name: str, client: str) -> bytes:
    """Let a client report at a server; return the AT line that all are to know."""
    answer = ask(machine, name, b"IAMAT %b +34.068930-118.445127 %b" % (client.encode(), now()))
    assert answer.startswith(b"AT "), answer
    return answer


def knows(machine: BootedMachine, name: str, at_line: bytes) -> bool:
    answer = ask(machine, name, b"WHATSAT %b 0 0" % at_line.split()[3])
    return answer.startswith(at_line)


def log(machine: BootedMachine, name: str) -> list[dict[str, Any]]:
    """Return the events of a server in all its files, the rotated and compressed ones too."""
    return read_rotated(machine.path(f"/var/log/proxyherd/{name}.log"))


@contextlib.contextmanager
def drop_in(machine: BootedMachine, name: str, *lines: str) -> Iterator[None]:
    """Let settings of a service hold for one server, which is started anew, or for all with ""."""
    folder = machine.path(f"/run/systemd/system/{unit(name)}.d")
    folder.mkdir(parents=True)
    (folder / "test.conf").write_text("\n".join(("[Service]", *lines, "")))
    machine.run("systemctl daemon-reload")
    try:
        yield
    finally:
        shutil.rmtree(folder)
        machine.run("systemctl daemon-reload")


# --- start and stop


def test_documented_steps_bring_up_all_servers(machine: BootedMachine) -> None:
    assert set(states(machine).values()) == {"active"}
    for name in SERVERS:
        assert (shown(machine, name, "NRestarts"), shown(machine, name, "Result")) == ("0", "success")
        assert [event for event in log(machine, name) if event["level"] in {"error", "critical"}] == []
    assert "proxyherd" not in machine.run("systemctl list-units --failed --plain --no-legend").stdout


def test_running_server_shows_in_proc_which_version_it_runs(machine: BootedMachine) -> None:
    """By which `make install` knows which ones to leave, whatever the sandbox does to paths."""
    [version] = machine.run("echo /usr/local/lib/proxyherd/*").stdout.split()
    for name in SERVERS:
        machine.run(f"grep -qF {version}/ /proc/{main_pid(machine, name)}/maps")


def test_target_stops_and_starts_all_and_one_starts_alone(machine: BootedMachine) -> None:
    machine.run("systemctl stop proxyherd.target")  # which does not wait for them
    wait_until(lambda: set(states(machine).values()) == {"inactive"}, "all have stopped")
    machine.run("systemctl start proxyherd@Clark")
    assert states(machine) == {name: "active" if name == "Clark" else "inactive" for name in SERVERS}
    assert hears(machine, "Clark", "alone")  # active means that it serves
    machine.run("systemctl stop proxyherd.target")
    wait_until(lambda: states(machine)["Clark"] == "inactive", "what was started by its name has stopped too")
    machine.run("systemctl start proxyherd.target")
    assert set(states(machine).values()) == {"active"}
    wait_until_whole(machine)


def test_after_a_reboot_the_herd_is_up_and_knows_what_it_knew(machine: BootedMachine) -> None:
    at_line = hears(machine, "Bailey", "before-the-reboot")
    machine.reboot()
    assert set(states(machine).values()) == {"active"}
    assert all(knows(machine, name, at_line) for name in SERVERS)
    wait_until_whole(machine)


def test_reload_opens_the_log_again(machine: BootedMachine) -> None:
    file = machine.path("/var/log/proxyherd/Clark.log")
    machine.run("mv /var/log/proxyherd/Clark.log /var/log/proxyherd/Clark.log.moved")
    pid = main_pid(machine, "Clark")
    machine.run("systemctl reload proxyherd@Clark")
    wait_until(file.exists, "the log is there again")
    hears(machine, "Clark", "after-the-reload")
    wait_until(lambda: "after-the-reload" in file.read_text(), "what comes is in the new file")
    assert main_pid(machine, "Clark") == pid


def test_restarted_server_catches_up_with_what_came_meanwhile(machine: BootedMachine) -> None:
    at_lines: list[bytes] = []
    with ThreadPoolExecutor(1) as pool:
        restart = pool.submit(machine.run, "systemctl restart proxyherd@Clark")
        while not restart.done():
            at_lines.append(hears(machine, "Bailey", f"meanwhile-{len(at_lines)}"))
        restart.result()
    assert len(at_lines) > 10
    for at_line in at_lines:
        wait_until(lambda at_line=at_line: knows(machine, "Clark", at_line), f"Clark knows {at_line!r}")  # type: ignore[misc]
    wait_until_whole(machine)


# --- what goes wrong


def test_killed_server_is_started_again_and_knows_what_it_answered(machine: BootedMachine) -> None:
    at_line = hears(machine, "Clark", "before-the-kill")
    pid = main_pid(machine, "Clark")
    before = len(log(machine, "Clark"))
    machine.run("systemctl kill --signal=KILL proxyherd@Clark")
    wait_until(lambda: main_pid(machine, "Clark") not in {0, pid}, "systemd starts it again")
    wait_until_whole(machine)
    assert knows(machine, "Clark", at_line)
    events = [event["event"] for event in log(machine, "Clark")[before:]]
    assert "replayed" in events
    assert "journal_lacks" not in events  # the machine was not started again, so its queries need not wait


def test_server_that_hangs_is_ended_by_the_watchdog_and_started_again(machine: BootedMachine) -> None:
    assert shown(machine, "Clark", "WatchdogUSec") == "10s"
    at_line = hears(machine, "Clark", "before-the-hang")
    with drop_in(machine, "Clark", "WatchdogSec=2"):
        machine.run("systemctl restart proxyherd@Clark")
        pid = main_pid(machine, "Clark")
        machine.run("systemctl kill --signal=STOP proxyherd@Clark")
        wait_until(lambda: main_pid(machine, "Clark") not in {0, pid}, "systemd starts it again")
        wait_until(lambda: states(machine)["Clark"] == "active", "it is ready again")
        assert knows(machine, "Clark", at_line)
    assert "Watchdog timeout" in machine.run("journalctl -u proxyherd@Clark").stdout
    machine.run("systemctl restart proxyherd@Clark")
    wait_until_whole(machine)


def test_mistake_in_the_configuration_fails_at_once_says_why_and_is_not_repeated(
    machine: BootedMachine,
) -> None:
    file = machine.path("/etc/proxyherd/herd.toml")
    good = file.read_text()
    file.write_text(good + "\n[timing]\nheartbeat = 1\n")
    try:
        done = machine.run("systemctl restart proxyherd@Clark", check=False, seconds=AT_ONCE_SECONDS)
        assert done.returncode != 0
        assert (shown(machine, "Clark", "ActiveState"), shown(machine, "Clark", "ExecMainStatus")) == (
            "failed",
            "2",
        )
        journal = machine.run("journalctl -u proxyherd@Clark -n 20 -o cat").stdout
        assert re.search(r"/etc/proxyherd/herd\.toml: .*timing.*heartbeat", journal), journal
    finally:
        file.write_text(good)
    with pytest.raises(AssertionError, match="not within 1 s"):  # five times what systemd waits
        wait_until(lambda: shown(machine, "Clark", "ActiveState") != "failed", "it is started again", 1)
    assert shown(machine, "Clark", "NRestarts") == "0"
    machine.run("systemctl start proxyherd@Clark")
    wait_until_whole(machine)


def test_server_whose_state_another_process_holds_starts_when_that_ends(machine: BootedMachine) -> None:
    machine.run("systemctl stop proxyherd@Clark")
    held = "/var/lib/proxyherd/Clark/lock"
    machine.run(
        f"flock {held} sleep 1000 >/dev/null 2>&1 & echo $! >/root/holder; until ! flock -n {held} true; do :; done"
    )
    machine.run("systemctl start proxyherd@Clark", check=False)
    wait_until(lambda: int(shown(machine, "Clark", "NRestarts")) >= 2, "it is tried again and again")
    assert "is in use by process" in machine.run("journalctl -u proxyherd@Clark -n 20 -o cat").stdout
    machine.run("pkill -P $(cat /root/holder)")
    wait_until(lambda: states(machine)["Clark"] == "active", "it is up")
    wait_until_whole(machine)


def test_many_quick_failures_do_not_leave_a_server_down_for_good(machine: BootedMachine) -> None:
    """Failures of a program that fails before each start, sooner than the server could, and without a pause
    between: the limit on starts, which would end this, counts starts whatever they fail by. One server stands for
    all, whose unit is the same; systemd says that no number of failures is too many.
    """
    assert shown(machine, "Clark", "StartLimitIntervalUSec") == "0"
    with drop_in(machine, "Clark", "ExecStartPre=+/bin/false", "RestartSec=0"):
        count = f"systemctl show --value --property=NRestarts {unit('Clark')}"
        given_up = f"systemctl is-failed --quiet {unit('Clark')}"
        machine.run(f"systemctl --no-block restart {unit('Clark')}")
        machine.run(f"until [ $({count}) -ge {FAILURES} ]; do ! {given_up} || exit 1; sleep 0.5; done")
    wait_until_whole(machine)


# --- what is written, and what may be


def test_key_is_a_credential_and_in_no_environment_and_no_secret_is_in_a_log(machine: BootedMachine) -> None:
    follow(machine, GIVE_KEY, stdin=KEY + "\n")
    pid = main_pid(machine, "Clark")
    credentials = "/run/credentials/proxyherd@Clark.service"
    found = machine.run(f"nsenter -t {pid} -m cat {credentials}/google-places-api-key").stdout
    assert found == KEY + "\n"
    wait_until_whole(machine)
    at_line = hears(machine, "Clark", "near-what")
    ask(machine, "Clark", b"WHATSAT near-what 10 5")  # Google is not reached
    calls = wait_until(
        lambda: [event for event in log(machine, "Clark") if event["event"] == "places"], "a call of Google"
    )
    assert {call["provider"] for call in calls} <= {"google", "google-new"}, calls
    assert knows(machine, "Clark", at_line)

    secret = machine.path("/etc/proxyherd/secret").read_bytes()
    hidden = [KEY.encode(), secret, secret.hex().encode(), base64.b64encode(secret)]
    places = {
        "its environment": machine.run(f"cat /proc/{pid}/environ").stdout.encode(),
        "systemctl show": machine.run(
            "systemctl show proxyherd@Clark; systemctl cat proxyherd@Clark"
        ).stdout.encode(),
        "processes": machine.run("ps axwwe").stdout.encode(),
        "the journal": machine.run("journalctl -a -o export").stdout.encode(),
        "the logs": json.dumps([log(machine, name) for name in SERVERS]).encode(),
    }
    for place, data in places.items():
        assert data
        assert not [one for one in hidden if one in data], place

    machine.run(
        "rm /etc/proxyherd/google-places-api-key; cp -p /etc/proxyherd/secret /etc/proxyherd/secret.table"
    )
    machine.run("systemctl restart 'proxyherd@*.service'")
    inside = f"nsenter -t {main_pid(machine, 'Clark')} -m sh -c"
    absent = ("google-places-api-key", "secret.next", "secret.old")
    assert machine.run(f"{inside} 'cd {credentials} && cat {' '.join(absent)}'").stdout == "\n" * len(absent)
    machine.run(f"{inside} 'cmp {credentials}/secret {credentials}/secret.table'")
    wait_until_whole(machine)
    machine.run("rm /etc/proxyherd/secret.table")


def test_files_are_for_those_whom_they_concern(machine: BootedMachine) -> None:
    names = ["/etc/proxyherd/secret", "/etc/proxyherd/herd.toml", "/var/log/proxyherd"]
    names += ["/var/log/proxyherd/Clark.log", "/var/lib/proxyherd", "/var/lib/proxyherd/Clark"]
    names += ["/usr/local/bin/proxyherd"]
    found = machine.run(f"stat -c '%n %U:%G %a' {' '.join(names)}").stdout.splitlines()
    assert found == [
        "/etc/proxyherd/secret root:root 600",
        "/etc/proxyherd/herd.toml root:root 644",
        "/var/log/proxyherd proxyherd:proxyherd 750",
        "/var/log/proxyherd/Clark.log proxyherd:proxyherd 640",
        "/var/lib/proxyherd proxyherd:proxyherd 750",
        "/var/lib/proxyherd/Clark proxyherd:proxyherd 700",
        "/usr/local/bin/proxyherd root:root 755",
    ]
    assert machine.run("find /usr/local/lib/proxyherd -perm /022 ! -type l").stdout == ""


def test_secret_that_came_readable_is_closed_at_boot(machine: BootedMachine) -> None:
    machine.run(
        "chmod 644 /etc/proxyherd/secret; touch /etc/proxyherd/secret.next; systemd-tmpfiles --create"
    )
    found = machine.run(
        "stat -c '%U %a' /etc/proxyherd/secret /etc/proxyherd/secret.next; rm /etc/proxyherd/secret.next"
    )
    assert found.stdout.splitlines() == ["root 600"] * 2


def test_server_can_write_its_own_directories_only(machine: BootedMachine) -> None:
    """Root itself, in the namespaces of the service, cannot do more than the sandbox lets anybody do."""
    tried = [
        "/etc",
        "/usr/local/lib/proxyherd",
        "/var/lib",
        "/var/lib/proxyherd",
        "/var/lib/proxyherd/Bailey",
    ]
    tried += ["/var/log", "/root", "/home", "/var/lib/proxyherd/Clark", "/var/log/proxyherd"]
    script = f"for folder in {' '.join(tried)}; do touch $folder/x 2>/dev/null && rm $folder/x && echo $folder; done; true"
    pid = main_pid(machine, "Clark")
    written = machine.run(f"nsenter -t {pid} -m sh -c '{script}'").stdout.split()
    assert written == ["/var/lib/proxyherd/Clark", "/var/log/proxyherd"]


def test_installed_units_are_what_systemd_understands_and_hardened(machine: BootedMachine) -> None:
    done = machine.run(
        "systemd-analyze verify proxyherd@Clark.service proxyherd.target proxyherd-gazetteer.service"
    )
    ours = [line for line in done.stderr.splitlines() if "proxyherd" in line]
    assert ours == []
    for name in ("proxyherd@Clark.service", "proxyherd-gazetteer.service"):
        machine.run(f"systemd-analyze security --no-pager --threshold=15 {name}")


# --- logrotate


def load_on(machine: BootedMachine, name: str) -> ReportingClient:
    def batch(sent: int) -> list[bytes]:
        return [b"IAMAT load-%b-%d +1.0-2.0 %b" % (name.encode(), sent + n, now()) for n in range(50)]

    return ReportingClient(machine.connect(SERVERS[name].clients[0].port), batch, pause_seconds=0.01)


def rotation_is_over(loads: list[ReportingClient], goals: list[int], named: int) -> bool:
    loaded = all(len(load.sent) >= goal for load, goal in zip(loads, goals, strict=True))
    return loaded and time.time() >= named + 1


def test_logrotate_under_load_loses_and_doubles_no_line(machine: BootedMachine) -> None:
    """Clark's own rotation, by size, goes on at the same time; a server that is down makes no failure of it."""
    serve = "/usr/local/bin/proxyherd serve %i --config /etc/proxyherd/herd.toml --log-max-bytes 100000 --log-backups 9999"
    with drop_in(machine, "Clark", "ExecStart=", f"ExecStart={serve}"):
        machine.run("systemctl restart proxyherd@Clark; systemctl stop proxyherd@Jaquez")
        loads = [load_on(machine, name) for name in ("Bailey", "Clark")]
        with loads[0], loads[1]:
            for _ in range(ROTATIONS):
                goals = [len(load.sent) + 1_000 for load in loads]
                machine.run("logrotate --force --state /root/logrotate.state /etc/logrotate.d/proxyherd")
                named = int(time.time())  # archives are named after a second that is not later
                wait_until(partial(rotation_is_over, loads, goals, named), "a second, and a load")
        machine.run("systemctl start proxyherd@Jaquez")
    for load, name in zip(loads, ("Bailey", "Clark"), strict=True):
        logged = [event["command"] for event in log(machine, name) if event["event"] == "command"]
        ours = Counter(command for command in logged if command.startswith("IAMAT load-"))
        assert len(load.sent) > 1000
        assert ours == Counter(map(bytes.decode, load.sent))
    archives = sorted(file.name for file in machine.path("/var/log/proxyherd").glob("Bailey.log-*"))
    assert [name.endswith(".gz") for name in archives] == [True] * (ROTATIONS - 1) + [False]
    assert (
        len(list(machine.path("/var/log/proxyherd").glob("Clark.log.[0-9]*"))) > 1
    )  # it had its own rotations
    modes = machine.run("stat -c '%U %a' /var/log/proxyherd/Bailey.log-*").stdout.splitlines()
    assert set(modes) == {"proxyherd 640"}
    machine.run("systemctl restart proxyherd@Clark")
    wait_until_whole(machine)


# --- taking it away


def test_uninstall_refuses_while_servers_run_then_leaves_data_and_nothing_else(
    machine: BootedMachine, bare: tuple[BootedMachine, set[str]]
) -> None:
    stop, *rest = UNINSTALL
    refused = machine.run(f"cd {CHECKOUT}; {rest[-1]}", check=False)
    assert refused.returncode != 0
    assert "proxyherd@Clark.service" in refused.stderr
    assert "systemctl stop 'proxyherd@*.service'" in refused.stderr
    assert set(states(machine).values()) == {"active"}

    data = ("/etc/proxyherd/", "/var/lib/proxyherd/", "/var/log/proxyherd/")
    kept = {
        file
        for file in files(machine)
        if file.startswith(data) and not file.endswith(("/lock", "-wal", "-shm"))
    }
    follow(machine, [stop, *rest])
    after = files(machine)
    assert kept <= after
    accounts = {f"/etc/{name}{end}" for name in ("passwd", "group", "shadow", "gshadow") for end in ("-", "")}
    left = {file for file in after - bare[1] - accounts if not file.startswith(data)}
    assert left == set()
    assert "proxyherd" in machine.run("getent passwd proxyherd").stdout
    assert "proxyherd" not in machine.run("systemctl list-unit-files --no-pager").stdout


# --- the harness


def test_nothing_outlives_a_killed_test() -> None:
    script = "import booted, time\nwith booted.booted() as machine: print(machine._init, flush=True); time.sleep(1000)"
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT / "tests/support", stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        init = psutil.Process(int(process.stdout.readline()))
        within = [init, *init.children(recursive=True), *init.parents()[:3]]
        assert "systemd-journald" in {one.name() for one in within}
        process.send_signal(signal.SIGKILL)
        process.wait()
        _, alive = psutil.wait_procs([one for one in within if one.pid != os.getpid()], timeout=10)
        assert alive == []
    finally:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()
        remove_leftovers()
