"""The long-lived child that judges math answers: exact, then to many digits, then math-verify; killable at any time.

It bounds its own memory and processor time, and ends with its parent. math-verify's own timeouts are off: the parent
kills a late child instead, so no signal handler is involved on either side.

Not covered: `Expr` extraction of math-verify, which would `parse_expr` (evaluate) the text; only its LaTeX grammar
is used.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import resource
import signal
import struct
import sys
import time
from collections import Counter
from typing import Any

from verifiers import forms, latex_math
from verifiers.latex_math import NotExact, NotMath, Tree, Undefined

MEMORY = 2 * 2**30  # bytes of address space
MAX_COMMANDS = 200
MAX_NESTING = 24  # brackets; math-verify's grammar takes exponential time in them
_LENGTH = struct.Struct(">I")
_TOO_BIG = re.compile(r"\d{300}|\d{5,}\s*!|\^\s*\{?\s*\d{5,}")


class CannotTell(Exception):
    """No rung of the ladder understands the gold answer, or the value is out of reach."""


class Leaf:
    """Judges two scalar expressions; remembers which rung decided."""

    def __init__(self) -> None:
        self.rung = "form"

    def __call__(self, gold: str, given: str) -> bool:
        try:
            a, b = latex_math.read(gold), latex_math.read(given)
        except NotMath:
            self.rung = "math-verify"
            return _math_verify(gold, given)
        if "inf" in _kinds(a) | _kinds(b):
            return a == b
        self.rung = "numeric"
        tried = 0
        for at in latex_math.points(latex_math.variables(a) | latex_math.variables(b), gold + given):
            try:
                if not _same(a, b, at):
                    return False
                tried += 1
            except Undefined:
                continue
        if not tried:
            raise CannotTell("a value too large, or undefined")
        return True

    def proportional(self, gold: str, given: str, signed: bool) -> bool:
        """Whether one expression is a constant multiple (a positive one, when `signed`) of the other."""
        from verifiers import high_precision

        try:
            a = latex_math.read(gold)
        except NotMath as error:
            raise CannotTell(f"the gold equation is not understood: {error}") from None
        try:
            b = latex_math.read(given)
        except NotMath:
            return False
        names = latex_math.variables(a) | latex_math.variables(b)
        ratio = None
        for at in latex_math.points(names, gold + given, count=5):
            try:
                x, y = (high_precision.value(tree, at, 60) for tree in (a, b))
            except Undefined:
                continue
            if abs(x) < 1e-30 or abs(y) < 1e-30:
                return abs(x) < 1e-30 and abs(y) < 1e-30
            if signed and (getattr(x / y, "imag", 0) or (x / y).real <= 0):
                return False
            if ratio is not None and abs(x / y - ratio) > abs(ratio) * 1e-30:
                return False
            ratio = x / y
        return ratio is not None


def _kinds(tree: Tree) -> set[str]:
    return {tree[0]}.union(*(_kinds(part) for part in tree[1:] if isinstance(part, tuple)))


def _same(a: Tree, b: Tree, at: dict[str, Any]) -> bool:
    try:
        return latex_math.exact(a, at) == latex_math.exact(b, at)
    except NotExact:
        from verifiers import high_precision

        return high_precision.same(a, b, at)


def _math_verify(gold: str, given: str) -> bool:
    """math-verify's verdict, less its known false positives."""
    if any(_TOO_BIG.search(t) or t.count("\\") > MAX_COMMANDS or _nesting(t) > MAX_NESTING for t in (gold, given)):
        raise CannotTell("too large for symbolic comparison")
    _warm_up()
    from math_verify import verify
    from math_verify.parser import LatexExtractionConfig, parse

    config = [LatexExtractionConfig()]
    a, b = (
        parse(f"${text}$", config, parsing_timeout=None, fallback_mode="no_fallback")  # pyright: ignore
        for text in (gold, given)
    )
    if not a:
        raise CannotTell("the gold answer is not understood")
    if not b or not verify(a, b, timeout_seconds=None, strict=True):
        return False
    return _marks(gold) == _marks(given) and not _mixed_case(gold, given) and _numbers_agree(a[0], b[0])


