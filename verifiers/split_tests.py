"""Both sides of one graded program: the candidate's server, and the trusted tests that call it from another process.

The candidate never holds the tests, their expected values or the result; the tests never hold an object of the
candidate's, only values rebuilt from literal text (`literals`) or numbered references that refuse to be compared.
`compat` runs both in one process, as published harnesses do: results of that mode can be forged and are flagged.

Not covered: tests that see arguments changed in place; tests that hand their own functions to the candidate.
Above 300 lines because both ends of the protocol between tests and program stand here.
"""

from __future__ import annotations

# ruff: noqa: SIM905  (a list of words reads best as words)
import ast
import builtins
import collections
import importlib
import json
import os
import struct
import sys
import types
import typing
from collections.abc import Callable, Sequence
from typing import Any

from verifiers import literals, programs

_LENGTH = struct.Struct(">I")
MAX_ANSWER = 64_000  # characters of a program that are reported back


class Pipe:
    """Framed text over two file descriptors."""

    def __init__(self, source: int, sink: int, limit: int = 4 * literals.MAX_TEXT) -> None:
        self.source, self.sink, self.limit = source, sink, limit

    def send(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        view = memoryview(_LENGTH.pack(len(data)) + data)
        while view:
            view = view[os.write(self.sink, view) :]

    def receive(self) -> str:
        (length,) = _LENGTH.unpack(read_exactly(self.source, _LENGTH.size))
        if length > self.limit:
            raise EOFError("oversized frame")
        return read_exactly(self.source, length).decode("utf-8", "surrogatepass")


def read_exactly(fd: int, count: int) -> bytes:
    """`count` bytes of a file descriptor.

    Raises:
        EOFError: the other side closed.
    """
    parts = []
    while count:
        part = os.read(fd, min(count, 2**20))
        if not part:
            raise EOFError("closed")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


# the candidate's side ------------------------------------------------------------------------------------------------


def load(job: dict[str, Any], program: str) -> types.ModuleType:
    """Runs the prompt's own code, then the program, as one module that is not `__main__`."""
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    if not program.startswith(job["prompt"]):
        _run_prompt(job["prompt"], module.__dict__)
    exec(programs.compiled(program) or compile(program, "<program>", "exec"), module.__dict__)
    return module


def _run_prompt(prompt: str, names: dict[str, Any]) -> None:
    """Runs a prompt that is code by itself (imports, helpers, the head of a function with its docstring)."""
    try:
        code = compile(prompt, "<prompt>", "exec")
    except (SyntaxError, ValueError):
        return
    exec(code, names)


def serve(job: dict[str, Any], pipe: Pipe) -> None:
    """The candidate's process: finds the program, runs it, then answers calls until the pipe closes."""
    program = programs.extract(job["text"], job["prompt"], job["wanted"])
    pipe.send(json.dumps({"program": program}))
    if program is None:
        return
    objects: list[Any] = []

    def refer(value: Any) -> Any:
        objects.append(value)
        return {"ref": [len(objects) - 1, type(value).__name__]}

    def resolve(content: Any) -> Any:
        return objects[content[0]]

    try:
        module = load(job, program)
        pipe.send(json.dumps({"loaded": True}))
    except BaseException as error:  # the program may raise anything, SystemExit included
        pipe.send(json.dumps({"loaded": False, "error": _name(error)}))
        return
    while True:
        request = json.loads(pipe.receive())
        try:
            target = module if request["target"] is None else objects[request["target"]]
            if request["do"] == "get":
                value = getattr(target, request["name"])
            elif request["do"] == "set":
                value = setattr(target, request["name"], literals.rebuild(request["value"], resolve))
            else:
                args, kwargs = literals.rebuild(request["value"], resolve)
                called: Any = getattr(target, request["name"]) if request["name"] is not None else target
                value = called(*args, **kwargs)
            reply = f'{{"value":{literals.write(value, refer)}}}'
        except BaseException as error:  # as above; a kill by the limits needs no handler
            reply = json.dumps({"raised": _name(error), "text": _text(error)})
        pipe.send(reply)


def _name(error: BaseException) -> str:
    """The nearest built-in exception class, which the tests' side can raise."""
    for kind in type(error).__mro__:
        if getattr(builtins, kind.__name__, None) is kind:
            return kind.__name__
    return "Exception"


def _text(error: BaseException) -> str:
    try:
        return str(error)[:500]
    except Exception:  # a candidate's own __str__
        return ""


# the tests' side -----------------------------------------------------------------------------------------------------


class Uncrossable(BaseException):
    """The tests need a value of the candidate's that is no literal, or hand over one that is none.

    A BaseException, so that no `except Exception` in a test can swallow it.
    """


class CandidateGone(BaseException):
    """The candidate's process ended or broke the protocol."""


class Link:
    """The tests' connection to one candidate."""

    def __init__(self, pipe: Pipe) -> None:
        self.pipe = pipe
        self.refused = ""  # a result that is no literal was compared: the candidate's doing, graded wrong
        self.unsent = ""  # an argument that is no literal: the tests' doing, they need compat mode
        self.answered = False  # the program has returned something, which arguments may be made of

    def ask(self, target: int | None, do: str, name: str | None, value: Any = None) -> Any:
        try:
            trusted = literals.MAX_TRUSTED
            text = literals.write(value, self._refuse, Remote, trusted) if value is not None else "null"
        except (literals.TooLarge, RecursionError) as error:
            if self.answered:  # too large because of what the program returned: not to be rewarded with compat mode
                self.refused = str(error)
            else:
                self.unsent = str(error)
            raise Uncrossable(str(error)) from None
        try:
            self.pipe.send(f'{{"target":{json.dumps(target)},"do":"{do}","name":{json.dumps(name)},"value":{text}}}')
            reply = json.loads(self.pipe.receive())
        except (OSError, EOFError, ValueError, RecursionError) as error:
            raise CandidateGone(f"the program ended during a call ({type(error).__name__})") from None
        if not isinstance(reply, dict):
            raise CandidateGone("malformed reply")
        self.answered = True
        if "raised" in reply:
            kind = getattr(builtins, str(reply["raised"]), Exception)
            ends_loops = (StopIteration, StopAsyncIteration)  # would end a test's map(candidate, ...) early
            if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, ends_loops):
                kind = RuntimeError  # SystemExit, KeyboardInterrupt too: never raised on this side
            try:
                error = kind(str(reply.get("text", ""))[:500])
            except TypeError:  # UnicodeDecodeError and its kin want five arguments
                error = ValueError(str(reply.get("text", ""))[:500])
            raise error
        try:
            return literals.rebuild(reply["value"], self._resolve)
        except (ValueError, KeyError, TypeError) as error:
            raise CandidateGone(f"malformed value ({error})") from None

    def _resolve(self, content: Any) -> Remote:
        return Remote(self, int(content[0]), None, str(content[1])[:80])

    def _refuse(self, value: Any) -> Any:
        if isinstance(value, Remote):
            _, target, name = object.__getattribute__(value, "_at")
            if target is None:
                self.unsent = f"the program's {name} itself"
                raise Uncrossable(self.unsent)
            return {"ref": [target, ""]}
        if value is Remote or isinstance(value, BaseException):  # made by the program's choice of what to return
            self.refused = f"an argument of type {type(value).__name__}"
            raise Uncrossable(self.refused)
        self.unsent = f"an argument of type {type(value).__name__}"
        raise Uncrossable(self.unsent)


