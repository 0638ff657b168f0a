"""Finds the program in a model's answer: fenced or bare, whole or a completion of the prompt, with prose around it.

Pure functions on text; parsing untrusted text costs time and memory, so the sandbox calls this inside the candidate's
own process, before anything of the candidate runs.

Not covered: languages other than Python.
"""

from __future__ import annotations

import ast
import builtins
import functools
import os
import re
import symtable
import textwrap
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

MAX_TEXT = 200_000  # characters of an answer
_BUILTINS = frozenset(dir(builtins))
MAX_CUTS = 60  # shorter and shorter pieces tried

# Before Python 3.11.8 all threads count the depth of `ast.parse` in one place: a garbage collection in its middle lets
# another thread go on, and it raises SystemError (python/cpython#106905). Nor is `catch_warnings` safe for threads.
_TURN = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child must not inherit a turn that some other thread of the parent had
    os.register_at_fork(before=_TURN.acquire, after_in_parent=_TURN.release, after_in_child=_TURN.release)

_FENCE = re.compile(r"^[ \t]*(?P<fence>```+|~~~+)[ \t]*(?P<tag>[\w+.#-]*)[^\n]*$", re.M)
_MARKS = (("[BEGIN]", "[DONE]"), ("[PYTHON]", "[/PYTHON]"), ("<code>", "</code>"))
_END = re.compile(r"<\|(?:im_end|im_start|endoftext|end_of_text|eot_id|end)\|>|</s>\s*$")
_HARD_BLANKS = re.compile(r"^[ \t\u00a0]+", re.M)
_PYTHON = frozenset(["", "python", "py", "python3", "py3", "python2", "ipython", "pycon", "code"])
_START = re.compile(r"^(?:from|import|def|class|async def|@|[A-Za-z_]\w*\s*(?::[^=\n]+)?=)(?=\s|\w|[^\w\s]|$)", re.M)


def extract_program(text: str, prompt: str = "", wanted: Sequence[str] = ()) -> str | None:
    """The program to run, or None when the answer holds none.

    Args:
        text: The response.
        prompt: Code that a completion may continue (HumanEval); '' when answers are whole programs.
        wanted: Names the tests call; a piece that defines one of them is preferred, the last such piece wins.
    """
    text = text[:MAX_TEXT].replace("\r\n", "\n").replace("\r", "\n")
    text = _END.split(text, maxsplit=1)[0]
    if "```" in text:
        text = "\n".join(_unglued(line) for line in text.split("\n"))
    text = _HARD_BLANKS.sub(lambda match: match[0].replace("\u00a0", " "), text) if "\u00a0" in text else text
    if text.lstrip("\ufeff") != text:
        text = text.lstrip("\ufeff")
    pieces = list(_pieces(text))
    for i in reversed(range(len(pieces))):  # the last whole program is the answer
        if program := _whole(pieces[i], wanted):
            return _with_the_rest(program, pieces[:i], pieces[i + 1 :], wanted)
    for piece in reversed(pieces):
        if _defines(piece, wanted) and (program := _buried(piece, prompt, wanted)):
            return program
    for piece in reversed(pieces):
        if prompt and (program := _completion(piece, prompt, wanted)):
            return program
    if len(pieces) > 1:
        joined = "\n\n".join(pieces)
        if program := _whole(joined, wanted):
            return program
    if pieces:
        for piece in reversed(pieces):
            if not prompt and parse_program(piece) and piece.strip():
                return piece
        return None
    if program := _whole(text, wanted):
        return program
    if prompt and not _defines(text, wanted) and (program := _completion(text, prompt, wanted)):
        return program
    return _buried(text, prompt, wanted)


