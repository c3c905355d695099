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
    compiled = {f"proxyherd.{module.replace('/', '.')}" for module in COMPILED}
    derived = []
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        imported = {
            name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module in compiled
            for name in node.names
        }
        bases = {
            ast.unparse(base)
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for base in node.bases
        }
        module = file.relative_to(PACKAGE).with_suffix("").as_posix()
        derived += [] if module in COMPILED else [f"{module}: {base}" for base in imported & bases]
    assert derived == []


def test_a_class_derives_from_compiled_ones_or_from_structs() -> None:
    """The compiler knows no attributes of others, and fails."""
    others = []
    for module in COMPILED:
        tree = ast.parse((PACKAGE / f"{module}.py").read_text())
        imported = {
            name.name: str(node.module).removeprefix("proxyherd.").replace(".", "/")
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("proxyherd.")
            for name in node.names
        }
        bases = [
            ast.unparse(base)
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for base in node.bases
        ]
        others += [
            base for base in bases if imported.get(base, "core/value") not in {*COMPILED, "core/value"}
        ]
    assert others == []


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
