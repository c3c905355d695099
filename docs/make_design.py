"""Writes the floors into docs/design.md, from the table in tests/support/floors.py and what each folder says of itself.

.venv/bin/python docs/make_design.py           writes them
.venv/bin/python docs/make_design.py --check   exit 1 if they are not current
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PAGE = Path(__file__).with_name("design.md")
ROOT = PAGE.parent.parent
BEGINS, ENDS = "<!-- floors: written by docs/make_design.py -->\n", "<!-- end of the floors -->\n"

sys.path.insert(0, str(ROOT / "tests/support"))

from floors import FLOORS, PACKAGE  # noqa: E402 - it is a test's


def said(folder: Path) -> str:
    """Return the first sentence of what a folder says of itself."""
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    return " ".join(re.split(r"(?<=\.)\s|\n\n", text, maxsplit=1)[0].split())


def rows() -> Iterator[str]:
    """Yield the rows of the table, the highest floor first."""
    yield "| floor | folder | what it is |\n| --- | --- | --- |\n"
    for level, floor in reversed(list(enumerate(FLOORS))):
        for number, name in enumerate(floor):
            folder = ROOT / PACKAGE / name.replace(".", "/")
            link = folder.relative_to(ROOT)
            yield f"| {'' if number else level} | [`{link.relative_to(PACKAGE)}/`](../{link}) | {said(folder)} |\n"


def picture() -> Iterator[str]:
    """Yield the house, a line a floor."""
    yield "```\n"
    for floor in reversed(FLOORS):
        yield "    ".join(name.replace(".", "/") for name in floor).center(72).rstrip() + "\n"
    yield "```\n"


def main() -> None:
    """Write the page, or check it."""
    there = PAGE.read_text()
    before, _, rest = there.partition(BEGINS)
    _, _, after = rest.partition(ENDS)
    current = "".join([before, BEGINS, "\n", *picture(), "\n", *rows(), "\n", ENDS, after])
    if "--check" not in sys.argv:
        PAGE.write_text(current)
    elif there != current:
        sys.exit("docs/design.md is not current: run docs/make_design.py")


if __name__ == "__main__":
    main()
