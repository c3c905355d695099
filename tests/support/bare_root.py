"""Roots of a bare Debian, made by mmdebstrap from where this machine gets its own packages."""

from __future__ import annotations

import platform
import re
from pathlib import Path

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

BRING = """
bring() { # ROOT FILE...
    root=$1
    shift
    for file; do
        if [ -d "$file" ]; then mkdir -p "$root$file"; mount -o bind,ro "$file" "$root$file"
        elif [ -e "$file" ]; then install -D -m 644 "$file" "$root$file"; fi
    done
}
"""
"""A shell function: files of this machine, and folders that are only mounted, come into a root that is a folder."""

FILES = ("/etc/pip.conf", "/etc/resolv.conf", "/etc/ssl/certs/ca-certificates.crt")
"""How this machine reaches its packages, where it needs telling."""


def named(environ: dict[str, str]) -> list[str]:
    """Return the files that variables name, and the folders of certificates and packages."""
    files = [value for value in environ.values() if value.startswith("/") and Path(value).is_file()]
    folders = (
        f"{environ.get('PIP_FIND_LINKS', '')} {environ.get('SSL_CERT_DIR', '').replace(':', ' ')}".split()
    )
    return files + [folder for folder in folders if folder.startswith("/") and Path(folder).is_dir()]


def block(page: str, first: str) -> list[str]:
    """Return the commands of the block of a page that begins with these words."""
    [found] = re.findall(rf"^```sh\n({re.escape(first)}.*?)^```", page, re.DOTALL | re.MULTILINE)
    return [*found.splitlines()]
