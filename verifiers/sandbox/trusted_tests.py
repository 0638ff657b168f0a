"""What trusted tests ask of a program, read off from their source before any program runs.

Pure functions on the syntax tree. They say which names the program must define, and whether the tests need the program
in their own process (`compat`): because they use its names as types, or hand it what cannot cross between processes.

Not covered: values whose kind shows only when the tests run; see `two_processes.Link`.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from verifiers.sandbox import programs
from verifiers.sandbox.two_processes import TYPING_NAMES


def free_names(code: str) -> list[str]:
    """Names a test reads that it does not bind itself and Python does not provide; [] when it does not parse."""
    tree = programs.parse_program(code)
    if tree is None:
        return []
    read, bound = [], set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                read.append(node.id)
            else:
                bound.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    known = bound | set(dir(builtins))
    return [name for name in dict.fromkeys(read) if name not in known]


def names_under_test(setup: str, tests: Sequence[str]) -> list[str]:
    """The program's names that tests without an entry point use.

    A built-in's name counts only when the tests use no other name (MBPP 126 asks for a function called `sum`):
    otherwise a program could replace `set` or `abs` under its own tests.
    """
    whole = "\n".join([setup, *tests])
    used = [name for name in free_names(whole) if name not in sys.stdlib_module_names and name not in TYPING_NAMES]
    if used:
        return used
    trees = [tree for code in tests if (tree := programs.parse_program(code)) is not None]
    calls = [node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return list(dict.fromkeys(call.id for call in calls if isinstance(call, ast.Name)))


def calls_check(tests: Sequence[str]) -> bool:
    """Whether the tests call `check(...)` themselves at top level (HumanEvalFix does)."""
    trees = [tree for code in tests if (tree := programs.parse_program(code)) is not None]
    return any(
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "check"
        for tree in trees
        for node in tree.body
    )


def needs_one_process(code: str) -> bool:
    """Whether trusted tests use the program's names as types (isinstance, except, base class), which cannot cross."""
    tree, free = programs.parse_program(code), set(free_names(code))
    if tree is None:
        return False
    for node in ast.walk(tree):
        used: list[ast.expr | None] = []
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("isinstance", "issubclass")
        ):
            used = [*node.args[1:2]]
        elif isinstance(node, ast.ExceptHandler):
            used = [node.type]
        elif isinstance(node, ast.ClassDef):
            used = [*node.bases]
        names = {part.id for item in used if item is not None for part in ast.walk(item) if isinstance(part, ast.Name)}
        if names & free:
            return True
    return False


