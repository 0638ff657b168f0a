"""The fork server of the sandbox: a bare interpreter that forks one walled-in process per untrusted program.

It never runs untrusted code, never holds a test (the tests' process reads them from the request pipe itself, after
the candidate was forked), and serves one request at a time. It ends when its input closes, and takes all it forked
with it.

Not covered: who asks and what is asked; see `sandbox` for the parent's side.
Above 300 lines because serving, forking and reaping are one loop over the same processes.
"""

from __future__ import annotations

# ruff: noqa: SIM905  (a list of words reads best as words)
import base64
import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

from verifiers import layers, literals, programs, split_tests

_LENGTH = struct.Struct(">I")
PRELOAD = (
    "bisect collections collections.abc copy functools heapq itertools math operator random re string typing"
).split()
READ = b"R"  # on the result pipe: the tests' frame has left the request pipe
MAX_OUTPUT = 64 * 1024  # bytes of standard output kept; the rest is read and dropped


class Walls:
    """What a forked process puts around itself, prepared once."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.layers: list[str] = ["bwrap"] if config["bwrap"] else []
        self.ruleset: int | None = None
        self.filter: bytes | None = base64.b64decode(config["filter"]) if config["filter"] else None
        self.own_pids = config["bwrap"]
        self.config = config

    def prepare(self) -> None:
        """Leaves the namespaces and root behind; what is not allowed here is left out of `layers`."""
        if not self.config["bwrap"]:
            got = layers.unshare(["net", "pid", "ipc", "mount", "uts"]) or layers.unshare(["net", "ipc", "uts"])
            if "pid" in got:
                become_init()
                self.own_pids = True
            if "mount" in got:
                if os.geteuid() == 0:
                    with contextlib.suppress(OSError):
                        layers.reveal(self.config["read"])
                for path in ("/proc", "/sys", "/tmp", "/run", "/home", "/root", "/mnt", "/srv"):
                    if not any(read.startswith(path + "/") for read in (*self.config["read"], sys.prefix)):
                        layers.hide(path)
            self.layers += [f"{name}ns" for name in got]
        if layers.drop_uid():
            self.layers.append("uid")
        if self.own_pids and not self.config["bwrap"]:
            layers.die_with_parent()  # again: a change of uid clears it
        with contextlib.suppress(OSError):
            layers.drop_capabilities()
        layers.undumpable()
        self.layers.append("rlimits")
        with contextlib.suppress(OSError):
            self.ruleset = layers.landlock_ruleset(self.config["read"])
            self.layers.append(f"landlock{layers.landlock_abi()}")

    def enter(self, memory: int, cpu: float) -> None:
        """In the forked process: every wall, in the order in which each still can be put up."""
        layers.die_with_parent()
        layers.limits(memory, cpu)
        layers.no_new_privileges()
        if self.ruleset is not None:
            layers.landlock_enter(self.ruleset)
            os.close(self.ruleset)
        if self.filter is not None:
            layers.seccomp_enter(self.filter)


def become_init() -> None:
    """Forks into the new pid namespace; the outer process only waits, holding no pipe."""
    pid = os.fork()
    if pid == 0:
        layers.die_with_parent()
        return
    os.closerange(0, 3)
    layers.close_all_but(())
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)
    os._exit(0)


class Zygote:
    """Serves requests: a frame with the job, a frame with the tests, one frame back."""

    def __init__(self, walls: Walls) -> None:
        self.walls = walls
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def fork(self, keep: list[int], output: int, job: dict[str, Any], run: Callable[[], None]) -> int:
        """Starts `run` in a process of its own; returns its id."""
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, signal.SIG_DFL)
            os.dup2(output, 1)
            os.dup2(output, 2)
            extra = [self.walls.ruleset] if self.walls.ruleset is not None else []
            layers.close_all_but([*keep, *extra])
            self.walls.enter(job["memory"], job["limit"] + 1)
            random.seed(0)
            run()
        finally:
            os._exit(0)

    def serve_split(self, job: dict[str, Any]) -> dict[str, Any]:
        to_candidate, from_tests = os.pipe()[::-1]
        from_candidate, to_tests = os.pipe()
        result_in, result_out = os.pipe()
        output_in, output_out = os.pipe()

        def candidate() -> None:
            os.dup2(self.null, 0)
            split_tests.serve(job, split_tests.Pipe(from_tests, to_tests, 4 * literals.MAX_TRUSTED))

        def tests() -> None:
            frame = self.read_tests(result_out)
            link = split_tests.Link(split_tests.Pipe(from_candidate, to_candidate))
            answer = split_tests.check(frame, link)
            split_tests.Pipe(-1, result_out).send(json.dumps(answer))

        started = time.monotonic()
        pids = [self.fork([from_tests, to_tests, self.null], output_out, job, candidate)]
        for fd in (from_tests, to_tests, output_out):
            os.close(fd)
        pids.append(self.fork([from_candidate, to_candidate, result_out, self.null], self.null, job, tests))
        for fd in (from_candidate, to_candidate, result_out):
            os.close(fd)
        return self.collect(pids, result_in, output_in, started + job["limit"])

    def serve_together(self, job: dict[str, Any]) -> dict[str, Any]:
        result_in, result_out = os.pipe()
        output_in, output_out = os.pipe()

        def both() -> None:
            frame = self.read_tests(result_out)
            answer = split_tests.check_together(job, frame)
            split_tests.Pipe(-1, result_out).send(json.dumps(answer))

        started = time.monotonic()
        pids = [self.fork([result_out, self.null], output_out, job, both)]
        os.close(result_out)
        os.close(output_out)
        return self.collect(pids, result_in, output_in, started + job["limit"])

    def read_tests(self, result: int) -> dict[str, Any]:
        """In the tests' process: the second frame, straight from the request pipe, which is then let go."""
        frame = json.loads(read_frame(0))
        os.dup2(self.null, 0)
        os.write(result, READ)
        return frame

    def collect(self, pids: list[int], result: int, output: int, deadline: float) -> dict[str, Any]:
        """Waits for the result, the deadline or the parent's end; then nothing that was forked is left."""
        text, printed, late = b"", b"", False
        poll = select.poll()
        poll.register(0, 0)  # hang-up only
        poll.register(result, select.POLLIN)
        poll.register(output, select.POLLIN)
        try:
            while True:
                left = deadline - time.monotonic()
                if left <= 0:
                    late = True
                    break
                events = dict(poll.poll(left * 1000))
                if events.get(0, 0) & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                    break
                if output in events:
                    part = os.read(output, 65536)
                    printed = (printed + part)[:MAX_OUTPUT]
                    if not part:
                        poll.unregister(output)
                if result in events:
                    part = os.read(result, 65536)
                    text += part
                    if not part or len(text) > 2 * literals.MAX_TEXT:
                        break
        finally:
            self.sweep(pids)
            os.close(result)
            os.close(output)
        answer: dict[str, Any] = {"passed": False, "program": None, "desynced": not text.startswith(READ)}
        if late:
            return answer | {"status": "timeout", "reason": "out of time"}
        try:
            answer |= json.loads(text[len(READ) + _LENGTH.size :])
        except ValueError:
            return answer | {"status": "lost", "reason": "the tests' process ended early"}
        return answer | {"output": printed.decode("utf-8", "replace")[-2000:]}

    def sweep(self, pids: list[int]) -> None:
        """Kills what was forked, and in an own pid namespace everything else in it, and buries all."""
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        if self.walls.own_pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def probe(walls: Walls) -> dict[str, bool]:
    """Tries, inside all walls, what they must stop; {attempt: stopped}."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        found: dict[str, bool] = {}
        try:
            walls.enter(2**30, 5)
            for name, attempt in _ATTEMPTS.items():
                try:
                    attempt()
                    found[name] = False
                except OSError:
                    found[name] = True
            os.write(writer, json.dumps(found).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    return json.loads(text) if text else {}


def _fork_and_exit() -> None:
    if os.fork() == 0:
        os._exit(0)


_ATTEMPTS: dict[str, Callable[[], Any]] = {
    "read": lambda: os.listdir("/"),
    "write": lambda: os.open("/tmp/verifiers-probe", os.O_WRONLY | os.O_CREAT, 0o600),
    "socket": lambda: importlib.import_module("socket").socket().close(),
    "fork": _fork_and_exit,
    "signal": lambda: os.kill(1, 0),
}


def warm_up() -> None:
    """Uses the reader of programs once, on a text of our own, so that no child pays for its first use."""
    prompt = 'def f(x: int) -> int:\n    """Twice."""\n'
    for text in ("    return 2 * x\n", f"Text\n```python\n{prompt}    return 2 * x\n```\n", "no program"):
        programs.extract(text, prompt, ["f"])
    literals.read(literals.write(([1, "a", 2.5, {"k": (None, True)}], {})))


def read_frame(fd: int) -> bytes:
    """One framed message."""
    (length,) = _LENGTH.unpack(split_tests.read_exactly(fd, _LENGTH.size))
    return split_tests.read_exactly(fd, length)


def main(args: list[str]) -> NoReturn:
    """args: the configuration as JSON, the lifeline (unused: the request pipe's end says the same)."""
    config = json.loads(args[0])
    warnings.simplefilter("ignore")
    for name in PRELOAD:
        importlib.import_module(name)
    walls = Walls(config)
    walls.prepare()
    stopped = probe(walls)
    if walls.filter is not None and stopped.get("socket") and stopped.get("fork") and stopped.get("signal"):
        walls.layers.append("seccomp")
    elif walls.filter is not None:
        walls.filter = None
    if walls.ruleset is not None and not (stopped.get("read") and stopped.get("write")):
        walls.layers = [layer for layer in walls.layers if not layer.startswith("landlock")]
    sink = os.dup(1)
    zygote = Zygote(walls)
    os.dup2(zygote.null, 1)

    def reply(value: dict[str, Any]) -> None:
        split_tests.Pipe(-1, sink).send(json.dumps(value))

    reply({"layers": walls.layers, "stopped": stopped})
    sys.path[:] = config["paths"]
    warm_up()
    gc.collect()
    gc.freeze()
    while True:
        try:
            job = json.loads(read_frame(0))
        except EOFError:
            os._exit(0)
        answer = zygote.serve_split(job) if job["mode"] == "split" else zygote.serve_together(job)
        reply(answer)
        if answer["desynced"]:  # the tests' frame lies half read in the request pipe
            os._exit(0)
