from __future__ import annotations

import os
from pathlib import Path

import pytest

from proxyherd.grading import last_words
from proxyherd.grading.last_words import last_lines, telling_line


def test_the_last_lines_are_told_escaped_and_without_blank_ones_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(
        b"first\n" + b"".join(b"%d\n" % number for number in range(6)) + b"\n  \x1b[1mlast\r\n \n\n"
    )
    assert last_lines(file) == ["0", "1", "2", "3", "4", "5", "", "  \\x1b[1mlast"]


def test_no_more_is_read_and_told_than_a_screen_has(tmp_path: Path) -> None:
    file = tmp_path / "out"
    file.write_bytes(b"x" * 100_000 + b"\n" + b"y" * 1_000 + b"end")
    before, last = last_lines(file)
    assert last == "y" * (last_words.LINE_BYTES - 3) + "end"
    assert before == "x" * last_words.LINE_BYTES


def test_nothing_printed_is_no_line_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    assert last_lines(tmp_path / "out") == []
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        last_lines(tmp_path / "pipe")


TRACEBACK = """Traceback (most recent call last):
  File "server.py", line 4, in <module>
    raise ValueError(
    ...<2 lines>...
    )
ValueError: what is IAMAT
"""


@pytest.mark.parametrize(
    ("printed", "told"),
    [
        ("", ""),
        ("\n\n", ""),
        ("started\nlistens  \n\n", "listens"),
        (TRACEBACK, "ValueError: what is IAMAT"),
        (TRACEBACK + "the herd is stopped\n  bye", "ValueError: what is IAMAT"),
        (f"KeyError\n{TRACEBACK}\nDuring handling\n\n{TRACEBACK}", "ValueError: what is IAMAT"),
        (TRACEBACK.replace("what", "\x1b[2Jwhat"), "ValueError: \\x1b[2Jwhat is IAMAT"),
        (TRACEBACK.replace("IAMAT", "x" * 500), f"ValueError: what is {'x' * 180}"),
        (TRACEBACK.partition("ValueError: ")[0], ")"),
    ],
    ids=map(str, range(9)),
)
def test_the_exception_of_the_last_traceback_tells_most(tmp_path: Path, printed: str, told: str) -> None:
    file = tmp_path / "out"
    file.write_text(printed)
    assert telling_line(file) == told
