"""What skips a test, and what installs the tests' Debian packages.

The second on a real apt and dpkg, in an overlay of this system that is gone with the process that mounted it. The one
package there brings a program, and a service that Debian's own helper enables, and would start, as it does for every
daemon.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from debian import SYSTEM_PATH, needs, packages

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "support/install-debian-packages.sh"
pytestmark = [
    needs("unshare", "setpriv", "apt-get", "dpkg-deb", "deb-systemd-helper", "systemctl", root=True),
    pytest.mark.xdist_group("debian"),
]

MAKE_REPOSITORY = """
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
mount --rbind /dev /mnt/root/dev
mount -t proc proc /mnt/root/proc
cp "$1" /mnt/root/install.sh
rm -f /mnt/root/usr/sbin/policy-rc.d
cat >/mnt/root/script <<'END'
umask 022
cd /
mkdir -p repository deb/DEBIAN deb/usr/bin deb/lib/systemd/system
printf 'Package: herd-daemon\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@example.org>\\nDescription: x\\n' >deb/DEBIAN/control
printf '#!/bin/sh\\n' >deb/usr/bin/herd-daemon
printf '[Service]\\nExecStart=/usr/bin/herd-daemon\\n[Install]\\nWantedBy=multi-user.target\\n' \
    >deb/lib/systemd/system/herd-daemon.service
printf '#!/bin/sh\\ndeb-systemd-helper enable herd-daemon.service\\n/usr/sbin/policy-rc.d; echo $? >>/allowed\\nsleep ${PAUSE:-0}\\n' \
    >deb/DEBIAN/postinst
chmod 755 deb/DEBIAN/postinst deb/usr/bin/herd-daemon
dpkg-deb --build deb repository/x.deb >/dev/null
{ cat deb/DEBIAN/control; echo "Filename: ./x.deb"; echo "Size: $(stat -c %s repository/x.deb)"
    echo "SHA256: $(sha256sum repository/x.deb | cut -d' ' -f1)"; } >repository/Packages
rm -rf etc/apt/sources.list etc/apt/sources.list.d/* deb
echo 'deb [trusted=yes] file:/repository ./' >etc/apt/sources.list
echo 'herd-daemon  herd-daemon  # a comment' >debian-packages.txt
enabled() { systemctl is-enabled herd-daemon.service || true; }
END
printf '%s\\n' "$2" >>/mnt/root/script
exec chroot /mnt/root sh -eu /script
"""


def on_an_overlay(commands: str) -> list[str]:
    """Run commands of a shell where herd-daemon may be installed; return the lines that they print."""
    away = ("unshare", "--mount", "--propagation=private", "--net", "--pid", "--fork", "--kill-child")
    done = subprocess.run(
        ["setpriv", "--pdeathsig=KILL", *away, "sh", "-euc", MAKE_REPOSITORY, "sh", SCRIPT, commands],
        env={"PATH": SYSTEM_PATH, "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


def test_what_is_installed_is_started_neither_now_nor_at_a_boot_and_nothing_is_left() -> None:
    said = on_an_overlay(
        "/install.sh; cat /allowed; enabled; ls /usr/sbin/policy-rc.d 2>&1 || true; /install.sh"
    )
    assert said == [
        "Installing herd-daemon ",
        "101",
        "disabled",
        "ls: cannot access '/usr/sbin/policy-rc.d': No such file or directory",
    ]


def test_two_at_once_install_once() -> None:
    said = on_an_overlay("PAUSE=1 /install.sh & PAUSE=1 /install.sh; wait; cat /allowed; enabled")
    assert said == ["Installing herd-daemon ", "101", "disabled"]


def test_what_a_killed_run_left_is_taken_away_by_the_next_and_what_an_administrator_wrote_is_not() -> None:
    killed = "PAUSE=0.5 /install.sh & until [ -s /allowed ]; do sleep 0.01; done; kill -9 $!; wait $! || true; enabled"
    own = "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d; dpkg --purge herd-daemon >/dev/null; /install.sh"
    there = "ls /usr/sbin/policy-rc.d 2>/dev/null || echo gone"
    said = on_an_overlay(f"{killed}; {there}; /install.sh; enabled; {there}; {own}; enabled; {there}")
    left, mended, after = said[:4], said[3:5], said[5:]
    assert left[:3] == ["Installing herd-daemon ", "enabled", "/usr/sbin/policy-rc.d"]
    assert mended == ["disabled", "gone"]
    assert after == ["Installing herd-daemon ", "disabled", "/usr/sbin/policy-rc.d"]


def reason(call: str, *before: str) -> str:
    """Return why a test with this mark is skipped, in a process that is started by this command."""
    script = f"from debian import needs; print(needs({call}).kwargs['reason'])"
    words = [*before, sys.executable, "-c", script]
    done = subprocess.run(words, cwd=TESTS / "support", capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_root_that_may_make_no_namespaces_is_told_so_and_other_roots_have_no_reason_to_skip() -> None:
    as_in_a_container = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    assert reason("'sh', root=True") == ""
    assert "may not make namespaces" in reason("'sh', root=True", *as_in_a_container)
    assert reason("'sh'", *as_in_a_container) == ""


def test_a_missing_module_is_told_by_its_package() -> None:
    assert reason("'python3:ensurepip'", "env", f"PATH={SYSTEM_PATH}") == ""
    assert reason("'python3:no_such_module'") == (
        "there is no python3:no_such_module: apt-get install python3:no_such_module"
    )
    assert packages()["python3:ensurepip"] == "python3-venv"
