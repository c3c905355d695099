"""What `[erasure]` of the herd's file must not say."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.config.erasure import check_erasure
from proxyherd.config.errors import ConfigError
from proxyherd.config.herd_file import parse
from proxyherd.config.schema import ErasureSettings

FILE = Path("herd.toml")
ONE = 'servers.Ann = {clients = "127.0.0.1:1", peers = "127.0.0.1:2", admin = "127.0.0.1:3"}\n[erasure]\n'


def test_tombstones_must_not_end_before_a_journal_is_rewritten() -> None:
    with pytest.raises(ConfigError) as refusal:
        parse(ONE + "tombstone_seconds = 3599", FILE)
    why = str(refusal.value)
    assert why.startswith(
        "herd.toml: key erasure.tombstone_seconds: 3599 is less than rewrite_seconds, 3600, so"
    )
    assert why.endswith("raise tombstone_seconds, or lower rewrite_seconds")
    assert parse(ONE + "tombstone_seconds = 3600", FILE).erasure.tombstone_seconds == 3_600
    check_erasure(ErasureSettings(tombstone_seconds=10, rewrite_seconds=10), FILE)