class Remote:
    """A thing of the candidate's by name or number: it can be called and asked for attributes, never compared."""

    __slots__ = ("_at", "_kind")

    def __init__(self, link: Link, target: int | None, name: str | None, kind: str = "function") -> None:
        object.__setattr__(self, "_at", (link, target, name))
        object.__setattr__(self, "_kind", kind)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        link, target, name = object.__getattribute__(self, "_at")
        return link.ask(target, "call", name, (args, kwargs))

    def __getattr__(self, name: str) -> Any:
        link, target, own = object.__getattribute__(self, "_at")
        if name.startswith("__"):
            raise AttributeError(name)
        if target is None:
            holder = link.ask(None, "get", own)
            return getattr(holder, name)
        return link.ask(target, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        link, target, _ = object.__getattribute__(self, "_at")
        link.ask(target, "set", name, value)

    def __repr__(self) -> str:
        return f"<the program's {object.__getattribute__(self, '_kind')}>"


def _refusing(name: str) -> Callable[..., Any]:
    def refuse(self: Remote, *args: Any) -> Any:
        link, _, _ = object.__getattribute__(self, "_at")
        link.refused = f"a {object.__getattribute__(self, '_kind')} is no literal"
        raise Uncrossable(link.refused)

    refuse.__name__ = name
    return refuse


for _operator in (
    "eq ne lt le gt ge bool len iter next contains getitem setitem delitem hash index int float complex str bytes format "  # noqa: E501
    "add radd sub rsub mul rmul truediv rtruediv floordiv mod divmod pow and or xor neg pos abs invert round trunc "
    "floor ceil enter exit reversed length_hint iadd isub imul dir"
).split():
    setattr(Remote, f"__{_operator}__", _refusing(f"__{_operator}__"))


def free_names(code: str) -> list[str]:
    """Names a test reads that it does not bind itself and Python does not provide; [] when it does not parse."""
    tree = programs.parses(code)
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


_ANNOTATIONS = frozenset(
    "List Dict Tuple Set FrozenSet Optional Union Any Callable Iterable Iterator Sequence Mapping Type Counter "
    "OrderedDict".split()
)


def names_under_test(setup: str, tests: Sequence[str]) -> list[str]:
    """The program's names that tests without an entry point use.

    A built-in's name counts only when the tests use no other name (MBPP 126 asks for a function called `sum`):
    otherwise a program could replace `set` or `abs` under its own tests.
    """
    whole = "\n".join([setup, *tests])
    used = [name for name in free_names(whole) if name not in sys.stdlib_module_names and name not in _ANNOTATIONS]
    if used:
        return used
    trees = [tree for code in tests if (tree := programs.parses(code)) is not None]
    calls = [node.func for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return list(dict.fromkeys(call.id for call in calls if isinstance(call, ast.Name)))


def scope(tests: dict[str, Any], link: Link) -> dict[str, Any]:
    """The names the tests run with: the prompt's own code, modules they use, and stand-ins for the program's names."""
    names: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    _run_prompt(tests["prompt"], names)
    entry = tests["entry_point"]
    if entry:
        names[entry] = names["candidate"] = Remote(link, None, entry)
    for name in tests["free"]:
        if name in names:
            continue
        if name in sys.stdlib_module_names:
            names[name] = importlib.import_module(name)
        elif name in _ANNOTATIONS:
            names[name] = getattr(collections if name in ("Counter", "OrderedDict") else typing, name)
        else:
            names[name] = Remote(link, None, name)
    if not entry:
        for name in tests["wanted"]:
            names.setdefault(name, Remote(link, None, name))
    if tests["setup"]:
        exec(compile(tests["setup"], "<setup>", "exec"), names)
    return names


def check(tests: dict[str, Any], link: Link) -> dict[str, Any]:
    """Runs the tests against the candidate behind the link; the result, complete or not, as plain data."""
    result: dict[str, Any] = {"passed": False, "reason": "", "program": None, "status": "ok"}
    try:
        hello = json.loads(link.pipe.receive())
        program = hello["program"]
        if program is None:
            return result | {"status": "no_answer", "reason": "no program found"}
        result["program"] = str(program)[:MAX_ANSWER]
        loaded = json.loads(link.pipe.receive())
        if not loaded.get("loaded"):
            return result | {"reason": f"the program does not run: {loaded.get('error')}"}
    except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
        return result | {"reason": f"the program ended before its tests ({type(error).__name__})"}
    stage = "setup"
    try:
        names = scope(tests, link)
        for code in tests["tests"]:
            stage = code.strip().split("\n")[0][:200]
            exec(compile(code, "<tests>", "exec"), names)
        if tests["entry_point"] and "check" in names and not tests["calls_check"]:
            stage = "check"
            names["check"](names[tests["entry_point"]])
        result["passed"] = not link.refused and not link.unsent
        result["reason"] = link.refused
    except CandidateGone as error:
        result["reason"] = str(error)
    except Uncrossable as error:
        result["reason"] = str(error)
    except BaseException as error:  # a failed assertion, or whatever the call raised
        result["reason"] = f"{type(error).__name__} in {stage}: {_text(error)[:200]}"
    if link.unsent and not link.refused:
        result |= {"passed": False, "needs_compat": True, "reason": link.unsent}
    return result


def check_together(job: dict[str, Any], tests: dict[str, Any]) -> dict[str, Any]:
    """Program and tests in one process, as openai/human-eval does; the result can be forged by the program."""
    program = programs.extract(job["text"], job["prompt"], job["wanted"])
    result: dict[str, Any] = {"passed": False, "reason": "", "program": None, "status": "ok"}
    if program is None:
        return result | {"status": "no_answer", "reason": "no program found"}
    result["program"] = program[:MAX_ANSWER]
    try:
        names = load(job, program).__dict__
        if tests["setup"]:
            exec(compile(tests["setup"], "<setup>", "exec"), names)
        if tests["entry_point"]:
            names["candidate"] = names.get(tests["entry_point"])
        for code in tests["tests"]:
            exec(compile(code, "<tests>", "exec"), names)
        if tests["entry_point"] and "check" in names and not tests["calls_check"]:
            names["check"](names[tests["entry_point"]])
        result["passed"] = True
    except BaseException as error:  # the program may raise anything, SystemExit included
        result["reason"] = f"{type(error).__name__}: {_text(error)[:200]}"
    return result


def calls_check(tests: Sequence[str]) -> bool:
    """Whether the tests call `check(...)` themselves at top level (HumanEvalFix does)."""
    trees = [tree for code in tests if (tree := programs.parses(code)) is not None]
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
    tree, free = programs.parses(code), set(free_names(code))
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
