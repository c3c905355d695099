"""One name has one meaning: each public name stands in one module of the package, and each class of the tests' helpers
in one of theirs.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
from floors import modules

import proxyherd

PACKAGE: Final = Path(proxyherd.__file__).parent
SUPPORT: Final = Path(__file__).parents[1] / "support"

WITH_THEIR_MODULE: Final = {
    "checks": "of one section of the grader: `floods.checks`",
    "load": "a file and what it names: `herd_file.load`",
    "parse": "a text, checked: `herd_file.parse`",
    "read": "a file of ours: `journal.read`",
}
"""Functions of several modules that do the same for each. They are never imported by name: who reads a call sees whose it
is.
"""


def definitions(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the public names that a module defines: classes, functions, constants and aliases, but no type variables."""
    for node in body:
        names: list[ast.expr] = []
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names = [ast.Name(node.name)]
        elif isinstance(node, ast.Assign) and not _is_type_variable(node.value):
            names = [name for target in node.targets for name in getattr(target, "elts", [target])]
        elif isinstance(node, ast.AnnAssign):
            names = [node.target]
        elif isinstance(node, ast.If | ast.Try):
            yield from definitions(node.body)
        yield from ((n.id, node) for n in names if isinstance(n, ast.Name) and not n.id.startswith("_"))


def _is_type_variable(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and ast.unparse(value.func) in ("TypeVar", "ParamSpec")


def _is_command(node: ast.stmt) -> bool:
    """Whether users call it, by a name that is theirs."""
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return any(ast.unparse(decorator).partition("(")[0].endswith(".command") for decorator in decorators)


def homonyms(folder: Path, *, classes_only: bool = False) -> dict[str, list[str]]:
    """Return the names that stand in several modules, with these."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for module in modules(folder):
        for name, node in definitions(module.tree.body):
            if not _is_command(node) and (isinstance(node, ast.ClassDef) or not classes_only):
                found[name].add(module.name)
    return {name: sorted(where) for name, where in sorted(found.items()) if len(where) > 1}


def test_no_public_name_is_defined_in_two_modules() -> None:
    assert {name: where for name, where in homonyms(PACKAGE).items() if name not in WITH_THEIR_MODULE} == {}


def test_no_class_of_the_helpers_is_called_like_another() -> None:
    assert homonyms(SUPPORT, classes_only=True) == {}


def test_what_several_modules_may_define_is_a_function_that_is_never_imported_by_name() -> None:
    assert WITH_THEIR_MODULE.keys() <= homonyms(PACKAGE).keys(), "an exception that nobody needs"
    for module in modules(PACKAGE):
        defined = dict(definitions(module.tree.body))
        functions = [defined[name] for name in defined.keys() & WITH_THEIR_MODULE]
        assert all(isinstance(node, ast.FunctionDef) for node in functions), module.name
        imports = [node for node in ast.walk(module.tree) if isinstance(node, ast.ImportFrom)]
        by_name = {name for node in imports for name in imported(node)}
        assert by_name & WITH_THEIR_MODULE.keys() == set(), module.name


def imported(node: ast.ImportFrom) -> Iterator[str]:
    """Yield what is imported by name of our modules, and no module itself."""
    source = PACKAGE.parent / (node.module or "").replace(".", "/")
    if source.is_relative_to(PACKAGE):
        yield from (alias.name for alias in node.names if not (source / f"{alias.name}.py").exists())


PLANTED: Final[Mapping[str, tuple[str, str, list[str]]]] = {
    "a class": ("class Log: ...", "class Log: ...", ["Log"]),
    "a constant and a class": ("Log: Final = 1", "class Log: ...", ["Log"]),
    "an alias and a coroutine": ("Log = int", "async def Log(): ...", ["Log"]),
    "one of a pair": ("A, B = 1, 2", "B = 3", ["B"]),
    "where types are checked": ("if TYPE_CHECKING:\n    Log = int", "Log = str", ["Log"]),
    "a private name": ("_Log = int", "_Log = str", []),
    "a type variable": ("T = TypeVar('T')", "T = TypeVar('T')", []),
    "a command": ("@click.command(name='x')\ndef serve(): ...", "def serve(): ...", []),
    "no command": ("@other\ndef serve(): ...", "def serve(): ...", ["serve"]),
    "names inside": ("class A:\n    x = 1", "def b():\n    x = 1", []),
}


@pytest.mark.parametrize("plant", PLANTED)
def test_a_planted_homonym_is_found(tmp_path: Path, plant: str) -> None:
    one, other, found = PLANTED[plant]
    (tmp_path / "one.py").write_text(one)
    (tmp_path / "other.py").write_text(other)
    assert list(homonyms(tmp_path)) == found
