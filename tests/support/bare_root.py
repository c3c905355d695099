"""Roots of a bare Debian, made by mmdebstrap from where this machine gets its own packages."""

from __future__ import annotations

import platform

import pytest


def _system() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {"ID": "unknown"}


IS_DEBIAN = _system()["ID"] == "debian"
CODENAME = _system().get("VERSION_CODENAME", "stable")

needs_debian = pytest.mark.skipif(not IS_DEBIAN, reason="this is no Debian, whose sources could make another")

MAKE_ROOT = rf"""
make_root() {{ # SUITE ROOT PACKAGES
    sources=$(apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        grep -E ' {CODENAME}(-updates|-security)? main$' | sed "s/ {CODENAME}/ $1/" || true)
    apt-config dump --no-empty --format '%f "%v";%n' Acquire::http Acquire::https >"$2.apt.conf"
    echo "$sources" | mmdebstrap --quiet --mode=root --variant=minbase --include="$3" --aptopt="$2.apt.conf" \
        "$1" "$2" ${{sources:+-}}
    rm "$2.apt.conf"
}}
"""
"""A shell function. ROOT is a folder, or a file that ends in .tar."""

FILES = ("/etc/pip.conf", "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt")
"""How this machine reaches its packages, where it needs telling; and what variables of its environment name."""
