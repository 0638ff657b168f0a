"""Reads the source of a Python program: its tree, and the names that its top level binds."""

from __future__ import annotations

import ast
import warnings


def parse_program(program: str) -> ast.Module | None:
    """The syntax tree, None when the text is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def defined_names(tree: ast.Module) -> set[str]:
    """The names a module's top level binds by `def`, `class` or a plain assignment."""
    names = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    assigned = (target for n in tree.body if isinstance(n, ast.Assign) for target in n.targets)
    return names | {target.id for target in assigned if isinstance(target, ast.Name)}