def _with_the_rest(program: str, before: Sequence[str], after: Sequence[str], wanted: Sequence[str]) -> str:
    """The program with the pieces that bind what it reads and does not bind itself: imports, constants, helpers.

    Of two pieces that bind a name, the nearest before the program counts, else the first behind it. A piece from
    behind that reads a name of the program's is run behind it, all others in front.
    """
    bound, missing = _names(program)
    own = bound
    missing |= set(wanted) - bound
    front: list[tuple[int, str]] = []
    back: list[str] = []
    sources = [(-i, piece) for i, piece in enumerate(reversed(before), 1)] + list(enumerate(after, 1))
    while missing:
        found = None
        for place, piece in sources:
            binds, reads = _names(piece)
            if binds & missing:
                found = (place, piece, binds, reads)
                break
        if found is None:
            break
        place, piece, binds, reads = found
        sources.remove((place, piece))
        if place > 0 and reads & own:
            back.append(piece)
        else:
            front.append((place, piece))
        bound = bound | binds
        missing = (missing | reads) - bound
    if not front and not back:
        return program
    whole = "\n\n".join([*(piece for _, piece in sorted(front)), program, *back])
    lines = whole.split("\n")
    future = [line for line in lines if line.startswith("from __future__ import ")]  # must stand first
    whole = "\n".join([*future, *(line for line in lines if line not in future)])
    return whole if compile_program(whole) is not None else program


