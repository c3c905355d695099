"""Every small change of a source that tests should notice, as a change of its text: a mutant.

`mutants_of(path)` lists them. What no test can notice is left out: annotations (but for their bounds), docstrings,
asserts, prose, decorators, names, and blocks for type checkers.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

COMPARISONS: dict[type[ast.cmpop], str] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.Div: "*",
    ast.FloorDiv: "*",
    ast.Mod: "//",
    ast.Pow: "*",
    ast.LShift: ">>",
    ast.RShift: "<<",
    ast.BitAnd: "|",
    ast.BitOr: "&",
    ast.BitXor: "|",
}
CALLS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
CONTROL = "nothing changed"
TYPING_CALLS = {"TypeVar", "NewType", "ParamSpec", "cast", "overload", "TypeAlias"}
TYPES = {"Literal", "Annotated", "Final"}
_PROSE = re.compile(r"[^\W\d_]{2,}[,.:;]? [^\W\d_]")


@dataclass(frozen=True)
class Mutant:
    """One change of one file. `first` to `last` are the lines of the statement it is in, for who looks up its tests."""

    path: Path
    start: int  # in bytes of the file
    end: int
    text: bytes
    operator: str
    line: int
    first: int
    last: int
    function: tuple[str, int, int] | None
    """Qualified name, first and last line of the outermost function around it; None where an import runs it."""
    names: tuple[str, ...] = field(default=(), compare=False)
    """What a statement outside of functions binds."""

    def unchanged(self) -> Mutant:
        """Return the same change less the change: whatever fails with it says nothing of the mutant."""
        return replace(self, text=self.path.read_bytes()[self.start : self.end], operator=CONTROL)

    def source(self) -> bytes:
        """Return the whole file with the change."""
        before = self.path.read_bytes()
        return before[: self.start] + self.text + before[self.end :]

    def lines(self) -> tuple[str, str]:
        """Return what stood there and what stands there now, each a line or some joined, without indent."""
        whole = self.path.read_bytes()
        begin = whole.rfind(b"\n", 0, self.start) + 1
        end = whole.find(b"\n", max(self.start, self.end - 1))
        was = whole[begin:end]
        now = whole[begin : self.start] + self.text + whole[self.end : end]
        return _joined(was), _joined(now)


def _joined(text: bytes) -> str:
    return " ".join(text.decode().split())


def mutants_of(path: Path) -> list[Mutant]:
    """Return all mutants of a file, in the order of its text."""
    source = path.read_bytes()
    return sorted(set(_Finder(path, source).found()), key=lambda one: (one.start, one.end, one.text))


class _Finder:
    """Walks one file."""

    def __init__(self, path: Path, source: bytes) -> None:
        self.path, self.bytes = path, source
        self.begins = [0, *(match.end() for match in re.finditer(b"\n", source))]
        self.tree = ast.parse(source)
        self.statement: ast.stmt = self.tree.body[0] if self.tree.body else ast.Pass()
        self.function: tuple[str, int, int] | None = None
        self.scope: list[str] = []

    def found(self) -> Iterator[Mutant]:
        for statement in self.tree.body:
            yield from self._visit(statement)

    def _at(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return (
            self.begins[node.lineno - 1] + node.col_offset,
            self.begins[node.end_lineno - 1] + node.end_col_offset,
        )

    def _text(self, node: ast.expr) -> bytes:
        start, end = self._at(node)
        text = self.bytes[start:end]
        return (
            text
            if isinstance(node, ast.Name | ast.Constant | ast.Call | ast.Attribute)
            else b"(" + text + b")"
        )

    def _mutant(self, start: int, end: int, text: bytes | str, operator: str) -> Mutant:
        statement = self.statement
        last = statement.end_lineno or statement.lineno
        if isinstance(
            statement, ast.If | ast.While | ast.For | ast.AsyncFor | ast.With | ast.AsyncWith | ast.Try
        ):
            last = max(statement.lineno, statement.body[0].lineno - 1)
        return Mutant(
            self.path,
            start,
            end,
            text.encode() if isinstance(text, str) else text,
            operator,
            self.bytes.count(b"\n", 0, start) + 1,
            statement.lineno,
            last,
            self.function,
            () if self.function else tuple(_bound(statement)),
        )

    def _instead(self, node: ast.expr | ast.stmt, text: bytes | str, operator: str) -> Mutant:
        start, end = self._at(node)
        return self._mutant(start, end, text, operator)

    def _visit(self, node: ast.AST) -> Iterator[Mutant]:
        if isinstance(node, ast.stmt):
            outer, self.statement = self.statement, node
            yield from self._statement(node)
            self.statement = outer
        elif isinstance(node, ast.expr):
            yield from self._expression(node)
        else:
            for child in ast.iter_child_nodes(node):
                yield from self._visit(child)

    def _children(self, node: ast.AST, *without: str) -> Iterator[Mutant]:
        for name, value in ast.iter_fields(node):
            if name in without:
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from self._visit(child)

    # Statements -----------------------------------------------------------------------------------------------

    def _statement(self, node: ast.stmt) -> Iterator[Mutant]:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from self._function(node)
            case ast.ClassDef():
                self.scope.append(node.name)
                yield from self._children(node, "decorator_list", "keywords", "bases")
                self.scope.pop()
            case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Global() | ast.Nonlocal():
                pass
            case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.Assign(targets=[ast.Name(id="__all__")]):
                pass
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Raise() if isinstance(node.exc, ast.Name | ast.Call | ast.Attribute):
                yield self._instead(node, "pass", "raise dropped")
                yield from self._children(node)
            case _:
                yield from self._deletion(node)
                yield from self._condition(node)
                yield from self._children(node, "annotation")
                if isinstance(node, ast.AnnAssign):
                    yield from self._bounds(node.annotation)

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Mutant]:
        for default in [*node.args.defaults, *node.args.kw_defaults]:
            if default is not None:
                yield from self._visit(default)
        outermost = self.function is None
        self.scope.append(node.name)
        if outermost:
            first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
            self.function = ".".join(self.scope), first, node.end_lineno or node.lineno
        for statement in node.body:
            yield from self._visit(statement)
        if outermost:
            self.function = None
        self.scope.pop()

    def _deletion(self, node: ast.stmt) -> Iterator[Mutant]:
        match node:
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Delete():
                yield self._instead(node, "pass", "statement dropped")
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]) if self.function:
                yield self._instead(node, "pass", "statement dropped")
            case ast.Return(value=ast.expr() as value) if not _is_none_or_false(value):
                yield self._instead(value, "None", "return None")
            case ast.Break():
                yield self._instead(node, "continue", "break or continue")
            case ast.Continue():
                yield self._instead(node, "break", "break or continue")

    def _condition(self, node: ast.stmt) -> Iterator[Mutant]:
        if isinstance(node, ast.If):
            yield self._instead(node.test, "True", "condition true")
        if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Constant):
            yield self._instead(node.test, "False", "condition false")

    def _bounds(self, annotation: ast.AST) -> Iterator[Mutant]:
        """Of an annotation, what the program reads: the numbers in `Meta(ge=1)`."""
        for node in ast.walk(annotation):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Meta":
                for keyword in node.keywords:
                    yield from self._visit(keyword.value)

    # Expressions ----------------------------------------------------------------------------------------------

    def _expression(self, node: ast.expr) -> Iterator[Mutant]:
        if isinstance(node, ast.JoinedStr):  # before Python 3.12 its inside has no positions
            if not any(_is_prose(one) for one in node.values):
                yield self._instead(node, b"('XX' " + self._text(node)[1:], "string changed")
            return
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in TYPES:
            return
        if isinstance(node, ast.Call):
            yield from self._call(node)
            if isinstance(node.func, ast.Name) and node.func.id in TYPING_CALLS:
                return
        yield from self._operation(node)
        yield from self._comprehension(node)
        yield from self._children(node, "annotation")

    def _operation(self, node: ast.expr) -> Iterator[Mutant]:
        match node:
            case ast.Constant():
                yield from self._constant(node)
            case ast.Compare(ops=[op], left=left, comparators=[right]):
                yield self._instead(node, self._joined(left, COMPARISONS[type(op)], right), "comparison")
            case ast.BinOp(op=op, left=left, right=right) if type(op) in ARITHMETIC:
                if not _is_text(left) and not _is_text(right):
                    text = b"(" + self._joined(left, ARITHMETIC[type(op)], right) + b")"
                    yield self._instead(node, text, "arithmetic")
            case ast.BoolOp(op=bool_op, values=values):
                other = b" or " if isinstance(bool_op, ast.And) else b" and "
                yield self._instead(node, b"(" + other.join(map(self._text, values)) + b")", "and or or")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield self._instead(node, self._text(operand), "not dropped")
            case ast.UnaryOp(op=ast.USub(), operand=operand) if not isinstance(operand, ast.Constant):
                yield self._instead(node, self._text(operand), "sign dropped")
            case ast.IfExp(body=body, orelse=orelse):
                yield self._instead(node, self._text(body), "condition true")
                yield self._instead(node, self._text(orelse), "condition false")
            case ast.Subscript(slice=ast.Slice() as piece):
                yield from self._slice(piece)

    def _joined(self, left: ast.expr, operator: str, right: ast.expr) -> bytes:
        return b" ".join((self._text(left), operator.encode(), self._text(right)))

    def _comprehension(self, node: ast.expr) -> Iterator[Mutant]:
        if isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            for generator in node.generators:
                for test in generator.ifs:
                    yield self._instead(test, "True", "condition true")

    def _constant(self, node: ast.Constant) -> Iterator[Mutant]:
        match node.value:
            case bool():
                yield self._instead(node, str(not node.value), "constant")
            case int() | float() if self.function is None and abs(node.value) > 9:
                # A bound or a pause that was chosen: a little more or less changes nothing, much more does.
                yield self._instead(node, repr(node.value * 10), "constant")
                yield self._instead(node, repr(type(node.value)(node.value // 10)), "constant")
            case int():
                yield self._instead(node, str(node.value + 1), "constant")
                yield self._instead(node, f"({node.value - 1})", "constant")
            case float():
                yield self._instead(node, repr(node.value * 10 + 1), "constant")
                if node.value:
                    yield self._instead(node, repr(node.value / 10), "constant")
            case str() | bytes() if not _is_prose(node):
                kind = b"b" if isinstance(node.value, bytes) else b""
                yield self._instead(node, b"(" + kind + b"'XX' " + self._text(node) + b")", "string changed")

    def _call(self, node: ast.Call) -> Iterator[Mutant]:
        if not isinstance(node.func, ast.Name) or node.func.id not in CALLS:
            return
        name = node.func.id
        if name == "sorted":
            if len(node.args) == 1:
                yield self._instead(node, b"list(" + self._text(node.args[0]) + b")", "sorted to list")
        else:
            yield self._instead(node.func, CALLS[name], f"{name} to {CALLS[name]}")

    def _slice(self, piece: ast.Slice) -> Iterator[Mutant]:
        for bound in (piece.lower, piece.upper):
            if bound is not None:
                yield self._instead(bound, "None", "slice")


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds, and those of functions and classes."""
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Assign():
            for target in statement.targets:
                yield from (one.id for one in ast.walk(target) if isinstance(one, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def _is_none_or_false(node: ast.expr) -> bool:
    """Whether None says the same to whoever asks; that it is no bool, mypy tells."""
    return isinstance(node, ast.Constant) and (node.value is None or node.value is False)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def _is_prose(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and bool(_PROSE.search(node.value))
