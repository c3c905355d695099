"""supervisord's file of a folder: written for the herd's servers, and read again.

The rule: it says by which of the herd's files its servers go, so it is asked, and nobody else.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

CONF: Final = Path("supervisord.conf")

_TEMPLATE: Final = Path(__file__).with_name("supervisord.conf")
_PROGRAM: Final = "[program:$name]\n"
"""Where the part begins that is there for each server."""


def spell_conf(names: Sequence[str], config: str, program: str, words: dict[str, str]) -> str:
    """Return the file for these servers of the herd's file `config`. `program` is what supervisord starts, in its own
    spelling. `words` are those of the comments: `up` and `supervisorctl` as they are typed, and `docs`, where pages are.
    """
    head, mark, each = _TEMPLATE.read_text("utf-8").partition(_PROGRAM)
    one = "Clark" if "Clark" in names else names[-1]
    parts = [Template(head).substitute(words, config=config, names=",".join(names), one=one)]
    parts += [Template(mark + each).substitute(name=name, program=program) for name in names]
    return parts[0] + "\n".join(parts[1:])


def spell_path(path: Path, folder: Path) -> str:
    """Return a program's path in supervisord's spelling: relative to the folder, if it is inside of it."""
    if path.is_relative_to(folder):
        return f"%(here)s/{path.relative_to(folder)}".replace("%", "%%").replace("%%(here)s", "%(here)s", 1)
    return str(path).replace("%", "%%")


def read_conf(path: Path = CONF) -> str:
    """Return the text of such a file. Raises OSError, also if it is not UTF-8."""
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise OSError(errno.EILSEQ, f"is not UTF-8 at byte {error.start}", str(path)) from error


def names_in(text: str) -> list[str]:
    """Return the servers of the group `herd` of such a file, sorted."""
    found = re.search(r"^\[group:herd\]\n(?:[^\[]*\n)?programs *= *(.*)$", text, re.MULTILINE)
    return sorted(re.findall(r"[^\s,]+", found[1])) if found else []


def config_in(text: str) -> str:
    """Return the herd's file that such a file names; empty if it names none."""
    found = re.search(r'^environment *=.*PROXYHERD_CONFIG="([^"]*)"', text, re.MULTILINE)
    return found[1] if found else ""