def _names(code: str) -> tuple[set[str], set[str]]:
    """Names that a piece of Python binds at its top level, and those it reads and does not bind."""
    top = module_names(code)
    if top is None:
        return set(), set()
    bound = {name.get_name() for name in top.get_symbols() if name.is_assigned() or name.is_imported()}
    read, tables = set(), [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        read |= {
            name.get_name()
            for name in table.get_symbols()
            if name.is_referenced() and (name.is_global() or table is top)
        }
    return bound, read - bound - _BUILTINS


def _pieces(text: str) -> Iterator[str]:
    """The fenced or marked stretches, in order; an unclosed one runs to the end."""
    for left, right in _MARKS:
        if left in text:
            for part in text.split(left)[1:]:
                inside = part.partition(right)[0].strip("\n")
                yield from _fenced(inside) if _FENCE.search(inside) else iter([inside])
            return
        if right in text and left == "[BEGIN]":  # the prompt ended in [BEGIN]
            inside = text.partition(right)[0].strip("\n")
            yield from _fenced(inside) if _FENCE.search(inside) else iter([inside])
            return
    yield from _fenced(text)


def _fenced(text: str) -> Iterator[str]:
    opened: re.Match[str] | None = None
    for match in _FENCE.finditer(text):
        if opened is None:
            opened = match
        elif _indent(match) > _indent(opened) + 3:  # a fence inside a docstring
            continue
        elif match["fence"][0] == opened["fence"][0] and not match["tag"]:
            if opened["tag"].lower() in _PYTHON:
                yield _dedent(text[opened.end() : match.start()].strip("\n"), opened)
            opened = None
        elif match["tag"].lower() in _PYTHON:  # a new block without the old one closed
            yield _dedent(text[opened.end() : match.start()].strip("\n"), opened)
            opened = match
    if opened is not None and opened["tag"].lower() in _PYTHON:
        rest, before = text[opened.end() :].strip("\n"), text[: opened.start()].rstrip("\n")
        if rest.strip():
            yield _dedent(rest, opened)
        if before.strip() and not opened["tag"]:  # perhaps a closing fence whose opening was in the prompt
            yield before


def _unglued(line: str) -> str:
    """A line of code with the closing fence behind it, as two lines."""
    code = line.rstrip()[:-3] if line.rstrip().endswith("```") else ""
    return f"{code}\n```" if code.strip() and not code.endswith("`") and not code.lstrip().startswith("```") else line


def _indent(fence: re.Match[str]) -> int:
    return len(fence[0]) - len(fence[0].lstrip())


def _defines(code: str, wanted: Sequence[str]) -> bool:
    """Whether a line of the text starts the definition of a wanted name: then it is no mere body."""
    return any(re.search(rf"^(?:async )?(?:def|class) {re.escape(name)}\b", code, re.M) for name in wanted)


def _dedent(code: str, fence: re.Match[str]) -> str:
    """Blocks inside lists are indented as a whole; a completion's own indentation stays."""
    code = re.sub(r"^(?:>>> |\.\.\. )", "", code, flags=re.M) if code.startswith(">>> ") else code
    return textwrap.dedent(code) if fence[0][:1].isspace() else code


def parse_program(code: str) -> ast.Module | None:
    """The syntax tree, None when the text is no Python."""
    return _quietly(ast.parse, code)


def canonical_program(code: str) -> str:
    """The program without formatting and comments, so that equal programs are equal texts; unchanged if no Python."""
    tree = parse_program(code)
    try:
        return code if tree is None else ast.unparse(tree)
    except (ValueError, RecursionError):
        return code


def module_names(code: str) -> symtable.SymbolTable | None:
    """The names of a module, None when the text is no Python; a third of the cost of `parse_program`."""
    return _quietly(symtable.symtable, code, "<program>", "exec")


@functools.lru_cache(maxsize=4)
def compile_program(code: str) -> types.CodeType | None:
    """The code object, None when it does not compile (a `return` outside a function parses, but does not)."""
    return _quietly(compile_plainly, code, "<program>")


def compile_plainly(code: str | ast.Module, name: str) -> types.CodeType:
    """As `compile`, but this module's own `from __future__` lines do not hold for the code."""
    return compile(code, name, "exec", dont_inherit=True)


def _quietly(read: Callable[..., Any], *words: str) -> Any:
    """What one of Python's own readers of source makes of a text, None when it is no Python; threads take turns."""
    try:
        with _TURN, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return read(*words)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _good(code: str, wanted: Sequence[str]) -> bool:
    """Whether the code is Python that binds one of the wanted names at its top level (or, with none, defines any)."""
    if wanted and not any(name in code for name in wanted):
        return False
    names = module_names(code)
    if names is None or compile_program(code) is None:
        return False
    if wanted:
        known = frozenset(names.get_identifiers())
        return any(name in known and names.lookup(name).is_assigned() for name in wanted)
    tree = parse_program(code)
    return tree is not None and any(isinstance(node, (ast.FunctionDef, ast.ClassDef)) for node in tree.body)


def _whole(code: str, wanted: Sequence[str]) -> str | None:
    for candidate in (code, textwrap.dedent(code)):
        if _good(candidate, wanted):
            return candidate
    return None


def _completion(code: str, prompt: str, wanted: Sequence[str]) -> str | None:
    """The prompt continued by the code, which may lack its first indentation or run on into other text."""
    if not code.strip():
        return None
    code = code.rstrip()
    lines = code.split("\n")
    first = next((line for line in lines if line.strip()), "")
    indented = textwrap.indent(textwrap.dedent(code), "    ")
    variants = [code, indented, "    " + code.lstrip()] if first[:1].isspace() else ["    " + code.lstrip(), indented]
    if not first[:1].isspace() and (start := next((i for i, line in enumerate(lines) if line[:1].isspace()), 0)):
        variants.append("\n".join(lines[start:]))  # prose, then the body
    base = prompt if prompt.endswith("\n") else prompt + "\n"
    for variant in variants:
        if _has_body(variant) and _good(base + variant, wanted):
            return base + variant + "\n"
    if module_names(prompt.rstrip() + "\n    pass\n") is None:
        return None
    for variant in variants:  # a body, then prose or the next question
        body = variant.split("\n")
        ends = [i for i, line in enumerate(body) if i and line.strip() and not line[0].isspace()]
        for end in [*ends[:MAX_CUTS], *range(len(body) - 1, max(0, len(body) - MAX_CUTS), -1)]:
            part = "\n".join(body[:end]).rstrip() + "\n"
            if _has_body(part) and _good(base + part, wanted):
                return base + part
    return None


def _has_body(code: str) -> bool:
    """Whether there is more than blank lines and comments."""
    return any(line.strip() and not line.lstrip().startswith("#") for line in code.split("\n"))


def _buried(text: str, prompt: str, wanted: Sequence[str]) -> str | None:
    """Code without fences in the middle of prose: from a line that starts code, as far as it parses."""
    starts = [match.start() for match in _START.finditer(text)][:MAX_CUTS]
    best: str | None = None
    for start in starts:
        if best is not None and len(text) - start < len(best):
            break
        lines = text[start:].rstrip().split("\n")
        ends = [len(lines), *[i for i in range(len(lines) - 1, 0, -1) if lines[i][:1].strip()][:MAX_CUTS]]
        for end in ends:
            code = "\n".join(lines[:end]).rstrip()
            if _good(code, wanted):
                return code + "\n"
    return best
