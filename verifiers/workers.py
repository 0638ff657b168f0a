"""A bounded pool of long-lived child processes that answer framed requests: killable, ordered, safe from any thread.

Children are started by exec in a clean environment, never by forking the caller, so torch and its threads in the
caller do no harm. A request that runs late costs its child: it is killed with its process group and replaced. The
caller's signals are never touched.

Not covered: what a child does; children must end when their standard input (or lifeline) closes.
Above 300 lines because a child and the pool that owns it share one life cycle.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

MAX_FRAME = 64 * 2**20
_LENGTH = struct.Struct(">I")
T = TypeVar("T")
R = TypeVar("R")

BOOT = (
    "import sys, types; p = types.ModuleType('verifiers'); p.__path__ = [sys.argv[1]]; sys.modules['verifiers'] = p; "
    "import importlib; importlib.import_module('verifiers.' + sys.argv[2]).main(sys.argv[3:])"
)
"""Runs one module of this package without importing its siblings: a child stays small and starts fast."""


class WorkerTimeout(Exception):
    """The child did not answer in time and was killed."""


class WorkerDied(Exception):
    """The child ended, or could not be started."""


def child_command(module: str, *args: str, isolated: bool = True) -> list[str]:
    """The command line of a child that runs `verifiers.<module>.main(args)`."""
    flags = ["-B", "-P", "-s"] + (["-S"] if isolated else [])
    return [sys.executable, *flags, "-c", BOOT, str(Path(__file__).parent), module, *args]


def usable_cores() -> int:
    """CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Worker:
    """One child process and the two pipes to it."""

    def __init__(self, argv: Sequence[str], env: dict[str, str], start_limit: float) -> None:
        lifeline, self.lifeline = os.pipe()
        try:
            self.process = subprocess.Popen(
                [*argv, str(lifeline)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if os.environ.get("VERIFIERS_DEBUG") is None else None,
                bufsize=0,
                cwd="/",
                env=env,
                pass_fds=(lifeline,),
                start_new_session=True,
            )
        except OSError as error:
            os.close(self.lifeline)
            raise WorkerDied(f"cannot start {argv[0]}: {error}") from error
        finally:
            os.close(lifeline)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)
        try:
            self.hello = self._receive(time.monotonic() + start_limit)
        except (WorkerDied, WorkerTimeout) as error:
            tail = self._complaint()
            self.kill_child()
            raise WorkerDied(f"{error}{': ' + tail if tail else ''}") from None

    def ask(self, frames: Sequence[bytes], limit: float) -> bytes:
        """Sends the frames, waits for one frame back.

        Raises:
            WorkerTimeout: no whole answer within `limit` seconds.
            WorkerDied: the child ended first.
        """
        deadline = time.monotonic() + limit
        self._send(b"".join(_LENGTH.pack(len(frame)) + frame for frame in frames), deadline)
        return self._receive(deadline)

    def receive_frame(self, limit: float) -> bytes:
        """Waits for one more frame; errors as for `ask`."""
        return self._receive(time.monotonic() + limit)

    def _wait(self, fd: int, event: int, deadline: float) -> None:
        poll = select.poll()
        poll.register(fd, event)
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise WorkerTimeout("no answer in time")

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self.stdin, select.POLLOUT, deadline)
            try:
                view = view[os.write(self.stdin, view[: 2**16]) :]
            except BlockingIOError:
                continue
            except OSError as error:
                raise WorkerDied(f"the worker went away: {error}") from None

    def _receive(self, deadline: float) -> bytes:
        (length,) = _LENGTH.unpack(self._read(_LENGTH.size, deadline))
        if length > MAX_FRAME:
            raise WorkerDied("the worker's answer is malformed")
        return self._read(length, deadline)

    def _read(self, count: int, deadline: float) -> bytes:
        parts = []
        while count:
            self._wait(self.stdout, select.POLLIN, deadline)
            try:
                part = os.read(self.stdout, min(count, 2**20))
            except BlockingIOError:
                continue
            if not part:
                raise WorkerDied("the worker ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _complaint(self) -> str:
        """The last line the child wrote to its standard error, once it has ended."""
        if self.process.stderr is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
            lines = self.process.stderr.read().decode("utf-8", "replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""

    def kill_child(self) -> None:
        """Ends the child and its process group now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.forget_child()

    def close(self) -> None:
        """Lets the child end by itself, then makes sure."""
        self.process.stdin.close()  # pyright: ignore[reportOptionalMemberAccess]
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1.0)
        self.kill_child()

    def forget_child(self) -> None:
        """Closes this side's ends and never looks at the child again."""
        if self.lifeline < 0:
            return
        os.close(self.lifeline)
        self.lifeline = -1
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        if self.process.returncode is None:
            self.process.returncode = 0  # after a fork: the child belongs to the other process


class WorkerPool:
    """At most `size` children, started when first needed.

    Attributes:
        size: The bound.
    """

    def __init__(self, argv: Callable[[], Sequence[str]], env: dict[str, str], size: int, start_limit: float = 60.0):
        if size < 1:
            raise ValueError(f"a pool needs at least one worker, not {size}")
        self.size, self._argv, self._env, self._start_limit = size, argv, env, start_limit
        self._reset()
        _pools.add(self)

    def _reset(self) -> None:
        self._free = threading.Condition()
        self._idle: list[Worker] = []
        self._busy: set[Worker] = set()
        self._count, self._closed = 0, False

    def ask(self, frames: Sequence[bytes], limit: float) -> bytes:
        """One request to any child; waits for a free one first (that wait is not counted).

        Raises:
            WorkerTimeout: the child was late and has been killed.
            WorkerDied: the child ended on this request, or no child can be started.
        """
        with self.hold_worker() as worker:
            return worker.ask(frames, limit)

    @contextlib.contextmanager
    def hold_worker(self):
        """A child for the caller alone; it is replaced when the block raises."""
        worker = self._acquire()
        good = False
        try:
            yield worker
            good = True
        finally:
            self._release(worker, good)

    def _acquire(self) -> Worker:
        with self._free:
            while not self._idle and self._count >= self.size:
                self._free.wait()
            if self._closed:
                raise WorkerDied("the pool is closed")
            if self._idle:
                worker = self._idle.pop()
                self._busy.add(worker)
                return worker
            self._count += 1
        try:
            worker = Worker(self._argv(), self._env, self._start_limit)
        except BaseException:
            with self._free:
                self._count -= 1
                self._free.notify()
            raise
        with self._free:
            self._busy.add(worker)
        return worker

    def _release(self, worker: Worker, good: bool) -> None:
        if worker.lifeline < 0:  # this process was forked meanwhile: the child is not ours
            return
        good = good and worker.process.poll() is None and not self._closed
        if not good:
            worker.kill_child()
        with self._free:
            self._busy.discard(worker)
            if good:
                self._idle.append(worker)
            else:
                self._count -= 1
            self._free.notify()

    def map_items(self, function: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """`function` of each item in order, as many at a time as there are children."""
        if len(items) < 2 or self.size == 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(min(self.size, len(items)), thread_name_prefix="verifiers") as threads:
            return list(threads.map(function, items))

    def child_pids(self) -> list[int]:
        """Process ids of the living children (idle and busy)."""
        with self._free:
            return [worker.process.pid for worker in (*self._idle, *self._busy)]

    def close(self) -> None:
        """Ends every child; the pool takes no more requests."""
        with self._free:
            self._closed = True
            idle, self._idle = self._idle, []
            busy = list(self._busy)
            self._count -= len(idle)
            self._free.notify_all()
        for worker in idle:
            worker.close()
        for worker in busy:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(worker.process.pid, signal.SIGKILL)


_pools: weakref.WeakSet[WorkerPool] = weakref.WeakSet()
_shared: dict[Hashable, Any] = {}
_lock = threading.Lock()


def shared_object(key: Hashable, build: Callable[[], T]) -> T:
    """The one object of this process under `key`: training and evaluation use the same pool."""
    with _lock:
        if key not in _shared:
            _shared[key] = build()
        return _shared[key]


def close_all() -> None:
    """Ends every pool of this process."""
    pools = list(_pools)  # before the last references to them go
    with _lock:
        _shared.clear()
    for pool in pools:
        pool.close()


def _after_fork() -> None:
    """In a forked child: the workers belong to the parent; this process starts its own when it needs some."""
    global _lock
    _lock = threading.Lock()
    for pool in list(_pools):
        for worker in (*pool._idle, *pool._busy):
            worker.forget_child()
        pool._reset()


atexit.register(close_all)
os.register_at_fork(after_in_child=_after_fork)
