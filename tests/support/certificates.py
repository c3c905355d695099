"""Certificates, made as the page on security says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from herd_process import (
    ROOT,
)

PAGE = (ROOT / "docs/security.md").read_text()


MAKE_AUTHORITY, MAKE_CERTIFICATES, MAKE_LIST, REVOKE = (
    block for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) if "var/tls" in block
)


def run(commands: str, folder: Path) -> None:
    done = subprocess.run(
        ["sh", "-e", "-c", commands], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def revoke(folder: Path, name: str) -> None:
    """Revoke all certificates of a server by the documented commands."""
    run(f"{REVOKE.replace('revoke Clark', '')}revoke {name}", folder)


def issue(folder: Path, name: str, *, validity: tuple[str, str] | None = None) -> None:
    """Sign a certificate by the documented commands; or for a validity (YYYYMMDD) that they cannot give."""
    sign = MAKE_CERTIFICATES[: MAKE_CERTIFICATES.index("for name")]
    run(f"{sign}sign {name} DNS:{name}", folder)
    if validity is not None:
        begin, end = (f"{day}000000Z" for day in validity)
        run(
            f"""
            cd var/tls && : > index && mkdir -p issued
            printf '[ca]\\ndefault_ca=c\\n[c]\\ndatabase=index\\nnew_certs_dir=issued\\nrand_serial=yes\\n' > ca.conf
            printf 'default_md=sha256\\npolicy=p\\ncopy_extensions=copy\\nunique_subject=no\\n[p]\\ncommonName=supplied\\n' >> ca.conf
            openssl req -new -key {name}.key -subj /CN={name} -addext subjectAltName=DNS:{name} -out {name}.csr
            openssl ca -batch -config ca.conf -cert authority.pem -keyfile authority.key -in {name}.csr \
                -startdate {begin} -enddate {end} -notext -out {name}.pem
            """,
            folder,
        )
