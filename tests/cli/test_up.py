"""What `proxyherd up` tells to type next fits the herd and the way that it was started."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxyherd.cli import up
from proxyherd.config import herd_file
from proxyherd.local import messages

ROOT = Path(__file__).parents[2]


def steps(file: Path) -> list[str]:
    return [" ".join(line.split()) for line in up.next_steps(herd_file.load(file)).splitlines()]


def test_addresses_are_the_herds(tmp_path: Path) -> None:
    default = steps(ROOT / "deploy/herd.toml")
    assert "nc 127.0.0.1 10003 and type there:" in default
    assert "http://127.0.0.1:10300/ in a browser: report where it is, and see what is around" in default
    assert "http://127.0.0.1:10203/ in a browser: the state of the whole herd" in default
    assert [line for line in default if line.endswith("tail -f herd:Clark")]
    one = '[servers]\nAnn = { clients = "127.0.0.1:7", peers = "127.0.0.1:8", admin = "127.0.0.1:9" }\n'
    (tmp_path / "one.toml").write_text(one)
    alone = steps(tmp_path / "one.toml")
    assert "nc 127.0.0.1 7 and type there:" in alone
    assert not [line for line in alone if "Clark" in line or "report where it is" in line]


def test_who_typed_make_is_told_to_type_make(monkeypatch: pytest.MonkeyPatch) -> None:
    assert steps(ROOT / "deploy/herd.toml")[-1].endswith("proxyherd down")
    monkeypatch.setattr(messages, "_MADE", "make run")
    made = steps(ROOT / "deploy/herd.toml")
    assert made[-1] == "make stop"
    assert "make example fifty phones move on a map, with a fence that lights up" in made
