"""Both sides of one graded program: the candidate's server, and the trusted tests that call it from another process.

The candidate never holds the tests, their expected values or the result; the tests never hold an object of the
candidate's, only values rebuilt from literal text (`literals`) or numbered references that refuse to be compared.
`compat` runs both in one process, as published harnesses do: results of that mode can be forged and are flagged.
Which of the two a problem needs is read off from its tests (`trusted_tests`) or shows before the program first answers.

Not covered: tests that see arguments changed in place.
Above 300 lines because both ends of the protocol between tests and program are here.
"""

from __future__ import annotations

# ruff: noqa: SIM905  (a list of words reads best as words)
import _thread
import ast
import builtins
import collections
import contextlib
import importlib
import json
import os
import random
import struct
import sys
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

from verifiers.sandbox import literals, programs

_LENGTH = struct.Struct(">I")
MAX_ANSWER = 64_000  # characters of a program that are reported back
THREAD_STACK = 4 * 2**20  # bytes for each thread of a program's; two hundred then fit into the default memory


class Pipe:
    """Framed text over two file descriptors."""

    def __init__(self, source: int, sink: int, limit: int = 4 * literals.MAX_TEXT) -> None:
        self.source, self.sink, self.limit = source, sink, limit

    def send_text(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        view = memoryview(_LENGTH.pack(len(data)) + data)
        while view:
            view = view[os.write(self.sink, view) :]

    def receive_text(self) -> str:
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


def load_program(job: dict[str, Any], program: str) -> types.ModuleType:
    """Runs the prompt's own code, then the program, as one module that is not `__main__`."""
    module = types.ModuleType("candidate")
    sys.modules["candidate"] = module
    if not program.startswith(job["prompt"]):
        _run_prompt(job["prompt"], module.__dict__)
    exec(programs.compile_program(program) or programs.compile_plainly(program, "<program>"), module.__dict__)
    return module


def _run_prompt(prompt: str, names: dict[str, Any]) -> None:
    """Runs a prompt that is code by itself (imports, helpers, the head of a function with its docstring).

    A statement that fails is left out: a whole program may bring the import that its prompt forgot.
    """
    tree = programs.parse_program(prompt)
    try:
        if tree is not None:
            exec(programs.compile_plainly(tree, "<prompt>"), names)
    except Exception:
        for statement in tree.body if tree else []:
            with contextlib.suppress(Exception):
                exec(programs.compile_plainly(ast.Module([statement], []), "<prompt>"), names)


def serve_candidate(job: dict[str, Any], pipe: Pipe) -> None:
    """The candidate's process: finds the program, runs it, then answers calls until the pipe closes."""
    program = programs.extract_program(job["text"], job["prompt"], job["wanted"])
    pipe.send_text(json.dumps({"program": program}))
    if program is None:
        return
    objects: list[Any] = []

    def refer(value: Any) -> Any:
        objects.append(value)
        return {"ref": [len(objects) - 1, type(value).__name__]}

    def resolve(content: Any) -> Any:
        return objects[content[0]] if content[0] is not None else getattr(module, content[1])

    _thread.stack_size(THREAD_STACK)
    try:
        module = load_program(job, program)
        pipe.send_text(json.dumps({"loaded": True}))
    except BaseException as error:  # the program may raise anything, SystemExit included
        pipe.send_text(json.dumps({"loaded": False, "raised": _name(error), "text": _text(error)}))
        return
    while True:
        request = literals.parse_json(pipe.receive_text())
        try:
            target: Any = module if request["target"] is None else objects[request["target"]]
            if request["do"] == "get":
                value = getattr(target, request["name"])
            elif request["do"] == "item":
                value = target[literals.rebuild_value(request["value"], resolve)]
            elif request["do"] == "len":
                value = len(target)
            elif request["do"] == "iter":
                value = iter(target)
            elif request["do"] in ("str", "repr"):
                value = str(target) if request["do"] == "str" else repr(target)
            elif request["do"] == "await":
                value = importlib.import_module("asyncio").run(target)
            elif request["do"] == "set":
                value = setattr(target, request["name"], literals.rebuild_value(request["value"], resolve))
            else:
                args, kwargs = literals.rebuild_value(request["value"], resolve)
                called: Any = getattr(target, request["name"]) if request["name"] is not None else target
                value = called(*args, **kwargs)
            reply = f'{{"value":{literals.write_value(value, refer)}}}'
        except BaseException as error:  # as above; a kill by the limits needs no handler
            reply = json.dumps({"raised": _name(error), "text": _text(error)})
        pipe.send_text(reply)


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


class NotSerializable(BaseException):
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
        self.unsent = ""  # an argument that is no literal: the tests' doing
        self.answered = False  # the program has returned something, which the tests' next steps may depend on
        self.untouched = True  # whether it had not when `unsent` was set
        self.starved = False  # the program could not start a thread
        self.judged_itself = False  # a method of an object was called that the program, not the tests, chose to make
        self._by_class = False  # where the newest reference comes from, see `Remote`

    def ask(self, remote: Remote | None, do: str, name: str | None, value: Any = None) -> Any:
        target, self._by_class = None, name is not None and name[:1].isupper()
        if remote is not None:
            _, target, own = object.__getattribute__(remote, "_at")
            if target is not None:
                self._by_class, by_get = object.__getattribute__(remote, "_from")
                self.judged_itself |= do == "call" and by_get and not self._by_class
            elif do in ("call", "get"):
                name = own
                self._by_class = str(own)[:1].isupper()
        try:
            trusted = literals.MAX_TRUSTED
            text = literals.write_value(value, self._refuse, Remote, trusted) if value is not None else "null"
        except (literals.TooLarge, RecursionError) as error:
            if self.answered:  # too large because of what the program returned: not to be rewarded with compat mode
                self.refused = str(error)
            else:
                self._keep(str(error))
            raise NotSerializable(str(error)) from None
        try:
            self.pipe.send_text(
                f'{{"target":{json.dumps(target)},"do":"{do}","name":{json.dumps(name)},"value":{text}}}'
            )
            reply = literals.parse_json(self.pipe.receive_text())
        except (OSError, EOFError, ValueError, RecursionError) as error:
            raise CandidateGone(f"the program ended during a call ({type(error).__name__})") from None
        if not isinstance(reply, dict):
            raise CandidateGone("malformed reply")
        self.answered = True
        if "raised" in reply:
            raise self._error(reply)
        try:
            return literals.rebuild_value(reply["value"], lambda content: self._resolve(content, do == "get"))
        except (ValueError, KeyError, TypeError) as error:
            raise CandidateGone(f"malformed value ({error})") from None

    def _error(self, reply: dict[str, Any]) -> Exception:
        kind = getattr(builtins, str(reply["raised"]), Exception)
        ends_loops = (StopIteration, StopAsyncIteration)  # would end a test's map(candidate, ...) early
        if not (isinstance(kind, type) and issubclass(kind, Exception)) or issubclass(kind, ends_loops):
            kind = RuntimeError  # SystemExit, KeyboardInterrupt too: never raised on this side
        text = str(reply.get("text", ""))[:500]
        self.starved |= is_out_of_threads(kind.__name__, text)
        try:
            return kind(text)
        except TypeError:  # UnicodeDecodeError and its kin want five arguments
            return ValueError(text)

    def _resolve(self, content: Any, by_get: bool) -> Any:
        remote = Remote(self, int(content[0]), None, str(content[1])[:80], self._by_class, by_get)
        return self._awaited(remote) if content[1] == "coroutine" else remote

    async def _awaited(self, remote: Remote) -> Any:
        """What the tests await when the program returned a coroutine, which runs to its end on its own side."""
        return self.ask(remote, "await", None)

    def _refuse(self, value: Any) -> Any:
        if isinstance(value, Remote):
            _, target, name = object.__getattribute__(value, "_at")
            return {"ref": [target, name or ""]}
        if value is Remote or isinstance(value, BaseException):  # made by the program's choice of what to return
            self.refused = f"an argument of type {type(value).__name__}"
            raise NotSerializable(self.refused)
        self._keep(f"an argument of type {type(value).__name__}")
        raise NotSerializable(self.unsent)

    def _keep(self, unsent: str) -> None:
        """Notes what the tests could not send, and whether the program had any part in it."""
        self.unsent = unsent
        self.untouched = not self.answered


def is_out_of_threads(kind: str, text: str) -> bool:
    """Whether an exception means that this machine, not the program, was short of threads."""
    return kind == "RuntimeError" and "can't start new thread" in text


class Remote:
    """Proxy of an object in the candidate's process: it can be called and asked for attributes, never compared.

    Its items and length are asked for as well: they arrive as values, which the tests compare themselves.
    Where it comes from tells whether the tests chose its class by a name in capitals (`Stack()`), and whether it is an
    attribute of another.
    """

    __slots__ = ("_at", "_from", "_kind")

    def __init__(
        self, link: Link, target: int | None, name: str | None, kind: str = "function", by_class=False, by_get=False
    ) -> None:
        object.__setattr__(self, "_at", (link, target, name))
        object.__setattr__(self, "_from", (by_class, by_get))
        object.__setattr__(self, "_kind", kind)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        link, _, name = object.__getattribute__(self, "_at")
        return link.ask(self, "call", name, (args, kwargs))

    def __getattr__(self, name: str) -> Any:
        link, target, own = object.__getattribute__(self, "_at")
        if name.startswith("__"):
            raise AttributeError(name)
        if target is None:
            holder = link.ask(self, "get", own)
            return getattr(holder, name)
        return link.ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        link, _, _ = object.__getattribute__(self, "_at")
        link.ask(self, "set", name, value)

    def __getitem__(self, key: Any) -> Any:
        link, target, _ = object.__getattribute__(self, "_at")
        return link.ask(self, "item", None, key) if target is not None else _refuse(self)

    def __len__(self) -> int:
        link, target, _ = object.__getattribute__(self, "_at")
        length = link.ask(self, "len", None) if target is not None else _refuse(self)
        return length if type(length) is int else _refuse(self)

    def __iter__(self) -> Iterator[Any]:
        link, target, _ = object.__getattribute__(self, "_at")
        items = link.ask(self, "iter", None) if target is not None else _refuse(self)
        return items if isinstance(items, type(iter([]))) else _refuse(self)

    def __str__(self) -> str:
        return self._say("str")

    def _say(self, do: str) -> str:
        link, target, _ = object.__getattribute__(self, "_at")
        text = link.ask(self, do, None) if target is not None else _refuse(self)
        return text if type(text) is str else _refuse(self)

    def __repr__(self) -> str:
        return f"<the program's {object.__getattribute__(self, '_kind')}>"


def _refuse(remote: Remote) -> Any:
    link, _, _ = object.__getattribute__(remote, "_at")
    link.refused = f"a {object.__getattribute__(remote, '_kind')} is no literal"
    raise NotSerializable(link.refused)


def _refusing(name: str) -> Callable[..., Any]:
    def refuse(self: Remote, *args: Any) -> Any:
        _refuse(self)

    refuse.__name__ = name
    return refuse


for _operator in (
    "eq ne lt le gt ge bool next contains setitem delitem hash index int float complex bytes format "
    "add radd sub rsub mul rmul truediv rtruediv floordiv mod divmod pow and or xor neg pos abs invert round trunc "
    "floor ceil enter exit reversed length_hint iadd isub imul dir"
).split():
    setattr(Remote, f"__{_operator}__", _refusing(f"__{_operator}__"))


TYPING_NAMES = frozenset(
    "List Dict Tuple Set FrozenSet Optional Union Any Callable Iterable Iterator Sequence Mapping Type Counter "
    "OrderedDict".split()
)


def test_scope(tests: dict[str, Any], link: Link) -> dict[str, Any]:
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
        elif name in TYPING_NAMES:
            names[name] = getattr(collections if name in ("Counter", "OrderedDict") else typing, name)
        else:
            names[name] = Remote(link, None, name)
    if not entry:
        for name in tests["wanted"]:
            names.setdefault(name, Remote(link, None, name))
    if tests["setup"]:
        exec(programs.compile_plainly(tests["setup"], "<setup>"), names)
    return names


def run_tests(tests: dict[str, Any], link: Link) -> dict[str, Any]:
    """Runs the tests against the candidate behind the link; the result, complete or not, as plain data."""
    result: dict[str, Any] = {"passed": False, "reason": "", "program": None, "status": "ok"}
    try:
        hello = json.loads(link.pipe.receive_text())
        program = hello["program"]
        if program is None:
            return result | {"status": "no_answer", "reason": "no program found"}
        result["program"] = str(program)[:MAX_ANSWER]
        loaded = json.loads(link.pipe.receive_text())
        if not loaded.get("loaded"):
            reason = f"the program does not run: {loaded.get('raised')}"
            if is_out_of_threads(str(loaded.get("raised")), str(loaded.get("text"))):
                return result | {"status": "error", "reason": NO_THREADS}
            return result | {"reason": reason}
    except (EOFError, OSError, ValueError, KeyError, TypeError) as error:
        return result | {"reason": f"the program ended before its tests ({type(error).__name__})"}
    stage = "setup"
    try:
        names = test_scope(tests, link)
        for code in tests["tests"]:
            stage = code.strip().split("\n")[0][:200]
            exec(programs.compile_plainly(code, "<tests>"), names)
        if tests["entry_point"] and "check" in names and not tests["calls_check"]:
            stage = "check"
            names["check"](names[tests["entry_point"]])
        result["passed"] = not link.refused and not link.unsent
        result["reason"] = link.refused
    except CandidateGone as error:
        result["reason"] = str(error)
    except NotSerializable as error:
        result["reason"] = str(error)
    except BaseException as error:  # a failed assertion, or whatever the call raised
        result["reason"] = f"{type(error).__name__} in {stage}: {_text(error)[:200]}"
    if link.refused:
        return result
    if unsent := link.unsent:
        if link.untouched:  # the program has said nothing yet: the tests alone want this
            return result | {"passed": False, "needs_compat": True, "reason": unsent}
        return result | {"passed": False, "status": "error", "reason": f"{unsent}: these tests need mode compat"}
    if link.starved and not result["passed"]:
        return result | {"status": "error", "reason": NO_THREADS}
    if link.judged_itself and result["passed"] and tests["believes_methods"]:
        return result | {"passed": False, "status": "error", "reason": BELIEVED}
    return result


def seed_draws(tests: dict[str, Any]) -> None:
    """Makes the random inputs of the tests the same each time, for numpy too where they use it."""
    random.seed(tests["seed"])
    if "numpy" in "".join([tests["setup"], *tests["tests"]]):
        with contextlib.suppress(Exception):  # the tests say so themselves when it is missing
            importlib.import_module("numpy").random.seed(tests["seed"] % 2**32)


NO_THREADS = "the program could not start a thread here"
BELIEVED = "the tests take the word of a method of the program's own object: they need mode compat"


def plain_result(pipe: Pipe) -> dict[str, Any]:
    """The result from a process in which a program ran beside its tests: only its form is trusted."""
    result: dict[str, Any] = {"passed": False, "reason": "the program ended early", "program": None, "status": "ok"}
    with contextlib.suppress(EOFError, OSError, ValueError, RecursionError):
        said = json.loads(pipe.receive_text())
        if isinstance(said, dict) and said.get("status") in ("ok", "no_answer", "error"):
            program = said.get("program")
            result = {
                "passed": said.get("passed") is True and said["status"] == "ok",
                "reason": str(said.get("reason"))[:500],
                "program": program[:MAX_ANSWER] if isinstance(program, str) else None,
                "status": said["status"],
            }
    return result


def check_together(job: dict[str, Any], tests: dict[str, Any]) -> dict[str, Any]:
    """Program and tests in one process, as openai/human-eval does; the result can be forged by the program."""
    program = programs.extract_program(job["text"], job["prompt"], job["wanted"])
    result: dict[str, Any] = {"passed": False, "reason": "", "program": None, "status": "ok"}
    if program is None:
        return result | {"status": "no_answer", "reason": "no program found"}
    result["program"] = program[:MAX_ANSWER]
    try:
        _thread.stack_size(THREAD_STACK)
        names = load_program(job, program).__dict__
        seed_draws(tests)
        if tests["setup"]:
            exec(programs.compile_plainly(tests["setup"], "<setup>"), names)
        if tests["entry_point"]:
            names["candidate"] = names.get(tests["entry_point"])
        for code in tests["tests"]:
            exec(programs.compile_plainly(code, "<tests>"), names)
        if tests["entry_point"] and "check" in names and not tests["calls_check"]:
            names["check"](names[tests["entry_point"]])
        result["passed"] = True
    except BaseException as error:  # the program may raise anything, SystemExit included
        result["reason"] = f"{type(error).__name__}: {_text(error)[:200]}"
        if is_out_of_threads(type(error).__name__, _text(error)):
            result |= {"status": "error", "reason": NO_THREADS}
    return result
