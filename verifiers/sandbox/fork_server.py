"""The fork server of the sandbox: a bare interpreter that forks one walled-in process per untrusted program.

It never runs untrusted code, never holds a program, a test or a result (see `ForkServer`), so that a program can find
nothing of another's in what it inherits, and serves one request at a time. It ends when its input closes, and takes
all it forked with it.

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

from verifiers.sandbox import layers, literals, programs, two_processes

_LENGTH = struct.Struct(">I")
PRELOAD = (
    "bisect collections collections.abc copy functools heapq itertools math operator random re string typing"
).split()
READ = b"R"  # the tests' process: the request pipe is empty
DONE = b"D"  # the tests' process: the reply follows on the reply pipe
SENT = b"S"  # the tests' process: all of it is there
SEND_LIMIT = 5.0  # seconds a reply may take to leave once it is announced


class IsolationLayers:
    """What a forked process puts around itself, prepared once."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.layers: list[str] = ["bwrap"] if config["bwrap"] else []
        self.ruleset: int | None = None
        self.filter: bytes | None = base64.b64decode(config["filter"]) if config["filter"] else None
        self.own_pids = config["bwrap"]
        self.processes = 4096
        self.notes: list[str] = []  # for the user: why a layer is missing
        self.config = config

    def prepare_layers(self) -> None:
        """Leaves the namespaces and root behind; what is not allowed here is left out of `layers`."""
        if not self.config["bwrap"]:
            got = layers.unshare_namespaces(["net", "pid", "ipc", "mount", "uts"]) or layers.unshare_namespaces(
                ["net", "ipc", "uts"]
            )
            if "pid" in got:
                become_init()
                self.own_pids = True
            if "mount" in got:
                self.hide_folders()
            self.layers += [f"{name}ns" for name in got]
        if os.geteuid() == 0 and (unreadable := self.unreadable_folder()):
            self.notes.append(
                f"once root is left, Python's own {unreadable} cannot be read (a folder above it is closed to other "
                "users); use a Python that every user can read, or an ordinary user"
            )
        uid = None if self.notes and self.config["unsafe"] else layers.drop_uid()
        if uid is not None:
            self.layers.append("uid")
        if uid not in (None, layers.NOBODY):
            self.processes = 256  # threads of this server's programs only; without an id of its own, of all the user's
        if self.own_pids and not self.config["bwrap"]:
            layers.die_with_parent()  # again: a change of uid clears it
        with contextlib.suppress(OSError):
            layers.drop_capabilities()
        layers.forbid_tracing()
        self.layers.append("rlimits")
        with contextlib.suppress(OSError):
            self.ruleset = layers.landlock_ruleset(self.config["read"])
            self.layers.append(f"landlock{layers.landlock_abi()}")

    def unreadable_folder(self) -> str:
        """The first of Python's folders that the lower uid could not read, '' for none; tried in a forked process."""
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                layers.drop_uid()
                for path in self.config["paths"]:
                    try:
                        os.listdir(path)
                    except (FileNotFoundError, NotADirectoryError):  # python311.zip
                        continue
                    except OSError:
                        os.write(writer, path.encode())
                        break
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as stream:
            found = stream.read().decode("utf-8", "replace")
        os.wait()
        return found

    def hide_folders(self) -> None:
        """In an own mount namespace: what is not Python's is not even a name in these folders."""
        if os.geteuid() == 0:
            with contextlib.suppress(OSError):
                layers.reveal_paths(self.config["read"])
        for folder in ("/sys", "/tmp", "/run", "/home", "/root", "/mnt", "/srv", "/proc"):  # /proc is needed until then
            inside = [path for path in self.config["read"] if path.startswith(folder + "/")]
            if os.path.isdir(folder):
                with contextlib.suppress(OSError):
                    layers.cover_folder(folder, inside)

    def enter_layers(self, memory: int, cpu: float) -> None:
        """In the forked process: every isolation layer, in the order in which each can still be set up."""
        layers.die_with_parent()
        layers.set_limits(memory, cpu, self.processes)
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