def _announce(value: dict[str, Any]) -> None:
    """Sends a frame that is no answer; set by `main`."""


def _warm_up() -> None:
    """Imports math-verify when it is first needed: a second of CPU time that the parent must not count as thinking."""
    if "math_verify" not in sys.modules:
        _announce({"warming": True})
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
        import math_verify.parser

        math_verify.parser.TIMEOUT_WARNING_SHOWN = True
        _announce({"warm": True})


def _nesting(text: str) -> int:
    deepest = depth = 0
    for character in text:
        depth += (character in "({[") - (character in ")}]")
        deepest = max(deepest, depth)
    return deepest


_MARKS = re.compile(
    r"'|\\(?:prime|overline|bar|hat|vec|tilde|dot|ddot|neg|lnot|cap|cup|setminus|backslash|p?mod|bmod|parallel|perp|to"
    r"|land|lor|wedge|vee|star|ast|dagger|top|partial|nabla|forall|exists|Rightarrow|iff|cong|sim|approx|det)(?![A-Za-z])"
)


def _marks(text: str) -> Counter[str]:
    """What math-verify may drop without a word, such as the prime of f'(x)."""
    return Counter(_MARKS.findall(text.replace("\\prime", "'")))


def _mixed_case(gold: str, given: str) -> bool:
    """math-verify reads A and a as one name; we do not."""
    letters = set(re.sub(r"\\[A-Za-z]+", " ", gold + " " + given))
    return any(c.isupper() and c.lower() in letters for c in letters if c not in "EI")


def _numbers_agree(a: Any, b: Any) -> bool:
    """Recomputes equal-looking numbers to 60 digits: math-verify rounds to 6 decimal places."""
    if getattr(a, "free_symbols", True) or getattr(b, "free_symbols", True) or not hasattr(a, "evalf"):
        return True
    try:
        x, y = a.doit().evalf(60), b.doit().evalf(60)
        return bool(abs(x - y) <= abs(x) * 1e-40) or bool(x == y)
    except (TypeError, ValueError, AttributeError):
        return True


def judge(request: dict[str, str]) -> dict[str, Any]:
    """One request's answer: {"equal": bool, "rung": ...} or {"error": text}."""
    leaf = Leaf()
    try:
        return {
            "equal": forms.equal(request["gold"], request["given"], leaf, request.get("question", "")),
            "rung": leaf.rung,
        }
    except CannotTell as error:
        return {"error": str(error), "rung": leaf.rung}
    except Exception as error:  # this process is the sandbox of math-verify, which may raise anything on odd text
        return {"error": f"{type(error).__name__}: {error}"[:300], "rung": leaf.rung}


def die_with(lifeline: int) -> None:
    """SIGIO, whose default is death, when the parent's end of the pipe closes: works even inside one long C call."""
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    try:
        if os.read(lifeline, 1) == b"":
            os._exit(0)  # the parent went away before the signal was armed
    except BlockingIOError:
        pass


def main(args: list[str]) -> None:
    """Serves requests until standard input closes. args: seconds per request, the parent's sys.path, the lifeline."""
    seconds, paths, lifeline = float(args[0]), json.loads(args[1]), int(args[2])
    sys.path[:] = paths
    die_with(lifeline)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY if hard < 0 else min(MEMORY, hard), hard))
    logging.disable(logging.CRITICAL)
    source, sink = sys.stdin.buffer, os.dup(1)
    os.dup2(2, 1)  # whatever a library prints stays out of the answers

    def reply(value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        os.write(sink, _LENGTH.pack(len(data)) + data)

    global _announce
    _announce = reply
    reply({"ready": True})
    while len(header := source.read(_LENGTH.size)) == _LENGTH.size:
        data = source.read(_LENGTH.unpack(header)[0])
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        spent = int(time.process_time() + seconds + 3)
        resource.setrlimit(resource.RLIMIT_CPU, (spent if hard < 0 else min(spent, hard), hard))
        reply(judge(json.loads(data)))
