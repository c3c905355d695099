"""The files of the herd's secret."""

from __future__ import annotations

from pathlib import Path

import pytest
from herd_process import (
    write_secret,
)

from proxyherd.config import secrets as secret
from proxyherd.config.errors import ConfigError


@pytest.mark.parametrize("end", [".next", ".old"])
@pytest.mark.parametrize(("spoil", "why"), [("short", "has 5 bytes"), ("open", "others than its owner")])
def test_a_second_secret_is_checked_as_the_first(tmp_path: Path, end: str, spoil: str, why: str) -> None:
    file, other = tmp_path / "secret", tmp_path / f"secret{end}"
    write_secret(file)
    write_secret(other)
    if spoil == "short":
        other.write_bytes(b"hello")
    else:
        other.chmod(0o640)
    with pytest.raises(ConfigError, match=why) as caught:
        secret.read_all(file)
    assert str(other) in str(caught.value)