class ForkServer:
    """Serves requests: three frames in (`Job.request_frames`), one frame back.

    This process reads the first frame only, which holds limits. The two it forks read the rest from the request pipe
    themselves, each its own frame, and the reply goes to the parent without passing through here: nothing of a job is
    ever in the memory that later programs inherit.
    """

    def __init__(self, walls: IsolationLayers, sink: int) -> None:
        self.walls, self.sink = walls, sink
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def fork_process(self, keep: list[int], run: Callable[[], None]) -> int:
        """Starts `run`, which sets up its own isolation, in a process of its own; returns its id."""
        pid = os.fork()
        if pid:
            return pid
        try:
            os.setsid()
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, signal.SIG_DFL)
            os.dup2(self.null, 2)
            extra = [self.walls.ruleset] if self.walls.ruleset is not None else []
            layers.close_all_but([*keep, self.null, *extra])
            layers.die_with_parent()
            run()
        finally:
            os._exit(0)

    def serve_job(self, job: dict[str, Any]) -> bool:
        """Runs one request; whether the request pipe and the reply pipe are still in step."""
        split = job["mode"] == "split"
        to_candidate, from_tests = os.pipe()[::-1]
        from_candidate, to_tests = os.pipe()
        state_in, state_out = os.pipe()

        def enter() -> None:
            self.walls.enter_layers(job["memory"], job["limit"] + 1)

        def candidate() -> None:
            pipe = two_processes.Pipe(from_tests, to_tests, 4 * literals.MAX_TEXT)
            known = self.read_last()
            pipe.send_text("")  # the next frame is the tests'
            enter()
            random.seed(0)
            two_processes.serve_candidate(json.loads(known), pipe)

        def tests() -> None:
            enter()
            pipe = two_processes.Pipe(from_candidate, to_candidate)
            pipe.receive_text()
            frame = json.loads(self.read_last())
            os.write(state_out, READ)
            two_processes.seed_draws(frame)
            self.send_reply(two_processes.run_tests(frame, two_processes.Link(pipe)), state_out)

        def both() -> None:
            known, frame = json.loads(read_frame(0)), json.loads(self.read_last())
            pipe = two_processes.Pipe(-1, to_tests)
            pipe.send_text("")
            enter()
            random.seed(0)
            pipe.send_text(json.dumps(two_processes.check_together(known, frame)))

        def relay() -> None:  # runs nothing of the job's: no isolation
            pipe = two_processes.Pipe(from_candidate, -1)
            os.dup2(self.null, 0)
            pipe.receive_text()
            os.write(state_out, READ)
            self.send_reply(two_processes.plain_result(pipe), state_out)

        deadline = time.monotonic() + job["limit"]
        pids = [self.fork_process([from_tests, to_tests], candidate if split else both)]
        for fd in (from_tests, to_tests):
            os.close(fd)
        kept = [from_candidate, to_candidate, state_out, self.sink]
        pids.append(self.fork_process(kept, tests if split else relay))
        for fd in (from_candidate, to_candidate, state_out):
            os.close(fd)
        return self.wait_for_reply(pids, state_in, deadline)

    def read_last(self) -> bytes:
        """In a forked process: one frame from the request pipe, which is then let go."""
        frame = read_frame(0)
        os.dup2(self.null, 0)
        return frame

    def send_reply(self, answer: dict[str, Any], state: int) -> None:
        """In the tests' process: announces the reply, so that nobody else writes one, then sends it."""
        text = json.dumps(answer)
        os.write(state, DONE)
        two_processes.Pipe(-1, self.sink).send_text(text)
        os.write(state, SENT)

    def reply(self, value: dict[str, Any]) -> None:
        """This process's own reply."""
        two_processes.Pipe(-1, self.sink).send_text(json.dumps(value))

    def wait_for_reply(self, pids: list[int], state: int, deadline: float) -> bool:
        """Waits for the reply, the deadline or the parent's end; then nothing that was forked is left.

        Args:
            pids: The processes that were forked; they are killed in the end.
            state: A pipe on which they tell how far they are.
            deadline: Of `time.monotonic`, in seconds.
        """
        told, late = b"", False
        poll = select.poll()
        poll.register(0, 0)  # hang-up only
        poll.register(state, select.POLLIN)
        try:
            while True:
                if DONE in told:
                    deadline = max(deadline, time.monotonic() + SEND_LIMIT)
                late = time.monotonic() >= deadline
                if late:
                    break
                events = dict(poll.poll((deadline - time.monotonic()) * 1000))
                if events.get(0, 0) & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
                    break
                if state in events:
                    part = os.read(state, 16)
                    told += part
                    if not part or SENT in part:
                        break
        finally:
            self.kill_children(pids)
        while part := os.read(state, 16):  # all who could write are dead: this ends
            told += part
        os.close(state)
        if DONE not in told:
            status, reason = ("timeout", "out of time") if late else ("lost", "the tests' process ended early")
            self.reply({"passed": False, "program": None, "status": status, "reason": reason})
        return READ in told and (SENT in told or DONE not in told)

    def kill_children(self, pids: list[int]) -> None:
        """Kills what was forked, and in an own pid namespace everything else in it, and buries all."""
        for pid in reversed(pids):  # the tests' process first: it must not report the end of the program as its own
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


def probe_isolation(walls: IsolationLayers) -> dict[str, bool]:
    """Tries, inside all isolation layers, what they must stop; {attempt: stopped}."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        found: dict[str, bool] = {}
        try:
            walls.enter_layers(2**30, 5)
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
        programs.extract_program(text, prompt, ["f"])
    literals.read_value(literals.write_value(([1, "a", 2.5, {"k": (None, True)}], {})))


def read_frame(fd: int) -> bytes:
    """One framed message."""
    (length,) = _LENGTH.unpack(two_processes.read_exactly(fd, _LENGTH.size))
    return two_processes.read_exactly(fd, length)


def main(args: list[str]) -> NoReturn:
    """args: the configuration as JSON, the lifeline (unused: the request pipe's end means the same)."""
    config = json.loads(args[0])
    warnings.simplefilter("ignore")
    for name in PRELOAD:
        importlib.import_module(name)
    walls = IsolationLayers(config)
    walls.prepare_layers()
    stopped = probe_isolation(walls)
    if walls.filter is not None and stopped.get("socket") and stopped.get("fork") and stopped.get("signal"):
        walls.layers.append("seccomp")
    elif walls.filter is not None:
        walls.filter = None
    if walls.ruleset is not None and not (stopped.get("read") and stopped.get("write")):
        walls.layers = [layer for layer in walls.layers if not layer.startswith("landlock")]
    zygote = ForkServer(walls, os.dup(1))
    os.dup2(zygote.null, 1)
    zygote.reply({"layers": walls.layers, "stopped": stopped, "notes": walls.notes})
    sys.path[:] = config["paths"]
    warm_up()
    gc.collect()
    gc.freeze()
    while True:
        try:
            limits = json.loads(read_frame(0))
        except EOFError:
            os._exit(0)
        if not zygote.serve_job(limits):  # a frame lies half read in the request pipe, or half written in the other
            os._exit(0)
