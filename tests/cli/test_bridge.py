"""What the command bridge draws."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from proxyherd.bridge.bridge import Figures
from proxyherd.cli import bridge as bridging
from proxyherd.cli.pipes import silence

FIGURES = Figures(
    *(7, 7, 7, 7),
    read=7,
    held=7,
    news=7,
    passes=7,
    lag=0.0,
    in_step=False,
    ending=False,
    trouble="",
)


@pytest.mark.parametrize(
    ("read", "held", "drawn"),
    [
        *((0, 0, "[----------]"), (0, 300, "[----------]"), (29, 300, "[----------]")),
        *((30, 300, "[#---------]"), (299, 300, "[#########-]"), (300, 300, "[##########]")),
        (900, 300, "[##########]"),  # more came while it read
    ],
)
def test_the_bar_is_how_much_of_the_cluster_this_pass_has_read(read: int, held: int, drawn: str) -> None:
    assert bridging._bar(msgspec.structs.replace(FIGURES, read=read, held=held)) == drawn


def test_a_full_disk_behind_its_output_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        bridging._Display(terminal=False).show(FIGURES)
        monkeypatch.undo()
        silence([stream])
