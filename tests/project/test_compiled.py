"""What setup.py can compile: the modules of `compiled` in pyproject.toml. Nothing stands in them that the compiler ignores
or refuses.

What the compiler makes of them is tested by `make test-compiled`, in tests/system/compiled_laws.py.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import proxyherd

PACKAGE = Path(proxyherd.__file__).parent
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())
COMPILED: list[str] = PROJECT["tool"]["proxyherd"]["compiled"]


def ignored(source: str) -> Iterator[str]:
    """Say what the compiler would ignore, without a word: the keywords of a class, such as `frozen`; and of the types of
    a struct's fields, whatever is in brackets, by which frequent events spell their lines.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            yield from (f"{node.name}({one.arg}=…)" for one in node.keywords)
            yield from (
                f"{node.name}: types" for base in node.bases if ast.unparse(base).endswith("FrequentEvent")
            )


def refused(source: str) -> Iterator[str]:
    """Say what the compiler would refuse in the body of a class: one assignment to several names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            assignments = [one for one in node.body if isinstance(one, ast.Assign)]
            yield from (ast.unparse(one) for one in assignments if len(one.targets) > 1)


def bases(source: str) -> Iterator[str]:
    """Yield the names of what classes derive from, with their modules where these are imported."""
    tree, named = ast.parse(source), dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            named |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            named |= {one.asname: one.name for one in node.names if one.asname}
    for node in ast.walk(tree):
        for base in node.bases if isinstance(node, ast.ClassDef) else ():
            name = ast.unparse(base.value if isinstance(base, ast.Subscript) else base)
            first, dot, rest = name.partition(".")
            yield f"{named.get(first, first)}{dot}{rest}"


def test_each_module_of_the_list_is_there_and_stands_in_it_once() -> None:
    assert sorted({*COMPILED}) == COMPILED
    assert [module for module in COMPILED if not (PACKAGE / f"{module}.py").is_file()] == []


def test_nothing_stands_in_them_that_the_compiler_ignores() -> None:
    found = {module: [*ignored((PACKAGE / f"{module}.py").read_text())] for module in COMPILED}
    assert {module: what for module, what in found.items() if what} == {}


def test_nothing_stands_in_them_that_the_compiler_refuses() -> None:
    found = {module: [*refused((PACKAGE / f"{module}.py").read_text())] for module in COMPILED}
    assert {module: what for module, what in found.items() if what} == {}


def test_no_class_of_the_program_derives_from_a_compiled_one_unless_it_is_compiled_too() -> None:
    """It would fail when its first object is made."""
    derived = {
        module: [base for base in bases(file.read_text()) if module_of(base) in COMPILED]
        for file in PACKAGE.rglob("*.py")
        if (module := file.relative_to(PACKAGE).with_suffix("").as_posix()) not in COMPILED
    }
    assert {module: those for module, those in derived.items() if those} == {}


def test_a_class_derives_from_compiled_ones_or_from_structs() -> None:
    """The compiler knows no attributes of others, and fails."""
    others = [
        base
        for module in COMPILED
        for base in bases((PACKAGE / f"{module}.py").read_text())
        if base.startswith("proxyherd.") and module_of(base) not in {*COMPILED, "core/value"}
    ]
    assert others == []


def module_of(name: str) -> str:
    """Return the module of a name of ours, as the list has it."""
    return name.rpartition(".")[0].removeprefix("proxyherd.").replace(".", "/")


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from proxyherd.core.link import Link\nclass One(Link): ...", "proxyherd.core.link.Link"),
        ("from proxyherd.core.link import Link as It\nclass One(It[int]): ...", "proxyherd.core.link.Link"),
        ("from proxyherd.core import link\nclass One(link.Link): ...", "proxyherd.core.link.Link"),
        ("import proxyherd.core.link\nclass One(proxyherd.core.link.Link): ...", "proxyherd.core.link.Link"),
        ("import proxyherd.core.link as it\nclass One(it.Link): ...", "proxyherd.core.link.Link"),
        ("def f():\n    import a\n    class One(a.B[c.D]): ...", "a.B"),
        ("class Link: ...\nclass One(Link): ...", "Link"),
    ],
)
def test_what_a_class_derives_from_is_found_however_it_is_imported(source: str, found: str) -> None:
    assert [*bases(source)] == [found]


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("class Room(Struct, frozen=True): ...", ["Room(frozen=…)"]),
        ("def f():\n    class Room(Struct, gc=False): ...", ["Room(gc=…)"]),
        ("class Sent(frequent.FrequentEvent): ...", ["Sent: types"]),
        ("class Room(Value): ...\nclass Table: ...", []),
    ],
)
def test_what_it_ignores_is_found(source: str, what: list[str]) -> None:
    assert [*ignored(source)] == what


def test_what_it_refuses_is_found() -> None:
    source = "class Room:\n    size = 0\n    width = height = 0\n    def f(self): a = b = 0"
    assert [*refused(source)] == ["width = height = 0"]
