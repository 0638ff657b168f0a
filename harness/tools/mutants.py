"""Wrong programs without a model: every single-edit variant of a reference program, in a fixed order.

One edit replaces one field of one syntax node: an operator, a constant, a condition, a call's name or arguments, a
statement. Whether a mutant really fails is for the tests to say: some survive. What they stand for is a program with
one slip; they make no claim about the errors a model makes.

Not covered: several edits at once; renaming; edits in docstrings, annotations and decorators.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from typing import Any

from harness.python_source import defined_names

_COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_BINARY = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Div,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_SIGNS = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in",
    ast.NotIn: "not in", ast.Is: "is", ast.IsNot: "is not", ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/",
    ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
    ast.LShift: "<<", ast.RShift: ">>", ast.And: "and", ast.Or: "or",
}  # fmt: skip
_TWINS = {
    "min": "max", "any": "all", "append": "extend", "startswith": "endswith", "upper": "lower", "lstrip": "rstrip",
}  # fmt: skip
_TWINS |= {twin: name for name, twin in _TWINS.items()}
_UNTOUCHED = frozenset({"annotation", "returns", "decorator_list", "type_params"})

Edit = tuple[str, Any, str]  # field of the node, its new value, what changed


def list_mutants(source: str, entry_point: str) -> Iterator[tuple[str, str]]:
    """Every single-edit variant of a program, in the order of its syntax tree; no two alike, none like the original.

    Args:
        source: The reference program.
        entry_point: The function its tests call.

    Yields:
        (program as `ast.unparse` writes it, description such as "line 3: < becomes <=").

    Raises:
        ValueError: the source does not parse, or does not define `entry_point` at its top level.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an invalid escape in old code is not our business
        try:
            tree = ast.parse(source)
        except SyntaxError as error:
            raise ValueError(f"the reference program of {entry_point!r} does not parse: {error}") from None
        if entry_point not in defined_names(tree):
            raise ValueError(f"the reference program does not define {entry_point!r}")
        seen = {ast.unparse(tree)}
        for node in _nodes(tree):
            for field, value, change in _edits(node):
                old = getattr(node, field)
                setattr(node, field, value)
                text = ast.unparse(tree)
                setattr(node, field, old)
                if text not in seen and _defines(text, entry_point):
                    seen.add(text)
                    yield text, f"line {_line(node, value)}: {change}"


def _defines(text: str, entry_point: str) -> bool:
    try:
        return entry_point in defined_names(ast.parse(text))
    except SyntaxError:
        return False


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what is below it, in source order, without docstrings, annotations and decorators."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in _UNTOUCHED:
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_text(child):
                yield from _nodes(child)


def _is_text(node: ast.AST) -> bool:
    """Whether a node is a bare string statement: a docstring, or as good as one."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _edits(node: ast.AST) -> Iterator[Edit]:
    match node:
        case ast.Compare(ops=[op]):
            yield "ops", [_COMPARE[type(op)]()], _swap(op, _COMPARE[type(op)])
        case ast.BinOp(op=op) | ast.AugAssign(op=op) if type(op) in _BINARY:
            yield "op", _BINARY[type(op)](), _swap(op, _BINARY[type(op)])
        case ast.BoolOp(op=op):
            other = ast.Or if isinstance(op, ast.And) else ast.And
            yield "op", other(), _swap(op, other)
        case ast.UnaryOp(op=ast.USub()):
            yield "op", ast.UAdd(), "a minus is lost"
        case ast.Constant(value=bool(value)):
            yield "value", not value, f"{value} becomes {not value}"
        case ast.Constant(value=int(value)):
            yield "value", value + 1, f"{value} becomes {value + 1}"
            yield "value", value - 1, f"{value} becomes {value - 1}"
        case ast.If(test=test) | ast.IfExp(test=test):
            yield "test", _negated(test), "a condition is negated"
        case ast.Call(func=ast.Name(id=name)) if name in _TWINS:
            yield "func", ast.Name(_TWINS[name], ast.Load()), f"{name} becomes {_TWINS[name]}"
        case ast.Call(func=ast.Attribute(value=owner, attr=name)) if name in _TWINS:
            yield "func", ast.Attribute(owner, _TWINS[name], ast.Load()), f"{name} becomes {_TWINS[name]}"
    if isinstance(node, ast.Call) and len(node.args) == 2 and not any(isinstance(a, ast.Starred) for a in node.args):
        yield "args", node.args[::-1], "two arguments change places"
    for field in ("body", "orelse"):
        yield from _dropped(node, field)


def _negated(test: ast.expr) -> ast.expr:
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return operand
    return ast.UnaryOp(ast.Not(), test)


def _dropped(node: ast.AST, field: str) -> Iterator[Edit]:
    """One assignment, call, break or continue of a block inside a function is left out."""
    block = getattr(node, field, None)
    if not isinstance(block, list) or isinstance(node, ast.Module | ast.ClassDef):
        return
    for i, statement in enumerate(block):
        lost = isinstance(statement, ast.Assign | ast.AugAssign | ast.Expr | ast.Break | ast.Continue)
        if lost and not _is_text(statement):
            gap = ast.copy_location(ast.Pass(), statement)
            yield field, [*block[:i], gap, *block[i + 1 :]], f"{type(statement).__name__.lower()} is lost"


def _swap(old: ast.AST, new: type[ast.AST]) -> str:
    return f"{_SIGNS[type(old)]} becomes {_SIGNS[new]}"  # type: ignore[index]


def _line(node: ast.AST, value: Any) -> int:
    """The line of the original that an edit touches: the gap of a lost statement, else the node's first."""
    gap = next((v for v in value if isinstance(v, ast.Pass)), None) if isinstance(value, list) else None
    return getattr(gap or node, "lineno", 1)
