"""What the command bridge draws."""

from __future__ import annotations

import pytest

from proxyherd.bridge.bridge import Figures
from proxyherd.cli import bridge as bridging


@pytest.mark.parametrize(
    ("read", "held", "drawn"),
    [
        *((0, 0, "[----------]"), (0, 300, "[----------]"), (29, 300, "[----------]")),
        *((30, 300, "[#---------]"), (299, 300, "[#########-]"), (300, 300, "[##########]")),
        (900, 300, "[##########]"),  # more came while it read
    ],
)
def test_the_bar_is_how_much_of_the_cluster_this_pass_has_read(read: int, held: int, drawn: str) -> None:
    figures = Figures(
        *(7, 7, 7, 7),
        read=read,
        held=held,
        news=7,
        passes=7,
        lag=0.0,
        in_step=False,
        ending=False,
        trouble="",
    )
    assert bridging._bar(figures) == drawn
