"""Attacks that go on beside clients that behave: the process of an attack, and who asks meanwhile over the web port."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator

from attacks import TOKEN_VARIABLE
from herd_process import ROOT, Connection, ServerProcess

MOST_P99_SECONDS = 0.1
"""What others may notice of an attack."""


@contextlib.contextmanager
def attack(name: str, port: int, *addresses: str, token: str = "") -> Iterator[None]:
    """Let an attack of `attacks` go on until the body ends; from these addresses, and with this token."""
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/support/attacks.py"), name, str(port), *addresses],
        stdin=subprocess.PIPE,
        env={**os.environ, TOKEN_VARIABLE: token},
    )
    try:
        yield
        assert process.poll() is None, "the attack has ended by itself"
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


class Reporter(Connection):
    """A client of the web port that reports."""

    def __init__(self, server: ServerProcess, client: str, token: str) -> None:
        super().__init__(server.web_port)
        head = f"PUT /v1/clients/{client} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n"
        self._head = head.encode() + b"Content-Type: application/json\r\nContent-Length: 17\r\n\r\n"

    def ask(self, line: bytes) -> bytes:
        """Send a body; return the line with the status."""
        self.send_raw(self._head + line)
        status = size = b""
        while (head := self.line()) != b"\r\n":
            status = status or head
            if head.lower().startswith(b"content-length: "):
                size = head.split()[1]
        self._answers.read(int(size))
        return status
