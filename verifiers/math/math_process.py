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
import resource
import signal
import struct
import sys
import time
from typing import Any

from verifiers.math import forms, latex_math, numeric, symbolic
from verifiers.math.latex_math import CannotTell, NotMath

MEMORY = 2 * 2**30  # bytes of address space
_LENGTH = struct.Struct(">I")


class ScalarJudge:
    """Judges two scalar expressions; remembers which stage decided."""

    def __init__(self) -> None:
        self.rung = "form"

    def __call__(self, gold: str, given: str) -> bool:
        try:
            a, b = latex_math.parse_latex(gold), latex_math.parse_latex(given)
        except NotMath:
            self.rung = "math-verify"
            return symbolic.symbolic_equal(gold, given, _warm_up)
        if "inf" in latex_math.operator_kinds(a) | latex_math.operator_kinds(b):
            return a == b
        self.rung = "numeric"
        return numeric.values_equal(a, b, (gold, given))

    def is_proportional(self, gold: str, given: str, signed: bool) -> bool:
        """Whether one expression is a constant multiple (a positive one, when `signed`) of the other.

        Args:
            gold, given: Texts in LaTeX.
            signed: Whether the factor must be positive.
        """
        try:
            a, b = latex_math.parse_latex(gold), latex_math.parse_latex(given)
        except NotMath as error:
            raise CannotTell(f"an equation is not understood: {error}") from None
        self.rung = "numeric"
        return numeric.is_proportional(a, b, (gold, given), signed)


def _announce(value: dict[str, Any]) -> None:
    """Sends a frame that is not an answer; set by `main`."""


def _warm_up() -> None:
    """Imports math-verify when it is first needed: a second of CPU time that the parent must not count as thinking."""
    if "math_verify" not in sys.modules:
        _announce({"warming": True})
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
        import math_verify.parser

        math_verify.parser.TIMEOUT_WARNING_SHOWN = True
        _announce({"warm": True})


def answer_request(request: dict[str, str]) -> dict[str, Any]:
    """One request's answer: {"equal": bool, "rung": ...} or {"error": text}."""
    if "text" in request:
        return _library(request["gold"], request["text"])
    leaf = ScalarJudge()
    try:
        return {
            "equal": forms.answers_equal(request["gold"], request["given"], leaf, request.get("question", "")),
            "rung": leaf.rung,
        }
    except CannotTell as error:
        return {"error": str(error), "rung": leaf.rung}
    except Exception as error:  # this process is the sandbox of math-verify, which may raise anything on odd text
        return {"error": f"{type(error).__name__}: {error}"[:300], "rung": leaf.rung}


def _library(gold: str, text: str) -> dict[str, Any]:
    """math-verify on a whole response with its own settings, its own time limits included."""
    _warm_up()
    from math_verify import parse, verify

    try:
        found = parse(text)
        return {"equal": bool(verify(parse(f"${gold}$"), found)), "answer": str(found[-1]) if found else None}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


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
        reply(answer_request(json.loads(data)))