class HandedOver:
    """Names in tests that stand for functions and objects of the tests' own, and those that stand for the program's.

    Args:
        trees: The tests, with their setup.
        program: Names of the program's.
    """

    def __init__(self, trees: Sequence[ast.Module], program: Sequence[str]) -> None:
        self.program, self.foreign, self.made_by_class = set(program), set(), set()
        self.classes: set[str] = set()
        self._open: set[ast.expr] = set()  # being looked at
        self.returns: dict[str, list[ast.expr]] = {}
        self.nodes = [node for tree in trees for node in ast.walk(tree)]
        self.bound = {node.id for node in self.nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        self.values: dict[str, list[ast.expr]] = {}  # what is assigned to a name
        for node in self.nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                self.foreign |= {node.name} - self.program
                inside = list(ast.walk(node))
                self.returns[node.name] = [part.value for part in inside if isinstance(part, ast.Return) and part.value]
                if node.name == "check" and node.args.args:
                    self.program.add(node.args.args[0].arg)
            elif isinstance(node, ast.ClassDef) and not self._builtin_base(node):
                self.classes.add(node.name)
                self.foreign.add(node.name)
        for _ in range(3):  # a table, its rows, their fields
            pairs, self.values = list(self._bindings()), {}
            for target, value in pairs:
                if isinstance(target, ast.Name):
                    self.values.setdefault(target.id, []).append(value)
        size = -1
        while size != len(self.foreign) + len(self.program):  # until nothing new is found
            size = len(self.foreign) + len(self.program)
            for target, value in self._bindings():
                self._bind(target, value)

    def _builtin_base(self, node: ast.ClassDef) -> bool:
        """Whether objects of the class cross as the built-in value they are."""
        names = {base.id for base in node.bases if isinstance(base, ast.Name)}
        return bool(names & {"int", "str", "float", "list", "tuple", "dict", "set", "frozenset", "NamedTuple"})

    def _bindings(self) -> Iterator[tuple[ast.expr, ast.expr]]:
        for node in self.nodes:
            if isinstance(node, ast.Assign):
                yield from ((target, node.value) for target in node.targets)
            elif isinstance(node, (ast.AnnAssign, ast.AugAssign, ast.NamedExpr)) and node.value is not None:
                yield node.target, node.value
            elif isinstance(node, (ast.For, ast.AsyncFor, ast.comprehension)):
                for iterated in self._resolved(node.iter):
                    items = iterated.elts if isinstance(iterated, (ast.List, ast.Tuple, ast.Set)) else [iterated]
                    yield from ((node.target, item) for item in items)
            elif isinstance(node, ast.withitem) and node.optional_vars is not None:
                yield node.optional_vars, node.context_expr

    def _resolved(self, node: ast.expr) -> list[ast.expr]:
        """The expressions that a name stands for where all that is assigned to it is known, else the name itself."""
        known = self.values.get(node.id, []) if isinstance(node, ast.Name) else []
        return known if known and all(isinstance(value, _DISPLAYS) for value in known) else [node]

    def _picked(self, node: ast.Subscript) -> list[ast.expr]:
        """What `a[k]` may be; of a display that is known, the items under that key."""
        found: list[ast.expr] = []
        for value in self._resolved(node.value):
            if isinstance(node.slice, ast.Constant) and isinstance(value, ast.Dict):
                pairs = zip(value.keys, value.values, strict=True)
                found += [v for k, v in pairs if not isinstance(k, ast.Constant) or k.value == node.slice.value]
            elif isinstance(value, (ast.List, ast.Tuple)) and isinstance(getattr(node.slice, "value", None), int):
                found += [item for i, item in enumerate(value.elts) if i == ast.literal_eval(node.slice)]
            else:
                found.append(value)
        return found

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            parts = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
            same = len(parts) == len(target.elts) and not any(isinstance(part, ast.Starred) for part in parts)
            for left, right in zip_longest(target.elts, parts if same else [], fillvalue=value):
                self._bind(left, right)
        elif isinstance(target, ast.Starred):
            self._bind(target.value, value)
        elif isinstance(target, ast.Name):
            if self.is_foreign(value):
                self.foreign.add(target.id)
            root = self.root_name(value)
            if root and target.id not in self.foreign:
                self.program.add(target.id)
                if root[:1].isupper() or root in self.made_by_class:
                    self.made_by_class.add(target.id)

    def root_name(self, node: ast.expr) -> str:
        """The program's name that an expression starts from, as `f` in `f(1).x[2]()`; '' when it is none."""
        while not isinstance(node, ast.Name):
            if isinstance(node, ast.Call):
                node = node.func
            elif isinstance(node, (ast.Attribute, ast.Subscript, ast.Await, ast.Starred)):
                node = node.value
            else:
                return ""
        return node.id if node.id in self.program else ""

    def is_foreign(self, node: ast.expr) -> bool:
        """Whether a value is, or holds, a function or an object of the tests' own."""
        if isinstance(node, ast.Lambda):
            return True
        if isinstance(node, ast.Name):
            kind = getattr(builtins, node.id, None)
            function = callable(kind) and not isinstance(kind, type)
            return node.id in self.foreign or (function and node.id not in self.program | self.bound)
        if isinstance(node, ast.Attribute):
            return self._is_function(node)
        if isinstance(node, ast.Call):
            return self._makes_foreign(node)
        if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
            return any(self.is_foreign(item) for item in node.elts)
        if isinstance(node, ast.Dict):
            return any(self.is_foreign(item) for item in [*node.keys, *node.values] if item is not None)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            return self.is_foreign(node.elt)
        if isinstance(node, ast.DictComp):
            return self.is_foreign(node.key) or self.is_foreign(node.value)
        if isinstance(node, ast.IfExp):
            return self.is_foreign(node.body) or self.is_foreign(node.orelse)
        if isinstance(node, ast.BoolOp):
            return any(self.is_foreign(value) for value in node.values)
        if isinstance(node, ast.BinOp):  # [len] * 2
            return self.is_foreign(node.left) or self.is_foreign(node.right)
        if isinstance(node, ast.Subscript):
            if node in self._open:  # a = [a[0]]
                return False
            self._open.add(node)
            found = any(self.is_foreign(value) for value in self._picked(node))
            self._open.discard(node)
            return found
        if isinstance(node, (ast.Starred, ast.NamedExpr, ast.Await)):
            return self.is_foreign(node.value)
        return False

    def _is_function(self, node: ast.Attribute) -> bool:
        """Whether `a.b` is a function: a method of a value or of a class, or one of a module's that is known."""
        if isinstance(node.value, ast.Constant):
            return True
        if not isinstance(node.value, ast.Name):
            return False
        name = node.value.id
        if name in self.program or name in self.made_by_class:
            return False
        if name in _MODULES and name in sys.modules:
            found = getattr(sys.modules[name], node.attr, None)
            return callable(found) and not isinstance(found, type)
        kind = getattr(builtins, name, None)
        return (isinstance(kind, type) and callable(getattr(kind, node.attr, None))) or node.attr in self.returns

    def _makes_foreign(self, node: ast.Call) -> bool:
        func = node.func
        name = func.id if isinstance(func, ast.Name) else func.attr if isinstance(func, ast.Attribute) else ""
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if name in self.program or (isinstance(func, ast.Attribute) and self.root_name(func)):
            return False
        if name in self.classes or name in _MAKERS:
            return True
        if name in _CONTAINERS:
            return any(self.is_foreign(value) for value in given)
        if isinstance(func, ast.Name) and name in self.returns:
            inside = self.returns.pop(name)  # a function that calls itself ends here
            found = any(self.is_foreign(value) for value in inside)
            self.returns[name] = inside
            return found
        return False

    def hands_over(self) -> bool:
        """Whether the program is handed something of the tests' own."""
        for node in self.nodes:
            if isinstance(node, ast.Call) and self.root_name(node.func):
                if any(self.is_foreign(value) for value in [*node.args, *(word.value for word in node.keywords)]):
                    return True
            elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                if any(self.root_name(decorator) for decorator in node.decorator_list):
                    return True
            elif (
                isinstance(node, ast.Assign)
                and any(isinstance(target, ast.Attribute) and self.root_name(target) for target in node.targets)
                and self.is_foreign(node.value)
            ):
                return True
        return False

    def believes_methods(self) -> bool:
        """Whether the tests take as true or false what a method of a returned object says.

        Not when the tests made the object by a name in capitals (`Stack().empty()`): that class is what they test.
        """
        said: set[str] = set()
        for target, value in self._bindings():
            if isinstance(target, ast.Name) and self._is_said(value, said):
                said.add(target.id)
        tests = [node.test for node in self.nodes if isinstance(node, (ast.Assert, ast.If, ast.While, ast.IfExp))]
        tests += [
            value
            for node in self.nodes
            if isinstance(node, ast.Call)
            and (name := node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", ""))
            and name in ("bool", "all", "any", "assertTrue", "assertFalse")
            and not self.root_name(node.func)
            for value in node.args[:1]
        ]
        return any(self._is_said(part, said) for test in tests for part in _truths(test))

    def _is_said(self, node: ast.expr, said: set[str]) -> bool:
        if isinstance(node, ast.Name):
            return node.id in said
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            return False
        root = self.root_name(node.func.value)
        return bool(root) and not root[:1].isupper() and root not in self.made_by_class


def _truths(node: ast.expr) -> Iterator[ast.expr]:
    """The parts of a condition that count as true or false themselves; `x == True` is one of them."""
    if isinstance(node, ast.BoolOp):
        for value in node.values:
            yield from _truths(value)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield from _truths(node.operand)
    elif isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        if any(isinstance(side, ast.Constant) and isinstance(side.value, bool) for side in sides):
            for side in sides:
                yield from _truths(side)
    elif isinstance(node, (ast.GeneratorExp, ast.ListComp)):
        yield from _truths(node.elt)
    elif isinstance(node, (ast.List, ast.Tuple)):
        for item in node.elts:
            yield from _truths(item)
    else:
        yield node


_DISPLAYS = (ast.List, ast.Tuple, ast.Set, ast.Dict)
_MODULES = frozenset(["math", "cmath", "operator", "statistics", "itertools", "functools", "string", "random"])
_MAKERS = frozenset(["partial", "attrgetter", "itemgetter", "methodcaller", "open", "StringIO", "BytesIO", "object"])
_CONTAINERS = frozenset(
    ["list", "tuple", "dict", "set", "frozenset", "deque", "zip", "enumerate", "reversed", "iter", "sorted"]
)
